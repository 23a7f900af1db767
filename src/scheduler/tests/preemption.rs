//! Whose places a task gets that finds no room: of lower classes only, of what allows it only, and no more than it needs.

use std::collections::BTreeSet;

use model::{Assignment, Class, Interruption, Preemption, invariant};
use proptest::prelude::*;

use super::resources::{machine, supply};
use super::strategies::adds_up;
use super::*;
use crate::plan::PATIENCE;
use crate::{Way, formula_of, what_if};

/// Who came at [`NOW`] has waited for long enough.
const LATER: u64 = NOW.0 + 10_000;

/// One that yields, of a class.
fn yields(class: Class) -> TaskSpec {
    TaskSpec {
        preemptible: true,
        ..of(class)
    }
}

fn of(class: Class) -> TaskSpec {
    TaskSpec {
        class: Some(class),
        ..task("")
    }
}

fn with_gpus(gpus: u32, spec: TaskSpec) -> TaskSpec {
    let mut spec = spec;
    spec.hardware.gpus = gpus;
    spec
}

/// Agents with so many slots, and no GPUs.
fn farm(slots: &[(&str, u32)]) -> State {
    let mut state = cluster(&[], &[]);
    let machines = slots.iter();
    let machines = machines.map(|(name, slots)| machine(name, *slots, supply(64, 1_000, &[])));
    apply(&mut state, machines.collect());
    state
}

fn plan_at(state: &State, fleet: &Fleet, now: u64) -> Plan {
    let round = Round {
        now: Timestamp(now),
        taken: &BTreeSet::new(),
        max: 100,
        after: None,
    };
    plan(state, fleet, round)
}

/// Does what a round decides, all of which has to be accepted.
pub(super) fn carry_out(state: &mut State, now: u64) -> Plan {
    let plan = plan_at(state, &fleet(state), now);
    let ops = plan.clone().into_commands().map(Op::System);
    apply_at(state, Timestamp(now), ops.collect());
    assert_eq!(invariant::check(state), Vec::<String>::new());
    plan
}

/// Submits, and assigns them in that order, a second apart.
fn run(state: &mut State, specs: &[TaskSpec]) {
    for (second, spec) in (0..).zip(specs) {
        let now = NOW.0 + 1_000 * second;
        apply_at(state, Timestamp(now), vec![submission(spec)]);
        assert_eq!(carry_out(state, now).assignments.len(), 1);
    }
}

/// What has to end has ended.
fn end_victims(state: &mut State, now: u64, plan: &Plan) {
    let victims = plan.preemptions.iter().flat_map(|it| &it.victims);
    let reports = victims.map(|victim| {
        let task = state.task(victim.task).expect("it is known");
        let agent = task.live().expect("it runs").agent.clone();
        let fence = state.live_fence(victim.task).expect("it runs");
        let end = End::Interrupted {
            cause: Interruption::EndedByAgent,
            reason: String::new(),
        };
        report(agent.as_str(), fence, Outcome::bare(end))
    });
    let reports = reports.collect();
    apply_at(state, Timestamp(now), reports);
}

/// Who gets whose places where.
fn told(plan: &Plan) -> Vec<(u64, String, Vec<u64>)> {
    let told = |it: &Preemption| {
        let victims = it.victims.iter().map(|victim| victim.task.0);
        let Assignment { task, placement } = &it.assignment;
        (task.0, placement.agent.to_string(), victims.collect())
    };
    plan.preemptions.iter().map(told).collect()
}

#[test]
fn a_task_gets_the_place_of_one_of_a_lower_class_and_that_goes_on_once_there_is_room() {
    let mut state = farm(&[("a1", 1)]);
    run(&mut state, &[yields(Class::Batch)]);
    apply(&mut state, vec![submission(&of(Class::Critical))]);
    let plan = carry_out(&mut state, LATER);
    assert_eq!(told(&plan), [(2, "a1".into(), vec![1])]);
    // As long as it runs it goes nowhere else, though there were room.
    let other = machine("a2", 1, supply(64, 1_000, &[]));
    apply(&mut state, vec![other]);
    assert_eq!(carry_out(&mut state, LATER), Plan::default());
    end_victims(&mut state, LATER, &plan);
    let again = carry_out(&mut state, LATER);
    assert_eq!(again.assignments[0].task, TaskId(1));
    assert_eq!(again.assignments[0].placement.agent, id("a2"));
}

