//! `data-dir info`: whose directory it is, and how far it has come.

use clap::Args;
use raft::offline::{DataDir, LogSummary, Sizes, SnapshotSummary};
use serde_json::{Value, json};

use super::{Place, told};
use crate::args::Global;
use crate::exit::Exit;
use crate::failure::Result;
use crate::output::{Answer, SCHEMA, fields};

/// Show whose directory it is, its vote, and how far its log and snapshot go
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate data-dir info /var/lib/quorate/controller -o json

Opening the log checks every entry of it: a damaged log is an error here, too.")]
pub struct InfoArgs {
    #[command(flatten)]
    place: Place,
}

pub fn run(args: &InfoArgs, global: &Global) -> Result<Exit> {
    let dir = args.place.open()?;
    let log = dir.log().map_err(|error| told(&error))?.summary();
    let snapshot = dir.snapshot().map_err(|error| told(&error))?;
    let sizes = dir.sizes().map_err(|error| told(&error))?;
    answer(&dir, &log, snapshot.as_ref(), sizes).print(global.output)?;
    Ok(Exit::Ok)
}

fn answer(
    dir: &DataDir,
    log: &LogSummary,
    snapshot: Option<&SnapshotSummary>,
    sizes: Sizes,
) -> Answer {
    let node = dir.node();
    let last = (log.end > log.first).then(|| log.end - 1);
    let vote = log
        .vote
        .map(|(term, node, won)| json!({ "term": term, "for": format!("c{node}"), "won": won }));
    let json = json!({
        "schema": SCHEMA,
        "id": node.node_id.to_string(),
        "cluster_id": node.cluster_id,
        "generation": node.generation.0,
        "log_id": log.identity.to_string(),
        "vote": vote,
        "first_index": last.map(|_| log.first),
        "last_index": last,
        "last_term": last.map(|_| log.last_term),
        "committed_index": log.committed,
        "purged_index": log.purged,
        "snapshot": snapshot.map(snapshot_json),
        "bytes": {
            "log": sizes.log,
            "snapshots": sizes.snapshots,
            "archive": sizes.archive,
            "blobs": sizes.blobs,
        },
    });
    let rows = rows(&json, snapshot);
    let ids = vec![node.node_id.to_string()];
    Answer {
        json,
        ids,
        table: Box::new(move |_| fields(&rows)),
    }
}

fn snapshot_json(snapshot: &SnapshotSummary) -> Value {
    json!({
        "index": snapshot.index,
        "term": snapshot.term,
        "bytes": snapshot.bytes,
        "state_hash": snapshot.state_hash,
        "segments": snapshot.segments,
    })
}

fn rows(json: &Value, snapshot: Option<&SnapshotSummary>) -> Vec<(&'static str, String)> {
    let plain = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let keys = [
        "id",
        "cluster_id",
        "generation",
        "log_id",
        "first_index",
        "last_index",
        "last_term",
        "committed_index",
        "purged_index",
    ];
    let mut rows: Vec<(&'static str, String)> = keys
        .map(|key| (key, plain(&json[key])))
        .into_iter()
        .collect();
    let vote = match &json["vote"] {
        Value::Null => "-".to_owned(),
        vote => {
            let won = if vote["won"] == true {
                ", which won"
            } else {
                ""
            };
            format!("for {} in term {}{won}", plain(&vote["for"]), vote["term"])
        }
    };
    let snapshot = snapshot.map_or_else(
        || "-".to_owned(),
        |it| {
            let SnapshotSummary {
                index,
                term,
                bytes,
                state_hash,
                ..
            } = it;
            format!("up to entry {index} of term {term}, {bytes} bytes, state hash {state_hash}")
        },
    );
    let bytes = &json["bytes"];
    let bytes = ["log", "snapshots", "archive", "blobs"]
        .map(|part| format!("{part} {}", bytes[part]))
        .join(", ");
    rows.extend([("vote", vote), ("snapshot", snapshot), ("bytes", bytes)]);
    rows
}
