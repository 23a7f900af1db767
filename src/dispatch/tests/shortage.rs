//! The controllers' disks are nearly full: what runs ends, and nothing new is taken or begun.

use model::RequestId;

use super::*;

const WHY: &str = "c1 has too little left";

fn short(leader: &mut Leader) {
    leader.input(Input::Shortage(Some(WHY.to_owned())));
}

fn refused() -> Option<Result<Reply, Refusal>> {
    Some(Err(Refusal::Unavailable {
        hindrance: Hindrance::NoRoom,
        why: WHY.to_owned(),
    }))
}

fn named(request: &str) -> Command {
    let namespace = Namespace::new("default").expect("it is a name");
    Command::SubmitTask(Submit {
        spec: TaskSpec::process(namespace, vec!["true".into()]),
        request_id: Some(RequestId(request.to_owned())),
    })
}

#[test]
fn a_submit_is_refused_before_it_is_proposed_and_taken_once_there_is_room() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 1);
    short(&mut leader);
    let before = leader.index;
    let ticket = leader.submit("true");
    assert_eq!(leader.answer(ticket).cloned(), refused());
    assert_eq!(leader.index, before, "nothing was proposed");
    leader.input(Input::Shortage(None));
    let ticket = leader.submit("true");
    assert!(matches!(leader.answer(ticket), Some(Ok(_))));
    assert_eq!(leader.task(1), StateName::Assigned);
}

#[test]
fn what_runs_ends_and_what_waits_waits_until_there_is_room() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 1);
    leader.submit("first");
    leader.pass(2_000);
    leader.submit("second");
    let (_, fence) = leader.assigned()[0];
    short(&mut leader);
    leader.finish(session, fence);
    leader.pass(100);
    assert_eq!(leader.task(1), StateName::Succeeded);
    assert_eq!(leader.task(2), StateName::Queued);
    let fleet = leader.dispatcher.fleet(&leader.state, leader.clock());
    let now = leader.clock().state;
    let why = scheduler::explain(&leader.state, &fleet, now, TaskId(2)).expect("it is there");
    assert!(why.summary.contains(WHY), "{}", why.summary);
    leader.input(Input::Shortage(None));
    assert_eq!(leader.task(2), StateName::Assigned);
}

#[test]
fn what_ends_or_closes_something_is_not_refused() {
    let mut leader = Leader::new();
    leader.submit("true");
    short(&mut leader);
    leader.agent("a1", 1, 1);
    assert!(leader.state.agent(&profile("a1", 1).id).is_some());
    for command in [
        Command::CancelTask {
            task: TaskId(1),
            reason: String::new(),
        },
        Command::CordonAgent {
            agent: profile("a1", 1).id,
            reason: String::new(),
        },
    ] {
        let ticket = leader.request(command.clone());
        let answer = leader.answer(ticket);
        assert!(matches!(answer, Some(Ok(_))), "{command:?}: {answer:?}");
    }
    assert_eq!(leader.task(1), StateName::Cancelled);
}

#[test]
fn a_submit_that_was_accepted_before_is_told_so_and_not_refused() {
    let mut leader = Leader::new();
    leader.request(named("r1"));
    short(&mut leader);
    let again = leader.request(named("r1"));
    let submitted = Reply::Submitted {
        task: TaskId(1),
        duplicate: true,
    };
    assert_eq!(leader.answer(again), Some(&Ok(submitted)));
    let other = leader.request(named("r2"));
    assert_eq!(leader.answer(other).cloned(), refused());
}
