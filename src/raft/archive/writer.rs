//! The one that writes: appends what left memory, completes segments, drops them, and puts those in their places
//! that came from another controller.
//!
//! What it appended is synced every few MiB, and before a snapshot replaces the entries that the
//! records follow from. What a crash takes of the rest is told again by the log, byte for byte.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use model::{ArchiveStep, Content, Record, RecordKey, Segment};

use super::catalog::{Catalog, Kept, Shared, coming, fetched, name};
use super::frame::{self, Scan};
use super::index::{Footer, Index};
use super::need::Need;
use crate::durable::{self, at};

/// Bytes after which what was appended is synced, so that a snapshot never waits for much.
const SYNC_BYTES: u64 = 8 << 20;

/// The end of the name of a file that turned out not to be what it should be.
const DAMAGED: &str = "damaged";

/// Only for the owner: tasks' specs hold secrets.
const MODE: u32 = 0o600;

pub struct Writer {
    shared: Arc<Shared>,
    growing: Option<Growing>,
    /// Names were made that may not survive a power cut yet.
    unsynced_names: bool,
}

/// The file that is appended to.
struct Growing {
    first: u64,
    file: File,
    end: u64,
    unsynced: u64,
    content: Tally,
    /// What is missing before its frames, where it was lost.
    lacks: Option<Need>,
}

/// As much of a segment's content as costs nothing to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    records: u64,
    bytes: u64,
}

