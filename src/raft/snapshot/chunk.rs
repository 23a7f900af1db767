//! The data file of a snapshot: sealed records of up to 1 MiB, one after the other.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use bytes::{Buf, Bytes};
use durable::at;
use sha2::{Digest, Sha256};

use super::manifest::{Content, Manifest};
use crate::store::codec::{self, Damage};

/// Bytes of state in one chunk: well below the 4 MiB that gRPC allows for a message.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Header of a sealed record.
const RECORD_HEAD: usize = 9;

/// Adds up what passes through.
#[derive(Default)]
pub struct Tally {
    chunks: u64,
    bytes: u64,
    sha256: Sha256,
}

impl Tally {
    pub fn add(&mut self, body: &[u8]) {
        self.chunks += 1;
        self.bytes += body.len() as u64;
        self.sha256.update(body);
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn finish(self) -> Content {
        let sha256 = hex::encode(self.sha256.finalize());
        Content {
            chunks: self.chunks,
            bytes: self.bytes,
            sha256,
        }
    }
}

/// Writes a data file, chunk by chunk.
///
/// What was written is synced every few MiB, with a rest after it: one sync of a large state at its end would, on a
/// journalling file system, hold up those of the log until all of it is on disk.
pub struct Writer {
    file: File,
    chunk: Vec<u8>,
    tally: Tally,
}

/// Chunks between two syncs.
const SYNC_EVERY: u64 = 2;

impl Writer {
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::create(path).map_err(at(path))?,
            chunk: Vec::with_capacity(CHUNK_BYTES),
            tally: Tally::default(),
        })
    }

    /// Writes what is left, and syncs all of it.
    pub fn finish(mut self) -> io::Result<Content> {
        if !self.chunk.is_empty() {
            self.end_chunk()?;
        }
        self.file.sync_all()?;
        Ok(self.tally.finish())
    }

    fn end_chunk(&mut self) -> io::Result<()> {
        self.tally.add(&self.chunk);
        self.file.write_all(&codec::seal(&self.chunk))?;
        self.chunk.clear();
        if self.tally.chunks.is_multiple_of(SYNC_EVERY) {
            let begun = Instant::now();
            self.file.sync_data()?;
            // Half of the time the disk is the log's alone.
            thread::sleep(begun.elapsed());
        }
        Ok(())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK_BYTES {
            self.end_chunk()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads the records of a data file one by one, each checked.
pub struct Reader {
    file: BufReader<File>,
}

impl Reader {
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path).map_err(at(path))?;
        Ok(Self {
            file: BufReader::new(file),
        })
    }

    /// The next record, sealed as it stands, and its body; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<(Bytes, Bytes)>> {
        let mut head = [0; RECORD_HEAD];
        match self.file.read(&mut head[..1])? {
            0 => return Ok(None),
            _ => self.file.read_exact(&mut head[1..])?,
        }
        let length = codec::record_length(&head).map_err(damaged)?;
        if length > CHUNK_BYTES + RECORD_HEAD {
            return Err(damaged(Damage::Content(format!(
                "a chunk of {length} bytes"
            ))));
        }
        let mut record = vec![0; length];
        record[..RECORD_HEAD].copy_from_slice(&head);
        self.file.read_exact(&mut record[RECORD_HEAD..])?;
        let record = Bytes::from(record);
        let body = codec::open(&record).map_err(damaged)?;
        Ok(Some((record, body)))
    }
}

/// The state in a data file, chunk by chunk. Each was checked; that it is what the manifest says is known at the end.
pub struct Body {
    path: PathBuf,
    reader: Reader,
    /// What is left of the present one.
    chunk: Bytes,
    tally: Tally,
    manifest: Arc<Manifest>,
    /// Whoever decodes may know it only as words.
    failed: Option<io::Error>,
}

impl Body {
    pub fn open(path: &Path, manifest: Arc<Manifest>) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            reader: Reader::open(path)?,
            chunk: Bytes::new(),
            tally: Tally::default(),
            manifest,
            failed: None,
        })
    }

    /// Reads what is left, and compares all with the manifest.
    pub fn finish(mut self) -> io::Result<()> {
        let mut run = || {
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            while self.next()? {}
            compare(&mem::take(&mut self.tally).finish(), &self.manifest)
        };
        run().map_err(at(&self.path))
    }

    /// Takes the next chunk; false where there is none.
    fn next(&mut self) -> io::Result<bool> {
        // One that holds more is not this one: no need to read on.
        if self.tally.bytes() > self.manifest.bytes {
            return Ok(false);
        }
        let Some((_, chunk)) = self.reader.next()? else {
            return Ok(false);
        };
        self.tally.add(&chunk);
        self.chunk = chunk;
        Ok(true)
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.next() {
                Ok(true) => {}
                Ok(false) => return Ok(0),
                Err(error) => {
                    let told = io::Error::new(error.kind(), error.to_string());
                    self.failed = Some(error);
                    return Err(told);
                }
            }
        }
        self.chunk
            .as_ref()
            .read(into)
            .inspect(|read| self.chunk.advance(*read))
    }
}

pub fn compare(content: &Content, manifest: &Manifest) -> io::Result<()> {
    let told = Content {
        chunks: manifest.chunks,
        bytes: manifest.bytes,
        sha256: manifest.sha256.clone(),
    };
    match *content == told {
        true => Ok(()),
        false => {
            let text = format!("holds {content:?}, the manifest says {told:?}");
            Err(damaged(Damage::Content(text)))
        }
    }
}

fn damaged(damage: Damage) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, damage.to_string())
}
