//! What an agent is told when it starts. Read once, checked by [`Config::validate`], then only
//! passed down.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The port where an address names none.
pub const DEFAULT_PORT: u16 = 7400;
/// The longest grace: an agent that stops must not hang for long.
const GRACE_MAX_SECONDS: u64 = 600;
const MIB: u64 = 1024 * 1024;

/// Settings of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Its name, as its certificate says it.
    pub id: String,
    /// `HOST[:PORT]` of at least one controller; the others are learnt from it.
    pub controllers: Vec<String>,
    /// Where it keeps its journal, logs and scratch directories. On a local disk that honours
    /// flushes.
    pub data_dir: PathBuf,
    /// The directory with `ca.pem`, `cert.pem` and `key.pem`. Unset: `identity` in the data
    /// directory.
    pub identity: Option<PathBuf>,
    /// Attempts that run at a time.
    pub slots: u32,
    /// Thousandths of a processor that tasks may ask for. Unset: all that this process may use.
    pub cpu_milli: Option<u32>,
    /// MiB of memory that tasks may ask for. Unset: all that the machine has, and this process may use.
    pub memory_mib: Option<u64>,
    /// The GPUs that tasks may ask for. Unset: those that `nvidia-smi` lists.
    pub gpus: Option<Vec<GpuConfig>>,
    /// What tasks may require.
    pub labels: BTreeMap<String, String>,
    /// The model servers that it gives to the cluster.
    pub backends: Vec<BackendConfig>,
    /// How to dial a controller instead of the address that it advertises: by its id (`c1`) or by
    /// that address.
    pub controller_addresses: BTreeMap<String, String>,
    /// Seconds between SIGTERM and SIGKILL.
    pub grace_seconds: u64,
    /// Hours for which the full output of an attempt is kept.
    pub log_retention_hours: u64,
    /// MiB of output kept of one attempt, both streams together; the oldest goes first.
    pub log_task_mib: u64,
    /// MiB of output kept of all finished attempts; the oldest go first.
    pub log_total_mib: u64,
    /// The PATH of tasks, and where their programs are looked up.
    pub path: String,
    /// The program whose `agent guard` ends what runs here when this process can't: `quorate` itself.
    /// Unset: nobody does. Not a setting of the file; whoever runs the agent says it.
    #[serde(skip)]
    pub guard: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            id: String::new(),
            controllers: Vec::new(),
            data_dir: PathBuf::from("/var/lib/quorate/agent"),
            identity: None,
            slots: cores(),
            cpu_milli: None,
            memory_mib: None,
            gpus: None,
            labels: BTreeMap::new(),
            backends: Vec::new(),
            controller_addresses: BTreeMap::new(),
            grace_seconds: 10,
            log_retention_hours: 7 * 24,
            log_task_mib: 64,
            log_total_mib: 20 * 1024,
            path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            guard: None,
        }
    }
}

/// A GPU that tasks may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuConfig {
    /// Its memory, in MiB.
    pub vram_mib: u64,
    /// What it is called in `CUDA_VISIBLE_DEVICES`; unset: its place in the list, from 0.
    #[serde(default)]
    pub name: Option<String>,
}

/// An OpenAI-compatible server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendConfig {
    /// `http://host:8080`; a path in front of `/v1` is fine.
    pub url: String,
    /// What it is called; unset: host and port.
    #[serde(default)]
    pub name: Option<String>,
    /// Its API key, in a file that only its owner can read.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
}

/// What each is called.
pub(crate) fn gpu_names(gpus: &[GpuConfig]) -> Vec<String> {
    let numbered = gpus.iter().enumerate();
    let names = numbered.map(|(place, gpu)| gpu.name.clone().unwrap_or(place.to_string()));
    names.collect()
}

/// As many as this process may use.
pub(crate) fn cores() -> u32 {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    u32::try_from(cores)
        .unwrap_or(model::SLOTS_MAX)
        .min(model::SLOTS_MAX)
}

/// A setting that can't be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting} = {given:?}: {why}")]
pub struct Invalid {
    pub setting: &'static str,
    pub given: String,
    pub why: String,
}

