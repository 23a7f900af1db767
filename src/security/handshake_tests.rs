//! Whole handshakes between our configurations, in memory: who gets in, who does not, and what each
//! side is told. No sockets, so nothing here can be slow or flaky.

use std::io::{Cursor, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use rustls::sign::{CertifiedKey as SigningKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::tls;
use crate::{
    Alpn, CERTIFICATE_VALIDITY, Ca, CertifiedKey, Clients, Credentials, Expected, Identity, Role,
    anonymous_client_config, client_config, identify, server_config,
};

/// What each side ended with: `Ok` is a finished handshake, and the text is of its own error.
struct Ends {
    client: Result<(), String>,
    server: Result<Option<Identity>, String>,
    alpn: Option<Vec<u8>>,
}

fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Ends {
    let name = ServerName::try_from("host.of.no.meaning").unwrap();
    let mut client = ClientConnection::new(client, name).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    let (mut client_end, mut server_end) = (Ok(()), Ok(()));
    // A TLS 1.3 handshake takes three flights and an alert one more; each round carries two.
    for _ in 0..4 {
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).unwrap();
        }
        if server_end.is_ok() {
            server.read_tls(&mut Cursor::new(&flight)).unwrap();
            server_end = server
                .process_new_packets()
                .map(drop)
                .map_err(|error| told(&error));
        }
        let mut flight = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut flight).unwrap();
        }
        let mut cursor = Cursor::new(&flight);
        while client_end.is_ok() && cursor.position() < flight.len() as u64 {
            client.read_tls(&mut cursor).unwrap();
            client_end = client
                .process_new_packets()
                .map(drop)
                .map_err(|error| told(&error));
        }
    }
    if client_end.is_ok() && server_end.is_ok() {
        assert!(!client.is_handshaking() && !server.is_handshaking());
    }
    let peer = server.peer_certificates().and_then(<[_]>::first);
    let peer = peer.map(|certificate| identify(certificate).unwrap().0);
    let alpn = server.alpn_protocol().map(<[u8]>::to_vec);
    Ends {
        client: client_end,
        server: server_end.map(|()| peer),
        alpn,
    }
}

/// The sentence of our own verifier where there is one: rustls wraps it twice.
fn told(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(reason)) => reason.0.to_string(),
        other => other.to_string(),
    }
}

fn credentials(ca: &Ca, role: Role, id: &str) -> Credentials {
    let identity = Identity::new(ca.cluster(), role, id).unwrap();
    let issued = ca.issue(&identity, &[], CERTIFICATE_VALIDITY).unwrap();
    Credentials::from_pem(ca.pem(), &issued.cert_pem, &issued.key_pem).unwrap()
}

fn dial(credentials: &Credentials, expected: Expected) -> Arc<ClientConfig> {
    client_config(credentials, expected, Alpn::H2).unwrap()
}

fn controllers_only(credentials: &Credentials) -> Arc<ServerConfig> {
    server_config(
        credentials,
        Clients::required(&[Role::Controller]),
        Alpn::H2,
    )
    .unwrap()
}

fn anybody(credentials: &Credentials) -> Arc<ServerConfig> {
    server_config(credentials, Clients::Optional, Alpn::H2).unwrap()
}

/// A server that shows any certificate at all, as a liar would.
fn lying_server(shown: &CertifiedKey) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(signing_key(shown))));
    Arc::new(config)
}

/// A client that shows any certificate at all, and checks the server as it should.
fn lying_client(shown: &CertifiedKey, ca: &Ca) -> Arc<ClientConfig> {
    let honest = credentials(ca, Role::Client, "honest");
    let mut config = (*dial(&honest, Expected::any(Role::Controller))).clone();
    config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(signing_key(shown)));
    Arc::new(config)
}

