//! What agents have beyond slots is never given twice, and given wherever there is room.

use proptest::prelude::*;

use super::world::{World, inference, profile, spec, submit};
use crate::{
    AgentProfile, AgentProtocol, End, Hardware, Rejected, Reply, State, StateVersion, Supply,
    SystemCommand, TaskId, TaskSpec,
};

/// With 3 processors, 10 MiB, and GPUs of 8 and 16 MiB.
fn machine(protocol: AgentProtocol) -> AgentProfile {
    AgentProfile {
        protocol,
        supply: Some(Supply {
            cpu_milli: 3_000,
            memory_mib: 10,
            gpus: vec![16, 8],
        }),
        ..profile("a1", 100, 1)
    }
}

fn asking(cpus: u32, memory_mib: u64, (gpus, vram_mib): (u32, u64)) -> TaskSpec {
    TaskSpec {
        hardware: Hardware {
            cpu_milli: cpus * 1_000,
            gpus,
            vram_mib,
        },
        memory_mib: Some(memory_mib).filter(|it| *it > 0),
        ..spec("train")
    }
}

fn asked(world: &mut World, spec: TaskSpec) -> u64 {
    match world.submit(submit(spec, None)).unwrap() {
        Reply::Submitted { task, .. } => task.0,
        other => panic!("{other:?}"),
    }
}

fn gpus(state: &State, task: u64) -> Vec<u16> {
    state
        .task(TaskId(task))
        .unwrap()
        .live()
        .unwrap()
        .gpus
        .to_vec()
}

/// Ends what a task runs.
fn end(world: &mut World, task: u64) {
    let epoch = world
        .state
        .task(TaskId(task))
        .unwrap()
        .live()
        .unwrap()
        .epoch;
    world
        .finish(task, epoch.0, "a1", End::Exited { code: 0 })
        .unwrap();
}

#[test]
fn what_one_has_no_other_is_given_until_it_ends_and_the_refusal_says_what_is_short() {
    let mut world = World::today();
    world.register(machine(AgentProtocol::NEWEST)).unwrap();
    let first = asked(&mut world, asking(2, 6, (1, 0)));
    world.assign(first, "a1").unwrap();
    assert_eq!(gpus(&world.state, first), [1], "the smaller one");
    let cases = [
        (asking(2, 0, (0, 0)), "processors"),
        (asking(0, 5, (0, 0)), "memory"),
        (asking(0, 0, (2, 0)), "GPUs"),
        (asking(0, 0, (1, 17)), "GPUs have less memory"),
        (asking(4, 0, (0, 0)), "fewer processors"),
    ];
    for (spec, what) in cases {
        let task = asked(&mut world, spec);
        let Err(Rejected::Stale(why)) = world.assign(task, "a1") else {
            panic!("more than there is was given: {what}");
        };
        assert!(why.contains(what), "{why} names no {what}");
    }
    // What asks for nothing of it does not mind.
    let plain = asked(&mut world, spec("true"));
    world.assign(plain, "a1").unwrap();
    let share = asked(&mut world, asking(0, 0, (0, 10)));
    world.assign(share, "a1").unwrap();
    assert_eq!(gpus(&world.state, share), [0]);
    end(&mut world, first);
    end(&mut world, share);
    let both = asked(&mut world, asking(3, 10, (2, 8)));
    world.assign(both, "a1").unwrap();
    assert_eq!(gpus(&world.state, both), [1, 0]);
}

#[test]
fn an_agent_that_comes_back_with_less_keeps_what_it_holds_and_is_given_no_more() {
    let mut world = World::today();
    world.register(machine(AgentProtocol::NEWEST)).unwrap();
    let first = asked(&mut world, asking(2, 6, (2, 0)));
    world.assign(first, "a1").unwrap();
    let mut less = machine(AgentProtocol::NEWEST);
    less.supply = Some(Supply {
        cpu_milli: 1_000,
        memory_mib: 10,
        gpus: vec![16],
    });
    world.register(less).unwrap();
    for spec in [asking(1, 0, (0, 0)), asking(0, 0, (0, 1))] {
        let task = asked(&mut world, spec);
        assert!(world.assign(task, "a1").is_err());
    }
    let memory = asked(&mut world, asking(0, 4, (0, 0)));
    world.assign(memory, "a1").unwrap();
}

#[test]
fn an_older_agent_is_given_memory_as_before_and_nothing_that_it_does_not_understand() {
    let mut world = World::today();
    world.register(profile("a1", 4, 1)).unwrap();
    let memory = asked(&mut world, asking(0, 1_000, (0, 0)));
    world.assign(memory, "a1").unwrap();
    for spec in [
        asking(1, 0, (0, 0)),
        asking(0, 0, (1, 0)),
        asking(0, 0, (0, 1)),
    ] {
        let task = asked(&mut world, spec);
        let refused = world.assign(task, "a1").unwrap_err();
        assert!(refused.to_string().contains("older release"), "{refused}");
    }
}

