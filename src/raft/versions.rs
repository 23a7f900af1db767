//! Raising the state version, once every member understands a newer one.
//!
//! ```text
//!  leads, and its own release understands more ─► asks every member, learners too ─► all understand it
//!         ▲                                                                              │
//!         └───── not yet: again in two seconds ◄─────────────────────────────── proposes the entry
//! ```
//!
//! A learner counts: it applies the same entries, and would stop at the first that it can't read. Who is away
//! counts as well: nobody knows what it will run when it comes back. What the members said holds only as long as the
//! members stay the same, so the entry is proposed in a turn of the membership's, and a member that
//! is let in afterwards is measured by the version that the entry has set.

use std::collections::BTreeMap;
use std::sync::Weak;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::future::try_join_all;
use model::{ControllerId, Op, State, StateVersion, SystemCommand};
use openraft::AsyncRuntime;

use crate::consensus::NodeId;
use crate::core::Core;
use crate::error::Error;
use crate::leadership::Leadership;
use crate::member::{Node, controller};
use crate::membership::{Me, Members};
use crate::peers::{Identified, Peers};
use crate::watched::Follower;

/// Between two rounds of asking, as long as some member does not understand more: an upgrade takes minutes.
const PAUSE: Duration = Duration::from_secs(2);

/// The highest version that this member proposed and does not know the outcome of.
#[derive(Debug, Default)]
pub struct Raising(AtomicU32);

impl Raising {
    fn begin(&self, to: StateVersion) {
        self.0.store(to.0, Ordering::Relaxed);
    }

    fn settle(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The version that whoever is let in now has to understand.
    fn over(&self, applied: StateVersion) -> StateVersion {
        applied.max(StateVersion(self.0.load(Ordering::Relaxed)))
    }
}

/// The first entry of a cluster, or of a new generation of it. A new cluster has no member of an older release, so it
/// begins with the newest version; what an older one was recovered with is raised like any other.
pub fn founding(me: &Me, state: &State) -> Vec<Op> {
    let mut ops = vec![Op::System(SystemCommand::Found {
        cluster_id: me.cluster_id.clone(),
        generation: me.generation,
    })];
    let to = me.versions.newest;
    if state.cluster_id().is_empty() && to > state.state_version() {
        ops.push(Op::System(SystemCommand::RaiseVersion { to }));
    }
    ops
}

/// Until consensus has stopped.
pub async fn watch<R: AsyncRuntime, P: Peers>(
    core: Weak<Core<R, P>>,
    mut leadership: Follower<Leadership>,
) {
    let mut told = None;
    loop {
        if leadership.wait_for(|now| now.ready).await.is_err() {
            return;
        }
        let Some(core) = core.upgrade() else { return };
        let state = core.view().state.clone();
        if state.state_version() >= core.members.me.versions.newest {
            drop(core);
            let stays = leadership.wait_for(|now| !now.ready).await;
            if stays.is_err() {
                return;
            }
            continue;
        }
        // Not before there is a cluster.
        if !state.cluster_id().is_empty() {
            match core.raise_version().await {
                Ok(_) => told = None,
                Err(error) => tell(&mut told, error.to_string()),
            }
        }
        drop(core);
        R::sleep(PAUSE).await;
    }
}

/// The same obstacle is told once: an upgrade may take long.
fn tell(told: &mut Option<String>, why: String) {
    if told.as_ref() != Some(&why) {
        tracing::info!(%why, "the state version does not rise yet");
        *told = Some(why);
    }
}

impl<R: AsyncRuntime, P: Peers> Core<R, P> {
    /// Leader only: raises the version as far as all members understand.
    pub async fn raise_version(&self) -> Result<StateVersion, Error> {
        let members = &self.members;
        members.lead()?;
        let now = self.view().state.state_version();
        if now >= members.me.versions.newest {
            return Ok(now);
        }
        let asked = members.nodes();
        let to = members.understood_by(&asked).await?;
        let _turn = members.turn()?;
        members.lead()?;
        if members.nodes() != asked {
            return Err(Error::busy("the membership changed meanwhile"));
        }
        let now = self.view().state.state_version();
        if to <= now {
            return Ok(now);
        }
        tracing::info!(%now, %to, "every member understands a newer state version");
        members.raising.begin(to);
        let op = Op::System(SystemCommand::RaiseVersion { to });
        let raised = self.propose(vec![op], self.wall()).await;
        if !matches!(raised, Err(Error::Unknown(_))) {
            members.raising.settle();
        }
        raised.map(|_| to)
    }
}

impl<R: AsyncRuntime, P: Peers> Members<R, P> {
    fn nodes(&self) -> BTreeMap<NodeId, Node> {
        let members = self.effective();
        let nodes = members.nodes();
        nodes.map(|(id, node)| (*id, node.clone())).collect()
    }

    /// The newest version that all of them understand.
    async fn understood_by(&self, nodes: &BTreeMap<NodeId, Node>) -> Result<StateVersion, Error> {
        let others = nodes.iter().filter(|(id, _)| **id != self.me.id);
        let asked = others.map(async |(id, node)| {
            let told = self.peers.identify(*id, &node.addresses.raft).await?;
            if told.id.0 != *id || told.log != node.log {
                let id = controller(*id);
                return Err(Error::busy(format!("another controller answers for {id}")));
            }
            Ok((*id, told.versions))
        });
        let mine = self.me.versions;
        let answers = try_join_all(asked).await?;
        let newest = answers.iter().map(|(_, versions)| versions.newest);
        let to = newest.min().unwrap_or(mine.newest).min(mine.newest);
        let now = self.published.view().state.state_version();
        if let Some((id, versions)) = answers.iter().find(|(_, it)| it.newest <= now) {
            let id = controller(*id);
            return Err(Error::busy(format!(
                "{id} runs a release that understands state versions up to {}",
                versions.newest
            )));
        }
        for (id, versions) in &answers {
            let checked = versions.check(to);
            checked.map_err(|error| Error::busy(format!("{}: {error}", controller(*id))))?;
        }
        Ok(to)
    }

    /// Whether a controller can apply what the others do.
    pub fn understands(&self, id: ControllerId, it: &Identified) -> Result<(), Error> {
        let applied = self.published.view().state.state_version();
        let version = self.raising.over(applied);
        it.versions.check(version).map_err(|_| {
            Error::Rejected(format!(
                "{id} runs a release that understands state versions {}, and the cluster is at {version}; run \
                 the release of the other controllers there",
                it.versions
            ))
        })
    }

    pub async fn check_version_of(&self, id: ControllerId) -> Result<(), Error> {
        if id.0 == self.me.id {
            return Ok(());
        }
        let members = self.effective();
        let node = members.get_node(&id.0).ok_or_else(|| self.stranger(id))?;
        let told = self.peers.identify(id.0, &node.addresses.raft).await?;
        self.understands(id, &told)
    }
}
