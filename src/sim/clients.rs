//! Clients: they submit, ask again under the same id where they got no answer, look, and cancel.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dispatch::Refusal;
use model::{
    Command, Namespace, Principal, Reply, RequestId, Role, SetNamespace, Submit, TaskId, TaskSpec,
};
use openraft_rt_sim::SimRuntime;
use raft::parts::NodeId;
use raft::parts::openraft::async_runtime::AsyncRuntime;
use tokio::sync::oneshot;

use crate::network::Place;
use crate::process;
use crate::reactor::{Accepted, Signal};
use crate::trace::lock;
use crate::world::World;

/// After so long a client counts its request as without an answer.
const PATIENCE: Duration = Duration::from_secs(4);

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

fn namespace(name: &str) -> Namespace {
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
            self.share_out().await;
        }
        let mut requests = 0;
        let dice = &self.world.dice;
        while !self.world.is_healing() {
            SimRuntime::sleep(dice.millis(self.world.plan.think.clone())).await;
            match dice.below(10) {
                0..6 => {
                    requests += 1;
                    let request = format!("r{}-{requests}", self.number);
                    self.submit(&request).await;
                }
                6..9 => self.look().await,
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
        if dice.permille(200) {
            spec.namespace = namespace("capped");
        }
        match dice.below(4) {
            0 => spec.at_most_once = true,
            1 => spec.retries = 2,
            _ => {}
        }
        spec
    }

    /// One namespace has a larger share than the others, and a quota.
    async fn share_out(&self) {
        let command = Command::SetNamespace(SetNamespace {
            namespace: namespace("capped"),
            weight: Some(3),
            users: BTreeMap::new(),
            max_running: Some(2),
            max_queued: Some(20),
        });
        let set = insist(&self.world, self.place, &someone("client"), &command).await;
        if set.is_ok() {
            self.world.judge.count("quotas set");
        }
    }

    async fn submit(&self, request: &str) {
        let world = &self.world;
        let command = Command::SubmitTask(Submit {
            spec: self.spec(),
            request_id: Some(RequestId(request.to_owned())),
        });
        let frontier = world.judge.asks();
        let who = someone("client");
        // Some ask twice at once, as a person does who gets impatient.
        if world.dice.permille(50) {
            let (world, place, command) = (world.clone(), self.place, command.clone());
            let who = who.clone();
            drop(SimRuntime::spawn(async move {
                ask(&world, place, 1, who, command).await.ok();
            }));
        }
        match insist(world, self.place, &who, &command).await {
            Ok(Accepted {
                reply: Reply::Submitted { task, .. },
                index,
            }) => {
                world.judge.count("submits accepted");
                world.judge.answered(frontier, index, request);
                world.judge.accepted(request, task);
                lock(&self.known).push(task);
            }
            Ok(other) => world
                .judge
                .found("replies fit", format!("{request}: {other:?}")),
            Err(Silence::Unknown) => world.judge.count("submits without an answer"),
            Err(Silence::Refused) => world.judge.count("submits refused"),
        }
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
        if let Ok(accepted) = insist(world, self.place, &someone("client"), &command).await {
            world.judge.count("cancels");
            world
                .judge
                .answered(frontier, accepted.index, format_args!("cancel {task}"));
        }
    }
}
