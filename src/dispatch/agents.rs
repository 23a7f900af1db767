//! Sessions and what is softly known of agents: leases, silence, how long their attempts take.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    AgentId, AgentProfile, Fence, Incarnation, Kind, Magnitude, Millis, Phase, Presence, Principal,
    Sample, Service, State, Twentieths, Work,
};
use mutant::Mutant;
use scheduler::Leases;

use crate::io::{Intake, Load, SessionId};
use crate::paces::Paces;

/// Without a word for so long an agent gets no new work. It speaks every 5 s.
const SUSPECT_AFTER: Millis = Millis(15_000);
/// Attempts shorter than this are worth sending ahead: an agent would idle a round trip between
/// two of them. One behind a longer attempt would only wait where another agent could run it.
pub(crate) const SHORT: Millis = Millis(1_000);

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    pub profile: AgentProfile,
    pub principal: Principal,
    /// Under this leader, it has said what it knows.
    reconciled: bool,
    /// A confirmed renewal that came before the registration was applied.
    early_renewal: Option<(u64, Millis)>,
    /// Of the session and not of its agent: one that was started again has another.
    intake: Intake,
}

impl Session {
    pub fn new(profile: AgentProfile, principal: Principal) -> Session {
        Session {
            profile,
            principal,
            reconciled: false,
            early_renewal: None,
            intake: Intake::Open,
        }
    }
}

/// An agent that has, or had, a session with this controller.
#[derive(Debug, Default)]
pub(crate) struct Agent {
    pub current: Option<SessionId>,
    heard: Millis,
    pub load: Load,
    /// When its live attempts were assigned, as far as this controller saw it.
    began: BTreeMap<Fence, Millis>,
    /// Attempts that it was asked for, should they not have begun, on its session.
    asked_back: BTreeSet<Fence>,
    /// Smoothed time from assignment to accepted end; unknown before the first.
    took: Option<Millis>,
    paces: Paces,
}

impl Agent {
    pub fn is_silent(&self, now: Millis) -> bool {
        now.0 >= self.heard.0.saturating_add(SUSPECT_AFTER.0)
    }

    /// How long work takes there: as was learned here, else by a leader before.
    pub fn service(&self, state: &State, id: &AgentId) -> Service {
        match self.paces.is_empty() {
            true => state.service(id),
            false => self.paces.shown(),
        }
    }

