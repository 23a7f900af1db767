//! The accepting side: a stream of connections whose TLS handshake is done.
//!
//! One task polls it, and within that task all handshakes wait side by side. So their number is bounded,
//! nothing is spawned that nobody joins, and their cryptography never takes more than one core from the
//! requests of those who are in already.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::rustls::{ServerConfig, pki_types::CertificateDer};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use super::places::{Place, Places};
use super::timers::Timers;

/// Handshakes at once. One more ends the oldest of the address that has most of them.
pub const PENDING_HANDSHAKES: usize = 256;
/// Connections of a port whose peers showed no certificate: probes and scrapers are few, and anybody may
/// connect.
pub const STRANGERS: usize = 256;
/// After the kernel could not give us a connection (no file descriptors, no memory): long enough to spare
/// the processor, short enough that nobody notices.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end. Every gRPC request carries it in its extensions.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Checked in the handshake. `None` where the server does not insist and the client showed none.
    pub certificate: Option<Arc<CertificateDer<'static>>>,
    pub address: SocketAddr,
    /// What only the two ends of this connection know, for a peer without a certificate to prove itself by.
    pub binding: Option<[u8; 32]>,
}

/// The name under which both ends of a connection derive [`PeerInfo::binding`] (RFC 8446, section 7.5).
pub(super) const BINDING: &[u8] = b"EXPORTER-quorate-join";

/// Accepts with TLS. The stream does not end, and yields no error: a failed handshake concerns one peer
/// only and is logged.
pub fn incoming(listener: TcpListener, tls: Arc<ServerConfig>) -> Incoming {
    Incoming {
        listener,
        acceptor: TlsAcceptor::from(tls),
        timers: Timers::default(),
        handshakes: FuturesUnordered::new(),
        shaking: Places::new(PENDING_HANDSHAKES),
        strangers: Places::new(STRANGERS),
        pause: None,
    }
}

/// See [`incoming`].
pub struct Incoming {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    timers: Timers,
    handshakes: FuturesUnordered<BoxFuture<'static, Option<Accepted>>>,
    shaking: Arc<Places>,
    strangers: Arc<Places>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    pub fn with_timers(mut self, timers: Timers) -> Self {
        self.timers = timers;
        self
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.poll_unpin(cx));
            self.pause = None;
        }
        match ready!(self.listener.poll_accept(cx)) {
            Ok((tcp, address)) => {
                let place = self.shaking.take(address.ip());
                let strangers = Arc::clone(&self.strangers);
                let handshake = handshake(self.acceptor.clone(), tcp, address, self.timers);
                let admitted = async move {
                    let accepted = tokio::select! {
                        accepted = handshake => accepted?,
                        () = place.needed() => return None,
                    };
                    Some(accepted.admitted(&strangers))
                };
                self.handshakes.push(admitted.boxed());
            }
            Err(error) if concerns_one_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections");
                self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
            }
        }
        Poll::Ready(())
    }
}

impl Stream for Incoming {
    type Item = io::Result<Accepted>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.handshakes.poll_next_unpin(cx) {
                Poll::Ready(Some(Some(accepted))) => return Poll::Ready(Some(Ok(accepted))),
                Poll::Ready(Some(None)) => continue,
                Poll::Ready(None) | Poll::Pending => {}
            }
            ready!(self.poll_accept(cx));
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    address: SocketAddr,
    timers: Timers,
) -> Option<Accepted> {
    let shaken = timeout(timers.handshake, async {
        prepare(&tcp, timers)?;
        acceptor.accept(tcp).await
    });
    match shaken.await {
        Ok(Ok(tls)) => Some(Accepted::new(tls, address)),
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%address, limit = ?timers.handshake, "handshake timed out");
            None
        }
    }
}

/// What every connection of ours is set to, whichever side made it.
pub(super) fn prepare(tcp: &TcpStream, timers: Timers) -> io::Result<()> {
    // Our messages are small and someone waits for each of them.
    tcp.set_nodelay(true)?;
    let socket = socket2::SockRef::from(tcp);
    // Where nothing inside asks a silent peer whether it is there, the kernel does, which counts in seconds.
    let asking = timers.keepalive_interval.max(Duration::from_secs(1));
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(asking)
        .with_interval(asking);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(timers.unacknowledged))?;
    Ok(())
}

fn concerns_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

/// A connection whose peer is known, or known to be a stranger.
pub struct Accepted {
    tls: TlsStream<TcpStream>,
    peer: PeerInfo,
    /// A stranger's place, and what ends when another needs it.
    place: Option<(Place, BoxFuture<'static, ()>)>,
}

impl Accepted {
    fn new(tls: TlsStream<TcpStream>, address: SocketAddr) -> Self {
        let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.map(|certificate| Arc::new(certificate.clone().into_owned()));
        let export = || {
            tls.get_ref()
                .1
                .export_keying_material([0; 32], BINDING, None)
        };
        let binding = match certificate {
            Some(_) => None,
            None => export().ok(),
        };
        Self {
            tls,
            peer: PeerInfo {
                certificate,
                address,
                binding,
            },
            place: None,
        }
    }

    fn admitted(mut self, strangers: &Arc<Places>) -> Self {
        if self.peer.certificate.is_none() {
            let place = strangers.take(self.peer.address.ip());
            let needed = place.needed().boxed();
            self.place = Some((place, needed));
        }
        self
    }

    /// Fails where another stranger needs the place.
    fn poll_place(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let needed = self.place.as_mut().map(|(_, needed)| needed.poll_unpin(cx));
        match needed {
            Some(Poll::Ready(())) => Err(io::ErrorKind::ConnectionAborted.into()),
            Some(Poll::Pending) | None => Ok(()),
        }
    }

    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// What both sides agreed to speak, by its ALPN name; `None` where the client did not say.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.tls.get_ref().1.alpn_protocol()
    }
}

impl Connected for Accepted {
    type ConnectInfo = PeerInfo;

    fn connect_info(&self) -> PeerInfo {
        self.peer.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_place(cx)?;
        Pin::new(&mut self.tls).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }
}
