//! The quick election: when the leader's *process* is dead, nobody needs to wait for a timeout.
//!
//! ```text
//!  presence stream breaks ─► connecting is refused? ─► ask all followers ─► 50 ms ─► ask again
//!       (killed: at once)          (nobody listens)      quorum says so          quorum says so
//!                                                                                     │
//!             the one with the most advanced log stands for election ◄── all are told ┘
//! ```
//!
//! openraft waits a lease and an election timeout before it elects, 0.9 to 1.2 s with our timers. A refused
//! connection from a machine that answers means that the process is gone. With a quorum of voters saying so
//! twice, the followers act as if the leader had handed over its leadership: openraft's own protocol for
//! that drops the lease.
//!
//! Safety does not rest on any of this, since an election is only an election and reads trust no lease. The
//! worst is a needless one; so it takes a quorum, two rounds, and happens at most once in 5 s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use openraft::Raft;
use openraft::raft::TransferLeaderRequest;
use openraft_rt_tokio::TokioRuntime;
use tokio::time::{Instant, sleep};

use crate::consensus::{LogId, Membership, NodeId, Types, Vote};
use crate::leadership::Leadership;
use crate::machine::Machine;
use crate::member::{Node, controller};
use crate::membership::{effective, node_of};
use crate::network::calls::{Calls, Suspicion};
use crate::network::service::refuses;
use crate::store::log::LogStore;
use crate::watched::Follower;

/// Between the two rounds: a process that is restarted in place listens again by then.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(50);

/// At most one quick election in this time, whatever flaps.
const AT_MOST_EVERY: Duration = Duration::from_secs(5);

/// Before the leader is watched again after its stream broke for another reason.
const WATCH_PAUSE: Duration = Duration::from_millis(100);

pub struct QuickElection {
    pub raft: Raft<Types<TokioRuntime>, Machine<TokioRuntime>>,
    pub log: LogStore<TokioRuntime>,
    pub calls: Arc<Calls>,
    pub leadership: Follower<Leadership>,
    /// How often it was used, for metrics.
    pub held: Arc<AtomicU64>,
}

impl QuickElection {
    /// Watches whoever leads until this member stops.
    pub async fn run(mut self) {
        let mut last: Option<Instant> = None;
        loop {
            let follows = |now: &Leadership| now.leader.is_some() && !now.is_me;
            let Ok(now) = self.leadership.wait_for(follows).await else {
                return;
            };
            let Some((leader, node)) = now
                .leader
                .and_then(|id| Some((id.0, node_of(&self.raft, id.0)?)))
            else {
                sleep(WATCH_PAUSE).await;
                continue;
            };
            let mut leadership = self.leadership.clone();
            tokio::select! {
                moved = leadership.wait_for(|then| (then.leader, then.term) != (now.leader, now.term)) => {
                    if moved.is_err() {
                        return;
                    }
                    continue;
                }
                broken = self.calls.presence(leader, &node) => {
                    tracing::debug!(leader = %controller(leader), reason = %broken, "lost sight of the leader");
                }
            }
            let due = last.is_none_or(|last| last.elapsed() >= AT_MOST_EVERY);
            let address = self.calls.dialer().address(leader, &node.addresses.raft);
            if due && refuses(&address).await && self.attempt(leader).await {
                last = Some(Instant::now());
            }
            sleep(WATCH_PAUSE).await;
        }
    }

    /// Returns whether an election was called.
    async fn attempt(&self, leader: NodeId) -> bool {
        let me = self.calls.dialer().me().id;
        let members = effective(&self.raft);
        let voters: Vec<NodeId> = members.voter_ids().collect();
        let vote = self.log.vote().filter(|vote| vote.committed);
        let Some(vote) = vote.filter(|vote| vote.leader_id.voted_for == leader) else {
            return false;
        };
        // Two configurations at once have two quorums: leave that to the ordinary way.
        if members.get_joint_config().len() != 1 || !voters.contains(&me) {
            return false;
        }
        if elected(voters.len(), &self.round(&members, leader, &vote).await).is_none() {
            return false;
        }
        sleep(BETWEEN_ROUNDS).await;
        let round = self.round(&members, leader, &vote).await;
        let Some(candidate) = elected(voters.len(), &round) else {
            return false;
        };
        tracing::info!(
            dead = %controller(leader), candidate = %controller(candidate.id), voters = round.len(),
            "the leader's process is gone: quick election"
        );
        self.held.fetch_add(1, Ordering::Relaxed);
        self.call(&members, &vote, &candidate, &round).await;
        true
    }

