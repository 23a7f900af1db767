//! Asking a model: the answer streams as it is made, whoever dies meanwhile, and a back end that dies is tried again.

use std::fs::{self, File};
use std::process::Stdio;

use cluster_tests::faults;
use cluster_tests::traffic::ModelServer;
use cluster_tests::wait;
use tokio::test;

use crate::site::{PATIENCE, Site};

const MODEL: &str = "tiny-1b";
const WORDS: usize = 20;

/// One agent, whose back end is this server, and is known to be.
async fn with_a_model(name: &'static str) -> (Site, ModelServer) {
    let server = ModelServer::start(MODEL, WORDS).await.unwrap();
    let url = server.url.clone();
    let site = Site::start(name, |options| options.agents(1).backend(&url)).await;
    wait::until("the model to be offered", PATIENCE, || async {
        let list = site.cluster.cli().json(&["backend", "list"]).await.unwrap();
        match list["items"][0]["models"][0] == MODEL {
            true => Ok(()),
            false => Err(list.to_string()),
        }
    })
    .await
    .unwrap();
    (site, server)
}

/// `task run` in the background; what it writes is in the file.
fn run(site: &Site, out: &std::path::Path) -> tokio::process::Child {
    let words = ["task", "run", "--model", MODEL, "--prompt", "Count."];
    let mut command = site.cluster.cli().command(words);
    let out = File::create(out).unwrap();
    command.stdout(Stdio::from(out)).stderr(Stdio::piped());
    command.spawn().unwrap()
}

async fn until_written(out: &std::path::Path, wanted: &str) {
    wait::until_now("the answer so far", PATIENCE, || {
        let text = fs::read_to_string(out).unwrap();
        match text == wanted {
            true => Ok(()),
            false => Err(text),
        }
    })
    .await
    .unwrap();
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_streams_token_by_token_though_the_leader_dies_in_the_middle() {
    let (site, server) = with_a_model("inference").await;
    let out = site.cluster.scratch().join("answer");
    let child = run(&site, &out);
    server.say(3);
    until_written(&out, "word1 word2 word3 ").await;
    let leader = site.cluster.leader().await.unwrap();
    faults::kill(&site.cluster, &leader).await.unwrap();
    site.progress
        .say(format!("{leader} killed, the leader, after three words"));
    server.say(4);
    until_written(&out, "word1 word2 word3 word4 word5 word6 word7 ").await;
    server.say(WORDS);
    let done = child.wait_with_output().await.unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    assert_eq!(fs::read_to_string(&out).unwrap(), server.answer());
    assert_eq!(server.asked(), ["Count."], "asked once");

    let list = site
        .cluster
        .cli()
        .json(&["task", "list", "--kind", "inference"])
        .await
        .unwrap();
    let task = &list["items"][0];
    assert_eq!(
        (&task["kind"], &task["class"]),
        (&"inference".into(), &"interactive".into())
    );
    let result = &task["result"];
    assert_eq!(result["output"], server.answer());
    assert_eq!(
        (&result["stdout"], &result["exit_code"]),
        (&"".into(), &serde_json::Value::Null)
    );
    assert_eq!(result["usage"]["completion_tokens"], WORDS);
    let id = task["id"].as_str().unwrap();
    let detail = site
        .cluster
        .cli()
        .expect(&["task", "get", id])
        .await
        .unwrap();
    assert!(
        detail.text().contains("tiny-1b: Count."),
        "{}",
        detail.text()
    );
    let logs = site
        .cluster
        .cli()
        .expect(&["task", "logs", id])
        .await
        .unwrap();
    assert_eq!(logs.text(), server.answer());
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_back_end_that_dies_in_the_middle_is_asked_again_and_one_that_stays_away_is_waited_for() {
    let (site, server) = with_a_model("inference-broken").await;
    let cli = site.cluster.cli();
    server.break_after(2);
    server.say(2 + WORDS);
    let asked = [
        "task", "submit", "--model", MODEL, "--prompt", "Again.", "-o", "quiet",
    ];
    let id = cli.expect(&asked).await.unwrap().text().trim().to_owned();
    cli.expect(&["task", "wait", &id]).await.unwrap();
    let task = cli.json(&["task", "get", &id]).await.unwrap();
    assert_eq!(task["attempt"], 2, "{task}");
    assert_eq!(task["result"]["output"], server.answer());
    assert_eq!(server.asked(), ["Again.", "Again."]);

    // Without any retries it says why.
    server.break_after(1);
    server.say(1);
    let once = ["--retries", "0", "--model", MODEL, "--prompt", "Once."];
    let done = cli
        .run(&[&["task", "run"][..], &once].concat())
        .await
        .unwrap();
    assert_eq!(done.code, Some(3), "{}", done.stderr);
    assert!(done.stderr.contains("broke off"), "{}", done.stderr);

    let url = server.url.clone();
    drop(server);
    site.progress.say(format!("{url} is gone"));
    wait::until("the back end to be unavailable", PATIENCE, || async {
        let list = cli.json(&["backend", "list"]).await.unwrap();
        match list["items"][0]["state"] == "unavailable" {
            true => Ok(()),
            false => Err(list.to_string()),
        }
    })
    .await
    .unwrap();
    let id = cli.expect(&asked).await.unwrap().text().trim().to_owned();
    let why = cli.expect(&["task", "why", &id]).await.unwrap();
    assert!(
        why.text().contains("do not offer its model"),
        "{}",
        why.text()
    );
    let named = list_one(&site).await;
    let shown = cli.expect(&["backend", "get", &named]).await.unwrap();
    assert!(shown.text().contains("refused"), "{}", shown.text());
}

async fn list_one(site: &Site) -> String {
    let listed = site
        .cluster
        .cli()
        .expect(&["backend", "list", "-o", "quiet"]);
    listed.await.unwrap().text().trim().to_owned()
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_asked_is_said_at_once() {
    let (site, server) = with_a_model("inference-input").await;
    let cli = site.cluster.cli();
    let input = site.cluster.scratch().join("request.json");
    fs::write(&input, r#"{"model": "tiny-1b", "messages": "#).unwrap();
    let input = input.to_string_lossy().into_owned();
    for (words, part) in [
        (
            vec!["--model", MODEL, "--", "echo"],
            "a command and a model",
        ),
        (vec!["--model", MODEL], "nothing to ask"),
        (vec!["--prompt", "p"], "no model to ask"),
        (vec!["--kind", "inference"], "no model to ask"),
        (
            vec!["--model", "a b", "--prompt", "p"],
            "can't be a model's name",
        ),
        (
            vec!["--model", MODEL, "--prompt", "p", "--env", "A=b"],
            "environment",
        ),
        (vec!["--input", &input], "request.json"),
        (
            vec!["--model", MODEL, "--prompt", "p", "--input", &input],
            "cannot be used with",
        ),
        (
            vec!["--model", MODEL, "--input", "/no/such/file"],
            "/no/such/file",
        ),
    ] {
        let done = cli
            .run(&[&["task", "run"][..], &words].concat())
            .await
            .unwrap();
        assert_eq!(done.code, Some(1), "{words:?}: {}", done.stderr);
        assert!(done.stderr.contains(part), "{words:?}: {}", done.stderr);
    }
    assert_eq!(server.asked(), Vec::<String>::new());
    let done = cli.run(&["backend", "get", "a1/nothing"]).await.unwrap();
    assert_eq!(done.code, Some(2), "{}", done.stderr);
    let listed = cli
        .expect(&["backend", "list", "--model", "other"])
        .await
        .unwrap();
    assert_eq!(listed.text(), "");
}
