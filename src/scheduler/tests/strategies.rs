//! What each strategy chooses, and that its numbers say why.

use std::collections::BTreeSet;

use model::{Kind, Scope, Scored, SetPolicy, Strategy};
use proptest::prelude::*;

use super::*;
use crate::score::{Way, formula, preemption};
use crate::{Planner, formula_of};

pub(super) fn said(strategy: Strategy, scope: Scope) -> Op {
    let strategy = Some(strategy);
    asked(Command::SetPolicy(SetPolicy { scope, strategy }))
}

/// A cluster whose rounds follow each other, as a leader's do.
pub(super) struct Cluster {
    pub state: State,
    pub fleet: Fleet,
}

impl Cluster {
    pub fn new(strategy: Strategy, agents: &[(&str, u32)]) -> Cluster {
        let agents: Vec<_> = agents
            .iter()
            .map(|(name, slots)| (*name, *slots, "a"))
            .collect();
        let mut state = cluster(&agents, &[]);
        apply(&mut state, vec![said(strategy, Scope::default())]);
        let fleet = fleet(&state);
        Cluster { state, fleet }
    }

    fn join(&mut self, name: &str, slots: u32) {
        apply(&mut self.state, vec![registration(name, slots, "a")]);
        let rotations = std::mem::take(&mut self.fleet.rotations);
        self.fleet = Fleet {
            rotations,
            ..fleet(&self.state)
        };
    }

    pub fn submit(&mut self, user: &str, spec: &TaskSpec) {
        let mut op = submission(spec);
        if let Op::Client { principal, .. } = &mut op {
            principal.name = user.into();
        }
        apply(&mut self.state, vec![op]);
    }

    /// One round, whose decisions are applied.
    pub fn round(&mut self) -> Vec<model::Assignment> {
        self.round_at(NOW)
    }

    pub fn round_at(&mut self, now: Timestamp) -> Vec<model::Assignment> {
        let taken = BTreeSet::new();
        let mut planner = Planner::new(&self.state, &self.fleet, now);
        let round = Round {
            now,
            taken: &taken,
            max: 100,
            after: None,
        };
        let plan = planner.round(round);
        // As a leader does.
        if !plan.assignments.is_empty() {
            self.fleet.rotations = planner.into_rotations();
        }
        let assigns = plan.assignments.iter().cloned();
        let ops = assigns.map(|it| Op::System(SystemCommand::Assign(it)));
        apply_at(&mut self.state, now, ops.collect());
        plan.assignments
    }

    /// Who gets the next so many tasks, one round for each.
    pub fn next(&mut self, count: usize) -> Vec<String> {
        let one = |_| {
            self.submit("ann", &task(""));
            let decided = self.round();
            assert_eq!(decided.len(), 1);
            decided[0].placement.agent.to_string()
        };
        (0..count).map(one).collect()
    }

    pub fn all_end(&mut self) {
        let live: Vec<_> = self
            .state
            .agents()
            .flat_map(|agent| {
                let held = self.state.held_by(&agent.profile.id);
                held.filter_map(|task| {
                    Some((self.state.live_fence(task.id)?, agent.profile.id.clone()))
                })
            })
            .collect();
        for (fence, agent) in live {
            let outcome = Outcome::bare(End::Exited { code: 0 });
            apply(
                &mut self.state,
                vec![report(agent.as_str(), fence, outcome)],
            );
        }
    }
}

pub(super) fn counted(agents: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for agent in agents {
        *counts.entry(agent.as_str()).or_insert(0) += 1;
    }
    counts
}

#[test]
fn in_round_robin_each_has_its_turn_once_before_anybody_has_another_one() {
    let mut it = Cluster::new(Strategy::RoundRobin, &[("a1", 9), ("a2", 30), ("a3", 9)]);
    let first = it.next(3);
    assert_eq!(
        counted(&first),
        BTreeMap::from([("a1", 1), ("a2", 1), ("a3", 1)])
    );
    // The order stays as it is, over rounds that begin anew, and over many decisions in one.
    assert_eq!(it.next(3), first);
    for _ in 0..6 {
        it.submit("ann", &task(""));
    }
    let more: Vec<String> = it
        .round()
        .iter()
        .map(|a| a.placement.agent.to_string())
        .collect();
    assert_eq!(more, [first.clone(), first].concat());
}

