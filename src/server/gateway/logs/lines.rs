//! The last lines of an output that is read from its beginning.

use bytes::Bytes;

use crate::limit;

/// Bytes that may pile up before all but the last lines are dropped.
const TRIM_AT: usize = 256 * 1024;

/// Keeps the last lines of what is pushed.
#[derive(Debug)]
pub struct LastLines {
    wanted: usize,
    bytes: Vec<u8>,
    /// Where in the output `bytes` ends.
    end: u64,
    trim_at: usize,
}

impl LastLines {
    pub fn new(wanted: u32) -> LastLines {
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        LastLines {
            wanted,
            bytes: Vec::new(),
            end: 0,
            trim_at: TRIM_AT,
        }
    }

    pub fn push(&mut self, offset: u64, data: &[u8]) {
        if offset != self.end {
            // What lay between is gone: lines before the gap are not the last ones any more.
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(data);
        self.end = offset + data.len() as u64;
        if self.bytes.len() >= self.trim_at {
            self.trim();
        }
    }

    /// Where the lines begin in the output, and their bytes.
    pub fn finish(mut self) -> (u64, Bytes) {
        self.trim();
        (self.end - self.bytes.len() as u64, self.bytes.into())
    }

    fn trim(&mut self) {
        let lines = last_lines(&self.bytes, self.wanted).len();
        let keep = lines.min(limit::LAST_LINES_MAX_BYTES);
        self.bytes.drain(..self.bytes.len() - keep);
        // Long lines: look again only after as much has come as was kept.
        self.trim_at = TRIM_AT.max(2 * keep);
    }
}

/// The last `wanted` lines. A line feed at the very end ends the last line and begins none.
pub fn last_lines(bytes: &[u8], wanted: usize) -> &[u8] {
    if wanted == 0 {
        return &[];
    }
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let breaks = body
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    match breaks.map(|(at, _)| at).nth(wanted - 1) {
        Some(at) => &bytes[at + 1..],
        None => bytes,
    }
}

/// Whether `bytes`, the end of a longer output, surely hold its last `wanted` lines.
pub fn holds_last_lines(bytes: &[u8], wanted: usize) -> bool {
    last_lines(bytes, wanted).len() < bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_lines_count_like_tail_does() {
        for (text, wanted, last) in [
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n", 5, "a\nb\n"),
            ("a\n\n\n", 2, "\n\n"),
            ("a\nb\n", 0, ""),
            ("", 3, ""),
        ] {
            assert_eq!(
                last_lines(text.as_bytes(), wanted),
                last.as_bytes(),
                "{text:?} {wanted}"
            );
        }
    }

    #[test]
    fn lines_of_a_long_output_are_found_at_their_offset_in_bounded_memory() {
        let mut lines = LastLines::new(2);
        let mut offset = 0;
        for n in 0..200_000 {
            let line = format!("line {n}\n");
            lines.push(offset, line.as_bytes());
            offset += line.len() as u64;
            assert!(lines.bytes.len() <= TRIM_AT);
        }
        let (at, bytes) = lines.finish();
        assert_eq!(&bytes[..], b"line 199998\nline 199999\n");
        assert_eq!(at + bytes.len() as u64, offset);
    }

    #[test]
    fn one_endless_line_is_cut_at_the_front() {
        let mut lines = LastLines::new(1);
        let chunk = vec![b'x'; 1024 * 1024];
        for n in 0..20 {
            lines.push(n * chunk.len() as u64, &chunk);
        }
        let (at, bytes) = lines.finish();
        assert_eq!(bytes.len(), limit::LAST_LINES_MAX_BYTES);
        assert_eq!(at + bytes.len() as u64, 20 * chunk.len() as u64);
    }

    #[test]
    fn what_lies_before_a_gap_is_not_among_the_last_lines() {
        let mut lines = LastLines::new(5);
        lines.push(0, b"a\nb\n");
        lines.push(100, b"c\n");
        assert_eq!(lines.finish(), (100, Bytes::from_static(b"c\n")));
    }

    #[test]
    fn a_kept_tail_is_enough_only_where_a_line_begins_inside() {
        assert!(holds_last_lines(b"rest of a line\nb\nc\n", 2));
        assert!(!holds_last_lines(b"b\nc\n", 2));
    }
}
