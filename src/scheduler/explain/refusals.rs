//! Why agents refuse a task that waits, in words: how many for which reason, the numbers and the people behind the reasons,
//! and what lets the task start.

use std::collections::BTreeMap;

use model::{AgentId, AgentState, Cordon, Expression, Presence, Reason, State, TaskSpec};

use super::shortfall::shortfall;
use super::verdicts::AgentVerdict;
use crate::filter;
use crate::fleet::Fleet;
use crate::rules::{RuleSet, Rules};

/// Agents that are named one by one.
const NAMED_MAX: usize = 3;

/// A reason, of one agent, and of several; those that nothing but a change of the agent or of the task ends come first.
const WORDS: [(Reason, &str, &str); 25] = [
    (
        Reason::LabelMismatch,
        "does not satisfy its `require`",
        "do not satisfy its `require`",
    ),
    (
        Reason::NotOffered,
        "does not offer its model",
        "do not offer its model",
    ),
    (
        Reason::TooOld,
        "is of an older release, which can't run all of it: upgrade it",
        "are of an older release, which can't run all of it: upgrade them",
    ),
    (
        Reason::LacksCpu,
        "has too few processors",
        "have too few processors",
    ),
    (
        Reason::LacksMemory,
        "has too little memory",
        "have too little memory",
    ),
    (Reason::LacksGpus, "has too few GPUs", "have too few GPUs"),
    (
        Reason::LacksVram,
        "has GPUs with too little memory",
        "have GPUs with too little memory",
    ),
    (
        Reason::CpuTaken,
        "has too few processors free",
        "have too few processors free",
    ),
    (
        Reason::MemoryTaken,
        "has too little memory free",
        "have too little memory free",
    ),
    (
        Reason::GpusTaken,
        "has too few GPUs free",
        "have too few GPUs free",
    ),
    (
        Reason::VramTaken,
        "has too little of its GPUs' memory free",
        "have too little of their GPUs' memory free",
    ),
    (Reason::Cordoned, "is cordoned", "are cordoned"),
    (Reason::Draining, "is being drained", "are being drained"),
    (Reason::NoFreeSlot, "has no free slot", "have no free slot"),
    (
        Reason::BackendsFull,
        "has its back ends for it at the limit",
        "have their back ends for it at the limit",
    ),
    (
        Reason::Kept,
        "is kept free for a task that asks for more, and has waited for too long",
        "are kept free for tasks that ask for more, and have waited for too long",
    ),
    (
        Reason::Excluded,
        "has a rule against such tasks",
        "have a rule against such tasks",
    ),
    (
        Reason::PinnedElsewhere,
        "is not among those to which a rule pins it",
        "are not among those to which a rule pins it",
    ),
    (
        Reason::Capped,
        "holds as many such tasks as a rule allows",
        "hold as many such tasks as a rule allows",
    ),
    (
        Reason::Busy,
        "is busy with other things, and gets only a twentieth of what idle ones do",
        "are busy with other things, and get only a twentieth of what idle ones do",
    ),
    (
        Reason::LostBefore,
        "was lost under it before",
        "were lost under it before",
    ),
    (Reason::Lost, "is lost", "are lost"),
    (
        Reason::NotConnected,
        "is not connected",
        "are not connected",
    ),
    (Reason::Suspect, "is suspect", "are suspect"),
    (Reason::Declining, "takes nothing now", "take nothing now"),
];

/// `of 3 agents 1 is cordoned, 2 have no free slot`.
pub fn counted(agents: &[AgentVerdict]) -> String {
    let reasons = WORDS.iter().filter_map(|(reason, one, several)| {
        let refusing = agents
            .iter()
            .filter(|it| it.standing.as_ref() == Err(reason));
        match refusing.count() {
            0 => None,
            1 => Some(format!("1 {one}")),
            some => Some(format!("{some} {several}")),
        }
    });
    let reasons = reasons.collect::<Vec<_>>().join(", ");
    format!("of {} {reasons}", number(agents.len()))
}

/// `1 agent`, `3 agents`.
pub fn number(agents: usize) -> String {
    match agents {
        1 => "1 agent".into(),
        some => format!("{some} agents"),
    }
}

/// What stands behind the reasons; a sentence each.
pub fn behind(
    state: &State,
    fleet: &Fleet,
    spec: &TaskSpec,
    rules: (&Rules<'_>, RuleSet),
    agents: &[AgentVerdict],
) -> Vec<String> {
    let unmet = unmet(state, spec, agents);
    let short = match agents.iter().all(|agent| agent.standing.is_err()) {
        true => shortfall(state, fleet, &spec.demand(), agents),
        false => Vec::new(),
    };
    let by_hand = by_hand(state, fleet, rules, agents);
    let all = unmet.into_iter().chain(short).chain(cordons(state, agents));
    all.chain(by_hand).collect()
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
        let verb = if count == 1 { "satisfies" } else { "satisfy" };
        (count < agents.len()).then(|| format!("{count} {verb} `{expression}`"))
    });
    Some(format!("{}.", told.collect::<Vec<_>>().join(", ")))
}

