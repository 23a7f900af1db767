//! A wall clock that jumps by an hour: no lease may end, nothing may run twice, nobody may lose office.
//! And one that differs from the others': they have to say so.
//!
//! The clocks are those of [`faults::clock`].

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster_tests::cluster::{self, Cluster, Metrics, Options};
use cluster_tests::faults::clock::Clock;
use cluster_tests::report::Progress;
use cluster_tests::{faults, traffic, wait};
use tokio::process::Child;
use tokio::test;
use wire::v1::TaskState;

use crate::site::{PATIENCE, Site};

/// Longer than a lease, so that one which the jump ended would be seen to end.
const LOOKED_AT: Duration = Duration::from_secs(18);
/// Whose clocks are right while that of c3 is not.
const WATCHERS: [&str; 2] = ["c1", "c2"];

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_set_an_hour_forward_and_back_changes_nothing() {
    let clock = match Clock::create(&beside_the_build("jump")) {
        Ok(clock) => clock,
        Err(why) => return Progress::new("clock").skip(&why),
    };
    let site = Site::start("clock", |options| under(options, &clock)).await;
    let load = site.flowing_load(2).await;
    let long = site.submit(traffic::process(["sleep", "3600"])).await;
    let before = site.until_running(long).await;
    let status = site.cluster.status().await.unwrap();

    for (jump, sign) in [("+1h", 1), ("-1h", -1)] {
        clock.set(jump).unwrap();
        let hour = wait::until("the jump to show", PATIENCE, || async {
            let shown = ahead(&site).await;
            if shown * sign > 1_800_000 {
                Ok(shown)
            } else {
                Err(format!("{shown} ms"))
            }
        })
        .await
        .unwrap_or_else(|error| panic!("INVALID: {error}"));
        let jumped = tokio::time::Instant::now();
        site.until_more(&load, 20).await;
        tokio::time::sleep_until(jumped + LOOKED_AT).await;
        site.until_more(&load, 20).await;
        let task = site.get(long).await;
        assert_eq!(
            (task.state(), task.epoch),
            (TaskState::Running, before.epoch),
            "{}",
            task.reason
        );
        let now = site.cluster.status().await.unwrap();
        assert_eq!((now.term, now.leader), (status.term, status.leader.clone()));
        site.progress
            .say(format!("wall time {:+} min: no lease ended", hour / 60_000));
    }
    clock.set("+0s").unwrap();
    site.caller.cancel(long, PATIENCE).await.unwrap();
    assert_eq!(site.wait(long).await.state(), TaskState::Cancelled);
    site.judge(load, 40).await;
    clock.remove();
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_differs_from_the_others_is_an_alarm_until_it_is_set_right() {
    let clock = match Clock::create(&beside_the_build("skew")) {
        Ok(clock) => clock,
        Err(why) => return Progress::new("skew").skip(&why),
    };
    let site = Site::start("skew", |options| options.agents(0)).await;
    faults::kill(&site.cluster, "c3").await.unwrap();
    let log = site.cluster.scratch().join("c3-shifted.log");
    let _shifted = start_under(&site.cluster, "c3", &clock, &log);
    site.cluster.until_whole().await.unwrap();
    until_skew(&site, -0.5..0.5).await;
    assert_eq!(
        WATCHERS.map(|id| said(&site, id, "too far apart")),
        [false; 2]
    );

    clock.set("+10s").unwrap();
    until_skew(&site, 9.5..10.5).await;
    until_said(&site, "too far apart").await;
    let status = site.cluster.status().await.unwrap();
    let text = site.cluster.cli().expect(&["cluster", "status"]).await;
    let text = text.unwrap().text();
    assert!(text.contains("clock alarm: "), "{text}");
    site.progress.say("wall clocks 10 s apart, and all say so");

    clock.set("+0s").unwrap();
    until_skew(&site, -0.5..0.5).await;
    until_said(&site, "close again").await;
    let after = site.cluster.status().await.unwrap();
    assert_eq!((after.term, after.leader), (status.term, status.leader));
    clock.remove();
}

/// Starts a member that was killed with the same command line, and with a clock of its own.
fn start_under(cluster: &Cluster, id: &str, clock: &Clock, log: &Path) -> Child {
    let argv = cluster.member(id).unwrap().argv;
    let mut command = cluster.cli().command(&argv[1..]);
    let log = fs::File::create(log).unwrap();
    let command = command.envs(clock.environment()).stderr(log);
    command.stdout(Stdio::null()).spawn().unwrap()
}

/// Waits until c1 and c2 both measure that c3 is ahead by so many seconds.
async fn until_skew(site: &Site, wanted: Range<f64>) {
    let tls = cluster::https_tls(&site.cluster.credentials().unwrap()).unwrap();
    let layout = site.cluster.layout().unwrap();
    for controller in WATCHERS.map(|id| layout.controller(id).unwrap()) {
        let what = format!("{} to see c3 ahead by {wanted:?} s", controller.id);
        wait::until(&what, PATIENCE, || async {
            let metrics = Metrics::scrape(&controller.https, &tls).await;
            let metrics = metrics.map_err(|error| error.to_string())?;
            match metrics.get("quorate_clock_skew_seconds{member=\"c3\"}") {
                Some(skew) if wanted.contains(&skew) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
        .unwrap();
    }
}

/// Waits until the logs of c1 and c2 both have a line with these words about c3.
async fn until_said(site: &Site, words: &str) {
    wait::until_now(
        &format!("`{words}` in the logs"),
        PATIENCE,
        || match WATCHERS.map(|id| said(site, id, words)) {
            [true, true] => Ok(()),
            seen => Err(format!("{seen:?}")),
        },
    )
    .await
    .unwrap();
}

fn said(site: &Site, id: &str, words: &str) -> bool {
    let log = site.cluster.member(id).unwrap().log;
    let text = fs::read_to_string(log).unwrap();
    text.lines()
        .any(|line| line.contains(words) && line.contains("member=c3"))
}

fn under(options: Options, clock: &Clock) -> Options {
    clock
        .environment()
        .into_iter()
        .fold(options, |options, (name, value)| {
            options.environment(name, &value)
        })
}

fn beside_the_build(name: &str) -> PathBuf {
    let directory = cluster_tests::binary::target_directory().unwrap();
    directory.join(format!("faketime-{name}-{}", std::process::id()))
}

/// The wall time that the leader gives a task, less ours, in milliseconds.
async fn ahead(site: &Site) -> i64 {
    let task = site.submit(traffic::process(["true"])).await;
    let shown = site.get(task).await.submitted_at.unwrap();
    let ours = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    i64::try_from(shown).unwrap() - i64::try_from(ours).unwrap()
}
