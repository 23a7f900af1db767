//! What each disturbance does to a plain connection between two nodes, on each kind of network.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use cluster_tests::network::{Backend, Disturbance, Edge, Harm, Network, Service};
use cluster_tests::report::Progress;
use tokio::io::AsyncWriteExt;
use tokio::task::{JoinSet, block_in_place};
use tokio::test;

/// After that long nothing comes.
const NOTHING: Duration = Duration::from_millis(300);
/// For what TCP sends again: it waits twice as long each time.
const AGAIN: Duration = Duration::from_secs(5);

/// The same where it may get lost again, and again; eight times in a row it hardly is.
const AT_LAST: Duration = Duration::from_secs(60);

/// Two nodes, one of which says what it hears.
struct Pair {
    network: Network,
    // Ends the echo when it goes.
    _echo: JoinSet<()>,
}

impl Pair {
    async fn on(backend: Backend) -> Pair {
        let ids = |id: &str| vec![id.to_owned()];
        let network = Network::create(backend, &ids("c1"), &ids("a1"))
            .await
            .unwrap();
        let address = network.listen("c1");
        let listener = within(&network, "c1", || TcpListener::bind(address)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let mut echo = JoinSet::new();
        echo.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut hears, mut says) = stream.split();
                    // However it ends, this end closes then.
                    let _ended = tokio::io::copy(&mut hears, &mut says).await;
                    let _closed = says.shutdown().await;
                });
            }
        });
        Pair {
            network,
            _echo: echo,
        }
    }

    fn dial(&self) -> io::Result<TcpStream> {
        let address = self.network.dial("a1", "c1", Service::Grpc);
        let address: SocketAddr = address.parse().unwrap();
        let dial = || TcpStream::connect_timeout(&address, AGAIN);
        let stream = block_in_place(|| within(&self.network, "a1", dial))?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Whether connections are refused; a proxy needs a moment to stop listening, and resets some until then.
    fn until_refused(&self) -> bool {
        let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
        let begun = Instant::now();
        while begun.elapsed() < AGAIN {
            if self.dial().is_err_and(refused) {
                return true;
            }
        }
        false
    }

    /// Whatever `work` sees while these edges are disturbed, and how often that was felt.
    async fn under<T>(
        &self,
        edges: Vec<Edge>,
        disturbance: Disturbance,
        work: impl FnOnce() -> T,
    ) -> T {
        let rule = self.network.disturb(&edges, disturbance).await.unwrap();
        let seen = block_in_place(work);
        let felt = self.network.felt(&rule).await.unwrap();
        assert!(
            felt.values().any(|count| *count > 0),
            "{disturbance:?}: {felt:?}"
        );
        self.network.lift([rule]).await.unwrap();
        seen
    }
}

fn within<T: Send>(network: &Network, node: &str, work: impl FnOnce() -> T + Send) -> T {
    match network.namespace(node) {
        Some(namespace) => namespace.within(work).unwrap(),
        None => work(),
    }
}

/// What comes back, if it does in time.
fn heard(stream: &mut TcpStream, length: usize, limit: Duration) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(limit))?;
    let mut reply = vec![0; length];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

fn say(stream: &mut TcpStream, text: &[u8], limit: Duration) -> io::Result<Vec<u8>> {
    stream.write_all(text)?;
    heard(stream, text.len(), limit)
}

/// What both kinds of network do.
async fn what_both_do(pair: &Pair) {
    let [there, back] = Edge::both("a1", "c1");
    let mut stream = pair.dial().unwrap();
    assert_eq!(say(&mut stream, b"hello", AGAIN).unwrap(), b"hello");

    for edge in [&there, &back] {
        let silent = pair.under(vec![edge.clone()], Disturbance::Silence, || {
            say(&mut stream, b"hello", NOTHING)
        });
        assert_eq!(silent.await.unwrap_err().kind(), ErrorKind::WouldBlock);
        let late = block_in_place(|| heard(&mut stream, 5, AGAIN));
        assert_eq!(late.unwrap(), b"hello", "it is sent again");
    }

    let delay = Disturbance::Delay {
        by: NOTHING,
        jitter: Duration::ZERO,
    };
    let rate = Disturbance::Rate(64 << 10);
    for (disturbance, length) in [(delay, 5), (rate, 32 << 10)] {
        let timed = pair.under(vec![there.clone()], disturbance, || {
            let begun = Instant::now();
            say(&mut stream, &vec![b'x'; length], AGAIN).map(|_| begun.elapsed())
        });
        let took = timed.await.unwrap();
        assert!(took >= NOTHING, "{disturbance:?}: {took:?}");
    }

    let other = pair.under(vec![back.clone()], Disturbance::Corruption, || {
        [b"hello", b"hello"].map(|text| say(&mut stream, text, AGAIN).unwrap())
    });
    assert_eq!(other.await, [b"helln", b"hello"], "one byte, once");

    let reset = pair.under(vec![there, back], Disturbance::Reset, || {
        let ended = say(&mut stream, b"hello", AGAIN).map_err(|error| error.kind());
        (ended, pair.until_refused())
    });
    let (ended, refused) = reset.await;
    assert!(
        matches!(
            ended,
            Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
        ),
        "{ended:?}"
    );
    assert!(refused);
}

