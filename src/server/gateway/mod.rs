//! The gRPC services. All share one path, in `request`: authenticate, authorise, build a command,
//! propose or read, answer; `failure` says why it could not. The other files are
//! one resource or verb each. No gateway holds state.

mod agents;
mod blobs;
mod cluster;
mod enrol;
mod events;
pub mod failure;
mod found;
mod identities;
mod join_tokens;
mod list;
mod logs;
mod membership;
mod namespaces;
mod orders;
mod policies;
mod request;
mod submit_all;
mod tasks;
mod wait;
mod watch;
mod why;

use std::sync::Arc;

use crate::controller::Controller;

pub use request::Deadline;

/// What implements the services.
#[derive(Debug, Clone)]
pub struct Gateway(pub Arc<Controller>);
