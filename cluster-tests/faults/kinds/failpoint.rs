//! Processes that die at a place in the code, and not just at some time: between a write and its sync, between a commit and
//! its answer. Only test builds can be told to.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use async_trait::async_trait;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;

use crate::faults::agents::resume;
use crate::faults::{Fault, Kind, Need, Whom, stop};
use crate::nodes::Nodes;
use crate::{Error, binary, wait};

/// How a process is brought to a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Any controller comes there by working; not the first time, so that it dies in the middle of its work.
    Working,
    /// A follower that is asked for its vote.
    Voting,
    /// A controller, by working, but rarely: the first time counts.
    Rarely,
    /// Only whoever leads.
    Leading,
    /// Whoever leads, when an agent's lease is over.
    Expiring,
    /// An agent that is given work.
    Agent,
}

const CONTROLLER: &[Need] = &[Need::Failpoints, Need::Controllers(3)];
const SNAPSHOTS: &[Need] = &[Need::Failpoints, Need::Snapshots, Need::Controllers(3)];
const PURGES: &[Need] = &[Need::Failpoints, Need::Purges, Need::Controllers(3)];
const AGENT: &[Need] = &[Need::Failpoints, Need::Agents(2)];

/// A kind for each point; their names here are `die-at-` and those of the points.
macro_rules! kinds {
    ($($name:literal: $way:ident, $needs:ident, $about:literal;)+) => {
        pub const KINDS: [Kind; [$($name),+].len()] = [$(
            Kind {
                name: concat!("die-at-", $name),
                about: $about,
                needs: $needs,
                make: || DieAt::of($name, Way::$way),
            },
        )+];
    };
}

kinds! {
    "append-before": Working, CONTROLLER, "a controller dies before it writes to its log";
    "fsync-before": Working, CONTROLLER, "a controller dies between a write to its log and the sync";
    "fsync-after": Working, CONTROLLER, "a controller dies when a write to its log is synced";
    "append-after": Working, CONTROLLER, "a controller dies when entries are durable and nobody was told";
    "vote-before": Voting, CONTROLLER, "a controller dies before it writes its vote down";
    "vote-after": Voting, CONTROLLER, "a controller dies when its vote is durable and the candidate was not told";
    "apply-before": Working, CONTROLLER, "a controller dies before it applies a committed entry";
    "apply-after": Working, CONTROLLER, "a controller dies when entries are applied and nobody was answered";
    "reply-before": Leading, CONTROLLER, "the leader dies when a submit is committed and its client was not answered";
    "lease-expiry-before": Expiring, CONTROLLER, "the leader dies before it proposes the end of a lease";
    "lease-expiry-after": Expiring, CONTROLLER, "the leader dies when the end of a lease is committed, before it acts on it";
    "snapshot-write-before": Rarely, SNAPSHOTS, "a controller dies before it writes a snapshot";
    "snapshot-write-after": Rarely, SNAPSHOTS, "a controller dies when a snapshot is written and does not count yet";
    "snapshot-rename-before": Rarely, SNAPSHOTS, "a controller dies before a snapshot gets its name";
    "snapshot-rename-after": Rarely, SNAPSHOTS, "a controller dies when a snapshot has its name and is not current";
    "purge-before": Rarely, PURGES, "a controller dies before it purges entries behind a snapshot";
    "purge-after": Rarely, PURGES, "a controller dies when entries behind a snapshot are purged";
    "start-before": Agent, AGENT, "an agent dies when an attempt is in its journal and not started";
    "spawn-before": Agent, AGENT, "an agent dies when it may start a process and has not";
    "report-before": Agent, AGENT, "an agent dies when a verdict is in its journal and not reported";
}

/// For a process that is at work to come to a point, or for a lease to run out and a leader to see to it.
const COMES: Duration = Duration::from_secs(60);
/// How often it is made the leader again.
const TURNS: usize = 4;
const SIGABRT: i32 = Signal::SIGABRT as i32;

/// Why nobody can be told where to die: the binary is no test build.
pub fn possible() -> Result<(), String> {
    let binary = binary::find().map_err(|error| error.to_string())?;
    let listed = Command::new(&binary)
        .env("QUORATE_FAILPOINTS", "list")
        .output();
    let listed = listed.map_err(|error| format!("{}: {error}", binary.display()))?;
    let listed = String::from_utf8_lossy(&listed.stderr);
    match listed.contains("fsync-before") {
        true => Ok(()),
        false => Err(format!(
            "{} is no test build, as `cargo build --workspace --bins --tests` makes one",
            binary.display()
        )),
    }
}

struct DieAt {
    point: &'static str,
    way: Way,
    victim: Option<String>,
    /// Whose lease is to run out.
    stopped: Option<(String, i32)>,
    /// Another one that died for it.
    killed: Option<String>,
}

impl DieAt {
    fn of(point: &'static str, way: Way) -> Box<dyn Fault> {
        Box::new(DieAt {
            point,
            way,
            victim: None,
            stopped: None,
            killed: None,
        })
    }

