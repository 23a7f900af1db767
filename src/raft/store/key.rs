//! Keys of the engine: `[0]` is the meta record; `[1, index u64, part u16]`, big endian, is a part of
//! an entry. So the entries lie in the order of the log, after the meta record. `[2]` is the write-ahead files'.

use std::ops::Range;

pub const META: &[u8] = &[0];
/// Number of the last write that came to sled from the write-ahead files, big endian.
pub const MOVED: &[u8] = &[2];
const ENTRY: u8 = 1;
const ENTRY_KEY_BYTES: usize = 11;

/// Which piece of an entry a key names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartKey {
    pub index: u64,
    pub part: u16,
}

impl PartKey {
    pub fn encode(self) -> Vec<u8> {
        let mut key = Vec::with_capacity(ENTRY_KEY_BYTES);
        key.push(ENTRY);
        key.extend_from_slice(&self.index.to_be_bytes());
        key.extend_from_slice(&self.part.to_be_bytes());
        key
    }

    pub fn decode(key: &[u8]) -> Option<Self> {
        if key.len() != ENTRY_KEY_BYTES || key[0] != ENTRY {
            return None;
        }
        let index = u64::from_be_bytes(key[1..9].try_into().ok()?);
        let part = u16::from_be_bytes(key[9..11].try_into().ok()?);
        Some(Self { index, part })
    }
}

/// The keys of all entries with an index in `indexes`.
pub fn entries(indexes: Range<u64>) -> Range<Vec<u8>> {
    let first = |index| PartKey { index, part: 0 }.encode();
    first(indexes.start)..first(indexes.end)
}

/// The keys of all entries from `index` on.
pub fn entries_from(index: u64) -> Range<Vec<u8>> {
    PartKey { index, part: 0 }.encode()..vec![ENTRY + 1]
}
