//! A wall clock that jumps by an hour: no lease may end, nothing may run twice, nobody may lose office.
//!
//! `libfaketime` shifts what every process of the cluster sees as wall time, and leaves the monotonic
//! clocks alone, as a person with `date --set` would.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster_tests::cluster::Options;
use cluster_tests::report::Progress;
use cluster_tests::{traffic, wait};
use tokio::test;
use wire::v1::TaskState;

use crate::site::{PATIENCE, Site};

/// Longer than a lease, so that one which the jump ended would be seen to end.
const LOOKED_AT: Duration = Duration::from_secs(18);

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_set_an_hour_forward_and_back_changes_nothing() {
    let Some(library) = library() else {
        Progress::new("clock").skip("libfaketime is not installed");
        return;
    };
    let shift = beside_the_build();
    set(&shift, "+0s");
    let site = Site::start("clock", |options| under(options, &library, &shift)).await;
    let load = site.flowing_load(2).await;
    let long = site.submit(traffic::process(["sleep", "3600"])).await;
    let before = site.until_running(long).await;
    let status = site.cluster.status().await.unwrap();

    for (jump, sign) in [("+1h", 1), ("-1h", -1)] {
        set(&shift, jump);
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
    set(&shift, "+0s");
    site.caller.cancel(long, PATIENCE).await.unwrap();
    assert_eq!(site.wait(long).await.state(), TaskState::Cancelled);
    site.judge(load, 40).await;
    // It only says where the clock is, and nobody needs that any more.
    let _removed = fs::remove_file(&shift);
}

fn library() -> Option<PathBuf> {
    let roots = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
    ];
    roots
        .iter()
        .map(|root| Path::new(root).join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file())
}

fn under(options: Options, library: &Path, shift: &Path) -> Options {
    options
        .environment("LD_PRELOAD", &library.to_string_lossy())
        .environment("FAKETIME_TIMESTAMP_FILE", &shift.to_string_lossy())
        // Seconds until a process looks at the file again.
        .environment("FAKETIME_CACHE_DURATION", "1")
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
}

fn beside_the_build() -> PathBuf {
    let directory = cluster_tests::binary::target_directory().unwrap();
    directory.join(format!("faketime-{}", std::process::id()))
}

fn set(shift: &Path, by: &str) {
    // Whole or not at all: the processes read it at any moment.
    let new = shift.with_extension("new");
    fs::write(&new, format!("{by}\n")).unwrap();
    fs::rename(&new, shift).unwrap();
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
