//! The back end that anybody may use: a TCP proxy for each directed edge. TLS passes through untouched.
//!
//! ```text
//!   c1 ──dials──► listener of (c1→c2, raft) ──dials──► c2
//!        c1→c2:   reader ─► queue ─► writer            each direction minds what lies on it,
//!        c2→c1:   writer ◄─ queue ◄─ reader            whoever dialled
//! ```
//!
//! A silent edge holds what it has, new connections too, and lets it go when it is healed, as TCP would send
//! it again. A reset one ends its connections by RST and has no listener, so that the next is refused as by a
//! machine whose process is dead. The sender's own system has taken what is held: unlike in a real partition
//! it never gives a connection up by itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Error;
use crate::network::counts::Corruptions;
use crate::network::{CLIENT, Counts, Edge, Effect, Effects, Harm, Loopback, Namespace, Service};

/// Read at a time.
const PIECE_BYTES: usize = 16 * 1024;
/// Pieces on their way in one direction: with a delay of 100 ms still some MiB/s.
const PIECES: usize = 64;
/// Until a port that was given up is tried again.
const AGAIN: Duration = Duration::from_millis(20);

/// How a proxy reaches its target.
#[derive(Debug, Clone)]
pub enum Dial {
    Plain,
    /// From within a namespace.
    Within(Arc<Namespace>),
}

/// What all connections share.
#[derive(Debug, Clone)]
pub struct Shared {
    effects: watch::Sender<Effects>,
    counts: Arc<Counts>,
    corruptions: Arc<Corruptions>,
}

impl Shared {
    pub fn new() -> Shared {
        Shared {
            effects: watch::Sender::new(Effects::new()),
            counts: Arc::default(),
            corruptions: Arc::default(),
        }
    }
}

/// All proxies of a cluster.
#[derive(Debug)]
pub struct Proxies {
    loopback: Loopback,
    shared: Shared,
    addresses: BTreeMap<(Edge, Service), SocketAddr>,
    // Ends them when it goes.
    _tasks: JoinSet<()>,
}

impl Proxies {
    pub async fn create(loopback: Loopback, agents: &[String]) -> Result<Proxies, Error> {
        let shared = Shared::new();
        let controllers: Vec<String> = loopback.controllers().cloned().collect();
        let (mut addresses, mut tasks) = (BTreeMap::new(), JoinSet::new());
        let client = CLIENT.to_owned();
        for to in &controllers {
            let others = controllers.iter().filter(|from| *from != to);
            for from in others.chain(agents).chain([&client]) {
                for service in Service::ALL {
                    let edge = Edge::new(from, to);
                    let target = loopback.address(to, service);
                    let (address, listening) =
                        listen(edge.clone(), target, Dial::Plain, shared.clone()).await?;
                    addresses.insert((edge, service), address);
                    tasks.spawn(listening);
                }
            }
        }
        Ok(Proxies {
            loopback,
            shared,
            addresses,
            _tasks: tasks,
        })
    }

    pub fn loopback(&self) -> &Loopback {
        &self.loopback
    }

    /// Where nobody listens, for an edge that is none.
    pub fn address(&self, edge: &Edge, service: Service) -> String {
        let found = self.addresses.get(&(edge.clone(), service));
        found.map_or_else(|| "127.0.0.1:0".to_owned(), SocketAddr::to_string)
    }

    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    pub fn change(&self, new: &Effects) {
        let old = self.shared.effects.borrow().clone();
        self.shared.corruptions.change(&old, new);
        self.shared.effects.send_replace(new.clone());
    }
}

/// The proxy for the connections that are dialled along `edge`: its address, and its work.
pub async fn listen(
    edge: Edge,
    target: String,
    dial: Dial,
    shared: Shared,
) -> Result<(SocketAddr, impl Future<Output = ()>), Error> {
    let bound = TcpListener::bind("127.0.0.1:0").await;
    let listener = bound.map_err(Error::io("listening for a proxy"))?;
    let address = listener
        .local_addr()
        .map_err(Error::io("a proxy's address"))?;
    Ok((
        address,
        accept(listener, address, edge, target, dial, shared),
    ))
}

async fn accept(
    mut listener: TcpListener,
    address: SocketAddr,
    edge: Edge,
    target: String,
    dial: Dial,
    shared: Shared,
) {
    let mut effects = shared.effects.subscribe();
    let mut connections = JoinSet::new();
    let torn = |effects: &Effects| is_torn(effects, &edge);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((inbound, _)) = accepted {
                    let end = End { edge: edge.clone(), target: target.clone(), dial: dial.clone() };
                    connections.spawn(end.carry(inbound, shared.clone()));
                }
            }
            _ended = connections.join_next(), if !connections.is_empty() => {}
            known = until(&mut effects, torn) => {
                if !known {
                    return;
                }
                // With the listener its port refuses; the connections see to their own ends.
                drop(listener);
                if !until(&mut effects, |effects| !torn(effects)).await {
                    return;
                }
                listener = loop {
                    match TcpListener::bind(address).await {
                        Ok(again) => break again,
                        Err(_taken) => sleep(AGAIN).await,
                    }
                };
            }
        }
    }
}

/// Waits for what lies on the edges to be so. `false` once the network itself is gone.
async fn until(
    effects: &mut watch::Receiver<Effects>,
    wanted: impl FnMut(&Effects) -> bool,
) -> bool {
    effects.wait_for(wanted).await.is_ok()
}

fn on(effects: &Effects, edge: &Edge) -> Effect {
    effects.get(edge).copied().unwrap_or_default()
}

/// Whether either direction is reset.
fn is_torn(effects: &Effects, edge: &Edge) -> bool {
    on(effects, edge).is_reset || on(effects, &edge.reversed()).is_reset
}

