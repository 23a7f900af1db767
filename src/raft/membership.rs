//! Who belongs to the cluster, and how that changes: one member at a time, as a learner first.
//!
//! A controller is added under an id that was never used and with a log that never held anything. The one
//! exception is the very log that the membership already knows under that id: then an interrupted join goes
//! on where it stopped. A machine that lost its disk fails both tests, and has to take a new id: under the
//! old one it would vote again in a term in which it voted already.
//!
//! One change at a time: while one is under way another is told so, and may try again. Waiting for a learner
//! to catch up is no change, and holds up nobody.
//!
//! A change that was cut short after its first half leaves a joint configuration; the next leader finishes it
//! by issuing it again, and so does the next change, of any kind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::{Addresses, ControllerId, Versions};
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{InitializeError, RaftError};
use openraft::{AsyncRuntime, ChangeMembers, Instant, Raft, RaftMetrics, ServerState};
use tokio::sync::{Mutex, MutexGuard};

use crate::consensus::{NodeId, StoredMembership, Types};
use crate::error::{Error, Leader};
use crate::machine::{Machine, Published};
use crate::member::{LogIdentity, Member, MemberRole, Node, controller};
use crate::peers::{Identified, Peers};
use crate::proposer::refused;
use crate::versions::Raising;

/// A learner this close to the end of the log is promoted.
const CAUGHT_UP: u64 = 64;

/// How long a learner may take to catch up before the caller is told to ask again.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two questions to a learner that still fetches.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// A member that answered a heartbeat no longer ago than so many heartbeats is alive: one may be on its
/// way, and one late.
const RECENT_HEARTBEATS: u32 = 3;

/// How long handing over leadership may take: some elections' worth.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(3);

/// The membership in force here: the last one in the log, committed or not.
/// What openraft reports is shared: the guard of its watch is never held across other code.
pub fn effective<R: AsyncRuntime>(raft: &Raft<Types<R>, Machine<R>>) -> Arc<StoredMembership> {
    raft.server_metrics()
        .borrow_watched()
        .membership_config
        .clone()
}

pub fn node_of<R: AsyncRuntime>(raft: &Raft<Types<R>, Machine<R>>, id: NodeId) -> Option<Node> {
    effective(raft).get_node(&id).cloned()
}

/// All members but one, `first` before the others.
pub fn others(
    members: &StoredMembership,
    me: NodeId,
    first: Option<NodeId>,
) -> Vec<(NodeId, Node)> {
    let nodes = members.nodes().filter(|(id, _)| **id != me);
    let mut others: Vec<_> = nodes.map(|(id, node)| (*id, node.clone())).collect();
    others.sort_by_key(|(id, _)| Some(*id) != first);
    others
}

/// Which log a member has, as the membership in force here says.
pub fn log_of<R: AsyncRuntime>(
    raft: &Raft<Types<R>, Machine<R>>,
    id: NodeId,
) -> Option<LogIdentity> {
    effective(raft).get_node(&id).map(|node| node.log)
}

/// Who this member is.
#[derive(Clone, Debug)]
pub struct Me {
    pub id: NodeId,
    pub cluster_id: String,
    pub generation: model::Generation,
    pub node: Node,
    /// What the release that it runs understands.
    pub versions: Versions,
}

pub struct Members<R: AsyncRuntime, P> {
    pub raft: Raft<Types<R>, Machine<R>>,
    pub published: Arc<Published>,
    pub peers: Arc<P>,
    pub me: Me,
    pub one_at_a_time: Mutex<()>,
    /// A version that this member proposed, as long as the outcome is open.
    pub raising: Raising,
}

