//! Where everything of a development cluster is: directories, ports, ids and command lines.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Wishes;
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::SCHEMA;

/// What was chosen when the cluster was made; a later run continues with it.
pub const SETTINGS: &str = "dev.json";
const DEFAULT_CONTROLLERS: u64 = 3;
const DEFAULT_AGENTS: u64 = 2;
const DEFAULT_BASE_PORT: u16 = 7400;
/// Between the gRPC ports of two controllers.
const PORT_STEP: u64 = 10;
/// Where free ports are looked for: below those that the system hands out by itself.
const FREE_PORTS: std::ops::Range<u16> = 20_000..30_000;
/// Places that are tried before it is said that there is none.
const FREE_PORT_TRIES: u32 = 200;
/// gRPC, Raft, HTTPS.
const PORTS: u64 = 3;

/// Controller or agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Controller,
    Agent,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    schema: u32,
    controllers: u64,
    agents: u64,
    base_port: u16,
    slots: Option<u32>,
    #[serde(default)]
    backends: Vec<String>,
}

/// One development cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub dir: PathBuf,
    /// It was made before, and is continued.
    pub continued: bool,
    pub controllers: u64,
    pub agents: u64,
    pub base_port: u16,
    pub slots: Option<u32>,
    /// Model servers of every agent.
    pub backends: Vec<String>,
    program: PathBuf,
}

impl Layout {
    /// From what is in the directory and what is asked for.
    pub fn resolve(dir: &Path, wishes: Wishes) -> Result<Layout> {
        let program = std::env::current_exe().map_err(|error| {
            Failure::refused("system", format!("where is this program? {error}"), "")
        })?;
        let before = read(dir)?;
        let settings = match &before {
            Some(before) => continued(before, wishes, dir)?,
            None => Settings {
                schema: SCHEMA,
                controllers: wishes.controllers.unwrap_or(DEFAULT_CONTROLLERS),
                agents: wishes.agents.unwrap_or(DEFAULT_AGENTS),
                base_port: wishes.base_port.unwrap_or(DEFAULT_BASE_PORT),
                slots: wishes.slots,
                backends: wishes.backends,
            },
        };
        let mut layout = Layout {
            dir: dir.to_owned(),
            continued: before.is_some(),
            controllers: settings.controllers,
            agents: settings.agents,
            base_port: settings.base_port,
            slots: settings.slots,
            backends: settings.backends,
            program,
        };
        if layout.base_port == 0 {
            layout.base_port = layout.free_base()?;
        }
        if u64::from(layout.base_port) + PORT_STEP * layout.controllers > u64::from(u16::MAX) {
            let message = format!("the ports after {} do not suffice", layout.base_port);
            return Err(Failure::usage(message, "choose a lower --base-port"));
        }
        Ok(layout)
    }

    /// Remembers it; from now on the directory holds a cluster.
    pub fn save(&self) -> Result<()> {
        let settings = Settings {
            schema: SCHEMA,
            controllers: self.controllers,
            agents: self.agents,
            base_port: self.base_port,
            slots: self.slots,
            backends: self.backends.clone(),
        };
        let text = serde_json::to_vec_pretty(&settings)
            .map_err(|error| Failure::refused("system", error, ""))?;
        files::replace(&self.dir.join(SETTINGS), &text)
    }

    pub fn controller_ids(&self) -> Vec<String> {
        (1..=self.controllers)
            .map(|number| format!("c{number}"))
            .collect()
    }

    pub fn agent_ids(&self) -> Vec<String> {
        (1..=self.agents)
            .map(|number| format!("a{number}"))
            .collect()
    }

