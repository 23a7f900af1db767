//! The network between nodes, with faults in it.
//!
//! ```text
//!            Direct               Proxies                         Namespaces
//!         (no faults)        (anybody may)                       (root, nft)
//!
//!  c1 ──── loopback ──── c2   c1 ─► proxy c1→c2 ─► c2    c1 │eth0 ── router ── eth0│ c2
//!                             c1 ◄─ proxy c2→c1 ◄─ c2       each in a namespace of its own
//! ```
//!
//! What is disturbed is always a direction: an [`Edge`] is what travels from one node to another, whoever
//! dialled. All edges of one [`Network::disturb`] change at the same instant, and several disturbances may
//! lie on one edge. Each is counted where it happens, which is neither of the two nodes: a fault whose
//! count did not rise did nothing, and the run is INVALID.
//!
//! The client side (the harness itself, and the command line) is a node, too. Left out: who is disturbed
//! and for how long, which is for [`crate::faults`].

mod counts;
mod loopback;
mod namespace;
mod proxy;
mod router;
mod rules;
mod shaper;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;

pub use counts::{Counts, Harm};
pub use loopback::Loopback;
pub use namespace::Namespace;
pub use rules::{Effect, Effects};

use crate::Error;
use crate::report::span;
use proxy::Proxies;
use router::Router;

/// The name of the node from which the harness and its command lines ask.
pub const CLIENT: &str = "client";

/// What travels from one node to another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    pub from: String,
    pub to: String,
}

impl Edge {
    pub fn new(from: &str, to: &str) -> Edge {
        Edge {
            from: from.to_owned(),
            to: to.to_owned(),
        }
    }

    /// Both directions between two nodes.
    pub fn both(one: &str, other: &str) -> [Edge; 2] {
        [Edge::new(one, other), Edge::new(other, one)]
    }

    /// Every direction between a node of the one group and a node of the other.
    pub fn between<S: AsRef<str>, T: AsRef<str>>(ones: &[S], others: &[T]) -> Vec<Edge> {
        let pairs = ones.iter().flat_map(|one| {
            let others = others.iter().map(AsRef::as_ref);
            others.map(move |other| (one.as_ref(), other))
        });
        pairs
            .filter(|(one, other)| one != other)
            .flat_map(|(one, other)| Edge::both(one, other))
            .collect()
    }

    pub fn reversed(&self) -> Edge {
        Edge::new(&self.to, &self.from)
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}→{}", self.from, self.to)
    }
}

/// What happens to what travels along an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    /// Nothing arrives, and nobody says so.
    Silence,
    /// Connections are reset, new ones refused.
    Reset,
    /// Of 100 packets so many are lost.
    Loss(u8),
    /// Of 100 packets so many arrive twice.
    Duplication(u8),
    /// Each packet comes so much later, and a random part of `jitter` on top. Packets overtake each other by
    /// that; in a proxy, where a connection's bytes keep their order, connections do.
    Delay { by: Duration, jitter: Duration },
    /// Bytes per second.
    Rate(u32),
    /// One byte of what comes next is another one. What TCP checks it by is right again.
    Corruption,
    /// Each connection's sender is cut off in an orderly way, as if it had closed its half.
    HalfClose,
}

impl Disturbance {
    pub fn harm(self) -> Harm {
        match self {
            Disturbance::Silence => Harm::Silence,
            Disturbance::Reset => Harm::Reset,
            Disturbance::Loss(_) => Harm::Loss,
            Disturbance::Duplication(_) => Harm::Duplication,
            Disturbance::Delay { .. } => Harm::Delay,
            Disturbance::Rate(_) => Harm::Rate,
            Disturbance::Corruption => Harm::Corruption,
            Disturbance::HalfClose => Harm::HalfClose,
        }
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Disturbance::Silence => out.write_str("silence"),
            Disturbance::Reset => out.write_str("resets"),
            Disturbance::Loss(percent) => write!(out, "{percent} % lost"),
            Disturbance::Duplication(percent) => write!(out, "{percent} % twice"),
            Disturbance::Delay { by, jitter } if by.is_zero() => {
                write!(out, "up to {} late", span(*jitter))
            }
            Disturbance::Delay { by, .. } => write!(out, "{} late", span(*by)),
            Disturbance::Rate(bytes) => write!(out, "{} KiB/s", bytes / 1024),
            Disturbance::Corruption => out.write_str("a wrong byte"),
            Disturbance::HalfClose => out.write_str("half closed"),
        }
    }
}