impl Invalid {
    pub(crate) fn new(setting: &'static str, given: impl ToString, why: impl ToString) -> Invalid {
        Invalid {
            setting,
            given: given.to_string(),
            why: why.to_string(),
        }
    }
}

impl Config {
    /// Everything that can be known to be wrong without touching disk or network.
    pub fn validate(&self) -> Result<(), Invalid> {
        model::AgentId::new(&self.id).map_err(|error| Invalid::new("id", &self.id, error))?;
        if self.controllers.is_empty() {
            return Err(Invalid::new(
                "controllers",
                "",
                "name at least one controller",
            ));
        }
        for address in &self.controllers {
            check_address("controllers", address)?;
        }
        for address in self.controller_addresses.values() {
            check_address("controller_addresses", address)?;
        }
        if self.slots == 0 || self.slots > model::SLOTS_MAX {
            let why = format!("an agent has 1 to {} slots", model::SLOTS_MAX);
            return Err(Invalid::new("slots", self.slots, why));
        }
        self.validate_supply()?;
        model::validate_labels(&self.labels)
            .map_err(|error| Invalid::new("labels", format!("{:?}", self.labels), error))?;
        if self.backends.len() > model::BACKENDS_MAX {
            let why = format!("an agent has at most {} back ends", model::BACKENDS_MAX);
            return Err(Invalid::new("backends", self.backends.len(), why));
        }
        if self.grace_seconds > GRACE_MAX_SECONDS {
            let why = format!("at most {GRACE_MAX_SECONDS} seconds");
            return Err(Invalid::new("grace_seconds", self.grace_seconds, why));
        }
        if self.log_task_mib == 0 {
            let why = "at least 1 MiB: output is served from there while a task runs";
            return Err(Invalid::new("log_task_mib", 0, why));
        }
        if self.path.is_empty() || self.path.contains('\0') {
            return Err(Invalid::new(
                "path",
                &self.path,
                "no program could be found in it",
            ));
        }
        Ok(())
    }

    fn validate_supply(&self) -> Result<(), Invalid> {
        if let Some(cpu) = self.cpu_milli.filter(|it| *it > model::CPU_MILLI_MAX) {
            let why = format!("an agent has at most {}", model::CPU_MILLI_MAX);
            return Err(Invalid::new("cpu_milli", cpu, why));
        }
        if let Some(memory) = self.memory_mib.filter(|it| *it > model::MEMORY_MIB_MAX) {
            let why = format!("an agent has at most {}", model::MEMORY_MIB_MAX);
            return Err(Invalid::new("memory_mib", memory, why));
        }
        let gpus = self.gpus.as_deref().unwrap_or_default();
        if gpus.len() > model::GPUS_MAX {
            let why = format!("an agent has at most {} GPUs", model::GPUS_MAX);
            return Err(Invalid::new("gpus", gpus.len(), why));
        }
        for gpu in gpus {
            if gpu.vram_mib == 0 || gpu.vram_mib > model::VRAM_MIB_MAX {
                let why = format!("a GPU has 1 to {} MiB", model::VRAM_MIB_MAX);
                return Err(Invalid::new("gpus.vram_mib", gpu.vram_mib, why));
            }
            // It is one word of a list.
            let bad = |name: &String| name.is_empty() || name.contains([',', '\0']);
            if let Some(name) = gpu.name.as_ref().filter(|name| bad(name)) {
                let why = "a GPU's name is a word without a comma";
                return Err(Invalid::new("gpus.name", name, why));
            }
        }
        let mut names = BTreeSet::new();
        for name in gpu_names(gpus) {
            if !names.insert(name.clone()) {
                let why =
                    "two GPUs can't be one: each has a name of its own, or its place in the list";
                return Err(Invalid::new("gpus.name", name, why));
            }
        }
        Ok(())
    }

    /// The directory of its certificate and key.
    pub fn identity_dir(&self) -> PathBuf {
        self.identity
            .clone()
            .unwrap_or_else(|| self.data_dir.join("identity"))
    }

