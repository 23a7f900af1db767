//! Who gets how much: tenants on a [`Farm`].

use std::collections::BTreeSet;

use model::{AgentId, Millis, Op, SystemCommand, TaskId, TaskSpec};

use super::farm::{Farm, SECOND, namespace};
use super::{NOW, cluster, fleet, resources, task};
use crate::{Ahead, Round, explain, plan};

/// Two namespaces of weights 3 and 1 that both have more to do than there is room for; the share of the first, in thousandths
/// of what was used, before and after a change of the leader.
fn three_to_one(slots: u32, length: impl Fn(&str, TaskId) -> u64 + Copy) -> [u64; 2] {
    let mut farm = Farm::new(slots);
    farm.set("blue", |set| set.weight = Some(3));
    farm.submit(("blue", "ann"), &task(""), 3_600);
    farm.submit(("green", "bob"), &task(""), 3_600);
    farm.run(60 * SECOND, length);
    farm.part(|_, _| true);
    farm.run(310 * SECOND, length);
    let before = farm.part(|of, _| of == "blue");
    farm.fail_over();
    farm.run(560 * SECOND, length);
    let after = farm.part(|of, _| of == "blue");
    for of in ["blue", "green"] {
        let (waiting, _) = farm.state.load(&namespace(of));
        assert!(waiting > 100, "{of} has too little to do");
    }
    [before, after]
}

fn assert_three_quarters(shares: [u64; 2]) {
    for share in shares {
        assert!((730..=770).contains(&share), "{shares:?}");
    }
}

#[test]
fn weights_of_three_and_one_give_three_quarters_of_what_is_used_across_a_failover() {
    assert_three_quarters(three_to_one(4, |_, _| SECOND));
}

#[test]
fn it_is_what_tasks_cost_that_is_shared_and_not_how_many_there_are() {
    let length = |of: &str, _| if of == "blue" { 5 * SECOND } else { SECOND / 2 };
    assert_three_quarters(three_to_one(4, length));
    let length = |of: &str, _| if of == "blue" { SECOND / 2 } else { 5 * SECOND };
    assert_three_quarters(three_to_one(4, length));
    // Each has both.
    let mixed = |_: &str, id: TaskId| [SECOND / 4, 5 * SECOND / 2][(id.0 / 3 % 2) as usize];
    assert_three_quarters(three_to_one(4, mixed));
}

#[test]
fn who_asks_for_much_pays_for_it() {
    let mut farm = Farm::of(cluster(&[], &[]));
    let machine = resources::machine("a1", 20, resources::supply(64, 262_144, &[1; 16]));
    farm.apply(vec![machine]);
    let with_a_gpu = TaskSpec {
        hardware: model::Hardware {
            gpus: 1,
            ..model::Hardware::default()
        },
        ..task("")
    };
    farm.submit(("blue", "ann"), &with_a_gpu, 400);
    farm.submit(("green", "bob"), &task(""), 4_000);
    let account = |farm: &Farm, of, user: &str| {
        let tenant = model::Tenant {
            namespace: namespace(of),
            user: user.into(),
        };
        farm.state.usage(&tenant, farm.now)
    };
    // In one round each gets as much as the other: two tasks of blue's have the price of eighteen.
    let assign = |it| Op::System(SystemCommand::Assign(it));
    let mut first = farm.plan();
    first.truncate(20);
    let of_blue = first.iter().filter(|it| it.task.0 <= 400);
    assert_eq!(of_blue.count(), 2, "{first:?}");
    let mut begun = Farm::of(farm.state.clone());
    begun.apply(first.iter().cloned().map(assign).collect());
    let claimed = |of, user: &str| account(&begun, of, user).claimed;
    let both = (claimed("blue", "ann"), claimed("green", "bob"));
    assert_eq!(both, (18 * SECOND, 18 * SECOND));
    // What runs for longer than it was charged for counts by its price as well.
    begun.now = NOW.plus(Millis(3 * SECOND));
    let blue = account(&begun, "blue", "ann");
    assert_eq!((blue.used, blue.claimed), (54 * SECOND, 108 * SECOND));
    // What is under way from the round before counts as if it had begun.
    let under_way: BTreeSet<_> = first.iter().map(|it| it.task).take(1).collect();
    assert_eq!(first[0].task, TaskId(1));
    let next = farm.plan_beside(&under_way);
    let until_blue = next.iter().take_while(|it| it.task.0 > 400);
    assert_eq!(until_blue.count(), 9, "{next:?}");

    farm.run(10 * SECOND, |_, _| SECOND);
    farm.fail_over();
    farm.part(|_, _| true);
    farm.run(100 * SECOND, |_, _| SECOND);
    // Each second of blue's costs nine of green's, so that each has used a half once it has a tenth of the time.
    let part = farm.part(|of, _| of == "blue");
    assert!((80..=120).contains(&part), "{part}");
    let used = |of, user: &str| account(&farm, of, user).used;
    let (blue, green) = (used("blue", "ann"), used("green", "bob"));
    assert!(blue.abs_diff(green) * 20 <= blue, "{blue} and {green}");
}

