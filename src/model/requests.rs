//! Which task each request id stands for: the window in which a submit that comes again is known again.
//!
//! ```text
//!  submit ──► live ──(its task leaves memory)──► left ──(there are many)──► packs ──(old, and the records gone)──►
//! ```
//!
//! What is live or has just left is found in maps that are cheap to copy and to change. All that left at one time is
//! packed together, into arrays of some 47 bytes an id, and forgotten together, with the last of them: an id is
//! known for longer than it has to be, and never shorter. Where an id stands makes no difference to its record or
//! to the state's hash; what a pack holds does to when it is forgotten, so packs are decided by the log, and
//! snapshots carry them.

use std::collections::VecDeque;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

use crate::hash::{Sum, digest};
use crate::id::TaskId;
use crate::time::Timestamp;

/// The table's name in each record's digest.
const NAME: &str = "request";

// What follows decides when ids are forgotten, so it belongs to the state version: other numbers need another one.

/// Ids that left memory before they are packed: few, so that the map which they wait in stays in the processor's cache.
/// Fewer in tests, so that all of them meet packs; but not where time is measured.
const PACKED_TOGETHER: usize = match cfg!(all(test, debug_assertions)) {
    true => 1,
    false => 1_024,
};

/// Packs of about one size that are made one, and how often that is done: a look-up asks each pack, and to merge the
/// largest takes milliseconds.
const MERGED_TOGETHER: usize = match cfg!(all(test, debug_assertions)) {
    true => 2,
    false => 8,
};
const MERGED_TIMES: u32 = 2;

/// Packs that one entry makes: what leaves with it at the most is packed as it comes.
const PACKS_MAX: usize = 16;

/// Ids to one place of a pack's directory.
const IDS_PER_PLACE: usize = 4;
/// For each place, as a power of two, bits that tell of most ids that are not there: 8 to 16 for an id.
const HINTS_PER_PLACE: u32 = 6;

/// The key of a request in the dedupe window: a 16-byte hash of namespace, principal and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestKey(#[serde(with = "serde_bytes")] pub [u8; 16]);

impl RequestKey {
    /// Its first bits, which are as good as random.
    fn prefix(&self, bits: u32) -> usize {
        let first = self.0.first_chunk().copied().unwrap_or_default();
        let wide = u64::from(u32::from_be_bytes(first)) << bits;
        usize::try_from(wide >> 32).unwrap_or(0)
    }
}

/// Which task a request id stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub task: TaskId,
    /// Digest of the spec, so that the same id with another spec is refused.
    #[serde(with = "serde_bytes")]
    pub spec: [u8; 16],
    /// Once its task is in the archive: since when.
    pub left: Option<Left>,
}

/// When a task left memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Left {
    pub index: u64,
    /// State time.
    pub at: Timestamp,
}

/// What is asked of a request: its task, and its spec's digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub task: TaskId,
    pub spec: [u8; 16],
}

impl Known {
    fn record(self, left: Option<Left>) -> Request {
        let Known { task, spec } = self;
        Request { task, spec, left }
    }
}

/// All request ids that are known.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests {
    /// Of tasks in memory.
    live: OrdMap<RequestKey, Known>,
    /// Of tasks that left it, and the order in which they did.
    left: OrdMap<RequestKey, (Known, Left)>,
    order: OrdSet<(Left, RequestKey)>,
    /// Of those that left before, the oldest first.
    packs: Arc<VecDeque<Arc<Pack>>>,
    packed: usize,
    sum: Sum,
}

impl Requests {
    pub fn get(&self, key: &RequestKey) -> Option<Known> {
        let live = self.live.get(key).copied();
        live.or_else(|| self.left.get(key).map(|(known, _)| *known))
            .or_else(|| self.packs.iter().rev().find_map(|pack| pack.get(key)))
    }

    #[cfg(test)]
    pub fn packs(&self) -> usize {
        self.packs.len()
    }

    /// As if so many ids were known, for four million take minutes.
    #[cfg(test)]
    pub fn pretend(&mut self, count: usize) {
        self.packed = 0;
        self.packed = count - self.len();
    }

    pub fn len(&self) -> usize {
        self.live.len() + self.left.len() + self.packed
    }

    /// The entry whose records have to be gone before the next ids can be forgotten.
    pub fn next_over(&self) -> Option<u64> {
        let packed = self.packs.front().map(|pack| pack.newest.index);
        packed.or_else(|| self.order.get_min().map(|(left, _)| left.index))
    }

    /// One that is not known yet.
    pub fn put(&mut self, key: RequestKey, known: Known) {
        self.sum.add(digest(NAME, &key, &known.record(None)));
        self.live.insert(key, known);
    }

    /// Its task left memory: it stays known, and begins to grow old.
    pub fn leave(&mut self, key: RequestKey, left: Left) {
        let Some(known) = self.live.remove(&key) else {
            return;
        };
        self.sum.remove(digest(NAME, &key, &known.record(None)));
        self.put_left(key, known, left);
    }

