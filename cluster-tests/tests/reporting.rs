//! The report of a run: its verdict, its JSON, and its page.
//!
//! `QUORATE_REPORTS=DIR` keeps the pages there, to be looked at.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cluster_tests::checkers::{Evidence, Invariant, Kind, Violation, judge};
use cluster_tests::history::{
    Action, Effect, Fault, Moment, Operation, Outcome, Reign, TaskState, Value,
};
use cluster_tests::report::{Report, Run, Verdict, page};

use crate::history::made::{World, assign, finish, spec};

const SECOND: u64 = 1_000_000;
const CLIENTS: u64 = 6;

fn run() -> Run {
    Run {
        scenario: "leader-kill".into(),
        seed: 7,
        versions: BTreeMap::from([("quorate".to_owned(), "0.1.0".to_owned())]),
        network: "netns".into(),
        floor: 100,
        least_faults: 1,
        replay: "cargo run -p cluster-tests -- --scenario leader-kill --minutes 1 --seed 7".into(),
        ..Run::default()
    }
}

fn fault(
    id: u64,
    (name, target): (&str, &str),
    begun: u64,
    healed: u64,
    proof: Option<&str>,
) -> Fault {
    let effect = proof.map(|proof| Effect {
        at: Moment(begun + SECOND / 5),
        proof: proof.to_owned(),
    });
    Fault {
        id,
        name: name.to_owned(),
        target: target.to_owned(),
        begun: Moment(begun),
        effect,
        healed: Some(Moment(healed)),
    }
}

fn reign(controller: &str, term: u64, from: u64, until: Option<u64>) -> Reign {
    Reign {
        controller: controller.to_owned(),
        term,
        from: Moment(from),
        until: until.map(Moment),
    }
}

/// Half a minute in which the leader is killed and a follower cut off; nobody is answered while there is no leader.
fn half_a_minute() -> World {
    let mut world = World::new();
    let mut at = SECOND / 2;
    for number in 1..=120_u64 {
        let who = format!("client-{}", number % CLIENTS + 1);
        let took = 9_000 + (number * 7_919) % 30_000;
        let mut times = |operation: &mut Operation, wait: u64| {
            operation.client.clone_from(&who);
            operation.invoked = Moment(at);
            let took = if (10 * SECOND..10 * SECOND + 400_000).contains(&at) {
                640_000
            } else {
                took
            };
            at += took;
            operation.answered = operation.answered.map(|_| Moment(at));
            at += wait;
        };
        world.submitted(&format!("r{number}"), spec());
        times(world.operations.last_mut().unwrap(), 20_000);
        let epoch = world.entry(vec![assign(number, "a1")]);
        times(world.got(number), 40_000);
        world.entry(vec![finish(number, epoch, "a1")]);
        times(world.got(number), 70_000);
        if number == 45 {
            let unknown = Outcome::Unknown {
                code: "unreachable".into(),
                message: "the connection broke".into(),
            };
            times(world.done(Action::Cancel { task: number }, unknown), 30_000);
        }
        if number % 20 == 0 {
            let refused = Outcome::Refused {
                code: "already_ended".into(),
                message: format!("task t{number} has already ended: <succeeded>"),
            };
            times(world.done(Action::Cancel { task: number }, refused), 10_000);
        }
    }
    world
}

fn evidence(world: World) -> Evidence {
    let mut evidence = world.evidence();
    let history = &mut evidence.history;
    history.faults = vec![
        fault(
            1,
            ("kill", "c1"),
            10 * SECOND,
            13 * SECOND,
            Some("its process is gone"),
        ),
        fault(
            2,
            ("cut off", "c3"),
            12 * SECOND,
            15 * SECOND,
            Some("312 packets were dropped"),
        ),
        fault(
            3,
            ("slow disk", "c2"),
            18 * SECOND,
            20 * SECOND,
            Some("an fsync took 1.2 s"),
        ),
    ];
    history.reigns = vec![
        reign("c1", 1, 0, Some(10 * SECOND)),
        reign("c2", 2, 10 * SECOND + 400_000, None),
    ];
    evidence
}

