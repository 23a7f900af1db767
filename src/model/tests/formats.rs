//! The formats on disk, held against golden data: what a release wrote once, every later one reads to the same
//! values, and writes to the same bytes as long as the state is at that version.
//!
//! The data are hex in `golden/formats`, one folder for each state version: a name at the beginning of a
//! line, its bytes indented below. Nothing rewrites them. A test that finds a difference prints what would be
//! written now; `docs/how-to/add-a-command.md` says when that may take the old one's place.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::value::Error as Refused;
use serde::de::{DeserializeOwned, Visitor};

use super::exemplars::{self, Named};
use super::exemplars_2;
use crate::entry::{decode, encode};
use crate::{
    AgentState, Class, Command, DrainStage, End, Endpoint, Entry, Event, EventsRecord, Expression,
    Interruption, Kind, Op, Phase, Presence, Reason, Record, RecordKey, Role, State, StateName,
    StateVersion, SystemCommand, Task, TaskRecord, Timestamp, Work, invariant,
};

const ENTRIES: &str = include_str!("../golden/formats/v1/entries.hex");
const RECORDS: &str = include_str!("../golden/formats/v1/records.hex");
const STATE: &str = include_str!("../golden/formats/v1/state.hex");
const STATE_2: &str = include_str!("../golden/formats/v2/state.hex");
const ENTRIES_2: &str = include_str!("../golden/formats/v2/entries.hex");
const RECORDS_2: &str = include_str!("../golden/formats/v2/records.hex");

/// Bytes on one line.
const LINE: usize = 48;
/// Of the records here that no format of their own stands before.
const FORMAT: u8 = 1;

type Golden = BTreeMap<String, Vec<u8>>;

fn parse(text: &str) -> Golden {
    let mut golden = Golden::new();
    let mut name = String::new();
    for line in text.lines() {
        match line.strip_prefix("  ") {
            None => name = line.to_owned(),
            Some(digits) => {
                let bytes = hex::decode(digits).expect("it is hex");
                golden.entry(name.clone()).or_default().extend(bytes);
            }
        }
    }
    golden
}

fn render(named: &[(&str, Vec<u8>)]) -> String {
    let mut text = String::new();
    for (name, bytes) in named {
        let lines = bytes
            .chunks(LINE)
            .map(|line| format!("  {}\n", hex::encode(line)));
        text.extend([format!("{name}\n")].into_iter().chain(lines));
    }
    text
}

/// What is written now is what was written then.
fn assert_written(file: &str, golden: &str, named: &[(&str, Vec<u8>)]) {
    let now = render(named);
    if golden != now {
        let known = parse(golden);
        let differs = named
            .iter()
            .filter(|(name, bytes)| known.get(*name) != Some(bytes));
        let names: Vec<_> = differs.map(|(name, _)| *name).collect();
        panic!("golden/formats/{file} differs in {names:?}; today it would be:\n{now}<<end");
    }
}

fn entries() -> Named<Entry> {
    [exemplars::commands(), exemplars::system_commands()].concat()
}

