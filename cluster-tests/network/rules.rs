//! What lies on each edge, put together from all rules; and the same in nft's words.
//!
//! The router has one table. What is cut or reset are elements of two sets of (source, destination), what is
//! lost or doubled are elements of two maps that lead to a chain of the edge's own, and what is shaped gets a
//! mark. So each change of any number of edges is one transaction of some elements, and each edge has counters.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use serde_json::Value;

use crate::network::{Disturbance, Edge, Harm};

/// Everything that lies on one edge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effect {
    pub is_silent: bool,
    pub is_reset: bool,
    pub is_half_closed: bool,
    /// Rules that want one byte changed, once each.
    pub corruptions: u32,
    /// Per cent.
    pub loss: u8,
    pub duplication: u8,
    pub delay: Duration,
    pub jitter: Duration,
    /// Bytes per second.
    pub rate: Option<u32>,
}

impl Effect {
    /// Whether packets have to be seen by the harness.
    pub fn is_shaped(&self) -> bool {
        self.corruptions > 0
            || self.delay > Duration::ZERO
            || self.jitter > Duration::ZERO
            || self.rate.is_some()
    }

    fn add(&mut self, disturbance: Disturbance) {
        match disturbance {
            Disturbance::Silence => self.is_silent = true,
            Disturbance::Reset => self.is_reset = true,
            Disturbance::HalfClose => self.is_half_closed = true,
            Disturbance::Corruption => self.corruptions += 1,
            Disturbance::Loss(per_cent) => self.loss = self.loss.max(per_cent),
            Disturbance::Duplication(per_cent) => {
                self.duplication = self.duplication.max(per_cent);
            }
            Disturbance::Delay { by, jitter } => {
                self.delay = self.delay.max(by);
                self.jitter = self.jitter.max(jitter);
            }
            Disturbance::Rate(rate) => {
                self.rate = Some(self.rate.map_or(rate, |other| other.min(rate)));
            }
        }
    }
}

/// The edges on which anything lies.
pub type Effects = BTreeMap<Edge, Effect>;

/// Where several rules say the same of one edge, the worst counts.
pub fn effects<'a>(rules: impl IntoIterator<Item = &'a (Vec<Edge>, Disturbance)>) -> Effects {
    let mut effects = Effects::new();
    for (edges, disturbance) in rules {
        for edge in edges {
            effects.entry(edge.clone()).or_default().add(*disturbance);
        }
    }
    effects
}

/// The table, before anything lies on any edge. What is shaped goes on to the chain that iptables makes.
pub const TABLE: &str = "
table ip chaos {
  set silent {
    type ipv4_addr . ipv4_addr
    counter
  }
  set torn {
    type ipv4_addr . ipv4_addr
    counter
  }
  map lossy {
    type ipv4_addr . ipv4_addr : verdict
  }
  map doubled {
    type ipv4_addr . ipv4_addr : verdict
  }
  map shaped {
    type ipv4_addr . ipv4_addr : mark
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
    ip saddr . ip daddr @silent drop
    ip saddr . ip daddr @torn meta l4proto tcp reject with tcp reset
    ip saddr . ip daddr vmap @lossy
    ip saddr . ip daddr vmap @doubled
    meta mark set ip saddr . ip daddr map @shaped
  }
}
";

/// What nft has to know of a node.
pub trait Places {
    /// `10.99.1.2`
    fn host(&self, node: &str) -> String;
    /// The router's interface towards it.
    fn interface(&self, node: &str) -> String;
    /// The number of an edge, never 0.
    fn mark(&self, edge: &Edge) -> u32;
}

