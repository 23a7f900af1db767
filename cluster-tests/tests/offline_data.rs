//! `data-dir`: what a stopped controller has on its disk, told without changing it; and each part of it damaged in turn.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cluster_tests::checkers::{Evidence, Invariant, Standing, judge};
use cluster_tests::cluster::{Cli, Completed};
use cluster_tests::log::{Content, Log};
use cluster_tests::traffic;
use serde_json::Value;
use tokio::test;

use crate::shape::{assert_keys, assert_object, assert_refused, in_every_form, is_time};
use crate::site::Site;

/// Snapshots, and tasks that leave memory, after a few entries.
const SETTINGS: &str =
    "[controller]\nsnapshot_every = 64\narchive_hot_tasks = 5\narchive_segment_entries = 50\n";

const ENTRY: [&str; 10] = [
    "schema",
    "index",
    "term",
    "kind",
    "stamp",
    "wall",
    "committed",
    "bytes",
    "operations",
    "entry_base64",
];

/// Every file below a directory, with its bytes.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(content(&path)),
            false => drop(files.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    files
}

/// A copy to be damaged.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (path, bytes) in content(from) {
        let place = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, bytes).unwrap();
    }
}

async fn run(cli: &Cli, arguments: &[&str]) -> Completed {
    cli.run(arguments).await.unwrap()
}

fn json(done: &Completed) -> Value {
    serde_json::from_slice(&done.stdout).unwrap()
}

/// A controller that has all that one can have: a log without its beginning, a snapshot, an archive, and a file beside
/// the log; stopped.
async fn full() -> (Site, PathBuf, Value) {
    let mut site = Site::start("offline-data", |options| options).await;
    site.set_controllers(SETTINGS).await;
    let attached = site.cluster.scratch().join("attached");
    fs::write(&attached, "x".repeat(100_000)).unwrap();
    let attached = attached.to_string_lossy().into_owned();
    let with_file = ["task", "run", "--attach", &attached, "--", "true"];
    site.cluster.cli().expect(&with_file).await.unwrap();
    for _ in 0..150 {
        let task = site.submit(traffic::process(["true"])).await;
        site.wait(task).await;
    }
    let dir = site.cluster.controller("c1").unwrap().data_dir;
    let text = dir.to_string_lossy().into_owned();
    for verb in ["info", "log", "check"] {
        let in_use = ["data-dir", verb, &text];
        assert_refused(site.cluster.cli(), &in_use, 1, "refused").await;
        let told = run(site.cluster.cli(), &in_use).await.stderr;
        assert!(told.contains("is in use by another process"), "{told}");
    }
    let status = site.converged().await;
    site.cluster.pause().await.unwrap();
    let hashes = status.member("c1").unwrap();
    let hashes = serde_json::json!({
        "applied": hashes.applied,
        "state_hash": hashes.state_hash,
        "hash_index": hashes.hash_index,
        "hash_at": hashes.hash_at,
    });
    (site, dir, hashes)
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_controller_s_directory_is_told_without_a_change_and_damage_is_found() {
    let (site, dir, status) = full().await;
    let before = content(&dir);
    let (cli, text) = (site.cluster.cli(), dir.to_string_lossy().into_owned());
    let info = in_every_form(cli, &["data-dir", "info", &text], "state hash", &["c1"]).await;
    assert_info(&info);
    assert_log(cli, &text, &info).await;

    let checked = in_every_form(cli, &["data-dir", "check", &text], "read and sound", &[]).await;
    assert_object(&checked, &["schema", "sound", "read", "state", "damaged"]);
    assert_keys(&checked["read"], &["log", "snapshot", "archive", "blobs"]);
    assert_eq!(checked["sound"], true, "{checked}");
    assert!(checked["read"]["archive"].as_u64() >= Some(1), "{checked}");
    assert!(checked["read"]["blobs"].as_u64() >= Some(1), "{checked}");
    // What the mark of commitment has come to by then, which may be all.
    if checked["state"]["index"] == status["applied"] {
        assert_eq!(checked["state"]["state_hash"], status["state_hash"]);
    }
    assert!(checked["state"]["index"].as_u64() <= status["applied"].as_u64());
    assert_eq!(
        content(&dir),
        before,
        "something in the directory was changed"
    );
    damages(&site, &dir).await;
}

fn assert_info(info: &Value) {
    let keys = [
        "schema",
        "id",
        "cluster_id",
        "generation",
        "log_id",
        "vote",
        "first_index",
        "last_index",
        "last_term",
        "committed_index",
        "purged_index",
        "snapshot",
        "bytes",
    ];
    assert_object(info, &keys);
    assert_eq!(
        (&info["id"], &info["generation"]),
        (&"c1".into(), &1.into())
    );
    assert_keys(&info["vote"], &["term", "for", "won"]);
    assert_keys(
        &info["snapshot"],
        &["index", "term", "bytes", "state_hash", "segments"],
    );
    let number = |key: &str| {
        info[key]
            .as_u64()
            .unwrap_or_else(|| panic!("{key}: {info}"))
    };
    assert_eq!(number("purged_index") + 1, number("first_index"));
    assert!(number("committed_index") <= number("last_index"), "{info}");
    let snapshot = info["snapshot"]["index"].as_u64().unwrap();
    assert!(snapshot >= number("purged_index"), "{info}");
    for part in ["log", "snapshots", "archive", "blobs"] {
        assert!(info["bytes"][part].as_u64() > Some(0), "{part}: {info}");
    }
}

async fn assert_log(cli: &Cli, dir: &str, info: &Value) {
    let (first, last) = (
        info["first_index"].as_u64().unwrap(),
        info["last_index"].as_u64().unwrap(),
    );
    let all = cli
        .expect(&["data-dir", "log", dir, "-o", "json"])
        .await
        .unwrap();
    let lines = String::from_utf8(all.stdout.clone()).unwrap();
    for line in lines.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert_object(&entry, &ENTRY);
        let of_operations = entry["kind"] == "operations";
        assert_eq!(of_operations, is_time(&entry["stamp"]), "{entry}");
        assert_eq!(of_operations, entry["entry_base64"].is_string(), "{entry}");
    }
    let log = Log::parse(all.stdout.as_slice()).unwrap();
    assert_eq!((log.first(), log.last()), (Some(first), Some(last)));
    let operations = log.entries.iter().filter_map(|entry| match &entry.content {
        Content::Operations(bytes) => Some(model::Entry::decode(bytes).unwrap().ops.len()),
        Content::Blank | Content::Membership => None,
    });
    assert!(operations.sum::<usize>() > 10);
    let words = log.entries.iter().flat_map(|entry| &entry.words);
    assert!(
        words
            .into_iter()
            .any(|words| words.starts_with("admin: submit, request"))
    );
    // Its beginning is gone, so nothing is claimed.
    let evidence = Evidence {
        logs: BTreeMap::from([("c1".to_owned(), log)]),
        voters: 1,
        ..Evidence::default()
    };
    let found = judge(&evidence);
    let of_log = found
        .iter()
        .find(|it| it.invariant == Invariant::I5)
        .unwrap();
    assert_eq!(of_log.standing(), Standing::Unproven);

    let (from, to) = ((last - 2).to_string(), (last - 1).to_string());
    let some = ["data-dir", "log", dir, "--from", &from, "--to", &to];
    let quiet = run(cli, &[&some[..], &["-o", "quiet"]].concat()).await;
    assert_eq!(quiet.stdout, format!("{from}\n{to}\n").into_bytes());
    let table = String::from_utf8(run(cli, &some).await.stdout).unwrap();
    assert!(table.starts_with("     INDEX  TERM  STAMP"), "{table}");
    let wide = run(cli, &[&some[..], &["-o", "wide"]].concat()).await;
    assert!(
        String::from_utf8(wide.stdout)
            .unwrap()
            .contains("COMMITTED")
    );
    let yaml = run(cli, &[&some[..], &["-o", "yaml"]].concat()).await;
    assert_eq!(
        String::from_utf8(yaml.stdout)
            .unwrap()
            .matches("---\n")
            .count(),
        2
    );
}

