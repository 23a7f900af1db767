//! Many agents on one cluster: what they cost it, and how soon all of them are back.
//!
//! First two agents, then many, under the same closed loop of tasks. Then the many do nothing but keep their
//! leases, and memory and processor time of the controllers are read. Then, with tasks in flight all the time,
//! the leader is killed over and over: until each agent's lease is confirmed by the next leader, and, once
//! the killed one was started again, until each has a session with it.
//!
//! An election without a kill, or more than one for a kill, fails the run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster_tests::Error;
use cluster_tests::cluster::Cluster;
use cluster_tests::faults::{self, process::Process};
use cluster_tests::history::{Action, Operation};
use cluster_tests::report::{Samples, Spread, grouped, mebibytes, span};
use cluster_tests::traffic::bench_agent::Fleet;
use cluster_tests::traffic::{self, Caller, Load};

use crate::Arguments;
use crate::cost::TICKS_PER_SECOND;
use crate::rounds::{self, Way};
use crate::site::Site;

/// With which the many are compared.
const FEW: u32 = 2;
/// Slots of all agents together, few or many: only the number of agents differs.
const SLOTS: u32 = 2_000;
const IN_FLIGHT: u32 = 256;
/// Beside the kills: enough that tasks are on their way at each of them.
const IN_FLIGHT_MEANWHILE: u32 = 16;
/// What takes longer has failed.
const LIMIT: Duration = Duration::from_secs(60);
/// Beats of every agent over which the idle cluster is watched.
const BEATS: u64 = 3;

pub async fn measure(agents: u32, arguments: &Arguments) -> Result<(), Error> {
    let site = Site::without_agents("bench-agents").await?;
    let few = Fleet::start(&site.cluster, FEW, SLOTS / FEW).await?;
    few.until_leased_after(0, LIMIT).await?;
    throughput(&site, arguments, &few).await?;
    drop((few, site));

    let site = Site::without_agents("bench-agents").await?;
    let fleet = Fleet::start(&site.cluster, agents, SLOTS.div_ceil(agents)).await?;
    let begun = Instant::now();
    fleet.until_leased_after(0, LIMIT).await?;
    let leased = begun.elapsed();
    fleet
        .until_connected(site.cluster.addresses()?.len(), LIMIT)
        .await?;
    println!(
        "    {} agents, started at once: all have a lease after {}, all their sessions after {}",
        fleet.len(),
        span(leased),
        span(begun.elapsed())
    );
    site.cluster.until_agents_ready(fleet.len()).await?;
    idle(&site.cluster, &fleet).await?;
    throughput(&site, arguments, &fleet).await?;
    kills(&site, &fleet, arguments.rounds).await
}

async fn throughput(site: &Site, arguments: &Arguments, fleet: &Fleet) -> Result<(), Error> {
    let clients = site.clients().await?;
    let term = site.cluster.status().await?.term;
    let mut measured = Vec::new();
    for _ in 0..arguments.rounds {
        let length = Duration::from_secs(arguments.seconds);
        measured.push(rounds::run(&clients, Way::Calls, IN_FLIGHT, length).await?);
    }
    let rate = Spread::of(measured.iter().map(rounds::Round::per_second)).unwrap_or_default();
    let p99 = measured
        .iter()
        .map(|round| round.latencies.percentile(99).as_secs_f64() * 1_000.0);
    let p99 = Spread::of(p99).unwrap_or_default();
    println!(
        "    {} agents, {IN_FLIGHT} tasks in flight: {:.0} tasks/s ({:.0} to {:.0}), p99 {:.0} ms ({:.0} to {:.0})",
        fleet.len(),
        rate.median,
        rate.lowest,
        rate.highest,
        p99.median,
        p99.lowest,
        p99.highest
    );
    same_term(&site.cluster, term).await
}