    /// One attempt ahead where attempts are short, as long as not all slots have one that is not.
    fn prefetch(&self, state: &State, now: Millis) -> u32 {
        if self.took.is_none_or(|took| took >= SHORT) {
            return 0;
        }
        let began = self.began.iter();
        let mut long = began.filter(|(_, at)| now.0 >= at.0.saturating_add(SHORT.0));
        let Some((fence, _)) = long.next() else {
            return 1;
        };
        let holder = state.task(fence.task).and_then(|task| task.live());
        let agent = holder.and_then(|live| state.agent(&live.agent));
        let slots = agent.map_or(0, |agent| agent.profile.slots as usize);
        u32::from(long.count() + 1 < slots)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Agents {
    agents: BTreeMap<AgentId, Agent>,
    sessions: BTreeMap<SessionId, Session>,
    leases: Leases,
}

impl Agents {
    pub fn iter(&self) -> impl Iterator<Item = (&AgentId, &Agent)> {
        self.agents.iter()
    }

    pub fn sessions(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    /// A session's agent is not what it said when it came: it has to be registered anew.
    pub fn set_backends(&mut self, id: SessionId, backends: Vec<model::Backend>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.profile.backends = backends;
        }
    }

    /// The leases of what the log still knows; those of replaced incarnations are dropped.
    pub fn leases(&mut self, state: &State) -> &Leases {
        self.leases.forget_unwatched(state);
        &self.leases
    }

    /// Whether an assignment could reach this agent and count: by a session that has said what it
    /// knows, of the very incarnation and profile in the log, under a lease that has not run out.
    pub fn takes_assignments(&self, state: &State, agent: &Agent, now: Millis) -> bool {
        let session = agent.current.and_then(|id| self.sessions.get(&id));
        session.is_some_and(|session| {
            let profile = &session.profile;
            session.reconciled
                && state.knows_as(profile)
                && !self.leases.expired(&profile.id, profile.incarnation, now)
        })
    }

    /// Whether it said on its session that it takes nothing.
    pub fn declines(&self, agent: &Agent) -> bool {
        let session = agent.current.and_then(|id| self.sessions.get(&id));
        session.is_some_and(|session| session.intake == Intake::Closed)
    }

    /// The newest session of an agent counts; the older one, if any, is to be closed.
    pub fn open(&mut self, id: SessionId, session: Session, now: Millis) -> Option<SessionId> {
        let agent = self.agents.entry(session.profile.id.clone()).or_default();
        let older = agent.current.replace(id);
        agent.heard = now;
        agent.asked_back.clear();
        self.sessions.insert(id, session);
        if let Some(older) = older {
            self.sessions.remove(&older);
        }
        older
    }

    pub fn close(&mut self, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else {
            return;
        };
        if let Some(agent) = self.agents.get_mut(&session.profile.id)
            && agent.current == Some(id)
        {
            agent.current = None;
        }
    }

    /// What decisions go by, of all that is known of it here.
    pub fn sample(&self, state: &State, agent: &Agent, now: Millis) -> Sample {
        let presence = if agent.current.is_some() && agent.is_silent(now) {
            // Its lease is over by then, too; but the session is there, and that it is silent says more.
            Presence::Suspect
        } else if !self.takes_assignments(state, agent, now) {
            Presence::NotConnected
        } else if self.declines(agent) {
            Presence::Declining
        } else {
            Presence::Open
        };
        let Load {
            cpu,
            others,
            memory,
            latency_us,
        } = agent.load;
        Sample {
            presence,
            prefetch: agent.prefetch(state, now),
            load: model::Load {
                cpu: Twentieths::of(cpu),
                others: Twentieths::of(others),
                memory: Twentieths::of(memory),
                latency: Magnitude::of(latency_us.into()),
            },
        }
    }

    /// How long a task took that has succeeded there, by the agent's own clock.
    pub fn learn(&mut self, state: &State, id: &AgentId, fence: Fence) {
        let (Some(task), Some(agent)) = (state.task(fence.task), self.agents.get_mut(id)) else {
            return;
        };
        let is_this_one = task.settled == Some(fence.epoch);
        let (Phase::Succeeded, true, Some(started), Some(finished)) =
            (&task.phase, is_this_one, task.started_at, task.finished_at)
        else {
            return;
        };
        // Every controller does this for every task: a spec is looked up only where the kind does not say it all.
        let work = match task.kind {
            Kind::Inference => state.spec(task.id).map(|spec| spec.work()),
            kind @ Kind::Process => Some(Work::Kind(kind)),
        };
        if agent.paces.is_empty() {
            agent.paces.begin_with(&state.service(id));
        }
        if let Some(work) = work {
            agent.paces.learn(work, finished.since(started));
        }
    }

    pub fn heard(&mut self, id: SessionId, (load, intake): (Load, Intake), now: Millis) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        session.intake = intake;
        if let Some(agent) = self.agents.get_mut(&session.profile.id) {
            agent.heard = now;
            agent.load = agent.load.followed_by(load);
        }
    }

    pub fn reconcile(&mut self, id: SessionId) -> Option<&Session> {
        let session = self.sessions.get_mut(&id)?;
        session.reconciled = true;
        Some(session)
    }

    pub fn is_reconciled(&self, id: SessionId) -> bool {
        self.sessions
            .get(&id)
            .is_some_and(|session| session.reconciled)
    }

    pub fn forget_reconciliations(&mut self) {
        for session in self.sessions.values_mut() {
            session.reconciled = false;
            session.early_renewal = None;
        }
    }

    /// A new leader: whatever was renewed with another counts for nothing, and nobody has been
    /// silent to it yet.
    pub fn restart_leases(&mut self, now: Millis) {
        if !mutant::is(Mutant::LeasesNotRestarted) {
            self.leases = Leases::since(now);
        }
        self.forget_reconciliations();
        for agent in self.agents.values_mut() {
            agent.heard = now;
        }
    }

    /// Whether the lease of this session's incarnation has run out.
    pub fn lease_is_over(&self, id: SessionId, now: Millis) -> bool {
        let profile = self.sessions.get(&id).map(|session| &session.profile);
        profile.is_some_and(|profile| self.leases.expired(&profile.id, profile.incarnation, now))
    }

    pub fn renewed(&mut self, id: SessionId, received: Millis) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let profile = &session.profile;
        self.leases
            .renew(&profile.id, profile.incarnation, received);
        if let Some(agent) = self.agents.get_mut(&session.profile.id) {
            agent.heard = agent.heard.max(received);
        }
    }

