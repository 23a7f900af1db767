//! Where something yields, nothing is used by two at once: by what has to end, by who gets its place, and by anybody else.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::{World, placement, profile, spec, submit};
use crate::{
    AgentId, AgentProfile, AgentProtocol, Assignment, Class, End, Epoch, Hardware, Interruption,
    Preemption, Rejected, Reply, Supply, SystemCommand, TaskId, TaskSpec, Victim,
};

/// With 4 processors and two GPUs.
fn machine(slots: u32) -> AgentProfile {
    AgentProfile {
        protocol: AgentProtocol::NEWEST,
        supply: Some(Supply {
            cpu_milli: 4_000,
            memory_mib: 10,
            gpus: vec![8, 8],
        }),
        ..profile("a1", slots, 1)
    }
}

fn asking(class: Class, cpus: u32, gpus: u32) -> TaskSpec {
    TaskSpec {
        class: Some(class),
        preemptible: class > Class::Critical,
        hardware: Hardware {
            cpu_milli: cpus * 1_000,
            gpus,
            vram_mib: 0,
        },
        ..spec("train")
    }
}

impl World {
    fn queued(&mut self, spec: TaskSpec) -> u64 {
        match self.submit(submit(spec, None)).unwrap() {
            Reply::Submitted { task, .. } => task.0,
            other => panic!("{other:?}"),
        }
    }

    fn begun(&mut self, spec: TaskSpec) -> u64 {
        let task = self.queued(spec);
        self.assign(task, "a1").unwrap();
        task
    }

    fn preempt(&mut self, task: u64, victims: &[u64]) -> Result<Reply, Rejected> {
        let victims = victims.iter().map(|it| Victim {
            task: TaskId(*it),
            epoch: self.epoch(*it),
        });
        let preemption = Preemption {
            victims: victims.collect(),
            assignment: Assignment {
                task: TaskId(task),
                placement: placement("a1"),
            },
        };
        self.system(SystemCommand::Preempt(preemption))
    }

    fn epoch(&self, task: u64) -> Epoch {
        self.state.task(TaskId(task)).unwrap().live().unwrap().epoch
    }

    fn gave_up(&mut self, task: u64) {
        let end = End::Interrupted {
            cause: Interruption::EndedByAgent,
            reason: "another task got its place".into(),
        };
        let epoch = self.epoch(task);
        self.finish(task, epoch.0, "a1", end).unwrap();
    }

    fn yielding_to(&self, task: u64) -> Vec<u64> {
        let agent = AgentId::new("a1").unwrap();
        let yielding = self.state.yielding_to(&agent, TaskId(task));
        yielding.map(|fence| fence.task.0).collect()
    }
}

/// The first runs on an agent with so many slots, and yields to the second.
fn preempted(slots: u32, [low, high]: [TaskSpec; 2]) -> (World, u64, u64) {
    let mut world = World::today();
    world.register(machine(slots)).unwrap();
    let low = world.begun(low);
    let high = world.queued(high);
    world.preempt(high, &[low]).unwrap();
    (world, low, high)
}

#[test]
fn what_it_leaves_over_is_given_to_nobody_before_it_has_ended() {
    let (mut world, low, _) = preempted(
        9,
        [asking(Class::Batch, 3, 2), asking(Class::Critical, 1, 1)],
    );
    let others =
        [asking(Class::Batch, 2, 0), asking(Class::Batch, 0, 1)].map(|it| world.queued(it));
    for task in others {
        let refused = world.assign(task, "a1").unwrap_err().to_string();
        assert!(refused.contains("taken by others"), "{refused}");
    }
    // What it does not have anybody may have.
    world.begun(asking(Class::Batch, 1, 0));
    world.gave_up(low);
    for task in others {
        world.assign(task, "a1").unwrap();
    }
}

