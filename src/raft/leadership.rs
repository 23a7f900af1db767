//! Who leads, as this member sees it, and whether it may act itself.
//!
//! Being elected is not enough to act: only once the first entry of its own term is applied has a leader
//! applied everything that earlier leaders committed. That is what `ready` says.

use std::sync::Arc;

use model::ControllerId;
use mutant::Mutant;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{AsyncRuntime, Raft, ServerState};
use tokio_util::sync::CancellationToken;

use crate::consensus::{LogId, NodeId, Types, term_of};
use crate::error::Leader;
use crate::fatal::FatalSignal;
use crate::machine::{Machine, Published};
use crate::member::controller;
use crate::membership::node_of;
use crate::watched::Watched;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub leader: Option<ControllerId>,
    pub term: u64,
    pub is_me: bool,
    /// This member leads, and has applied the first entry of its term and all before it.
    pub ready: bool,
}

/// Follows openraft's metrics until it stops; that it stops without being asked is fatal.
pub async fn follow<R: AsyncRuntime>(
    raft: Raft<Types<R>, Machine<R>>,
    published: Arc<Published>,
    leadership: Watched<Leadership>,
    fatal: FatalSignal,
    stopping: CancellationToken,
) {
    let mut server = raft.server_metrics();
    let mut applied = published.applied();
    let mut current = Leadership::default();
    loop {
        let next = {
            let server = server.borrow_and_update();
            let term = server.vote.leader_id.term;
            derive(
                server.id,
                server.state,
                server.current_leader,
                term,
                applied.get(),
            )
        };
        if next != current {
            tracing::info!(leader = ?next.leader, term = next.term, ready = next.ready, "leadership");
            current = next;
            leadership.set(next);
        }
        tokio::select! {
            // In this order, for a random one would make a simulation unrepeatable.
            biased;
            alive = server.changed() => if alive.is_err() {
                if !stopping.is_cancelled() {
                    fatal.raise("the consensus core has stopped");
                }
                leadership.set(Leadership { term: next.term, ..Leadership::default() });
                return;
            },
            // Only while it waits to be ready: every batch of entries would wake it. The owner lives as
            // long as the machine, so this never ends before the other.
            alive = applied.changed(), if next.is_me && !next.ready => if alive.is_err() {
                return;
            },
        }
    }
}

/// The leader and where it listens, as far as known.
pub fn leader_of<R: AsyncRuntime>(
    raft: &Raft<Types<R>, Machine<R>>,
    leadership: Leadership,
) -> Option<Leader> {
    let id = leadership.leader?;
    let node = node_of(raft, id.0)?;
    Some(Leader {
        id,
        addresses: node.addresses,
    })
}

fn derive(
    me: NodeId,
    state: ServerState,
    leader: Option<NodeId>,
    term: u64,
    applied: Option<LogId>,
) -> Leadership {
    let is_me = state == ServerState::Leader && leader == Some(me);
    let own = applied.is_some_and(|id| term_of(&id) == term);
    let ready = is_me && (own || mutant::is(Mutant::ReadyTooEarly));
    Leadership {
        leader: leader.map(controller),
        term,
        is_me,
        ready,
    }
}
