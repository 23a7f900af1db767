//! The output of one attempt, while it runs and until its verdict is settled.
//!
//! What is written goes to memory, at once, and from there to the disk, on the [`Writer`]'s thread.
//! The disk may lag behind by no more than memory keeps: then whoever writes waits, and with it, as
//! soon as the pipe is full, the process. So a byte that is not in memory any more is on disk, and
//! what a disk that hangs costs is bounded. Readers are shown what is on disk, which is what would
//! be left after a crash; once the attempt ended, all of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::watch;

use super::kept::{KEPT_BYTES, Kept};
use super::segments::{self, Segments};
use super::writer::{Lack, Writer};
use super::{CHUNK_BYTES, Stream};

/// How far it is; whoever follows waits for a change of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Bytes that the disk has, or would have if it had not failed.
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
pub struct Captured {
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

/// Behind two locks: whoever uses memory does not wait for the disk.
#[derive(Debug)]
struct StreamLog {
    memory: Mutex<Memory>,
    segments: Mutex<Segments>,
}

#[derive(Debug, Default)]
struct Memory {
    kept: Kept,
    /// The disk lacks something, and the writer was told so.
    due: bool,
}

impl StreamLog {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        // A writer that panicked leaves bytes and counts as they were before its last call.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// May wait for the disk: only for threads that may.
    fn segments(&self) -> MutexGuard<'_, Segments> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn total(&self) -> u64 {
        self.memory().kept.total()
    }
}

/// Written by one attempt, read by any number of followers.
#[derive(Debug)]
pub(crate) struct AttemptLog {
    dir: PathBuf,
    streams: [StreamLog; 2],
    progress: watch::Sender<Progress>,
    writer: Writer,
}

impl AttemptLog {
    pub fn new(dir: PathBuf, max_bytes: u64, writer: Writer) -> AttemptLog {
        let stream = |stream| {
            let segments = Segments::new(&dir, stream, max_bytes / 2);
            StreamLog {
                memory: Mutex::default(),
                segments: Mutex::new(segments),
            }
        };
        let streams = Stream::ALL.map(stream);
        AttemptLog {
            streams,
            dir,
            progress: watch::Sender::new(Progress::default()),
            writer,
        }
    }

    /// Takes all of it, and waits where the disk is too far behind. One call at a time for each
    /// stream.
    pub async fn write(self: &Arc<Self>, stream: Stream, bytes: &[u8]) {
        for piece in bytes.chunks(KEPT_BYTES) {
            let ahead = self.stream(stream).total() + piece.len() as u64;
            self.until_written(stream, ahead.saturating_sub(KEPT_BYTES as u64))
                .await;
            let mut memory = self.stream(stream).memory();
            memory.kept.push(piece);
            let told = std::mem::replace(&mut memory.due, true);
            drop(memory);
            if !told {
                self.writer.write(Arc::clone(self), stream);
            }
        }
    }

    /// Until the disk has all that was written.
    pub async fn stored(&self, stream: Stream) {
        self.until_written(stream, self.stream(stream).total())
            .await;
    }

    async fn until_written(&self, stream: Stream, bytes: u64) {
        let enough = |progress: &Progress| progress.written[stream.index()] >= bytes;
        if enough(&self.progress.borrow()) {
            return;
        }
        let mut progress = self.progress.subscribe();
        // Its other end is held here.
        drop(progress.wait_for(enough).await);
    }

    /// Whether the disk lacks something.
    pub fn is_behind(&self) -> bool {
        let written = self.progress.borrow().written;
        Stream::ALL
            .iter()
            .any(|stream| written[stream.index()] < self.stream(*stream).total())
    }

    /// Writes a chunk of what the disk lacks. For the writer's thread alone.
    pub(super) fn store(&self, stream: Stream) -> Lack {
        let log = self.stream(stream);
        let at = self.progress.borrow().written[stream.index()];
        let piece = log.memory().kept.read(at, CHUNK_BYTES).map(<[u8]>::to_vec);
        let piece = piece.unwrap_or_default();
        log.segments().write(&piece);
        let written = at + piece.len() as u64;
        self.progress
            .send_modify(|progress| progress.written[stream.index()] = written);
        let mut memory = log.memory();
        memory.due = written < memory.kept.total();
        if memory.due {
            Lack::More
        } else {
            Lack::Nothing
        }
    }

    /// Nothing more will be written.
    pub fn end(&self) -> Captured {
        self.progress.send_modify(|progress| progress.ended = true);
        let mut captured = Captured::default();
        for stream in Stream::ALL {
            let kept = &self.stream(stream).memory().kept;
            captured.tails[stream.index()] = kept.tail().to_vec();
            captured.totals[stream.index()] = kept.total();
        }
        captured
    }

    /// Whether there was any output, and so something on the disk, now or soon.
    pub fn has_output(&self) -> bool {
        self.streams.iter().any(|log| log.total() > 0)
    }

    /// What the disk does not have by now it need not get. May wait for the disk.
    pub(super) fn close(&self) {
        self.streams.iter().for_each(|log| log.segments().close());
    }

    pub fn follow(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// A chunk from the bytes in memory. `Err` where the disk has to be asked.
    pub fn recent(&self, stream: Stream, offset: u64) -> Result<Option<Chunk>, NotInMemory> {
        let Progress { written, ended } = *self.progress.borrow();
        let kept = &self.stream(stream).memory().kept;
        let shown = if ended {
            kept.total()
        } else {
            written[stream.index()]
        };
        if offset >= shown {
            return Ok(None);
        }
        let most = usize::try_from(shown - offset).unwrap_or(usize::MAX);
        let bytes = kept
            .read(offset, CHUNK_BYTES.min(most))
            .ok_or(NotInMemory)?;
        Ok(Some(Chunk {
            offset,
            data: Bytes::copy_from_slice(bytes),
        }))
    }

    /// The oldest bytes in memory, for when the disk has nothing.
    pub fn oldest(&self, stream: Stream) -> Option<Chunk> {
        let kept = &self.stream(stream).memory().kept;
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
