//! Places that tasks get from others of lower classes, where there is no room for them.
//!
//! Only what allows it is ended for others, and only for a task of a higher class than its own: a class to which it has
//! risen by waiting does not count, or two lines that starve would end each other's tasks for ever. A task waits for a
//! moment before it gets the place of another, for most places come free by themselves; and while an agent that has room
//! for it is only about to connect, nothing ends for it. An agent is asked for one place in a round, and for no other before
//! that is decided, so that what comes free is always known.
//!
//! Of all agents that one is chosen where least is lost: by the highest class of what has to end, then by how many attempts
//! that are, then by how long they have run. On an agent the lowest classes go first, and of one class what began last, of
//! what has something that is lacking; what is not needed after all, once more has been chosen, is spared.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{
    Agent, AgentId, Assignment, Attempt, Class, Expression, Incarnation, Millis, Placement,
    Preemption, Reason, State, Strategy, Task, TaskId, TaskSpec, Timestamp, Trace, Victim,
};
use mutant::Mutant;

use crate::candidate::{Candidate, Claim, Lens};
use crate::filter;
use crate::fleet::AgentView;
use crate::health::Asked;
use crate::order::{self, Became, Line, Turns};
use crate::plan::choose::PLACES;
use crate::plan::{LINES_MAX, Plan, Planner, Round};
use crate::score::{self, Harm};

/// Tasks that get the places of others in one round, or for which these are held.
const PREEMPTIONS_MAX: usize = 64;
/// Sorts of need for which it is looked at all agents in a round. With the former it bounds what a round costs.
const SORTS_MAX: usize = 32;
/// For so long a task waits before anything ends for it.
pub const PATIENCE: Millis = Millis(1_000);
/// Attempts of an agent that are looked at, and that are tried at once.
const LOOKED_AT: usize = 256;
const TRIED: usize = 64;

/// What one agent could give, and what is lost by that.
#[derive(Debug)]
struct Offer {
    agent: AgentId,
    incarnation: Incarnation,
    victims: Vec<Victim>,
    harm: Harm,
    score: i64,
}

/// All of them, for tasks that need the same; the one to be taken next comes last.
#[derive(Debug)]
struct Offers {
    /// Of one of them.
    spec: Arc<TaskSpec>,
    lens: Lens,
    class: Class,
    offers: Vec<Offer>,
    refusals: Vec<(Reason, u32)>,
}

/// A live attempt that may be preempted.
struct Preemptible<'a> {
    class: Class,
    spec: Arc<TaskSpec>,
    attempt: &'a Attempt,
    task: TaskId,
}

impl<'a> Planner<'a> {
    /// Gives places of others to tasks that are left without one.
    pub(super) fn preempt(&mut self, round: Round<'_>, plan: &mut Plan) {
        let most = round.max.saturating_sub(plan.assignments.len());
        let most = most.min(PREEMPTIONS_MAX);
        let Some(lowest) = self.state.preemptible().map(|(_, class)| class).max() else {
            return;
        };
        let any_waits = self.state.any_waits_above(lowest) || mutant::is(Mutant::PreemptsItsEqual);
        if most == 0 || !any_waits {
            return;
        }
        let assigned = plan.assignments.iter().map(|it| it.task);
        let begun: BTreeSet<TaskId> = assigned.chain(round.taken.iter().copied()).collect();
        let lines = self.lines_above(lowest, round.now);
        let mut turns = Turns::new(self.state, round.now, lines, &begun);
        let mut known = Vec::new();
        let mut used = BTreeSet::new();
        let mut places = 0;
        while let Some(turn) = turns.next().filter(|turn| goes_before(turn.class, lowest)) {
            if places == most {
                return;
            }
            let became = match self.state.task(turn.task) {
                Some(task) if self.may_preempt(task, lowest) && !begun.contains(&turn.task) => {
                    match self.preempt_for(task, &mut known, &mut used) {
                        Some(preemption) => {
                            places += 1;
                            // Before its time has come nothing ends for it; but nobody behind it gets its place.
                            let has_waited = self.now.since(task.waits_since) >= PATIENCE;
                            plan.preemptions.extend(has_waited.then_some(preemption));
                            Became::Gone
                        }
                        None => Became::Stuck,
                    }
                }
                // Those behind it may.
                Some(_) | None => Became::Passed,
            };
            turns.go_on(turn, became);
        }
    }

