//! Sockets: TLS accepted and dialled, with a named limit on everything a stranger could make large.
//!
//! Accepting: [`incoming`] turns a TCP listener into a stream of connections whose handshake is done.
//! Handshakes run side by side, each with a time limit and all with a number limit, and a machine that
//! takes most of the places is the one that loses some, so that a slow or silent peer delays nobody.
//! Whoever showed no certificate keeps such a place for as long as the connection lasts. A handler finds who called in the request's extensions as [`PeerInfo`].
//! [`server`] is a gRPC server with our limits set; what it serves is the caller's.
//!
//! Dialling: [`channel`] connects when it is first used and again after every loss. Its connector reports
//! a [`DialError`], which tells a refused connection (the process is dead) from a silent one (the machine
//! or the network is), and says when a certificate was the reason; [`dial_error()`] finds it in a status.
//! A request that failed with one was never sent. The connector waits for the server's first frame
//! before it calls a connection good, because in TLS 1.3 a server refuses a client's certificate only
//! after the client has finished: without the wait, the first request would be lost to that refusal.
//!
//! Beside gRPC there is the plainest way to talk: [`connect`] makes one connection, and [`messages()`] carries
//! protobuf messages over it, each behind its length. A server tells the two apart by what the client asked
//! to speak ([`Accepted::protocol`]).
//!
//! A machine that joins makes one connection, proves by its [`binding`] that it speaks over that very one,
//! and has gRPC over it ([`channel_over`]).
//!
//! Whom to trust is not decided here: the TLS configurations come from `security`.

mod accept;
mod dial;
mod dial_error;
mod messages;
mod places;
mod timers;

#[cfg(test)]
mod tests;

use tonic::transport::Server;

pub use accept::{Accepted, Incoming, PENDING_HANDSHAKES, PeerInfo, STRANGERS, incoming};
pub use dial::{Connection, binding, channel, channel_over, connect, probe};
pub use dial_error::{DialError, DialFailure, dial_error};
pub use messages::{Incomings, Outgoings, messages};
pub use timers::Timers;

/// Bytes of one message. Larger payloads travel in pieces.
pub const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;
/// Requests at once on one connection; further ones wait at the client. Raise it on a server whose
/// clients forward the requests of many others.
pub const STREAMS_PER_CONNECTION: u32 = 256;
/// Bytes of a request's headers together.
pub const HEADERS_LIMIT: u32 = 16 * 1024;
/// Bytes in flight on one stream before the receiver must have read: HTTP/2's own 64 KiB would cost a
/// round trip for every piece of a snapshot or a log.
pub const STREAM_WINDOW: u32 = 1024 * 1024;
/// Bytes in flight on one connection, so that one stream cannot starve its neighbours; it also bounds
/// what a peer can make us hold.
pub const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// A gRPC server with the limits above, and HTTP/2 keepalive that notices a client that went silent.
pub fn server(timers: Timers) -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(HEADERS_LIMIT)
        .http2_keepalive_interval(Some(timers.keepalive_interval))
        .http2_keepalive_timeout(Some(timers.keepalive_timeout))
}
