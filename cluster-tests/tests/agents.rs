//! Agents that die, hang and come back: what they did under a lost lease must not count.

use std::fs;
use std::time::Duration;

use cluster_tests::cluster;
use cluster_tests::faults::{self, process};
use cluster_tests::traffic::bench_agent::{BenchAgent, Conduct, exited};
use cluster_tests::traffic::{self};
use cluster_tests::wait;
use security::Role;
use tokio::test;
use wire::v1::{self, Disposition, TaskState};

use crate::site::{PATIENCE, Site, assert_succeeded};

/// An agent's lease, and how long a silent one keeps its tasks.
const LEASE: Duration = Duration::from_secs(15);
/// From then on until its tasks run elsewhere.
const MOVED: Duration = Duration::from_secs(30);

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tasks_of_a_killed_agent_run_again_on_another() {
    let site = Site::start("killed-agent", |options| options.slots(2)).await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        tasks.push(
            site.submit(site.executions.task("sleep 4; echo done"))
                .await,
        );
    }
    let mut held = 0;
    for task in &tasks {
        held += usize::from(site.until_running(*task).await.agent == "a1");
    }
    assert!(held > 0, "INVALID: a1 has nothing to lose");
    let killed = faults::kill(&site.cluster, "a1").await.unwrap();
    for task in tasks {
        let task = site.wait(task).await;
        assert_succeeded(&task);
        assert_eq!(task.result.unwrap().stdout, "done\n");
        assert!(task.attempt <= 2);
    }
    site.progress.say(format!(
        "{held} tasks moved; all done after {:.1?}",
        killed.at.elapsed()
    ));
    site.restart("a1").await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn an_at_most_once_task_whose_agent_is_lost_is_unknown_and_never_runs_again() {
    let site = Site::start("at-most-once", |options| options).await;
    let spec = v1::TaskSpec {
        at_most_once: true,
        ..site.executions.task("sleep 3600")
    };
    let task = site.submit(spec).await;
    let agent = site.until_running(task).await.agent;
    faults::kill(&site.cluster, &agent).await.unwrap();
    let ended = site.wait(task).await;
    assert_eq!(ended.state(), TaskState::Unknown, "{}", ended.reason);
    let waited = site
        .cluster
        .cli()
        .run(&["task", "wait", &format!("t{task}")])
        .await
        .unwrap();
    assert_eq!(waited.code, Some(3), "{}", waited.stderr);

    site.restart(&agent).await;
    // Whatever the agent makes of its journal: nothing may start.
    let other = site.submit(traffic::process(["true"])).await;
    assert_succeeded(&site.wait(other).await);
    assert_eq!(site.executions.read().unwrap().len(), 1);
    assert_eq!(site.get(task).await.attempt, 1);
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn the_processes_of_a_stopped_agent_are_gone_before_its_lease_and_its_results_are_refused() {
    let site = Site::start("stopped-agent", |options| options).await;
    // Of each kind one on the agent that will hang: one ends while it hangs, the other would go on.
    let short = "sleep 25; echo \"epoch $TASK_EPOCH\"";
    let mut shorts = Vec::new();
    let mut longs = Vec::new();
    for _ in 0..2 {
        shorts.push(site.submit(site.executions.task(short)).await);
    }
    for _ in 0..2 {
        longs.push(site.submit(site.executions.task("sleep 3600")).await);
    }
    let agent = site.until_running(shorts[0]).await.agent;
    let mut held = Vec::new();
    for task in shorts.iter().chain(&longs) {
        let task = site.until_running(*task).await;
        held.extend((task.agent == agent).then_some(task));
    }
    let holds = |kind: &[u64]| held.iter().any(|task| kind.contains(&task.id));
    assert!(
        holds(&shorts) && holds(&longs),
        "INVALID: {agent} does not hold one of each kind"
    );
    let pid = faults::stop(&site.cluster, &agent).await.unwrap();
    site.progress
        .say(format!("{agent} stopped with {} tasks", held.len()));
    let stopped = tokio::time::Instant::now();
    // The agent can do nothing; its guard does it, before the cluster gives the work to another.
    for task in &held {
        until_gone_and_not_elsewhere(&site, task).await;
    }
    site.progress.say(format!(
        "the guard ended its processes {:?} after it was stopped",
        stopped.elapsed()
    ));
    for task in &held {
        let old = task.epoch;
        site.until(task.id, "elsewhere", LEASE + MOVED, |now| now.epoch > old)
            .await;
    }
    site.progress.say("its tasks run elsewhere");
    tokio::time::sleep_until(stopped + 3 * LEASE).await;
    faults::continue_stopped(&agent, pid).await.unwrap();
    site.progress.say(format!("{agent} continued"));
    site.cluster.until_whole().await.unwrap();
    for task in shorts {
        let task = site.wait(task).await;
        assert_succeeded(&task);
        // The result is the live attempt's; the one of the agent that came back was refused.
        let printed = String::from_utf8(task.result.unwrap().stdout.to_vec()).unwrap();
        assert_eq!(printed, format!("epoch {}\n", task.epoch));
    }
    for task in longs {
        site.caller.cancel(task, PATIENCE).await.unwrap();
        assert_eq!(site.wait(task).await.state(), TaskState::Cancelled);
    }
}

/// Waits until nothing of an attempt runs. Where it does so under a new epoch before, two attempts ran at once.
async fn until_gone_and_not_elsewhere(site: &Site, task: &v1::Task) {
    let what = format!("the end of t{} under epoch {}", task.id, task.epoch);
    wait::until(&what, LEASE, || async {
        let epoch = site.get(task.id).await.epoch;
        let left = attempt_processes(task.id, task.epoch);
        if left.is_empty() {
            return Ok(());
        }
        assert_eq!(epoch, task.epoch, "given away while {left:?} still run");
        Err(format!("{left:?} still run"))
    })
    .await
    .unwrap();
}

/// Waits until nothing of an attempt runs, as long as the cluster holds its lease.
async fn until_gone(task: u64, epoch: u64) {
    let what = format!("the end of t{task} under epoch {epoch}");
    wait::until_now(&what, LEASE, || {
        match attempt_processes(task, epoch).as_slice() {
            [] => Ok(()),
            left => Err(format!("{left:?} still run")),
        }
    })
    .await
    .unwrap();
}

/// The living processes of one attempt, wherever they were started.
fn attempt_processes(task: u64, epoch: u64) -> Vec<i32> {
    let (task, epoch) = (
        format!("TASK_ID=t{task}\0"),
        format!("TASK_EPOCH={epoch}\0"),
    );
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let environment = String::from_utf8_lossy(&environment);
            environment.contains(&task) && environment.contains(&epoch)
        })
        .filter(|pid| process::Process::is_alive(*pid))
        .collect()
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_under_a_lost_epoch_is_refused_and_a_repeated_one_changes_nothing() {
    let site = Site::start("late-verdict", |options| options.agents(0)).await;
    let (mut one, mut two) = (
        bench_agent(&site, "b1").await,
        bench_agent(&site, "b2").await,
    );
    let task = site
        .submit(traffic::process(["never", "really", "run"]))
        .await;
    let (first, silent_is_one) = tokio::select! {
        assign = one.assigned(PATIENCE) => (assign.unwrap(), true),
        assign = two.assigned(PATIENCE) => (assign.unwrap(), false),
    };
    let (silent, mut other) = if silent_is_one {
        (one, two)
    } else {
        (two, one)
    };
    silent.fall_silent();
    let second = other.assigned(LEASE + MOVED).await.unwrap();
    let (old, live) = (first.fence.unwrap(), second.fence.unwrap());
    assert_eq!((old.task, live.task), (task, task));
    assert!(
        live.epoch > old.epoch,
        "epochs rise: {} then {}",
        old.epoch,
        live.epoch
    );
    site.progress.say(format!(
        "epoch {} was lost, epoch {} lives",
        old.epoch, live.epoch
    ));

    // First the late one, while the task is still open: it must not settle it.
    silent.report(old, exited(0, "late"));
    silent.speak_again();
    let disposition = silent.disposition(old, PATIENCE).await.unwrap();
    assert_eq!(disposition, Disposition::Stale);
    assert_eq!(site.get(task).await.result, None);

    other.report(live, exited(0, "in time"));
    assert_eq!(
        other.disposition(live, PATIENCE).await.unwrap(),
        Disposition::Accepted
    );
    other.report(live, exited(1, "another story"));
    assert_eq!(
        other.disposition(live, PATIENCE).await.unwrap(),
        Disposition::Duplicate
    );
    let task = site.wait(task).await;
    assert_succeeded(&task);
    assert_eq!(task.result.unwrap().stdout, "in time");
}

