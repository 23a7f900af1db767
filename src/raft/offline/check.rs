//! Reads all that a controller would rely on at its next start, and says what of it is not as it should be.
//!
//! The state is made anew, from the snapshot and the entries behind it as far as they are known to be committed: its hash is
//! that of every other controller at the same index. The archive is held to what the snapshot names, for what came later
//! follows from the log; blobs are held to what the state refers to.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use model::{BlobRef, Stamped, State, Versions};

use super::DataDir;
use super::log::{LogRecord, OfflineLog, RecordKind};
use crate::archive;
use crate::archive::need::Need;
use crate::blobs;
use crate::held::membership_index;
use crate::machine;
use crate::snapshot::Shelf;
use crate::store::directory::OpenError;

/// What there is to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Log,
    Snapshot,
    State,
    Archive,
    Blobs,
}

impl Part {
    pub fn as_str(self) -> &'static str {
        match self {
            Part::Log => "log",
            Part::Snapshot => "snapshot",
            Part::State => "state",
            Part::Archive => "archive",
            Part::Blobs => "blobs",
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    pub part: Part,
    /// A file, or what it is about.
    pub path: PathBuf,
    pub why: String,
    /// What comes of it, or is to be done.
    pub step: &'static str,
}

/// A state that was made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    pub index: u64,
    pub hash: [u8; 32],
    /// Tasks in memory.
    pub tasks: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// How many things of each part were read: entries, snapshots, segments, files.
    pub read: Vec<(Part, u64)>,
    pub damaged: Vec<Damaged>,
    /// `None` where it could not be made.
    pub state: Option<Reached>,
}

const JOIN_ANEW: &str = "let the machine join under a new id, with an empty data directory";
const FETCHED: &str = "the controller fetches it from another one when it runs";

impl Checked {
    fn note(&mut self, part: Part, path: PathBuf, why: impl ToString, step: &'static str) {
        let why = why.to_string();
        let named = format!("{}: ", path.display());
        let why = why.strip_prefix(&named).unwrap_or(&why).to_owned();
        self.damaged.push(Damaged {
            part,
            path,
            why,
            step,
        });
    }
}

pub fn check(data: &DataDir) -> Checked {
    let mut checked = looked(data);
    checked.read.sort_unstable();
    checked
}

fn looked(data: &DataDir) -> Checked {
    let mut checked = Checked::default();
    let snapshot = snapshot(data, &mut checked);
    let (named, begin) = match snapshot {
        Ok(found) => found,
        // Without it the entries behind it mean nothing.
        Err(()) => {
            if let Some(log) = log(data, &mut checked) {
                drop(log);
            }
            return checked;
        }
    };
    let state = log(data, &mut checked).and_then(|log| replay(data, &log, begin, &mut checked));
    segments(data, &named, &mut checked);
    files(data, state.as_ref(), &mut checked);
    checked
}

/// Where a replay begins.
struct Begin {
    state: State,
    membership: u64,
    next: u64,
}

fn snapshot(data: &DataDir, checked: &mut Checked) -> Result<(Vec<Need>, Begin), ()> {
    let path = data.path.join("snapshots");
    let found = Shelf::look(&data.path).and_then(|handle| match handle {
        Some(handle) => machine::load(&handle).map(Some),
        None => Ok(None),
    });
    match found {
        Ok(None) => {
            checked.read.push((Part::Snapshot, 0));
            let begin = Begin {
                state: State::default(),
                membership: 0,
                next: 0,
            };
            Ok((Vec::new(), begin))
        }
        Ok(Some((state, position))) => {
            checked.read.push((Part::Snapshot, 1));
            let begin = Begin {
                membership: membership_index(&position.membership),
                next: state.last_applied() + 1,
                state,
            };
            Ok((position.segments, begin))
        }
        Err(error) => {
            checked.note(Part::Snapshot, path, error, JOIN_ANEW);
            Err(())
        }
    }
}