    fn may_preempt(&mut self, task: &Task, lowest: Class) -> bool {
        let spec = self.state.spec(task.id);
        let lacks = spec.is_none_or(|spec| self.lacks(&spec));
        goes_before(task.class, lowest) && !lacks
    }

    /// The lines with tasks that go before those which may be preempted.
    fn lines_above(
        &mut self,
        lowest: Class,
        now: Timestamp,
    ) -> Vec<(&'a model::QueueKey, Line<'a>)> {
        let state = self.state;
        let mut lines = Vec::new();
        for (key, waiting) in state.queues_behind(None) {
            let first = waiting.ready.get_min().map(|(class, _)| *class);
            let may_be_above =
                first.is_some_and(|it| goes_before(it, lowest)) || !waiting.delayed.is_empty();
            if may_be_above && self.may_run(&key.tenant.namespace) {
                let line = order::line(state, (&key.tenant, waiting), now, order::RIPE_MAX);
                lines.push((key, line));
            }
            if lines.len() == LINES_MAX {
                break;
            }
        }
        lines
    }

    /// `known` are the offers of the round so far, and `used` the agents that have given something.
    fn preempt_for(
        &mut self,
        task: &Task,
        known: &mut Vec<Offers>,
        used: &mut BTreeSet<AgentId>,
    ) -> Option<Preemption> {
        let id = task.id;
        let spec = self.state.spec(id)?;
        if !self.may_run(&spec.namespace) {
            return None;
        }
        let claim = Claim::of(&self.kept, Some(id), &spec);
        let rules = self.rules.concerning(&spec.namespace, spec.kind());
        let lens = Lens {
            is_plain: spec.blobs.is_empty(),
            ..Lens::plain(spec.demand(), claim, rules)
        };
        let sought = (&spec.require, lens, task.class);
        let is_it = |it: &Offers| (&it.spec.require, it.lens, it.class) == sought;
        let place = match known.iter().position(is_it) {
            Some(place) => place,
            None if known.len() == SORTS_MAX => return None,
            None => {
                known.push(self.offers(&spec, lens, task.class));
                known.len() - 1
            }
        };
        let offers = &mut known[place];
        let is_left = |it: &Offer| !used.contains(&it.agent);
        // It was lost under it before: only where there is no other.
        let is_new = |it: &Offer| is_left(it) && !task.lost_agents.contains(&it.agent);
        let at = offers.offers.iter().rposition(is_new);
        let at = at.or_else(|| offers.offers.iter().rposition(is_left))?;
        let Offer {
            agent,
            incarnation,
            victims,
            harm,
            ..
        } = offers.offers.remove(at);
        let others = offers.offers.iter().rev().filter(|it| is_left(it));
        let others = others.take(PLACES - 1);
        let trace = Trace {
            policy_version: score::preemption().version,
            winner: harm.scored(&agent),
            runners_up: others.map(|it| it.harm.scored(&it.agent)).collect(),
            refusals: offers.refusals.clone(),
        };
        used.insert(agent.clone());
        self.count(&spec.namespace);
        if let Some(number) = self.number_of(&agent)
            && self.candidates[number].has_room()
        {
            // It has a slot, and lacked something else.
            self.take(number, &spec, Strategy::Adaptive);
        }
        Some(Preemption {
            victims,
            assignment: Assignment {
                task: id,
                placement: Placement {
                    agent,
                    incarnation,
                    trace: trace.recorded(self.state.state_version()).into(),
                    estimate: None,
                },
            },
        })
    }

    fn offers(&self, spec: &Arc<TaskSpec>, lens: Lens, class: Class) -> Offers {
        let mut all = Offers {
            spec: Arc::clone(spec),
            lens,
            class,
            offers: Vec::new(),
            refusals: Vec::new(),
        };
        let wanted = Wanted {
            require: &spec.require,
            lens,
            class,
            is_for_idle_ones: self
                .machines
                .is_for_idle_ones(&Asked::of((&self.rules, lens.rules), spec)),
        };
        let unknown = AgentView::default();
        let view = |id| self.fleet.agents.get(id).unwrap_or(&unknown);
        for (id, lowest) in self.state.preemptible() {
            if goes_before(class, lowest)
                && let Some(agent) = self.state.agent(id)
            {
                match self.offer((agent, view(id)), &wanted) {
                    Ok(offer) => all.offers.push(offer),
                    Err(Refused::For(_)) => {}
                    Err(Refused::HasRoom) => return all.without_any(),
                }
            }
        }
        if all.offers.is_empty() {
            return all;
        }
        let mut refusals = BTreeMap::new();
        let offering: BTreeSet<AgentId> = all.offers.iter().map(|it| it.agent.clone()).collect();
        let others = self.state.agents();
        for agent in others.filter(|agent| !offering.contains(&agent.profile.id)) {
            let view = view(&agent.profile.id);
            match self.offer((agent, view), &wanted) {
                Err(Refused::For(reason)) => *refusals.entry(reason).or_insert(0) += 1,
                // Nothing has to end for it: where it has room, or is about to have.
                Ok(_) | Err(Refused::HasRoom) => return all.without_any(),
            }
        }
        all.refusals = refusals.into_iter().collect();
        let by_loss = |it: &Offer| (it.score, score::tie(0, &it.agent));
        all.offers.sort_unstable_by_key(|it| Reverse(by_loss(it)));
        all
    }

