//! What `task why` says of who waits, and of what has ended.

use std::collections::BTreeSet;

use model::{
    Class, Command, Hardware, Incarnation, Millis, Op, Reason, SystemCommand, TaskId, TaskSpec,
    Timestamp,
};

use super::farm::{Farm, SECOND};
use super::preemption::carry_out;
use super::resources::{machine, supply};
use super::{End, Outcome, asked, cluster, fleet, id, registration, report, task};
use crate::{Explanation, Rival, explain};

const NOTHING_FITS: &str = "None of them will take it as things are: have an agent join that does, or ask for what they have.";

fn explained(farm: &Farm, task: u64) -> Explanation {
    let fleet = fleet(&farm.state);
    explain(&farm.state, &fleet, farm.now, TaskId(task)).unwrap()
}

fn told(farm: &Farm, task: u64) -> String {
    explained(farm, task).summary
}

fn begin(farm: &mut Farm) {
    let assign = |it| Op::System(SystemCommand::Assign(it));
    let decided = farm.plan();
    farm.apply(decided.into_iter().map(assign).collect());
}

/// Its process ends with this code.
fn end(farm: &mut Farm, task: u64, code: i32) {
    let fence = farm.state.live_fence(TaskId(task)).expect("it runs");
    let live = farm.state.task(TaskId(task)).unwrap().live().unwrap();
    let outcome = Outcome {
        started_at: farm.now,
        ..Outcome::bare(End::Exited { code })
    };
    let report = report(live.agent.as_str(), fence, outcome);
    farm.apply(vec![report]);
}

fn lose(farm: &mut Farm, agent: &str) {
    let lost = SystemCommand::ExpireLease {
        agent: id(agent),
        incarnation: Incarnation([1; 16]),
    };
    farm.apply(vec![Op::System(lost)]);
}

fn later(farm: &mut Farm, millis: u64) {
    farm.now = Timestamp(farm.now.0 + millis);
}

#[test]
fn it_says_which_of_what_a_task_requires_agents_lack() {
    let told = |require: &[&str]| {
        let mut spec = task("");
        spec.require = require.iter().map(|it| it.parse().unwrap()).collect();
        let state = cluster(&[("a1", 1, "a"), ("a2", 1, "b")], &[spec]);
        told(&Farm::of(state), 1)
    };
    let lead = "It waits as number 1 in the queue: of 2 agents 2 do not satisfy its `require`.";
    assert_eq!(
        told(&["zone=c"]),
        format!("{lead} 0 satisfy `zone=c`. {NOTHING_FITS}")
    );
    assert_eq!(
        told(&["zone", "zone=a", "disk in (nvme,ssd)"]),
        format!("{lead} 1 satisfies `zone=a`, 0 satisfy `disk in (nvme,ssd)`. {NOTHING_FITS}")
    );
    assert_eq!(
        told(&["zone=a"]),
        "It is number 1 in the queue; 1 of 2 agents can take it."
    );
}

#[test]
fn who_closed_agents_and_why_is_told_once_for_those_that_are_alike() {
    let names = ["a1", "a2", "a3", "a4", "a5"];
    let mut farm = Farm::of(cluster(&names.map(|name| (name, 1, "a")), &[task("")]));
    let cordon = |name: &str, reason: &str| {
        let (agent, reason) = (id(name), reason.to_owned());
        asked(Command::CordonAgent { agent, reason })
    };
    farm.apply(names[1..].iter().map(|it| cordon(it, "moving")).collect());
    farm.apply(vec![cordon("a1", "")]);
    assert_eq!(
        told(&farm, 1),
        "It waits as number 1 in the queue: of 5 agents 5 are cordoned. a1 was cordoned by ann. \
         a2, a3, a4 and 1 more were cordoned by ann: moving. `quorate agent uncordon a1` lets it go there."
    );
}

#[test]
fn a_quota_that_is_used_up_is_told_with_when_there_is_a_place_and_hides_not_that_nothing_fits() {
    let mut farm = Farm::new(4);
    farm.set("blue", |set| set.max_running = Some(2));
    farm.submit(("blue", "ann"), &task(""), 4);
    farm.submit(("blue", "ann"), &task("zone=mars"), 1);
    begin(&mut farm);
    let lead = |number| {
        format!(
            "It waits as number {number} in the queue until a task of namespace blue has ended: its quota allows 2 at once, and as many run."
        )
    };
    later(&mut farm, 250);
    let wait = |farm: &Farm, task| explained(farm, task).wait.map(|it| it.millis);
    assert_eq!(
        [3, 4, 5].map(|task| wait(&farm, task)),
        [Some(Millis(750)), Some(Millis(750)), None]
    );
    end(&mut farm, 1, 0);
    begin(&mut farm);
    // Its tenant's tasks are known to be short, and this one has run for longer: it goes on for as long again.
    assert_eq!(wait(&farm, 4), Some(Millis(250)));
    let likely = "It is likely to start in less than 1 s, by a guess.";
    assert_eq!(told(&farm, 4), format!("{} {likely}", lead(1)));
    let nor = "No agent would take it then: of 1 agent 1 does not satisfy its `require`.";
    assert_eq!(
        told(&farm, 5),
        format!("{} {nor} 0 satisfy `zone=mars`. {NOTHING_FITS}", lead(2))
    );
}

