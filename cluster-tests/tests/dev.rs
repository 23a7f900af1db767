//! `quorate dev` itself: how it ends, and how it goes on.

use cluster_tests::cluster::Layout;
use cluster_tests::faults::process::Process;
use cluster_tests::traffic;
use tokio::test;

use crate::site::{PATIENCE, Site, assert_succeeded};

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_everything_that_dev_started_and_dev_goes_on_where_it_was() {
    let mut site = Site::start("ctrl-c", |options| options).await;
    let before = site.submit(site.executions.task("echo before")).await;
    assert_succeeded(&site.wait(before).await);
    let open = site.submit(traffic::process(["sleep", "3600"])).await;
    site.until_running(open).await;
    let (layout, status) = (
        site.cluster.layout().unwrap(),
        site.cluster.status().await.unwrap(),
    );
    let pids: Vec<i32> = layout.members().iter().filter_map(|one| one.pid).collect();
    assert_eq!(pids.len(), 5, "INVALID: not everything runs");

    let ended = site.cluster.pause().await.unwrap();
    site.progress.say(format!("dev ended with {ended}"));
    assert!(ended.success());
    assert!(pids.iter().all(|pid| !Process::is_alive(*pid)));

    site.cluster.resume().await.unwrap();
    let again = site.cluster.layout().unwrap();
    assert_eq!(again.cluster_id, layout.cluster_id);
    let now = site.cluster.status().await.unwrap();
    assert!(now.term > status.term, "{}", now.describe());
    let addresses = |layout: &Layout| {
        let controllers = layout.controllers.iter();
        controllers.map(|one| one.grpc.clone()).collect::<Vec<_>>()
    };
    assert_eq!(addresses(&again), addresses(&layout));

    let old = site.get(before).await;
    assert_succeeded(&old);
    assert_eq!(old.result.unwrap().stdout, "before\n");
    // What an orderly end interrupted is not lost: it runs again, or waits to.
    site.until_running(open).await;
    site.caller.cancel(open, PATIENCE).await.unwrap();
    let new = site.submit(site.executions.task("echo after")).await;
    assert!(new > open);
    assert_succeeded(&site.wait(new).await);
    assert_eq!(site.executions.read().unwrap().len(), 2);
}
