//! What the cluster tests share: a cluster, a caller, a load whose history is judged at the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster_tests::checkers::{self, Evidence, Execution};
use cluster_tests::cluster::{self, Cluster, Completed, Options, Status};
use cluster_tests::faults;
use cluster_tests::report::Progress;
use cluster_tests::traffic::{self, Caller, ExecutionLog, Load, Running};
use cluster_tests::wait;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_rustls::rustls::ClientConfig;
use wire::v1;
use wire::v1::tasks_client::TasksClient;

/// Clusters at a time: most of what a test does is to wait, and two cores carry two of them.
const AT_A_TIME: u32 = 2;
static TURN: Semaphore = Semaphore::const_new(AT_A_TIME as usize);

/// For one answer or one result, whatever happens to the cluster meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// For members to reach the same index once nothing is submitted any more.
const CONVERGED: Duration = Duration::from_secs(30);

/// For tests that start a cluster in another way than [`Site::start`].
pub async fn turn() -> SemaphorePermit<'static> {
    TURN.acquire().await.unwrap()
}

/// For those with so many agents that there is no room for another cluster.
pub async fn alone() -> SemaphorePermit<'static> {
    TURN.acquire_many(AT_A_TIME).await.unwrap()
}

/// One test's cluster.
pub struct Site {
    pub cluster: Cluster,
    pub progress: Progress,
    pub executions: ExecutionLog,
    pub tls: Arc<ClientConfig>,
    pub caller: Caller,
    _turn: SemaphorePermit<'static>,
}

impl Site {
    pub async fn start(name: &'static str, shape: impl FnOnce(Options) -> Options) -> Site {
        Site::begin(turn().await, name, shape).await
    }

    /// With no other cluster beside it.
    pub async fn alone(name: &'static str, shape: impl FnOnce(Options) -> Options) -> Site {
        Site::begin(alone().await, name, shape).await
    }

    async fn begin(
        turn: SemaphorePermit<'static>,
        name: &'static str,
        shape: impl FnOnce(Options) -> Options,
    ) -> Site {
        let progress = Progress::new(name);
        let cluster = Cluster::start(shape(Options::new(name))).await.unwrap();
        progress.say("the cluster is up");
        let tls = cluster::grpc_tls(&cluster.credentials().unwrap()).unwrap();
        let caller = Caller::new(&cluster.addresses().unwrap(), &tls);
        let executions = ExecutionLog::create(cluster.scratch()).unwrap();
        Site {
            cluster,
            progress,
            executions,
            tls,
            caller,
            _turn: turn,
        }
    }

    /// Short tasks that write down that they ran, so many in flight.
    pub fn load(&self, in_flight: u32) -> Running {
        let executions = self.executions.clone();
        let spec = Arc::new(move |number: u64| executions.task(&format!("echo {number}")));
        Load {
            name: "load",
            in_flight,
            spec,
            patience: PATIENCE,
            pause: Duration::ZERO,
        }
        .start(&self.caller)
    }

    pub async fn submit(&self, spec: v1::TaskSpec) -> u64 {
        let reply = self
            .caller
            .submit(&traffic::submit(spec), PATIENCE)
            .await
            .unwrap();
        reply.task.unwrap().id
    }

    pub async fn get(&self, id: u64) -> v1::Task {
        self.caller.get(id, PATIENCE).await.unwrap()
    }

    pub async fn wait(&self, id: u64) -> v1::Task {
        self.caller.wait(id, PATIENCE).await.unwrap()
    }

