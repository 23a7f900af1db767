//! Joining, as far as the handshake goes: to whom a machine speaks that knows a pin and nothing else.

use std::io::{Cursor, Read, Write};
use std::sync::Arc;

use rustls::sign::{CertifiedKey as SigningKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::{
    Alpn, Binding, CERTIFICATE_VALIDITY, Ca, CertifiedKey, Clients, Credentials, Identity,
    JoinToken, KeyFiles, OwnKey, Pin, Role, Trust, pinned_client_config, server_config, tls,
};

const SECRET: &[u8] = b"what nobody else may read";
const LABEL: &[u8] = b"EXPORTER-test";

/// What came of a client that wanted to say [`SECRET`].
struct Met {
    client: Result<Option<Binding>, String>,
    server: Option<Binding>,
    /// What the server could read.
    heard: Vec<u8>,
    leaf: Option<Vec<u8>>,
}

fn meet(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Met {
    let name = ServerName::try_from("host.of.no.meaning").unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    client.writer().write_all(SECRET).unwrap();
    let mut outcome = Ok(());
    let mut heard = Vec::new();
    for _ in 0..4 {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).unwrap();
        }
        server.read_tls(&mut Cursor::new(&flight)).unwrap();
        if server.process_new_packets().is_ok() {
            let _nothing_yet = server.reader().read_to_end(&mut heard);
        }
        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).unwrap();
        }
        let mut cursor = Cursor::new(&flight);
        while outcome.is_ok() && cursor.position() < flight.len() as u64 {
            client.read_tls(&mut cursor).unwrap();
            outcome = client.process_new_packets().map(drop);
        }
    }
    let bound = client.export_keying_material([0; 32], LABEL, None).ok();
    let told = |error: rustls::Error| match error {
        rustls::Error::InvalidCertificate(rustls::CertificateError::Other(why)) => {
            why.0.to_string()
        }
        other => other.to_string(),
    };
    let leaf = client.peer_certificates().and_then(<[_]>::first);
    Met {
        client: outcome.map(|()| bound.map(Binding)).map_err(told),
        leaf: leaf.map(|leaf| leaf.to_vec()),
        server: server
            .export_keying_material([0; 32], LABEL, None)
            .ok()
            .map(Binding),
        heard,
    }
}

fn pin(ca: &Ca) -> Pin {
    Trust::from_pem(ca.pem().as_bytes(), "test")
        .unwrap()
        .pin()
        .unwrap()
}

fn joining(ca: &Ca) -> Arc<ClientConfig> {
    pinned_client_config(&pin(ca), Alpn::H2).unwrap()
}

fn issued(ca: &Ca, role: Role) -> CertifiedKey {
    let identity = Identity::new(ca.cluster(), role, "c1").unwrap();
    ca.issue(&identity, &[], CERTIFICATE_VALIDITY).unwrap()
}

fn serving(ca: &Ca, role: Role) -> Arc<ServerConfig> {
    let issued = issued(ca, role);
    let own = Credentials::from_pem(ca.pem(), &issued.cert_pem, &issued.key_pem).unwrap();
    server_config(&own, Clients::Optional, Alpn::H2).unwrap()
}

/// Shows these certificates, with a key that belongs to the first.
fn showing(own: &CertifiedKey, beside: &str) -> Arc<ServerConfig> {
    let chain = format!("{}{beside}", own.cert_pem);
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(own.key_pem.as_bytes()).unwrap();
    let key = SigningKey::from_der(chain.unwrap(), key, &tls::provider()).unwrap();
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

#[test]
fn a_controller_of_the_pinned_ca_is_spoken_to_and_both_ends_derive_one_binding() {
    let ca = Ca::create("q1").unwrap();
    let met = meet(joining(&ca), serving(&ca, Role::Controller));
    assert_eq!(met.heard, SECRET);
    assert!(met.client.unwrap() == met.server && met.server.is_some());
    let another = meet(joining(&ca), serving(&ca, Role::Controller));
    assert!(another.server != met.server, "each session has its own");
}

#[test]
fn a_proof_of_one_session_proves_nothing_in_another() {
    let ca = Ca::create("q1").unwrap();
    let token = JoinToken::generate(pin(&ca)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let request = OwnKey::load_or_create(dir.path())
        .unwrap()
        .request()
        .unwrap();
    let meeting = || meet(joining(&ca), serving(&ca, Role::Controller));
    let (one, other) = (meeting(), meeting());
    let proof = token.secret.prove(one.client.unwrap().unwrap(), &request);
    let hash = token.secret.hash();
    assert!(hash.is_proven_by(&proof, one.server.unwrap(), &request));
    assert!(!hash.is_proven_by(&proof, other.server.unwrap(), &request));
}

#[test]
fn a_rogue_hears_nothing_whatever_it_shows() {
    let (ours, rogue) = (Ca::create("q1").unwrap(), Ca::create("q1").unwrap());
    let theirs = issued(&rogue, Role::Controller);
    let rogues = [
        ("its own CA", serving(&rogue, Role::Controller)),
        ("no CA", showing(&theirs, "")),
        (
            "the pinned CA beside a certificate of another",
            showing(&theirs, ours.pem()),
        ),
        (
            "both",
            showing(&theirs, &format!("{}{}", rogue.pem(), ours.pem())),
        ),
        (
            "an agent's certificate",
            showing(&issued(&ours, Role::Agent), ours.pem()),
        ),
        (
            "a client's certificate",
            showing(&issued(&ours, Role::Client), ours.pem()),
        ),
    ];
    for (what, server) in rogues {
        let met = meet(joining(&ours), server);
        assert!(met.client.is_err(), "{what}");
        assert!(met.heard.is_empty(), "{what}: {:?}", met.heard);
    }
}

#[test]
fn a_refusal_says_that_it_is_the_pin() {
    let (ours, other) = (Ca::create("q1").unwrap(), Ca::create("q2").unwrap());
    let Err(told) = meet(joining(&ours), serving(&other, Role::Controller)).client else {
        panic!("it was taken")
    };
    assert!(told.contains("the key that the token names"), "{told}");
}

#[test]
fn a_configuration_shows_the_renewed_certificate_without_being_made_again() {
    let ca = Ca::create("q1").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let identity = Identity::new("q1", Role::Controller, "c1").unwrap();
    let issue = || ca.issue(&identity, &[], CERTIFICATE_VALIDITY).unwrap();
    let keys = issue().save(dir.path(), ca.pem()).unwrap();
    let own = Credentials::load(&keys).unwrap();
    let server = server_config(&own.clone(), Clients::Optional, Alpn::H2).unwrap();
    let before = meet(joining(&ca), Arc::clone(&server)).leaf.unwrap();
    issue().save(dir.path(), ca.pem()).unwrap();
    let fresh = Credentials::load(&KeyFiles::in_directory(dir.path())).unwrap();
    own.renew(&fresh).unwrap();
    let after = meet(joining(&ca), server).leaf.unwrap();
    assert_ne!(before, after);
    assert_eq!(own.fingerprint(), crate::Fingerprint::of(&after.into()));
}
