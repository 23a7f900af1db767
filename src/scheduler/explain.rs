//! Why a task waits, or why it runs where it does: `task why`.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    AgentId, Expression, Magnitude, Millis, Phase, Reason, Served, State, Strategy, Task, TaskId,
    TaskSpec, Timestamp, Work,
};

use crate::candidate::{Candidate, Claim, For};
use crate::estimate::{self, Wait};
use crate::filter;
use crate::fleet::Fleet;
use crate::health::{self, Asked, Machines};
use crate::kept::{Holder, kept};
use crate::order::{self, Ahead};
use crate::rules::{RuleSet, Rules};
use crate::score::{self, Formula, Way};
use crate::shortfall::shortfall;

/// How one agent stands towards a waiting task now: its score, or why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentVerdict {
    pub agent: AgentId,
    pub standing: Result<model::Scored, Reason>,
}

/// What can be said about a task now, beyond its recorded decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// One sentence.
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
        self.ahead.map(|ahead| ahead.total() + 1)
    }
}

/// Explains a task; `None` where it is not known.
pub fn explain(state: &State, fleet: &Fleet, now: Timestamp, id: TaskId) -> Option<Explanation> {
    let task = state.task(id)?;
    Some(match &task.phase {
        Phase::Queued { not_before, .. } => {
            let spec = state.spec(id)?;
            waiting(state, fleet, now, (task, &spec), *not_before)
        }
        Phase::Assigned { attempt, .. } => {
            let mut explanation = explain_decided(task);
            let waits_for = state.yielding_to(&attempt.agent, id);
            let waits_for: Vec<String> = waits_for.map(|it| it.task.to_string()).collect();
            if !waits_for.is_empty() {
                let summary = &mut explanation.summary;
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

/// What the record alone says of a task that does not wait, in memory or in the archive.
pub fn explain_decided(task: &Task) -> Explanation {
    let summary = match &task.phase {
        Phase::Queued { .. } => "It waits.".into(),
        Phase::Assigned { .. } => {
            let assigned = format!("It was assigned to {}.", decided(task));
            match task.reason() {
                why if why.is_empty() => assigned,
                why => format!("{assigned} It has to end: {why}."),
            }
        }
        Phase::Succeeded => format!("It succeeded. It ran on {}.", decided(task)),
        Phase::Failed { reason } => format!("It failed: {reason}."),
        Phase::Cancelled(cancel) => format!("It was cancelled by {cancel}."),
        Phase::Unknown { .. } => format!("Nobody knows how it ended: {}.", task.reason()),
        Phase::DeadLetter { reason } => format!("It was given up: {reason}."),
    };
    let summary = std::iter::once(summary).chain(how_wrong(task));
    let summary = summary.collect::<Vec<_>>().join(" ");
    Explanation {
        summary,
        formula: None,
        ahead: None,
        agents: Vec::new(),
        wait: None,
    }
}

/// `9 s`, `3 min`; what is less than a second is told as that.
pub fn span(millis: Millis) -> String {
    match millis.0 {
        0..1_000 => "less than 1 s".into(),
        under @ 1_000..120_000 => format!("{} s", under / 1_000),
        under @ 120_000..7_200_000 => format!("{} min", under / 60_000),
        more => format!("{} h", more / 3_600_000),
    }
}

/// How right the estimate was that was made of it, if one was; a sentence.
fn how_wrong(task: &Task) -> Option<String> {
    let (expected, real) = task.latest.as_ref()?.waits()?;
    let (expected, real) = (span(expected), span(real));
    Some(format!(
        "It was estimated to wait {expected}, and waited {real} from then on."
    ))
}

fn decided(task: &Task) -> String {
    const LATER: &str = "chosen as a later release chooses";
    let Some(record) = &task.trace else {
        return "no agent yet".into();
    };
    let Some(trace) = record.read() else {
        let latest = task.latest.as_ref();
        let agent = latest.map_or("an agent", |it| it.agent.as_str());
        return format!("{agent}, {LATER}");
    };
    let others = match trace.runners_up.first() {
        Some(second) => format!("; next was {}", second.agent),
        None => "; no other agent could take it".into(),
    };
    // The scores stand beside it, in the decision, in a unit that needs no explanation there.
    let formula = score::formula_of(trace.policy_version);
    let why = match formula {
        None => LATER.to_owned(),
        Some(it) if !it.prefers => words(it.way).to_owned(),
        Some(it) => match trace.winner.terms.first() {
            Some(0) => format!("preferred, and {}", words(it.way)),
            _ => format!(
                "{}; none that is preferred more could take it",
                words(it.way)
            ),
        },
    };
    format!("{}, {why}{others}", trace.winner.agent)
}

/// The same of a task that nobody has submitted yet.
pub fn would(task: &Task, explanation: &Explanation) -> String {
    if task.trace.is_some() {
        return format!("It would be assigned to {}.", decided(task));
    }
    let waits = explanation.summary.as_str();
    let others = [("It waits", "It would wait"), ("It is ", "It would be ")];
    let found = others.iter().find_map(|(is, would)| {
        let rest = waits.strip_prefix(is)?;
        Some(format!("{would}{rest}"))
    });
    found.unwrap_or_else(|| waits.to_owned())
}

fn words(way: Way) -> &'static str {
    let strategy = match way {
        Way::Strategy(strategy) => strategy,
        Way::Preemption => return "where least was lost by what had to end for it",
    };
    match strategy {
        Strategy::Adaptive => "the best by load and pace",
        Strategy::RoundRobin | Strategy::WeightedRoundRobin => "whose turn it was",
        Strategy::LeastConnections => "the one with the fewest attempts",
        Strategy::IpHash => "the first with room for its client",
        Strategy::PowerOfTwo => "the less loaded of two that were drawn",
        Strategy::Binpack => "the fullest that has room",
        Strategy::Spread => "the one with the fewest attempts of its namespace",
    }
}

fn waiting(
    state: &State,
    fleet: &Fleet,
    now: Timestamp,
    (task, spec): (&Task, &TaskSpec),
    not_before: Option<Timestamp>,
) -> Explanation {
    let rules = Arc::new(Rules::of(state, now));
    let mut of = For::of(state, &rules, spec, &task.user);
    of.work = Some(0);
    of.is_overdue = health::is_overdue(task, now);
    let machines = Machines::of(state, fleet);
    let kept = kept(state, fleet, (&rules, &machines), now);
    let own = kept.iter().find(|(_, (_, holder))| *holder == task.id);
    let claim = Claim::of(&kept, Some(task.id), spec);
    let agents = verdicts(
        (state, now),
        (fleet, &machines),
        (spec, &of, &rules),
        (&kept, claim),
    );
    let by_hand = by_hand(state, fleet, (&rules, of.rules), &agents);
    let ahead = order::ahead_of(state, task, now);
    let later = if ahead.is_least { " or later" } else { "" };
    let position = format!("{}{later}", ahead.total() + 1);
    let held_up = held_up(state, fleet, spec);
    let summary = match not_before.filter(|at| *at > now) {
        Some(at) => {
            let millis = at.since(now).0;
            let seconds = format!("{}.{}", millis / 1_000, millis % 1_000 / 100);
            format!(
                "It waits for its next try, in {seconds} s: {}.",
                task.reason()
            )
        }
        None => match &held_up {
            Some(until) => format!("It waits as number {position} in the queue until {until}."),
            None => {
                let own = own.map(|(agent, _)| {
                    format!("It has waited for so long that {agent} is kept free for it.")
                });
                let parts = std::iter::once(summary(&agents, &position))
                    .chain(unmet(state, spec, &agents))
                    .chain(short_of(state, fleet, spec, &agents))
                    .chain(by_hand)
                    .chain(own);
                parts.collect::<Vec<_>>().join(" ")
            }
        },
    };
    let precedence = order::precedence_of(state, task, now);
    let starved = (precedence.served == Served::TooLongAgo).then(|| {
        let class = precedence.class;
        format!("It has waited for so long that it goes with {class} tasks, before those of them that have not.")
    });
    let is_free = agents.iter().any(|agent| agent.standing.is_ok());
    let is_for_slots = held_up.is_none() && not_before.is_none_or(|at| at <= now) && !is_free;
    let wait = match is_for_slots {
        // Were there a slot now, it would be something else that it waits for.
        true => estimate::wait_of(state, fleet, now, task.id).filter(|wait| wait.millis.0 > 0),
        false => None,
    };
    let likely = wait.map(|Wait { millis, is_rough }| {
        let doubt = if is_rough { ", by a guess" } else { "" };
        format!("It is likely to start in {}{doubt}.", span(millis))
    });
    let parts = std::iter::once(summary).chain(starved).chain(likely);
    let summary = parts.collect::<Vec<_>>().join(" ");
    Explanation {
        summary,
        formula: Some(of.formula),
        ahead: Some(ahead),
        agents,
        wait,
    }
}

/// How many agents satisfy each expression that it requires, where none satisfies all.
fn unmet(state: &State, spec: &TaskSpec, agents: &[AgentVerdict]) -> Option<String> {
    let lack = |agent: &AgentVerdict| agent.standing == Err(Reason::LabelMismatch);
    if agents.is_empty() || !agents.iter().all(lack) {
        return None;
    }
    let labels = spec.require.iter();
    let labels = labels.filter(|it| !matches!(it, Expression::Offers(_)));
    let told = labels.filter_map(|expression| {
        let holds = |agent: &&model::Agent| expression.matches(&agent.profile);
        let count = state.agents().filter(holds).count();
        (count < agents.len()).then(|| format!("{count} satisfy `{expression}`"))
    });
    Some(format!("{}.", told.collect::<Vec<_>>().join(", ")))
}

/// What all agents have too little of.
fn short_of(state: &State, fleet: &Fleet, spec: &TaskSpec, agents: &[AgentVerdict]) -> Vec<String> {
    match agents.iter().all(|agent| agent.standing.is_err()) {
        true => shortfall(state, fleet, &spec.demand(), agents),
        false => Vec::new(),
    }
}

/// The rules that keep some agents from it, as those who made them said it.
fn by_hand(
    state: &State,
    fleet: &Fleet,
    (rules, concerning): (&Rules<'_>, RuleSet),
    agents: &[AgentVerdict],
) -> Vec<String> {
    let by_rule = |it: &&AgentVerdict| {
        let reason = it.standing.as_ref().err();
        reason.is_some_and(|it| {
            matches!(
                it,
                Reason::Excluded | Reason::PinnedElsewhere | Reason::Capped
            )
        })
    };
    let keeping = agents.iter().filter(by_rule).filter_map(|it| {
        let naming = rules.naming(&state.agent(&it.agent)?.profile);
        let given = fleet.agents.get(&it.agent).map(|view| &view.reserved.mix);
        Some(rules.in_the_way(concerning, naming, [state.mix(&it.agent), given]))
    });
    let keeping = keeping.fold(RuleSet::default(), |all, some| all | some);
    let told = rules.in_set(keeping).map(|rule| {
        let (id, asked, by) = (rule.id, &rule.asked, &rule.by);
        format!("Rule {id}: {asked} ({by}: {}).", asked.reason)
    });
    told.collect()
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

/// An agent that could take a task.
struct Fitting {
    scored: model::Scored,
    has_free_slot: bool,
}

/// Each agent, by id. As long as one has a free slot, none is sent anything ahead.
fn verdicts(
    (state, now): (&State, Timestamp),
    (fleet, machines): (&Fleet, &Machines<'_>),
    asked: (&TaskSpec, &For<'_>, &Arc<Rules<'_>>),
    (kept, claim): (&BTreeMap<AgentId, Holder>, Claim),
) -> Vec<AgentVerdict> {
    let (spec, of, rules) = asked;
    let work = spec.work();
    let usual = machines.usual_service(&work);
    let is_for_idle_ones = machines.is_for_idle_ones(&Asked::of((rules, of.rules), spec));
    let standings = state.agents().map(|agent| {
        let id = &agent.profile.id;
        let seen = Seen {
            machines,
            is_for_idle_ones,
            now,
            work: (&work, usual),
        };
        let kept_for = kept.get(id).copied();
        let standing = standing(state, (fleet, seen), asked, (agent, kept_for, claim));
        (agent.profile.id.clone(), standing)
    });
    let standings: Vec<_> = standings.collect();
    let mut fitting = standings.iter().filter_map(|(_, it)| it.as_ref().ok());
    let is_free = fitting.any(|it| it.has_free_slot);
    let verdicts = standings.into_iter().map(|(agent, standing)| AgentVerdict {
        agent,
        standing: standing.and_then(|it| match is_free && !it.has_free_slot {
            true => Err(Reason::NoFreeSlot),
            false => Ok(it.scored),
        }),
    });
    verdicts.collect()
}

/// What an agent is compared by with the others.
struct Seen<'m> {
    machines: &'m Machines<'m>,
    now: Timestamp,
    /// Idle machines could run the task, so that hot ones are held back.
    is_for_idle_ones: bool,
    /// What it is, and how long such work usually takes.
    work: (&'m Work, Option<Magnitude>),
}

fn standing(
    state: &State,
    (fleet, seen): (&Fleet, Seen<'_>),
    (spec, of, rules): (&TaskSpec, &For<'_>, &Arc<Rules<'_>>),
    (agent, kept_for, claim): (&model::Agent, Option<Holder>, Claim),
) -> Result<Fitting, Reason> {
    let id = &agent.profile.id;
    let view = fleet.agents.get(id).cloned().unwrap_or_default();
    let room = filter::room(state, agent, &view);
    // What can't change by waiting comes first: it is the better answer.
    filter::fits(agent, &spec.require)?;
    agent.profile.understands(spec)?;
    model::could(agent.profile.supply.as_ref(), &spec.demand())?;
    rules.admit(of.rules, rules.naming(&agent.profile))?;
    filter::accepts_work(agent, &view, room)?;
    let known = (seen.machines, &*fleet.rotations, seen.now);
    let mut candidate = Candidate::new((agent, room), (state, &view), known, rules);
    candidate.note_work(seen.work.0, seen.work.1);
    candidate.fits(state, spec.need())?;
    candidate.obeys(of.rules)?;
    candidate.kept_for = kept_for;
    candidate.is_open_to(claim)?;
    if seen.is_for_idle_ones && !candidate.hold.admits(of.is_overdue) {
        return Err(Reason::Busy);
    }
    let turn = fleet.rotations.until(of.strategy, id);
    Ok(Fitting {
        scored: candidate.measure(of, turn).scored(of.formula, id),
        has_free_slot: candidate.has_free_slot(),
    })
}

fn summary(agents: &[AgentVerdict], position: &str) -> String {
    if agents.is_empty() {
        return "It waits: no agent has ever registered.".into();
    }
    let count = |reason: &Reason| {
        agents
            .iter()
            .filter(|a| a.standing.as_ref() == Err(reason))
            .count()
    };
    let free = agents.iter().filter(|agent| agent.standing.is_ok()).count();
    let total = agents.len();
    if free > 0 {
        return format!(
            "It is number {position} in the queue; {free} of {total} agents can take it."
        );
    }
    let mut reasons = Vec::new();
    for (reason, words) in [
        (Reason::LabelMismatch, "do not satisfy its `require`"),
        (Reason::NotOffered, "do not offer its model"),
        (
            Reason::TooOld,
            "are of an older release, which can't run all of it: upgrade them",
        ),
        (Reason::LacksCpu, "have too few processors"),
        (Reason::LacksMemory, "have too little memory"),
        (Reason::LacksGpus, "have too few GPUs"),
        (Reason::LacksVram, "have GPUs with too little memory"),
        (Reason::CpuTaken, "have too few processors free"),
        (Reason::MemoryTaken, "have too little memory free"),
        (Reason::GpusTaken, "have too few GPUs free"),
        (
            Reason::VramTaken,
            "have too little of their GPUs' memory free",
        ),
        (Reason::Cordoned, "are cordoned"),
        (Reason::Draining, "are being drained"),
        (Reason::NoFreeSlot, "have no free slot"),
        (
            Reason::BackendsFull,
            "have their back ends for it at the limit",
        ),
        (
            Reason::Kept,
            "are kept free for tasks that ask for more, and have waited for too long",
        ),
        (Reason::Excluded, "have a rule against such tasks"),
        (
            Reason::PinnedElsewhere,
            "are not among those to which a rule pins it",
        ),
        (Reason::Capped, "hold as many such tasks as a rule allows"),
        (
            Reason::Busy,
            "are busy with other things, and get only a twentieth of what idle ones do",
        ),
        (Reason::Lost, "are lost"),
        (Reason::NotConnected, "are not connected"),
        (Reason::Suspect, "are suspect"),
        (Reason::Declining, "take nothing now"),
    ] {
        match count(&reason) {
            0 => {}
            some => reasons.push(format!("{some} {words}")),
        }
    }
    format!(
        "It waits as number {position} in the queue: of {total} agents {}.",
        reasons.join(", ")
    )
}
