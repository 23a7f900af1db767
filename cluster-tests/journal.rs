//! What an agent's journal says that it began.
//!
//! The format is the agent's own, and is read here once more, so that the harness does not share its mistakes: frames of
//! a header (magic u32, crc32c u32, length u32, durable u64, big endian) and MessagePack, of which only the records of begun attempts
//! are looked into. A journal that has grown large is rewritten by its agent without what is settled; those of
//! a run are far from that.

use std::path::Path;

use model::Fence;
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::Error;

const MAGIC: &[u8; 4] = b"QJ\0\x01";
const HEADER: usize = 20;

/// An attempt that was begun: this stood on the agent's disk before it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Begun {
    pub task: u64,
    pub epoch: u64,
}

#[derive(Deserialize)]
enum Record {
    Opened(IgnoredAny),
    /// The fence, which attempt it is, and when.
    Begun(Fence, IgnoredAny, IgnoredAny),
    Running(IgnoredAny),
    Ended(IgnoredAny),
    Settled(IgnoredAny),
}

/// All that were begun, in their order. An end that a kill has torn is no record.
pub fn read(path: &Path) -> Result<Vec<Begun>, Error> {
    let bytes = std::fs::read(path).map_err(Error::file("reading", path))?;
    parse(&bytes).map_err(|reason| Error::format(path, reason))
}

/// The reason of a failure is for a person.
pub fn parse(bytes: &[u8]) -> Result<Vec<Begun>, String> {
    let mut begun = Vec::new();
    let mut rest = bytes;
    while let Some((payload, behind)) = frame(rest) {
        rest = behind;
        let record = rmp_serde::from_slice(payload);
        match record.map_err(|error| format!("a record can't be read: {error}"))? {
            Record::Begun(fence, _, _) => begun.push(Begun {
                task: fence.task.0,
                epoch: fence.epoch.0,
            }),
            Record::Opened(_) | Record::Running(_) | Record::Ended(_) | Record::Settled(_) => {}
        }
    }
    match bytes.len() > HEADER && rest.len() == bytes.len() {
        true => Err("its first bytes are no record".to_owned()),
        false => Ok(begun),
    }
}

/// The next whole record, and what is behind it.
fn frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let header = bytes.get(..HEADER)?;
    let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let end = HEADER + number(8)? as usize;
    let whole = header.starts_with(MAGIC) && number(4)? == crc32c::crc32c(bytes.get(8..end)?);
    whole.then(|| (&bytes[HEADER..end], &bytes[end..]))
}
