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
//! worst is a needless one; so it takes a quorum and two rounds, and no member calls one within 5 s of the
//! last that it took part in. Only one that did not, because it led then or has started since, may sooner.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use openraft::errors::Fatal;
use openraft::raft::{TransferLeaderRequest, TransferLeaderResponse};
use openraft::{AsyncRuntime, Instant, Raft};

use crate::consensus::{LogId, Membership, NodeId, Types, Vote};
use crate::leadership::Leadership;
use crate::machine::Machine;
use crate::member::{Node, controller};
use crate::membership::{effective, node_of};
use crate::peers::{Peers, Suspicion};
use crate::store::log::LogStore;
use crate::sync::lock;
use crate::watched::Follower;

/// Between the two rounds: a process that is restarted in place listens again by then.
const BETWEEN_ROUNDS: Duration = Duration::from_millis(50);

/// No member calls a quick election so soon after the last that it took part in, whatever flaps.
const BETWEEN_ELECTIONS: Duration = Duration::from_secs(5);

/// Before the leader is watched again after its stream broke for another reason.
const WATCH_PAUSE: Duration = Duration::from_millis(100);

/// How often this member called a quick election, and when it last took part in one.
struct Past<R: AsyncRuntime> {
    called: AtomicU64,
    last: Mutex<Option<R::Instant>>,
}

impl<R: AsyncRuntime> Past<R> {
    fn none() -> Self {
        Self {
            called: AtomicU64::new(0),
            last: Mutex::new(None),
        }
    }

    fn called(&self) {
        self.called.fetch_add(1, Ordering::Relaxed);
        self.took_part();
    }

    /// Called here or by another follower: either way the next one has to wait.
    fn took_part(&self) {
        *lock(&self.last) = Some(R::Instant::now());
    }

    fn next_is_due(&self, now: R::Instant) -> bool {
        let last = *lock(&self.last);
        last.is_none_or(|last| now.saturating_duration_since(last) >= BETWEEN_ELECTIONS)
    }
}

/// A member's part in quick elections: it watches the leader, answers what others ask about it, and is told
/// whom to elect.
pub struct QuickElection<R: AsyncRuntime, P> {
    raft: Raft<Types<R>, Machine<R>>,
    log: LogStore<R>,
    peers: Arc<P>,
    me: NodeId,
    past: Past<R>,
}

impl<R: AsyncRuntime, P: Peers> QuickElection<R, P> {
    pub fn new(
        raft: Raft<Types<R>, Machine<R>>,
        log: LogStore<R>,
        peers: Arc<P>,
        me: NodeId,
    ) -> Self {
        Self {
            raft,
            log,
            peers,
            me,
            past: Past::none(),
        }
    }

    /// How many this member called since its start.
    pub fn called(&self) -> u64 {
        self.past.called.load(Ordering::Relaxed)
    }

    /// What this member makes of a leader that looks dead to another; nothing if it knows no such member.
    pub async fn suspicion(&self, leader: NodeId) -> Option<Suspicion> {
        let node = node_of(&self.raft, leader)?;
        Some(Suspicion {
            refused: self.peers.refuses(leader, &node).await,
            vote: self.log.vote(),
            last_log: self.log.last_log_id(),
        })
    }

    /// Told whom to elect in the leader's place, by itself or by a follower that called a quick election.
    pub async fn transfer(
        &self,
        told_by: NodeId,
        request: TransferLeaderRequest<Types<R>>,
    ) -> Result<TransferLeaderResponse<Types<R>>, Fatal<Types<R>>> {
        let leader = request.from_leader().leader_id.voted_for;
        let handled = self.raft.handle_transfer_leader(request).await?;
        if handled.is_ok() && told_by != leader {
            self.past.took_part();
        }
        Ok(handled)
    }

