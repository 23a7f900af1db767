//! `data-dir check`: reads everything, and says what is not as it should be.

use clap::Args;
use raft::offline::{Checked, Damaged};
use serde_json::{Value, json};

use super::Place;
use crate::args::Global;
use crate::exit::Exit;
use crate::failure::Result;
use crate::output::{Answer, SCHEMA, Table};

/// Read log, snapshot, archive and files, and compute the state from them
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate data-dir check /var/lib/quorate/controller
  quorate data-dir check ./copy -o json | jq .state

Exit code 2 if anything is damaged or missing. `state` is what the snapshot and the committed entries make:
another controller shows the same hash at the same index.")]
pub struct CheckArgs {
    #[command(flatten)]
    place: Place,
}

pub fn run(args: &CheckArgs, global: &Global) -> Result<Exit> {
    let dir = args.place.open()?;
    let checked = dir.check();
    let sound = checked.damaged.is_empty();
    answer(checked).print(global.output)?;
    Ok(if sound { Exit::Ok } else { Exit::NotFound })
}

fn answer(checked: Checked) -> Answer {
    let read = checked.read.iter();
    let read: serde_json::Map<String, Value> = read
        .map(|(part, count)| (part.as_str().to_owned(), Value::from(*count)))
        .collect();
    let state = checked.state.as_ref().map(|state| {
        json!({
            "index": state.index,
            "state_hash": hex(&state.hash),
            "tasks": state.tasks,
        })
    });
    let json = json!({
        "schema": SCHEMA,
        "sound": checked.damaged.is_empty(),
        "read": read,
        "state": state,
        "damaged": checked.damaged.iter().map(damaged_json).collect::<Vec<_>>(),
    });
    let ids = checked.damaged.iter();
    let ids = ids.map(|it| it.path.display().to_string()).collect();
    Answer {
        json,
        ids,
        table: Box::new(move |_| text(&checked)),
    }
}

fn damaged_json(damaged: &Damaged) -> Value {
    json!({
        "part": damaged.part.as_str(),
        "path": damaged.path.to_string_lossy(),
        "why": damaged.why,
        "step": damaged.step,
    })
}

fn text(checked: &Checked) -> String {
    let mut lines = Vec::new();
    if !checked.damaged.is_empty() {
        let mut table = Table::new(&["PART", "PATH", "WHY", "NEXT STEP"]);
        for damaged in &checked.damaged {
            let path = damaged.path.display().to_string();
            let row = [damaged.part.as_str(), &path, &damaged.why, damaged.step];
            table.row(row.map(str::to_owned).into());
        }
        lines.push(table.render());
    }
    let read = checked.read.iter();
    let read = read.map(|(part, count)| format!("{} {count}", part.as_str()));
    lines.push(format!(
        "read and sound: {}",
        read.collect::<Vec<_>>().join(", ")
    ));
    if let Some(state) = &checked.state {
        let (index, tasks, hash) = (state.index, state.tasks, hex(&state.hash));
        lines.push(format!(
            "state at entry {index}, {tasks} tasks in memory, hash {hash}"
        ));
    }
    lines.join("\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