/// One connection's other end.
struct End {
    edge: Edge,
    target: String,
    dial: Dial,
}

impl End {
    async fn carry(self, mut inbound: TcpStream, shared: Shared) {
        let mut effects = shared.effects.subscribe();
        let (edge, back) = (self.edge.clone(), self.edge.reversed());
        // Its first packet does not arrive, or the answer does not.
        for direction in [&edge, &back] {
            if on(&effects.borrow(), direction).is_silent {
                shared.counts.add(direction, Harm::Silence);
            }
        }
        let open =
            |effects: &Effects| !on(effects, &edge).is_silent && !on(effects, &back).is_silent;
        if !until(&mut effects, open).await {
            return;
        }
        // Nobody listens there: the dialler sees its connection closed.
        let Ok(mut outbound) = self.dial().await else {
            return;
        };
        for stream in [&inbound, &outbound] {
            // At worst it is slower.
            let _set = stream.set_nodelay(true);
        }
        let torn = {
            let (from_client, to_client) = inbound.split();
            let (from_server, to_server) = outbound.split();
            let forward = direction(edge.clone(), from_client, to_server, shared.clone());
            let backward = direction(back.clone(), from_server, to_client, shared.clone());
            tokio::select! {
                () = async { tokio::join!(forward, backward); } => false,
                known = until(&mut effects, |effects| is_torn(effects, &edge)) => known,
            }
        };
        if torn {
            for direction in [edge, back] {
                if on(&shared.effects.borrow(), &direction).is_reset {
                    shared.counts.add(&direction, Harm::Reset);
                }
            }
            for stream in [&inbound, &outbound] {
                let _set = stream.set_zero_linger();
            }
        }
    }

    async fn dial(&self) -> std::io::Result<TcpStream> {
        let Dial::Within(namespace) = &self.dial else {
            return TcpStream::connect(&self.target).await;
        };
        let (namespace, target) = (Arc::clone(namespace), self.target.clone());
        let dialled = tokio::task::spawn_blocking(move || {
            // A socket stays where it was made.
            namespace.within(|| socket(&target))
        });
        let socket = dialled.await.map_err(std::io::Error::other)?;
        let (socket, target) = socket.map_err(std::io::Error::other)??;
        socket.connect(target).await
    }
}

fn socket(target: &str) -> std::io::Result<(tokio::net::TcpSocket, SocketAddr)> {
    let target: SocketAddr = target.parse().map_err(std::io::Error::other)?;
    Ok((tokio::net::TcpSocket::new_v4()?, target))
}

/// Bytes, and when they were read.
type Piece = (Instant, Vec<u8>);

/// Carries one direction of a connection to its end.
async fn direction(edge: Edge, from: ReadHalf<'_>, to: WriteHalf<'_>, shared: Shared) {
    let (read, queue) = mpsc::channel(PIECES);
    let mut writer = std::pin::pin!(writer(edge, to, queue, shared));
    tokio::select! {
        // What was read is still to be written.
        () = reader(from, read) => writer.await,
        () = &mut writer => {}
    }
}

async fn reader(mut from: ReadHalf<'_>, read: mpsc::Sender<Piece>) {
    let mut buffer = vec![0; PIECE_BYTES];
    // The end of the queue tells the writer to pass the end on.
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let piece = (Instant::now(), buffer[..length].to_vec());
        if read.send(piece).await.is_err() {
            return;
        }
    }
}

async fn writer(
    edge: Edge,
    mut to: WriteHalf<'_>,
    mut queue: mpsc::Receiver<Piece>,
    shared: Shared,
) {
    let mut effects = shared.effects.subscribe();
    loop {
        let half_closed = |effects: &Effects| on(effects, &edge).is_half_closed;
        let piece = tokio::select! {
            piece = queue.recv() => piece,
            _known = until(&mut effects, half_closed) => {
                shared.counts.add(&edge, Harm::HalfClose);
                None
            }
        };
        if !pass_silence(&edge, &mut effects, &shared.counts).await {
            return;
        }
        let Some((at, mut bytes)) = piece else {
            // The other direction goes on.
            let _closed = to.shutdown().await;
            return;
        };
        let effect = on(&effects.borrow(), &edge);
        wait_as_told(&effect, &edge, at, bytes.len(), &shared.counts).await;
        if !pass_silence(&edge, &mut effects, &shared.counts).await {
            return;
        }
        if is_torn(&effects.borrow(), &edge) {
            // Whoever waits for that ends the connection; nothing gets through until then.
            return std::future::pending().await;
        }
        if shared.corruptions.take(&edge) {
            let last = bytes.len() - 1;
            bytes[last] ^= 0x01;
            shared.counts.add(&edge, Harm::Corruption);
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Waits while nothing gets through. `false` once the network itself is gone.
async fn pass_silence(
    edge: &Edge,
    effects: &mut watch::Receiver<Effects>,
    counts: &Counts,
) -> bool {
    if on(&effects.borrow(), edge).is_silent {
        counts.add(edge, Harm::Silence);
    }
    until(effects, |effects| !on(effects, edge).is_silent).await
}

async fn wait_as_told(effect: &Effect, edge: &Edge, at: Instant, length: usize, counts: &Counts) {
    if effect.delay > Duration::ZERO || effect.jitter > Duration::ZERO {
        let jitter = effect.jitter.mul_f64(rand::random_range(0.0..1.0));
        sleep_until(at + effect.delay + jitter).await;
        counts.add(edge, Harm::Delay);
    }
    if let Some(rate) = effect.rate {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        sleep(Duration::from_secs(1) * length / rate.max(1)).await;
        counts.add(edge, Harm::Rate);
    }
}
