//! A round of decisions: the queue in its order, each task to the best agent that has room.
//!
//! The queue stands by what tasks need and by tenant ([`model::Waiting`]), and a round takes from these lines in turns
//! ([`crate::order`]). A line that no agent with room fits, or whose namespace has used up its quota, is passed over as a
//! whole, so however many tasks wait for an agent that is not there, those behind them cost and wait no more than without
//! them. A round ends when no agent has room, or at a bound: the next one then goes on where it stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::{
    AgentId, Assignment, Expression, Namespace, Need, Placement, Principal, QueueKey, Reason,
    Requirement, State, Strategy, TaskId, TaskSpec, Tenant, Timestamp, Trace, Work,
};

use crate::candidate::{Candidate, Claim, For, Lens, Wants, WorkNumber};
use crate::filter;
use crate::fleet::{AgentView, Fleet};
use crate::health::{self, Asked, Hold, Machines};
use crate::kept::{Holder, kept};
use crate::order::{self, Became, Line, Turns};
use crate::ranking::{Ranking, Rankings};
use crate::rotation::Rotations;
use crate::rules::{RuleSet, Rules};
use crate::score;

/// Requirements that one round looks at, and lines that it takes from: with the tasks in it they bound its time to a few
/// milliseconds. Where there are more, rounds take turns, and the order of class and share holds within each.
const REQUIREMENTS_MAX: usize = 4_096;
pub(crate) const LINES_MAX: usize = 16_384;
/// The winner and the runners-up that a trace names; the rest are not told apart.
const PLACES: usize = 3;

/// Tasks that one round passes over because the agents with room are too old for them; bounds its time as well.
const NOT_UNDERSTOOD_MAX: usize = 4_096;

/// Decisions of a round, as many as an entry of the log takes of them.
pub const ROUND_MAX: usize = 256;

/// Operations in one entry; a bound on the time that it takes to apply.
pub const OPS_PER_ENTRY: usize = 512;

/// Decisions of a round in an entry that has so many operations already.
pub fn round_max(before: usize) -> usize {
    ROUND_MAX.min(OPS_PER_ENTRY.saturating_sub(before))
}

/// What a round starts from.
#[derive(Debug, Clone, Copy)]
pub struct Round<'r> {
    pub now: Timestamp,
    /// Tasks whose assignment is under way.
    pub taken: &'r BTreeSet<TaskId>,
    /// Assignments at most.
    pub max: usize,
    /// Where the last round stopped, if it could not look at every queue.
    pub after: Option<&'r QueueKey>,
}

/// What a round decided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub assignments: Vec<Assignment>,
    /// The round ended at a bound, not at the end of the queue: some that wait were not looked at.
    pub cut: bool,
    /// Where the next round goes on; where there is nothing, from the start.
    pub resume: Option<QueueKey>,
}

/// Assigns queued tasks, as a round of its own.
pub fn plan(state: &State, fleet: &Fleet, round: Round<'_>) -> Plan {
    Planner::new(state, fleet, round.now).round(round)
}

/// The rooms of all agents while a round fills them; also places new tasks after the round.
#[derive(Debug)]
pub struct Planner<'a> {
    state: &'a State,
    fleet: &'a Fleet,
    /// Agents that had room when the round began, by id.
    candidates: Vec<Candidate<'a>>,
    /// How many of them have room now.
    open: usize,
    /// Agents that can get no work now, by reason.
    refused: BTreeMap<Reason, u32>,
    rankings: Rankings,
    /// Whose turn it is, under strategies that go by turns.
    rotations: Arc<Rotations>,
    /// How many more attempts each namespace may have; `None`: as many as there is room for.
    quotas: BTreeMap<Namespace, Option<u32>>,
    /// Breaks ties between agents: of the first task that is placed, so that each round has an order of its own.
    seed: Option<u64>,
    /// For whom agents are kept free.
    kept: BTreeMap<AgentId, Holder>,
    /// Those by hand that hold.
    rules: Arc<Rules<'a>>,
    machines: Machines<'a>,
    /// State time.
    now: Timestamp,
    /// Some task was passed over for a blob that the leader lacks.
    passed_lacking: bool,
    /// The sorts of work for which it is looked at how long they take.
    works: Vec<Work>,
}

