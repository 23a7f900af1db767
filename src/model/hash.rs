//! The incremental state hash: a sum of record digests modulo 2^256.
//!
//! Each record adds SHA-256(table, key, canonical record). Addition commutes and can be undone,
//! so one write costs one digest, and the order of writes does not matter, only what is there.
//! (The construction is AdHash: Bellare and Micciancio, "A new paradigm for collision-free
//! hashing", 1997. It detects divergence by accident or bug; it is no defence against a member
//! that chooses its records to collide.)

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// State hashes by the index of the last entry that they stand for.
pub type StateHashes = BTreeMap<u64, [u8; 32]>;

/// SHA-256 of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecordDigest(pub [u8; 32]);

/// Most records are shorter: they are encoded without a look for more memory.
pub(crate) const ROOM: usize = 1024;

/// The digest of a record under its table's name and its key.
pub fn digest(table: &str, key: &impl Serialize, record: &impl Serialize) -> RecordDigest {
    let mut hasher = Sha256::new();
    hasher.update(table.as_bytes());
    let mut part = Vec::with_capacity(ROOM);
    prefixed(key, &mut part, &mut hasher);
    prefixed(record, &mut part, &mut hasher);
    RecordDigest(hasher.finalize().into())
}

/// Hashes a value behind its length; `part` is used again.
fn prefixed(value: &impl Serialize, part: &mut Vec<u8>, hasher: &mut Sha256) {
    part.clear();
    rmp_serde::encode::write(part, value).expect("ids and records encode into memory");
    hasher.update((part.len() as u64).to_be_bytes());
    hasher.update(part);
}

/// A sum modulo 2^256, as four little-endian limbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum([u64; 4]);

impl Sum {
    pub fn add(&mut self, digest: RecordDigest) {
        self.add_limbs(limbs(digest.0));
    }

    pub fn remove(&mut self, digest: RecordDigest) {
        self.take_off(Sum(limbs(digest.0)));
    }

    pub fn merge(&mut self, other: Sum) {
        self.add_limbs(other.0);
    }

    /// The opposite of [`Sum::merge`].
    pub fn take_off(&mut self, other: Sum) {
        // Two's complement: −x = !x + 1.
        self.add_limbs(other.0.map(|limb| !limb));
        self.add_limbs([1, 0, 0, 0]);
    }

    /// The sum whose [`Sum::bytes`] these are.
    pub fn of_bytes(bytes: [u8; 32]) -> Sum {
        Sum(limbs(bytes))
    }

    pub fn bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }

    fn add_limbs(&mut self, other: [u64; 4]) {
        let mut carry = false;
        for (limb, add) in self.0.iter_mut().zip(other) {
            let (sum, over) = limb.overflowing_add(add);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = over || over_again;
        }
    }
}

fn limbs(bytes: [u8; 32]) -> [u64; 4] {
    let mut limbs = [0; 4];
    for (limb, chunk) in limbs.iter_mut().zip(bytes.chunks_exact(8)) {
        *limb = chunk
            .iter()
            .rev()
            .fold(0, |limb, byte| (limb << 8) | u64::from(*byte));
    }
    limbs
}
