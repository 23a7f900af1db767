//! Priority bands, and how long a task waits in one before it counts as the next higher.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::TaskId;
use crate::state::State;
use crate::time::{Millis, Timestamp};

/// Priority band: all of a higher one goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    Critical,
    Interactive,
    Standard,
    Batch,
    Scavenger,
}

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

impl Class {
    /// The highest first.
    pub const ALL: [Class; 5] = [
        Class::Critical,
        Class::Interactive,
        Class::Standard,
        Class::Batch,
        Class::Scavenger,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Class::Critical => "critical",
            Class::Interactive => "interactive",
            Class::Standard => "standard",
            Class::Batch => "batch",
            Class::Scavenger => "scavenger",
        }
    }

    /// How long the first task of a line waits in it, and is not served, before it is starved.
    pub fn patience(self) -> Millis {
        match self {
            // Somebody waits for it.
            Class::Critical | Class::Interactive => Millis(MINUTE),
            Class::Standard => Millis(10 * MINUTE),
            Class::Batch => Millis(HOUR),
            Class::Scavenger => Millis(6 * HOUR),
        }
    }

    /// With which it goes from then on, so that nothing but endless critical work starves it. `None`: nobody comes to be
    /// critical by waiting.
    fn next(self) -> Option<Class> {
        match self {
            Class::Critical | Class::Interactive => None,
            Class::Standard => Some(Class::Interactive),
            Class::Batch => Some(Class::Standard),
            Class::Scavenger => Some(Class::Batch),
        }
    }

    /// The one that a task goes with after it has waited for so long.
    pub fn after(self, waited: Millis) -> Class {
        let left = waited.0.checked_sub(self.patience().0);
        match (self.next(), left) {
            (Some(next), Some(left)) => next.after(Millis(left)),
            (_, _) => self,
        }
    }
}

/// Whether a task is the first of a line that is starved: such ones go before others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Served {
    TooLongAgo,
    Lately,
}

/// With which class a task goes, and where among its tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    pub class: Class,
    pub served: Served,
}

impl Precedence {
    /// Of a task that is not starved.
    pub fn usual(class: Class) -> Precedence {
        Precedence {
            class,
            served: Served::Lately,
        }
    }

    /// Of one that has waited for so long, and was not served.
    pub fn after(class: Class, waited: Millis) -> Precedence {
        match waited >= class.patience() {
            true => Precedence {
                class: class.after(waited),
                served: Served::TooLongAgo,
            },
            false => Precedence::usual(class),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The tasks of one class that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingClass {
    pub class: Class,
    pub tasks: u64,
    /// For how long the oldest one is there, by state time, since its submit; of those that don't wait for a retry.
    pub oldest: Option<Millis>,
}

impl State {
    /// What waits, by class, the highest first: of each class, also where nothing does. Looks at every queue.
    pub fn waiting(&self, now: Timestamp) -> [WaitingClass; Class::ALL.len()] {
        let mut oldest: [Option<TaskId>; Class::ALL.len()] = Default::default();
        for waiting in self.index.queues.values() {
            for class in Class::ALL {
                let mut behind = waiting.ready.range((class, TaskId(0))..);
                let first = behind.next().filter(|(of, _)| *of == class);
                let known = &mut oldest[class as usize];
                let both = known.iter().copied().chain(first.map(|(_, id)| *id));
                *known = both.min();
            }
        }
        Class::ALL.map(|class| {
            let oldest = oldest[class as usize].and_then(|id| self.task(id));
            // One that came at a version which did not keep it is not told.
            let since = oldest.map(|task| task.waits_since).filter(|it| it.0 > 0);
            WaitingClass {
                class,
                tasks: self.index.waiting[class as usize],
                oldest: since.map(|since| now.max(self.time()).since(since)),
            }
        })
    }
}

/// What is no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no class `{0}`: it is critical, interactive, standard, batch or scavenger, the highest first"
)]
pub struct NoSuchClass(String);

impl FromStr for Class {
    type Err = NoSuchClass;

    fn from_str(name: &str) -> Result<Class, NoSuchClass> {
        let mut classes = Class::ALL.into_iter();
        let found = classes.find(|class| class.as_str() == name);
        found.ok_or_else(|| NoSuchClass(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_rises_one_class_at_a_time_and_never_to_critical() {
        let after = |class: Class, waited| class.after(Millis(waited));
        assert_eq!(after(Class::Standard, 10 * MINUTE - 1), Class::Standard);
        assert_eq!(after(Class::Standard, 10 * MINUTE), Class::Interactive);
        assert_eq!(after(Class::Batch, HOUR), Class::Standard);
        assert_eq!(after(Class::Batch, HOUR + 10 * MINUTE), Class::Interactive);
        assert_eq!(after(Class::Scavenger, 6 * HOUR), Class::Batch);
        for class in Class::ALL {
            assert_eq!(after(class, 0), class);
            assert_eq!(after(class, u64::MAX), class.min(Class::Interactive));
        }
    }

    #[test]
    fn a_class_is_named_as_it_is_shown() {
        for class in Class::ALL {
            assert_eq!(class.as_str().parse(), Ok(class));
        }
        let told = "urgent".parse::<Class>().unwrap_err().to_string();
        assert!(
            told.contains("`urgent`") && told.contains("interactive"),
            "{told}"
        );
    }
}
