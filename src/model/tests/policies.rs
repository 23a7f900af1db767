//! Which policy holds for a task, and how many there may be.

use super::world::{World, client, spec};
use crate::{
    Command, Kind, Namespace, Op, POLICIES_MAX, Rejected, Reply, Scope, SetPolicy, Strategy,
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