#[test]
fn who_comes_later_or_missed_its_turns_goes_on_with_the_others_and_makes_up_for_nothing() {
    let mut it = Cluster::new(Strategy::RoundRobin, &[("a1", 50), ("a2", 50)]);
    it.next(10);
    it.join("a3", 50);
    assert_eq!(
        counted(&it.next(9)),
        BTreeMap::from([("a1", 3), ("a2", 3), ("a3", 3)])
    );
    it.fleet.agents.get_mut(&id("a3")).unwrap().sample.presence = Presence::Suspect;
    assert_eq!(
        counted(&it.next(10)),
        BTreeMap::from([("a1", 5), ("a2", 5)])
    );
    it.fleet.agents.get_mut(&id("a3")).unwrap().sample.presence = Presence::Open;
    assert_eq!(
        counted(&it.next(9)),
        BTreeMap::from([("a1", 3), ("a2", 3), ("a3", 3)])
    );
}

#[test]
fn agents_that_fit_few_tasks_have_their_turns_of_these_whatever_others_have_meanwhile() {
    let mut it = Cluster::new(Strategy::RoundRobin, &[]);
    for (name, zone) in [("a", "gpu"), ("b", "gpu"), ("c", "cpu")] {
        apply(&mut it.state, vec![registration(name, 50, zone)]);
    }
    it.fleet = fleet(&it.state);
    let mut of_gpu = Vec::new();
    for _ in 0..10 {
        for zone in ["zone=cpu", "zone=gpu"] {
            it.submit("ann", &task(zone));
            let agent = it.round()[0].placement.agent.to_string();
            of_gpu.extend((zone == "zone=gpu").then_some(agent));
        }
    }
    assert_eq!(counted(&of_gpu), BTreeMap::from([("a", 5), ("b", 5)]));
}

#[test]
fn whatever_the_strategy_nothing_is_sent_ahead_while_another_agent_has_a_free_slot() {
    for strategy in Strategy::ALL {
        for user in ["ann", "bob", "eve"] {
            let mut it = Cluster::new(strategy, &[("a1", 1), ("a2", 1), ("a3", 2)]);
            for view in it.fleet.agents.values_mut() {
                view.sample.prefetch = 1;
            }
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for _ in 0..7 {
                it.submit(user, &task(""));
                let newest = it.state.tasks_newest_first(None).next().unwrap().id;
                let told = explain(&it.state, &it.fleet, NOW, newest).unwrap();
                let placed = it.round().remove(0).placement;
                let told = told.agents.into_iter().find(|it| it.agent == placed.agent);
                assert!(told.unwrap().standing.is_ok(), "{strategy}");
                *counts.entry(placed.agent.to_string()).or_default() += 1;
                if counts.values().sum::<usize>() == 4 {
                    let each = counts.values().copied().collect::<Vec<_>>();
                    assert_eq!(each, [1, 1, 2], "{strategy}");
                }
            }
        }
    }
}

#[test]
fn in_weighted_round_robin_turns_go_by_slots() {
    let mut it = Cluster::new(
        Strategy::WeightedRoundRobin,
        &[("a1", 10), ("a2", 20), ("a4", 40)],
    );
    let order = it.next(14);
    assert_eq!(
        counted(&order),
        BTreeMap::from([("a1", 2), ("a2", 4), ("a4", 8)])
    );
    let longest = order.chunk_by(|a, b| a == b).map(<[String]>::len).max();
    assert!(longest <= Some(3), "{order:?}");
}

#[test]
fn least_connections_go_by_the_number_of_attempts_whatever_the_slots() {
    let mut it = Cluster::new(Strategy::LeastConnections, &[("a1", 16), ("a2", 2)]);
    reserve(&mut it.fleet, "a1", 2);
    reserve(&mut it.fleet, "a2", 1);
    assert_eq!(it.next(1), ["a2"]);
}

