//! Why a task waits, or why it runs where it does: `task why`.

mod decided;
mod refusals;
mod shortfall;
mod verdicts;

use std::sync::Arc;

use model::{Millis, Phase, Served, State, Strategy, Task, TaskId, TaskSpec, Timestamp};

use crate::candidate::{Claim, For};
use crate::estimate::{self, Wait};
use crate::fleet::Fleet;
use crate::health::{self, Machines};
use crate::kept::kept;
use crate::order::{self, Ahead, Rival};
use crate::rules::Rules;
use crate::score::{Formula, Way};
use decided::span;
pub use decided::{explain_decided, would};
pub use verdicts::AgentVerdict;

/// What can be said about a task now, beyond its recorded decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// A few sentences.
    pub summary: String,
    /// For a queued task: how an agent is to be chosen.
    pub formula: Option<&'static Formula>,
    /// For a queued task: what goes before it.
    pub ahead: Option<Ahead>,
    /// For a queued task: each agent, by id.
    pub agents: Vec<AgentVerdict>,
    /// For a queued task: how long it is likely to wait still, as far as that can be said.
    pub wait: Option<Wait>,
}

impl Explanation {
    pub fn strategy(&self) -> Option<Strategy> {
        match self.formula?.way {
            Way::Strategy(strategy) => Some(strategy),
            Way::Preemption => None,
        }
    }

    /// For a queued task: 1 is next.
    pub fn position(&self) -> Option<usize> {
        self.ahead.as_ref().map(|ahead| ahead.total() + 1)
    }
}

/// Explains a task; `None` where it is not known.
pub fn explain(state: &State, fleet: &Fleet, now: Timestamp, id: TaskId) -> Option<Explanation> {
    let task = state.task(id)?;
    Some(match &task.phase {
        Phase::Queued { not_before, reason } => {
            let spec = state.spec(id)?;
            let delay = not_before.filter(|at| *at > now).map(|at| at.since(now));
            waiting(state, fleet, now, (task, &spec), (delay, reason))
        }
        Phase::Assigned { attempt, .. } => {
            let mut explanation = explain_decided(task);
            let waits_for = state.yielding_to(&attempt.agent, id);
            let waits_for: Vec<String> = waits_for.map(|it| it.task.to_string()).collect();
            let summary = &mut explanation.summary;
            if !waits_for.is_empty() {
                let names = waits_for.join(", ");
                *summary =
                    format!("{summary} It begins once {names} ended there, whose place it got.");
            }
            explanation
        }
        Phase::Succeeded
        | Phase::Failed { .. }
        | Phase::Cancelled(_)
        | Phase::Unknown { .. }
        | Phase::DeadLetter { .. } => explain_decided(task),
    })
}

/// Of one that its agent has not said to have begun: that it may wait there for a slot.
pub fn may_wait_there(state: &State, task: &Task) -> Option<String> {
    let live = task.live()?;
    let slots = state.agent(&live.agent)?.profile.slots;
    let is_ahead = state.slots_taken(&live.agent) > slots;
    is_ahead.then(|| {
        format!(
            "{} has more attempts than slots: it may wait there for one, sent ahead because they were short.",
            live.agent
        )
    })
}

fn sentences(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<_>>().join(" ")
}

/// `came_back` after its last attempt for a reason, and is not tried again before a delay.
fn waiting(
    state: &State,
    fleet: &Fleet,
    now: Timestamp,
    (task, spec): (&Task, &TaskSpec),
    (delay, came_back): (Option<Millis>, &str),
) -> Explanation {
    let rules = Arc::new(Rules::of(state, now));
    let mut of = For::of(state, &rules, spec, &task.user);
    of.work = Some(0);
    of.is_overdue = health::is_overdue(task, now);
    let machines = Machines::of(state, fleet);
    let kept = kept(state, fleet, (&rules, &machines), now);
    let own = kept.iter().find(|(_, (_, holder))| *holder == task.id);
    let agents = verdicts::verdicts(
        (state, now),
        (fleet, &machines),
        (task, (spec, &of, &rules)),
        (&kept, Claim::of(&kept, Some(task.id), spec)),
    );
    let ahead = order::ahead_of(state, task, now);
    let is_free = agents.iter().any(|agent| agent.standing.is_ok());
    let held_up = held_up(state, fleet, spec);
    let wait = likely_wait(
        state,
        fleet,
        now,
        (task.id, delay),
        is_free && held_up.is_none(),
    );
    let lead = lead(&ahead, (delay, came_back), held_up.as_deref(), &agents);
    let behind = match is_free && (delay.is_some() || held_up.is_some()) {
        true => Vec::new(),
        false => refusals::behind(state, fleet, spec, (&rules, of.rules), &agents),
    };
    let own = own
        .map(|(agent, _)| format!("It has waited for so long that {agent} is kept free for it."));
    let remedy = match wait.is_some() || held_up.is_some() && refusals::may_start_by_itself(&agents)
    {
        true => None,
        false => refusals::remedy((state, fleet), &agents),
    };
    let parts = std::iter::once(lead)
        .chain(behind)
        .chain(own)
        .chain(starved(state, task, now))
        .chain(ahead.rival.as_ref().map(|rival| before(rival, spec)))
        .chain(wait.filter(|_| delay.is_none()).map(likely))
        .chain(remedy);
    Explanation {
        summary: sentences(parts),
        formula: Some(of.formula),
        ahead: Some(ahead),
        agents,
        wait,
    }
}

