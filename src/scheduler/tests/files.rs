//! Tasks with files, which agents fetch from the leader.

use model::{AgentProtocol, Attachment, BlobRef, Held};

use super::*;
use crate::Planner;

fn file() -> BlobRef {
    BlobRef::of(b"data")
}

fn with_file() -> TaskSpec {
    let mut spec = task("");
    spec.blobs.attachments.push(Attachment {
        name: "data".into(),
        blob: file(),
        executable: false,
    });
    spec
}

/// An agent that fetches files, a task with one, and one without.
fn one_of_each() -> State {
    let mut newer = registration("a1", 4, "a");
    if let Op::Client {
        command: Command::RegisterAgent(profile),
        ..
    } = &mut newer
    {
        profile.protocol = AgentProtocol::BLOBS;
    }
    let mut needs_a_file = submission(&with_file());
    if let Op::Client { held, .. } = &mut needs_a_file {
        *held = Some(Held(0));
    }
    let mut state = cluster(&[], &[]);
    apply(&mut state, vec![newer, needs_a_file, submission(&task(""))]);
    state
}

#[test]
fn a_task_waits_until_the_leader_has_its_file_and_holds_up_nobody_and_why_says_so() {
    let state = one_of_each();
    let mut fleet = fleet(&state);
    fleet.lacks = std::sync::Arc::new([file().digest].into());
    assert_eq!(chosen(&state, &fleet), [(2, "a1".to_owned())]);
    // A task that has just come is placed by the same rule.
    let place = |fleet: &Fleet| Planner::new(&state, fleet, NOW).place(&with_file(), asker(1));
    assert_eq!(place(&fleet), None);
    let explained = explain(&state, &fleet, NOW, TaskId(1)).expect("it is known");
    let why = format!(
        "It waits as number 1 in the queue until the leader has fetched what it needs from another \
         controller: blob {}.",
        file()
    );
    assert_eq!(explained.summary, why);

    fleet.lacks = std::sync::Arc::default();
    assert!(place(&fleet).is_some());
    let both = [(1, "a1".to_owned()), (2, "a1".to_owned())];
    assert_eq!(chosen(&state, &fleet), both);
}
