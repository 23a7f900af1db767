//! Who gets what without a certificate, and with one: enrolments, renewals, the CA's key.

use std::fs;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use security::{Alpn, Binding, CertificateRequest, Identity, JoinToken, OwnKey, Role};
use tonic::transport::Channel;
use wire::client::Settings;
use wire::status::{Code, Failure};
use wire::v1;
use wire::v1::agents_client::AgentsClient;
use wire::v1::cluster_client::ClusterClient;
use wire::v1::identities_client::IdentitiesClient;
use wire::v1::join_tokens_client::JoinTokensClient;
use wire::v1::tasks_client::TasksClient;

use super::agent::FakeAgent;
use super::fixture::{Fixture, PATIENCE, code, follows, leads};
use crate::node::Node;

const HOUR: Duration = Duration::from_secs(3600);

async fn new_token(fixture: &Fixture, node: &Node, uses: u32) -> JoinToken {
    let trust = fixture.credentials(Role::Client, "ada").trust().clone();
    let token = JoinToken::generate(trust.pin().unwrap()).unwrap();
    let request = v1::CreateJoinTokenRequest {
        id: token.id.clone(),
        secret_hash: token.secret.hash().0.to_vec().into(),
        role: "agent".into(),
        uses,
        ttl_ms: 600_000,
        validity_ms: 3_600_000,
        ..v1::CreateJoinTokenRequest::default()
    };
    let channel = fixture.channel(node, Role::Client, "ada");
    JoinTokensClient::new(channel)
        .create(request)
        .await
        .unwrap();
    token
}

