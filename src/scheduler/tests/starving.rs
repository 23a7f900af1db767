//! Nothing waits beyond its bound, and only waiting puts a task before one of a higher class.

use std::collections::BTreeMap;

use model::Class::{self, Batch, Interactive, Standard};
use model::{Millis, StateName, Task, TaskId, TaskSpec, Timestamp};
use proptest::prelude::*;

use super::farm::{Farm, SECOND, namespace};
use super::{NOW, cluster, fleet, task};
use crate::explain;

const MINUTE: u64 = 60 * SECOND;

/// Two machines of one slot each: a task that asks for a zone can run on one of them.
fn two_zones() -> Farm {
    Farm::of(cluster(&[("a1", 1, "a"), ("a2", 1, "b")], &[]))
}

fn asking(class: Class, zone: &str) -> TaskSpec {
    TaskSpec {
        class: Some(class),
        ..task(&format!("zone={zone}"))
    }
}

fn task_of(farm: &Farm, id: TaskId) -> &Task {
    farm.state.task(id).expect("it is there")
}

#[test]
fn who_is_served_on_one_machine_alone_is_not_starved_on_another() {
    // For hours ann's tasks run in zone a: one that never ends, or one after the other, all of them older, or younger, than
    // the one that waits for zone b. There interactive work of somebody else's never ends.
    let scenes: [(usize, u64, usize); 3] = [(1, 100 * 3_600, 0), (2_000, 10, 0), (0, 10, 2_000)];
    for (older, length, younger) in scenes {
        let mut farm = two_zones();
        let length = |of: &str, _| {
            if of == "blue" {
                length * SECOND
            } else {
                10 * SECOND
            }
        };
        farm.submit(("green", "bob"), &asking(Interactive, "b"), 2_000);
        farm.submit(("blue", "ann"), &asking(Standard, "a"), older);
        let waits = TaskId(2_001 + older as u64);
        farm.submit(("blue", "ann"), &asking(Standard, "b"), 1);
        farm.submit(("blue", "ann"), &asking(Standard, "a"), younger);
        farm.run(10 * MINUTE - 20 * SECOND, length);
        assert_eq!(task_of(&farm, waits).state(), StateName::Queued);
        farm.run(10 * MINUTE + 20 * SECOND, length);
        let begun = task_of(&farm, waits).state() != StateName::Queued;
        // While older ones are begun it is being served.
        assert_eq!(begun, older < 2, "{older} older, {younger} younger");
    }
}

#[test]
fn who_has_used_much_elsewhere_still_gets_a_task_through() {
    let mut farm = two_zones();
    let length = |_: &str, _| 10 * SECOND;
    let (blue, green) = (("blue", "ann"), ("green", "bob"));
    farm.set("blue", |set| set.weight = Some(1));
    farm.set("green", |set| set.weight = Some(100));
    farm.submit(green, &asking(Interactive, "b"), 2_000);
    farm.submit(blue, &asking(Standard, "a"), 2_000);
    farm.run(5 * MINUTE, length);
    // By its share alone its turn would never come.
    farm.submit(blue, &asking(Interactive, "b"), 1);
    let id = TaskId(4_001);
    farm.run(5 * MINUTE + 55 * SECOND, length);
    assert_eq!(task_of(&farm, id).state(), StateName::Queued);
    let later = NOW.plus(Millis(7 * MINUTE));
    let told = explain(&farm.state, &fleet(&farm.state), later, id).unwrap();
    let wanted = "so long that it goes with interactive tasks, before those of them that have not.";
    assert!(told.summary.contains(wanted), "{}", told.summary);
    farm.run(6 * MINUTE + 20 * SECOND, length);
    assert_ne!(task_of(&farm, id).state(), StateName::Queued);
}

#[test]
fn a_scavenger_s_turn_comes_within_its_bound_while_interactive_work_never_ends() {
    let mut farm = two_zones();
    let length = |_: &str, _| 20 * SECOND;
    for zone in ["a", "b"] {
        farm.submit(("green", "bob"), &asking(Interactive, zone), 1_300);
    }
    let id = TaskId(2_601);
    farm.submit(("blue", "ann"), &asking(Class::Scavenger, "b"), 1);
    farm.run(Class::Scavenger.patience().0 - 40 * SECOND, length);
    assert_eq!(task_of(&farm, id).state(), StateName::Queued);
    farm.run(longest(Class::Scavenger) + 40 * SECOND, length);
    assert_ne!(task_of(&farm, id).state(), StateName::Queued);
    let waiting = farm.state.load(&namespace("green")).0;
    assert!(waiting > 0, "nothing was before it any more");
}