#[test]
fn nothing_yields_that_does_not_allow_it_nor_to_its_own_class_nor_to_a_lower_one() {
    for (runs, comes, yielded) in [
        (of(Class::Batch), of(Class::Critical), false),
        (yields(Class::Batch), of(Class::Batch), false),
        (yields(Class::Standard), of(Class::Batch), false),
        (yields(Class::Batch), of(Class::Standard), true),
        (yields(Class::Interactive), of(Class::Critical), true),
    ] {
        let mut state = farm(&[("a1", 1)]);
        run(&mut state, std::slice::from_ref(&runs));
        apply(&mut state, vec![submission(&comes)]);
        let plan = carry_out(&mut state, LATER);
        let classes = (runs.class(), comes.class());
        assert_eq!(!plan.preemptions.is_empty(), yielded, "{classes:?}");
    }
}

/// Or two that starve would end each other for ever.
#[test]
fn to_have_risen_to_a_class_gives_nobody_the_place_of_another() {
    let mut state = farm(&[("a1", 1)]);
    run(&mut state, &[yields(Class::Batch)]);
    apply(&mut state, vec![submission(&of(Class::Batch))]);
    let late = NOW.0 + 100 * 3_600_000;
    let waits = state.task(TaskId(2)).unwrap();
    let standing = waits.precedence(Timestamp(0), Timestamp(late)).class;
    assert!(standing < Class::Batch, "it goes with {standing}");
    assert!(plan_at(&state, &fleet(&state), late).preemptions.is_empty());
}

#[test]
fn where_there_is_room_nothing_has_to_end() {
    let mut state = farm(&[("a1", 1), ("a2", 1)]);
    run(&mut state, &[yields(Class::Scavenger)]);
    apply(&mut state, vec![submission(&of(Class::Critical))]);
    let plan = carry_out(&mut state, LATER);
    assert_eq!((plan.assignments.len(), plan.preemptions.len()), (1, 0));
}

#[test]
fn the_lowest_class_yields_first_then_what_began_last() {
    let mut state = farm(&[("a1", 1), ("a2", 1), ("a3", 1)]);
    let runs = [Class::Batch, Class::Scavenger, Class::Batch];
    run(&mut state, &runs.map(yields));
    let critical = vec![submission(&of(Class::Critical)); 4];
    apply_at(&mut state, Timestamp(NOW.0 + 8_000), critical);
    let agent = |task| {
        let live = state.task(TaskId(task)).unwrap().live();
        live.unwrap().agent.to_string()
    };
    let expected = [
        (4, agent(2), vec![2]),
        (5, agent(3), vec![3]),
        (6, agent(1), vec![1]),
    ];
    let plan = plan_at(&state, &fleet(&state), NOW.0 + 9_000);
    assert_eq!(told(&plan), expected);

    // Whoever reads the decision sees by what it was taken: of class, attempts and seconds as little as can be.
    let trace = &super::trace_of(&plan.preemptions[0].assignment.placement);
    let formula = formula_of(trace.policy_version).unwrap();
    assert_eq!(formula.way, Way::Preemption);
    assert_eq!(trace.winner.terms, [0, 1_000, 8_000]);
    let next = trace.runners_up.iter().map(|it| &*it.terms);
    let expected: [&[i64]; 2] = [&[1_000, 1_000, 7_000], &[1_000, 1_000, 9_000]];
    assert_eq!(next.collect::<Vec<_>>(), expected);
    for scored in trace.runners_up.iter().chain([&trace.winner]) {
        assert!(adds_up(scored, trace.policy_version), "{scored:?}");
    }
}

#[test]
fn as_many_yield_as_it_needs_of_what_the_agent_has_and_no_more() {
    let mut state = cluster(&[], &[]);
    apply(
        &mut state,
        vec![machine("a1", 9, supply(64, 1_000, &[8; 4]))],
    );
    // The first that are chosen are not needed once the last is: that has all that it takes.
    let runs = [
        with_gpus(2, yields(Class::Standard)),
        with_gpus(1, yields(Class::Batch)),
        yields(Class::Scavenger),
    ];
    run(&mut state, &runs);
    let more = with_gpus(3, of(Class::Critical));
    apply(&mut state, vec![submission(&more)]);
    let plan = carry_out(&mut state, LATER);
    // One is free, and two come of the first; what asks for no GPU need not end, nor what has one.
    assert_eq!(told(&plan), [(4, "a1".into(), vec![1])]);
}

