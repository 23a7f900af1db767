//! The one that writes: appends what left memory, completes segments, drops them, and puts those in their places
//! that came from another controller.
//!
//! What it appended is synced every few MiB, and before a snapshot replaces the entries that the
//! records follow from. What a crash takes of the rest is told again by the log, byte for byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use durable::{at, remove};
use model::{ArchiveStep, Record, Segment};

use super::catalog::{Kept, Shared, fetched};
use super::files::{
    Tally, Trimmed, appended_to, create, footer_of, forget_aside, put_aside, sweep, trimmed,
};
use super::frame::{self, Scan};
use super::index::Index;
use super::need::Need;

/// Bytes after which what was appended is synced, so that a snapshot never waits for much.
const SYNC_BYTES: u64 = 8 << 20;

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
        let wanted = Tally::of(&closed.content);
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
