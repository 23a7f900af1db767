//! Campaigns, short ones: clusters that are broken under load, held to all promises by what was answered and by what is on
//! their disks afterwards; and one that has a bug, which is to be found.
//!
//! `QUORATE_REPORTS=DIR` keeps the reports there.

use std::path::Path;
use std::time::Duration;

use cluster_tests::campaign::{self, Campaign, Ending, Outcome};
use cluster_tests::checkers::{Evidence, Finding, Invariant, Standing};
use cluster_tests::faults;
use cluster_tests::history::{Action, Operation};
use cluster_tests::log::Content;
use cluster_tests::network::Backend;
use cluster_tests::report::{Progress, Verdict};
use model::{Command, Entry, Op};
use tokio::test;

use crate::site::{alone, turn};

const SEED: u64 = 7;

fn planned(scenario: &str, seconds: u64) -> Campaign {
    Campaign {
        scenario: campaign::find(scenario).unwrap(),
        seed: SEED,
        length: Duration::from_secs(seconds),
        controllers: 3,
        agents: 3,
        backend: Backend::strongest().0,
        planted: None,
        replay: format!("cargo run -p cluster-tests -- --scenario {scenario} --seed {SEED}"),
    }
}

async fn outcome(name: &'static str, campaign: &Campaign) -> (Outcome, Progress) {
    let progress = Progress::new(name);
    let outcome = campaign
        .run(&Ending::default(), &|text| progress.say(text))
        .await
        .unwrap();
    let report = &outcome.report;
    if let Some(dir) = std::env::var_os("QUORATE_REPORTS") {
        report
            .keep(&outcome.evidence, Path::new(&dir), name)
            .unwrap();
    }
    progress.say(format!(
        "{:?}: {:?}, {} changes of leader",
        report.verdict,
        report.operations,
        report.reigns - 1
    ));
    (outcome, progress)
}

/// Every promise that the product makes so far was held to something, and kept.
fn assert_kept(outcome: &Outcome, progress: &Progress) {
    let report = &outcome.report;
    assert_eq!((report.verdict, &report.reasons), (Verdict::Valid, &vec![]));
    for finding in &report.findings {
        let (name, standing) = (finding.invariant, finding.standing());
        progress.say(format!(
            "{name} {}: {} facts",
            standing.as_str(),
            finding.looked_at
        ));
        let kept = matches!(standing, Standing::Holds | Standing::NotApplicable);
        assert!(kept, "{name}: {finding:#?}");
    }
    // Of labels I4 says something only where they are required.
    let operations = &outcome.evidence.history.operations;
    let requires = |it: &&Operation| {
        let is_picky =
            matches!(&it.action, Action::Submit { spec, .. } if !spec.require.is_empty());
        is_picky && it.submitted().is_some()
    };
    let required = operations.iter().filter(requires).count();
    progress.say(format!("{required} tasks that require labels"));
    assert!(required > 0);
    // And of rules only where some are made.
    let made = rules_made(&outcome.evidence);
    progress.say(format!("{made} rules by hand"));
    assert!(made > 0);
}