/// How long a task that has nothing of its user's before it may wait at most, where starved ones do not fill the machines.
fn longest(class: Class) -> u64 {
    match class {
        Class::Critical | Interactive => MINUTE,
        Standard => 10 * MINUTE,
        // First it goes with standard tasks, and then with interactive ones.
        Batch => 70 * MINUTE,
        Class::Scavenger => 430 * MINUTE,
    }
}

/// Some tasks come at a time: of a user, a class, for a zone.
type Arrival = (u64, usize, Class, &'static str, usize);

fn arrival() -> impl Strategy<Value = Arrival> {
    let class = prop::sample::select(vec![Batch, Standard, Interactive]);
    let zone = prop::sample::select(vec!["a", "b"]);
    (0..60_u64, 0..3_usize, class, zone, 1..3_usize)
}

const USERS: [&str; 3] = ["ann", "bob", "eve"];
const FLOOD: &str = "flo";

/// Each task that is not of the flood: since when it waits, and how many of its user's of its class waited then.
#[derive(Default)]
struct Watch(BTreeMap<TaskId, (Timestamp, u64)>);

impl Watch {
    fn submit(&mut self, farm: &mut Farm, (_, user, class, zone, count): Arrival) {
        for _ in 0..count {
            let user = USERS[user];
            let own = |id: &&TaskId| {
                let task = task_of(farm, **id);
                *task.user == *user && task.class == class && task.state() == StateName::Queued
            };
            let before = self.0.keys().filter(own).count() as u64;
            farm.submit(("blue", user), &asking(class, zone), 1);
            let newest = farm.state.tasks_newest_first(None).next();
            let id = newest.expect("it was submitted").id;
            self.0.insert(id, (farm.now, before));
        }
    }

    /// None waits, or has waited, for longer than it may.
    fn check(&self, farm: &Farm) {
        for (id, (since, before)) in &self.0 {
            let task = task_of(farm, *id);
            let until = task.latest.as_ref().map(|latest| latest.since);
            let until = task.live().map(|live| live.since).or(until);
            let waited = until.unwrap_or(farm.now).since(*since).0;
            // All lines may starve at once, and take the slots one after the other.
            let most = (before + 1) * longest(task.class) + 18 * 20 * SECOND;
            assert!(
                waited <= most,
                "{id}, {} behind {before}: {} s of {} s",
                task.class,
                waited / SECOND,
                most / SECOND
            );
        }
    }
}

/// Whoever goes before one of a higher class that could have had the place has waited for its own class's patience.
fn check_order(farm: &Farm, assigned: &[model::Assignment]) {
    let zone = |id: TaskId| farm.state.spec(id).expect("it is there").require.clone();
    for it in assigned {
        let task = task_of(farm, it.task);
        let has_waited = farm.now.since(task.waits_since) >= task.class.patience();
        let is_passed = |other: &&Task| {
            other.class < task.class
                && other.state() == StateName::Queued
                && zone(other.id) == zone(task.id)
                && !assigned.iter().any(|it| it.task == other.id)
        };
        let mut all = farm.state.tasks_newest_first(None);
        assert!(
            has_waited || !all.any(|other| is_passed(&other)),
            "{} of class {} was put before others",
            it.task,
            task.class
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_waits_beyond_its_bound_while_interactive_work_never_ends(
        mut arrivals in prop::collection::vec(arrival(), 1..24),
    ) {
        arrivals.sort_unstable();
        let length = |_: &str, id: TaskId| (5 + id.0 % 4 * 5) * SECOND;
        let mut farm = two_zones();
        let mut watch = Watch::default();
        let mut arrivals = arrivals.into_iter().peekable();
        for minute in 0..150 {
            for zone in ["a", "b"] {
                farm.submit(("blue", FLOOD), &asking(Interactive, zone), 7);
            }
            while let Some(next) = arrivals.next_if(|it| it.0 <= minute) {
                watch.submit(&mut farm, next);
            }
            check_order(&farm, &farm.plan());
            farm.run((minute + 1) * MINUTE, length);
            watch.check(&farm);
        }
    }
}