/// Here only the epoch tells the attempts apart: task, agent and session are the same.
#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_under_an_epoch_that_the_same_agent_lost_is_refused() {
    let site = Site::start("own-late-verdict", |options| options.agents(0)).await;
    let mut agent = bench_agent(&site, "b1").await;
    let task = site
        .submit(traffic::process(["never", "really", "run"]))
        .await;
    let old = agent.assigned(PATIENCE).await.unwrap().fence.unwrap();
    agent.fall_silent();
    site.until(task, "queued again", LEASE + MOVED, |now| {
        now.state() == TaskState::Queued
    })
    .await;
    agent.speak_again();
    let live = agent.assigned(LEASE).await.unwrap().fence.unwrap();
    assert_eq!((old.task, live.task), (task, task));
    assert!(live.epoch > old.epoch);

    agent.report(old, exited(0, "late"));
    let disposition = agent.disposition(old, PATIENCE).await.unwrap();
    assert_eq!(disposition, Disposition::Stale);
    assert_eq!(site.get(task).await.result, None);

    agent.report(live, exited(0, "in time"));
    let disposition = agent.disposition(live, PATIENCE).await.unwrap();
    assert_eq!(disposition, Disposition::Accepted);
    let task = site.wait(task).await;
    assert_succeeded(&task);
    assert_eq!(task.result.unwrap().stdout, "in time");
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_hears_no_leader_ends_its_work_before_it_may_run_elsewhere() {
    let site = Site::start("unheard", |options| options).await;
    let task = site.submit(site.executions.task("sleep 3600")).await;
    let running = site.until_running(task).await;
    assert!(
        !attempt_processes(task, running.epoch).is_empty(),
        "INVALID: nothing runs"
    );
    let mut stopped = Vec::new();
    for controller in ["c1", "c2", "c3"] {
        let pid = faults::stop(&site.cluster, controller).await.unwrap();
        stopped.push((controller, pid));
    }
    until_gone(task, running.epoch).await;
    for (controller, pid) in stopped {
        faults::continue_stopped(controller, pid).await.unwrap();
    }
    let again = site
        .until(task, "run again", LEASE + MOVED, |now| {
            now.epoch > running.epoch && now.state() == TaskState::Running
        })
        .await;
    site.progress
        .say(format!("t{task} runs again on {}", again.agent));
    site.caller.cancel(task, PATIENCE).await.unwrap();
    assert_eq!(site.wait(task).await.state(), TaskState::Cancelled);
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_cannot_settle_the_attempt_of_another() {
    let site = Site::start("foreign-verdict", |options| options.agents(0)).await;
    let (mut one, mut two) = (
        bench_agent(&site, "b1").await,
        bench_agent(&site, "b2").await,
    );
    let task = site
        .submit(traffic::process(["never", "really", "run"]))
        .await;
    let (fence, held_by_one) = tokio::select! {
        assign = one.assigned(PATIENCE) => (assign.unwrap().fence.unwrap(), true),
        assign = two.assigned(PATIENCE) => (assign.unwrap().fence.unwrap(), false),
    };
    let (holder, thief) = if held_by_one { (one, two) } else { (two, one) };
    thief.report(fence, exited(0, "stolen"));
    // The thief's session carries frames in order: once this comes back, the theft was heard.
    let marker = v1::Fence {
        task: 1_000_000,
        generation: fence.generation,
        epoch: 1,
    };
    thief.report(marker, exited(0, ""));
    let answered = thief.disposition(marker, PATIENCE).await;
    assert!(
        matches!(answered, Ok(Disposition::UnknownTask | Disposition::Stale)) || answered.is_err(),
        "{answered:?}"
    );
    assert_eq!(site.get(task).await.result, None);
    holder.report(fence, exited(0, "mine"));
    let task = site.wait(task).await;
    assert_eq!(task.result.unwrap().stdout, "mine");
}

async fn bench_agent(site: &Site, id: &str) -> BenchAgent {
    let layout = site.cluster.layout().unwrap();
    let directory = site.cluster.scratch().join(id);
    let credentials = cluster::issue(&layout, Role::Agent, id, &directory).unwrap();
    let addresses = site.cluster.addresses().unwrap();
    let agent = BenchAgent::start(&credentials, &addresses, 1, Conduct::WhenTold).unwrap();
    agent.until_leased(PATIENCE).await.unwrap();
    agent
}
