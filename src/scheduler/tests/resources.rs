//! What agents have beyond slots: it is never planned twice, what has room goes, and who asks for much is not starved.

use model::{Class, Hardware, Strategy, Supply};
use proptest::prelude::*;

use super::*;

const MINUTE: u64 = 60_000;

fn asking(cpus: u32, memory: u64, (gpus, vram_mib): (u32, u64)) -> TaskSpec {
    TaskSpec {
        hardware: Hardware {
            cpu_milli: cpus * 1_000,
            gpus,
            vram_mib,
        },
        memory_mib: Some(memory).filter(|it| *it > 0),
        ..task("")
    }
}

pub(super) fn machine(name: &str, slots: u32, supply: Supply) -> Op {
    let mut op = registration(name, slots, "a");
    if let Op::Client {
        command: Command::RegisterAgent(profile),
        ..
    } = &mut op
    {
        profile.protocol = model::AgentProtocol::NEWEST;
        profile.supply = Some(supply);
    }
    op
}

pub(super) fn supply(cpus: u32, memory_mib: u64, gpus: &[u64]) -> Supply {
    Supply {
        cpu_milli: cpus * 1_000,
        memory_mib,
        gpus: gpus.to_vec(),
    }
}

/// Machines named `a1` and so on, and tasks.
fn farm(machines: Vec<(u32, Supply)>, tasks: &[TaskSpec]) -> State {
    let mut state = cluster(&[], &[]);
    let machines = (1..).zip(machines);
    let machines = machines.map(|(n, (slots, supply))| machine(&format!("a{n}"), slots, supply));
    apply(&mut state, machines.collect());
    submitted(state, tasks)
}

/// Assigns what a round at `now` decides, all of which has to be accepted.
pub(super) fn assign(state: &mut State, now: u64) -> Vec<(u64, String)> {
    let taken = std::collections::BTreeSet::new();
    let round = Round {
        now: Timestamp(now),
        taken: &taken,
        max: 100,
        after: None,
    };
    let plan = plan(state, &fleet(state), round);
    let ops = plan.assignments.iter().cloned();
    let ops = ops.map(|it| Op::System(SystemCommand::Assign(it)));
    apply_at(state, Timestamp(now), ops.collect());
    let pair = |a: &model::Assignment| (a.task.0, a.placement.agent.to_string());
    plan.assignments.iter().map(pair).collect()
}

fn end(state: &mut State, now: u64, task: u64) {
    let fence = state.live_fence(TaskId(task)).expect("it runs");
    let agent = state
        .task(TaskId(task))
        .unwrap()
        .live()
        .unwrap()
        .agent
        .clone();
    let outcome = Outcome::bare(End::Exited { code: 0 });
    let report = report(agent.as_str(), fence, outcome);
    apply_at(state, Timestamp(now), vec![report]);
}

fn for_all(strategy: Strategy) -> Op {
    super::strategies::said(strategy, model::Scope::default())
}

fn told(state: &State, now: u64, task: u64) -> String {
    let told = explain(state, &fleet(state), Timestamp(now), TaskId(task));
    told.expect("it is known").summary
}

#[test]
fn one_that_has_no_room_does_not_hold_up_those_behind_it_that_ask_for_less() {
    let large = asking(0, 0, (2, 0));
    let small = asking(0, 0, (1, 0));
    let tasks = [large.clone(), small.clone(), small, large, task("")];
    let mut state = farm(vec![(8, supply(1, 1, &[8, 8]))], &[]);
    state = submitted(state, &tasks[1..2]);
    assign(&mut state, NOW.0);
    state = submitted(state, &tasks);
    let on_a1 = |task| (task, "a1".to_owned());
    assert_eq!(assign(&mut state, NOW.0), [on_a1(3), on_a1(6)]);
}

#[test]
fn what_was_decided_and_is_not_in_the_log_yet_counts() {
    let state = farm(vec![(8, supply(4, 10, &[8]))], &[asking(1, 6, (0, 0))]);
    let mut fleet = fleet(&state);
    let view = fleet.agents.get_mut(&id("a1")).unwrap();
    (view.reserved.attempts, view.reserved.demands) = (1, vec![asking(1, 5, (0, 0)).demand()]);
    assert_eq!(chosen(&state, &fleet), []);
    let told = explain(&state, &fleet, NOW, TaskId(1)).unwrap();
    assert_eq!(told.agents[0].standing, Err(Reason::MemoryTaken));
}

