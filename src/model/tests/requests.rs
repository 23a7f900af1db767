//! Request ids, from a submit to the end of their time.

use crate::hash::digest;
use crate::id::TaskId;
use crate::requests::{Known, Left, Pack, RequestKey, Requests};
use crate::state::State;
use crate::time::Timestamp;

use super::world::{World, profile, spec, submit};
use crate::{
    End, Op, REQUEST_KEPT, REQUESTS_MAX, Rejected, Reply, Retention, StateVersion, SystemCommand,
};

/// As far apart as hashes are.
fn key(n: u64) -> RequestKey {
    let digest = digest("key", &n, &());
    RequestKey(digest.0[..16].try_into().expect("it is longer"))
}

fn known(n: u64) -> Known {
    Known {
        task: TaskId(n),
        spec: [u8::try_from(n % 251).expect("it is less"); 16],
    }
}

fn left(index: u64) -> Left {
    Left {
        index,
        at: Timestamp(10 * index),
    }
}

/// Ids from 1 on, two of which leave with each entry; the last four are live.
fn gone_by(count: u64) -> Requests {
    let mut requests = Requests::default();
    (1..=count).for_each(|n| requests.put(key(n), known(n)));
    for n in 1..=count - 4 {
        requests.pack();
        requests.leave(key(n), left(n / 2));
    }
    requests
}

#[test]
fn an_id_is_known_wherever_it_stands_and_none_that_was_never_given() {
    for count in [4, 5, 8, 9, 20, 1_000] {
        let requests = gone_by(count);
        for n in 1..=count {
            assert_eq!(requests.get(&key(n)), Some(known(n)), "{n} of {count}");
        }
        assert_eq!(requests.get(&key(0)), None);
        assert_eq!(requests.get(&key(count + 1)), None);
        assert_eq!(requests.len() as u64, count);
        assert_eq!(requests.iter().count() as u64, count);
        assert_eq!(requests.sum(), requests.recomputed_sum());
    }
}

/// As many as packs have in use, and the keys at both ends.
#[test]
fn a_pack_of_any_size_has_its_ids_and_no_others() {
    assert!(Pack::of(Vec::new(), 0).is_none());
    for count in [1, 2, 7, 8, 9, 1_024, 8_192, 65_536] {
        let ends = [RequestKey([0; 16]), RequestKey([0xff; 16])];
        let keys = (1..count - 1).map(key).chain(ends);
        let keys: Vec<_> = keys.take(usize::try_from(count).unwrap()).collect();
        let numbered = || (1..).zip(&keys);
        let rows = numbered().map(|(n, key)| (*key, known(n), left(n / 3)));
        let pack = Pack::of(rows.collect(), 0).unwrap();
        for (n, key) in numbered() {
            assert_eq!(pack.get(key), Some(known(n)), "{n} of {count}");
        }
        for other in (count..2 * count).chain([0]) {
            assert_eq!(pack.get(&key(other)), None, "{other} beside {count}");
        }
    }
}

#[test]
fn few_packs_hold_many_ids() {
    assert_eq!(gone_by(5).packs(), 0);
    assert_eq!(gone_by(6).packs(), 1);
    let packs = gone_by(1_000).packs();
    assert!((995 / 4..995 / 4 + 4).contains(&packs), "{packs} packs");
}

#[test]
fn an_id_is_forgotten_when_all_that_left_with_it_are_old_and_never_earlier() {
    let mut requests = gone_by(100);
    let all = requests.len();
    for old in 0..=60 {
        for _ in 0..100 {
            requests.forget(100, |left| left.index < old);
        }
        for n in 1..=100 {
            let forgotten = requests.get(&key(n)).is_none();
            let over = n <= 96 && n / 2 < old;
            assert!(over || !forgotten, "{n} at {old}");
            // A pack here holds four ids.
            assert!(!over || forgotten || n / 2 + 4 > old, "{n} at {old}");
        }
        assert_eq!(requests.iter().count(), requests.len());
        assert_eq!(requests.sum(), requests.recomputed_sum());
    }
    assert_eq!((all, requests.len()), (100, 4));
}

/// Nothing finished stays in memory, and nothing that is archived for long.
fn short_lived(mut world: World) -> World {
    let retention = Retention {
        hot_tasks: 0,
        segment_entries: 4,
        max_bytes: 1_000,
        ..Retention::default()
    };
    world.system(SystemCommand::Retain(retention)).unwrap();
    world.register(profile("a1", 4, 1)).unwrap();
    world
}