/// Who closed agents that could else take it, and why.
fn cordons(state: &State, agents: &[AgentVerdict]) -> Vec<String> {
    let mut closed: BTreeMap<(&str, &str, bool), Vec<&AgentId>> = BTreeMap::new();
    for verdict in agents {
        if let Err(Reason::Cordoned | Reason::Draining) = verdict.standing
            && let Some(agent) = state.agent(&verdict.agent)
            && let Some(Cordon {
                by, reason, drain, ..
            }) = &agent.cordon
        {
            let alike = closed.entry((by, reason, drain.is_some())).or_default();
            alike.push(&verdict.agent);
        }
    }
    let told = closed.into_iter().map(|((by, reason, drains), agents)| {
        let verb = match (drains, agents.len()) {
            (true, 1) => "is being drained",
            (true, _) => "are being drained",
            (false, 1) => "was cordoned",
            (false, _) => "were cordoned",
        };
        let why = match reason {
            "" => String::new(),
            reason => format!(": {reason}"),
        };
        format!("{} {verb} by {by}{why}.", names(&agents))
    });
    told.collect()
}

/// `a1, a2, a3 and 4 more`.
fn names(agents: &[&AgentId]) -> String {
    let named = agents.iter().take(NAMED_MAX).map(|it| it.as_str());
    let named = named.collect::<Vec<_>>().join(", ");
    match agents.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} more"),
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

/// What ends the reason for which an agent refuses a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Until {
    /// It is opened again.
    Opened,
    /// It is back.
    Back,
    /// It has room, which comes by itself.
    Room,
    /// It is another one, or the task or a rule is.
    Changed,
}

impl Until {
    fn of(reason: &Reason) -> Until {
        match reason {
            Reason::Cordoned | Reason::Draining => Until::Opened,
            Reason::Lost | Reason::NotConnected | Reason::Suspect => Until::Back,
            Reason::LabelMismatch
            | Reason::NotOffered
            | Reason::TooOld
            | Reason::LacksCpu
            | Reason::LacksMemory
            | Reason::LacksGpus
            | Reason::LacksVram
            | Reason::Excluded
            | Reason::PinnedElsewhere => Until::Changed,
            Reason::NoFreeSlot
            | Reason::Declining
            | Reason::LostBefore
            | Reason::BackendsFull
            | Reason::CpuTaken
            | Reason::MemoryTaken
            | Reason::GpusTaken
            | Reason::VramTaken
            | Reason::Kept
            | Reason::Capped
            | Reason::Busy
            | Reason::Others => Until::Room,
        }
    }
}

/// Whether room is all that each agent lacks that could ever take it; or one has it.
pub fn may_start_by_itself(agents: &[AgentVerdict]) -> bool {
    let mut untils = agents
        .iter()
        .map(|it| it.standing.as_ref().err().map(Until::of));
    untils.any(|until| matches!(until, None | Some(Until::Room)))
}

/// What lets a task start for which that can't be foreseen, where each agent refuses it.
pub fn remedy((state, fleet): (&State, &Fleet), agents: &[AgentVerdict]) -> Option<String> {
    let mut by_remedy: BTreeMap<Until, Vec<&AgentId>> = BTreeMap::new();
    for verdict in agents {
        let until = Until::of(verdict.standing.as_ref().err()?);
        by_remedy.entry(until).or_default().push(&verdict.agent);
    }
    let some = |until| by_remedy.get(&until).map(Vec::as_slice).unwrap_or_default();
    let (closed, away) = (some(Until::Opened), some(Until::Back));
    Some(
        if let Some(agent) = closed.iter().find(|agent| has_room(state, fleet, agent)) {
            format!("`quorate agent uncordon {agent}` lets it go there.")
        } else if !some(Until::Room).is_empty() || !closed.is_empty() {
            "When it starts can't be foreseen.".into()
        } else if !away.is_empty() {
            format!("It can start once {} is back.", one_of(away))
        } else {
            lasting(agents)?
        },
    )
}

/// Where nothing but a change of agents, of the task or of rules will do.
fn lasting(agents: &[AgentVerdict]) -> Option<String> {
    let is_there = |reason: Reason| agents.iter().any(|it| it.standing == Err(reason.clone()));
    if agents.is_empty() {
        return None;
    }
    Some(if is_there(Reason::NotOffered) {
        "It can start once a back end offers its model: see `quorate backend list`.".into()
    } else if is_there(Reason::TooOld) {
        "It can start once one of them is upgraded.".into()
    } else if is_there(Reason::Excluded) || is_there(Reason::PinnedElsewhere) {
        "None of them will take it while the rule holds: have an agent join that does, or wait for the rule's end, or have it removed.".into()
    } else {
        "None of them will take it as things are: have an agent join that does, or ask for what they have.".into()
    })
}

/// Whether one that is closed could else begin something at once.
fn has_room(state: &State, fleet: &Fleet, id: &AgentId) -> bool {
    let Some(agent) = state.agent(id) else {
        return false;
    };
    let view = fleet.agents.get(id).cloned().unwrap_or_default();
    let room = filter::room(state, agent, &view);
    let is_there = agent.state == AgentState::Ready && view.sample.presence == Presence::Open;
    is_there && room.taken < room.slots
}

/// `a1`, `one of a1, a2`.
fn one_of(agents: &[&AgentId]) -> String {
    match agents {
        [one] => one.to_string(),
        some => format!("one of {}", names(some)),
    }
}