    /// The controllers that are named, each with a port.
    pub fn controller_dials(&self) -> Vec<String> {
        self.controllers
            .iter()
            .map(|address| with_port(address))
            .collect()
    }

    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds)
    }

    pub(crate) fn log_limits(&self, dir: &Path) -> crate::output::Limits {
        crate::output::Limits {
            dir: dir.to_owned(),
            per_attempt: self.log_task_mib.saturating_mul(MIB),
            total: self.log_total_mib.saturating_mul(MIB),
            retention: Duration::from_secs(self.log_retention_hours.saturating_mul(3600)),
        }
    }
}

fn check_address(setting: &'static str, address: &str) -> Result<(), Invalid> {
    let bad = |why: &str| Err(Invalid::new(setting, address, why));
    if address.contains("://") || address.contains(char::is_whitespace) {
        return bad("an address is HOST or HOST:PORT, without a scheme");
    }
    match with_port(address).rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) => {
            Ok(())
        }
        _ => bad("an address is HOST or HOST:PORT, such as 10.0.0.1:7400"),
    }
}

/// An address with its port, also where none was given. IPv6 addresses stand in brackets.
pub(crate) fn with_port(address: &str) -> String {
    let bare_v6 = address.parse::<std::net::Ipv6Addr>().is_ok();
    let has_port = !bare_v6
        && address
            .rsplit_once(':')
            .is_some_and(|(_, p)| !p.ends_with(']'));
    match (bare_v6, has_port) {
        (true, _) => format!("[{address}]:{DEFAULT_PORT}"),
        (false, true) => address.to_owned(),
        (false, false) => format!("{address}:{DEFAULT_PORT}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Config {
        let controllers = vec![
            "10.0.0.1".into(),
            "[::1]:7400".into(),
            "c3.example:7400".into(),
        ];
        Config {
            id: "a1".into(),
            controllers,
            ..Config::default()
        }
    }

    #[test]
    fn a_plain_config_is_valid() {
        assert_eq!(good().validate(), Ok(()));
        assert!(Config::default().slots >= 1);
    }

    #[test]
    fn what_can_not_be_is_named() {
        type Change = fn(&mut Config);
        let gpu = |vram_mib, name: &str| GpuConfig {
            vram_mib,
            name: Some(name.to_owned()),
        };
        let cases: [(&str, Change); 9] = [
            ("id", |c| c.id = "A 1".into()),
            ("controllers", |c| c.controllers.clear()),
            ("controllers", |c| c.controllers = vec!["https://c1".into()]),
            ("controllers", |c| c.controllers = vec!["c1:0".into()]),
            ("slots", |c| c.slots = 0),
            ("slots", |c| c.slots = 1_000_000),
            ("labels", |c| {
                c.labels.insert("a b".into(), "x".into());
            }),
            ("controller_addresses", |c| {
                c.controller_addresses.insert("c1".into(), ":7".into());
            }),
            ("grace_seconds", |c| c.grace_seconds = 100_000),
        ];
        for (setting, change) in cases {
            let mut config = good();
            change(&mut config);
            assert_eq!(config.validate().unwrap_err().setting, setting);
        }
        let cases = [
            ("gpus", vec![gpu(1, "a"); model::GPUS_MAX + 1]),
            ("gpus.vram_mib", vec![gpu(0, "a")]),
            ("gpus.name", vec![gpu(1, "a,b")]),
            ("gpus.name", vec![gpu(1, "a"), gpu(1, "a")]),
        ];
        for (setting, gpus) in cases {
            let mut config = good();
            config.gpus = Some(gpus);
            assert_eq!(config.validate().unwrap_err().setting, setting);
        }
    }

    #[test]
    fn a_port_is_added_where_none_is_given() {
        assert_eq!(with_port("c1"), "c1:7400");
        assert_eq!(with_port("c1:80"), "c1:80");
        assert_eq!(with_port("::1"), "[::1]:7400");
        assert_eq!(with_port("[::1]"), "[::1]:7400");
        assert_eq!(with_port("[::1]:80"), "[::1]:80");
    }
}
