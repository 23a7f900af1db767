//! A history as a file: one JSON object a line, the first of which says what it is.
//!
//! Lines can be searched with `grep` and `jq`, and a history of millions of operations is read without being in memory
//! twice.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::History;
use super::operation::Operation;
use super::timeline::{Fault, Gauge, Heard, Reign};
use crate::Error;

const SCHEMA: u32 = 1;

#[derive(Serialize)]
#[serde(tag = "line", rename_all = "snake_case")]
enum Line<'a> {
    History { schema: u32 },
    Operation(&'a Operation),
    Heard(&'a Heard),
    Fault(&'a Fault),
    Reign(&'a Reign),
    Gauge(&'a Gauge),
}

#[derive(Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
enum Owned {
    History { schema: u32 },
    Operation(Box<Operation>),
    Heard(Heard),
    Fault(Fault),
    Reign(Reign),
    Gauge(Gauge),
}

impl History {
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let file = File::create(path).map_err(Error::file("creating", path))?;
        let mut out = BufWriter::new(file);
        self.write_to(&mut out)
            .and_then(|()| out.flush())
            .map_err(Error::file("writing", path))
    }

    pub fn write_to(&self, mut out: impl Write) -> std::io::Result<()> {
        let first = [Line::History { schema: SCHEMA }].into_iter();
        let lines = first
            .chain(self.reigns.iter().map(Line::Reign))
            .chain(self.faults.iter().map(Line::Fault))
            .chain(self.operations.iter().map(Line::Operation))
            .chain(self.heard.iter().map(Line::Heard))
            .chain(self.gauges.iter().map(Line::Gauge));
        for line in lines {
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    pub fn read(path: &Path) -> Result<History, Error> {
        let file = File::open(path).map_err(Error::file("opening", path))?;
        History::read_from(BufReader::new(file)).map_err(|reason| Error::Format {
            path: path.to_owned(),
            reason,
        })
    }

    /// The reason of a failure is for a person.
    pub fn read_from(from: impl BufRead) -> Result<History, String> {
        let mut history = History::default();
        let mut begun = false;
        for (number, line) in (1..).zip(from.lines()) {
            let line = line.map_err(|error| format!("line {number}: {error}"))?;
            let line: Owned =
                serde_json::from_str(&line).map_err(|error| format!("line {number}: {error}"))?;
            match line {
                Owned::History { schema: SCHEMA } => begun = true,
                Owned::History { schema } => {
                    return Err(format!("schema {schema} is unknown to this harness"));
                }
                Owned::Operation(operation) => history.operations.push(*operation),
                Owned::Heard(heard) => history.heard.push(heard),
                Owned::Fault(fault) => history.faults.push(fault),
                Owned::Reign(reign) => history.reigns.push(reign),
                Owned::Gauge(gauge) => history.gauges.push(gauge),
            }
        }
        match begun {
            true => Ok(history),
            false => Err("its first line does not say that it is a history".to_owned()),
        }
    }
}
