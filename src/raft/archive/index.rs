//! Where things are in a segment: each task, and now and then an entry. Kept in memory while the segment grows,
//! and written behind its frames when it is complete.
//!
//! ```text
//!  … frames | (task u64, offset u64)… by task | (index u64, offset u64)… by index | footer
//!  footer   frames' end u64 | tasks u64 | marks u64 | records u64 | bytes u64 | digest 32
//!           | crc32c of both lists u32 | crc32c of the footer u32 | "QEND"
//! ```

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use model::{Content, Record, TaskId};

use super::frame::{self, damaged, u32_at, u64_at};

const MAGIC: &[u8; 4] = b"QEND";

/// Bytes of a footer.
pub const FOOTER: usize = 84;

/// Bytes of one place in a list.
const PLACE: usize = 16;

/// Bytes of frames between two marks: what a reader of events skips at most.
const MARK_EVERY: u64 = 256 << 10;

/// Where the tasks and entries of a segment begin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    pub tasks: BTreeMap<TaskId, u64>,
    /// By index of the entry, in the order of the log.
    pub marks: Vec<(u64, u64)>,
    /// The entry of the last record.
    latest: u64,
}

impl Index {
    /// A record whose frame begins at `offset`.
    pub fn add(&mut self, record: &Record, offset: u64) {
        if let Some(task) = record.task {
            self.tasks.insert(task, offset);
        }
        // Only the first record of an entry: a reader begins with whole entries.
        let begins = std::mem::replace(&mut self.latest, record.key.index) != record.key.index;
        let last = self.marks.last();
        if begins && last.is_none_or(|(_, mark)| offset - mark >= MARK_EVERY) {
            self.marks.push((record.key.index, offset));
        }
    }

    /// Where a reader of entries from `index` on begins.
    pub fn begin(&self, index: u64) -> u64 {
        let behind = self.marks.partition_point(|(at, _)| *at <= index);
        let mark = behind.checked_sub(1).and_then(|at| self.marks.get(at));
        mark.map_or(frame::BEGIN, |(_, offset)| *offset)
    }

    /// The bytes that follow the frames.
    pub fn encode(&self, frames_end: u64, content: &Content) -> Vec<u8> {
        let mut out = Vec::with_capacity((self.tasks.len() + self.marks.len()) * PLACE + FOOTER);
        let tasks = self.tasks.iter().map(|(id, offset)| (id.0, *offset));
        for (key, offset) in tasks.chain(self.marks.iter().copied()) {
            out.extend_from_slice(&key.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
        }
        let lists = crc32c::crc32c(&out);
        let begin = out.len();
        let (tasks, marks) = (self.tasks.len() as u64, self.marks.len() as u64);
        for number in [frames_end, tasks, marks, content.records, content.bytes] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&content.digest);
        out.extend_from_slice(&lists.to_le_bytes());
        let sum = crc32c::crc32c(&out[begin..]);
        out.extend_from_slice(&sum.to_le_bytes());
        out.extend_from_slice(MAGIC);
        out
    }

    /// The lists of a complete segment, whole and checked: they are small beside its frames.
    pub fn read(file: &File, footer: &Footer) -> io::Result<Index> {
        let length = usize::try_from(footer.lists()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, footer.frames_end)?;
        if crc32c::crc32c(&bytes) != footer.lists_sum {
            return Err(damaged("the checksum of its index is wrong"));
        }
        let mut places = bytes
            .chunks_exact(PLACE)
            .map(|place| (u64_at(place, 0), u64_at(place, 8)));
        let tasks = usize::try_from(footer.tasks).map_err(io::Error::other)?;
        let by_task = places.by_ref().take(tasks);
        let tasks = by_task.map(|(id, offset)| (TaskId(id), offset)).collect();
        Ok(Index {
            tasks,
            marks: places.collect(),
            latest: 0,
        })
    }
}

/// The end of a complete segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    pub frames_end: u64,
    pub content: Content,
    tasks: u64,
    marks: u64,
    lists_sum: u32,
}

impl Footer {
    /// `None` where the file has none: it is not complete, or is damaged there.
    pub fn read(file: &File) -> io::Result<Option<Footer>> {
        let length = file.metadata()?.len();
        let Some(begin) = length.checked_sub(FOOTER as u64) else {
            return Ok(None);
        };
        let mut bytes = [0; FOOTER];
        file.read_exact_at(&mut bytes, begin)?;
        let footer = Footer::decode(&bytes);
        let fits = |it: &Footer| it.frames_end.checked_add(it.lists()) == Some(begin);
        Ok(footer.filter(fits))
    }

    fn decode(bytes: &[u8; FOOTER]) -> Option<Footer> {
        let sum = crc32c::crc32c(&bytes[..FOOTER - 8]);
        if &bytes[FOOTER - 4..] != MAGIC || u32_at(bytes, FOOTER - 8) != sum {
            return None;
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(&bytes[40..72]);
        Some(Footer {
            frames_end: u64_at(bytes, 0),
            tasks: u64_at(bytes, 8),
            marks: u64_at(bytes, 16),
            content: Content {
                records: u64_at(bytes, 24),
                bytes: u64_at(bytes, 32),
                digest,
            },
            lists_sum: u32_at(bytes, 72),
        })
    }

    /// Bytes of both lists.
    fn lists(&self) -> u64 {
        self.tasks
            .saturating_add(self.marks)
            .saturating_mul(PLACE as u64)
    }
}