    fn put_left(&mut self, key: RequestKey, known: Known, left: Left) {
        self.sum.add(digest(NAME, &key, &known.record(Some(left))));
        self.left.insert(key, (known, left));
        self.order.insert((left, key));
    }

    /// Packs what has left, the oldest first, where it is enough: a few packs at the most, for one entry must not take
    /// long. More are there only where they came from a version without packs.
    pub fn pack(&mut self) {
        for _ in 0..PACKS_MAX {
            if self.left.len() < PACKED_TOGETHER {
                return;
            }
            let oldest = std::iter::from_fn(|| self.take_oldest(|_| true));
            let rows = oldest.take(PACKED_TOGETHER).collect();
            self.push(Pack::of(rows, 0));
            self.merge();
        }
    }

    /// The one that left first of those in no pack, where it is `wanted`. Its record is still in the sum.
    fn take_oldest(&mut self, wanted: impl Fn(Left) -> bool) -> Option<Row> {
        let (left, key) = *self.order.get_min().filter(|(left, _)| wanted(*left))?;
        self.order.remove(&(left, key));
        let (known, left) = self.left.remove(&key)?;
        Some((key, known, left))
    }

    fn push(&mut self, pack: Option<Pack>) {
        if let Some(pack) = pack {
            self.packed += pack.keys.len();
            Arc::make_mut(&mut self.packs).push_back(Arc::new(pack));
        }
    }

    /// Makes the latest packs one where there are enough that were merged as often.
    fn merge(&mut self) {
        let packs = Arc::make_mut(&mut self.packs);
        for times in 0..MERGED_TIMES {
            let alike = packs.iter().rev().take_while(|pack| pack.merged == times);
            if alike.count() < MERGED_TOGETHER {
                return;
            }
            let parts = packs.split_off(packs.len() - MERGED_TOGETHER);
            packs.extend(Pack::merge(&parts).map(Arc::new));
        }
    }

    /// Forgets those that left, the oldest first, as far as they are `over`: a pack at the most, or so many single ones.
    pub fn forget(&mut self, most: usize, over: impl Fn(Left) -> bool) {
        if let Some(pack) = self.packs.front() {
            if over(pack.newest) {
                self.sum.take_off(pack.sum);
                self.packed -= pack.keys.len();
                Arc::make_mut(&mut self.packs).pop_front();
            }
            return;
        }
        for _ in 0..most {
            let Some((key, known, left)) = self.take_oldest(&over) else {
                return;
            };
            let record = known.record(Some(left));
            self.sum.remove(digest(NAME, &key, &record));
        }
    }

    /// Those that are in no pack, by key.
    fn loose(&self) -> impl Iterator<Item = (RequestKey, Request)> {
        let live = self.live.iter();
        let left = self.left.iter();
        merged(
            live.map(|(key, known)| (*key, known.record(None))),
            left.map(|(key, (known, left))| (*key, known.record(Some(*left)))),
        )
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (RequestKey, Request)> {
        let packed = self.packs.iter().flat_map(|pack| pack.iter());
        self.loose().chain(packed)
    }

    pub fn sum(&self) -> Sum {
        self.sum
    }

    /// The sum as it should be, from nothing but the records.
    pub fn recomputed_sum(&self) -> Sum {
        sum_of(self.iter())
    }

    /// Those in no pack, as a sequence of pairs in the order of the keys.
    pub fn dump(&self) -> impl Serialize {
        Sequence(move || self.loose())
    }

    /// The packs, the oldest first: how often each was merged, and such a sequence.
    pub fn dump_packs(&self) -> impl Serialize {
        Sequence(move || {
            let packs = self.packs.iter();
            packs.map(|pack| (pack.merged, Sequence(move || pack.iter())))
        })
    }

    pub fn restore(loose: Rows, packs: Vec<(u32, Rows)>) -> Requests {
        let mut requests = Requests::default();
        for (merged, rows) in packs {
            // One that has not left is in no pack that was ever written.
            let rows = rows.into_iter().filter_map(|(key, request)| {
                let Request { task, spec, left } = request;
                Some((key, Known { task, spec }, left?))
            });
            let pack = Pack::of(rows.collect(), merged);
            if let Some(pack) = &pack {
                requests.sum.merge(pack.sum);
            }
            requests.push(pack);
        }
        for (key, Request { task, spec, left }) in loose {
            let known = Known { task, spec };
            match left {
                None => requests.put(key, known),
                Some(left) => requests.put_left(key, known, left),
            }
        }
        requests
    }
}

/// What is read back of a snapshot.
pub(crate) type Rows = Vec<(RequestKey, Request)>;

fn sum_of(rows: impl Iterator<Item = (RequestKey, Request)>) -> Sum {
    let mut sum = Sum::default();
    for (key, request) in rows {
        sum.add(digest(NAME, &key, &request));
    }
    sum
}

/// Two iterators in the order of their keys as one.
fn merged<V>(
    one: impl Iterator<Item = (RequestKey, V)>,
    other: impl Iterator<Item = (RequestKey, V)>,
) -> impl Iterator<Item = (RequestKey, V)> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    let key = |(key, _): &(RequestKey, V)| *key;
    std::iter::from_fn(move || match (one.peek().map(key), other.peek().map(key)) {
        (Some(first), Some(second)) if second < first => other.next(),
        (Some(_), _) => one.next(),
        (None, _) => other.next(),
    })
}

