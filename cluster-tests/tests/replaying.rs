//! A whole cluster under load while its leaders are killed, or its agents die and come back, held to all promises by what was
//! answered, and by the logs that are on its disks afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cluster_tests::checkers::{self, Evidence, Standing};
use cluster_tests::cluster::{self, Status};
use cluster_tests::faults;
use cluster_tests::history::{
    Action, Answer, Heard, Order, Pending, Recorder, SeenEvent, TaskState,
};
use cluster_tests::journal;
use cluster_tests::log::Log;
use cluster_tests::report::{Report, Run, Verdict};
use cluster_tests::traffic::{Load, Running};
use cluster_tests::wait;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::test;
use tokio_rustls::rustls::ClientConfig;
use tonic::Response;
use tonic::transport::Channel;
use wire::status::Reaction;
use wire::v1;
use wire::v1::agents_client::AgentsClient;
use wire::v1::cluster_client::ClusterClient;
use wire::v1::tasks_client::TasksClient;

use crate::site::{PATIENCE, Site};

const TRY: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(15);

/// Looks at tasks, cancels some, and closes and opens an agent, through one controller after the other.
struct Curious {
    name: &'static str,
    recorder: Recorder,
    channels: Vec<Channel>,
    stop: Arc<AtomicBool>,
}

