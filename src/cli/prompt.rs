//! Asking before something that can't be undone.

use std::io::{IsTerminal, stderr, stdin};

use crate::args::Global;
use crate::failure::{Failure, Result};
use crate::output;

/// Whether to go on: `--yes`, or a person who says so.
pub fn confirm(question: &str, global: &Global) -> Result<()> {
    if global.yes {
        return Ok(());
    }
    if !stdin().is_terminal() || !stderr().is_terminal() {
        return Err(Failure::usage(
            format!("{question} There is no terminal to ask on"),
            "give --yes",
        ));
    }
    output::note(&format!("{question} [y/N]"));
    let mut answer = String::new();
    stdin().read_line(&mut answer).map_err(|error| {
        Failure::usage(format!("cannot read the answer: {error}"), "give --yes")
    })?;
    if matches!(answer.trim().to_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failure::refused("declined", "nothing was done", ""))
    }
}
