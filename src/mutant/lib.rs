//! Bugs that a test build can be told to have, to see whether the tests find them.
//!
//! A check that has never caught a bug proves nothing. Each [`Mutant`] is a line in the product, or two, that are wrong when it is
//! asked for: by `plant` on one thread, for a simulation, or by `QUORATE_MUTANT=name` for a whole process. Without the
//! feature `planted` nothing can be asked for, [`is`] is a constant, and no trace of this is left in the binary;
//! with it a build without assertions, such as a release, does not compile.

#[cfg(all(feature = "planted", not(debug_assertions)))]
compile_error!("planted bugs are for tests: a release is built without the feature `planted`");

use strum::{EnumMessage, IntoStaticStr, VariantArray};

/// A bug that can be planted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, EnumMessage, IntoStaticStr, VariantArray,
)]
#[strum(serialize_all = "kebab-case")]
pub enum Mutant {
    /// The log acknowledges entries before they are on disk.
    AckBeforeFsync,
    /// A vote is given before it is on disk.
    VoteNotSynced,
    /// Entries that a new leader replaces stay on disk.
    TruncationForgotten,
    /// A read takes the state that is there, and asks no quorum.
    StaleRead,
    /// A leader renews leases without asking a quorum.
    LeaseWithoutQuorum,
    /// Some events are not told.
    EventsDropped,
    /// A new leader's time is its wall clock.
    StampFromWallClock,
    /// A new leader acts before it has applied what earlier ones committed.
    ReadyTooEarly,
    /// Some finished tasks never come to the archive.
    ArchiveLosesTasks,
    /// A write leaves the hash of the state as it was.
    HashForgotten,
    /// A report counts under any epoch.
    NoEpochCheck,
    /// A request id that is known is a new task all the same.
    NoDedupe,
    /// An at-most-once task is assigned again after its agent was lost.
    AtMostOnceRepeats,
    /// An agent may be given more than it has room for: what is on its way there does not count, nor does an entry look.
    CapacityUnchecked,
    /// An agent may be given more than it has of memory, processors and GPUs: an entry does not look, nor does the plan.
    ResourcesUnchecked,
    /// An agent may be given what requires other labels than it has: an entry does not look, nor does the plan.
    LabelsUnchecked,
    /// A cordoned agent may be given work.
    CordonIgnored,
    /// A rule by hand is kept and not obeyed: an entry does not look, nor does the plan.
    RulesUnchecked,
    /// A namespace is given more at once than its quota: an entry does not look.
    RunningQuotaUnchecked,
    /// A submit is taken though as many tasks of its namespace wait as its quota admits.
    QueuedQuotaUnchecked,
    /// Who is next does not depend on the class, where several users share.
    ClassIgnored,
    /// Who is next does not depend on what anybody has used.
    ShareIgnored,
    /// A decision goes by more of an agent than is written down beside it.
    SampleUntold,
    /// An entry is applied before the one before it, where both are there.
    ApplyOutOfOrder,
    /// A controller is removed though too few voters would go on.
    RemovalUnchecked,
    /// A task may take the place of one of its own class.
    PreemptsItsEqual,
    /// An agent begins a task before what it preempted has ended.
    VictimNotAwaited,
    /// An epoch is the number of the attempt, and not the entry's index.
    EpochNotTheIndex,
    /// The leader gives a lease up before its agent does.
    LeaseCutShort,
    /// A new leader counts leases from before its election.
    LeasesNotRestarted,
    /// A lease that has run out is renewed while its end is on the way to the log.
    ExpiredLeaseRenewed,
    /// A report is acknowledged before it is applied.
    VerdictAckedEarly,
    /// An assignment that was lost on its way is not sent again.
    AssignNotRepeated,
    /// An agent starts an attempt before its journal says so.
    StartBeforeJournal,
    /// An agent works on for longer than its lease.
    LeaseTooLong,
    /// An agent obeys a leader that was replaced.
    ObeysOldLeader,
    /// An agent forgets what it has settled.
    SettledForgotten,
    /// An agent that starts again does not know what it had begun.
    JournalForgotten,
    /// An agent forgets a report once it is sent.
    ReportForgotten,
    /// An agent that lost its journal is given what it held before.
    IncarnationIgnored,
}

impl Mutant {
    pub const ALL: &[Mutant] = Mutant::VARIANTS;

    pub fn name(self) -> &'static str {
        self.into()
    }

    /// What is wrong, in words.
    pub fn says(self) -> &'static str {
        self.get_documentation().unwrap_or_default()
    }
}

impl std::str::FromStr for Mutant {
    type Err = String;

    fn from_str(name: &str) -> Result<Mutant, String> {
        let found = Mutant::ALL.iter().find(|mutant| mutant.name() == name);
        found.copied().ok_or_else(|| {
            let known: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
            format!("no mutant is called {name}; there are {}", known.join(", "))
        })
    }
}

/// Whether the product is to have this bug.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_: Mutant) -> bool {
    false
}

/// What `QUORATE_MUTANT` asks of this process.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn everywhere() -> Option<Mutant> {
    None
}

#[cfg(feature = "planted")]
pub use planted::{everywhere, is, plant};

#[cfg(feature = "planted")]
mod planted {
    use std::cell::Cell;
    use std::sync::OnceLock;

    use super::Mutant;

    thread_local! {
        static HERE: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    static EVERYWHERE: OnceLock<Option<Mutant>> = OnceLock::new();

    /// Plants a bug on this thread, or takes it out again.
    pub fn plant(mutant: Option<Mutant>) {
        HERE.set(mutant);
    }

    /// Whether the product is to have this bug.
    pub fn is(mutant: Mutant) -> bool {
        HERE.get() == Some(mutant) || everywhere() == Some(mutant)
    }

    /// What `QUORATE_MUTANT` asks of this process.
    pub fn everywhere() -> Option<Mutant> {
        *EVERYWHERE.get_or_init(|| {
            let name = std::env::var("QUORATE_MUTANT").ok()?;
            match name.parse() {
                Ok(mutant) => Some(mutant),
                Err(error) => panic!("QUORATE_MUTANT: {error}"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mutant_is_found_by_its_name_and_says_what_is_wrong() {
        for mutant in Mutant::ALL {
            assert_eq!(mutant.name().parse(), Ok(*mutant));
            assert!(mutant.says().trim().ends_with('.'), "{mutant:?}");
        }
        let unknown = "nothing".parse::<Mutant>().unwrap_err();
        assert!(unknown.contains("ack-before-fsync"), "{unknown}");
    }
}
