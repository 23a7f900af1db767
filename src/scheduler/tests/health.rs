//! What counts of an agent's machine.

use std::sync::Arc;

use model::{Class, Kind, Load, Magnitude, Strategy, Twentieths, Work};
use proptest::prelude::*;

use super::resources::{machine, supply};
use super::strategies::{Cluster, adds_up, counted};
use super::*;
use crate::{Machines, Planner};

/// In thousandths, and a latency in microseconds.
fn load(cpu: u32, others: u32, memory: u32, latency_us: u64) -> Load {
    Load {
        cpu: Twentieths::of(cpu),
        others: Twentieths::of(others),
        memory: Twentieths::of(memory),
        latency: Magnitude::of(latency_us),
    }
}

fn with(strategy: Strategy, agents: &[(&str, u32, Load)]) -> Cluster {
    let sized: Vec<_> = agents
        .iter()
        .map(|(name, slots, _)| (*name, *slots))
        .collect();
    let mut it = Cluster::new(strategy, &sized);
    for (name, _, load) in agents {
        sample(&mut it, name).load = *load;
    }
    it
}

fn sample<'c>(it: &'c mut Cluster, name: &str) -> &'c mut Sample {
    &mut it.fleet.agents.get_mut(&id(name)).unwrap().sample
}

fn takes(it: &mut Cluster, name: &str, work: Work, millis: u64) {
    let view = it.fleet.agents.get_mut(&id(name)).unwrap();
    Arc::make_mut(&mut view.service).insert(work, Magnitude::of(millis));
}

#[test]
fn health_is_four_parts_processors_three_memory_and_three_latency() {
    let near = load(0, 0, 0, 400);
    let mut it = with(
        Strategy::Adaptive,
        &[
            ("a1", 1, load(500, 0, 250, 400)),
            ("a2", 1, near),
            ("a3", 1, near),
            // Twice as far as is usual, and more: it is simply far.
            ("a4", 1, load(0, 0, 0, 90_000)),
        ],
    );
    let priorities = |it: &Cluster| {
        let machines = Machines::of(&it.state, &it.fleet);
        ["a1", "a2", "a4"].map(|name| machines.health(&id(name)).priority())
    };
    // Less than 1 ms counts as a part of 1 ms: 0.4 × 0.5 + 0.3 × 0.25 + 0.3 × 0.362.
    assert_eq!(priorities(&it), [383, 108, 600]);
    // Where all are far nobody is.
    for name in ["a1", "a2", "a3"] {
        sample(&mut it, name).load.latency = Magnitude::of(90_000);
    }
    assert_eq!(priorities(&it), [575, 300, 300]);
}

#[test]
fn who_is_busy_far_or_slow_comes_last_and_nobody_gets_all_at_once() {
    let idle = load(0, 0, 0, 400);
    for worse in [
        load(900, 0, 0, 400),
        load(0, 0, 900, 400),
        load(0, 0, 0, 50_000),
    ] {
        // Whoever it is, or a tie might have put it last.
        for last in ["a1", "a2", "a3"] {
            let load = |name| if name == last { worse } else { idle };
            let agents = ["a1", "a2", "a3"].map(|name| (name, 1, load(name)));
            let mut it = with(Strategy::Adaptive, &agents);
            assert_eq!(it.next(3)[2], last, "{worse:?}");
        }
    }
    let mut it = with(
        Strategy::Adaptive,
        &["a1", "a2", "a3"].map(|name| (name, 1, idle)),
    );
    takes(&mut it, "a1", Work::Kind(Kind::Process), 400);
    takes(&mut it, "a2", Work::Kind(Kind::Process), 100);
    // Of a3 nobody knows how long it takes: it is taken to be usual, which is what the quicker one takes.
    assert_eq!(it.next(3)[2], "a1");
    // A little less load draws a little more, until what is assigned weighs as much.
    let agents = [
        ("a1", 8, load(400, 0, 0, 400)),
        ("a2", 8, load(100, 0, 0, 400)),
    ];
    let mut it = with(Strategy::Adaptive, &agents);
    let chosen = it.next(8);
    let counts = counted(&chosen);
    assert!(
        counts["a2"] > counts["a1"] && counts["a1"] >= 2,
        "{counts:?}"
    );
}

#[test]
fn how_long_questions_take_is_known_by_model() {
    let mut it = with(
        Strategy::Adaptive,
        &["a1", "a2"].map(|name| (name, 4, Load::default())),
    );
    takes(&mut it, "a1", Work::Model("small".into()), 100);
    takes(&mut it, "a2", Work::Model("small".into()), 900);
    takes(&mut it, "a1", Work::Model("large".into()), 9_000);
    takes(&mut it, "a2", Work::Model("large".into()), 1_000);
    for (model, quick) in [("small", "a1"), ("large", "a2")] {
        let mut spec = question();
        spec.require.clear();
        spec.inference.as_mut().unwrap().model = model.into();
        let mut planner = Planner::new(&it.state, &it.fleet, NOW);
        let placed = planner.place(&spec, asker(1)).unwrap();
        assert_eq!(placed.agent, id(quick), "{model}");
    }
}

