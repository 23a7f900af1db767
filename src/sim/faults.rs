//! The faults of a run, one after the other and over each other, each healed again after a while.

mod damage;
mod load;
mod members;

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Command, ControllerId, Submit};
use openraft_rt_sim::SimRuntime;
use raft::parts::NodeId;
use raft::parts::openraft::async_runtime::AsyncRuntime;
use tokio::sync::Semaphore;

use crate::agents::Agent;
use crate::clients::{ask, insist, someone, spec};
use crate::controller::{Doom, End};
use crate::disk::{Disk, Mood};
use crate::network::{Place, Weather, client};
use crate::plan::Fault;
use crate::process;
use crate::trace::lock;
use crate::world::World;

/// Until everything is healed.
pub async fn run(world: Arc<World>) {
    if world.plan.faults.is_empty() {
        return;
    }
    let places = Arc::new(Semaphore::new(
        world.plan.at_once.min(Semaphore::MAX_PERMITS),
    ));
    loop {
        SimRuntime::sleep(world.dice.millis(world.plan.pause.clone())).await;
        let place = places.clone().acquire_owned().await;
        if world.is_healing() {
            return;
        }
        if let Some(fault) = world.dice.pick(&world.plan.faults).copied() {
            let world = world.clone();
            drop(SimRuntime::spawn(async move {
                inflict(world, fault).await;
                drop(place);
            }));
        }
    }
}