/// One transaction that leads from what lies on the edges to what is to lie there.
pub fn transaction(places: &impl Places, old: &Effects, new: &Effects) -> String {
    let mut script = String::new();
    let edges: BTreeSet<&Edge> = old.keys().chain(new.keys()).collect();
    for edge in edges {
        let of = |effects: &Effects| effects.get(edge).copied().unwrap_or_default();
        let (was, is) = (of(old), of(new));
        let element = format!("{} . {}", places.host(&edge.from), places.host(&edge.to));
        let mut say = |line: String| {
            // Writing to a string can't fail.
            let _written = writeln!(script, "{line}");
        };
        for (set, was, is) in [
            ("silent", was.is_silent, is.is_silent),
            ("torn", was.is_reset, is.is_reset),
        ] {
            match (was, is) {
                (false, true) => say(format!("add element ip chaos {set} {{ {element} }}")),
                (true, false) => say(format!("delete element ip chaos {set} {{ {element} }}")),
                (true, true) | (false, false) => {}
            }
        }
        let (host, interface) = (places.host(&edge.to), places.interface(&edge.to));
        let twice = format!("dup to {host} device \"{interface}\"");
        for (map, action, was, is) in [
            ("lossy", "drop", was.loss, is.loss),
            ("doubled", twice.as_str(), was.duplication, is.duplication),
        ] {
            for line in chance(map, edge, &element, action, (was, is)) {
                say(line);
            }
        }
        let mark = places.mark(edge);
        match (was.is_shaped(), is.is_shaped()) {
            (false, true) => say(format!(
                "add element ip chaos shaped {{ {element} : {mark} }}"
            )),
            (true, false) => say(format!("delete element ip chaos shaped {{ {element} }}")),
            (true, true) | (false, false) => {}
        }
    }
    script
}

/// The lines that change how many of 100 packets meet an action.
fn chance(map: &str, edge: &Edge, element: &str, action: &str, change: (u8, u8)) -> Vec<String> {
    let chain = format!("{map}_{}_{}", edge.from, edge.to);
    let rule = |per_cent: u8| match per_cent {
        // nft refuses a comparison that always holds.
        100.. => format!("add rule ip chaos {chain} counter {action}"),
        _ => {
            format!("add rule ip chaos {chain} numgen random mod 100 < {per_cent} counter {action}")
        }
    };
    match change {
        (was, is) if was == is => Vec::new(),
        (0, is) => vec![
            format!("add chain ip chaos {chain}"),
            rule(is),
            format!("add element ip chaos {map} {{ {element} : jump {chain} }}"),
        ],
        (_, 0) => vec![
            format!("delete element ip chaos {map} {{ {element} }}"),
            format!("flush chain ip chaos {chain}"),
            format!("delete chain ip chaos {chain}"),
        ],
        (_, is) => vec![format!("flush chain ip chaos {chain}"), rule(is)],
    }
}

/// Packets by source and destination (of sets), or by the chain's name, from `nft -j list table`.
pub fn packets(listing: &str, harm: Harm) -> Result<BTreeMap<String, u64>, String> {
    let listing: Value = serde_json::from_str(listing).map_err(|error| error.to_string())?;
    let objects = listing["nftables"]
        .as_array()
        .ok_or("no `nftables` in it")?;
    let counter = |value: &Value| value["counter"]["packets"].as_u64();
    let (set, prefix) = match harm {
        Harm::Silence => ("silent", None),
        Harm::Reset => ("torn", None),
        Harm::Loss => ("", Some("lossy_")),
        Harm::Duplication => ("", Some("doubled_")),
        Harm::Delay | Harm::Rate | Harm::Corruption | Harm::HalfClose => return Ok(BTreeMap::new()),
    };
    let mut found = BTreeMap::new();
    for object in objects {
        if object["set"]["name"] == set {
            let elements = object["set"]["elem"].as_array();
            for element in elements.into_iter().flatten() {
                let ends = &element["elem"]["val"]["concat"];
                if let (Some(from), Some(to)) = (ends[0].as_str(), ends[1].as_str()) {
                    found.insert(
                        format!("{from} {to}"),
                        counter(&element["elem"]).unwrap_or(0),
                    );
                }
            }
        }
        let chain = object["rule"]["chain"].as_str().unwrap_or_default();
        if let Some(name) = prefix.and_then(|prefix| chain.strip_prefix(prefix)) {
            let parts = object["rule"]["expr"].as_array();
            let seen = parts.into_iter().flatten().find_map(counter);
            *found.entry(name.replace('_', " ")).or_default() += seen.unwrap_or(0);
        }
    }
    Ok(found)
}
