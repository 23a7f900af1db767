//! The disks of all controllers run full: first nearly, and what runs still ends, while nothing new is taken; then
//! wholly, and whoever stops says why. Nothing that was acknowledged is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use cluster_tests::checkers::check_hashes;
use cluster_tests::cluster::{self, Cluster, Metrics};
use cluster_tests::faults;
use cluster_tests::faults::disk::SmallDisk;
use cluster_tests::traffic;
use cluster_tests::wait;
use futures::future::join_all;
use tokio::process::Child;
use tokio::test;
use tonic::transport::Channel;
use wire::status::{Code, Failure};
use wire::v1;
use wire::v1::agent_order::Order;
use wire::v1::agents_client::AgentsClient;
use wire::v1::tasks_client::TasksClient;

use crate::site::{PATIENCE, Site, assert_succeeded};

const CONTROLLERS: [&str; 3] = ["c1", "c2", "c3"];
/// Of each disk. A twentieth of it is kept from blobs, half of that from new work: 12.8 MiB.
const MEBIBYTES: u32 = 512;
/// What is left on a disk that is nearly full.
const LITTLE: u64 = 9 << 20;
/// The controllers look at their disks every second and ask each other every three.
const NOTICED: Duration = Duration::from_secs(20);
const SLOTS: u32 = 4;
/// Writes under way at once, to fill what is left.
const IN_FLIGHT: usize = 32;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// A controller on a small disk of its own.
struct OnDisk {
    id: &'static str,
    disk: SmallDisk,
    argv: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl OnDisk {
    /// Of one that was killed.
    fn new(site: &Site, id: &'static str) -> Result<OnDisk, String> {
        let member = site.cluster.member(id).unwrap();
        let image = site.cluster.scratch().join(format!("{id}.img"));
        let disk = SmallDisk::format(&member.data_dir, &image, MEBIBYTES)?;
        let argv = disk.under(&member.argv);
        let log = site.cluster.scratch().join(format!("{id}.log"));
        let child = None;
        Ok(OnDisk {
            id,
            disk,
            argv,
            log,
            child,
        })
    }

    /// Its filler goes with the start.
    fn start(&mut self, cluster: &Cluster) {
        let mut command = cluster.cli().program(&self.argv[0], &self.argv[1..]);
        let log = fs::File::create(&self.log).unwrap();
        let command = command.stderr(log).stdout(Stdio::null());
        self.child = Some(command.spawn().unwrap());
    }

    fn pid(&self) -> i32 {
        let pid = self.child.as_ref().and_then(Child::id);
        i32::try_from(pid.expect("it runs")).unwrap()
    }

    /// Its exit code, once it has ended.
    fn ended(&mut self) -> Option<Option<i32>> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        Some(status.code())
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_everywhere_refuse_what_is_new_and_lose_nothing() {
    let shape = |options: cluster::Options| options.agents(1).slots(SLOTS);
    let site = Site::start("full-disks", shape).await;
    let mut members = match on_small_disks(&site).await {
        Ok(members) => members,
        Err(why) => return site.progress.skip(&why),
    };
    let mut accepted = Vec::new();
    for number in 0..20 {
        accepted.push(site.submit(saying(number)).await);
    }
    let cancelled = filled_nearly(&site, &members, &mut accepted).await;
    filled_wholly(&site, &mut members, &mut accepted).await;
    start_again(&site, &mut members).await;

    accepted.push(site.submit(saying(23)).await);
    for task in &accepted {
        assert_succeeded(&site.wait(*task).await);
    }
    for (number, task) in accepted.iter().take(20).enumerate() {
        let said = site.get(*task).await.result.unwrap().stdout;
        assert_eq!(said, format!("said {number}\n"));
    }
    assert_eq!(site.get(cancelled).await.state(), v1::TaskState::Cancelled);
    let status = site.converged().await;
    assert_eq!(check_hashes([&status]), []);
    let count = accepted.len();
    let text = format!("{count} tasks are there, with their results");
    site.progress.say(text);
}

/// The cluster's controllers, on disks of their own from now on; or why that can't be done here.
async fn on_small_disks(site: &Site) -> Result<Vec<OnDisk>, String> {
    let ids: Vec<String> = CONTROLLERS.map(str::to_owned).into();
    faults::kill_together(&site.cluster, &ids).await.unwrap();
    let mut members = Vec::new();
    for id in CONTROLLERS {
        members.push(OnDisk::new(site, id)?);
    }
    for member in &mut members {
        member.start(&site.cluster);
    }
    site.cluster.until_whole().await.unwrap();
    Ok(members)
}

/// Leaves little on every disk, sees that nothing new is taken while what runs ends, and makes room again. Gives a task
/// that was cancelled meanwhile.
async fn filled_nearly(site: &Site, members: &[OnDisk], accepted: &mut Vec<u64>) -> u64 {
    let gate = site.cluster.scratch().join("first-gate");
    let running = held_open(site, &gate).await;
    // Some are sent ahead to the agent; the last ones surely wait.
    for number in 0..=model::PREFETCH_MAX {
        accepted.push(site.submit(saying(number as usize)).await);
    }
    let queued = site.submit(saying(20)).await;
    let cancelled = site.submit(saying(21)).await;

    for member in members {
        member.disk.leave(member.pid(), LITTLE).unwrap();
    }
    let refused = until_refused(site, accepted).await;
    site.progress.say(&refused.message);
    assert_eq!(refused.code, Code::NoRoom);
    assert!(refused.hint.unwrap().contains("make room on"));
    for word in ["almost out of disk space", "MiB left"] {
        assert!(refused.message.contains(word), "{}", refused.message);
    }
    told_to_a_person(site).await;

    // What runs ends, from what was kept; what waits waits on, and may be cancelled.
    fs::write(&gate, "").unwrap();
    for task in &running {
        assert_succeeded(&site.wait(*task).await);
    }
    site.caller.cancel(cancelled, PATIENCE).await.unwrap();
    let why = ["task", "why", &format!("t{queued}")];
    let why = site.cluster.cli().expect(&why).await.unwrap().text();
    assert!(why.contains("room on the controllers' disks"), "{why}");
    assert_eq!(site.get(queued).await.state(), v1::TaskState::Queued);
    let still = try_submit(site).await.unwrap_err();
    assert_eq!(still.code, Code::NoRoom, "the disks are as full as before");

    // Two with room are enough, and nobody has to start anything.
    for member in &members[..2] {
        member.disk.make_room(member.pid()).unwrap();
    }
    accepted.push(site.submit(saying(22)).await);
    assert_succeeded(&site.wait(queued).await);
    accepted.extend(running);
    accepted.push(queued);
    site.progress.say("with room on two disks it goes on");
    cancelled
}

/// With all of the room that there was.
async fn start_again(site: &Site, members: &mut [OnDisk]) {
    for member in members {
        // Without a majority the last one may live on, or not: what is on its disk is all that counts.
        member.child.as_mut().unwrap().kill().await.unwrap();
        member.start(&site.cluster);
    }
    let opened = wait::until("a1 to be open again", PATIENCE, || async {
        let done = site.cluster.cli().run(&["agent", "uncordon", "a1"]).await;
        done.and_then(cluster::Completed::success)
    });
    opened.await.unwrap();
    site.cluster.until_whole().await.unwrap();
}

fn saying(number: usize) -> v1::TaskSpec {
    traffic::process(["echo".to_owned(), format!("said {number}")])
}

/// Tasks in all slots, which end once there is a file at `gate`.
async fn held_open(site: &Site, gate: &Path) -> Vec<u64> {
    let script = format!("until [ -e {} ]; do sleep 0.05; done", gate.display());
    let mut running = Vec::new();
    for _ in 0..SLOTS {
        let spec = traffic::process(["sh", "-c", &script]);
        running.push(site.submit(spec).await);
    }
    for task in &running {
        site.until_running(*task).await;
    }
    running
}

/// One try at a controller, with what it was answered in time.
async fn try_submit(site: &Site) -> Result<u64, Failure> {
    let mut request = tonic::Request::new(traffic::submit(saying(99)));
    request.set_timeout(ANSWER);
    let controller = &site.cluster.layout().unwrap().controllers[0];
    let channel = cluster::channel(&controller.grpc, &site.tls);
    let answer = TasksClient::new(channel).submit(request).await;
    let reply = answer.map_err(|status| Failure::read(&status))?;
    Ok(reply.into_inner().task.unwrap().id)
}

/// The leader needs a moment to hear of it; what it took until then is as good as all else.
async fn until_refused(site: &Site, accepted: &mut Vec<u64>) -> Failure {
    let taken = Mutex::new(Vec::new());
    let refused = wait::until("a submit to be refused", NOTICED, || async {
        match try_submit(site).await {
            Err(failure) if failure.message.contains("disk space") => Ok(failure),
            Err(failure) => Err(format!("{failure:?}")),
            Ok(id) => {
                taken.lock().unwrap().push(id);
                Err(format!("t{id} was taken"))
            }
        }
    });
    let refused = refused.await.unwrap();
    accepted.append(&mut taken.lock().unwrap());
    refused
}

/// What the command line, the status and the metrics say of it.
async fn told_to_a_person(site: &Site) {
    let cli = site.cluster.cli();
    let done = cli.run(&["task", "submit", "--", "true"]).await.unwrap();
    assert_eq!(done.code, Some(4), "{}", done.stderr);
    assert!(
        done.stderr.contains("almost out of disk space"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("make room"), "{}", done.stderr);
    let status = cli.expect(&["cluster", "status"]).await.unwrap();
    assert!(
        status.text().contains("disk alarm: c1 has "),
        "{}",
        status.text()
    );
    let tls = cluster::https_tls(&site.cluster.credentials().unwrap()).unwrap();
    for controller in site.cluster.layout().unwrap().controllers {
        let metrics = Metrics::scrape(&controller.https, &tls).await.unwrap();
        let free = metrics.get("quorate_disk_free_bytes").unwrap();
        let kept = metrics.get("quorate_disk_kept_bytes").unwrap();
        assert!(free < kept, "{}: {free} of {kept}", controller.id);
    }
}

/// Takes the last byte of every disk and goes on writing until a majority has stopped, while tasks run that end
/// meanwhile.
async fn filled_wholly(site: &Site, members: &mut [OnDisk], accepted: &mut Vec<u64>) {
    let gate = site.cluster.scratch().join("second-gate");
    accepted.extend(held_open(site, &gate).await);
    for member in &*members {
        member.disk.fill(member.pid()).unwrap();
    }
    fs::write(&gate, "").unwrap();
    let channels = site.cluster.layout().unwrap().controllers;
    let channels = channels
        .iter()
        .map(|it| cluster::channel(&it.grpc, &site.tls));
    let channels: Vec<_> = channels.collect();
    let mut written = 0;
    let begun = Instant::now();
    loop {
        let ended = members.iter_mut().filter_map(OnDisk::ended).count();
        if ended > members.len() / 2 {
            break;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "INVALID: {ended} controllers have stopped after {written} writes"
        );
        // What ends or closes something is written whatever is left.
        let orders = (0..IN_FLIGHT).map(|at| cordon(channels[at % channels.len()].clone(), at));
        written += join_all(orders)
            .await
            .into_iter()
            .filter(|done| *done)
            .count();
        accepted.extend(try_submit(site).await.ok());
    }
    for member in members {
        let Some(code) = member.ended() else { continue };
        let said = member.said();
        site.progress.say(format!(
            "after {written} writes {} has stopped: {}",
            member.id,
            said.lines().last().unwrap_or_default()
        ));
        assert_eq!(code, Some(2), "{said}");
        assert!(!said.contains("panicked"), "{said}");
        let errors = said.lines().filter(|line| line.starts_with("error: "));
        let errors: Vec<_> = errors.collect();
        assert!(
            matches!(errors[..], [error] if error.contains("make room")),
            "{said}"
        );
    }
}

/// Whether it was written. Whoever stops meanwhile does not answer.
async fn cordon(channel: Channel, number: usize) -> bool {
    let reason = format!("{number}: {}", "x".repeat(1_000));
    let mut order = tonic::Request::new(v1::AgentOrder {
        id: "a1".to_owned(),
        order: Some(Order::Cordon(v1::CordonAgent { reason })),
    });
    order.set_timeout(ANSWER);
    AgentsClient::new(channel).order(order).await.is_ok()
}
