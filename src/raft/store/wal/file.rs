//! One write-ahead file: records one after the other, each durable before the next is written.
//!
//! It is written in place, over the zeros that it was made with or over records from before, so that an
//! fdatasync has nothing but the data to write: no new length, no blocks to allocate.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use durable::at;
use failpoint::Point;

use super::record::{self, SECTOR, Salt};
use crate::member::LogIdentity;
use crate::store::engine::Batch;

/// Bytes that a file is made with, and past which it is full. A record may reach beyond: the file is longer then.
/// The more it takes, the more writes sled gets at once, and the longer those wait that come meanwhile.
pub const FILE_BYTES: usize = 512 << 10;

/// Only for the owner: tasks' specs hold secrets.
const MODE: u32 = 0o600;

#[derive(Debug)]
pub struct WalFile {
    file: File,
    path: PathBuf,
    salt: Salt,
    /// Where the next record goes.
    end: u64,
}

/// What a file holds: records in order, each with the number of its write, from the first sector on.
#[derive(Debug, Default)]
pub struct Content {
    pub writes: Vec<(u64, Batch)>,
    /// The highest number of a whole record that lies behind the first that is none. From an earlier round of the
    /// file, unless something before it was damaged.
    pub behind: Option<u64>,
}

impl WalFile {
    /// Makes a file of zeros. Its name is durable once the caller has synced the directory.
    pub fn create(path: &Path, identity: LogIdentity) -> io::Result<Self> {
        let salt = rand::random();
        let create = || {
            let mut open = OpenOptions::new();
            open.write(true).create_new(true).mode(MODE);
            let file = open.open(path)?;
            let mut content = vec![0; FILE_BYTES];
            content[..SECTOR].copy_from_slice(&record::encode_header(identity, salt));
            file.write_all_at(&content, 0)?;
            file.sync_all()?;
            Ok(file)
        };
        Ok(Self::new(create().map_err(at(path))?, path, salt))
    }

    /// Opens a file and reads all that it holds. The next record replaces the first.
    pub fn open(path: &Path, identity: LogIdentity) -> io::Result<(Self, Content)> {
        let bytes = fs::read(path).map_err(at(path))?;
        let damaged = |reason: String| {
            let text = format!("{}: {reason}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let salt = record::decode_header(&bytes, identity).map_err(damaged)?;
        let content = read(&bytes, salt).map_err(damaged)?;
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(at(path))?;
        Ok((Self::new(file, path, salt), content))
    }

    fn new(file: File, path: &Path, salt: Salt) -> Self {
        Self {
            file,
            path: path.to_owned(),
            salt,
            end: SECTOR as u64,
        }
    }

    /// Returns once the record survives a power cut. `buffer` is reused from call to call.
    pub fn append(&mut self, buffer: &mut Vec<u8>, sequence: u64, batch: &Batch) -> io::Result<()> {
        record::encode(buffer, self.salt, sequence, batch);
        failpoint::at(Point::AppendBefore);
        let written = self.file.write_all_at(buffer, self.end);
        failpoint::at(Point::FsyncBefore);
        written
            .and_then(|()| self.file.sync_data())
            .map_err(at(&self.path))?;
        failpoint::at(Point::FsyncAfter);
        self.end += buffer.len() as u64;
        Ok(())
    }

    pub fn is_full(&self) -> bool {
        self.end >= FILE_BYTES as u64
    }

    /// From now on records go over those that are here.
    pub fn begin_again(&mut self) {
        self.end = SECTOR as u64;
    }
}

/// What the bytes of a file hold.
pub fn read(bytes: &[u8], salt: Salt) -> Result<Content, String> {
    let mut content = Content::default();
    let mut at = SECTOR;
    while let Some(found) = bytes.get(at..).and_then(|rest| record::find(rest, salt)) {
        let previous = content.writes.last().map(|(sequence, _)| *sequence);
        if previous.is_some_and(|previous| found.sequence != previous + 1) {
            break;
        }
        let mut batch = Batch::new();
        if !record::decode_into(found.body, &mut batch) {
            return Err(format!("write {} makes no sense", found.sequence));
        }
        content.writes.push((found.sequence, batch));
        at += found.length;
    }
    while at < bytes.len() {
        let found = record::find(&bytes[at..], salt);
        content.behind = content
            .behind
            .max(found.as_ref().map(|found| found.sequence));
        at += found.map_or(SECTOR, |found| found.length);
    }
    Ok(content)
}
