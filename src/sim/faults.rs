//! The faults of a run, one after the other and over each other, each healed again after a while.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Addresses, Command, ControllerId};
use openraft_rt_sim::SimRuntime;
use raft::parts::NodeId;
use raft::parts::openraft::async_runtime::AsyncRuntime;

use crate::agents::Agent;
use crate::clients::{insist, someone};
use crate::controller::{Doom, End};
use crate::disk::{Disk, Mood};
use crate::network::{Place, Weather, client};
use crate::plan::Fault;
use crate::trace::lock;
use crate::world::{Standing, World};

/// Until everything is healed.
pub async fn run(world: Arc<World>) {
    if world.plan.faults.is_empty() {
        return;
    }
    loop {
        SimRuntime::sleep(world.dice.millis(world.plan.pause.clone())).await;
        if world.is_healing() {
            return;
        }
        if let Some(fault) = world.dice.pick(&world.plan.faults).copied() {
            drop(SimRuntime::spawn(inflict(world.clone(), fault)));
        }
    }
}

async fn inflict(world: Arc<World>, fault: Fault) {
    let happened = match fault {
        Fault::KillController | Fault::KillLeader | Fault::KillAllControllers | Fault::PowerOff => {
            kill(&world, fault).await
        }
        Fault::KillInWrite => kill_in_write(&world, Doom::Any).await,
        Fault::KillInVote => kill_in_write(&world, Doom::Vote).await,
        Fault::Isolate | Fault::Split | Fault::OneWay => cut_controllers(&world, fault).await,
        Fault::Refuse => refuse(&world).await,
        Fault::Weather => weather(&world).await,
        Fault::SlowDisk => slow_disk(&world).await,
        Fault::BrokenDisk => fail_disk(&world, Mood::Broken).await,
        Fault::FullDisk => fail_disk(&world, Mood::Full).await,
        Fault::WallClock => set_clock(&world),
        Fault::HandOver => hand_over(&world).await,
        Fault::Membership => change_members(&world).await,
        Fault::KillAgent | Fault::LoseJournal => kill_agent(&world, fault).await,
        Fault::StopAgent => stop_agent(&world).await,
        Fault::CutAgent | Fault::CutAgentFromLeader => cut_agent(&world, fault).await,
        Fault::Cordon => cordon(&world).await,
    };
    if happened {
        *lock(&world.faults).entry(fault).or_default() += 1;
    }
}

async fn pass(world: &World, millis: std::ops::Range<u64>) {
    SimRuntime::sleep(world.dice.millis(millis)).await;
}

fn any_controller(world: &World) -> NodeId {
    let ids = world.members();
    world.dice.pick(&ids).copied().unwrap_or(1)
}

fn any_agent(world: &World) -> Arc<Agent> {
    let agents: Vec<Arc<Agent>> = world.agents.values().cloned().collect();
    let picked = world.dice.pick(&agents).cloned();
    picked.unwrap_or_else(|| unreachable!("a plan has at least one agent"))
}

async fn kill(world: &Arc<World>, fault: Fault) -> bool {
    let ids: Vec<NodeId> = match fault {
        Fault::KillAllControllers => world.members(),
        Fault::KillLeader => world.leader().into_iter().collect(),
        _ => vec![any_controller(world)],
    };
    let end = match fault {
        Fault::PowerOff => End::PowerOff,
        _ => End::Killed,
    };
    let killed: Vec<NodeId> = ids
        .into_iter()
        .filter(|id| world.controllers[id].crash(world, fault.name(), end))
        .collect();
    for id in &killed {
        let (world, id) = (world.clone(), *id);
        drop(SimRuntime::spawn(async move {
            pass(&world, 50..5_000).await;
            world.start(id).await;
        }));
    }
    !killed.is_empty()
}

