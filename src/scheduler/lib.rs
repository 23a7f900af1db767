//! Who runs next, where, and why; and what has run out of time. Pure: reduce the cluster to
//! numbers ([`model::State`] and a [`Fleet`]), then decide.
//!
//! [`plan()`] walks the queue in its order (`order`: class, share, age). For each task every agent is filtered (each refusal
//! has a [`model::Reason`]), the rest are scored by the strategy that a policy sets, and the best is taken while it has room: filter →
//! score → fit. A task that finds no room may get the places of others of lower classes, where least is lost. The decision carries its trace. A plan may be stale when it is applied; `apply`
//! checks all of it again.
//!
//! Wanted: the same input gives the same plan; nothing is assigned beyond slots and prefetch; a
//! task that can't be placed never holds up those behind it, nor do a million of them; a round is
//! bounded by steps, never by time; every waiting task can say why it waits.
//!
//! Left out so far: how cold a model is on an agent.

mod candidate;
mod due;
mod estimate;
mod explain;
mod filter;
mod fleet;
mod health;
mod kept;
mod order;
mod plan;
mod ranking;
mod remade;
mod reserved;
mod rotation;
mod rules;
mod score;
mod told;
mod what_if;

#[cfg(test)]
mod tests;

pub use due::{Clock, LEASE, Leases, due};
pub use estimate::{Budget, Wait, waits};
pub use explain::{AgentVerdict, Explanation, explain, explain_decided, may_wait_there};
pub use fleet::{AgentView, Fleet};
pub use health::{Health, Machines};
pub use order::{Ahead, Rival};
pub use plan::{Asker, OPS_PER_ENTRY, PATIENCE, Plan, Planner, ROUND_MAX, Round, plan, round_max};
pub use remade::{Remade, Remaking};
pub use reserved::{Placed, Reservations, Reserved};
pub use rotation::Rotations;
pub use score::{Formula, Term, Way, formula_of};
pub use told::{Known, Told};
pub use what_if::{WhatIf, what_if};
