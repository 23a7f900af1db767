//! Taking a member out for good: its id is never used again.
//!
//! A leader does not take itself out: it hands over, and whoever asked asks its successor. Vote and place go in
//! one change, so that it is done or not, whoever dies in the middle. The one that is gone may never hear of
//! it, for nobody sends the log to it any more: others tell it when it asks how they are.

use std::collections::BTreeSet;

use model::ControllerId;
use mutant::Mutant;
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
        let gone = BTreeSet::from([id.0]);
        if !voters.contains(&id.0) {
            return self.change(ChangeMembers::RemoveNodes(gone)).await;
        }
        self.can_spare(id, &voters).await?;
        self.change(ChangeMembers::RemoveVoters(gone)).await
    }

    /// Hands over; the error names who is to be asked instead.
    async fn step_aside(&self) -> Result<(), Error> {
        let me = ControllerId(self.me.id);
        {
            let _turn = self.turn()?;
            self.lead()?;
            self.finish_interrupted().await?;
            let voters = self.effective().voter_ids().collect();
            self.can_spare(me, &voters).await?;
            self.transfer(None).await?;
        }
        self.lead()?;
        Err(Error::busy(format!("leadership came back to {me}")))
    }

    async fn can_spare(&self, id: ControllerId, voters: &BTreeSet<NodeId>) -> Result<(), Error> {
        let mut left = voters.clone();
        left.remove(&id.0);
        if left.is_empty() {
            return Err(Error::Rejected(format!(
                "{id} is the only voter: without it there is no cluster"
            )));
        }
        if mutant::is(Mutant::RemovalUnchecked) {
            return Ok(());
        }
        let why = format!(
            "without {id} there would be {} voters, and too few of them answer and have the log to go on; \
             start those that are away, or remove them first",
            left.len()
        );
        self.can_go_on([voters, &left], &why).await?;
        self.have_blobs(id, &left).await
    }

    /// What tasks refer to must be on the disks of a majority of those that are left.
    async fn have_blobs(&self, id: ControllerId, left: &BTreeSet<NodeId>) -> Result<(), Error> {
        let members = self.effective();
        let mut whole = 0;
        for voter in left {
            let lacks = match members.get_node(voter) {
                _ if *voter == self.me.id => self.published.lacks(),
                Some(node) => match self.peers.lacks(*voter, node).await {
                    Ok(lacks) => lacks.blobs,
                    Err(_) => continue,
                },
                None => continue,
            };
            whole += usize::from(lacks == 0);
        }
        match 2 * whole > left.len() {
            true => Ok(()),
            false => Err(Error::busy(format!(
                "without {id} too few controllers would have the files that tasks refer to; the others are \
                 fetching them"
            ))),
        }
    }

    /// A change has to be agreed on by a majority of the voters before it, and by one of those after it. It is in
    /// force as soon as it is in the log: where too few of them answer, or too few have the log, it would
    /// neither end nor let anything else be committed. So it is refused, saying `why`, however much it is wanted.
    pub async fn can_go_on(&self, voters: [&BTreeSet<NodeId>; 2], why: &str) -> Result<(), Error> {
        let agree = |metrics: &RaftMetrics<Types<R>>, voters: &BTreeSet<NodeId>| {
            let in_step = |voter: &&NodeId| self.in_step(metrics, **voter);
            voters.iter().filter(in_step).count() > voters.len() / 2
        };
        let wait = self.raft.wait(Some(self.heartbeat() * ANSWER_HEARTBEATS));
        let enough = |metrics: &RaftMetrics<Types<R>>| {
            voters.iter().all(|voters| agree(metrics, voters)) || metrics.replication.is_none()
        };
        match wait.metrics(enough, "enough voters answer").await {
            Ok(_) => self.lead(),
            Err(_) => Err(Error::Rejected(why.to_owned())),
        }
    }
}
