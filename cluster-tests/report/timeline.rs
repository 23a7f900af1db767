//! The picture of a run: time from left to right, a lane for each thing that has a time.
//!
//! ```text
//!  violations   ▼1              ▼2
//!  leader       c1 · term 1   c3 · term 2
//!  faults       kill c1 ▓▓▓▓▓
//!  client-1     ─ ── ─ ─────── ─
//! ```
//!
//! A bar of an operation reaches from when it was asked for to when it was answered. Where there are more than can be told
//! apart, acknowledged ones that would lie on top of each other are left out, and the number of those drawn is said; what
//! was refused or is unknown, and what a violation names, is always drawn.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use crate::checkers::Violation;
use crate::history::{Fault, History, Moment, Operation, Outcome, Reign};

/// In units of the picture.
const WIDTH: f64 = 1200.0;
const LEFT: f64 = 120.0;
const RIGHT: f64 = 16.0;
const LANE: f64 = 20.0;
const BAR: f64 = 12.0;
/// Lanes of clients; more share them.
const CLIENTS: usize = 24;
/// Operations of one lane and kind that are drawn whatever they hide.
const ALWAYS: usize = 2_000;
/// An operation that took no time can be seen all the same.
const LEAST: f64 = 1.2;
/// The mean width of a letter.
const LETTER: f64 = 6.8;
/// A bar that is wider has its text in it, another one beside it, so much of it.
const INSIDE: f64 = 60.0;
const BESIDE: f64 = 150.0;
/// Violations of one mark that are named in it.
const NAMED: usize = 12;

/// Rows of the picture from the top, and the scale of its time.
struct Scale {
    end: f64,
}

impl Scale {
    fn x(&self, at: Moment) -> f64 {
        LEFT + at.seconds() / self.end * (WIDTH - LEFT - RIGHT)
    }

    fn span(&self, from: Moment, until: Option<Moment>) -> (f64, f64) {
        let from = self.x(from);
        let until = until.map_or(WIDTH - RIGHT, |at| self.x(at));
        (from, (until - from).max(LEAST))
    }
}

pub fn timeline(history: &History, violations: &[&Violation]) -> Markup {
    let scale = Scale {
        end: history.end().seconds().max(0.001),
    };
    let named: BTreeSet<u64> = violations
        .iter()
        .flat_map(|it| it.operations.iter().copied())
        .collect();
    let rows = fault_rows(&history.faults, &scale);
    let lanes = lanes(&history.operations);
    let top = 4.0;
    let leaders = top + LANE + 4.0;
    let faults = leaders + LANE + 6.0;
    let clients = faults + LANE * rows.len().max(1) as f64 + 6.0;
    let bottom = clients + LANE * lanes.len() as f64 + 4.0;
    let height = bottom + 26.0;
    let drawn = lanes
        .iter()
        .map(|(_, lane)| picked(lane, &named, &scale).len());
    let drawn: usize = drawn.sum();
    html! {
        svg class="timeline" viewBox={ "0 0 " (WIDTH) " " (px(height)) } role="img" aria-label="timeline of the run" {
            (axis(&scale, (top, bottom)))
            (label(top, "violations"))
            (label(leaders, "leader"))
            @for reign in &history.reigns { (reign_bar(reign, &scale, leaders)) }
            (label(faults, "faults"))
            @for (row, of_row) in (0..).zip(&rows) {
                @for fault in of_row { (fault_bar(fault, &scale, faults + LANE * f64::from(row))) }
            }
            @for (row, (name, lane)) in (0..).zip(&lanes) {
                @let y = clients + LANE * f64::from(row);
                (label(y, name))
                line class="base" x1=(px(LEFT)) x2=(px(WIDTH - RIGHT)) y1=(px(y + LANE / 2.0)) y2=(px(y + LANE / 2.0)) {}
                @for operation in picked(lane, &named, &scale) {
                    (operation_bar(operation, &scale, y, named.contains(&operation.id)))
                }
            }
            @for it in &marks(violations, &scale) { (mark(it, (top, bottom))) }
        }
        p class="legend" {
            span class="key ok" {} "acknowledged "
            span class="key refused" {} "refused "
            span class="key unknown" {} "outcome unknown "
            span class="key fault" {} "fault "
            span class="key idle" {} "fault without proven effect "
            span class="key named" {} "named by a violation. "
            (super::grouped(drawn as u64)) " of " (super::grouped(history.operations.len() as u64))
            " operations are drawn. Point at anything to read what it is."
        }
    }
}