    /// A controller that does not lead now.
    pub async fn a_follower(&self) -> &'static str {
        let leader = self.cluster.leader().await.unwrap();
        if leader == "c3" { "c2" } else { "c3" }
    }

    /// Waits until a task is in a state that `wanted` likes.
    pub async fn until(
        &self,
        id: u64,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&v1::Task) -> bool,
    ) -> v1::Task {
        wait::until(&format!("t{id} to be {what}"), limit, || async {
            let task = self.get(id).await;
            let seen = format!("{} on {:?}", task.state().as_str_name(), task.agent);
            if wanted(&task) { Ok(task) } else { Err(seen) }
        })
        .await
        .unwrap()
    }

    pub async fn until_running(&self, id: u64) -> v1::Task {
        self.until(id, "running", PATIENCE, |task| {
            task.state() == v1::TaskState::Running
        })
        .await
    }

    /// Starts a load, and waits until it flows.
    pub async fn flowing_load(&self, in_flight: u32) -> Running {
        let load = self.load(in_flight);
        self.until_more(&load, 2 * u64::from(in_flight)).await;
        load
    }

    /// Waits until the load has that many more submits acknowledged.
    pub async fn until_more(&self, load: &Running, more: u64) {
        let wanted = load.acknowledged() + more;
        wait::until_now(
            &format!("{more} more acknowledged submits"),
            PATIENCE,
            || {
                let now = load.acknowledged();
                if now >= wanted {
                    Ok(())
                } else {
                    Err(format!("{} are missing", wanted - now))
                }
            },
        )
        .await
        .unwrap();
    }

    /// Ends the load, waits until all members agree, and holds everything against the promises.
    pub async fn judge(&self, load: Running, least: usize) {
        let read = || self.executions.read().unwrap();
        self.judge_against(load, read, least).await;
    }

    /// The same, where what was run is known in another way than from what tasks write down.
    pub async fn judge_against(
        &self,
        load: Running,
        executions: impl FnOnce() -> Vec<Execution>,
        least: usize,
    ) {
        let history = load.finish().await.unwrap();
        let status = self.converged().await;
        let evidence = Evidence {
            history,
            finals: self.finals().await,
            executions: executions(),
            statuses: vec![status],
            ..Evidence::default()
        };
        self.judge_evidence(&evidence, least);
    }

    /// Waits until all members have applied the same entries.
    pub async fn converged(&self) -> Status {
        wait::until("all members at the same index", CONVERGED, || async {
            let status = self
                .cluster
                .status()
                .await
                .map_err(|error| error.to_string())?;
            if checkers::is_converged(&status) {
                Ok(status)
            } else {
                Err(status.describe())
            }
        })
        .await
        .unwrap()
    }

    fn judge_evidence(&self, evidence: &Evidence, least: usize) {
        let operations = evidence.history.operations.iter();
        let acknowledged = operations.filter(|it| it.submitted().is_some()).count();
        let unknown = evidence.history.counts().unknown;
        assert!(
            acknowledged >= least,
            "INVALID: only {acknowledged} submits, {least} are wanted"
        );
        let members = evidence.statuses.iter().flat_map(|status| &status.members);
        let index = members.filter_map(|member| member.applied).max();
        self.progress.say(format!(
            "{acknowledged} submits acknowledged, {unknown} operations unknown, {} processes started, all members at \
             index {}",
            evidence.executions.len(),
            index.unwrap_or_default(),
        ));
        let violations = checkers::check(evidence);
        let texts: Vec<String> = violations
            .iter()
            .take(20)
            .map(ToString::to_string)
            .collect();
        assert!(
            violations.is_empty(),
            "{} violations:\n{}",
            violations.len(),
            texts.join("\n")
        );
    }

    /// Every controller's own list of tasks.
    pub async fn finals(&self) -> BTreeMap<String, Vec<checkers::Final>> {
        let mut finals = BTreeMap::new();
        for controller in self.cluster.layout().unwrap().controllers {
            let mut client = TasksClient::new(cluster::channel(&controller.grpc, &self.tls));
            let tasks = Caller::list_own(&mut client).await.unwrap();
            finals.insert(controller.id, traffic::finals(&tasks));
        }
        finals
    }

    /// Runs a member's command line, which has to end by itself.
    pub async fn run_argv(&self, argv: &[String]) -> Completed {
        let child = self
            .cluster
            .cli()
            .program(&argv[0], &argv[1..])
            .spawn()
            .unwrap();
        cluster::finish(argv[1..].join(" "), child).await.unwrap()
    }

    /// Gives every controller these settings: a file of its own, and one after the other starts anew.
    pub async fn set_controllers(&self, settings: &str) {
        let controllers = self.cluster.layout().unwrap().controllers;
        for controller in &controllers {
            let file = self
                .cluster
                .directory()
                .join(format!("{}.toml", controller.id));
            std::fs::write(file, settings).unwrap();
        }
        for controller in &controllers {
            faults::kill(&self.cluster, &controller.id).await.unwrap();
            self.restart(&controller.id).await;
        }
    }

    /// Starts a member again, and waits until it takes part.
    pub async fn restart(&self, id: &str) {
        self.cluster.restart(id).await.unwrap();
        self.cluster.until_whole().await.unwrap();
    }
}

/// The state of a task whose process ended by itself, with what it printed.
pub fn assert_succeeded(task: &v1::Task) {
    assert_eq!(
        task.state(),
        v1::TaskState::Succeeded,
        "t{}: {}",
        task.id,
        task.reason
    );
}

/// A command line with another value for one of its flags.
pub fn with(argv: &[String], flag: &str, value: &str) -> Vec<String> {
    let at = argv.iter().position(|word| word == flag).unwrap() + 1;
    let mut argv = argv.to_vec();
    argv[at] = value.to_owned();
    argv
}