fn log(data: &DataDir, checked: &mut Checked) -> Option<OfflineLog> {
    let why = match OfflineLog::open(&data.path) {
        Ok(log) => {
            let summary = log.summary();
            checked.read.push((Part::Log, summary.end - summary.first));
            return Some(log);
        }
        // The rest of its text is the next step, which is said beside it.
        Err(OpenError::Damaged { reason, .. }) => reason,
        Err(OpenError::Io(error)) => error.to_string(),
    };
    checked.note(Part::Log, data.path.join("log"), why, JOIN_ANEW);
    None
}

fn replay(data: &DataDir, log: &OfflineLog, begin: Begin, checked: &mut Checked) -> Option<State> {
    let Begin {
        mut state,
        mut membership,
        next,
    } = begin;
    let summary = log.summary();
    let path = data.path.join("log");
    if summary.first > next {
        let why = format!("entries {next} to {} are missing", summary.first - 1);
        checked.note(Part::Log, path, why, JOIN_ANEW);
        return None;
    }
    let end = summary.committed.map_or(0, |index| index + 1).max(next);
    let mut failed = None;
    let visited = log.visit(next..end, &mut |record| match apply(
        &mut state,
        &mut membership,
        record,
    ) {
        Ok(()) => ControlFlow::Continue(()),
        Err(why) => {
            failed = Some(why);
            ControlFlow::Break(())
        }
    });
    let failed = failed.or(visited.err().map(|error| error.to_string()));
    if let Some(why) = failed {
        let step = "run the release that wrote it, or a later one";
        checked.note(Part::State, path, why, step);
        return None;
    }
    let unsound = model::invariant::check(&state);
    for why in unsound {
        let step = "this is a defect: keep a copy of the directory, and report it";
        checked.note(Part::State, data.path.clone(), why, step);
    }
    checked.state = Some(Reached {
        index: state.last_applied(),
        hash: state.recompute_hash(),
        tasks: state.task_count(),
    });
    Some(state)
}

fn apply(state: &mut State, membership: &mut u64, record: LogRecord) -> Result<(), String> {
    let LogRecord { index, term, .. } = record;
    let encoded = match record.kind {
        RecordKind::Blank => {
            state.note_index(index, term);
            return Ok(());
        }
        RecordKind::Membership { .. } => {
            state.note_index(index, term);
            *membership = index;
            return Ok(());
        }
        RecordKind::Operations(encoded) => encoded,
    };
    let entry = model::Entry::decode(&encoded)
        .map_err(|error| format!("entry {index} can't be decoded: {error}"))?;
    Versions::OF_THIS_RELEASE
        .check_entry(&entry)
        .map_err(|error| format!("entry {index}: {error}"))?;
    let stamped = Stamped {
        index,
        term,
        membership: *membership,
        entry,
    };
    catch_unwind(AssertUnwindSafe(|| drop(state.apply(stamped))))
        .map_err(|_| format!("applying entry {index} panicked; this is a defect"))
}

fn segments(data: &DataDir, needs: &[Need], checked: &mut Checked) {
    let dir = data.path.join("archive");
    let mut read = 0;
    for need in needs {
        match archive::verify(&dir, need) {
            Ok(()) => read += 1,
            Err((path, why)) => checked.note(Part::Archive, path, why, FETCHED),
        }
    }
    checked.read.push((Part::Archive, read));
}

/// What the state refers to has to be there, and whatever is there has to be what its name says.
fn files(data: &DataDir, state: Option<&State>, checked: &mut Checked) {
    let dir = data.path.join("blobs");
    let wanted: BTreeSet<BlobRef> = state.into_iter().flat_map(State::blobs).collect();
    let present = match blobs::look(&dir) {
        Ok(present) => present,
        Err(error) => {
            checked.note(Part::Blobs, dir, error, FETCHED);
            return;
        }
    };
    let mut read = 0;
    for blob in wanted.union(&present) {
        match blobs::verify(&dir, blob) {
            Ok(()) => read += 1,
            // Of another size than the state says: told as what the state wants.
            Err(_)
                if !wanted.contains(blob) && wanted.iter().any(|it| it.digest == blob.digest) => {}
            Err((path, why)) => checked.note(Part::Blobs, path, why, FETCHED),
        }
    }
    checked.read.push((Part::Blobs, read));
}
