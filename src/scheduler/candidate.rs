//! An agent with room in a round, as the strategies see it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use model::{
    Agent, AgentId, Asking, Attempt, Class, Demand, Expression, Kind, Magnitude, Mix, Need, Reason,
    Service, Sort, State, Strategy, Taken, TaskId, TaskSpec, Timestamp, Work,
};

use crate::filter::{self, Room};
use crate::fleet::AgentView;
use crate::health::{self, Health, Hold, Machines};
use crate::kept::Holder;
use crate::rotation::{Rotations, Turn};
use crate::rules::{RuleSet, Rules};
use crate::score::{self, Formula, Measure};

/// What tasks of one requirement have to have in common to share a ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lens {
    /// By what the agents are ranked.
    pub order: Strategy,
    /// Whether every agent understands them.
    pub is_plain: bool,
    /// What they take beyond a slot.
    pub demand: Demand,
    /// Which agents that are kept free they may have all the same.
    pub claim: Claim,
    /// The rules by hand that concern them.
    pub rules: RuleSet,
    /// What they are, where it counts how long they take.
    pub work: Option<WorkNumber>,
    /// They have waited for so long that they may go to a hot machine; not told apart where there is none.
    pub is_overdue: bool,
}

/// Of the sorts of work of a round.
pub type WorkNumber = usize;

/// Who may go to an agent that is kept free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Where none is kept.
    Nobody,
    /// Who is of a higher class than the one that it is kept for.
    Class(Class),
    /// It is kept for this task.
    Holder(TaskId),
}

impl Claim {
    /// What a task has a claim to, where some are kept.
    pub fn of(kept: &BTreeMap<AgentId, Holder>, task: Option<TaskId>, spec: &TaskSpec) -> Claim {
        let is_own = |(_, holder): &&Holder| Some(*holder) == task;
        match kept.values().find(is_own) {
            _ if kept.is_empty() => Claim::Nobody,
            Some((_, task)) => Claim::Holder(*task),
            None => Claim::Class(spec.class()),
        }
    }
}

/// What tasks have in common that share a ranking, with what they prefer.
pub type Wants<'t> = (Lens, &'t [Expression]);

impl Lens {
    /// Where the best agent depends on more than the agents, the ranking only says which of them fit: there may be as many
    /// clients, or namespaces, as tasks.
    pub fn of(of: &For<'_>, spec: &TaskSpec, claim: Claim) -> Lens {
        let order = match of.strategy {
            Strategy::IpHash | Strategy::Spread => Strategy::Adaptive,
            others => others,
        };
        Lens {
            order,
            is_plain: spec.blobs.is_empty(),
            demand: spec.demand(),
            claim,
            rules: of.rules,
            work: of.work,
            is_overdue: of.is_overdue,
        }
    }

    /// Of tasks that take as much, may go as far, and are else as plain as can be.
    pub fn plain(demand: Demand, claim: Claim, rules: RuleSet) -> Lens {
        Lens {
            order: Strategy::Adaptive,
            is_plain: true,
            demand,
            claim,
            rules,
            work: None,
            is_overdue: true,
        }
    }
}

/// For whom an agent is chosen, as strategies see it.
#[derive(Debug)]
pub struct For<'t> {
    pub formula: &'static Formula,
    pub strategy: Strategy,
    /// The rules by hand that concern the task.
    pub rules: RuleSet,
    /// What the task itself prefers of agents.
    pub prefer: &'t [Expression],
    /// What it is, where the strategy goes by how long it takes.
    pub work: Option<WorkNumber>,
    /// See [`Lens::is_overdue`].
    pub is_overdue: bool,
    /// Those of the task's namespace, and its client, each where the strategy goes by it.
    sorts: Vec<Sort>,
    client: Option<u64>,
}

impl<'t> For<'t> {
    pub fn of(state: &State, rules: &Rules<'_>, spec: &'t TaskSpec, user: &str) -> For<'t> {
        let strategy = state.strategy_for(spec);
        let concerning = rules.concerning(&spec.namespace, spec.kind());
        let prefers = !spec.prefer.is_empty() || rules.have_preference(concerning);
        let client = || {
            let session = spec.labels.get(model::SESSION_LABEL);
            let client = session.map_or(user, String::as_str);
            score::client(spec.namespace.as_str(), client)
        };
        For {
            formula: score::formula(strategy, prefers),
            strategy,
            prefer: &spec.prefer,
            rules: concerning,
            work: None,
            is_overdue: false,
            sorts: match strategy {
                Strategy::Spread => Kind::ALL.map(|kind| (spec.namespace.clone(), kind)).into(),
                _ => Vec::new(),
            },
            client: (strategy == Strategy::IpHash).then(client),
        }
    }
}

