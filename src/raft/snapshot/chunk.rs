//! The data file of a snapshot: sealed records of up to 1 MiB, one after the other.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::manifest::{Content, Manifest};
use crate::durable::at;
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
        let sha256 = hex(&self.sha256.finalize());
        Content {
            chunks: self.chunks,
            bytes: self.bytes,
            sha256,
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string never fails");
            text
        })
}

/// Writes a data file and syncs it.
pub fn write(path: &Path, state: &[u8]) -> io::Result<Content> {
    let mut tally = Tally::default();
    let mut run = || {
        let mut file = File::create(path)?;
        for body in state.chunks(CHUNK_BYTES) {
            tally.add(body);
            file.write_all(&codec::seal(body))?;
        }
        file.sync_all()
    };
    run().map_err(at(path))?;
    Ok(tally.finish())
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

/// Reads a whole data file and compares it with its manifest.
pub fn read(path: &Path, manifest: &Manifest) -> io::Result<Vec<u8>> {
    let run = || {
        let mut reader = Reader::open(path)?;
        let mut tally = Tally::default();
        let mut state = Vec::new();
        while let Some((_, body)) = reader.next()? {
            tally.add(&body);
            state.extend_from_slice(&body);
            if tally.bytes() > manifest.bytes {
                break;
            }
        }
        compare(&tally.finish(), manifest).map(|()| state)
    };
    run().map_err(at(path))
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
