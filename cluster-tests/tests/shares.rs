//! Namespaces that all have more to do than there is room share it by their weights, and go on so under another leader.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_tests::wait;
use cluster_tests::{cluster, faults, traffic};
use futures::FutureExt;
use futures::future::{select_ok, try_join_all};
use tokio::test;
use wire::v1;
use wire::v1::namespaces_client::NamespacesClient;

use crate::site::{PATIENCE, Site};

/// Slot-milliseconds that are used while it is looked at.
const WINDOW: u64 = 60_000;

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_of_three_and_one_are_kept_by_the_next_leader() {
    let site = Site::start("shares", |options| options.agents(2).slots(4)).await;
    let cli = site.cluster.cli();
    let heavy = ["namespace", "set", "heavy", "--weight", "3"];
    cli.expect(&heavy).await.unwrap();
    // Tenfold as long, and fewer; both more than will run.
    submit(&site, "heavy", "0.2", 1_100).await;
    submit(&site, "light", "2", 60).await;

    // What they cost is known by then.
    let begun = used(&site, 0).await;
    let before = used(&site, sum(&begun) + WINDOW).await;
    let leader = site.cluster.leader().await.unwrap();
    faults::kill(&site.cluster, &leader).await.unwrap();
    let after = used(&site, sum(&before) + WINDOW).await;
    for (from, to) in [(&begun, &before), (&before, &after)] {
        let used = |name: &str| to[name].saturating_sub(from[name]);
        let percent = 100 * used("heavy") / (used("heavy") + used("light"));
        site.progress.say(format!("heavy has used {percent} %"));
        assert!(
            (71..=79).contains(&percent),
            "{begun:?} {before:?} {after:?}"
        );
    }
    let others = cli.json(&["namespace", "get", "light"]).await.unwrap();
    assert!(others["queued"].as_u64().unwrap() > 0, "{others}");
    site.cluster.stop().await.unwrap();
}

async fn submit(site: &Site, namespace: &str, seconds: &str, count: usize) {
    let spec = v1::TaskSpec {
        namespace: namespace.to_owned(),
        ..traffic::process(["sleep", seconds])
    };
    for some in vec![spec; count].chunks(100) {
        let requests: Vec<_> = some.iter().cloned().map(traffic::submit).collect();
        let submits = requests
            .iter()
            .map(|request| site.caller.submit(request, PATIENCE));
        try_join_all(submits).await.expect("it is submitted");
    }
}

/// What each namespace has used, as soon as it is so much in all.
async fn used(site: &Site, all: u64) -> BTreeMap<String, u64> {
    let clients = site.cluster.addresses().expect("they are known");
    let clients: Vec<_> = clients
        .iter()
        .map(|address| NamespacesClient::new(cluster::channel(address, &site.tls)))
        .collect();
    let look = || async {
        let asked = clients.iter().cloned().map(|mut client| {
            let asked = async move { client.list(v1::ListNamespacesRequest::default()).await };
            asked.boxed()
        });
        let (list, _) = select_ok(asked)
            .await
            .map_err(|status| status.to_string())?;
        let each = list.into_inner().namespaces.into_iter();
        let used: BTreeMap<String, u64> = each.map(|it| (it.name, it.used_ms)).collect();
        let has_used = |name: &str| used.get(name).is_some_and(|used| *used > 0);
        match has_used("heavy") && has_used("light") && sum(&used) >= all {
            true => Ok(used),
            false => Err(format!("{used:?}")),
        }
    };
    let patience = PATIENCE + Duration::from_millis(WINDOW / 8);
    wait::until("the namespaces have used enough", patience, look)
        .await
        .expect("they do")
}

fn sum(used: &BTreeMap<String, u64>) -> u64 {
    used["heavy"] + used["light"]
}