#[test]
fn a_client_keeps_its_agent_and_when_another_one_comes_few_have_to_move() {
    let agents: Vec<(String, u32)> = (1..=9).map(|n| (format!("a{n}"), 400)).collect();
    let agents: Vec<_> = agents
        .iter()
        .map(|(name, slots)| (name.as_str(), *slots))
        .collect();
    let mut it = Cluster::new(Strategy::IpHash, &agents);
    let clients: Vec<String> = (0..300).map(|n| format!("client-{n}")).collect();
    let of_all = |it: &mut Cluster| -> BTreeMap<String, String> {
        let each = clients.iter().map(|client| {
            it.submit(client, &task(""));
            let agent = it.round()[0].placement.agent.to_string();
            (client.clone(), agent)
        });
        each.collect()
    };
    let before = of_all(&mut it);
    assert_eq!(of_all(&mut it), before);
    it.all_end();
    it.join("a10", 400);
    let after = of_all(&mut it);
    let moved: Vec<&String> = clients
        .iter()
        .filter(|it| before[*it] != after[*it])
        .collect();
    assert!(
        moved.iter().all(|client| after[*client] == "a10"),
        "{moved:?}"
    );
    // A tenth, by far more than by chance.
    assert!((10..60).contains(&moved.len()), "{} of 300", moved.len());
    let shares = counted(&after.into_values().collect::<Vec<_>>())
        .into_values()
        .collect::<Vec<_>>();
    assert!(
        shares.len() == 10 && shares.iter().all(|share| (10..60).contains(share)),
        "{shares:?}"
    );
}

#[test]
fn a_session_is_a_client_of_its_own_and_one_whose_agent_is_full_has_always_the_same_second() {
    let mut it = Cluster::new(
        Strategy::IpHash,
        &[("a1", 2), ("a2", 2), ("a3", 2), ("a4", 2)],
    );
    let ask = |it: &mut Cluster, user: &str, session: &str| {
        let mut spec = task("");
        spec.labels = BTreeMap::from([("session".to_owned(), session.to_owned())]);
        it.submit(user, &spec);
        it.round()[0].placement.agent.to_string()
    };
    let four = |it: &mut Cluster| -> Vec<String> { (0..4).map(|_| ask(it, "ann", "s1")).collect() };
    let first = four(&mut it);
    assert_eq!(counted(&first).into_values().collect::<Vec<_>>(), [2, 2]);
    it.all_end();
    assert_eq!(four(&mut it), first);
    it.all_end();
    // Whoever asks: the session counts. And another one is elsewhere, some day.
    assert_eq!(ask(&mut it, "bob", "s1"), first[0]);
    let others = (2..40).map(|n| {
        it.all_end();
        ask(&mut it, "ann", &format!("s{n}"))
    });
    assert_eq!(others.collect::<BTreeSet<_>>().len(), 4);
}

#[test]
fn of_two_that_are_drawn_the_less_loaded_one_is_taken_and_both_stand_in_the_trace() {
    let agents: Vec<(String, u32)> = (1..=8).map(|n| (format!("a{n}"), 50)).collect();
    let agents: Vec<_> = agents
        .iter()
        .map(|(name, slots)| (name.as_str(), *slots))
        .collect();
    let mut it = Cluster::new(Strategy::PowerOfTwo, &agents);
    reserve(&mut it.fleet, "a1", 40);
    let mut winners = Vec::new();
    for _ in 0..100 {
        it.submit("ann", &task(""));
        let placement = it.round().remove(0).placement;
        let trace = trace_of(&placement);
        let [other] = trace.runners_up.as_slice() else {
            panic!("two were drawn: {trace:?}")
        };
        assert!(trace.winner.score <= other.score);
        winners.push(placement.agent.to_string());
    }
    let counts = counted(&winners);
    // Whoever is the fullest wins against nobody; all others do at some time.
    assert!(
        counts.len() == 7 && !counts.contains_key("a1"),
        "{counts:?}"
    );
    let mut alone = Cluster::new(Strategy::PowerOfTwo, &[("a1", 2)]);
    assert_eq!(alone.next(2), ["a1", "a1"]);
}

#[test]
fn binpack_fills_one_before_it_begins_another() {
    let mut it = Cluster::new(Strategy::Binpack, &[("a1", 4), ("a2", 4), ("a3", 4)]);
    let order = it.next(12);
    let full: Vec<usize> = order.chunk_by(|a, b| a == b).map(<[String]>::len).collect();
    assert_eq!(full, [4, 4, 4]);
}

