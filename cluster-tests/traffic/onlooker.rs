//! Clients beside the load: they look at tasks and agents, cancel some, close and open an agent, and follow events.
//!
//! Each of their requests is one try at one controller, whose outcome nobody knows where no answer came: what a load that
//! repeats until it is answered never shows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio_rustls::rustls::ClientConfig;
use tonic::Response;
use tonic::transport::Channel;
use wire::status::Reaction;
use wire::v1;
use wire::v1::agents_client::AgentsClient;
use wire::v1::cluster_client::ClusterClient;
use wire::v1::tasks_client::TasksClient;

use crate::Error;
use crate::cluster;
use crate::history::{Action, Answer, Heard, Order, Pending, Recorder, SeenEvent, TaskState};

/// A process that is stopped answers never.
const TRY: Duration = Duration::from_secs(3);
/// Before the listener connects again.
const PAUSE: Duration = Duration::from_millis(15);
/// How far behind the newest task it looks, and how far beyond.
const BEHIND: u64 = 200;
const BEYOND: u64 = 3;
/// Of a page of a list.
const PAGE: u32 = 50;

/// Several clients that do no work but want to know everything.
#[derive(Debug)]
pub struct Onlookers {
    stop: Arc<AtomicBool>,
    running: JoinSet<()>,
}

impl Onlookers {
    /// So many that ask, with a pause between two requests of each, of which the first closes and opens `agent`, and one that listens.
    pub fn start(
        count: u64,
        seed: u64,
        pause: Duration,
        agent: &str,
        (addresses, tls): (&[String], &Arc<ClientConfig>),
        recorder: &Recorder,
    ) -> Onlookers {
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = JoinSet::new();
        running.spawn(listen(recorder, addresses, tls, &stop));
        for number in 1..=count {
            let channels = addresses.iter().map(|it| cluster::channel(it, tls));
            let onlooker = Onlooker {
                name: format!("onlooker-{number}"),
                recorder: recorder.clone(),
                channels: channels.collect(),
                agent: (number == 1).then(|| agent.to_owned()),
                is_closed: false,
                newest: 0,
                rng: StdRng::seed_from_u64(seed.wrapping_add(number)),
                pause,
                stop: Arc::clone(&stop),
            };
            running.spawn(onlooker.run());
        }
        Onlookers { stop, running }
    }

    /// Lets them end what they are at, and leave the agent open. The listener ends when nothing happens any more, so
    /// the load comes first.
    pub async fn finish(mut self) -> Result<(), Error> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.running.join_next().await {
            done.map_err(|error| Error::Invalid(format!("an onlooker died: {error}")))?;
        }
        Ok(())
    }
}

struct Onlooker {
    name: String,
    recorder: Recorder,
    channels: Vec<Channel>,
    agent: Option<String>,
    is_closed: bool,
    /// The newest task that it has seen.
    newest: u64,
    rng: StdRng,
    pause: Duration,
    stop: Arc<AtomicBool>,
}

impl Onlooker {
    async fn run(mut self) {
        for number in 1_usize.. {
            if self.stop.load(Ordering::Relaxed) && !self.is_closed {
                return;
            }
            let channel = self.channels[number % self.channels.len()].clone();
            let mut tasks = TasksClient::new(channel.clone());
            let mut agents = AgentsClient::new(channel);
            let agent = self.agent.clone().filter(|_| {
                let is_over = self.stop.load(Ordering::Relaxed);
                is_over || matches!(number % 40, 10 | 14)
            });
            match (number % 40, agent) {
                (_, Some(agent)) => self.order(&mut agents, agent).await,
                (1 | 20, None) => self.list(&mut tasks).await,
                (25, None) => {
                    let pending = self.recorder.begin(&self.name, Action::ListAgents);
                    let asked = agents.list(v1::ListAgentsRequest {});
                    told(pending, &tried(asked).await, Answer::agents);
                }
                (n, None) if n % 7 == 3 => {
                    let task = self.some_task();
                    let pending = self.recorder.begin(&self.name, Action::Cancel { task });
                    let reason = "no longer wanted".to_owned();
                    let asked = tasks.cancel(v1::CancelTaskRequest { id: task, reason });
                    told(pending, &tried(asked).await, Answer::task);
                }
                _ => {
                    let task = self.some_task();
                    let pending = self.recorder.begin(&self.name, Action::Get { task });
                    let asked = tasks.get(v1::GetTaskRequest {
                        id: task,
                        stale: false,
                    });
                    told(pending, &tried(asked).await, Answer::task);
                }
            }
            tokio::time::sleep(self.pause).await;
        }
    }

