//! Entries on their way from the leader to one follower, over a connection of their own.
//!
//! ```text
//!  openraft ─► requests ─► company ─► ┐                ┌─► guard (the first) ─► openraft
//!                                     │  TLS, messages │
//!  openraft ◄──── answers, in order ◄─┘                └◄─────── answers ◄────────┘
//! ```
//!
//! Requests are pipelined. It is not gRPC because every commit waits for this, and HTTP/2's headers, windows
//! and tasks do nothing here that TCP does not do (ADR 11).
//!
//! A connection serves one of openraft's streams after the other, as long as every request was answered
//! and none was refused; a stream that ends otherwise takes the connection with it. A follower listens to the
//! newest connection of each sender alone.

mod company;
mod link;
mod receiver;

pub use link::{Link, session};
pub use receiver::Receiver;

/// Bytes of one answer, of which a refusal's reason is the longest part.
const ANSWER_BYTES: usize = 64 << 10;
