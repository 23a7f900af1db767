//! `data-dir log`: the entries of the log, one after the other.
//!
//! It is a stream, for a log may be larger than memory: with `-o json` one object a line, as events are.

use std::ops::ControlFlow;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use raft::offline::{LogRecord, RecordKind};
use serde_json::{Value, json};

use super::{Place, told};
use crate::args::Global;
use crate::exit::Exit;
use crate::failure::Result;
use crate::object::op_words;
use crate::output::{self, Format, SCHEMA, plain, rfc3339, yaml};

/// Bytes that are gathered before they are written.
const BATCH: usize = 64 * 1024;

/// Print the log: every entry that is still there, in order
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate data-dir log /var/lib/quorate/controller
  quorate data-dir log ./copy --from 1200 --to 1300 -o wide
  quorate data-dir log ./copy -o json | jq -c 'select(.kind == \"operations\") | [.index, .operations]'

With -o json it prints one JSON object a line, and with -o yaml one document an entry. `committed` says
whether it is known in this directory that the entry is committed; the last ones may be, and are not known
to be. `entry_base64` holds the bytes of the operations as they are stored, with all that tasks were given:
keep it as private as the directory.")]
pub struct LogArgs {
    #[command(flatten)]
    place: Place,
    /// The first index
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// The last index
    #[arg(long, value_name = "INDEX")]
    to: Option<u64>,
}

pub fn run(args: &LogArgs, global: &Global) -> Result<Exit> {
    let dir = args.place.open()?;
    let log = dir.log().map_err(|error| told(&error))?;
    let committed = log.summary().committed;
    let end = args.to.map_or(u64::MAX, |to| to.saturating_add(1));
    let mut out = String::new();
    if matches!(global.output, Format::Table | Format::Wide) {
        out.push_str(&header(global.output));
    }
    let mut failed = None;
    let visited = log.visit(args.from..end, &mut |record| {
        let known = committed.is_some_and(|upto| record.index <= upto);
        let shown = shown(&record, known, global.output).and_then(|text| {
            out.push_str(&text);
            flush(&mut out, BATCH)
        });
        match shown {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    });
    if let Some(failure) = failed {
        return Err(failure);
    }
    flush(&mut out, 0)?;
    visited.map_err(|error| told(&error))?;
    Ok(Exit::Ok)
}

/// Writes what was gathered, once there is enough of it.
fn flush(out: &mut String, enough: usize) -> Result<()> {
    if out.len() > enough {
        output::bytes(out.as_bytes())?;
        out.clear();
    }
    Ok(())
}

fn shown(record: &LogRecord, committed: bool, format: Format) -> Result<String> {
    Ok(match format {
        Format::Quiet => format!("{}\n", record.index),
        Format::Json => format!("{}\n", entry_json(record, committed)),
        Format::Yaml => format!("---\n{}\n", yaml(&entry_json(record, committed))?),
        Format::Table | Format::Wide => rows(record, committed, format),
    })
}

fn header(format: Format) -> String {
    let more = if format == Format::Wide {
        "      BYTES  COMMITTED"
    } else {
        ""
    };
    format!("     INDEX  TERM  STAMP                     KIND      {more}  OPERATIONS\n")
}

/// A row for each operation; the first one says where they are. Written as they come, so the widths are fixed.
fn rows(record: &LogRecord, committed: bool, format: Format) -> String {
    let entry = Entry::of(record);
    let stamp = entry.stamp.as_deref().unwrap_or("-");
    let more = match format {
        Format::Wide => {
            let known = if committed { "yes" } else { "not known" };
            format!("  {:>9}  {known:<9}", record.bytes)
        }
        Format::Table | Format::Json | Format::Yaml | Format::Quiet => String::new(),
    };
    let (index, term, kind) = (record.index, record.term, entry.kind);
    let first = format!("{index:>10}  {term:>4}  {stamp:<24}  {kind:<10}{more}");
    let blank = " ".repeat(first.chars().count());
    let one_line = |text: &String| plain(&text.replace(['\n', '\t'], " "));
    let words: Vec<String> = entry.words.iter().map(one_line).collect();
    match words.as_slice() {
        [] => format!("{}\n", first.trim_end()),
        words => {
            let lines = std::iter::once(&first).chain(std::iter::repeat(&blank));
            let lines = lines
                .zip(words)
                .map(|(head, text)| format!("{head}  {text}\n"));
            lines.collect()
        }
    }
}

fn entry_json(record: &LogRecord, committed: bool) -> Value {
    let entry = Entry::of(record);
    json!({
        "schema": SCHEMA,
        "index": record.index,
        "term": record.term,
        "kind": entry.kind,
        "stamp": entry.stamp,
        "wall": entry.wall,
        "committed": committed,
        "bytes": record.bytes,
        "operations": entry.words,
        "entry_base64": entry.encoded,
    })
}

/// An entry as it is shown.
struct Entry {
    kind: &'static str,
    /// State time, and the leader's wall clock.
    stamp: Option<String>,
    wall: Option<String>,
    words: Vec<String>,
    encoded: Option<String>,
}

impl Entry {
    fn of(record: &LogRecord) -> Entry {
        let bare = |kind, words| Entry {
            kind,
            stamp: None,
            wall: None,
            words,
            encoded: None,
        };
        match &record.kind {
            RecordKind::Blank => bare("blank", Vec::new()),
            RecordKind::Membership { voters, learners } => {
                let names = |ids: &std::collections::BTreeSet<u64>| {
                    let names: Vec<String> = ids.iter().map(|id| format!("c{id}")).collect();
                    names.join(" ")
                };
                let sets: Vec<String> = voters.iter().map(names).collect();
                let mut words = format!("voters {}", sets.join(" and "));
                if !learners.is_empty() {
                    words = format!("{words}, learners {}", names(learners));
                }
                bare("membership", vec![words])
            }
            RecordKind::Operations(encoded) => {
                let text = Some(BASE64_STANDARD.encode(encoded));
                match model::Entry::decode(encoded) {
                    Ok(entry) => Entry {
                        kind: "operations",
                        stamp: rfc3339(entry.stamp.0),
                        wall: rfc3339(entry.wall.0),
                        words: entry.ops.iter().map(op_words).collect(),
                        encoded: text,
                    },
                    Err(error) => Entry {
                        encoded: text,
                        ..bare(
                            "operations",
                            vec![format!("can't be read by this release: {error}")],
                        )
                    },
                }
            }
        }
    }
}