impl<'a> Planner<'a> {
    /// At a state time.
    pub fn new(state: &'a State, fleet: &'a Fleet, now: Timestamp) -> Planner<'a> {
        let rules = Arc::new(Rules::of(state, now));
        let machines = Machines::of(state, fleet);
        let kept = kept(state, fleet, (&rules, &machines), now);
        let mut rotations = Arc::clone(&fleet.rotations);
        if !rotations.restraint.is_about(machines.hot()) {
            Arc::make_mut(&mut rotations).restraint.note(machines.hot());
        }
        let mut planner = Planner {
            state,
            fleet,
            candidates: Vec::new(),
            open: 0,
            refused: BTreeMap::new(),
            rankings: Rankings::default(),
            rotations,
            quotas: BTreeMap::new(),
            seed: None,
            kept,
            rules,
            machines,
            now,
            passed_lacking: false,
            works: Vec::new(),
        };
        let unknown = AgentView::default();
        for agent in state.agents() {
            let view = fleet.agents.get(&agent.profile.id).unwrap_or(&unknown);
            let room = filter::room(state, agent, view);
            match filter::accepts_work(agent, view, room) {
                Ok(()) => {
                    let known = (state, view);
                    let rules = &planner.rules;
                    let seen = (&planner.machines, &*planner.rotations, now);
                    let mut candidate = Candidate::new((agent, room), known, seen, rules);
                    candidate.kept_for = planner.kept.get(&agent.profile.id).copied();
                    planner.candidates.push(candidate);
                }
                Err(reason) => *planner.refused.entry(reason).or_insert(0) += 1,
            }
        }
        planner.open = planner.candidates.len();
        planner
    }

    /// Whether any agent could take anything.
    pub fn has_room(&self) -> bool {
        self.open > 0
    }

    /// Assigns queued tasks in their order.
    pub fn round(&mut self, round: Round<'_>) -> Plan {
        let mut plan = Plan {
            resume: round.after.cloned(),
            ..Plan::default()
        };
        if !self.has_room() {
            return plan;
        }
        self.count_begun(round.taken);
        let lines = self.lines(round, &mut plan);
        let mut turns = Turns::new(self.state, round.now, lines, round.taken);
        let mut not_understood = 0;
        while let Some(turn) = turns.next() {
            if !self.has_room() {
                break;
            }
            if plan.assignments.len() == round.max {
                plan.cut = true;
                break;
            }
            let became = match self.next(turn.task, round.taken) {
                Next::Assigned(assignment) => {
                    plan.assignments.push(assignment);
                    Became::Gone
                }
                Next::Passed => Became::Passed,
                Next::NotUnderstood if not_understood < NOT_UNDERSTOOD_MAX => {
                    not_understood += 1;
                    Became::Passed
                }
                // Those behind it come up when newer agents have taken some.
                Next::NotUnderstood => Became::Stuck,
                Next::Hopeless => Became::Stuck,
            };
            turns.go_on(turn, became);
        }
        plan
    }

    /// The lines that some agent with room fits.
    fn lines(&mut self, round: Round<'_>, plan: &mut Plan) -> Vec<(&'a Tenant, Line<'a>)> {
        let state = self.state;
        let mut queues = state.queues_behind(round.after);
        let mut lines = Vec::new();
        let mut last = None;
        // Queues of one requirement stand together.
        let mut rules = None;
        let mut seen: Option<&Requirement> = None;
        // Whether they fit any agent, of this requirement.
        let mut fitting: Vec<((RuleSet, bool), bool)> = Vec::new();
        let some_are_held_back = self.candidates.iter().any(|it| it.hold != Hold::Not);
        let mut requirements = 0;
        for (key, waiting) in queues.by_ref() {
            let QueueKey {
                requirement,
                kind,
                tenant,
            } = key;
            let sort = (&tenant.namespace, *kind);
            // Users of one namespace stand together.
            let concerning = match rules {
                Some((same, concerning)) if same == sort => concerning,
                Some(_) | None => self.rules.concerning(sort.0, sort.1),
            };
            rules = Some((sort, concerning));
            if seen != Some(requirement) {
                fitting.clear();
            }
            let is_overdue = some_are_held_back && order::is_overdue(state, waiting, round.now);
            let alike = (concerning, is_overdue);
            let known = fitting.iter().find(|(known, _)| *known == alike);
            let fits = match known {
                Some((_, fits)) => *fits,
                None => {
                    requirements += 1;
                    let need = requirement.need();
                    let rules = (&*self.rules, concerning);
                    let is_for_idle_ones = some_are_held_back
                        && self.machines.is_for_idle_ones(&Asked {
                            rules,
                            need,
                            // As few of them as there may be.
                            is_plain: false,
                        });
                    let fits = |it: &Candidate<'_>| {
                        let may = !is_for_idle_ones || it.hold.admits(is_overdue);
                        may && it.fits(state, need).and(it.obeys(concerning)).is_ok()
                    };
                    let fits = self.candidates.iter().any(fits);
                    fitting.push((alike, fits));
                    fits
                }
            };
            if requirements > REQUIREMENTS_MAX || lines.len() == LINES_MAX {
                plan.cut = true;
                break;
            }
            last = Some(key);
            seen = Some(requirement);
            if fits && self.may_run(&tenant.namespace) {
                let line = order::line(state, (tenant, waiting), round.now, order::RIPE_MAX);
                lines.push((tenant, line));
            }
        }
        plan.resume = last.filter(|_| plan.cut).cloned();
        lines
    }

    fn may_run(&mut self, namespace: &Namespace) -> bool {
        self.quota(namespace).is_none_or(|left| left > 0)
    }

    /// How many more attempts a namespace may have.
    fn quota(&mut self, namespace: &Namespace) -> Option<u32> {
        match self.quotas.get(namespace) {
            Some(known) => *known,
            None => {
                let left = self.state.running_left(namespace);
                self.quotas.insert(namespace.clone(), left);
                left
            }
        }
    }

    /// One more is begun.
    fn count(&mut self, namespace: &Namespace) {
        if let Some(left) = self.quota(namespace) {
            let left = Some(left.saturating_sub(1));
            self.quotas.insert(namespace.clone(), left);
        }
    }

    fn count_begun(&mut self, begun: &BTreeSet<TaskId>) {
        for id in begun {
            if let Some(spec) = self.state.spec(*id) {
                self.count(&spec.namespace);
            }
        }
    }

    fn next(&mut self, id: TaskId, taken: &BTreeSet<TaskId>) -> Next {
        let state = self.state;
        let (Some(task), Some(spec)) = (state.task(id), state.spec(id)) else {
            return Next::Passed;
        };
        if taken.contains(&id) || self.lacks(&spec) {
            return Next::Passed;
        }
        let asker = Asker {
            user: &task.user,
            task: Some(id),
            seed: id.0,
            avoided: &task.lost_agents,
        };
        match self.place(&spec, asker) {
            Some(placement) => Next::Assigned(Assignment {
                task: id,
                placement,
            }),
            None if spec.blobs.is_empty()
                || self.is_hopeless(&spec, Claim::of(&self.kept, Some(id), &spec))
                || !self.may_run(&spec.namespace) =>
            {
                Next::Hopeless
            }
            // Agents that are too old for this one may be good enough for others with the same requirement.
            None => Next::NotUnderstood,
        }
    }

    /// The best agent for a task, whose room it then takes.
    pub fn place(&mut self, spec: &TaskSpec, asker: Asker<'_>) -> Option<Placement> {
        // Before anything is ranked: a rank has it in it.
        if self.seed.is_none() {
            self.seed = Some(asker.seed);
            for candidate in &mut self.candidates {
                candidate.tie = score::tie(asker.seed, &candidate.agent.profile.id);
            }
        }
        if !self.has_room() || self.lacks(spec) || !self.may_run(&spec.namespace) {
            return None;
        }
        let mut of = For::of(self.state, &self.rules, spec, asker.user);
        let waits = asker.task.filter(|_| !self.machines.hot().is_empty());
        let waits = waits.and_then(|id| self.state.task(id));
        of.is_overdue = waits.is_some_and(|task| health::is_overdue(task, self.now));
        if of.strategy() == Strategy::Adaptive {
            of.work = self.number_of_work(spec.work());
        }
        let trace = self.decided(spec, &of, asker)?;
        let number = self.number_of(&trace.winner.agent)?;
        let incarnation = self.candidates[number].agent.profile.incarnation;
        self.count_restraint(number, spec, &of, asker);
        self.take(number, spec, of.strategy());
        self.count(&spec.namespace);
        Some(Placement {
            agent: trace.winner.agent.clone(),
            incarnation,
            trace: trace.into(),
            estimate: None,
        })
    }

    fn lacks(&mut self, spec: &TaskSpec) -> bool {
        let lacks = self.fleet.lacked_by(spec).is_some();
        self.passed_lacking |= lacks;
        lacks
    }

    /// Whether it went by blobs that the leader lacks, of which the log knows nothing.
    pub fn passed_lacking(&self) -> bool {
        self.passed_lacking
    }

    /// Whose turn it is after all that was placed.
    pub fn into_rotations(self) -> Arc<Rotations> {
        self.rotations
    }

    /// Which agent is the best, and why.
    fn decided(&mut self, spec: &TaskSpec, of: &For<'_>, asker: Asker<'_>) -> Option<Trace> {
        let claim = Claim::of(&self.kept, asker.task, spec);
        let wants = (Lens::of(of, spec, claim), of.prefer);
        self.rank(&spec.require, wants);
        let ranking = self.rankings.get(&spec.require, wants)?;
        let shunned = asker.avoided.iter().filter_map(|it| self.number_of(it));
        let shunned: Vec<usize> = shunned
            .filter(|number| ranking.has(self.candidates[*number].rank(wants, *number)))
            .collect();
        let mut unfit = ranking.reasons().clone();
        let others = ranking.best().filter(|number| !shunned.contains(number));
        let mut best = self.first_of(others, of, asker.seed);
        match u32::try_from(shunned.len()) {
            _ if best.is_empty() => best = self.first_of(ranking.best(), of, asker.seed),
            Ok(0) | Err(_) => {}
            Ok(some) => drop(unfit.insert(Reason::LostBefore, some)),
        }
        let is_free = best
            .first()
            .map(|it| self.candidates[*it].has_free_slot())?;
        // Where one has a free slot, those without one are none that it was compared with.
        best.retain(|it| self.candidates[*it].has_free_slot() == is_free);
        let mut scored = best.into_iter().map(|number| {
            let candidate = &self.candidates[number];
            let agent = &candidate.agent.profile.id;
            let turn = self.rotations.until(of.strategy(), agent);
            candidate.measure(of, turn).scored(of.formula, agent)
        });
        // Those that get no work at all, then those that fit not this: no reason is in both.
        let refusals = self.refused.iter().chain(&unfit);
        let refusals = refusals.map(|(reason, agents)| (reason.clone(), *agents));
        let trace = Trace {
            policy_version: of.formula.version,
            winner: scored.next()?,
            runners_up: scored.collect(),
            refusals: refusals.collect(),
        };
        Some(trace.fitted())
    }

    /// The winner and the runners-up of those that fit, which are given in the order of their ranking.
    fn first_of(&self, ranked: impl Iterator<Item = usize>, of: &For<'_>, seed: u64) -> Vec<usize> {
        match of.strategy() {
            Strategy::IpHash | Strategy::Spread => {
                let ranks = ranked.map(|it| self.candidates[it].rank_for(of, it));
                let mut first = BTreeSet::new();
                for rank in ranks {
                    first.insert(rank);
                    if first.len() > PLACES {
                        first.pop_last();
                    }
                }
                first.into_iter().map(|rank| rank.number).collect()
            }
            Strategy::PowerOfTwo => {
                // The lower place in the ranking is the less loaded one. Those without a free slot stand behind, and so do
                // those that are preferred less.
                let all: Vec<usize> = ranked.collect();
                let standing = |it: &usize| {
                    let candidate = &self.candidates[*it];
                    (
                        candidate.has_free_slot(),
                        candidate.unmet(of.rules, of.prefer),
                    )
                };
                let first = all.first().map(standing);
                let equal = all.partition_point(|it| Some(standing(it)) == first);
                let all = &all[..equal];
                let (one, other) = score::two_of(all.len(), seed);
                let drawn = BTreeSet::from([one, other]);
                let drawn = drawn.into_iter().filter_map(|it| all.get(it));
                drawn.copied().collect()
            }
            _ => ranked.take(PLACES).collect(),
        }
    }

    /// Makes the ranking for tasks of this sort, where there is none.
    fn rank(&mut self, require: &[Expression], wants: Wants<'_>) {
        if self.rankings.get(require, wants).is_some() {
            return;
        }
        let lens = wants.0;
        let demand = lens.demand;
        let idle_slots = self.machines.idle_slots(&Asked {
            rules: (&self.rules, lens.rules),
            need: Need { require, demand },
            is_plain: lens.is_plain,
        });
        let mut ranking = Ranking::new(idle_slots);
        let open = self.candidates.iter().enumerate();
        for (number, candidate) in open.filter(|(_, candidate)| candidate.has_room()) {
            let fits = candidate.runs(self.state, require, lens);
            let is_hot = self.machines.is_hot(&candidate.agent.profile.id);
            if is_hot && idle_slots > 0 && fits.is_ok() {
                ranking.note_hot(number);
            }
            let fits = fits.and(ranking.admits(candidate, lens));
            ranking.add(candidate.rank(wants, number), fits);
        }
        self.rankings.put(require, wants, ranking);
    }

    /// Whether no agent with room takes tasks that need this, be they else as plain as can be.
    fn is_hopeless(&mut self, spec: &TaskSpec, claim: Claim) -> bool {
        let rules = self.rules.concerning(&spec.namespace, spec.kind());
        let plain: Wants<'_> = (Lens::plain(spec.demand(), claim, rules), &[]);
        self.rank(&spec.require, plain);
        let ranking = self.rankings.get(&spec.require, plain);
        ranking.is_none_or(Ranking::is_empty)
    }

    /// A hot machine that gets something, or one that could have had what an idle one gets.
    fn count_restraint(&mut self, winner: usize, spec: &TaskSpec, of: &For<'_>, asker: Asker<'_>) {
        if self.machines.hot().is_empty() {
            return;
        }
        let claim = Claim::of(&self.kept, asker.task, spec);
        let wants = (Lens::of(of, spec, claim), of.prefer);
        let ranking = self.rankings.get(&spec.require, wants);
        let Some((hot, slots)) = ranking.map(Ranking::hot).filter(|(_, slots)| *slots > 0) else {
            return;
        };
        let id = &self.candidates[winner].agent.profile.id;
        let restraint = &mut Arc::make_mut(&mut self.rotations).restraint;
        if self.machines.is_hot(id) {
            restraint.took(id, self.now);
        } else if self.machines.is_idle(id) {
            for number in hot {
                let hot = &self.candidates[*number].agent.profile.id;
                restraint.idle_took(hot, slots);
            }
        }
    }

    /// Of those that come up first: nobody looks at more in a round.
    fn number_of_work(&mut self, work: Work) -> Option<WorkNumber> {
        if let Some(known) = self.works.iter().position(|it| *it == work) {
            return Some(known);
        }
        if self.works.len() == ROUND_MAX {
            return None;
        }
        let usual = self.machines.usual_service(&work);
        for candidate in &mut self.candidates {
            candidate.note_work(&work, usual);
        }
        self.works.push(work);
        Some(self.works.len() - 1)
    }

    fn number_of(&self, agent: &AgentId) -> Option<usize> {
        let found = |candidate: &Candidate<'_>| candidate.agent.profile.id.cmp(agent);
        self.candidates.binary_search_by(found).ok()
    }

    /// One place at an agent, at its model, and of what else it has: every ranking is told.
    fn take(&mut self, number: usize, spec: &TaskSpec, strategy: Strategy) {
        let candidate = &mut self.candidates[number];
        let closes = candidate.room.taken.saturating_add(1) >= candidate.room.capacity;
        let left = self.rankings.leave(candidate, (number, closes));
        candidate.take(spec);
        if Rotations::are_of(strategy) {
            let profile = &candidate.agent.profile;
            let rotations = Arc::make_mut(&mut self.rotations);
            rotations.take(strategy, &profile.id, profile.slots);
            candidate.note_turns(rotations);
        }
        let profile = &candidate.agent.profile;
        let restraint = &self.rotations.restraint;
        candidate.hold = self.machines.hold(profile, restraint, self.now);
        if !closes {
            // It may have less of this or that; nothing it has more of within a round.
            self.rankings
                .come_back(self.state, candidate, (number, &left));
        } else {
            self.open -= 1;
            *self.refused.entry(Reason::NoFreeSlot).or_insert(0) += 1;
        }
    }
}

/// Who asks for a task.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'t> {
    pub user: &'t str,
    /// Where it waits already.
    pub task: Option<TaskId>,
    /// Breaks ties.
    pub seed: u64,
    /// Agents that were lost under it: taken only where there is no other.
    pub avoided: &'t [AgentId],
}

impl Asker<'_> {
    /// Who submits a task, which has no id yet.
    pub fn of_submit(principal: &Principal, seed: u64) -> Asker<'_> {
        Asker {
            user: &principal.name,
            task: None,
            seed,
            avoided: &[],
        }
    }
}

/// What became of the task at the head of a line.
enum Next {
    Assigned(Assignment),
    /// It is on its way already, or what it needs is on its way to the leader.
    Passed,
    /// Agents with room fit it, and are too old for it.
    NotUnderstood,
    /// No agent with room fits it, or its namespace may have no more: neither may those behind it in its line go.
    Hopeless,
}
