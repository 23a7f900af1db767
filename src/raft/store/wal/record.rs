//! What stands in a write-ahead file.
//!
//! ```text
//!  sector 0    magic [8], format u8, identity [16], salt [16], crc32c u32
//!  sector 1    record: magic u32, crc32c u32, length u32, sequence u64, body     little endian, and zeros
//!  ...         record                                                            up to the next sector
//! ```
//!
//! A body is a batch: `{key length u16, key, value length u32, value}` for each pair, with a length of `u32::MAX`
//! and no value for a removal. The checksum begins with the file's salt, a random number that never leaves
//! the machine. So nobody can send in bytes that would pass for a record once they lie in a file.

use bytes::{Buf, BufMut};

use crate::member::LogIdentity;
use crate::store::engine::Batch;

/// What a disk writes as a whole. A record begins at one, so that no write touches what is acknowledged.
pub const SECTOR: usize = 512;

const FILE_MAGIC: &[u8; 8] = b"quoratew";
const FORMAT: u8 = 1;
const FILE_HEADER_BYTES: usize = 45;

const RECORD_MAGIC: u32 = 0x7763_6572;
const RECORD_HEADER_BYTES: usize = 20;
/// The length of a value that is not there.
const REMOVED: u32 = u32::MAX;

pub type Salt = [u8; 16];

/// Appends the first sector of a file.
pub fn encode_header(identity: LogIdentity, salt: Salt) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    let mut out = &mut sector[..];
    out.put_slice(FILE_MAGIC);
    out.put_u8(FORMAT);
    out.put_slice(&identity.0);
    out.put_slice(&salt);
    let checksum = crc32c::crc32c(&sector[..FILE_HEADER_BYTES - 4]);
    sector[FILE_HEADER_BYTES - 4..FILE_HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
    sector
}

/// The salt of a file of this log. The reason of a refusal is for a person.
pub fn decode_header(file: &[u8], identity: LogIdentity) -> Result<Salt, String> {
    let header = file.get(..FILE_HEADER_BYTES).ok_or("it is cut off")?;
    let (mut fields, mut checksum) = header.split_at(FILE_HEADER_BYTES - 4);
    if checksum.get_u32_le() != crc32c::crc32c(fields) || !fields.starts_with(FILE_MAGIC) {
        return Err("its first bytes are damaged".to_owned());
    }
    fields.advance(FILE_MAGIC.len());
    match fields.get_u8() {
        FORMAT => {}
        other => return Err(format!("its format {other} is unknown to this release")),
    }
    let mut found = LogIdentity::default();
    fields.copy_to_slice(&mut found.0);
    if found != identity {
        return Err(format!("it belongs to another log ({found})"));
    }
    let mut salt = Salt::default();
    fields.copy_to_slice(&mut salt);
    Ok(salt)
}

/// Replaces what is in `out` by a record that fills whole sectors.
pub fn encode(out: &mut Vec<u8>, salt: Salt, sequence: u64, batch: &Batch) {
    out.clear();
    out.put_u32_le(RECORD_MAGIC);
    out.put_u64_le(0);
    out.put_u64_le(sequence);
    for (key, value) in batch {
        let length = u16::try_from(key.len()).expect("keys have eleven bytes at most");
        out.put_u16_le(length);
        out.put_slice(key);
        match value {
            None => out.put_u32_le(REMOVED),
            Some(value) => {
                let length = u32::try_from(value.len()).expect("values have 4 KiB at most");
                out.put_u32_le(length);
                out.put_slice(value);
            }
        }
    }
    let length = u32::try_from(out.len() - RECORD_HEADER_BYTES).expect("groups are bounded");
    out[8..12].copy_from_slice(&length.to_le_bytes());
    let checksum = checksum(salt, &out[8..]);
    out[4..8].copy_from_slice(&checksum.to_le_bytes());
    out.resize(out.len().next_multiple_of(SECTOR), 0);
}

fn checksum(salt: Salt, content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt), content)
}

/// A record whose checksum is right.
#[derive(Debug, PartialEq, Eq)]
pub struct Found<'f> {
    pub sequence: u64,
    pub body: &'f [u8],
    /// Bytes that it fills.
    pub length: usize,
}

