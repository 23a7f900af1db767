//! The demonstration, as `make demo` runs it, only smaller: what it tells is true, and it leaves nothing.

use std::fs;
use std::process::Stdio;

use cluster_tests::binary;
use cluster_tests::cluster::{Completed, Workspace, finish};
use cluster_tests::faults::process;
use cluster_tests::report::Progress;
use tokio::process::Command;
use tokio::test;

use crate::site;

const TASKS: usize = 16;

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_tells_what_the_kills_did_and_leaves_nothing_behind() {
    let _turn = site::turn().await;
    let progress = Progress::new("demo");
    let workspace = Workspace::create("around-the-demo").unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_demo"))
        .args(["--tasks", &TASKS.to_string()])
        .env("QUORATE_BIN", binary::find().unwrap())
        .env("QUORATE_TEST_DIR", workspace.path())
        .env_remove("QUORATE_KEEP")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let told = finish("demo".to_owned(), child).await.unwrap();
    progress.say(format!("it took {:.1?}", told.took));
    let text = told.text();
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{text}");

    assert!(row(&told, "tasks").starts_with(&format!("{TASKS} in ")));
    assert!(text.contains(&format!("All {TASKS} results")), "{text}");
    assert!(count(&told, "failovers") >= 1, "{text}");
    assert!(count(&told, "attempts made again") >= 1, "{text}");
    assert!(count(&told, "probes beside") >= 1, "{text}");
    let outage = row(&told, "nothing could be committed for");
    assert!(outage.ends_with(" ms") || outage.ends_with(" s"), "{text}");
    assert_eq!(members(&told), ["c1", "c2", "c3"], "{text}");

    let left = process::living_in(workspace.path());
    assert!(left.is_empty(), "{left:?}");
    let directories = fs::read_dir(workspace.path().join("clusters")).unwrap();
    assert_eq!(directories.count(), 0, "it left its directory");
}

/// What stands behind a name in the summary.
fn row(told: &Completed, name: &str) -> String {
    let text = told.text();
    let value = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix("  "));
    value
        .unwrap_or_else(|| panic!("no {name:?} in {text}"))
        .trim()
        .to_owned()
}

fn count(told: &Completed, name: &str) -> usize {
    let value = row(told, name);
    value
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap_or_else(|_| panic!("{name}: {value}"))
}

/// The ids in the table, after a look at what stands beside them: an index and a hash, the same everywhere.
fn members(told: &Completed) -> Vec<String> {
    let text = told.text();
    let table = text
        .lines()
        .skip_while(|line| !line.contains("state hash"))
        .skip(1)
        .map(|line| line.split_ascii_whitespace().collect::<Vec<_>>())
        .take_while(|cells| !cells.is_empty());
    let table: Vec<[String; 4]> = table
        .map(|cells| {
            <[&str; 4]>::try_from(cells)
                .unwrap_or_else(|cells| panic!("{cells:?} in {text}"))
                .map(str::to_owned)
        })
        .collect();
    for [_, _, index, hash] in &table {
        assert!(index.parse::<u64>().unwrap() > 0);
        assert_eq!(hex::decode(hash).unwrap().len(), 32, "{hash}");
        assert_eq!([index, hash], [&table[0][2], &table[0][3]]);
    }
    table.into_iter().map(|[id, ..]| id).collect()
}
