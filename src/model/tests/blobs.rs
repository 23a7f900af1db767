//! What stands beside the log: who has to have it, and for how long it is referred to.

use super::world::{self, World, fence, finish_op, spec, submit, submit_op};
use crate::{
    AgentProfile, AgentProtocol, Attachment, BLOB_MAX_BYTES, BLOBS_MAX_BYTES, BlobDigest, BlobRef,
    Bulk, Command, End, Held, Op, Outcome, Phase, Rejected, Reply, Retention, State, SystemCommand,
    TaskId, TaskSpec,
};

/// One that fetches files.
fn profile(name: &str, slots: u32, inc: u8) -> AgentProfile {
    AgentProfile {
        protocol: AgentProtocol::BLOBS,
        ..world::profile(name, slots, inc)
    }
}

fn world() -> World {
    let mut world = World::today();
    world.register(profile("a1", 4, 1)).unwrap();
    world
}

fn with_file(blob: BlobRef) -> TaskSpec {
    let mut spec = spec("sort data");
    spec.blobs.attachments.push(Attachment {
        name: "data".into(),
        blob,
        executable: false,
    });
    spec
}

fn held_by(held: Option<Held>, spec: TaskSpec) -> Op {
    match submit_op(submit(spec, None), None) {
        Op::Client {
            principal,
            command,
            placement,
            ..
        } => Op::Client {
            principal,
            command,
            placement,
            held,
        },
        other => other,
    }
}

fn blobs(state: &State) -> Vec<BlobDigest> {
    state.blobs().map(|blob| blob.digest).collect()
}

/// Ends the task, and says what it wrote.
fn end(world: &mut World, task: u64, stdout: Option<BlobRef>) {
    world.assign(task, "a1").unwrap();
    let epoch = world.index;
    let mut outcome = Outcome::bare(End::Exited { code: 0 });
    outcome.stdout_bytes = stdout.map_or(0, |it| it.size);
    outcome.blobs.stdout = stdout;
    world
        .one(finish_op(fence(task, epoch), "a1", outcome))
        .unwrap();
}

#[test]
fn a_command_counts_only_where_a_majority_of_the_voters_of_its_place_has_its_blobs() {
    let mut world = world();
    let blob = BlobRef::of(b"data");
    for held in [None, Some(Held(1))] {
        let refused = world.one(held_by(held, with_file(blob)));
        assert_eq!(refused, Err(Rejected::NotHeld));
    }
    assert_eq!((world.state.task_count(), blobs(&world.state)), (0, vec![]));
    let applied = world.apply(vec![held_by(Some(Held(0)), with_file(blob))]);
    assert!(applied.replies[0].is_ok());
    assert_eq!(applied.blobs, [blob]);
    let again = world.apply(vec![held_by(Some(Held(0)), with_file(blob))]);
    assert_eq!(again.blobs, [], "it was named before");
}

#[test]
fn a_report_that_is_not_held_changes_nothing_and_may_come_again() {
    let mut world = world();
    world.submit(submit(spec("true"), None)).unwrap();
    world.assign(1, "a1").unwrap();
    let epoch = world.index;
    let mut outcome = Outcome::bare(End::Exited { code: 0 });
    outcome.blobs.stderr = Some(BlobRef::of(b"long"));
    let report = || finish_op(fence(1, epoch), "a1", outcome.clone());
    let Op::Client {
        principal, command, ..
    } = report()
    else {
        panic!("it is a client's");
    };
    let elsewhere = Op::Client {
        principal,
        command,
        placement: None,
        held: Some(Held(7)),
    };
    assert_eq!(world.one(elsewhere), Err(Rejected::NotHeld));
    assert!(world.state.task(TaskId(1)).unwrap().live().is_some());
    assert!(world.one(report()).is_ok());
    let kept = world.state.result(TaskId(1)).unwrap();
    assert_eq!(kept.stderr_bytes, 4);
    assert!(!kept.truncated());
}

