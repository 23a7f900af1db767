//! What a run's clients ask for.

use std::sync::Arc;
use std::time::Duration;

use wire::v1;
use wire::v1::namespaces_client::NamespacesClient;

use crate::cluster;
use crate::error::Error;
use crate::history::Recorder;
use crate::nodes::{Nodes, zone};
use crate::traffic::{Caller, ExecutionLog, Load, Running};
use crate::wait;

const IN_FLIGHT: usize = 12;
/// For so many short tasks at once there is one that requires something.
const PICKY: usize = 10;
/// At most so many tasks at once that last: each writes two lines a second.
const LASTING: usize = 12;
/// A minute, four times as long as a lease: of a task whose agent is lost, the next attempt begins meanwhile.
const LASTING_HALF_SECONDS: u32 = 120;
/// What a short task asks of its agent: more than `sh` takes, and so little that all that an agent may hold at once has
/// room on any machine.
const MEMORY_MIB: u64 = 32;
const CPU_MILLI: u32 = 50;
/// Between two requests of a client that looks on, and of one that works, in runs that are long: their history is kept
/// until it is judged.
const SLOWLY: Duration = Duration::from_millis(500);
const USUAL: Duration = Duration::from_millis(15);
/// For one answer or one result, whatever is broken meanwhile: the longest faults last for a lease and more.
const PATIENCE: Duration = Duration::from_secs(90);

/// Clients at work.
pub struct Work {
    executions: ExecutionLog,
    short: Running,
    picky: Running,
    lasting: Running,
}

impl Work {
    pub fn start(
        caller: &Caller,
        recorder: &Recorder,
        executions: &ExecutionLog,
        (agents, is_long): (usize, bool),
    ) -> Work {
        Work {
            executions: executions.clone(),
            short: load(executions, agents, is_long).start_with(caller, recorder),
            picky: picky(executions, agents, is_long).start_with(caller, recorder),
            lasting: lasting(executions, agents).start_with(caller, recorder),
        }
    }

    /// Submits no more, and waits for what was submitted.
    pub async fn finish(self) -> Result<(), Error> {
        self.executions.finish()?;
        let (short, picky, lasting) = tokio::join!(
            self.short.finish(),
            self.picky.finish(),
            self.lasting.finish()
        );
        short.and(picky).and(lasting).map(drop)
    }
}

/// Two tasks for each agent that outlast its lease, and say again and again that their processes live: half of the slots
/// of few agents, and few of many.
fn lasting(executions: &ExecutionLog, agents: usize) -> Load {
    let executions = executions.clone();
    Load {
        name: "lasting",
        in_flight: (2 * agents).min(LASTING).try_into().unwrap_or(u32::MAX),
        spec: Arc::new(move |number| v1::TaskSpec {
            class: if yields(number) { "batch" } else { "" }.into(),
            preemptible: yields(number),
            ..executions.lasting(LASTING_HALF_SECONDS)
        }),
        patience: PATIENCE,
        pause: Duration::ZERO,
    }
}

/// Short tasks for the most part; some that are at work when something breaks, some that outlast a lease's renewals, some
/// with more output than an entry holds, some that fail, and of all of them some that may start once only, some that go
/// before or behind the others, and some that ask for memory or for a part of a processor.
///
/// As many at once as keep most of the agents at work.
fn load(executions: &ExecutionLog, agents: usize, is_long: bool) -> Load {
    let executions = executions.clone();
    let in_flight = short_ones(agents);
    Load {
        name: "load",
        in_flight: in_flight.try_into().unwrap_or(u32::MAX),
        spec: Arc::new(move |number| {
            let (memory_mib, cpu_milli) = demand(number);
            v1::TaskSpec {
                at_most_once: number % 5 == 0,
                preemptible: number % 5 != 0 && yields(number),
                class: class(number).to_owned(),
                namespace: namespace(number).to_owned(),
                memory_mib,
                cpu_milli,
                ..executions.task(&script(number, in_flight > IN_FLIGHT))
            }
        }),
        patience: PATIENCE,
        pause: between(is_long),
    }
}