    pub fn data_dir(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    pub fn identity(&self, id: &str) -> PathBuf {
        self.data_dir(id).join("identity")
    }

    pub fn log(&self, id: &str) -> PathBuf {
        self.dir.join("log").join(format!("{id}.log"))
    }

    /// A member's own settings file, for whoever wants to try some.
    pub fn settings(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.toml"))
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca")
    }

    pub fn admin(&self) -> PathBuf {
        self.dir.join("admin")
    }

    pub fn context(&self) -> PathBuf {
        self.dir.join("context.toml")
    }

    pub fn roster(&self) -> PathBuf {
        self.dir.join("cluster.json")
    }

    /// gRPC, Raft and HTTPS of a controller.
    pub fn addresses(&self, id: &str) -> [String; 3] {
        let base = self.port(id);
        [0, 1, 2].map(|offset| format!("127.0.0.1:{}", base + offset))
    }

    fn port(&self, id: &str) -> u64 {
        let number = id.trim_start_matches('c').parse::<u64>().unwrap_or(1);
        u64::from(self.base_port) + PORT_STEP * (number - 1)
    }

    /// The gRPC addresses of all controllers.
    pub fn grpc(&self) -> Vec<String> {
        self.controller_ids()
            .iter()
            .map(|id| self.addresses(id)[0].clone())
            .collect()
    }

    /// The command line of a member; anybody may run it.
    pub fn argv(&self, part: Part, id: &str) -> Vec<String> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut argv = vec![text(self.program.clone())];
        let mut add = |words: &[&str]| argv.extend(words.iter().map(|word| (*word).to_owned()));
        match part {
            Part::Controller => {
                let [grpc, _, _] = self.addresses(id);
                add(&[
                    "controller",
                    "run",
                    "--config",
                    &text(self.settings(id)),
                    "--id",
                    id,
                ]);
                add(&["--data-dir", &text(self.data_dir(id)), "--listen", &grpc]);
                let others: Vec<String> = self
                    .grpc()
                    .into_iter()
                    .filter(|address| *address != grpc)
                    .collect();
                if id != "c1" {
                    add(&["--join", &others.join(",")]);
                }
            }
            Part::Agent => {
                add(&[
                    "agent",
                    "run",
                    "--config",
                    &text(self.settings(id)),
                    "--id",
                    id,
                ]);
                add(&["--data-dir", &text(self.data_dir(id))]);
                add(&["--controller", &self.grpc().join(",")]);
                if let Some(slots) = self.slots {
                    add(&["--slots", &slots.to_string()]);
                }
                for backend in &self.backends {
                    add(&["--backend", backend]);
                }
            }
        }
        argv
    }

    /// Refuses where another process has one of our ports.
    pub fn check_ports(&self) -> Result<()> {
        for id in self.controller_ids() {
            for address in self.addresses(&id) {
                if let Err(error) = TcpListener::bind(&address) {
                    return Err(port_taken(&address, &error, self));
                }
            }
        }
        Ok(())
    }

    fn free_base(&self) -> Result<u16> {
        let span = u64::from(FREE_PORTS.end - FREE_PORTS.start);
        let needed = PORT_STEP * self.controllers;
        for _ in 0..FREE_PORT_TRIES {
            let draw = uuid::Uuid::new_v4().as_u64_pair().0 % (span - needed);
            let base = FREE_PORTS.start + u16::try_from(draw).unwrap_or(0);
            if (Layout {
                base_port: base,
                ..self.clone()
            })
            .check_ports()
            .is_ok()
            {
                return Ok(base);
            }
        }
        Err(Failure::refused(
            "ports",
            format!(
                "found no {} free ports in a row",
                needed / PORT_STEP * PORTS
            ),
            "give --base-port",
        ))
    }
}

fn port_taken(address: &str, error: &io::Error, layout: &Layout) -> Failure {
    let port = address.rsplit_once(':').map_or(address, |(_, port)| port);
    if error.kind() != io::ErrorKind::AddrInUse {
        let message = format!("cannot listen on {address}: {error}");
        return Failure::refused("port", message, "choose other ports with --base-port");
    }
    let hint = if layout.continued {
        "end that process (`ss -ltnp` shows which): this cluster's addresses are in its log"
            .to_owned()
    } else {
        let other = layout.base_port.saturating_add(100);
        format!(
            "choose other ports, such as --base-port {other}, or end that process (`ss -ltnp` shows which)"
        )
    };
    Failure::refused(
        "port_in_use",
        format!("port {port} is in use by another process"),
        hint,
    )
}

fn read(dir: &Path) -> Result<Option<Settings>> {
    let path = dir.join(SETTINGS);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::file("read", &path, &error)),
    };
    serde_json::from_str(&text).map(Some).map_err(|error| {
        let message = format!("{}: {error}", path.display());
        Failure::refused("config", message, "choose another --dir")
    })
}

