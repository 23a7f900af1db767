//! What an attempt needs from the controllers before it starts: attached files, and what of its spec was too large for
//! the log.
//!
//! ```text
//!  controllers ──► blobs/DIGEST (kept for whoever needs it next, the oldest removed)
//!                      │ copied, and its digest looked at
//!                      ▼
//!                  inputs/ATTEMPT/NAME ──► moved into the scratch directory at the start
//! ```
//!
//! Nothing of the attempt runs before all of it is here. What can't be had within a while is given back: another agent, or
//! this one later, may fare better.

mod cache;
mod source;

#[cfg(test)]
mod tests;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::{Attachment, TaskSpec};

use crate::error::Error;

use cache::{Cache, Source};
pub(crate) use source::controllers;

/// Bytes of fetched files that stay for whoever needs them next.
pub(crate) const KEPT_BYTES: u64 = 4 << 30;

/// Files of one attempt, in a directory of their own. What is not taken is removed with it.
#[derive(Debug, PartialEq, Eq)]
pub struct Staged {
    dir: PathBuf,
    names: Vec<String>,
}

impl Staged {
    /// Moves the files to where the attempt finds them. Blocks.
    pub fn move_to(&self, to: &Path) -> io::Result<()> {
        for name in &self.names {
            fs::rename(self.dir.join(name), to.join(name))?;
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let dir = std::mem::take(&mut self.dir);
        // Mostly it is empty. What stays is removed beside, for it may be large, and at the next start.
        if fs::remove_dir(&dir).is_err() {
            std::thread::spawn(move || fs::remove_dir_all(&dir));
        }
    }
}

/// Why an attempt does not have what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfetched {
    /// Later, or on another agent, it may.
    Now(String),
    /// It makes no sense.
    Never(String),
}

/// What was fetched for an attempt.
pub(crate) struct Fetched {
    pub spec: Arc<TaskSpec>,
    pub files: Option<Arc<Staged>>,
}

/// Fetches what attempts need.
pub(crate) struct Inputs {
    cache: Cache,
    root: PathBuf,
    staged: AtomicU64,
}

impl Inputs {
    /// `data` is the agent's directory.
    pub fn open(data: &Path, source: Source) -> Result<Inputs, Error> {
        let root = data.join("inputs");
        fs::remove_dir_all(&root).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(Error::io(&root)(error)),
        })?;
        fs::create_dir(&root).map_err(Error::io(&root))?;
        Ok(Inputs {
            cache: Cache::open(data.join("blobs"), source)?,
            root,
            staged: AtomicU64::new(0),
        })
    }

    /// All that this spec needs, or why it can't be had.
    pub async fn fetch(&self, spec: Arc<TaskSpec>) -> Result<Fetched, Unfetched> {
        let whole = match &spec.blobs.bulk {
            None => spec,
            Some(bulk) => {
                let bytes = self.cache.read(&bulk.blob).await.map_err(Unfetched::Now)?;
                let whole = wire::convert::restore(&spec, &bytes);
                Arc::new(whole.map_err(|error| Unfetched::Never(error.to_string()))?)
            }
        };
        let files = match whole.blobs.attachments.is_empty() {
            true => None,
            false => {
                let staged = self.stage(&whole.blobs.attachments).await;
                Some(Arc::new(staged.map_err(Unfetched::Now)?))
            }
        };
        let spec = whole;
        Ok(Fetched { spec, files })
    }

    async fn stage(&self, attachments: &[Attachment]) -> Result<Staged, String> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed) + 1;
        let mut staged = Staged {
            dir: self.root.join(number.to_string()),
            names: Vec::new(),
        };
        let made = tokio::fs::create_dir(&staged.dir).await;
        made.map_err(|error| format!("{}: {error}", staged.dir.display()))?;
        for attachment in attachments {
            // Who assigned it has looked; a path is made of it here.
            attachment.validate().map_err(|error| error.to_string())?;
            let to = staged.dir.join(&attachment.name);
            let mode = if attachment.executable { 0o700 } else { 0o600 };
            let copied = match attachment.blob.size {
                0 => cache::empty(&to, mode),
                _ => self.cache.copy(&attachment.blob, &to, mode).await,
            };
            copied.map_err(|why| format!("attached file `{}`: {why}", attachment.name))?;
            staged.names.push(attachment.name.clone());
        }
        Ok(staged)
    }

    /// Removes what was not needed for longest, where too much is kept. Blocks.
    pub fn sweep(&self) -> io::Result<usize> {
        self.cache.shrink(KEPT_BYTES)
    }
}
