//! What is broken, for people: promise by promise, in the order in which they were first seen broken, because what comes
//! later may follow from what came first. The first violations of each are told in full, the others in a line.

use std::collections::BTreeMap;

use maud::{Markup, html};

use super::run::Report;
use super::timeline::told;
use super::{SHOWN, grouped, sentence};
use crate::checkers::{Evidence, Finding, Invariant, Kind, Violation};
use crate::history::Operation;
use crate::log::Content;

/// Violations of a promise that are told in full.
const IN_FULL: usize = 3;

/// All that are kept, by the time at which they were seen; those of which that is not known come last. They are numbered
/// in this order, here and in the timeline.
pub fn in_order(report: &Report) -> Vec<&Violation> {
    let mut violations: Vec<&Violation> = report.violations().collect();
    violations.sort_by_key(|it| (it.place(), it.kind));
    violations
}

pub fn broken(report: &Report, violations: &[&Violation], evidence: &Evidence) -> Markup {
    let mut promises: Vec<(Invariant, Vec<(usize, &Violation)>)> = Vec::new();
    for (number, violation) in (1..).zip(violations) {
        let promise = violation.kind.invariant();
        match promises.iter_mut().find(|(it, _)| *it == promise) {
            Some((_, of_it)) => of_it.push((number, violation)),
            None => promises.push((promise, vec![(number, violation)])),
        }
    }
    html! {
        h2 { "What is broken" }
        p class="soft" {
            "By the time at which it was first seen: what comes later may follow from what came first. "
            "The numbers are those in the timeline."
        }
        (astray(violations))
        @for (promise, of_it) in &promises {
            @let finding = report.findings.iter().find(|it| it.invariant == *promise);
            @let all = finding.map_or(0, Finding::broken);
            h3 { (promise) ": " (promise.sentence()) ": broken " (times(all)) }
            @for (number, violation) in of_it.iter().take(IN_FULL) { (card(*number, violation, evidence)) }
            (others(&of_it[of_it.len().min(IN_FULL)..], all - of_it.len() as u64))
        }
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        _ => format!("{} times", grouped(count)),
    }
}

/// Where controllers hold something else than their log, whatever is held against the log shows little.
fn astray(violations: &[&Violation]) -> Markup {
    let of = |kind| violations.iter().filter(move |it| it.kind == kind);
    let indexes = of(Kind::HashOfNoLog).flat_map(|it| it.entries.iter());
    let whether = match of(Kind::HashesDiffer).next() {
        Some(_) => "the controllers agree neither with each other nor",
        None => "the controllers agree with each other, and not",
    };
    html! {
        @if let Some(index) = indexes.min() {
            p class="unproven" {
                "At entry " (index) " at the latest, " (whether) " with what this program makes of their log when it applies it itself. "
                "What came before that is near the cause. Whatever is said below of what the log makes of something may follow from "
                "it alone, and a promise that holds was held against that log as well."
            }
        }
    }
}

/// Those that are not told in full: by kind, a line each.
fn others(rest: &[(usize, &Violation)], not_kept: u64) -> Markup {
    let mut kinds: BTreeMap<Kind, Vec<(usize, &Violation)>> = BTreeMap::new();
    for (number, violation) in rest {
        kinds
            .entry(violation.kind)
            .or_default()
            .push((*number, violation));
    }
    html! {
        @for (kind, of_it) in &kinds {
            details {
                summary { (grouped(of_it.len() as u64)) " more, against: " (kind.promise()) }
                @for (number, violation) in of_it {
                    div id={ "v" (number) } class="line" {
                        (number) ". "
                        @if let Some(at) = violation.at { (format!("{:.3} s: ", at.seconds())) }
                        (sentence(&violation.seen))
                    }
                }
            }
        }
        @if not_kept > 0 {
            p class="soft" { (grouped(not_kept)) " more were counted and not kept: of each way to break a promise the first hundred are." }
        }
    }
}

fn card(number: usize, violation: &Violation, evidence: &Evidence) -> Markup {
    let operations = &evidence.history.operations;
    let find = |id: &u64| operations.iter().find(|it| it.id == *id);
    let named = violation.operations.iter().filter_map(find);
    let shown: Vec<&Operation> = named.take(SHOWN).collect();
    html! {
        section class="violation" id={ "v" (number) } {
            table {
                tr { td { (number) ". promised" } td { (sentence(violation.kind.promise())) } }
                tr { td { "seen" } td class="seen" { (sentence(&violation.seen)) } }
                @if let Some(at) = violation.at {
                    tr { td { "when" } td { (format!("{:.3} s", at.seconds())) (during(violation, evidence)) } }
                }
                @if !shown.is_empty() {
                    tr { td { "operations" } td {
                        @for operation in &shown { div { a href={ "#op" (operation.id) } { (told(operation)) } } }
                    } }
                }
                @if !violation.entries.is_empty() {
                    tr {
                        td { "in the log" }
                        td { @for index in violation.entries.iter().take(SHOWN) { (entry(*index, evidence)) } }
                    }
                }
            }
        }
    }
}

/// Which faults were open, and who led.
fn during(violation: &Violation, evidence: &Evidence) -> String {
    let Some(at) = violation.at else {
        return String::new();
    };
    let history = &evidence.history;
    let reigns = history.reigns.iter().rev();
    let leader = { reigns }.find(|it| it.from <= at);
    let open = history.faults.iter();
    let open = open.filter(|it| it.begun <= at && it.healed.is_none_or(|end| end >= at));
    let open: Vec<String> = open
        .map(|it| format!("`{} {}`", it.name, it.target))
        .collect();
    let leader = leader.map(|it| format!(", {} led in term {}", it.controller, it.term));
    let open = match open.as_slice() {
        [] => String::new(),
        open => format!(", during {}", open.join(" and ")),
    };
    format!("{}{open}", leader.unwrap_or_default())
}

/// An entry of the log in words, as the controllers that have it say.
fn entry(index: u64, evidence: &Evidence) -> Markup {
    let mut versions: Vec<(Vec<&str>, &crate::log::LogEntry)> = Vec::new();
    let mut lack = Vec::new();
    for (controller, log) in &evidence.logs {
        match log.get(index) {
            None => lack.push(controller.as_str()),
            Some(found) => match versions.iter_mut().find(|(_, entry)| *entry == found) {
                Some((who, _)) => who.push(controller),
                None => versions.push((vec![controller], found)),
            },
        }
    }
    html! {
        div {
            "entry " (index)
            @for (who, entry) in &versions {
                ", term " (entry.term) " (" (who.join(", ")) "): "
                @match (&entry.content, entry.words.is_empty()) {
                    (_, false) => (entry.words.join("; ")),
                    (Content::Blank, true) => "a leader's first, without operations",
                    (Content::Membership, true) => "who belongs to the cluster",
                    (Content::Operations(bytes), true) => { (bytes.len()) " bytes of operations" }
                }
            }
            @if !lack.is_empty() { ", not in the log of " (lack.join(", ")) }
        }
    }
}
