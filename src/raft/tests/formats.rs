//! What a controller has on disk, held against golden data of the first release: records of the log, snapshots,
//! `node.json`. The write-ahead files, the witness and the archive have such a test beside their own code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::{Addresses, ControllerId, Generation, State, StateVersion};
use openraft::EntryPayload;

use super::golden::{assert_written, bytes};
use super::harness::register;
use crate::NodeFile;
use crate::archive::need::Need;
use crate::consensus::{Entry, Membership, StoredMembership, Vote, log_id};
use crate::member::{LogIdentity, Node};
use crate::payload::Payload;
use crate::snapshot::Shelf;
use crate::snapshot::manifest::Position;
use crate::store::codec::{Meta, decode_entry, decode_meta, encode_entry, encode_meta};
use crate::store::key::PartKey;

const BLANK: &str = include_str!("../golden/v1/entry_blank.hex");
const NORMAL: &str = include_str!("../golden/v1/entry_normal.hex");
const MEMBERSHIP: &str = include_str!("../golden/v1/entry_membership.hex");
const META: &str = include_str!("../golden/v1/log_meta.hex");
const DATA: &str = include_str!("../golden/v1/snapshot_data.hex");
const MANIFEST: &str = include_str!("../golden/v1/snapshot_manifest.json");
const NODE: &str = include_str!("../golden/v1/node.json");

fn membership() -> Membership {
    let node = |id: u8| Node {
        addresses: Addresses {
            grpc: format!("h{id}:7400"),
            raft: format!("h{id}:7401"),
            https: format!("h{id}:7402"),
        },
        log: LogIdentity([id; 16]),
    };
    let nodes = (1..=3).map(|id| (u64::from(id), node(id)));
    let joint = vec![BTreeSet::from([1, 2]), BTreeSet::from([1, 2, 3])];
    Membership::new(joint, nodes.collect::<BTreeMap<_, _>>()).unwrap()
}

fn model_entry() -> model::Entry {
    model::Entry {
        stamp: model::Timestamp(5),
        wall: model::Timestamp(6),
        ops: vec![register("a")],
    }
}

#[test]
fn records_of_the_log_are_written_and_read_as_the_first_release_did() {
    let payload = Payload::new(model_entry());
    let entries = [
        ("entry_blank.hex", BLANK, EntryPayload::Blank),
        ("entry_normal.hex", NORMAL, EntryPayload::Normal(payload)),
        (
            "entry_membership.hex",
            MEMBERSHIP,
            EntryPayload::Membership(membership()),
        ),
    ];
    let entries: Vec<(&str, &str, Entry)> = (258..)
        .zip(entries)
        .map(|(index, (file, golden, payload))| {
            let log_id = log_id(3, index);
            (file, golden, Entry { log_id, payload })
        })
        .collect();
    let written = entries.iter().map(|(file, golden, entry)| {
        let now = encode_entry(entry).to_vec();
        (*file, *golden, now)
    });
    assert_written(&written.collect::<Vec<_>>());
    for (file, golden, entry) in entries {
        let read = decode_entry(&Bytes::from(bytes(golden))).unwrap();
        assert_eq!(read.log_id, entry.log_id);
        match read.payload {
            EntryPayload::Blank => assert_eq!(file, "entry_blank.hex"),
            EntryPayload::Normal(payload) => {
                assert_eq!(payload.take_entry(), Ok(model_entry()));
            }
            EntryPayload::Membership(members) => assert_eq!(members, membership()),
        }
    }
    let key = PartKey {
        index: 258,
        part: 3,
    };
    let golden = [1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 3];
    assert_eq!(key.encode(), golden);
    assert_eq!(PartKey::decode(&golden), Some(key));
}

#[test]
fn what_the_log_says_of_itself_is_written_and_read_as_the_first_release_did() {
    let meta = Meta {
        sequence: 70_000,
        identity: LogIdentity([7; 16]),
        vote: Some(Vote::new_committed(3, 2)),
        committed: Some(log_id(3, 259)),
        purged: Some(log_id(1, 12)),
        last: Some(log_id(3, 260)),
    };
    assert_written(&[("log_meta.hex", META, encode_meta(&meta).to_vec())]);
    assert_eq!(decode_meta(&Bytes::from(bytes(META))), Ok(meta));
}

fn state() -> State {
    let mut state = State::default();
    let entry = model_entry();
    state.apply(model::Stamped {
        index: 7,
        term: 2,
        membership: 0,
        entry,
    });
    state
}

fn only_directory(of: &Path) -> PathBuf {
    let all = fs::read_dir(of).unwrap().map(|it| it.unwrap().path());
    let all: Vec<_> = all.filter(|path| path.is_dir()).collect();
    assert_eq!(all.len(), 1);
    all[0].clone()
}

#[test]
fn a_snapshot_is_written_and_read_as_the_first_release_did() {
    let dir = tempfile::tempdir().unwrap();
    let (shelf, state) = (Shelf::open(dir.path()).unwrap(), state());
    assert_eq!(state.state_version(), StateVersion(1));
    let position = Position {
        segments: Need::of(&state),
        last_log: Some(log_id(2, 7)),
        membership: StoredMembership::new(Some(log_id(2, 6)), membership()),
        used_ids: BTreeSet::from([1, 2, 3, 4]),
    };
    let hash = hex::encode(state.recompute_hash());
    shelf
        .build(&position, &hash, |file| state.write(file))
        .unwrap();
    let place = |name: &str| only_directory(&dir.path().join("snapshots")).join(name);
    let written = |name: &str| fs::read(place(name)).unwrap();
    assert_written(&[("snapshot_data.hex", DATA, written("data"))]);
    let manifest = String::from_utf8(written("manifest.json")).unwrap();
    assert_eq!(
        manifest,
        MANIFEST.trim_end(),
        "golden/v1/snapshot_manifest.json"
    );

    // As it was found on the disk of the first release.
    fs::write(place("data"), bytes(DATA)).unwrap();
    let manifest = MANIFEST.trim_end();
    fs::write(place("manifest.json"), manifest).unwrap();
    let found = Shelf::open(dir.path()).unwrap().current().unwrap();
    let read = State::read(found.body().unwrap()).unwrap();
    assert_eq!(read.hash(), state.hash());
    let read = found.manifest.position().unwrap();
    assert_eq!(read.membership, position.membership);
    assert_eq!(read.used_ids, position.used_ids);
    assert_eq!(read.segments, position.segments);
}

#[test]
fn node_json_is_written_and_read_as_the_first_release_did() {
    let dir = tempfile::tempdir().unwrap();
    let node = NodeFile {
        cluster_id: "q92c5c30985b4".to_owned(),
        node_id: ControllerId(3),
        generation: Generation(2),
    };
    node.write(dir.path()).unwrap();
    let path = dir.path().join("node.json");
    assert_eq!(fs::read_to_string(&path).unwrap(), NODE);
    fs::write(&path, NODE).unwrap();
    assert_eq!(NodeFile::read(dir.path()).unwrap(), Some(node));
}