/// What the network is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// The loopback interface, as it is.
    Direct,
    /// A TCP proxy for each directed edge. Needs no privilege.
    Proxies,
    /// A network namespace for each node. Needs root, `ip` and `nft`.
    Namespaces,
}

impl Backend {
    /// The strongest that works here, and why not a stronger one.
    pub fn strongest() -> (Backend, Option<String>) {
        match Router::possible() {
            Ok(()) => (Backend::Namespaces, None),
            Err(why) => (Backend::Proxies, Some(why)),
        }
    }

    /// Why it can't be had here.
    pub fn possible(self) -> Result<(), String> {
        match self {
            Backend::Direct | Backend::Proxies => Ok(()),
            Backend::Namespaces => Router::possible(),
        }
    }

    /// Whether it can do this to an edge.
    pub fn can(self, harm: Harm) -> bool {
        match (self, harm) {
            (Backend::Direct, _) => false,
            // A proxy has no packets.
            (Backend::Proxies, Harm::Loss | Harm::Duplication) => false,
            (Backend::Proxies, _) => true,
            // And a router no connections.
            (Backend::Namespaces, Harm::HalfClose) => false,
            (Backend::Namespaces, Harm::Delay | Harm::Rate | Harm::Corruption) => {
                shaper::possible().is_ok()
            }
            (Backend::Namespaces, _) => true,
        }
    }

    /// As it is asked for on a command line.
    pub fn name(self) -> &'static str {
        match self {
            Backend::Direct => "direct",
            Backend::Proxies => "proxy",
            Backend::Namespaces => "netns",
        }
    }
}

/// One of a controller's ports; an agent has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    Grpc,
    Raft,
    Https,
}

impl Service {
    const ALL: [Service; 3] = [Service::Grpc, Service::Raft, Service::Https];

    fn offset(self) -> u16 {
        match self {
            Service::Grpc => 0,
            Service::Raft => 1,
            Service::Https => 2,
        }
    }
}

/// A disturbance that lies on some edges, until it is lifted.
#[derive(Debug)]
#[must_use = "a disturbance stays until it is lifted"]
pub struct Rule {
    id: u64,
    pub edges: Vec<Edge>,
    pub disturbance: Disturbance,
    before: BTreeMap<Edge, u64>,
}

/// The network of one cluster.
#[derive(Debug)]
pub struct Network {
    wires: Wires,
    /// What lies on which edges now. Held while it changes, so that changes come one after the other.
    rules: Mutex<BTreeMap<u64, (Vec<Edge>, Disturbance)>>,
    next: AtomicU64,
}

#[derive(Debug)]
enum Wires {
    Direct(Loopback),
    Proxies(Proxies),
    Namespaces(Router),
}

impl Network {
    /// One that joins these nodes; nothing listens yet.
    pub async fn create(
        backend: Backend,
        controllers: &[String],
        agents: &[String],
    ) -> Result<Network, Error> {
        let wires = match backend {
            Backend::Direct => Wires::Direct(Loopback::find(controllers)?),
            Backend::Proxies => {
                Wires::Proxies(Proxies::create(Loopback::find(controllers)?, agents).await?)
            }
            Backend::Namespaces => Wires::Namespaces(Router::create(controllers, agents).await?),
        };
        Ok(Network {
            wires,
            rules: Mutex::new(BTreeMap::new()),
            next: AtomicU64::new(1),
        })
    }

    pub fn backend(&self) -> Backend {
        match &self.wires {
            Wires::Direct(_) => Backend::Direct,
            Wires::Proxies(_) => Backend::Proxies,
            Wires::Namespaces(_) => Backend::Namespaces,
        }
    }

    /// Where a controller has to listen, and what it is to tell the others.
    pub fn listen(&self, controller: &str) -> String {
        match &self.wires {
            Wires::Direct(loopback) => loopback.address(controller, Service::Grpc),
            Wires::Proxies(proxies) => proxies.loopback().address(controller, Service::Grpc),
            Wires::Namespaces(router) => router.address(controller, Service::Grpc),
        }
    }

