//! One run, from the founding of a cluster to the verdict.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::{Addresses, Command, ControllerId, Op, Retention, State, SystemCommand};
use openraft_rt_sim::SimRuntime;
use raft::parts::NodeId;
use raft::parts::openraft::async_runtime::AsyncRuntime;

use crate::agents::Agent;
use crate::clients::{Client, insist, someone};
use crate::controller::{Boot, Controller, End};
use crate::dice::Dice;
use crate::disk::{Disk, Mood};
use crate::faults::{self, Inflicted};
use crate::judge::Judge;
use crate::network::{Network, Place, agent, client};
use crate::plan::Plan;
use crate::process;
use crate::report::Report;
use crate::trace::{Trace, lock};

/// How long a healed cluster may take until it takes something new.
const RECOVERY: Duration = Duration::from_secs(10);
/// And until one more of what was accepted is done: a task takes up to 40 s, a retry waits up to a minute, a lease
/// lasts 15 s.
const NEXT_DONE: Duration = Duration::from_secs(150);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

pub struct World {
    pub plan: Plan,
    pub dice: Dice,
    pub network: Network,
    pub trace: Arc<Trace>,
    pub judge: Judge,
    pub controllers: BTreeMap<NodeId, Controller>,
    pub agents: BTreeMap<Place, Arc<Agent>>,
    pub faults: Mutex<Inflicted>,
    standing: Mutex<BTreeMap<NodeId, Standing>>,
    healing: AtomicBool,
    crowds: AtomicU64,
}

/// What a controller is to the cluster, as far as whoever runs it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Member,
    /// Never started yet.
    Spare,
    /// Removed; its id is never used again.
    Gone,
}

/// Controllers that may join later.
const SPARES: u64 = 2;

/// Runs a plan. Panics only where the simulation itself is wrong.
pub fn run(plan: &Plan) -> Report {
    let mut runtime = SimRuntime::with_seed(plan.seed);
    runtime.block_on(async {
        let world = World::new(plan.clone());
        let recovered_after = story(&world).await;
        let report = world.report(recovered_after);
        world.forget();
        report
    })
}

async fn story(world: &Arc<World>) -> Option<Duration> {
    if let Err(why) = found(world).await {
        world.judge.found("a cluster is founded", why);
        return None;
    }
    for agent in world.agents.values() {
        world.start_agent(agent);
    }
    for number in 1..=world.plan.clients {
        let client = Client::new(world.clone(), number);
        drop(SimRuntime::spawn(client.run()));
    }
    drop(SimRuntime::spawn(faults::run(world.clone())));
    SimRuntime::sleep(Duration::from_secs(world.plan.seconds)).await;
    world.heal().await;
    let recovered = first_success(world).await;
    until_done(world).await;
    compare(world).await;
    world.judge.close();
    recovered
}

/// The first controller begins the cluster, the others are let in.
pub async fn found(world: &Arc<World>) -> Result<(), String> {
    let text = |error: raft::Error| error.to_string();
    let first = world.controllers[&1].start(world).await?;
    first.core.initialize().await.map_err(text)?;
    for id in world.members().into_iter().skip(1) {
        world.controllers[&id].start(world).await?;
        let joined = first
            .core
            .members
            .add(ControllerId(id), Addresses::default());
        joined.await.map_err(text)?;
    }
    let retention = Retention {
        hot_tasks: world.plan.hot_tasks,
        segment_entries: 256,
        ..Retention::default()
    };
    let kept = Op::System(SystemCommand::Retain(retention));
    let proposed = first.core.propose(vec![kept], first.core.wall()).await;
    proposed.map(drop).map_err(text)
}

/// How long until something new is accepted.
async fn first_success(world: &Arc<World>) -> Option<Duration> {
    let healed = world.trace.micros();
    let since = || Duration::from_micros(world.trace.micros() - healed);
    let command = Command::CordonAgent {
        agent: world.agents.values().next()?.id.clone(),
        reason: "the first after healing".to_owned(),
    };
    let operator = someone("operator");
    while since() < RECOVERY {
        if insist(world, client(0), &operator, &command).await.is_ok() {
            return Some(since());
        }
    }
    let what = format!("nothing was accepted within {RECOVERY:?}");
    world.judge.found("I13 it recovers", what);
    None
}