#[test]
fn before_version_2_nothing_stands_beside_the_log() {
    let mut world = World::new();
    let refused = world.submit(submit(with_file(BlobRef::of(b"data")), None));
    assert!(
        matches!(refused, Err(Rejected::NotYet { .. })),
        "{refused:?}"
    );
    let mut empty = with_file(BlobRef::of(b""));
    empty.blobs.attachments[0].blob.size = 0;
    let refused = world.one(held_by(None, empty));
    assert!(
        matches!(refused, Err(Rejected::NotYet { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_blob_is_known_as_long_as_a_record_in_memory_or_in_the_archive_names_it() {
    let mut world = world();
    let retention = Retention {
        hot_tasks: 0,
        segment_entries: 2,
        ..world.state.retention().clone()
    };
    world
        .system(SystemCommand::Retain(retention.clone()))
        .unwrap();
    let (shared, answer) = (BlobRef::of(b"shared"), BlobRef::of(b"answer"));
    for _ in 0..2 {
        world.submit(submit(with_file(shared), None)).unwrap();
    }
    end(&mut world, 1, Some(answer));
    assert!(world.state.task(TaskId(1)).is_none(), "it is archived");
    assert!(world.state.has_blob(&shared.digest) && world.state.has_blob(&answer.digest));
    end(&mut world, 2, None);
    let bytes = world.state.blob_bytes();
    assert_eq!(bytes, shared.size + answer.size);
    world.now += retention.max_age.0;
    for _ in 0..4 {
        world.register(profile("a1", 4, 1)).unwrap();
    }
    assert_eq!(blobs(&world.state), []);
    assert_eq!(world.state.blob_bytes(), 0);
}

#[test]
fn the_archives_limit_counts_the_blobs_that_only_it_names() {
    let mut world = world();
    let retention = Retention {
        hot_tasks: 0,
        segment_entries: 2,
        max_bytes: 1 << 20,
        ..world.state.retention().clone()
    };
    world.system(SystemCommand::Retain(retention)).unwrap();
    let mut large = BlobRef::of(b"large");
    large.size = 2 << 20;
    world.submit(submit(with_file(large), None)).unwrap();
    end(&mut world, 1, None);
    for _ in 0..4 {
        world.register(profile("a1", 4, 1)).unwrap();
    }
    assert!(!world.state.has_blob(&large.digest));
}

#[test]
fn what_is_retried_lets_go_of_the_result_before() {
    let mut world = world();
    let mut spec = spec("false");
    spec.retries = 1;
    world.submit(submit(spec, None)).unwrap();
    let (first, second) = (BlobRef::of(b"first"), BlobRef::of(b"second"));
    for (blob, code) in [(first, 1), (second, 0)] {
        world.assign(1, "a1").unwrap();
        let epoch = world.index;
        let mut outcome = Outcome::bare(End::Exited { code });
        outcome.blobs.stdout = Some(blob);
        world
            .one(finish_op(fence(1, epoch), "a1", outcome))
            .unwrap();
        world.now += 60_000;
    }
    assert_eq!(blobs(&world.state), [second.digest]);
}

#[test]
fn what_is_given_back_again_and_again_waits_longer_each_time() {
    let mut world = world();
    world.submit(submit(spec("true"), None)).unwrap();
    let mut waits = Vec::new();
    for _ in 0..4 {
        world.assign(1, "a1").unwrap();
        let epoch = world.index;
        let reason = "it has no file".to_owned();
        let given_back = world.finish(1, epoch, "a1", End::Declined { reason });
        given_back.unwrap();
        let queued = world.state.task(TaskId(1)).unwrap();
        let Phase::Queued { not_before, .. } = &queued.phase else {
            panic!("{queued:?}");
        };
        waits.push(not_before.map_or(0, |at| at.0 - world.now));
        world.now += 60_000;
    }
    assert_eq!(waits[0], 0);
    assert!(
        waits.is_sorted() && waits[1] > 500 && waits[3] > 3_000,
        "{waits:?}"
    );
}

#[test]
fn one_digest_has_one_size_and_all_together_have_a_limit() {
    let mut world = world();
    let blob = BlobRef::of(b"data");
    world.submit(submit(with_file(blob), None)).unwrap();
    let other = BlobRef { size: 5, ..blob };
    let refused = world.submit(submit(with_file(other), None));
    assert!(matches!(refused, Err(Rejected::Invalid(_))), "{refused:?}");

    let large = |n: u64| {
        let mut blob = BlobRef::of(&n.to_le_bytes());
        blob.size = BLOB_MAX_BYTES;
        blob
    };
    let most = BLOBS_MAX_BYTES / BLOB_MAX_BYTES;
    for n in 1..most {
        world.submit(submit(with_file(large(n)), None)).unwrap();
    }
    let over = world.submit(submit(with_file(large(most)), None));
    assert!(matches!(over, Err(Rejected::OverLimit { .. })), "{over:?}");
    // What is known takes no more room.
    assert!(world.submit(submit(with_file(large(1)), None)).is_ok());
    let mut too_large = large(1);
    too_large.size += 1;
    let refused = world.submit(submit(with_file(too_large), None));
    assert!(
        matches!(refused, Err(Rejected::OverLimit { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_request_id_stands_for_the_spec_as_it_was_asked_for() {
    let mut world = world();
    let whole = spec("sort many arguments");
    let shortened = |bulk: &[u8]| {
        let mut short = spec("sort");
        short.blobs.bulk = Some(Box::new(Bulk {
            blob: BlobRef::of(bulk),
            whole: whole.identity(),
        }));
        short
    };
    let accepted = |reply: Result<Reply, Rejected>| match reply {
        Ok(Reply::Submitted { duplicate, .. }) => duplicate,
        other => panic!("{other:?}"),
    };
    // Before the version rose it was written as a whole, and is asked for again.
    let first = world.submit(submit(whole.clone(), Some("r1")));
    assert!(!accepted(first));
    let again = world.submit(submit(shortened(b"many arguments"), Some("r1")));
    assert!(accepted(again));
    let other = spec("sort").with_bulk(BlobRef::of(b"other arguments"));
    let reused = world.submit(submit(other, Some("r1")));
    assert!(matches!(reused, Err(Rejected::RequestIdReused { .. })));
}

#[test]
fn files_have_names_that_stay_in_their_directory() {
    let mut world = world();
    for name in [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\0",
        "x".repeat(300).as_str(),
    ] {
        let mut spec = with_file(BlobRef::of(b"data"));
        spec.blobs.attachments[0].name = name.to_owned();
        let refused = world.submit(submit(spec, None));
        assert!(refused.is_err(), "{name:?}");
    }
    let mut twice = with_file(BlobRef::of(b"data"));
    twice
        .blobs
        .attachments
        .push(twice.blobs.attachments[0].clone());
    assert!(world.submit(submit(twice, None)).is_err());
    assert!(
        Command::SubmitTask(submit(with_file(BlobRef::of(b"data")), None))
            .validate()
            .is_ok()
    );
}

#[test]
fn a_task_with_files_or_a_shortened_command_is_assigned_only_to_an_agent_that_fetches_them() {
    let mut world = World::today();
    world.register(world::profile("a1", 4, 1)).unwrap();
    let blob = BlobRef::of(b"data");
    world.submit(submit(with_file(blob), None)).unwrap();
    let shortened = spec("sort").with_bulk(blob);
    world.submit(submit(shortened, None)).unwrap();
    // Without a blob, but a file all the same.
    let mut empty = with_file(blob);
    empty.blobs.attachments[0].blob.size = 0;
    world.submit(submit(empty, None)).unwrap();
    world.submit(submit(spec("sort"), None)).unwrap();
    for task in 1..=3 {
        let why = "agent a1 can't run it: it is of an older release, which can't run all of it: upgrade it";
        let refused = Err(Rejected::Stale(why.to_owned()));
        assert_eq!(world.assign(task, "a1"), refused, "t{task}");
    }
    assert_eq!(world.assign(4, "a1"), Ok(Reply::Done));
    // Upgraded, it says so with its next hello.
    world.register(profile("a1", 4, 1)).unwrap();
    for task in 1..=3 {
        assert_eq!(world.assign(task, "a1"), Ok(Reply::Done), "t{task}");
    }
}
