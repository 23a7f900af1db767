//! What somebody whose task does not run asks, through all that may be the matter: each answer names it, in words that lead
//! on, and what is said of a task at its end says where it was and how long it waited.

use std::time::Duration;

use cluster_tests::faults;
use cluster_tests::wait;
use serde_json::Value;
use tokio::test;
use wire::v1;

use crate::site::{PATIENCE, Site};

/// Somebody at a command line.
struct Asker<'s>(&'s Site);

impl Asker<'_> {
    async fn does(&self, words: &[&str]) -> String {
        let cli = self.0.cluster.cli();
        cli.expect(words).await.unwrap().text()
    }

    async fn submits(&self, options: &[&str], command: &[&str]) -> u64 {
        let words = [
            &["task", "submit", "-o", "quiet"],
            options,
            &["--"],
            command,
        ]
        .concat();
        let id = self.does(&words).await;
        id.trim()[1..].parse().unwrap()
    }

    /// What `task why` says, once that has all the parts: what happens to agents reaches the leader after a moment.
    async fn hears(&self, task: u64, parts: &[&str]) -> Value {
        let id = format!("t{task}");
        let look = || async {
            let why = self.0.cluster.cli().json(&["task", "why", &id]).await;
            let why = why.map_err(|error| error.to_string())?;
            let summary = why["summary"].as_str().unwrap_or_default();
            match parts.iter().all(|part| summary.contains(part)) {
                true => Ok(why),
                false => Err(summary.to_owned()),
            }
        };
        let what = format!("{id} to be explained by {parts:?}");
        wait::until(&what, PATIENCE, look).await.unwrap()
    }
}

const LONG: [&str; 2] = ["sleep", "3600"];

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_of_somebody_whose_task_does_not_run_has_an_answer_that_leads_on() {
    let site = Site::start("why", |options| options.agents(2).slots(1)).await;
    let user = Asker(&site);

    let nowhere = user.submits(&["--require", "zone=mars"], &LONG).await;
    let told = [
        "of 2 agents 2 do not satisfy its `require`. 0 satisfy `zone=mars`.",
        "None of them will take it as things are: have an agent join that does,",
    ];
    user.hears(nowhere, &told).await;

    user.does(&["agent", "cordon", "a2", "--reason", "new disk"])
        .await;
    let first = user.submits(&[], &LONG).await;
    site.until_running(first).await;
    let second = user.submits(&[], &LONG).await;
    let told = [
        "of 2 agents 1 is cordoned, 1 has no free slot.",
        "a2 was cordoned by admin: new disk.",
        "It is likely to start in",
    ];
    user.hears(second, &told).await;
    user.does(&["agent", "cordon", "a1"]).await;
    // The other one has no room.
    let told = ["`quorate agent uncordon a2` lets it go there."];
    user.hears(second, &told).await;
    user.does(&["agent", "uncordon", "a1"]).await;
    user.does(&["agent", "uncordon", "a2"]).await;
    site.until_running(second).await;
    user.hears(second, &["It was assigned to a2", "It had waited"])
        .await;

    quotas_and_shares(&user).await;

    // All slots are taken: it never gets one.
    let dropped = user.submits(&[], &LONG).await;
    user.hears(dropped, &["2 have no free slot"]).await;
    let dropped_id = format!("t{dropped}");
    user.does(&["task", "cancel", &dropped_id, "--reason", "too late"])
        .await;
    let told =
        ["It was cancelled by admin: too late. It was never assigned to an agent. It had waited"];
    user.hears(dropped, &told).await;

    for task in [first, second] {
        user.does(&["task", "cancel", &format!("t{task}")]).await;
    }
    ended(&user, &site).await;
    estimated(&user, &site).await;

    for agent in ["a1", "a2"] {
        faults::kill(&site.cluster, agent).await.unwrap();
    }
    let alone = user.submits(&[], &LONG).await;
    user.hears(alone, &["It can start once one of a1, a2 is back."])
        .await;
    site.cluster.stop().await.unwrap();
}