fn done(world: &mut World, request: &str) {
    world.submit(submit(spec("true"), Some(request))).unwrap();
    let task = world.state.meta.last_task.0;
    world.assign(task, "a1").unwrap();
    let epoch = world.index;
    let end = End::Exited { code: 0 };
    world.finish(task, epoch, "a1", end).unwrap();
}

#[test]
fn nothing_is_packed_before_the_version_at_which_all_members_do() {
    let mut world = short_lived(World::new());
    (0..5).for_each(|n| done(&mut world, &format!("r{n}")));
    assert_eq!(world.state.requests.packs(), 0);
    let to = StateVersion::PACKED_REQUESTS;
    world
        .one(Op::System(SystemCommand::RaiseVersion { to }))
        .unwrap();
    assert!(world.state.requests.packs() > 0);
    assert_eq!(world.state.requests.len(), 5);
}

#[test]
fn who_begins_with_a_snapshot_forgets_at_the_same_entries_as_the_others() {
    let mut world = short_lived(World::today());
    (0..40).for_each(|n| done(&mut world, &format!("r{n}")));
    let joined = State::decode(&world.state.encode()).unwrap();
    let mut other = World {
        state: joined,
        kept: world.kept.clone(),
        ..world
    };
    let known = other.state.requests.len();
    for world in [&mut world, &mut other] {
        world.now += REQUEST_KEPT.0;
    }
    for n in 0..200 {
        for world in [&mut world, &mut other] {
            done(world, &format!("s{n}"));
        }
        let (one, two) = (&world.state, &other.state);
        assert_eq!(one.requests.len(), two.requests.len(), "after {n}");
        assert_eq!(one.hash(), two.hash(), "after {n}");
    }
    assert!(world.state.requests.len() < known + 200);
}

#[test]
fn a_full_window_refuses_new_request_ids_by_name_and_forgets_none() {
    let mut world = World::today();
    let first = world.submit(submit(spec("true"), Some("r1")));
    world.state.requests.pretend(REQUESTS_MAX - 1);
    let last = world.unchecked(submit(spec("true"), Some("r2")));
    assert!(last.is_ok(), "there is room for one: {last:?}");
    let refused = world.unchecked(submit(spec("true"), Some("r3")));
    let full = Rejected::OverLimit {
        what: "the window of request ids".into(),
        limit: 4_000_000,
        unit: "request ids".into(),
    };
    assert_eq!(refused, Err(full.clone()));
    assert_eq!(
        full.to_string(),
        "the window of request ids is over its limit of 4000000 request ids"
    );
    assert_eq!(world.state.task_count(), 2, "nothing was submitted");

    let known = Reply::Submitted {
        task: TaskId(1),
        duplicate: true,
    };
    assert_eq!(
        first,
        Ok(Reply::Submitted {
            task: TaskId(1),
            duplicate: false
        })
    );
    let again = world.unchecked(submit(spec("true"), Some("r1")));
    assert_eq!(again, Ok(known), "what is known stays known");
    let without = world.unchecked(submit(spec("true"), None));
    assert!(without.is_ok(), "it needs no place: {without:?}");
    world.state.requests.pretend(REQUESTS_MAX - 1);
    let later = world.unchecked(submit(spec("true"), Some("r3")));
    assert!(later.is_ok(), "there is room again: {later:?}");
}

/// Its record, its segment's age: whether the segment with the only id is there after so long.
fn keeps_the_segment_when_nearly_full(age: u64) -> bool {
    let mut world = World::today();
    let retention = Retention {
        hot_tasks: 0,
        segment_entries: 4,
        ..Retention::default()
    };
    world.system(SystemCommand::Retain(retention)).unwrap();
    world.register(profile("a1", 4, 1)).unwrap();
    done(&mut world, "r1");
    let at = world.index;
    while world.state.segments().all(|segment| segment.end <= at) {
        world.register(profile("a1", 4, 1)).unwrap();
    }
    world.now += age;
    world.state.requests.pretend(REQUESTS_MAX / 16 * 15);
    let refused_or_done = world.unchecked(submit(spec("true"), None));
    assert!(refused_or_done.is_ok(), "{refused_or_done:?}");
    world.state.archived_from() <= at
}

#[test]
fn a_window_that_is_nearly_full_is_made_room_in_by_segments_that_are_a_day_old_and_no_younger_ones()
{
    assert!(keeps_the_segment_when_nearly_full(REQUEST_KEPT.0 - 1));
    assert!(!keeps_the_segment_when_nearly_full(REQUEST_KEPT.0));
}
