//! How long a connection may be silent before it counts as dead.

use std::time::Duration;

/// The defaults are for a LAN: a silent peer is noticed within 4 s, and after a network comes back the
/// next attempt to connect begins within a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// For TCP to connect to one address. Default 1 s: a lost packet of the handshake is sent again by
    /// the kernel after 1 s, 3 s, 7 s, and a fresh attempt is quicker than that.
    pub connect: Duration,
    /// For the TLS handshake, on both sides; on the dialling side also for the server's first frame.
    /// Default 5 s: a busy machine may take its time, and who sends nothing must not be kept for long.
    pub handshake: Duration,
    /// How often to ask a silent peer whether it is there, by HTTP/2 and by TCP. Default 1 s.
    pub keepalive_interval: Duration,
    /// How long it may take to answer HTTP/2's question. Default 3 s.
    pub keepalive_timeout: Duration,
    /// How long sent bytes, or TCP's question, may stay unacknowledged, or a peer that acknowledges may refuse to
    /// take more (`TCP_USER_TIMEOUT`). Default 3 s.
    pub unacknowledged: Duration,
}

impl Timers {
    /// For links with seconds of delay or loss.
    pub const WAN: Self = Self {
        connect: Duration::from_secs(5),
        handshake: Duration::from_secs(10),
        keepalive_interval: Duration::from_secs(5),
        keepalive_timeout: Duration::from_secs(10),
        unacknowledged: Duration::from_secs(15),
    };
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            handshake: Duration::from_secs(5),
            keepalive_interval: Duration::from_secs(1),
            keepalive_timeout: Duration::from_secs(3),
            unacknowledged: Duration::from_secs(3),
        }
    }
}