/// The deposed leader answers a read from before the task had ended, to somebody who asks after others saw the end.
fn stale() -> Evidence {
    let mut world = half_a_minute();
    let early = world
        .operations
        .iter()
        .position(|it| it.action == Action::Get { task: 60 })
        .unwrap();
    let mut stale = world.operations[early].clone();
    let later = world.operations[early + 8].answered.unwrap();
    stale.id = 10_000;
    stale.client = "client-3".into();
    (stale.invoked, stale.answered) = (later, Some(Moment(later.0 + 25_000)));
    world.operations.push(stale);
    let mut evidence = evidence(world);
    evidence.history.operations.sort_by_key(|it| it.invoked);
    evidence
}

fn reported(evidence: &Evidence) -> Report {
    Report::of(run(), evidence, judge(evidence))
}

fn kept(name: &str, report: &Report, evidence: &Evidence) -> String {
    let html = page(report, evidence);
    if let Some(dir) = std::env::var_os("QUORATE_REPORTS") {
        let dir = PathBuf::from(dir);
        std::fs::write(dir.join(name).with_extension("html"), &html).unwrap();
        report
            .write(&dir.join(name).with_extension("json"))
            .unwrap();
    }
    html
}

#[test]
fn a_good_run_is_valid_and_its_page_shows_all_that_happened() {
    let evidence = evidence(half_a_minute());
    let report = reported(&evidence);
    assert_eq!(
        (report.verdict, &report.reasons),
        (Verdict::Valid, &vec![]),
        "{report:#?}"
    );
    let html = kept("good", &report, &evidence);
    for part in [
        "VALID",
        "c1 · term 1",
        "312 packets were dropped",
        "not applicable",
        "--seed 7",
    ] {
        assert!(html.contains(part), "{part}");
    }
    // Others' texts are texts, and nothing runs or is loaded.
    assert!(html.contains("&lt;succeeded&gt;") && !html.contains("<succeeded>"));
    let html = html.replace("href=\"#", "");
    for foreign in ["<script", "src=", "href=", "url(", "http"] {
        assert!(!html.contains(foreign), "{foreign}");
    }
}

#[test]
fn a_broken_promise_is_told_with_what_was_promised_what_was_seen_and_what_shows_it() {
    let evidence = stale();
    let report = reported(&evidence);
    assert_eq!(report.verdict, Verdict::Violated);
    let html = kept("violated", &report, &evidence);
    let first = report.violations().next().unwrap();
    assert_eq!(first.operations[0], 10_000);
    for part in [
        first.kind.promise().trim_start_matches('a'),
        "operation 10000: `get t60` by client-3",
        "in the log",
        "c2 led in term 2",
        // From the words to the picture, and back.
        "href=\"#op10000\"",
        "id=\"op10000\"",
        "href=\"#v1\"",
        "id=\"v1\"",
    ] {
        assert!(html.contains(part), "{part}");
    }
}

#[test]
fn what_was_seen_first_is_told_first_and_of_each_promise_some_in_full() {
    let evidence = evidence(half_a_minute());
    let mut findings = judge(&evidence);
    let mut breaks = |promise: Invariant, kind, seconds: std::ops::Range<u64>| {
        let finding = findings.iter_mut().find(|it| it.invariant == promise);
        let finding = finding.unwrap();
        for second in seconds.rev() {
            let seen = format!("{promise} at second {second}");
            let violation = Violation::new(kind, seen).at(Moment(second * SECOND));
            finding.violations.push(violation.entry(256));
        }
    };
    breaks(Invariant::I1, Kind::Lost, 10..20);
    breaks(Invariant::I6, Kind::HashOfNoLog, 3..4);
    breaks(Invariant::I8, Kind::EventMissing, 5..9);
    findings[0].left_out = 7;
    let html = kept("many", &Report::of(run(), &evidence, findings), &evidence);
    let place = |text: &str| html.find(text).unwrap_or_else(|| panic!("no {text}"));
    let told = html[place("What is broken")..].to_owned();
    let place = |text: &str| told.find(text).unwrap_or_else(|| panic!("no {text}"));
    let order = [
        "the controllers agree with each other, and not with what this program makes of their log",
        "broken once",
        "I6 at second 3",
        "broken 4 times",
        "I8 at second 5",
        "1 more, against: no event is left out",
        "5. 8.000 s: I8 at second 8.",
        "broken 17 times",
        "I1 at second 10",
        "7 more, against: what was acknowledged",
        "15. 19.000 s: I1 at second 19.",
        "7 more were counted and not kept",
    ];
    assert!(order.is_sorted_by_key(|text| place(text)), "{told}");
}

