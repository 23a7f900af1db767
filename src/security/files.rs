//! Key and certificate files: secrets are born with mode 0600, and refused when others can read them.
//!
//! A file is written beside its final name, synced, and renamed over it, so that a reader finds the old
//! one or the new one, whole. The permission check looks at the opened file and not at its path, so that
//! nobody can swap the file in between.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Bytes. A chain of a few certificates is under 8 KiB; this is a guard against a wrong path.
const PEM_LIMIT: u64 = 256 * 1024;
const SECRET_MODE: u32 = 0o600;
const PUBLIC_MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o700;
/// Any permission of group or others.
const EXPOSED: u32 = 0o077;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Privacy {
    Secret,
    Public,
}

/// A secret of one line, such as a key that others gave out; `None` where the file is empty.
pub fn read_secret(path: &Path) -> Result<Option<String>, Error> {
    let bytes = read(path, Privacy::Secret)?;
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().next().unwrap_or_default().trim();
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

pub(crate) fn read(path: &Path, privacy: Privacy) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(io::Error::from(io::ErrorKind::IsADirectory)));
    }
    if privacy == Privacy::Secret && metadata.mode() & EXPOSED != 0 {
        return Err(Error::Exposed {
            path: path.to_owned(),
            mode: metadata.mode() & 0o7777,
        });
    }
    let mut bytes = Vec::new();
    file.take(PEM_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > PEM_LIMIT {
        let size = metadata.len().max(bytes.len() as u64);
        return Err(Error::TooLarge {
            path: path.to_owned(),
            size,
            limit: PEM_LIMIT,
        });
    }
    Ok(bytes)
}

/// Creates or replaces `path`.
pub(crate) fn write(path: &Path, bytes: &[u8], privacy: Privacy) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.to_owned(),
        source,
    };
    let temporary = beside(path);
    // A leftover of a crash may have another mode: it must be made anew.
    match fs::remove_file(&temporary) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(failed(source)),
        _ => {}
    }
    let mode = match privacy {
        Privacy::Secret => SECRET_MODE,
        Privacy::Public => PUBLIC_MODE,
    };
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)?;
    durable::sync_dir(durable::parent(path)).map_err(failed)
}

/// Makes a directory and those above it that are missing, all for their owner alone: an identity is
/// often the first thing in a data directory. One that is there keeps its mode.
pub(crate) fn create_directory(path: &Path) -> Result<(), Error> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(DIRECTORY_MODE);
    builder.create(path).map_err(|source| Error::Write {
        path: path.to_owned(),
        source,
    })
}

/// Also refuses where it cannot be seen whether the file is there.
pub(crate) fn refuse_existing(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(Error::Exists(path.to_owned())),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(Error::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_created_readable_by_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write(&path, b"secret", Privacy::Secret).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read(&path, Privacy::Secret).unwrap(), b"secret");
    }

    #[test]
    fn directories_are_made_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("c2/identity");
        create_directory(&made).unwrap();
        for path in [made.as_path(), made.parent().unwrap()] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
        }
        create_directory(&made).unwrap();
    }

    #[test]
    fn a_secret_that_group_or_others_can_read_is_refused_and_the_mode_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        write(&path, b"secret", Privacy::Secret).unwrap();
        for mode in [0o640, 0o604, 0o644, 0o660, 0o666, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path, Privacy::Secret).unwrap_err();
            assert!(
                error.to_string().contains(&format!("{mode:04o}")),
                "{error}"
            );
            assert!(error.to_string().contains("chmod 600"), "{error}");
            assert!(read(&path, Privacy::Public).is_ok());
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(read(&path, Privacy::Secret).is_ok());
    }

    #[test]
    fn replacing_a_file_leaves_nothing_beside_it_and_ignores_a_leftover() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        fs::write(dir.path().join("key.pem.new"), "left by a crash").unwrap();
        write(&path, b"one", Privacy::Secret).unwrap();
        write(&path, b"two", Privacy::Secret).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn missing_oversized_and_directory_are_errors_that_name_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let large = dir.path().join("large");
        fs::write(&large, vec![b'x'; 300 * 1024]).unwrap();
        for path in [dir.path().join("missing"), large, dir.path().to_owned()] {
            let error = read(&path, Privacy::Public).unwrap_err().to_string();
            assert!(error.contains(&*path.to_string_lossy()), "{error}");
        }
    }
}
