//! The state machine alone: what must stop it.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use model::{Op, State, StateVersion, SystemCommand, Versions};
use openraft::EntryPayload;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use openraft_rt_tokio::TokioRuntime;

use super::harness::register;
use crate::archive::Archive;
use crate::blobs::Blobs;
use crate::blocking::Blocking;
use crate::consensus::{Entry, StoredMembership, log_id};
use crate::fatal::FatalSignal;
use crate::machine::{Machine, Published, Storage};
use crate::payload::Payload;
use crate::snapshot::Shelf;
use crate::snapshot::manifest::Position;

#[tokio::test]
async fn a_snapshot_whose_state_stands_elsewhere_than_its_manifest_says_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (published, _events) = Published::new();
    let fatal = FatalSignal::default();
    let shelf = Arc::new(Shelf::open(dir.path()).unwrap());
    let state = State::default();
    let position = Position {
        segments: Vec::new(),
        last_log: Some(log_id(1, 7)),
        membership: StoredMembership::default(),
        used_ids: BTreeSet::new(),
    };
    let hash = hex::encode(state.recompute_hash());
    let handle = shelf
        .build(&position, &hash, |file| state.write(file))
        .unwrap();
    let meta = handle.manifest.meta().unwrap();
    let storage = Storage {
        shelf,
        archive: Archive::open_inline(dir.path()).unwrap(),
        blobs: Blobs::open(dir.path()).unwrap(),
    };
    let mut machine = Machine::<TokioRuntime>::new(
        published,
        storage,
        fatal.clone(),
        Blocking::OwnThread,
        Versions::OF_THIS_RELEASE,
    );
    let refusal = machine.install_snapshot(&meta, handle).await.unwrap_err();
    assert!(
        refusal.to_string().contains("the manifest says 7 of 1"),
        "{refusal}"
    );
    assert!(fatal.reason().is_some());
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
