//! Rules that people made by hand: they hold for whom they are about and for nobody else, and cost the others nothing.

use std::collections::BTreeSet;

use model::{AddRule, Agents, Kind, Rule, RuleAction, Scope, Strategy};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;

use super::resources::{assign, machine, supply};
use super::strategies::said;
use super::*;
use crate::formula_of;

pub(super) fn rule(action: RuleAction, scope: Scope, agents: &[&str], ttl: Option<u64>) -> Op {
    asked(Command::AddRule(AddRule {
        action,
        scope,
        agents: Agents {
            names: agents.iter().map(|name| id(name)).collect(),
            require: Vec::new(),
        },
        reason: "said ann".into(),
        ttl: ttl.map(Millis),
    }))
}

fn of(namespace: &str) -> Scope {
    let namespace = Namespace::new(namespace).unwrap();
    Scope {
        namespace: Some(namespace),
        kind: None,
    }
}

fn of_kind(kind: Kind) -> Scope {
    Scope {
        namespace: None,
        kind: Some(kind),
    }
}

fn task_of(namespace: &str) -> TaskSpec {
    TaskSpec {
        namespace: Namespace::new(namespace).unwrap(),
        ..task("")
    }
}

/// Agents `a1` to `a3` with two slots each, and rules.
fn ruled(rules: Vec<Op>, tasks: &[TaskSpec]) -> State {
    let mut state = cluster(&[("a1", 2, "a"), ("a2", 2, "a"), ("a3", 2, "b")], &[]);
    apply(&mut state, rules);
    submitted(state, tasks)
}

fn round_at(state: &State, now: Timestamp) -> Vec<model::Assignment> {
    let taken = BTreeSet::new();
    let round = Round {
        now,
        taken: &taken,
        max: 100,
        after: None,
    };
    plan(state, &fleet(state), round).assignments
}

/// Which task goes where, all of which has to be accepted.
fn placed(state: &mut State) -> BTreeMap<u64, String> {
    assign(state, NOW.0).into_iter().collect()
}

fn why(state: &State, task: u64) -> String {
    explain(state, &fleet(state), NOW, TaskId(task))
        .unwrap()
        .summary
}

fn whole(placed: &[(u64, &str)]) -> BTreeMap<u64, String> {
    placed
        .iter()
        .map(|(task, agent)| (*task, (*agent).to_owned()))
        .collect()
}

#[test]
fn excluded_tasks_pass_an_agent_by_and_others_do_not() {
    let rules = vec![rule(RuleAction::Exclude, of("blue"), &["a1", "a2"], None)];
    let tasks: Vec<TaskSpec> = ["blue", "blue", "blue", "red", "red", "red", "red"]
        .map(task_of)
        .into();
    let mut state = ruled(rules, &tasks);
    let placed = placed(&mut state);
    let blue = placed.iter().filter(|(task, _)| **task <= 3);
    assert_eq!(
        blue.map(|(_, agent)| agent.as_str()).collect::<Vec<_>>(),
        ["a3", "a3"]
    );
    assert_eq!(placed.len(), 6, "{placed:?}");
    let told = why(&state, 3);
    assert!(
        told.contains("1 has no free slot, 2 have a rule against such tasks"),
        "{told}"
    );
    assert!(
        told.contains("Rule r2: exclude tasks of namespace blue from a1, a2 (ann: said ann)."),
        "{told}"
    );
    let told = why(&state, 7);
    assert!(!told.contains("rule"), "{told}");
}

#[test]
fn pinned_tasks_wait_for_their_agents_and_hold_nobody_up() {
    let rules = vec![rule(RuleAction::Pin, of("blue"), &["a2"], None)];
    let tasks: Vec<TaskSpec> = ["blue", "blue", "blue", "red"].map(task_of).into();
    let mut state = ruled(rules, &tasks);
    let placed = placed(&mut state);
    assert_eq!((placed[&1].as_str(), placed[&2].as_str()), ("a2", "a2"));
    assert!(
        !placed.contains_key(&3) && placed.contains_key(&4),
        "{placed:?}"
    );
    let told = why(&state, 3);
    assert!(
        told.contains("2 are not among those to which a rule pins it"),
        "{told}"
    );
}

