//! The log of a directory: a private copy, opened as a controller opens its own.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::Path;

use bytes::Bytes;
use durable::at;
use openraft::EntryPayload;
use openraft_rt_tokio::TokioRuntime;
use tempfile::TempDir;

use crate::consensus::{Entry, NodeId, next_index, term_of};
use crate::error::Error;
use crate::fatal::FatalSignal;
use crate::member::LogIdentity;
use crate::store::directory::{self, OpenError};
use crate::store::key;
use crate::store::log::{LogStore, scan_entries};
use crate::sync::lock;

/// What the log says beside its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSummary {
    pub identity: LogIdentity,
    /// Term, controller, and whether that one is known to have won.
    pub vote: Option<(u64, NodeId, bool)>,
    /// The last entry that is gone, replaced by a snapshot.
    pub purged: Option<u64>,
    /// Where it begins and where the next entry would go: the same where it holds nothing.
    pub first: u64,
    pub end: u64,
    pub last_term: u64,
    /// Up to where it is known here to be committed. It may be further.
    pub committed: Option<u64>,
}

/// An entry as it stands in the log.
#[derive(Debug)]
pub struct LogRecord {
    pub index: u64,
    pub term: u64,
    pub kind: RecordKind,
    /// As it is stored.
    pub bytes: usize,
}

#[derive(Debug)]
pub enum RecordKind {
    Blank,
    Membership {
        /// One set, or two while it changes.
        voters: Vec<BTreeSet<NodeId>>,
        learners: BTreeSet<NodeId>,
    },
    /// An encoded `model::Entry`.
    Operations(Bytes),
}

pub struct OfflineLog {
    store: LogStore<TokioRuntime>,
    // Goes last.
    _copy: TempDir,
}

impl OfflineLog {
    pub(super) fn open(data: &Path) -> Result<Self, OpenError> {
        let copy = tempfile::Builder::new().prefix("quorate-log-").tempdir()?;
        copy_log(data, copy.path())?;
        let opened = directory::open(copy.path(), FatalSignal::default());
        let store = opened.map_err(|error| of_original(error, copy.path(), data))?;
        Ok(Self { store, _copy: copy })
    }

    pub fn summary(&self) -> LogSummary {
        let tail = lock(&self.store.shared().tail);
        let vote = tail.vote;
        LogSummary {
            identity: self.store.identity(),
            vote: vote.map(|it| (it.leader_id.term, it.leader_id.voted_for, it.committed)),
            purged: tail.purged.map(|id| id.index),
            first: next_index(tail.purged.as_ref()),
            end: next_index(tail.last.as_ref()),
            last_term: tail.last.as_ref().map_or(0, term_of),
            committed: tail.committed.map(|id| id.index),
        }
    }

    /// Calls `visit` with the entries of a range that are there, in their order.
    pub fn visit(
        &self,
        indexes: Range<u64>,
        visit: &mut dyn FnMut(LogRecord) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let LogSummary { first, end, .. } = self.summary();
        let range = indexes.start.max(first)..indexes.end.min(end);
        if range.is_empty() {
            return Ok(());
        }
        let engine = self.store.shared().engine()?;
        let mut each = |entry, bytes| visit(LogRecord::of(entry, bytes));
        scan_entries(&*engine, key::entries(range), &mut each)?;
        Ok(())
    }
}

impl Drop for OfflineLog {
    fn drop(&mut self) {
        self.store.close();
    }
}

impl LogRecord {
    fn of(entry: Entry, bytes: usize) -> Self {
        let kind = match entry.payload {
            EntryPayload::Blank => RecordKind::Blank,
            EntryPayload::Normal(payload) => RecordKind::Operations(payload.encoded().clone()),
            EntryPayload::Membership(members) => RecordKind::Membership {
                voters: members.get_joint_config().clone(),
                learners: members.learner_ids().collect(),
            },
        };
        Self {
            index: entry.log_id.index,
            term: term_of(&entry.log_id),
            kind,
            bytes,
        }
    }
}

/// All that opening a log looks at, and nothing of a database that is not in use.
fn copy_log(data: &Path, to: &Path) -> io::Result<()> {
    let copy = |name: &str| {
        let (from, to) = (data.join(name), to.join(name));
        match fs::copy(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            copied => copied.map(drop).map_err(at(&from)),
        }
    };
    copy("log.mark")?;
    let log = data.join("log");
    if !log.is_dir() {
        return Ok(());
    }
    fs::create_dir(to.join("log"))?;
    for name in ["log/CURRENT", "log/wal.0", "log/wal.1"] {
        copy(name)?;
    }
    // What it does not name, opening reports.
    let current = fs::read_to_string(log.join("CURRENT")).unwrap_or_default();
    let database = format!("log/{}", current.trim());
    match current.trim().parse::<u64>() {
        Ok(_) if data.join(&database).is_dir() => {
            copy_all(&data.join(&database), &to.join(&database))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to).map_err(at(to))?;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().map_err(at(&from))?.is_dir() {
            true => copy_all(&from, &to)?,
            false => drop(fs::copy(&from, &to).map_err(at(&from))?),
        }
    }
    Ok(())
}

/// A refusal names the files that somebody has, not those of the copy.
fn of_original(error: OpenError, copy: &Path, data: &Path) -> OpenError {
    let name = |text: String| text.replace(&*copy.to_string_lossy(), &data.to_string_lossy());
    match error {
        OpenError::Damaged { reason, .. } => OpenError::Damaged {
            dir: data.to_owned(),
            reason: name(reason),
        },
        OpenError::Io(error) => {
            let text = name(error.to_string());
            OpenError::Io(io::Error::new(error.kind(), text))
        }
    }
}
