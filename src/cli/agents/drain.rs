//! `agent drain`: asks for it once, then watches until the agent holds nothing.
//!
//! The log drains, whoever leads; this only looks. So Ctrl-C ends the looking alone.

use std::time::Duration;

use clap::Args;
use model::AgentId;
use tokio::time::{Instant, sleep};
use wire::v1;
use wire::v1::agent_order::Order;

use super::order::{asked, print};
use crate::args::Global;
use crate::client::{ConnectArgs, Connection, interrupted, now};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{Progress, span};
use crate::prompt::confirm;
use crate::task::{millis, time};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// How long a cluster may have no leader before looking is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is interrupted has 10 s to end, and an agent that died meanwhile is lost after 15 s: after four
/// times that something is wrong with it.
const AFTER_DEADLINE: Duration = Duration::from_secs(60);

/// Have an agent give up all that it holds, before its machine goes down
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate agent drain a1
  quorate agent drain a1 --deadline 2h --reason 'new kernel' --yes

It gets no new work. What it has not begun goes elsewhere at once; what runs may end until the deadline,
and is interrupted then: it goes elsewhere too, or is `unknown` where it may run only once. Ctrl-C ends
only the looking on; `quorate agent uncordon` ends the drain.")]
pub struct DrainArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Such as a1
    #[arg(value_name = "AGENT")]
    id: AgentId,
    /// How long what runs may go on
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10m")]
    deadline: Duration,
    /// Shown to whoever wonders
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
}

pub async fn drain(cluster: &Connection, args: &DrainArgs, global: &Global) -> Result<Exit> {
    let id = &args.id;
    let limit = humantime::format_duration(args.deadline);
    confirm(
        &format!("Drain {id}? What it still runs after {limit} is interrupted."),
        global,
    )?;
    let order = Order::Drain(v1::DrainAgent {
        reason: args.reason.clone(),
        deadline_ms: millis(args.deadline).0,
    });
    let agent = asked(cluster, id, order).await?;
    let agent = tokio::select! {
        agent = emptied(cluster, agent, args) => agent?,
        () = interrupted() => {
            let hint = format!("to look again: `quorate agent get {id}`; to end it: `quorate agent uncordon {id}`");
            return Err(Failure::interrupted("no longer looking; the drain goes on", hint));
        }
    };
    print(&agent, "holds nothing and gets no new work", global)
}

/// The agent once it holds nothing. Leaders may come and go meanwhile.
async fn emptied(
    cluster: &Connection,
    mut agent: v1::Agent,
    args: &DrainArgs,
) -> Result<v1::Agent> {
    let begun = Instant::now();
    let mut heard = begun;
    let mut progress: Option<Progress> = None;
    loop {
        // Looked at first: one that holds nothing is drained, whatever was said of it since.
        if agent.busy == 0 {
            return Ok(agent);
        }
        let Some(drain) = agent.cordon.as_ref().and_then(|cordon| cordon.drain) else {
            return Err(stopped(&agent));
        };
        let text = left(&agent, &drain, now());
        match &progress {
            Some(progress) => progress.say(&text),
            None => progress = Some(Progress::start(&text)),
        }
        if begun.elapsed() > args.deadline.saturating_add(AFTER_DEADLINE) {
            return Err(late(&agent));
        }
        sleep(LOOK).await;
        match cluster.agent(args.id.as_str()).await {
            Ok(found) => {
                agent = found;
                heard = Instant::now();
            }
            Err(failure) if failure.exit == Exit::Unknown && heard.elapsed() < PATIENCE => {}
            Err(failure) => return Err(failure),
        }
    }
}

/// What a person sees meanwhile.
fn left(agent: &v1::Agent, drain: &v1::Drain, now: u64) -> String {
    let (id, busy) = (&agent.id, agent.busy);
    let time = drain.deadline.saturating_sub(now);
    match (drain.overdue, time) {
        (false, 1..) => format!(
            "{id}: {busy} left, {} until they are interrupted",
            span(time)
        ),
        (false, 0) | (true, _) => format!("{id}: {busy} left, being interrupted"),
    }
}

fn stopped(agent: &v1::Agent) -> Failure {
    let id = &agent.id;
    Failure::refused(
        "refused",
        format!(
            "somebody ended the drain of {id}; it still holds {}",
            agent.busy
        ),
        format!("see `quorate agent get {id}`"),
    )
}

fn late(agent: &v1::Agent) -> Failure {
    let (id, busy) = (&agent.id, agent.busy);
    Failure::unknown(
        "timeout",
        format!("{id} still holds {busy}, though its time is up"),
        format!("the drain goes on; to look again: `quorate agent get {id}`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(busy: u32) -> v1::Agent {
        v1::Agent {
            id: "a1".into(),
            busy,
            ..v1::Agent::default()
        }
    }

    #[test]
    fn what_is_left_is_said_with_the_time_that_it_has() {
        let drain = |deadline, overdue| v1::Drain { deadline, overdue };
        assert_eq!(
            left(&agent(3), &drain(61_000, false), 1_000),
            "a1: 3 left, 60s until they are interrupted"
        );
        for drain in [drain(500, false), drain(61_000, true)] {
            let text = left(&agent(1), &drain, 1_000);
            assert_eq!(text, "a1: 1 left, being interrupted");
        }
    }

    #[test]
    fn a_drain_that_does_not_end_leaves_it_open_and_one_that_was_ended_is_refused() {
        assert_eq!(late(&agent(2)).exit, Exit::Unknown);
        assert!(late(&agent(2)).hint.contains("`quorate agent get a1`"));
        assert_eq!(stopped(&agent(2)).exit, Exit::Refused);
    }
}