#[test]
fn before_all_controllers_understand_it_nobody_asks_for_hardware_and_no_agent_says_what_it_has() {
    let mut world = World::new();
    let told = machine(AgentProtocol::NEWEST);
    assert!(matches!(
        world.register(told.clone()),
        Err(Rejected::NotYet { .. })
    ));
    let recorded = world.state.recordable(&told);
    assert_eq!(recorded.supply, None);
    world.register(recorded).unwrap();
    assert!(world.state.knows_as(&told));
    let early = world.submit(submit(asking(1, 0, (0, 0)), None));
    assert!(matches!(early, Err(Rejected::NotYet { .. })));
    let to = StateVersion::NEWEST;
    world.system(SystemCommand::RaiseVersion { to }).unwrap();
    assert!(!world.state.knows_as(&told), "it has to register anew");
    world.register(told.clone()).unwrap();
    assert!(world.state.knows_as(&told));
}

#[test]
fn what_nothing_could_ever_have_is_refused_with_its_limit() {
    let mut world = World::today();
    let (cpus, gpus, vram) = (5_000, 65, 1 << 40);
    let cases = [
        (asking(cpus, 0, (0, 0)), "cpu"),
        (asking(0, 0, (gpus, 0)), "gpus"),
        (asking(0, 0, (0, vram)), "vram"),
    ];
    for (spec, what) in cases {
        let refused = world.submit(submit(spec, None)).unwrap_err().to_string();
        assert!(refused.contains(what), "{refused}");
    }
    // The first release took any: it waits.
    let endless = TaskSpec {
        memory_mib: Some(u64::MAX),
        ..spec("true")
    };
    world.register(profile("a2", 4, 1)).unwrap();
    world.register(machine(AgentProtocol::NEWEST)).unwrap();
    for _ in 0..2 {
        let task = asked(&mut world, endless.clone());
        assert!(world.assign(task, "a1").is_err());
        world.assign(task, "a2").unwrap();
    }
    let mut question = inference("m", "{}");
    question.hardware.gpus = 1;
    let refused = world.submit(submit(question, None)).unwrap_err();
    assert!(refused.to_string().contains("GPUs"), "{refused}");
    for gpus in [vec![0], vec![1; 65]] {
        let mut told = machine(AgentProtocol::NEWEST);
        told.supply = Some(Supply {
            gpus,
            ..Supply::default()
        });
        assert!(world.register(told).is_err());
    }
}

/// What an attempt was seen to have.
type Held = (u64, TaskSpec, Vec<u16>);

/// By counting from the beginning whether there is room, and of GPUs whether any choice of them would do.
fn has_room(held: &[Held], spec: &TaskSpec) -> bool {
    let sum = |of: fn(&TaskSpec) -> u64| held.iter().map(|(_, spec, _)| of(spec)).sum::<u64>();
    let cpu = |spec: &TaskSpec| u64::from(spec.hardware.cpu_milli);
    let memory = |spec: &TaskSpec| spec.memory_mib.unwrap_or(0);
    let left = |place: u16, vram: u64| {
        let on = held.iter().filter(|(_, _, gpus)| gpus.contains(&place));
        match on.clone().any(|(_, spec, _)| spec.hardware.gpus > 0) {
            true => 0,
            false => vram - on.map(|(_, spec, _)| spec.hardware.vram_mib).sum::<u64>(),
        }
    };
    let all = [(0, 16), (1, 8)];
    let Hardware { gpus, vram_mib, .. } = spec.hardware;
    let has_gpus = match (gpus, vram_mib) {
        (0, 0) => true,
        (0, share) => all.iter().any(|(place, vram)| left(*place, *vram) >= share),
        (wanted, at_least) => {
            let free = all
                .iter()
                .filter(|(place, vram)| left(*place, *vram) == *vram && *vram >= at_least);
            free.count() >= wanted as usize
        }
    };
    let fits = |taken: u64, more: u64, most: u64| more == 0 || taken + more <= most;
    fits(sum(cpu), cpu(spec), 3_000) && fits(sum(memory), memory(spec), 10) && has_gpus
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_given_twice_and_what_has_room_is_given(
        steps in prop::collection::vec(
            (any::<bool>(), 0..3u32, 0..6u64, (0..3u32, prop::sample::select(&[0, 3, 8, 16, 17][..])), 0..100usize),
            1..40,
        ),
    ) {
        let mut world = World::today();
        world.register(machine(AgentProtocol::NEWEST)).unwrap();
        let mut held: Vec<Held> = Vec::new();
        for (ends, cpus, memory, on_gpus, which) in steps {
            if ends && !held.is_empty() {
                let (task, ..) = held.remove(which % held.len());
                end(&mut world, task);
                continue;
            }
            let spec = asking(cpus, memory, on_gpus);
            let task = asked(&mut world, spec.clone());
            let assigned = world.assign(task, "a1");
            prop_assert_eq!(assigned.is_ok(), has_room(&held, &spec), "{:?} beside {:?}", spec.hardware, held);
            if assigned.is_ok() {
                held.push((task, spec, gpus(&world.state, task)));
            }
        }
    }
}

#[test]
fn a_state_that_is_read_again_knows_what_is_taken() {
    let mut world = World::today();
    world.register(machine(AgentProtocol::NEWEST)).unwrap();
    let task = asked(&mut world, asking(2, 6, (1, 9)));
    world.assign(task, "a1").unwrap();
    let read = State::decode(&world.state.encode()).unwrap();
    let agent = read.agents().next().unwrap();
    let taken = read.taken(&agent.profile.id).unwrap();
    assert_eq!(
        (taken.cpu_milli, taken.memory_mib, taken.gpus()),
        (2_000, 6, 1)
    );
    assert_eq!(gpus(&read, task), [0]);
}
