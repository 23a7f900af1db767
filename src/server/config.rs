//! What a controller is told when it starts. Read once, checked by [`Config::validate`], then only
//! passed down; nothing here changes while it runs, and `apply` sees none of it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The port where neither `listen` nor an address of another controller names one.
pub const DEFAULT_PORT: u16 = 7400;
/// Raft and HTTPS follow the gRPC port.
const RAFT_OFFSET: u16 = 1;
const HTTPS_OFFSET: u16 = 2;
const DEFAULT_RAFT_PORT: u16 = DEFAULT_PORT + RAFT_OFFSET;

/// How fast a silent leader is replaced. Every controller of a cluster needs the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One site: heartbeat 100 ms, election after 300 to 600 ms.
    #[default]
    Lan,
    /// Several sites, up to about 150 ms apart: heartbeat 500 ms, election after 1.5 to 3 s.
    Wan,
}

/// Settings of one controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its name, such as `c1`. Never used again once the controller is gone.
    #[serde(with = "by_name")]
    pub id: model::ControllerId,
    /// Where it keeps its log, snapshots and identity. On a local disk that honours flushes.
    pub data_dir: PathBuf,
    /// `HOST[:PORT]` to listen on: gRPC on PORT (7400), Raft on PORT + 1, HTTPS on PORT + 2.
    /// Port 0 takes any three free ones.
    pub listen: String,
    /// `HOST[:PORT]` under which others reach it, with the same three ports. Empty: as `listen`.
    pub advertise: String,
    /// gRPC addresses of controllers to ask for membership, while it has none.
    pub join: Vec<String>,
    /// How fast a silent leader is replaced.
    pub timers: Profile,
    /// `HOST[:PORT]` (7401): how to dial another member's Raft port instead of the address that it
    /// advertises.
    #[serde(with = "map_by_name")]
    pub peer_addresses: BTreeMap<model::ControllerId, String>,
    /// The same for its gRPC port (7400), where requests are forwarded to and members are asked.
    #[serde(with = "map_by_name")]
    pub peer_grpc_addresses: BTreeMap<model::ControllerId, String>,
    /// Log entries between two snapshots.
    pub snapshot_every: u64,
    /// Entries that stay in the log behind a snapshot.
    pub keep_behind_snapshot: Option<u64>,
    /// Finished tasks that stay in memory; older ones are read from the archive. Of this and the other
    /// `archive_` settings the leader's count: give every controller the same.
    pub archive_hot_tasks: u64,
    /// Log entries of one segment of the archive.
    pub archive_segment_entries: u64,
    /// How long the archive keeps finished tasks and events.
    pub archive_max_age_seconds: u64,
    /// Bytes of records that it keeps at most.
    pub archive_max_bytes: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            id: model::ControllerId(0),
            data_dir: PathBuf::from("/var/lib/quorate/controller"),
            listen: format!("0.0.0.0:{DEFAULT_PORT}"),
            advertise: String::new(),
            join: Vec::new(),
            timers: Profile::default(),
            peer_addresses: BTreeMap::new(),
            peer_grpc_addresses: BTreeMap::new(),
            snapshot_every: 50_000,
            keep_behind_snapshot: None,
            archive_hot_tasks: model::HOT_TASKS,
            archive_segment_entries: model::SEGMENT_ENTRIES,
            archive_max_age_seconds: model::ARCHIVE_AGE.0 / 1_000,
            archive_max_bytes: model::ARCHIVE_BYTES,
        }
    }
}

/// A setting that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} = {given:?}: {why}")]
pub struct Invalid {
    pub setting: &'static str,
    pub given: String,
    pub why: String,
}

impl Config {
    /// What the archive keeps, in the model's words.
    pub fn retention(&self) -> model::Retention {
        model::Retention {
            hot_tasks: self.archive_hot_tasks,
            segment_entries: self.archive_segment_entries,
            max_age: model::Millis(self.archive_max_age_seconds.saturating_mul(1_000)),
            max_bytes: self.archive_max_bytes,
            ..model::Retention::default()
        }
    }

    /// Everything that can be known to be wrong without touching disk or network.
    pub fn validate(&self) -> Result<(), Invalid> {
        let wrong = |setting, given: &dyn ToString, why: &str| {
            Err(Invalid {
                setting,
                given: given.to_string(),
                why: why.to_owned(),
            })
        };
        if self.id.0 == 0 {
            return wrong(
                "id",
                &self.id,
                "every controller needs an id of its own: c1, c2, …",
            );
        }
        if self.data_dir.as_os_str().is_empty() {
            return wrong("data_dir", &"", "say where the log is to be kept");
        }
        if self.snapshot_every < SNAPSHOT_EVERY_MIN {
            let why = format!("at least {SNAPSHOT_EVERY_MIN} entries, or it does nothing else");
            return wrong("snapshot_every", &self.snapshot_every, &why);
        }
        if let Err(rejected) = self.retention().validate() {
            let why = rejected.to_string();
            return wrong("archive_…", &"the limits of the archive", &why);
        }
        self.listen_on()?;
        let advertised = self.advertised(&self.listen_on()?)?;
        if is_unspecified(&host_of(&advertised.grpc)) {
            let why = "others can't dial this; give the host name or address that they can reach";
            return wrong("advertise", &advertised.grpc, why);
        }
        for address in &self.join {
            Endpoint::parse("join", address)?;
        }
        for (setting, map) in [
            ("peer_addresses", &self.peer_addresses),
            ("peer_grpc_addresses", &self.peer_grpc_addresses),
        ] {
            for address in map.values() {
                Endpoint::parse(setting, address)?;
            }
        }
        Ok(())
    }