fn signing_key(shown: &CertifiedKey) -> SigningKey {
    let chain = CertificateDer::pem_slice_iter(shown.cert_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(shown.key_pem.as_bytes()).unwrap();
    SigningKey::from_der(chain, key, &tls::provider()).unwrap()
}

fn with_uris(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    params
}

#[test]
fn members_of_one_cluster_reach_each_other_and_the_server_learns_who_it_is() {
    let ca = Ca::create("q1").unwrap();
    let c1 = credentials(&ca, Role::Controller, "c1");
    let c2 = credentials(&ca, Role::Controller, "c2");
    let ends = shake(
        dial(&c2, Expected::exactly(Role::Controller, "c1")),
        controllers_only(&c1),
    );
    assert_eq!(ends.client, Ok(()));
    assert_eq!(ends.server, Ok(Some(c2.identity().clone())));
    assert_eq!(ends.alpn.as_deref(), Some(&b"h2"[..]));
}

#[test]
fn agents_and_clients_are_refused_where_a_controller_is_required() {
    let ca = Ca::create("q1").unwrap();
    let c1 = credentials(&ca, Role::Controller, "c1");
    for role in [Role::Agent, Role::Client] {
        let other = credentials(&ca, role, "c2");
        let ends = shake(
            dial(&other, Expected::any(Role::Controller)),
            controllers_only(&c1),
        );
        assert!(ends.client.unwrap_err().contains("AccessDenied"));
        assert!(ends.server.is_err());
    }
}

#[test]
fn a_client_without_a_certificate_is_refused_only_where_one_is_required() {
    let ca = Ca::create("q1").unwrap();
    let c1 = credentials(&ca, Role::Controller, "c1");
    let nobody =
        anonymous_client_config(c1.trust(), Expected::any(Role::Controller), Alpn::H2).unwrap();
    let ends = shake(Arc::clone(&nobody), controllers_only(&c1));
    assert!(ends.server.is_err());
    assert!(ends.client.unwrap_err().contains("CertificateRequired"));
    assert_eq!(shake(nobody, anybody(&c1)).server, Ok(None));
}

#[test]
fn an_optional_certificate_must_be_a_good_one() {
    let (ca, other) = (Ca::create("q1").unwrap(), Ca::create("q1").unwrap());
    let c1 = credentials(&ca, Role::Controller, "c1");
    let a1 = credentials(&ca, Role::Agent, "a1");
    let ends = shake(dial(&a1, Expected::any(Role::Controller)), anybody(&c1));
    assert_eq!(ends.server, Ok(Some(a1.identity().clone())));

    let identity = Identity::new("q1", Role::Agent, "a1").unwrap();
    let foreign = other.issue(&identity, &[], CERTIFICATE_VALIDITY).unwrap();
    let ends = shake(lying_client(&foreign, &ca), anybody(&c1));
    assert!(ends.server.is_err());
    assert!(ends.client.unwrap_err().contains("UnknownCA"));
}

#[test]
fn an_agent_or_client_posing_as_a_controller_is_refused_by_whoever_dials() {
    let ca = Ca::create("q1").unwrap();
    let a1 = credentials(&ca, Role::Agent, "a1");
    for role in [Role::Agent, Role::Client] {
        // As issued, its certificate is not even good for a server.
        let identity = Identity::new("q1", role, "c1").unwrap();
        let issued = ca.issue(&identity, &[], CERTIFICATE_VALIDITY).unwrap();
        let ends = shake(
            dial(&a1, Expected::any(Role::Controller)),
            lying_server(&issued),
        );
        assert!(ends.client.is_err() && ends.server.is_err());
        // And if it were, the role in its name still tells.
        let uri = format!("spiffe://q1/{role}/c1");
        let stronger = ca.sign(&with_uris(&[&uri]));
        let ends = shake(
            dial(&a1, Expected::any(Role::Controller)),
            lying_server(&stronger),
        );
        let error = ends.client.unwrap_err();
        assert!(
            error.contains(&uri) && error.contains("only role controller"),
            "{error}"
        );
    }
}

#[test]
fn a_controller_that_is_not_the_expected_one_is_refused() {
    let ca = Ca::create("q1").unwrap();
    let c1 = credentials(&ca, Role::Controller, "c1");
    let c2 = credentials(&ca, Role::Controller, "c2");
    let ends = shake(
        dial(&c2, Expected::exactly(Role::Controller, "c3")),
        controllers_only(&c1),
    );
    let error = ends.client.unwrap_err();
    assert!(error.contains("controller c3 was expected"), "{error}");
}

#[test]
fn another_cluster_is_refused_by_both_sides_even_under_the_same_name() {
    for name in ["q1", "q2"] {
        let (ours, other) = (Ca::create("q1").unwrap(), Ca::create(name).unwrap());
        let c1 = credentials(&ours, Role::Controller, "c1");
        let foreign = credentials(&other, Role::Controller, "c2");
        let ends = shake(
            dial(&foreign, Expected::any(Role::Controller)),
            controllers_only(&c1),
        );
        let error = ends.client.unwrap_err();
        assert!(error.contains("not issued by the CA of cluster"), "{error}");

        let identity = Identity::new(name, Role::Controller, "c2").unwrap();
        let shown = other.issue(&identity, &[], CERTIFICATE_VALIDITY).unwrap();
        let ends = shake(lying_client(&shown, &ours), controllers_only(&c1));
        assert!(ends.server.is_err());
        assert!(ends.client.unwrap_err().contains("UnknownCA"));
    }
}

#[test]
fn a_certificate_from_our_ca_that_names_another_cluster_is_refused() {
    let ca = Ca::create("q1").unwrap();
    let c1 = credentials(&ca, Role::Controller, "c1");
    let shown = ca.sign(&with_uris(&["spiffe://q2/controller/c1"]));
    let ends = shake(
        dial(&c1, Expected::any(Role::Controller)),
        lying_server(&shown),
    );
    assert!(ends.client.unwrap_err().contains("speaks for cluster q2"));
    assert!(
        shake(lying_client(&shown, &ca), controllers_only(&c1))
            .server
            .is_err()
    );
}

#[test]
fn a_certificate_with_no_or_two_or_odd_identities_is_refused_on_both_sides() {
    let ca = Ca::create("q1").unwrap();
    let c1 = credentials(&ca, Role::Controller, "c1");
    for uris in [
        &[][..],
        &["spiffe://q1/controller/c2", "spiffe://q1/agent/a1"],
        &["spiffe://q1/controller/c2", "https://example.org"],
        &["spiffe://q1/controller"],
        &["https://q1/controller/c2"],
        &["spiffe://q1/controller/c2/more"],
    ] {
        let shown = ca.sign(&with_uris(uris));
        let ends = shake(
            dial(&c1, Expected::any(Role::Controller)),
            lying_server(&shown),
        );
        assert!(ends.client.is_err(), "{uris:?}");
        let ends = shake(lying_client(&shown, &ca), controllers_only(&c1));
        assert!(ends.server.is_err(), "{uris:?}");
        let ends = shake(lying_client(&shown, &ca), anybody(&c1));
        assert!(ends.server.is_err(), "{uris:?}");
    }
}

#[test]
fn expired_and_future_certificates_are_refused_on_both_sides() {
    let ca = Ca::create("q1").unwrap();
    let c1 = credentials(&ca, Role::Controller, "c1");
    let identity = Identity::new("q1", Role::Controller, "c2").unwrap();
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    for (from, until, word) in [
        (now - 3 * hour, now - hour, "expired"),
        (now + hour, now + 3 * hour, "becomes valid"),
    ] {
        let shown = ca.issue_between(&identity, &[], from, until).unwrap();
        let ends = shake(
            dial(&c1, Expected::any(Role::Controller)),
            lying_server(&shown),
        );
        let error = ends.client.unwrap_err();
        assert!(error.contains(word), "{error}");
        let ends = shake(lying_client(&shown, &ca), controllers_only(&c1));
        assert!(ends.server.is_err());
        assert!(ends.client.unwrap_err().contains("CertificateExpired"));
    }
}

#[test]
fn a_machine_whose_clock_is_hours_behind_accepts_a_fresh_certificate() {
    let ca = Ca::create("q1").unwrap();
    let identity = Identity::new("q1", Role::Agent, "a1").unwrap();
    let issued = ca.issue(&identity, &[], CERTIFICATE_VALIDITY).unwrap();
    let der = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
    let earlier = SystemTime::now() - Duration::from_secs(12 * 3600);
    let since_epoch = earlier.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let then = rustls_pki_types::UnixTime::since_unix_epoch(since_epoch);
    let trust = crate::Trust::from_pem(ca.pem().as_bytes(), "test").unwrap();
    assert!(
        crate::verify::Chain::new(&trust)
            .check_own(&der, &[], then)
            .is_ok()
    );
}

#[test]
fn both_roots_are_accepted_while_one_replaces_the_other() {
    let (old, new) = (Ca::create("q1").unwrap(), Ca::create("q1").unwrap());
    let both = format!("{}{}", old.pem(), new.pem());
    let [c1, c2] = [(&old, "c1"), (&new, "c2")].map(|(ca, id)| {
        let identity = Identity::new("q1", Role::Controller, id).unwrap();
        let issued = ca.issue(&identity, &[], CERTIFICATE_VALIDITY).unwrap();
        Credentials::from_pem(&both, &issued.cert_pem, &issued.key_pem).unwrap()
    });
    for (one, other) in [(&c1, &c2), (&c2, &c1)] {
        let ends = shake(
            dial(one, Expected::any(Role::Controller)),
            controllers_only(other),
        );
        assert_eq!(ends.server, Ok(Some(one.identity().clone())));
    }
}

#[test]
fn no_session_ticket_is_sent() {
    let ca = Ca::create("q1").unwrap();
    let config = anybody(&credentials(&ca, Role::Controller, "c1"));
    assert_eq!(
        (config.send_tls13_tickets, config.max_tls13_tickets),
        (0, 0)
    );
    assert!(!config.session_storage.can_cache());
    assert!(!config.ticketer.enabled());
}

#[test]
fn tls_1_2_is_refused() {
    let ca = Ca::create("q1").unwrap();
    let server = anybody(&credentials(&ca, Role::Controller, "c1"));
    let mut server = ServerConnection::new(server).unwrap();
    server
        .read_tls(&mut Cursor::new(tls12_client_hello()))
        .unwrap();
    let error = server.process_new_packets().unwrap_err();
    assert!(
        matches!(error, rustls::Error::PeerIncompatible(_)),
        "{error}"
    );
    let mut alert = Vec::new();
    server.write_tls(&mut alert).unwrap();
    // An alert record, fatal, protocol_version.
    assert_eq!((alert[0], &alert[5..]), (21, &[2, 70][..]));
    assert!(server.reader().read(&mut [0; 1]).is_err());
}

/// A well-formed hello that offers TLS 1.2 and no more: random, one ECDHE suite, P-256, ECDSA.
fn tls12_client_hello() -> Vec<u8> {
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 23, // supported_groups: secp256r1
        0, 11, 0, 2, 1, 0, // ec_point_formats: uncompressed
        0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms: ecdsa_secp256r1_sha256
        0, 23, 0, 0, // extended_master_secret
    ];
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
    body.extend(extensions);
    let mut hello = vec![1, 0];
    hello.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    hello.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend(u16::try_from(hello.len()).unwrap().to_be_bytes());
    record.extend(hello);
    record
}
