//! An agent: a journal that stays, and the processes of the agent that use it one after the other. The decisions are
//! the product's own worker's; this is the shell around it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::parts::{
    Effect, Input, Ledger, Load, Nature, Record, Recovered, Said, SessionId, Stamp, Urgency,
    Worker, died,
};
use model::{
    AgentId, AgentProfile, AgentProtocol, Fence, Incarnation, Millis, Outcome, Principal, Role,
    Supply, Timestamp, Verdict,
};
use openraft_rt_sim::SimRuntime;
use raft::parts::openraft::async_runtime::AsyncRuntime;
use raft::parts::{NodeId, Watched};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::conn::{self, Conn, Ends, Line};
use crate::dice::Dice;
use crate::labels;
use crate::network::Place;
use crate::process;
use crate::reactor::Signal;
use crate::trace::lock;
use crate::world::World;

/// The product's tick and status.
const TICK: Duration = Duration::from_millis(200);
const STATUS: Duration = Duration::from_secs(5);
/// Between two tries to reach a controller.
const REDIAL: Duration = Duration::from_millis(400);
const DIAL_LIMIT: Duration = Duration::from_secs(1);
/// So much longer the cluster waits than the agent.
const LEASE_MARGIN: Duration = Duration::from_secs(3);

/// Two of what tasks ask for fit.
pub fn supply() -> Supply {
    Supply {
        cpu_milli: 2_000,
        memory_mib: 64,
        gpus: vec![16, 8],
    }
}

pub struct Agent {
    pub place: Place,
    pub id: AgentId,
    pub slots: u32,
    kept: Mutex<Kept>,
    boot: Mutex<Option<Arc<AgentBoot>>>,
    boots: AtomicU64,
    /// Stopped, as by SIGSTOP.
    pub paused: Watched<bool>,
    /// Microseconds that a write of its journal takes.
    journal_latency: Mutex<Range<u64>>,
    /// Millionths by which its clock runs too fast.
    drift: i64,
}

/// What is on its disk.
struct Kept {
    incarnation: Incarnation,
    records: Vec<Record>,
}

/// One process of an agent.
pub struct AgentBoot {
    pub agent: Arc<Agent>,
    pub inputs: mpsc::UnboundedSender<Input>,
    /// How urgently each of its attempts has to end.
    pub attempts: Mutex<BTreeMap<Fence, Watched<Urgency>>>,
    /// Until when its guard lets attempts run, on the boot clock.
    until: AtomicU64,
    alive: AtomicBool,
    lines: Mutex<BTreeMap<SessionId, Line>>,
    /// Attempts that it was told are not the live ones, and as of which entry.
    stale: Mutex<BTreeMap<(SessionId, Fence), u64>>,
    next_session: AtomicU64,
    profile: AgentProfile,
}

impl AgentBoot {
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// The boot clock, which goes on while the process is stopped.
    pub fn now(&self, world: &World) -> Millis {
        Millis(self.agent.drifted(world.trace.micros()) / 1_000)
    }

    /// How long until the cluster gives its work away, if nothing renews its lease; nothing where it has none.
    pub fn until_lost(&self, world: &World) -> Option<Duration> {
        let own = self.until.load(Ordering::Relaxed);
        let left = own.checked_sub(self.now(world).0)?;
        Some(Duration::from_millis(left) + LEASE_MARGIN)
    }

    pub fn lease_holds(&self, world: &World) -> bool {
        self.now(world).0 < self.until.load(Ordering::Relaxed)
    }

    /// What came on one of its connections, from a controller that had applied so much.
    pub fn heard(&self, session: SessionId, stamp: Stamp, said: Said, as_of: u64) {
        if lock(&self.lines).contains_key(&session) {
            if let Said::Stale { fence } = said {
                lock(&self.stale).insert((session, fence), as_of);
            }
            let input = Input::Said {
                session,
                stamp,
                said,
            };
            self.inputs.send(input).ok();
        }
    }
}

impl Agent {
    pub const QUICK: Range<u64> = 0..4_000;

