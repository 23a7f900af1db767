//! Why a task was assigned where it was: the scores of the best three, and the rest as counts.
//!
//! It stands in the `Assign` entry, so it is the same on every controller. It is small, since it is written for every
//! assignment: names of the terms follow from the policy version (crate `scheduler`).

use std::fmt;
use std::io;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_bytes::ByteBuf;

use crate::entry::read_body;
use crate::id::AgentId;
use crate::version::StateVersion;

/// Why an agent was not a candidate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// Its lease ran out.
    Lost,
    /// The leader has no session with it.
    NotConnected,
    /// A session, but silent for too long.
    Suspect,
    /// All slots are taken.
    NoFreeSlot,
    /// Its labels do not satisfy the task.
    LabelMismatch,
    /// None of its back ends offers the task's model.
    NotOffered,
    /// It was lost under this task before, and others are there.
    LostBefore,
    /// Somebody closed it to new work.
    Cordoned,
    /// Somebody wants it empty.
    Draining,
    /// It said that it would give back whatever it were sent.
    Declining,
    /// Its back ends with the task's model answer as many requests as they may.
    BackendsFull,
    /// It would not fetch what stands beside the task's spec, or does not say what it has.
    TooOld,
    /// It has less of it than the task asks for. (These have short names in the log, for a trace has room for all reasons.)
    #[serde(rename = "lc")]
    LacksCpu,
    #[serde(rename = "lm")]
    LacksMemory,
    #[serde(rename = "lg")]
    LacksGpus,
    #[serde(rename = "lv")]
    LacksVram,
    /// It has enough of it, and others have taken so much that too little is left.
    #[serde(rename = "tc")]
    CpuTaken,
    #[serde(rename = "tm")]
    MemoryTaken,
    #[serde(rename = "tg")]
    GpusTaken,
    #[serde(rename = "tv")]
    VramTaken,
    /// It is kept free for a task that asks for more and has waited for too long.
    #[serde(rename = "k")]
    Kept,
    /// A rule by hand keeps these tasks from it.
    #[serde(rename = "x")]
    Excluded,
    /// A rule by hand pins these tasks to others.
    #[serde(rename = "p")]
    PinnedElsewhere,
    /// It holds as many of these tasks as a rule by hand allows.
    #[serde(rename = "c")]
    Capped,
    /// Its machine is busy with other things, and has had its share of what idle ones get.
    #[serde(rename = "b")]
    Busy,
    /// For reasons that a trace has no room for.
    #[serde(rename = "o")]
    Others,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Lost => "it is lost: its lease ran out",
            Reason::NotConnected => "it has no session with the leader",
            Reason::Suspect => "it is suspect: silent for too long",
            Reason::NoFreeSlot => "all its slots are taken",
            Reason::LabelMismatch => "its labels do not satisfy the task's `require`",
            Reason::NotOffered => "none of its back ends offers the task's model",
            Reason::LostBefore => "it was lost under this task before",
            Reason::Cordoned => "it is cordoned",
            Reason::Draining => "it is being drained",
            Reason::Declining => "it takes nothing now: it is stopping, or can't start anything",
            Reason::BackendsFull => "its back ends with the task's model are at their limit",
            Reason::TooOld => "it is of an older release, which can't run all of it: upgrade it",
            Reason::LacksCpu => "it has fewer processors than the task asks for",
            Reason::LacksMemory => "it has less memory than the task asks for",
            Reason::LacksGpus => "it has fewer GPUs than the task asks for",
            Reason::LacksVram => "its GPUs have less memory than the task asks for",
            Reason::CpuTaken => "too much of its processors is taken by others",
            Reason::MemoryTaken => "too much of its memory is taken by others",
            Reason::GpusTaken => "too many of its GPUs are taken by others",
            Reason::VramTaken => "too much of its GPUs' memory is taken by others",
            Reason::Kept => {
                "it is kept free for a task that asks for more, and has waited for too long"
            }
            Reason::Excluded => "a rule excludes such tasks from it",
            Reason::PinnedElsewhere => "a rule pins such tasks to other agents",
            Reason::Capped => "it holds as many such tasks as a rule allows",
            Reason::Busy => {
                "its machine is busy with other things: it gets a twentieth of what idle ones do"
            }
            Reason::Others => "for another reason",
        })
    }
}