async fn inflict(world: Arc<World>, fault: Fault) {
    let happened = match fault {
        Fault::KillController | Fault::KillLeader | Fault::KillAllControllers | Fault::PowerOff => {
            kill(&world, fault).await
        }
        Fault::KillInWrite => kill_in_write(&world).await,
        Fault::KillInVote => kill_in_vote(&world).await,
        Fault::TornTail => damage::tear_tail(&world).await,
        Fault::FlipBit => damage::flip_bit(&world).await,
        Fault::Isolate | Fault::Split | Fault::OneWay => cut_controllers(&world, fault).await,
        Fault::Refuse => refuse(&world).await,
        Fault::Weather => weather(&world).await,
        Fault::SlowDisk => slow_disk(&world).await,
        Fault::BrokenDisk => fail_disk(&world, Mood::Broken).await,
        Fault::FullDisk => fail_disk(&world, Mood::Full).await,
        Fault::WallClock => set_clock(&world).await,
        Fault::HandOver => hand_over(&world, any_controller(&world)).await,
        Fault::Membership => members::change(&world).await,
        Fault::RemoveTooMany => members::remove_too_many(&world).await,
        Fault::KillAgent | Fault::LoseJournal => kill_agent(&world, fault).await,
        Fault::StopAgent => stop_agent(&world).await,
        Fault::CutAgent | Fault::CutAgentFromLeader => cut_agent(&world, fault).await,
        Fault::OldLeader => meet_old_leader(&world).await,
        Fault::StopAtLeaseEnd => stop_until_lease_ends(&world).await,
        Fault::SlowJournal => slow_journal(&world).await,
        Fault::Cordon => cordon(&world).await,
        Fault::Quota => load::change_quota(&world).await,
        Fault::Rules => load::make_rules(&world).await,
        Fault::Crowd => load::crowd(&world).await,
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

fn leader_or_any(world: &World) -> NodeId {
    world.leader().unwrap_or_else(|| any_controller(world))
}

fn any_agent(world: &World) -> Arc<Agent> {
    let agents: Vec<Arc<Agent>> = world.agents.values().cloned().collect();
    let picked = world.dice.pick(&agents).cloned();
    picked.unwrap_or_else(|| unreachable!("a plan has at least one agent"))
}

/// Rather one that runs something: what is lost with it matters.
fn busy_agent(world: &World) -> Arc<Agent> {
    rather(world, Agent::is_busy)
}

/// Rather one that has room.
fn idle_agent(world: &World) -> Arc<Agent> {
    rather(world, Agent::has_room)
}

fn rather(world: &World, wanted: impl Fn(&Agent) -> bool) -> Arc<Agent> {
    let agents = world.agents.values().cloned();
    let wanted: Vec<Arc<Agent>> = agents.filter(|agent| wanted(agent)).collect();
    let picked = world.dice.pick(&wanted).cloned();
    picked.unwrap_or_else(|| any_agent(world))
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

/// What was written is lost with it, and what it said of that was a lie, if it said so already.
async fn kill_in_write(world: &Arc<World>) -> bool {
    let id = any_controller(world);
    let happened = doom(world, id, Doom::Any).await;
    pass(world, 1..300).await;
    world.start(id).await;
    happened
}

/// A vote is written when nobody leads, so the leader is killed first. Whoever was voted for is not heard then, so that
/// the others choose again, in the same term.
async fn kill_in_vote(world: &Arc<World>) -> bool {
    let Some(leader) = world.leader() else {
        return false;
    };
    let others: Vec<NodeId> = world
        .members()
        .into_iter()
        .filter(|id| *id != leader)
        .collect();
    let voter = world.dice.pick(&others).copied().unwrap_or(1);
    world.controllers[&leader].crash(world, Fault::KillInVote.name(), End::Killed);
    let happened = doom(world, voter, Doom::Vote).await;
    let candidate = others.into_iter().find(|id| *id != voter);
    let candidate = candidate.filter(|_| world.dice.permille(700));
    let ways: Vec<(Place, Place)> = candidate
        .iter()
        .flat_map(|one| {
            world
                .members()
                .into_iter()
                .flat_map(|id| [(*one, id), (id, *one)])
        })
        .collect();
    world.network.cut(&ways);
    for id in [voter, leader] {
        pass(world, 1..100).await;
        world.start(id).await;
    }
    pass(world, 500..3_000).await;
    world.network.mend(&ways);
    happened
}

/// Until it was killed in such a write; there may be none.
async fn doom(world: &World, id: NodeId, doom: Doom) -> bool {
    let controller = &world.controllers[&id];
    controller.doom(Some(doom));
    for _ in 0..400 {
        pass(world, 5..6).await;
        if !controller.is_doomed() {
            return true;
        }
    }
    controller.doom(None);
    false
}

async fn cut_controllers(world: &World, fault: Fault) -> bool {
    let ids = world.members();
    let one = match world.dice.permille(500) {
        true => leader_or_any(world),
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
    let to = leader_or_any(world);
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

async fn set_clock(world: &World) -> bool {
    let id = any_controller(world);
    let hour = 3_600_000;
    let span = world.dice.within(0..2 * hour);
    let off = i64::try_from(span).unwrap_or(0) - i64::try_from(hour).unwrap_or(0);
    world
        .trace
        .say(format_args!("c{id}'s clock is {off} ms off"));
    world.controllers[&id].set_wall_off(off);
    // A clock is read anew when its controller begins to lead.
    if world.dice.permille(500) {
        hand_over(world, id).await;
    }
    true
}

async fn hand_over(world: &World, to: NodeId) -> bool {
    let to = ControllerId(to);
    let Some(boot) = world.leading() else {
        return false;
    };
    world.trace.say(format_args!("hand over to {to}"));
    boot.core.members.transfer(Some(to)).await.is_ok()
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

/// Some agents, and not all where there are several: others are given what they held.
fn some_agents(world: &World) -> Vec<Place> {
    let first = busy_agent(world).place;
    let others = world.agents.keys().copied().filter(|place| *place != first);
    let others: Vec<Place> = others
        .skip(1)
        .filter(|_| world.dice.permille(400))
        .collect();
    others.into_iter().chain([first]).collect()
}

async fn cut_agent(world: &Arc<World>, fault: Fault) -> bool {
    if world.dice.permille(500) {
        for _ in 0..world.agents.len() {
            drop(SimRuntime::spawn(submit(world.clone(), 20_000..40_000)));
        }
        pass(world, 50..1_500).await;
    }
    let agents = some_agents(world);
    let leader = world
        .leader()
        .filter(|_| fault == Fault::CutAgentFromLeader);
    let others: Vec<NodeId> = world
        .members()
        .into_iter()
        .filter(|id| Some(*id) != leader)
        .collect();
    // With a leader they hear it, and nobody else hears any of them: their leases must not live on.
    let apart = agents.into_iter().chain(leader);
    let ways: Vec<(Place, Place)> = apart
        .flat_map(|place| {
            others
                .iter()
                .flat_map(move |id| [(place, *id), (*id, place)])
        })
        .collect();
    let longer_than_a_lease = world.dice.permille(600);
    let shortest = if longer_than_a_lease { 16_000 } else { 1_000 };
    cut_for(world, &ways, shortest..40_000).await
}

/// A leader is cut off from the other controllers and does not know that another one was elected. Agents come to it,
/// and it takes what it can't commit.
async fn meet_old_leader(world: &Arc<World>) -> bool {
    let Some(old) = world.leader() else {
        return false;
    };
    let others = world.members().into_iter().filter(|id| *id != old);
    let ways: Vec<(Place, Place)> = others.flat_map(|id| [(old, id), (id, old)]).collect();
    world
        .trace
        .say(format_args!("c{old} is to be an old leader"));
    world.network.cut(&ways);
    for _ in 0..world.dice.within(1..5) {
        drop(SimRuntime::spawn(uncordon_at(world.clone(), old)));
        // Each an entry of its own.
        pass(world, 5..20).await;
    }
    deposed(world, old).await;
    if world.dice.permille(500) {
        // It comes back while its successor has no more entries than it, and has to forget what that one replaced.
        world.network.mend(&ways);
        pass(world, 50..1_000).await;
        let deposed = world.leader() != Some(old);
        if world.controllers[&old].crash(world, "it was an old leader", End::Killed) {
            pass(world, 50..500).await;
            world.start(old).await;
        }
        return deposed;
    }
    pass(world, 0..2_000).await;
    if world.dice.permille(500) {
        reset(world, old);
    }
    if world.dice.permille(700) {
        start_beside(world, old).await;
    }
    pass(world, 500..3_000).await;
    world.network.mend(&ways);
    world.leader() != Some(old)
}

/// What changes nothing, and makes an entry all the same.
async fn uncordon_at(world: Arc<World>, id: NodeId) {
    let agent = any_agent(&world).id.clone();
    let (operator, command) = (someone("operator"), Command::UncordonAgent { agent });
    ask(&world, client(0), id, operator, command).await.ok();
}

/// Until the others are about to choose another one.
async fn deposed(world: &World, old: NodeId) {
    let term = |id: NodeId| Some(world.boot(id)?.core.leadership.get().term);
    let (before, members) = (term(old), world.members());
    for _ in 0..1_500 {
        if world.is_healing() || members.iter().any(|id| term(*id) > before) {
            return;
        }
        pass(world, 2..3).await;
    }
}

/// All connections of agents to a controller end, and are made again.
fn reset(world: &World, id: NodeId) {
    if let Some(boot) = world.boot(id) {
        for conn in lock(&boot.conns).values() {
            conn.broken.cancel();
        }
    }
}

/// An agent starts again, and this controller is all that it reaches for a while.
async fn start_beside(world: &Arc<World>, id: NodeId) {
    let agent = any_agent(world);
    let others = world.members().into_iter().filter(|other| *other != id);
    let ways: Vec<(Place, Place)> = others
        .flat_map(|other| [(agent.place, other), (other, agent.place)])
        .collect();
    world.network.cut(&ways);
    agent.crash(world, "it is to meet an old leader");
    pass(world, 200..500).await;
    world.start_agent(&agent);
    pass(world, 500..2_000).await;
    world.network.mend(&ways);
}

/// An agent goes on when its lease has just run out, while the entry that ends it is on the way to slow disks. What
/// came meanwhile waits for it, and it may have been its own disk that it hung on.
async fn stop_until_lease_ends(world: &Arc<World>) -> bool {
    let agent = idle_agent(world);
    let Some(left) = agent.boot().and_then(|boot| boot.until_lost(world)) else {
        return false;
    };
    world
        .trace
        .say(format_args!("{} stops until its lease ends", agent.id));
    agent.paused.set(true);
    let hung = world.dice.permille(500);
    if hung {
        agent.set_journal_latency(100_000..1_500_000);
    }
    for _ in 0..world.dice.below(5) {
        drop(SimRuntime::spawn(submit(world.clone(), 1_000..6_000)));
    }
    SimRuntime::sleep(left).await;
    let slow = world.dice.within(2_000..600_000);
    let disks = || {
        world
            .controllers
            .values()
            .map(|controller| &controller.disk)
    };
    if !world.is_healing() {
        disks().for_each(|disk| disk.set_latency(slow / 2..slow));
    }
    // The leader looks ten times a second what has run out.
    pass(world, 50..250).await;
    agent.paused.set(false);
    world.trace.say(format_args!("{} goes on", agent.id));
    pass(world, 500..2_000).await;
    disks().for_each(|disk| disk.set_latency(Disk::QUICK));
    if hung {
        pass(world, 500..3_000).await;
        agent.set_journal_latency(Agent::QUICK);
    }
    true
}

/// A task whose process takes so long.
fn task(world: &World, millis: std::ops::Range<u64>) -> Command {
    Command::SubmitTask(Submit {
        spec: spec(process::command(world.dice.within(millis), 0)),
        request_id: None,
    })
}

async fn submit(world: Arc<World>, millis: std::ops::Range<u64>) {
    let (operator, command) = (someone("operator"), task(&world, millis));
    insist(&world, client(0), &operator, &command).await.ok();
}

/// An agent waits for its journal, and may be killed while it does.
async fn slow_journal(world: &Arc<World>) -> bool {
    let agent = any_agent(world);
    let slow = world.dice.within(20_000..1_000_000);
    agent.set_journal_latency(slow / 2..slow);
    pass(world, 500..8_000).await;
    if world.dice.permille(500) && agent.crash(world, "its disk was slow") {
        pass(world, 200..3_000).await;
        world.start_agent(&agent);
    }
    agent.set_journal_latency(Agent::QUICK);
    true
}

/// Also while something is about to go there.
async fn cordon(world: &Arc<World>) -> bool {
    let agent = idle_agent(world).id.clone();
    let operator = someone("operator");
    let mut done = false;
    for _ in 0..world.dice.within(1..6) {
        let leader = leader_or_any(world);
        for _ in 0..world.dice.below(8) {
            let world = world.clone();
            drop(SimRuntime::spawn(async move {
                pass(&world, 0..8).await;
                let (operator, command) = (someone("operator"), task(&world, 0..500));
                ask(&world, client(0), leader, operator, command).await.ok();
            }));
        }
        let cordon = Command::CordonAgent {
            agent: agent.clone(),
            reason: "a fault".to_owned(),
        };
        let asked = ask(world, client(0), leader, operator.clone(), cordon);
        done |= asked.await.is_ok();
        pass(world, 50..3_000).await;
        let uncordon = Command::UncordonAgent {
            agent: agent.clone(),
        };
        insist(world, client(0), &operator, &uncordon).await.ok();
    }
    done
}

pub type Inflicted = BTreeMap<Fault, u64>;
