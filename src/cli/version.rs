//! `version`.

use serde_json::json;

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::Result;
use crate::output::{Answer, SCHEMA};

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub fn run(global: &Global) -> Result<Exit> {
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    Answer {
        json: json!({ "schema": SCHEMA, "version": VERSION, "target": target }),
        ids: vec![VERSION.to_owned()],
        table: Box::new(move |_| format!("quorate {VERSION} ({target})")),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}