#[test]
fn a_cap_counts_what_runs_and_what_is_decided_in_the_same_round() {
    let rules = vec![rule(RuleAction::Cap(1), of("blue"), &["a1", "a2"], None)];
    let tasks = vec![task_of("blue"); 6];
    let mut state = ruled(rules, &tasks);
    let first = placed(&mut state);
    let mut agents: Vec<&String> = first.values().collect();
    agents.sort();
    assert_eq!(agents, ["a1", "a2", "a3", "a3"]);
    assert_eq!(placed(&mut state), whole(&[]));
    let told = why(&state, 6);
    assert!(
        told.contains("2 hold as many such tasks as a rule allows"),
        "{told}"
    );
    // What is decided and not applied counts as well.
    let state = ruled(
        vec![rule(
            RuleAction::Cap(1),
            of("blue"),
            &["a1", "a2", "a3"],
            None,
        )],
        &tasks,
    );
    let mut fleet = fleet(&state);
    let view = fleet.agents.get_mut(&id("a1")).unwrap();
    view.reserved.attempts = 1;
    view.reserved.mix.add(task_of("blue").sort());
    let taken = BTreeSet::new();
    let round = Round {
        now: NOW,
        taken: &taken,
        max: 100,
        after: None,
    };
    let agents: BTreeSet<_> = plan(&state, &fleet, round)
        .assignments
        .iter()
        .map(|it| it.placement.agent.to_string())
        .collect();
    assert_eq!(agents, ["a2", "a3"].map(String::from).into());
}

#[test]
fn preferred_agents_are_taken_first_whatever_the_strategy_while_they_have_a_free_slot() {
    for strategy in Strategy::ALL {
        let set = said(strategy, Scope::default());
        let rules = vec![set, rule(RuleAction::Prefer, of("blue"), &["a3"], None)];
        let mut state = ruled(rules, &vec![task_of("blue"); 3]);
        let assignments = round_at(&state, NOW);
        let on: Vec<&str> = assignments
            .iter()
            .map(|it| it.placement.agent.as_str())
            .collect();
        assert_eq!((on[0], on[1]), ("a3", "a3"), "{strategy}");
        assert_ne!(on[2], "a3", "{strategy}");
        // The numbers say so.
        let trace = &trace_of(&assignments[0].placement);
        let formula = formula_of(trace.policy_version).unwrap();
        assert_eq!(
            (formula.way, formula.prefers),
            (crate::Way::Strategy(strategy), true)
        );
        assert_eq!(trace.winner.terms[0], 0);
        assert!(
            trace.runners_up.iter().all(|it| it.terms[0] == 1_000),
            "{trace:?}"
        );
        // Tasks that no preference is about are scored as ever.
        apply(&mut state, vec![submission(&task_of("red"))]);
        let red = round_at(&state, NOW);
        let red = red.iter().find(|it| it.task == TaskId(4)).unwrap();
        assert!(
            !formula_of(trace_of(&red.placement).policy_version)
                .unwrap()
                .prefers
        );
    }
}