/// One that yields runs on `a1`, which has one slot, and this one was sent ahead.
fn with_one_ahead(ahead: &TaskSpec) -> (State, Fleet) {
    let mut state = farm(&[("a1", 1)]);
    let mut fleet = fleet(&state);
    fleet.agents.get_mut(&id("a1")).unwrap().sample.prefetch = 1;
    for spec in [&yields(Class::Batch), ahead] {
        apply(&mut state, vec![submission(spec)]);
        let plan = plan_at(&state, &fleet, NOW.0);
        apply(&mut state, plan.into_commands().map(Op::System).collect());
    }
    assert_eq!(state.busy(&id("a1")), 2);
    (state, fleet)
}

/// The agent begins who gets a place before it; were it to end as well, nothing were won.
#[test]
fn what_was_sent_ahead_is_left_where_it_is_whether_it_would_yield_or_not() {
    for ahead in [yields(Class::Batch), of(Class::Batch)] {
        let (mut state, _) = with_one_ahead(&ahead);
        apply(&mut state, vec![submission(&of(Class::Critical))]);
        let plan = carry_out(&mut state, LATER);
        assert_eq!(told(&plan), [(3, "a1".into(), vec![1])]);
    }
}

#[test]
fn nothing_ends_for_who_has_just_come_nor_while_an_agent_with_room_is_about_to_connect() {
    let mut state = farm(&[("a1", 1)]);
    run(&mut state, &[yields(Class::Batch)]);
    apply(&mut state, vec![submission(&of(Class::Critical))]);
    let fleet_of_one = fleet(&state);
    let soon = NOW.0 + PATIENCE.0;
    assert_eq!(plan_at(&state, &fleet_of_one, soon - 1).preemptions, []);
    assert_eq!(plan_at(&state, &fleet_of_one, soon).preemptions.len(), 1);
    // By the log it has room, and the leader has no session with it yet.
    apply(&mut state, vec![machine("a2", 1, supply(64, 1_000, &[]))]);
    assert_eq!(plan_at(&state, &fleet_of_one, LATER).preemptions, []);
    let lost = SystemCommand::ExpireLease {
        agent: id("a2"),
        incarnation: Incarnation([1; 16]),
    };
    apply(&mut state, vec![Op::System(lost)]);
    assert_eq!(plan_at(&state, &fleet_of_one, LATER).preemptions.len(), 1);
}

#[test]
fn the_place_that_a_higher_class_gets_in_a_moment_is_no_lower_ones_till_then() {
    let mut state = farm(&[("a1", 1)]);
    run(&mut state, &[yields(Class::Batch)]);
    apply(&mut state, vec![submission(&of(Class::Standard))]);
    let critical = vec![submission(&of(Class::Critical))];
    apply_at(&mut state, Timestamp(LATER), critical);
    assert_eq!(plan_at(&state, &fleet(&state), LATER).preemptions, []);
    let plan = plan_at(&state, &fleet(&state), LATER + PATIENCE.0);
    assert_eq!(told(&plan), [(3, "a1".into(), vec![1])]);
}

#[test]
fn what_is_being_cancelled_or_is_held_by_an_incarnation_that_is_gone_is_not_chosen() {
    let mut state = farm(&[("a1", 2)]);
    run(
        &mut state,
        &[yields(Class::Batch), yields(Class::Scavenger)],
    );
    let critical = submission(&of(Class::Critical));
    apply(&mut state, vec![cancel(2), critical]);
    let plan = plan_at(&state, &fleet(&state), LATER);
    assert_eq!(told(&plan), [(3, "a1".into(), vec![1])]);
    let mut anew = machine("a1", 1, supply(64, 1_000, &[]));
    if let Op::Client {
        command: Command::RegisterAgent(profile),
        ..
    } = &mut anew
    {
        profile.incarnation = Incarnation([2; 16]);
    }
    apply(&mut state, vec![anew]);
    assert_eq!(plan_at(&state, &fleet(&state), LATER).preemptions, []);
}

