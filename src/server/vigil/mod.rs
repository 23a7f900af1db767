//! The vigil: every controller asks the others how they are, every few seconds, and compares.
//!
//! ```text
//!                                          ┌─► clocks: too far apart? an alarm, until they are not
//!   tick ─► ask the others, side by side ──┼─► removed? this one stops
//!                                          ├─► disks: too many nearly full? no new work, until there is room
//!                                          └─► hashes: a majority holds another state? this one stops
//! ```
//!
//! Nobody is told to stop: each member judges itself alone, by what it was told, so that one that is
//! wrong can't take the others along. What to think of the answers is in `clocks`, `disks` and `hashes`.

mod clocks;
pub mod disks;
mod hashes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use futures::future::join_all;
use model::{ControllerId, Generation, StateHashes, Timestamp};
use raft::{Member, MemberRole};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tracing::{error, info, warn};
use wire::v1;

pub use clocks::{Clocks, Skew};
pub use disks::Disks;

use crate::controller::Controller;
use crate::dispatcher::wall_now;
use crate::limit;
use clocks::Change;
use hashes::Finding;

/// What another member said of itself.
pub struct Answer {
    pub reply: v1::MemberReply,
    /// `None` where the answer took too long to tell.
    pub skew: Option<Skew>,
}

/// Asks another member; nothing where it does not answer in time.
pub async fn ask(controller: &Controller, member: &Member) -> Option<Answer> {
    let address = &member.addresses.grpc;
    let channel = controller.others.channel(member.id, address).ok()?;
    let mut client = v1::cluster_client::ClusterClient::new(channel);
    let mut request = Request::new(v1::MemberRequest {});
    request.set_timeout(limit::MEMBER_ANSWER);
    let sent = Instant::now();
    let answer = tokio::time::timeout(limit::MEMBER_ANSWER, client.member(request)).await;
    let (ours, round_trip) = (wall_now(), sent.elapsed());
    let reply = answer.ok()?.ok()?.into_inner();
    let theirs = reply.wall_ms.map(Timestamp);
    let skew = theirs.and_then(|theirs| Skew::measured(theirs, ours, round_trip));
    Some(Answer { reply, skew })
}

/// Until `stopping`.
pub async fn keep(controller: Arc<Controller>, stopping: CancellationToken) {
    let mut last = Finding::Same;
    let mut tick = tokio::time::interval(limit::VIGIL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let rounds = async {
        loop {
            tick.tick().await;
            let finding = round(&controller).await;
            act(&controller, &finding, &last);
            last = finding;
        }
    };
    stopping.run_until_cancelled(rounds).await;
}

async fn round(controller: &Controller) -> Finding {
    let members = controller.cluster.members();
    let others = members.iter().filter(|member| member.id != controller.id);
    let asked = others.map(async |member| Some((member.id, ask(controller, member).await?)));
    let answers: BTreeMap<_, _> = join_all(asked).await.into_iter().flatten().collect();

    let generation = controller.cluster.view().generation();
    // One of another generation tells of another history.
    let removed = |it: &Answer| it.reply.removed && it.reply.generation == generation.0;
    if answers.values().any(removed) {
        controller.removed.cancel();
    }
    for (id, answer) in &answers {
        let disk = answer.reply.member.as_ref().and_then(|it| it.disk);
        controller.disks.told(*id, disk, Instant::now());
    }
    let skews = answers.iter().filter_map(|(id, it)| Some((*id, it.skew?)));
    for (id, change) in controller.clocks.measured(skews.collect(), Instant::now()) {
        tell(id, change);
    }

    let voters: BTreeSet<_> = members
        .iter()
        .filter(|member| member.role != MemberRole::Learner)
        .map(|member| member.id)
        .collect();
    let mut told = BTreeMap::new();
    for (id, answer) in &answers {
        match comparable(&answer.reply, generation) {
            Ok(hashes) => drop(told.insert(*id, hashes)),
            Err(error) => warn!(member = %id, %error, "its state hashes can't be read"),
        }
    }
    // After the answers, so that it reaches as far as theirs.
    told.insert(controller.id, controller.cluster.state_hashes());
    hashes::compare(controller.id, &told, &voters)
}

/// What a member's hashes say here: nothing in another generation, where the same index may be another
/// entry.
fn comparable(
    reply: &v1::MemberReply,
    generation: Generation,
) -> Result<StateHashes, wire::convert::Malformed> {
    if reply.generation != generation.0 {
        return Ok(StateHashes::new());
    }
    wire::convert::state_hashes_in(&reply.hashes)
}

fn tell(id: ControllerId, change: Change) {
    match change {
        Change::Raised(skew) => warn!(
            member = %id, skew_ms = skew.0, most_ms = limit::CLOCK_SKEW_MAX.as_millis(),
            "wall clocks are too far apart"
        ),
        Change::Ended(skew) => {
            info!(member = %id, skew_ms = skew.0, "wall clocks are close again");
        }
        Change::Lost => info!(
            member = %id,
            "its wall clock was too far from this one's, and can't be seen any more"
        ),
    }
}

/// A difference that stays is told once.
fn act(controller: &Controller, finding: &Finding, last: &Finding) {
    if finding.is_no_news_after(last) {
        return;
    }
    match finding {
        Finding::Outvoted(found) => controller.cluster.fail(&found.reason_to_stop()),
        Finding::Same => info!("members that answer hold the same state again"),
        Finding::Upheld(found) => error!(
            index = found.index,
            members = found.names(),
            theirs = found.theirs(),
            ours = found.ours(),
            "another state than the majority's: they have to stop"
        ),
        Finding::Undecided(found) => error!(
            index = found.index,
            members = found.names(),
            theirs = found.theirs(),
            ours = found.ours(),
            "members hold different states and no majority agrees on either, so nobody stops: start the \
             voters that are away; if none is, stop the cluster, keep the data directories, and report it"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_another_generation_are_not_compared() {
        let hashes = StateHashes::from([(256, [1; 32])]);
        let reply = v1::MemberReply {
            generation: 2,
            hashes: wire::convert::state_hashes_out(&hashes),
            ..v1::MemberReply::default()
        };
        let none = StateHashes::new();
        assert_eq!(comparable(&reply, Generation(2)), Ok(hashes));
        assert_eq!(comparable(&reply, Generation(1)), Ok(none.clone()));
        assert_eq!(comparable(&reply, Generation(3)), Ok(none));
    }
}