/// The first file below a directory, in the order of their names.
fn first_file(dir: &Path) -> PathBuf {
    content(dir).into_keys().next().unwrap()
}

async fn damages(site: &Site, dir: &Path) {
    let cli = site.cluster.cli();
    let snapshot = |copy: &Path| {
        let mut files = content(&copy.join("snapshots")).into_keys();
        files.find(|path| path.ends_with("data")).unwrap()
    };
    type Find<'f> = &'f dyn Fn(&Path) -> PathBuf;
    let parts: [(&str, Find<'_>); 4] = [
        // Its witness; what becomes of a log that was cut or changed itself, other tests show.
        ("log", &|copy| copy.join("log.mark")),
        ("snapshot", &snapshot),
        ("archive", &|copy| first_file(&copy.join("archive"))),
        ("blobs", &|copy| first_file(&copy.join("blobs"))),
    ];
    for (part, find) in parts {
        for gone in [false, true] {
            let damaged = site
                .cluster
                .scratch()
                .join(format!("damaged-{part}-{gone}"));
            copy(dir, &damaged);
            let file = find(&damaged);
            if gone {
                fs::remove_file(&file).unwrap();
            } else {
                let mut bytes = fs::read(&file).unwrap();
                let half = bytes.len() / 2;
                bytes[half] ^= 0x55;
                fs::write(&file, bytes).unwrap();
            }
            let text = damaged.to_string_lossy().into_owned();
            let done = run(cli, &["data-dir", "check", &text, "-o", "json"]).await;
            let told = json(&done);
            assert_eq!(done.code, Some(2), "{part}: {told}");
            let found = told["damaged"].as_array().unwrap();
            assert!(found.iter().any(|it| it["part"] == part), "{part}: {told}");
            let table = run(cli, &["data-dir", "check", &text]).await;
            let table = String::from_utf8(table.stdout).unwrap();
            assert!(
                table.contains("NEXT STEP") && table.contains(part),
                "{table}"
            );
            site.progress
                .say(format!("{part}, gone {gone}: {}", found[0]["why"]));
        }
    }
    let nothing = site.cluster.scratch().join("nothing");
    let text = nothing.to_string_lossy().into_owned();
    assert_refused(cli, &["data-dir", "info", &text], 2, "not_found").await;
    fs::create_dir(&nothing).unwrap();
    assert_refused(cli, &["data-dir", "info", &text], 1, "refused").await;
    assert!(content(&nothing).is_empty());
}