/// An agent with room.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    pub agent: &'a Agent,
    pub room: Room,
    /// What its attempts ask its models.
    pub asking: Asking,
    /// What they take of it beyond slots.
    pub taken: Taken,
    /// It takes nothing else, but what is of a higher class.
    pub kept_for: Option<Holder>,
    /// Its machine is busy with other things.
    pub hold: Hold,
    health: Health,
    /// How long work takes there.
    service: Service,
    /// The same of each sort of work of the round, in thousandths of what it usually does.
    paces: Vec<i64>,
    /// The rules by hand that hold, and those of them that name it.
    rules: Arc<Rules<'a>>,
    naming: RuleSet,
    /// Breaks ties; not before there is a seed.
    pub tie: u64,
    /// Stands for its name.
    name: u64,
    /// What it holds by the log, and what it was given since, in this round and before, by sort.
    held: Cow<'a, Mix>,
    given: Mix,
    /// Its turns, one after the other and by slots, as they were when the round began or when it last took one.
    turns: [Turn; 2],
}

/// Its place among the candidates: what stands above decides before what stands below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    is_full: bool,
    /// Preferences that it does not meet.
    unmet: u32,
    score: i64,
    tie: u64,
    /// Of the agent among the candidates.
    pub number: usize,
}

impl<'a> Candidate<'a> {
    pub fn new(
        (agent, room): (&'a Agent, Room),
        (state, view): (&'a State, &AgentView),
        (machines, rotations, now): (&Machines<'_>, &Rotations, Timestamp),
        rules: &Arc<Rules<'a>>,
    ) -> Candidate<'a> {
        let id = &agent.profile.id;
        let naming = rules.naming(&agent.profile);
        Candidate {
            agent,
            room,
            asking: filter::asking(state, agent, view),
            taken: filter::taken(state, agent, view),
            kept_for: None,
            hold: machines.hold(&agent.profile, &rotations.restraint, now),
            health: machines.health_under(view.sample.load),
            service: Arc::clone(&view.service),
            paces: Vec::new(),
            rules: Arc::clone(rules),
            naming,
            tie: 0,
            name: score::name(id),
            held: state.mix(id).map_or_else(Cow::default, Cow::Borrowed),
            given: view.reserved.mix.clone(),
            turns: rotations.turns(id),
        }
    }

    pub fn has_room(&self) -> bool {
        self.room.taken < self.room.capacity
    }

    /// Whether one more would only be sent ahead.
    pub fn has_free_slot(&self) -> bool {
        self.room.taken < self.room.slots
    }

    /// What tasks that require this have in common is there, and that it is not kept from them.
    pub fn runs(&self, state: &State, require: &[Expression], lens: Lens) -> Result<(), Reason> {
        let demand = lens.demand;
        self.fits(state, Need { require, demand })?;
        if !lens.is_plain {
            self.agent.profile.understands_blobs()?;
        }
        self.obeys(lens.rules)?;
        self.is_open_to(lens.claim)
    }

    /// Whether rules by hand let it have a task that these concern.
    pub fn obeys(&self, rules: RuleSet) -> Result<(), Reason> {
        let mixes = [Some(&*self.held), Some(&self.given)];
        self.rules.obeyed(rules, self.naming, mixes)
    }

    pub fn is_open_to(&self, claim: Claim) -> Result<(), Reason> {
        match (self.kept_for, claim) {
            (None, _) => Ok(()),
            (Some((of, _)), Claim::Class(class)) if class < of => Ok(()),
            (Some((_, task)), Claim::Holder(holder)) if task == holder => Ok(()),
            (Some(_), Claim::Class(_) | Claim::Holder(_) | Claim::Nobody) => Err(Reason::Kept),
        }
    }

    pub fn fits(&self, state: &State, need: Need<'_>) -> Result<(), Reason> {
        filter::fits(self.agent, need.require)?;
        filter::asks_room(state, self.agent, &self.asking, need.require)?;
        let supply = self.agent.profile.supply.as_ref();
        model::room(supply, Some(&self.taken), &need.demand).map(drop)
    }

    /// Its place among the others in a ranking. A free slot comes before everything: what is sent ahead waits where
    /// another agent could run it. Then preferences.
    pub fn rank(&self, (lens, prefer): Wants<'_>, number: usize) -> Rank {
        let exact = |(turn, last): Turn| (i64::try_from(turn).unwrap_or(i64::MAX), last);
        let (score, tie) = match lens.order {
            // Those whose turns come at the same time take them in the same order each time.
            Strategy::RoundRobin => exact(self.turns[0]),
            Strategy::WeightedRoundRobin => exact(self.turns[1]),
            of_agents => {
                let formula = score::formula(of_agents, false);
                (self.of_agent(lens.work).weighted(formula), self.tie)
            }
        };
        Rank {
            is_full: !self.has_free_slot(),
            unmet: self.unmet(lens.rules, prefer),
            score,
            tie,
            number,
        }
    }

    /// Of what is preferred: by rules, and by the task itself.
    pub fn unmet(&self, rules: RuleSet, prefer: &[Expression]) -> u32 {
        let own = prefer.iter().filter(|it| !it.matches(&self.agent.profile));
        let by_rules = self.rules.unmet(rules, self.naming);
        by_rules.saturating_add(u32::try_from(own.count()).unwrap_or(u32::MAX))
    }

    /// The same of one task alone, for strategies whose rankings say no more than who fits.
    pub fn rank_for(&self, of: &For<'_>, number: usize) -> Rank {
        let measure = self.measure(of, 0);
        let score = match of.strategy {
            // Exact, where the score is rounded.
            Strategy::IpHash => i64::try_from(measure.distance >> 1).unwrap_or(i64::MAX),
            _ => measure.weighted(of.formula),
        };
        Rank {
            is_full: !self.has_free_slot(),
            unmet: measure.unmet,
            score,
            tie: self.tie,
            number,
        }
    }

    /// Attempts of some sorts that it holds.
    fn own(&self, sorts: &[Sort]) -> u32 {
        let mixes = [Some(&*self.held), Some(&self.given)];
        let counts = mixes.into_iter().flatten();
        let counts = counts.flat_map(|mix| sorts.iter().map(|sort| mix.count(sort)));
        counts.sum()
    }

    fn of_agent(&self, work: Option<WorkNumber>) -> Measure {
        let service = work.and_then(|it| self.paces.get(it));
        Measure {
            room: self.room,
            health: self.health,
            service: service.map_or(health::USUAL, |it| *it),
            unmet: 0,
            turn: 0,
            own: 0,
            distance: 0,
        }
    }

    /// All that the strategy's formula looks at.
    pub fn measure(&self, of: &For<'_>, turn: i64) -> Measure {
        Measure {
            unmet: self.unmet(of.rules, of.prefer),
            turn,
            own: self.own(&of.sorts),
            distance: of.client.map_or(0, |it| score::distance(it, self.name)),
            ..self.of_agent(of.work)
        }
    }

    /// One more attempt, of this task.
    pub fn take(&mut self, spec: &TaskSpec) {
        self.count(spec);
        let (supply, demand) = (self.agent.profile.supply.as_ref(), spec.demand());
        if let Ok(gpus) = model::room(supply, Some(&self.taken), &demand) {
            self.taken.add(&demand, &gpus);
        }
        self.given.add(spec.sort());
    }

    fn count(&mut self, spec: &TaskSpec) {
        self.room.taken = self.room.taken.saturating_add(1);
        if let Some(asked) = &spec.inference {
            *self.asking.entry(asked.model.clone()).or_insert(0) += 1;
        }
    }

    /// The same again, of one that it had.
    pub fn keep(&mut self, spec: &TaskSpec, attempt: &Attempt) {
        self.count(spec);
        self.taken.add(&spec.demand(), &attempt.gpus);
        self.held.to_mut().add(spec.sort());
    }

    /// Nothing but these attempts, in slots, processors, memory and GPUs.
    pub fn holds_just<'t>(&mut self, held: impl Iterator<Item = (&'t TaskSpec, &'t Attempt)>) {
        self.taken = Taken::default();
        self.room.taken = 0;
        for (spec, attempt) in held {
            self.room.taken = self.room.taken.saturating_add(1);
            self.taken.add(&spec.demand(), &attempt.gpus);
        }
    }

    /// One attempt less, of this task.
    pub fn give_back(&mut self, spec: &TaskSpec, attempt: &Attempt) {
        self.room.taken = self.room.taken.saturating_sub(1);
        let model = spec.inference.as_ref().map(|asked| &asked.model);
        if let Some(asking) = model.and_then(|it| self.asking.get_mut(it)) {
            *asking = asking.saturating_sub(1);
        }
        let demand = spec.demand();
        if !demand.is_nothing() {
            self.taken.remove(&demand, &attempt.gpus);
        }
        self.held.to_mut().remove(&spec.sort());
    }

    /// The next sort of work of the round.
    pub fn note_work(&mut self, work: &Work, usual: Option<Magnitude>) {
        let own = self.service.get(work);
        self.paces.push(health::pace(own, usual));
    }

    pub fn note_turns(&mut self, rotations: &Rotations) {
        self.turns = rotations.turns(&self.agent.profile.id);
    }
}