#[test]
fn tasks_count_while_they_run_and_not_only_once_they_have_ended() {
    let mut farm = Farm::new(8);
    farm.submit(("blue", "ann"), &task(""), 100);
    farm.submit(("green", "bob"), &task(""), 400);
    // None of blue's ends before all is over: by what has ended it would have used nothing, and would get every slot.
    let length = |of: &str, _| if of == "blue" { 1_000 * SECOND } else { SECOND };
    for second in 1..30 {
        farm.run(second * SECOND, length);
        let (_, running) = farm.state.load(&namespace("blue"));
        assert!((3..=5).contains(&running), "{running} after {second} s");
    }
}

#[test]
fn tasks_of_hours_get_no_less_than_tasks_of_minutes() {
    const MINUTE: u64 = 60 * SECOND;
    for (long, short) in [(60, 6), (60, 1), (360, 10)] {
        let mut farm = Farm::new(16);
        farm.submit(("blue", "ann"), &task(""), 800);
        farm.submit(("green", "bob"), &task(""), 48 * 60 * 8);
        let length = |of: &str, _| {
            if of == "blue" {
                long * MINUTE
            } else {
                short * MINUTE
            }
        };
        farm.run(20 * 60 * MINUTE, length);
        farm.part(|_, _| true);
        farm.run(44 * 60 * MINUTE, length);
        let part = farm.part(|of, _| of == "blue");
        assert!(
            (470..=530).contains(&part),
            "{long} and {short} min: {part}"
        );
    }
}

#[test]
fn a_queue_that_has_waited_for_hours_is_not_served_before_one_that_just_came() {
    let mut farm = Farm::new(4);
    let length = |_: &str, _| 10 * SECOND;
    farm.submit(("blue", "ann"), &task(""), 2_000);
    farm.run(2_000 * SECOND, length);
    farm.part(|_, _| true);
    farm.submit(("green", "bob"), &task(""), 40);
    farm.run(2_090 * SECOND, length);
    let green = farm.part(|of, _| of == "green");
    assert!(green > 800, "{green} ‰ for who has used nothing");
}

#[test]
fn a_starved_line_gets_one_task_through_each_time_it_has_waited_for_too_long() {
    let mut farm = Farm::new(2);
    let batch = TaskSpec {
        class: Some(model::Class::Batch),
        ..task("")
    };
    farm.submit(("blue", "ann"), &task(""), 4_000);
    farm.submit(("green", "bob"), &batch, 10);
    // Standard work without end; a batch line is starved after an hour, and then goes by its share.
    let hour = 3_600 * SECOND;
    let length = |_: &str, _| 10 * SECOND;
    let mut begun = Vec::new();
    for step in 1..=5 {
        farm.run(step * hour - 20 * SECOND, length);
        begun.push(10 - farm.state.load(&namespace("green")).0);
        farm.run(step * hour + 60 * SECOND, length);
    }
    assert_eq!(begun, [0, 1, 2, 3, 4]);
}

#[test]
fn with_one_slot_they_take_turns() {
    let length = |of: &str, _| if of == "blue" { SECOND } else { SECOND / 10 };
    assert_three_quarters(three_to_one(1, length));
}

#[test]
fn users_of_a_namespace_share_its_share() {
    let mut farm = Farm::new(6);
    farm.set("blue", |set| {
        set.weight = Some(1);
        set.users.insert("ann".into(), 3);
    });
    farm.submit(("blue", "ann"), &task(""), 2_000);
    farm.submit(("blue", "bob"), &task(""), 2_000);
    farm.submit(("green", "ann"), &task(""), 2_000);
    let length = |_: &str, id: TaskId| 500 + id.0 % 7 * 300;
    farm.run(60 * SECOND, length);
    farm.part(|_, _| true);
    farm.run(500 * SECOND, length);
    let took = farm.took.clone();
    let of_blue = farm.part(|of, _| of == "blue");
    assert!((480..=520).contains(&of_blue), "{took:?}");
    farm.took = took.clone();
    farm.took.retain(|(of, _), _| of == "blue");
    let of_ann = farm.part(|_, user| user == "ann");
    assert!((730..=770).contains(&of_ann), "{took:?}");
}

#[test]
fn who_was_away_is_served_first_and_then_shares() {
    let mut farm = Farm::new(4);
    let length = |_: &str, _| SECOND;
    farm.submit(("blue", "ann"), &task(""), 4_000);
    farm.run(100 * SECOND, length);
    farm.part(|_, _| true);
    farm.submit(("green", "bob"), &task(""), 4_000);
    // What blue has used until now green gets first; nobody is shut out for longer than that.
    farm.run(190 * SECOND, length);
    assert!(farm.part(|of, _| of == "green") > 950);
    farm.run(220 * SECOND, length);
    farm.part(|_, _| true);
    farm.run(400 * SECOND, length);
    let green = farm.part(|of, _| of == "green");
    assert!((480..=520).contains(&green), "{green}");
}

