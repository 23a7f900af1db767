//! Power cut in the middle of writing: what a flush had returned for is there, and is what the log says. Each
//! life goes on from the snapshot of the last flush, as a controller does.

use std::io;
use std::path::Path;

use crash::{Cuts, Life};
use model::{State, TaskId};

use super::{Log, opened_at};
use crate::durable;

/// Entries between two flushes.
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

/// The state at the last flush, as a snapshot keeps it.
fn snapshot(dir: &Path) -> io::Result<State> {
    let at = durable::read_optional(&dir.join("at"))?;
    let at = at.map_or(0, |text| String::from_utf8(text).unwrap().parse().unwrap());
    let mut state = State::default();
    if at > 0 {
        log_to(at, |log, _| {
            state = log.state.clone();
            Ok(())
        })?;
    }
    Ok(state)
}

fn write(life: &Life) -> io::Result<()> {
    let begin = snapshot(&life.dir)?;
    let archive = opened_at(&life.dir, &begin);
    log_to(u64::MAX, |log, step| {
        let index = log.state.last_applied();
        if index <= begin.last_applied() {
            return Ok(());
        }
        archive.take(vec![step], index)?;
        if index.is_multiple_of(EVERY) {
            archive.flush()?;
            durable::replace(&life.dir.join("at"), index.to_string().as_bytes())?;
            life.acknowledge(index)?;
            life.rest();
        }
        Ok(())
    })
}

/// Everything is there up to the last flush, and so is everything that the snapshot of it needs.
fn check(data: &Path, flushed: u64) -> Result<(), String> {
    let state = snapshot(data).map_err(|error| error.to_string())?;
    let at = state.last_applied();
    let archive = opened_at(data, &state);
    let lacks = archive.lacks(&state);
    let found = archive.tasks_below(&state, TaskId(u64::MAX), usize::MAX);
    archive.close();
    let (kept, found) = (at.saturating_sub(2), found.map(|it| it.len() as u64));
    match at >= flushed && lacks.is_empty() && matches!(found, Ok(found) if found == kept) {
        true => Ok(()),
        false => Err(format!(
            "flushed up to {flushed}, the snapshot is at {at}: lacks {lacks:?}, has {found:?}"
        )),
    }
}

#[test]
fn what_was_flushed_is_there_when_the_power_is_cut() {
    let cuts = Cuts {
        test: "archive::tests::cuts::what_was_flushed_is_there_when_the_power_is_cut",
        default: 10,
        most: 40,
    };
    let mut flushed = 0;
    cuts.run(write, |data, heard| {
        let last = heard.last().map_or(0, |index| index.parse().unwrap());
        flushed = flushed.max(last);
        check(data, flushed)
    });
}
