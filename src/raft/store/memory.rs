//! A log engine in memory, for tests, and in place of sled where a simulation has the write-ahead files in memory. It keeps
//! what was written and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Mutex;

use super::engine::{Batch, Key, LogEngine, Value, Visit};
use crate::sync::lock;

#[derive(Debug, Default)]
pub struct MemoryEngine {
    pairs: Mutex<BTreeMap<Key, Value>>,
}

impl LogEngine for MemoryEngine {
    fn commit(&self, batch: Batch) -> io::Result<()> {
        let mut pairs = lock(&self.pairs);
        for (key, value) in batch {
            match value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Value>> {
        Ok(lock(&self.pairs).get(key).cloned())
    }

    fn scan(&self, range: Range<Key>, visit: &mut Visit<'_>) -> io::Result<()> {
        for (key, value) in lock(&self.pairs).range(range) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn size_on_disk(&self) -> io::Result<u64> {
        let pairs = lock(&self.pairs);
        Ok(pairs
            .iter()
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum())
    }
}
