//! Clients: they submit, ask again under the same id where they got no answer, look, and cancel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dispatch::Refusal;
use model::{
    Class, Command, Hardware, Namespace, Principal, Reply, RequestId, Role, Scope, SetNamespace,
    SetPolicy, Strategy, Submit, TaskId, TaskSpec,
};
use openraft_rt_sim::SimRuntime;
use raft::parts::NodeId;
use raft::parts::openraft::async_runtime::AsyncRuntime;
use tokio::sync::oneshot;

use crate::labels;
use crate::network::Place;
use crate::process;
use crate::reactor::{Accepted, Answer, Signal};
use crate::trace::lock;
use crate::world::World;

/// After so long a client counts its request as without an answer.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// How often a request without an answer is sent again.
const TRIES: u32 = 4;

/// Why there is no reply.
#[derive(Debug)]
pub enum Silence {
    /// It was surely not done.
    Refused,
    /// It may have been done.
    Unknown,
}

pub fn spec(command: Vec<String>) -> TaskSpec {
    TaskSpec::process(namespace("default"), command)
}

/// Half of the tasks ask for more than a slot, by how long they take.
fn demand(millis: u64) -> (Hardware, Option<u64>) {
    let (cpu_milli, memory, gpus, vram_mib) = match millis % 8 {
        0 => (1_000, Some(32), 0, 0),
        1 => (0, None, 1, 0),
        2 => (500, None, 1, 12),
        3 => (0, Some(16), 0, 6),
        _ => (0, None, 0, 0),
    };
    let hardware = Hardware {
        cpu_milli,
        gpus,
        vram_mib,
    };
    (hardware, memory)
}

/// The namespace that has a quota.
pub fn capped() -> Namespace {
    namespace("capped")
}

/// Sets how many of its tasks may run, and wait.
pub fn quota(running: u64, queued: u64) -> Command {
    let number = |number: u64| u32::try_from(number).ok();
    Command::SetNamespace(SetNamespace {
        namespace: capped(),
        weight: Some(3),
        users: BTreeMap::new(),
        max_running: number(running),
        max_queued: number(queued),
    })
}

pub fn namespace(name: &str) -> Namespace {
    Namespace::new(name).unwrap_or_else(|_| unreachable!("a name"))
}

pub fn someone(name: &str) -> Principal {
    Principal {
        name: name.to_owned(),
        role: Role::Client,
        fingerprint: [7; 32],
    }
}

/// Asks one controller, as the network lets it.
pub async fn ask(
    world: &Arc<World>,
    from: Place,
    at: NodeId,
    principal: Principal,
    command: Command,
) -> Result<Accepted, Silence> {
    let asked = async {
        world.network.travel(from, at).await;
        let Some(boot) = world.boot(at) else {
            return Err(Silence::Refused);
        };
        let (answer, answered) = oneshot::channel();
        let request = Signal::Request {
            principal,
            command,
            answer,
        };
        if boot.inputs.send(request).is_err() {
            return Err(Silence::Unknown);
        }
        let answer = answered.await;
        if !boot.is_alive() {
            return Err(Silence::Unknown);
        }
        world.network.travel(at, from).await;
        match answer {
            Ok(Ok(accepted)) => Ok(accepted),
            Ok(Err(Refusal::Unknown)) | Err(_) => Err(Silence::Unknown),
            Ok(Err(_)) => Err(Silence::Refused),
        }
    };
    let limited = SimRuntime::timeout(PATIENCE, asked).await;
    limited.unwrap_or(Err(Silence::Unknown))
}

/// The same, at one controller after the other, until one answers or refuses for good.
pub async fn insist(
    world: &Arc<World>,
    from: Place,
    principal: &Principal,
    command: &Command,
) -> Result<Accepted, Silence> {
    let ids = world.members();
    let mut last = Silence::Unknown;
    let mut unknown = false;
    for _ in 0..TRIES * u32::try_from(ids.len()).unwrap_or(1) {
        let at = world.dice.pick(&ids).copied().unwrap_or(1);
        match ask(world, from, at, principal.clone(), command.clone()).await {
            Ok(accepted) => return Ok(accepted),
            Err(silence) => {
                unknown |= matches!(silence, Silence::Unknown);
                last = silence;
            }
        }
        SimRuntime::sleep(world.dice.millis(20..200)).await;
    }
    match unknown {
        true => Err(Silence::Unknown),
        false => Err(last),
    }
}

