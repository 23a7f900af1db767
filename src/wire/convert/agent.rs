//! Agents: what they say of themselves in `Hello`, and what administrators say of them.

use std::collections::BTreeMap;

use model::{AgentId, AgentProtocol, DrainStage, Incarnation, Millis};

use super::{Malformed, labels_in, labels_out};
use crate::v1;

impl TryFrom<&v1::Hello> for model::AgentProfile {
    type Error = Malformed;

    fn try_from(hello: &v1::Hello) -> Result<model::AgentProfile, Malformed> {
        let incarnation = <[u8; 16]>::try_from(&hello.incarnation[..])
            .map_err(|_| Malformed("an incarnation has 16 bytes".into()))?;
        Ok(model::AgentProfile {
            id: AgentId::new(&hello.agent)?,
            incarnation: Incarnation(incarnation),
            slots: hello.slots,
            labels: labels_in(hello.labels.clone())?,
            version: hello.version.clone(),
            limits: hello.limits.clone(),
            backends: backends_in(hello.backends.clone()),
            protocol: AgentProtocol(hello.protocol).max(AgentProtocol::FIRST),
            supply: hello.supply.as_ref().map(model::Supply::from),
        })
    }
}

impl v1::DeviceStatus {
    /// Thousandths of the processors that neither the agent nor its attempts use. An older release does not say: none.
    pub fn cpu_of_others(&self) -> u32 {
        let own = self.own_cpu_load.unwrap_or(self.cpu_load);
        self.cpu_load.saturating_sub(own)
    }
}

impl TryFrom<v1::AgentOrder> for model::Command {
    type Error = Malformed;

    fn try_from(order: v1::AgentOrder) -> Result<model::Command, Malformed> {
        use v1::agent_order::Order;
        let agent = AgentId::new(&order.id)?;
        let order = order.order.ok_or_else(|| Malformed::missing("the order"))?;
        Ok(match order {
            Order::Cordon(v1::CordonAgent { reason }) => {
                model::Command::CordonAgent { agent, reason }
            }
            Order::Uncordon(v1::UncordonAgent {}) => model::Command::UncordonAgent { agent },
            Order::Drain(drain) => model::Command::DrainAgent(model::DrainAgent {
                agent,
                reason: drain.reason,
                deadline: Millis(drain.deadline_ms),
            }),
            Order::Remove(v1::RemoveAgent {}) => model::Command::RemoveAgent { agent },
            Order::SetBackend(set) => model::Command::SetBackend(model::SetBackend {
                agent,
                name: set.name,
                weight: set.weight,
                limit: set.limit,
                max_fails: set.max_fails,
                fail_timeout: set.fail_timeout_ms.map(Millis),
            }),
        })
    }
}

impl From<&model::Cordon> for v1::Cordon {
    fn from(cordon: &model::Cordon) -> v1::Cordon {
        v1::Cordon {
            by: cordon.by.clone(),
            reason: cordon.reason.clone(),
            since: cordon.since.0,
            drain: cordon.drain.map(|drain| v1::Drain {
                deadline: drain.until_wall.0,
                overdue: match drain.stage {
                    DrainStage::Waiting => false,
                    DrainStage::Overdue => true,
                },
            }),
        }
    }
}

/// The first frame of an agent's session. `cluster_id` is empty before it ever was in one.
pub fn hello(
    profile: &model::AgentProfile,
    cluster_id: String,
    generation: model::Generation,
) -> v1::Hello {
    v1::Hello {
        agent: profile.id.to_string(),
        incarnation: profile.incarnation.0.to_vec().into(),
        slots: profile.slots,
        labels: labels_out(&profile.labels),
        version: profile.version.clone(),
        limits: profile.limits.clone(),
        cluster_id,
        generation: generation.0,
        backends: backends_out(&profile.backends),
        protocol: profile.protocol.0,
        supply: profile.supply.as_ref().map(v1::Supply::from),
    }
}

impl From<&model::Supply> for v1::Supply {
    fn from(supply: &model::Supply) -> v1::Supply {
        v1::Supply {
            cpu_milli: supply.cpu_milli,
            memory_mib: supply.memory_mib,
            gpu_vram_mib: supply.gpus.clone(),
        }
    }
}

impl From<&v1::Supply> for model::Supply {
    fn from(supply: &v1::Supply) -> model::Supply {
        model::Supply {
            cpu_milli: supply.cpu_milli,
            memory_mib: supply.memory_mib,
            gpus: supply.gpu_vram_mib.clone(),
        }
    }
}

impl From<&model::Taken> for v1::Taken {
    fn from(taken: &model::Taken) -> v1::Taken {
        v1::Taken {
            cpu_milli: taken.cpu_milli,
            memory_mib: taken.memory_mib,
            gpus: u32::try_from(taken.gpus()).unwrap_or(u32::MAX),
        }
    }
}

/// An agent's back ends.
pub fn backends_out(backends: &[model::Backend]) -> Vec<v1::Backend> {
    let out = |backend: &model::Backend| v1::Backend {
        name: backend.name.clone(),
        url: backend.url.clone(),
        models: backend.models.clone(),
        trouble: backend.trouble.clone(),
        settings: None,
    };
    backends.iter().map(out).collect()
}

/// What was set for an agent's back ends, for the agent.
pub fn backends_set_out(all: &BTreeMap<String, model::BackendSettings>) -> v1::BackendsSet {
    let out = |(name, settings): (&String, &model::BackendSettings)| v1::BackendSet {
        name: name.clone(),
        settings: Some((*settings).into()),
    };
    let backends = all.iter().map(out).collect();
    v1::BackendsSet { backends }
}

/// The same, as the agent reads it.
pub fn backends_set_in(told: v1::BackendsSet) -> BTreeMap<String, model::BackendSettings> {
    let all = told.backends.into_iter();
    all.map(|one| {
        let settings = one.settings.map(Into::into);
        (one.name, settings.unwrap_or_default())
    })
    .collect()
}

impl From<model::BackendSettings> for v1::BackendSettings {
    fn from(settings: model::BackendSettings) -> v1::BackendSettings {
        v1::BackendSettings {
            weight: settings.weight,
            limit: settings.limit,
            max_fails: settings.max_fails,
            fail_timeout_ms: settings.fail_timeout.0,
        }
    }
}

impl From<v1::BackendSettings> for model::BackendSettings {
    fn from(settings: v1::BackendSettings) -> model::BackendSettings {
        model::BackendSettings {
            weight: settings.weight,
            limit: settings.limit,
            max_fails: settings.max_fails,
            fail_timeout: Millis(settings.fail_timeout_ms),
        }
    }
}

/// What an agent says of them; whether it may is `model`'s to say.
pub fn backends_in(backends: Vec<v1::Backend>) -> Vec<model::Backend> {
    let read = |backend: v1::Backend| model::Backend {
        name: backend.name,
        url: backend.url,
        models: backend.models,
        trouble: backend.trouble,
    };
    backends.into_iter().map(read).collect()
}