#[test]
fn what_a_task_prefers_itself_counts_beside_what_is_preferred_for_it() {
    let preferring = |expressions: &[&str]| TaskSpec {
        prefer: expressions.iter().map(|it| it.parse().unwrap()).collect(),
        ..task_of("blue")
    };
    // `a3` is alone in its zone.
    for strategy in Strategy::ALL {
        let set = said(strategy, Scope::default());
        let state = ruled(vec![set], &vec![preferring(&["zone=b"]); 3]);
        let decided = round_at(&state, NOW);
        let on: Vec<&str> = decided
            .iter()
            .map(|it| it.placement.agent.as_str())
            .collect();
        assert_eq!((on[0], on[1]), ("a3", "a3"), "{strategy}");
        assert_ne!(on[2], "a3", "{strategy}");
        let told = explain(&state, &fleet(&state), NOW, TaskId(1)).unwrap();
        let best = told
            .agents
            .iter()
            .filter_map(|it| it.standing.as_ref().ok());
        let best = best.min_by_key(|it| it.score).unwrap();
        assert_eq!(
            (best.agent.as_str(), best.terms[0]),
            ("a3", 0),
            "{strategy}"
        );
    }
    // One of two is better than none; a rule's counts as much as the task's own.
    let decided = |rules: Vec<Op>, expressions: &[&str]| {
        let state = ruled(rules, &[preferring(expressions)]);
        let decided = round_at(&state, NOW);
        let winner = &trace_of(&decided[0].placement).winner;
        (winner.agent.to_string(), winner.terms[0])
    };
    assert_eq!(decided(vec![], &["zone=b", "ssd"]), ("a3".into(), 1_000));
    let rules = vec![rule(RuleAction::Prefer, of("blue"), &["a2"], None)];
    assert_eq!(decided(rules.clone(), &["zone=a"]), ("a2".into(), 0));
    assert_eq!(decided(rules, &["zone=b", "zone!=a"]), ("a3".into(), 1_000));
    // Those that prefer nothing are chosen for as ever.
    let tasks = [preferring(&["zone=b"]), task_of("blue")];
    let state = ruled(vec![], &tasks);
    let versions = round_at(&state, NOW);
    let versions = versions
        .iter()
        .map(|it| trace_of(&it.placement).policy_version);
    let prefers = versions.map(|it| formula_of(it).unwrap().prefers);
    assert_eq!(prefers.collect::<Vec<_>>(), [true, false]);
}

#[test]
fn why_names_the_caps_that_are_full_and_no_others() {
    let everybody = Scope::default();
    let rules = vec![
        rule(RuleAction::Cap(1), of("blue"), &["a1", "a2", "a3"], None),
        rule(RuleAction::Cap(50), everybody, &["a1", "a2", "a3"], None),
    ];
    let mut state = ruled(rules, &vec![task_of("blue"); 4]);
    assert_eq!(placed(&mut state).len(), 3);
    let told = why(&state, 4);
    assert_eq!(told.matches("Rule r").count(), 1, "{told}");
    assert!(
        told.contains("cap tasks of namespace blue at 1 on each of"),
        "{told}"
    );
}

#[test]
fn tasks_that_rules_leave_no_agent_to_keep_take_no_place_from_those_behind_them() {
    let pin = rule(RuleAction::Pin, of("blue"), &["a1"], None);
    let mut state = crowded(vec![pin]);
    // More lines of `blue` than a round looks for agents for, all of them pinned to one; behind them one of `red`.
    let lines = (0..140u64).map(|n| TaskSpec {
        memory_mib: Some(800 - n),
        ..task_of("blue")
    });
    let tasks: Vec<TaskSpec> = lines.collect();
    state = submitted(state, &tasks);
    let red = TaskSpec {
        memory_mib: Some(900),
        ..task_of("red")
    };
    state = submitted(state, &[red]);
    let last = state.tasks_newest_first(None).next().unwrap().id;
    let late = Timestamp(NOW.0 + 3_600_000);
    let told = explain(&state, &fleet(&state), late, last).unwrap().summary;
    assert!(told.contains("is kept free for it"), "{told}");
}

#[test]
fn a_rule_for_a_kind_holds_up_no_other_kind_that_requires_the_same() {
    let process = task("offers m");
    let tasks = [process.clone(), process, question()];
    let agents = || [with_a_back_end("b1", 4, 4), with_a_back_end("b2", 4, 4)].concat();
    let mut state = cluster(&[], &[]);
    apply(&mut state, agents());
    let pinned = rule(RuleAction::Pin, of_kind(Kind::Process), &["b1"], None);
    apply(
        &mut state,
        vec![
            pinned,
            rule(RuleAction::Cap(1), of_kind(Kind::Process), &["b1"], None),
        ],
    );
    let mut state = submitted(state, &tasks);
    let placed = placed(&mut state);
    assert_eq!(placed[&1], "b1");
    assert!(
        !placed.contains_key(&2) && placed.contains_key(&3),
        "{placed:?}"
    );
}

