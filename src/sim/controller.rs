//! A controller: a disk that stays, and the processes that use it one after the other.
//!
//! A crash takes effect at once: the process is off the disk and off the network, and whatever its tasks still do
//! before they end is without effect.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dispatch::SessionId;
use model::{Addresses, Generation, State, Timestamp, Versions};
use openraft_rt_sim::SimRuntime;
use raft::parts::openraft::Raft;
use raft::parts::openraft::async_runtime::AsyncRuntime;
use raft::parts::{
    Archive, Blobs, Blocking, Core, FatalSignal, LogStore, Machine, Me, Node, NodeId, Parts,
    Patience, Published, Shelf, Steps, Storage, Tail, Types, finish_changes, open_stepped,
    openraft_config,
};
use raft::{Clocks, EventStream, Timers};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::conn::Conn;
use crate::disk::{Disk, Handle, Mood};
use crate::reactor::{self, Renewal, Signal};
use crate::trace::lock;
use crate::wires::Wires;
use crate::world::World;

pub type SimCore = Core<SimRuntime, Wires>;
pub type Consensus = Raft<Types<SimRuntime>, Machine<SimRuntime>>;

/// The product's.
const PATIENCE: Patience = Patience {
    propose: Duration::from_secs(10),
    read: Duration::from_secs(5),
};

/// The wall clock at the beginning.
pub const MORNING: u64 = 1_800_000_000_000;

pub struct Controller {
    pub id: NodeId,
    pub disk: Arc<Disk>,
    boot: Mutex<Option<Arc<Boot>>>,
    boots: AtomicU64,
    /// Without power: not even its network card answers.
    dark: AtomicBool,
    /// Its process is to be killed in the middle of a write.
    doomed: Mutex<Option<Doom>>,
    /// Milliseconds that the wall clock is off.
    wall_off: Arc<AtomicI64>,
    /// Millionths by which its clock runs too fast.
    drift: i64,
}

/// In the middle of which write a process is to be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doom {
    Any,
    Vote,
    /// In any, of which a part comes to the disk.
    Half,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Killed,
    /// And nothing of what waits for the disk comes there.
    KilledInWrite,
    /// And of what waits for the disk a part comes there.
    KilledInHalf,
    /// And its machine is off.
    PowerOff,
}

/// One process.
pub struct Boot {
    pub id: NodeId,
    pub number: u64,
    pub core: Arc<SimCore>,
    pub storage: Storage,
    pub inputs: mpsc::UnboundedSender<Signal>,
    pub renewals: mpsc::UnboundedSender<Renewal>,
    pub conns: Mutex<BTreeMap<SessionId, Conn>>,
    next_session: AtomicU64,
    alive: Arc<AtomicBool>,
    steps: Arc<Steps>,
    stopping: CancellationToken,
}

impl Boot {
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    pub fn new_session(&self) -> SessionId {
        SessionId(self.next_session.fetch_add(1, Ordering::Relaxed))
    }
}

impl Controller {
    pub fn new(id: NodeId, drift: i64, seed: u64) -> std::io::Result<Controller> {
        Ok(Controller {
            id,
            disk: Disk::new(id, seed ^ id)?,
            boot: Mutex::default(),
            boots: AtomicU64::new(0),
            dark: AtomicBool::new(false),
            doomed: Mutex::default(),
            wall_off: Arc::default(),
            drift,
        })
    }

    pub fn boot(&self) -> Option<Arc<Boot>> {
        lock(&self.boot).clone()
    }

    pub fn is_dark(&self) -> bool {
        self.dark.load(Ordering::Relaxed)
    }

    pub fn set_wall_off(&self, millis: i64) {
        self.wall_off.store(millis, Ordering::Relaxed);
    }

    /// Kills it in the middle of its next write of this sort.
    pub fn doom(&self, doom: Option<Doom>) {
        *lock(&self.doomed) = doom;
    }

    pub fn is_doomed(&self) -> bool {
        lock(&self.doomed).is_some()
    }

    /// How many processes there were.
    pub fn boots(&self) -> u64 {
        self.boots.load(Ordering::Relaxed)
    }

    /// Ends the process, if there is one.
    pub fn crash(&self, world: &World, why: &str, end: End) -> bool {
        let Some(boot) = lock(&self.boot).take() else {
            return false;
        };
        world.trace.say(format_args!("c{} crashes: {why}", self.id));
        self.leave(&boot, end, world.dice.below(4));
        boot.alive.store(false, Ordering::Relaxed);
        self.dark.store(end == End::PowerOff, Ordering::Relaxed);
        boot.stopping.cancel();
        for conn in lock(&boot.conns).values() {
            conn.broken.cancel();
        }
        drop(SimRuntime::spawn(async move {
            // It takes part in nothing any more; this only frees it.
            boot.core.raft.shutdown().await.ok();
        }));
        true
    }

