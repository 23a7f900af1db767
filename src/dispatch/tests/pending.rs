//! Who goes first of those that wait for a place in an entry.

use model::{Command, Op, Role, TaskId};

use super::{principal, profile};
use crate::io::Ticket;
use crate::pending::{Origin, Pending, Queue};

fn op(command: Command) -> Op {
    Op::Client {
        principal: principal("ann", Role::Client),
        command,
        placement: None,
        held: None,
    }
}

fn request(number: u64) -> Pending {
    let command = Command::CancelTask {
        task: TaskId(number),
        reason: String::new(),
    };
    Pending {
        op: op(command),
        origin: Origin::Ticket(Ticket(number)),
        bytes: 1,
    }
}

fn report(number: u64) -> Pending {
    let profile = profile(&format!("a{number}"), 1);
    let id = profile.id.clone();
    Pending {
        op: op(Command::RegisterAgent(profile)),
        origin: Origin::Registration(id),
        bytes: 100,
    }
}

/// `r1` for a request, `a1` for a report, with what was said of its size before it was taken.
fn drain(queue: &mut Queue) -> Vec<String> {
    let mut order = Vec::new();
    while let Some(bytes) = queue.next_bytes() {
        let next = queue.pop().unwrap();
        assert_eq!(next.bytes, bytes);
        order.push(match next.origin {
            Origin::Ticket(ticket) => format!("r{}", ticket.0),
            Origin::Registration(agent) => agent.to_string(),
            other => format!("{other:?}"),
        });
    }
    assert!(queue.is_empty());
    order
}

#[test]
fn requests_and_reports_take_turns_and_keep_their_own_order() {
    let mut queue = Queue::default();
    for number in 1..=4 {
        queue.push(report(number));
    }
    queue.push(request(1));
    queue.push(request(2));
    assert_eq!(drain(&mut queue), ["r1", "a1", "r2", "a2", "a3", "a4"]);

    for number in 1..=3 {
        queue.push(request(number));
    }
    queue.push(report(1));
    let order = drain(&mut queue);
    assert_eq!(
        order.iter().position(|it| it == "a1").map(|at| at < 2),
        Some(true),
        "{order:?}"
    );
    let requests: Vec<_> = order.iter().filter(|it| it.starts_with('r')).collect();
    assert_eq!(requests, ["r1", "r2", "r3"]);
}