#[test]
fn a_rule_that_has_expired_holds_no_more_and_its_end_is_proposed() {
    let rules = vec![rule(
        RuleAction::Exclude,
        of("blue"),
        &["a1", "a2"],
        Some(5_000),
    )];
    let state = ruled(rules, &vec![task_of("blue"); 4]);
    assert_eq!(round_at(&state, Timestamp(NOW.0 + 4_999)).len(), 2);
    let end = Timestamp(NOW.0 + 5_000);
    assert_eq!(round_at(&state, end).len(), 4);
    let due_at = |state: &State, now| {
        let clock = Clock {
            state: now,
            monotonic: Millis(0),
        };
        due(state, &Leases::default(), clock)
    };
    assert_eq!(due_at(&state, NOW), []);
    let expired = SystemCommand::ExpireRule {
        rule: model::RuleId { entry: 2, nth: 0 },
    };
    assert_eq!(due_at(&state, end), std::slice::from_ref(&expired));
    let mut after = state;
    apply_at(&mut after, end, vec![Op::System(expired)]);
    assert_eq!(due_at(&after, end), []);
}

/// Four machines with 1,000 MiB, each of which runs a task of `blue` that takes 500 of them; and one of `blue` that waits for
/// 900.
fn crowded(rules: Vec<Op>) -> State {
    let mut state = ruled(vec![], &[]);
    let machines = ["a1", "a2", "a3", "a4"].map(|name| machine(name, 2, supply(1, 1_000, &[])));
    apply(&mut state, machines.to_vec());
    let asking = |memory_mib| TaskSpec {
        memory_mib: Some(memory_mib),
        ..task_of("blue")
    };
    let mut state = submitted(state, &vec![asking(500); 4]);
    assert_eq!(placed(&mut state).len(), 4);
    apply(&mut state, rules);
    submitted(state, &[asking(900)])
}

#[test]
fn no_agent_is_kept_free_for_a_task_that_a_rule_keeps_from_it() {
    let late = Timestamp(NOW.0 + 3_600_000);
    let told = |rules| {
        let state = crowded(rules);
        explain(&state, &fleet(&state), late, TaskId(5))
            .unwrap()
            .summary
    };
    assert!(told(vec![]).contains("is kept free for it"));
    for action in [RuleAction::Exclude, RuleAction::Cap(1)] {
        let told = told(vec![rule(action, of("blue"), &["a1", "a2"], None)]);
        assert!(told.contains("a3 is kept free for it"), "{told}");
    }
}

/// What a rule says, worked out once more.
fn allows(rule: &Rule, spec: &TaskSpec, agent: &str, held: &[TaskSpec]) -> bool {
    let AddRule {
        action,
        scope,
        agents,
        ..
    } = &rule.asked;
    let is_about = |spec: &TaskSpec| {
        scope
            .namespace
            .as_ref()
            .is_none_or(|it| *it == spec.namespace)
            && scope.kind.is_none_or(|it| it == spec.kind())
    };
    let labels = |it: &Expression| it.to_string().contains(agent);
    let named = (agents.names.is_empty() || agents.names.contains(&id(agent)))
        && agents.require.iter().all(labels);
    match action {
        _ if !is_about(spec) => true,
        RuleAction::Pin => named,
        RuleAction::Exclude => !named,
        RuleAction::Prefer => true,
        RuleAction::Cap(most) => {
            !named || held.iter().filter(|it| is_about(it)).count() < *most as usize
        }
    }
}