fn encoded(named: &[(&'static str, Entry)]) -> Named<Vec<u8>> {
    named
        .iter()
        .map(|(name, it)| (*name, it.encode()))
        .collect()
}

/// Records of the archive, and of the task's table.
fn records() -> Named<Vec<u8>> {
    let wall = Timestamp(1_700_000_000_456);
    let of_events = Record::of_events(9, wall, &exemplars::events());
    let mut named = vec![("events", of_events.bytes.to_vec())];
    let (_, left) = exemplars::lived();
    let left = left.iter().filter(|record| record.task.is_some());
    named.extend(
        left.map(|record| ("archived_task", record.bytes.to_vec()))
            .take(1),
    );
    let tasks = exemplars::tasks();
    named.extend(
        tasks
            .iter()
            .map(|(name, task)| (*name, encode(FORMAT, task))),
    );
    named
}

#[test]
fn entries_of_version_1_are_written_as_the_first_release_wrote_them() {
    assert_written("v1/entries.hex", ENTRIES, &encoded(&entries()));
}

#[test]
fn entries_of_version_2_are_written_as_the_golden_data_has_them() {
    assert_written(
        "v2/entries.hex",
        ENTRIES_2,
        &encoded(&exemplars_2::since_2()),
    );
}

#[test]
fn entries_of_each_version_are_read_to_exactly_what_they_said() {
    for (golden, named) in [(ENTRIES, entries()), (ENTRIES_2, exemplars_2::since_2())] {
        let golden = parse(golden);
        assert_eq!(golden.len(), named.len());
        for (name, entry) in named {
            assert_eq!(Entry::decode(&golden[name]), Ok(entry), "{name}");
        }
    }
}

#[test]
fn records_are_written_and_read_as_the_first_release_did() {
    assert_written("v1/records.hex", RECORDS, &records());
    let golden = parse(RECORDS);
    let events = EventsRecord::decode(&golden["events"]).unwrap();
    assert_eq!(events.events, exemplars::events());
    let archived = TaskRecord::decode(&golden["archived_task"]).unwrap();
    assert_eq!(archived.task.state(), StateName::Succeeded);
    for (name, task) in exemplars::tasks() {
        assert_eq!(decode(FORMAT, &golden[name]), Ok::<Task, _>(task), "{name}");
    }
    let key = RecordKey { index: 9, n: 1 };
    let bytes = golden["archived_task"].clone().into();
    let read = Record::read(key, bytes).unwrap();
    assert_eq!(read.task, Some(archived.task.id));
}

#[test]
fn events_of_version_2_are_written_and_read_as_the_golden_data_has_them() {
    let wall = Timestamp(1_700_000_000_456);
    let record = Record::of_events(9, wall, &exemplars_2::events_since_2());
    let named = vec![("events", record.bytes.to_vec())];
    assert_written("v2/records.hex", RECORDS_2, &named);
    let golden = parse(RECORDS_2);
    let events = EventsRecord::decode(&golden["events"]).unwrap();
    assert_eq!(events.events, exemplars_2::events_since_2());
}

#[test]
fn a_state_at_version_1_is_written_and_read_as_the_first_release_did() {
    let (state, _) = exemplars::lived();
    let hash = ("hash", state.hash().to_vec());
    assert_written("v1/state.hex", STATE, &[("state", state.encode()), hash]);
    let golden = parse(STATE);
    let read = State::decode(&golden["state"]).unwrap();
    assert_eq!(read.encode(), golden["state"]);
    assert_eq!(read.recompute_hash().to_vec(), golden["hash"]);
    assert_eq!(invariant::check(&read), Vec::<String>::new());
    let tables = [
        read.tasks.len(),
        read.specs.len(),
        read.results.len(),
        read.agents.len(),
        read.requests.len(),
        read.segments.len(),
        read.joining.tokens.len(),
        read.joining.holders.len(),
    ];
    assert!(!tables.contains(&0), "a table has no record: {tables:?}");
    assert!(read.meta.open.is_some());
}

/// Release 0.1.0 does not look at a state's version, so what it must not go on from has a format that it refuses.
#[test]
fn a_state_at_a_later_version_has_another_format() {
    let state = exemplars_2::lived_on();
    assert!(!state.blobs.is_empty() && !state.backends.is_empty() && state.requests.packs() > 0);
    let (bytes, hash) = (state.encode(), state.hash().to_vec());
    assert_eq!((parse(STATE)["state"][0], bytes[0]), (1, 2));
    assert_written("v2/state.hex", STATE_2, &[("state", bytes), ("hash", hash)]);
    let golden = parse(STATE_2);
    let read = State::decode(&golden["state"]).unwrap();
    assert_eq!(read.state_version(), StateVersion(2));
    assert_eq!(read.encode(), golden["state"]);
    assert_eq!(invariant::check(&read), Vec::<String>::new());
    assert_eq!(read.recompute_hash().to_vec(), golden["hash"]);
    let mut later = golden["state"].clone();
    later[0] = 3;
    let told = State::decode(&later).unwrap_err().to_string();
    assert!(
        told.contains("format 3 is not one that this release reads (it reads up to 2)"),
        "{told}"
    );
}

/// The names of an enum's variants, as serde knows them.
fn variants<T: DeserializeOwned>() -> BTreeSet<&'static str> {
    struct Asked<'a>(&'a mut BTreeSet<&'static str>);

    impl<'de> serde::Deserializer<'de> for Asked<'_> {
        type Error = Refused;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refused> {
            Err(serde::de::Error::custom("not an enum"))
        }

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _: &'static str,
            variants: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Refused> {
            self.0.extend(variants);
            Err(serde::de::Error::custom("only its names were wanted"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
        }
    }

    let mut names = BTreeSet::new();
    T::deserialize(Asked(&mut names)).err();
    assert!(!names.is_empty());
    names
}

#[test]
fn every_variant_of_what_is_persisted_stands_in_the_golden_data() {
    let files = [ENTRIES, RECORDS, STATE, ENTRIES_2, RECORDS_2].map(parse);
    let all: Vec<&Vec<u8>> = files.iter().flat_map(BTreeMap::values).collect();
    let persisted = [
        variants::<Command>(),
        variants::<SystemCommand>(),
        variants::<Op>(),
        variants::<Event>(),
        variants::<Phase>(),
        variants::<End>(),
        variants::<Interruption>(),
        variants::<StateName>(),
        variants::<Class>(),
        variants::<Kind>(),
        variants::<Endpoint>(),
        variants::<Expression>(),
        variants::<Reason>(),
        variants::<Role>(),
        variants::<AgentState>(),
        variants::<Presence>(),
        variants::<Work>(),
    ];
    let stands = |name: &&str| {
        // As MessagePack writes a short text.
        let length = 0xa0 | u8::try_from(name.len()).expect("names are short");
        let text = [&[length], name.as_bytes()].concat();
        all.iter()
            .any(|bytes| bytes.windows(text.len()).any(|it| it == text))
    };
    let missing: Vec<_> = persisted
        .iter()
        .flatten()
        .filter(|name| !stands(name))
        .collect();
    assert!(
        missing.is_empty(),
        "no golden data for {missing:?}: add an exemplar to src/model/tests/exemplars.rs"
    );
    // The second stage of a drain is reached by an entry of its own.
    assert_eq!(variants::<DrainStage>(), ["Overdue", "Waiting"].into());
}

/// A big-endian number.
fn number(digits: &[u8]) -> usize {
    let digits = digits.iter();
    digits.fold(0, |sum, digit| (sum << 8) | usize::from(*digit))
}

/// The length of an array's head, and of how many values it is; none where something else stands.
fn array(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes[0] {
        0x90..=0x9f => Some((1, usize::from(bytes[0] & 0x0f))),
        0xdc => Some((3, number(&bytes[1..3]))),
        _ => None,
    }
}

/// The length of the value at `at`; adds where arrays in it begin.
fn walk(bytes: &[u8], at: usize, arrays: &mut Vec<usize>) -> usize {
    let value = &bytes[at..];
    let (head, values) = match (array(value), value[0]) {
        (Some(array), _) => {
            arrays.push(at);
            array
        }
        (None, 0x80..=0x8f) => (1, 2 * usize::from(value[0] & 0x0f)),
        (None, 0xa0..=0xbf) => (1 + usize::from(value[0] & 0x1f), 0),
        (None, 0xc4 | 0xd9) => (2 + number(&value[1..2]), 0),
        (None, 0xc5 | 0xda) => (3 + number(&value[1..3]), 0),
        (None, 0xcc | 0xd0) => (2, 0),
        (None, 0xcd | 0xd1) => (3, 0),
        (None, 0xce | 0xd2) => (5, 0),
        (None, 0xcf | 0xd3) => (9, 0),
        (None, 0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3) => (1, 0),
        (None, other) => panic!("no value of ours begins with {other:02x}"),
    };
    (0..values).fold(head, |length, _| length + walk(bytes, at + length, arrays))
}

/// The same with one value more at the end of one array, of a kind that no field of ours has; once for each array.
fn lengthened(bytes: &[u8]) -> Vec<Vec<u8>> {
    const FOREIGN: [u8; 3] = [0xd4, 1, 1];
    let mut arrays = Vec::new();
    assert_eq!(walk(bytes, 1, &mut arrays), bytes.len() - 1);
    let longer = arrays.into_iter().map(|at| {
        let end = at + walk(bytes, at, &mut Vec::new());
        let (head, values) = array(&bytes[at..]).expect("an array begins here");
        let [.., high, low] = (values + 1).to_be_bytes();
        let values = &bytes[at + head..end];
        [
            &bytes[..at],
            &[0xdc, high, low],
            values,
            &FOREIGN,
            &bytes[end..],
        ]
        .concat()
    });
    longer.collect()
}

#[test]
fn what_a_newer_release_adds_to_any_struct_is_not_read_as_if_it_were_not_there() {
    let golden = [ENTRIES, ENTRIES_2].map(parse);
    let mut tried = 0;
    for (name, bytes) in golden.iter().flatten() {
        for longer in lengthened(bytes) {
            assert!(
                Entry::decode(&longer).is_err(),
                "{name}: {}",
                hex::encode(&longer)
            );
            tried += 1;
        }
    }
    for longer in lengthened(&parse(STATE)["state"]) {
        assert!(State::decode(&longer).is_err(), "{}", hex::encode(&longer));
        tried += 1;
    }
    assert!(tried > 300, "only {tried} were tried");
}

#[test]
fn what_a_newer_release_calls_by_another_name_or_writes_in_another_format_is_not_read() {
    let golden = parse(ENTRIES);
    let retain = &golden["retain"];
    let at = retain.windows(6).position(|it| it == b"Retain").unwrap();
    let mut renamed = retain.clone();
    renamed[at] = b'D';
    let told = Entry::decode(&renamed).unwrap_err().to_string();
    assert!(told.contains("unknown variant `Detain`"), "{told}");
    let mut format = retain.clone();
    format[0] = 2;
    let told = Entry::decode(&format).unwrap_err().to_string();
    assert_eq!(
        told,
        "format 2 is not one that this release reads (it reads up to 1)"
    );
}
