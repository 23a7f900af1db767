//! What is asked of the cluster, with the future's type erased.
//!
//! openraft's runtime traits are generic over lifetimes in a way that the compiler can't see to be
//! `Send` through several layers of `async`; behind a box it needs to look only once, here.

use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Op, State, Timestamp};
use raft::{Cluster, Committed, Error, Read};

/// The state at a point in the log that a quorum confirmed after the call.
pub fn read(cluster: &Cluster) -> BoxFuture<'static, Result<Read<State>, Error>> {
    let cluster = cluster.clone();
    async move { cluster.read(State::clone).await }.boxed()
}

/// One entry, in the order of the calls' first polls.
pub fn propose(
    cluster: &Cluster,
    ops: Vec<Op>,
    wall: Timestamp,
) -> BoxFuture<'static, Result<Committed, Error>> {
    let cluster = cluster.clone();
    async move { cluster.propose(ops, wall).await }.boxed()
}

/// A quorum answered a round that began after the call.
pub fn confirm(cluster: &Cluster) -> BoxFuture<'static, Result<u64, Error>> {
    let cluster = cluster.clone();
    async move { cluster.confirm().await }.boxed()
}