#[test]
fn many_that_have_nothing_of_what_is_lacking_are_no_hindrance() {
    let mut state = cluster(&[], &[]);
    let large = machine("a1", 64, supply(64, 1_000, &[8]));
    apply(&mut state, vec![large]);
    run(&mut state, &[with_gpus(1, yields(Class::Batch))]);
    run(&mut state, &vec![yields(Class::Scavenger); 40]);
    apply(
        &mut state,
        vec![submission(&with_gpus(1, of(Class::Critical)))],
    );
    let plan = plan_at(&state, &fleet(&state), NOW.0 + 60_000);
    assert_eq!(told(&plan), [(42, "a1".into(), vec![1])]);
}

#[test]
fn one_that_has_much_ends_where_sixteen_that_have_little_would_not_do() {
    let mut state = cluster(&[], &[]);
    apply(&mut state, vec![machine("a1", 64, supply(64, 1_000, &[]))]);
    let with_cpus = |cpus: u32, spec| {
        let mut spec: TaskSpec = spec;
        spec.hardware.cpu_milli = cpus * 1_000;
        spec
    };
    run(&mut state, &[with_cpus(32, yields(Class::Batch))]);
    run(&mut state, &vec![with_cpus(1, yields(Class::Batch)); 32]);
    let urgent = with_cpus(32, of(Class::Critical));
    apply(&mut state, vec![submission(&urgent)]);
    let plan = plan_at(&state, &fleet(&state), NOW.0 + 60_000);
    assert_eq!(told(&plan), [(34, "a1".into(), vec![1])]);
}

/// The agent begins it before what was sent ahead; so that it has ended frees a slot, and the end of the other does not.
#[test]
fn who_got_a_place_runs_though_it_came_after_what_was_sent_ahead() {
    let (mut state, fleet) = with_one_ahead(&yields(Class::Batch));
    let standard = submission(&yields(Class::Standard));
    apply(&mut state, vec![standard]);
    let plan = carry_out(&mut state, LATER);
    assert_eq!(told(&plan), [(3, "a1".into(), vec![1])]);
    end_victims(&mut state, LATER, &plan);
    apply(&mut state, vec![submission(&of(Class::Critical))]);
    let plan = plan_at(&state, &fleet, LATER + PATIENCE.0);
    assert_eq!(told(&plan), [(4, "a1".into(), vec![3])]);
}

/// It goes first in its line, and can't have what the next one can.
#[test]
fn who_has_risen_does_not_stand_in_the_way_of_those_behind_it() {
    let mut state = farm(&[("a1", 1)]);
    run(&mut state, &[yields(Class::Standard)]);
    apply(&mut state, vec![submission(&of(Class::Standard))]);
    let late = NOW.0 + 3_600_000;
    let interactive = vec![submission(&of(Class::Interactive))];
    apply_at(&mut state, Timestamp(late - 5_000), interactive);
    let first = state.task(TaskId(2)).unwrap();
    assert_eq!(
        first.precedence(Timestamp(0), Timestamp(late)).class,
        Class::Interactive
    );
    let plan = plan_at(&state, &fleet(&state), late);
    assert_eq!(told(&plan), [(3, "a1".into(), vec![1])]);
}

#[test]
fn an_agent_that_was_lost_under_a_task_ends_nothing_for_it_while_another_one_could() {
    let mut state = farm(&[("a1", 1), ("a2", 1)]);
    run(&mut state, &[yields(Class::Batch), yields(Class::Batch)]);
    apply(&mut state, vec![submission(&of(Class::Critical))]);
    let first = carry_out(&mut state, LATER);
    let (_, lost, _) = told(&first).remove(0);
    let lease = SystemCommand::ExpireLease {
        agent: id(&lost),
        incarnation: Incarnation([1; 16]),
    };
    let back = machine(&lost, 1, supply(64, 1_000, &[]));
    apply(&mut state, vec![Op::System(lease), back]);
    // What it held goes first, and fills it again.
    let mut taken = vec![TaskId(3)];
    let plan = plan_without(&state, &fleet(&state), &taken);
    let ops = plan.assignments.into_iter().map(SystemCommand::Assign);
    apply_at(&mut state, Timestamp(LATER), ops.map(Op::System).collect());
    taken.clear();
    let second = plan_at(&state, &fleet(&state), LATER);
    assert_ne!(told(&second).remove(0).1, lost);
}

