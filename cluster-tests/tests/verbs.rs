//! Every verb that asks a cluster, in every form of its answer, and what it refuses: keys, ids, times and
//! exit codes as the contract for the command line has them.

use cluster_tests::cluster::{self, Options, finish};
use security::Role;
use serde_json::{Value, json};
use tokio::test;

use crate::shape::{self, assert_agent, assert_keys, assert_member, assert_object, assert_refused};
use crate::shape::{assert_task, in_every_form, is_time, items};
use crate::site::{PATIENCE, Site};

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn every_question_is_answered_in_every_form() {
    let site = Site::start("verbs", |options| options).await;
    controllers(&site).await;
    agents(&site).await;
    let queued = a_task_that_waits(&site).await;
    let failed = a_task_that_failed(&site).await;
    a_task_that_is_cancelled(&site).await;
    a_task_that_was_retried(&site).await;
    lists(&site, &[&failed, &queued]).await;
    namespaces(&site).await;
    what_a_run_says(&site).await;
    what_is_not_there(&site).await;
    without_a_member(&site).await;
}

async fn controllers(site: &Site) {
    let cli = site.cluster.cli();
    let leader = site.cluster.leader().await.unwrap();
    let status = in_every_form(cli, &["cluster", "status"], &leader, &[&leader]).await;
    assert_object(&status, &shape::STATUS);
    assert_eq!(
        (&status["leader"], &status["stale"]),
        (&json!(leader), &json!(false))
    );
    assert!(
        status["term"].is_u64() && status["cluster_id"].is_string(),
        "{status}"
    );
    let members = status["members"].as_array().unwrap();
    assert_eq!(members.len(), 3, "{status}");
    for member in members {
        assert_member(member, &shape::MEMBER);
    }
    let ids = ["c1", "c2", "c3"];
    let list = in_every_form(cli, &["cluster", "members"], "c3", &ids).await;
    for (item, id) in items(&list).iter().zip(ids) {
        assert_member(item, &[&["schema"], &shape::MEMBER[..]].concat());
        assert_eq!(item["id"], id);
    }
}

async fn agents(site: &Site) {
    let cli = site.cluster.cli();
    let list = in_every_form(cli, &["agent", "list"], "ready", &["a1", "a2"]).await;
    items(&list).iter().for_each(assert_agent);
    let agent = in_every_form(cli, &["agent", "get", "a2"], "ready", &["a2"]).await;
    assert_agent(&agent);
    assert_eq!((&agent["id"], &agent["slots"]), (&json!("a2"), &json!(4)));
}

/// Gives its id.
async fn submit(site: &Site, arguments: &[&str]) -> String {
    let asked = [&["task", "submit"], arguments].concat();
    let task = site.cluster.cli().json(&asked).await.unwrap();
    assert_task(&task);
    task["id"].as_str().unwrap().to_owned()
}

async fn a_task_that_waits(site: &Site) -> String {
    let cli = site.cluster.cli();
    let id = submit(
        site,
        &["--name", "patient", "--require", "gpu", "--", "true"],
    )
    .await;
    let task = in_every_form(cli, &["task", "get", &id], "patient", &[&id]).await;
    assert_task(&task);
    assert_eq!(
        (&task["state"], &task["name"]),
        (&json!("queued"), &json!("patient"))
    );
    for unknown in [
        "agent",
        "epoch",
        "started_at",
        "finished_at",
        "not_before",
        "result",
    ] {
        assert_eq!(task[unknown], Value::Null, "{unknown}: {task}");
    }
    let why = in_every_form(cli, &["task", "why", &id], "place in the queue: 1", &[&id]).await;
    assert_object(&why, &shape::WHY);
    assert_eq!(
        (&why["task"], &why["queue_position"]),
        (&json!(id), &json!(1))
    );
    let agents = why["agents_now"].as_array().unwrap();
    assert_eq!(agents.len(), 2, "{why}");
    for agent in agents {
        assert_keys(agent, &["agent", "score", "terms", "refused"]);
        assert!(agent["refused"].is_string(), "{agent}");
    }
    let late = ["task", "wait", "--timeout", "200ms", &id];
    assert_refused(cli, &late, 4, "timeout").await;
    id
}

