//! Small files that say who somebody is, each with its checksum in another file beside it.
//!
//! In the file itself there is no place for one: releases that know of none refuse a field that they do not know. A file
//! that such a release made gets one when it is next taken into use; one that it changed has to be vouched for by a person.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::{read_optional, replace as replace_plain};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(
        "{} does not have the checksum that stands in {}: one of the two is damaged, or was changed by hand",
        path.display(),
        checksums.display()
    )]
    Altered { path: PathBuf, checksums: PathBuf },
}

/// The content, or `None` if there is no such file.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let Some(content) = read_optional(path)? else {
        return Ok(None);
    };
    let checksums = beside(path);
    let Some(admitted) = read_optional(&checksums)? else {
        return Ok(Some(content));
    };
    let wanted = checksum(&content);
    let admitted = String::from_utf8_lossy(&admitted);
    match admitted.lines().any(|line| line == wanted) {
        true => Ok(Some(content)),
        false => Err(Error::Altered {
            path: path.to_owned(),
            checksums,
        }),
    }
}

/// After a crash there is the old content or the new one, with its checksum.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let former = read_optional(path)?;
    admit(path, former.as_deref().into_iter().chain([content]))?;
    replace_plain(path, content)
}

/// Gives a file that was read the one checksum that it has, where it has none or may have another.
pub fn take_over(path: &Path) -> io::Result<()> {
    let admitted = read_optional(&beside(path))?;
    match admitted.is_some_and(|lines| lines.iter().filter(|byte| **byte == b'\n').count() == 1) {
        true => Ok(()),
        false => admit(path, read_optional(path)?.as_deref().into_iter()),
    }
}

/// `node.json.crc32c`: a line in hexadecimal for each content that the file may have; while it is replaced these are two.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".crc32c");
    PathBuf::from(name)
}

fn admit<'a>(path: &Path, contents: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
    let lines: String = contents.map(|content| checksum(content) + "\n").collect();
    replace_plain(&beside(path), lines.as_bytes())
}

fn checksum(content: &[u8]) -> String {
    format!("{:08x}", crc32c::crc32c(content))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn no_flipped_bit_goes_unnoticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        replace(&path, b"{\"generation\": 1}\n").unwrap();
        for file in [path.clone(), beside(&path)] {
            let good = fs::read(&file).unwrap();
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                fs::write(&file, bad).unwrap();
                let read = read(&path);
                // The end of a line may be another one.
                let is_same = file != path && matches!(&read, Ok(Some(_)));
                let is_noticed = matches!(&read, Err(Error::Altered { .. }));
                assert!(is_noticed || is_same, "bit {bit} of {file:?}: {read:?}");
            }
            fs::write(&file, good).unwrap();
        }
    }

    #[test]
    fn a_replacement_that_a_crash_cut_short_leaves_the_old_content_readable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        replace(&path, b"one").unwrap();
        admit(&path, [&b"one"[..], b"two"].into_iter()).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"one");
        replace(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
    }

    #[test]
    fn a_file_of_an_older_release_is_read_and_given_a_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.json");
        assert!(read(&path).unwrap().is_none());
        fs::write(&path, "one").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"one");
        take_over(&path).unwrap();
        fs::write(&path, "two").unwrap();
        assert!(matches!(read(&path), Err(Error::Altered { .. })));
    }
}