#[test]
fn spread_is_even_for_each_namespace_whatever_others_have_where() {
    let mut it = Cluster::new(Strategy::Spread, &[("a1", 20), ("a2", 20), ("a3", 20)]);
    // Of another namespace, all on one agent.
    let mut pinned = task("");
    pinned.namespace = Namespace::new("other").unwrap();
    for _ in 0..6 {
        apply(&mut it.state, vec![submission(&pinned)]);
        let next = it.state.tasks_newest_first(None).next().unwrap().id;
        let placement = model::Placement {
            estimate: None,
            agent: id("a1"),
            incarnation: Incarnation([1; 16]),
            trace: std::sync::Arc::new(model::TraceRecord::Open(model::Trace {
                policy_version: 1,
                winner: Scored {
                    agent: id("a1"),
                    score: 0,
                    terms: vec![0],
                },
                runners_up: Vec::new(),
                refusals: Vec::new(),
            })),
        };
        let assign = model::Assignment {
            task: next,
            placement,
        };
        apply(
            &mut it.state,
            vec![Op::System(SystemCommand::Assign(assign))],
        );
    }
    let order = it.next(12);
    assert_eq!(
        counted(&order),
        BTreeMap::from([("a1", 4), ("a2", 4), ("a3", 4)])
    );
    // Of equally many of its own, the less loaded agent: it comes last of each three.
    assert!(order.chunks(3).all(|three| three[2] == "a1"), "{order:?}");
}