/// What was written is lost with it, and what it said of that was a lie, if it said so already. A vote is written
/// when others lead no more, so for that the leader is killed first.
async fn kill_in_write(world: &Arc<World>, doom: Doom) -> bool {
    let leader = world.leader();
    let others = world.members().into_iter().filter(|id| Some(*id) != leader);
    let id = match doom {
        Doom::Any => any_controller(world),
        Doom::Vote => {
            let others: Vec<NodeId> = others.collect();
            world.dice.pick(&others).copied().unwrap_or(1)
        }
    };
    let controller = &world.controllers[&id];
    controller.doom(Some(doom));
    if doom == Doom::Vote {
        kill(world, Fault::KillLeader).await;
    }
    for _ in 0..40 {
        pass(world, 50..51).await;
        if !controller.is_doomed() {
            break;
        }
    }
    let happened = !controller.is_doomed();
    controller.doom(None);
    // At once, so that it can vote again in the same term.
    pass(world, 1..300).await;
    world.start(id).await;
    happened
}

async fn cut_controllers(world: &World, fault: Fault) -> bool {
    let ids = world.members();
    let one = match world.dice.permille(500) {
        true => world.leader().unwrap_or_else(|| any_controller(world)),
        false => any_controller(world),
    };
    let others = || ids.iter().copied().filter(|id| *id != one);
    let ways: Vec<(Place, Place)> = match fault {
        Fault::OneWay => {
            let to = world.dice.pick(&others().collect::<Vec<_>>()).copied();
            vec![(one, to.unwrap_or(one))]
        }
        Fault::Split => {
            // Of five, two are on the one side.
            let beside = others().take((ids.len() - 1) / 4);
            let side: Vec<NodeId> = beside.chain([one]).collect();
            let away = |id: &NodeId| !side.contains(id);
            let across = side
                .iter()
                .flat_map(|from| ids.iter().filter(|id| away(id)).map(|to| (*from, *to)));
            across.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
        }
        // Clients reach it all the same: it must not answer them from the past.
        _ => others().flat_map(|id| [(one, id), (id, one)]).collect(),
    };
    cut_for(world, &ways, 200..8_000).await
}

async fn cut_for(world: &World, ways: &[(Place, Place)], millis: std::ops::Range<u64>) -> bool {
    let before = world.network.swallowed().cut;
    world.trace.say(format_args!("cut {ways:?}"));
    world.network.cut(ways);
    pass(world, millis).await;
    world.network.mend(ways);
    world.trace.say(format_args!("mended {ways:?}"));
    world.network.swallowed().cut > before
}

/// A firewall says that nobody listens at a port: to some of the others, or to all.
async fn refuse(world: &World) -> bool {
    let to = world.leader().unwrap_or_else(|| any_controller(world));
    let others = world.members().into_iter().filter(|id| *id != to);
    let ways: Vec<(Place, Place)> = others
        .filter(|_| world.dice.permille(700))
        .map(|from| (from, to))
        .collect();
    world.trace.say(format_args!("refused {ways:?}"));
    world.network.refuse(&ways);
    pass(world, 20..6_000).await;
    world.network.accept(&ways);
    !ways.is_empty()
}

async fn weather(world: &World) -> bool {
    let slowest = world.dice.within(1_000..80_000);
    let weather = Weather {
        delay: 100..slowest,
        lost: u32::try_from(world.dice.below(200)).unwrap_or(0),
        doubled: u32::try_from(world.dice.below(200)).unwrap_or(0),
    };
    world.trace.say(format_args!("weather {weather:?}"));
    let before = world.network.swallowed();
    world.network.set_weather(weather);
    pass(world, 1_000..10_000).await;
    world.network.set_weather(Weather::CALM);
    let after = world.network.swallowed();
    after.lost + after.doubled > before.lost + before.doubled
}

async fn slow_disk(world: &World) -> bool {
    let disk = world.controllers[&any_controller(world)].disk.clone();
    let slow = world.dice.within(5_000..800_000);
    disk.set_latency(slow / 2..slow);
    pass(world, 1_000..8_000).await;
    disk.set_latency(Disk::QUICK);
    true
}

