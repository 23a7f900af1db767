//! An event as people see it: a type, and what it is about.

use model::{Event, Timestamp};

use super::policy::scope_out;
use super::task::state;
use crate::v1;

/// The `n`-th event of the entry at `index`, by the wall clock of the leader that wrote it.
pub fn event(event: &Event, (index, n): (u64, u32), wall: Timestamp) -> v1::Event {
    let mut shown = v1::Event {
        index,
        n,
        time: wall.0,
        r#type: name(event).to_owned(),
        ..v1::Event::default()
    };
    match event {
        Event::TaskQueued { task } | Event::TaskRequeued { task } => shown.task = Some(task.0),
        Event::TaskAssigned { fence, agent, .. } | Event::AttemptEnded { fence, agent } => {
            shown.task = Some(fence.task.0);
            shown.epoch = Some(fence.epoch.0);
            shown.agent = agent.to_string();
        }
        Event::CancelRequested {
            fence,
            agent,
            reason,
        } => {
            shown.task = Some(fence.task.0);
            shown.epoch = Some(fence.epoch.0);
            shown.agent = agent.to_string();
            shown.reason.clone_from(reason);
        }
        Event::Preempted { fence, agent, by } => {
            shown.task = Some(fence.task.0);
            shown.epoch = Some(fence.epoch.0);
            shown.agent = agent.to_string();
            shown.reason = format!("task {by} has got its place");
        }
        Event::TaskEnded { task, state: ended } => {
            shown.task = Some(task.0);
            shown.state = state(*ended).into();
        }
        Event::AgentRegistered { agent }
        | Event::AgentLost { agent, .. }
        | Event::AgentCordoned { agent }
        | Event::AgentUncordoned { agent }
        | Event::AgentDraining { agent }
        | Event::DrainExpired { agent }
        | Event::BackendSet { agent }
        | Event::AgentRemoved { agent, .. } => shown.agent = agent.to_string(),
        Event::SegmentDropped { first } => shown.segment = Some(*first),
        Event::NamespaceSet { namespace } => shown.namespace = namespace.to_string(),
        Event::PolicySet { scope } => (shown.namespace, shown.kind) = scope_out(scope),
        Event::RuleSet { rule } | Event::RuleRemoved { rule } | Event::RuleExpired { rule } => {
            shown.rule = rule.to_string();
        }
    }
    shown
}

fn name(event: &Event) -> &'static str {
    match event {
        Event::TaskQueued { .. } => "task_queued",
        Event::TaskAssigned { .. } => "task_assigned",
        Event::TaskRequeued { .. } => "task_requeued",
        Event::CancelRequested { .. } => "cancel_requested",
        Event::Preempted { .. } => "task_preempted",
        Event::TaskEnded { .. } => "task_ended",
        Event::AttemptEnded { .. } => "attempt_ended",
        Event::AgentRegistered { .. } => "agent_registered",
        Event::AgentLost { .. } => "agent_lost",
        Event::AgentCordoned { .. } => "agent_cordoned",
        Event::AgentUncordoned { .. } => "agent_uncordoned",
        Event::AgentDraining { .. } => "agent_draining",
        Event::DrainExpired { .. } => "drain_expired",
        Event::AgentRemoved { .. } => "agent_removed",
        Event::SegmentDropped { .. } => "segment_dropped",
        Event::BackendSet { .. } => "backend_set",
        Event::NamespaceSet { .. } => "namespace_set",
        Event::PolicySet { .. } => "policy_set",
        Event::RuleSet { .. } => "rule_set",
        Event::RuleRemoved { .. } => "rule_removed",
        Event::RuleExpired { .. } => "rule_expired",
    }
}