#[test]
fn its_place_is_not_free_where_who_was_to_have_it_is_gone_first() {
    let (mut world, low, high) = preempted(
        1,
        [asking(Class::Batch, 3, 0), asking(Class::Critical, 3, 0)],
    );
    let declined = End::Declined {
        reason: "it stops".into(),
    };
    let epoch = world.epoch(high);
    world.finish(high, epoch.0, "a1", declined).unwrap();
    let refused = world.assign(high, "a1").unwrap_err().to_string();
    assert!(refused.contains("taken by others"), "{refused}");
    world.gave_up(low);
    world.assign(high, "a1").unwrap();
}

/// What it holds is still another's.
#[test]
fn who_waits_for_a_place_itself_does_not_yield_before_it_has_it() {
    let (mut world, low, middle) = preempted(
        1,
        [asking(Class::Scavenger, 3, 0), asking(Class::Batch, 3, 0)],
    );
    let high = world.queued(asking(Class::Critical, 3, 0));
    let refused = world.preempt(high, &[middle]).unwrap_err().to_string();
    assert!(
        refused.contains("waits for the place of another"),
        "{refused}"
    );
    world.gave_up(low);
    world.preempt(high, &[middle]).unwrap();
    assert_eq!(world.yielding_to(high), [middle]);
}

#[test]
fn nothing_yields_of_an_incarnation_that_is_gone() {
    let mut world = World::today();
    world.register(machine(1)).unwrap();
    let low = world.begun(asking(Class::Batch, 1, 0));
    let anew = AgentProfile {
        incarnation: super::world::incarnation(2),
        ..machine(9)
    };
    world.register(anew).unwrap();
    let high = world.queued(asking(Class::Critical, 4, 0));
    assert!(world.preempt(high, &[low]).is_err());
}

#[test]
fn what_was_preempted_does_not_wait_for_that_when_its_agent_is_lost_later() {
    let mut world = World::today();
    world.register(machine(1)).unwrap();
    let low = world.begun(asking(Class::Batch, 3, 0));
    for _ in 0..3 {
        let high = world.queued(asking(Class::Critical, 3, 0));
        world.preempt(high, &[low]).unwrap();
        world.gave_up(low);
        let epoch = world.epoch(high);
        let done = End::Exited { code: 0 };
        world.finish(high, epoch.0, "a1", done).unwrap();
        world.assign(low, "a1").unwrap();
    }
    let died = End::Interrupted {
        cause: Interruption::AgentDied,
        reason: "its agent died".into(),
    };
    world
        .finish(low, world.epoch(low).0, "a1", died.clone())
        .unwrap();
    world.assign(low, "a1").unwrap();
    // The second time it does.
    world.finish(low, world.epoch(low).0, "a1", died).unwrap();
    let refused = world.assign(low, "a1").unwrap_err().to_string();
    assert!(refused.contains("waits for its retry"), "{refused}");
}

/// What happens next, by numbers that choose among what there is.
type Step = (u8, usize, usize);

fn chosen<T: Copy>(from: &[T], n: usize) -> Option<T> {
    Some(from[n.checked_rem(from.len())?])
}

impl World {
    fn ids(&self, wanted: impl Fn(&crate::Task) -> bool) -> Vec<u64> {
        let all = self.state.tasks_newest_first(None);
        let mut ids: Vec<u64> = all.filter(|it| wanted(it)).map(|it| it.id.0).collect();
        ids.sort_unstable();
        ids
    }

    fn tasks(&self) -> Vec<crate::Task> {
        self.state.tasks_newest_first(None).cloned().collect()
    }