    /// What was on its way to the disk may have come there, or a part of it, though nobody was told.
    fn leave(&self, boot: &Boot, end: End, drawn: u64) {
        if self.disk.mood() != Mood::Well {
            return;
        }
        match (end, drawn) {
            (End::KilledInWrite, _) | (End::Killed | End::PowerOff, 0) => {}
            (End::KilledInHalf, _) | (End::Killed | End::PowerOff, 1) => {
                self.disk.set_mood(Mood::Tearing);
                boot.steps.write();
                self.disk.set_mood(Mood::Well);
            }
            (End::Killed | End::PowerOff, _) => boot.steps.write(),
        }
    }

    /// What was acknowledged is what a start goes on from, whatever a crash or a disk has left of it.
    fn check(&self, world: &World) {
        match self.disk.log.verify() {
            Ok(Tail::Whole) => {}
            Ok(Tail::Cut) => {
                self.disk.cut.fetch_add(1, Ordering::Relaxed);
                world.judge.count("torn tails cut off");
                world
                    .trace
                    .say(format_args!("c{} cuts a torn tail off", self.id));
            }
            Ok(Tail::Untold) => world.judge.count("writes found that nobody was told of"),
            Err(what) => {
                let what = format!("c{} starts with {what}", self.id);
                world.judge.found("I1 what was acknowledged is read", what);
            }
        }
    }

    /// Lets go of everything at the end of a run.
    pub fn forget(&self) {
        lock(&self.boot).take();
    }

    /// Starts a process on what the disk has. The reason of a refusal is for a person.
    pub async fn start(&self, world: &Arc<World>) -> Result<Arc<Boot>, String> {
        self.dark.store(false, Ordering::Relaxed);
        let number = self.boots.fetch_add(1, Ordering::Relaxed) + 1;
        let (alive, fatal) = (Arc::new(AtomicBool::new(true)), FatalSignal::default());
        let (log, steps) = self.open(world, &alive, &fatal)?;
        let storage = self.storage().map_err(|error| error.to_string())?;
        let (published, events) = Published::new();
        let machine = Machine::new(
            published.clone(),
            storage.clone(),
            fatal.clone(),
            Blocking::InPlace,
            Versions::OF_THIS_RELEASE,
        );
        let wires = Wires {
            me: self.id,
            alive: alive.clone(),
            world: world.clone(),
        };
        let every = world.plan.snapshot_every;
        let config = openraft_config("sim", Timers::default(), every, None);
        let config = config.map_err(|error| error.to_string())?;
        self.write_behind(world, &steps, &alive);
        let raft = Raft::build(self.id, config, wires.clone(), log.clone(), machine).await;
        let raft = raft.map_err(|error| error.to_string())?;
        published.go_live();
        raft.run();
        let stopping = CancellationToken::new();
        let core = Core::start(Parts {
            raft,
            log,
            published,
            peers: Arc::new(wires),
            me: self.me(),
            clock: self.clocks(world),
            patience: PATIENCE,
            snapshot_bytes: u64::MAX,
            fatal: fatal.clone(),
            stopping: stopping.clone(),
        });
        let (inputs, signals) = mpsc::unbounded_channel();
        let (renewals, asked) = mpsc::unbounded_channel();
        let boot = Arc::new(Boot {
            id: self.id,
            number,
            core,
            storage,
            inputs,
            renewals,
            conns: Mutex::default(),
            next_session: AtomicU64::new(1),
            alive,
            steps,
            stopping,
        });
        *lock(&self.boot) = Some(boot.clone());
        world
            .trace
            .say(format_args!("c{} starts, boot {number}", self.id));
        spawn_tasks(world, &boot, fatal, (events, signals, asked));
        Ok(boot)
    }

    /// Reads the log, and checks what was read.
    fn open(
        &self,
        world: &Arc<World>,
        alive: &Arc<AtomicBool>,
        fatal: &FatalSignal,
    ) -> Result<(LogStore<SimRuntime>, Arc<Steps>), String> {
        let disk = &self.disk;
        disk.log.reopen().map_err(|error| error.to_string())?;
        let handle = Handle {
            disk: disk.clone(),
            alive: alive.clone(),
            world: world.clone(),
        };
        let acknowledged = disk.acknowledged.clone();
        let opened = open_stepped(Arc::new(handle), disk.identity, acknowledged, fatal.clone());
        let opened = opened.map_err(|error| error.to_string())?;
        self.check(world);
        Ok(opened)
    }

