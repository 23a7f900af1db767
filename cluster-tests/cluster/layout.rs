//! `cluster.json`, the file in which `quorate dev` says what it runs and where.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;
use crate::faults::process;

/// The format that this harness reads.
const SCHEMA: u32 = 1;

/// A whole development cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Layout {
    pub schema: u32,
    pub cluster_id: String,
    pub controllers: Vec<Controller>,
    pub agents: Vec<Agent>,
    pub ca: PathBuf,
    pub context: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Controller {
    pub id: String,
    /// `None` where it does not run.
    pub pid: Option<i32>,
    pub grpc: String,
    pub raft: String,
    pub https: String,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    pub argv: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Agent {
    pub id: String,
    /// `None` where it does not run.
    pub pid: Option<i32>,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    pub argv: Vec<String>,
}

/// What controllers and agents have in common: a process that can be broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub pid: Option<i32>,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    pub argv: Vec<String>,
}

impl Layout {
    pub fn read(path: &Path) -> Result<Layout, Error> {
        let text = fs::read_to_string(path).map_err(Error::file("reading", path))?;
        Layout::parse(&text).map_err(|reason| Error::format(path, reason))
    }

    pub fn parse(text: &str) -> Result<Layout, String> {
        let layout: Layout = serde_json::from_str(text).map_err(|error| error.to_string())?;
        match layout.schema {
            SCHEMA => Ok(layout),
            other => Err(format!("schema {other}, this harness reads {SCHEMA}")),
        }
    }

    pub fn controller(&self, id: &str) -> Option<&Controller> {
        self.controllers
            .iter()
            .find(|controller| controller.id == id)
    }

    /// Controllers first, then agents.
    pub fn members(&self) -> Vec<Member> {
        let controllers = self.controllers.iter().cloned().map(Member::from);
        controllers
            .chain(self.agents.iter().cloned().map(Member::from))
            .collect()
    }

    pub fn member(&self, id: &str) -> Option<Member> {
        self.members().into_iter().find(|member| member.id == id)
    }
}

impl Member {
    /// Its data directory with its own eyes: it may have a disk that only it sees. `None` where it does not run.
    pub fn directory_inside(&self) -> Option<PathBuf> {
        Some(process::seen_by(self.pid?, &self.data_dir))
    }
}

impl From<Controller> for Member {
    fn from(from: Controller) -> Member {
        let Controller {
            id,
            pid,
            data_dir,
            log,
            argv,
            ..
        } = from;
        Member {
            id,
            pid,
            data_dir,
            log,
            argv,
        }
    }
}

impl From<Agent> for Member {
    fn from(from: Agent) -> Member {
        let Agent {
            id,
            pid,
            data_dir,
            log,
            argv,
        } = from;
        Member {
            id,
            pid,
            data_dir,
            log,
            argv,
        }
    }
}
