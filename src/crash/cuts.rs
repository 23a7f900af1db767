//! Power cuts in a row, on one disk: what a cut leaves is what the next writer begins with.
//!
//! One test has three parts: as the runner calls it it only calls itself, [`apart`], where it makes
//! the cuts, and calls itself again for each writer.

use std::fmt::Debug;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::apart;
use crate::disk::Disk;
use crate::writer::{Life, Writer};

#[derive(Clone, Copy, Debug)]
pub struct Cuts {
    /// The name of the test, with its path.
    pub test: &'static str,
    /// How many, unless `QUORATE_POWER_CUTS` asks for another number.
    pub default: u64,
    /// Each comes after a random number of acknowledgements, at most so many.
    pub most: usize,
}

impl Cuts {
    /// `write` goes on until its disk fails. After each cut `check` gets the directory and what was acknowledged
    /// since the cut before; it opens what is there, and closes it again. An error of its, or a panic, fails
    /// the test.
    pub fn run<E: Debug>(
        self,
        write: impl FnOnce(&Life) -> Result<(), E>,
        check: impl FnMut(&Path, &[String]) -> Result<(), String>,
    ) {
        if let Some(life) = Life::current() {
            let ended = write(&life);
            writeln!(io::stdout(), "{ended:?}").ok();
        } else if apart::is_here() {
            match Disk::create() {
                Ok(disk) => self.run_on(&disk, check),
                Err(why) => skip("power cuts", &why),
            }
        } else {
            match apart::is_possible() {
                Ok(()) => apart::run(self.test),
                Err(why) => skip("power cuts", &why),
            }
        }
    }

    fn run_on(self, disk: &Disk, mut check: impl FnMut(&Path, &[String]) -> Result<(), String>) {
        let cuts = crate::count("QUORATE_POWER_CUTS", self.default);
        let mut tally = Tally::default();
        for number in 0..cuts {
            let acknowledged = self.cut(disk, number);
            tally.cuts += 1;
            tally.acknowledged += acknowledged.len();
            disk.mount();
            let outcome = check(&data_on(disk), &acknowledged);
            if let Err(why) = outcome {
                panic!("power cut {number}: {why}");
            }
            disk.unmount();
        }
    }

    fn cut(self, disk: &Disk, number: u64) -> Vec<String> {
        disk.mount();
        let data = data_on(disk);
        fs::create_dir_all(&data).expect("a disk takes a directory");
        let switch = disk.switch();
        let mut writer = Writer::start(self.test, &data, number);
        writer.run(self.most);
        let before = writer.acknowledged_until_now();
        switch.cut_the_power();
        let mut acknowledged = writer.kill();
        acknowledged.truncate(before);
        disk.unmount();
        acknowledged
    }
}

fn data_on(disk: &Disk) -> PathBuf {
    disk.path().join("data")
}

/// A test that can't be run here says so, and fails where all have to run.
pub fn skip(what: &str, why: &str) {
    assert!(
        std::env::var_os("QUORATE_REQUIRE_ALL").is_none(),
        "{what}: {why}"
    );
    // Past the runner, which shows what a passing test prints to nobody.
    writeln!(io::stderr(), "\nSKIPPED {what}: {why}").ok();
}

/// Told at the end, also of a test that fails; `scripts/power-cuts` adds these lines up.
#[derive(Default)]
struct Tally {
    cuts: usize,
    acknowledged: usize,
}

impl Drop for Tally {
    fn drop(&mut self) {
        let Self { cuts, acknowledged } = self;
        writeln!(
            io::stdout(),
            "{cuts} power cuts, {acknowledged} acknowledged"
        )
        .ok();
    }
}
