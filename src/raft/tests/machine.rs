//! The state machine alone: what must stop it.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use openraft::EntryPayload;
use openraft::storage::RaftStateMachine;
use openraft_rt_tokio::TokioRuntime;

use super::harness::register;
use crate::blocking::Blocking;
use crate::consensus::{Entry, log_id};
use crate::fatal::FatalSignal;
use crate::machine::{Machine, Published};
use crate::payload::Payload;
use crate::snapshot::Shelf;

#[tokio::test]
async fn an_entry_that_can_not_be_decoded_stops_the_member_before_it_is_applied() {
    let dir = tempfile::tempdir().unwrap();
    let (published, mut events) = Published::new();
    let (fatal, shelf) = (
        FatalSignal::default(),
        Arc::new(Shelf::open(dir.path()).unwrap()),
    );
    let mut machine =
        Machine::<TokioRuntime>::new(published.clone(), shelf, fatal.clone(), Blocking::OwnThread);
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
