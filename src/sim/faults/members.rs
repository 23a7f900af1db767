//! The membership: who comes, who goes, and who must not go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::{Addresses, ControllerId};
use openraft_rt_sim::SimRuntime;
use raft::parts::NodeId;
use raft::parts::openraft::async_runtime::AsyncRuntime;

use super::{any_controller, pass};
use crate::controller::{Boot, End};
use crate::plan::Fault;
use crate::world::{Standing, World};

/// Longer than a leader waits for the voters that would be left.
const REFUSAL: Duration = Duration::from_secs(4);

/// A new controller is let in, or one is sent away: the leader, too.
pub async fn change(world: &Arc<World>) -> bool {
    let Some(boot) = world.leading() else {
        return false;
    };
    let present = world.members();
    match world.spare() {
        Some(spare) if present.len() < 4 || world.dice.permille(500) => {
            let_in(world, &boot, spare).await
        }
        _ if present.len() > 3 => {
            let id = any_controller(world);
            world.trace.say(format_args!("c{id} is to go"));
            send_away(world, &boot, id, "it was removed").await
        }
        _ => false,
    }
}

/// Lets a spare one in, under an id that nobody had.
async fn let_in(world: &Arc<World>, boot: &Boot, spare: NodeId) -> bool {
    world.trace.say(format_args!("c{spare} is to join"));
    world.enlist(spare, Standing::Member);
    world.start(spare).await;
    let joined = boot
        .core
        .members
        .add(ControllerId(spare), Addresses::default());
    joined.await.is_ok()
}

async fn send_away(world: &World, boot: &Boot, id: NodeId, why: &str) -> bool {
    let removed = boot.core.members.remove(ControllerId(id)).await.is_ok();
    if removed {
        world.enlist(id, Standing::Gone);
        world.controllers[&id].crash(world, why, End::Killed);
    }
    removed
}

/// What is to be done about one whose log is damaged: it goes, and another machine comes in its place.
pub async fn replace(world: &Arc<World>, id: NodeId) -> bool {
    let (Some(spare), Some(boot)) = (world.spare(), world.leading()) else {
        return false;
    };
    world.trace.say(format_args!("c{id} is to be replaced"));
    if !send_away(world, &boot, id, "it was replaced").await {
        return false;
    }
    if let Some(boot) = world.leading().filter(|_| world.spare() == Some(spare)) {
        let_in(world, &boot, spare).await;
    }
    true
}

/// As many are down as there may be, and one that lives is to go: those that would be left could not go on, so it has to
/// be refused.
pub async fn remove_too_many(world: &Arc<World>) -> bool {
    let Some(boot) = world.leading() else {
        return false;
    };
    let mut others: Vec<NodeId> = boot.core.members.effective().voter_ids().collect();
    let most = others.len().saturating_sub(1) / 2;
    others.retain(|id| *id != boot.id);
    // With an even number of voters one may go whenever all of them could go on.
    if others.len() < 2 || !others.len().is_multiple_of(2) {
        return false;
    }
    let (down, up) = others.split_at(most);
    let boots = |ids: &[NodeId]| -> Vec<u64> {
        let controllers = ids.iter().map(|id| &world.controllers[id]);
        controllers.map(|controller| controller.boots()).collect()
    };
    for id in down {
        world.controllers[id].crash(world, Fault::RemoveTooMany.name(), End::Killed);
    }
    // Until the leader counts them as gone.
    pass(world, 1_000..2_000).await;
    let (before, gone) = (boots(down), world.dice.pick(up).copied());
    let Some(gone) = gone.filter(|_| all_vote(&boot, &others)) else {
        start(world, down).await;
        return false;
    };
    world
        .trace
        .say(format_args!("c{gone} is to go, without a quorum"));
    let asked = boot.core.members.remove(ControllerId(gone));
    let answer = SimRuntime::timeout(REFUSAL, asked).await;
    let still_down = before == boots(down) && down.iter().all(|id| world.boot(*id).is_none());
    // One that another fault has let in meanwhile does for the one that went.
    let configs = boot.core.members.effective();
    let next = configs.membership().get_joint_config().last();
    let is_short = next.is_none_or(|voters| voters.len() <= others.len());
    if still_down && !all_vote(&boot, &others) && is_short {
        let what = format!(
            "c{gone} was removed from {others:?} and c{} with {down:?} down",
            boot.id
        );
        world.judge.found("I13 enough voters go on", what);
    }
    start(world, down).await;
    still_down && matches!(answer, Ok(Err(_)))
}

/// Whether each of them votes in each configuration that is in force.
fn all_vote(boot: &Boot, ids: &[NodeId]) -> bool {
    let members = boot.core.members.effective();
    let mut configs = members.membership().get_joint_config().iter();
    configs.all(|voters: &BTreeSet<NodeId>| ids.iter().all(|id| voters.contains(id)))
}

async fn start(world: &Arc<World>, down: &[NodeId]) {
    for id in down {
        world.start(*id).await;
    }
}
