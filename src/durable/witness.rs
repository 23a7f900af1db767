//! Numbers beside a log that say how far it was acknowledged.
//!
//! A damaged tail looks like a write that a crash tore, and whoever opens the log drops it without a word. With a witness
//! that says more than the log holds, it has lost something. The witness need not be synced each time: a power cut may set it back,
//! never ahead of the log, so it never accuses a good one.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{at, read_optional, replace};

const FORMAT: u8 = 1;
/// Syncing it this seldom costs nothing measurable, and bounds what a power cut hides.
const SYNC_EVERY: u64 = 1024;

/// `N` numbers of 64 bits, with a checksum.
#[derive(Debug)]
pub struct Witness<const N: usize> {
    file: File,
    path: PathBuf,
}

impl<const N: usize> Witness<N> {
    /// `None` if there is none yet; an error of the kind `InvalidData` where it is damaged.
    pub fn open(path: &Path) -> io::Result<Option<(Self, [u64; N])>> {
        let Some(content) = read_optional(path)? else {
            return Ok(None);
        };
        let numbers = decode(&content).ok_or_else(|| {
            let text = format!("its witness {} is damaged", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        Ok(Some((Self::over(path)?, numbers)))
    }

    /// Creates it, or replaces one.
    pub fn create(path: &Path, numbers: [u64; N]) -> io::Result<Self> {
        replace(path, &encode(numbers))?;
        Self::over(path)
    }

    fn over(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(path);
        Ok(Self {
            file: file.map_err(at(path))?,
            path: path.to_owned(),
        })
    }

    /// Says other numbers from now on. Only once what they tell of is on disk.
    pub fn set(&self, numbers: [u64; N]) -> io::Result<()> {
        let written = self.file.write_all_at(&encode(numbers), 0);
        written.map_err(at(&self.path))
    }

    /// The same for the `nth` time, counted from 1, which is synced now and then.
    pub fn raise(&self, nth: u64, numbers: [u64; N]) -> io::Result<()> {
        self.set(numbers)?;
        match nth == 1 || nth.is_multiple_of(SYNC_EVERY) {
            true => self.file.sync_data().map_err(at(&self.path)),
            false => Ok(()),
        }
    }
}

fn encode<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    let mut out = vec![FORMAT];
    out.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    let checksum = crc32c::crc32c(&out);
    out.extend(checksum.to_le_bytes());
    out
}

fn decode<const N: usize>(content: &[u8]) -> Option<[u64; N]> {
    let (body, checksum) = content.split_last_chunk()?;
    let (format, rest) = body.split_first()?;
    let is_good = *format == FORMAT && u32::from_le_bytes(*checksum) == crc32c::crc32c(body);
    let (numbers, []) = rest.as_chunks() else {
        return None;
    };
    let numbers: &[[u8; 8]; N] = numbers.try_into().ok()?;
    is_good.then(|| numbers.map(u64::from_le_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_written_and_read_as_the_first_release_did() {
        let golden = [1, 2, 1, 0, 0, 0, 0, 0, 0, 109, 104, 160, 181];
        assert_eq!(encode([258]), golden);
        assert_eq!(decode(&golden), Some([258]));
    }

    #[test]
    fn what_is_damaged_or_holds_another_count_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.mark");
        assert!(Witness::<2>::open(&path).unwrap().is_none());
        let witness = Witness::create(&path, [0, 0]).unwrap();
        witness.raise(1, [7, u64::MAX]).unwrap();
        let (_, numbers) = Witness::<2>::open(&path).unwrap().unwrap();
        assert_eq!(numbers, [7, u64::MAX]);
        let whole = encode(numbers);
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode::<2>(&flipped), None, "bit {bit}");
        }
        for length in 0..whole.len() {
            assert_eq!(decode::<2>(&whole[..length]), None, "{length} bytes");
        }
        assert_eq!(decode::<1>(&whole), None);
    }
}
