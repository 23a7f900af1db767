//! What happened beside the operations: faults, leaders, events as they were heard, and what the nodes took.

use serde::{Deserialize, Serialize};

use super::Moment;
use super::value::SeenEvent;

/// Something that was broken on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub id: u64,
    /// `kill`, `stop`, `partition`, …
    pub name: String,
    /// A member, a link, a disk; empty for all of them.
    pub target: String,
    pub begun: Moment,
    /// Without one the fault shows nothing, and the run is invalid.
    pub effect: Option<Effect>,
    /// `None`: until the end.
    pub healed: Option<Moment>,
}

/// How it is known that a fault took hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    pub at: Moment,
    /// In words: `its process is gone`, `312 packets were dropped`.
    pub proof: String,
}

/// A controller led.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reign {
    pub controller: String,
    pub term: u64,
    pub from: Moment,
    /// When another one was seen to lead; `None`: until the end.
    pub until: Option<Moment>,
}

/// What a node took of the machine at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gauge {
    pub node: String,
    pub at: Moment,
    /// Bytes of its memory that are in RAM.
    pub resident: u64,
    /// Files and sockets that it has open.
    pub descriptors: u64,
    /// Bytes that its data directory takes.
    pub on_disk: u64,
}

/// One message of a stream of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// One listener's stream, over all its connections.
    pub stream: u64,
    /// Which connection of it, counted from 1.
    pub connection: u32,
    pub client: String,
    /// The controller that was asked.
    pub via: String,
    /// What the connection asked for: the first index; `None`: from now on.
    pub since: Option<u64>,
    pub at: Moment,
    pub events: Vec<SeenEvent>,
    /// With what to go on.
    pub next: u64,
}