/// Everything that was accepted has an end.
async fn until_done(world: &Arc<World>) {
    let mut progress = world.trace.micros();
    let (mut fewest, mut last) = (usize::MAX, String::new());
    while world.trace.micros() - progress < u64::try_from(NEXT_DONE.as_micros()).unwrap_or(u64::MAX)
    {
        if let Some(boot) = world.leading() {
            let state = boot.core.view().state.clone();
            let tasks = state.tasks_newest_first(None);
            let open: Vec<_> = tasks.filter(|task| !task.is_terminal()).collect();
            take_back(world, &state).await;
            let Some(task) = open.first() else { return };
            last = format!("{} is {:?}", task.id, task.phase);
            if open.len() < fewest {
                (fewest, progress) = (open.len(), world.trace.micros());
            }
        }
        SimRuntime::sleep(LOOK).await;
    }
    let what = format!("nothing ended for {NEXT_DONE:?}, {fewest} are left: {last}");
    world.judge.found("I13 what was accepted is done", what);
}

/// A cordon or a rule that was asked for before may come late, and more than once.
async fn take_back(world: &Arc<World>, state: &State) {
    let cordoned = state.agents().filter(|agent| agent.cordon.is_some());
    let agents = cordoned.map(|agent| agent.profile.id.clone());
    let uncordon = agents.map(|agent| Command::UncordonAgent { agent });
    let remove = state
        .rules()
        .map(|rule| Command::RemoveRule { rule: rule.id });
    for command in uncordon.chain(remove) {
        let operator = someone("operator");
        insist(world, client(0), &operator, &command).await.ok();
    }
}

/// All controllers agree, and have all that was promised.
async fn compare(world: &Arc<World>) {
    let mut states: Vec<(NodeId, Arc<State>)> = Vec::new();
    let mut expected = Vec::new();
    for _ in 0..100 {
        expected = current_members(world);
        let view = |id: &NodeId| Some((*id, world.boot(*id)?.core.view().state.clone()));
        states = expected.iter().filter_map(view).collect();
        let index = |at: usize| states.get(at).map(|(_, state)| state.last_applied());
        let same = (1..states.len()).all(|at| index(at) == index(0));
        if !states.is_empty() && states.len() == expected.len() && same {
            break;
        }
        SimRuntime::sleep(LOOK).await;
    }
    if states.is_empty() || states.len() < expected.len() {
        let what = format!("{} of {expected:?} run", states.len());
        world.judge.found("I13 all controllers are back", what);
    }
    for (id, state) in &states {
        world.judge.looked(*id, state);
        world.judge.check_state(state);
        if state.last_applied() != states[0].1.last_applied() {
            let what = format!(
                "c{id} stands at entry {}, c{} at {}",
                state.last_applied(),
                states[0].0,
                states[0].1.last_applied()
            );
            world.judge.found("I13 all controllers catch up", what);
        }
        for (request, task) in world.judge.accepted_tasks() {
            let there = state.task(task).is_some() || archived(world, *id, state, task);
            if !there {
                let what = format!("{request}, accepted as {task}, is not on c{id}");
                world.judge.found("I1 nothing lost", what);
            }
        }
    }
}

/// As the leader has it: a change whose outcome nobody was told may have happened or not.
fn current_members(world: &World) -> Vec<NodeId> {
    let members = world.leading().map(|boot| boot.core.members.effective());
    members.map_or_else(Vec::new, |members| {
        members.nodes().map(|(id, _)| *id).collect()
    })
}

fn archived(world: &World, id: NodeId, state: &State, task: model::TaskId) -> bool {
    let boot = world.boot(id);
    boot.is_some_and(|boot| {
        let found = boot.storage.archive.task(state, task);
        found.is_ok_and(|found| found.is_some())
    })
}

impl World {
    pub fn new(plan: Plan) -> Arc<World> {
        let dice = Dice::new(plan.seed);
        let trace = Arc::new(Trace::new(plan.all_lines));
        trace.say(format_args!("{plan:?}"));
        let drift = || i64::try_from(dice.below(10_000)).unwrap_or(0) - 5_000;
        let all = 1..=plan.controllers + SPARES;
        let standing = all.clone().map(|id| match id <= plan.controllers {
            true => (id, Standing::Member),
            false => (id, Standing::Spare),
        });
        let standing = Mutex::new(standing.collect());
        let controllers = all
            .map(|id| match Controller::new(id, drift(), plan.seed) {
                Ok(controller) => (id, controller),
                Err(error) => panic!("no room for a simulated disk: {error}"),
            })
            .collect();
        let agents = (1..=plan.agents)
            .map(|number| {
                let slots = u32::try_from(dice.within(1..5)).unwrap_or(1);
                let place = agent(number);
                (place, Agent::new(place, slots, drift(), dice.bytes()))
            })
            .collect();
        Arc::new(World {
            network: Network::new(plan.seed),
            judge: Judge::new(trace.clone()),
            dice,
            trace,
            controllers,
            agents,
            faults: Mutex::default(),
            standing,
            healing: AtomicBool::new(false),
            crowds: AtomicU64::new(0),
            plan,
        })
    }

