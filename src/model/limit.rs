//! The limits that `apply` enforces, each with its unit and why it is what it is.

use crate::time::Millis;

/// Bytes of an encoded task spec. Larger payloads belong beside the log, not in it.
pub const SPEC_MAX_BYTES: usize = 256 * 1024;
/// Bytes of a task's name: it is a column of a table.
pub const NAME_MAX_BYTES: usize = 256;
/// Labels of a task or an agent.
pub const LABELS_MAX: usize = 64;
/// Bytes of a label's key or value.
pub const LABEL_MAX_BYTES: usize = 256;
/// Bytes of a request id: a UUID or a digest with room to spare.
pub const REQUEST_ID_MAX_BYTES: usize = 256;
/// Bytes of a reason given by a person or an agent.
pub const REASON_MAX_BYTES: usize = 1024;
/// Bytes kept of each of stdout and stderr with a result; the agent keeps the rest.
pub const TAIL_MAX_BYTES: usize = 64 * 1024;
/// Bytes of a blob. Who needs more has storage of its own, and gives tasks an address in it.
pub const BLOB_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of all blobs that somebody refers to: what every controller's disk has to hold. Submits beyond are refused.
pub const BLOBS_MAX_BYTES: u64 = 64 * 1024 * 1024 * 1024;
/// Files attached to one task.
pub const ATTACHMENTS_MAX: usize = 64;
/// Bytes of a spec's command and environment or request, and of each stream of a result, that stand in the log: the
/// rest is blobs.
pub const INLINE_MAX_BYTES: usize = 4 * 1024;
/// Retries that a task may ask for.
pub const RETRIES_MAX: u32 = 100;
/// Slots of one agent.
pub const SLOTS_MAX: u32 = 65_536;
/// Attempts that an agent may hold beyond its slots, so that it never idles for a round trip.
pub const PREFETCH_MAX: u32 = 1;
/// Bytes of a model's name.
pub const MODEL_MAX_BYTES: usize = 256;
/// Models of one back end: a server of a catalogue may have some hundred.
pub const MODELS_MAX: usize = 512;
/// Sorts of work of which it is known how long they take on an agent.
pub const WORKS_MAX: usize = 64;
/// Bytes that all of an agent's back ends may take in the log, with the models that they offer: they stand in each
/// registration.
pub const BACKENDS_MAX_BYTES: usize = 256 * 1024;
/// Back ends of one agent.
pub const BACKENDS_MAX: usize = 64;
/// The largest weight of a back end: shares finer than a thousandth nobody sees.
pub const BACKEND_WEIGHT_MAX: u32 = 1_000;
/// The most failures that a back end may be allowed: the agent counts them one by one.
pub const BACKEND_FAILS_MAX: u32 = 1_000;
/// How long a back end may be left alone without another try.
pub const BACKEND_FAIL_TIMEOUT_MAX: Millis = Millis(24 * 60 * 60 * 1000);
/// The largest weight of a namespace or a user.
pub const SHARE_WEIGHT_MAX: u32 = 10_000;
/// Namespaces of which something is set.
pub const NAMESPACES_MAX: usize = 10_000;
/// Users of one namespace that have a weight of their own.
pub const NAMESPACE_USERS_MAX: usize = 1_000;
/// Tenants whose use is remembered: a round of the scheduler looks at all of them.
pub const ACCOUNTS_MAX: usize = 10_000;
/// Scopes with a policy of their own: each placement looks for the narrowest that holds for it.
pub const POLICIES_MAX: usize = 1_000;
/// Rules by hand: all of them are looked at for each placement. One more would not fit the scheduler's bit set.
pub const RULES_MAX: usize = 128;
/// Agents that one rule names; for more there are labels.
pub const RULE_AGENTS_MAX: usize = 64;
/// Bytes of a rule in the log: so that all of them fit into one answer.
pub const RULE_MAX_BYTES: usize = 8 * 1024;
/// How long a rule may be made for. For longer it is made for good.
pub const RULE_TTL_MAX: Millis = Millis(366 * 24 * 60 * 60 * 1000);
/// Thousandths of a processor that a task may ask for, or an agent have.
pub const CPU_MILLI_MAX: u32 = 4_096_000;
/// MiB of memory that a task may ask for, or an agent have: 64 TiB.
pub const MEMORY_MIB_MAX: u64 = 64 * 1024 * 1024;
/// GPUs of one agent: a bit more than boards carry today.
pub const GPUS_MAX: usize = 64;
/// MiB of memory of one GPU: 16 TiB.
pub const VRAM_MIB_MAX: u64 = 16 * 1024 * 1024;
/// Agents that a cluster registers.
pub const AGENTS_MAX: usize = 10_000;
/// Task records in memory, nearly all of them live: about 1 KiB each, and a thousand seconds of
/// the highest rate of submits. Submits beyond are refused.
pub const TASKS_MAX: usize = 4_000_000;
/// Bytes kept of all specs and results: as much again as that many records take. Submits beyond are
/// refused, and results beyond are kept without their tails.
pub const KEPT_MAX_BYTES: usize = 4 * 1024 * 1024 * 1024;
/// Request ids that are known, of tasks in memory and in the archive:some 50 bytes each in memory once they are packed.
/// Submits beyond are refused, because a request id that was forgotten early could run a task twice.
pub const REQUESTS_MAX: usize = 4_000_000;
/// How long a request id is known at least after its task left memory, even where the record was dropped
/// earlier for want of room.
pub const REQUEST_KEPT: Millis = Millis(24 * 60 * 60 * 1000);
/// Finished tasks that stay in memory: what people look at, a few MiB.
pub const HOT_TASKS: u64 = 10_000;
/// Entries of one segment of the archive: minutes under load.
pub const SEGMENT_ENTRIES: u64 = 32_768;
/// Bytes of one segment: what a joining controller fetches, and retention drops, as a whole.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// How long the archive keeps what has ended, and events.
pub const ARCHIVE_AGE: Millis = Millis(7 * 24 * 60 * 60 * 1000);
/// Bytes of records that the archive keeps.
pub const ARCHIVE_BYTES: u64 = 5 * 1024 * 1024 * 1024;
/// Tasks that leave memory, and request ids that are forgotten, with one entry: more than can end with
/// one, so none lags behind for good, and bounded so that applying one does not take long.
pub const LEAVING_MAX: usize = 2 * OPS_MAX;
/// Agents that may be lost under one task before it counts as the cause.
pub const LOST_AGENTS_MAX: u32 = 3;
/// Attempts that may have to end for one task: as much as one entry asks of an agent.
pub const VICTIMS_MAX: usize = 16;
/// How long a drain may let what runs go on: work that takes longer is not waited for, it is left alone.
pub const DRAIN_MAX: Millis = Millis(30 * 24 * 60 * 60 * 1000);
/// Join tokens kept, until a day after their expiry: each is a few hundred bytes, and nobody oversees more.
pub const JOIN_TOKENS_MAX: usize = 1_000;
/// Machines that one join token lets in: each is remembered with the token.
pub const JOIN_TOKEN_USES_MAX: u32 = 1_000;
/// Names given to keys that joined, used or not: twice as many as there may be agents.
pub const HOLDERS_MAX: usize = 2 * AGENTS_MAX;
/// How far a controller's id may be above the next one: one far off would use up all that are left.
pub const CONTROLLER_ID_LEAP: u64 = 1_000;
/// How long a join token may be good: it is a secret on its way to a machine.
pub const JOIN_TOKEN_TTL_MAX: Millis = Millis(30 * 24 * 60 * 60 * 1000);
/// The shortest life of a certificate that a join token gives: it must be renewed in time, over failovers.
pub const VALIDITY_MIN: Millis = Millis(10 * 1000);
/// The longest.
pub const VALIDITY_MAX: Millis = Millis(365 * 24 * 60 * 60 * 1000);
/// Operations in one entry; more than a full round of the dispatcher proposes.
pub const OPS_MAX: usize = 4_096;
