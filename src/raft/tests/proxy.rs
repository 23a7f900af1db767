//! The network between members, with a switch: one TCP proxy for each directed edge.
//!
//! A cut edge is silent, as a network partition is: bytes are held back, in both directions of its
//! connections, and new connections get no answer. When it is healed the held bytes arrive, as TCP would
//! send them again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::ControllerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// All edges of a cluster.
#[derive(Default)]
pub struct Edges(BTreeMap<(u64, u64), Edge>);

struct Edge {
    address: SocketAddr,
    open: watch::Sender<bool>,
    connections: Arc<AtomicUsize>,
}

impl Edges {
    /// Adds the edge from one member to another, who listens at `target`.
    pub async fn add(&mut self, from: u64, to: u64, target: String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = watch::Sender::new(true);
        let state = open.subscribe();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        tokio::spawn(async move {
            while let Ok((inbound, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(forward(inbound, target.clone(), state.clone()));
            }
        });
        self.0.insert(
            (from, to),
            Edge {
                address,
                open,
                connections,
            },
        );
    }

    /// Where `from` has to dial to reach the others.
    pub fn overrides(&self, from: u64) -> BTreeMap<ControllerId, String> {
        let outgoing = self.0.iter().filter(|((source, _), _)| *source == from);
        outgoing
            .map(|((_, to), edge)| (ControllerId(*to), edge.address.to_string()))
            .collect()
    }

    /// How many were made so far.
    pub fn connections(&self, from: u64, to: u64) -> usize {
        self.0[&(from, to)].connections.load(Ordering::Relaxed)
    }

    /// Cuts or heals every edge to and from a member.
    pub fn isolate(&self, member: u64, cut: Cut) {
        for ((from, to), edge) in &self.0 {
            if *from == member || *to == member {
                edge.open.send_replace(cut == Cut::Healed);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Silent,
    Healed,
}

async fn forward(inbound: TcpStream, target: String, mut open: watch::Receiver<bool>) {
    if open.wait_for(|open| *open).await.is_err() {
        return;
    }
    // Nobody listens there: the dialler sees its connection closed.
    let Ok(outbound) = TcpStream::connect(target).await else {
        return;
    };
    inbound.set_nodelay(true).unwrap();
    outbound.set_nodelay(true).unwrap();
    let (from_client, to_client) = inbound.into_split();
    let (from_server, to_server) = outbound.into_split();
    tokio::select! {
        () = pump(from_client, to_server, open.clone()) => {}
        () = pump(from_server, to_client, open) => {}
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut open: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if open.wait_for(|open| *open).await.is_err()
            || to.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}
