//! Asking a model: the answer streams as it is made, whoever dies meanwhile, and a back end that dies is tried again.

use std::fs::{self, File};
use std::process::Stdio;
use std::time::{Duration, Instant};

use cluster_tests::faults;
use cluster_tests::traffic::{self, ModelServer};
use cluster_tests::wait;
use tokio::test;
use wire::v1;

use crate::site::{PATIENCE, Site, assert_succeeded};

const MODEL: &str = "tiny-1b";
const WORDS: usize = 20;

/// One agent, whose back end is this server, and is known to be.
async fn with_a_model(name: &'static str) -> (Site, ModelServer) {
    with_words(name, WORDS).await
}

async fn with_words(name: &'static str, words: usize) -> (Site, ModelServer) {
    let server = ModelServer::start(MODEL, words).await.unwrap();
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
        why.text().contains("1 does not offer its model"),
        "{}",
        why.text()
    );
    let named = list_one(&site).await;
    let shown = cli.expect(&["backend", "get", &named]).await.unwrap();
    assert!(shown.text().contains("refused"), "{}", shown.text());
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_question_and_a_long_answer_are_whole_also_when_their_agent_is_gone() {
    const LONG: usize = 30_000;
    let (site, server) = with_words("inference-long", LONG).await;
    let cli = site.cluster.cli();
    server.say(LONG);
    let question = "why ".repeat(150_000);
    let input = site.cluster.scratch().join("question");
    fs::write(&input, &question).unwrap();
    let words = [
        "task",
        "run",
        "--model",
        MODEL,
        "--input",
        input.to_str().unwrap(),
    ];
    let done = cli.expect(&words).await.unwrap();
    assert_eq!(done.text(), server.answer());
    assert_eq!(server.asked(), [question]);
    assert!(server.answer().len() > 200_000);
    faults::kill(&site.cluster, "a1").await.unwrap();
    fs::remove_dir_all(site.cluster.member("a1").unwrap().data_dir.join("logs")).unwrap();
    let task = cli.json(&["task", "get", "t1"]).await.unwrap();
    assert_eq!(task["result"]["output"], server.answer());
    assert_eq!(task["result"]["truncated"], false);
    let logs = cli.expect(&["task", "logs", "t1"]).await.unwrap();
    assert_eq!(logs.text(), server.answer());
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

/// One agent with two back ends that have the same model, and their ids.
async fn with_two_servers(name: &'static str) -> (Site, [ModelServer; 2], [String; 2]) {
    let one = ModelServer::start(MODEL, 1).await.unwrap();
    let other = ModelServer::start(MODEL, 1).await.unwrap();
    let (first, second) = (one.url.clone(), other.url.clone());
    let site = Site::start(name, |options| {
        options.agents(1).backend(&first).backend(&second)
    })
    .await;
    wait::until("both to offer the model", PATIENCE, || async {
        let list = site.cluster.cli().json(&["backend", "list"]).await.unwrap();
        let offers = |at: usize| list["items"][at]["models"][0] == MODEL;
        match offers(0) && offers(1) {
            true => Ok(()),
            false => Err(list.to_string()),
        }
    })
    .await
    .unwrap();
    let id = |url: &str| format!("a1/{}", url.trim_start_matches("http://"));
    let ids = [id(&first), id(&second)];
    (site, [one, other], ids)
}

impl Site {
    async fn set(&self, id: &str, settings: &[&str]) {
        let words = [&["backend", "set", id][..], settings].concat();
        self.cluster.cli().expect(&words).await.unwrap();
    }

    /// Asks the model, and waits for the answer.
    async fn ask(&self) {
        let id = self.submit(question()).await;
        assert_succeeded(&self.wait(id).await);
    }
}

fn question() -> v1::TaskSpec {
    v1::TaskSpec {
        process: None,
        inference: Some(Box::new(v1::InferenceSpec {
            model: MODEL.to_owned(),
            endpoint: v1::Endpoint::ChatCompletions.into(),
            request: r#"{"messages":[{"role":"user","content":"Well?"}]}"#.to_owned(),
        })),
        retries: Some(5),
        ..traffic::process(["none"])
    }
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn back_ends_are_asked_by_their_weights_within_their_limits_and_left_alone_when_they_fail() {
    let (site, servers, ids) = with_two_servers("backend-set").await;
    let [one, other] = &servers;
    let asked = || (one.asked().len(), other.asked().len());
    one.say(1_000);
    other.say(8);
    site.set(&ids[0], &["--weight", "3"]).await;
    for _ in 0..24 {
        site.ask().await;
    }
    assert_eq!(asked(), (18, 6), "three to one");
    site.progress.say("24 requests: 18 and 6");

    // The settings stand in the log: another leader has them, and tells the agent.
    let leader = site.cluster.leader().await.unwrap();
    faults::kill(&site.cluster, &leader).await.unwrap();
    site.restart(&leader).await;
    site.set(&ids[0], &["--limit", "1"]).await;
    site.set(&ids[1], &["--limit", "1"]).await;
    let cli = site.cluster.cli();
    let shown = cli.json(&["backend", "get", &ids[0]]).await.unwrap();
    assert_eq!((&shown["weight"], &shown["limit"]), (&3.into(), &1.into()));

    one.hush();
    other.hush();
    let mut tasks = Vec::new();
    for _ in 0..6 {
        tasks.push(site.submit(question()).await);
    }
    wait::until_now("one request at each", PATIENCE, || match asked() {
        (19, 7) => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await
    .unwrap();
    let waiting = format!("t{}", tasks[5]);
    let why = cli.expect(&["task", "why", &waiting]).await.unwrap();
    assert!(why.text().contains("at the limit"), "{}", why.text());
    one.say(100);
    other.say(100);
    for task in tasks {
        assert_succeeded(&site.wait(task).await);
    }
    assert_eq!((one.most_at_once(), other.most_at_once()), (1, 1));

    let left_alone = Duration::from_secs(4);
    // However many it takes until the time is over.
    one.say(1_000_000);
    other.say(1_000_000);
    for id in &ids {
        let settings = ["--limit", "0", "--weight", "1", "--fail-timeout", "4s"];
        site.set(id, &settings).await;
    }
    other.break_after(0);
    let (_, before) = asked();
    let mut began = Instant::now();
    while asked().1 == before {
        began = Instant::now();
        site.ask().await;
    }
    let failed = asked().1;
    while asked().1 == failed {
        site.ask().await;
    }
    let returned = began.elapsed();
    assert!(returned >= left_alone, "asked again after {returned:?}");
    assert!(returned <= PATIENCE / 2, "asked again after {returned:?}");
    site.progress.say(format!(
        "one that failed was asked again {returned:?} later"
    ));
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_said_of_a_back_end_is_refused_in_words() {
    let (site, _servers, ids) = with_two_servers("backend-set-input").await;
    let id = ids[0].as_str();
    for (words, code, part) in [
        (vec![id], 1, "--weight"),
        (vec![id, "--weight", "0"], 1, "weight is 1 to 1000"),
        (vec![id, "--weight", "-1"], 1, "-1"),
        (vec![id, "--weight", "NaN"], 1, "NaN"),
        (vec![id, "--weight", "99999999999"], 1, "99999999999"),
        (vec![id, "--limit", "70000"], 1, "limit is 65536"),
        (vec![id, "--max-fails", "1001"], 1, "1000 at most"),
        (vec![id, "--fail-timeout", "soon"], 1, "not a time"),
        (vec![id, "--fail-timeout", "0"], 1, "`max_fails` 0"),
        (vec![id, "--fail-timeout", "2d"], 1, "1 day at most"),
        (vec!["a1", "--weight", "2"], 1, "such as a1/gpu"),
        (vec!["a1/gpu", "--weight", "2"], 2, "no back end gpu"),
        (vec!["a9/gpu", "--weight", "2"], 2, "no agent a9"),
    ] {
        let all = [&["backend", "set"][..], &words].concat();
        let done = site.cluster.cli().run(&all).await.unwrap();
        assert_eq!(done.code, Some(code), "{words:?}: {}", done.stderr);
        assert!(done.stderr.contains(part), "{words:?}: {}", done.stderr);
    }
    let shown = site
        .cluster
        .cli()
        .json(&["backend", "get", id])
        .await
        .unwrap();
    let told = ["weight", "limit", "max_fails", "fail_timeout_ms"].map(|key| shown[key].clone());
    assert_eq!(told, [1, 0, 1, 10_000].map(serde_json::Value::from));
}
