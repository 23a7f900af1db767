//! The write-ahead files in memory, for a simulation: the same bytes, written and read by the same code.
//!
//! ```text
//!  commit ──► bytes of wal.0 or wal.1 ──► recent pairs ──► (full) a map in place of sled
//!  reopen ──► all of it read again from the bytes, and then compared with what was there
//! ```
//!
//! A crash leaves of the last record what it pleases ([`Image::tear`]), and a bit may turn ([`Image::flip`]). What comes of
//! that is for the code of the files to say: a torn record is none, a damaged one is refused. Left out are the
//! thread that brings full files to sled, here they are there at once, and sled itself: its stand-in is a map, so a bit
//! that turns in it meets the checksums of the log's own records.

use std::io;
use std::ops::{ControlFlow, Range};
use std::sync::Mutex;

use super::file::{Content, read};
use super::record::{self, SECTOR, Salt};
use super::{lacking, merge, moved};
use crate::consensus::next_index;
use crate::member::LogIdentity;
use crate::store::codec::decode_meta;
use crate::store::engine::{Batch, Key, LogEngine, Value, Visit};
use crate::store::key::{self, PartKey};
use crate::store::memory::MemoryEngine;
use crate::sync::lock;

/// Past it a file is full: small, so that files take turns within a run of minutes.
const FILE_BYTES: usize = 32 << 10;

/// Of 8 bits that turn, so many turn behind the files, where there is anything to turn.
const BEHIND_EIGHTHS: u64 = 2;

pub struct Image {
    identity: LogIdentity,
    files: Mutex<Files>,
    /// Of the current file.
    recent: Mutex<Batch>,
    /// In place of sled.
    below: MemoryEngine,
}

#[derive(Default)]
struct Files {
    bytes: [Vec<u8>; 2],
    /// The one that is written, and where its next record goes.
    current: usize,
    end: usize,
    sequence: u64,
    buffer: Vec<u8>,
    /// Writes that a crash tore since the last that was whole, and whether the last process did. Each of them lies where the
    /// one before it lay: two may add up to the first, of which nobody was told either.
    torn: Vec<Batch>,
    tore: bool,
    flipped: Option<Flipped>,
    /// What was there before it was read again, until that is known to be good, and what was read.
    before: Option<Batch>,
    read: Batch,
}

impl Files {
    /// The next record, into the buffer.
    fn encode(&mut self, identity: LogIdentity, batch: &Batch) {
        let salt = salt_of(&self.bytes[self.current], identity);
        record::encode(&mut self.buffer, salt, self.sequence + 1, batch);
    }

    /// The file that is written, and the record in the buffer.
    fn current(&mut self) -> (&mut Vec<u8>, &[u8]) {
        (&mut self.bytes[self.current], &self.buffer)
    }
}

enum Flipped {
    File { number: usize, at: usize, bit: u8 },
    Below { key: Key, at: usize, bit: u8 },
}

/// What a start found at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// What was acknowledged, and nothing else.
    Whole,
    /// A torn record, which was cut off.
    Cut,
    /// The last write, of which nobody had been told.
    Untold,
}

impl Image {
    pub fn new(identity: LogIdentity) -> Self {
        let file = |number: u8| {
            let mut salt: Salt = identity.0;
            salt[15] = number;
            let mut bytes = vec![0; FILE_BYTES];
            bytes[..SECTOR].copy_from_slice(&record::encode_header(identity, salt));
            bytes
        };
        Self {
            identity,
            files: Mutex::new(Files {
                bytes: [file(0), file(1)],
                end: SECTOR,
                ..Files::default()
            }),
            recent: Mutex::default(),
            below: MemoryEngine::default(),
        }
    }

    /// A crash in the middle of a write: it leaves those sectors of the record that are kept, and nobody is told.
    pub fn tear(&self, batch: Batch, mut keeps: impl FnMut() -> bool) {
        let mut files = lock(&self.files);
        files.encode(self.identity, &batch);
        let at = files.end;
        let (file, record) = files.current();
        for (number, sector) in record.chunks(SECTOR).enumerate() {
            if keeps() {
                put(file, at + number * SECTOR, sector);
            }
        }
        files.torn.push(batch);
        files.tore = true;
    }

