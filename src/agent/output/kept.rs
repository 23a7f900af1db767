//! The last bytes of a stream, in memory.

/// The end of a stream, and how many bytes it had in all.
#[derive(Debug, Default)]
pub(super) struct Kept {
    bytes: Vec<u8>,
    total: u64,
}

pub(super) const KEPT_BYTES: usize = model::TAIL_MAX_BYTES;

impl Kept {
    pub fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        if bytes.len() >= KEPT_BYTES {
            self.bytes.clear();
            self.bytes
                .extend_from_slice(&bytes[bytes.len() - KEPT_BYTES..]);
            return;
        }
        // Moved to the front only once it is twice as long, so that a byte is moved about once.
        if self.bytes.len() + bytes.len() > 2 * KEPT_BYTES {
            self.bytes.drain(..self.bytes.len() - KEPT_BYTES);
        }
        self.bytes.extend_from_slice(bytes);
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn tail(&self) -> &[u8] {
        &self.bytes[self.bytes.len().saturating_sub(KEPT_BYTES)..]
    }

    /// At most `max` bytes from `offset` on, if they are still here.
    pub fn read(&self, offset: u64, max: usize) -> Option<&[u8]> {
        let start = self.total - self.bytes.len() as u64;
        let at = usize::try_from(offset.checked_sub(start)?).ok()?;
        let rest = self.bytes.get(at..)?;
        Some(&rest[..rest.len().min(max)])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_is_the_end_of_all_that_was_written(
            sizes in prop::collection::vec(0usize..100_000, 0..12), offset in 0u64..600_000,
        ) {
            let mut kept = Kept::default();
            let mut all: Vec<u8> = Vec::new();
            for size in sizes {
                let piece: Vec<u8> = (0..=250).cycle().take(size).collect();
                kept.push(&piece);
                all.extend(piece);
            }
            prop_assert_eq!(kept.total(), all.len() as u64);
            prop_assert_eq!(kept.tail(), &all[all.len().saturating_sub(KEPT_BYTES)..]);
            if let Some(bytes) = kept.read(offset, 1000) {
                let at = usize::try_from(offset).unwrap();
                prop_assert_eq!(bytes, &all[at..(at + 1000).min(all.len())]);
            } else {
                let oldest = all.len().saturating_sub(KEPT_BYTES) as u64;
                prop_assert!(offset < oldest || offset > all.len() as u64);
            }
        }
    }
}
