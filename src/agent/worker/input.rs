//! What a worker is told, and what it wants done.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    BackendSettings, Disposition, Fence, Generation, Gpus, Millis, TaskSpec, Timestamp, Verdict,
};

use crate::executor::{self, Exit, Urgency};
use crate::output::{Captured, Fate};
use crate::worker::Load;

/// One connection to one controller; numbered anew for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What tells leaders apart: the later one has the higher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp {
    pub generation: Generation,
    pub term: u64,
}

/// What a controller says that concerns the work.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    Leading,
    Following,
    Assign {
        fence: Fence,
        number: u32,
        gpus: Gpus,
        /// Attempts here whose places it has got: it begins once they have ended.
        after: Vec<Fence>,
        spec: Arc<TaskSpec>,
    },
    /// A person cancelled the task.
    Cancel {
        fence: Fence,
    },
    /// The attempt is not live any more.
    Stale {
        fence: Fence,
    },
    /// The agent is being drained: it is wanted back if it has not begun.
    Recall {
        fence: Fence,
    },
    /// The agent is being drained, and its time is up.
    Evict {
        fence: Fence,
    },
    /// Another task has got its place.
    Preempt {
        fence: Fence,
    },
    Renewed {
        nonce: u64,
    },
    Settled {
        fence: Fence,
        disposition: Disposition,
    },
    /// What was set for the back ends, by name.
    Backends(BTreeMap<String, BackendSettings>),
}

/// The end of an attempt that ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub exit: Exit,
    pub captured: Captured,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The controller took the session.
    Opened {
        session: SessionId,
    },
    Closed {
        session: SessionId,
    },
    Said {
        session: SessionId,
        stamp: Stamp,
        said: Said,
    },
    Latency {
        session: SessionId,
        micros: u32,
    },
    /// Measured every few seconds; passed on to every controller.
    Load(Load),
    /// In the journal, on disk: it may start.
    Begun(Fence),
    /// Its process runs.
    Started(Fence),
    Ended {
        fence: Fence,
        ended: Box<Ended>,
    },
    /// Its verdict is on disk: it may be reported.
    Recorded(Fence),
    Tick,
    /// Take nothing new, give back what waits, and end what runs.
    Stop,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    Say {
        session: SessionId,
        body: wire::v1::agent_frame::Body,
    },
    /// The lease holds until then, on the boot clock: known before anything starts under it.
    Leased {
        until: Millis,
    },
    /// Make room for its output, so that it can be followed before it runs.
    Open(Fence),
    Begin {
        fence: Fence,
        number: u32,
    },
    Start(executor::Attempt),
    End {
        fence: Fence,
        urgency: Urgency,
    },
    /// What was set for the back ends, by name.
    SetBackends(BTreeMap<String, BackendSettings>),
    Record(Box<Verdict>),
    Settle {
        fence: Fence,
        fate: Fate,
    },
}
