//! The journal's file: appended to, synced, read again after a crash, and rewritten when most of it
//! is about attempts that are settled.
//!
//! After a crash the end of the file may be torn. It is cut at the first record that can't be read,
//! *unless* another record, or the witness beside the file, shows that those bytes were on disk before: then the disk lost
//! something that was relied on, and that is an error for a person to see, never a quiet cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use durable::{Witness, sync_dir};
use model::Incarnation;

use super::ledger::Ledger;
use super::record::{self, Parsed, Record};
use crate::error::Error;

/// A journal shorter than this is never rewritten: it is read in a few milliseconds.
const COMPACT_MIN_BYTES: u64 = 8 * 1024 * 1024;
/// Rewritten when it is so many times larger than what a rewrite left, so that rewriting stays a
/// small part of all writing.
const COMPACT_FACTOR: u64 = 4;

#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    file: File,
    incarnation: Incarnation,
    ledger: Ledger,
    /// How much is on disk, and of which file: releases that know of no witness may have written another one meanwhile.
    witness: Witness<2>,
    signature: u64,
    flushes: u64,
    /// Bytes in the file, and how many of them are known to be on disk.
    written: u64,
    durable: u64,
    /// Bytes that the last rewrite left, or that one would have left when the file was opened.
    base: u64,
    compact_min: u64,
}

impl Store {
    /// Opens the journal at `path`, or begins a new one with a new incarnation.
    pub fn open(path: &Path) -> Result<Store, Error> {
        Store::open_with(path, COMPACT_MIN_BYTES)
    }

    pub(super) fn open_with(path: &Path, compact_min: u64) -> Result<Store, Error> {
        let fresh = fresh_path(path);
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(&fresh)(error));
            }
            Ok(()) | Err(_) => {}
        }
        // Before the journal: one that somebody writes to must not be accused by whoever looks at it.
        let mark = witness_path(path);
        let witnessed = Witness::open(&mark);
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => file.read_to_end(&mut bytes).map_err(Error::io(path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Store::begin(path, compact_min).map_err(Error::io(path));
            }
            Err(error) => return Err(Error::io(path)(error)),
        };
        let corrupt = |reason| Error::Corrupt {
            path: path.to_owned(),
            reason,
        };
        let (incarnation, ledger, end) = read(&bytes).map_err(corrupt)?;
        let signature = signature(&bytes);
        let witnessed = witnessed.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => corrupt(error.to_string()),
            _ => Error::Named(error),
        })?;
        if let Some((_, [length, of])) = witnessed
            && of == signature
            && end < length
        {
            return Err(corrupt(lost(end, length)));
        }
        let file = OpenOptions::new()
            .append(true)
            .open(path)
            .map_err(Error::io(path))?;
        if end < bytes.len() as u64 {
            tracing::warn!(
                cut = bytes.len() as u64 - end,
                "cut the torn end of the journal"
            );
            file.set_len(end).map_err(Error::io(path))?;
        }
        file.sync_all().map_err(Error::io(path))?;
        let witness = match witnessed {
            Some((witness, _)) => witness.set([end, signature]).map(|()| witness),
            None => Witness::create(&mark, [end, signature]),
        };
        let witness = witness.map_err(Error::Named)?;
        // Not what is in the file: an agent that is restarted often would never get to rewrite it.
        let base = encode(incarnation, &ledger, 0).map_err(Error::io(path))?;
        let base = base.len() as u64;
        let path = path.to_owned();
        Ok(Store {
            path,
            file,
            incarnation,
            ledger,
            witness,
            signature,
            flushes: 0,
            written: end,
            durable: end,
            base,
            compact_min,
        })
    }

    fn begin(path: &Path, compact_min: u64) -> io::Result<Store> {
        let incarnation = Incarnation(rand::random());
        let ledger = Ledger::default();
        let Rewritten {
            file,
            witness,
            signature,
            written,
        } = rewrite(path, incarnation, &ledger)?;
        let path = path.to_owned();
        let (durable, base) = (written, written);
        Ok(Store {
            path,
            file,
            incarnation,
            ledger,
            witness,
            signature,
            flushes: 0,
            written,
            durable,
            base,
            compact_min,
        })
    }

    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Appends, without a flush. After an error the store must not be used any more.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            record::encode(record, self.durable, &mut bytes).map_err(io::Error::other)?;
        }
        self.file.write_all(&bytes)?;
        self.written += bytes.len() as u64;
        records.iter().for_each(|record| self.ledger.apply(record));
        Ok(())
    }

    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.durable = self.written;
        self.flushes += 1;
        let numbers = [self.durable, self.signature];
        self.witness.raise(self.flushes, numbers)
    }

    /// Rewrites the file if most of it is settled.
    pub fn compact(&mut self) -> io::Result<()> {
        if self.written
            < self
                .compact_min
                .max(self.base.saturating_mul(COMPACT_FACTOR))
        {
            return Ok(());
        }
        Rewritten {
            file: self.file,
            witness: self.witness,
            signature: self.signature,
            written: self.written,
        } = rewrite(&self.path, self.incarnation, &self.ledger)?;
        self.durable = self.written;
        self.base = self.written;
        Ok(())
    }
}