#[test]
fn what_runs_on_an_agent_that_is_closed_has_a_place_in_its_quota_too() {
    let mut farm = Farm::of(cluster(&[("a1", 1, "a"), ("a2", 1, "b")], &[]));
    farm.set("blue", |set| set.max_running = Some(1));
    farm.submit(("blue", "ann"), &task("zone=a"), 1);
    begin(&mut farm);
    let (agent, reason) = (id("a1"), String::new());
    farm.apply(vec![asked(Command::CordonAgent { agent, reason })]);
    farm.submit(("blue", "ann"), &task("zone=b"), 1);
    assert_eq!(
        explained(&farm, 2).wait.map(|it| it.millis),
        Some(Millis(1_000))
    );
    // The largest quota costs nothing.
    farm.set("blue", |set| set.max_running = Some(u32::MAX));
    assert_eq!(
        told(&farm, 2),
        "It is number 1 in the queue; 1 of 2 agents can take it."
    );
    farm.submit(("blue", "ann"), &task("zone=b"), 1);
    begin(&mut farm);
    assert_eq!(
        explained(&farm, 3).wait.map(|it| it.millis),
        Some(Millis(1_000))
    );
}

#[test]
fn the_place_of_what_has_to_end_comes_free_once_and_to_who_gets_it() {
    let mut farm = Farm::of(cluster(&[], &[]));
    farm.apply(vec![machine("a1", 4, supply(4, 1, &[8]))]);
    let on_the_gpu = |class, preemptible| TaskSpec {
        class: Some(class),
        preemptible,
        hardware: Hardware {
            gpus: 1,
            ..Hardware::default()
        },
        ..task("")
    };
    farm.submit(("blue", "ann"), &on_the_gpu(Class::Batch, true), 1);
    begin(&mut farm);
    farm.submit(("blue", "ann"), &on_the_gpu(Class::Critical, false), 1);
    farm.submit(("blue", "ann"), &on_the_gpu(Class::Critical, false), 1);
    later(&mut farm, 2_000);
    carry_out(&mut farm.state, farm.now.0);
    assert!(
        told(&farm, 2).contains("It begins once t1 ended there"),
        "{}",
        told(&farm, 2)
    );
    // Until the second one has ended there is no room for the third.
    let wait = explained(&farm, 3).wait.unwrap();
    assert!(wait.is_rough && wait.millis >= Millis(1_000), "{wait:?}");
}

#[test]
fn without_any_agent_it_is_said_how_one_joins_and_nothing_of_what_there_is() {
    let farm = Farm::of(cluster(&[], &[task("")]));
    assert_eq!(
        told(&farm, 1),
        "It waits: no agent has ever registered. `quorate join-token create --role agent` lets one join."
    );
}

#[test]
fn who_waits_for_room_beyond_a_slot_is_told_when_enough_of_it_comes_free() {
    let mut farm = Farm::of(cluster(&[], &[]));
    let machines = ["a1", "a2"].map(|name| machine(name, 4, supply(4, 1, &[8, 8])));
    farm.apply(machines.into());
    let asking = |gpus| TaskSpec {
        hardware: Hardware {
            gpus,
            ..Hardware::default()
        },
        ..task("")
    };
    // Each takes a second, as far as anybody knows; those on the second agent began later.
    farm.submit(("blue", "ann"), &asking(1), 2);
    begin(&mut farm);
    later(&mut farm, 300);
    farm.submit(("blue", "ann"), &asking(1), 1);
    begin(&mut farm);
    farm.submit(("blue", "ann"), &asking(2), 1);
    let explained = explained(&farm, 4);
    let reasons = explained.agents.iter().map(|it| it.standing.clone());
    let taken = Err(Reason::GpusTaken);
    assert_eq!(reasons.collect::<Vec<_>>(), [taken.clone(), taken]);
    let wait = explained.wait.unwrap();
    assert_eq!((wait.millis, wait.is_rough), (Millis(700), true));
}