    fn offer(
        &self,
        (agent, view): (&'a Agent, &AgentView),
        wanted: &Wanted<'_>,
    ) -> Result<Offer, Refused> {
        let Wanted { require, lens, .. } = *wanted;
        let id = &agent.profile.id;
        let is_away = match filter::is_open(agent, view) {
            Err(Reason::NotConnected) => true,
            open => open.map(|()| false)?,
        };
        filter::fits(agent, require)?;
        model::could(agent.profile.supply.as_ref(), &lens.demand)?;
        let candidate = self.candidate_now(agent, view);
        if wanted.is_for_idle_ones && !candidate.hold.admits(false) {
            return Err(Reason::Busy.into());
        }
        let slots = candidate.room.slots;
        // What was sent ahead waits behind who gets a place.
        let ahead = candidate.room.taken.saturating_sub(slots);
        let slots = slots.saturating_add(ahead.min(model::PREFETCH_MAX));
        let lacks = |it: &Candidate<'_>| match it.room.taken < slots {
            true => it.runs(self.state, require, lens).err(),
            false => Some(Reason::NoFreeSlot),
        };
        let Some(lacking) = lacks(&candidate) else {
            return Err(Refused::HasRoom);
        };
        if is_away {
            return Err(Reason::NotConnected.into());
        }
        agent.profile.awaits_ends()?;
        // What is on its way there already would have to be known, and what has to end for it.
        if view.reserved.preempting > 0 {
            return Err(Reason::NoFreeSlot.into());
        }
        let left = preemptible(self.state, agent, wanted.class, &lacking);
        let first = chosen(candidate.clone(), &left, lacks, |_, _| 0)?;
        let chosen = match first.len() <= model::VICTIMS_MAX {
            true => first,
            // Few that have much may do where many that have little do not.
            false => chosen(candidate, &left, lacks, |it, lacking| {
                Reverse(it.amount(lacking))
            })?,
        };
        if chosen.len() > model::VICTIMS_MAX {
            return Err(Reason::NoFreeSlot.into());
        }
        let harm = self.harm(&chosen);
        let victims = chosen.iter().map(|it| Victim {
            task: it.task,
            epoch: it.attempt.epoch,
        });
        Ok(Offer {
            agent: id.clone(),
            incarnation: agent.profile.incarnation,
            victims: victims.collect(),
            harm,
            score: harm.scored(id).score,
        })
    }

    /// With what this round has given it.
    fn candidate_now(&self, agent: &'a Agent, view: &AgentView) -> Candidate<'a> {
        match self.number_of(&agent.profile.id) {
            Some(number) => self.candidates[number].clone(),
            None => self.candidate((agent, filter::room(self.state, agent, view)), view),
        }
    }

    fn harm(&self, victims: &[&Preemptible<'_>]) -> Harm {
        let lost = victims.iter().map(|it| self.now.since(it.attempt.since).0);
        let classes = victims.iter().map(|it| it.class);
        Harm {
            class: classes.min().unwrap_or(Class::Scavenger),
            victims: victims.len(),
            lost: Millis(lost.fold(0, u64::saturating_add)),
        }
    }
}

impl Offers {
    fn without_any(mut self) -> Offers {
        self.offers.clear();
        self
    }
}

/// What tasks need the same of an agent for which a place is sought.
struct Wanted<'t> {
    require: &'t [Expression],
    lens: Lens,
    class: Class,
    /// Idle machines could run them, so that hot ones are held back.
    is_for_idle_ones: bool,
}

/// Why an agent gives nothing.
enum Refused {
    For(Reason),
    /// Nothing has to end there.
    HasRoom,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Refused {
        Refused::For(reason)
    }
}

impl Preemptible<'_> {
    /// How much its end would give where this is lacking.
    fn amount(&self, lacking: &Reason) -> u64 {
        let demand = self.spec.demand();
        match lacking {
            Reason::NoFreeSlot | Reason::Capped => 1,
            Reason::CpuTaken => demand.cpu_milli.into(),
            Reason::MemoryTaken => demand.memory_mib,
            Reason::GpusTaken | Reason::VramTaken => match demand.gpus {
                0 => demand.vram_mib,
                gpus => u64::from(gpus) << 32,
            },
            Reason::BackendsFull => self.spec.inference.is_some().into(),
            _ => 0,
        }
    }
}

