//! Places in the code that no campaign comes to by itself, each with what brings a process there.

use std::time::Duration;

use cluster_tests::cluster::Members;
use cluster_tests::faults::{self, Need};
use cluster_tests::network::Backend;
use cluster_tests::nodes::{Nodes, Options};
use cluster_tests::report::Progress;
use cluster_tests::{Error, wait};
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
    wait::until_now("everybody to have the CA's key", PATIENCE, || {
        let lacks = |id: &String| {
            !nodes
                .member(id)
                .unwrap()
                .data_dir
                .join("ca/ca.key")
                .is_file()
        };
        match nodes.controllers().into_iter().find(lacks) {
            None => Ok(()),
            Some(id) => Err(format!("{id} lacks it")),
        }
    })
    .await
    .unwrap();
    for (point, name) in [("token-use-before", "b1"), ("token-use-after", "b2")] {
        let leader = nodes.leader().await.unwrap();
        let node = nodes.node(&leader).unwrap();
        nodes.terminate(&leader).await.unwrap();
        node.set_failpoints(Some(format!("{point}=return")));
        nodes.restart(&leader).await.unwrap();
        nodes.until_controllers_back().await.unwrap();
        let cli = nodes.cli();
        cli.expect(&["cluster", "transfer-leadership", &leader])
            .await
            .unwrap();

        let create = ["join-token", "create", "--role", "agent", "-o", "quiet"];
        let token = cli.expect(&create).await.unwrap().text().trim().to_owned();
        let dir = nodes.scratch().join(point).to_string_lossy().into_owned();
        let join = [
            "agent",
            "run",
            "--join",
            &token,
            "--id",
            name,
            "--data-dir",
            &dir,
            "--controller",
        ];
        let addresses = nodes.addresses().join(",");
        let mut machine = cli.start(&[&join[..], &[&addresses]].concat()).unwrap();
        let what = format!("{leader} to die at {point}");
        let died = wait::until(&what, DIED, || async {
            node.fallen().await.ok_or("it still runs")
        });
        progress.say(format!("{leader} at {point}: {}", died.await.unwrap()));
        let said = std::fs::read_to_string(&nodes.member(&leader).unwrap().log).unwrap();
        assert!(
            said.contains(&format!("failpoint {point}: the process dies here")),
            "{said}"
        );

        let certificate = std::path::Path::new(&dir).join("identity/cert.pem");
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
        cli.expect(&["join-token", "revoke", id]).await.unwrap();
    }
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