impl Writer {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            growing: None,
            unsynced_names: false,
        }
    }

    /// What some entries did, up to the one at `upto`.
    pub fn append(&mut self, steps: &[ArchiveStep], upto: u64) -> io::Result<()> {
        let mut chunk = Chunk::default();
        for step in steps {
            if let Some(closed) = &step.closed {
                self.write(&mut chunk)?;
                self.complete(closed)?;
            }
            if !step.records.is_empty() {
                self.open_for(step.segment)?;
                chunk.add(&step.records)?;
            }
            for dropped in &step.dropped {
                self.drop_segment(dropped)?;
            }
        }
        self.write(&mut chunk)?;
        self.shared.change(|catalog| catalog.written = upto);
        match &self.growing {
            Some(growing) if growing.unsynced >= SYNC_BYTES => self.sync(),
            Some(_) | None => Ok(()),
        }
    }

    /// What was appended survives a power cut when it returns.
    pub fn sync(&mut self) -> io::Result<()> {
        if let Some(growing) = self.growing.as_mut().filter(|it| it.unsynced > 0) {
            let path = self.shared.path(growing.first);
            growing.file.sync_data().map_err(at(&path))?;
            growing.unsynced = 0;
        }
        if std::mem::take(&mut self.unsynced_names) {
            durable::sync_dir(&self.shared.dir)?;
        }
        Ok(())
    }

    fn open_for(&mut self, first: u64) -> io::Result<()> {
        if self.growing.as_ref().is_some_and(|it| it.first == first) {
            return Ok(());
        }
        self.begin(first, None)
    }

    fn begin(&mut self, first: u64, lacks: Option<Need>) -> io::Result<()> {
        let path = self.shared.path(first);
        let file = create(&path, first)?;
        self.unsynced_names = true;
        let kept = match lacks.clone() {
            Some(lacks) => Kept::Begun { lacks },
            None => Kept::Open {
                index: Index::default(),
                end: frame::BEGIN,
            },
        };
        self.shared.change(|catalog| {
            catalog.segments.insert(first, kept);
        });
        self.growing = Some(Growing {
            first,
            file,
            end: frame::BEGIN,
            unsynced: frame::BEGIN,
            content: Tally::default(),
            lacks,
        });
        Ok(())
    }

    fn write(&mut self, chunk: &mut Chunk) -> io::Result<()> {
        let Some(growing) = self.growing.as_mut().filter(|_| !chunk.bytes.is_empty()) else {
            return Ok(());
        };
        let path = self.shared.path(growing.first);
        growing.file.write_all(&chunk.bytes).map_err(at(&path))?;
        let begin = growing.end;
        growing.end += chunk.bytes.len() as u64;
        growing.unsynced += chunk.bytes.len() as u64;
        growing.content.records += chunk.content.records;
        growing.content.bytes += chunk.content.bytes;
        let (first, end) = (growing.first, growing.end);
        let Chunk { records, .. } = std::mem::take(chunk);
        self.shared.change(|catalog| {
            if let Some(Kept::Open { index, end: known }) = catalog.segments.get_mut(&first) {
                for (record, offset) in &records {
                    index.add(record, begin + offset);
                }
                *known = end;
            }
        });
        Ok(())
    }

    /// The growing segment is complete: its index goes behind its frames.
    fn complete(&mut self, closed: &Segment) -> io::Result<()> {
        let first = closed.first;
        let growing = match self.growing.take() {
            Some(growing) if growing.first == first => growing,
            // All of it was lost, and nothing came since.
            other => {
                self.growing = other;
                return self.lose(first);
            }
        };
        if growing.lacks.is_some() {
            // What there is of it is of no use without the rest, which comes whole now.
            return self.lose(first);
        }
        let wanted = Tally {
            records: closed.content.records,
            bytes: closed.content.bytes,
        };
        if growing.content != wanted {
            let text = format!(
                "segment {first} of the archive has {:?}, and the log says {wanted:?}; this is a defect",
                growing.content
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let path = self.shared.path(first);
        let tail = self
            .shared
            .look(|catalog| match catalog.segments.get(&first) {
                Some(Kept::Open { index, .. }) => index.encode(growing.end, &closed.content),
                Some(Kept::Complete(_) | Kept::Begun { .. } | Kept::Lost) | None => Vec::new(),
            });
        let mut file = growing.file;
        file.write_all(&tail).map_err(at(&path))?;
        file.sync_all().map_err(at(&path))?;
        let footer = footer_of(&path)?;
        self.put(first, Kept::Complete(footer));
        Ok(())
    }

    fn put(&self, first: u64, kept: Kept) {
        self.shared.change(|catalog| {
            catalog.segments.insert(first, kept);
        });
    }

    /// Keeps aside what there is of a segment that is to come from another controller.
    fn lose(&self, first: u64) -> io::Result<()> {
        self.put(first, Kept::Lost);
        put_aside(&self.shared.dir, first)
    }

    fn drop_segment(&mut self, dropped: &Segment) -> io::Result<()> {
        self.shared.change(|catalog| {
            catalog.segments.remove(&dropped.first);
            catalog.kept_from = catalog.kept_from.max(dropped.end);
        });
        remove(&self.shared.path(dropped.first))?;
        remove(&fetched(&self.shared.dir, dropped.first))?;
        forget_aside(&self.shared.dir, dropped.first)
    }

    /// A reader found that a segment is not what it was: it is kept aside, and comes from another controller.
    pub fn damaged(&mut self, first: u64) -> io::Result<()> {
        let grows = self
            .shared
            .look(|catalog| match catalog.segments.get(&first) {
                Some(Kept::Open { .. }) => Some(true),
                Some(Kept::Complete(_)) => Some(false),
                // Another reader found it first, or it was dropped.
                Some(Kept::Begun { .. } | Kept::Lost) | None => None,
            });
        match grows {
            Some(true) => {
                let text = format!(
                    "segment {first} of the archive was damaged while it grew; start this controller \
                     again: it takes what is missing from another one"
                );
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
            Some(false) => self.lose(first),
            None => Ok(()),
        }
    }

    /// Makes the files those that a state names, and that state's the place from which the log goes on: at a start
    /// and when a snapshot replaces the state. What the log tells again goes; what is not here is
    /// noted as lost.
    pub fn settle(&mut self, needs: &[Need], upto: u64, kept_from: u64) -> io::Result<()> {
        self.growing = None;
        let mut segments = BTreeMap::new();
        let mut begun = None;
        for need in needs {
            let path = self.shared.path(need.first);
            let mut here = trimmed(&path, need)?;
            if here.is_none() {
                let came = fetched(&self.shared.dir, need.first);
                here = trimmed(&came, need)?;
                if here.is_some() {
                    fs::rename(&came, &path).map_err(at(&path))?;
                    self.unsynced_names = true;
                }
            }
            match here {
                Some(Trimmed::Complete(footer)) => {
                    segments.insert(need.first, Kept::Complete(footer));
                }
                Some(Trimmed::Growing(index, tally, end)) => {
                    self.growing = Some(Growing {
                        first: need.first,
                        file: appended_to(&path)?,
                        end,
                        unsynced: 1,
                        content: tally,
                        lacks: None,
                    });
                    segments.insert(need.first, Kept::Open { index, end });
                }
                None => {
                    tracing::warn!(segment = need.first, "a segment of the archive is not here");
                    begun = (!need.closed).then(|| need.clone()).or(begun);
                    segments.insert(need.first, Kept::Lost);
                }
            }
        }
        sweep(&self.shared.dir, &segments)?;
        self.shared.change(|catalog| {
            catalog.segments = segments;
            catalog.written = upto;
            catalog.kept_from = kept_from;
        });
        if let Some(lacks) = begun {
            self.begin(lacks.first, Some(lacks))?;
        }
        self.sync()
    }

    /// Puts a segment in its place that came from another controller and was verified.
    pub fn adopt(&mut self, need: &Need) -> io::Result<()> {
        let from = fetched(&self.shared.dir, need.first);
        let wanted = self
            .shared
            .look(|catalog| match catalog.segments.get(&need.first) {
                Some(Kept::Lost) => need.closed,
                Some(Kept::Begun { lacks }) => lacks == need,
                Some(Kept::Open { .. } | Kept::Complete(_)) | None => false,
            });
        if !wanted {
            // It was dropped, or completed, meanwhile.
            return remove(&from);
        }
        let path = self.shared.path(need.first);
        match (need.closed, trimmed(&from, need)?) {
            (true, Some(Trimmed::Complete(footer))) => {
                fs::rename(&from, &path).map_err(at(&path))?;
                self.put(need.first, Kept::Complete(footer));
            }
            (false, Some(Trimmed::Growing(index, tally, end))) => {
                self.join(need, (&from, &path), (index, tally, end))?;
            }
            // It did not come, or something else did: it stays as it is.
            (_, None | Some(_)) => return remove(&from),
        }
        self.unsynced_names = true;
        forget_aside(&self.shared.dir, need.first)?;
        self.sync()
    }

    /// What was appended here since follows what came.
    fn join(
        &mut self,
        need: &Need,
        (from, path): (&Path, &Path),
        (mut index, mut tally, mut end): (Index, Tally, u64),
    ) -> io::Result<()> {
        let Some(growing) = self.growing.take_if(|it| it.first == need.first) else {
            return remove(from);
        };
        let mut file = appended_to(from)?;
        let mut own = Scan::whole(path, need.first, Some(growing.end))?;
        let mut frame = Vec::new();
        while let Some(record) = own.next()? {
            frame.clear();
            frame::write(&mut frame, &record)?;
            file.write_all(&frame).map_err(at(from))?;
            index.add(&record, end);
            tally.add(&record);
            end += frame.len() as u64;
        }
        file.sync_all().map_err(at(from))?;
        fs::rename(from, path).map_err(at(path))?;
        self.growing = Some(Growing {
            first: need.first,
            file,
            end,
            unsynced: 0,
            content: tally,
            lacks: None,
        });
        self.put(need.first, Kept::Open { index, end });
        Ok(())
    }
}

impl Tally {
    fn add(&mut self, record: &Record) {
        self.records += 1;
        self.bytes += record.bytes.len() as u64;
    }
}

/// Frames that go to the file in one write.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// With their offsets in it.
    records: Vec<(Record, u64)>,
    content: Tally,
}

impl Chunk {
    fn add(&mut self, records: &[Record]) -> io::Result<()> {
        for record in records {
            self.records.push((record.clone(), self.bytes.len() as u64));
            self.content.add(record);
            frame::write(&mut self.bytes, record)?;
        }
        Ok(())
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

fn appended_to(path: &Path) -> io::Result<File> {
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

/// A segment's file that has all that was needed, and nothing else any more.
enum Trimmed {
    Complete(Footer),
    Growing(Index, Tally, u64),
}

/// Whether a file has what is needed. Cuts off what is behind that, and completes it where it should be complete.
fn trimmed(path: &Path, need: &Need) -> io::Result<Option<Trimmed>> {
    let Some(file) = opened(path)? else {
        return Ok(None);
    };
    // One that can't be read is none: its frames may do.
    let footer = Footer::read(&file).unwrap_or(None);
    if let Some(footer) = &footer
        && need.closed
        && footer.content == need.content()
    {
        return Ok(Some(Trimmed::Complete(footer.clone())));
    }
    let Some(read) = read_up_to(path, need, footer.map(|it| it.frames_end))? else {
        return Ok(None);
    };
    let file = appended_to(path)?;
    file.set_len(read.end).map_err(at(path))?;
    if !need.closed {
        return Ok(Some(Trimmed::Growing(read.index, read.tally, read.end)));
    }
    (&file)
        .write_all(&read.index.encode(read.end, &need.content()))
        .map_err(at(path))?;
    file.sync_all().map_err(at(path))?;
    Ok(Some(Trimmed::Complete(footer_of(path)?)))
}

/// What a file has of a segment.
struct ReadBack {
    index: Index,
    tally: Tally,
    end: u64,
}

/// Reads the frames of entries that are needed; `None` where they are not those that are needed.
fn read_up_to(path: &Path, need: &Need, end: Option<u64>) -> io::Result<Option<ReadBack>> {
    let mut scan = match Scan::whole(path, need.first, end) {
        Ok(scan) => scan,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
        Err(error) => return Err(error),
    };
    let (mut index, mut content) = (Index::default(), Content::default());
    let mut latest = None;
    loop {
        let offset = scan.offset();
        // Where the rest is torn or damaged, what came before may still be all that is needed.
        let next = scan.next().unwrap_or_default();
        let Some(record) = next.filter(|it| it.key.index < need.end) else {
            let tally = Tally {
                records: content.records,
                bytes: content.bytes,
            };
            let whole = content == need.content();
            return Ok(whole.then_some(ReadBack {
                index,
                tally,
                end: offset,
            }));
        };
        if latest
            .replace(record.key)
            .is_some_and(|latest| latest >= record.key)
        {
            return Ok(None);
        }
        index.add(&record, offset);
        content.add(&record);
    }
}

/// Whether a file has what is needed, without changing it.
pub fn has(path: &Path, need: &Need) -> io::Result<bool> {
    let Some(file) = opened(path)? else {
        return Ok(false);
    };
    let footer = Footer::read(&file).unwrap_or(None);
    if footer
        .as_ref()
        .is_some_and(|it| need.closed && it.content == need.content())
    {
        return Ok(true);
    }
    let read = read_up_to(path, need, footer.map(|it| it.frames_end))?;
    Ok(read.is_some())
}

/// Writes a segment that comes from another controller.
pub struct Incoming {
    need: Need,
    shared: Arc<Shared>,
    file: File,
    index: Index,
    content: Content,
    end: u64,
    latest: Option<RecordKey>,
}

impl Incoming {
    pub fn new(shared: &Arc<Shared>, need: &Need) -> io::Result<Self> {
        Ok(Self {
            need: need.clone(),
            shared: shared.clone(),
            file: create(&coming(&shared.dir, need.first), need.first)?,
            index: Index::default(),
            content: Content::default(),
            end: frame::BEGIN,
            latest: None,
        })
    }

    /// The records that follow.
    pub fn put(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            // The sum of digests would be the same in any order.
            let follows = self.latest.is_none_or(|latest| latest < record.key);
            if !follows || !self.need.range().contains(&record.key.index) {
                return Err(self.refused());
            }
            self.latest = Some(record.key);
            self.index.add(record, self.end + bytes.len() as u64);
            self.content.add(record);
            frame::write(&mut bytes, record)?;
        }
        if self.content.bytes > self.need.bytes {
            return Err(self.refused());
        }
        self.end += bytes.len() as u64;
        self.file.write_all(&bytes)
    }

    /// What came is what was needed, or an error.
    pub fn finish(mut self) -> io::Result<()> {
        if self.content != self.need.content() {
            return Err(self.refused());
        }
        if self.need.closed {
            let tail = self.index.encode(self.end, &self.content);
            self.file.write_all(&tail)?;
        }
        self.file.sync_all()?;
        let path = fetched(&self.shared.dir, self.need.first);
        fs::rename(coming(&self.shared.dir, self.need.first), &path).map_err(at(&path))?;
        durable::sync_dir(&self.shared.dir)
    }

    fn refused(&self) -> io::Error {
        let text = format!(
            "segment {} came with other records than its digest stands for",
            self.need.first
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

fn footer_of(path: &Path) -> io::Result<Footer> {
    let file = File::open(path).map_err(at(path))?;
    let footer = Footer::read(&file).map_err(at(path))?;
    footer.ok_or_else(|| at(path)(frame::damaged("it does not end as a complete segment does")))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        Err(_) | Ok(()) => Ok(()),
    }
}

/// In case it is the last there is of it. What was put aside before stays: it may be more.
fn put_aside(dir: &Path, first: u64) -> io::Result<()> {
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
fn forget_aside(dir: &Path, first: u64) -> io::Result<()> {
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        if is_of(&path, first) && is_aside(&path) {
            remove(&path)?;
        }
    }
    Ok(())
}

fn is_of(path: &Path, first: u64) -> bool {
    path.file_stem().is_some_and(|stem| *stem == *name(first))
}

fn is_aside(path: &Path) -> bool {
    let extension = path.extension().and_then(|it| it.to_str());
    extension.is_some_and(|it| it.starts_with(DAMAGED))
}

/// Removes what no segment of the state is. What is lost is kept aside, in case it is the last there is, until another
/// has come in its place.
fn sweep(dir: &Path, segments: &BTreeMap<u64, Kept>) -> io::Result<()> {
    let lost = segments
        .iter()
        .filter(|(_, kept)| matches!(kept, Kept::Lost));
    lost.clone()
        .try_for_each(|(first, _)| put_aside(dir, *first))?;
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let path = entry.map_err(at(dir))?.path();
        let stays = match path.extension() {
            None => segments.keys().any(|first| is_of(&path, *first)),
            Some(_) => is_aside(&path) && lost.clone().any(|(first, _)| is_of(&path, *first)),
        };
        if !stays {
            remove(&path)?;
        }
    }
    Ok(())
}

impl Catalog {
    /// What is named and not here, and has to come from another controller.
    pub fn lacks(&self, needs: &[Need]) -> Vec<Need> {
        let lacking = needs
            .iter()
            .filter_map(|need| match self.segments.get(&need.first)? {
                Kept::Lost if need.closed => Some(need.clone()),
                Kept::Begun { lacks } => Some(lacks.clone()),
                Kept::Lost | Kept::Open { .. } | Kept::Complete(_) => None,
            });
        lacking.collect()
    }
}
