//! What running members make of each other's states.

use std::path::Path;

use model::{
    AgentId, AgentProfile, Command, Entry, Generation, Incarnation, Op, Stamped, State,
    SystemCommand, Timestamp,
};
use raft::parts::{Need, Shelf};
use tokio_util::sync::CancellationToken;

use super::cluster::voters;
use super::fixture::{Fixture, PATIENCE, principal, submit};
use crate::error::Error;
use crate::node::Node;
use crate::{node, quorum};

/// The first index at which members compare whatever they are doing.
const MULTIPLE: u64 = 256;

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_holds_another_state_than_the_majority_stops_and_the_others_go_on() {
    let fixture = Fixture::new();
    let first = fixture.first().await;
    let second = fixture.joining("c2", &first).await;
    let third = fixture.joining("c3", &first).await;
    voters(&fixture, &first, 3).await;
    snapshot(&third).await;
    third.stop().await;
    let config = fixture.config("c3");
    falsify(&config.data_dir);
    let others = [&first, &second];
    commit_past(&others, MULTIPLE).await;

    let stopped = node::run(config, CancellationToken::new());
    let stopped = tokio::time::timeout(PATIENCE, stopped).await.unwrap();
    let Err(Error::Fatal(reason)) = stopped else {
        panic!("{stopped:?}")
    };
    let hash = hex::encode(first.controller.cluster.state_hashes()[&MULTIPLE]);
    for part in [
        "at entry 256 ",
        "and c1, c2, a majority",
        &hash,
        "report it",
    ] {
        assert!(reason.contains(part), "{part} is missing in {reason}");
    }

    let work = submit(&["true"], "", std::time::Duration::ZERO);
    fixture.tasks(&second).submit(work).await.unwrap();
    for other in others {
        assert_eq!(*other.controller.cluster.fatal().borrow(), None);
    }
    tokio::join!(second.stop(), first.stop());
}

async fn snapshot(node: &Node) {
    let cluster = &node.controller.cluster;
    cluster.snapshot().await.unwrap();
    let taken = async {
        while cluster.status().snapshot.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.unwrap();
}

/// Until they have applied more than so many entries, whoever leads.
async fn commit_past(nodes: &[&Node], index: u64) {
    let committed = async {
        while nodes[0].controller.cluster.view().last_applied() <= index {
            for node in nodes {
                let ops = vec![register("a1")];
                // All but the leader refuse.
                let _led = quorum::propose(&node.controller.cluster, ops, Timestamp(0)).await;
            }
        }
    };
    tokio::time::timeout(PATIENCE, committed).await.unwrap();
}

/// Puts another state in the place of the one in a snapshot. All that could be checked by itself is right:
/// checksums, digests, hash and position. Only it is not what the log says.
fn falsify(data_dir: &Path) {
    let shelf = Shelf::open(data_dir).unwrap();
    let snapshot = shelf.current().unwrap();
    let mut position = snapshot.manifest.position().unwrap();
    let right = State::read(snapshot.body().unwrap()).unwrap();
    let found = SystemCommand::Found {
        cluster_id: right.cluster_id().to_owned(),
        generation: Generation(1),
    };
    let entry = Entry {
        stamp: right.time(),
        wall: Timestamp(0),
        ops: vec![Op::System(found), register("a-ghost")],
    };
    let mut wrong = State::default();
    wrong.apply(Stamped {
        index: right.last_applied(),
        term: right.last_term(),
        membership: 0,
        entry,
    });
    assert_ne!(wrong.hash(), right.hash());
    std::fs::remove_dir_all(data_dir.join("snapshots")).unwrap();
    let shelf = Shelf::open(data_dir).unwrap();
    position.segments = Need::of(&wrong);
    let hash = hex::encode(wrong.hash());
    shelf
        .build(&position, &hash, |file| wrong.write(file))
        .unwrap();
}

fn register(agent: &str) -> Op {
    Op::Client {
        principal: principal(agent, model::Role::Agent),
        command: Command::RegisterAgent(AgentProfile {
            id: AgentId::new(agent).unwrap(),
            incarnation: Incarnation([1; 16]),
            slots: 1,
            labels: std::collections::BTreeMap::new(),
            version: "test".to_owned(),
            limits: "rlimit".to_owned(),
            backends: Vec::new(),
            protocol: model::AgentProtocol::FIRST,
            supply: None,
        }),
        placement: None,
        held: None,
    }
}
