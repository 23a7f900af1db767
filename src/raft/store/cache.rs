//! The recent end of the log in memory, so that replication and apply never read the disk.
//!
//! It always holds the entries that are not durable yet. Older ones are dropped from the front once
//! the whole grows past its limit. The reader takes the rest from the engine.

use std::collections::VecDeque;
use std::ops::Range;

use crate::consensus::Entry;

pub struct Cache {
    entries: VecDeque<(Entry, usize)>,
    /// Index of the first entry held.
    start: u64,
    bytes: usize,
    limit: usize,
    /// Entries before this index are on disk.
    durable: u64,
    /// Raised by each truncation: acknowledgements of what it cut off are void.
    truncations: u64,
}

impl Cache {
    pub fn new(limit: usize, next_index: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            start: next_index,
            bytes: 0,
            limit,
            durable: next_index,
            truncations: 0,
        }
    }

    /// Index after the last entry.
    pub fn next_index(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    pub fn start(&self) -> u64 {
        self.start
    }

    pub fn truncations(&self) -> u64 {
        self.truncations
    }

    /// Adds the next entry. The caller has checked that its index is the next one.
    pub fn push(&mut self, entry: Entry, bytes: usize) {
        debug_assert_eq!(entry.log_id.index, self.next_index());
        self.bytes += bytes;
        self.entries.push_back((entry, bytes));
    }

    /// The entries before `index` are on disk, unless a later truncation cut them off.
    pub fn set_durable(&mut self, index: u64, truncations: u64) {
        if truncations == self.truncations {
            self.durable = self.durable.max(index);
        }
        while self.bytes > self.limit && self.start < self.durable {
            let Some((_, bytes)) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= bytes;
            self.start += 1;
        }
    }

    /// Forgets everything from `index` on.
    pub fn truncate(&mut self, index: u64) {
        self.truncations += 1;
        self.durable = self.durable.min(index);
        while self.next_index() > index {
            match self.entries.pop_back() {
                Some((_, bytes)) => self.bytes -= bytes,
                None => {
                    self.start = index;
                    break;
                }
            }
        }
    }

    /// Forgets everything before `index`. The log may be moved ahead of its end: a snapshot was
    /// installed.
    pub fn purge(&mut self, index: u64) {
        while self.start < index {
            match self.entries.pop_front() {
                Some((_, bytes)) => {
                    self.bytes -= bytes;
                    self.start += 1;
                }
                None => self.start = index,
            }
        }
        self.durable = self.durable.max(index);
    }

    /// The held entries of a range, at least one and then as many as fit into `bytes`.
    pub fn read(&self, range: Range<u64>, bytes: usize) -> Vec<Entry> {
        let from = range.start.max(self.start);
        let to = range.end.min(self.next_index());
        let mut total = 0_usize;
        let mut out = Vec::new();
        for index in from..to {
            let Some((entry, size)) = self.position(index).and_then(|at| self.entries.get(at))
            else {
                break;
            };
            total = total.saturating_add(*size);
            if total > bytes && !out.is_empty() {
                break;
            }
            out.push(entry.clone());
        }
        out
    }

    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.start)?).ok()
    }
}
