//! Linearizable reads: the ReadIndex protocol, one round for all who wait.
//!
//! ```text
//!  reader ─┐                    ┌─ leads: heartbeats to a quorum
//!  reader ─┼─► one round ───────┤                                  ──► wait for apply ──► view
//!  reader ─┘   (any member)     └─ follows: asks the leader, which runs such a round
//! ```
//!
//! A round answers only those who came before it began; whoever comes while one runs waits for the next.
//! No clock is trusted: a leader that was deposed without knowing it can't get a quorum's answer.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{LinearizableReadError, RaftError};
use openraft::{AsyncRuntime, Raft, ReadPolicy};
use tokio::sync::{mpsc, oneshot};

use crate::consensus::{LogId, Types};
use crate::error::{Error, Hindrance};
use crate::fatal::FatalSignal;
use crate::leadership::Leadership;
use crate::machine::Machine;
use crate::membership::node_of;
use crate::peers::Peers;
use crate::proposer::forwarded;
use crate::watched::Follower;

/// What was read, and where in the log the state stood.
#[derive(Clone, Debug)]
pub struct Read<T> {
    pub value: T,
    pub index: u64,
    pub term: u64,
}

/// Pause before a round is tried again with the same leader.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

type Waiter = oneshot::Sender<Result<LogId, Error>>;

/// Shares rounds among callers.
pub struct Rounds {
    waiters: mpsc::UnboundedSender<Waiter>,
}

impl Rounds {
    /// Rounds that only a leader can run.
    pub fn of_leader<R: AsyncRuntime>(
        raft: Raft<Types<R>, Machine<R>>,
        fatal: &FatalSignal,
    ) -> Arc<Self> {
        Self::spawn::<R, _, _>(fatal, move || {
            let raft = raft.clone();
            async move { leader_round(&raft).await }
        })
    }

    /// Rounds of any member.
    pub fn of_member<R: AsyncRuntime, P: Peers>(
        round: MemberRound<R, P>,
        fatal: &FatalSignal,
    ) -> Arc<Self> {
        let round = Arc::new(round);
        Self::spawn::<R, _, _>(fatal, move || {
            let round = round.clone();
            async move { round.run().await }
        })
    }

    fn spawn<R, F, Fut>(fatal: &FatalSignal, round: F) -> Arc<Self>
    where
        R: AsyncRuntime,
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<LogId, Error>> + Send,
    {
        let (waiters, mut queue) = mpsc::unbounded_channel::<Waiter>();
        // Ends when the last handle is dropped.
        let rounds = async move {
            while let Some(first) = queue.recv().await {
                let mut served = vec![first];
                while let Ok(next) = queue.try_recv() {
                    served.push(next);
                }
                let result = round().await;
                for waiter in served {
                    // Who gave up needs no answer.
                    waiter.send(result.clone()).ok();
                }
            }
        };
        drop(R::spawn(fatal.watch("the rounds of reads", rounds)));
        Arc::new(Self { waiters })
    }

    /// Waits for a round that begins after this call.
    pub async fn join(&self) -> Result<LogId, Error> {
        let (waiter, answer) = oneshot::channel();
        self.waiters.send(waiter).map_err(|_| Error::stopping())?;
        answer.await.map_err(|_| Error::stopping())?
    }
}

/// A round of the leader: a quorum answers heartbeats sent after it began.
async fn leader_round<R: AsyncRuntime>(raft: &Raft<Types<R>, Machine<R>>) -> Result<LogId, Error> {
    match raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
        Ok(linearizer) => Ok(*linearizer.read_log_id().log_id()),
        Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
            Err(forwarded(forward))
        }
        Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
            Err(Error::no_quorum("no quorum of controllers answers"))
        }
        Err(RaftError::Fatal(fatal)) => Err(Error::Fatal(fatal.to_string())),
    }
}

/// What any member needs for its rounds.
pub struct MemberRound<R: AsyncRuntime, P> {
    pub raft: Raft<Types<R>, Machine<R>>,
    pub peers: Arc<P>,
    pub leadership: Follower<Leadership>,
    pub own: Arc<Rounds>,
    pub patience: Duration,
}

