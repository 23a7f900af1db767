//! The report of a run, for people: one HTML file with its style and its picture in it, and no program.
//!
//! It is written with `maud`, whose templates are checked when they are compiled and escape every text by themselves: what
//! tasks, agents and errors say stands in it. Somebody who was not there is to see from it what went wrong: what
//! was promised, what was seen instead, and which operations and entries of the log show it.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::curves::curves;
use super::run::{Report, Verdict};
use super::timeline::{timeline, told};
use super::{grouped, span};
use crate::checkers::{Evidence, Finding, Standing, Violation};
use crate::history::Operation;
use crate::log::Content;

const STYLE: &str = include_str!("page.css");

/// Violations that are told in full. The rest says nothing more about what is wrong, and is in the JSON.
const TOLD: usize = 60;
/// Operations and entries of one violation.
const SHOWN: usize = 12;

pub fn page(report: &Report, evidence: &Evidence) -> String {
    let violations: Vec<&Violation> = report.violations().collect();
    let told = &violations[..violations.len().min(TOLD)];
    let title = format!("{}: {}", report.run.scenario, report.verdict.as_str());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(report))
                h2 { "Timeline" }
                div class="scroll" { (timeline(&evidence.history, &violations)) }
                @if !violations.is_empty() {
                    @let all: u64 = report.findings.iter().map(Finding::broken).sum();
                    h2 { (grouped(all)) @if all == 1 { " violation" } @else { " violations" } }
                    @for (number, violation) in (1..).zip(told) { (broken(number, violation, evidence)) }
                    @if violations.len() > told.len() {
                        p class="soft" { (violations.len() - told.len()) " more are in the JSON report, and marked in the timeline where their time is known; of each kind the first hundred are kept." }
                    }
                }
                h2 { "Promises" }
                (promises(&report.findings))
                h2 { "Faults" }
                (faults(report))
                (curves(&evidence.history))
                h2 { "Do it again" }
                pre { (report.run.replay) }
            }
        }
    };
    page.into_string()
}

fn head(report: &Report) -> Markup {
    let run = &report.run;
    let counts = report.operations;
    let verdict = report.verdict.as_str();
    html! {
        h1 { span class={ "verdict " (verdict) } { (verdict) } "Scenario " (run.scenario) ", seed " (run.seed) }
        p class="soft" {
            @match report.verdict {
                Verdict::Valid => "Everything that was promised and could be checked was kept.",
                Verdict::Violated => "A promise was broken:",
                Verdict::Invalid => "This run shows nothing, for or against:",
            }
        }
        @if !report.reasons.is_empty() {
            ul class="reasons" { @for reason in &report.reasons { li { (reason) } } }
        }
        dl {
            (fact("lasted", &span(std::time::Duration::from_secs_f64(report.seconds.max(0.0)))))
            (fact("operations acknowledged", &format!("{}, at least {} wanted", grouped(counts.ok), grouped(run.floor))))
            (fact("refused", &grouped(counts.refused)))
            (fact("outcome unknown", &grouped(counts.unknown)))
            (fact("changes of leader", &grouped(report.reigns.saturating_sub(1))))
            (fact("leases that ran out", &grouped(report.expiries.leases)))
            (fact("network", &run.network))
            @for (what, version) in &run.versions { (fact(what, version)) }
        }
        p class="soft" {
            @for (at, (action, count)) in report.by_action.iter().enumerate() {
                @if at > 0 { " · " }
                (action) " " (grouped(count.total()))
            }
        }
    }
}

fn fact(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn broken(number: usize, violation: &Violation, evidence: &Evidence) -> Markup {
    let kind = violation.kind;
    let operations = &evidence.history.operations;
    let find = |id: &u64| operations.iter().find(|it| it.id == *id);
    let shown: Vec<&Operation> = violation
        .operations
        .iter()
        .filter_map(find)
        .take(SHOWN)
        .collect();
    html! {
        section class="violation" {
            h3 { (number) ". " (kind.invariant()) ", " (kind.invariant().sentence()) }
            table {
                tr { td { "promised" } td { (sentence(kind.promise())) } }
                tr { td { "seen" } td class="seen" { (sentence(&violation.seen)) } }
                @if let Some(at) = violation.at {
                    tr { td { "when" } td { (format!("{:.3} s", at.seconds())) (during(violation, evidence)) } }
                }
                @if !shown.is_empty() {
                    tr { td { "operations" } td { @for operation in &shown { div { (told(operation)) } } } }
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

fn promises(findings: &[Finding]) -> Markup {
    html! {
        table {
            tr { th { "" } th { "what was looked at" } th { "standing" } th { "facts" } }
            @for finding in findings {
                @let standing = finding.standing();
                tr {
                    td class="name" { (finding.invariant) }
                    td {
                        (sentence(&finding.sentence))
                        @if let Some(why) = &finding.not_applicable { div class="soft" { (sentence(why)) } }
                        @for gap in &finding.gaps { div class="unproven" { (sentence(gap)) } }
                    }
                    td class={ "standing " (class(standing)) } {
                        (standing.as_str())
                        @if standing == Standing::Violated { " (" (grouped(finding.broken())) ")" }
                    }
                    td class="number" { (grouped(finding.looked_at)) }
                }
            }
        }
    }
}

fn class(standing: Standing) -> &'static str {
    match standing {
        Standing::Holds => "holds",
        Standing::Violated => "violated",
        Standing::Unproven => "unproven",
        Standing::NothingSeen => "nothing_seen",
        Standing::NotApplicable => "not_applicable",
    }
}

fn faults(report: &Report) -> Markup {
    if report.faults.is_empty() {
        return html! { p class="soft" { "None." } (not_seen(report)) };
    }
    html! {
        table {
            tr { th { "fault" } th { "begun" } th { "took effect" } th { "healed" } th { "seen by" } }
            @for (name, count) in &report.faults {
                tr {
                    td class="name" { (name) }
                    td { (count.begun) }
                    td class=(if count.took_effect < count.begun { "unproven" } else { "" }) { (count.took_effect) }
                    td { (count.healed) }
                    td { @for proof in count.proofs.iter().take(SHOWN) { div { (proof) } } }
                }
            }
        }
        (not_seen(report))
    }
}

/// What this run says nothing about.
fn not_seen(report: &Report) -> Markup {
    let run = &report.run;
    html! {
        @if !run.not_inflicted.is_empty() {
            p class="soft" { "Not inflicted in this run: " (run.not_inflicted.join(", ")) "." }
        }
        @if !run.left_out.is_empty() {
            p class="soft" { "Not to be had here: " (run.left_out.join("; ")) "." }
        }
    }
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