#[test]
fn a_run_that_shows_nothing_is_invalid_and_says_why() {
    let mut evidence = evidence(half_a_minute());
    evidence.history.faults[1].effect = None;
    let report = reported(&evidence);
    assert_eq!(report.verdict, Verdict::Invalid);
    assert_eq!(
        report.reasons,
        ["1 of 1 faults `cut off` had no proven effect"]
    );
    evidence.history.operations.truncate(50);
    evidence.logs.clear();
    let report = reported(&evidence);
    let reasons = report.reasons.join("\n");
    assert_eq!(report.verdict, Verdict::Invalid);
    assert!(
        reasons.contains("50 operations were acknowledged, and 100 are wanted"),
        "{reasons}"
    );
    assert!(
        reasons.contains("I5 could not be checked: no log was dumped"),
        "{reasons}"
    );
    kept("invalid", &report, &evidence);
}

#[test]
fn a_run_without_the_faults_it_was_for_is_invalid() {
    let mut evidence = evidence(half_a_minute());
    evidence.history.faults.clear();
    let report = reported(&evidence);
    assert_eq!(report.verdict, Verdict::Invalid);
    assert_eq!(
        report.reasons,
        ["0 faults were inflicted, and 1 are wanted"]
    );
}

#[test]
fn what_no_checker_sees_counts_all_the_same() {
    let evidence = evidence(half_a_minute());
    let verdict = |failure: &str, gap: &str| {
        let of = |text: &str| match text {
            "" => Vec::new(),
            text => vec![text.to_owned()],
        };
        let run = Run {
            failures: of(failure),
            gaps: of(gap),
            ..run()
        };
        let report = Report::of(run, &evidence, judge(&evidence));
        (report.verdict, report.reasons)
    };
    let (failure, gap) = ("c2 ended by itself", "a log can't be read");
    assert_eq!(verdict("", ""), (Verdict::Valid, vec![]));
    assert_eq!(verdict("", gap), (Verdict::Invalid, vec![gap.to_owned()]));
    let both = vec![failure.to_owned(), gap.to_owned()];
    assert_eq!(verdict(failure, gap), (Verdict::Violated, both));
}

#[test]
fn a_report_is_read_again_by_programs_as_it_was() {
    let evidence = stale();
    let report = reported(&evidence);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["verdict"], "VIOLATED");
    assert_eq!(json["scenario"], "leader-kill");
    assert_eq!(json["findings"][4]["violations"][0]["kind"], "backwards");
    assert_eq!(json["faults"]["kill"]["took_effect"], 1);
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
}

#[test]
fn many_operations_are_thinned_and_none_that_went_wrong_is_left_out() {
    let mut evidence = evidence(half_a_minute());
    let one = evidence.history.operations[0].clone();
    for n in 0..50_000_u64 {
        let mut more = one.clone();
        more.id = 20_000 + n;
        more.client = format!("client-{}", n % 100);
        (more.invoked, more.answered) = (Moment(n * 600), Some(Moment(n * 600 + 500)));
        if n % 5_000 == 0 {
            more.outcome = Outcome::Unknown {
                code: "unreachable".into(),
                message: format!("lost {n}"),
            };
        }
        evidence.history.operations.push(more);
    }
    let report = Report::of(run(), &evidence, Vec::new());
    let html = page(&report, &evidence);
    assert!(html.len() < 4_000_000, "{} bytes", html.len());
    assert_eq!(html.matches("unreachable: lost").count(), 10);
}

#[test]
fn a_state_that_only_agents_know_is_left_alone() {
    let mut world = World::new();
    world.submitted("r1", spec());
    world.entry(vec![assign(1, "a1")]);
    let mut shown = world.shown(1);
    shown.state = TaskState::Running;
    let outcome = world.answer(Value::Task { task: shown });
    world.done(Action::Get { task: 1 }, outcome);
    let found = judge(&world.evidence());
    assert!(found.iter().all(|it| it.violations.is_empty()), "{found:?}");
}