fn axis(scale: &Scale, (top, bottom): (f64, f64)) -> Markup {
    let step = [
        0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
    ]
    .into_iter()
    .find(|step| scale.end / step <= 12.0)
    .unwrap_or(7200.0);
    let ticks = std::iter::successors(Some(0.0), |at| Some(at + step));
    let ticks: Vec<f64> = ticks.take_while(|at| *at <= scale.end).collect();
    html! {
        @for at in ticks {
            @let x = LEFT + at / scale.end * (WIDTH - LEFT - RIGHT);
            line class="tick" x1=(px(x)) x2=(px(x)) y1=(px(top)) y2=(px(bottom)) {}
            text class="axis" x=(px(x)) y=(px(bottom + 16.0)) text-anchor="middle" {
                @if step < 1.0 { (format!("{at:.1} s")) } @else { (format!("{at:.0} s")) }
            }
        }
    }
}

fn label(y: f64, text: &str) -> Markup {
    html! {
        text class="lane" x=(px(LEFT - 10.0)) y=(px(y + LANE / 2.0 + 4.0)) text-anchor="end" { (text) }
    }
}

fn reign_bar(reign: &Reign, scale: &Scale, y: f64) -> Markup {
    let (x, width) = scale.span(reign.from, reign.until);
    let (who, term) = (&reign.controller, reign.term);
    // Digits of the name choose the colour, so that the same controller looks the same.
    let hue = who.bytes().map(u32::from).sum::<u32>() % 5;
    let told = format!("{who} · term {term}");
    let fits = width > 8.0 * told.len() as f64 * 0.85;
    html! {
        g {
            title { (who) " leads in term " (term) ", from " (time(reign.from)) (until(reign.until)) }
            rect class={ "reign hue" (hue) } x=(px(x)) y=(px(y)) width=(px(width)) height=(px(LANE - 2.0)) rx="2" {}
            @if fits {
                text class="inside" x=(px(x + 5.0)) y=(px(y + 13.0)) { (told) }
            } @else if width > 18.0 {
                text class="inside" x=(px(x + 3.0)) y=(px(y + 13.0)) { (who) }
            }
        }
    }
}

