//! The output of one attempt, while it runs and until its verdict is settled.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::kept::Kept;
use super::segments::{self, Segments};
use super::{CHUNK_BYTES, Stream};

/// How far it is; whoever follows waits for a change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    pub written: [u64; 2],
    /// Nothing more will be written.
    pub ended: bool,
}

/// Some bytes of a stream, and where they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub offset: u64,
    pub data: Bytes,
}

/// What a verdict says of the output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Captured {
    pub tails: [Vec<u8>; 2],
    pub totals: [u64; 2],
}

impl Captured {
    /// From the disk alone: what an attempt wrote before the agent died.
    pub fn from_disk(dir: &Path) -> Captured {
        let mut captured = Captured::default();
        for stream in Stream::ALL {
            let at = stream.index();
            let Ok(total) = segments::end(dir, stream) else {
                continue;
            };
            let from = total.saturating_sub(model::TAIL_MAX_BYTES as u64);
            let mut tail = Vec::new();
            while let Ok(Some((_, bytes))) =
                segments::read(dir, stream, from + tail.len() as u64, CHUNK_BYTES)
            {
                tail.extend(bytes);
            }
            captured.tails[at] = tail;
            captured.totals[at] = total;
        }
        captured
    }
}

/// Behind two locks: whoever reads from memory does not wait for the disk.
#[derive(Debug)]
struct StreamLog {
    kept: Mutex<Kept>,
    segments: Mutex<Segments>,
}

impl StreamLog {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A writer that panicked leaves bytes and counts as they were before its last call.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Written by one attempt, read by any number of followers.
#[derive(Debug)]
pub(crate) struct AttemptLog {
    dir: PathBuf,
    streams: [StreamLog; 2],
    progress: watch::Sender<Progress>,
}

impl AttemptLog {
    pub fn new(dir: PathBuf, max_bytes: u64) -> AttemptLog {
        let stream = |stream| {
            let segments = Segments::new(&dir, stream, max_bytes / 2);
            StreamLog {
                kept: Mutex::default(),
                segments: Mutex::new(segments),
            }
        };
        let streams = Stream::ALL.map(stream);
        AttemptLog {
            streams,
            dir,
            progress: watch::Sender::new(Progress::default()),
        }
    }

    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        let log = self.stream(stream);
        // First to the disk: what is not in memory any more must be there.
        log.segments().write(bytes);
        let mut kept = log.kept();
        kept.push(bytes);
        let total = kept.total();
        drop(kept);
        self.progress
            .send_modify(|progress| progress.written[stream.index()] = total);
    }

    /// Nothing more will be written.
    pub fn end(&self) -> Captured {
        self.progress.send_modify(|progress| progress.ended = true);
        let mut captured = Captured::default();
        for stream in Stream::ALL {
            let kept = self.stream(stream).kept();
            captured.tails[stream.index()] = kept.tail().to_vec();
            captured.totals[stream.index()] = kept.total();
        }
        captured
    }

    /// Whether any of it went to the disk.
    pub fn is_on_disk(&self) -> bool {
        self.streams.iter().any(|log| log.segments().is_begun())
    }

    pub fn follow(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// A chunk from the bytes in memory. `Err` where the disk has to be asked.
    pub fn recent(&self, stream: Stream, offset: u64) -> Result<Option<Chunk>, NotInMemory> {
        let kept = self.stream(stream).kept();
        if offset >= kept.total() {
            return Ok(None);
        }
        let bytes = kept.read(offset, CHUNK_BYTES).ok_or(NotInMemory)?;
        Ok(Some(Chunk {
            offset,
            data: Bytes::copy_from_slice(bytes),
        }))
    }

    /// The oldest bytes in memory, for when the disk has nothing.
    pub fn oldest(&self, stream: Stream) -> Option<Chunk> {
        let kept = self.stream(stream).kept();
        let offset = kept.total() - kept.tail().len() as u64;
        let data = Bytes::copy_from_slice(kept.tail());
        (!data.is_empty()).then_some(Chunk { offset, data })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn stream(&self, stream: Stream) -> &StreamLog {
        &self.streams[stream.index()]
    }
}

/// So old that only the disk may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotInMemory;