/// Both slots are taken by tasks of the namespace `default`, which may not have less than runs.
async fn quotas_and_shares(user: &Asker<'_>) {
    let site = user.0;
    let cli = site.cluster.cli();
    let less = [
        "namespace",
        "set",
        "default",
        "--weight",
        "7",
        "--max-running",
        "1",
    ];
    let refused = cli.run(&less).await.unwrap();
    assert_ne!(refused.code, Some(0));
    let words = "2 of its tasks run now, and 1 is fewer";
    assert!(refused.stderr.contains(words), "{}", refused.stderr);
    let set = cli.json(&["namespace", "get", "default"]).await.unwrap();
    assert_eq!(
        (&set["weight"], &set["max_running"]),
        (&1.into(), &0.into())
    );
    user.does(&["namespace", "set", "default", "--max-running", "2"])
        .await;
    let third = user.submits(&[], &LONG).await;
    let told = [
        "until a task of namespace default has ended: its quota allows 2 at once, and as many run.",
        "by a guess.",
    ];
    user.hears(third, &told).await;
    // Those whose turn is before have used less.
    user.does(&["namespace", "set", "default", "--max-running", "0"])
        .await;
    let light = user.submits(&["--namespace", "light"], &LONG).await;
    let why = user.hears(third, &["Namespace light goes first, having used less than 1 s of slots for a weight of 1; default has used"]).await;
    assert_eq!(why["ahead"]["other_namespaces"], 1, "{why}");
    assert_eq!(why["ahead"]["rival"]["namespace"], "light", "{why}");
    for task in [third, light] {
        user.does(&["task", "cancel", &format!("t{task}")]).await;
        site.wait(task).await;
    }
}

/// What is said of tasks that have ended, or try again.
async fn ended(user: &Asker<'_>, site: &Site) {
    let good = user.submits(&[], &["true"]).await;
    site.wait(good).await;
    user.hears(good, &["It succeeded. It ran on a", "It had waited"])
        .await;
    let bad = user.submits(&[], &["sh", "-c", "exit 3"]).await;
    assert_eq!(site.wait(bad).await.state(), v1::TaskState::Failed);
    user.hears(bad, &["It failed:", "It ran on a"]).await;
    let again = user
        .submits(&["--retries", "9"], &["sh", "-c", "exit 3"])
        .await;
    user.hears(again, &["It waits for its next try, in"]).await;
    user.does(&["task", "cancel", &format!("t{again}")]).await;
    user.hears(again, &["It was cancelled by admin."]).await;
}

/// The leader looks ahead about once a second: what has waited for long enough says afterwards how right that was.
async fn estimated(user: &Asker<'_>, site: &Site) {
    let mut held = Duration::from_secs(2);
    loop {
        let before = [
            user.submits(&[], &LONG).await,
            user.submits(&[], &LONG).await,
        ];
        for task in before {
            site.until_running(task).await;
        }
        let waiting = user.submits(&[], &["true"]).await;
        user.hears(waiting, &["It is likely to start in"]).await;
        tokio::time::sleep(held).await;
        for task in before {
            user.does(&["task", "cancel", &format!("t{task}")]).await;
        }
        site.wait(waiting).await;
        let why = user.hears(waiting, &["It succeeded."]).await;
        let estimate = &why["estimate"];
        if let Some(waited) = estimate["waited_ms"].as_u64() {
            assert!(estimate["expected_wait_ms"].is_u64(), "{why}");
            assert!((1..60_000).contains(&waited), "{why}");
            user.hears(waiting, &["It was estimated to wait"]).await;
            return;
        }
        held *= 2;
        assert!(held < PATIENCE, "nothing was foreseen of what waited");
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_hangs_gets_nothing_once_it_has_been_silent_and_why_says_so_until_it_is_back()
{
    let site = Site::start("silent", |options| options.agents(2).slots(1)).await;
    let user = Asker(&site);
    let pid = faults::stop(&site.cluster, "a1").await.unwrap();
    let first = user.submits(&[], &LONG).await;
    // It may have been given to the one that hangs, and goes on once that is lost.
    let elsewhere = |task: &v1::Task| task.agent == "a2" && task.state() == v1::TaskState::Running;
    site.until(first, "running on a2", PATIENCE, elsewhere)
        .await;
    let second = user.submits(&[], &LONG).await;
    let why = user.hears(second, &["1 has no free slot", "1 is "]).await;
    let hung = &why["agents_now"][0]["refused"];
    let reasons = [
        "it is suspect: silent for too long",
        "it is lost: its lease ran out",
    ];
    assert!(reasons.iter().any(|it| hung == it), "{why}");
    faults::continue_stopped("a1", pid).await.unwrap();
    let back = site.until_running(second).await;
    assert_eq!(back.agent, "a1");
    site.cluster.stop().await.unwrap();
}
