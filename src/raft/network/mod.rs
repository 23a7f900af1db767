//! Controllers talking to each other, over mutual TLS, on a port of its own.
//!
//! `dial` makes connections and headers, `client` is openraft's network on top of them, `calls` the questions
//! of our own, `service` the answering side and `guard` its door, `port` the listener. `codec` translates messages, `snapshots`
//! moves large states both ways. All that is gRPC; entries of the log go the plainest way (`replication`).
//!
//! Replication, heartbeats and snapshots to one peer use connections of their own, so that a large message
//! never delays the proof that a leader is alive.

pub mod blobs;
pub mod calls;
pub mod client;
pub mod codec;
pub mod dial;
pub mod guard;
pub mod port;
pub mod replication;
pub mod segments;
pub mod service;
pub mod snapshots;
pub mod tls;

use std::io;

/// Work on the disk, off the threads that serve the network.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await?
}
