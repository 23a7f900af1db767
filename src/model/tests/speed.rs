//! What a task costs `apply`. Not a test of correctness: run it by name, in release.
//!
//! `cargo test --release -p quorate-model --lib speed -- --ignored --nocapture`

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it measures time"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::world::{
    agent_id, fence, finish_op, incarnation, profile, register_op, spec, submit, submit_op,
};
use crate::{
    Applied, End, Entry, Generation, Op, Outcome, Placement, Reply, Scored, Stamped, State,
    StateVersion, SystemCommand, TaskId, Timestamp, Trace,
};

/// As `bench-tasks` has them with 256 in flight.
const PER_ENTRY: u64 = 24;
const ENTRIES: u64 = 10_000;
/// Rounds of entries that are printed one by one: what is kept must not make them slower.
const STRETCHES: u64 = 5;
const AGENTS: [&str; 4] = ["bench-1", "bench-2", "bench-3", "bench-4"];

/// Four agents of many slots, and nothing else.
struct Log {
    state: State,
    index: u64,
    decoding: Duration,
    applying: Duration,
    publishing: Duration,
}

impl Log {
    fn founded() -> Log {
        let mut log = Log {
            state: State::default(),
            index: 0,
            decoding: Duration::ZERO,
            applying: Duration::ZERO,
            publishing: Duration::ZERO,
        };
        let found = SystemCommand::Found {
            cluster_id: "speed".into(),
            generation: Generation(1),
        };
        let to = StateVersion::NEWEST;
        let registered = AGENTS.map(|name| register_op(profile(name, 1024, 1)));
        let founding = [found, SystemCommand::RaiseVersion { to }].map(Op::System);
        log.apply([founding.to_vec(), registered.to_vec()].concat());
        log
    }

    /// Decodes and applies as a follower does; the last view is dropped when the next is there.
    fn apply(&mut self, ops: Vec<Op>) -> Applied {
        self.index += 1;
        let stamp = Timestamp(1_700_000_000_000 + self.index);
        let entry = Entry {
            stamp,
            wall: stamp,
            ops,
        };
        let bytes = entry.encode();
        drop(entry);
        let began = Instant::now();
        let entry = Entry::decode(&bytes).expect("it was encoded just now");
        let decoded = Instant::now();
        let applied = self.state.apply(Stamped {
            index: self.index,
            term: 1,
            membership: 0,
            entry,
        });
        self.decoding += decoded - began;
        self.applying += decoded.elapsed();
        applied
    }
}

fn scored(agent: &str) -> Scored {
    Scored {
        agent: agent_id(agent),
        score: 125,
        terms: vec![125, 0],
    }
}

fn placed(task: u64) -> Placement {
    let [winner, second, third] =
        [0, 1, 2].map(|ahead| scored(AGENTS[((task + ahead) % 4) as usize]));
    let agent = winner.agent.clone();
    let trace = Trace {
        policy_version: 1,
        winner,
        runners_up: vec![second, third],
        refusals: Vec::new(),
    };
    Placement {
        estimate: None,
        agent,
        incarnation: incarnation(1),
        trace: Arc::new(trace.recorded(StateVersion::NEWEST)),
    }
}

/// Its ids fall anywhere in the table, as random ones do.
fn asked(task: u64) -> Op {
    let mixed = task.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let id = format!("{mixed:016x}-{task:08x}-4bcd-8901");
    submit_op(submit(spec("true"), Some(&id)), Some(placed(task)))
}

#[test]
#[ignore = "a measurement"]
fn what_a_task_costs() {
    let mut log = Log::founded();
    let mut view = log.state.clone();
    let mut open: Vec<(TaskId, u64)> = Vec::new();
    let mut task = 0;
    for stretch in 0..STRETCHES {
        (log.decoding, log.applying) = (Duration::ZERO, Duration::ZERO);
        log.publishing = Duration::ZERO;
        for _ in 0..ENTRIES / STRETCHES {
            let mut ops: Vec<Op> = std::mem::take(&mut open)
                .into_iter()
                .map(|(id, epoch)| {
                    let outcome = Outcome::bare(End::Exited { code: 0 });
                    let agent = log.state.task(id).and_then(|task| task.live());
                    let agent = agent.expect("it was assigned").agent.to_string();
                    finish_op(fence(id.0, epoch), &agent, outcome)
                })
                .collect();
            for _ in 0..PER_ENTRY {
                task += 1;
                ops.push(asked(task));
            }
            let applied = log.apply(ops);
            open.extend(applied.replies.iter().filter_map(|reply| match reply {
                Ok(Reply::Submitted { task, .. }) => Some((*task, log.index)),
                _ => None,
            }));
            let began = Instant::now();
            view = log.state.clone();
            log.publishing += began.elapsed();
        }
        let tasks = u32::try_from(PER_ENTRY * ENTRIES / STRETCHES).expect("few");
        println!(
            "stretch {stretch}: a task is decoded in {:?}, applied in {:?}, published in {:?}",
            log.decoding / tasks,
            log.applying / tasks,
            log.publishing / tasks,
        );
    }
    assert_eq!(view.hash(), log.state.recompute_hash());
    assert_eq!(view.count(crate::StateName::Assigned), PER_ENTRY);
}