/// What came of a submit.
fn submitted(
    world: &World,
    frontier: u64,
    request: &str,
    answer: Result<Accepted, Silence>,
) -> Option<TaskId> {
    let accepted = match answer {
        Ok(accepted) => accepted,
        Err(Silence::Unknown) => {
            world.judge.count("submits without an answer");
            return None;
        }
        Err(Silence::Refused) => {
            world.judge.count("submits refused");
            return None;
        }
    };
    let Reply::Submitted { task, .. } = accepted.reply else {
        let what = format!("{request}: {:?}", accepted.reply);
        world.judge.found("replies fit", what);
        return None;
    };
    world.judge.count("submits accepted");
    world.judge.answered(frontier, accepted.index, request);
    world.judge.accepted(request, task);
    Some(task)
}

/// Submits many at once, on one stream: all of them are on their way before the first is answered. What breaks off is
/// asked for once more, each by itself, under its request id.
pub async fn submit_all(
    world: &Arc<World>,
    (from, principal): (Place, Principal),
    request: &str,
    specs: Vec<TaskSpec>,
) -> Vec<TaskId> {
    let ids = world.members();
    let at = world.leader().filter(|_| world.dice.permille(900));
    let at = at.or_else(|| world.dice.pick(&ids).copied()).unwrap_or(1);
    let frontier = world.judge.asks();
    let commands = specs.into_iter().enumerate().map(|(number, spec)| {
        let id = RequestId(format!("{request}-{number}"));
        Command::SubmitTask(Submit {
            spec,
            request_id: Some(id),
        })
    });
    let commands: Vec<Command> = commands.collect();
    let streamed = stream(world, (from, at), &principal, &commands);
    let answers = SimRuntime::timeout(PATIENCE, streamed).await;
    let mut answers = answers.unwrap_or_default().into_iter();
    world.judge.count("streams of submits");
    let mut tasks = Vec::new();
    for (number, command) in commands.iter().enumerate() {
        let request = format!("{request}-{number}");
        let answer = match answers.next().flatten() {
            Some(accepted) => Ok(accepted),
            None => insist(world, from, &principal, command).await,
        };
        tasks.extend(submitted(world, frontier, &request, answer));
    }
    tasks
}

/// The answers, as far as they come.
async fn stream(
    world: &World,
    (from, at): (Place, NodeId),
    principal: &Principal,
    commands: &[Command],
) -> Vec<Option<Accepted>> {
    // Nothing overtakes on it.
    world.network.travel(from, at).await;
    let Some(boot) = world.boot(at) else {
        return Vec::new();
    };
    let put = |command: &Command| {
        let (answer, answered) = oneshot::channel();
        let request = Signal::Request {
            principal: principal.clone(),
            command: command.clone(),
            answer,
        };
        boot.inputs.send(request).ok();
        answered
    };
    let answered: Vec<oneshot::Receiver<Answer>> = commands.iter().map(put).collect();
    let answers = futures::future::join_all(answered).await;
    if !boot.is_alive() {
        return Vec::new();
    }
    world.network.travel(at, from).await;
    let accepted = |answer: Result<Answer, _>| answer.ok()?.ok();
    answers.into_iter().map(accepted).collect()
}

pub struct Client {
    pub world: Arc<World>,
    pub place: Place,
    pub number: u64,
    known: Mutex<Vec<TaskId>>,
}

impl Client {
    pub fn new(world: Arc<World>, number: u64) -> Client {
        Client {
            place: crate::network::client(number),
            world,
            number,
            known: Mutex::default(),
        }
    }

    /// Until the faults are over.
    pub async fn run(self) {
        if self.number == 1 {
            self.set_up().await;
        }
        let mut requests = 0;
        let dice = &self.world.dice;
        while !self.world.is_healing() {
            SimRuntime::sleep(dice.millis(self.world.plan.think.clone())).await;
            let request = format!("r{}-{requests}", self.number);
            requests += 1;
            match dice.below(100) {
                0..45 => self.submit(&request).await,
                45 => self.submit_many(&request).await,
                46..88 => self.look().await,
                _ => self.cancel().await,
            }
        }
    }