impl<R: AsyncRuntime, P: Peers> MemberRound<R, P> {
    /// Repeats until there is an answer, for reading twice harms nobody.
    pub async fn run(&self) -> Result<LogId, Error> {
        let last = std::sync::Mutex::new(None);
        let attempts = async {
            loop {
                match self.attempt().await {
                    Ok(read) => return Ok(read),
                    Err(error @ Error::Fatal(_)) => return Err(error),
                    Err(error) => *crate::sync::lock(&last) = Some(error),
                }
                R::sleep(RETRY_PAUSE).await;
            }
        };
        match R::timeout(self.patience, attempts).await {
            Ok(result) => result,
            Err(_) => {
                let (hindrance, why) = match crate::sync::lock(&last).take() {
                    Some(Error::Unavailable { hindrance, why }) => (hindrance, why),
                    Some(other) => (Hindrance::NoLeader, other.to_string()),
                    None => self.nothing_yet(),
                };
                let why = format!("no answer within {:?}: {why}", self.patience);
                Err(Error::Unavailable { hindrance, why })
            }
        }
    }

    /// What holds up the first attempt.
    fn nothing_yet(&self) -> (Hindrance, String) {
        match self.leadership.get().leader {
            Some(leader) => (
                Hindrance::NoQuorum,
                format!("no quorum of controllers answers {leader}"),
            ),
            None => (Hindrance::NoLeader, "no controller leads".to_owned()),
        }
    }

    /// One question to whoever leads. It ends with that leader: one that hangs would not answer before a
    /// limit is over, long after another one leads.
    async fn attempt(&self) -> Result<LogId, Error> {
        let stopped = |_| Error::Fatal("this controller is stopping".to_owned());
        let mut leadership = self.leadership.clone();
        let now = leadership
            .wait_for(|now| now.leader.is_some())
            .await
            .map_err(stopped)?;
        let Some(leader) = now.leader else {
            return Err(Error::NotLeader { leader: None });
        };
        let asked = async {
            if now.is_me {
                return self.own.join().await;
            }
            match node_of(&self.raft, leader.0) {
                Some(node) => self.peers.read_index(leader.0, &node).await,
                None => Err(Error::no_leader(format!(
                    "the address of {leader} is not known"
                ))),
            }
        };
        let moved = leadership.wait_for(|then| (then.leader, then.term) != (now.leader, now.term));
        tokio::select! {
            // In this order, for a random one would make a simulation unrepeatable.
            biased;
            answer = asked => answer,
            _ = moved => Err(Error::NotLeader { leader: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::poll;
    use openraft_rt_tokio::TokioRuntime;
    use tokio::sync::{Semaphore, watch};

    use super::*;
    use crate::consensus::log_id;

    #[tokio::test]
    async fn a_round_is_for_all_who_came_before_it_began_and_for_nobody_who_came_later() {
        let (begun, mut seen) = watch::channel(0);
        let (begun, ends) = (Arc::new(begun), Arc::new(Semaphore::new(0)));
        let may_end = ends.clone();
        let rounds = Rounds::spawn::<TokioRuntime, _, _>(&FatalSignal::default(), move || {
            let (begun, may_end) = (begun.clone(), may_end.clone());
            async move {
                begun.send_modify(|rounds| *rounds += 1);
                let number = *begun.borrow();
                may_end.acquire().await.expect("it is open").forget();
                Ok(log_id(1, number))
            }
        });
        let index = |answer: Result<LogId, Error>| answer.expect("a round").index;
        let mut early = Box::pin(rounds.join());
        assert!(poll!(&mut early).is_pending());
        seen.wait_for(|rounds| *rounds == 1).await.unwrap();
        // A leader may be deposed while a round is under way: it proves nothing to whoever comes now.
        let mut late = [Box::pin(rounds.join()), Box::pin(rounds.join())];
        for one in &mut late {
            assert!(poll!(one).is_pending());
        }
        ends.add_permits(1);
        assert_eq!(index(early.await), 1);
        ends.add_permits(1);
        for one in late {
            assert_eq!(index(one.await), 2);
        }
        assert_eq!(*seen.borrow(), 2);
    }
}
