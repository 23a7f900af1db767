//! Which policy holds for a task, and how many there may be.

use super::exemplars::by_ann;
use super::world::{World, agent_id, client, profile, register_op, spec};
use crate::{
    AddRule, Agents, Command, Kind, Namespace, Op, POLICIES_MAX, Rejected, Reply, RuleAction,
    RuleId, Scope, SetPolicy, Strategy,
};

fn scope(namespace: &str, kind: Option<Kind>) -> Scope {
    let namespace = (!namespace.is_empty()).then(|| namespace.parse().unwrap());
    Scope { namespace, kind }
}

fn set(world: &mut World, scope: Scope, strategy: Option<Strategy>) -> Result<Reply, Rejected> {
    world.one(Op::Client {
        principal: client("ann"),
        command: Command::SetPolicy(SetPolicy { scope, strategy }),
        placement: None,
        held: None,
    })
}

#[test]
fn the_narrowest_holds_and_a_namespace_is_narrower_than_a_kind() {
    let mut world = World::today();
    let mut of_blue = spec("true");
    of_blue.namespace = Namespace::new("blue").unwrap();
    let of_red = spec("true");
    let steps = [
        (scope("", None), Strategy::Spread),
        (scope("", Some(Kind::Process)), Strategy::Binpack),
        (scope("blue", None), Strategy::IpHash),
        (scope("blue", Some(Kind::Process)), Strategy::RoundRobin),
    ];
    assert_eq!(world.state.strategy_for(&of_blue), Strategy::Adaptive);
    for (scope, strategy) in steps.clone() {
        set(&mut world, scope, Some(strategy)).unwrap();
        assert_eq!(world.state.strategy_for(&of_blue), strategy);
    }
    assert_eq!(world.state.strategy_for(&of_red), Strategy::Binpack);
    // One for another kind is nothing to a process.
    set(
        &mut world,
        scope("blue", Some(Kind::Inference)),
        Some(Strategy::PowerOfTwo),
    )
    .unwrap();
    for (scope, strategy) in steps.into_iter().rev() {
        assert_eq!(world.state.strategy_for(&of_blue), strategy);
        set(&mut world, scope, None).unwrap();
    }
    assert_eq!(world.state.strategy_for(&of_blue), Strategy::Adaptive);
}

#[test]
fn there_are_so_many_policies_at_most_and_what_is_there_may_still_change() {
    let mut world = World::today();
    for n in 0..POLICIES_MAX {
        set(
            &mut world,
            scope(&format!("n{n}"), None),
            Some(Strategy::Spread),
        )
        .unwrap();
    }
    let one_more = set(&mut world, scope("more", None), Some(Strategy::Spread));
    assert!(
        matches!(one_more, Err(Rejected::OverLimit { .. })),
        "{one_more:?}"
    );
    assert_eq!(world.state.policies().count(), POLICIES_MAX);
    set(&mut world, scope("n7", None), Some(Strategy::Binpack)).unwrap();
    set(&mut world, scope("n8", None), None).unwrap();
    set(&mut world, scope("more", None), Some(Strategy::Spread)).unwrap();
}

fn exclude(agents: &[&str]) -> Op {
    by_ann(Command::AddRule(AddRule {
        action: RuleAction::Exclude,
        scope: Scope::default(),
        agents: Agents {
            names: agents.iter().map(|name| agent_id(name)).collect(),
            require: Vec::new(),
        },
        reason: "bad memory".into(),
        ttl: None,
    }))
}

#[test]
fn a_rule_that_is_said_again_is_so_though_agents_have_changed_meanwhile() {
    let mut world = World::today();
    world.apply(
        ["a1", "a2"]
            .map(|name| register_op(profile(name, 1, 1)))
            .to_vec(),
    );
    world.one(exclude(&["a1"])).unwrap();
    let (agent, reason) = (agent_id("a2"), String::new());
    let cordon = by_ann(Command::CordonAgent { agent, reason });
    world.one(cordon).unwrap();
    let agent = agent_id("a2");
    world.one(by_ann(Command::RemoveAgent { agent })).unwrap();
    // Nobody is left but who is excluded: as a new rule it would be refused.
    world.one(exclude(&["a1"])).unwrap();
    let other = by_ann(Command::AddRule(AddRule {
        scope: scope("blue", None),
        ..match exclude(&["a1"]) {
            Op::Client {
                command: Command::AddRule(rule),
                ..
            } => rule,
            other => panic!("{other:?}"),
        }
    }));
    // A new one would leave its tasks none.
    world.one(other).unwrap_err();
}

#[test]
fn among_many_agents_rules_look_at_each() {
    let mut world = World::today();
    let names: Vec<String> = (0..130).map(|n| format!("n{n:03}")).collect();
    let agents = names.iter().map(|name| register_op(profile(name, 1, 1)));
    world.apply(agents.collect());
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    world.one(exclude(&all[..64])).unwrap();
    world.one(exclude(&all[64..128])).unwrap();
    world.one(exclude(&all[128..129])).unwrap();
    let told = world.one(exclude(&all[129..])).unwrap_err().to_string();
    assert!(told.contains("no agent would be left"), "{told}");
    assert_eq!(world.state.rules().count(), 3);
}

#[test]
fn no_two_rules_ever_have_the_same_id_though_one_entry_makes_several() {
    let mut world = World::today();
    let agents = ["a1", "a2", "a3", "a4"].map(|name| register_op(profile(name, 1, 1)));
    world.apply(agents.to_vec());
    let ids = |world: &World| {
        let ids = world.state.rules().map(|rule| rule.id.to_string());
        ids.collect::<Vec<_>>()
    };
    let entry = world.index + 1;
    world.apply(vec![exclude(&["a1"]), exclude(&["a2"]), exclude(&["a2"])]);
    let (first, second) = (format!("r{entry}"), format!("r{entry}.1"));
    assert_eq!(ids(&world), [first.as_str(), &second]);
    let rule: RuleId = second.parse().unwrap();
    let again = vec![
        by_ann(Command::RemoveRule { rule }),
        exclude(&["a2"]),
        exclude(&["a3"]),
    ];
    world.apply(again);
    let entry = world.index;
    assert_eq!(
        ids(&world),
        [first, format!("r{entry}"), format!("r{entry}.1")]
    );
    for wrong in ["17", "r", "r1.", "r1.x", "r-1", "r1.2.3", "t1"] {
        assert!(wrong.parse::<RuleId>().is_err(), "{wrong}");
    }
}
