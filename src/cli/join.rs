//! `--join TOKEN`: a machine without a certificate becomes one of the cluster, before it starts.
//!
//! ```text
//!  key.pem ─► TLS, pin checked in the handshake ─► request, proof ─► joined.json, ca.pem, cert.pem
//! ```
//!
//! The key is on disk before anybody hears of it, and the certificate comes last. So whatever is cut short is
//! done again with the same key, to which the cluster gives the same answer; and where there is a good
//! certificate, the machine has joined and the token is not looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use security::{Alpn, Binding, Credentials, JoinToken, KeyFiles, OwnKey, Role};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use wire::client::Settings;
use wire::status::{Code, Failure as Refusal, Reaction};
use wire::v1;

use crate::client::{refused, runtime};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::SCHEMA;

/// How long to look for a controller that can let it in: failovers, and a cluster that is just being started.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);
/// What the cluster said of itself, beside the certificate.
const SAID: &str = "joined.json";
const LOCK: &str = "joining.lock";

/// What a machine asks for.
pub struct Newcomer {
    pub role: Role,
    /// What it wants to be called; empty where the cluster is to say.
    pub name: String,
    /// Whether somebody said that name, rather than the machine's own being used.
    pub insists: bool,
    /// Controllers, with their ports.
    pub addresses: Vec<String>,
    /// Names for a controller's certificate.
    pub hosts: Vec<String>,
    pub identity: PathBuf,
}

/// What the cluster said when the machine joined; nothing where it came by other means.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    schema: u32,
    /// gRPC addresses of the controllers at that time.
    pub controllers: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

impl Said {
    pub fn read(identity: &Path) -> Result<Said> {
        let path = identity.join(SAID);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Said::default());
            }
            Err(error) => return Err(Failure::file("read", &path, &error)),
        };
        serde_json::from_slice(&text).map_err(|error| {
            let message = format!("{}: {error}", path.display());
            Failure::refused(
                "file",
                message,
                "remove it: it is only a help to find the controllers",
            )
        })
    }

    fn write(&self, identity: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Failure::refused("system", error, ""))?;
        files::replace(&identity.join(SAID), &text)
    }
}

/// Joins, unless this machine has.
pub fn join(token: &JoinToken, newcomer: &Newcomer) -> Result<()> {
    let keys = KeyFiles::in_directory(&newcomer.identity);
    if keys.cert.exists() {
        match Credentials::load(&keys) {
            Ok(known) => {
                info!(identity = %known.identity(), "has joined already: the join token is not used");
                return Ok(());
            }
            // It was away for too long to renew it; its key may be certified anew.
            Err(error @ security::Error::Invalid { .. }) => warn!(%error, "joins again"),
            Err(error) => return Err(error.into()),
        }
    }
    if newcomer.addresses.is_empty() {
        let hint = "give --controller HOST:7400 of one that runs";
        return Err(Failure::usage("whom is it to join?", hint));
    }
    let _alone = alone(&newcomer.identity)?;
    runtime()?.block_on(ask_all(token, newcomer))
}

/// Two processes that join in one directory would each write over the other's certificate.
fn alone(identity: &Path) -> Result<Flock<std::fs::File>> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let mut private = std::fs::DirBuilder::new();
    let made = private.recursive(true).mode(0o700).create(identity);
    made.map_err(|error| Failure::file("create", identity, &error))?;
    let path = identity.join(LOCK);
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path);
    let file = file.map_err(|error| Failure::file("open", &path, &error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        let message = format!(
            "{} is in use ({error}): another process joins there",
            path.display()
        );
        Failure::refused(
            "locked",
            message,
            "stop that one, or give this one another --data-dir",
        )
    })
}