#[test(flavor = "multi_thread", worker_threads = 3)]
async fn a_router_does_to_packets_what_it_was_told() {
    let progress = Progress::new("router");
    if let Err(why) = Backend::Namespaces.possible() {
        return progress.skip(&why);
    }
    if !Backend::Namespaces.can(Harm::Delay) {
        return progress.skip("iptables, or the kernel's part of NFQUEUE, is missing");
    }
    let pair = Pair::on(Backend::Namespaces).await;
    what_both_do(&pair).await;

    let mut stream = pair.dial().unwrap();
    let edges = Edge::both("a1", "c1");
    let mut all_heard = || (0..40).all(|_| say(&mut stream, b"hello", AT_LAST).is_ok());
    for disturbance in [Disturbance::Duplication(100), Disturbance::Loss(10)] {
        assert!(
            pair.under(edges.to_vec(), disturbance, &mut all_heard)
                .await
        );
    }

    pair.network.link_down("a1").unwrap();
    assert!(!pair.network.has_carrier("a1").unwrap());
    let down = pair.dial().map_err(|error| error.kind()).map(drop);
    assert_eq!(down, Err(ErrorKind::NetworkUnreachable));
    pair.network.link_up("a1").unwrap();
    let again = block_in_place(|| say(&mut stream, b"hello", AGAIN));
    assert_eq!(again.unwrap(), b"hello", "the connection has outlived it");
}

#[test(flavor = "multi_thread", worker_threads = 3)]
async fn proxies_do_to_connections_what_they_were_told() {
    let pair = Pair::on(Backend::Proxies).await;
    what_both_do(&pair).await;
    let reopened = tokio::time::timeout(AGAIN, async {
        loop {
            match pair.dial() {
                Ok(stream) => break stream,
                // The proxy needs a moment to listen again.
                Err(_refused) => tokio::task::yield_now().await,
            }
        }
    });
    let mut stream = reopened.await.unwrap();
    assert_eq!(
        block_in_place(|| say(&mut stream, b"hello", AGAIN)).unwrap(),
        b"hello"
    );
    let edge = Edge::new("a1", "c1");
    let ended = pair.under(vec![edge], Disturbance::HalfClose, || {
        heard(&mut stream, 1, AGAIN).map_err(|error| error.kind())
    });
    assert_eq!(
        ended.await,
        Err(ErrorKind::UnexpectedEof),
        "the echo was told the end"
    );
}

#[test(flavor = "multi_thread", worker_threads = 2)]
async fn disturbances_on_one_edge_do_not_lift_each_other() {
    let pair = Pair::on(Backend::strongest().0).await;
    let mut stream = pair.dial().unwrap();
    let edge = [Edge::new("a1", "c1")];
    let network = &pair.network;
    let first = network.disturb(&edge, Disturbance::Silence).await.unwrap();
    let second = network.disturb(&edge, Disturbance::Silence).await.unwrap();
    network.lift([first]).await.unwrap();
    let silent = block_in_place(|| say(&mut stream, b"hello", NOTHING));
    assert_eq!(silent.unwrap_err().kind(), ErrorKind::WouldBlock);
    assert!(network.felt(&second).await.unwrap()[&edge[0]] > 0);
    network.lift([second]).await.unwrap();
    let late = block_in_place(|| heard(&mut stream, 5, AGAIN));
    assert_eq!(late.unwrap(), b"hello");
}
