//! A run from nothing to its verdict: a cluster of its own, clients at work on it, faults drawn from a seed, and an end.
//!
//! ```text
//!   start ─► work ──────────────────────────────────────► all work ends ─► stop ─► logs, journals ─► judge ─► report
//!              ├─ faults of controllers, one at a time
//!              ├─ faults of agents, one at a time
//!              └─ who leads, what it takes
//! ```
//!
//! The seed draws what is broken, in which order, whom it hits and how long things last; when exactly anything happens
//! is for real processes to say. A cluster that does not get over a fault ends its run early, and what is there is judged all
//! the same. Left out: what kinds of fault there are ([`crate::faults`]) and what is promised ([`crate::checkers`]).

mod ending;
mod gather;
mod rules;
mod scenario;
mod striker;
mod troubles;
mod watcher;
mod work;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub use ending::Ending;
pub use scenario::{Faults, RANDOM, SCENARIOS, Scenario, Span, find};

use crate::checkers::{self, Evidence};
use crate::faults::{self, Kind};
use crate::history::Recorder;
use crate::network::Backend;
use crate::nodes::{Nodes, Options};
use crate::report::{Report, Run};
use crate::traffic::{ExecutionLog, Onlookers};
use rules::make_rules;
use striker::Striker;
use troubles::Troubles;
use watcher::Watcher;
use work::Work;

/// Acknowledged operations a second, over the whole of a run, below which it shows nothing.
const FLOOR: f64 = 5.0;
/// For how long the load goes on behind the last fault: longer than a cluster may take to serve again.
const AFTERWARDS: Duration = Duration::from_secs(3);
/// Entries that stay behind a snapshot: more than a run writes, so that its whole log can be read in the end, also on a
/// controller that joined anew: it is sent all of it.
const KEPT: u64 = 10_000_000;

/// What to run.
#[derive(Debug, Clone)]
pub struct Campaign {
    pub scenario: Scenario,
    pub seed: u64,
    /// Of the time in which things are broken; start and end come on top.
    pub length: Duration,
    pub controllers: usize,
    pub agents: usize,
    pub backend: Backend,
    /// A bug that the binary is told to have, if it is a test build.
    pub planted: Option<String>,
    /// The command that does it again.
    pub replay: String,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub report: Report,
    pub evidence: Evidence,
    /// Where the cluster's files are, if they were kept.
    pub kept: Option<std::path::PathBuf>,
}

/// To be told what happens.
pub type Say<'a> = &'a (dyn Fn(&str) + Sync);

impl Campaign {
    /// Runs it. An error is one of the harness before anything could be judged.
    pub async fn run(&self, ending: &Ending, say: Say<'_>) -> Result<Outcome, crate::Error> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let options = self.options(say);
        let (kinds, left_out) = self.kinds(&options, &mut rng, say)?;
        let mut nodes = Nodes::start(options).await?;
        say(&format!(
            "the cluster is up: {} controllers, {} agents, {} leads",
            self.controllers,
            self.agents,
            nodes.leader().await?
        ));
        let mut troubles = Troubles::default();
        if let Some(bug) = &self.planted {
            self.planted(&nodes, bug)?;
        }
        let evidence = self
            .worked(&nodes, &kinds, rng, (ending, say, &mut troubles))
            .await?;
        say("judging");
        let binary = nodes.cli().binary();
        let report = self.judge(&evidence, troubles, (&kinds, left_out), binary);
        let is_clean = report.verdict == crate::report::Verdict::Valid;
        let kept = (!is_clean).then(|| nodes.scratch().to_owned());
        if !is_clean {
            nodes.keep_files();
        }
        Ok(Outcome {
            report,
            evidence,
            kept,
        })
    }

    /// Only test builds can be told to have a bug, and those that were say so.
    fn planted(&self, nodes: &Nodes, bug: &str) -> Result<(), crate::Error> {
        for id in nodes.controllers() {
            let log = &nodes.node(&id)?.log;
            let text = std::fs::read_to_string(log).map_err(crate::Error::file("reading", log))?;
            if !text.contains("a planted bug") {
                return Err(crate::Error::Invalid(format!(
                    "{} has no bug {bug}: it is no test build, as `cargo build --workspace --bins --tests` makes one",
                    nodes.cli().binary().display()
                )));
            }
        }
        Ok(())
    }

    /// What it needs, as far as that can be had here.
    fn options(&self, say: Say<'_>) -> Options {
        let mut options = Options::new(self.scenario.name, self.backend)
            .controllers(self.controllers)
            .agents(self.agents);
        (options.snapshot_every, options.keep_behind_snapshot) = match self.scenario.span {
            Span::Round => (Some(faults::OFTEN), Some(KEPT)),
            Span::Purged => (Some(faults::OFTEN), None),
            Span::Long => (None, None),
        };
        if let Some(bug) = &self.planted {
            options.environment = vec![("QUORATE_MUTANT".to_owned(), bug.clone())];
        }
        let (options, missing) = faults::equip(options, &self.scenario.kinds());
        for what in missing {
            say(&format!("without {what}"));
        }
        options
    }

