//! What people decide on an agent: no new work, nothing at all any more, work again, forgotten.
//!
//! To ask for what is so already is fine and changes nothing but the words, so a request whose outcome
//! was not known may be made again. A cordon is the administrator's: an agent that registers anew keeps
//! it, and nothing but another word of an administrator ends it.

use crate::agent::{Agent, AgentState, Cordon, Drain, DrainStage};
use crate::apply::{Outcome, Step};
use crate::command::{DrainAgent, Reply};
use crate::event::Event;
use crate::id::AgentId;
use crate::principal::Principal;
use crate::rejected::Rejected;
use crate::state::State;

impl State {
    /// One that is being drained goes on being drained.
    pub(super) fn cordon_agent(
        &mut self,
        principal: &Principal,
        id: &AgentId,
        reason: &str,
        step: &mut Step<'_>,
    ) -> Outcome {
        let drain = self.known_agent(id)?.drain().copied();
        self.put_cordon(id, cordon(principal, reason, drain, step))?;
        step.events.push(Event::AgentCordoned { agent: id.clone() });
        Ok(Reply::Done)
    }

    pub(super) fn uncordon_agent(&mut self, id: &AgentId, step: &mut Step<'_>) -> Outcome {
        let agent = self.known_agent(id)?;
        if agent.cordon.is_some() {
            let mut agent = agent.clone();
            agent.cordon = None;
            self.agents.put(id.clone(), agent);
            step.events
                .push(Event::AgentUncordoned { agent: id.clone() });
        }
        Ok(Reply::Done)
    }

    /// The last word on the deadline counts, whether it is earlier or later than the one before.
    pub(super) fn drain_agent(
        &mut self,
        principal: &Principal,
        asked: &DrainAgent,
        step: &mut Step<'_>,
    ) -> Outcome {
        let drain = Drain {
            until: step.now.plus(asked.deadline),
            until_wall: step.wall.plus(asked.deadline),
            stage: DrainStage::Waiting,
        };
        let cordon = cordon(principal, &asked.reason, Some(drain), step);
        self.put_cordon(&asked.agent, cordon)?;
        step.events.push(Event::AgentDraining {
            agent: asked.agent.clone(),
        });
        Ok(Reply::Done)
    }

    /// From now on its agent is to end what it holds. It stays with it until the agent says so, or is
    /// lost: a slot is not given away, nor a task elsewhere, while its process may still run.
    pub(super) fn expire_drain(&mut self, id: &AgentId, step: &mut Step<'_>) -> Outcome {
        let agent = self.known_agent(id)?;
        let stale = |why: &str| Err(Rejected::Stale(format!("agent {id} {why}")));
        let mut agent = agent.clone();
        let drain = agent.cordon.as_mut().and_then(|known| known.drain.as_mut());
        let Some(drain) = drain.filter(|drain| drain.stage == DrainStage::Waiting) else {
            return stale("has no drain that waits");
        };
        if drain.until > step.now {
            return stale("still has time");
        }
        drain.stage = DrainStage::Overdue;
        self.agents.put(id.clone(), agent);
        step.events.push(Event::DrainExpired { agent: id.clone() });
        Ok(Reply::Done)
    }

    /// One that works would register again at once, and nothing would be left of the cordon.
    pub(super) fn remove_agent(&mut self, id: &AgentId, step: &mut Step<'_>) -> Outcome {
        let agent = self.known_agent(id)?;
        let incarnation = agent.profile.incarnation;
        let in_use = |why: String| {
            let agent = id.clone();
            Err(Rejected::AgentInUse { agent, why })
        };
        let (ready, open) = (agent.state == AgentState::Ready, agent.cordon.is_none());
        match self.busy(id) {
            0 => {}
            1 => return in_use("still holds 1 attempt".into()),
            busy => return in_use(format!("still holds {busy} attempts")),
        }
        if ready && open {
            return in_use("is at work".into());
        }
        self.agents.remove(id);
        self.forget_backends(id);
        self.samples.remove(id);
        self.services.remove(id);
        // The name is free again, for a machine with another key.
        self.joining.release_agent(id);
        step.events.push(Event::AgentRemoved {
            agent: id.clone(),
            incarnation,
        });
        Ok(Reply::Done)
    }

    fn known_agent(&self, id: &AgentId) -> Result<&Agent, Rejected> {
        let known = self.agents.get(id);
        known.ok_or_else(|| Rejected::NoSuchAgent(id.clone()))
    }

    fn put_cordon(&mut self, id: &AgentId, cordon: Cordon) -> Result<(), Rejected> {
        let mut agent = self.known_agent(id)?.clone();
        agent.cordon = Some(match agent.cordon.take() {
            // It is closed since the first time, and for the reason that was given last.
            Some(known) if cordon.reason.is_empty() => Cordon {
                drain: cordon.drain,
                ..known
            },
            Some(known) => Cordon {
                since: known.since,
                ..cordon
            },
            None => cordon,
        });
        self.agents.put(id.clone(), agent);
        Ok(())
    }
}

fn cordon(principal: &Principal, reason: &str, drain: Option<Drain>, step: &Step<'_>) -> Cordon {
    Cordon {
        by: principal.name.clone(),
        reason: reason.to_owned(),
        since: step.wall,
        drain,
    }
}
