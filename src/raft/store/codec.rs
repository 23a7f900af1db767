//! The records of the log as they stand on disk and travel to peers.
//!
//! Every record is `{format u8, crc32c u32, length u32, body}`, little endian; the checksum covers the
//! body. An entry's body is `{kind u8, term u64, index u64, payload}`: the index is inside the checked
//! part, so a record that is found under another key is noticed. Payloads are opaque here, except a
//! membership, which is positional MessagePack of a struct of ours.
//!
//! A record longer than one part is split: sled turns large values into files that nothing syncs, so
//! no value may exceed 4 KiB.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use serde::{Deserialize, Serialize};

use crate::consensus::{Entry, LogId, Membership, NodeId, Vote, log_id, term_of};
use crate::member::{LogIdentity, Node};
use crate::payload::Payload;

/// Bytes of a value in the engine, see the module's text.
pub const PART_BYTES: usize = 4096;

/// A record may not be longer: 64 MiB, far above what an entry may hold, so that a damaged length
/// can't make anybody allocate without end.
pub const RECORD_BYTES: usize = 64 << 20;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 9;
const ENTRY_HEAD_BYTES: usize = 17;

const KIND_BLANK: u8 = 0;
const KIND_NORMAL: u8 = 1;
const KIND_MEMBERSHIP: u8 = 2;

/// Why bytes are not the record that they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("the record is cut off: {have} bytes of {want}")]
    Cut { have: usize, want: usize },
    #[error("the checksum differs: stored {stored:08x}, computed {computed:08x}")]
    Checksum { stored: u32, computed: u32 },
    #[error("record format {0} is unknown to this release")]
    Format(u8),
    #[error("the record's content makes no sense: {0}")]
    Content(String),
}

/// Puts the header before a body.
pub fn seal(body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES + body.len());
    seal_into(&mut out, |out| out.put_slice(body));
    out.freeze()
}

fn seal_into(out: &mut BytesMut, write_body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(FORMAT);
    out.put_u64_le(0);
    write_body(out);
    let body = &out[HEADER_BYTES..];
    let checksum = crc32c::crc32c(body);
    let length = u32::try_from(body.len()).expect("bodies are bounded by RECORD_BYTES");
    out[1..5].copy_from_slice(&checksum.to_le_bytes());
    out[5..9].copy_from_slice(&length.to_le_bytes());
}

/// Length of a whole record, told from its first bytes.
pub fn record_length(start: &[u8]) -> Result<usize, Damage> {
    let Some(header) = start.get(..HEADER_BYTES) else {
        return Err(Damage::Cut {
            have: start.len(),
            want: HEADER_BYTES,
        });
    };
    if header[0] != FORMAT {
        return Err(Damage::Format(header[0]));
    }
    let body = le_u32(&header[5..9]) as usize;
    if body > RECORD_BYTES {
        return Err(Damage::Content(format!("a length of {body} bytes")));
    }
    Ok(HEADER_BYTES + body)
}

/// Checks a record and returns its body.
pub fn open(record: &Bytes) -> Result<Bytes, Damage> {
    let want = record_length(record)?;
    if record.len() != want {
        return Err(Damage::Cut {
            have: record.len(),
            want,
        });
    }
    let body = record.slice(HEADER_BYTES..);
    let (stored, computed) = (le_u32(&record[1..5]), crc32c::crc32c(&body));
    if stored != computed {
        return Err(Damage::Checksum { stored, computed });
    }
    Ok(body)
}

pub fn encode_entry(entry: &Entry) -> Bytes {
    let (kind, payload) = match &entry.payload {
        EntryPayload::Blank => (KIND_BLANK, Bytes::new()),
        EntryPayload::Normal(payload) => (KIND_NORMAL, payload.encoded().clone()),
        EntryPayload::Membership(members) => (KIND_MEMBERSHIP, encode_membership(members)),
    };
    let mut out = BytesMut::with_capacity(HEADER_BYTES + ENTRY_HEAD_BYTES + payload.len());
    seal_into(&mut out, |out| {
        out.put_u8(kind);
        out.put_u64_le(term_of(&entry.log_id));
        out.put_u64_le(entry.log_id.index);
        out.put_slice(&payload);
    });
    out.freeze()
}

