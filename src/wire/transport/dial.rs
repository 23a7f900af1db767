//! The dialling side: a channel that connects when it must, or one connection; both say precisely why not.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

use super::accept::{BINDING, prepare};
use super::dial_error::{DialError, DialFailure, failure};
use super::timers::Timers;
use super::{CONNECTION_WINDOW, HEADERS_LIMIT, STREAM_WINDOW};

/// For so long after a failed dial the next request gets the same answer. Requests that queued up behind
/// a dead peer would otherwise each wait for a dial of their own, one after the other.
const FAILURE_IS_FRESH: Duration = Duration::from_millis(50);
/// Bytes. The server's first frame (SETTINGS) is under 100.
const FIRST_READ: usize = 1024;
/// What requests call the server. It is not an address: who answers is settled by the handshake.
const AUTHORITY: &str = "https://controller.quorate";

/// A channel to `address` ("host:port"). Nothing is dialled before the first request. To be called
/// within a tokio runtime, which then drives the connection.
pub fn channel(address: &str, tls: Arc<ClientConfig>, timers: Timers) -> Channel {
    let connector = Connector {
        address: Arc::from(address),
        tls: TlsConnector::from(tls),
        timers,
        last: Arc::new(Mutex::new(None)),
    };
    Endpoint::from_static(AUTHORITY)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_max_header_list_size(HEADERS_LIMIT)
        .http2_keep_alive_interval(timers.keepalive_interval)
        .keep_alive_timeout(timers.keepalive_timeout)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector)
}

/// A connection that was dialled.
pub type Connection = TlsStream<TcpStream>;

/// One connection to `address`, for what is not gRPC. That the server refuses our certificate is told only
/// by the first read.
pub async fn connect(
    address: &str,
    tls: Arc<ClientConfig>,
    timers: Timers,
) -> Result<Connection, DialError> {
    let connected = async {
        let tcp = open(address, timers).await?;
        let name = server_name(address)?;
        let shaken = TlsConnector::from(tls).connect(name, tcp);
        in_time(timers, shaken).await
    };
    connected.await.map_err(|failure| DialError {
        address: address.to_owned(),
        failure,
    })
}

/// What only the two ends of this connection know; the other end finds it in its `PeerInfo`.
pub fn binding(connection: &Connection) -> Option<[u8; 32]> {
    let exported = connection
        .get_ref()
        .1
        .export_keying_material([0; 32], BINDING, None);
    exported.ok()
}

/// A channel over this one connection: when it is lost, so is the channel.
pub async fn channel_over(connection: Connection) -> Result<Channel, tonic::transport::Error> {
    let mut once = Some(TokioIo::new(connection));
    let connector = tower::service_fn(move |_: Uri| {
        let taken = once.take();
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        std::future::ready(taken.ok_or_else(gone))
    });
    Endpoint::from_static(AUTHORITY)
        .http2_max_header_list_size(HEADERS_LIMIT)
        .connect_with_connector(connector)
        .await
}

/// Whether anybody listens at `address`: connects, and hangs up. The quick way to tell a dead process
/// (`DialFailure::Refused`) from a slow one.
pub async fn probe(address: &str, timers: Timers) -> Result<(), DialError> {
    let opened = open(address, timers).await;
    opened.map(drop).map_err(|failure| DialError {
        address: address.to_owned(),
        failure,
    })
}

#[derive(Clone)]
struct Connector {
    address: Arc<str>,
    tls: TlsConnector,
    timers: Timers,
    last: Arc<Mutex<Option<(Instant, DialFailure)>>>,
}

impl Connector {
    async fn dial(self) -> Result<TokioIo<Dialled>, DialError> {
        let result = match self.fresh_failure() {
            Some(failure) => Err(failure),
            None => self
                .connect()
                .await
                .inspect_err(|failure| self.remember(failure)),
        };
        result.map(TokioIo::new).map_err(|failure| {
            tracing::debug!(address = %self.address, %failure, "cannot connect");
            DialError {
                address: self.address.to_string(),
                failure,
            }
        })
    }

    async fn connect(&self) -> Result<Dialled, DialFailure> {
        let tcp = open(&self.address, self.timers).await?;
        let name = server_name(&self.address)?;
        let shaken = async {
            let mut tls = self.tls.connect(name, tcp).await?;
            // Only now it is known that the server accepted our certificate.
            let mut first = vec![0; FIRST_READ];
            let length = tls.read(&mut first).await?;
            if length == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            first.truncate(length);
            Ok(Dialled {
                tls,
                first: Bytes::from(first),
            })
        };
        in_time(self.timers, shaken).await
    }

    fn fresh_failure(&self) -> Option<DialFailure> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref()
            .filter(|(at, _)| at.elapsed() < FAILURE_IS_FRESH)
            .map(|(_, failure)| failure.clone())
    }

    fn remember(&self, failure: &DialFailure) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((Instant::now(), failure.clone()));
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Dialled>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    /// The address is ours; the URI names no place.
    fn call(&mut self, _uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial())
    }
}

async fn open(address: &str, timers: Timers) -> Result<TcpStream, DialFailure> {
    let limit = timers.connect;
    let places = match timeout(limit, lookup_host(address)).await {
        Ok(Ok(places)) => places,
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
            return Err(DialFailure::BadAddress);
        }
        Ok(Err(error)) => return Err(DialFailure::Unresolved(error.to_string())),
        Err(_) => return Err(DialFailure::TimedOut(limit)),
    };
    let mut last = DialFailure::Unresolved("it has no address".to_owned());
    for place in places {
        match timeout(limit, TcpStream::connect(place)).await {
            Ok(Ok(tcp)) => {
                prepare(&tcp, timers).map_err(|error| failure(&error))?;
                return Ok(tcp);
            }
            Ok(Err(error)) => last = failure(&error),
            Err(_) => last = DialFailure::TimedOut(limit),
        }
    }
    Err(last)
}

/// A handshake takes no longer than that.
async fn in_time<T>(
    timers: Timers,
    handshake: impl Future<Output = io::Result<T>>,
) -> Result<T, DialFailure> {
    let limit = timers.handshake;
    match timeout(limit, handshake).await {
        Ok(result) => result.map_err(|error| failure(&error)),
        Err(_) => Err(DialFailure::TimedOut(limit)),
    }
}

fn server_name(address: &str) -> Result<ServerName<'static>, DialFailure> {
    let (host, _) = address.rsplit_once(':').ok_or(DialFailure::BadAddress)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|_| DialFailure::BadAddress)
}

/// A connection that the server has answered on, and the answer, which HTTP/2 has yet to read.
struct Dialled {
    tls: Connection,
    first: Bytes,
}

impl AsyncRead for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.tls).poll_read(cx, buffer);
        }
        let length = self.first.len().min(buffer.remaining());
        buffer.put_slice(&self.first[..length]);
        self.first.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Dialled {
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
