//! The log: processes killed and power cut in the middle of appending.

use std::path::Path;

use crash::{Cuts, Life, Writer};

use crate::error::Error;
use crate::store::probe::{self, Load, Report, Size};
use crate::store::rotate::Growth;

/// Entries that are acknowledged before an end, at most: some MiB of them.
const MOST: usize = 60;

/// In every other life one entry at a time. The others keep so few that the database is replaced on the way.
fn append(life: &Life) -> Result<Report, Error> {
    let load = match life.number.is_multiple_of(2) {
        false => Load {
            in_flight: 1,
            ..Load::default()
        },
        true => Load {
            keep: 4,
            growth: Growth {
                floor: 1 << 20,
                factor: 1,
                ..Growth::of(0)
            },
            ..Load::default()
        },
    };
    probe::append(&life.dir, load, |index| life.acknowledge(index))
}

/// How often the database was replaced so far. That it never was makes a run invalid.
fn rotations(data: &Path) -> u64 {
    let current = std::fs::read_to_string(data.join("log/CURRENT"));
    current.map_or(0, |text| text.trim().parse::<u64>().unwrap() - 1)
}

/// Indexes are acknowledged in order.
fn last(acknowledged: &[String]) -> Option<u64> {
    acknowledged.last().map(|index| index.parse().unwrap())
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let own = "store::tests::crashes::nothing_acknowledged_is_lost_when_the_process_is_killed";
    if let Some(life) = Life::current() {
        println!("{:?}", append(&life));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = None;
    let kills = crash::count("QUORATE_KILLS", 10);
    let mut cycle = 0;
    while cycle < kills || (rotations(dir.path()) == 0 && cycle < 10 * kills) {
        let mut appender = Writer::start(own, dir.path(), cycle);
        appender.run(MOST);
        acknowledged = last(&appender.kill()).max(acknowledged);
        let last = probe::check(dir.path(), Size::Mixed, acknowledged);
        assert!(last.is_ok(), "cycle {cycle}: {last:?}");
        cycle += 1;
    }
    let rotations = rotations(dir.path());
    println!("last acknowledged: {acknowledged:?}, {rotations} rotations");
    assert!(rotations > 0, "INVALID: the database was never replaced");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_is_cut() {
    let cuts = Cuts {
        test: "store::tests::crashes::nothing_acknowledged_is_lost_when_the_power_is_cut",
        default: 20,
        most: MOST,
    };
    let (mut acknowledged, mut replaced) = (None, 0);
    let write = |life: &Life| append(life).map(|_| ());
    cuts.run(write, |data, heard| {
        acknowledged = last(heard).max(acknowledged);
        replaced = rotations(data).max(replaced);
        match probe::check(data, Size::Mixed, acknowledged) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{acknowledged:?} acknowledged: {error}")),
        }
    });
    if replaced > 0 {
        println!("{replaced} rotations");
    }
}
