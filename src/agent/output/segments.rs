//! A stream on disk: files of bounded size, each named by the offset of its first byte.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Stream;

/// A stream keeps at most so many segments: so between three and four quarters of its share.
const SEGMENTS: u64 = 4;

/// The writing side.
#[derive(Debug)]
pub(super) struct Segments {
    dir: PathBuf,
    stream: Stream,
    segment_bytes: u64,
    file: Option<File>,
    /// Where each segment begins, oldest first.
    starts: VecDeque<u64>,
    /// Where the next byte goes.
    end: u64,
    /// Nothing is written any more.
    closed: bool,
}

impl Segments {
    /// `share` is how many bytes of this stream are kept.
    pub fn new(dir: &Path, stream: Stream, share: u64) -> Segments {
        Segments {
            dir: dir.to_owned(),
            stream,
            segment_bytes: (share / SEGMENTS).max(1),
            file: None,
            starts: VecDeque::new(),
            end: 0,
            closed: false,
        }
    }

    /// From now on nothing is written.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// Appends. A disk that fails ends this log and not the task: the tail in memory goes on.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.closed {
            return;
        }
        if let Err(error) = self.try_write(bytes) {
            tracing::warn!(dir = %self.dir.display(), %error, "stopped keeping output");
            self.close();
        }
    }

    fn try_write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let used = self.starts.back().map_or(0, |start| self.end - start);
            if self.file.is_none() || used >= self.segment_bytes {
                self.next_segment()?;
                continue;
            }
            let room = usize::try_from(self.segment_bytes - used).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            if let Some(file) = &mut self.file {
                file.write_all(now)?;
            }
            self.end += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    fn next_segment(&mut self) -> io::Result<()> {
        let path = path(&self.dir, self.stream, self.end);
        let open = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&path)
        };
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&self.dir)?;
                open()?
            }
            other => other?,
        };
        self.file = Some(file);
        self.starts.push_back(self.end);
        while self.starts.len() as u64 > SEGMENTS {
            if let Some(oldest) = self.starts.pop_front() {
                fs::remove_file(self::path(&self.dir, self.stream, oldest))?;
            }
        }
        Ok(())
    }
}

fn path(dir: &Path, stream: Stream, start: u64) -> PathBuf {
    // Twenty digits hold every offset, and sort by age.
    dir.join(format!("{}.{start:020}", stream.name()))
}

/// Where the segments of a stream begin, oldest first.
fn starts(dir: &Path, stream: Stream) -> io::Result<Vec<u64>> {
    let mut starts = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let start = name
            .to_str()
            .and_then(|name| name.strip_prefix(stream.name()));
        if let Some(start) = start.and_then(|rest| rest.strip_prefix('.')?.parse().ok()) {
            starts.push(start);
        }
    }
    starts.sort_unstable();
    Ok(starts)
}

/// At most `max` bytes from `offset` on, or from the oldest byte kept if that is later. Nothing
/// where there is no such byte (yet).
pub(super) fn read(
    dir: &Path,
    stream: Stream,
    offset: u64,
    max: usize,
) -> io::Result<Option<(u64, Vec<u8>)>> {
    let starts = match starts(dir, stream) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let first = starts
        .iter()
        .rposition(|start| *start <= offset)
        .unwrap_or(0);
    for &start in starts.iter().skip(first) {
        let from = offset.max(start);
        let file = match File::open(path(dir, stream, start)) {
            // Dropped between the listing and now: what comes next is the oldest.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            other => other?,
        };
        let mut bytes = vec![0; max];
        let count = file.read_at(&mut bytes, from - start)?;
        if count > 0 {
            bytes.truncate(count);
            return Ok(Some((from, bytes)));
        }
    }
    Ok(None)
}

/// How many bytes a stream had, as far as the disk knows.
pub(super) fn end(dir: &Path, stream: Stream) -> io::Result<u64> {
    let last = match starts(dir, stream) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        other => other?.last().copied(),
    };
    let Some(start) = last else { return Ok(0) };
    Ok(start + fs::metadata(path(dir, stream, start))?.len())
}
