//! The state machine alone: what must stop it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use model::{Op, State, StateVersion, SystemCommand, Versions};
use mutant::Mutant;
use openraft::EntryPayload;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use openraft_rt_tokio::TokioRuntime;

use super::harness::register;
use crate::archive::Archive;
use crate::archive::need::Need;
use crate::blobs::Blobs;
use crate::blocking::Blocking;
use crate::consensus::{Entry, StoredMembership, log_id};
use crate::fatal::FatalSignal;
use crate::machine::{Machine, Published, Storage};
use crate::payload::Payload;
use crate::snapshot::Shelf;
use crate::snapshot::manifest::Position;

/// A state that is empty, at entry 7 as its manifest says, or says something else.
struct Told {
    hash: [u8; 32],
    position: Position,
}

impl Told {
    fn truly(state: &State) -> Told {
        let position = Position {
            segments: Vec::new(),
            last_log: Some(log_id(1, 7)),
            membership: StoredMembership::default(),
            used_ids: BTreeSet::new(),
        };
        let hash = state.recompute_hash();
        Told { hash, position }
    }
}

/// Installs a snapshot of which the manifest was told something; gives the reason to stop, if any.
async fn installed(tell: impl FnOnce(&mut Told)) -> Option<Arc<str>> {
    let dir = tempfile::tempdir().expect("a directory");
    let mut state = State::default();
    state.note_index(7, 1);
    let mut told = Told::truly(&state);
    tell(&mut told);
    let shelf = Shelf::open(dir.path()).expect("it opens");
    let hash = hex::encode(told.hash);
    let handle = shelf
        .build(&told.position, &hash, |file| state.write(file))
        .expect("it is written");
    let meta = handle.manifest.meta().expect("it is sound");
    let (mut machine, fatal) = machine(&dir, Versions::OF_THIS_RELEASE);
    let answer = machine.install_snapshot(&meta, handle).await;
    assert_eq!(answer.is_err(), fatal.reason().is_some());
    fatal.reason()
}

#[tokio::test]
async fn a_snapshot_whose_state_is_not_what_its_manifest_says_stops_the_member() {
    assert_eq!(installed(|_| {}).await, None);
    let elsewhere = installed(|told| told.position.last_log = Some(log_id(1, 8))).await;
    let another = installed(|told| told.hash[31] ^= 1).await;
    let more = installed(|told| {
        told.position.segments.push(Need {
            first: 1,
            end: 8,
            closed: false,
            records: 1,
            bytes: 10,
            digest: [7; 32],
        });
    })
    .await;
    for (reason, wanted) in [
        (elsewhere, "at entry 7 of term 1, the manifest says 8 of 1"),
        (another, "the state's hash is "),
        (more, "names other segments of the archive than the state"),
    ] {
        let reason = reason.expect(wanted);
        assert!(reason.contains(wanted), "{reason}");
    }
}

/// The incremental hash would be wrong on all members alike: only the records themselves can tell.
#[tokio::test]
async fn a_member_whose_hash_is_not_the_sum_of_its_records_stops_at_its_next_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, fatal) = machine(&dir, Versions::OF_THIS_RELEASE);
    machine
        .apply(stream::iter([Ok((registered(1, "a"), None))]))
        .await
        .unwrap();
    let mut builder = machine.get_snapshot_builder().await;
    builder.build_snapshot().await.unwrap();
    assert_eq!(fatal.reason(), None);

    mutant::plant(Some(Mutant::HashForgotten));
    let applied = machine
        .apply(stream::iter([Ok((registered(2, "b"), None))]))
        .await;
    mutant::plant(None);
    applied.unwrap();
    let mut builder = machine.get_snapshot_builder().await;
    assert!(builder.build_snapshot().await.is_err());
    let reason = fatal.reason().unwrap();
    let wanted = "at entry 2 the state's hash is not the sum of its records";
    assert_eq!(&*reason, wanted);
    let last = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(
        last.meta.last_log_id,
        Some(log_id(1, 1)),
        "none was published"
    );
}

fn registered(index: u64, agent: &str) -> Entry {
    let entry = model::Entry {
        stamp: model::Timestamp(5),
        wall: model::Timestamp(5),
        ops: vec![register(agent)],
    };
    Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Normal(Payload::new(entry)),
    }
}