/// Nothing but leases and statuses.
async fn idle(cluster: &Cluster, fleet: &Fleet) -> Result<(), Error> {
    let leader = cluster.leader().await?;
    let term = cluster.status().await?.term;
    let (begun, before) = (Instant::now(), ticks(cluster)?);
    fleet.until_renewed(BEATS, LIMIT).await?;
    let (after, took) = (ticks(cluster)?, begun.elapsed().as_secs_f64());
    for ((id, pid, from), (_, _, until)) in before.into_iter().zip(after) {
        let memory = mebibytes(Process::resident_bytes(pid).unwrap_or_default());
        let cores = until.saturating_sub(from) as f64 / TICKS_PER_SECOND / took;
        let role = if id == leader { "leads" } else { "follows" };
        println!("    idle for {took:.0} s: {id} ({role}) {memory}, {cores:.3} cores");
    }
    same_term(cluster, term).await
}

/// Processor time of each controller so far.
fn ticks(cluster: &Cluster) -> Result<Vec<(String, i32, u64)>, Error> {
    let controllers = cluster.layout()?.controllers.into_iter();
    let look = |controller: cluster_tests::cluster::Controller| {
        let pid = controller.pid?;
        Some((controller.id, pid, Process::look(pid)?.processor_ticks))
    };
    Ok(controllers.filter_map(look).collect())
}

async fn kills(site: &Site, fleet: &Fleet, times: u32) -> Result<(), Error> {
    let caller = Caller::new(&site.cluster.addresses()?, site.tls());
    let load = Load {
        name: "load",
        in_flight: IN_FLIGHT_MEANWHILE,
        spec: Arc::new(|_| traffic::process(["true"])),
        patience: LIMIT,
        pause: Duration::ZERO,
    }
    .start(&caller);
    let (mut usable, mut back) = (Vec::new(), Vec::new());
    for number in 1..=times {
        let (leased, connected) = kill(site, fleet).await?;
        println!(
            "    kill {number} of {times}: all leased after {}, back at the one that was killed after {}",
            span(leased),
            span(connected)
        );
        usable.push(leased);
        back.push(connected);
    }
    let history = load.finish().await?;
    let waits = |it: &&Operation| matches!(it.action, Action::Wait { .. });
    let submits = |it: &&Operation| matches!(it.action, Action::Submit { .. });
    let ended = |it: &&Operation| waits(it) && it.outcome.answer().is_some();
    let tasks = history.operations.iter().filter(submits).count();
    let lost = tasks.saturating_sub(history.operations.iter().filter(ended).count());
    for (what, samples) in [
        (
            "leader killed, until every lease is confirmed by the next",
            usable,
        ),
        (
            "controller started again, until every agent has a session",
            back,
        ),
    ] {
        let samples = Samples::new(samples);
        println!(
            "    {what}: p50 {}, {} to {}",
            span(samples.percentile(50)),
            span(samples.shortest()),
            span(samples.longest())
        );
    }
    println!(
        "    {} tasks meanwhile, {lost} without a result",
        grouped(tasks as u64)
    );
    match lost {
        0 => Ok(()),
        _ => Err(Error::Broken("tasks were left without a result".to_owned())),
    }
}

async fn kill(site: &Site, fleet: &Fleet) -> Result<(Duration, Duration), Error> {
    let cluster = &site.cluster;
    let (leader, before) = (cluster.leader().await?, cluster.status().await?.term);
    let killed = faults::kill(cluster, &leader).await?;
    fleet.until_leased_after(before, LIMIT).await?;
    let leased = killed.at.elapsed();
    cluster.until_agents_ready(fleet.len()).await?;
    same_term(cluster, before + 1).await?;
    cluster.restart(&leader).await?;
    let began = Instant::now();
    let all = cluster.addresses()?.len();
    fleet.until_connected(all, LIMIT).await?;
    let connected = began.elapsed();
    cluster.until_whole().await?;
    same_term(cluster, before + 1).await?;
    Ok((leased, connected))
}

async fn same_term(cluster: &Cluster, wanted: u64) -> Result<(), Error> {
    match cluster.status().await?.term {
        term if term == wanted => Ok(()),
        term => Err(Error::Broken(format!(
            "an election that nobody asked for: term {term} instead of {wanted}"
        ))),
    }
}
