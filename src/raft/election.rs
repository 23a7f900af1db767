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

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
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
use crate::sync::lock;
use crate::watched::Follower;

/// Between the two rounds: a process that is restarted in place listens again by then.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(50);

/// At most one quick election in this time, whatever flaps.
const AT_MOST_EVERY: Duration = Duration::from_secs(5);

/// Before the leader is watched again after its stream broke for another reason.
const WATCH_PAUSE: Duration = Duration::from_millis(100);

/// The quick elections of this member: how often it called one, and when it last took part in one.
#[derive(Default)]
pub struct QuickElections {
    called: AtomicU64,
    last: Mutex<Option<Instant>>,
}

impl QuickElections {
    pub fn called(&self) -> u64 {
        self.called.load(Ordering::Relaxed)
    }

    /// Called here or by another follower: either way the next one has to wait.
    pub fn took_part(&self) {
        *lock(&self.last) = Some(Instant::now());
    }

    fn is_due(&self, now: Instant) -> bool {
        let last = *lock(&self.last);
        last.is_none_or(|last| now.saturating_duration_since(last) >= AT_MOST_EVERY)
    }
}

pub struct QuickElection {
    pub raft: Raft<Types<TokioRuntime>, Machine<TokioRuntime>>,
    pub log: LogStore<TokioRuntime>,
    pub calls: Arc<Calls>,
    pub leadership: Follower<Leadership>,
    pub elections: Arc<QuickElections>,
}

impl QuickElection {
    /// Watches whoever leads until this member stops.
    pub async fn run(mut self) {
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
            let address = self.calls.dialer().address(leader, &node.addresses.raft);
            if self.elections.is_due(Instant::now()) && refuses(&address).await {
                self.attempt(leader).await;
            }
            sleep(WATCH_PAUSE).await;
        }
    }

    /// Calls an election, if a quorum agrees twice.
    async fn attempt(&self, leader: NodeId) {
        let me = self.calls.dialer().me().id;
        let members = effective(&self.raft);
        let members = members.membership();
        let voters: Vec<NodeId> = members.voter_ids().collect();
        let vote = self.log.vote().filter(|vote| vote.committed);
        let Some(vote) = vote.filter(|vote| vote.leader_id.voted_for == leader) else {
            return;
        };
        // Two configurations at once have two quorums: leave that to the ordinary way.
        if members.get_joint_config().len() != 1 || !voters.contains(&me) {
            return;
        }
        let first = self.round(members, leader, &vote).await;
        if elected(voters.len(), &first).is_none() {
            return;
        }
        sleep(BETWEEN_ROUNDS).await;
        let round = twice(&first, self.round(members, leader, &vote).await);
        // Another follower may have been quicker.
        let Some(candidate) =
            elected(voters.len(), &round).filter(|_| self.elections.is_due(Instant::now()))
        else {
            return;
        };
        tracing::info!(
            dead = %controller(leader), candidate = %controller(candidate.id), voters = round.len(),
            "the leader's process is gone: quick election"
        );
        self.elections.called.fetch_add(1, Ordering::Relaxed);
        self.elections.took_part();
        self.call(members, &vote, &candidate, &round).await;
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

/// Of the second round, those who had confirmed in the first: two majorities that share but a few voters
/// would be a majority that saw it once.
fn twice(first: &[Confirmed], second: Vec<Confirmed>) -> Vec<Confirmed> {
    let before = |one: &Confirmed| first.iter().any(|earlier| earlier.id == one.id);
    second.into_iter().filter(before).collect()
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
    fn two_majorities_of_different_voters_have_not_confirmed_twice() {
        let first = [confirmed(2, 1, 9), confirmed(3, 1, 9), confirmed(4, 1, 9)];
        let second = vec![confirmed(2, 1, 9), confirmed(4, 1, 9), confirmed(5, 1, 9)];
        let both = twice(&first, second);
        assert_eq!(both, [confirmed(2, 1, 9), confirmed(4, 1, 9)]);
        assert_eq!(elected(5, &both), None);
    }

    #[test]
    fn a_quick_election_that_was_joined_counts_against_the_next() {
        let elections = QuickElections::default();
        assert!(elections.is_due(Instant::now()));
        elections.took_part();
        let now = Instant::now();
        assert!(!elections.is_due(now));
        assert_eq!(elections.called(), 0, "another one called it");
        assert!(elections.is_due(now + AT_MOST_EVERY));
    }

    #[test]
    fn the_most_advanced_log_is_elected_and_the_lower_id_among_equals() {
        let answers = [confirmed(2, 3, 9), confirmed(3, 4, 1)];
        assert_eq!(elected(3, &answers), Some(confirmed(3, 4, 1)));
        let equal = [confirmed(3, 4, 7), confirmed(2, 4, 7)];
        assert_eq!(elected(3, &equal), Some(confirmed(2, 4, 7)));
    }
}
