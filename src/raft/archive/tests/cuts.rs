//! Power cut in the middle of writing: whatever snapshot is there, the archive that it needs is there too, and is what
//! the log says. Each life goes on from the last snapshot, as a controller does.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crash::{Cuts, Life};
use model::{State, TaskId};

use super::{Log, opened_at};
use crate::blobs::Blobs;
use crate::consensus::log_id;
use crate::fatal::FatalSignal;
use crate::machine::{Storage, View, build};
use crate::snapshot::Shelf;

/// Entries between two snapshots.
const EVERY: u64 = 4;

/// A log that stands at `index`, its tasks of all sizes from nothing to some parts.
fn log_to(
    index: u64,
    mut step: impl FnMut(&Log, model::ArchiveStep) -> io::Result<()>,
) -> io::Result<()> {
    let (mut log, steps) = Log::new();
    for first in steps {
        step(&log, first)?;
    }
    while log.state.last_applied() < index {
        let size = usize::try_from(log.state.last_applied() * 997 % 20_000).unwrap();
        let next = log.task(size);
        step(&log, next)?;
    }
    Ok(())
}

/// A member's snapshots and archive, settled on the last snapshot, and the state in it.
fn opened(dir: &Path) -> io::Result<(Storage, State)> {
    let shelf = Arc::new(Shelf::open(dir)?);
    let state = match shelf.current() {
        Some(snapshot) => State::read(snapshot.body()?).map_err(io::Error::other)?,
        None => State::default(),
    };
    let archive = opened_at(dir, &state);
    let blobs = Blobs::open(dir)?;
    let storage = Storage {
        shelf,
        archive,
        blobs,
    };
    Ok((storage, state))
}

fn write(life: &Life) -> io::Result<()> {
    let (storage, begin) = opened(&life.dir)?;
    log_to(u64::MAX, |log, step| {
        let index = log.state.last_applied();
        if index <= begin.last_applied() {
            return Ok(());
        }
        storage.archive.take(vec![step], index)?;
        if index.is_multiple_of(EVERY) {
            let view = View {
                state: Arc::new(log.state.clone()),
                applied: Some(log_id(1, index)),
                ..View::default()
            };
            build(&view, &storage, &FatalSignal::default())?;
            life.acknowledge(index)?;
            life.rest();
        }
        Ok(())
    })
}

/// The last snapshot is there, and so is all of the archive that it needs: the log tells none of it again.
fn check(data: &Path, acknowledged: u64) -> Result<(), String> {
    let (storage, state) = opened(data).map_err(|error| error.to_string())?;
    let (archive, at) = (storage.archive, state.last_applied());
    let lacks = archive.lacks(&state);
    let found = archive.tasks_below(&state, TaskId(u64::MAX), usize::MAX);
    archive.close();
    let (kept, found) = (at.saturating_sub(2), found.map(|it| it.len() as u64));
    match at >= acknowledged && lacks.is_empty() && matches!(found, Ok(found) if found == kept) {
        true => Ok(()),
        false => Err(format!(
            "acknowledged up to {acknowledged}, the snapshot is at {at}: lacks {lacks:?}, has {found:?}"
        )),
    }
}

#[test]
fn a_snapshot_has_its_archive_behind_it_when_the_power_is_cut() {
    let cuts = Cuts {
        test: "archive::tests::cuts::a_snapshot_has_its_archive_behind_it_when_the_power_is_cut",
        default: 10,
        most: 40,
    };
    let mut last = 0;
    cuts.run(write, |data, heard| {
        let now = heard.last().map_or(0, |index| index.parse().unwrap());
        last = last.max(now);
        check(data, last)
    });
}