    fn spec(&self) -> TaskSpec {
        let dice = &self.world.dice;
        let millis = match dice.below(3) {
            _ if dice.permille(self.world.plan.long) => dice.within(5_000..40_000),
            0 => dice.within(300..3_000),
            _ => dice.within(0..300),
        };
        let code = i32::from(dice.permille(100));
        let mut spec = spec(process::command(millis, code));
        (spec.hardware, spec.memory_mib) = demand(millis);
        spec.require = labels::required(millis, self.world.plan.agents);
        if dice.permille(200) {
            spec.namespace = capped();
        }
        if dice.permille(250) {
            spec.class = dice.pick(&Class::ALL).copied();
        }
        match dice.below(4) {
            0 => spec.at_most_once = true,
            1 => spec.retries = 2,
            _ => {}
        }
        spec.preemptible = !spec.at_most_once && millis % 3 == 0;
        spec
    }

    /// One namespace has a larger share than the others, and a quota. How agents are chosen goes by the seed.
    async fn set_up(&self) {
        let operator = someone("operator");
        let of = |number: u64| {
            Strategy::ALL
                .into_iter()
                .cycle()
                .nth((number % 64) as usize)
        };
        let policy = |namespace, number| {
            let kind = None;
            Command::SetPolicy(SetPolicy {
                scope: Scope { namespace, kind },
                strategy: of(number),
            })
        };
        let seed = self.world.plan.seed;
        let asked = [
            (quota(2, 20), "quotas set"),
            (policy(None, seed), "policies set"),
            (policy(Some(capped()), seed / 8), "policies set"),
        ];
        for (command, what) in asked {
            let set = insist(&self.world, self.place, &operator, &command).await;
            if set.is_ok() {
                self.world.judge.count(what);
            }
        }
    }

    /// Some are the same person, at two machines.
    fn who(&self) -> Principal {
        someone(&format!("user-{}", self.number % 3))
    }

    async fn submit_many(&self, request: &str) {
        let many = self.world.dice.within(3..12);
        let specs = (0..many).map(|_| self.spec()).collect();
        let from = (self.place, self.who());
        let tasks = submit_all(&self.world, from, request, specs).await;
        lock(&self.known).extend(tasks);
    }

    async fn submit(&self, request: &str) {
        let world = &self.world;
        let command = Command::SubmitTask(Submit {
            spec: self.spec(),
            request_id: Some(RequestId(request.to_owned())),
        });
        let frontier = world.judge.asks();
        let who = self.who();
        // Some ask twice at once, as a person does who gets impatient.
        if world.dice.permille(50) {
            let (world, place, command) = (world.clone(), self.place, command.clone());
            let who = who.clone();
            drop(SimRuntime::spawn(async move {
                ask(&world, place, 1, who, command).await.ok();
            }));
        }
        let answer = insist(world, self.place, &who, &command).await;
        let task = submitted(world, frontier, request, answer);
        lock(&self.known).extend(task);
    }

    /// A read at any controller: no older than anything that was seen before it began.
    async fn look(&self) {
        let world = &self.world;
        let ids = world.members();
        let at = world.dice.pick(&ids).copied().unwrap_or(1);
        let task = world.dice.pick(&lock(&self.known)).copied();
        let frontier = world.judge.asks();
        let looked = async {
            world.network.travel(self.place, at).await;
            let boot = world.boot(at)?;
            let look = |state: &model::State| {
                task.is_none_or(|task| {
                    state.task(task).is_some() || state.archived(task) == model::Archived::Left
                })
            };
            let read = boot.core.read(look).await.ok()?;
            if !boot.is_alive() {
                return None;
            }
            world.network.travel(at, self.place).await;
            Some(read)
        };
        let Ok(Some(read)) = SimRuntime::timeout(PATIENCE, looked).await else {
            return world.judge.count("reads without an answer");
        };
        world.judge.count("reads");
        world
            .judge
            .answered(frontier, read.index, format_args!("a read at c{at}"));
        if !read.value {
            let what = format!("{task:?} is not known to c{at} as of entry {}", read.index);
            world.judge.found("I1 nothing lost", what);
        }
    }

    async fn cancel(&self) {
        let world = &self.world;
        let Some(task) = world.dice.pick(&lock(&self.known)).copied() else {
            return;
        };
        let command = Command::CancelTask {
            task,
            reason: "a client".to_owned(),
        };
        let frontier = world.judge.asks();
        if let Ok(accepted) = insist(world, self.place, &self.who(), &command).await {
            world.judge.count("cancels");
            world
                .judge
                .answered(frontier, accepted.index, format_args!("cancel {task}"));
        }
    }
}