    pub fn new(place: Place, slots: u32, drift: i64, incarnation: [u8; 16]) -> Arc<Agent> {
        let name = format!("a{}", place - crate::network::agent(0));
        let id = AgentId::new(&name).unwrap_or_else(|_| unreachable!("a valid name"));
        Arc::new(Agent {
            place,
            id,
            slots,
            kept: Mutex::new(Kept {
                incarnation: Incarnation(incarnation),
                records: Vec::new(),
            }),
            boot: Mutex::default(),
            boots: AtomicU64::new(0),
            paused: Watched::new(false),
            journal_latency: Mutex::new(Agent::QUICK),
            drift,
        })
    }

    fn drifted(&self, micros: u64) -> u64 {
        let millionths = i64::try_from(micros / 1_000_000).unwrap_or(0);
        micros.saturating_add_signed(millionths * self.drift)
    }

    pub fn set_journal_latency(&self, latency: Range<u64>) {
        *lock(&self.journal_latency) = latency;
    }

    pub fn boot(&self) -> Option<Arc<AgentBoot>> {
        lock(&self.boot).clone()
    }

    /// Whether it runs something.
    pub fn is_busy(&self) -> bool {
        self.runs() > 0
    }

    pub fn has_room(&self) -> bool {
        self.runs() < self.slots as usize
    }

    fn runs(&self) -> usize {
        self.boot().map_or(0, |boot| lock(&boot.attempts).len())
    }

    pub fn forget(&self) {
        lock(&self.boot).take();
    }

    /// Ends the process, and with it what it ran. What the journal was told and has not written is lost.
    pub fn crash(&self, world: &World, why: &str) -> bool {
        // A fault that had only begun would break something once all is mended.
        if world.is_healing() {
            return false;
        }
        let Some(boot) = lock(&self.boot).take() else {
            return false;
        };
        world.trace.say(format_args!("{} crashes: {why}", self.id));
        boot.alive.store(false, Ordering::Relaxed);
        boot.until.store(0, Ordering::Relaxed);
        self.paused.set(false);
        true
    }

    /// Its disk is lost, and with it all that it knew: it comes back as another incarnation.
    pub fn lose_journal(&self, incarnation: [u8; 16]) {
        let mut kept = lock(&self.kept);
        kept.incarnation = Incarnation(incarnation);
        kept.records.clear();
    }

    /// Records are durable. A verdict is final, so an attempt has one, whoever asked for it and when.
    fn keep(&self, world: &World, group: &[Record]) {
        let mut kept = lock(&self.kept);
        for record in group {
            if let Record::Ended(verdict) = record {
                let fence = verdict.fence;
                let ended = |kept: &Record| matches!(kept, Record::Ended(of) if of.fence == fence);
                if kept.records.iter().any(ended) {
                    let what = format!("{} gives {fence} a second verdict", self.id);
                    world.judge.found("one verdict for an attempt", what);
                }
            }
            kept.records.push(record.clone());
        }
    }

    /// What an earlier process left: attempts that were begun and have no verdict are interrupted.
    fn recovered(&self) -> Recovered {
        let mut kept = lock(&self.kept);
        let mut ledger = Ledger::default();
        kept.records.iter().for_each(|record| ledger.apply(record));
        let open: Vec<Fence> = ledger
            .held
            .iter()
            .filter(|(_, held)| held.verdict.is_none())
            .map(|(fence, _)| *fence)
            .collect();
        for fence in open {
            let outcome = Outcome::bare(died());
            let record = Record::Ended(Verdict { fence, outcome });
            ledger.apply(&record);
            kept.records.push(record);
        }
        Recovered {
            incarnation: kept.incarnation,
            settled: ledger.settled().collect(),
            held: ledger.held,
        }
    }

