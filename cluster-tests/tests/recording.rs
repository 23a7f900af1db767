//! The recorder and its file: nothing that many clients did at once is lost or changed on the way.

use std::collections::BTreeSet;
use std::thread;

use cluster_tests::history::{
    Action, Answer, Heard, History, Operation, Order, Outcome, Position, Recorder, ResultSeen,
    SeenEvent, SpecSeen, TaskSeen, TaskState, Value,
};

fn read_again(history: &History) -> History {
    let mut bytes = Vec::new();
    history.write_to(&mut bytes).unwrap();
    History::read_from(bytes.as_slice()).unwrap()
}

fn task(id: u64) -> TaskSeen {
    TaskSeen {
        id,
        state: TaskState::Succeeded,
        epoch: 12,
        attempt: 1,
        agent: "a1".into(),
        submit_index: 11,
        last_index: 13,
        generation: 1,
        request_id: format!("r{id}"),
        cancel_requested: false,
        result: Some(ResultSeen {
            exit_code: Some(0),
            stdout_bytes: 3,
            stdout_crc: Some(7),
            ..ResultSeen::default()
        }),
    }
}

fn answer(index: u64, value: Value) -> Answer {
    let (term, stale) = (1, false);
    Answer {
        position: Some(Position { index, term, stale }),
        value,
    }
}

#[test]
fn everything_that_many_clients_do_at_once_is_taken_down() {
    let recorder = Recorder::new();
    thread::scope(|scope| {
        for client in 0..8 {
            let recorder = recorder.clone();
            scope.spawn(move || {
                for n in 0..500 {
                    let get = Action::Get { task: n };
                    let pending = recorder.begin(&format!("client-{client}"), get);
                    match n % 3 {
                        0 => pending.ok(answer(n, Value::Task { task: task(n) })),
                        1 => pending.refused("no_such_task", "there is none"),
                        _ => drop(pending),
                    }
                }
            });
        }
    });
    let history = recorder.history();
    let counts = history.counts();
    assert_eq!(
        (counts.ok, counts.refused, counts.unknown),
        (8 * 167, 8 * 167, 8 * 166)
    );
    let ids: BTreeSet<u64> = history.operations.iter().map(|it| it.id).collect();
    assert_eq!(ids.len(), 8 * 500);
    let in_order = |pair: &[Operation]| pair[0].invoked <= pair[1].invoked;
    assert!(history.operations.windows(2).all(in_order));
    let answered = |it: &Operation| it.answered.is_some_and(|at| at >= it.invoked);
    let known = |it: &Operation| !matches!(it.outcome, Outcome::Unknown { .. });
    assert!(
        history
            .operations
            .iter()
            .all(|it| answered(it) == known(it))
    );
}

#[test]
fn a_history_of_every_kind_of_line_is_read_again_as_it_was() {
    let recorder = Recorder::new();
    recorder.leads("c1", 1);
    let submit = Action::Submit {
        request_id: "r1".into(),
        spec: SpecSeen {
            namespace: "default".into(),
            at_most_once: true,
            labels: vec![("hall".into(), "2".into())],
            ..SpecSeen::default()
        },
    };
    let submitted = Value::Submitted {
        task: task(1),
        duplicate: false,
    };
    recorder.begin("one", submit).ok(answer(11, submitted));
    let list = Action::List {
        states: vec![TaskState::Queued],
        limit: 10,
        page: 0,
    };
    let tasks = Value::Tasks {
        tasks: vec![task(1)],
        next: 4,
    };
    recorder.begin("one", list).ok(answer(12, tasks));
    let order = Action::Order {
        agent: "a1".into(),
        order: Order::Drain,
    };
    recorder
        .begin("two", order)
        .ok(answer(13, Value::Agent { agent: None }));
    recorder
        .begin("two", Action::Cancel { task: 1 })
        .refused("already_ended", "t1 has ended");
    recorder
        .begin("two", Action::Wait { task: 1 })
        .unknown("unavailable", "reset");
    drop(recorder.begin("two", Action::ListAgents));
    let fault = recorder.fault("kill", "c1");
    fault.took_effect("its process is gone");
    recorder.leads("c2", 2);
    fault.healed();
    recorder.heard(Heard {
        stream: recorder.stream(),
        connection: 1,
        client: "ear".into(),
        via: "c2".into(),
        since: Some(0),
        at: recorder.now(),
        events: vec![SeenEvent {
            index: 11,
            kind: "task_queued".into(),
            task: Some(1),
            ..SeenEvent::default()
        }],
        next: 12,
    });
    let history = recorder.history();
    assert_eq!(read_again(&history), history);
    assert_eq!(history.operations.len(), 6);
    assert!(history.faults[0].healed >= history.faults[0].effect.as_ref().map(|it| it.at));
    assert_eq!(history.end(), history.heard[0].at);
}

#[test]
fn one_leader_after_the_other_and_late_news_change_nothing() {
    let recorder = Recorder::new();
    for (controller, term) in [("c1", 1), ("c1", 1), ("c2", 3), ("c1", 1), ("c2", 4)] {
        recorder.leads(controller, term);
    }
    let reigns = recorder.history().reigns;
    let seen: Vec<_> = reigns
        .iter()
        .map(|it| (it.controller.as_str(), it.term))
        .collect();
    assert_eq!(seen, [("c1", 1), ("c2", 3), ("c2", 4)]);
    assert!(reigns[..2].iter().all(|it| it.until.is_some()) && reigns[2].until.is_none());
}

#[test]
fn what_is_no_history_is_refused_with_its_line() {
    for (text, part) in [
        ("", "does not say"),
        ("{\"line\":\"history\",\"schema\":2}\n", "schema 2"),
        ("{\"line\":\"history\",\"schema\":1}\n{}\n", "line 2"),
    ] {
        let refused = History::read_from(text.as_bytes()).unwrap_err();
        assert!(refused.contains(part), "{refused}");
    }
}