/// Bytes of a trace in the log: it is written for every assignment, and kept with the task's record.
pub const TRACE_MAX_BYTES: usize = 256;

/// One agent's score in a decision; lower is better.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scored {
    pub agent: AgentId,
    /// Weighted sum of the terms, in thousandths.
    pub score: i64,
    /// In the order of the policy version's terms, in thousandths.
    pub terms: Vec<i64>,
}

/// How an assignment was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    pub policy_version: u32,
    pub winner: Scored,
    /// At most two, and fewer where names are so long that they have no room.
    pub runners_up: Vec<Scored>,
    /// All other agents.
    pub refusals: Vec<(Reason, u32)>,
}

impl Trace {
    /// As it goes into an entry at a state version, with as much as [`TRACE_MAX_BYTES`] have room for: the winner always
    /// has, and nearly always why all others were refused. Runners-up are left out from the last on, then reasons, those
    /// of the fewest agents first, which are put together.
    pub fn recorded(mut self, at: StateVersion) -> TraceRecord {
        if at < StateVersion::PACKED_TRACES {
            while size(&self) > TRACE_MAX_BYTES && self.shorten() {}
            return TraceRecord::Open(self);
        }
        loop {
            let packed = self.packed();
            if packed.size() <= TRACE_MAX_BYTES || !self.shorten() {
                return packed;
            }
        }
    }

    /// Leaves out what is missed the least; `false` where nothing can be.
    fn shorten(&mut self) -> bool {
        if self.runners_up.pop().is_some() {
            return true;
        }
        let named = self.refusals.iter().enumerate();
        let named = named.filter(|(_, (reason, _))| *reason != Reason::Others);
        let Some((rarest, _)) = named.min_by_key(|(_, (_, agents))| *agents) else {
            return false;
        };
        let (_, agents) = self.refusals.remove(rarest);
        let others = self.refusals.iter_mut();
        match others.rev().find(|(reason, _)| *reason == Reason::Others) {
            Some((_, known)) => *known = known.saturating_add(agents),
            None => self.refusals.push((Reason::Others, agents)),
        }
        true
    }

    fn packed(&self) -> TraceRecord {
        let scores = (&self.winner, &self.runners_up, &self.refusals);
        let mut bytes = Vec::with_capacity(TRACE_MAX_BYTES);
        rmp_serde::encode::write(&mut bytes, &scores).expect("scores encode into memory");
        TraceRecord::Packed {
            policy_version: self.policy_version,
            scores: bytes.into(),
        }
    }
}

/// A trace as entries and records have it. Each controller reads, hashes and writes it with the task's record several
/// times, and hardly anybody ever looks into it: so it is one run of bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum TraceRecord {
    /// As it was before [`StateVersion::PACKED_TRACES`]: field by field, in the places of a [`Trace`].
    Open(Trace),
    /// Two places: the version, and the other three fields of a [`Trace`] as MessagePack.
    Packed {
        policy_version: u32,
        #[serde(with = "serde_bytes")]
        scores: Box<[u8]>,
    },
}

impl TraceRecord {
    pub fn policy_version(&self) -> u32 {
        match self {
            TraceRecord::Open(trace) => trace.policy_version,
            TraceRecord::Packed { policy_version, .. } => *policy_version,
        }
    }

    /// What it says; `None` where that has things in it that only a later release knows.
    pub fn read(&self) -> Option<Trace> {
        let (policy_version, scores) = match self {
            TraceRecord::Open(trace) => return Some(trace.clone()),
            TraceRecord::Packed {
                policy_version,
                scores,
            } => (*policy_version, scores),
        };
        let (winner, runners_up, refusals) = read_body(&scores[..]).ok()?;
        Some(Trace {
            policy_version,
            winner,
            runners_up,
            refusals,
        })
    }

    /// Bytes in the log.
    pub fn size(&self) -> usize {
        size(self)
    }

    pub fn needs(&self) -> StateVersion {
        match self {
            TraceRecord::Open(_) => StateVersion::FIRST,
            TraceRecord::Packed { .. } => StateVersion::PACKED_TRACES,
        }
    }
}

impl<'de> Deserialize<'de> for TraceRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TraceRecord, D::Error> {
        struct Places;

        impl<'de> Visitor<'de> for Places {
            type Value = TraceRecord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a trace, packed or not")
            }

