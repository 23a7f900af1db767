//! What stands on a controller's disk is not what was written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{any_controller, doom, members, pass};
use crate::controller::{Doom, End};
use crate::plan::Fault;
use crate::world::World;

/// It is killed in a write of which a part is there. Nobody was told of that, so the start after it goes on without it.
pub async fn tear_tail(world: &Arc<World>) -> bool {
    let id = any_controller(world);
    let cut = || world.controllers[&id].disk.cut.load(Ordering::Relaxed);
    let before = cut();
    doom(world, id, Doom::Half).await;
    pass(world, 1..300).await;
    world.start(id).await;
    cut() > before
}

/// One bit of its log turns while it is down. It must not start on that. Its place is taken by another one, or the disk
/// reads well again.
pub async fn flip_bit(world: &Arc<World>) -> bool {
    let id = any_controller(world);
    let controller = &world.controllers[&id];
    let disk = controller.disk.clone();
    let refused = || disk.refused.load(Ordering::Relaxed);
    let told = disk.acknowledged.load(Ordering::Relaxed);
    if told == 0 || !controller.crash(world, Fault::FlipBit.name(), End::Killed) {
        return false;
    }
    world.trace.say(format_args!("a bit of c{id} turns"));
    disk.flip();
    let before = refused();
    pass(world, 50..1_000).await;
    world.start(id).await;
    let happened = refused() > before;
    if !disk.log.is_flipped() {
        world.judge.count("bits turned where nothing reads");
        return false;
    }
    pass(world, 200..6_000).await;
    if world.dice.permille(600) && !world.is_healing() && members::replace(world, id).await {
        world.judge.count("damaged controllers replaced");
        return happened;
    }
    disk.log.unflip();
    world.start(id).await;
    happened
}