/// A cluster that exists can gain members; what is in its log can't be wished away.
fn continued(before: &Settings, wishes: Wishes, dir: &Path) -> Result<Settings> {
    let kept = |what: &str, value: &dyn std::fmt::Display| {
        Failure::refused(
            "exists",
            format!(
                "the cluster in {} has {what} {value}, and that can't change",
                dir.display()
            ),
            "leave that option out, or choose another --dir",
        )
    };
    if wishes
        .base_port
        .is_some_and(|port| port != 0 && port != before.base_port)
    {
        return Err(kept("base port", &before.base_port));
    }
    if wishes
        .controllers
        .is_some_and(|wanted| wanted < before.controllers)
    {
        return Err(kept("controllers:", &before.controllers));
    }
    Ok(Settings {
        controllers: wishes.controllers.unwrap_or(before.controllers),
        agents: wishes.agents.unwrap_or(before.agents),
        slots: wishes.slots.or(before.slots),
        backends: match wishes.backends.is_empty() {
            true => before.backends.clone(),
            false => wishes.backends,
        },
        ..before.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(dir: &Path, wishes: Wishes) -> Result<Layout> {
        Layout::resolve(dir, wishes)
    }

    #[test]
    fn controller_i_has_the_ports_that_are_documented() {
        let home = tempfile::tempdir().unwrap();
        let layout = layout(home.path(), Wishes::default()).unwrap();
        assert_eq!(
            layout.addresses("c1"),
            ["127.0.0.1:7400", "127.0.0.1:7401", "127.0.0.1:7402"]
        );
        assert_eq!(
            layout.addresses("c3"),
            ["127.0.0.1:7420", "127.0.0.1:7421", "127.0.0.1:7422"]
        );
        assert_eq!(layout.controller_ids(), ["c1", "c2", "c3"]);
        assert_eq!(layout.agent_ids(), ["a1", "a2"]);
    }

    #[test]
    fn a_later_run_continues_with_what_was_chosen() {
        let home = tempfile::tempdir().unwrap();
        let wishes = Wishes {
            base_port: Some(19_000),
            slots: Some(4),
            ..Wishes::default()
        };
        let first = layout(home.path(), wishes).unwrap();
        assert!(!first.continued);
        first.save().unwrap();
        let again = layout(
            home.path(),
            Wishes {
                agents: Some(5),
                ..Wishes::default()
            },
        )
        .unwrap();
        assert!(again.continued);
        assert_eq!(
            (again.base_port, again.slots, again.agents),
            (19_000, Some(4), 5)
        );
        let moved = Wishes {
            base_port: Some(19_100),
            ..Wishes::default()
        };
        assert!(
            layout(home.path(), moved)
                .unwrap_err()
                .to_string()
                .contains("19000")
        );
        let fewer = Wishes {
            controllers: Some(1),
            ..Wishes::default()
        };
        assert!(
            layout(home.path(), fewer)
                .unwrap_err()
                .to_string()
                .contains("controllers: 3")
        );
    }

    #[test]
    fn port_0_means_any_free_ones_and_they_stay() {
        let home = tempfile::tempdir().unwrap();
        let wishes = Wishes {
            base_port: Some(0),
            ..Wishes::default()
        };
        let first = layout(home.path(), wishes.clone()).unwrap();
        assert!(FREE_PORTS.contains(&first.base_port));
        first.save().unwrap();
        assert_eq!(
            layout(home.path(), wishes).unwrap().base_port,
            first.base_port
        );
    }

    #[test]
    fn a_port_in_use_is_named_with_a_way_out() {
        let home = tempfile::tempdir().unwrap();
        let wishes = Wishes {
            base_port: Some(0),
            ..Wishes::default()
        };
        let layout = layout(home.path(), wishes).unwrap();
        let _taken = TcpListener::bind(&layout.addresses("c2")[1]).unwrap();
        let failure = layout.check_ports().unwrap_err();
        let port = layout.base_port + 11;
        assert!(failure.message.contains(&port.to_string()), "{failure}");
        assert!(failure.hint.contains("--base-port"), "{failure}");
    }

    #[test]
    fn a_command_line_is_complete() {
        let home = tempfile::tempdir().unwrap();
        let layout = layout(
            home.path(),
            Wishes {
                slots: Some(1),
                ..Wishes::default()
            },
        )
        .unwrap();
        let argv = layout.argv(Part::Controller, "c2").join(" ");
        assert!(argv.contains("controller run"), "{argv}");
        assert!(
            argv.contains("--join 127.0.0.1:7400,127.0.0.1:7420"),
            "{argv}"
        );
        let argv = layout.argv(Part::Agent, "a1").join(" ");
        assert!(argv.ends_with("--slots 1"), "{argv}");
    }
}
