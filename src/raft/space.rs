//! How much room is left on the disk of a data directory, and what it is kept for.
//!
//! ```text
//!  free:  ──────────────────────┼───────────────────┼──────────────────► 0
//!           all goes on         │  no blobs         │  no new work either
//!                            1 GiB               512 MiB: what runs ends, and is written down
//! ```
//!
//! In this order, for a log that finds no room ends the process. Of a small disk it is a twentieth and half of
//! that.

use std::io;
use std::path::Path;

use durable::at;

/// What blobs leave to the log.
const KEPT_FROM_BLOBS: u64 = 1 << 30;
const KEPT_FROM_BLOBS_PART: u64 = 20;

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub all: u64,
    /// What a process like this one may still write.
    pub free: u64,
}

impl Space {
    /// Blocks: a disk that hangs does not answer this either.
    pub fn of(dir: &Path) -> io::Result<Space> {
        let disk = nix::sys::statvfs::statvfs(dir).map_err(|error| at(dir)(error.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        Ok(Space {
            all: bytes(disk.blocks()),
            free: bytes(disk.blocks_available()),
        })
    }

    /// What blobs leave to everything else.
    pub fn kept_from_blobs(&self) -> u64 {
        KEPT_FROM_BLOBS.min(self.all / KEPT_FROM_BLOBS_PART)
    }

    /// What new work leaves to the ends of what runs.
    pub fn kept_from_new_work(&self) -> u64 {
        self.kept_from_blobs() / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn blobs_stop_before_new_work_does_on_every_disk() {
        for all in [0, 1 << 20, GIB, 100 * GIB, u64::MAX] {
            let space = Space { all, free: 0 };
            assert!(space.kept_from_new_work() <= space.kept_from_blobs());
        }
        let large = Space {
            all: 100 * GIB,
            free: 0,
        };
        assert_eq!(large.kept_from_blobs(), GIB);
        assert_eq!(large.kept_from_new_work(), GIB / 2);
        let small = Space { all: 2000, free: 0 };
        assert_eq!(small.kept_from_blobs(), 100);
        assert_eq!(small.kept_from_new_work(), 50);
    }

    #[test]
    fn the_space_of_a_directory_that_is_not_there_is_an_error_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::of(dir.path()).unwrap();
        assert!(space.all > 0 && space.free <= space.all);
        let gone = dir.path().join("gone");
        let error = Space::of(&gone).unwrap_err().to_string();
        assert!(error.contains("gone"), "{error}");
    }
}
