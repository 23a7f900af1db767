//! How answers leave the program: one value on stdout, in the form that was asked for.
//!
//! A command builds an [`Answer`] and prints it once. Tables are for people and may change; JSON and
//! YAML are for programs, carry a `schema` number and keep their keys.

mod instant;
mod outlet;
mod progress;
mod table;
mod text;

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::exit::Exit;
use crate::failure::{Failure, Result};

pub use instant::{ago, rfc3339, span};
pub use outlet::{Meter, Outlet, Target};
pub use progress::{Progress, Transfer, waiting};
pub use table::{Table, fields};
pub use text::{insert_bytes, lossy, plain};

/// The version of every JSON object that this release prints.
pub const SCHEMA: u32 = 1;

/// What `-o` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Wide,
    Json,
    Yaml,
    Quiet,
}

/// What a command has to say, in each form.
pub struct Answer {
    pub json: Value,
    pub ids: Vec<String>,
    pub table: Box<dyn Fn(Width) -> String>,
}

/// How much of a table is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    Normal,
    Wide,
}

impl Answer {
    pub fn print(&self, format: Format) -> Result<()> {
        let text = self.text(format)?;
        if text.is_empty() { Ok(()) } else { line(&text) }
    }

    /// Names, reasons and outputs come from others: what a person reads on a screen moves no cursor,
    /// whichever command it is of.
    fn text(&self, format: Format) -> Result<String> {
        Ok(match format {
            Format::Table => plain(&(self.table)(Width::Normal)),
            Format::Wide => plain(&(self.table)(Width::Wide)),
            Format::Json => self.json.to_string(),
            Format::Yaml => yaml(&self.json)?,
            Format::Quiet => self.ids.join("\n"),
        })
    }
}

/// Every text is quoted: an output of a task may look like a number, a time or a folded line.
pub fn yaml(value: &Value) -> Result<String> {
    let options = serde_saphyr::ser_options! { quote_all: true, prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(value, options)
        .map(|text| text.trim_end().to_owned())
        .map_err(|error| Failure::refused("output", format!("cannot write YAML: {error}"), ""))
}

/// A list, as every `list` prints it.
pub fn list(items: Vec<Value>, next: Option<String>) -> Value {
    serde_json::json!({ "schema": SCHEMA, "items": items, "next": next })
}

/// Prints text and a newline to stdout.
pub fn line(text: &str) -> Result<()> {
    bytes(format!("{}\n", text.trim_end_matches('\n')).as_bytes())
}

/// Prints bytes to stdout as they are.
pub fn bytes(bytes: &[u8]) -> Result<()> {
    put(&mut io::stdout().lock(), "stdout", bytes)
}

fn put(out: &mut impl Write, name: &str, bytes: &[u8]) -> Result<()> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::reader_gone()),
        Err(error) => Err(Failure::refused(
            "output",
            format!("cannot write to {name}: {error}"),
            "check where it is redirected to",
        )),
        Ok(()) => Ok(()),
    }
}

/// Says something beside the answer, which may quote what others wrote. If nobody listens on stderr,
/// nobody needs to know.
pub fn note(text: &str) {
    say(&plain(text));
}

fn say(text: &str) {
    let _unheard = writeln!(io::stderr().lock(), "{text}");
}

/// Whether a person watches stderr, so that progress makes sense there.
pub fn watched() -> bool {
    io::stderr().is_terminal()
}

/// A failure, in the form that was asked for. A reader that went away is none to speak of.
pub fn failure(failure: &Failure, format: Format, coloured: bool) {
    if failure.exit == Exit::Ok {
        return;
    }
    match format {
        Format::Json => say(&failure.json().to_string()),
        Format::Yaml => say(&yaml(&failure.json()).unwrap_or_else(|_| failure.to_string())),
        Format::Table | Format::Wide | Format::Quiet if coloured => {
            let text = plain(&failure.to_string());
            say(&format!("\u{1b}[1;31merror:\u{1b}[0m {text}"));
        }
        Format::Table | Format::Wide | Format::Quiet => note(&format!("error: {failure}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Answer, Format, fields};

    #[test]
    fn a_list_says_how_to_go_on() {
        let list = super::list(vec![json!("a")], Some("7".into()));
        assert_eq!(list.to_string(), r#"{"schema":1,"items":["a"],"next":"7"}"#);
    }

    #[test]
    fn yaml_keeps_texts_that_look_like_something_else() {
        let text =
            super::yaml(&json!({"schema": 1, "id": "123", "name": null, "on": "yes"})).unwrap();
        assert!(
            text.contains("id: \"123\"") || text.contains("id: '123'"),
            "{text}"
        );
        assert!(text.contains("name: null"), "{text}");
        assert!(text.contains("\"yes\"") || text.contains("'yes'"), "{text}");
    }

    #[test]
    fn what_others_wrote_moves_no_cursor() {
        let evil = "\u{1b}]0;owned\u{7}\u{9b}2J\ttext";
        let answer = Answer {
            json: json!({ "reason": evil }),
            ids: vec!["t1".into()],
            table: Box::new(move |_| fields(&[("id", "t1".into()), ("reason", evil.into())])),
        };
        for format in [Format::Table, Format::Wide] {
            let text = answer.text(format).unwrap();
            let moving = |c: char| c.is_control() && c != '\n' && c != '\t';
            assert!(!text.contains(moving), "{format:?}: {text:?}");
            assert!(text.contains("text"), "{text}");
        }
        assert!(answer.text(Format::Table).unwrap().contains("\nreason  "));
    }
}