    /// The three addresses to bind.
    pub fn listen_on(&self) -> Result<model::Addresses, Invalid> {
        Endpoint::parse("listen", &self.listen)?.three("listen", &self.listen)
    }

    /// The three addresses that others are told, given those that were bound.
    pub fn advertised(&self, bound: &model::Addresses) -> Result<model::Addresses, Invalid> {
        if self.advertise.is_empty() {
            return Ok(bound.clone());
        }
        let named = Endpoint::parse("advertise", &self.advertise)?;
        if named.port.is_some_and(|port| port != 0) {
            return named.three("advertise", &self.advertise);
        }
        let with_port = |address: &str| format!("{}:{}", named.host, port_of(address));
        Ok(model::Addresses {
            grpc: with_port(&bound.grpc),
            raft: with_port(&bound.raft),
            https: with_port(&bound.https),
        })
    }

    /// The addresses to ask for membership, each with a port.
    pub fn join_addresses(&self) -> Vec<String> {
        let given = self.join.iter();
        given
            .filter_map(|given| with_port(given, DEFAULT_PORT))
            .collect()
    }

    /// Where to dial the Raft ports of others, each with a port.
    pub fn raft_overrides(&self) -> BTreeMap<model::ControllerId, String> {
        all_with_port(&self.peer_addresses, DEFAULT_RAFT_PORT)
    }

    /// Where to dial the gRPC ports of others, each with a port.
    pub fn grpc_overrides(&self) -> BTreeMap<model::ControllerId, String> {
        all_with_port(&self.peer_grpc_addresses, DEFAULT_PORT)
    }
}

/// Entries; a snapshot writes the whole state.
const SNAPSHOT_EVERY_MIN: u64 = 64;

/// `HOST[:PORT]`; an IPv6 host stands in brackets where a port follows.
struct Endpoint {
    host: String,
    port: Option<u16>,
}

impl Endpoint {
    fn parse(setting: &'static str, given: &str) -> Result<Endpoint, Invalid> {
        let wrong = |why: &str| Invalid {
            setting,
            given: given.to_owned(),
            why: why.to_owned(),
        };
        let bare_ipv6 = given.parse::<std::net::Ipv6Addr>().is_ok();
        let (host, port) = match given.rsplit_once(':') {
            Some((host, port)) if !bare_ipv6 && !given.ends_with(']') => (host, Some(port)),
            _ => (given, None),
        };
        let host = if bare_ipv6 {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        if host.is_empty() || host.contains('/') || host.contains(char::is_whitespace) {
            return Err(wrong("HOST or HOST:PORT is expected, without a scheme"));
        }
        let port = port.map(str::parse::<u16>).transpose();
        let port = port.map_err(|_| wrong("the port is not a number from 0 to 65535"))?;
        Ok(Endpoint { host, port })
    }

    fn three(&self, setting: &'static str, given: &str) -> Result<model::Addresses, Invalid> {
        let grpc = self.port.unwrap_or(DEFAULT_PORT);
        let at = |offset: u16| {
            let port = if grpc == 0 {
                Some(0)
            } else {
                grpc.checked_add(offset)
            };
            port.map(|port| format!("{}:{port}", self.host))
                .ok_or_else(|| Invalid {
                    setting,
                    given: given.to_owned(),
                    why: format!("the ports after it are needed too, up to {}", u16::MAX),
                })
        };
        Ok(model::Addresses {
            grpc: at(0)?,
            raft: at(RAFT_OFFSET)?,
            https: at(HTTPS_OFFSET)?,
        })
    }
}

/// Nothing where it is no address, which [`Config::validate`] finds.
fn with_port(given: &str, port: u16) -> Option<String> {
    let at = Endpoint::parse("address", given).ok()?;
    Some(format!("{}:{}", at.host, at.port.unwrap_or(port)))
}

fn all_with_port(
    given: &BTreeMap<model::ControllerId, String>,
    port: u16,
) -> BTreeMap<model::ControllerId, String> {
    let given = given.iter();
    given
        .filter_map(|(id, address)| Some((*id, with_port(address, port)?)))
        .collect()
}

fn host_of(address: &str) -> String {
    address
        .rsplit_once(':')
        .map_or(address, |(host, _)| host)
        .to_owned()
}

fn port_of(address: &str) -> &str {
    address.rsplit_once(':').map_or("", |(_, port)| port)
}

fn is_unspecified(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_unspecified())
}

