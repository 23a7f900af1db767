//! Power cut in the middle of making snapshots: the one that was made current last is there, and whole.
//!
//! Every other one is received instead of built, as a member that was away gets it.

use std::io::{self, Write};
use std::path::Path;

use crash::{Cuts, Life};

use super::{directories, position, read};
use crate::snapshot::chunk::{CHUNK_BYTES, Tally};
use crate::snapshot::manifest::Manifest;
use crate::snapshot::shelf::{Handle, Shelf};
use crate::store::codec;

const HASH: &str = "hash";

/// Now and then three chunks, else a few KiB, so that a cut often hits what is done between two files; other
/// bytes for another index.
fn state(index: u64) -> Vec<u8> {
    let most = match index % 16 {
        0 => 3 * CHUNK_BYTES,
        _ => 16 << 10,
    };
    let length = most - usize::try_from(index % 1000).unwrap();
    (0..=250).cycle().skip(length % 251).take(length).collect()
}

fn index_of(handle: &Handle) -> u64 {
    handle.manifest.last_log.unwrap().index
}

fn shelve(life: &Life) -> io::Result<()> {
    let shelf = Shelf::open(&life.dir)?;
    let first = shelf
        .current()
        .as_ref()
        .map_or(1, |last| index_of(last) + 1);
    for index in first.. {
        match index.is_multiple_of(2) {
            true => {
                let written =
                    shelf.build(&position(index), HASH, |file| file.write_all(&state(index)));
                drop(written?);
            }
            false => receive(&shelf, index)?,
        }
        life.acknowledge(index)?;
        life.rest();
    }
    Ok(())
}

fn receive(shelf: &Shelf, index: u64) -> io::Result<()> {
    let state = state(index);
    let mut tally = Tally::default();
    state.chunks(CHUNK_BYTES).for_each(|body| tally.add(body));
    let manifest = Manifest::new(&position(index), &tally.finish(), HASH.to_owned());
    let mut incoming = shelf.receive(manifest)?;
    for body in state.chunks(CHUNK_BYTES) {
        incoming.add(&codec::seal(body))?;
    }
    shelf.adopt(&incoming.finish()?)
}

/// Opens the shelf, and says what is wrong with it.
fn check(data: &Path, acknowledged: Option<u64>) -> Result<(), String> {
    let shelf = Shelf::open(data).map_err(|error| error.to_string())?;
    let current = shelf.current();
    let found = current.as_ref().map(index_of);
    if found < acknowledged {
        return Err(format!(
            "{acknowledged:?} was made current, there is {found:?}"
        ));
    }
    if let Some(current) = &current {
        let read = read(current).map_err(|error| error.to_string())?;
        if read != state(index_of(current)) {
            return Err(format!("{found:?} holds another state"));
        }
    }
    match directories(data).len() == usize::from(current.is_some()) {
        true => Ok(()),
        false => Err(format!("not swept: {:?}", directories(data))),
    }
}

#[test]
fn the_last_snapshot_is_there_and_whole_when_the_power_is_cut() {
    let cuts = Cuts {
        test: "snapshot::tests::crashes::the_last_snapshot_is_there_and_whole_when_the_power_is_cut",
        default: 10,
        most: 16,
    };
    let mut acknowledged = None;
    cuts.run(shelve, |data, heard| {
        let last = heard.last().map(|index| index.parse().unwrap());
        acknowledged = last.max(acknowledged);
        check(data, acknowledged)
    });
}