/// Its place, and what keeps it there.
fn lead(
    ahead: &Ahead,
    (delay, came_back): (Option<Millis>, &str),
    held_up: Option<&str>,
    agents: &[AgentVerdict],
) -> String {
    if agents.is_empty() {
        return "It waits: no agent has ever registered. `quorate join-token create --role agent` lets one join.".into();
    }
    let later = if ahead.is_least { " or later" } else { "" };
    let position = format!("{}{later}", ahead.total() + 1);
    let free = agents.iter().filter(|agent| agent.standing.is_ok()).count();
    // That something else holds it up is no answer where nothing would take it all the same.
    let nor_then = match refusals::may_start_by_itself(agents) {
        true => String::new(),
        false => format!(
            " No agent would take it then: {}.",
            refusals::counted(agents)
        ),
    };
    if let Some(Millis(delay)) = delay {
        let (whole, tenths) = (delay / 1_000, delay % 1_000 / 100);
        return format!("It waits for its next try, in {whole}.{tenths} s: {came_back}.{nor_then}");
    }
    let again = match came_back {
        "" => String::new(),
        why => format!(" It came back to the queue: {why}."),
    };
    if let Some(until) = held_up {
        return format!(
            "It waits as number {position} in the queue until {until}.{nor_then}{again}"
        );
    }
    if free > 0 {
        let all = refusals::number(agents.len());
        return format!(
            "It is number {position} in the queue; {free} of {all} can take it.{again}"
        );
    }
    let refusals = refusals::counted(agents);
    format!("It waits as number {position} in the queue: {refusals}.{again}")
}

/// How long it waits still; nothing is said of one that starts at once.
fn likely_wait(
    state: &State,
    fleet: &Fleet,
    now: Timestamp,
    (task, delay): (TaskId, Option<Millis>),
    is_free: bool,
) -> Option<Wait> {
    if fleet.shortage.is_some() {
        return None;
    }
    match delay {
        // Who will be busy then, and with what, nobody knows.
        Some(millis) => is_free.then_some(Wait {
            millis,
            is_rough: true,
        }),
        None if is_free => None,
        None => estimate::wait_of(state, fleet, now, task).filter(|wait| wait.millis.0 > 0),
    }
}

fn likely(Wait { millis, is_rough }: Wait) -> String {
    let doubt = if is_rough { ", by a guess" } else { "" };
    format!("It is likely to start in {}{doubt}.", span(millis))
}

fn starved(state: &State, task: &Task, now: Timestamp) -> Option<String> {
    let precedence = order::precedence_of(state, task, now);
    (precedence.served == Served::TooLongAgo).then(|| {
        let class = precedence.class;
        format!("It has waited for so long that it goes with {class} tasks, before those of them that have not.")
    })
}

/// Whose turn is before, and by which numbers.
fn before(rival: &Rival, spec: &TaskSpec) -> String {
    let (who, own) = match &rival.user {
        None => (
            format!("Namespace {}", rival.namespace),
            spec.namespace.to_string(),
        ),
        Some(user) => (format!("User {user}"), "its own user".into()),
    };
    let [used, own_used] = [rival.used, rival.own_used].map(|used| span(Millis(used)));
    let (weight, own_weight) = (rival.weight, rival.own_weight);
    format!(
        "{who} goes first, having used {used} of slots for a weight of {weight}; {own} has used {own_used} for {own_weight}."
    )
}

/// What it waits for, whatever the agents are like.
fn held_up(state: &State, fleet: &Fleet, spec: &TaskSpec) -> Option<String> {
    if let Some(why) = &fleet.shortage {
        return Some(format!("there is room on the controllers' disks: {why}"));
    }
    let namespace = &spec.namespace;
    if state.running_left(namespace) == Some(0) {
        let (_, running) = state.load(namespace);
        return Some(format!(
            "a task of namespace {namespace} has ended: its quota allows {running} at once, and as many run"
        ));
    }
    let blob = fleet.lacked_by(spec)?;
    Some(format!(
        "the leader has fetched what it needs from another controller: blob {blob}"
    ))
}
