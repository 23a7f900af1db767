//! The encoding of a record: a header of 20 bytes, then MessagePack.
//!
//! ```text
//! magic and format u32 │ crc32c u32 │ length u32 │ durable u64 │ payload
//! ```
//!
//! The checksum covers all that follows it. `durable` says how many bytes of the file were known
//! to be on disk when this record was written. It is what tells a torn end from damage: bytes that
//! a later record vouches for were synced and must be readable; others may be half-written.

use model::{Fence, Incarnation, Timestamp, Verdict};
use serde::{Deserialize, Serialize};

/// "QJ" and the number of the format.
const MAGIC: u32 = u32::from_be_bytes([b'Q', b'J', 0, 1]);
pub(super) const HEADER_BYTES: usize = 20;
/// The largest record is a verdict with two tails of 64 KiB; more is not a length but damage.
const PAYLOAD_MAX_BYTES: usize = 1024 * 1024;

/// A process, so that its number can't be mistaken for a later one's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessMark {
    pub pid: i32,
    /// Clock ticks between boot and its start, as `/proc/PID/stat` says it.
    pub started: u64,
    /// Of which boot: process numbers mean nothing after it.
    pub boot: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// The first one of each file.
    Opened {
        incarnation: Incarnation,
    },
    Begun {
        fence: Fence,
        attempt: u32,
        at: Timestamp,
    },
    Running {
        fence: Fence,
        process: ProcessMark,
    },
    Ended(Verdict),
    Settled {
        fence: Fence,
    },
}

impl Record {
    /// Whether somebody waits for it to be on disk. The others are only hints: a process is gone
    /// after a power cut, and a settled verdict is settled again.
    pub fn must_sync(&self) -> bool {
        match self {
            Record::Begun { .. } | Record::Ended(_) => true,
            Record::Opened { .. } | Record::Running { .. } | Record::Settled { .. } => false,
        }
    }
}

/// A record that can't be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum EncodeError {
    #[error("encode a record: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    #[error("a record of {0} bytes is over the limit")]
    TooLong(usize),
}

pub(super) fn encode(record: &Record, durable: u64, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    rmp_serde::encode::write(out, record)?;
    let length = out.len() - start - HEADER_BYTES;
    let short = u32::try_from(length)
        .ok()
        .filter(|_| length <= PAYLOAD_MAX_BYTES);
    let length = short.ok_or(EncodeError::TooLong(length))?;
    let header = &mut out[start..start + HEADER_BYTES];
    header[0..4].copy_from_slice(&MAGIC.to_be_bytes());
    header[8..12].copy_from_slice(&length.to_be_bytes());
    header[12..20].copy_from_slice(&durable.to_be_bytes());
    let crc = crc32c::crc32c(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_be_bytes());
    Ok(())
}

/// What stands at the front of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Whole {
        record: Record,
        bytes: usize,
        durable: u64,
    },
    /// Its checksum is right, and still it makes no sense: another version wrote it.
    Strange(String),
    Broken,
}

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let Some((payload, durable)) = frame(bytes) else {
        return Parsed::Broken;
    };
    match rmp_serde::from_slice(payload) {
        Ok(record) => Parsed::Whole {
            record,
            bytes: HEADER_BYTES + payload.len(),
            durable,
        },
        Err(error) => Parsed::Strange(error.to_string()),
    }
}

/// The payload and `durable` of a record whose checksum is right.
pub(super) fn frame(bytes: &[u8]) -> Option<(&[u8], u64)> {
    let header = bytes.get(..HEADER_BYTES)?;
    if header[0..4] != MAGIC.to_be_bytes() {
        return None;
    }
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let length = usize::try_from(word(8))
        .ok()
        .filter(|length| *length <= PAYLOAD_MAX_BYTES)?;
    let whole = bytes.get(..HEADER_BYTES + length)?;
    if crc32c::crc32c(&whole[8..]) != word(4) {
        return None;
    }
    let (durable, _) = whole[12..].split_first_chunk()?;
    Some((&whole[HEADER_BYTES..], u64::from_be_bytes(*durable)))
}

#[cfg(test)]
mod tests {
    use model::{End, Epoch, Generation, Outcome, TaskId};

    use super::*;

    const GOLDEN: &str = include_str!("../golden/v1/journal.txt");

    /// One of each kind.
    fn records() -> Vec<Record> {
        let fence = Fence {
            task: TaskId(300),
            generation: Generation(1),
            epoch: Epoch(70_000),
        };
        let outcome = Outcome {
            stdout: b"out".to_vec(),
            stdout_bytes: 3,
            ..Outcome::bare(End::Exited { code: 0 })
        };
        let process = ProcessMark {
            pid: 77,
            started: 123_456,
            boot: "b00t".into(),
        };
        vec![
            Record::Opened {
                incarnation: Incarnation([9; 16]),
            },
            Record::Begun {
                fence,
                attempt: 2,
                at: Timestamp(1_700_000_000_123),
            },
            Record::Running { fence, process },
            Record::Ended(Verdict { fence, outcome }),
            Record::Settled { fence },
        ]
    }

    /// A new kind has no golden data yet: this makes whoever adds one look here.
    fn kind(record: &Record) -> usize {
        match record {
            Record::Opened { .. } => 0,
            Record::Begun { .. } => 1,
            Record::Running { .. } => 2,
            Record::Ended(_) => 3,
            Record::Settled { .. } => 4,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        (0..hex.len()).step_by(2).map(digit).collect()
    }

    #[test]
    fn records_are_written_and_read_as_the_first_release_did() {
        let records = records();
        let now: Vec<String> = records
            .iter()
            .map(|record| {
                let mut out = Vec::new();
                encode(record, 258, &mut out).unwrap();
                hex(&out)
            })
            .collect();
        let golden: Vec<&str> = GOLDEN.lines().collect();
        assert_eq!(now, golden, "golden/v1/journal.txt, one record a line");
        for (at, (record, line)) in records.into_iter().zip(golden).enumerate() {
            assert_eq!(kind(&record), at);
            let bytes = bytes(line);
            let whole = Parsed::Whole {
                record,
                bytes: bytes.len(),
                durable: 258,
            };
            assert_eq!(parse(&bytes), whole);
        }
    }
}
