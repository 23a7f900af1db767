//! Segments as files: made, opened, compared with what is needed, cut to it, put aside, removed.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use durable::{at, remove};
use model::{Content, Record, RecordKey};

use super::catalog::{Kept, name};
use super::frame::{self, Scan};
use super::index::{Footer, Index};
use super::need::Need;

/// The end of the name of a file that turned out not to be what it should be.
const DAMAGED: &str = "damaged";

/// Only for the owner: tasks' specs hold secrets.
const MODE: u32 = 0o600;

/// As much of a segment's content as costs nothing to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub records: u64,
    pub bytes: u64,
}

impl Tally {
    pub fn of(content: &Content) -> Self {
        Self {
            records: content.records,
            bytes: content.bytes,
        }
    }

    pub fn add(&mut self, record: &Record) {
        self.records += 1;
        self.bytes += record.bytes.len() as u64;
    }
}

pub fn create(path: &Path, first: u64) -> io::Result<File> {
    let create = || {
        let mut open = OpenOptions::new();
        open.append(true).create(true).mode(MODE);
        let mut file = open.open(path)?;
        file.set_len(0)?;
        file.write_all(&frame::header(first))?;
        Ok(file)
    };
    create().map_err(at(path))
}

pub fn appended_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).open(path).map_err(at(path))
}

