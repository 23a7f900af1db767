//! What is promised, by name, and what breaks it.

use serde::{Deserialize, Serialize};

use crate::history::Moment;

/// The promises that a run is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Invariant {
    I1,
    I2,
    I3,
    I4,
    I5,
    I6,
    I7,
    I8,
    I9,
    I10,
    I11,
    I12,
    I13,
}

impl Invariant {
    pub fn sentence(self) -> &'static str {
        match self {
            Invariant::I1 => "no acknowledged write is lost",
            Invariant::I2 => "a task has at most one accepted result",
            Invariant::I3 => "a task never has two live epochs, and its epochs increase",
            Invariant::I4 => {
                "nothing is assigned to an agent that is cordoned, lost or unfit, nor beyond its capacity"
            }
            Invariant::I5 => "the API is linearizable",
            Invariant::I6 => "controllers at the same index hold the same state",
            Invariant::I7 => "the audit chain is unbroken, and equal everywhere",
            Invariant::I8 => {
                "events come in order, once and without a gap, and can be gone on with"
            }
            Invariant::I9 => "an at-most-once task starts once",
            Invariant::I10 => "of a gang all tasks start, or none",
            Invariant::I11 => "quotas are never exceeded",
            Invariant::I12 => "work goes in the order of class, share and age",
            Invariant::I13 => {
                "after healing something succeeds within 2 s, and all queued work ends"
            }
        }
    }
}

impl std::fmt::Display for Invariant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident $invariant:ident $promise:literal,)*) => {
        /// A way to break a promise.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        impl Kind {
            pub const ALL: &[Kind] = &[$(Kind::$kind,)*];

            pub fn invariant(self) -> Invariant {
                match self {
                    $(Kind::$kind => Invariant::$invariant,)*
                }
            }

            /// What was promised, in one sentence.
            pub fn promise(self) -> &'static str {
                match self {
                    $(Kind::$kind => $promise,)*
                }
            }
        }
    };
}

kinds! {
    /// A controller does not have, or the log does not have, what was acknowledged.
    Lost I1 "what was acknowledged is in the log of a majority, and on every controller in the end",
    /// A second report was accepted, or one under another epoch than the live one.
    SecondResult I2 "a report is accepted once, and only under the live epoch",
    ResultChanged I2 "a result that was once seen stays as it is",
    TwoEpochs I3 "a task is assigned only while it has no live attempt",
    EpochFell I3 "each assignment of a task has a higher epoch than the one before",
    EpochTooLow I3 "an epoch is the index of the entry that assigned",
    AfterEnd I3 "a task that has ended is not assigned or ended again",
    RanTwice I3 "under one epoch a task is started once",
    TwoAtOnce I3 "the process of an attempt has ended when the next one of its task starts",
    RanUnasked I3 "an agent starts what was assigned, and nothing else",
    NotWritten I3 "what an agent starts stands in its journal before",
    AgainstRule I4 "what people decided by hand holds from its entry on",
    OnCordoned I4 "an agent that is cordoned or drained gets no new work",
    OnLost I4 "an agent whose lease ran out gets no work until it registers again",
    OnUnfit I4 "a task goes to an agent that has what it requires",
    OtherIncarnation I4 "a task goes to the incarnation of an agent that is registered",
    OverCapacity I4 "an agent holds no more attempts than its slots and the one that is sent ahead, and none that asks for more than it has left",
    OtherTask I5 "a request id stands for one task",
    Doubled I5 "a request id makes one task, however often it is sent",
    RefusedButDone I5 "what was refused has not happened",
    Denied I5 "what exists is not said not to exist",
    NeverSo I5 "an answer shows the state as it was at the place in the log that it names",
    Backwards I5 "an operation takes effect after all that were answered before it was asked for",
    NotLinearizable I5 "there is an order of the operations, within their times, that explains every answer",
    LogsDiffer I6 "two controllers have the same entry at an index that is committed",
    HashesDiffer I6 "two controllers have the same state hash at the same index",
    HashOfNoLog I6 "a controller's state is what the log makes of it",
    Unsound I6 "the state agrees with itself",
    EventOutOfOrder I8 "events come in the order of the log",
    EventTwice I8 "no event comes twice on one connection",
    EventMissing I8 "no event is left out between two that came, nor where a stream is gone on with",
    EventNeverWas I8 "what is told did happen, at that index",
    RanAgain I9 "a task that was submitted as at-most-once is never begun a second time",
    OverQuota I11 "a namespace has no more tasks that run, and that wait, than its quota allows",
    Overtook I12 "of two tasks that ask the same of an agent, the one of the higher class, else of one user the older, goes first, if it was acknowledged before the other was asked for",
    PreemptedWrongly I12 "a task gets the places of others only where these allow it, run on its agent, and are of lower classes",
    /// Some other task, agent or score.
    DecidedOtherwise I12 "each decision is what its inputs, which stand in the log beside it, come to",
    SlowToHeal I13 "an operation succeeds within 2 s after the last fault was healed",
    NotEnded I13 "all queued work ends",
}

/// A broken promise, with what shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub kind: Kind,
    /// What was seen instead, in words.
    pub seen: String,
    /// When it was seen, where that is known.
    pub at: Option<Moment>,
    /// Of the history, by their ids.
    pub operations: Vec<u64>,
    /// Of the log, by their indexes.
    pub entries: Vec<u64>,
}

impl Violation {
    pub fn new(kind: Kind, seen: impl Into<String>) -> Violation {
        Violation {
            kind,
            seen: seen.into(),
            at: None,
            operations: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// By when it was seen, and where in the log; what has no time, or no place there, comes last.
    pub fn place(&self) -> (bool, Option<Moment>, u64) {
        let first = self.entries.iter().min().copied();
        (self.at.is_none(), self.at, first.unwrap_or(u64::MAX))
    }

    #[must_use]
    pub fn entry(mut self, index: u64) -> Violation {
        self.entries.push(index);
        self
    }

    /// An operation that shows it; the first one says when.
    #[must_use]
    pub fn operation(mut self, operation: &crate::history::Operation) -> Violation {
        self.at = self
            .at
            .or(Some(operation.answered.unwrap_or(operation.invoked)));
        self.operations.push(operation.id);
        self
    }

    #[must_use]
    pub fn at(mut self, at: Moment) -> Violation {
        self.at = Some(at);
        self
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind.invariant(), self.seen)
    }
}