    /// One bit turns, of what the next start reads. `below` draws a number.
    pub fn flip(&self, below: impl Fn(u64) -> u64) {
        let mut files = lock(&self.files);
        files.before = files.before.take().or_else(|| Some(self.all()));
        let written = match files.end {
            // Nothing since it was read: their first bytes, and what has long come to sled.
            SECTOR => 0..files.bytes[files.current].len(),
            end => SECTOR..end,
        };
        let keys = self.pairs_below();
        let any = usize::try_from(below(keys.len().max(1) as u64)).unwrap_or(0);
        let behind = below(8) < BEHIND_EIGHTHS || written.start == 0;
        let bit = 1 << below(8);
        let within = |length: usize| usize::try_from(below(length as u64)).unwrap_or(0);
        let flipped = match keys.into_iter().nth(any).filter(|_| behind) {
            Some((key, Some(value))) if !value.is_empty() => Flipped::Below {
                key,
                at: within(value.len()),
                bit,
            },
            Some(_) | None => Flipped::File {
                number: files.current,
                at: written.start + within(written.len()),
                bit,
            },
        };
        self.turn_bit(&mut files, &flipped);
        files.flipped = Some(flipped);
    }

    /// The bit as it was, unless a start found that it does no harm. Whether it was still turned.
    pub fn unflip(&self) -> bool {
        let mut files = lock(&self.files);
        let flipped = files.flipped.take();
        if let Some(flipped) = &flipped {
            self.turn_bit(&mut files, flipped);
        }
        flipped.is_some()
    }

    pub fn is_flipped(&self) -> bool {
        lock(&self.files).flipped.is_some()
    }

    fn turn_bit(&self, files: &mut Files, flipped: &Flipped) {
        match flipped {
            Flipped::File { number, at, bit } => files.bytes[*number][*at] ^= bit,
            Flipped::Below { key, at, bit } => {
                if let Ok(Some(mut value)) = self.below.get(key) {
                    value[*at] ^= bit;
                    let turned = Batch::from([(key.clone(), Some(value))]);
                    self.below.commit(turned).unwrap_or_default();
                }
            }
        }
    }

    /// Reads all of it again from the bytes, as a start does.
    pub fn reopen(&self) -> io::Result<()> {
        let mut files = lock(&self.files);
        if files.before.is_none() {
            files.before = Some(self.all());
        }
        let damaged = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        let (mut writes, mut behind) = (Vec::new(), None);
        for file in &files.bytes {
            let salt = record::decode_header(file, self.identity).map_err(damaged)?;
            let content: Content = read(file, salt).map_err(damaged)?;
            writes.extend(content.writes);
            behind = behind.max(content.behind);
        }
        let (writes, last) = lacking(writes, behind, moved(&self.below)?).map_err(damaged)?;
        let mut replayed: Batch = writes.into_iter().flat_map(|(_, write)| write).collect();
        replayed.insert(key::MOVED.to_vec(), Some(last.to_be_bytes().to_vec()));
        self.below.commit(replayed)?;
        lock(&self.recent).clear();
        (files.current, files.end, files.sequence) = (0, SECTOR, last);
        files.read = self.all();
        Ok(())
    }

    /// Whether a start that goes on from what was read goes on from what was acknowledged. Else what differs, in words.
    pub fn verify(&self) -> Result<Tail, String> {
        let mut files = lock(&self.files);
        let Some(before) = files.before.take() else {
            return Ok(Tail::Whole);
        };
        files.flipped = None;
        let tore = std::mem::take(&mut files.tore);
        let (found, before) = (live(std::mem::take(&mut files.read)), live(before));
        if found == before {
            return Ok(if tore { Tail::Cut } else { Tail::Whole });
        }
        let is_found = |torn: &Batch| {
            let mut written = before.clone();
            written.extend(torn.clone());
            found == live(written)
        };
        if files.torn.iter().any(is_found) {
            return Ok(Tail::Untold);
        }
        Err(differing(&found, &before))
    }

    fn pairs_below(&self) -> Batch {
        pairs(&self.below)
    }

    fn all(&self) -> Batch {
        pairs(self)
    }
}

/// In what they differ, in words: the first keys of which the values are not the same.
fn differing(found: &Batch, before: &Batch) -> String {
    let keys = found.keys().chain(before.keys());
    let differ = keys.filter(|key| found.get(*key) != before.get(*key));
    let named = differ.take(4).map(|key| match PartKey::decode(key) {
        Some(PartKey { index, .. }) => format!("entry {index}"),
        None => "the meta record".to_owned(),
    });
    let named: Vec<String> = named.collect();
    let (found, before) = (found.len(), before.len());
    format!(
        "{found} pairs where {before} were; other are {}",
        named.join(", ")
    )
}

fn salt_of(file: &[u8], identity: LogIdentity) -> Salt {
    record::decode_header(file, identity).unwrap_or_default()
}

fn put(file: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[at..end].copy_from_slice(bytes);
}

/// The log's pairs.
fn pairs(engine: &dyn LogEngine) -> Batch {
    let mut pairs = Batch::new();
    let scanned = engine.scan(Vec::new()..key::MOVED.to_vec(), &mut |key, value| {
        pairs.insert(key.to_vec(), Some(value.to_vec()));
        ControlFlow::Continue(())
    });
    scanned.unwrap_or_default();
    pairs
}