/// `None` where there is no such file. Any other error is one: a file that can't be opened now may be whole.
fn opened(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

/// What a file has of a segment, where it has all that is needed.
enum Found {
    /// And nothing else, with its index behind it.
    Complete(Footer),
    /// Frames up to this offset, whatever comes behind them.
    Frames(Index, Content, u64),
}

fn found(path: &Path, need: &Need) -> io::Result<Option<Found>> {
    let Some(file) = opened(path)? else {
        return Ok(None);
    };
    // One that can't be read is none: its frames may do.
    let footer = Footer::read(&file).unwrap_or(None);
    let end = footer.as_ref().map(|it| it.frames_end);
    match footer.filter(|it| need.closed && it.content == need.content()) {
        Some(footer) => Ok(Some(Found::Complete(footer))),
        None => read_up_to(path, need, end),
    }
}

/// Whether a file has what is needed, without changing it.
pub fn has(path: &Path, need: &Need) -> io::Result<bool> {
    found(path, need).map(|found| found.is_some())
}

/// A segment's file that has all that was needed, and nothing else any more.
pub enum Trimmed {
    Complete(Footer),
    Growing(Index, Tally, u64),
}

/// Whether a file has what is needed. Cuts off what is behind that, and completes it where it should be complete.
pub fn trimmed(path: &Path, need: &Need) -> io::Result<Option<Trimmed>> {
    let (index, content, end) = match found(path, need)? {
        None => return Ok(None),
        Some(Found::Complete(footer)) => return Ok(Some(Trimmed::Complete(footer))),
        Some(Found::Frames(index, content, end)) => (index, content, end),
    };
    let mut file = appended_to(path)?;
    file.set_len(end).map_err(at(path))?;
    if !need.closed {
        return Ok(Some(Trimmed::Growing(index, Tally::of(&content), end)));
    }
    file.write_all(&index.encode(end, &content))
        .map_err(at(path))?;
    file.sync_all().map_err(at(path))?;
    Ok(Some(Trimmed::Complete(footer_of(path)?)))
}

/// Reads the frames of entries that are needed; `None` where they are not those that are needed.
fn read_up_to(path: &Path, need: &Need, end: Option<u64>) -> io::Result<Option<Found>> {
    let mut scan = match Scan::whole(path, need.first, end) {
        Ok(scan) => scan,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut read = Contents::default();
    loop {
        let offset = scan.offset();
        // Where the rest is torn or damaged, what came before may still be all that is needed.
        let next = scan.next().unwrap_or_default();
        let Some(record) = next.filter(|it| it.key.index < need.end) else {
            let Contents { index, content, .. } = read;
            let whole = content == need.content();
            return Ok(whole.then_some(Found::Frames(index, content, offset)));
        };
        if !read.add(&record, offset) {
            return Ok(None);
        }
    }
}

/// Reads all of a segment's frames, and says what is wrong with the first that is not as it should be.
pub fn verify(path: &Path, need: &Need) -> io::Result<()> {
    let file = File::open(path).map_err(at(path))?;
    let footer = match need.closed {
        true => Some(footer_of(path)?),
        false => Footer::read(&file).unwrap_or(None),
    };
    let mut scan = Scan::whole(path, need.first, footer.map(|it| it.frames_end))?;
    let mut read = Contents::default();
    loop {
        let offset = scan.offset();
        // Behind what is needed there may be what a crash tore.
        let whole = read.content == need.content();
        let next = match scan.next() {
            Err(_) if whole => None,
            next => next.map_err(at(path))?,
        };
        let Some(record) = next.filter(|it| it.key.index < need.end) else {
            return match whole {
                true => Ok(()),
                false => Err(at(path)(frame::damaged(
                    "it does not hold the records that it should",
                ))),
            };
        };
        if !read.add(&record, offset) {
            return Err(at(path)(frame::damaged("its records are out of order")));
        }
    }
}

/// What records add up to, and where they are.
#[derive(Debug, Default)]
pub struct Contents {
    pub index: Index,
    pub content: Content,
    latest: Option<RecordKey>,
}

impl Contents {
    /// The next record, whose frame begins at `offset`. Refuses one that does not follow the one before: the sum of
    /// digests would be the same in any order.
    #[must_use]
    pub fn add(&mut self, record: &Record, offset: u64) -> bool {
        let before = self.latest.replace(record.key);
        if before.is_some_and(|before| before >= record.key) {
            return false;
        }
        self.index.add(record, offset);
        self.content.add(record);
        true
    }
}

pub fn footer_of(path: &Path) -> io::Result<Footer> {
    let file = File::open(path).map_err(at(path))?;
    let footer = Footer::read(&file).map_err(at(path))?;
    footer.ok_or_else(|| at(path)(frame::damaged("it does not end as a complete segment does")))
}

/// In case it is the last there is of it. What was put aside before stays: it may be more.
pub fn put_aside(dir: &Path, first: u64) -> io::Result<()> {
    let path = dir.join(name(first));
    let free = (0..u32::MAX)
        .map(|n| path.with_extension(format!("{DAMAGED}{n}")))
        .find(|aside| !aside.exists());
    match free.map(|aside| fs::rename(&path, aside)) {
        Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
        Some(_) | None => Ok(()),
    }
}

/// Another has come in its place.
pub fn forget_aside(dir: &Path, first: u64) -> io::Result<()> {
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        if segment_of(&path) == Some(first) && is_aside(&path) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Which segment a file is of, in place, aside or on its way; none of somebody else's, such as `lost+found`.
fn segment_of(path: &Path) -> Option<u64> {
    let first = path.file_stem()?.to_str()?.parse().ok()?;
    (path.file_stem()? == &*name(first)).then_some(first)
}

fn is_aside(path: &Path) -> bool {
    let extension = path.extension().and_then(|it| it.to_str());
    extension.is_some_and(|it| it.starts_with(DAMAGED))
}

/// Removes what no segment of the state is. What is lost is kept aside, in case it is the last there is, until another
/// has come in its place.
pub fn sweep(dir: &Path, segments: &BTreeMap<u64, Kept>) -> io::Result<()> {
    let lost = |kept: &Kept| matches!(kept, Kept::Lost);
    for (first, _) in segments.iter().filter(|(_, kept)| lost(kept)) {
        put_aside(dir, *first)?;
    }
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        let Some(first) = segment_of(&path) else {
            continue;
        };
        let stays = match (segments.get(&first), path.extension()) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(kept), Some(_)) => lost(kept) && is_aside(&path),
        };
        if !stays {
            remove(&path)?;
        }
    }
    Ok(())
}
