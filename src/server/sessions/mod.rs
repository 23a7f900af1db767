//! Agents' sessions: one stream of frames from every agent to every controller.
//!
//! `connect` accepts a stream, checks the hello and reads its frames; `session` is what others may
//! do with an open one; `frames` numbers what goes out; `renewals` asks one quorum round for all
//! leases at a time; `tail` carries output from an agent to a reader of logs. `registry` finds them.
//!
//! What to send and to whom is the dispatcher's business, not decided here.

mod connect;
mod frames;
mod registry;
mod renewals;
mod session;
mod tail;

pub use connect::Service;
pub use frames::{Era, Outgoing};
pub use registry::Registry;
pub use renewals::{Renewals, confirm_leases};
pub use session::{Session, Wanted};
pub use tail::{Ended, Next, Tail};