/// Work without an end, whose tasks are over at once: who gets how many of so many.
fn saturated(it: &mut Cluster, rounds: usize) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for _ in 0..rounds {
        for _ in 0..20 {
            it.submit("ann", &task(""));
        }
        for decided in it.round() {
            *counts
                .entry(decided.placement.agent.to_string())
                .or_insert(0) += 1;
        }
        it.all_end();
    }
    counts
}

#[test]
fn at_95_percent_an_agent_gets_at_most_a_twentieth_of_an_idle_ones_share_whatever_the_strategy() {
    let (hot, idle) = (load(950, 950, 500, 400), load(50, 50, 500, 400));
    for strategy in Strategy::ALL {
        let agents = [("a1", 4, hot), ("a2", 4, idle), ("a3", 2, idle)];
        let mut it = with(strategy, &agents);
        let counts = saturated(&mut it, 400);
        let (hot, idle) = (counts.get("a1").copied().unwrap_or(0), counts["a2"]);
        assert!(idle >= 1_590, "{strategy}: {counts:?}");
        assert!(
            hot * 20 <= idle && hot * 30 >= idle,
            "{strategy}: {counts:?}"
        );
    }
}

#[test]
fn what_its_own_attempts_use_holds_no_agent_back_nor_does_load_that_all_have() {
    let own = load(1_000, 0, 500, 400);
    let mut it = with(
        Strategy::Adaptive,
        &[("a1", 4, own), ("a2", 4, Load::default())],
    );
    assert_eq!(saturated(&mut it, 10)["a1"], 40);
    let all = load(1_000, 1_000, 500, 400);
    let mut it = with(Strategy::Adaptive, &[("a1", 4, all), ("a2", 4, all)]);
    assert_eq!(saturated(&mut it, 10)["a1"], 40);
    // A machine that is half used is none to wait for.
    sample(&mut it, "a2").load = load(500, 500, 500, 400);
    assert_eq!(saturated(&mut it, 10)["a1"], 40);
    // As it is when it is idle; and as soon as the load has gone all is as before.
    sample(&mut it, "a2").load = Load::default();
    assert!(saturated(&mut it, 10).get("a1").is_none_or(|it| *it <= 2));
    sample(&mut it, "a1").load = Load::default();
    assert_eq!(saturated(&mut it, 10)["a1"], 40);
}

#[test]
fn a_hot_agent_runs_what_idle_ones_can_not_and_why_says_what_holds_it_back() {
    let hot = load(990, 990, 500, 400);
    let mut it = with(
        Strategy::Adaptive,
        &[("a1", 4, hot), ("a2", 1, Load::default())],
    );
    apply(&mut it.state, vec![registration("b1", 4, "b")]);
    let same = it.fleet.agents[&id("a1")].clone();
    it.fleet.agents.insert(id("b1"), same);
    for zone in ["zone=a", "zone=a", "zone=b", "zone=b"] {
        it.submit("ann", &task(zone));
    }
    let decided = it.round();
    let decided: Vec<_> = decided
        .iter()
        .map(|it| (it.task.0, it.placement.agent.as_str()))
        .collect();
    assert_eq!(decided, [(1, "a2"), (3, "b1"), (4, "b1")]);
    let told = explain(&it.state, &it.fleet, NOW, TaskId(2)).unwrap();
    assert_eq!(
        told.summary,
        "It waits as number 1 in the queue: of 3 agents 1 does not satisfy its `require`, 1 has no free slot, 1 is busy \
         with other things, and gets only a twentieth of what idle ones do. It is likely to start in 1 s, by a guess."
    );
    // One that a person closed is none to wait for.
    let cordon = asked(Command::CordonAgent {
        agent: id("a2"),
        reason: "rest".into(),
    });
    apply(&mut it.state, vec![cordon]);
    assert_eq!(it.round()[0].placement.agent, id("a1"));
}

#[test]
fn who_waits_for_idle_ones_that_are_full_for_days_goes_to_a_hot_one_every_ten_minutes() {
    let agents = [
        ("a1", 4, load(990, 990, 500, 400)),
        ("a2", 1, Load::default()),
    ];
    let mut it = with(Strategy::Adaptive, &agents);
    for _ in 0..4 {
        it.submit("ann", &task(""));
    }
    let minutes = |n: u64| NOW.plus(Millis(n * 60_000));
    let mut went = Vec::new();
    for minute in 0..25 {
        let decided = it.round_at(minutes(minute));
        let agents = decided.iter().map(|it| it.placement.agent.to_string());
        went.extend(agents.map(|agent| (minute, agent)));
    }
    let hot = "a1".to_owned();
    assert_eq!(went, [(0, "a2".to_owned()), (10, hot.clone()), (20, hot)]);
}

