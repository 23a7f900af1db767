//! An archive as simple as one can be: what the model said goes where. Tests compare what the state says
//! of its segments with what is in here.

use std::collections::BTreeMap;

use crate::{Applied, Content, Record, RecordKey, State};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept(BTreeMap<u64, BTreeMap<RecordKey, Record>>);

impl Kept {
    pub fn take(&mut self, applied: &Applied) {
        for record in &applied.archive.records {
            let read = Record::read(record.key, record.bytes.clone());
            assert_eq!(read.as_ref(), Ok(record), "a record survives its storage");
            let segment = self.0.entry(applied.archive.segment).or_default();
            segment.insert(record.key, record.clone());
        }
        for dropped in &applied.archive.dropped {
            self.0.remove(&dropped.first);
        }
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.0.values().flat_map(BTreeMap::values)
    }

    /// In words, where the state says of a segment what it does not hold.
    pub fn check(&self, state: &State) -> Vec<String> {
        let mut found = Vec::new();
        let told: Vec<u64> = state.all_segments().map(|it| it.first).collect();
        let held: Vec<u64> = self.0.keys().copied().collect();
        if told != held {
            found.push(format!("the state names {told:?}, there are {held:?}"));
        }
        for segment in state.all_segments() {
            let mut content = Content::default();
            let held = self.0.get(&segment.first);
            for record in held.into_iter().flat_map(BTreeMap::values) {
                content.add(record);
                let inside = (segment.first..segment.end).contains(&record.key.index);
                let owned = record.task.is_none_or(|id| segment.may_hold(id));
                if !inside || !owned {
                    found.push(format!("{:?} is not of {segment:?}", record.key));
                }
            }
            if content != segment.content {
                found.push(format!("{segment:?} holds {content:?}"));
            }
        }
        found
    }
}