/// Each controller in turn, until one lets it in or says that it won't.
async fn ask_all(token: &JoinToken, newcomer: &Newcomer) -> Result<()> {
    let key = OwnKey::load_or_create(&newcomer.identity)?;
    let begun = Instant::now();
    let mut told = String::new();
    loop {
        let mut last = None;
        for address in &newcomer.addresses {
            let refusal = match ask(token, newcomer, &key, address).await? {
                Ok(reply) => return accept(token, newcomer, &key, reply),
                Err(refusal) => refusal,
            };
            if !may_pass(&refusal) {
                return Err(explained(&refusal, address));
            }
            let reason = refusal.to_string();
            if reason != told {
                warn!(%reason, "could not join yet, and goes on asking");
                told = reason;
            }
            last = Some(refusal);
        }
        if let Some(refusal) = last.filter(|_| begun.elapsed() > PATIENCE) {
            return Err(refused(&refusal).with_exit(Exit::Unknown));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask(
    token: &JoinToken,
    newcomer: &Newcomer,
    key: &OwnKey,
    address: &str,
) -> Result<std::result::Result<v1::EnrolReply, Refusal>> {
    let request = key.request()?;
    let tls = security::pinned_client_config(&token.pin, Alpn::H2)?;
    let make = |binding| {
        let proof = token.secret.prove(Binding(binding), &request);
        v1::EnrolRequest {
            token: token.id.clone(),
            role: newcomer.role.as_str().to_owned(),
            name: newcomer.name.clone(),
            proof: proof.to_vec().into(),
            hosts: newcomer.hosts.clone(),
            request: request.clone().into(),
        }
    };
    Ok(wire::client::enrol(address, tls, Settings::default(), make).await)
}

/// Whether the same may fare better in a moment, here or elsewhere. To ask again is safe whatever became of
/// the request.
fn may_pass(refusal: &Refusal) -> bool {
    match refusal.code.reaction() {
        Reaction::Unavailable | Reaction::Unknown => true,
        Reaction::Rejected => refusal.code == Code::OverLimit,
        Reaction::Fatal => false,
    }
}

fn explained(refusal: &Refusal, address: &str) -> Failure {
    if refusal.code != Code::NotTrusted {
        return refused(refusal);
    }
    let message = format!("{refusal}; nothing was sent to {address}");
    let hint = "check the address, and that the token was made in that very cluster; if both are right, somebody \
                else answers there";
    Failure::refused(refusal.code.as_str(), message, hint)
}

/// Only what was asked for: the CA that the token names, and a certificate for this key and role.
fn accept(
    token: &JoinToken,
    newcomer: &Newcomer,
    key: &OwnKey,
    reply: v1::EnrolReply,
) -> Result<()> {
    if newcomer.insists && reply.name != newcomer.name {
        let message = format!(
            "the token is for {}, and --id says {}",
            reply.name, newcomer.name
        );
        return Err(Failure::refused(
            "name",
            message,
            "leave out --id, or use another token",
        ));
    }
    if !token.pin.is_among(&reply.ca_pem) {
        return Err(crate::client::malformed(
            "another CA than the one that it was checked by",
        ));
    }
    let labels = reply
        .labels
        .into_iter()
        .map(|label| (label.key, label.value));
    let said = Said {
        schema: SCHEMA,
        controllers: reply.controllers.into_iter().map(|one| one.grpc).collect(),
        labels: labels.collect(),
    };
    said.write(&newcomer.identity)?;
    let held = key.certified(&reply.ca_pem, &reply.cert_pem)?;
    info!(identity = %held.identity(), "joined");
    Ok(())
}

/// What a machine is called that nobody has named: its host name, as far as names here go.
pub fn host_name() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    named_after(&text)
}

fn named_after(host: &str) -> String {
    let first = host.trim().split('.').next().unwrap_or_default();
    let lower = first.to_lowercase();
    let name = lower.chars().map(|letter| match letter {
        'a'..='z' | '0'..='9' | '_' | '-' => letter,
        _ => '-',
    });
    let name: String = name
        .collect::<String>()
        .trim_start_matches(['-', '_'])
        .to_owned();
    name.chars().take(63).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_name_becomes_an_agents_name() {
        for (host, name) in [
            ("worker7\n", "worker7"),
            ("Worker-7.Site.example", "worker-7"),
            ("-odd name", "odd-name"),
            ("", ""),
        ] {
            assert_eq!(named_after(host), name);
        }
        assert!(model::AgentId::new(&named_after(&"x".repeat(300))).is_ok());
    }

    #[test]
    fn what_the_cluster_said_is_read_back_and_need_not_be_there() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Said::read(dir.path()).unwrap(), Said::default());
        let said = Said {
            schema: SCHEMA,
            controllers: vec!["c1:7400".into()],
            labels: BTreeMap::from([("site".into(), "berlin".into())]),
        };
        said.write(dir.path()).unwrap();
        assert_eq!(Said::read(dir.path()).unwrap(), said);
    }

    #[test]
    fn only_one_process_joins_in_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = alone(dir.path()).unwrap();
        assert_eq!(alone(dir.path()).unwrap_err().code, "locked");
        drop(first);
        alone(dir.path()).unwrap();
    }
}