/// The record at the begin of `bytes`, if a whole one is there.
pub fn find(bytes: &[u8], salt: Salt) -> Option<Found<'_>> {
    let mut header = bytes.get(..RECORD_HEADER_BYTES)?;
    if header.get_u32_le() != RECORD_MAGIC {
        return None;
    }
    let stored = header.get_u32_le();
    let end = RECORD_HEADER_BYTES.checked_add(usize::try_from(header.get_u32_le()).ok()?)?;
    let checked = bytes.get(8..end)?;
    (stored == checksum(salt, checked)).then(|| Found {
        sequence: header.get_u64_le(),
        body: &bytes[RECORD_HEADER_BYTES..end],
        length: end.next_multiple_of(SECTOR),
    })
}

/// Adds the pairs of a body to a batch, over those that are there. False where it makes no sense.
#[must_use]
pub fn decode_into(mut body: &[u8], batch: &mut Batch) -> bool {
    while body.has_remaining() {
        let Some((key, value)) = next_pair(&mut body) else {
            return false;
        };
        batch.insert(key, value);
    }
    true
}

fn next_pair(body: &mut &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let length = usize::from(body.try_get_u16_le().ok()?);
    let key = take(body, length)?;
    let value = match body.try_get_u32_le().ok()? {
        REMOVED => None,
        length => Some(take(body, usize::try_from(length).ok()?)?),
    };
    Some((key, value))
}

fn take(body: &mut &[u8], length: usize) -> Option<Vec<u8>> {
    let (taken, rest) = body.split_at_checked(length)?;
    *body = rest;
    Some(taken.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SALT: Salt = [7; 16];

    fn any_batch() -> impl Strategy<Value = Batch> {
        let key = prop::collection::vec(any::<u8>(), 0..12);
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..900));
        prop::collection::btree_map(key, value, 0..6)
    }

    /// So that later releases can show that they still read it.
    #[test]
    fn the_first_format_reads_as_written() {
        let batch = Batch::from([(vec![1, 2], Some(vec![3])), (vec![4], None)]);
        let mut record = Vec::new();
        encode(&mut record, SALT, 258, &batch);
        let golden = "72656377b4c6ea74100000000201000000000000020001020100000003010004ffffffff";
        let hex: String = record[..36]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hex, golden);
        assert!(record[36..].iter().all(|byte| *byte == 0));
        let header = encode_header(LogIdentity([9; 16]), SALT);
        let hex: String = header[..45]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let (nines, sevens) = ("09".repeat(16), "07".repeat(16));
        assert_eq!(hex, format!("71756f726174657701{nines}{sevens}09556ed8"));
        assert_eq!(decode_header(&header, LogIdentity([9; 16])), Ok(SALT));
        let found = find(&record, SALT).unwrap();
        let mut read = Batch::new();
        assert!(decode_into(found.body, &mut read));
        assert_eq!((found.sequence, read), (258, batch));
    }

    #[test]
    fn a_file_of_another_log_is_named_so() {
        let header = encode_header(LogIdentity([9; 16]), SALT);
        assert_eq!(decode_header(&header, LogIdentity([9; 16])), Ok(SALT));
        let refused = decode_header(&header, LogIdentity([8; 16])).unwrap_err();
        assert!(refused.contains("another log"), "{refused}");
    }

    #[test]
    fn a_record_of_another_file_is_none_here() {
        let mut record = Vec::new();
        encode(&mut record, SALT, 1, &Batch::new());
        assert!(find(&record, SALT).is_some());
        assert_eq!(find(&record, [8; 16]), None);
    }

    proptest! {
        // A failing case is printed; a file of it would land beside the crates.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(batch in any_batch(), sequence in any::<u64>()) {
            let mut record = Vec::new();
            encode(&mut record, SALT, sequence, &batch);
            prop_assert_eq!(record.len() % SECTOR, 0);
            let found = find(&record, SALT).unwrap();
            prop_assert_eq!((found.sequence, found.length), (sequence, record.len()));
            let mut read = Batch::new();
            prop_assert!(decode_into(found.body, &mut read));
            prop_assert_eq!(read, batch);
        }

        #[test]
        fn a_flipped_bit_never_passes(batch in any_batch(), at in any::<prop::sample::Index>()) {
            let mut record = Vec::new();
            encode(&mut record, SALT, 1, &batch);
            let used = RECORD_HEADER_BYTES + find(&record, SALT).unwrap().body.len();
            let bit = at.index(used * 8);
            record[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(find(&record, SALT), None);
        }

        #[test]
        fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = find(&bytes, SALT);
            let _ = decode_into(&bytes, &mut Batch::new());
            let _ = decode_header(&bytes, LogIdentity::default());
        }
    }
}