/// A machine's request, whose proof may be for another connection than the one that it is sent on.
async fn enrol(
    node: &Node,
    token: &JoinToken,
    key: &OwnKey,
    other: Option<Binding>,
) -> Result<v1::EnrolReply, Failure> {
    let request = key.request().unwrap();
    let tls = security::pinned_client_config(&token.pin, Alpn::H2).unwrap();
    let make = |binding| {
        let binding = other.unwrap_or(Binding(binding));
        v1::EnrolRequest {
            token: token.id.clone(),
            role: "agent".into(),
            name: "a7".into(),
            proof: token.secret.prove(binding, &request).to_vec().into(),
            request: request.clone().into(),
            hosts: Vec::new(),
        }
    };
    let address = &node.controller.addresses.grpc;
    wire::client::enrol(address, tls, Settings::default(), make).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_nothing_is_open_but_to_join() {
    let fixture = Fixture::new();
    fixture.give_authority("c1");
    let node = fixture.first().await;
    let nobody = || fixture.anonymous(&node);
    let refused = [
        TasksClient::new(nobody())
            .list(v1::ListTasksRequest::default())
            .await
            .unwrap_err(),
        ClusterClient::new(nobody())
            .status(v1::StatusRequest {})
            .await
            .unwrap_err(),
        AgentsClient::new(nobody())
            .list(v1::ListAgentsRequest {})
            .await
            .unwrap_err(),
        JoinTokensClient::new(nobody())
            .list(v1::ListJoinTokensRequest {})
            .await
            .unwrap_err(),
        IdentitiesClient::new(nobody())
            .authority(v1::AuthorityRequest {})
            .await
            .unwrap_err(),
        IdentitiesClient::new(nobody())
            .renew(v1::RenewRequest::default())
            .await
            .unwrap_err(),
        IdentitiesClient::new(nobody())
            .admit(v1::AdmitRequest::default())
            .await
            .unwrap_err(),
    ];
    for status in refused {
        assert_eq!(code(&status), Code::Unauthenticated, "{status}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_is_for_its_own_connection_and_whatever_is_wrong_sounds_the_same() {
    let fixture = Fixture::new();
    fixture.give_authority("c1");
    let node = fixture.first().await;
    let key = OwnKey::load_or_create(&fixture.scratch("machine")).unwrap();
    let token = new_token(&fixture, &node, 1).await;
    let elsewhere = enrol(&node, &token, &key, Some(Binding([7; 32])))
        .await
        .unwrap_err();
    assert_eq!(elsewhere.code, Code::Unauthenticated);
    let trust = fixture.credentials(Role::Client, "ada").trust().clone();
    let unknown = JoinToken::generate(trust.pin().unwrap()).unwrap();
    assert_eq!(
        enrol(&node, &unknown, &key, None).await.unwrap_err(),
        elsewhere
    );
    let guessed = JoinToken {
        id: token.id.clone(),
        ..unknown
    };
    assert_eq!(
        enrol(&node, &guessed, &key, None).await.unwrap_err(),
        elsewhere
    );

    let reply = enrol(&node, &token, &key, None).await.unwrap();
    assert_eq!(reply.name, "a7");
    let held = key.certified(&reply.ca_pem, &reply.cert_pem).unwrap();
    assert_eq!(held.identity().to_string(), "spiffe://q-test/agent/a7");
    assert!(held.validity().life().abs_diff(HOUR) < Duration::from_secs(3));

    tokio::time::sleep(Duration::from_secs(1)).await;
    let again = enrol(&node, &token, &key, None).await.unwrap();
    assert_eq!(again.name, "a7");
    let other = OwnKey::load_or_create(&fixture.scratch("other")).unwrap();
    assert_eq!(
        enrol(&node, &token, &other, None).await.unwrap_err(),
        elsewhere
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_may_try_five_times_a_second() {
    let fixture = Fixture::new();
    fixture.give_authority("c1");
    let node = fixture.first().await;
    let key = OwnKey::load_or_create(&fixture.scratch("machine")).unwrap();
    let trust = fixture.credentials(Role::Client, "ada").trust().clone();
    let unknown = JoinToken::generate(trust.pin().unwrap()).unwrap();
    let tries = (0..30).map(|_| enrol(&node, &unknown, &key, None));
    let outcomes = futures::future::join_all(tries).await;
    let slowed = outcomes.into_iter().map(Result::unwrap_err);
    let slowed = slowed
        .filter(|failure| failure.code == Code::OverLimit)
        .count();
    assert!(slowed >= 15, "{slowed} of 30 were told to wait");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_the_ca_is_for_voters_alone_and_each_of_them_gets_it() {
    let fixture = Fixture::new();
    fixture.give_authority("c1");
    let first = fixture.first().await;
    let strangers = [
        (Role::Client, "ada"),
        (Role::Agent, "a1"),
        (Role::Controller, "c9"),
    ];
    for (role, id) in strangers {
        let channel = fixture.channel(&first, role, id);
        let asked = IdentitiesClient::new(channel)
            .authority(v1::AuthorityRequest {})
            .await;
        assert_eq!(code(&asked.unwrap_err()), Code::Forbidden, "{id}");
    }
    // Nor by the word of a controller: it speaks for itself here.
    let second = fixture.joining("c2", &first).await;
    follows(&second).await;
    let has_it = async {
        while second.controller.authority.get().is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, has_it).await.unwrap();
    let kept = second.controller.authority.get().unwrap();
    assert_eq!(kept.pem(), fixture.ca().pem());
    let key = OwnKey::load_or_create(&fixture.scratch("machine")).unwrap();
    let token = new_token(&fixture, &first, 1).await;
    assert!(
        enrol(&second, &token, &key, None).await.is_ok(),
        "a follower lets machines in too"
    );
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_takes_the_key_of_the_ca_before_another_one_goes() {
    let fixture = Fixture::new();
    fixture.give_authority("c1");
    let first = fixture.first().await;
    // The second one can't keep it: there is something else.
    let place = fixture.scratch("c2").join("ca");
    fs::create_dir_all(fixture.scratch("c2")).unwrap();
    fs::write(&place, "").unwrap();
    let second = fixture.joining("c2", &first).await;
    let handed_over = async {
        let to = || "c2".to_owned();
        // Only one with a vote is given it.
        while fixture
            .cluster(&first)
            .transfer_leadership(v1::TransferLeadershipRequest { to: to() })
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        leads(&second).await;
    };
    tokio::time::timeout(PATIENCE, handed_over).await.unwrap();
    let remove = async || {
        let id = "c1".to_owned();
        fixture
            .cluster(&second)
            .remove(v1::RemoveRequest { id })
            .await
    };
    assert_eq!(code(&remove().await.unwrap_err()), Code::Busy);
    fs::remove_file(&place).unwrap();
    remove().await.unwrap();
    let kept = second.controller.authority.get().unwrap();
    assert_eq!(kept.pem(), fixture.ca().pem());
    second.stop().await;
    first.stop().await;
}

fn asks(channel: Channel, key: &OwnKey) -> impl Future<Output = Result<String, Code>> {
    let request = key.request().unwrap().into();
    async move {
        let reply = IdentitiesClient::new(channel)
            .renew(v1::RenewRequest { request })
            .await;
        let reply = reply.map_err(|status| code(&status))?;
        Ok(reply.into_inner().cert_pem)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_is_for_the_same_key_of_somebody_whom_the_cluster_knows() {
    let fixture = Fixture::new();
    fixture.give_authority("c1");
    let node = fixture.first().await;
    let key = OwnKey::load_or_create(&fixture.scratch("machine")).unwrap();
    let identity = Identity::new("q-test", Role::Agent, "a1").unwrap();
    let request = CertificateRequest::from_der(&key.request().unwrap()).unwrap();
    let issued = fixture
        .ca()
        .sign_request(&request, &identity, &[], HOUR)
        .unwrap();
    let held = key.certified(fixture.ca().pem(), &issued).unwrap();
    let expected = security::Expected::any(Role::Controller);
    let tls = security::client_config(&held, expected, Alpn::H2).unwrap();
    let timers = wire::transport::Timers::default();
    let own = || wire::transport::channel(&node.controller.addresses.grpc, tls.clone(), timers);
    assert_eq!(
        asks(own(), &key).await,
        Err(Code::Forbidden),
        "nobody knows it yet"
    );

    let _agent = FakeAgent::connect(&fixture, &node, "a1").await;
    // Its hello is on the way; what counts is the entry that it becomes.
    let id = model::AgentId::new("a1").unwrap();
    let registered = async {
        while node.controller.cluster.view().agent(&id).is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, registered).await.unwrap();
    let fresh = asks(own(), &key).await.unwrap();
    let leaf = CertificateDer::from_pem_slice(fresh.as_bytes()).unwrap();
    assert_eq!(security::identify(&leaf).unwrap().0, identity);
    assert_eq!(security::key_hash(&leaf).unwrap(), key.key_hash());
    let life = security::validity(&leaf).unwrap();
    assert!(life.abs_diff(HOUR) < Duration::from_secs(3), "{life:?}");

    let other = OwnKey::load_or_create(&fixture.scratch("other")).unwrap();
    assert_eq!(
        asks(own(), &other).await,
        Err(Code::Forbidden),
        "another key"
    );
    for (role, id) in [(Role::Client, "ada"), (Role::Controller, "c9")] {
        let channel = fixture.channel(&node, role, id);
        assert_eq!(asks(channel, &key).await, Err(Code::Forbidden), "{id}");
    }
    node.stop().await;
}