#[test]
fn tasks_of_one_round_are_placed_each_by_the_policy_that_holds_for_it() {
    let mut it = Cluster::new(Strategy::Binpack, &[("a1", 8), ("a2", 8)]);
    let even = Namespace::new("even").unwrap();
    let scope = Scope {
        namespace: Some(even.clone()),
        kind: Some(Kind::Process),
    };
    apply(&mut it.state, vec![said(Strategy::Spread, scope)]);
    let mut spread = task("");
    spread.namespace = even.clone();
    for _ in 0..4 {
        it.submit("ann", &task(""));
        it.submit("ann", &spread);
    }
    let decided = it.round();
    let of = |namespace: &Namespace| {
        let those = decided
            .iter()
            .filter(|it_was| it.state.spec(it_was.task).unwrap().namespace == *namespace);
        those
            .map(|it| it.placement.agent.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(counted(&of(&even)), BTreeMap::from([("a1", 2), ("a2", 2)]));
    assert_eq!(counted(&of(&Namespace::new("default").unwrap())).len(), 1);
}

#[test]
fn each_formula_is_known_by_its_version_and_no_two_have_the_same() {
    let all = || {
        Strategy::ALL
            .into_iter()
            .flat_map(|it| [(it, false), (it, true)])
    };
    let versions: BTreeSet<u32> = all()
        .map(|(it, prefers)| formula(it, prefers).version)
        .collect();
    assert_eq!(versions.len(), 2 * Strategy::ALL.len());
    assert!(!versions.contains(&preemption().version));
    assert_eq!(formula_of(preemption().version), Some(preemption()));
    for (strategy, prefers) in all() {
        let found = formula(strategy, prefers);
        assert_eq!(formula_of(found.version), Some(found));
        assert_eq!(
            (found.way, found.prefers),
            (Way::Strategy(strategy), prefers)
        );
    }
    assert_eq!(formula_of(0), None);
}

pub(super) fn adds_up(scored: &Scored, policy_version: u32) -> bool {
    let formula = formula_of(policy_version).expect("it is one of ours");
    let weighted = scored.terms.iter().zip(formula.terms());
    let sum = weighted
        .map(|(term, (_, weight))| term * weight)
        .sum::<i64>()
        / 1_000;
    scored.terms.len() == formula.terms().count() && sum == scored.score
}

/// A task of one of two namespaces and users, with or without a requirement, a file or a model.
fn some_task(n: usize) -> (TaskSpec, &'static str) {
    let mut spec = match n % 5 {
        0 => question(),
        1 => task("zone=a"),
        2 => task("zone=b"),
        _ => task(""),
    };
    if n.is_multiple_of(3) {
        spec.namespace = Namespace::new("blue").unwrap();
    }
    (spec, if n.is_multiple_of(2) { "ann" } else { "bob" })
}

/// Of which strategies there are, so that each scope has its own.
fn scopes() -> Vec<Scope> {
    let namespaces = [None, Some(Namespace::new("blue").unwrap())];
    let kinds = [None, Some(Kind::Process), Some(Kind::Inference)];
    let of = |namespace: &Option<Namespace>| {
        let namespace = namespace.clone();
        kinds.map(|kind| Scope {
            namespace: namespace.clone(),
            kind,
        })
    };
    namespaces.iter().flat_map(of).collect()
}

proptest! {
    /// All sorts of tasks in one round, each under a strategy of its own, on agents with limits and room ahead: rankings are
    /// kept true (an assertion in them says so), nobody gets more than there is room for, and no slot stays free that fits.
    #[test]
    fn rankings_stay_true_while_a_round_mixes_all_strategies(
        strategies in prop::collection::vec(prop::sample::select(&Strategy::ALL[..]), 6),
        agents in prop::collection::vec((1..5u32, 0..3u32, 0..2u32, any::<bool>()), 1..7),
        count in 1..40usize,
    ) {
        let mut it = Cluster::new(Strategy::Adaptive, &[]);
        for (scope, strategy) in scopes().into_iter().zip(strategies) {
            apply(&mut it.state, vec![said(strategy, scope)]);
        }
        for (n, (slots, limit, _, is_plain)) in agents.iter().enumerate() {
            let name = format!("a{n}");
            let zone = if n % 2 == 0 { "a" } else { "b" };
            let ops = match is_plain {
                true => vec![registration(&name, *slots, zone)],
                false => with_a_back_end(&name, *slots, *limit),
            };
            apply(&mut it.state, ops);
        }
        it.fleet = fleet(&it.state);
        for (view, (_, _, prefetch, _)) in it.fleet.agents.values_mut().zip(&agents) {
            view.sample.prefetch = *prefetch;
        }
        for n in 0..count {
            let (spec, user) = some_task(n);
            it.submit(user, &spec);
        }
        it.round();
        // What is left fits nobody with room.
        prop_assert_eq!(it.round().len(), 0);
        for (agent, (slots, _, prefetch, _)) in it.state.agents().zip(&agents) {
            prop_assert!(it.state.slots_taken(&agent.profile.id) <= slots + prefetch);
        }
    }
}

proptest! {
    /// Whatever the strategy and the load: the numbers of a decision add up, no runner-up has better ones, and what `why`
    /// says of the agents just before is what was decided by.
    #[test]
    fn the_numbers_of_a_decision_add_up_and_say_the_same_as_why_did(
        strategy in prop::sample::select(&Strategy::ALL[..]),
        agents in prop::collection::vec((1..6u32, 0..4u32), 1..8),
        tasks in 1..12usize,
        prefers in any::<bool>(),
    ) {
        let names: Vec<String> = (1..=agents.len()).map(|n| format!("a{n}")).collect();
        let slots = names.iter().map(String::as_str).zip(agents.iter().map(|(slots, _)| *slots));
        let mut it = Cluster::new(strategy, &slots.collect::<Vec<_>>());
        for (name, (slots, reserved)) in names.iter().zip(&agents) {
            reserve(&mut it.fleet, name, (*reserved).min(*slots - 1));
        }
        if prefers {
            apply(&mut it.state, vec![super::by_hand::rule(model::RuleAction::Prefer, Scope::default(), &["a1"], None)]);
        }
        for _ in 0..tasks {
            it.submit("ann", &task(""));
            let newest = it.state.tasks_newest_first(None).next().unwrap().id;
            let told = explain(&it.state, &it.fleet, NOW, newest).unwrap();
            prop_assert_eq!(told.strategy(), Some(strategy));
            // On another machine, whose state came in a snapshot, the decision is the same.
            let elsewhere = State::decode(&it.state.encode()).unwrap();
            prop_assert_eq!(planned(&elsewhere, &it.fleet), planned(&it.state, &it.fleet));
            let Some(decision) = it.round().pop() else { break };
            let trace = &trace_of(&decision.placement);
            prop_assert_eq!(trace.policy_version, formula(strategy, prefers).version);
            let now: BTreeMap<AgentId, Scored> = told.agents.into_iter()
                .filter_map(|verdict| Some((verdict.agent, verdict.standing.ok()?)))
                .collect();
            for scored in std::iter::once(&trace.winner).chain(&trace.runners_up) {
                prop_assert!(adds_up(scored, trace.policy_version), "{:?}", scored);
                prop_assert!(trace.winner.score <= scored.score, "{:?}", trace);
                prop_assert_eq!(now.get(&scored.agent), Some(scored));
            }
            if strategy != Strategy::PowerOfTwo {
                let best = now.values().map(|it| it.score).min();
                prop_assert_eq!(best, Some(trace.winner.score));
            }
        }
    }
}
