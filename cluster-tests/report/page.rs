//! The report of a run, for people: one HTML file with its style and its picture in it, and no program.
//!
//! It is written with `maud`, whose templates are checked when they are compiled and escape every text by themselves: what
//! tasks, agents and errors say stands in it. Somebody who was not there is to see from it what went wrong: what
//! was promised, what was seen instead, and which operations and entries of the log show it.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::broken::{broken, in_order};
use super::curves::curves;
use super::run::{Report, Verdict};
use super::timeline::timeline;
use super::{SHOWN, grouped, sentence, span};
use crate::checkers::{Evidence, Finding, Standing};

const STYLE: &str = include_str!("page.css");

/// What a reader who does not know the product may ask for.
const WORDS: &[(&str, &str)] = &[
    (
        "entry, index",
        "the controllers' common log is a list of entries, and an index is the place of one in it; each answer names the index of the state that it shows",
    ),
    (
        "term",
        "the reign of one leader among the controllers; a later one has a higher number",
    ),
    (
        "task, attempt, epoch",
        "a task is assigned to an agent, which is an attempt of it; if that agent is lost there is another one. The epoch of an attempt is the index of the entry that assigned it, and tells its reports from those of any other",
    ),
    (
        "slots, sent ahead",
        "how many attempts an agent runs at once; it is given one more ahead, to begin with it as soon as a slot is free",
    ),
    (
        "lease",
        "for how long an agent may work without having heard from the leader; when it is over the agent is lost and what it had goes elsewhere",
    ),
    (
        "generation",
        "it is raised when a cluster's log begins anew from a saved state",
    ),
    (
        "operation",
        "one call of a client of this program: what it asked for and was answered, and both times",
    ),
    (
        "hash",
        "a sum over a controller's whole state; equal where the states are",
    ),
    (
        "facts",
        "how many things were held against a promise; where there are few, that it holds says little",
    ),
];

pub fn page(report: &Report, evidence: &Evidence) -> String {
    let violations = in_order(report);
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
                @if !violations.is_empty() { (broken(report, &violations, evidence)) }
                h2 { "Promises" }
                (promises(&report.findings))
                h2 { "Faults" }
                (faults(report))
                (curves(&evidence.history))
                h2 { "Do it again, or look further" }
                pre { (report.run.replay) }
                p class="soft" {
                    "Beside this page lie the same report for programs, as .json, and all operations with their times and answers, as "
                    ".history.jsonl. The controllers' own files, logs among them, are kept until the next run: the program says where."
                }
                (words())
            }
        }
    };
    page.into_string()
}

fn head(report: &Report) -> Markup {
    let run = &report.run;
    let counts = report.operations;
    let verdict = report.verdict.as_str();
    let served_after = report.served_after();
    html! {
        h1 { span class={ "verdict " (verdict) } { (verdict) } "Scenario " (run.scenario) ", seed " (run.seed) }
        p class="soft" {
            @match report.verdict {
                Verdict::Valid => "Everything that was promised and could be checked was kept.",
                Verdict::Violated => "This is broken:",
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
            @if !served_after.is_empty() {
                (fact("a write after healing", &served_after.to_string()))
            }
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

fn words() -> Markup {
    html! {
        details {
            summary { "What the words mean" }
            @for (word, meaning) in WORDS { p { b { (word) } ": " (meaning) "." } }
        }
    }
}