            /// How many places there are tells the forms apart: MessagePack says so before them.
            fn visit_seq<A: SeqAccess<'de>>(self, places: A) -> Result<TraceRecord, A::Error> {
                let is_packed = places.size_hint() == Some(2);
                let places = SeqAccessDeserializer::new(places);
                if !is_packed {
                    return Trace::deserialize(places).map(TraceRecord::Open);
                }
                let (policy_version, scores) = <(u32, ByteBuf)>::deserialize(places)?;
                Ok(TraceRecord::Packed {
                    policy_version,
                    scores: scores.into_vec().into(),
                })
            }
        }

        deserializer.deserialize_seq(Places)
    }
}

fn size(value: &impl Serialize) -> usize {
    let mut size = Size(0);
    rmp_serde::encode::write(&mut size, value).expect("counting takes anything");
    size.0
}

/// Counts what is written, and keeps nothing.
struct Size(usize);

impl io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limit;

    /// The longest name that there may be.
    fn agent(letter: char) -> AgentId {
        let name: String = std::iter::repeat_n(letter, 63).collect();
        AgentId::new(&name).unwrap()
    }

    /// As high as scores get: of as many attempts as an agent has slots, and as many terms as a formula has.
    fn scored(letter: char) -> Scored {
        let most = 1_000 * i64::from(limit::SLOTS_MAX + limit::PREFETCH_MAX);
        Scored {
            agent: agent(letter),
            score: most,
            terms: vec![most, 1_000, 1_000, 2_000, 1_000, 2_000],
        }
    }

    /// Every reason there is: a new one does not compile until it stands here.
    fn reasons() -> Vec<Reason> {
        let mut all = vec![Reason::Lost];
        while let Some(next) = match all.last().unwrap() {
            Reason::Lost => Some(Reason::NotConnected),
            Reason::NotConnected => Some(Reason::Suspect),
            Reason::Suspect => Some(Reason::NoFreeSlot),
            Reason::NoFreeSlot => Some(Reason::LabelMismatch),
            Reason::LabelMismatch => Some(Reason::NotOffered),
            Reason::NotOffered => Some(Reason::LostBefore),
            Reason::LostBefore => Some(Reason::Cordoned),
            Reason::Cordoned => Some(Reason::Draining),
            Reason::Draining => Some(Reason::Declining),
            Reason::Declining => Some(Reason::BackendsFull),
            Reason::BackendsFull => Some(Reason::TooOld),
            Reason::TooOld => Some(Reason::LacksCpu),
            Reason::LacksCpu => Some(Reason::LacksMemory),
            Reason::LacksMemory => Some(Reason::LacksGpus),
            Reason::LacksGpus => Some(Reason::LacksVram),
            Reason::LacksVram => Some(Reason::CpuTaken),
            Reason::CpuTaken => Some(Reason::MemoryTaken),
            Reason::MemoryTaken => Some(Reason::GpusTaken),
            Reason::GpusTaken => Some(Reason::VramTaken),
            Reason::VramTaken => Some(Reason::Kept),
            Reason::Kept => Some(Reason::Excluded),
            Reason::Excluded => Some(Reason::PinnedElsewhere),
            Reason::PinnedElsewhere => Some(Reason::Capped),
            Reason::Capped => Some(Reason::Busy),
            Reason::Busy | Reason::Others => None,
        } {
            all.push(next);
        }
        all
    }

    fn worst() -> Trace {
        let agents = u32::try_from(limit::AGENTS_MAX).unwrap();
        Trace {
            // More than there will be formulas.
            policy_version: u32::from(u8::MAX),
            winner: scored('w'),
            runners_up: vec![scored('x'), scored('y')],
            refusals: reasons().into_iter().map(|it| (it, agents)).collect(),
        }
    }

    /// In both forms.
    const VERSIONS: [StateVersion; 2] = [StateVersion::FIRST, StateVersion::PACKED_TRACES];

    /// What is read of its record, and how long that is.
    fn recorded(told: &Trace, at: StateVersion) -> (Trace, usize) {
        let record = told.clone().recorded(at);
        assert_eq!(record.needs(), at);
        assert_eq!(record.policy_version(), told.policy_version);
        let bytes = rmp_serde::to_vec(&record).unwrap();
        assert_eq!(record.size(), bytes.len());
        let again: TraceRecord = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(again, record);
        (record.read().unwrap(), bytes.len())
    }

    fn all(trace: &Trace) -> u32 {
        trace.refusals.iter().map(|(_, agents)| *agents).sum()
    }

    #[test]
    fn the_largest_trace_fits_and_keeps_its_winner_and_every_agent() {
        let mut worst = worst();
        assert!(size(&worst) > TRACE_MAX_BYTES, "{}", size(&worst));
        // Two reasons that hold for fewer agents than all others do.
        let (rare, rarer) = (worst.refusals[4].0.clone(), worst.refusals[9].0.clone());
        (worst.refusals[4].1, worst.refusals[9].1) = (2, 1);
        for at in VERSIONS {
            let (fitted, size) = recorded(&worst, at);
            assert!(size <= TRACE_MAX_BYTES, "{size}");
            assert_eq!(
                (&fitted.winner, &fitted.runners_up),
                (&worst.winner, &vec![])
            );
            assert_eq!(all(&fitted), all(&worst));
            let others = fitted.refusals.last().unwrap();
            assert_eq!(others.0, Reason::Others);
            let kept: Vec<_> = fitted.refusals.iter().map(|(reason, _)| reason).collect();
            assert!(
                !kept.contains(&&rare) && !kept.contains(&&rarer),
                "{kept:?}"
            );
        }
        // As many as one cluster is likely to have at once have room whatever the names are.
        worst.refusals.truncate(11);
        let bare = Trace {
            runners_up: Vec::new(),
            ..worst.clone()
        };
        for at in VERSIONS {
            assert_eq!(recorded(&worst, at).0, bare);
        }
    }

    #[test]
    fn a_trace_that_is_cut_off_or_says_more_is_no_trace() {
        for at in VERSIONS {
            let record = worst().recorded(at);
            let bytes = rmp_serde::to_vec(&record).unwrap();
            for end in 0..bytes.len() {
                assert!(rmp_serde::from_slice::<TraceRecord>(&bytes[..end]).is_err());
            }
            let mut longer = bytes.clone();
            longer[0] += 1;
            longer.push(0);
            assert!(rmp_serde::from_slice::<TraceRecord>(&longer).is_err());
        }
    }

    #[test]
    fn what_a_later_release_packed_is_kept_and_not_read() {
        let TraceRecord::Packed { scores, .. } = worst().packed() else {
            panic!("it is packed");
        };
        let more = [&scores[..], b"!"].concat();
        for scores in [
            rmp_serde::to_vec(&("other", "things")).unwrap(),
            more,
            Vec::new(),
        ] {
            let record = TraceRecord::Packed {
                policy_version: 99,
                scores: scores.into(),
            };
            let bytes = rmp_serde::to_vec(&record).unwrap();
            let again: TraceRecord = rmp_serde::from_slice(&bytes).unwrap();
            assert_eq!(
                (&again, again.policy_version(), again.read()),
                (&record, 99, None)
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_has_room_is_left_in_a_trace_and_what_is_left_out_had_none(
            lengths in prop::collection::vec(1..=63usize, 3),
            few in prop::collection::vec(0..=10_000u32, 24),
        ) {
            let mut told = worst();
            let places = std::iter::once(&mut told.winner).chain(&mut told.runners_up);
            for (place, length) in places.zip(lengths) {
                place.agent = AgentId::new(&place.agent.as_str()[..length]).unwrap();
            }
            told.refusals.iter_mut().zip(few).for_each(|((_, agents), few)| *agents = few);
            told.refusals.retain(|(_, agents)| agents % 2 == 0);
            for at in VERSIONS {
                let (fitted, bytes) = recorded(&told, at);
                prop_assert!(bytes <= TRACE_MAX_BYTES);
                let kept = fitted.runners_up.len();
                prop_assert_eq!(&fitted.runners_up[..], &told.runners_up[..kept]);
                prop_assert_eq!(all(&fitted), all(&told));
                if kept < 2 {
                    let runners_up = told.runners_up[..=kept].to_vec();
                    let one_more = Trace { runners_up, ..told.clone() };
                    let size = match at < StateVersion::PACKED_TRACES {
                        true => size(&one_more),
                        false => one_more.packed().size(),
                    };
                    prop_assert!(size > TRACE_MAX_BYTES);
                }
            }
        }
    }
}
