//! What the records add up to: which attempts are open, and which were settled lately.

use std::collections::{BTreeMap, HashSet, VecDeque};

use model::{Fence, Incarnation, Timestamp, Verdict};

use super::record::{ProcessMark, Record};

/// Settled attempts that are remembered, so that an assignment that was delayed on its way does
/// not start one again. Far more than can be on their way; about 2 MiB in the file.
pub(super) const SETTLED_MAX: usize = 16_384;

/// An attempt whose verdict is not settled yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Attempt number and wall time; unset where it was never begun (it was declined).
    pub begun: Option<(u32, Timestamp)>,
    pub process: Option<ProcessMark>,
    pub verdict: Option<Verdict>,
}

/// What a journal knew when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    pub incarnation: Incarnation,
    pub held: BTreeMap<Fence, Held>,
    /// Oldest first.
    pub settled: Vec<Fence>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    pub held: BTreeMap<Fence, Held>,
    settled: VecDeque<Fence>,
    settled_set: HashSet<Fence>,
}

impl Ledger {
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Opened { .. } => {}
            Record::Begun { fence, attempt, at } => {
                self.held.entry(*fence).or_default().begun = Some((*attempt, *at));
            }
            Record::Running { fence, process } => {
                if let Some(held) = self.held.get_mut(fence)
                    && held.begun.is_some()
                {
                    held.process = Some(process.clone());
                }
            }
            Record::Ended(verdict) => {
                self.held.entry(verdict.fence).or_default().verdict = Some(verdict.clone());
            }
            Record::Settled { fence } => {
                self.held.remove(fence);
                self.settle(*fence);
            }
        }
    }

    fn settle(&mut self, fence: Fence) {
        if self.settled_set.insert(fence) {
            self.settled.push_back(fence);
        }
        while self.settled.len() > SETTLED_MAX {
            if let Some(oldest) = self.settled.pop_front() {
                self.settled_set.remove(&oldest);
            }
        }
    }

    pub fn settled(&self) -> impl Iterator<Item = Fence> + '_ {
        self.settled.iter().copied()
    }

    /// The fewest records that give this ledger again.
    pub fn records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = self
            .settled
            .iter()
            .map(|fence| Record::Settled { fence: *fence })
            .collect();
        for (&fence, held) in &self.held {
            if let Some((attempt, at)) = held.begun {
                records.push(Record::Begun { fence, attempt, at });
            }
            if let Some(process) = &held.process {
                records.push(Record::Running {
                    fence,
                    process: process.clone(),
                });
            }
            if let Some(verdict) = &held.verdict {
                records.push(Record::Ended(verdict.clone()));
            }
        }
        records
    }
}
