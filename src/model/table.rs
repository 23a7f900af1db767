//! A persistent map that keeps the sum of its records' digests. `put`, `change_often` and `remove` are the only
//! functions that write, so the hash can't be forgotten. Cloning costs O(1).

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use imbl::OrdMap;
use mutant::Mutant;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::hash::{RecordDigest, Sum, digest};

#[derive(Debug)]
struct Row<V> {
    value: Arc<V>,
    /// `None`: it is taken when the entry has been applied.
    digest: Option<RecordDigest>,
}

/// Not derived: that would ask for `V: Clone`, which sharing exists to avoid.
impl<V> Clone for Row<V> {
    fn clone(&self) -> Row<V> {
        Row {
            value: Arc::clone(&self.value),
            digest: self.digest,
        }
    }
}

/// A hashed map under a name that goes into every digest.
#[derive(Debug, Clone)]
pub struct Table<K: Ord + Clone, V> {
    name: &'static str,
    rows: OrdMap<K, Row<V>>,
    sum: Sum,
    /// Rows without a digest, and perhaps some that have one again, or are gone.
    undigested: Vec<K>,
}

impl<K: Ord + Clone + Serialize, V: Serialize> Table<K, V> {
    pub fn new(name: &'static str) -> Table<K, V> {
        Table {
            name,
            rows: OrdMap::new(),
            sum: Sum::default(),
            undigested: Vec::new(),
        }
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.rows.get(key).map(|row| &*row.value)
    }

    /// The record itself, to keep beyond this state.
    pub fn shared(&self, key: &K) -> Option<Arc<V>> {
        self.rows.get(key).map(|row| Arc::clone(&row.value))
    }

    pub fn put(&mut self, key: K, value: V) {
        self.put_shared(key, Arc::new(value));
    }

    fn put_shared(&mut self, key: K, value: Arc<V>) {
        let digest = digest(self.name, &key, &*value);
        if !mutant::is(Mutant::HashForgotten) {
            self.sum.add(digest);
        }
        let digest = Some(digest);
        let old = self.rows.insert(key, Row { value, digest });
        self.forget(old.as_ref());
    }

    /// Changes a record in its place; one that is not there begins as its default. One entry may do so many times: the digest
    /// is taken by [`Table::take_digests`], once.
    pub fn change_often<T>(&mut self, key: K, change: impl FnOnce(&mut V) -> T) -> T
    where
        V: Clone + Default,
    {
        let Some(row) = self.rows.get_mut(&key) else {
            let mut value = V::default();
            let told = change(&mut value);
            let value = Arc::new(value);
            let digest = None;
            self.rows.insert(key.clone(), Row { value, digest });
            self.undigested.push(key);
            return told;
        };
        let told = change(Arc::make_mut(&mut row.value));
        if let Some(digest) = row.digest.take() {
            self.sum.remove(digest);
            self.undigested.push(key);
        }
        told
    }

    /// At the end of each entry.
    pub fn take_digests(&mut self) {
        for key in std::mem::take(&mut self.undigested) {
            if let Some(row) = self.rows.get_mut(&key)
                && row.digest.is_none()
            {
                let digest = digest(self.name, &key, &*row.value);
                row.digest = Some(digest);
                self.sum.add(digest);
            }
        }
    }

    fn forget(&mut self, old: Option<&Row<V>>) {
        if let Some(digest) = old.and_then(|old| old.digest) {
            self.sum.remove(digest);
        }
    }

    pub fn remove(&mut self, key: &K) -> Option<Arc<V>> {
        let old = self.rows.remove(key)?;
        self.forget(Some(&old));
        Some(old.value)
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> {
        self.rows.iter().map(|(key, row)| (key, &*row.value))
    }

    /// Rows with a key below `end`, the highest first.
    pub fn below(&self, end: K) -> impl Iterator<Item = (&K, &V)> {
        self.rows
            .range(..end)
            .rev()
            .map(|(key, row)| (key, &*row.value))
    }

    /// Rows from a key on, the lowest first.
    pub fn from(&self, start: K) -> impl Iterator<Item = (&K, &V)> {
        self.rows
            .range(start..)
            .map(|(key, row)| (key, &*row.value))
    }

    pub fn sum(&self) -> Sum {
        self.sum
    }

    /// The sum as it should be, from nothing but the rows.
    pub fn recomputed_sum(&self) -> Sum {
        let mut sum = Sum::default();
        for (key, row) in &self.rows {
            sum.add(digest(self.name, key, &*row.value));
        }
        sum
    }

    /// The rows in a form that serde can carry.
    pub fn dump(&self) -> Dump<'_, K, V> {
        Dump(self)
    }

    pub fn restore(name: &'static str, rows: Rows<K, V>) -> Table<K, V> {
        let mut table = Table::new(name);
        for (key, value) in rows.0 {
            table.put_shared(key, value);
        }
        table
    }
}

/// Serializes a table as a sequence of pairs, in the order of the keys.
pub struct Dump<'a, K: Ord + Clone, V>(&'a Table<K, V>);

impl<K: Ord + Clone + Serialize, V: Serialize> Serialize for Dump<'_, K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.rows.iter().map(|(key, row)| (key, &*row.value)))
    }
}

/// What a dumped table decodes into. Shared from the start, so that no record is moved twice.
pub struct Rows<K, V>(Vec<(K, Arc<V>)>);

impl<K, V> Default for Rows<K, V> {
    fn default() -> Rows<K, V> {
        Rows(Vec::new())
    }
}

impl<'de, K: DeserializeOwned, V: DeserializeOwned> Deserialize<'de> for Rows<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs<K, V>(PhantomData<(K, V)>);

        impl<'de, K: DeserializeOwned, V: DeserializeOwned> Visitor<'de> for Pairs<K, V> {
            type Value = Rows<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the rows of a table")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pairs: A) -> Result<Rows<K, V>, A::Error> {
                let mut rows = Vec::new();
                while let Some((key, value)) = pairs.next_element::<(K, V)>()? {
                    rows.push((key, Arc::new(value)));
                }
                Ok(Rows(rows))
            }
        }

        deserializer.deserialize_seq(Pairs(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_entry_changes_often_is_hashed_as_if_it_had_been_put_once() {
        let mut put = Table::new("t");
        put.put(1, 7);
        put.put(2, 9);
        let mut table = Table::new("t");
        assert_eq!(table.change_often(1, |it: &mut i32| *it += 3), ());
        table.change_often(1, |it| *it += 4);
        table.put(2, 8);
        table.change_often(2, |it| *it += 1);
        table.take_digests();
        assert_eq!((table.get(&1), table.get(&2)), (Some(&7), Some(&9)));
        assert_eq!(table.sum(), put.sum());
        assert_eq!(table.sum(), table.recomputed_sum());

        // Gone in the same entry, and there again.
        let before = table.clone();
        table.change_often(1, |it| *it = 5);
        table.remove(&1);
        assert_eq!(table.change_often(1, |it| std::mem::replace(it, 6)), 0);
        table.change_often(2, |it| *it = 5);
        table.remove(&2);
        table.take_digests();
        assert_eq!(table.sum(), table.recomputed_sum());
        assert_eq!((table.len(), table.get(&1)), (1, Some(&6)));
        // What was there before is as it was.
        assert_eq!((before.sum(), before.get(&1)), (put.sum(), Some(&7)));
    }
}
