//! What is read in the end: numbers made readable (quantiles, medians with their spread, tables, durations), and the
//! report of a run, once for programs ([`Report`], JSON) and once for people ([`page()`], one HTML file that needs nothing
//! else).

mod broken;
mod curves;
mod figures;
mod page;
mod progress;
mod run;
mod table;
mod timeline;

pub use figures::{Samples, Spread};
pub use page::page;
pub use progress::Progress;
pub use run::{FaultCount, Report, Run, Verdict};
pub use table::Table;

use std::time::Duration;

/// Operations and entries of one violation, and proofs of one fault, that a page has.
const SHOWN: usize = 12;

/// As a person would say it: `640 ms`, `1.21 s`, `2 min 5 s`.
pub fn span(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1_000.0;
    match millis {
        m if m < 10.0 => format!("{m:.2} ms"),
        m if m < 1_000.0 => format!("{m:.0} ms"),
        m if m < 60_000.0 => format!("{:.2} s", m / 1_000.0),
        _ => format!(
            "{} min {} s",
            duration.as_secs() / 60,
            duration.as_secs() % 60
        ),
    }
}

/// `1 task`, `2 tasks`.
pub fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// Bytes as `12 MiB`.
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / 1024.0 / 1024.0)
}

/// With thousands apart: `12,345`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters
        .next()
        .map(|letter| letter.to_uppercase().to_string());
    let rest = letters.as_str();
    let end = if text.ends_with('.') { "" } else { "." };
    // What begins with a name of something keeps it as it is.
    match text
        .chars()
        .nth(1)
        .is_some_and(|second| second.is_ascii_digit() || text.starts_with('`'))
    {
        true => format!("{text}{end}"),
        false => format!("{}{rest}{end}", first.unwrap_or_default()),
    }
}
