//! All logs of an agent, by attempt.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use bytes::Bytes;
use model::Fence;

use super::attempt::{AttemptLog, Captured, Chunk};
use super::segments;
use super::writer::Writer;
use super::{CHUNK_BYTES, Limits, Stream};
use crate::error::Error;

/// Where the output of an attempt can be read.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// Its verdict is not settled yet.
    Open(Arc<AttemptLog>),
    Disk(PathBuf),
}

#[derive(Debug)]
pub(crate) struct Logs {
    limits: Limits,
    open: Mutex<HashMap<Fence, Arc<AttemptLog>>>,
    dropped: Sender<Dropped>,
    writer: Writer,
}

/// Output that is to be removed.
#[derive(Debug)]
struct Dropped {
    dir: PathBuf,
    /// Unset where an earlier process of this agent wrote it.
    log: Option<Arc<AttemptLog>>,
}

impl Logs {
    /// Starts a thread that writes, and one that removes what is dropped, for a disk may take any
    /// time to; they end once this and its logs are dropped.
    pub fn start(limits: Limits) -> Result<Logs, Error> {
        let writer = Writer::start()?;
        let (dropped, to_remove) = channel::<Dropped>();
        thread::Builder::new()
            .name("logs".into())
            .spawn(move || to_remove.iter().for_each(|dropped| dropped.remove()))
            .map_err(Error::Thread)?;
        Ok(Logs {
            limits,
            open: Mutex::new(HashMap::new()),
            dropped,
            writer,
        })
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The log of an attempt that was taken on; made if need be.
    pub fn open(&self, fence: Fence) -> Arc<AttemptLog> {
        let new = || {
            let (dir, writer) = (self.dir(fence), self.writer.clone());
            Arc::new(AttemptLog::new(dir, self.limits.per_attempt, writer))
        };
        Arc::clone(self.table().entry(fence).or_insert_with(new))
    }

    pub fn find(&self, fence: Fence) -> Option<Source> {
        if let Some(log) = self.table().get(&fence) {
            return Some(Source::Open(Arc::clone(log)));
        }
        let dir = self.dir(fence);
        dir.is_dir().then_some(Source::Disk(dir))
    }

    /// Whether an attempt's log is open, by the name of its directory.
    pub fn is_open(&self, name: &str) -> bool {
        self.table().keys().any(|fence| fence.to_string() == name)
    }

    /// The verdict is settled. `Drop` where the cluster has all of the output.
    pub fn settle(&self, fence: Fence, fate: Fate) {
        let log = self.table().remove(&fence);
        // Of one that an earlier process of this agent wrote nothing is known here.
        let on_disk = log.as_ref().is_none_or(|log| log.has_output());
        let dir = self.dir(fence);
        if fate == Fate::Drop && on_disk && self.dropped.send(Dropped { dir, log }).is_err() {
            tracing::debug!(%fence, "its output stays until it is old");
        }
    }

    /// What an attempt of an earlier process of this agent wrote.
    pub fn captured(&self, fence: Fence) -> Captured {
        Captured::from_disk(&self.dir(fence))
    }

    fn dir(&self, fence: Fence) -> PathBuf {
        self.limits.dir.join(fence.to_string())
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Fence, Arc<AttemptLog>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dropped {
    fn remove(self) {
        if let Some(log) = &self.log {
            // Or the writer, where it is behind, would make the directory again.
            log.close();
        }
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(dir = %self.dir.display(), %error, "could not remove output");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

/// What becomes of a log when its verdict is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The cluster has all of it.
    Drop,
    /// Until retention ends it.
    Keep,
}

impl Source {
    /// The next chunk at or after `offset`. It may read the disk: call it where blocking is fine.
    pub fn read(&self, stream: Stream, offset: u64) -> io::Result<Option<Chunk>> {
        match self {
            Source::Disk(dir) => from_disk(dir, stream, offset),
            Source::Open(log) => match log.recent(stream, offset) {
                Ok(chunk) => Ok(chunk),
                Err(_) => Ok(from_disk(log.dir(), stream, offset)?.or_else(|| log.oldest(stream))),
            },
        }
    }
}

fn from_disk(dir: &Path, stream: Stream, offset: u64) -> io::Result<Option<Chunk>> {
    let read = segments::read(dir, stream, offset, CHUNK_BYTES)?;
    Ok(read.map(|(offset, data)| Chunk {
        offset,
        data: Bytes::from(data),
    }))
}