fn goes_before(class: Class, other: Class) -> bool {
    class < other || (class == other && mutant::is(Mutant::PreemptsItsEqual))
}

/// What runs on an agent and may end for a task of a class, in the order in which it is chosen; of many those that have
/// something of what is lacking.
fn preemptible<'a>(
    state: &'a State,
    agent: &Agent,
    class: Class,
    lacking: &Reason,
) -> Vec<Preemptible<'a>> {
    let running = running(state, agent);
    let all = state.preemptible_on(&agent.profile.id);
    let lower = all.take_while(|(Reverse(of), _)| goes_before(class, *of));
    let lower =
        lower.filter(|(_, Reverse((_, id)))| running.as_ref().is_none_or(|it| it.contains(id)));
    let lower = lower.filter_map(|(Reverse(class), Reverse((_, id)))| {
        Some(Preemptible {
            class: *class,
            spec: state.spec(*id)?,
            attempt: state.task(*id)?.live()?,
            task: *id,
        })
    });
    let its = lower.filter(|it| {
        let waits = state.yielding_to(&agent.profile.id, it.task).next();
        it.attempt.incarnation == agent.profile.incarnation && waits.is_none()
    });
    let mut its: Vec<Preemptible<'_>> = its.collect();
    if its.len() > LOOKED_AT {
        its.retain(|it| it.amount(lacking) > 0);
        its.truncate(LOOKED_AT);
    }
    its
}

/// Those that an agent has most likely begun, where it has been sent some ahead; `None`: all. It begins who gets the place of
/// others before what was sent ahead, and else in their order.
fn running(state: &State, agent: &Agent) -> Option<BTreeSet<TaskId>> {
    let slots = agent.profile.slots as usize;
    let held = state.held_by(&agent.profile.id);
    let mut held: Vec<_> = held
        .filter_map(|task| {
            let trace = task.trace.as_ref();
            let got_a_place =
                trace.is_some_and(|it| it.policy_version() == score::preemption().version);
            Some((!got_a_place, task.live()?.epoch, task.id))
        })
        .collect();
    if held.len() <= slots {
        return None;
    }
    held.sort_unstable();
    held.truncate(slots);
    Some(held.into_iter().map(|(.., id)| id).collect())
}

/// Those of an agent that have to end so that nothing is lacking: the first by `order` that has something of it, until that
/// is so; without those that turn out not to be needed, of which the last ones are worth most.
fn chosen<'p, 'a, O: Ord>(
    mut candidate: Candidate<'_>,
    left: &'p [Preemptible<'a>],
    lacks: impl Fn(&Candidate<'_>) -> Option<Reason>,
    order: impl Fn(&Preemptible<'a>, &Reason) -> O,
) -> Result<Vec<&'p Preemptible<'a>>, Reason> {
    let mut left: Vec<&Preemptible<'_>> = left.iter().collect();
    let mut chosen = Vec::new();
    while let Some(lacking) = lacks(&candidate) {
        let have = left.iter().enumerate();
        let have = have.filter(|(_, it)| it.amount(&lacking) > 0);
        let next = have.min_by_key(|(place, it)| (order(it, &lacking), *place));
        let place = next
            .map(|(place, _)| place)
            .filter(|_| chosen.len() < TRIED);
        let next = left.remove(place.ok_or(lacking)?);
        candidate.give_back(&next.spec, next.attempt);
        chosen.push(next);
    }
    for place in (0..chosen.len()).rev() {
        let spared: &Preemptible<'_> = chosen[place];
        candidate.keep(&spared.spec, spared.attempt);
        match lacks(&candidate) {
            None => drop(chosen.remove(place)),
            Some(_) => candidate.give_back(&spared.spec, spared.attempt),
        }
    }
    Ok(chosen)
}