    fn happens(&mut self, (what, n, more): Step) -> Option<Result<Reply, Rejected>> {
        let queued = |task: &crate::Task| matches!(task.phase, crate::Phase::Queued { .. });
        let live = |task: &crate::Task| task.live().is_some();
        match what {
            0..4 => {
                let class = Class::ALL[n % Class::ALL.len()];
                let amounts = [more % 4, more / 4 % 3].map(|it| u32::try_from(it).unwrap());
                self.queued(asking(class, amounts[0], amounts[1]));
                None
            }
            4..8 => Some(self.assign(chosen(&self.ids(queued), n)?, "a1")),
            8..13 => {
                let winner = chosen(&self.ids(queued), n)?;
                let mut victims = vec![chosen(&self.ids(live), more)?];
                let second = chosen(&self.ids(live), more / 7)?;
                if n % 3 == 0 && second != victims[0] {
                    victims.push(second);
                }
                Some(self.preempt(winner, &victims))
            }
            13..16 => {
                self.gave_up(chosen(&self.ids(live), n)?);
                None
            }
            16 => {
                let task = chosen(&self.ids(live), n)?;
                let epoch = self.epoch(task);
                Some(self.finish(task, epoch.0, "a1", End::Exited { code: 0 }))
            }
            17 => {
                let cancel = crate::Command::CancelTask {
                    task: TaskId(chosen(&self.ids(live), n)?),
                    reason: String::new(),
                };
                Some(self.one(super::exemplars::by_ann(cancel)))
            }
            _ => {
                let lease = SystemCommand::ExpireLease {
                    agent: AgentId::new("a1").unwrap(),
                    incarnation: super::world::incarnation(1),
                };
                self.system(lease).ok();
                Some(self.register(machine(3)))
            }
        }
    }

    fn live(&self, task: u64) -> Option<u64> {
        let live = self.state.task(TaskId(task))?.live()?;
        Some(live.epoch.0)
    }

    /// Slots and thousandths of a processor: of what has begun, and of what does not have to end.
    fn used(&self, awaited: &BTreeMap<(u64, u64), Vec<(u64, u64)>>) -> [(usize, u64); 2] {
        let agent = AgentId::new("a1").unwrap();
        let is_live = |(task, epoch): &(u64, u64)| self.live(*task) == Some(*epoch);
        let held = || {
            self.state
                .held_by(&agent)
                .filter_map(|task| Some((task.id, task.live()?)))
        };
        let has_begun = |id: TaskId, epoch: Epoch| {
            let waits = awaited.get(&(id.0, epoch.0)).into_iter().flatten();
            !waits.into_iter().any(is_live)
        };
        let begun = held().filter(|(id, live)| has_begun(*id, live.epoch));
        let stays = held().filter(|(_, live)| live.preempted_by.is_none());
        let sum = |ids: Vec<TaskId>| {
            let cpus = ids.iter().filter_map(|id| self.state.spec(*id));
            let cpus = cpus.map(|spec| u64::from(spec.hardware.cpu_milli));
            (ids.len(), cpus.sum())
        };
        [
            begun.map(|(id, _)| id).collect(),
            stays.map(|(id, _)| id).collect(),
        ]
        .map(sum)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// The invariants of the state are looked at after each entry, by `apply`.
    #[test]
    fn whoever_gets_the_places_of_others_nothing_is_used_twice(
        steps in prop::collection::vec((0u8..20, any::<usize>(), any::<usize>()), 20..80),
    ) {
        let mut world = World::today();
        world.register(machine(3)).unwrap();
        let mut awaited = BTreeMap::new();
        for step in steps {
            let before = world.tasks();
            let reply = world.happens(step);
            if matches!(step.0, 8..13) && matches!(reply, Some(Err(_))) {
                prop_assert_eq!(world.tasks(), before, "refused, and something is done");
            }
            // Also who is assigned as any other is told to wait, where something still yields to it.
            let begun = |task: &crate::Task| task.live().is_some_and(|live| live.epoch.0 == world.index);
            let winner = world.tasks().into_iter().find(begun);
            if let Some(winner) = winner {
                let id = winner.id.0;
                let waits = world.yielding_to(id).into_iter();
                let waits = waits.filter_map(|task| Some((task, world.live(task)?))).collect();
                awaited.insert((id, world.index), waits);
            }
            for (slots, cpus) in world.used(&awaited) {
                prop_assert!(slots <= 4 && cpus <= 4_000, "{slots} slots, {cpus} of 4000");
            }
        }
    }
}
