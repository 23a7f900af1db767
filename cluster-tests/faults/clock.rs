//! What the clocks of a process show: `libfaketime` shifts its wall time, and leaves the monotonic clocks
//! alone, as a person with `date --set` would.
//!
//! A process that was started with [`Clock::environment`] looks at the clock's file about every second.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// Where distributions put it.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
];

/// Why nobody can have one here.
pub fn possible() -> Result<(), String> {
    library().map(drop)
}

fn library() -> Result<PathBuf, String> {
    let found = LIBRARIES
        .iter()
        .map(|root| Path::new(root).join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file());
    found.ok_or_else(|| "libfaketime is not installed".to_owned())
}

/// A file that says by how much a wall clock is off.
#[derive(Debug, Clone)]
pub struct Clock {
    library: PathBuf,
    shift: PathBuf,
}

impl Clock {
    /// One that is right, kept in `shift`; or why there can't be one.
    pub fn create(shift: &Path) -> Result<Clock, String> {
        let clock = Clock {
            library: library()?,
            shift: shift.to_owned(),
        };
        clock.set("+0s").map_err(|error| error.to_string())?;
        Ok(clock)
    }

    /// From now on it shows the right time and so much: `+1h`, `-90s`.
    pub fn set(&self, by: &str) -> Result<(), Error> {
        // Whole or not at all: the processes read it at any moment.
        let new = self.shift.with_extension("new");
        fs::write(&new, format!("{by}\n")).map_err(Error::file("writing", &new))?;
        fs::rename(&new, &self.shift).map_err(Error::file("replacing", &self.shift))
    }

    /// For whoever is to have this clock.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        let path = |path: &Path| path.to_string_lossy().into_owned();
        [
            ("LD_PRELOAD", path(&self.library)),
            ("FAKETIME_TIMESTAMP_FILE", path(&self.shift)),
            // Seconds until a process looks at the file again.
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }

    pub fn remove(self) {
        // It only says where the clock is, and nobody needs that any more.
        let _removed = fs::remove_file(&self.shift);
    }
}
