//! A blob that is on its way here: a file that grows, and becomes the blob when it is whole.
//!
//! Whoever brings bytes says where they begin. What is here already is skipped, so two that bring the same blob help
//! each other, and one that was cut off goes on where it stopped, also after a restart. That bytes are right is known
//! only at the end; where they are not, all of them are thrown away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use durable::at;
use model::{BlobDigest, BlobRef};

use super::{Blobs, files};
use crate::sync::lock;

/// An upload that nobody went on with for so long is given up.
const ABANDONED: Duration = Duration::from_secs(6 * 60 * 60);

pub fn dir(blobs: &Path) -> PathBuf {
    blobs.join("incoming")
}

/// Removes what nobody went on with.
pub fn remove_old(blobs: &Path) -> io::Result<()> {
    let dir = dir(blobs);
    for entry in fs::read_dir(&dir).map_err(at(&dir))? {
        let path = entry.map_err(at(&dir))?.path();
        let changed = fs::metadata(&path).and_then(|it| it.modified());
        let age = changed.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        if age.is_ok_and(|age| age >= ABANDONED) {
            fs::remove_file(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// How far a blob has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many bytes of it are here.
    Partly(u64),
    Whole,
}

impl Blobs {
    /// How much of a blob is here. Refused where there is no room for it.
    pub fn progress(&self, blob: &BlobRef) -> io::Result<Progress> {
        if self.pin(blob) {
            return Ok(Progress::Whole);
        }
        let turn = self.turn(blob.digest);
        let _one_writer = lock(&turn);
        let path = self.incoming(&blob.digest);
        let here = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(at(&path)(error)),
        };
        if here >= blob.size {
            // All of it came, and then the process ended; or somebody named another size, and one of them is wrong.
            let file = File::open(&path).map_err(at(&path))?;
            match self.finish(blob, file, &path) {
                Ok(()) => return Ok(Progress::Whole),
                Err(error) if files::is_damage(&error) => {}
                Err(error) => return Err(error),
            }
            self.has_room(blob.size)?;
            return Ok(Progress::Partly(0));
        }
        self.has_room(blob.size - here)?;
        Ok(Progress::Partly(here))
    }

    /// Takes bytes from `offset` on. Fails where some are missing before them; see [`Blobs::progress`].
    pub fn append(&self, blob: &BlobRef, offset: u64, bytes: &[u8]) -> io::Result<Progress> {
        let turn = self.turn(blob.digest);
        let _one_writer = lock(&turn);
        let end = offset.saturating_add(bytes.len() as u64);
        if self.pin(blob) {
            return Ok(Progress::Whole);
        }
        if end > blob.size {
            return Err(files::damaged("more bytes than the blob has"));
        }
        let path = self.incoming(&blob.digest);
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(at(&path))?;
        let here = file.seek(SeekFrom::End(0)).map_err(at(&path))?;
        if offset > here {
            let text = format!("{} bytes before these are not here", offset - here);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let known = usize::try_from(here - offset).unwrap_or(usize::MAX);
        if let Some(new) = bytes.get(known..).filter(|new| !new.is_empty()) {
            self.has_room(new.len() as u64)?;
            file.write_all(new).map_err(at(&path))?;
        }
        let here = here.max(end);
        match here >= blob.size {
            true => self.finish(blob, file, &path).map(|()| Progress::Whole),
            false => Ok(Progress::Partly(here)),
        }
    }

    /// All bytes are here; are they the right ones?
    fn finish(&self, blob: &BlobRef, mut file: File, path: &Path) -> io::Result<()> {
        file.rewind().map_err(at(path))?;
        if files::digest_of(&file).map_err(at(path))? != *blob {
            fs::remove_file(path).map_err(at(path))?;
            return Err(files::damaged(
                "the bytes that came are not those of the blob",
            ));
        }
        file.sync_data().map_err(at(path))?;
        fs::rename(path, files::path(&self.dir, &blob.digest)).map_err(at(path))?;
        durable::sync_dir(&self.dir)?;
        self.came([*blob].into_iter());
        Ok(())
    }

    fn incoming(&self, digest: &BlobDigest) -> PathBuf {
        files::path(&dir(&self.dir), digest)
    }
}
