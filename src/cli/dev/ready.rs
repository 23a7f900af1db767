//! Is it ready? Only the cluster itself can tell: a leader, every controller a voter that answers, every
//! agent ready.

use std::time::Duration;

use wire::v1;

use super::layout::{Layout, Part};
use crate::client::{ConnectArgs, Connection};
use crate::failure::Result;

/// Between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(150);

/// What there is so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    pub leader: String,
    /// Controllers that vote and answer.
    pub voting: Vec<String>,
    pub agents: Vec<String>,
}

impl Standing {
    fn of(status: &v1::StatusReply, agents: &[v1::Agent]) -> Standing {
        let votes = |member: &&v1::Member| member.role == "voter" && member.state != "unreachable";
        let ready = |agent: &&v1::Agent| agent.state == "ready";
        Standing {
            leader: if status.stale {
                String::new()
            } else {
                status.leader.clone()
            },
            voting: status
                .members
                .iter()
                .filter(votes)
                .map(|member| member.id.clone())
                .collect(),
            agents: agents
                .iter()
                .filter(ready)
                .map(|agent| agent.id.clone())
                .collect(),
        }
    }

    fn has(&self, id: &str) -> bool {
        self.voting
            .iter()
            .chain(&self.agents)
            .any(|known| known == id)
    }

    /// Whether all of these work.
    pub fn is_ready(&self, ids: &[String]) -> bool {
        !self.leader.is_empty() && ids.iter().all(|id| self.has(id))
    }

    pub fn in_words(&self, controllers: usize, agents: usize) -> String {
        let leader = match self.leader.as_str() {
            "" => "no leader yet".to_owned(),
            leader => format!("{leader} leads"),
        };
        format!(
            "{leader}, {} of {controllers} controllers vote, {} of {agents} agents ready",
            self.voting.len(),
            self.agents.len()
        )
    }
}

/// Somebody to ask.
pub fn connect(layout: &Layout) -> Result<Connection> {
    connect_to(layout, Vec::new())
}

/// At these addresses, or at all of the cluster's.
fn connect_to(layout: &Layout, addr: Vec<String>) -> Result<Connection> {
    let context = layout.context().to_string_lossy().into_owned();
    let args = ConnectArgs {
        context: Some(context),
        addr,
        ..ConnectArgs::default()
    };
    Connection::open(&args.target()?)
}

/// Asks until all of `ids` work, telling each time what there is. Ends only then.
pub async fn wait(
    cluster: &Connection,
    ids: &[String],
    mut tell: impl FnMut(&Standing),
) -> Standing {
    loop {
        let standing = look(cluster).await;
        tell(&standing);
        if standing.is_ready(ids) {
            return standing;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// What there is now; nothing where nobody answers.
async fn look(cluster: &Connection) -> Standing {
    match (cluster.status().await, cluster.agents().await) {
        (Ok(status), Ok(agents)) => Standing::of(&status, &agents),
        (Ok(status), Err(_)) => Standing::of(&status, &[]),
        (Err(_), _) => Standing::default(),
    }
}

/// Until one that was started again works: a controller that answers for itself, or an agent that is
/// ready. A controller may well be up before there is a majority to say so; but that its port takes
/// connections says little, for it listens before it has opened its log.
pub async fn wait_for(layout: &Layout, part: Part, id: &str) -> Result<()> {
    match part {
        Part::Controller => {
            let [grpc, _, _] = layout.addresses(id);
            let one = connect_to(layout, vec![grpc])?;
            while !answers(&one, id).await {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            Ok(())
        }
        Part::Agent => {
            wait(&connect(layout)?, &[id.to_owned()], |_| {}).await;
            Ok(())
        }
    }
}

async fn answers(controller: &Connection, id: &str) -> bool {
    let reply = controller.member().await.unwrap_or_default();
    reply.member.is_some_and(|member| member.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_controller_that_only_listens_does_not_work_yet() {
        let home = tempfile::tempdir().unwrap();
        let wishes = crate::dev::Wishes {
            base_port: Some(0),
            controllers: Some(1),
            agents: Some(0),
            ..Default::default()
        };
        let layout = Layout::resolve(home.path(), wishes).unwrap();
        crate::dev::prepare::prepare(&layout).unwrap();
        let [grpc, _, https] = layout.addresses("c1");
        let listen = |address| std::net::TcpListener::bind(address).unwrap();
        let _listening = (listen(grpc), listen(https));
        let waiting = wait_for(&layout, Part::Controller, "c1");
        let waited = tokio::time::timeout(Duration::from_secs(1), waiting).await;
        assert!(waited.is_err(), "{waited:?}");
    }

    fn member(id: &str, role: &str, state: &str) -> v1::Member {
        v1::Member {
            id: id.into(),
            role: role.into(),
            state: state.into(),
            ..Default::default()
        }
    }

    fn agent(id: &str, state: &str) -> v1::Agent {
        v1::Agent {
            id: id.into(),
            state: state.into(),
            ..Default::default()
        }
    }

    #[test]
    fn ready_means_a_leader_and_every_member_at_work() {
        let all: Vec<String> = ["c1", "c2", "a1"].map(str::to_owned).into();
        let mut status = v1::StatusReply {
            leader: "c1".into(),
            members: vec![
                member("c1", "voter", "leader"),
                member("c2", "learner", "follower"),
            ],
            ..Default::default()
        };
        let agents = [agent("a1", "ready"), agent("a2", "lost")];
        assert!(
            !Standing::of(&status, &agents).is_ready(&all),
            "c2 only learns"
        );
        status.members[1].role = "voter".into();
        assert!(Standing::of(&status, &agents).is_ready(&all));
        let words = Standing::of(&status, &agents).in_words(2, 2);
        assert_eq!(
            words,
            "c1 leads, 2 of 2 controllers vote, 1 of 2 agents ready"
        );
        status.stale = true;
        assert!(
            !Standing::of(&status, &agents).is_ready(&all),
            "nobody leads for certain"
        );
    }
}
