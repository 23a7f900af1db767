//! What `quorate cluster status -o json` says.

use serde::Deserialize;

use crate::Error;
use crate::cluster::cli::Cli;

/// The cluster as the asked member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    pub cluster_id: String,
    pub leader: Option<String>,
    pub term: u64,
    pub stale: bool,
    pub members: Vec<MemberStatus>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MemberStatus {
    pub id: String,
    pub role: String,
    pub state: String,
    /// These are `None` where the member can't be reached.
    pub applied: Option<u64>,
    pub lag: Option<u64>,
    pub state_hash: Option<String>,
    pub hash_index: Option<u64>,
    pub hash_at: Option<String>,
}

impl Status {
    pub async fn ask(cli: &Cli) -> Result<Status, Error> {
        let value = cli.json(&["cluster", "status"]).await?;
        Status::parse(value)
    }

    /// What one controller says, whether or not it can ask a quorum.
    pub async fn ask_at(cli: &Cli, address: &str) -> Result<Status, Error> {
        let asked = ["cluster", "status", "--addr", address, "-o", "json"];
        let done = cli.run(&asked).await?;
        match serde_json::from_slice(&done.stdout) {
            // It says so by its exit code, too.
            Ok(value) if matches!(done.code, Some(0 | 2)) => Status::parse(value),
            Ok(_) | Err(_) => Err(done.failure()),
        }
    }

    pub fn parse(value: serde_json::Value) -> Result<Status, Error> {
        serde_json::from_value(value).map_err(|error| Error::Command {
            command: "cluster status -o json".to_owned(),
            code: "0, but not what cli.md promises".to_owned(),
            stderr: error.to_string(),
        })
    }

    /// The leader, where a quorum agrees that there is one.
    pub fn leader(&self) -> Option<&str> {
        self.leader.as_deref().filter(|_| !self.stale)
    }

    pub fn member(&self, id: &str) -> Option<&MemberStatus> {
        self.members.iter().find(|member| member.id == id)
    }

    /// One line for the person who reads a timeout.
    pub fn describe(&self) -> String {
        let members: Vec<String> = self
            .members
            .iter()
            .map(|member| {
                let applied = member
                    .applied
                    .map_or_else(|| "?".to_owned(), |at| at.to_string());
                format!(
                    "{} {} {} at {applied}",
                    member.id, member.role, member.state
                )
            })
            .collect();
        let leader = self.leader.as_deref().unwrap_or("none");
        let stale = if self.stale { ", stale" } else { "" };
        format!(
            "term {}, leader {leader}{stale}: {}",
            self.term,
            members.join("; ")
        )
    }
}
