//! What travels on the connections for entries, and when another is made.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt, stream};
use model::ControllerId;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use openraft_rt_tokio::TokioRuntime;
use security::Role;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::harness::{Lab, PATIENCE, Running, commit};
use super::proxy::Edges;
use crate::PeerTls;
use crate::consensus::{Types, Vote};
use crate::member::{LogIdentity, Node};
use crate::membership::Me;
use crate::network::client::{Network, Peer};
use crate::network::dial::Dialer;

type C = Types<TokioRuntime>;

/// What speaks to member 2 as member 1 does; with another log, where one is given.
fn speaker(
    members: &[Running],
    log: Option<LogIdentity>,
    tls: &PeerTls,
    ways: BTreeMap<u64, String>,
) -> (Dialer, Node) {
    let known = members[0].cluster.members();
    let node = |at: usize| Node {
        addresses: known[at].addresses.clone(),
        log: known[at].log,
    };
    let me = Me {
        id: 1,
        cluster_id: members[0].cluster.status().cluster_id,
        generation: model::Generation(1),
        node: Node {
            log: log.unwrap_or(known[0].log),
            ..node(0)
        },
        versions: model::Versions::OF_THIS_RELEASE,
    };
    (Dialer::new(me, tls, ways), node(1))
}

/// Asks whether the other's log begins where every log does.
fn probe(vote: Vote) -> AppendEntriesRequest<C> {
    AppendEntriesRequest {
        vote,
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    }
}

async fn peer(mut network: Network, node: &Node) -> Peer {
    RaftNetworkFactory::<C>::new_client(&mut network, 2, node).await
}

async fn said(
    peer: &mut Peer,
    requests: impl IntoIterator<Item = AppendEntriesRequest<C>>,
) -> Vec<Result<StreamAppendResult<C>, String>> {
    let requests: Vec<_> = requests.into_iter().collect();
    let option = RPCOption::new(Duration::from_millis(100));
    let replies = RaftNetworkV2::<C>::stream_append(peer, stream::iter(requests), option).await;
    let replies = replies
        .unwrap()
        .map(|reply| reply.map_err(|error| error.to_string()));
    tokio::time::timeout(PATIENCE, replies.collect())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_serves_one_stream_after_the_other_until_one_ends_badly() {
    let mut lab = Lab::new("links");
    let members = lab.cluster(2).await;
    let mut edges = Edges::default();
    edges.add(1, 2, lab.addresses(2).raft).await;
    let ways = edges.overrides(1).into_iter();
    let ways = ways.map(|(id, address)| (id.0, address)).collect();
    let (dialer, node) = speaker(&members, None, &lab.tls(1), ways);
    let mut peer = peer(Network::new(dialer), &node).await;
    let term = members[0].cluster.status().leadership.term;
    let leads = Vote::new_committed(term, 1);

    for _ in 0..3 {
        let replies = said(&mut peer, [probe(leads), probe(leads)]).await;
        assert!(
            !replies.is_empty() && replies.iter().all(|reply| *reply == Ok(Ok(None))),
            "{replies:?}"
        );
    }
    assert_eq!(edges.connections(1, 2), 1);

    let old = Vote::new_committed(term - 1, 1);
    let replies = said(&mut peer, [probe(old)]).await;
    assert!(
        matches!(replies[..], [Ok(Err(StreamAppendError::HigherVote(_)))]),
        "{replies:?}"
    );
    let replies = said(&mut peer, [probe(leads)]).await;
    assert_eq!(replies, [Ok(Ok(None))]);
    assert_eq!(edges.connections(1, 2), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_listens_to_the_newest_connection_of_a_sender_alone() {
    let mut lab = Lab::new("newest");
    let members = lab.cluster(2).await;
    let mut edges = Edges::default();
    edges.add(1, 2, lab.addresses(2).raft).await;
    let ways = BTreeMap::from([(2, edges.overrides(1)[&ControllerId(2)].clone())]);
    let (dialer, node) = speaker(&members, None, &lab.tls(1), ways);
    let (one, other) = (Network::new(dialer.clone()), Network::new(dialer));
    let leads = Vote::new_committed(members[0].cluster.status().leadership.term, 1);
    let mut older = peer(one, &node).await;
    let mut newer = peer(other, &node).await;
    assert_eq!(said(&mut older, [probe(leads)]).await, [Ok(Ok(None))]);
    assert_eq!(said(&mut newer, [probe(leads)]).await, [Ok(Ok(None))]);
    assert_eq!(edges.connections(1, 2), 2);

    // The older link is cut, and replaced when it is used again.
    let deadline = Instant::now() + PATIENCE;
    while edges.connections(1, 2) == 2 {
        assert!(Instant::now() < deadline, "the older connection stays");
        said(&mut older, [probe(leads)]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_speak_there_is_told_so() {
    let mut lab = Lab::new("roles");
    let members = lab.cluster(2).await;
    let tls = lab.tls_as(Role::Agent, "a1");
    let (dialer, node) = speaker(&members, None, &tls, BTreeMap::new());
    let mut peer = peer(Network::new(dialer), &node).await;
    let replies = said(&mut peer, [probe(Vote::new_committed(9, 1))]).await;
    let [Err(why)] = &replies[..] else {
        panic!("{replies:?}")
    };
    assert!(why.contains("its role may not connect there"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_log_is_another_is_told_why_nothing_is_taken() {
    let mut lab = Lab::new("refusals");
    let members = lab.cluster(2).await;
    let log = Some(LogIdentity::random());
    let (dialer, node) = speaker(&members, log, &lab.tls(1), BTreeMap::new());
    let mut peer = peer(Network::new(dialer), &node).await;
    let replies = said(&mut peer, [probe(Vote::new_committed(9, 1))]).await;
    let [Err(why)] = &replies[..] else {
        panic!("{replies:?}")
    };
    assert!(why.contains("the log of c1"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_message_end_only_their_connection() {
    let mut lab = Lab::new("garbage");
    let members = lab.cluster(2).await;
    let (dialer, _) = speaker(&members, None, &lab.tls(1), BTreeMap::new());
    let address = lab.addresses(2).raft;
    // A length beyond every limit; a message that is none; a message that the connection's end cuts off.
    let garbage: [&[u8]; 3] = [&[0xff; 4], &[0, 0, 0, 2, 0xff, 0xff], &[0, 0, 0, 9, 1]];
    for bytes in garbage {
        let mut connection = dialer.log_connection(&address).await.unwrap();
        connection.write_all(bytes).await.unwrap();
        connection.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = connection.read_to_end(&mut answer);
        let ended = tokio::time::timeout(PATIENCE, read).await;
        assert!(ended.is_ok() && answer.is_empty(), "{ended:?} {answer:?}");
    }
    commit(&members, "a1").await;
}
