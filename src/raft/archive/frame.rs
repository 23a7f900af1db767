//! The bytes of a segment: a header, then one frame for each record, in the order of their keys.
//!
//! ```text
//!  file    "QSEG" format u32 | first u64 | frame | frame | …
//!  frame   length u32 | crc32c u32 | index u64 | n u32 | task u64 | record
//! ```
//!
//! Numbers are little endian. The checksum covers all of a frame behind it. Nothing here depends on when a frame was
//! written or by whom, so a segment has the same bytes on every controller.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use durable::at;
use model::{Record, RecordKey, TaskId};

const MAGIC: &[u8; 4] = b"QSEG";
const FORMAT: u32 = 1;

/// Bytes of a file's header.
const HEADER: usize = 16;

/// Where the first frame begins.
pub const BEGIN: u64 = HEADER as u64;

/// Bytes of a frame before its record.
const HEAD: usize = 28;

/// A record is a finished task or the events of one entry: at most a few times what an entry may hold.
const RECORD_MAX: usize = 256 << 20;

/// Bytes that a scan reads at a time.
const READ: usize = 256 << 10;

pub fn header(first: u64) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&FORMAT.to_le_bytes());
    header.extend_from_slice(&first.to_le_bytes());
    header
}

/// Appends a record's frame.
pub fn write(out: &mut Vec<u8>, record: &Record) -> io::Result<()> {
    let length = u32::try_from(record.bytes.len()).map_err(io::Error::other)?;
    out.extend_from_slice(&length.to_le_bytes());
    let sum_at = out.len();
    out.extend_from_slice(&[0; 4]);
    let RecordKey { index, n } = record.key;
    out.extend_from_slice(&index.to_le_bytes());
    out.extend_from_slice(&n.to_le_bytes());
    // No task has the id 0.
    let task = record.task.map_or(0, |id| id.0);
    out.extend_from_slice(&task.to_le_bytes());
    out.extend_from_slice(&record.bytes);
    let sum = crc32c::crc32c(&out[sum_at + 4..]);
    out[sum_at..sum_at + 4].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// Bytes of a record's frame.
pub fn size(record: &Record) -> u64 {
    (HEAD + record.bytes.len()) as u64
}

struct Head {
    length: usize,
    sum: u32,
    key: RecordKey,
    task: Option<TaskId>,
}

fn head(bytes: &[u8; HEAD]) -> io::Result<Head> {
    let task = u64_at(bytes, 20);
    let head = Head {
        length: u32_at(bytes, 0) as usize,
        sum: u32_at(bytes, 4),
        key: RecordKey {
            index: u64_at(bytes, 8),
            n: u32_at(bytes, 16),
        },
        task: (task > 0).then_some(TaskId(task)),
    };
    match head.length <= RECORD_MAX {
        true => Ok(head),
        false => Err(damaged("a frame says that it is longer than any record")),
    }
}

fn checked(head: &Head, bytes: &[u8; HEAD], record: Vec<u8>) -> io::Result<Record> {
    let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[8..]), &record);
    if sum != head.sum {
        return Err(damaged("the checksum of a frame is wrong"));
    }
    Ok(Record {
        key: head.key,
        task: head.task,
        bytes: Arc::from(record),
    })
}

/// The record whose frame begins at `offset`.
pub fn read_at(file: &File, offset: u64) -> io::Result<Record> {
    let mut bytes = [0; HEAD];
    exact(file, &mut bytes, offset)?;
    let head = head(&bytes)?;
    let mut record = vec![0; head.length];
    exact(file, &mut record, offset + HEAD as u64)?;
    checked(&head, &bytes, record)
}

fn exact(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    file.read_exact_at(bytes, offset)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it ends in the middle of a frame"),
            _ => error,
        })
}

/// Reads frame after frame.
pub struct Scan {
    reader: BufReader<File>,
    /// Where the next frame begins.
    offset: u64,
    /// Where the frames end; unknown where a crash may have torn the last one.
    end: u64,
}

impl Scan {
    /// From the frame at `offset` to where the frames end.
    pub fn new(mut file: File, offset: u64, end: u64) -> io::Result<Self> {
        file.seek(SeekFrom::Start(offset))?;
        let reader = BufReader::with_capacity(READ, file);
        Ok(Self {
            reader,
            offset,
            end,
        })
    }

    /// All frames of a file, whose header is checked.
    pub fn whole(path: &Path, first: u64, end: Option<u64>) -> io::Result<Self> {
        let mut file = File::open(path).map_err(at(path))?;
        let mut begin = [0; HEADER];
        let read = file.read_exact(&mut begin);
        if read.is_err() || begin[..] != header(first) {
            let text = format!("{}: not the segment {first} of an archive", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let end = match end {
            Some(end) => end,
            None => file.metadata().map_err(at(path))?.len(),
        };
        Self::new(file, BEGIN, end)
    }

    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let left = usize::try_from(self.end - self.offset).map_err(io::Error::other)?;
        if left < HEAD {
            return Err(damaged("it ends in the middle of a frame"));
        }
        let mut bytes = [0; HEAD];
        self.reader.read_exact(&mut bytes)?;
        let head = head(&bytes)?;
        if left - HEAD < head.length {
            return Err(damaged("it ends in the middle of a frame"));
        }
        let mut record = vec![0; head.length];
        self.reader.read_exact(&mut record)?;
        let record = checked(&head, &bytes, record)?;
        self.offset += size(&record);
        Ok(Some(record))
    }
}

pub fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}