    /// Asks all other voters, and this member itself, about the leader.
    async fn round(&self, members: &Membership, leader: NodeId, vote: &Vote) -> Vec<Confirmed> {
        let me = self.calls.dialer().me().id;
        let asked = members.nodes().filter(|(id, _)| **id != leader);
        let answers = asked
            .filter(|(id, _)| members.voter_ids().any(|voter| voter == **id))
            .map(async |(id, node): (&NodeId, &Node)| {
                let told = match *id == me {
                    true => self.own_suspicion(members, leader).await,
                    false => self.calls.suspect(*id, node, vote).await.ok()?,
                };
                let agrees = told.refused && told.vote == Some(*vote);
                agrees.then_some(Confirmed {
                    id: *id,
                    last_log: told.last_log,
                })
            });
        join_all(answers).await.into_iter().flatten().collect()
    }

    async fn own_suspicion(&self, members: &Membership, leader: NodeId) -> Suspicion {
        let refused = match members.get_node(&leader) {
            Some(node) => refuses(&self.calls.dialer().address(leader, &node.addresses.raft)).await,
            None => false,
        };
        Suspicion {
            refused,
            vote: self.log.vote(),
            last_log: self.log.last_log_id(),
        }
    }

    async fn call(
        &self,
        members: &Membership,
        vote: &Vote,
        candidate: &Confirmed,
        round: &[Confirmed],
    ) {
        let me = self.calls.dialer().me().id;
        let told = round.iter().map(async |confirmed| {
            let outcome = match members.get_node(&confirmed.id) {
                _ if confirmed.id == me => {
                    let request =
                        TransferLeaderRequest::new(*vote, candidate.id, candidate.last_log);
                    let handled = self.raft.handle_transfer_leader(request).await;
                    handled.map(|_| ()).map_err(|error| error.to_string())
                }
                Some(node) => {
                    let to = (candidate.id, candidate.last_log);
                    let sent = self.calls.transfer(confirmed.id, node, vote, to).await;
                    sent.map_err(|error| error.to_string())
                }
                None => Ok(()),
            };
            if let Err(error) = outcome {
                tracing::info!(peer = %controller(confirmed.id), %error, "quick election: not told");
            }
        });
        join_all(told).await;
    }
}

/// A voter that finds the leader dead, and how far its log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Confirmed {
    id: NodeId,
    last_log: Option<LogId>,
}

/// Who is to be elected, if a majority of all voters, the dead leader counted, has confirmed. The same
/// answers give the same candidate on every follower.
fn elected(voters: usize, confirmed: &[Confirmed]) -> Option<Confirmed> {
    let quorum = voters / 2 + 1;
    if confirmed.len() < quorum {
        return None;
    }
    confirmed
        .iter()
        .max_by_key(|one| (one.last_log, std::cmp::Reverse(one.id)))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consensus::log_id;

    fn confirmed(id: NodeId, term: u64, index: u64) -> Confirmed {
        Confirmed {
            id,
            last_log: Some(log_id(term, index)),
        }
    }

    #[test]
    fn a_minority_can_not_call_a_quick_election() {
        assert_eq!(elected(3, &[confirmed(2, 1, 9)]), None);
        assert_eq!(elected(5, &[confirmed(2, 1, 9), confirmed(3, 1, 9)]), None);
        assert_eq!(elected(2, &[confirmed(2, 1, 9)]), None);
    }

    #[test]
    fn the_most_advanced_log_is_elected_and_the_lower_id_among_equals() {
        let answers = [confirmed(2, 3, 9), confirmed(3, 4, 1)];
        assert_eq!(elected(3, &answers), Some(confirmed(3, 4, 1)));
        let equal = [confirmed(3, 4, 7), confirmed(2, 4, 7)];
        assert_eq!(elected(3, &equal), Some(confirmed(2, 4, 7)));
    }
}
