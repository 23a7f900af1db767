//! A process of an attempt: it takes its time, ends when it is told to or when the guard beside its agent ends it,
//! and the judge hears of its beginning and its end.
//!
//! A command is `work MILLISECONDS CODE`.

use std::sync::Arc;
use std::time::Duration;

use agent::parts::{Attempt, Captured, Ended, Exit, Input, Urgency};
use model::Timestamp;
use openraft_rt_sim::SimRuntime;
use raft::parts::Follower;
use raft::parts::openraft::async_runtime::AsyncRuntime;

use crate::agents::AgentBoot;
use crate::controller::MORNING;
use crate::trace::lock;
use crate::world::World;

/// How often the guard looks at the lease, and a killed process is noticed.
pub const LOOK: Duration = Duration::from_millis(50);

/// SIGKILL.
const KILL: i32 = 9;

/// What a process that was asked to end takes at most.
const GRACE: std::ops::Range<u64> = 0..2_000;

pub fn command(millis: u64, code: i32) -> Vec<String> {
    vec!["work".to_owned(), millis.to_string(), code.to_string()]
}

pub async fn run(
    world: Arc<World>,
    boot: Arc<AgentBoot>,
    attempt: Attempt,
    urgency: Follower<Urgency>,
) {
    let fence = attempt.fence;
    let number = |at: usize| {
        attempt
            .spec
            .command
            .get(at)
            .and_then(|word| word.parse().ok())
    };
    let mut left = Duration::from_millis(number(1).unwrap_or(0));
    let code = attempt
        .spec
        .command
        .get(2)
        .and_then(|word| word.parse().ok());
    let clock = || Timestamp(MORNING + world.trace.micros() / 1_000);
    let started_at = clock();
    world.judge.started(&boot.agent.id, &attempt);
    boot.inputs.send(Input::Started(fence)).ok();
    let mut grace = None;
    let exit = loop {
        if !boot.lease_holds(&world) || !boot.is_alive() {
            break Exit::Signalled(KILL);
        }
        match urgency.get() {
            Urgency::AtOnce => break Exit::Stopped,
            Urgency::Gently => {
                let grace = grace.get_or_insert_with(|| world.dice.millis(GRACE));
                if grace.is_zero() {
                    break Exit::Stopped;
                }
                *grace = grace.saturating_sub(LOOK);
            }
            Urgency::None => {}
        }
        if left.is_zero() {
            break Exit::Exited(code.unwrap_or(0));
        }
        SimRuntime::sleep(left.min(LOOK)).await;
        left = left.saturating_sub(LOOK);
    };
    world.judge.ended(&boot.agent.id, fence, &exit);
    lock(&boot.attempts).remove(&fence);
    let ended = Ended {
        exit,
        captured: Captured::default(),
        started_at,
        finished_at: clock(),
    };
    let ended = Box::new(ended);
    boot.inputs.send(Input::Ended { fence, ended }).ok();
}
