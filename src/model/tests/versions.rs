//! The state version: how it rises, and what it holds back.

use super::world::{World, agent_id, placement, profile, register_op, spec, submit, submit_op};
use crate::{
    AgentProfile, AgentProtocol, Assignment, Command, Entry, Op, Placement, Rejected, Reply, State,
    StateVersion, SystemCommand, Timestamp, Versions,
};

fn raise(to: u32) -> SystemCommand {
    let to = StateVersion(to);
    SystemCommand::RaiseVersion { to }
}

/// Below all versions that there ever were: everything needs more.
fn before_all_versions() -> World {
    let mut world = World::new();
    world.state.meta.state_version = StateVersion(0);
    world
}

#[test]
fn a_state_begins_at_version_1_and_an_entry_raises_it_but_never_lowers_it() {
    let mut world = World::new();
    assert_eq!(world.state.state_version(), StateVersion(1));
    let before = world.state.hash();
    assert_eq!(world.system(raise(2)), Ok(Reply::Done));
    assert_eq!(world.state.state_version(), StateVersion(2));
    assert_ne!(world.state.hash(), before);
    for stale in [0, 1, 2] {
        let refused = world.system(raise(stale));
        let why = "the state is at version 2 already".to_owned();
        assert_eq!(refused, Err(Rejected::Stale(why)));
    }
    let restored = State::decode(&world.state.encode()).unwrap();
    assert_eq!(restored.state_version(), StateVersion(2));
}

#[test]
fn a_packed_trace_stands_in_no_entry_before_its_version() {
    let mut world = World::new();
    world.register(profile("a1", 4, 1)).unwrap();
    let open = placement("a1");
    let told = open.trace.read().unwrap();
    let packed = Placement {
        trace: std::sync::Arc::new(told.recorded(StateVersion(2))),
        ..open.clone()
    };
    let refused = Rejected::NotYet {
        needs: StateVersion(2),
        version: StateVersion(1),
    };
    let submitted = |request: &str, placement: &Placement| {
        submit_op(submit(spec("true"), Some(request)), Some(placement.clone()))
    };
    assert_eq!(world.one(submitted("r1", &packed)), Err(refused.clone()));
    assert_eq!(world.state.task_count(), 0);
    let Ok(Reply::Submitted { task, .. }) = world.submit(submit(spec("true"), None)) else {
        panic!("it is submitted");
    };
    let assign = |placement: &Placement| {
        let placement = placement.clone();
        SystemCommand::Assign(Assignment { task, placement })
    };
    assert_eq!(world.system(assign(&packed)), Err(refused));
    assert_eq!(world.system(assign(&open)), Ok(Reply::Done));
    assert_eq!(world.system(raise(2)), Ok(Reply::Done));
    let next = world.one(submitted("r2", &packed));
    assert!(matches!(next, Ok(Reply::Submitted { .. })), "{next:?}");
}

#[test]
fn what_needs_more_than_the_state_s_version_is_refused_and_changes_nothing() {
    let mut world = before_all_versions();
    let refused = Rejected::NotYet {
        needs: StateVersion(1),
        version: StateVersion(0),
    };
    let wanted = world.submit(submit(spec("true"), None));
    assert_eq!(wanted, Err(refused.clone()));
    let wanted = world.system(SystemCommand::ExpireLease {
        agent: agent_id("a1"),
        incarnation: super::world::incarnation(1),
    });
    assert_eq!(wanted, Err(refused.clone()));
    assert_eq!(world.state.task_count(), 0);
    assert_eq!(
        refused.to_string(),
        "this needs state version 1 and the cluster is at 0: it rises by itself once every controller \
         runs a release that has it"
    );
}

#[test]
fn a_leader_knows_what_would_be_refused_and_that_a_raise_makes_room_for_what_follows_it() {
    let world = before_all_versions();
    let ops = vec![submit_op(submit(spec("true"), None), None)];
    assert!(world.state.admits_all(&ops).is_err());
    assert!(
        world
            .state
            .admits(&Command::SubmitTask(submit(spec("true"), None)))
            .is_err()
    );
    let raised = [vec![Op::System(raise(1))], ops].concat();
    assert!(raised[0].needs() > world.state.state_version());
    assert_eq!(world.state.admits_all(&raised), Ok(()));
    let behind = [raised[1].clone(), raised[0].clone()];
    assert!(world.state.admits_all(&behind).is_err());
}

#[test]
fn a_release_says_which_entries_it_must_not_apply() {
    let entry = |to| Entry {
        stamp: Timestamp(1),
        wall: Timestamp(1),
        ops: vec![register_op(profile("a1", 1, 1)), Op::System(raise(to))],
    };
    let later = Versions {
        oldest: StateVersion(2),
        newest: StateVersion(3),
    };
    assert_eq!(later.check_entry(&entry(3)), Ok(()));
    let told = |to| later.check_entry(&entry(to)).unwrap_err().to_string();
    assert_eq!(
        told(4),
        "this release understands state versions up to 3, not 4; upgrade it"
    );
    assert!(told(1).contains("from 2 on, not 1"));
    let shown = [Versions::UNTOLD, later].map(|it| it.to_string());
    assert_eq!(shown, ["1", "2-3"]);
}

#[test]
fn a_raise_to_any_version_is_a_value_and_no_panic() {
    let mut world = World::new();
    assert_eq!(world.system(raise(u32::MAX)), Ok(Reply::Done));
    assert_eq!(world.state.state_version(), StateVersion(u32::MAX));
}

#[test]
fn what_an_agent_understands_is_left_out_until_the_version_has_a_place_for_it() {
    let mut world = World::new();
    let told = AgentProfile {
        protocol: AgentProtocol::NEWEST,
        ..profile("a1", 1, 1)
    };
    let refused = Err(Rejected::NotYet {
        needs: StateVersion(2),
        version: StateVersion(1),
    });
    assert_eq!(world.register(told.clone()), refused);
    assert!(!world.state.knows_as(&told), "it is not registered");
    assert_eq!(world.state.recordable(&told), profile("a1", 1, 1));
    world.register(world.state.recordable(&told)).unwrap();
    assert!(world.state.knows_as(&told), "as well as it can be");
    world.system(raise(2)).unwrap();
    assert!(!world.state.knows_as(&told), "it can be known better");
    assert_eq!(world.state.recordable(&told), told);
    world.register(told.clone()).unwrap();
    assert!(world.state.knows_as(&told));
}
