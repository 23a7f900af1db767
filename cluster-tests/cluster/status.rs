//! What `quorate cluster status -o json` says, and a controller that is asked directly.

use serde::Deserialize;
use wire::v1;

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

impl From<v1::StatusReply> for Status {
    fn from(reply: v1::StatusReply) -> Status {
        Status {
            cluster_id: reply.cluster_id,
            leader: Some(reply.leader).filter(|leader| !leader.is_empty()),
            term: reply.term,
            stale: reply.stale,
            members: reply.members.into_iter().map(MemberStatus::from).collect(),
        }
    }
}

impl From<v1::Member> for MemberStatus {
    fn from(member: v1::Member) -> MemberStatus {
        let is_heard = member.state != "unreachable";
        MemberStatus {
            id: member.id,
            role: member.role,
            applied: is_heard.then_some(member.applied),
            lag: is_heard.then_some(member.lag),
            state_hash: is_heard.then_some(member.state_hash),
            hash_index: is_heard.then_some(member.hash_index),
            hash_at: is_heard.then_some(member.hash_at),
            state: member.state,
        }
    }
}