/// Serializes what an iterator gives, without a list of it.
struct Sequence<F>(F);

impl<F, I> Serialize for Sequence<F>
where
    F: Fn() -> I,
    I: Iterator,
    I::Item: Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let length = self.0().count();
        let mut sequence = serializer.serialize_seq(Some(length))?;
        for item in self.0() {
            sequence.serialize_element(&item)?;
        }
        sequence.end()
    }
}

type Row = (RequestKey, Known, Left);

/// Bits of a word, as a power of two.
const WORD: u32 = u64::BITS.ilog2();

/// The word and the bit of a key, in a pack of so many places as a power of two.
fn hint(key: &RequestKey, bits: u32) -> (usize, u64) {
    let prefix = key.prefix(bits + HINTS_PER_PLACE);
    (prefix >> WORD, 1 << (prefix % u64::BITS as usize))
}

/// Ids of tasks that left memory at about the same time, by key, in arrays side by side.
#[derive(Debug)]
pub(crate) struct Pack {
    keys: Box<[RequestKey]>,
    tasks: Box<[TaskId]>,
    specs: Box<[[u8; 16]]>,
    /// Which of `lefts` it is: many left with one entry.
    runs: Box<[u32]>,
    lefts: Box<[Left]>,
    /// A bit for each longer prefix, set where a key has it. A new id is in no pack, and most of them say so from here: one
    /// look at memory for each, and not three.
    hints: Box<[u64]>,
    /// Where the keys of each prefix begin, and behind the last one where they end.
    places: Box<[u32]>,
    bits: u32,
    newest: Left,
    /// How often it was made of others.
    merged: u32,
    sum: Sum,
}

impl Pack {
    /// Of rows in any order; `None` where there are none.
    pub fn of(rows: Vec<Row>, merged: u32) -> Option<Pack> {
        let records = rows.iter();
        let sum = sum_of(records.map(|(key, known, left)| (*key, known.record(Some(*left)))));
        Pack::summed(rows, sum, merged)
    }

    fn summed(mut rows: Vec<Row>, sum: Sum, merged: u32) -> Option<Pack> {
        rows.sort_unstable_by_key(|(key, ..)| *key);
        let keys: Box<[_]> = rows.iter().map(|(key, ..)| *key).collect();
        let mut lefts: Vec<_> = rows.iter().map(|(.., left)| *left).collect();
        lefts.sort_unstable();
        lefts.dedup();
        let newest = *lefts.last()?;
        // Ids have a limit far below that of the numbers here.
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        let runs = rows
            .iter()
            .map(|(.., left)| place(lefts.partition_point(|other| other < left)));
        let bits = (keys.len() / IDS_PER_PLACE).max(1).ilog2();
        let places = (0..=1_usize << bits)
            .map(|prefix| place(keys.partition_point(|key| key.prefix(bits) < prefix)));
        let mut hints = vec![0; 1_usize << (bits + HINTS_PER_PLACE - WORD)];
        for key in &keys {
            let (word, bit) = hint(key, bits);
            if let Some(word) = hints.get_mut(word) {
                *word |= bit;
            }
        }
        Some(Pack {
            hints: hints.into(),
            places: places.collect(),
            runs: runs.collect(),
            tasks: rows.iter().map(|(_, known, _)| known.task).collect(),
            specs: rows.iter().map(|(_, known, _)| known.spec).collect(),
            keys,
            lefts: lefts.into(),
            bits,
            newest,
            merged,
            sum,
        })
    }

    /// Adjacent ones, made one.
    fn merge(parts: &VecDeque<Arc<Pack>>) -> Option<Pack> {
        let (mut rows, mut sum) = (Vec::new(), Sum::default());
        for part in parts {
            rows.extend(part.rows());
            sum.merge(part.sum);
        }
        let merged = parts.front()?.merged + 1;
        Pack::summed(rows, sum, merged)
    }

    pub fn get(&self, key: &RequestKey) -> Option<Known> {
        let (word, bit) = hint(key, self.bits);
        if self.hints.get(word)? & bit == 0 {
            return None;
        }
        let prefix = key.prefix(self.bits);
        let begin = *self.places.get(prefix)? as usize;
        let end = *self.places.get(prefix + 1)? as usize;
        let found = self.keys.get(begin..end)?.binary_search(key).ok()?;
        self.known(begin + found)
    }

    fn known(&self, at: usize) -> Option<Known> {
        let (task, spec) = (*self.tasks.get(at)?, *self.specs.get(at)?);
        Some(Known { task, spec })
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        self.keys.iter().enumerate().filter_map(|(at, key)| {
            let left = self.lefts.get(*self.runs.get(at)? as usize)?;
            Some((*key, self.known(at)?, *left))
        })
    }

    fn iter(&self) -> impl Iterator<Item = (RequestKey, Request)> {
        self.rows()
            .map(|(key, known, left)| (key, known.record(Some(left))))
    }
}