/// By what a controller has in its log.
fn rules_made(evidence: &Evidence) -> usize {
    let log = evidence.logs.values().max_by_key(|log| log.entries.len());
    let entries = log.into_iter().flat_map(|log| &log.entries);
    let entries = entries.filter_map(|entry| match &entry.content {
        Content::Operations(bytes) => Entry::decode(bytes).ok(),
        _ => None,
    });
    let ops = entries.flat_map(|entry| entry.ops);
    let is_made = |op: &Op| {
        matches!(
            op,
            Op::Client {
                command: Command::AddRule(_),
                ..
            }
        )
    };
    ops.filter(is_made).count()
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_while_anybody_was_killed_is_what_the_log_makes_of_it() {
    let _turn = turn().await;
    let (outcome, progress) = outcome("crashes", &planned("crashes", 60)).await;
    assert_kept(&outcome, &progress);
    let leaders = &outcome.report.faults["kill-leader"];
    assert!(leaders.took_effect >= 2, "{leaders:?}");
    // No leader is killed without another one leading after it.
    assert!(outcome.report.reigns > leaders.took_effect, "{leaders:?}");
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_while_nodes_were_parted_is_what_the_log_makes_of_it() {
    let _turn = turn().await;
    let (outcome, progress) = outcome("partitions", &planned("partitions", 30)).await;
    assert_kept(&outcome, &progress);
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_while_agents_died_and_came_back_is_what_the_log_makes_of_it() {
    let _turn = turn().await;
    let (outcome, progress) = outcome("leases", &planned("leases", 20)).await;
    assert_kept(&outcome, &progress);
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_while_half_of_many_agents_lost_their_leases_is_what_the_log_makes_of_it()
{
    const HALF: u64 = 50;
    let _turn = alone().await;
    let campaign = Campaign {
        agents: 100,
        ..planned("expiries", 40)
    };
    let (outcome, progress) = outcome("expiries", &campaign).await;
    assert_kept(&outcome, &progress);
    let report = &outcome.report;
    let rounds = |name: &str| report.faults.get(name).map_or(0, |count| count.took_effect);
    let zombies = rounds("zombie-agents");
    assert!(zombies >= 1, "{:?}", report.faults);
    let least = HALF * (zombies + rounds("exile-agents"));
    assert!(
        report.expiries.leases >= least && report.expiries.attempts > 0,
        "{:?}",
        report.expiries
    );
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_while_processes_died_between_two_lines_is_what_the_log_makes_of_it() {
    let _turn = turn().await;
    let (outcome, progress) = outcome("failpoints", &planned("failpoints", 20)).await;
    assert_kept(&outcome, &progress);
    let places = outcome.report.faults.keys();
    assert!(places.clone().all(|name| name.starts_with("die-at-")) && places.count() >= 3);
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bug_that_is_planted_is_found_and_told() {
    let _turn = turn().await;
    let calm = planned("calm", 5);
    let campaign = Campaign {
        planted: Some("epoch-not-the-index".to_owned()),
        replay: format!("{} --planted epoch-not-the-index", calm.replay),
        ..calm
    };
    let (outcome, progress) = outcome("planted", &campaign).await;
    let report = &outcome.report;
    assert_eq!(report.verdict, Verdict::Violated, "{:?}", report.reasons);
    let is_broken = |finding: &Finding| {
        finding.standing() == Standing::Violated && finding.invariant == Invariant::I3
    };
    assert!(
        report.findings.iter().any(is_broken),
        "{:?}",
        report.reasons
    );
    let page = cluster_tests::report::page(report, &outcome.evidence);
    let violation = report.violations().next().unwrap();
    progress.say(violation.to_string());
    assert!(
        page.contains("VIOLATED") && page.contains("epoch-not-the-index"),
        "{page}"
    );
    // Only the log shows it, and still it is told when that was, and marked.
    assert!(violation.at.is_some() && page.contains("<td>when</td>"));
}

#[test]
async fn every_fault_is_in_a_scenario_and_every_name_in_one_is_a_fault() {
    let named: Vec<&str> = campaign::SCENARIOS
        .iter()
        .flat_map(|scenario| match scenario.faults {
            campaign::Faults::Of(names) => names.to_vec(),
            campaign::Faults::None | campaign::Faults::All | campaign::Faults::Swarm => Vec::new(),
        })
        .collect();
    for name in &named {
        assert!(faults::find(name).is_some(), "there is no fault {name}");
    }
    for kind in faults::all() {
        assert!(
            named.contains(&kind.name),
            "{} is in no scenario",
            kind.name
        );
        // As a scenario of its own.
        assert_eq!(campaign::find(kind.name).unwrap().kinds().len(), 1);
    }
    let scenarios = campaign::SCENARIOS.iter();
    let shadowed = scenarios.filter(|scenario| faults::find(scenario.name).is_some());
    assert_eq!(shadowed.count(), 0, "a scenario is called like a fault");
}
