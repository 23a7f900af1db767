//! Power cut in the middle of writing: what a flush had returned for is there, and is what the log says. Each
//! life replays the log from its beginning, as a controller without a snapshot does.

use std::io;
use std::path::Path;

use crash::{Cuts, Life};

use super::{Log, on_disk};
use crate::archive::need::Need;

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

fn write(life: &Life) -> io::Result<()> {
    let archive = on_disk(&life.dir);
    log_to(u64::MAX, |log, step| {
        archive.take(step);
        let index = log.state.last_applied();
        if index.is_multiple_of(EVERY) {
            archive.flush()?;
            life.acknowledge(index)?;
            life.rest();
        }
        Ok(())
    })
}

fn check(data: &Path, index: u64) -> Result<(), String> {
    let archive = on_disk(data);
    let mut wanted = Vec::new();
    log_to(index, |log, _| {
        if log.state.last_applied() == index {
            wanted = Need::of(&log.state);
        }
        Ok(())
    })
    .map_err(|error| error.to_string())?;
    match archive
        .missing(&wanted)
        .map_err(|error| error.to_string())?
    {
        missing if missing.is_empty() => Ok(()),
        missing => Err(format!("flushed up to {index}, missing: {missing:?}")),
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