    /// Its registration is on the way: the renewal is answered then.
    pub fn keep_renewal(&mut self, id: SessionId, renewal: (u64, Millis)) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.early_renewal = Some(renewal);
        }
    }

    pub fn take_renewal(&mut self, id: SessionId) -> Option<(u64, Millis)> {
        self.sessions.get_mut(&id)?.early_renewal.take()
    }

    /// A registration starts a lease: the agent can't have renewed one that it did not have.
    pub fn start_lease(&mut self, agent: &AgentId, incarnation: Incarnation, now: Millis) {
        self.leases.renew(agent, incarnation, now);
    }

    /// The lease ended in the log.
    pub fn end_lease(&mut self, agent: &AgentId, incarnation: Incarnation) {
        self.leases.end(agent, incarnation);
    }

    /// The log knows it no more. One that has a session is about to register again.
    pub fn forget(&mut self, agent: &AgentId, incarnation: Incarnation) {
        self.leases.end(agent, incarnation);
        if self.current(agent).is_none() {
            self.agents.remove(agent);
        }
    }

    pub fn current(&self, agent: &AgentId) -> Option<SessionId> {
        self.agents.get(agent)?.current
    }

    pub fn session_of(&self, agent: &AgentId, incarnation: Incarnation) -> Option<SessionId> {
        let id = self.current(agent)?;
        (self.sessions.get(&id)?.profile.incarnation == incarnation).then_some(id)
    }

    /// The session on which an assignment may be sent.
    pub fn ready_session(&self, agent: &AgentId, incarnation: Incarnation) -> Option<SessionId> {
        self.session_of(agent, incarnation)
            .filter(|id| self.is_reconciled(*id))
    }

    pub fn began(&mut self, agent: &AgentId, fence: Fence, now: Millis) {
        if let Some(agent) = self.agents.get_mut(agent) {
            agent.began.insert(fence, now);
        }
    }

    /// Whether it has not been asked for this attempt on its session yet; now it has.
    pub fn asks_back(&mut self, agent: &AgentId, fence: Fence) -> bool {
        let agent = self.agents.get_mut(agent);
        agent.is_some_and(|agent| agent.asked_back.insert(fence))
    }

    /// Keeps an average in which the latest attempt counts an eighth.
    pub fn ended(&mut self, agent: &AgentId, fence: Fence, now: Millis) {
        let Some(agent) = self.agents.get_mut(agent) else {
            return;
        };
        agent.asked_back.remove(&fence);
        let Some(began) = agent.began.remove(&fence) else {
            return;
        };
        let took = now.0.saturating_sub(began.0);
        let smoothed = agent.took.map_or(took, |known| (known.0 * 7 + took) / 8);
        agent.took = Some(Millis(smoothed));
    }

    /// Attempts that this controller does not know to be live any more.
    pub fn retain_began(&mut self, live: &BTreeSet<Fence>) {
        for agent in self.agents.values_mut() {
            agent.began.retain(|fence, _| live.contains(fence));
            agent.asked_back.retain(|fence| live.contains(fence));
        }
    }
}