#[test]
fn what_one_tenant_leaves_the_others_have() {
    let mut farm = Farm::new(4);
    farm.set("blue", |set| set.weight = Some(10_000));
    farm.submit(("blue", "ann"), &task(""), 3);
    farm.submit(("green", "bob"), &task(""), 100);
    farm.run(10 * SECOND, |_, _| SECOND);
    assert_eq!(farm.took.values().sum::<u64>(), 40 * SECOND);
}

#[test]
fn shares_count_within_a_class_and_never_against_a_higher_one() {
    let mut farm = Farm::new(2);
    let critical = TaskSpec {
        class: Some(model::Class::Critical),
        ..task("")
    };
    farm.submit(("blue", "ann"), &task(""), 200);
    farm.run(50 * SECOND, |_, _| SECOND);
    farm.submit(("green", "bob"), &task(""), 50);
    farm.submit(("blue", "ann"), &critical, 4);
    while let Some((at, id)) = farm.running.pop_first() {
        farm.now = at;
        farm.finish(id, |_, _| SECOND);
    }
    let first: Vec<u64> = farm.plan().iter().map(|it| it.task.0).collect();
    assert_eq!(
        first,
        [251, 252],
        "blue has used all, and these are critical"
    );
}

#[test]
fn a_namespace_never_has_more_at_once_than_its_quota_and_holds_up_nobody() {
    let mut farm = Farm::new(8);
    farm.set("blue", |set| set.max_running = Some(3));
    farm.submit(("blue", "ann"), &task(""), 50);
    farm.submit(("blue", "bob"), &task("zone=a"), 50);
    farm.submit(("green", "bob"), &task(""), 100);
    for second in 1..12 {
        farm.run(second * SECOND, |_, id| 900 + id.0 % 3 * 100);
        let (_, running) = farm.state.load(&namespace("blue"));
        assert_eq!((running, farm.running.len()), (3, 8));
    }
    let waiting = farm.state.tasks_newest_first(None);
    let waiting = waiting.filter(|task| task.state() == model::StateName::Queued);
    let mut of_blue = waiting.filter(|task| {
        let spec = farm.state.spec(task.id);
        spec.is_some_and(|spec| spec.namespace == namespace("blue"))
    });
    let one = of_blue.next().expect("some wait").id;
    let told = explain(&farm.state, &fleet(&farm.state), farm.now, one).unwrap();
    let wanted =
        "until a task of namespace blue has ended: its quota allows 3 at once, and as many run.";
    assert!(told.summary.contains(wanted), "{}", told.summary);
}

#[test]
fn placements_under_way_count_as_used_and_as_running() {
    let mut farm = Farm::new(8);
    farm.set("red", |set| set.max_running = Some(2));
    farm.submit(("blue", "ann"), &task(""), 4);
    farm.submit(("green", "bob"), &task(""), 4);
    farm.submit(("red", "eve"), &task(""), 4);
    // Two of blue and one of red are on their way into the log.
    let taken = BTreeSet::from([TaskId(1), TaskId(2), TaskId(9)]);
    let round = Round {
        now: NOW,
        taken: &taken,
        max: 100,
        after: None,
    };
    let plan = plan(&farm.state, &fleet(&farm.state), round);
    let order: Vec<u64> = plan.assignments.iter().map(|it| it.task.0).collect();
    assert_eq!(order, [5, 6, 10, 3, 7, 4, 8]);
}

#[test]
fn the_place_in_the_queue_is_that_in_which_tasks_go() {
    let mut farm = Farm::new(40);
    farm.set("blue", |set| set.weight = Some(2));
    farm.submit(("blue", "ann"), &task(""), 9);
    farm.submit(("blue", "bob"), &task("zone=a"), 3);
    farm.submit(("green", "bob"), &task(""), 9);
    farm.submit(
        ("green", "bob"),
        &TaskSpec {
            class: Some(model::Class::Batch),
            ..task("")
        },
        2,
    );
    let order = farm.plan();
    assert_eq!(order.len(), 23);
    for (place, assigned) in order.iter().enumerate() {
        let told = explain(&farm.state, &fleet(&farm.state), NOW, assigned.task).unwrap();
        assert_eq!(told.position(), Some(place + 1), "{}", assigned.task);
    }
    let last = order.last().map(|it| it.task).unwrap();
    let told = explain(&farm.state, &fleet(&farm.state), NOW, last).unwrap();
    let ahead = Ahead {
        higher: 21,
        older: 1,
        first: order.iter().take(3).map(|it| it.task).collect(),
        ..Ahead::default()
    };
    assert_eq!(told.ahead, Some(ahead), "the batch tasks of green are last");
    let told = explain(&farm.state, &fleet(&farm.state), NOW, TaskId(3)).unwrap();
    let ahead = told.ahead.unwrap();
    let others = (ahead.namespaces, ahead.users, ahead.older);
    assert_eq!(others, (2, 2, 2), "the third of ann: {order:?}");
    let agents: BTreeSet<&AgentId> = order.iter().map(|it| &it.placement.agent).collect();
    assert_eq!(agents.len(), 1);
}