#[test]
fn why_names_what_ran_out_and_by_how_much() {
    let machines = vec![
        (8, supply(4, 16 * 1024, &[])),
        (8, supply(8, 64 * 1024, &[24 * 1024, 24 * 1024])),
    ];
    let busy = asking(6, 60 * 1024, (1, 0));
    let mut state = farm(machines, &[busy]);
    assign(&mut state, NOW.0);
    let cases = [
        (asking(3, 0, (0, 0)), None),
        (
            asking(5, 0, (0, 0)),
            Some(
                "of 2 agents 1 has too few processors, 1 has too few processors free. It asks for 5 CPUs; the most that is free is 4 CPUs, on a1.",
            ),
        ),
        (
            asking(0, 100 * 1024, (0, 0)),
            Some(
                "2 have too little memory. It asks for 100 GiB of memory; no agent that it could run on has more than 64 GiB of memory.",
            ),
        ),
        (
            asking(0, 0, (2, 0)),
            Some(
                "1 has too few GPUs, 1 has too few GPUs free. It asks for 2 GPUs; the most that is free is 1 GPU, on a2.",
            ),
        ),
        (
            asking(0, 0, (1, 40 * 1024)),
            Some(
                "It asks for 40 GiB of a GPU's memory; no agent that it could run on has more than 24 GiB of a GPU's memory.",
            ),
        ),
    ];
    for (spec, wanted) in cases {
        let state = submitted(state.clone(), &[spec]);
        let newest = state.tasks_newest_first(None).next().unwrap().id.0;
        let told = told(&state, NOW.0, newest);
        match wanted {
            Some(wanted) => assert!(told.contains(wanted), "{told}"),
            None => assert!(told.contains("1 of 2 agents can take it"), "{told}"),
        }
    }
}

#[test]
fn what_is_free_is_told_of_an_agent_that_has_enough_of_it() {
    let machines = vec![(4, supply(4, 1, &[8])), (4, supply(4, 1, &[]))];
    let mut state = farm(machines, &vec![asking(0, 0, (1, 0)); 2]);
    assign(&mut state, NOW.0);
    let text = told(&state, NOW.0, 2);
    let wanted = "It asks for 1 GPU; the most that is free is 0 GPUs, on a1. \
                  It is likely to start in 1 s, by a guess.";
    assert!(text.ends_with(wanted), "{text}");
    let state = farm(
        vec![(4, supply(4, 1, &[24, 16, 24]))],
        &[asking(0, 0, (3, 20))],
    );
    let text = told(&state, NOW.0, 1);
    let wanted =
        "It asks for 3 GPUs with 20 MiB each; no agent that it could run on has more than 2 GPUs. ";
    assert!(text.contains(wanted), "{text}");
}

#[test]
fn who_asks_for_all_of_a_machine_gets_it_though_smaller_ones_never_cease_to_come() {
    for strategy in [Strategy::Adaptive, Strategy::Binpack, Strategy::RoundRobin] {
        let machines = vec![(4, supply(4, 1, &[8, 8])), (4, supply(4, 1, &[8, 8]))];
        let small = asking(0, 0, (1, 0));
        let mut state = farm(machines, &vec![small.clone(); 4]);
        apply(&mut state, vec![for_all(strategy)]);
        let mut running: Vec<u64> = assign(&mut state, NOW.0)
            .into_iter()
            .map(|it| it.0)
            .collect();
        assert_eq!(running.len(), 4);
        // More of them behind it, and another one whenever one ends.
        let tasks = [vec![asking(0, 0, (2, 0))], vec![small.clone(); 8]].concat();
        state = submitted(state, &tasks);
        let large = TaskId(5);
        let mut now = NOW.0;
        let mut kept_since = None;
        while state.task(large).is_some_and(|task| task.live().is_none()) {
            now += MINUTE;
            // One end at a time, so that never two GPUs come free at once.
            end(&mut state, now, running.remove(0));
            let assigned = assign(&mut state, now);
            running.extend(assigned.iter().map(|(task, _)| *task));
            state = submitted(state, std::slice::from_ref(&small));
            if told(&state, now, large.0).contains("is kept free for it") {
                kept_since.get_or_insert(now);
            }
            assert!(
                now < NOW.0 + 20 * MINUTE,
                "{strategy}: {}",
                told(&state, now, large.0)
            );
        }
        // A standard one waits ten minutes before it is given an agent, and then until this one has run empty.
        let kept_since = kept_since.expect("an agent was kept");
        assert_eq!(kept_since, NOW.0 + 10 * MINUTE, "{strategy}");
        assert!(now <= kept_since + 4 * MINUTE, "{strategy}: {now}");
    }
}

#[test]
fn an_agent_that_is_kept_takes_nothing_else_but_what_is_of_a_higher_class_and_says_so() {
    let machines = vec![(4, supply(4, 1, &[8, 8]))];
    let small = asking(0, 0, (1, 0));
    let mut state = farm(machines, std::slice::from_ref(&small));
    assign(&mut state, NOW.0);
    let critical = TaskSpec {
        class: Some(Class::Critical),
        ..small.clone()
    };
    state = submitted(state, &[asking(0, 0, (2, 0)), task(""), small.clone()]);
    let late = NOW.0 + 10 * MINUTE;
    assert!(told(&state, late, 2).contains("a1 is kept free for it"));
    assert!(told(&state, late, 3).contains("1 is kept free for a task that asks for more"));
    assert_eq!(assign(&mut state, late), []);
    let newer = submitted(state.clone(), std::slice::from_ref(&critical));
    let newest = newer.tasks_newest_first(None).next().unwrap().id.0;
    assert!(told(&newer, late, newest).contains("1 of 1 agent can take it"));
    assert_eq!(
        assign(&mut newer.clone(), late),
        [(newest, "a1".to_owned())]
    );
    // A new one is not placed at once either.
    let fleet = fleet(&state);
    let mut planner = crate::Planner::new(&state, &fleet, Timestamp(late));
    assert_eq!(planner.place(&small, asker(1)), None);
    assert!(planner.place(&critical, asker(1)).is_some());
    end(&mut state, late, 1);
    assert_eq!(assign(&mut state, late)[0], (2, "a1".to_owned()));
}

