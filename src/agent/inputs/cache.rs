//! Blobs that were fetched, one file each. What has its digest for a name was whole once; it is looked at again with each
//! use, for a disk may forget.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use model::{BlobDigest, BlobHasher, BlobRef};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::error::Error;

/// How long a blob is tried to be had. The leader has it before it assigns the task.
const PATIENCE: Duration = Duration::from_secs(30);
/// Without a piece for so long, a controller is given up.
const PIECE_PAUSE: Duration = Duration::from_secs(10);
/// How often something else may come before it is given up.
const WRONG_MAX: u32 = 3;
/// Bytes read at once.
const BUFFER: usize = 256 * 1024;

/// Asks some controller for a blob from an offset on.
pub(crate) type Source =
    Arc<dyn Fn(BlobRef, u64) -> BoxFuture<'static, Result<Pieces, Failed>> + Send + Sync>;

/// Its bytes as they come.
pub(crate) type Pieces = BoxStream<'static, Result<Bytes, Failed>>;

/// Why a blob did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failed {
    /// Later it may.
    #[error("{0}")]
    Now(String),
    /// It came, and is something else.
    #[error("its bytes are not those that were named")]
    Wrong,
    /// Nobody has it.
    #[error("{0}")]
    ForGood(String),
}

pub(crate) struct Cache {
    dir: PathBuf,
    source: Source,
    /// One fetches, the others wait for it.
    turns: StdMutex<BTreeMap<BlobDigest, Arc<Mutex<()>>>>,
}

impl Cache {
    pub fn open(dir: PathBuf, source: Source) -> Result<Cache, Error> {
        fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
        Ok(Cache {
            dir,
            source,
            turns: StdMutex::default(),
        })
    }

    /// The bytes, in memory.
    pub async fn read(&self, blob: &BlobRef) -> Result<Bytes, String> {
        self.with(blob, |path, blob| {
            let bytes = fs::read(path)?;
            match BlobRef::of(&bytes) == *blob {
                true => Ok(bytes.into()),
                false => Err(damaged()),
            }
        })
        .await
    }

    /// A copy under this name.
    pub async fn copy(&self, blob: &BlobRef, to: &Path, mode: u32) -> Result<(), String> {
        let to = to.to_owned();
        self.with(blob, move |path, blob| {
            fs::copy(path, &to)?;
            let copied = File::open(&to)?;
            copied.set_permissions(fs::Permissions::from_mode(mode))?;
            match digest_of(copied)? == *blob {
                true => Ok(()),
                false => Err(damaged()),
            }
        })
        .await
    }

    /// Uses a blob's file. One that is damaged, or was just removed, is fetched once more.
    async fn with<T: Send + 'static>(
        &self,
        blob: &BlobRef,
        usage: impl Fn(&Path, &BlobRef) -> io::Result<T> + Clone + Send + 'static,
    ) -> Result<T, String> {
        let turn = self.turn(blob.digest);
        let mut fetched = false;
        loop {
            let path = self.path(blob);
            {
                let _one_fetches = turn.lock().await;
                if !path.is_file() {
                    fetched = true;
                    self.fetch(blob).await?;
                }
            }
            let (usage, named, used) = (usage.clone(), *blob, path.clone());
            let done = tokio::task::spawn_blocking(move || {
                let done = usage(&used, &named)?;
                // It was needed now: others are removed first.
                File::open(&used)?.set_modified(SystemTime::now())?;
                Ok::<_, io::Error>(done)
            });
            match done.await.map_err(io::Error::from).and_then(|it| it) {
                Ok(done) => return Ok(done),
                Err(error) if !fetched && is_absent(&error) => {
                    tracing::warn!(%blob, %error, "a kept file is fetched again");
                    let _nobody_fetches = turn.lock().await;
                    // Gone already is fine; what can't be removed shows at the next try.
                    fs::remove_file(&path).ok();
                }
                Err(error) => return Err(format!("{}: {error}", path.display())),
            }
        }
    }

    /// Until it is here, from whoever has it.
    async fn fetch(&self, blob: &BlobRef) -> Result<(), String> {
        let part = self.path(blob).with_extension("part");
        let begun = Instant::now();
        let mut backoff = Backoff::default();
        let mut wrong = 0;
        loop {
            let failed = match self.fetch_once(blob, &part).await {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            tracing::debug!(%blob, error = %failed, "a file did not come");
            wrong += u32::from(failed == Failed::Wrong);
            let hopeless = matches!(failed, Failed::ForGood(_)) || wrong >= WRONG_MAX;
            if hopeless || begun.elapsed() >= PATIENCE {
                return Err(format!("it can't be fetched: {failed}"));
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn fetch_once(&self, blob: &BlobRef, part: &Path) -> Result<(), Failed> {
        let ours = |error: io::Error| Failed::Now(format!("{}: {error}", part.display()));
        let here = fs::metadata(part).map_or(0, |found| found.len());
        let here = if here < blob.size { here } else { 0 };
        let options = || {
            File::options()
                .create(true)
                .write(true)
                .truncate(false)
                .open(part)
        };
        let mut file = options().map_err(ours)?;
        file.set_len(here).map_err(ours)?;
        io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(ours)?;
        let mut pieces = (self.source)(*blob, here).await?;
        let mut came = here;
        while came < blob.size {
            let next = tokio::time::timeout(PIECE_PAUSE, pieces.next()).await;
            let next = next.map_err(|_| Failed::Now("the controller is silent".to_owned()))?;
            let piece = next.ok_or_else(|| Failed::Now("it broke off".to_owned()))??;
            came += piece.len() as u64;
            let put = tokio::task::spawn_blocking(move || {
                file.write_all(&piece)?;
                Ok(file)
            });
            file = put
                .await
                .map_err(io::Error::from)
                .and_then(|it| it)
                .map_err(ours)?;
        }
        let (from, to, blob) = (part.to_owned(), self.path(blob), *blob);
        let done = tokio::task::spawn_blocking(move || {
            if digest_of(File::open(&from)?)? != blob {
                return fs::remove_file(&from).map(|()| false);
            }
            file.sync_data()?;
            fs::rename(&from, &to).map(|()| true)
        });
        match done.await.map_err(io::Error::from).and_then(|it| it) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failed::Wrong),
            Err(error) => Err(ours(error)),
        }
    }

    /// Removes what was not used for longest until this many bytes are left. Blocks.
    pub fn shrink(&self, most: u64) -> io::Result<usize> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let about = entry.metadata()?;
            files.push((about.modified()?, about.len(), entry.path()));
        }
        files.sort();
        let mut bytes: u64 = files.iter().map(|(_, size, _)| size).sum();
        let mut removed = 0;
        for (_, size, path) in files {
            if bytes <= most {
                break;
            }
            fs::remove_file(path)?;
            bytes -= size;
            removed += 1;
        }
        Ok(removed)
    }

    fn path(&self, blob: &BlobRef) -> PathBuf {
        self.dir.join(blob.digest.to_string())
    }

    fn turn(&self, digest: BlobDigest) -> Arc<Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(digest).or_default())
    }
}

/// A file without bytes.
pub fn empty(to: &Path, mode: u32) -> Result<(), String> {
    let made =
        File::create(to).and_then(|file| file.set_permissions(fs::Permissions::from_mode(mode)));
    made.map_err(|error| format!("{}: {error}", to.display()))
}

fn digest_of(file: File) -> io::Result<BlobRef> {
    let mut hasher = BlobHasher::default();
    io::copy(&mut BufReader::with_capacity(BUFFER, file), &mut hasher)?;
    Ok(hasher.finish())
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "its bytes have changed")
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::NotFound
    )
}