    /// What can be broken in this run, said beforehand.
    fn kinds(
        &self,
        options: &Options,
        rng: &mut StdRng,
        say: Say<'_>,
    ) -> Result<(Vec<&'static Kind>, Vec<String>), crate::Error> {
        let (mut possible, mut missing) = (Vec::new(), Vec::new());
        for kind in self.scenario.kinds() {
            match kind.missing(options) {
                None => possible.push(kind),
                Some(why) => missing.push(format!("{}: {why}", kind.name)),
            }
        }
        if possible.is_empty() && !missing.is_empty() {
            let why = missing.join("; ");
            return Err(crate::Error::Missing(format!(
                "nothing of {} can be had here: {why}",
                self.scenario.name
            )));
        }
        if !missing.is_empty() {
            say(&format!("left out: {}", missing.join("; ")));
        }
        let chosen = self.scenario.chosen(&possible, rng);
        let names: Vec<&str> = chosen.iter().map(|kind| kind.name).collect();
        match names.is_empty() {
            true => say("nothing is broken in this run"),
            false => say(&format!("faults: {}", names.join(", "))),
        }
        Ok((chosen, missing))
    }

    /// All that is seen of a cluster at work that is broken meanwhile.
    async fn worked(
        &self,
        nodes: &Nodes,
        kinds: &[&'static Kind],
        mut rng: StdRng,
        (ending, say, troubles): (&Ending, Say<'_>, &mut Troubles),
    ) -> Result<Evidence, crate::Error> {
        let recorder = Recorder::new();
        let executions = ExecutionLog::create(nodes.scratch())?;
        let is_long = self.scenario.span == Span::Long;
        let pause = work::pause(is_long);
        work::share_out(nodes).await?;
        let load = (self.agents, is_long);
        let work = Work::start(&nodes.caller(), &recorder, &executions, load);
        let closed = nodes.agents().pop().unwrap_or_default();
        let beside = (nodes.addresses(), nodes.tls());
        let onlookers = Onlookers::start(
            2,
            rng.random(),
            pause,
            &closed,
            (&beside.0, &beside.1),
            &recorder,
        );
        let watcher = Watcher::new(nodes, &recorder, self.length);

        let ending = ending.after(self.length);
        let (of_agents, of_controllers): (Vec<&Kind>, Vec<&Kind>) =
            kinds.iter().partition(|kind| kind.hits_agents());
        let mut strikers = [of_controllers, of_agents].map(|kinds| Striker {
            nodes,
            kinds,
            rng: StdRng::seed_from_u64(rng.random()),
            recorder: &recorder,
            ending: &ending,
            say,
            troubles: Troubles::default(),
        });
        let [controllers, agents] = &mut strikers;
        tokio::select! {
            never = watcher.run() => match never {},
            never = make_rules(nodes, StdRng::seed_from_u64(rng.random())) => match never {},
            _ended = async {
                tokio::join!(controllers.run(), agents.run());
                // So that it is seen how soon the cluster serves after the last of them.
                tokio::time::sleep(AFTERWARDS).await;
            } => {}
        }
        for striker in strikers {
            troubles.extend(striker.troubles);
        }
        say("everything is healed; waiting for all work to end");
        let evidence = gather::Gathering {
            nodes,
            recorder: &recorder,
            executions: &executions,
            span: self.scenario.span,
            troubles,
        };
        Ok(evidence.finish(work, onlookers, watcher).await)
    }

    fn judge(
        &self,
        evidence: &Evidence,
        troubles: Troubles,
        (kinds, left_out): (&[&'static Kind], Vec<String>),
        binary: &std::path::Path,
    ) -> Report {
        let findings = checkers::judge(evidence);
        let mut versions =
            BTreeMap::from([("harness".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        if let Ok(system) = nix::sys::utsname::uname() {
            let kernel = system.release().to_string_lossy().into_owned();
            versions.insert("kernel".to_owned(), kernel);
        }
        versions.insert("quorate".to_owned(), crate::binary::told(binary));
        let inflicted = |kind: &&&Kind| {
            let mut faults = evidence.history.faults.iter();
            faults.any(|fault| fault.name == kind.name)
        };
        let not_inflicted = kinds.iter().filter(|kind| !inflicted(kind));
        if let Some(bug) = &self.planted {
            versions.insert("planted bug".to_owned(), bug.clone());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "seconds of a run, times a handful"
        )]
        let floor = (self.length.as_secs_f64() * FLOOR) as u64;
        let run = Run {
            scenario: self.scenario.name.to_owned(),
            seed: self.seed,
            versions,
            network: self.backend.name().to_owned(),
            floor,
            least_faults: u64::from(!kinds.is_empty()),
            replay: self.replay.clone(),
            left_out,
            not_inflicted: not_inflicted.map(|kind| kind.name.to_owned()).collect(),
            failures: troubles.failures,
            gaps: troubles.gaps,
        };
        Report::of(run, evidence, findings)
    }
}
