//! The log of one controller, as `quorate data-dir log DIR -o json` prints it: one entry a line.
//!
//! It is read again entry by entry, so that what is replayed is what was on that disk and not what anybody says
//! about it.

use std::collections::BTreeMap;
use std::io::BufRead;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

use crate::Error;

/// What was on one controller's disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// In their order, without a hole; the first one is at 0 where nothing was purged.
    pub entries: Vec<LogEntry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    pub index: u64,
    pub term: u64,
    pub content: Content,
    /// What it says, for people; empty where the dump did not tell.
    pub words: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A leader's first one.
    Blank,
    /// Who belongs to the cluster from here on.
    Membership,
    /// An encoded `model::Entry`.
    Operations(Vec<u8>),
}

#[derive(Deserialize)]
struct Line {
    schema: u32,
    index: u64,
    term: u64,
    kind: String,
    #[serde(default)]
    operations: Vec<String>,
    entry_base64: Option<String>,
}

const SCHEMA: u32 = 1;

impl Log {
    /// What the command printed. The reason of a failure is for a person.
    pub fn parse(from: impl BufRead) -> Result<Log, String> {
        let mut entries: Vec<LogEntry> = Vec::new();
        for (number, line) in (1..).zip(from.lines()) {
            let at = |error: &dyn std::fmt::Display| format!("line {number}: {error}");
            let line = line.map_err(|error| at(&error))?;
            let line: Line = serde_json::from_str(&line).map_err(|error| at(&error))?;
            let entry = line.entry().map_err(|error| at(&error))?;
            if let Some(last) = entries.last()
                && last.index + 1 != entry.index
            {
                let (last, next) = (last.index, entry.index);
                return Err(at(&format!("entry {next} comes after {last}")));
            }
            entries.push(entry);
        }
        Ok(Log { entries })
    }

    pub fn read(path: &std::path::Path) -> Result<Log, Error> {
        let file = std::fs::File::open(path).map_err(Error::file("opening", path))?;
        let parsed = Log::parse(std::io::BufReader::new(file));
        parsed.map_err(|reason| Error::format(path, reason))
    }

    pub fn first(&self) -> Option<u64> {
        self.entries.first().map(|entry| entry.index)
    }

    pub fn last(&self) -> Option<u64> {
        self.entries.last().map(|entry| entry.index)
    }

    pub fn get(&self, index: u64) -> Option<&LogEntry> {
        let at = index.checked_sub(self.first()?)?;
        self.entries.get(usize::try_from(at).ok()?)
    }
}

impl Line {
    fn entry(self) -> Result<LogEntry, String> {
        if self.schema != SCHEMA {
            return Err(format!("schema {} is unknown to this harness", self.schema));
        }
        let content = match (self.kind.as_str(), self.entry_base64) {
            ("blank", None) => Content::Blank,
            ("membership", None) => Content::Membership,
            ("operations", Some(text)) => {
                let bytes = BASE64_STANDARD.decode(text);
                Content::Operations(bytes.map_err(|error| error.to_string())?)
            }
            (kind, bytes) => {
                let what = if bytes.is_some() { "with" } else { "without" };
                return Err(format!("an entry of kind {kind} {what} bytes"));
            }
        };
        Ok(LogEntry {
            index: self.index,
            term: self.term,
            content,
            words: self.operations,
        })
    }
}

/// Up to where more than half of `members` controllers have the same log; 0 where they have nothing in common. What is
/// behind that may never have been committed.
pub fn agreed_upto(logs: &BTreeMap<String, Log>, members: usize) -> Option<u64> {
    let quorum = members / 2 + 1;
    let mut candidates: Vec<u64> = logs.values().filter_map(Log::last).collect();
    candidates.sort_unstable();
    candidates.dedup();
    candidates.into_iter().rev().find(|index| {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for term in logs.values().filter_map(|log| log.get(*index)) {
            *counts.entry(term.term).or_default() += 1;
        }
        counts.values().any(|count| *count >= quorum)
    })
}