#[test]
fn whose_turn_is_before_is_told_with_what_they_have_used_for_their_weights() {
    let mut farm = Farm::new(1);
    farm.set("blue", |set| {
        set.weight = Some(2);
        set.users.insert("ann".into(), 5);
    });
    farm.submit(("blue", "ann"), &task(""), 2);
    farm.run(10 * SECOND, |_, _| 9 * SECOND);
    farm.submit(("blue", "bob"), &task(""), 1);
    farm.submit(("blue", "ann"), &task(""), 1);
    farm.submit(("green", "eve"), &task(""), 1);
    let explained = explained(&farm, 4);
    let rival = explained.ahead.clone().and_then(|it| it.rival);
    let rival = rival.unwrap();
    assert_eq!(
        (
            rival.namespace.as_str(),
            rival.user,
            rival.used,
            rival.weight,
            rival.own_weight
        ),
        ("green", None, 0, 1, 2)
    );
    assert!(rival.own_used > 10 * SECOND, "{}", rival.own_used);
    let words = "Namespace green goes first, having used less than 1 s of slots for a weight of 1; blue has used ";
    assert!(explained.summary.contains(words), "{}", explained.summary);
    assert!(
        explained
            .summary
            .contains(" s for 2. It is likely to start in"),
        "{}",
        explained.summary
    );
    let gone = Command::CancelTask {
        task: TaskId(5),
        reason: String::new(),
    };
    farm.apply(vec![asked(gone)]);
    let explained = self::explained(&farm, 4);
    let Some(Rival {
        user: Some(user), ..
    }) = explained.ahead.and_then(|it| it.rival)
    else {
        panic!("{}", explained.summary);
    };
    assert_eq!(&*user, "bob");
    let words = "User bob goes first, having used less than 1 s of slots for a weight of 1; its own user has used ";
    assert!(explained.summary.contains(words), "{}", explained.summary);
    // Who is first by age alone has no rival.
    assert_eq!(
        self::explained(&farm, 3).ahead.and_then(|it| it.rival),
        None
    );
}

#[test]
fn an_agent_that_was_lost_under_a_task_is_told_apart_while_another_has_room() {
    let agents = [("a1", 1, "a"), ("a2", 1, "a")];
    let mut farm = Farm::of(cluster(&agents, &[task("zone=a")]));
    begin(&mut farm);
    let agent = farm
        .state
        .task(TaskId(1))
        .unwrap()
        .live()
        .unwrap()
        .agent
        .clone();
    lose(&mut farm, agent.as_str());
    farm.apply(vec![registration(agent.as_str(), 1, "a")]);
    let standing = |farm: &Farm| {
        let all = explained(farm, 1).agents.into_iter();
        let own = all.filter(|it| it.agent == agent);
        own.map(|it| it.standing.map(drop)).collect::<Vec<_>>()
    };
    assert_eq!(standing(&farm), [Err(Reason::LostBefore)]);
    assert!(
        told(&farm, 1).contains("1 of 2 agents can take it. It came back to the queue: "),
        "{}",
        told(&farm, 1)
    );
    let other = if agent == id("a1") { "a2" } else { "a1" };
    lose(&mut farm, other);
    assert_eq!(standing(&farm), [Ok(())]);
    let chosen = farm.plan_beside(&BTreeSet::new());
    assert_eq!(chosen[0].placement.agent, agent);
}

#[test]
fn what_has_ended_is_told_with_where_it_was_and_how_long_it_had_waited() {
    let mut farm = Farm::new(1);
    let tries_again = TaskSpec {
        retries: 1,
        ..task("")
    };
    farm.submit(("blue", "ann"), &task(""), 3);
    later(&mut farm, 2_000);
    begin(&mut farm);
    let where_it_was = "on a1, the best by load and pace; no other agent could take it.";
    let waited = "It had waited 2 s before that.";
    assert_eq!(
        told(&farm, 1),
        format!(
            "It was assigned to a1, the best by load and pace; no other agent could take it. {waited}"
        )
    );
    end(&mut farm, 1, 0);
    assert_eq!(
        told(&farm, 1),
        format!("It succeeded. It ran {where_it_was} {waited}")
    );
    begin(&mut farm);
    end(&mut farm, 2, 3);
    let failed = told(&farm, 2);
    assert!(failed.starts_with("It failed: "), "{failed}");
    assert!(
        failed.ends_with(&format!(". It ran {where_it_was} {waited}")),
        "{failed}"
    );
    let cancel = Command::CancelTask {
        task: TaskId(3),
        reason: "too late".into(),
    };
    later(&mut farm, 5_000);
    farm.apply(vec![asked(cancel)]);
    assert_eq!(
        told(&farm, 3),
        "It was cancelled by ann: too late. It was never assigned to an agent. It had waited 7 s."
    );

    farm.submit(("blue", "ann"), &tries_again, 1);
    begin(&mut farm);
    end(&mut farm, 4, 3);
    let again = told(&farm, 4);
    assert!(
        again.starts_with("It waits for its next try, in "),
        "{again}"
    );
    let wait = explained(&farm, 4).wait.unwrap();
    assert!(wait.is_rough && wait.millis.0 > 0, "{wait:?}");
    later(&mut farm, 60_000);
    let due = told(&farm, 4);
    let lead = "It is number 1 in the queue; 1 of 1 agent can take it. It came back to the queue: ";
    assert!(due.starts_with(lead), "{due}");
    begin(&mut farm);
    end(&mut farm, 4, 3);
    let ended = told(&farm, 4);
    let last =
        format!("The last of its 2 attempts was {where_it_was} That began 60 s after its submit.");
    assert!(ended.ends_with(&last), "{ended}");
}
