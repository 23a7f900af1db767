//! Records and keys: what is written is read, and what was damaged is not.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::EntryPayload;
use proptest::prelude::*;

use crate::consensus::{Entry, Membership, Vote, log_id};
use crate::member::{LogIdentity, Node};
use crate::payload::Payload;
use crate::store::codec::{Meta, decode_entry, decode_meta, encode_entry, encode_meta, open, seal};
use crate::store::key::PartKey;

fn node(port: u16) -> Node {
    let address = |name: &str| format!("{name}:{port}");
    Node {
        addresses: model::Addresses {
            grpc: address("grpc"),
            raft: address("raft"),
            https: address("https"),
        },
        log: LogIdentity([7; 16]),
    }
}

#[test]
fn entries_of_every_kind_survive_the_round_trip() {
    let nodes = BTreeMap::from([(1, node(1)), (2, node(2)), (3, node(3))]);
    let joint = vec![BTreeSet::from([1]), BTreeSet::from([1, 2])];
    let members = Membership::new(joint, nodes).unwrap();
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(Payload::from_encoded(Bytes::from_static(b"anything"))),
        EntryPayload::Normal(Payload::from_encoded(Bytes::new())),
        EntryPayload::Membership(members),
        EntryPayload::Membership(Membership::default()),
    ];
    for (index, payload) in (5..).zip(payloads) {
        let entry = Entry {
            log_id: log_id(3, index),
            payload,
        };
        let found = decode_entry(&encode_entry(&entry)).unwrap();
        assert_eq!(found.log_id, entry.log_id);
        match (found.payload, entry.payload) {
            (EntryPayload::Blank, EntryPayload::Blank) => {}
            (EntryPayload::Normal(a), EntryPayload::Normal(b)) => {
                assert_eq!(a.encoded(), b.encoded());
            }
            (EntryPayload::Membership(a), EntryPayload::Membership(b)) => assert_eq!(a, b),
            (found, wanted) => panic!("{found:?} instead of {wanted:?}"),
        }
    }
}

#[test]
fn the_meta_record_survives_the_round_trip() {
    let meta = Meta {
        sequence: 12,
        identity: LogIdentity([9; 16]),
        vote: Some(Vote::new_committed(4, 2)),
        committed: Some(log_id(4, 70)),
        purged: None,
        last: Some(log_id(4, 71)),
    };
    assert_eq!(decode_meta(&encode_meta(&meta)), Ok(meta));
    assert_eq!(
        decode_meta(&encode_meta(&Meta::default())),
        Ok(Meta::default())
    );
}

#[test]
fn keys_sort_as_the_log_does() {
    let keys = [
        (0, 0),
        (0, 1),
        (1, 0),
        (255, 7),
        (256, 0),
        (u64::MAX, u16::MAX),
    ];
    let encoded = keys.map(|(index, part)| PartKey { index, part }.encode());
    assert!(encoded.is_sorted());
    for ((index, part), key) in keys.into_iter().zip(encoded) {
        assert_eq!(PartKey::decode(&key), Some(PartKey { index, part }));
    }
}

/// The bytes of the first format, so that later releases can show that they still read it.
#[test]
fn the_first_format_reads_as_written() {
    let payload = Payload::from_encoded(Bytes::from_static(b"abc"));
    let entry = Entry {
        log_id: log_id(2, 258),
        payload: EntryPayload::Normal(payload),
    };
    let golden = "01a7306a4a140000000102000000000000000201000000000000616263";
    let bytes: String = encode_entry(&entry)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(bytes, golden);
}

proptest! {
    // A failing case is printed; a file of it would land beside the crates.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_never_passes(body in prop::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>()) {
        let sealed = seal(&body);
        let mut bytes = sealed.to_vec();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(open(&Bytes::from(bytes)).is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        decode_entry(&bytes).ok();
        decode_meta(&bytes).ok();
        // The same with a valid seal around them.
        decode_entry(&seal(&bytes)).ok();
        decode_meta(&seal(&bytes)).ok();
    }
}
