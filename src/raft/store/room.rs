//! Room at the end of sled's file, made before it is needed.
//!
//! sled makes its file longer by the bytes that it writes, and an fdatasync then has to write the new length,
//! too: a fifth of its time. So the file is made longer ahead of sled, a few segments at a time. What is there
//! reads as zeros, which is how sled leaves a free segment, too. Where a file system can't do it, or has no
//! space left, nothing is lost but that time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes of a segment of sled 0.34.
const SEGMENT: u64 = 512 << 10;
/// Bytes of a segment's header. Never all zeros where sled has begun one.
const HEADER: usize = 20;
/// Segments that should be free ahead: a large group of writes fills some at once.
const AHEAD: u64 = 2;
/// Segments that are added at a time.
const STEP: u64 = 4;
/// Bytes written between two looks.
const LOOK_EVERY: u64 = SEGMENT / 2;

/// How much was written since the last look.
#[derive(Debug)]
pub struct Room {
    written: u64,
}

impl Room {
    pub fn new() -> Self {
        Self {
            written: LOOK_EVERY,
        }
    }

    /// To be called after so many bytes were written to the file. Never changes what is in it.
    pub fn after(&mut self, written: usize, file: &File) {
        self.written = self.written.saturating_add(written as u64);
        if self.written < LOOK_EVERY {
            return;
        }
        self.written = 0;
        if let Err(error) = make_room(file) {
            tracing::debug!(%error, "no room could be made ahead of the log");
        }
    }
}

fn make_room(file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let whole = length.next_multiple_of(SEGMENT);
    let looked_at = whole.saturating_sub(AHEAD * SEGMENT);
    let mut header = [0; HEADER];
    let is_free = whole >= AHEAD * SEGMENT
        && match file.read_exact_at(&mut header, looked_at) {
            Ok(()) => header == [0; HEADER],
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => return Err(error),
        };
    match is_free {
        true => Ok(()),
        false => extend(file, length, whole + STEP * SEGMENT - length),
    }
}

/// Not `posix_fallocate`, which writes where the file system can't allocate: that might hit what sled has
/// just written.
#[cfg(target_os = "linux")]
fn extend(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    use nix::fcntl::{FallocateFlags, fallocate};

    let signed = |value: u64| i64::try_from(value).map_err(io::Error::other);
    fallocate(file, FallocateFlags::empty(), signed(from)?, signed(bytes)?)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn extend(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    fn length(file: &File) -> u64 {
        file.metadata().unwrap().len()
    }

    #[test]
    fn there_is_room_ahead_and_what_was_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut open = OpenOptions::new();
        let open = open.read(true).write(true).create(true).truncate(true);
        let file = open.open(dir.path().join("db")).unwrap();
        let mut room = Room::new();
        let data = vec![7; 300 << 10];
        let mut end = 0;
        for _ in 0..40 {
            file.write_all_at(&data, end).unwrap();
            end += data.len() as u64;
            room.after(data.len(), &file);
            assert!(length(&file) >= end + SEGMENT, "{} at {end}", length(&file));
            assert!(length(&file) <= end + (AHEAD + STEP + 1) * SEGMENT);
        }
        let mut found = vec![0; usize::try_from(end).unwrap()];
        file.read_exact_at(&mut found, 0).unwrap();
        assert!(found.iter().all(|byte| *byte == 7));

        // Small writes do not look every time.
        let before = length(&file);
        room.after(1, &file);
        assert_eq!(length(&file), before);
    }
}
