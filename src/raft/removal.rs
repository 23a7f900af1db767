//! Taking a member out for good: its id is never used again.
//!
//! A leader does not take itself out: it hands over, and whoever asked asks its successor. A voter loses
//! its vote first and its place afterwards, so that it hears of the former. It may never hear of the
//! latter, for nobody sends the log to it any more: others tell it when it asks how they are.

use std::collections::BTreeSet;

use model::ControllerId;
use openraft::{AsyncRuntime, ChangeMembers, RaftMetrics};

use crate::consensus::{NodeId, Types};
use crate::error::Error;
use crate::membership::Members;
use crate::peers::Peers;

/// How long the voters that would be left may take to answer: heartbeats, each of which one busy machine
/// may miss.
const ANSWER_HEARTBEATS: u32 = 20;

impl<R: AsyncRuntime, P: Peers> Members<R, P> {
    /// One that was removed before is fine: whoever asks may not have heard of it.
    pub async fn remove(&self, id: ControllerId) -> Result<(), Error> {
        if id.0 == self.me.id {
            return self.step_aside().await;
        }
        let _turn = self.turn()?;
        self.lead()?;
        self.finish_interrupted().await?;
        let members = self.effective();
        if members.get_node(&id.0).is_none() {
            return match self.was_removed(id) {
                true => Ok(()),
                false => Err(self.stranger(id)),
            };
        }
        let voters: BTreeSet<NodeId> = members.voter_ids().collect();
        if voters.contains(&id.0) {
            self.can_go_on(id, &voters).await?;
            self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id.0])))
                .await?;
        }
        match self.effective().get_node(&id.0) {
            Some(_) => {
                self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id.0])))
                    .await
            }
            None => Ok(()),
        }
    }

    /// Hands over; the error names who is to be asked instead.
    async fn step_aside(&self) -> Result<(), Error> {
        self.lead()?;
        if self.effective().voter_ids().count() == 1 {
            return Err(Error::Rejected(only_voter(ControllerId(self.me.id))));
        }
        self.transfer(None).await?;
        self.lead()
    }

    /// The change itself has to be agreed on by a majority of the voters, and by one of those that are left.
    /// Where too few of them answer it would neither end nor let anything else be committed, so it is not
    /// begun, however much it is wanted.
    async fn can_go_on(&self, id: ControllerId, voters: &BTreeSet<NodeId>) -> Result<(), Error> {
        let mut left = voters.clone();
        left.remove(&id.0);
        if left.is_empty() {
            return Err(Error::Rejected(only_voter(id)));
        }
        let agree = |metrics: &RaftMetrics<Types<R>>, voters: &BTreeSet<NodeId>| {
            let answer = |voter: &&NodeId| **voter == self.me.id || self.answers(metrics, **voter);
            voters.iter().filter(answer).count() > voters.len() / 2
        };
        let wait = self.raft.wait(Some(self.heartbeat() * ANSWER_HEARTBEATS));
        let enough = |metrics: &RaftMetrics<Types<R>>| {
            let all = agree(metrics, voters) && agree(metrics, &left);
            all || metrics.replication.is_none()
        };
        match wait.metrics(enough, "enough voters answer").await {
            Ok(_) => self.lead(),
            Err(_) => Err(Error::Rejected(format!(
                "without {id} there would be {} voters, and too few of them answer to go on; start those \
                 that are away, or remove them first",
                left.len()
            ))),
        }
    }
}

fn only_voter(id: ControllerId) -> String {
    format!("{id} is the only voter: without it there is no cluster")
}