#[test]
fn what_idle_ones_do_of_work_that_a_hot_one_can_not_gives_it_no_claim() {
    let agents = [
        ("a1", 4, load(990, 990, 500, 400)),
        ("a2", 4, Load::default()),
    ];
    let mut it = with(Strategy::LeastConnections, &agents);
    apply(&mut it.state, vec![registration("b1", 8, "b")]);
    let view = it.fleet.agents[&id("a2")].clone();
    it.fleet.agents.insert(id("b1"), view);
    let mut counts = BTreeMap::new();
    for _ in 0..400 {
        (0..2).for_each(|_| it.submit("ann", &task("zone=a")));
        (0..8).for_each(|_| it.submit("ann", &task("zone=b")));
        for decided in it.round() {
            *counts.entry(decided.placement.agent).or_insert(0) += 1;
        }
        it.all_end();
    }
    let of = |name: &str| counts.get(&id(name)).copied().unwrap_or(0);
    assert_eq!(of("b1"), 3_200);
    assert!(of("a1") * 20 <= of("a2") && of("a2") > 750, "{counts:?}");
}

#[test]
fn no_hot_agent_is_kept_for_a_task_that_it_may_not_have() {
    let gpus = || supply(4, 1, &[24, 24]);
    let mut it = with(Strategy::Adaptive, &[]);
    let machines = ["a1", "a2"].map(|name| machine(name, 4, gpus()));
    apply(&mut it.state, machines.into());
    it.fleet = fleet(&it.state);
    sample(&mut it, "a2").load = load(990, 990, 500, 400);
    let asking = |gpus| {
        let mut spec = task("");
        spec.class = Some(Class::Interactive);
        spec.hardware.gpus = gpus;
        spec
    };
    it.submit("ann", &asking(1));
    it.submit("bob", &asking(2));
    let decided = it.round();
    assert_eq!(decided.len(), 1);
    assert_eq!(decided[0].placement.agent, id("a1"));
    let later = NOW.plus(Millis(61_000));
    let told = explain(&it.state, &it.fleet, later, TaskId(2)).unwrap();
    assert!(
        told.summary.contains("a1 is kept free for it"),
        "{}",
        told.summary
    );
}

#[test]
fn nobody_is_hot_before_every_member_can_read_why() {
    let found = SystemCommand::Found {
        cluster_id: "test".into(),
        generation: Generation(1),
    };
    let mut state = State::default();
    let agents = ["a1", "a2"].map(|name| registration(name, 1, "a"));
    let tasks = vec![submission(&task("")); 2];
    apply(&mut state, vec![Op::System(found)]);
    apply(&mut state, agents.into_iter().chain(tasks).collect());
    let mut fleet = fleet(&state);
    let hot = &mut fleet.agents.get_mut(&id("a1")).unwrap().sample;
    hot.load = load(990, 990, 500, 400);
    assert_eq!(planned(&state, &fleet).assignments.len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the machines are like, all that has room somewhere goes, and the numbers add up to the choice.
    #[test]
    fn numbers_add_up_whatever_the_machines_are_like(
        loads in prop::collection::vec((0..=1_000u32, 0..940u32, 0..=1_000u32, 0..200_000u64, 0..2_000u64), 1..8),
        slots in prop::collection::vec(1..4u32, 8),
    ) {
        let names: Vec<String> = (0..loads.len()).map(|n| format!("a{n}")).collect();
        let agents: Vec<_> = names.iter().zip(&loads).zip(&slots).map(|((name, (cpu, others, memory, latency, _)), slots)| {
            (name.as_str(), *slots, load(*cpu, *others, *memory, *latency))
        }).collect();
        let mut it = with(Strategy::Adaptive, &agents);
        for (name, (.., service)) in names.iter().zip(&loads) {
            if *service > 0 {
                takes(&mut it, name, Work::Kind(Kind::Process), *service);
            }
        }
        let all: u32 = agents.iter().map(|(_, slots, _)| slots).sum();
        for _ in 0..all {
            it.submit("ann", &task(""));
        }
        let decided = it.round();
        prop_assert_eq!(decided.len(), all as usize);
        for decision in &decided {
            let trace = &trace_of(&decision.placement);
            let all = std::iter::once(&trace.winner).chain(&trace.runners_up);
            for scored in all {
                prop_assert!(adds_up(scored, trace.policy_version), "{:?}", scored);
                prop_assert!(scored.score >= trace.winner.score);
            }
        }
    }
}
