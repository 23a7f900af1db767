//! How a command finds and reaches a cluster.
//!
//! Settings come from flags, then variables, then the context that is in force ([`book`]); the result is
//! a [`Target`]. With its certificate a connection is made that follows the leader ([`connect`]).

mod book;
mod connect;
mod run;
mod target;

pub use book::{Book, Context, is_path, load_file, save_file};
pub use connect::{Connection, cancel_again, malformed, refused};
pub use run::{connected, interrupted, interrupts, now, or_interrupted, or_unknown, runtime};
pub use target::{ConnectArgs, Target};