    /// Starts a process on what its journal has.
    pub fn start(self: &Arc<Self>, world: &Arc<World>) -> Arc<AgentBoot> {
        let number = self.boots.fetch_add(1, Ordering::Relaxed) + 1;
        world
            .trace
            .say(format_args!("{} starts, boot {number}", self.id));
        let recovered = self.recovered();
        let (inputs, queue) = mpsc::unbounded_channel();
        let (journal, records) = mpsc::unbounded_channel();
        let boot = Arc::new(AgentBoot {
            agent: self.clone(),
            inputs,
            attempts: Mutex::default(),
            until: AtomicU64::new(0),
            alive: AtomicBool::new(true),
            lines: Mutex::default(),
            stale: Mutex::default(),
            next_session: AtomicU64::new(1),
            profile: AgentProfile {
                id: self.id.clone(),
                incarnation: recovered.incarnation,
                slots: self.slots,
                labels: labels::of(&self.id),
                version: "sim".to_owned(),
                limits: String::new(),
                backends: Vec::new(),
                protocol: AgentProtocol::NEWEST,
                supply: Some(supply()),
            },
        });
        *lock(&self.boot) = Some(boot.clone());
        let nature = Nature {
            id: self.id.clone(),
            slots: self.slots as usize,
            asks_here: false,
        };
        let worker = Worker::new(nature, &recovered);
        let shell = Shell {
            world: world.clone(),
            boot: boot.clone(),
            journal,
        };
        drop(SimRuntime::spawn(shell.run(worker, queue)));
        drop(SimRuntime::spawn(keep_journal(
            world.clone(),
            boot.clone(),
            records,
        )));
        drop(SimRuntime::spawn(tick(world.clone(), boot.clone())));
        for controller in world.controllers.keys() {
            drop(SimRuntime::spawn(keep_connected(
                world.clone(),
                boot.clone(),
                *controller,
            )));
        }
        boot
    }
}

struct Shell {
    world: Arc<World>,
    boot: Arc<AgentBoot>,
    journal: mpsc::UnboundedSender<Record>,
}

impl Shell {
    async fn run(self, mut worker: Worker, mut queue: mpsc::UnboundedReceiver<Input>) {
        let mut paused = self.boot.agent.paused.follow();
        let mut out = Vec::new();
        while let Some(input) = queue.recv().await {
            if paused.wait_for(|paused| !paused).await.is_err() || !self.boot.is_alive() {
                return;
            }
            let stale = self.is_told_stale(&input);
            worker.handle(self.boot.now(&self.world), input, &mut out);
            if let Some((fence, as_of)) = stale
                && out.iter().any(|effect| ends(effect, fence))
            {
                self.world.judge.gave_up(&self.boot.agent.id, fence, as_of);
            }
            for effect in out.drain(..) {
                self.carry_out(effect);
            }
        }
    }

    /// The attempt that is said not to be the live one, and as of which entry. Without a lease everything ends, whatever
    /// is said.
    fn is_told_stale(&self, input: &Input) -> Option<(Fence, u64)> {
        let Input::Said {
            session,
            said: Said::Stale { fence },
            ..
        } = input
        else {
            return None;
        };
        let as_of = lock(&self.boot.stale).remove(&(*session, *fence))?;
        let leased = self.boot.lease_holds(&self.world);
        leased.then_some((*fence, as_of))
    }

    fn carry_out(&self, effect: Effect) {
        match effect {
            Effect::Say { session, body } => {
                if let Some(line) = lock(&self.boot.lines).get(&session) {
                    line.up.send(body).ok();
                }
            }
            Effect::Leased { until } => self.boot.until.store(until.0, Ordering::Relaxed),
            Effect::Begin { fence, number } => self.write(Record::Begun {
                fence,
                attempt: number,
                at: Timestamp(1),
            }),
            Effect::Record(verdict) => self.write(Record::Ended(*verdict)),
            Effect::Settle { fence, .. } => self.write(Record::Settled { fence }),
            Effect::Start(attempt) => {
                let urgency = Watched::new(Urgency::None);
                let told = urgency.follow();
                lock(&self.boot.attempts).insert(attempt.fence, urgency);
                let run = process::run(self.world.clone(), self.boot.clone(), attempt, told);
                drop(SimRuntime::spawn(run));
            }
            Effect::End { fence, urgency } => {
                if let Some(attempt) = lock(&self.boot.attempts).get(&fence) {
                    attempt.set(urgency);
                }
            }
            Effect::Open(_) | Effect::SetBackends(_) => {}
        }
    }

    fn write(&self, record: Record) {
        self.journal.send(record).ok();
    }
}

/// Whether it ends this attempt.
fn ends(effect: &Effect, of: Fence) -> bool {
    match effect {
        Effect::End { fence, .. } => *fence == of,
        Effect::Record(verdict) => verdict.fence == of,
        _ => false,
    }
}

