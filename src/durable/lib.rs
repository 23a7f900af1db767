//! Files that are still there after a power cut: write, sync, rename, sync the directory.
//!
//! Every error names the file, because "No space left on device" alone helps nobody at night. [`checked`] are files with a
//! checksum, a [`Witness`] tells when the end of a log is gone.

pub mod checked;
mod witness;

pub use witness::Witness;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Adds the path to an error, keeping its kind.
pub fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error + '_ {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Makes the names in a directory durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)
        .and_then(|file| file.sync_all())
        .map_err(at(dir))
}

/// The directory that holds `path`; `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Nobody else on the machine may look in: tasks' specs hold secrets.
const MODE: u32 = 0o700;

/// Creates a directory with all above it that are missing. An existing one is fine.
pub fn create_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(MODE);
    builder.create(dir).map_err(at(dir))?;
    sync_dir(parent(dir))
}

/// Creates a directory whose name survives a power cut. An existing one is fine.
pub fn create_dir(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(MODE).create(dir) {
        Ok(()) => sync_dir(parent(dir)),
        // Something else may have that name.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
        Err(error) => Err(at(dir)(error)),
    }
}

/// Replaces a small file as a whole: after a crash it holds the old content or the new one.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    write_synced(&temporary, content)?;
    fs::rename(&temporary, path).map_err(at(path))?;
    sync_dir(parent(path))
}

pub fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(at(path))
}

/// The content, or `None` if there is no such file.
pub fn read_optional(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

/// Removes a file. None there is fine.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        Err(_) | Ok(()) => Ok(()),
    }
}
