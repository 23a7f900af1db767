//! Appends to a log store until it is killed, checks what is left, or measures.
//!
//! ```text
//! quorate-store-append DIR                         prints "ack N" for each durable entry
//! quorate-store-append DIR --check [N]             everything up to N is there, and whole
//! quorate-store-append DIR --bench SECONDS IN_FLIGHT BYTES
//! ```

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use raft::probe::{self, Load, Size};

const USAGE: &str =
    "usage: quorate-store-append DIR [--check [N] | --bench SECONDS IN_FLIGHT BYTES]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "{error}").ok();
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    match arguments {
        [dir] => probe::append(Path::new(dir), Load::default(), |index| {
            say(&format!("ack {index}"))
        })
        .map(|_| ())
        .map_err(|error| text(&error)),
        [dir, "--check", acknowledged @ ..] => {
            let acknowledged = match acknowledged {
                [] => None,
                [one] => Some(number(one)?),
                _ => return Err(USAGE.to_owned()),
            };
            let last = probe::check(Path::new(dir), Size::Mixed, acknowledged);
            let last = last.map_err(|error| text(&error))?;
            say(&format!("ok {last:?}")).map_err(|error| text(&error))
        }
        [dir, "--bench", seconds, in_flight, bytes] => {
            let size =
                |given| number(given).and_then(|it| usize::try_from(it).map_err(|e| text(&e)));
            let load = Load {
                size: Size::Bytes(size(bytes)?),
                in_flight: size(in_flight)?,
                duration: Some(Duration::from_secs(number(seconds)?)),
                keep: 100_000,
                ..Load::default()
            };
            bench(Path::new(dir), load)
        }
        _ => Err(USAGE.to_owned()),
    }
}

fn bench(dir: &Path, load: Load) -> Result<(), String> {
    let report = probe::append(dir, load, |_| Ok(())).map_err(|error| error.to_string())?;
    let seconds = report.took.as_secs_f64();
    let per_second = |count: u64| count as f64 / seconds;
    say(&format!(
        "{} in flight: {:.0} appends/s, {:.0} syncs/s, {:.1} entries a sync, sync p50 {:?}, p99 {:?}",
        load.in_flight,
        per_second(report.acknowledged),
        per_second(report.stats.syncs),
        report.acknowledged as f64 / report.stats.syncs.max(1) as f64,
        report.stats.sync_p50,
        report.stats.sync_p99,
    ))
    .map_err(|error| error.to_string())
}

fn number(given: &str) -> Result<u64, String> {
    given
        .parse()
        .map_err(|_| format!("{given:?} is not a number; {USAGE}"))
}

/// Unbuffered: whoever reads this must not hear of less than was acknowledged.
fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