/// Controllers are named `c1` in files, as everywhere.
mod by_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(id: &model::ControllerId, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(id)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<model::ControllerId, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(D::Error::custom)
    }
}

mod map_by_name {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    type Map = BTreeMap<model::ControllerId, String>;

    pub fn serialize<S: Serializer>(map: &Map, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(map.iter().map(|(id, address)| (id.to_string(), address)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Map, D::Error> {
        let named = BTreeMap::<String, String>::deserialize(input)?;
        let parsed = named
            .into_iter()
            .map(|(id, address)| Ok((id.parse()?, address)));
        parsed
            .collect::<Result<Map, model::ParseIdError>>()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listen: &str, advertise: &str) -> Config {
        Config {
            id: model::ControllerId(1),
            listen: listen.into(),
            advertise: advertise.into(),
            ..Config::default()
        }
    }

    #[test]
    fn one_address_names_three_ports() {
        let three = config("127.0.0.1:7410", "").listen_on().unwrap();
        assert_eq!(three.grpc, "127.0.0.1:7410");
        assert_eq!(three.raft, "127.0.0.1:7411");
        assert_eq!(three.https, "127.0.0.1:7412");
        assert_eq!(
            config("db.local", "").listen_on().unwrap().raft,
            "db.local:7401"
        );
        assert_eq!(config("::1", "").listen_on().unwrap().grpc, "[::1]:7400");
        assert_eq!(
            config("[::1]:9000", "").listen_on().unwrap().https,
            "[::1]:9002"
        );
    }

    #[test]
    fn an_advertised_host_takes_the_ports_that_were_bound() {
        let bound = model::Addresses {
            grpc: "0.0.0.0:40001".into(),
            raft: "0.0.0.0:40007".into(),
            https: "0.0.0.0:40003".into(),
        };
        let told = config("0.0.0.0:0", "host7").advertised(&bound).unwrap();
        assert_eq!(
            (told.grpc.as_str(), told.raft.as_str()),
            ("host7:40001", "host7:40007")
        );
        let told = config("0.0.0.0:0", "host7:500").advertised(&bound).unwrap();
        assert_eq!(
            (told.grpc.as_str(), told.https.as_str()),
            ("host7:500", "host7:502")
        );
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_name_of_the_setting() {
        for (wrong, setting) in [
            (config("127.0.0.1:65534", ""), "listen"),
            (config("http://127.0.0.1", ""), "listen"),
            (config("127.0.0.1:x", ""), "listen"),
            (config("0.0.0.0:7400", ""), "advertise"),
            (config("127.0.0.1", "[::]:7400"), "advertise"),
            (
                Config {
                    join: vec!["".into()],
                    ..config("127.0.0.1", "")
                },
                "join",
            ),
            (
                Config {
                    id: model::ControllerId(0),
                    ..config("127.0.0.1", "")
                },
                "id",
            ),
            (
                Config {
                    snapshot_every: 1,
                    ..config("127.0.0.1", "")
                },
                "snapshot_every",
            ),
            (
                Config {
                    archive_segment_entries: 0,
                    ..config("127.0.0.1", "")
                },
                "archive_…",
            ),
        ] {
            assert_eq!(wrong.validate().unwrap_err().setting, setting);
        }
        assert_eq!(config("127.0.0.1", "").validate(), Ok(()));
    }

    #[test]
    fn an_override_without_a_port_means_the_usual_one() {
        let given = |address: &str| [(model::ControllerId(2), address.to_owned())].into();
        let config = Config {
            peer_addresses: given("proxy"),
            peer_grpc_addresses: given("::1"),
            ..config("127.0.0.1", "")
        };
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.raft_overrides(), given("proxy:7401"));
        assert_eq!(config.grpc_overrides(), given("[::1]:7400"));
        let with_port = Config {
            peer_addresses: given("proxy:1"),
            ..config
        };
        assert_eq!(with_port.raft_overrides(), given("proxy:1"));
    }

    #[test]
    fn unknown_keys_are_refused_and_controllers_are_named() {
        let text = r#"{"id":"c2","peer_addresses":{"c1":"proxy:1"}}"#;
        let read: Config = serde_json::from_str(text).unwrap();
        assert_eq!(read.id, model::ControllerId(2));
        assert_eq!(read.peer_addresses[&model::ControllerId(1)], "proxy:1");
        assert!(serde_json::from_str::<Config>(r#"{"lisen":"x"}"#).is_err());
        assert!(serde_json::from_str::<Config>(r#"{"id":"2"}"#).is_err());
    }
}
