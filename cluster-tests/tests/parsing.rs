//! The formats that the harness reads, and the numbers that it prints.

use std::time::Duration;

use cluster_tests::cluster::{Layout, Metrics, Status};
use cluster_tests::faults::process::{Doing, Process};
use cluster_tests::report::{Samples, Spread, Table, count, grouped, span};

const LAYOUT: &str = r#"{
  "schema": 1, "cluster_id": "q1",
  "controllers": [
    {"id": "c1", "pid": 17, "grpc": "127.0.0.1:7400", "raft": "127.0.0.1:7401",
     "https": "127.0.0.1:7402", "data_dir": "/d/c1", "log": "/d/c1.log",
     "argv": ["quorate", "controller", "run"]},
    {"id": "c2", "pid": null, "grpc": "127.0.0.1:7410", "raft": "127.0.0.1:7411",
     "https": "127.0.0.1:7412", "data_dir": "/d/c2", "log": "/d/c2.log", "argv": []}],
  "agents": [{"id": "a1", "pid": 18, "data_dir": "/d/a1", "log": "/d/a1.log", "argv": []}],
  "ca": "/d/ca.pem", "context": "/d/context.toml"}"#;

#[test]
fn a_layout_names_its_members_and_who_runs() {
    let layout = Layout::parse(LAYOUT).unwrap();
    let running: Vec<_> = layout
        .members()
        .into_iter()
        .map(|one| (one.id, one.pid))
        .collect();
    let wanted = [("c1", Some(17)), ("c2", None), ("a1", Some(18))];
    assert_eq!(running, wanted.map(|(id, pid)| (id.to_owned(), pid)));
    assert_eq!(layout.controller("c2").unwrap().grpc, "127.0.0.1:7410");
    assert!(layout.member("c9").is_none());
}

#[test]
fn a_layout_of_another_format_is_refused() {
    let other = Layout::parse(&LAYOUT.replace("\"schema\": 1", "\"schema\": 2"));
    assert!(other.unwrap_err().contains("schema 2"));
    assert!(Layout::parse("{}").is_err());
}

#[test]
fn a_status_with_unreachable_members_is_read() {
    let status = serde_json::json!({
        "schema": 1, "cluster_id": "q1", "leader": "c1", "term": 3, "stale": false,
        "members": [{
            "id": "c2", "role": "voter", "address": {}, "state": "unreachable", "applied": null,
            "lag": null, "state_hash": null, "hash_index": null, "hash_at": null, "version": null
        }]
    });
    let status = Status::parse(status).unwrap();
    assert_eq!(status.leader(), Some("c1"));
    assert_eq!(status.member("c2").unwrap().applied, None);
    assert!(status.describe().contains("c2 voter unreachable at ?"));
    assert_eq!(
        Status {
            stale: true,
            ..status
        }
        .leader(),
        None
    );
}

#[test]
fn metrics_are_read_with_and_without_labels() {
    let text =
        "# HELP a words 1\n# TYPE a counter\na_total 3\nb{x=\"1 2\"} 1.5\nb{x=\"3\"} 2\nNaN\n";
    let metrics = Metrics::parse(text);
    assert_eq!(metrics.get("a_total"), Some(3.0));
    assert_eq!(metrics.get("b"), Some(3.5));
    assert_eq!(metrics.get("b{x=\"3\"}"), Some(2.0));
    assert_eq!(
        metrics.since(&Metrics::parse("a_total 1"), "a_total"),
        Some(2.0)
    );
    assert_eq!(metrics.since(&Metrics::default(), "c"), None);
}

#[test]
fn a_process_whose_name_is_made_to_confuse_is_read() {
    let line = "42 (a) S (b) T 1 42 42 0 -1 4 0 0 0 0 7 5 0 0 20 0 1 0 777 1 1 1";
    let process = Process::parse(42, line).unwrap();
    assert_eq!(process.doing, Doing::Stopped);
    assert_eq!((process.processor_ticks, process.started), (12, 777));
    assert_eq!(Process::parse(42, "42 (a"), None);
    assert!(Process::is_alive(cluster_tests::faults::process::own_pid()));
}

#[test]
fn percentiles_are_samples_and_not_guesses() {
    let millis = |n: u64| Duration::from_millis(n);
    let samples = Samples::new((1..=100).rev().map(millis).collect());
    assert_eq!(samples.percentile(50), millis(50));
    assert_eq!(samples.percentile(99), millis(99));
    assert_eq!(samples.percentile(100), samples.longest());
    assert_eq!(Samples::new(vec![millis(7)]).percentile(50), millis(7));
    assert_eq!(Samples::default().percentile(99), Duration::ZERO);
}

#[test]
fn a_spread_is_the_median_and_the_extremes() {
    let odd = Spread::of([3.0, 1.0, 2.0]).unwrap();
    assert_eq!(
        (odd.median, odd.lowest, odd.highest, odd.percent()),
        (2.0, 1.0, 3.0, 100.0)
    );
    assert_eq!(Spread::of([1.0, 2.0]).unwrap().median, 1.5);
    assert_eq!(Spread::of([]), None);
}

#[test]
fn tables_and_numbers_read_well() {
    let mut table = Table::new(["name", "tasks/s"]);
    table.row(["one", "1,234"]);
    table.row(["eleven", "7"]);
    assert_eq!(
        table.to_string(),
        "  name    tasks/s\n  one       1,234\n  eleven        7\n"
    );
    assert_eq!(grouped(1_234_567), "1,234,567");
    assert_eq!(count(1, "task"), "1 task");
    let spans = [3_210, 640_000, 1_210_000, 125_000_000]
        .map(Duration::from_micros)
        .map(span);
    assert_eq!(spans, ["3.21 ms", "640 ms", "1.21 s", "2 min 5 s"]);
}