impl Curious {
    async fn run(self) {
        let mut number = 0_usize;
        while !self.stop.load(Ordering::Relaxed) {
            number += 1;
            let channel = self.channels[number % self.channels.len()].clone();
            let mut tasks = TasksClient::new(channel.clone());
            let mut agents = AgentsClient::new(channel);
            // Of a few hundred tasks most are there by then, and some are not.
            let task = (number * 37 % 200) as u64 + 1;
            match number % 40 {
                10 => self.order(&mut agents, Order::Cordon).await,
                14 => self.order(&mut agents, Order::Uncordon).await,
                20 | 30 => self.list(&mut tasks).await,
                25 => {
                    let pending = self.recorder.begin(self.name, Action::ListAgents);
                    let asked = agents.list(v1::ListAgentsRequest {});
                    told(pending, tried(asked).await, Answer::agents);
                }
                n if n % 7 == 3 => {
                    let pending = self.recorder.begin(self.name, Action::Cancel { task });
                    let reason = "no longer wanted".to_owned();
                    let asked = tasks.cancel(v1::CancelTaskRequest { id: task, reason });
                    told(pending, tried(asked).await, Answer::task);
                }
                _ => {
                    let pending = self.recorder.begin(self.name, Action::Get { task });
                    let asked = tasks.get(v1::GetTaskRequest {
                        id: task,
                        stale: false,
                    });
                    told(pending, tried(asked).await, Answer::task);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn list(&self, tasks: &mut TasksClient<Channel>) {
        let action = Action::List {
            states: vec![TaskState::Queued, TaskState::Succeeded],
            limit: 50,
            page: 0,
        };
        let pending = self.recorder.begin(self.name, action);
        let states = [v1::TaskState::Queued, v1::TaskState::Succeeded];
        let asked = tasks.list(v1::ListTasksRequest {
            states: states.map(i32::from).into(),
            limit: 50,
            ..Default::default()
        });
        told(pending, tried(asked).await, Answer::tasks);
    }

    async fn order(&self, agents: &mut AgentsClient<Channel>, order: Order) {
        let agent = "a2".to_owned();
        let action = Action::Order {
            agent: agent.clone(),
            order,
        };
        let reason = "the test asked for it".to_owned();
        let asked = match order {
            Order::Cordon => v1::agent_order::Order::Cordon(v1::CordonAgent { reason }),
            _ => v1::agent_order::Order::Uncordon(v1::UncordonAgent {}),
        };
        let pending = self.recorder.begin(self.name, action);
        let asked = agents.order(v1::AgentOrder {
            id: agent,
            order: Some(asked),
        });
        told(pending, tried(asked).await, Answer::agent);
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
fn told<T>(pending: Pending, answer: Result<T, tonic::Status>, read: impl Fn(&T) -> Answer) {
    match answer {
        Ok(answer) => pending.ok(read(&answer)),
        Err(status) => {
            let failure = wire::status::Failure::read(&status);
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
) -> JoinHandle<()> {
    let (recorder, addresses, tls) = (recorder.clone(), addresses.to_vec(), Arc::clone(tls));
    let (stream, stop) = (recorder.stream(), Arc::clone(stop));
    tokio::spawn(async move {
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
                        client: "ear".into(),
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
    })
}

async fn dumped(site: &Site, dir: &Path) -> Log {
    let dir = dir.to_string_lossy();
    let asked = ["data-dir", "log", &dir, "-o", "json"];
    let done = site.cluster.cli().expect(&asked).await.unwrap();
    Log::parse(done.stdout.as_slice()).unwrap()
}

/// A cluster with everything on it that is taken down.
struct Scene {
    site: Site,
    recorder: Recorder,
    load: Running,
    beside: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    statuses: Vec<Status>,
}

impl Scene {
    /// A few thousand entries at the most: no snapshot takes the beginning of the log away.
    async fn begin(name: &'static str, script: &'static str) -> Scene {
        let site = Site::start(name, |options| options).await;
        let recorder = Recorder::new();
        let addresses = site.cluster.addresses().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let executions = site.executions.clone();
        let load = Load {
            in_flight: 6,
            spec: Arc::new(move |number| v1::TaskSpec {
                at_most_once: number % 5 == 0,
                ..executions.task(&format!("echo {number}; {script}"))
            }),
            patience: PATIENCE,
        }
        .start_with(&site.caller, &recorder);
        let mut beside = vec![listen(&recorder, &addresses, &site.tls, &stop)];
        for name in ["curious-1", "curious-2"] {
            let channels = addresses.iter().map(|it| cluster::channel(it, &site.tls));
            let curious = Curious {
                name,
                recorder: recorder.clone(),
                channels: channels.collect(),
                stop: Arc::clone(&stop),
            };
            beside.push(tokio::spawn(curious.run()));
        }
        Scene {
            site,
            recorder,
            load,
            beside,
            stop,
            statuses: Vec::new(),
        }
    }

    async fn look(&mut self) {
        let status = self.site.cluster.status().await.unwrap();
        if let Some(leader) = status.leader() {
            self.recorder.leads(leader, status.term);
        }
        self.statuses.push(status);
    }

    async fn more(&self, submits: u64) {
        self.site.until_more(&self.load, submits).await;
    }

    /// Lets everything end, stops the cluster, and judges all that was seen and is on the disks.
    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.load.finish().await.unwrap();
        for one in self.beside {
            one.await.unwrap();
        }
        let site = &mut self.site;
        self.statuses.push(site.converged().await);
        let finals = site.finals().await;
        let executions = site.executions.read().unwrap();
        let layout = site.cluster.layout().unwrap();
        site.cluster.pause().await.unwrap();
        let mut logs = BTreeMap::new();
        for controller in layout.controllers {
            let log = dumped(site, &controller.data_dir).await;
            logs.insert(controller.id, log);
        }
        let journals = layout.agents.into_iter().map(|agent| {
            let begun = journal::read(&agent.data_dir.join("journal")).unwrap();
            (agent.id, begun)
        });
        let evidence = Evidence {
            journals: journals.collect(),
            history: self.recorder.history(),
            logs,
            voters: 3,
            finals,
            executions,
            statuses: self.statuses,
        };
        judge(site, &evidence);
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_while_leaders_were_killed_is_what_the_log_makes_of_it() {
    let mut scene = Scene::begin("replayed", "true").await;
    for _ in 0..2 {
        scene.more(60).await;
        scene.site.cluster.until_whole().await.unwrap();
        scene.look().await;
        let leader = scene.site.cluster.leader().await.unwrap();
        let fault = scene.recorder.fault("kill", &leader);
        faults::kill(&scene.site.cluster, &leader).await.unwrap();
        fault.took_effect("its process is gone");
        scene.site.cluster.leader().await.unwrap();
        scene.look().await;
        scene.more(40).await;
        scene.site.restart(&leader).await;
        fault.healed();
        scene.more(40).await;
    }
    scene.end().await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_while_agents_died_and_came_back_is_what_the_log_makes_of_it() {
    let mut scene = Scene::begin("replayed-agents", "sleep 0.3").await;
    scene.more(20).await;
    scene.look().await;
    let fault = scene.recorder.fault("kill", "a1");
    faults::kill(&scene.site.cluster, "a1").await.unwrap();
    fault.took_effect("its process is gone");
    scene.more(20).await;
    scene.site.cluster.restart("a1").await.unwrap();
    fault.healed();
    scene.more(20).await;
    let fault = scene.recorder.fault("stop", "a2");
    let pid = faults::stop(&scene.site.cluster, "a2").await.unwrap();
    fault.took_effect("its process is stopped");
    // Its lease runs out, and its work goes to the other one.
    let lost = |agent: &Value| agent["id"] == "a2" && agent["state"] == "lost";
    wait::until("a2 to be lost", PATIENCE, || async {
        let list = scene.site.cluster.cli().json(&["agent", "list"]).await;
        let list = list.map_err(|error| error.to_string())?;
        match list["items"]
            .as_array()
            .is_some_and(|all| all.iter().any(lost))
        {
            true => Ok(()),
            false => Err(list.to_string()),
        }
    })
    .await
    .unwrap();
    scene.more(20).await;
    faults::continue_stopped("a2", pid).await.unwrap();
    fault.healed();
    scene.more(40).await;
    scene.look().await;
    scene.end().await;
}

fn judge(site: &Site, evidence: &Evidence) {
    let faults = evidence.history.faults.iter();
    let faults: Vec<String> = faults
        .map(|it| format!("{}-{}", it.name, it.target))
        .collect();
    let findings = checkers::judge(evidence);
    let run = Run {
        scenario: faults.join("-"),
        network: "none".into(),
        floor: 200,
        ..Run::default()
    };
    let report = Report::of(run, evidence, findings);
    if let Some(dir) = std::env::var_os("QUORATE_REPORTS") {
        report
            .keep(evidence, Path::new(&dir), &report.run.scenario)
            .unwrap();
    }
    for finding in &report.findings {
        let (name, facts) = (finding.invariant, finding.looked_at);
        let standing = finding.standing();
        site.progress
            .say(format!("{name} {}: {facts} facts", standing.as_str()));
        let green = matches!(standing, Standing::Holds | Standing::NotApplicable);
        assert!(green, "{name}: {finding:#?}");
    }
    assert_eq!((report.verdict, &report.reasons), (Verdict::Valid, &vec![]));
    let counts = report.operations;
    site.progress.say(format!(
        "{} operations acknowledged, {} refused, {} unknown, {} events heard",
        counts.ok,
        counts.refused,
        counts.unknown,
        evidence
            .history
            .heard
            .iter()
            .map(|it| it.events.len())
            .sum::<usize>(),
    ));
}