#[test]
fn nothing_is_kept_for_what_waits_for_something_else_or_could_never_run() {
    let machines = vec![(4, supply(4, 1, &[8, 8]))];
    let impossible = asking(0, 0, (3, 0));
    let elsewhere = TaskSpec {
        require: task("zone=b").require,
        ..asking(0, 0, (2, 0))
    };
    let tasks = [impossible, elsewhere, task("")];
    let mut state = farm(machines, &tasks);
    let late = NOW.0 + 1_000 * MINUTE;
    assert_eq!(assign(&mut state, late), [(3, "a1".to_owned())]);
    // Nor do they take the place of one that could.
    let mut state = submitted(state, &[asking(0, 0, (1, 0)), asking(0, 0, (2, 0))]);
    assign(&mut state, late);
    let told = told(&state, late + 10 * MINUTE, 5);
    assert!(told.contains("a1 is kept free for it"), "{told}");
}

#[test]
fn a_line_that_moves_on_keeps_no_agent_however_long_it_is() {
    let mut state = farm(
        vec![(4, supply(4, 100, &[]))],
        &vec![asking(0, 10, (0, 0)); 20],
    );
    assert_eq!(assign(&mut state, NOW.0).len(), 4);
    state = submitted(state, &[task("")]);
    let late = NOW.0 + 60 * MINUTE;
    assert!(
        !told(&state, late, 5).contains("kept"),
        "{}",
        told(&state, late, 5)
    );
    assert!(
        !told(&state, late, 21).contains("kept"),
        "{}",
        told(&state, late, 21)
    );
}

#[test]
fn one_that_comes_back_waits_anew_before_an_agent_is_kept_for_it() {
    let machines = vec![(4, supply(4, 1, &[8])), (4, supply(4, 1, &[8]))];
    let tasks = [asking(0, 0, (1, 0)), asking(1, 0, (1, 0))];
    let mut state = farm(machines, &tasks);
    let after = |minutes| NOW.0 + minutes * MINUTE;
    let mut assigned = assign(&mut state, after(20));
    // An agent is kept for the first, wherever it goes, until the next round.
    assigned.extend(assign(&mut state, after(20)));
    assert_eq!(assigned.len(), 2);
    let lost = SystemCommand::ExpireLease {
        agent: id(&assigned[0].1),
        incarnation: Incarnation([1; 16]),
    };
    apply_at(&mut state, Timestamp(after(25)), vec![Op::System(lost)]);
    let again = assigned[0].0;
    let waits = told(&state, after(29), again);
    assert!(!waits.contains("kept free for it"), "{waits}");
    let waits = told(&state, after(31), again);
    assert!(waits.contains("kept free for it"), "{waits}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_planned_has_room_and_what_is_left_has_none(
        machines in prop::collection::vec((1..6u32, 0..4u32, 0..8u64, prop::collection::vec(1..4u64, 0..3)), 1..5),
        tasks in prop::collection::vec((0..3u32, 0..5u64, (0..3u32, 0..4u64), 0..5usize), 1..30),
        strategy in prop::sample::select(&Strategy::ALL[..]),
        late in any::<bool>(),
    ) {
        let machines = machines.into_iter().map(|(slots, cpus, memory, gpus)| (slots, supply(cpus, memory, &gpus)));
        let specs: Vec<TaskSpec> = tasks.iter().map(|(cpus, memory, gpus, class)| TaskSpec {
            class: Some(Class::ALL[*class]),
            ..asking(*cpus, *memory, *gpus)
        }).collect();
        let mut state = farm(machines.collect(), &specs);
        apply(&mut state, vec![for_all(strategy)]);
        // Where much later agents are kept for those that do not fit.
        let now = NOW.0 + if late { 1_000 * MINUTE } else { 0 };
        // Each is accepted, or `apply_at` complains. For whom agents are kept changes with each round.
        let mut rounds = 0;
        while !assign(&mut state, now).is_empty() {
            rounds += 1;
            prop_assert!(rounds <= specs.len());
        }
        for task in 1..=specs.len() as u64 {
            let told = explain(&state, &fleet(&state), Timestamp(now), TaskId(task)).unwrap();
            let waits = state.task(TaskId(task)).is_some_and(|task| task.live().is_none());
            let could = told.agents.iter().any(|agent| agent.standing.is_ok());
            prop_assert!(!(waits && could), "t{} waits: {}", task, told.summary);
        }
    }
}
