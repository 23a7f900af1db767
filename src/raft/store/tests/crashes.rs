//! The log: processes killed and power cut in the middle of appending.

use crash::{Cuts, Life, Writer};

use crate::error::Error;
use crate::store::probe::{self, Load, Report, Size};

/// Entries that are acknowledged before an end, at most: some MiB of them.
const MOST: usize = 60;

/// In every other life one entry at a time: the log writes a few entries in another way than many.
fn append(life: &Life) -> Result<Report, Error> {
    let load = Load {
        in_flight: if life.number.is_multiple_of(2) { 16 } else { 1 },
        ..Load::default()
    };
    probe::append(&life.dir, load, |index| life.acknowledge(index))
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
    for cycle in 0..crash::count("QUORATE_KILLS", 10) {
        let mut appender = Writer::start(own, dir.path(), cycle);
        appender.run(MOST);
        acknowledged = last(&appender.kill()).max(acknowledged);
        let last = probe::check(dir.path(), Size::Mixed, acknowledged);
        assert!(last.is_ok(), "cycle {cycle}: {last:?}");
    }
    println!("last acknowledged: {acknowledged:?}");
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_is_cut() {
    let cuts = Cuts {
        test: "store::tests::crashes::nothing_acknowledged_is_lost_when_the_power_is_cut",
        default: 20,
        most: MOST,
    };
    let mut acknowledged = None;
    let write = |life: &Life| append(life).map(|_| ());
    cuts.run(write, |data, heard| {
        acknowledged = last(heard).max(acknowledged);
        match probe::check(data, Size::Mixed, acknowledged) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{acknowledged:?} acknowledged: {error}")),
        }
    });
}