async fn a_task_that_failed(site: &Site) -> String {
    let cli = site.cluster.cli();
    // Its stderr is no text.
    let script = r"echo out; printf '\377' >&2; exit 7";
    let id = submit(site, &["--", "sh", "-c", script]).await;
    let waited = cli.run(&["task", "wait", &id, "-o", "json"]).await.unwrap();
    assert_eq!(waited.code, Some(3), "{}", waited.stderr);
    let task = in_every_form(cli, &["task", "get", &id], "exit code   7", &[&id]).await;
    assert_eq!(
        serde_json::from_slice::<Value>(&waited.stdout).unwrap(),
        task
    );
    assert_task(&task);
    assert!(
        is_time(&task["started_at"]) && is_time(&task["finished_at"]),
        "{task}"
    );
    assert!(
        task["epoch"].is_u64() && task["agent"].is_string(),
        "{task}"
    );
    let result = &task["result"];
    assert_eq!(
        (
            &result["exit_code"],
            &result["stdout"],
            &result["stderr_base64"]
        ),
        (&json!(7), &json!("out\n"), &json!("/w==")),
    );
    let why = in_every_form(cli, &["task", "why", &id], "the decision", &[&id]).await;
    assert!(
        why["decided_at_index"].is_u64() && why["policy_version"].is_u64(),
        "{why}"
    );
    let candidate = &why["decision"][0];
    assert_keys(candidate, &["agent", "score", "terms", "refused"]);
    assert_keys(&candidate["terms"][0], &["name", "value", "weight"]);
    let number = |it: &Value, key: &str| it[key].as_i64().unwrap();
    let terms = candidate["terms"].as_array().unwrap().iter();
    let sum: i64 = terms
        .map(|it| number(it, "value") * number(it, "weight"))
        .sum();
    assert_eq!(sum / 1_000, number(candidate, "score"), "{candidate}");
    assert_refused(cli, &["task", "cancel", &id], 1, "already_ended").await;
    id
}

async fn a_task_that_is_cancelled(site: &Site) {
    let cli = site.cluster.cli();
    let id = submit(site, &["--", "sleep", "600"]).await;
    let number = id[1..].parse().unwrap();
    site.until_running(number).await;
    let agent = cli.json(&["task", "get", &id]).await.unwrap()["agent"].clone();
    let agent = cli
        .json(&["agent", "get", agent.as_str().unwrap()])
        .await
        .unwrap();
    assert_agent(&agent);
    assert_eq!(agent["attempts"][0]["task"], json!(id));
    assert_keys(&agent["attempts"][0], &["task", "epoch"]);
    let cancel = ["task", "cancel", "--reason", "enough", &id];
    assert_task(&cli.json(&cancel).await.unwrap());
    site.wait(number).await;
    let task = cli.json(&["task", "get", &id]).await.unwrap();
    assert_eq!(task["state"], "cancelled", "{task}");
    let again = in_every_form(cli, &["task", "cancel", &id], "cancelled", &[&id]).await;
    assert_task(&again);
}

async fn a_task_that_was_retried(site: &Site) {
    let cli = site.cluster.cli();
    let id = submit(site, &["--retries", "1", "--", "false"]).await;
    let number = id[1..].parse().unwrap();
    site.until(number, "queued again", PATIENCE, |task| {
        task.not_before.is_some()
    })
    .await;
    let task = cli.json(&["task", "get", &id]).await.unwrap();
    assert_task(&task);
    // It may have begun its second attempt by now; then there is nothing to wait for any more.
    assert!(
        is_time(&task["not_before"]) || task["attempt"] == 2,
        "{task}"
    );
    let ended = cli.run(&["task", "wait", &id]).await.unwrap();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let task = cli.json(&["task", "get", &id]).await.unwrap();
    assert_eq!(task["state"], "dead_letter", "{task}");
}

async fn lists(site: &Site, some: &[&String]) {
    let cli = site.cluster.cli();
    let list = cli.json(&["task", "list"]).await.unwrap();
    items(&list).iter().for_each(assert_task);
    let ids: Vec<&str> = items(&list)
        .iter()
        .filter_map(|task| task["id"].as_str())
        .collect();
    assert!(some.iter().all(|id| ids.contains(&id.as_str())), "{list}");
    in_every_form(cli, &["task", "list"], "patient", &ids).await;
    let first = cli.json(&["task", "list", "--limit", "1"]).await.unwrap();
    let next = first["next"].as_str().expect("there is another page");
    let second = cli
        .json(&["task", "list", "--limit", "1", "--page", next])
        .await
        .unwrap();
    assert_eq!(
        (&first["items"][0]["id"], &second["items"][0]["id"]),
        (&json!(ids[0]), &json!(ids[1]))
    );
    let waiting = ["task", "list", "--state", "queued"];
    in_every_form(cli, &waiting, "patient", &[some[1].as_str()]).await;
    // Several tasks are a list in every verb, and one is an object.
    let both = [&["task", "wait"], &[some[0].as_str(), some[0]][..]].concat();
    let both = cli
        .run(&[&both[..], &["-o", "json"]].concat())
        .await
        .unwrap();
    assert_eq!(
        (
            both.code,
            items(&serde_json::from_slice(&both.stdout).unwrap()).len()
        ),
        (Some(3), 2)
    );
}

