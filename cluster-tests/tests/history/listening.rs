//! Streams of events against the log.

use cluster_tests::checkers::{Evidence, Invariant, Kind, Replay, Standing, check, judge};
use cluster_tests::history::{Heard, SeenEvent};

use super::made::{at, kinds, story};

/// All events of the story, as one listener hears them over two connections.
fn heard() -> Evidence {
    let mut evidence = story().evidence();
    let all = truth();
    let (first, second) = all.split_at(4);
    let part = |connection: u32, since: u64, events: &[SeenEvent], next: u64| Heard {
        stream: 1,
        connection,
        client: "ear".into(),
        via: format!("c{connection}"),
        since: Some(since),
        at: at(u64::from(connection) * 100),
        events: events.to_vec(),
        next,
    };
    let middle = first.last().unwrap().index + 1;
    let end = second.last().unwrap().index + 1;
    evidence.history.heard = vec![part(1, 0, first, middle), part(2, middle, second, end)];
    evidence
}

/// What the log says, by a listener who hears nothing.
fn truth() -> Vec<SeenEvent> {
    let mut evidence = story().evidence();
    evidence.history.heard.push(Heard {
        stream: 1,
        connection: 1,
        client: "ear".into(),
        via: "c1".into(),
        since: Some(0),
        at: at(1),
        events: Vec::new(),
        next: 0,
    });
    let events = Replay::of(&evidence).events.into_values().flatten();
    let events: Vec<SeenEvent> = events.collect();
    assert!(events.len() > 8, "{events:?}");
    events
}

fn broken(change: impl FnOnce(&mut Vec<Heard>)) -> Vec<Kind> {
    let mut evidence = heard();
    change(&mut evidence.history.heard);
    kinds(&check(&evidence))
}

#[test]
fn a_stream_that_is_gone_on_with_at_another_controller_has_it_all() {
    let evidence = heard();
    assert_eq!(check(&evidence), []);
    let mut found = judge(&evidence).into_iter();
    let found = found.find(|it| it.invariant == Invariant::I8).unwrap();
    assert_eq!(found.standing(), Standing::Holds);
}

#[test]
fn what_is_told_again_on_another_connection_is_no_fault() {
    let found = broken(|heard| {
        let last = heard[0].events.last().unwrap().clone();
        heard[1].events.insert(0, last);
    });
    assert_eq!(found, []);
}

#[test]
fn an_event_twice_out_of_order_left_out_or_made_up_is_found() {
    let found = broken(|heard| {
        let again = heard[0].events[1].clone();
        heard[0].events.insert(1, again);
    });
    assert_eq!(found, [Kind::EventTwice]);
    let found = broken(|heard| heard[0].events.swap(1, 2));
    assert_eq!(found, [Kind::EventOutOfOrder]);
    let found = broken(|heard| drop(heard[0].events.remove(2)));
    assert_eq!(found, [Kind::EventMissing]);
    // Between two connections.
    let found = broken(|heard| drop(heard[1].events.remove(0)));
    assert_eq!(found, [Kind::EventMissing]);
    let found = broken(|heard| heard[0].events[2].kind = "task_ended".into());
    assert_eq!(found, [Kind::EventNeverWas]);
    // Of an entry that was never committed.
    let found = broken(|heard| {
        let mut last = heard[1].events.last().unwrap().clone();
        last.index += 100;
        heard[1].events.push(last);
    });
    assert_eq!(found, [Kind::EventNeverWas]);
}
