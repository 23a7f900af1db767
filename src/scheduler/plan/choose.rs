//! Which agent is the best for a task whose turn it is, and why; it then has one place less.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{
    AgentId, Expression, Need, Placement, Principal, Reason, Strategy, TaskId, TaskSpec, Trace,
    Work,
};

use crate::candidate::{Candidate, Claim, For, Lens, Wants, WorkNumber};
use crate::health::{self, Asked};
use crate::plan::{Planner, ROUND_MAX};
use crate::ranking::Ranking;
use crate::rotation::Rotations;
use crate::score;

/// The winner and the runners-up that a trace names; the rest are not told apart.
pub(super) const PLACES: usize = 3;

impl Planner<'_> {
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
        if of.strategy == Strategy::Adaptive {
            of.work = self.number_of_work(spec.work());
        }
        let trace = self.decided(spec, &of, asker)?;
        let agent = trace.winner.agent.clone();
        let number = self.number_of(&agent)?;
        let incarnation = self.candidates[number].agent.profile.incarnation;
        self.count_restraint(number, spec, &of, asker);
        self.take(number, spec, of.strategy);
        self.count(&spec.namespace);
        Some(Placement {
            agent,
            incarnation,
            trace: trace.recorded(self.state.state_version()).into(),
            estimate: None,
        })
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
            let turn = self.rotations.until(of.strategy, agent);
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
        Some(trace)
    }

    /// The winner and the runners-up of those that fit, which are given in the order of their ranking.
    fn first_of(&self, ranked: impl Iterator<Item = usize>, of: &For<'_>, seed: u64) -> Vec<usize> {
        match of.strategy {
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
    pub(super) fn is_hopeless(&mut self, spec: &TaskSpec, claim: Claim) -> bool {
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

    pub(super) fn number_of(&self, agent: &AgentId) -> Option<usize> {
        let found = |candidate: &Candidate<'_>| candidate.agent.profile.id.cmp(agent);
        self.candidates.binary_search_by(found).ok()
    }

    /// One place at an agent, at its model, and of what else it has: every ranking is told.
    pub(super) fn take(&mut self, number: usize, spec: &TaskSpec, strategy: Strategy) {
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