    /// Watches whoever leads until this member stops.
    pub async fn watch(&self, mut leadership: Follower<Leadership>) {
        loop {
            let follows = |now: &Leadership| now.leader.is_some() && !now.is_me;
            let Ok(now) = leadership.wait_for(follows).await else {
                return;
            };
            let Some((leader, node)) = now
                .leader
                .and_then(|id| Some((id.0, node_of(&self.raft, id.0)?)))
            else {
                R::sleep(WATCH_PAUSE).await;
                continue;
            };
            tokio::select! {
                // In this order, for a random one would make a simulation unrepeatable.
                biased;
                moved = leadership.wait_for(|then| (then.leader, then.term) != (now.leader, now.term)) => {
                    if moved.is_err() {
                        return;
                    }
                    continue;
                }
                broken = self.peers.presence(leader, &node) => {
                    tracing::debug!(leader = %controller(leader), reason = %broken, "lost sight of the leader");
                }
            }
            if self.next_is_due() && self.peers.refuses(leader, &node).await {
                self.attempt(leader).await;
            }
            R::sleep(WATCH_PAUSE).await;
        }
    }

    fn next_is_due(&self) -> bool {
        self.past.next_is_due(R::Instant::now())
    }

    /// Calls an election, if a quorum agrees twice.
    async fn attempt(&self, leader: NodeId) {
        let members = effective(&self.raft);
        let members = members.membership();
        let voters: Vec<NodeId> = members.voter_ids().collect();
        let vote = self.log.vote().filter(|vote| vote.committed);
        let Some(vote) = vote.filter(|vote| vote.leader_id.voted_for == leader) else {
            return;
        };
        // Two configurations at once have two quorums: leave that to the ordinary way.
        if members.get_joint_config().len() != 1 || !voters.contains(&self.me) {
            return;
        }
        let first = self.round(members, leader, &vote).await;
        if elected(voters.len(), &first).is_none() {
            return;
        }
        R::sleep(BETWEEN_ROUNDS).await;
        let round = twice(&first, self.round(members, leader, &vote).await);
        // Another follower may have been quicker.
        let Some(candidate) = elected(voters.len(), &round).filter(|_| self.next_is_due()) else {
            return;
        };
        tracing::info!(
            dead = %controller(leader), candidate = %controller(candidate.id), voters = round.len(),
            "the leader's process is gone: quick election"
        );
        self.past.called();
        self.call(members, &vote, &candidate, &round).await;
    }

    /// Asks all other voters, and this member itself, about the leader.
    async fn round(&self, members: &Membership, leader: NodeId, vote: &Vote) -> Vec<Confirmed> {
        let asked = members.nodes().filter(|(id, _)| **id != leader);
        let answers = asked
            .filter(|(id, _)| members.voter_ids().any(|voter| voter == **id))
            .map(async |(id, node): (&NodeId, &Node)| {
                let told = match *id == self.me {
                    true => self.suspicion(leader).await?,
                    false => self.peers.suspect(*id, node, vote).await.ok()?,
                };
                let agrees = told.refused && told.vote == Some(*vote);
                agrees.then_some(Confirmed {
                    id: *id,
                    last_log: told.last_log,
                })
            });
        join_all(answers).await.into_iter().flatten().collect()
    }

    async fn call(
        &self,
        members: &Membership,
        vote: &Vote,
        candidate: &Confirmed,
        round: &[Confirmed],
    ) {
        let told = round.iter().map(async |confirmed| {
            let outcome = match members.get_node(&confirmed.id) {
                _ if confirmed.id == self.me => {
                    let request =
                        TransferLeaderRequest::new(*vote, candidate.id, candidate.last_log);
                    let handled = self.transfer(self.me, request).await;
                    handled.map(|_| ()).map_err(|error| error.to_string())
                }
                Some(node) => {
                    let to = (candidate.id, candidate.last_log);
                    let sent = self.peers.transfer(confirmed.id, node, vote, to).await;
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
    use openraft_rt_tokio::{TokioInstant, TokioRuntime};

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
        let past = Past::<TokioRuntime>::none();
        assert!(past.next_is_due(TokioInstant::now()));
        past.took_part();
        let now = TokioInstant::now();
        assert!(!past.next_is_due(now));
        assert_eq!(past.called.load(Ordering::Relaxed), 0, "another called it");
        assert!(past.next_is_due(now + BETWEEN_ELECTIONS));
    }

    #[test]
    fn the_most_advanced_log_is_elected_and_the_lower_id_among_equals() {
        let answers = [confirmed(2, 3, 9), confirmed(3, 4, 1)];
        assert_eq!(elected(3, &answers), Some(confirmed(3, 4, 1)));
        let equal = [confirmed(3, 4, 7), confirmed(2, 4, 7)];
        assert_eq!(elected(3, &equal), Some(confirmed(2, 4, 7)));
    }
}