    fn storage(&self) -> std::io::Result<Storage> {
        let path = self.disk.path();
        let storage = Storage {
            shelf: Arc::new(Shelf::open(path)?),
            archive: Archive::open_inline(path)?,
            blobs: Blobs::open(path)?,
        };
        if storage.shelf.current().is_none() {
            storage.archive.settle(&State::default())?;
        }
        Ok(storage)
    }

    fn me(&self) -> Me {
        Me {
            id: self.id,
            cluster_id: "sim".to_owned(),
            generation: Generation(1),
            node: Node {
                addresses: Addresses::default(),
                log: self.disk.identity,
            },
            versions: Versions::OF_THIS_RELEASE,
        }
    }

    fn clocks(&self, world: &Arc<World>) -> raft::parts::ClockSource {
        let (world, off, drift) = (Arc::downgrade(world), self.wall_off.clone(), self.drift);
        Arc::new(move || {
            let passed = world.upgrade().map_or(0, |world| world.trace.micros());
            let passed = passed
                .saturating_add_signed(i64::try_from(passed).unwrap_or(0) / 1_000_000 * drift);
            let wall = MORNING + passed / 1_000;
            Clocks {
                monotonic_micros: passed,
                wall: Timestamp(wall.saturating_add_signed(off.load(Ordering::Relaxed))),
            }
        })
    }

    /// Writes the log, group by group, each as slow as the disk is.
    fn write_behind(&self, world: &Arc<World>, steps: &Arc<Steps>, alive: &Arc<AtomicBool>) {
        let (world, id) = (world.clone(), self.id);
        let (steps, alive, disk) = (steps.clone(), alive.clone(), self.disk.clone());
        let dice = crate::dice::Dice::new(
            self.id.wrapping_mul(7_919) ^ self.boots.load(Ordering::Relaxed),
        );
        drop(SimRuntime::spawn(async move {
            loop {
                steps.queued().await;
                SimRuntime::sleep(dice.micros(&disk.latency())).await;
                if !alive.load(Ordering::Relaxed) {
                    return;
                }
                let controller = &world.controllers[&id];
                let doom = *lock(&controller.doomed);
                let end = match doom {
                    Some(Doom::Any) => Some(End::KilledInWrite),
                    Some(Doom::Vote) => steps.has_vote().then_some(End::KilledInWrite),
                    Some(Doom::Half) => Some(End::KilledInHalf),
                    None => None,
                };
                if let Some(end) = end {
                    controller.doom(None);
                    controller.crash(&world, "killed in a write", end);
                    return;
                }
                steps.write();
            }
        }));
    }
}

type Channels = (
    EventStream,
    mpsc::UnboundedReceiver<Signal>,
    mpsc::UnboundedReceiver<Renewal>,
);

fn spawn_tasks(
    world: &Arc<World>,
    boot: &Arc<Boot>,
    fatal: FatalSignal,
    (events, signals, asked): Channels,
) {
    drop(SimRuntime::spawn(reactor::feed(boot.clone(), events)));
    drop(SimRuntime::spawn(reactor::confirm_leases(
        boot.clone(),
        asked,
    )));
    drop(SimRuntime::spawn(reactor::run(
        world.clone(),
        boot.clone(),
        signals,
    )));
    drop(SimRuntime::spawn(finish_changes(boot.core.clone())));
    drop(SimRuntime::spawn(mind_the_end(
        world.clone(),
        boot.clone(),
        fatal,
    )));
}

/// A process that can't go on ends. That is as it should be where its disk fails, and a finding otherwise.
async fn mind_the_end(world: Arc<World>, boot: Arc<Boot>, fatal: FatalSignal) {
    let mut told = fatal.subscribe();
    let Ok(reason) = told
        .wait_for(Option::is_some)
        .await
        .map(|reason| reason.clone())
    else {
        return;
    };
    if !boot.is_alive() {
        return;
    }
    let reason = reason.unwrap_or_default();
    let controller = &world.controllers[&boot.id];
    if controller.disk.mood() == Mood::Well {
        world.judge.found(
            "crash",
            format!("c{} stopped by itself on a good disk: {reason}", boot.id),
        );
    }
    controller.crash(&world, &reason, End::Killed);
}