/// Faults at the same time lie below each other.
fn fault_rows<'h>(faults: &'h [Fault], scale: &Scale) -> Vec<Vec<&'h Fault>> {
    let mut rows: Vec<(f64, Vec<&Fault>)> = Vec::new();
    let mut sorted: Vec<&Fault> = faults.iter().collect();
    sorted.sort_by_key(|fault| (fault.begun, fault.id));
    for fault in sorted {
        let (begin, width) = scale.span(fault.begun, fault.healed);
        // Its text beside it must not lie under the next one.
        let beside = match width > INSIDE {
            true => 0.0,
            false => (fault_text(fault).chars().count() as f64 * LETTER).min(BESIDE) + 10.0,
        };
        let end = begin + width + beside;
        match rows.iter_mut().find(|(free, _)| *free <= begin) {
            Some((free, row)) => {
                *free = end;
                row.push(fault);
            }
            None => rows.push((end, vec![fault])),
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

fn fault_text(fault: &Fault) -> String {
    format!("{} {}", fault.name, fault.target)
}

fn fault_bar(fault: &Fault, scale: &Scale, y: f64) -> Markup {
    let (x, width) = scale.span(fault.begun, fault.healed);
    let told = fault_text(fault);
    let room = WIDTH - RIGHT - x;
    let class = if fault.effect.is_some() {
        "fault"
    } else {
        "fault idle"
    };
    html! {
        g {
            title {
                (told) ", from " (time(fault.begun)) (until(fault.healed)) ". "
                @match &fault.effect {
                    Some(effect) => { "It took effect at " (time(effect.at)) ": " (effect.proof) }
                    None => { "Nothing shows that it took effect." }
                }
            }
            rect class=(class) x=(px(x)) y=(px(y)) width=(px(width.max(3.0))) height=(px(LANE - 3.0)) rx="2" {}
            @if let Some(effect) = &fault.effect {
                line class="effect" x1=(px(scale.x(effect.at))) x2=(px(scale.x(effect.at)))
                    y1=(px(y)) y2=(px(y + LANE - 3.0)) {}
            }
            // Behind the line that says when it took effect, if that is where a text would begin.
            @let begin = fault.effect.as_ref().map_or(x, |it| scale.x(it.at));
            @let begin = if begin - x < 30.0 { begin } else { x };
            @if width > INSIDE {
                text class="inside" x=(px(begin + 5.0)) y=(px(y + 12.0)) { (clipped(&told, x + width - begin - 5.0)) }
            } @else if room > 120.0 {
                text class="beside" x=(px(x + width.max(3.0) + 4.0)) y=(px(y + 12.0)) { (clipped(&told, BESIDE)) }
            }
        }
    }
}

/// What of a text has room.
fn clipped(text: &str, width: f64) -> String {
    let room = (width / LETTER).max(1.0);
    let long = text.chars().count() as f64 > room;
    match long {
        false => text.to_owned(),
        true => {
            let kept = text.chars().enumerate();
            let kept = kept.take_while(|(at, _)| (*at as f64) < room - 1.0);
            kept.map(|(_, letter)| letter).chain(['…']).collect()
        }
    }
}

type Lane<'h> = Vec<&'h Operation>;

/// By client, in the order of their names; neighbours share a lane where there are too many.
fn lanes(operations: &[Operation]) -> Vec<(String, Lane<'_>)> {
    let mut by_client: BTreeMap<(usize, &str), Lane<'_>> = BTreeMap::new();
    for operation in operations {
        // Shorter names first, so that client-10 comes after client-9.
        let key = (operation.client.len(), operation.client.as_str());
        by_client.entry(key).or_default().push(operation);
    }
    let each = by_client.len().div_ceil(CLIENTS).max(1);
    let clients: Vec<_> = by_client.into_iter().collect();
    let named = |it: Option<&((usize, &str), Lane<'_>)>| {
        it.map_or_else(String::new, |((_, name), _)| (*name).to_owned())
    };
    let name = |shared: &[((usize, &str), Lane<'_>)]| match shared {
        [_] => named(shared.first()),
        _ => format!("{} … {}", named(shared.first()), named(shared.last())),
    };
    let lanes = clients.chunks(each).map(|shared| {
        let operations = shared.iter().flat_map(|(_, lane)| lane.iter().copied());
        let mut operations: Lane<'_> = operations.collect();
        operations.sort_by_key(|operation| operation.invoked);
        (name(shared), operations)
    });
    lanes.collect()
}

/// Those that are drawn.
fn picked<'h>(lane: &Lane<'h>, named: &BTreeSet<u64>, scale: &Scale) -> Lane<'h> {
    let mut free = 0.0;
    let mut always = 0;
    let mut picked = Vec::new();
    for operation in lane {
        let (x, width) = scale.span(operation.invoked, operation.answered);
        let told = named.contains(&operation.id);
        let plain = matches!(operation.outcome, Outcome::Ok(_));
        let wanted = told || (!plain && always < ALWAYS);
        always += usize::from(wanted && !told);
        if wanted || x + width > free {
            picked.push(*operation);
            free = f64::max(free, x + width.min(3.0) + 1.0);
        }
    }
    picked
}

fn operation_bar(operation: &Operation, scale: &Scale, y: f64, named: bool) -> Markup {
    let (x, width) = scale.span(operation.invoked, operation.answered);
    let outcome = operation.outcome.as_str();
    let class = match named {
        true => format!("op {outcome} named"),
        false => format!("op {outcome}"),
    };
    let y = y + (LANE - BAR) / 2.0;
    // One that was never answered may take effect as long as the run lasts: a thin line behind its begin.
    let bar = match operation.answered {
        Some(_) => width,
        None => width.min(5.0),
    };
    html! {
        g id=[named.then(|| format!("op{}", operation.id))] {
            title { (told(operation)) }
            rect class=(class) x=(px(x)) y=(px(y)) width=(px(bar)) height=(px(BAR)) {}
            @if bar < width {
                rect class={ "op open " (outcome) } x=(px(x)) y=(px(y + BAR / 2.0 - 1.0)) width=(px(width)) height="2" {}
            }
        }
    }
}

/// An operation in words.
pub fn told(operation: &Operation) -> String {
    let Operation {
        id, client, action, ..
    } = operation;
    let asked = time(operation.invoked);
    let answer = match (&operation.outcome, operation.answered) {
        (Outcome::Ok(_), Some(at)) => {
            let index = operation.index();
            let index = index.map_or_else(String::new, |index| format!(" at index {index}"));
            let task = match operation.tasks() {
                [task] => format!(": t{} {}", task.id, task.state.as_str()),
                _ => String::new(),
            };
            format!("answered at {}{index}{task}", time(at))
        }
        (Outcome::Refused { code, message }, Some(at)) => {
            format!("refused at {} as {code}: {message}", time(at))
        }
        (Outcome::Unknown { code, message }, Some(at)) => {
            format!(
                "given up at {} ({code}: {message}): it may have happened",
                time(at)
            )
        }
        (_, None) => "never answered: it may have happened".to_owned(),
    };
    format!("operation {id}: `{action}` by {client}, asked for at {asked}, {answer}")
}

/// Violations that are seen at nearly the same time have one mark, so that no two overlap.
struct Mark<'v> {
    x: f64,
    violations: Vec<(usize, &'v Violation)>,
}

fn marks<'v>(violations: &[&'v Violation], scale: &Scale) -> Vec<Mark<'v>> {
    let timed = (1..).zip(violations);
    let timed = timed.filter_map(|(number, it)| Some((scale.x(it.at?), number, *it)));
    let mut timed: Vec<_> = timed.collect();
    timed.sort_by(|(one, _, _), (other, _, _)| one.total_cmp(other));
    let widest = violations.len();
    let apart = 2.0 * half_width(&format!("{widest}…{widest}")) + 1.0;
    let mut marks: Vec<Mark<'v>> = Vec::new();
    for (x, number, violation) in timed {
        match marks.last_mut() {
            Some(mark) if x - mark.x < apart => mark.violations.push((number, violation)),
            Some(_) | None => marks.push(Mark {
                x,
                violations: vec![(number, violation)],
            }),
        }
    }
    marks
}

