//! The files of blobs: whole, verified, or not there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Seek, Write};
use std::path::{Path, PathBuf};

use durable::at;
use model::{BlobDigest, BlobHasher, BlobRef};
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// Bytes read at once.
const BUFFER: usize = 256 * 1024;
/// What a file is called while it is written, and when it was found damaged.
const TEMPORARY: &str = "tmp";
const DAMAGED: &str = "damaged";
/// What disks and file systems say of a bad sector or a damaged structure.
const BAD: [i32; 3] = [
    Errno::EIO as i32,
    Errno::EUCLEAN as i32,
    Errno::EBADMSG as i32,
];

pub fn path(dir: &Path, digest: &BlobDigest) -> PathBuf {
    dir.join(digest.to_string())
}

/// What is in the directory.
#[derive(Default)]
pub struct Found {
    pub blobs: Vec<BlobRef>,
    /// What was put aside, and not removed since.
    pub aside: BTreeSet<BlobDigest>,
}

/// What is there. Files that were not finished are removed.
pub fn list(dir: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let digest = stem.and_then(|stem| stem.parse().ok());
        match (digest, path.extension().and_then(|it| it.to_str())) {
            (Some(digest), None) => {
                let size = fs::metadata(&path).map_err(at(&path))?.len();
                found.blobs.push(BlobRef { digest, size });
            }
            (Some(digest), Some(DAMAGED)) => drop(found.aside.insert(digest)),
            (_, Some(TEMPORARY)) => fs::remove_file(&path).map_err(at(&path))?,
            (_, _) => {}
        }
    }
    Ok(found)
}

/// The same without removing anything.
pub fn look(dir: &Path) -> io::Result<BTreeSet<BlobRef>> {
    let mut blobs = BTreeSet::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(blobs),
        entries => entries.map_err(at(dir))?,
    };
    for entry in entries {
        let path = entry.map_err(at(dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(digest) = name.and_then(|name| name.parse().ok()) {
            let size = fs::metadata(&path).map_err(at(&path))?.len();
            blobs.insert(BlobRef { digest, size });
        }
    }
    Ok(blobs)
}

/// Writes a file under its name. The directory has to be synced after it.
pub fn write(dir: &Path, blob: &BlobRef, bytes: &[u8]) -> io::Result<()> {
    if BlobRef::of(bytes) != *blob {
        return Err(damaged("the bytes are not those of the blob"));
    }
    let path = path(dir, &blob.digest);
    let temporary = path.with_extension(TEMPORARY);
    let written = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&temporary, &path)
    };
    written().map_err(|error| {
        // Half of it would only take space; whatever hinders that, the first error tells more.
        fs::remove_file(&temporary).ok();
        at(&path)(error)
    })
}

/// A file at its start, after all of its bytes were looked at.
pub fn verified(dir: &Path, blob: &BlobRef) -> io::Result<File> {
    let path = path(dir, &blob.digest);
    let mut file = opened(&path)?;
    compare(&file, blob).map_err(at(&path))?;
    file.rewind().map_err(at(&path))?;
    Ok(file)
}

/// The same for one that nobody asked for: as it stands on the disk, and no longer in memory than before.
pub fn verify_on_disk(dir: &Path, blob: &BlobRef) -> io::Result<()> {
    let path = path(dir, &blob.digest);
    let file = opened(&path)?;
    // Advice: without it the copy in memory is looked at, which is what readers would get.
    let out_of_memory = || posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).ok();
    out_of_memory();
    let compared = compare(&file, blob).map_err(at(&path));
    out_of_memory();
    compared
}

fn opened(path: &Path) -> io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(at(path)(damaged("it is gone")))
        }
        opened => opened.map_err(at(path)),
    }
}

fn compare(file: &File, blob: &BlobRef) -> io::Result<()> {
    match digest_of(file) {
        Ok(found) if found == *blob => Ok(()),
        Ok(_) => Err(damaged("its bytes have changed")),
        // These bytes come back from elsewhere or not at all.
        Err(error) if error.raw_os_error().is_some_and(|it| BAD.contains(&it)) => {
            Err(damaged("its bytes can't be read"))
        }
        Err(error) => Err(error),
    }
}

/// What a file holds, from where it stands on.
pub fn digest_of(file: &File) -> io::Result<BlobRef> {
    let mut hasher = BlobHasher::default();
    io::copy(&mut BufReader::with_capacity(BUFFER, file), &mut hasher)?;
    Ok(hasher.finish())
}

pub fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

pub fn is_damage(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData
}

/// Takes its name from a damaged file. An earlier one that was put aside is written over: neither is the blob.
pub fn put_aside(dir: &Path, digest: &BlobDigest) -> io::Result<()> {
    let path = path(dir, digest);
    match fs::rename(&path, path.with_extension(DAMAGED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// Removes what was put aside. What can't be removed only takes space.
pub fn forget_damaged(dir: &Path, digest: &BlobDigest) {
    let path = path(dir, digest).with_extension(DAMAGED);
    if let Err(error) = durable::remove(&path) {
        tracing::warn!(%error, "a damaged file stays");
    }
}