/// Short tasks that require one zone of their agent, one of two, or any but a certain one. A load of its own: while the agents
/// that are like that are lost or closed its tasks wait, and a client that waits for one asks for nothing else.
fn picky(executions: &ExecutionLog, agents: usize, is_long: bool) -> Load {
    let executions = executions.clone();
    let short = short_ones(agents);
    Load {
        name: "picky",
        in_flight: short.div_ceil(PICKY).try_into().unwrap_or(u32::MAX),
        spec: Arc::new(move |number| v1::TaskSpec {
            require: vec![required(number, agents)],
            ..executions.task(&script(number, short > IN_FLIGHT))
        }),
        patience: PATIENCE,
        pause: between(is_long),
    }
}

/// At once.
fn short_ones(agents: usize) -> usize {
    IN_FLIGHT.max(agents)
}

/// Of a client that works, between two tasks.
fn between(is_long: bool) -> Duration {
    match is_long {
        true => SLOWLY,
        false => Duration::ZERO,
    }
}

/// One agent at least is like that, another one each time. None is removed, and those that were lost are back in the end, so
/// each of these tasks has an end, too.
fn required(number: u64, agents: usize) -> String {
    let agents = u64::try_from(agents).unwrap_or(u64::MAX).max(1);
    let agent = number % agents;
    let (own, next) = (zone(agent), zone(agent + 1));
    match number / agents % 3 {
        0 => format!("zone={own}"),
        1 => format!("zone in ({own},{next})"),
        _ => format!("zone!={next}"),
    }
}

/// MiB of memory, and thousandths of a processor; nothing for most.
fn demand(number: u64) -> (u64, u32) {
    match number % 20 {
        2 => (MEMORY_MIB, 0),
        6 => (0, CPU_MILLI),
        16 => (MEMORY_MIB, CPU_MILLI),
        _ => (0, 0),
    }
}

/// Between two requests of a client that looks on.
pub fn pause(is_long: bool) -> Duration {
    match is_long {
        true => SLOWLY,
        false => USUAL,
    }
}

/// Half of what lasts gives up its place to others, and so does some of what is short.
fn yields(number: u64) -> bool {
    number % 2 == 1
}

/// Most are as their kind is.
fn class(number: u64) -> &'static str {
    match number % 20 {
        4 => "batch",
        11 => "critical",
        _ => "",
    }
}

/// Of those that are shared out: there are rules by hand about their tasks.
pub const NAMESPACES: [&str; 2] = ["capped", "weighty"];

/// Short tasks, so that the one with a quota holds up none of the others for long.
fn namespace(number: u64) -> &'static str {
    match number % 10 {
        5 => "capped",
        7 | 8 => "weighty",
        _ => "default",
    }
}

/// Says who is to have how much, before the work begins.
pub async fn share_out(nodes: &Nodes) -> Result<(), Error> {
    let addresses = nodes.addresses();
    let settings = [
        v1::SetNamespaceRequest {
            name: "capped".to_owned(),
            max_running: Some(1),
            max_queued: Some(8),
            ..v1::SetNamespaceRequest::default()
        },
        v1::SetNamespaceRequest {
            name: "weighty".to_owned(),
            weight: Some(3),
            ..v1::SetNamespaceRequest::default()
        },
    ];
    for said in settings {
        let mut tries = addresses.iter().cycle();
        wait::until("the namespaces to be set", PATIENCE, || {
            let address = tries.next().map_or("", String::as_str);
            let mut client = NamespacesClient::new(cluster::channel(address, &nodes.tls()));
            let said = said.clone();
            async move { client.set(said).await.map_err(|status| status.to_string()) }
        })
        .await?;
    }
    Ok(())
}

fn script(number: u64, has_many_agents: bool) -> String {
    match number % 50 {
        // Short ones alone would leave most of many agents idle.
        even if has_many_agents && even % 2 == 0 => "sleep 4".to_owned(),
        7 => "sleep 4".to_owned(),
        1 | 13 | 21 | 35 => "sleep 0.3".to_owned(),
        // Beyond the 4 KiB that stay in the log.
        3 | 33 => "head -c 6000 /dev/zero | tr '\\0' x".to_owned(),
        9 | 29 => "exit 3".to_owned(),
        _ => format!("echo {number}"),
    }
}
