//! Rules that people made by hand: which of them go together, and how they are known again.

use super::exemplars::by_ann;
use super::world::{World, agent_id, profile, register_op};
use crate::{AddRule, Agents, Command, Namespace, Op, RuleAction, RuleId, Scope};

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
        scope: Scope {
            namespace: Namespace::new("blue").ok(),
            kind: None,
        },
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
