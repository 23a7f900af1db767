//! Clusters whose nodes the harness starts itself, on each kind of network.

use std::time::Duration;

use cluster_tests::network::{Backend, Disturbance, Edge};
use cluster_tests::nodes::{Nodes, Options};
use cluster_tests::report::Progress;
use tokio::test;

use crate::site::{PATIENCE, turn};

/// How a cluster looks whose leader can't be heard.
const CUT: Duration = Duration::from_secs(3);

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_in_namespaces_goes_on_without_a_leader_that_is_cut_off() {
    let progress = Progress::new("namespaces");
    if let Err(why) = Backend::Namespaces.possible() {
        return progress.skip(&why);
    }
    without_its_leader(progress, Backend::Namespaces).await;
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_behind_proxies_goes_on_without_a_leader_that_is_cut_off() {
    without_its_leader(Progress::new("proxies"), Backend::Proxies).await;
}

async fn without_its_leader(progress: Progress, backend: Backend) {
    let _turn = turn().await;
    let nodes = Nodes::start(Options::new(backend.name(), backend))
        .await
        .unwrap();
    progress.say("the cluster is up");
    nodes.until_serving(PATIENCE).await.unwrap();
    let leader = nodes.leader().await.unwrap();
    let others: Vec<String> = nodes
        .controllers()
        .into_iter()
        .filter(|id| *id != leader)
        .collect();
    let edges = Edge::between(&[leader.clone()], &others);
    let rule = nodes
        .network()
        .disturb(&edges, Disturbance::Silence)
        .await
        .unwrap();
    tokio::time::sleep(CUT).await;
    let felt = nodes.network().felt(&rule).await.unwrap();
    progress.say(format!("{felt:?}"));
    nodes.leader_other_than(&leader).await.unwrap();
    nodes.until_serving(PATIENCE).await.unwrap();
    nodes.network().lift([rule]).await.unwrap();
    nodes.until_whole().await.unwrap();
    nodes.until_serving(PATIENCE).await.unwrap();
    progress.say("whole again");
}
