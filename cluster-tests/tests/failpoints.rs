//! Places in the code that no campaign comes to by itself, each with what brings a process there.

use std::path::Path;
use std::time::Duration;

use cluster_tests::cluster::Members;
use cluster_tests::faults::{self, Need};
use cluster_tests::network::Backend;
use cluster_tests::nodes::{Nodes, Options};
use cluster_tests::report::Progress;
use cluster_tests::{Error, wait};
use tokio::process::Child;
use tokio::test;

use crate::site::{PATIENCE, turn};

const DIED: Duration = Duration::from_secs(20);

/// The leader dies where it uses the token, before or after the entry. The machine asks the next one, and either way there is
/// one certificate for one use.
#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_used_once_though_the_leader_dies_over_it() {
    let progress = Progress::new("token-use");
    let _turn = turn().await;
    let kinds: Vec<&faults::Kind> = faults::all()
        .filter(|kind| kind.needs == [Need::Failpoints, Need::Controllers(3)])
        .collect();
    let (options, missing) = faults::equip(Options::new("token-use", Backend::Direct), &kinds);
    if !options.has_failpoints {
        return progress.skip(&missing.join("; "));
    }
    let nodes = Nodes::start(options.agents(1)).await.unwrap();
    until_all_can_admit(&nodes).await;
    for (point, name) in [("token-use-before", "b1"), ("token-use-after", "b2")] {
        let leader = nodes.leader().await.unwrap();
        let node = nodes.node(&leader).unwrap();
        nodes.terminate(&leader).await.unwrap();
        node.set_failpoints(Some(format!("{point}=return")));
        nodes.restart(&leader).await.unwrap();
        nodes.until_controllers_back().await.unwrap();
        let cli = nodes.cli();
        let lead = ["cluster", "transfer-leadership", &leader];
        cli.expect(&lead).await.unwrap();

        let create = ["join-token", "create", "--role", "agent", "-o", "quiet"];
        let token = cli.expect(&create).await.unwrap().text().trim().to_owned();
        let dir = nodes.scratch().join(point);
        let mut machine = join(&nodes, name, &token, &dir);
        let died = node.until_fallen(DIED).await.unwrap();
        progress.say(format!("{leader} at {point}: {died}"));
        let said = std::fs::read_to_string(&node.log).unwrap();
        let last_words = format!("failpoint {point}: the process dies here");
        assert!(said.contains(&last_words), "{said}");

        let certificate = dir.join("identity/cert.pem");
        let admitted = wait::until_now("a certificate", PATIENCE, || match certificate.is_file() {
            true => Ok(()),
            false => Err("none yet"),
        });
        admitted.await.unwrap();
        machine.kill().await.unwrap();
        node.set_failpoints(None);
        nodes.restart(&leader).await.unwrap();
        nodes.until_controllers_back().await.unwrap();
        let used = used(&nodes).await.unwrap();
        assert_eq!(used, [(0, 1)], "{point}: uses left, machines admitted");
        let id = token.split('.').nth(1).unwrap();
        let revoke = ["join-token", "revoke", id];
        cli.expect(&revoke).await.unwrap();
    }
}

/// Whoever has the CA's key can, and the others get it from the first one.
async fn until_all_can_admit(nodes: &Nodes) {
    wait::until_now("everybody to have the CA's key", PATIENCE, || {
        let key = |id: &String| nodes.member(id).unwrap().data_dir.join("ca/ca.key");
        match nodes
            .controllers()
            .into_iter()
            .find(|id| !key(id).is_file())
        {
            None => Ok(()),
            Some(id) => Err(format!("{id} lacks it")),
        }
    })
    .await
    .unwrap();
}

/// A machine that comes to join as an agent.
fn join(nodes: &Nodes, name: &str, token: &str, dir: &Path) -> Child {
    let (dir, addresses) = (dir.to_string_lossy(), nodes.addresses().join(","));
    let words = [
        ["agent", "run"],
        ["--join", token],
        ["--id", name],
        ["--data-dir", &dir],
        ["--controller", &addresses],
    ];
    nodes.cli().start(words.as_flattened()).unwrap()
}

/// Of tokens that are not revoked: how many uses are left, and how many machines came in by it.
async fn used(nodes: &Nodes) -> Result<Vec<(u64, usize)>, Error> {
    let list = nodes.cli().json(&["join-token", "list"]).await?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let open = items.iter().filter(|item| item["state"] != "revoked");
    Ok(open
        .map(|item| {
            let admitted = item["admitted"].as_array().map_or(0, Vec::len);
            (item["uses_left"].as_u64().unwrap_or(u64::MAX), admitted)
        })
        .collect::<Vec<(u64, usize)>>())
}

#[test]
async fn every_place_is_a_fault_or_tried_here() {
    let here = ["token-use-before", "token-use-after"];
    for point in failpoint::Point::ALL {
        let name = point.name();
        let is_fault = faults::find(&format!("die-at-{name}")).is_some();
        assert!(is_fault != here.contains(&name), "{name}");
    }
}