    /// Those that are to run.
    pub fn members(&self) -> Vec<NodeId> {
        let standing = lock(&self.standing);
        let members = standing.iter().filter(|(_, it)| **it == Standing::Member);
        members.map(|(id, _)| *id).collect()
    }

    pub fn spare(&self) -> Option<NodeId> {
        let standing = lock(&self.standing);
        let mut spares = standing.iter().filter(|(_, it)| **it == Standing::Spare);
        spares.next().map(|(id, _)| *id)
    }

    pub fn enlist(&self, id: NodeId, standing: Standing) {
        lock(&self.standing).insert(id, standing);
    }

    pub fn boot(&self, id: NodeId) -> Option<Arc<Boot>> {
        self.controllers.get(&id)?.boot()
    }

    pub fn is_dark(&self, id: NodeId) -> bool {
        self.controllers.get(&id).is_some_and(Controller::is_dark)
    }

    /// A number of its own for each crowd.
    pub fn next_crowd(&self) -> u64 {
        self.crowds.fetch_add(1, Ordering::Relaxed)
    }

    pub fn is_healing(&self) -> bool {
        self.healing.load(Ordering::Relaxed)
    }

    /// Whoever leads, as far as it knows itself; of two the one of the later term.
    pub fn leader(&self) -> Option<NodeId> {
        let leading = self.controllers.keys().filter_map(|id| {
            let now = self.boot(*id)?.core.leadership.get();
            now.is_me.then_some((now.term, *id))
        });
        leading.max().map(|(_, id)| id)
    }

    /// Its process.
    pub fn leading(&self) -> Option<Arc<Boot>> {
        self.boot(self.leader()?)
    }

    /// Starts a controller that does not run, where its disk lets it.
    pub async fn start(self: &Arc<Self>, id: NodeId) {
        let controller = &self.controllers[&id];
        if controller.boot().is_some() || !self.members().contains(&id) {
            return;
        }
        let Err(why) = controller.start(self).await else {
            return;
        };
        let disk = &controller.disk;
        if disk.log.is_flipped() {
            disk.refused.fetch_add(1, Ordering::Relaxed);
            self.trace
                .say(format_args!("c{id} refuses to start: {why}"));
        } else if disk.mood() == Mood::Well {
            self.judge
                .found("it opens what it wrote", format!("c{id}: {why}"));
        }
    }

    pub fn start_agent(self: &Arc<Self>, agent: &Arc<Agent>) {
        if agent.boot().is_none() {
            agent.start(self);
        }
    }

    /// Ends all faults: everything runs, and everything is connected.
    async fn heal(self: &Arc<Self>) {
        self.healing.store(true, Ordering::Relaxed);
        self.trace.say("healing");
        self.network.mend_all();
        for id in self.members() {
            let controller = &self.controllers[&id];
            let failing = controller.disk.mood() != Mood::Well;
            controller.doom(None);
            controller.disk.set_mood(Mood::Well);
            controller.disk.set_latency(Disk::QUICK);
            controller.disk.log.unflip();
            if failing {
                controller.crash(self, "its disk failed", End::Killed);
            }
            self.start(id).await;
        }
        // An agent begins once what an earlier process of it ran is gone.
        SimRuntime::sleep(2 * process::LOOK).await;
        for agent in self.agents.values() {
            agent.paused.set(false);
            agent.set_journal_latency(Agent::QUICK);
            self.start_agent(agent);
        }
    }

    fn report(&self, recovered_after: Option<Duration>) -> Report {
        let (violations, counts) = self.judge.result();
        Report {
            seed: self.plan.seed,
            violations,
            digest: self.trace.digest(),
            lines: self.trace.lines(),
            simulated: Duration::from_micros(self.trace.micros()),
            faults: lock(&self.faults).clone(),
            counts,
            network: self.network.swallowed(),
            recovered_after,
        }
    }

    /// Its parts hold each other.
    pub fn forget(&self) {
        self.controllers.values().for_each(Controller::forget);
        self.agents.values().for_each(|agent| agent.forget());
    }
}
