//! I8: streams of events, each as one listener heard it over all its connections.

use std::collections::BTreeMap;

use super::evidence::Case;
use super::finding::{Checker, Finding};
use super::replay::Replay;
use super::violation::{Invariant, Kind, Violation};
use crate::history::{Heard, SeenEvent};

pub struct Events;

impl Checker for Events {
    fn invariant(&self) -> Invariant {
        Invariant::I8
    }

    fn sentence(&self) -> &'static str {
        "each stream has every event of the log from where it begins, in its order and once, over all the connections that \
         it was gone on with"
    }

    fn check(&self, case: &Case<'_>) -> Finding {
        let evidence = case.evidence;
        let mut finding = Finding::of(self);
        let replay = &case.replay;
        let mut streams: BTreeMap<u64, Vec<&Heard>> = BTreeMap::new();
        for heard in &evidence.history.heard {
            streams.entry(heard.stream).or_default().push(heard);
        }
        if !streams.is_empty() {
            finding.gaps.extend(replay.gaps.iter().cloned());
        }
        for messages in streams.values() {
            let mut listener = Listener::new(replay, messages);
            for heard in messages {
                listener.hear(heard, &mut finding);
            }
            listener.end(&mut finding);
        }
        finding
    }
}

struct Listener<'e> {
    replay: &'e Replay,
    client: &'e str,
    connection: u32,
    /// The last one that came, on this connection and on any.
    here: Option<(u64, u32)>,
    last: Option<(u64, u32)>,
    /// The first index that it can be held to; `None`: not known yet.
    from: Option<u64>,
    /// Everything before was told, it was said.
    next: u64,
    heard: BTreeMap<(u64, u32), ()>,
}

impl<'e> Listener<'e> {
    fn new(replay: &'e Replay, messages: &[&'e Heard]) -> Listener<'e> {
        let first = messages.first();
        Listener {
            replay,
            client: first.map_or("", |heard| &heard.client),
            connection: first.map_or(0, |heard| heard.connection),
            here: None,
            last: None,
            from: first.and_then(|heard| heard.since),
            next: 0,
            heard: BTreeMap::new(),
        }
    }

    fn hear(&mut self, heard: &'e Heard, finding: &mut Finding) {
        if heard.connection != self.connection {
            self.connection = heard.connection;
            self.here = None;
        }
        for event in &heard.events {
            finding.saw(1);
            self.take(event, heard, finding);
        }
        // A stream that begins now begins where its first message says.
        if self.from.is_none() {
            let first = heard.events.first().map(|event| event.index);
            self.from = first.or(Some(heard.next));
        }
        self.next = self.next.max(heard.next);
    }

    fn take(&mut self, event: &SeenEvent, heard: &Heard, finding: &mut Finding) {
        let place = (event.index, event.n);
        let mut note = |kind, why: String| {
            let (client, via) = (self.client, &heard.via);
            let (index, n, what) = (event.index, event.n, &event.kind);
            let seen =
                format!("{client} was told event {n} of entry {index} ({what}) by {via} {why}");
            let violation = Violation::new(kind, seen).entry(index);
            finding.violations.push(violation.at(heard.at));
        };
        match self.here {
            Some(last) if last == place || self.heard.contains_key(&place) && last > place => {
                note(Kind::EventTwice, "a second time".to_owned());
            }
            Some((index, n)) if (index, n) > place => {
                note(
                    Kind::EventOutOfOrder,
                    format!("after event {n} of entry {index}"),
                );
            }
            Some(_) | None => {}
        }
        if self.replay.gaps.is_empty() && event.index > self.replay.through {
            let end = self.replay.through;
            let why = format!(", and the log that a majority has ends at {end}");
            note(Kind::EventNeverWas, why);
        } else if self.replay.gaps.is_empty() {
            let of_entry = self.replay.events.get(&event.index);
            let at = usize::try_from(event.n).unwrap_or(usize::MAX);
            match of_entry.and_then(|events| events.get(at)) {
                Some(is) if is == event => {}
                Some(is) => note(Kind::EventNeverWas, format!("as {event}, and it was {is}")),
                None => note(
                    Kind::EventNeverWas,
                    ", and the entry has no such".to_owned(),
                ),
            }
        }
        self.here = Some(place);
        self.last = self.last.max(Some(place));
        self.heard.insert(place, ());
    }

    /// What should have come between its begin and what it was told last.
    fn end(&self, finding: &mut Finding) {
        let Some(from) = self.from else {
            return;
        };
        let end = self.last.map_or(0, |(index, _)| index);
        let whole = self.next;
        for (index, events) in self.replay.events.range(from..) {
            if *index > end && *index >= whole {
                break;
            }
            for n in (0..).take(events.len()) {
                let due = *index < whole || Some((*index, n)) < self.last;
                if due && !self.heard.contains_key(&(*index, n)) {
                    let (client, what) = (self.client, &events[n as usize].kind);
                    let seen = format!(
                        "{client} was never told event {n} of entry {index} ({what}), though its stream began at {from} \
                         and went on to {}",
                        end.max(whole)
                    );
                    let violation = Violation::new(Kind::EventMissing, seen);
                    finding.violations.push(violation.entry(*index));
                }
            }
        }
    }
}