#[test]
fn one_place_of_an_agent_is_given_at_a_time() {
    let mut state = farm(&[("a1", 2)]);
    run(&mut state, &[yields(Class::Batch), yields(Class::Batch)]);
    apply(&mut state, vec![submission(&of(Class::Critical)); 2]);
    let plan = plan_at(&state, &fleet(&state), LATER);
    assert_eq!(told(&plan).len(), 1);
    // Nor while it is not in the state.
    let mut fleet = fleet(&state);
    reserve(&mut fleet, "a1", 1);
    fleet.agents.get_mut(&id("a1")).unwrap().reserved.preempting = 1;
    let winner = plan.preemptions[0].assignment.task;
    assert!(
        plan_without(&state, &fleet, &[winner])
            .preemptions
            .is_empty()
    );
    carry_out(&mut state, LATER);
    assert_eq!(carry_out(&mut state, LATER).preemptions.len(), 1);
}

#[test]
fn an_agent_that_is_closed_too_old_or_does_not_fit_is_asked_for_nothing() {
    let mut state = farm(&[("a1", 1), ("a2", 1)]);
    run(&mut state, &[yields(Class::Batch), of(Class::Batch)]);
    apply(&mut state, vec![submission(&of(Class::Critical))]);
    let plan = plan_at(&state, &fleet(&state), LATER);
    let its = &plan.preemptions[0].assignment.placement.agent;
    let cordon = Command::CordonAgent {
        agent: its.clone(),
        reason: String::new(),
    };
    let exclude = Command::AddRule(model::AddRule {
        action: model::RuleAction::Exclude,
        scope: model::Scope::default(),
        agents: model::Agents {
            names: BTreeSet::from([its.clone()]),
            require: Vec::new(),
        },
        reason: "it is hot".into(),
        ttl: None,
    });
    let older = registration(its.as_str(), 1, "a");
    for change in [asked(cordon), asked(exclude), older] {
        let mut state = state.clone();
        apply(&mut state, vec![change]);
        let plan = plan_at(&state, &fleet(&state), LATER);
        assert_eq!(plan.preemptions, []);
    }
}

#[test]
fn plan_and_why_say_who_would_have_to_end() {
    let mut state = farm(&[("a1", 1)]);
    run(&mut state, &[yields(Class::Batch)]);
    let Op::Client {
        principal, command, ..
    } = submission(&of(Class::Critical))
    else {
        unreachable!("a submit is a client's")
    };
    let would = what_if(&state, &fleet(&state), NOW, (principal, command)).unwrap();
    assert_eq!(
        would.explanation.summary,
        "It would be assigned to a1, where least was lost by what had to end for it; no other agent could take it. \
         Task t1 would be preempted for it."
    );
    apply(&mut state, vec![submission(&of(Class::Critical))]);
    carry_out(&mut state, LATER);
    let told = |task| {
        explain(&state, &fleet(&state), NOW, TaskId(task))
            .unwrap()
            .summary
    };
    let waits = "no other agent could take it. It had waited 10 s before that. It begins once t1 ended there, whose place it got.";
    assert!(told(2).ends_with(waits), "{}", told(2));
    let ends = "It has to end: preempted by task t2, waiting for a1 to end it.";
    assert!(told(1).ends_with(ends), "{}", told(1));
}

fn cancel(task: u64) -> Op {
    asked(Command::CancelTask {
        task: TaskId(task),
        reason: String::new(),
    })
}

/// A task of a class, with so many GPUs, and whether it yields.
type Wish = (usize, u32, bool);