    /// A recent one, now and then one that there is not yet.
    fn some_task(&mut self) -> u64 {
        let from = self.newest.saturating_sub(BEHIND).max(1);
        self.rng.random_range(from..=self.newest + BEYOND)
    }

    async fn list(&mut self, tasks: &mut TasksClient<Channel>) {
        let states = vec![TaskState::Queued, TaskState::Succeeded];
        let action = Action::List {
            states,
            limit: PAGE,
            page: 0,
        };
        let pending = self.recorder.begin(&self.name, action);
        let states = [v1::TaskState::Queued, v1::TaskState::Succeeded];
        let asked = tasks.list(v1::ListTasksRequest {
            states: states.map(i32::from).into(),
            limit: PAGE,
            ..Default::default()
        });
        let answer = tried(asked).await;
        if let Ok(list) = &answer {
            let shown = list.tasks.iter().map(|task| task.id).max();
            self.newest = self.newest.max(shown.unwrap_or_default());
        }
        told(pending, &answer, Answer::tasks);
    }

    /// Closes it if it is open, and the other way round. Whether that was done counts only once it is known.
    async fn order(&mut self, agents: &mut AgentsClient<Channel>, agent: String) {
        let reason = "to see that it is given nothing".to_owned();
        let (order, asked) = match self.is_closed {
            false => (
                Order::Cordon,
                v1::agent_order::Order::Cordon(v1::CordonAgent { reason }),
            ),
            true => (
                Order::Uncordon,
                v1::agent_order::Order::Uncordon(v1::UncordonAgent {}),
            ),
        };
        let action = Action::Order {
            agent: agent.clone(),
            order,
        };
        let pending = self.recorder.begin(&self.name, action);
        let answer = tried(agents.order(v1::AgentOrder {
            id: agent,
            order: Some(asked),
        }))
        .await;
        // Without an answer it may be closed, so it has to be opened.
        self.is_closed = order == Order::Cordon || answer.is_err();
        told(pending, &answer, Answer::agent);
    }
}

async fn tried<T>(
    asked: impl Future<Output = Result<Response<T>, tonic::Status>>,
) -> Result<T, tonic::Status> {
    match tokio::time::timeout(TRY, asked).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_elapsed) => Err(tonic::Status::deadline_exceeded("no answer")),
    }
}

/// One try: what nobody can be sure of is unknown.
fn told<T>(pending: Pending, answer: &Result<T, tonic::Status>, read: impl Fn(&T) -> Answer) {
    match answer {
        Ok(answer) => pending.ok(read(answer)),
        Err(status) => {
            let failure = wire::status::Failure::read(status);
            let (code, message) = (failure.code.as_str(), &failure.message);
            match failure.code.reaction() {
                Reaction::Rejected => pending.refused(code, message),
                Reaction::Unavailable | Reaction::Unknown | Reaction::Fatal => {
                    pending.unknown(code, message);
                }
            }
        }
    }
}

/// Follows the events from the beginning, at one controller after the other.
fn listen(
    recorder: &Recorder,
    addresses: &[String],
    tls: &Arc<ClientConfig>,
    stop: &Arc<AtomicBool>,
) -> impl Future<Output = ()> + use<> {
    let (recorder, addresses, tls) = (recorder.clone(), addresses.to_vec(), Arc::clone(tls));
    let (stream, stop) = (recorder.stream(), Arc::clone(stop));
    async move {
        let mut since = 0;
        for connection in 1_u32.. {
            let via = addresses[connection as usize % addresses.len()].clone();
            let mut client = ClusterClient::new(cluster::channel(&via, &tls));
            let request = v1::EventsRequest {
                since: Some(since),
                until_now: false,
            };
            let begun = since;
            if let Ok(mut replies) = tried(client.events(request)).await {
                while let Ok(Ok(Some(reply))) = tokio::time::timeout(TRY, replies.message()).await {
                    since = reply.next;
                    recorder.heard(Heard {
                        stream,
                        connection,
                        client: "listener".into(),
                        via: via.clone(),
                        since: Some(begun),
                        at: recorder.now(),
                        events: reply.events.iter().map(SeenEvent::of).collect(),
                        next: reply.next,
                    });
                }
            }
            if stop.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