    /// What a node dials to reach a controller.
    pub fn dial(&self, from: &str, to: &str, service: Service) -> String {
        match &self.wires {
            Wires::Direct(loopback) => loopback.address(to, service),
            Wires::Proxies(proxies) => proxies.address(&Edge::new(from, to), service),
            Wires::Namespaces(router) => router.address(to, service),
        }
    }

    /// What the harness itself dials, from outside of any namespace.
    pub fn dial_from_outside(&self, to: &str, service: Service) -> String {
        match &self.wires {
            Wires::Direct(_) | Wires::Proxies(_) => self.dial(CLIENT, to, service),
            Wires::Namespaces(router) => router.outside(to, service),
        }
    }

    /// The namespace in which a node runs, where it has one.
    pub fn namespace(&self, node: &str) -> Option<&Namespace> {
        match &self.wires {
            Wires::Direct(_) | Wires::Proxies(_) => None,
            Wires::Namespaces(router) => router.namespace(node),
        }
    }

    /// The path by which other programs enter a node's namespace, where it has one.
    pub fn entrance(&self, node: &str) -> Option<PathBuf> {
        self.namespace(node).map(Namespace::path)
    }

    /// Lays a disturbance on all of these edges at once.
    pub async fn disturb(&self, edges: &[Edge], disturbance: Disturbance) -> Result<Rule, Error> {
        if !self.backend().can(disturbance.harm()) {
            return Err(Error::Invalid(format!(
                "{disturbance:?} can't be done by {}",
                self.backend().name()
            )));
        }
        let mut rules = self.rules.lock().await;
        let before = self.counted(edges, disturbance.harm()).await?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let old = rules::effects(rules.values());
        rules.insert(id, (edges.to_vec(), disturbance));
        self.change(&old, &rules::effects(rules.values())).await?;
        Ok(Rule {
            id,
            edges: edges.to_vec(),
            disturbance,
            before,
        })
    }

    /// Takes disturbances away, all at once.
    pub async fn lift(&self, lifted: impl IntoIterator<Item = Rule>) -> Result<(), Error> {
        let mut rules = self.rules.lock().await;
        let old = rules::effects(rules.values());
        for rule in lifted {
            rules.remove(&rule.id);
        }
        self.change(&old, &rules::effects(rules.values())).await
    }

    /// How often a disturbance has happened since it was laid, by edge: packets, or connections and pieces.
    pub async fn felt(&self, rule: &Rule) -> Result<BTreeMap<Edge, u64>, Error> {
        let now = self.counted(&rule.edges, rule.disturbance.harm()).await?;
        let before = |edge: &Edge| rule.before.get(edge).copied().unwrap_or(0);
        Ok(now
            .into_iter()
            .map(|(edge, count)| (edge.clone(), count.saturating_sub(before(&edge))))
            .collect())
    }

    /// Takes a node's own end of its cable down: it sees so itself, at once.
    pub fn link_down(&self, node: &str) -> Result<(), Error> {
        self.router()?.link_down(node)
    }

    pub fn link_up(&self, node: &str) -> Result<(), Error> {
        self.router()?.link_up(node)
    }

    /// Whether the other end of a node's cable sees it.
    pub fn has_carrier(&self, node: &str) -> Result<bool, Error> {
        self.router()?.has_carrier(node)
    }

    fn router(&self) -> Result<&Router, Error> {
        match &self.wires {
            Wires::Namespaces(router) => Ok(router),
            Wires::Direct(_) | Wires::Proxies(_) => Err(Error::Invalid(format!(
                "{} has no links",
                self.backend().name()
            ))),
        }
    }

    async fn change(&self, old: &Effects, new: &Effects) -> Result<(), Error> {
        match &self.wires {
            Wires::Direct(_) => Ok(()),
            Wires::Proxies(proxies) => {
                proxies.change(new);
                Ok(())
            }
            Wires::Namespaces(router) => router.change(old, new),
        }
    }

    async fn counted(&self, edges: &[Edge], harm: Harm) -> Result<BTreeMap<Edge, u64>, Error> {
        let all = match &self.wires {
            Wires::Direct(_) => BTreeMap::new(),
            Wires::Proxies(proxies) => proxies.counts().of(harm),
            Wires::Namespaces(router) => router.counted(harm)?,
        };
        let count = |edge: &Edge| all.get(edge).copied().unwrap_or(0);
        Ok(edges
            .iter()
            .map(|edge| (edge.clone(), count(edge)))
            .collect())
    }
}