fn some_rule() -> impl proptest::strategy::Strategy<Value = AddRule> {
    let action = prop::sample::select(vec![
        RuleAction::Pin,
        RuleAction::Exclude,
        RuleAction::Prefer,
        RuleAction::Cap(1),
        RuleAction::Cap(2),
    ]);
    let namespace = prop::option::of(prop::sample::select(vec!["blue", "red"]));
    let kind = prop::option::of(prop::sample::select(Kind::ALL.to_vec()));
    let agents = prop::sample::subsequence(vec!["b1", "b2", "b3"], 1..3);
    let by_label = 0..3u8;
    let rule = (action, namespace, kind, agents, by_label);
    rule.prop_map(|(action, namespace, kind, agents, by_label)| {
        let namespace = namespace.map(|it| Namespace::new(it).unwrap());
        let labels = format!("own in ({})", agents.join(","));
        AddRule {
            action,
            scope: Scope { namespace, kind },
            // By name, by label, or by both.
            agents: Agents {
                names: match by_label {
                    1 => BTreeSet::new(),
                    _ => agents.iter().map(|name| id(name)).collect(),
                },
                require: match by_label {
                    0 => Vec::new(),
                    _ => vec![labels.parse().unwrap()],
                },
            },
            reason: "by chance".into(),
            ttl: None,
        }
    })
}

/// One with a back end, and its name as a label.
fn labelled(name: &str, slots: u32) -> Vec<Op> {
    let mut ops = with_a_back_end(name, slots, 9);
    if let Op::Client {
        command: Command::RegisterAgent(profile),
        ..
    } = &mut ops[0]
    {
        profile.labels.insert("own".into(), name.into());
    }
    ops
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the rules, the strategies and the tasks: what is decided obeys them, is accepted, and leaves nobody waiting
    /// beside a slot that he could have had.
    #[test]
    fn what_is_decided_obeys_every_rule_and_leaves_nobody_behind(
        rules in prop::collection::vec(some_rule(), 0..5),
        strategy in prop::sample::select(&Strategy::ALL[..]),
        slots in prop::collection::vec(1..4u32, 3),
        tasks in prop::collection::vec((any::<bool>(), any::<bool>()), 1..14),
    ) {
        let mut state = cluster(&[], &[]);
        for (name, slots) in ["b1", "b2", "b3"].into_iter().zip(&slots) {
            apply(&mut state, labelled(name, *slots));
        }
        let scope = Scope::default();
        apply(&mut state, vec![said(strategy, scope)]);
        for rule in rules {
            // Some contradict, and are refused.
            let index = state.last_applied() + 1;
            let entry = Entry { stamp: NOW, wall: NOW, ops: vec![asked(Command::AddRule(rule))] };
            state.apply(Stamped { index, term: 1, membership: 0, entry });
        }
        let specs: Vec<TaskSpec> = tasks.iter().map(|(is_question, is_blue)| {
            let spec = if *is_question { question() } else { task("offers m") };
            let namespace = Namespace::new(if *is_blue { "blue" } else { "red" }).unwrap();
            TaskSpec { namespace, ..spec }
        }).collect();
        let mut state = submitted(state, &specs);
        let rules: Vec<Rule> = state.rules().cloned().collect();
        let mut held: BTreeMap<String, Vec<TaskSpec>> = BTreeMap::new();
        for decided in round_at(&state, NOW) {
            let spec = state.spec(decided.task).unwrap();
            let agent = decided.placement.agent.to_string();
            let holds = held.entry(agent.clone()).or_default();
            for rule in &rules {
                prop_assert!(allows(rule, &spec, &agent, holds), "{} on {}: {}", decided.task, agent, rule.asked);
            }
            // No agent with a free slot, and as many preferences met, is behind one that meets fewer.
            let trace = &trace_of(&decided.placement);
            prop_assert!(trace.runners_up.iter().all(|it| it.score >= trace.winner.score), "{:?}", trace);
            holds.push((*spec).clone());
            apply(&mut state, vec![Op::System(SystemCommand::Assign(decided))]);
        }
        for task in state.tasks_newest_first(None).filter(|task| task.live().is_none()) {
            let spec = state.spec(task.id).unwrap();
            for (name, slots) in ["b1", "b2", "b3"].into_iter().zip(&slots) {
                let held = held.get(name).map_or(&[][..], Vec::as_slice);
                let open = rules.iter().all(|rule| allows(rule, &spec, name, held));
                prop_assert!(!open || held.len() >= *slots as usize, "{} waits, and {} has room", task.id, name);
            }
        }
    }
}