#[tokio::test]
async fn an_entry_that_can_not_be_decoded_stops_the_member_before_it_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let (published, mut events) = Published::new();
    let fatal = FatalSignal::default();
    let storage = Storage {
        shelf: Arc::new(Shelf::open(dir.path()).unwrap()),
        archive: Archive::open_inline(dir.path()).unwrap(),
        blobs: Blobs::open(dir.path()).unwrap(),
    };
    let mut machine = Machine::<TokioRuntime>::new(
        published.clone(),
        storage,
        fatal.clone(),
        Blocking::OwnThread,
        Versions::OF_THIS_RELEASE,
    );
    published.go_live();
    let good = model::Entry {
        stamp: model::Timestamp(5),
        wall: model::Timestamp(5),
        ops: vec![register("a")],
    };
    let entry = |index, payload| Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Normal(payload),
    };
    let from_a_peer = Payload::from_encoded(Payload::new(good).encoded().clone());
    machine
        .apply(stream::iter([Ok((entry(0, from_a_peer), None))]))
        .await
        .unwrap();
    assert_eq!(events.recv().await.unwrap().index, 0);
    let hash = published.view().state.hash();

    let unknown = Payload::from_encoded(Bytes::from_static(&[99, 1, 2, 3]));
    let refusal = machine
        .apply(stream::iter([Ok((entry(1, unknown), None))]))
        .await;
    assert!(refusal.is_err());
    let reason = fatal.reason().unwrap();
    assert!(reason.contains("entry 1 can't be decoded"), "{reason}");
    assert_eq!(published.view().state.hash(), hash, "nothing was applied");
    assert_eq!(published.view().applied, Some(log_id(1, 0)));
}

fn machine(dir: &tempfile::TempDir, versions: Versions) -> (Machine<TokioRuntime>, FatalSignal) {
    // Nobody reads the events here, and none are sent before `go_live`.
    let (published, _) = Published::new();
    let fatal = FatalSignal::default();
    let storage = Storage {
        shelf: Arc::new(Shelf::open(dir.path()).unwrap()),
        archive: Archive::open_inline(dir.path()).unwrap(),
        blobs: Blobs::open(dir.path()).unwrap(),
    };
    let blocking = Blocking::OwnThread;
    let machine = Machine::new(published, storage, fatal.clone(), blocking, versions);
    (machine, fatal)
}

fn raise() -> Entry {
    let to = StateVersion(2);
    let entry = model::Entry {
        stamp: model::Timestamp(5),
        wall: model::Timestamp(5),
        ops: vec![Op::System(SystemCommand::RaiseVersion { to })],
    };
    Entry {
        log_id: log_id(1, 1),
        payload: EntryPayload::Normal(Payload::new(entry)),
    }
}

#[tokio::test]
async fn a_version_that_this_release_does_not_understand_stops_the_member_before_it_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let (mut machine, fatal) = machine(&dir, Versions::UNTOLD);
    let refusal = machine.apply(stream::iter([Ok((raise(), None))])).await;
    assert!(refusal.is_err());
    let reason = fatal.reason().unwrap();
    let wanted = "entry 1 can't be applied as the other members do: this release understands state versions \
                  up to 1, not 2; upgrade it";
    assert_eq!(&*reason, wanted);
    let (applied, _) = machine.applied_state().await.unwrap();
    assert_eq!(applied, None);
}

#[tokio::test]
async fn a_snapshot_of_a_version_that_this_release_does_not_understand_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut newer, _) = machine(&dir, Versions::OF_THIS_RELEASE);
    newer
        .apply(stream::iter([Ok((raise(), None))]))
        .await
        .unwrap();
    let mut builder = newer.get_snapshot_builder().await;
    let built = builder.build_snapshot().await.unwrap();

    let other = tempfile::tempdir().unwrap();
    let (mut older, fatal) = machine(&other, Versions::UNTOLD);
    let refusal = older.install_snapshot(&built.meta, built.snapshot).await;
    assert!(refusal.is_err());
    let reason = fatal.reason().unwrap();
    assert!(
        reason.contains("the snapshot up to entry 1 can't be used")
            && reason.contains("upgrade it"),
        "{reason}"
    );
    let (applied, _) = older.applied_state().await.unwrap();
    assert_eq!(applied, None);
}
