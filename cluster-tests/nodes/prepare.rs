//! From nothing to directories with which controllers and agents can be started, by an administrator's
//! steps: `cluster init` for the first, certificates of its authority for the others.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use security::{Ca, Identity, Role};

use crate::Error;
use crate::cluster::Cli;
use crate::network::{Backend, CLIENT, Network, Service};
use crate::nodes::Node;

/// Where everything of a cluster is, and who is in it.
#[derive(Debug)]
pub struct Plan<'a> {
    pub directory: &'a Path,
    pub network: &'a Network,
    pub controllers: &'a [String],
    pub agents: &'a [String],
    pub slots: u32,
    pub snapshot_every: Option<u64>,
    pub keep_behind_snapshot: Option<u64>,
}

/// Where the n-th agent stands, counted from 0: it says so in its label `zone`.
pub fn zone(number: u64) -> &'static str {
    match number % 3 {
        0 => "a",
        1 => "b",
        _ => "c",
    }
}

impl Plan<'_> {
    /// Makes the directories, and the nodes by their ids; nothing runs yet.
    pub async fn carry_out(&self, cli: &Cli) -> Result<BTreeMap<String, Node>, Error> {
        let log = self.directory.join("log");
        fs::create_dir_all(&log).map_err(Error::file("creating", &log))?;
        for id in self.controllers {
            self.write_settings("controller", id)?;
        }
        for id in self.agents {
            self.write_settings("agent", id)?;
        }
        self.init(cli).await?;
        let ca = Ca::load(&self.directory.join("ca"))?;
        if let Some(first) = self.controllers.first() {
            // So that machines can join; the others get it from this one.
            ca.keep(&self.data_dir(first).join("ca"))?;
        }
        let mut nodes = BTreeMap::new();
        for id in self.controllers {
            if Some(id) != self.controllers.first() {
                self.issue(&ca, Role::Controller, id)?;
            }
            nodes.insert(id.clone(), self.controller(cli, id));
        }
        for (number, id) in (0..).zip(self.agents) {
            self.issue(&ca, Role::Agent, id)?;
            nodes.insert(id.clone(), self.agent(cli, (number, id)));
        }
        let context = |dial: &dyn Fn(&str) -> String| {
            let addresses: Vec<String> = self.controllers.iter().map(|id| dial(id)).collect();
            format!(
                "addresses = {addresses:?}\nca = \"admin/ca.pem\"\ncert = \"admin/cert.pem\"\n\
                 key = \"admin/key.pem\"\n"
            )
        };
        let within = context(&|id| self.network.dial(CLIENT, id, Service::Grpc));
        let outside = context(&|id| self.network.dial_from_outside(id, Service::Grpc));
        self.write("context.toml", &within)?;
        self.write("outside.toml", &outside)?;
        Ok(nodes)
    }

    async fn init(&self, cli: &Cli) -> Result<(), Error> {
        let Some(first) = self.controllers.first() else {
            return Err(Error::Invalid("a cluster without controllers".to_owned()));
        };
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let (data_dir, ca) = (self.data_dir(first), self.directory.join("ca"));
        let arguments = [
            ["--config", &text(self.settings(first))],
            ["--id", first],
            ["--data-dir", &text(data_dir.clone())],
            ["--ca", &text(ca)],
            ["--admin", &text(self.directory.join("admin"))],
            ["--advertise", &self.network.listen(first)],
        ];
        let arguments: Vec<&str> = ["cluster", "init"]
            .into_iter()
            .chain(arguments.into_iter().flatten())
            .collect();
        cli.expect(&arguments).await.map(drop)
    }

    fn issue(&self, ca: &Ca, role: Role, id: &str) -> Result<(), Error> {
        let identity = Identity::new(ca.cluster(), role, id)?;
        let key = ca.issue(&identity, &[], security::CERTIFICATE_VALIDITY)?;
        key.save(&self.data_dir(id).join("identity"), ca.pem())?;
        Ok(())
    }

    fn controller(&self, cli: &Cli, id: &str) -> Node {
        let mut argv = self.common(cli, "controller", id);
        argv.extend(["--listen".to_owned(), self.network.listen(id)]);
        let others = self.dials(id);
        if !others.is_empty() {
            argv.extend(["--controller".to_owned(), others.join(",")]);
        }
        self.node(id, argv)
    }

    fn agent(&self, cli: &Cli, (number, id): (u64, &str)) -> Node {
        let mut argv = self.common(cli, "agent", id);
        argv.extend(["--controller".to_owned(), self.dials(id).join(",")]);
        argv.extend(["--slots".to_owned(), self.slots.to_string()]);
        argv.extend(["--label".to_owned(), format!("zone={}", zone(number))]);
        self.node(id, argv)
    }

    /// Its certificate says what it is called.
    fn common(&self, cli: &Cli, role: &str, id: &str) -> Vec<String> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let words = [
            [role, "run"],
            ["--config", &text(&self.settings(id))],
            ["--data-dir", &text(&self.data_dir(id))],
        ];
        let words = words.into_iter().flatten().map(str::to_owned);
        [text(cli.binary())].into_iter().chain(words).collect()
    }

    fn node(&self, id: &str, argv: Vec<String>) -> Node {
        let log = self.directory.join("log").join(format!("{id}.log"));
        Node::new(id, argv, self.data_dir(id), log)
    }

    /// Where a node dials the gRPC ports of all other controllers.
    fn dials(&self, from: &str) -> Vec<String> {
        let others = self.controllers.iter().filter(|to| *to != from);
        others
            .map(|to| self.network.dial(from, to, Service::Grpc))
            .collect()
    }

    /// How to dial others, where that is not as they say themselves.
    fn write_settings(&self, role: &str, id: &str) -> Result<(), Error> {
        let tables: &[(&str, Service)] = match (self.network.backend(), role) {
            (Backend::Direct | Backend::Namespaces, _) => &[],
            (Backend::Proxies, "controller") => &[
                ("peer_addresses", Service::Raft),
                ("peer_grpc_addresses", Service::Grpc),
            ],
            (Backend::Proxies, _) => &[("controller_addresses", Service::Grpc)],
        };
        let mut text = format!("# Settings of {id}, beside those on its command line.\n");
        if role == "controller" {
            text.push_str("[controller]\n");
            let settings = [
                ("snapshot_every", self.snapshot_every),
                ("keep_behind_snapshot", self.keep_behind_snapshot),
            ];
            for (name, value) in settings {
                let line = value.map(|value| format!("{name} = {value}\n"));
                text.push_str(&line.unwrap_or_default());
            }
        }
        for (table, service) in tables {
            text.push_str(&format!("[{role}.{table}]\n"));
            for to in self.controllers.iter().filter(|to| *to != id) {
                text.push_str(&format!(
                    "{to} = {:?}\n",
                    self.network.dial(id, to, *service)
                ));
            }
        }
        self.write(&format!("{id}.toml"), &text)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Error> {
        let path = self.directory.join(name);
        fs::write(&path, text).map_err(Error::file("writing", &path))
    }

    fn settings(&self, id: &str) -> PathBuf {
        self.directory.join(format!("{id}.toml"))
    }

    fn data_dir(&self, id: &str) -> PathBuf {
        self.directory.join(id)
    }
}