/// The process stops by itself, and is started again once the disk is well.
async fn fail_disk(world: &Arc<World>, mood: Mood) -> bool {
    let id = any_controller(world);
    let disk = world.controllers[&id].disk.clone();
    let failed = |disk: &Disk| disk.failed().values().sum::<u64>();
    let before = failed(&disk);
    disk.set_mood(mood);
    pass(world, 500..6_000).await;
    disk.set_mood(Mood::Well);
    // Should it not have noticed, its log may still be at odds with the disk.
    let happened = failed(&disk) > before;
    pass(world, 10..2_000).await;
    world.start(id).await;
    happened
}

fn set_clock(world: &World) -> bool {
    let id = any_controller(world);
    let hour = 3_600_000;
    let span = world.dice.within(0..2 * hour);
    let off = i64::try_from(span).unwrap_or(0) - i64::try_from(hour).unwrap_or(0);
    world
        .trace
        .say(format_args!("c{id}'s clock is {off} ms off"));
    world.controllers[&id].set_wall_off(off);
    true
}

async fn hand_over(world: &World) -> bool {
    let to = ControllerId(any_controller(world));
    let Some(boot) = world.leader().and_then(|id| world.boot(id)) else {
        return false;
    };
    world.trace.say(format_args!("hand over to {to}"));
    boot.core.members.transfer(Some(to)).await.is_ok()
}

/// A new controller is let in, or one is sent away: the leader, too.
async fn change_members(world: &Arc<World>) -> bool {
    let Some(boot) = world.leader().and_then(|id| world.boot(id)) else {
        return false;
    };
    let members = &boot.core.members;
    let present = world.members();
    match world.spare() {
        Some(spare) if present.len() < 4 || world.dice.permille(500) => {
            world.trace.say(format_args!("c{spare} is to join"));
            world.enlist(spare, Standing::Member);
            world.start(spare).await;
            members
                .add(ControllerId(spare), Addresses::default())
                .await
                .is_ok()
        }
        _ if present.len() > 3 => {
            let id = any_controller(world);
            world.trace.say(format_args!("c{id} is to go"));
            let removed = members.remove(ControllerId(id)).await.is_ok();
            if removed {
                world.enlist(id, Standing::Gone);
                world.controllers[&id].crash(world, "it was removed", End::Killed);
            }
            removed
        }
        _ => false,
    }
}

async fn kill_agent(world: &Arc<World>, fault: Fault) -> bool {
    let agent = any_agent(world);
    if !agent.crash(world, fault.name()) {
        return false;
    }
    if fault == Fault::LoseJournal {
        agent.lose_journal(world.dice.bytes());
    }
    // What it ran is ended by its guard, or by its next process, before that does anything.
    pass(world, 200..30_000).await;
    world.start_agent(&agent);
    true
}

/// Some wake up long after their lease: zombies.
async fn stop_agent(world: &World) -> bool {
    let agent = any_agent(world);
    world.trace.say(format_args!("{} stops", agent.id));
    agent.paused.set(true);
    pass(world, 500..40_000).await;
    agent.paused.set(false);
    world.trace.say(format_args!("{} goes on", agent.id));
    true
}

async fn cut_agent(world: &World, fault: Fault) -> bool {
    let agent = any_agent(world).place;
    let mut ways: Vec<(Place, Place)> = Vec::new();
    match (fault, world.leader()) {
        // They hear each other, and nobody else hears them: its lease must not live on.
        (Fault::CutAgentFromLeader, Some(leader)) => {
            for id in world.members().into_iter().filter(|id| *id != leader) {
                ways.extend([(agent, id), (id, agent), (leader, id), (id, leader)]);
            }
        }
        _ => {
            for id in world.members() {
                ways.extend([(agent, id), (id, agent)]);
            }
        }
    }
    cut_for(world, &ways, 1_000..40_000).await
}

async fn cordon(world: &Arc<World>) -> bool {
    let agent = any_agent(world).id.clone();
    let operator = someone("operator");
    let cordon = Command::CordonAgent {
        agent: agent.clone(),
        reason: "a fault".to_owned(),
    };
    let done = insist(world, client(0), &operator, &cordon).await.is_ok();
    pass(world, 500..10_000).await;
    let uncordon = Command::UncordonAgent { agent };
    insist(world, client(0), &operator, &uncordon).await.ok();
    done
}

pub type Inflicted = BTreeMap<Fault, u64>;