impl<R: AsyncRuntime, P: Peers> Members<R, P> {
    /// Makes this member the first and only voter. Fine if it was done before.
    pub async fn initialize(&self) -> Result<(), Error> {
        let members = BTreeMap::from([(self.me.id, self.me.node.clone())]);
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                match self.effective().get_node(&self.me.id) {
                    Some(node) if *node == self.me.node => Ok(()),
                    Some(_) => Ok(()),
                    None => Err(Error::Rejected(
                        "this controller's log belongs to a cluster already".to_owned(),
                    )),
                }
            }
            Err(RaftError::APIError(error)) => Err(Error::Rejected(error.to_string())),
            Err(RaftError::Fatal(fatal)) => Err(Error::Fatal(fatal.to_string())),
        }
    }

    /// Adds a controller: learner, caught up, voter.
    pub async fn add(&self, id: ControllerId, addresses: Addresses) -> Result<(), Error> {
        self.add_learner(id, addresses).await?;
        self.give_vote(id).await
    }

    pub async fn add_learner(&self, id: ControllerId, addresses: Addresses) -> Result<(), Error> {
        self.lead()?;
        // Before the turn: it may take long.
        let joiner = self.peers.identify(id.0, &addresses.raft).await?;
        let _turn = self.turn()?;
        self.lead()?;
        let node = Node {
            addresses,
            log: joiner.log,
        };
        self.check(id, &joiner)?;
        self.finish_interrupted().await?;
        let node = BTreeMap::from([(id.0, node)]);
        match self.effective().get_node(&id.0) {
            Some(known) if *known == node[&id.0] => Ok(()),
            Some(_) => self.change(ChangeMembers::SetNodes(node)).await,
            None => self.change(ChangeMembers::AddNodes(node)).await,
        }
    }

    /// Makes a learner a voter, once it has caught up.
    pub async fn promote(&self, id: ControllerId) -> Result<(), Error> {
        self.lead()?;
        if self.effective().get_node(&id.0).is_none() {
            return Err(self.stranger(id));
        }
        self.give_vote(id).await
    }

    async fn give_vote(&self, id: ControllerId) -> Result<(), Error> {
        let votes = |members: &StoredMembership| members.voter_ids().any(|voter| voter == id.0);
        if votes(&self.effective()) && !self.is_joint() {
            return Ok(());
        }
        self.wait_caught_up(id.0).await?;
        // It answers now.
        self.check_version_of(id).await?;
        let _turn = self.turn()?;
        self.lead()?;
        self.finish_interrupted().await?;
        let members = self.effective();
        if members.get_node(&id.0).is_none() {
            return Err(self.stranger(id));
        }
        if votes(&members) {
            return Ok(());
        }
        // It may have died since it caught up, or one of the others may.
        let voters: BTreeSet<NodeId> = members.voter_ids().collect();
        let more = voters.iter().copied().chain([id.0]).collect();
        let why = "too few voters answer and have the log to go on; start those that are away";
        self.can_go_on([&voters, &more], why).await?;
        let added = BTreeSet::from([id.0]);
        self.change(ChangeMembers::AddVoterIds(added)).await
    }

    /// Whether it was a member, and never will be again.
    pub fn was_removed(&self, id: ControllerId) -> bool {
        let view = self.published.view();
        view.used_ids.contains(&id.0) && view.membership.get_node(&id.0).is_none()
    }

    /// The highest id that any controller ever had.
    pub fn last_id(&self) -> ControllerId {
        let view = self.published.view();
        let present = view.membership.nodes().map(|(id, _)| *id);
        let used = view.used_ids.iter().copied();
        ControllerId(present.chain(used).max().unwrap_or(0))
    }

    pub fn stranger(&self, id: ControllerId) -> Error {
        Error::Rejected(match self.was_removed(id) {
            true => format!("{id} was removed; ids are never used again"),
            false => format!(
                "{id} is not a member: a controller that is started with --join becomes one"
            ),
        })
    }

    /// Finishes a change that an earlier leader left half done.
    pub async fn finish(&self) -> Result<(), Error> {
        if !self.is_joint() {
            return Ok(());
        }
        let _turn = self.turn()?;
        self.finish_interrupted().await
    }

    pub fn turn(&self) -> Result<MutexGuard<'_, ()>, Error> {
        let turn = self.one_at_a_time.try_lock();
        turn.map_err(|_| Error::busy("another change of the membership is under way"))
    }

    /// Membership changes are the leader's.
    pub fn lead(&self) -> Result<(), Error> {
        let (state, leader) = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            (metrics.state, metrics.current_leader)
        };
        if state == ServerState::Leader {
            return Ok(());
        }
        let leader = leader.and_then(|id| {
            let addresses = node_of(&self.raft, id)?.addresses;
            Some(Leader {
                id: controller(id),
                addresses,
            })
        });
        Err(Error::NotLeader { leader })
    }

    /// May this log be added under this id?
    fn check(&self, id: ControllerId, joiner: &Identified) -> Result<(), Error> {
        let reject = |text: String| Err(Error::Rejected(text));
        if joiner.cluster_id != self.me.cluster_id {
            return reject(format!(
                "{id} belongs to cluster {}, this is {}",
                joiner.cluster_id, self.me.cluster_id
            ));
        }
        self.understands(id, joiner)?;
        if joiner.id != id {
            return reject(format!(
                "the controller at that address is {}, not {id}",
                joiner.id
            ));
        }
        if joiner.generation != self.me.generation {
            return reject(format!(
                "{id} is of generation {}, the cluster of {}",
                joiner.generation.0, self.me.generation.0
            ));
        }
        if let Some(known) = self.effective().get_node(&id.0) {
            return match known.log == joiner.log {
                true => Ok(()),
                false => reject(format!(
                    "{id} is a member with another log: this machine has lost the one that it voted \
                     with, and must not come back as {id}; let it join under a new id, with an empty data \
                     directory"
                )),
            };
        }
        if self.published.view().used_ids.contains(&id.0) {
            return reject(format!("{id} was a member once; ids are never used again"));
        }
        if joiner.used {
            return reject(format!(
                "the log of {id} is not empty, but no member of this cluster has that log; let it \
                 join with an empty data directory"
            ));
        }
        Ok(())
    }

    /// Whether a change is half done.
    fn is_joint(&self) -> bool {
        self.effective().membership().get_joint_config().len() > 1
    }

    pub async fn finish_interrupted(&self) -> Result<(), Error> {
        if self.is_joint() {
            tracing::info!("finishing a change of membership that was cut short");
            self.change(ChangeMembers::AddVoterIds(BTreeSet::new()))
                .await?;
        }
        Ok(())
    }

    pub async fn change(&self, change: ChangeMembers<NodeId, Node>) -> Result<(), Error> {
        tracing::info!(%change, "changing the membership");
        // Not retained: who loses its vote loses its place with it.
        match self.raft.change_membership(change, false).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(error)) => Err(refused(error)),
            Err(RaftError::Fatal(fatal)) => Err(Error::Fatal(fatal.to_string())),
        }
    }

    async fn wait_caught_up(&self, id: NodeId) -> Result<(), Error> {
        let wait = self.raft.wait(Some(CATCH_UP_TIMEOUT));
        let caught_up = wait.metrics(
            |metrics| metrics.replication.is_none() || self.in_step(metrics, id),
            "learner caught up",
        );
        let metrics = caught_up.await.map_err(|error| {
            Error::busy(format!("{} has not caught up yet: {error}", controller(id)))
        })?;
        match metrics.replication.is_some() {
            true => self.wait_for_blobs(id).await,
            false => Err(Error::NotLeader { leader: None }),
        }
    }

    /// Who votes counts among those that have every blob.
    async fn wait_for_blobs(&self, id: NodeId) -> Result<(), Error> {
        let named = self.published.view().state.last_applied();
        let mut why = String::new();
        let asking = async {
            loop {
                let node = self.effective().get_node(&id).cloned();
                let node = node.ok_or_else(|| self.stranger(controller(id)))?;
                match self.peers.lacks(id, &node).await {
                    Ok(lacks) if lacks.applied >= named && lacks.blobs == 0 => return Ok(()),
                    Ok(lacks) => why = format!("it lacks {} files of tasks", lacks.blobs),
                    Err(error) => why = error.to_string(),
                }
                R::sleep(ASK_AGAIN).await;
            }
        };
        let asked = R::timeout(CATCH_UP_TIMEOUT, asking).await;
        asked.unwrap_or_else(|_| {
            let id = controller(id);
            Err(Error::busy(format!("{id} has not caught up yet: {why}")))
        })
    }

    /// Hands leadership to a voter: the given one, or the one whose log reaches furthest.
    pub async fn transfer(&self, to: Option<ControllerId>) -> Result<(), Error> {
        let voters: BTreeSet<NodeId> = self.effective().voter_ids().collect();
        let target = match to {
            Some(id) if !voters.contains(&id.0) => {
                return Err(Error::Rejected(format!("{id} is not a voter")));
            }
            Some(id) if id.0 == self.me.id => return Ok(()),
            Some(id) => {
                let only = BTreeSet::from([id.0]);
                let named = self.successor(&only).await?;
                named.ok_or_else(|| Error::busy(format!("{id} does not answer")))?
            }
            None => {
                let others: BTreeSet<_> =
                    voters.into_iter().filter(|id| *id != self.me.id).collect();
                if others.is_empty() {
                    return Err(Error::Rejected("there is no other voter".to_owned()));
                }
                let named = self.successor(&others).await?;
                named.ok_or_else(|| Error::no_quorum("no other voter answers"))?
            }
        };
        let fatal = |error: openraft::errors::Fatal<Types<R>>| Error::Fatal(error.to_string());
        self.raft
            .trigger()
            .transfer_leader(target)
            .await
            .map_err(fatal)?;
        let me = self.me.id;
        let wait = self.raft.wait(Some(TRANSFER_TIMEOUT));
        let moved = wait.metrics(
            |metrics| metrics.current_leader.is_some_and(|leader| leader != me),
            "leadership moved",
        );
        moved.await.map(|_| ()).map_err(|_| {
            let target = controller(target);
            // It was asked to: it still may.
            Error::Unknown(format!(
                "{target} did not take over within {TRANSFER_TIMEOUT:?}; it still may"
            ))
        })
    }

    /// The one with the most advanced log among the given that answer. A leader that hands over refuses
    /// writes until it is deposed, so it must not hand over to the dead.
    async fn successor(&self, among: &BTreeSet<NodeId>) -> Result<Option<NodeId>, Error> {
        let recently = self.heartbeat() * RECENT_HEARTBEATS;
        let answers = |metrics: &RaftMetrics<Types<R>>, id| self.answers(metrics, id);
        // One that is new to its office has heard of nobody yet.
        let somebody = |metrics: &RaftMetrics<Types<R>>| {
            metrics.replication.is_none() || among.iter().any(|id| answers(metrics, *id))
        };
        let wait = self.raft.wait(Some(recently));
        let Ok(metrics) = wait.metrics(somebody, "a voter answers").await else {
            return Ok(None);
        };
        let Some(matched) = &metrics.replication else {
            return Err(Error::NotLeader { leader: None });
        };
        let alive = among.iter().copied().filter(|id| answers(&metrics, *id));
        Ok(alive.max_by_key(|id| matched.get(id).copied().flatten()))
    }

    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.raft.config().heartbeat_interval)
    }

    /// Whether a member answered this leader lately.
    pub fn answers(&self, metrics: &RaftMetrics<Types<R>>, id: NodeId) -> bool {
        let recently = self.heartbeat() * RECENT_HEARTBEATS;
        let heard = metrics.heartbeat.as_ref().and_then(|all| all.get(&id));
        heard.is_some_and(|at| at.is_some_and(|at| at.elapsed() < recently))
    }

    /// Whether a member answers this leader, and has the log, but for what is on its way.
    pub fn in_step(&self, metrics: &RaftMetrics<Types<R>>, id: NodeId) -> bool {
        if id == self.me.id {
            return true;
        }
        let replication = metrics.replication.as_ref();
        let matched = replication.and_then(|all| all.get(&id).copied().flatten());
        let last = metrics.last_log_index.unwrap_or_default();
        matched.is_some_and(|matched| matched.index + CAUGHT_UP >= last)
            && self.answers(metrics, id)
    }

    pub fn effective(&self) -> Arc<StoredMembership> {
        effective(&self.raft)
    }

    pub fn list(&self) -> Vec<Member> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let last = metrics.last_log_index;
        let members = metrics.membership_config.membership();
        let voters: BTreeSet<_> = members.voter_ids().collect();
        let describe = |(id, node): (&NodeId, &Node)| {
            let role = match voters.contains(id) {
                true if metrics.current_leader == Some(*id) => MemberRole::Leader,
                true => MemberRole::Voter,
                false => MemberRole::Learner,
            };
            let told = metrics
                .replication
                .as_ref()
                .and_then(|all| all.get(id).copied());
            let matched = match *id == self.me.id {
                true => last,
                false => told.flatten().map(|id| id.index),
            };
            Member {
                id: controller(*id),
                addresses: node.addresses.clone(),
                role,
                log: node.log,
                matched,
                lag: matched.and_then(|matched| Some(last?.saturating_sub(matched))),
            }
        };
        members.nodes().map(describe).collect()
    }
}