fn mark(mark: &Mark<'_>, (top, bottom): (f64, f64)) -> Markup {
    let Mark { x, violations } = mark;
    let tip = top + LANE - 2.0;
    let label = match violations.as_slice() {
        [(one, _)] => one.to_string(),
        [(one, _), (other, _)] => format!("{one},{other}"),
        [(one, _), .., (last, _)] => format!("{one}…{last}"),
        [] => String::new(),
    };
    let half = half_width(&label);
    let first = violations.first().map_or(0, |(number, _)| *number);
    html! {
        a href={ "#v" (first) } {
            g class="mark" {
                title {
                    @for (number, violation) in violations.iter().take(NAMED) {
                        (number) ". " (violation.kind.invariant()) ": " (violation.seen) "\n"
                    }
                    @if violations.len() > NAMED { "and " (violations.len() - NAMED) " more" }
                }
                line x1=(px(*x)) x2=(px(*x)) y1=(px(tip)) y2=(px(bottom)) {}
                path d={ "M" (px(x - half)) " " (px(top)) " h" (px(2.0 * half)) " v13 h" (px(6.0 - half)) " l-6 6 l-6 -6 h" (px(6.0 - half)) " z" } {}
                text x=(px(*x)) y=(px(top + 10.5)) text-anchor="middle" { (label) }
            }
        }
    }
}

/// Of a mark with this label.
fn half_width(label: &str) -> f64 {
    5.0 + 4.0 * label.chars().count() as f64
}

fn time(at: Moment) -> String {
    format!("{:.3} s", at.seconds())
}

fn until(end: Option<Moment>) -> String {
    end.map_or_else(
        || " to the end".to_owned(),
        |end| format!(" to {}", time(end)),
    )
}

fn px(value: f64) -> String {
    format!("{value:.1}")
}
