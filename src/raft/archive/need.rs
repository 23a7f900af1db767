//! A segment as a snapshot names it: what a controller has to have before the snapshot is its state.

use std::ops::Range;

use model::{Content, Segment, State};
use serde::{Deserialize, Serialize};

/// Part of a snapshot's manifest, so its names are for people, too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    pub first: u64,
    /// The first index that is not wanted any more.
    pub end: u64,
    pub closed: bool,
    pub records: u64,
    pub bytes: u64,
    /// The sum of the records' digests.
    #[serde(with = "hexadecimal")]
    pub digest: [u8; 32],
}

impl Need {
    pub fn closed(segment: &Segment) -> Self {
        Self {
            first: segment.first,
            end: segment.end,
            closed: true,
            records: segment.content.records,
            bytes: segment.content.bytes,
            digest: segment.content.digest,
        }
    }

    /// All of a state's, the open one up to where the state stands.
    pub fn of(state: &State) -> Vec<Self> {
        let open = state.open_segment().map(|segment| Self {
            end: state.last_applied() + 1,
            closed: false,
            ..Self::closed(segment)
        });
        state.segments().map(Self::closed).chain(open).collect()
    }

    pub fn range(&self) -> Range<u64> {
        self.first..self.end
    }

    pub fn content(&self) -> Content {
        Content {
            records: self.records,
            bytes: self.bytes,
            digest: self.digest,
        }
    }
}

mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(digest: &[u8; 32], out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&hex::encode(digest))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(from)?;
        let mut digest = [0; 32];
        let decoded = hex::decode_to_slice(text, &mut digest);
        let wrong = |_| de::Error::custom("a digest has 64 hexadecimal digits");
        decoded.map_err(wrong).map(|()| digest)
    }
}