/// Without what was purged and is yet to be removed: nobody reads that any more.
fn live(mut pairs: Batch) -> Batch {
    let meta = pairs.get(key::META).cloned().flatten();
    let meta = meta.and_then(|meta| decode_meta(&meta.into()).ok());
    let first = meta.map_or(0, |meta| next_index(meta.purged.as_ref()));
    pairs.retain(|key, value| {
        value.is_some() && PartKey::decode(key).is_none_or(|key| key.index >= first)
    });
    pairs
}

impl LogEngine for Image {
    fn commit(&self, batch: Batch) -> io::Result<()> {
        let mut files = lock(&self.files);
        files.encode(self.identity, &batch);
        let at = files.end;
        let (file, record) = files.current();
        put(file, at, record);
        files.end += files.buffer.len();
        files.sequence += 1;
        files.torn.clear();
        let mut recent = lock(&self.recent);
        recent.extend(batch);
        if files.end >= FILE_BYTES {
            let moved = files.sequence.to_be_bytes().to_vec();
            let mut full = std::mem::take(&mut *recent);
            full.insert(key::MOVED.to_vec(), Some(moved));
            self.below.commit(full)?;
            (files.current, files.end) = (1 - files.current, SECTOR);
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Value>> {
        if let Some(value) = lock(&self.recent).get(key) {
            return Ok(value.clone());
        }
        self.below.get(key)
    }

    fn scan(&self, range: Range<Key>, visit: &mut Visit<'_>) -> io::Result<()> {
        let recent = lock(&self.recent);
        let recent = recent.range(range.clone());
        let recent = recent.map(|(key, value)| (key.clone(), value.clone()));
        merge::scan(recent.collect(), &self.below, range, visit)
    }

    fn size_on_disk(&self) -> io::Result<u64> {
        self.below.size_on_disk()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: LogIdentity = LogIdentity([5; 16]);

    /// A write of more than two sectors.
    fn write(number: u8) -> Batch {
        Batch::from([(vec![1, number], Some(vec![number; 1_300]))])
    }

    fn with_writes(count: u8) -> Image {
        let image = Image::new(IDENTITY);
        (0..count).for_each(|number| image.commit(write(number)).unwrap());
        image
    }

    #[test]
    fn what_was_written_is_read_again_however_often_the_files_took_turns() {
        for count in [0, 1, 20, 60, 200] {
            let image = with_writes(count);
            image.reopen().unwrap();
            assert_eq!(image.verify(), Ok(Tail::Whole));
            assert_eq!(image.all().len(), usize::from(count));
        }
    }

    #[test]
    fn a_torn_write_is_cut_off_and_a_whole_one_is_there_though_nobody_was_told() {
        for kept in 0..8_u8 {
            let image = with_writes(30);
            let mut sector = 0;
            image.tear(write(99), || {
                sector += 1;
                kept & (1 << (sector - 1)) != 0
            });
            image.reopen().unwrap();
            let expected = if kept == 7 { Tail::Untold } else { Tail::Cut };
            assert_eq!(image.verify(), Ok(expected), "{kept:03b}");
            image.commit(write(100)).unwrap();
            image.reopen().unwrap();
            assert_eq!(image.verify(), Ok(Tail::Whole));
        }
    }

    /// Both are of one number, and lie in one place.
    #[test]
    fn two_torn_writes_may_add_up_to_the_first_of_which_nobody_was_told() {
        let image = with_writes(0);
        for kept in [0b101, 0b010] {
            let mut sector = 0;
            image.tear(write(7), || {
                sector += 1;
                kept & (1 << (sector - 1)) != 0
            });
            image.reopen().unwrap();
            let expected = if kept == 0b010 {
                Tail::Untold
            } else {
                Tail::Cut
            };
            assert_eq!(image.verify(), Ok(expected));
        }
    }

    #[test]
    fn a_bit_that_turns_before_the_last_write_is_refused_until_it_turns_back() {
        let image = with_writes(5);
        // In the second of five writes.
        image.flip(|most| if most > 8 { 3 * SECTOR as u64 + 9 } else { 7 });
        assert!(image.reopen().is_err());
        assert!(image.reopen().is_err());
        assert!(image.unflip());
        image.reopen().unwrap();
        assert_eq!(image.verify(), Ok(Tail::Whole));
    }

    #[test]
    fn a_last_write_that_is_damaged_is_told_from_what_was_acknowledged() {
        let image = with_writes(1);
        image.flip(|most| if most > 8 { 30 } else { 7 });
        // The files alone take it for a torn one; the log has a witness beside it.
        image.reopen().unwrap();
        assert!(image.verify().is_err());
    }
}
