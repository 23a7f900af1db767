//! A file with a task's spec, in TOML or JSON: what `--from` reads.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::ask::AskFile;
use super::quantity::Quantity;
use super::spec::invalid;
use crate::failure::{Failure, Result};
use crate::mistake;

/// A spec file is refused above this many bytes: four times what a spec may have in the log, since a
/// text with escapes is longer than what it means.
const SPEC_FILE_MAX_BYTES: u64 = 4 * model::SPEC_MAX_BYTES as u64;

/// Its keys are the names of the flags.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpecFile {
    pub name: Option<String>,
    pub namespace: Option<String>,
    pub class: Option<String>,
    pub command: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub require: Vec<String>,
    pub prefer: Vec<String>,
    pub timeout: Option<Quantity>,
    pub deadline: Option<Quantity>,
    pub retries: Option<u32>,
    pub at_most_once: Option<bool>,
    pub preemptible: Option<bool>,
    pub cpu: Option<Quantity>,
    pub memory: Option<Quantity>,
    pub gpus: Option<u32>,
    pub vram: Option<Quantity>,
    pub request_id: Option<String>,
    pub attach: Vec<PathBuf>,
    pub inference: AskFile,
}

pub fn read(from: &str) -> Result<SpecFile> {
    let (origin, text) = if from == "-" {
        let text = bounded(std::io::stdin().lock(), Path::new("stdin"), SPEC_FILE)?;
        ("stdin".to_owned(), text)
    } else {
        let path = Path::new(from);
        let file =
            std::fs::File::open(path).map_err(|error| Failure::file("read", path, &error))?;
        (from.to_owned(), bounded(file, path, SPEC_FILE)?)
    };
    parse(&text, &origin)
}

/// How much is read of a file, and what to say where it has more.
pub(super) struct Bound {
    pub bytes: u64,
    pub next: &'static str,
}

const SPEC_FILE: Bound = Bound {
    bytes: SPEC_FILE_MAX_BYTES,
    next: "a task's spec has at most 256 KiB; put data into files, and attach them",
};

pub(super) fn bounded(input: impl Read, path: &Path, bound: Bound) -> Result<String> {
    let Bound { bytes: most, next } = bound;
    let mut bytes = Vec::new();
    input
        .take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::file("read", path, &error))?;
    if bytes.len() as u64 > most {
        let message = format!("{} has more than {most} bytes", path.display());
        return Err(Failure::refused("over_limit", message, next));
    }
    String::from_utf8(bytes)
        .map_err(|_| invalid(format!("{} is not text in UTF-8", path.display())))
}

/// JSON begins with a brace, which no TOML document does.
pub fn parse(text: &str, origin: &str) -> Result<SpecFile> {
    let next = "see `quorate task submit --help` for what a spec may say";
    if text.trim_start().starts_with('{') {
        serde_json::from_str(text)
            .map_err(|error| Failure::refused("invalid", format!("{origin}: {error}"), next))
    } else {
        toml::from_str(text).map_err(|error| {
            Failure::refused("invalid", mistake::in_toml(origin, text, &error), next)
        })
    }
}
