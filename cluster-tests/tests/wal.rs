//! The write-ahead files of a controller's log, as far as a test has to change them: an entry in them is made one that
//! no release reads, with all its checksums right, as if a newer one had written it.

use std::fs;
use std::path::Path;

const SECTOR: usize = 512;
const MAGIC: [u8; 4] = 0x7763_6572_u32.to_le_bytes();
/// Of a record in the file.
const RECORD_HEAD: usize = 20;
/// Where the salt of the file's checksums stands in its first sector.
const SALT: std::ops::Range<usize> = 25..41;
/// Of an entry: the sealed record's head, then kind, term and index.
const SEAL: usize = 9;
const ENTRY_HEAD: usize = 17;
const NORMAL: u8 = 1;
/// A format of the far future.
const FORMAT: u8 = 9;

/// Where an entry's value begins in its file, and the record that it is in.
#[derive(Debug, Clone, Copy)]
struct Place {
    index: u64,
    record: usize,
    end: usize,
    value: usize,
    length: usize,
}

fn number(bytes: &[u8]) -> usize {
    let digits = bytes.iter().rev();
    digits.fold(0, |sum, digit| (sum << 8) | usize::from(*digit))
}

/// Every entry of a file that carries a command.
fn entries(file: &[u8]) -> Vec<Place> {
    let (mut found, mut record) = (Vec::new(), SECTOR);
    while file.get(record..record + 4) == Some(&MAGIC[..]) {
        let end = record + RECORD_HEAD + number(&file[record + 8..record + 12]);
        let sum = crc32c::crc32c(&[&file[SALT], &file[record + 8..end]].concat());
        // Left over from an earlier life of the file.
        if sum.to_le_bytes() != file[record + 4..record + 8] {
            break;
        }
        let mut at = record + RECORD_HEAD;
        while at < end {
            let key = at + 2;
            let length_at = key + number(&file[at..key]);
            let value = length_at + 4;
            let length = match number(&file[length_at..value]) {
                0xffff_ffff => 0,
                length => length,
            };
            let is_entry = file[key] == 1 && length > SEAL + ENTRY_HEAD;
            if is_entry && file[value + SEAL] == NORMAL {
                let digits = &file[key + 1..key + 9];
                let index = digits.iter().fold(0, |sum, it| (sum << 8) | u64::from(*it));
                let place = Place {
                    index,
                    record,
                    end,
                    value,
                    length,
                };
                found.push(place);
            }
            at = value + length;
        }
        record = end.next_multiple_of(SECTOR);
    }
    found
}

fn spoil(file: &mut [u8], place: Place) {
    let value = place.value..place.value + place.length;
    let sealed = &mut file[value];
    sealed[SEAL + ENTRY_HEAD] = FORMAT;
    let sum = crc32c::crc32c(&sealed[SEAL..]);
    sealed[1..5].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32c::crc32c(&[&file[SALT], &file[place.record + 8..place.end]].concat());
    file[place.record + 4..place.record + 8].copy_from_slice(&sum.to_le_bytes());
}

/// Gives the last entry with a command another format, and says which entry that is.
pub fn make_last_entry_unreadable(log: &Path) -> u64 {
    let paths = ["wal.0", "wal.1"].map(|name| log.join(name));
    let files = paths.map(|path| (fs::read(&path).unwrap(), path));
    let all = files.into_iter().flat_map(|(file, path)| {
        let last = entries(&file).into_iter().max_by_key(|place| place.index);
        last.map(|place| (place, file, path))
    });
    let last = all.max_by_key(|(place, ..)| place.index);
    let (place, mut file, path) = last.expect("the log has an entry with a command");
    spoil(&mut file, place);
    fs::write(path, file).unwrap();
    place.index
}