fn wished((class, gpus, preemptible): Wish) -> TaskSpec {
    TaskSpec {
        preemptible,
        ..with_gpus(gpus, of(Class::ALL[class]))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each round is accepted and sound, or `carry_out` complains. What yields is needed; and in the end nobody waits who
    /// could have the place of another.
    #[test]
    fn what_yields_is_needed_and_in_the_end_no_lower_class_is_in_the_way(
        machines in prop::collection::vec((1..4u32, 0..4usize), 1..4),
        waves in prop::collection::vec(prop::collection::vec((0..5usize, 0..3u32, prop::bool::weighted(0.7)), 1..8), 1..4),
        cancels in prop::collection::vec(1..20u64, 0..4),
    ) {
        let mut state = cluster(&[], &[]);
        let machines = machines.iter().enumerate().map(|(n, (slots, gpus))| {
            machine(&format!("a{n}"), *slots, supply(64, 1_000, &[8; 4][..*gpus]))
        });
        apply(&mut state, machines.collect());
        for (n, wave) in (0..).zip(&waves) {
            let now = NOW.0 + 5_000 * n;
            let specs: Vec<_> = wave.iter().copied().map(wished).collect();
            apply_at(&mut state, Timestamp(now), specs.iter().map(submission).collect());
            for rounds in 0.. {
                prop_assert!(rounds < 100, "it comes to no end");
                let before = state.clone();
                let plan = carry_out(&mut state, now + PATIENCE.0);
                for preemption in &plan.preemptions {
                    needed(&before, &plan, preemption)?;
                }
                if plan == Plan::default() {
                    break;
                }
                end_victims(&mut state, now + PATIENCE.0, &plan);
            }
            nobody_in_the_way(&state)?;
            // Somebody gives some up, and they take their time to end.
            let runs = |id: &&u64| state.task(TaskId(**id)).is_some_and(|task| task.live().is_some());
            let given_up: Vec<Op> = cancels.iter().filter(runs).map(|id| cancel(*id)).collect();
            apply_at(&mut state, Timestamp(now + PATIENCE.0), given_up);
        }
    }
}

/// Without any one of its victims there would be no place for it.
fn needed(state: &State, plan: &Plan, preemption: &Preemption) -> Result<(), TestCaseError> {
    let mut state = state.clone();
    let assigned = plan.assignments.iter().cloned().map(SystemCommand::Assign);
    apply(&mut state, assigned.map(Op::System).collect());
    let placement = &preemption.assignment.placement;
    let agent = state.agent(&placement.agent).unwrap().profile.clone();
    let winner = state.task(preemption.assignment.task).unwrap().class;
    for spared in &preemption.victims {
        prop_assert!(winner < state.task(spared.task).unwrap().class);
        let mut fewer = preemption.clone();
        fewer.victims.retain(|it| it != spared);
        let left = u32::try_from(fewer.victims.len()).unwrap();
        let has_slot = state.slots_taken(&agent.id) - left < agent.slots;
        let mut copy = state.clone();
        let command = match left {
            0 => SystemCommand::Assign(fewer.assignment),
            _ => SystemCommand::Preempt(fewer),
        };
        let applied = copy.apply(Stamped {
            index: copy.last_applied() + 1,
            term: 1,
            membership: 0,
            entry: Entry {
                stamp: NOW,
                wall: NOW,
                ops: vec![Op::System(command)],
            },
        });
        let would_do = has_slot && applied.replies[0].is_ok();
        prop_assert!(!would_do, "{spared:?} need not end for {preemption:?}");
    }
    Ok(())
}

fn nobody_in_the_way(state: &State) -> Result<(), TestCaseError> {
    let waiting = |class: Class| {
        let mut all = state.tasks_newest_first(None);
        all.find(|it| state.is_queued(it.id) && it.class == class && is_plain(state, it.id))
            .cloned()
    };
    for agent in state.agents() {
        let held = state.held_by(&agent.profile.id);
        let ends = |it: &&model::Task| {
            matches!(
                it.phase,
                model::Phase::Assigned {
                    cancel: Some(_),
                    ..
                }
            )
        };
        let held = held.filter(|it| !ends(it));
        let yields = held.filter(|it| state.spec(it.id).is_some_and(|spec| spec.preemptible));
        let Some(lowest) = yields.map(|it| it.class).max() else {
            continue;
        };
        for class in Class::ALL.into_iter().filter(|class| *class < lowest) {
            let waits = waiting(class).map(|it| it.id);
            prop_assert_eq!(
                waits,
                None,
                "{} runs something of {}",
                agent.profile.id,
                lowest
            );
        }
    }
    Ok(())
}

/// A slot is all that it asks for.
fn is_plain(state: &State, id: TaskId) -> bool {
    state
        .spec(id)
        .is_some_and(|spec| spec.demand().is_nothing())
}
