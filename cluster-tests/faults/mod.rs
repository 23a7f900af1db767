//! What breaks clusters, and makes sure that it did.
//!
//! A [`Kind`] of fault has a name, says what it does and what it needs, and makes a [`Fault`]: something that is
//! inflicted on a running cluster, lasts for a while, proves that it took effect, and is healed again. A
//! [`Strike`] is all of that, once. The proof comes from the far side: from the kernel that ended the process,
//! the router that dropped the packets, the other controllers that see the clock. A fault without one makes
//! a run INVALID: whatever else was seen shows nothing.
//!
//! ```text
//!   begin ─► inflict ─► hold ─► prove ─► heal ─► a task runs again
//! ```
//!
//! All kinds are in [`kinds`], and drawn from a seed by [`draw`]. What they are made of is here, too, for tests
//! that break things step by step: [`process`]es and signals to them, [`disk`]s, [`clock`]s, [`sockets`]. Left
//! out: in which order faults come and what is asked of the cluster meanwhile.

mod agents;
pub mod clock;
mod data_dir;
pub mod disk;
pub mod kinds;
mod laid;
pub mod process;
mod signals;
pub mod sockets;
mod strike;
mod throttle;
mod whom;

use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

pub use laid::Laid;
pub use signals::{Killed, continue_stopped, kill, kill_together, running, stop};
pub use strike::{Report, Strike};
pub use whom::Whom;

use crate::Error;
use crate::network::{Backend, Harm};
use crate::nodes::{Nodes, Options};

/// The longest election timeout, with the timers of one site.
pub const ELECTION: Duration = Duration::from_millis(600);
/// Entries between two snapshots of which a run has many.
pub const OFTEN: u64 = 500;
/// Of a controller's disk: enough for a run's log, and little to fill.
const MEBIBYTES: u32 = 512;
/// Agents of which half can be missed.
const MANY: usize = 8;
/// How long most faults last: long enough for an election, and for what waits for one to be given up.
const USUAL: Duration = Duration::from_millis(1_200);

/// One that is to be inflicted, or was.
#[async_trait]
pub trait Fault: Send + Sync {
    /// Breaks something, and says what exactly was drawn.
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error>;

    /// How long it is to last, once it was inflicted.
    fn hold(&self) -> Duration {
        USUAL
    }

    /// What shows from outside that it took effect, after it has lasted and before it is healed.
    /// [`Error::Invalid`] where nothing does.
    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error>;

    /// Takes it back. Also called where inflicting or proving has failed, so whatever was done counts.
    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error>;
}

/// What can be listed, named in a scenario, and drawn.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// `isolate-leader`
    pub name: &'static str,
    /// One line for the person who chooses.
    pub about: &'static str,
    pub needs: &'static [Need],
    pub make: fn() -> Box<dyn Fault>,
}

/// What a kind of fault can't do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// A network that can do this to an edge.
    Network(Harm),
    /// A network with links that can be taken down.
    Links,
    /// A network that reaches members whose ids nobody knew when it was made.
    Newcomers,
    /// Nodes with clocks of their own.
    Clocks,
    /// Controllers with disks of their own.
    Disks,
    /// A kernel that can hold back what one process writes to a disk.
    Throttle,
    /// A test build, whose processes can be told where to die.
    Failpoints,
    /// Snapshots every now and then.
    Snapshots,
    /// And a log that is purged behind them.
    Purges,
    Controllers(usize),
    Agents(usize),
}

impl Kind {
    /// Whether it is agents that it breaks, so that controllers may be broken meanwhile.
    pub fn hits_agents(&self) -> bool {
        self.needs
            .iter()
            .any(|need| matches!(need, Need::Agents(_)))
    }

    /// Why it can't be inflicted on such a cluster.
    pub fn missing(&self, options: &Options) -> Option<String> {
        self.needs.iter().find_map(|need| need.missing(options))
    }
}

impl Need {
    fn missing(self, options: &Options) -> Option<String> {
        let backend = options.backend;
        let (is_there, what) = match self {
            Need::Network(harm) => (
                backend.can(harm),
                format!("a network that does {harm:?}, not {}", backend.name()),
            ),
            Need::Links => (
                backend == Backend::Namespaces,
                format!("links, which {} has not", backend.name()),
            ),
            Need::Newcomers => (
                backend != Backend::Proxies,
                format!(
                    "a network that does not go by members' ids, as {} do",
                    backend.name()
                ),
            ),
            Need::Clocks => (options.has_clocks, "clocks of their own".to_owned()),
            Need::Disks => (options.disks.is_some(), "disks of their own".to_owned()),
            Need::Throttle => (options.has_throttle, "a throttle of writes".to_owned()),
            Need::Failpoints => (options.has_failpoints, "a test build".to_owned()),
            Need::Snapshots => {
                let often = options.snapshot_every.is_some_and(|every| every <= OFTEN);
                (often, "snapshots within a run".to_owned())
            }
            Need::Purges => {
                let often = options.snapshot_every.is_some_and(|every| every <= OFTEN);
                let purges = often && options.keep_behind_snapshot.is_none();
                (purges, "a log that is purged within a run".to_owned())
            }
            Need::Controllers(count) => {
                (options.controllers >= count, format!("{count} controllers"))
            }
            Need::Agents(count) => (options.agents >= count, format!("{count} agents")),
        };
        (!is_there).then(|| format!("it needs {what}"))
    }
}

/// Gives a cluster what these kinds need, as far as that can be had on this machine; and why not more.
pub fn equip(mut options: Options, kinds: &[&Kind]) -> (Options, Vec<String>) {
    let wants = |need| kinds.iter().any(|kind| kind.needs.contains(&need));
    let mut missing = Vec::new();
    if wants(Need::Clocks) {
        match clock::possible() {
            Ok(()) => options.has_clocks = true,
            Err(why) => missing.push(format!("clocks of their own: {why}")),
        }
    }
    if wants(Need::Disks) {
        match disk::possible() {
            Ok(()) => options.disks = Some(MEBIBYTES),
            Err(why) => missing.push(format!("disks of their own: {why}")),
        }
    }
    if wants(Need::Throttle) {
        match throttle::possible() {
            Ok(()) => options.has_throttle = true,
            Err(why) => missing.push(format!("a throttle of writes: {why}")),
        }
    }
    if wants(Need::Failpoints) {
        match kinds::failpoint::possible() {
            Ok(()) => options.has_failpoints = true,
            Err(why) => missing.push(format!("failpoints: {why}")),
        }
    }
    (options, missing)
}

/// All kinds, in a fixed order.
pub fn all() -> impl Iterator<Item = &'static Kind> {
    kinds::ALL.iter().copied().flatten()
}

pub fn find(name: &str) -> Option<&'static Kind> {
    all().find(|kind| kind.name == name)
}

/// One of those that can be inflicted on such a cluster; the same seed draws the same ones.
pub fn draw(options: &Options, rng: &mut StdRng) -> Option<&'static Kind> {
    let possible: Vec<&Kind> = all()
        .filter(|kind| kind.missing(options).is_none())
        .collect();
    possible.choose(rng).copied()
}