pub fn decode_entry(record: &Bytes) -> Result<Entry, Damage> {
    let body = open(record)?;
    if body.len() < ENTRY_HEAD_BYTES {
        return Err(Damage::Cut {
            have: body.len(),
            want: ENTRY_HEAD_BYTES,
        });
    }
    let log_id = log_id(le_u64(&body[1..9]), le_u64(&body[9..17]));
    let payload = body.slice(ENTRY_HEAD_BYTES..);
    let payload = match body[0] {
        KIND_BLANK => EntryPayload::Blank,
        KIND_NORMAL => EntryPayload::Normal(Payload::from_encoded(payload)),
        KIND_MEMBERSHIP => EntryPayload::Membership(decode_membership(&payload)?),
        other => return Err(Damage::Content(format!("entry kind {other}"))),
    };
    Ok(Entry { log_id, payload })
}

/// Everything about the log that is not an entry, in one record: one hot key instead of four.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Raised by every write. The witness file holds the last one acknowledged.
    pub sequence: u64,
    pub identity: LogIdentity,
    pub vote: Option<Vote>,
    pub committed: Option<LogId>,
    pub purged: Option<LogId>,
    /// Last entry, or `purged` where there is none.
    pub last: Option<LogId>,
}

#[derive(Serialize, Deserialize)]
struct MetaRecord {
    sequence: u64,
    identity: LogIdentity,
    vote: Option<(u64, NodeId, bool)>,
    committed: Option<(u64, u64)>,
    purged: Option<(u64, u64)>,
    last: Option<(u64, u64)>,
}

pub fn encode_meta(meta: &Meta) -> Bytes {
    let pair = |id: &LogId| (term_of(id), id.index);
    let record = MetaRecord {
        sequence: meta.sequence,
        identity: meta.identity,
        vote: meta
            .vote
            .map(|v| (v.leader_id.term, v.leader_id.voted_for, v.committed)),
        committed: meta.committed.as_ref().map(pair),
        purged: meta.purged.as_ref().map(pair),
        last: meta.last.as_ref().map(pair),
    };
    seal(&rmp_serde::to_vec(&record).expect("plain numbers always serialize"))
}

pub fn decode_meta(record: &Bytes) -> Result<Meta, Damage> {
    let record: MetaRecord = rmp_serde::from_slice(&open(record)?).map_err(content)?;
    let id = |(term, index)| log_id(term, index);
    Ok(Meta {
        sequence: record.sequence,
        identity: record.identity,
        vote: record.vote.map(|(term, node, committed)| match committed {
            true => Vote::new_committed(term, node),
            false => Vote::new(term, node),
        }),
        committed: record.committed.map(id),
        purged: record.purged.map(id),
        last: record.last.map(id),
    })
}

/// A membership as it is persisted: in entries and in the manifests of snapshots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipRecord {
    pub configs: Vec<BTreeSet<NodeId>>,
    pub nodes: BTreeMap<NodeId, Node>,
}

impl From<&Membership> for MembershipRecord {
    fn from(members: &Membership) -> Self {
        Self {
            configs: members.get_joint_config().clone(),
            nodes: members
                .nodes()
                .map(|(id, node)| (*id, node.clone()))
                .collect(),
        }
    }
}

impl TryFrom<MembershipRecord> for Membership {
    type Error = Damage;

    fn try_from(record: MembershipRecord) -> Result<Self, Damage> {
        // The membership of a member that belongs to none yet; openraft's constructor refuses it.
        if record.configs.is_empty() && record.nodes.is_empty() {
            return Ok(Self::default());
        }
        Self::new(record.configs, record.nodes).map_err(content)
    }
}

fn encode_membership(members: &Membership) -> Bytes {
    let record = MembershipRecord::from(members);
    Bytes::from(rmp_serde::to_vec(&record).expect("plain maps always serialize"))
}

fn decode_membership(bytes: &[u8]) -> Result<Membership, Damage> {
    rmp_serde::from_slice::<MembershipRecord>(bytes)
        .map_err(content)?
        .try_into()
}

fn content(error: impl ToString) -> Damage {
    Damage::Content(error.to_string())
}

fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().expect("the caller cut four bytes"))
}

fn le_u64(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("the caller cut eight bytes"))
}
