//! The witness beside the log: the number of the last write that was acknowledged.
//!
//! A damaged tail looks to sled like a write that a crash tore, and it drops it without a word. For a
//! Raft log that would be a vote or an acknowledged entry forgotten. So every write carries a number,
//! and after it is synced, before it is acknowledged, the number is written here. A log that opens
//! with a smaller number than the witness has lost something, and is refused.
//!
//! The witness itself is synced only now and then: a power cut may set it back, never ahead of the
//! log, so it never accuses a good one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::durable::{self, at};

const FORMAT: u8 = 1;
const BYTES: usize = 13;

/// Syncing it this seldom costs nothing measurable, and bounds what a power cut hides.
const SYNC_EVERY: u64 = 1024;

pub struct Mark {
    file: File,
    path: PathBuf,
}

impl Mark {
    /// Opens the witness; `None` if there is none yet.
    pub fn open(path: &Path) -> io::Result<Option<(Self, u64)>> {
        let Some(content) = durable::read_optional(path)? else {
            return Ok(None);
        };
        let sequence = decode(&content).ok_or_else(|| {
            let text = format!("{}, the log's witness, is damaged", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(at(path))?;
        Ok(Some((
            Self {
                file,
                path: path.to_owned(),
            },
            sequence,
        )))
    }

    /// Creates it, saying that nothing was acknowledged yet.
    pub fn create(path: &Path) -> io::Result<Self> {
        durable::replace(path, &encode(0))?;
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(at(path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
        })
    }

    pub fn raise(&self, sequence: u64) -> io::Result<()> {
        let write = || {
            self.file.write_all_at(&encode(sequence), 0)?;
            match sequence == 1 || sequence.is_multiple_of(SYNC_EVERY) {
                true => self.file.sync_data(),
                false => Ok(()),
            }
        };
        write().map_err(at(&self.path))
    }
}

fn encode(sequence: u64) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[0] = FORMAT;
    out[1..9].copy_from_slice(&sequence.to_le_bytes());
    let checksum = crc32c::crc32c(&out[..9]);
    out[9..].copy_from_slice(&checksum.to_le_bytes());
    out
}

fn decode(content: &[u8]) -> Option<u64> {
    let content: [u8; BYTES] = content.try_into().ok()?;
    let checksum = u32::from_le_bytes(content[9..].try_into().ok()?);
    let sequence = u64::from_le_bytes(content[1..9].try_into().ok()?);
    (content[0] == FORMAT && checksum == crc32c::crc32c(&content[..9])).then_some(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_witness_is_written_and_read_as_the_first_release_did() {
        let golden = [1, 2, 1, 0, 0, 0, 0, 0, 0, 109, 104, 160, 181];
        assert_eq!(encode(258), golden);
        assert_eq!(decode(&golden), Some(258));
    }
}