async fn namespaces(site: &Site) {
    let cli = site.cluster.cli();
    let set = ["namespace", "set", "research", "--weight", "3"];
    let more = ["--max-running", "2", "--max-queued", "1", "--user", "ann=2"];
    let said = [&set[..], &more].concat();
    let set = in_every_form(cli, &said, "research", &["research"]).await;
    assert_object(&set, &shape::NAMESPACE);
    let get = ["namespace", "get", "research"];
    let known = in_every_form(cli, &get, "0 of 2", &["research"]).await;
    assert_eq!(known, set);
    let user = &known["users"][0];
    assert_keys(
        user,
        &["user", "weight", "queued", "running", "used_slot_ms"],
    );
    assert_eq!((&user["user"], &user["weight"]), (&json!("ann"), &json!(2)));
    // What is left out stays; what was never named has what always holds.
    let again = ["namespace", "set", "research", "--weight", "4"];
    let again = cli.json(&again).await.unwrap();
    let quota = |it: &Value| (it["weight"].clone(), it["max_running"].clone());
    assert_eq!(quota(&again), (json!(4), json!(2)));
    let new = cli.json(&["namespace", "get", "new"]).await.unwrap();
    assert_eq!(quota(&new), (json!(1), json!(0)));
    let names = ["default", "research"];
    let list = in_every_form(cli, &["namespace", "list"], "WEIGHT", &names).await;
    items(&list)
        .iter()
        .for_each(|it| assert_object(it, &shape::NAMESPACE));

    let waiting = ["--namespace", "research", "--require", "gpu", "--", "true"];
    let waiting = submit(site, &waiting).await;
    let another = ["task", "submit", "--namespace", "research", "--", "true"];
    assert_refused(cli, &another, 1, "quota_used_up").await;
    let set = |more: &[&'static str]| [&["namespace", "set", "research"], more].concat();
    for nonsense in [
        &["--weight", "0"][..],
        &["--weight", "NaN"],
        &["--weight", "-1"],
        &["--user", "ann=NaN"],
        &["--user", "ann=0"],
        &[],
    ] {
        assert_refused(cli, &set(nonsense), 1, "usage").await;
    }
    cli.expect(&set(&["--max-queued", "5"])).await.unwrap();
    submit(site, &another[2..]).await;
    // A smaller one, for what is to come.
    cli.expect(&set(&["--max-queued", "1"])).await.unwrap();
    cli.expect(&["task", "cancel", &waiting]).await.unwrap();
}

async fn what_a_run_says(site: &Site) {
    let cli = site.cluster.cli();
    for format in ["table", "json", "quiet"] {
        let script = "echo out; echo err >&2; exit 5";
        let run = ["task", "run", "-o", format, "--", "sh", "-c", script];
        let run = cli.run(&run).await.unwrap();
        assert_eq!(
            (run.code, &*run.text(), &*run.stderr),
            (Some(3), "out\n", "err\n")
        );
    }
    let propagated = [
        "task",
        "run",
        "--propagate-exit",
        "--",
        "sh",
        "-c",
        "exit 5",
    ];
    assert_eq!(cli.run(&propagated).await.unwrap().code, Some(5));
    // What the task itself could not say, we do.
    let nothing = ["task", "run", "--", "/no/such/program"];
    let told = cli.run(&nothing).await.unwrap();
    assert_eq!((told.code, &*told.text()), (Some(3), ""));
    assert!(told.stderr.contains("/no/such/program"), "{}", told.stderr);
    let told = cli
        .run(&[&["-o", "json"], &nothing[..]].concat())
        .await
        .unwrap();
    let error: Value = serde_json::from_str(&told.stderr).expect(&told.stderr);
    assert_object(&error, &["schema", "error"]);
    assert_eq!(
        (told.code, &error["error"]["code"]),
        (Some(3), &json!("task_failed"))
    );
    // So does a log, whose form nobody can choose.
    let id = submit(site, &["--", "sh", "-c", "echo out"]).await;
    cli.expect(&["task", "wait", &id]).await.unwrap();
    let log = cli
        .expect(&["task", "logs", &id, "-o", "json"])
        .await
        .unwrap();
    assert_eq!((&*log.text(), &*log.stderr), ("out\n", ""));
}

async fn what_is_not_there(site: &Site) {
    let cli = site.cluster.cli();
    for verb in ["get", "why", "wait", "logs", "cancel"] {
        assert_refused(cli, &["task", verb, "t9999"], 2, "no_such_task").await;
    }
    assert_refused(cli, &["agent", "get", "nobody"], 2, "no_such_agent").await;
    let once = ["task", "submit", "--request-id", "once", "--", "true"];
    let first = cli.json(&once).await.unwrap();
    assert_eq!(cli.json(&once).await.unwrap()["id"], first["id"]);
    let other = ["task", "submit", "--request-id", "once", "--", "false"];
    assert_refused(cli, &other, 1, "request_id_reused").await;
    let many = ["task", "submit", "--retries", "101", "--", "true"];
    assert_refused(cli, &many, 1, "over_limit").await;
}

/// What is not known of a member that does not answer is null, and nothing is missing.
async fn without_a_member(site: &Site) {
    let cli = site.cluster.cli();
    let leader = site.cluster.leader().await.unwrap();
    let other = if leader == "c1" { "c2" } else { "c1" };
    // The directory is known by the context.
    let dev = async |verb: &str| cli.json(&["dev", verb, other]).await.unwrap();
    let killed = dev("kill").await;
    assert_object(&killed, &["schema", "id", "pid", "message"]);
    assert_eq!(
        (&killed["id"], &killed["pid"]),
        (&json!(other), &Value::Null)
    );
    assert_refused(cli, &["dev", "stop", other], 1, "not_running").await;
    assert_refused(cli, &["dev", "start", "c9"], 2, "not_found").await;
    let list = cli.json(&["cluster", "members"]).await.unwrap();
    for member in items(&list) {
        assert_member(member, &[&["schema"], &shape::MEMBER[..]].concat());
        let silent = member["id"] == other;
        assert_eq!(member["state"] == "unreachable", silent, "{list}");
    }
    let started = dev("start").await;
    assert!(started["pid"].is_u64(), "{started}");
    assert_refused(cli, &["dev", "start", other], 1, "running").await;
    assert_eq!(dev("stop").await["pid"], Value::Null);
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_disk_fails_ends_with_2_and_one_that_is_told_nonsense_with_1() {
    let small = |options| {
        Options {
            controllers: 1,
            ..options
        }
        .agents(0)
    };
    let site = Site::start("agent-ends", small).await;
    let layout = site.cluster.layout().unwrap();
    let data_dir = site.cluster.scratch().join("w1");
    cluster::issue(&layout, Role::Agent, "w1", &data_dir.join("identity")).unwrap();
    let data_dir = data_dir.to_string_lossy().into_owned();
    let address = layout.controllers[0].grpc.clone();
    let run = [
        "agent",
        "run",
        "--data-dir",
        &data_dir,
        "--controller",
        &address,
    ];
    let cli = site.cluster.cli();
    let stranger = [&run[..], &["--id", "w2"]].concat();
    assert_refused(cli, &stranger, 1, "agent").await;
    let nonsense = [&run[..4], &["--controller", "http://h"]].concat();
    assert_refused(cli, &nonsense, 1, "config").await;

    // No file may grow beyond 64 blocks of 512 bytes, which one result with both its tails does.
    let shell = cluster::Cli::new("sh".as_ref(), "".as_ref(), site.cluster.scratch());
    let binary = cluster_tests::binary::find().unwrap();
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$@\"";
    let mut command = shell.command(["-c", script, "sh", &binary.to_string_lossy()]);
    command.args(run).args(["--label", "small=yes"]);
    let agent = command.spawn().unwrap();
    site.cluster.until_agents_ready(1).await.unwrap();
    let noise = "head -c 20000 /dev/zero; head -c 20000 /dev/zero >&2";
    submit(&site, &["--require", "small=yes", "--", "sh", "-c", noise]).await;
    let ended = finish("agent run".to_owned(), agent).await.unwrap();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let last = ended.stderr.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("error: this agent can't go on: the journal"),
        "{last}"
    );
    site.progress.say(last);
}