fn fresh_path(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn witness_path(path: &Path) -> PathBuf {
    path.with_extension("mark")
}

struct Rewritten {
    file: File,
    witness: Witness<2>,
    signature: u64,
    written: u64,
}

/// Writes a whole journal beside the old one and puts it in its place, so that there always is one.
fn rewrite(path: &Path, incarnation: Incarnation, ledger: &Ledger) -> io::Result<Rewritten> {
    let fresh = fresh_path(path);
    // All of it is on disk before it takes the old one's place, and each record vouches for that.
    let length = encode(incarnation, ledger, 0)?.len();
    let bytes = encode(incarnation, ledger, length as u64)?;
    let mut file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    let (written, signature) = (bytes.len() as u64, signature(&bytes));
    // Of the new one before there is one: it must never ask more of it than it holds.
    let witness = Witness::create(&witness_path(path), [written, signature])?;
    fs::rename(&fresh, path)?;
    if let Some(dir) = path.parent() {
        sync_dir(dir)?;
    }
    Ok(Rewritten {
        file,
        witness,
        signature,
        written,
    })
}

/// Of a file since it was last rewritten: of all that was left then, which its first record says how long it is. By the
/// length alone two rewrites may be the same.
pub(super) fn signature(bytes: &[u8]) -> u64 {
    let left = record::frame(bytes).map_or(0, |(_, durable)| durable);
    let left = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    u64::from(crc32c::crc32c(&bytes[..left]))
}

fn lost(end: u64, length: u64) -> String {
    format!("it ends at byte {end}, and {length} bytes were on disk")
}

/// The shortest journal that says the same; its length does not depend on `durable`.
pub(super) fn encode(
    incarnation: Incarnation,
    ledger: &Ledger,
    durable: u64,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let opened = Record::Opened { incarnation };
    for record in [opened].iter().chain(&ledger.records()) {
        record::encode(record, durable, &mut bytes).map_err(io::Error::other)?;
    }
    Ok(bytes)
}

/// What the bytes of a journal say, and where its readable part ends.
fn read(bytes: &[u8]) -> Result<(Incarnation, Ledger, u64), String> {
    let mut ledger = Ledger::default();
    let mut incarnation = None;
    let mut at = 0;
    // How much was on disk, as the records before say.
    let mut vouched = 0;
    while at < bytes.len() {
        match record::parse(&bytes[at..]) {
            Parsed::Whole {
                record,
                bytes: length,
                durable,
            } => {
                vouched = vouched.max(durable);
                match (&record, incarnation) {
                    (Record::Opened { incarnation: found }, None) => incarnation = Some(*found),
                    (Record::Opened { .. }, Some(_)) => {
                        return Err(format!("it begins a second time at byte {at}"));
                    }
                    (_, Some(_)) => ledger.apply(&record),
                    (_, None) => return Err("its first record is missing".into()),
                }
                at += length;
            }
            Parsed::Strange(why) => {
                return Err(format!(
                    "the record at byte {at} is of another version ({why})"
                ));
            }
            Parsed::Broken if (at as u64) < vouched || is_vouched_for(bytes, at) => {
                return Err(format!(
                    "it is damaged at byte {at}, in a part that was on disk"
                ));
            }
            Parsed::Broken => break,
        }
    }
    if (at as u64) < vouched {
        return Err(lost(at as u64, vouched));
    }
    let incarnation = incarnation.ok_or("it does not begin like a journal")?;
    Ok((incarnation, ledger, at as u64))
}

/// Whether a readable record further on says that the byte at `at` was on disk.
fn is_vouched_for(bytes: &[u8], at: usize) -> bool {
    (at + 1..bytes.len())
        .filter_map(|later| record::frame(&bytes[later..]))
        .any(|(_, durable)| durable > at as u64)
}