    fn whom(&self) -> Whom {
        match self.way {
            Way::Working | Way::Rarely => Whom::Controller,
            Way::Voting => Whom::Follower,
            Way::Leading | Way::Expiring => Whom::Leader,
            Way::Agent => Whom::Agent,
        }
    }

    /// Not at once where it comes there all the time.
    fn words(&self) -> String {
        let often = match self.way {
            Way::Working | Way::Agent => "5%",
            Way::Voting | Way::Rarely | Way::Leading | Way::Expiring => "",
        };
        format!("{}={often}return", self.point)
    }

    /// What has to happen for it to come there, beside the work that is going on.
    async fn bring(&mut self, nodes: &Nodes, victim: &str, rng: &mut StdRng) -> Result<(), Error> {
        match self.way {
            Way::Working | Way::Rarely | Way::Agent => {}
            Way::Voting => {
                let leader = Whom::Leader.draw_one(nodes, rng).await?;
                crate::faults::kill(nodes, &leader).await?;
                self.killed = Some(leader);
            }
            Way::Leading => hand_over(nodes, victim).await?,
            Way::Expiring => {
                let agent = Whom::Agent.draw_one(nodes, rng).await?;
                hand_over(nodes, victim).await?;
                let pid = stop(nodes, &agent).await?;
                self.stopped = Some((agent, pid));
            }
        }
        Ok(())
    }

    /// Waits for its end. Where it comes there as the leader only, it is made that again each time that it is another one:
    /// a busy machine may have the leader deposed, and then another one ends the lease.
    async fn until_dead(&mut self, nodes: &Nodes, victim: &str) -> Result<ExitStatus, Error> {
        let node = nodes.node(victim)?;
        if !matches!(self.way, Way::Leading | Way::Expiring) {
            return node.until_fallen(COMES).await;
        }
        for _ in 0..TURNS {
            let what = format!("{victim} to end by itself");
            let ended = wait::until(&what, COMES, || async {
                match (node.fallen().await, nodes.leader().await) {
                    (Some(status), _) => Ok(Some(status)),
                    (None, Ok(leader)) if leader != victim => Ok(None),
                    (None, _) => Err("it still runs".to_owned()),
                }
            });
            if let Some(status) = ended.await? {
                return Ok(status);
            }
            if node.fallen().await.is_some() {
                continue;
            }
            hand_over(nodes, victim).await?;
            if let Some((agent, pid)) = self.stopped.take() {
                // Its lease may have been ended by then, and another one begins.
                resume(nodes, &agent, pid).await?;
                nodes.until_back(&agent).await?;
                self.stopped = Some((agent.clone(), stop(nodes, &agent).await?));
            }
        }
        node.until_fallen(COMES).await
    }
}

/// Makes it the leader, or it dies in the middle of that, which is what it is to do.
async fn hand_over(nodes: &Nodes, victim: &str) -> Result<(), Error> {
    nodes.until_controllers_back().await?;
    let id = nodes.member_id(victim).await?;
    let transfer = ["cluster", "transfer-leadership", &id];
    let handed = nodes.cli().run(&transfer).await?;
    match nodes.node(victim)?.fallen().await {
        None => handed.success().map(drop),
        Some(_) => Ok(()),
    }
}

#[async_trait]
impl Fault for DieAt {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let victim = self.whom().draw_one(nodes, rng).await?;
        self.victim = Some(victim.clone());
        let node = nodes.node(&victim)?;
        nodes.terminate(&victim).await?;
        node.set_failpoints(Some(self.words()));
        // It may be there before anybody looks.
        match nodes.restart(&victim).await {
            Ok(_) | Err(Error::Broken(_)) => {}
            Err(error) => return Err(error),
        }
        if node.fallen().await.is_none() {
            self.bring(nodes, &victim, rng).await?;
        }
        Ok(victim)
    }

    fn hold(&self) -> Duration {
        Duration::ZERO
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let victim = self.victim.clone().unwrap_or_default();
        let died = self.until_dead(nodes, &victim).await;
        let node = nodes.node(&victim)?;
        let died = died.map_err(|error| Error::Invalid(format!("at {}: {error}", self.point)))?;
        let said = std::fs::read_to_string(&node.log).map_err(Error::file("reading", &node.log))?;
        let last = said.lines().rev().take(5).collect::<Vec<_>>().join("\n");
        match (died.signal(), last.contains(self.point)) {
            (Some(SIGABRT), true) => Ok(format!("{victim} died at {}", self.point)),
            _ => Err(Error::Invalid(format!(
                "{victim} ended otherwise: {died}: {last}"
            ))),
        }
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        if let Some((agent, pid)) = self.stopped.take() {
            resume(nodes, &agent, pid).await?;
        }
        if let Some(killed) = self.killed.take() {
            nodes.restart(&killed).await?;
        }
        let Some(victim) = self.victim.take() else {
            return Ok(());
        };
        let node = nodes.node(&victim)?;
        node.set_failpoints(None);
        if node.fallen().await.is_none() {
            // It did not come there. What is left of the fault goes with the process.
            nodes.terminate(&victim).await?;
        }
        nodes.restart(&victim).await.map(drop)
    }
}