/// The journal's thread: many records with one flush, and then the worker is told.
async fn keep_journal(
    world: Arc<World>,
    boot: Arc<AgentBoot>,
    mut records: mpsc::UnboundedReceiver<Record>,
) {
    let mut paused = boot.agent.paused.follow();
    while let Some(first) = records.recv().await {
        let mut group = vec![first];
        while let Ok(next) = records.try_recv() {
            group.push(next);
        }
        let latency = lock(&boot.agent.journal_latency).clone();
        SimRuntime::sleep(world.dice.micros(&latency)).await;
        if paused.wait_for(|paused| !paused).await.is_err() || !boot.is_alive() {
            return;
        }
        boot.agent.keep(&world, &group);
        for record in group {
            let durable = match record {
                Record::Begun { fence, .. } => Input::Begun(fence),
                Record::Ended(verdict) => Input::Recorded(verdict.fence),
                Record::Opened { .. } | Record::Running { .. } | Record::Settled { .. } => continue,
            };
            boot.inputs.send(durable).ok();
        }
    }
}

/// A machine that is mostly its own; now and then all of it is used by others.
fn load(dice: &Dice) -> Load {
    let cpu = u32::try_from(dice.below(1_001)).unwrap_or(0);
    let (cpu, own) = match dice.permille(100) {
        true => (1_000, 0),
        false => (
            cpu,
            u32::try_from(dice.within(u64::from(cpu / 2)..1_001))
                .unwrap_or(0)
                .min(cpu),
        ),
    };
    Load {
        cpu,
        own,
        memory: u32::try_from(dice.below(1_001)).unwrap_or(0),
        at: Timestamp::default(),
    }
}

async fn tick(world: Arc<World>, boot: Arc<AgentBoot>) {
    let mut paused = boot.agent.paused.follow();
    let mut next_status = Duration::ZERO;
    while boot.is_alive() && paused.wait_for(|paused| !paused).await.is_ok() {
        boot.inputs.send(Input::Tick).ok();
        if next_status.is_zero() {
            next_status = STATUS;
            boot.inputs.send(Input::Load(load(&world.dice))).ok();
        }
        next_status = next_status.saturating_sub(TICK);
        SimRuntime::sleep(TICK).await;
    }
}

/// One session with a controller after the other.
async fn keep_connected(world: Arc<World>, boot: Arc<AgentBoot>, controller: NodeId) {
    let place = boot.agent.place;
    while boot.is_alive() {
        let reached = async {
            world.network.travel(place, controller).await;
            world.network.travel(controller, place).await;
        };
        let reached = SimRuntime::timeout(DIAL_LIMIT, reached).await.is_ok();
        let paused = boot.agent.paused.follow().get();
        if reached
            && !paused
            && boot.is_alive()
            && let Some(there) = world.boot(controller)
        {
            session(&world, &boot, there).await;
        }
        SimRuntime::sleep(REDIAL).await;
    }
}

async fn session(world: &Arc<World>, boot: &Arc<AgentBoot>, there: Arc<crate::controller::Boot>) {
    if there.core.view().state.cluster_id().is_empty() {
        return;
    }
    let (up, said_up) = mpsc::unbounded_channel();
    let (down, said_down) = mpsc::unbounded_channel();
    let session = there.new_session();
    let line = SessionId(boot.next_session.fetch_add(1, Ordering::Relaxed));
    let broken = CancellationToken::new();
    let ends = Ends {
        world: world.clone(),
        agent: boot.clone(),
        controller: there.clone(),
        session,
        line,
        broken: broken.clone(),
    };
    let conn = Conn { down, broken };
    lock(&there.conns).insert(session, conn);
    lock(&boot.lines).insert(line, Line { up });
    let opened = dispatch::Input::SessionOpened {
        session,
        profile: boot.profile.clone(),
        principal: principal(&boot.agent.id),
    };
    there.inputs.send(Signal::Input(opened)).ok();
    boot.inputs.send(Input::Opened { session: line }).ok();
    drop(SimRuntime::spawn(ends.clone().carry_up(said_up)));
    drop(SimRuntime::spawn(ends.clone().carry_down(said_down)));
    conn::until_broken(&ends).await;
    lock(&there.conns).remove(&session);
    lock(&boot.lines).remove(&line);
    let closed = dispatch::Input::SessionClosed { session };
    there.inputs.send(Signal::Input(closed)).ok();
    boot.inputs.send(Input::Closed { session: line }).ok();
}

fn principal(agent: &AgentId) -> Principal {
    Principal {
        name: agent.to_string(),
        role: Role::Agent,
        fingerprint: [0; 32],
    }
}
