//! What the cluster knows, and every way it may change. Pure: no IO, clock, randomness, float or
//! hash-map order.
//!
//! A [`Command`] comes from outside, a [`SystemCommand`] from the leader; both travel as [`Op`]s
//! in an [`Entry`] of the replicated log. [`State::apply`] is the only writer: it checks every
//! precondition again at that index, changes the tables and answers with replies and [`Event`]s.
//! The same entries give the same state, and the same [`State::hash`], on every controller.
//!
//! Left out on purpose: who is connected, heartbeats and loads (soft state of each controller),
//! and where the bytes of the log are kept (crate `raft`).

pub mod access;
mod address;
mod agent;
mod apply;
mod archive;
mod backend;
mod backoff;
mod begun;
mod blob;
mod class;
mod command;
mod entry;
mod event;
mod hash;
mod id;
mod index;
mod inference;
pub mod invariant;
mod join_token;
pub mod label;
mod limit;
mod mix;
mod namespace;
mod outcome;
mod policy;
mod preemption;
mod principal;
mod rejected;
mod requests;
mod resource;
mod rule;
mod sample;
mod share;
mod snapshot;
mod spec;
mod state;
mod table;
mod task;
mod time;
mod trace;
mod trailing;
mod version;

#[cfg(test)]
mod tests;

pub use address::Addresses;
pub use agent::{Agent, AgentProfile, AgentProtocol, AgentState, Cordon, Drain, DrainStage};
pub use archive::{
    ArchiveStep, Content, EventsRecord, Record, RecordKey, Retention, Segment, TaskRecord,
};
pub use backend::{Asking, BackendSettings, SetBackend};
pub use blob::{
    Attachment, Blob, BlobDigest, BlobHasher, BlobRef, Bulk, Held, NoDigest, OutcomeBlobs,
    SpecBlobs,
};
pub use class::{Class, NoSuchClass, Precedence, Served, WaitingClass};
pub use command::{
    Assignment, Command, DrainAgent, Op, Placement, Preemption, Reply, RequestId, Submit,
    SystemCommand, Verdict, Victim,
};
pub use entry::{DecodeError, Entry, Stamped};
pub use event::{Applied, Event};
pub use hash::StateHashes;
pub use id::{
    AgentId, ControllerId, Epoch, Fence, Generation, Incarnation, JoinTokenId, Namespace,
    ParseIdError, RuleId, TaskId,
};
pub use index::{Preemptible, QueueKey, Requirement, Waiting};
pub use inference::{Backend, Endpoint, Inference, Usage, validate_backends, validate_model};
pub use join_token::{Admitted, Enrolled, Enrolment, JoinToken, KeyHash, NewJoinToken, Standing};
pub use label::Expression;
pub use limit::*;
pub use mix::{Mix, Sort};
pub use namespace::{NamespaceSettings, SetNamespace};
pub use outcome::{Disposition, End, Interruption, Outcome};
pub use policy::{ParseStrategyError, Policy, SESSION_LABEL, Scope, SetPolicy, Strategy};
pub use principal::{Principal, Role};
pub use rejected::Rejected;
pub use resource::{
    Demand, Gpus, Hardware, Mebibytes, Need, Processors, Supply, Taken, could, room,
};
pub use rule::{AddRule, Agents, Rule, RuleAction};
pub use sample::{
    Load, Magnitude, Observed, Presence, Sample, Service, Twentieths, Work, news, retold,
};
pub use share::{Price, Tenant, TenantUsage};
pub use spec::{Kind, NoSuchKind, TaskSpec, validate_labels};
pub use state::{Archived, State};
pub use task::{Attempt, Cancellation, Estimate, Phase, StateName, Task};
pub use time::{Millis, Timestamp};
pub use trace::{Reason, Scored, TRACE_MAX_BYTES, Trace, TraceRecord};
pub use version::{NotUnderstood, StateVersion, Versions};
