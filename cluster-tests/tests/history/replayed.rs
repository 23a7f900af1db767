//! With a log: every answer at its index, and the books that are kept beside the state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_tests::checkers::{
    Books, Evidence, Execution, Finding, Invariant, Kind, Standing, Violation, check, judge,
};
use cluster_tests::history::{
    Action, Answer, History, Operation, Order, Outcome, TaskSeen, TaskState, Value,
};
use cluster_tests::journal::{self, Begun};
use cluster_tests::log::{Content, Log};
use model::{
    AddRule, Agents, Applied, Assignment, Class, Command, DrainAgent, Entry, Event, Expression,
    Fence, Generation, Millis, Observed, Op, Presence, Reply, Retention, RuleAction, Sample, Scope,
    Stamped, State, StateName, Supply, SystemCommand, TaskId, TaskSpec, Twentieths,
};
use mutant::Mutant;
use scheduler::{AgentView, Fleet, Round};

use super::made::{
    World, agent, assign, at, by, client, finish, incarnation, kinds, placement, register, spec,
    story, submit,
};

fn standing(evidence: &Evidence, invariant: Invariant) -> Finding {
    let mut found = judge(evidence).into_iter();
    found.find(|it| it.invariant == invariant).unwrap()
}

fn answer(operation: &mut Operation) -> &mut Answer {
    match &mut operation.outcome {
        Outcome::Ok(answer) => answer,
        other @ (Outcome::Refused { .. } | Outcome::Unknown { .. }) => panic!("{other:?}"),
    }
}

fn broken(change: impl FnOnce(&mut World)) -> Vec<Violation> {
    let mut world = story();
    change(&mut world);
    check(&world.evidence())
}

#[test]
fn a_good_story_breaks_nothing_and_everything_is_looked_at() {
    let evidence = story().evidence();
    assert_eq!(check(&evidence), []);
    for invariant in [
        Invariant::I1,
        Invariant::I2,
        Invariant::I3,
        Invariant::I4,
        Invariant::I5,
        Invariant::I6,
        Invariant::I12,
    ] {
        let found = standing(&evidence, invariant);
        assert_eq!(found.standing(), Standing::Holds, "{found:?}");
    }
    for absent in [Invariant::I7, Invariant::I10] {
        let found = standing(&evidence, absent);
        assert_eq!(found.standing(), Standing::NotApplicable);
        assert!(found.not_applicable.is_some());
    }
    let idle = standing(&evidence, Invariant::I9);
    assert_eq!(idle.standing(), Standing::NothingSeen);
}

#[test]
fn a_log_whose_beginning_is_purged_is_never_green() {
    let mut evidence = story().evidence();
    evidence.logs.get_mut("c1").unwrap().entries.remove(0);
    let found = standing(&evidence, Invariant::I5);
    assert_eq!(found.standing(), Standing::Unproven);
    assert!(
        found.gaps[0].contains("keep_behind_snapshot"),
        "{:?}",
        found.gaps
    );
    evidence.logs.clear();
    let found = standing(&evidence, Invariant::I1);
    assert_eq!(found.gaps, ["no log was dumped"]);
}

#[test]
fn what_was_acknowledged_and_is_not_in_its_entry_is_lost() {
    let found = broken(|world| {
        // Another leader's entry has taken its place.
        let place = world.operations[0].index().unwrap();
        let entry = &mut world.log.entries[usize::try_from(place).unwrap()];
        entry.content = Content::Blank;
    });
    assert!(
        found
            .iter()
            .any(|it| it.kind == Kind::Lost && it.operations == [1]),
        "{found:?}"
    );
    let found = broken(|world| world.log.entries.truncate(6));
    assert!(kinds(&found).contains(&Kind::Lost), "{found:?}");
    assert!(found[0].seen.contains("ends at 5"), "{}", found[0]);
}

#[test]
fn an_answer_from_a_majority_s_log_needs_the_majority() {
    let mut evidence = story().evidence();
    let whole = evidence.logs["c1"].clone();
    let mut short = whole.clone();
    short.entries.truncate(6);
    evidence.voters = 3;
    evidence.logs.insert("c2".into(), short.clone());
    evidence.logs.insert("c3".into(), short);
    assert!(kinds(&check(&evidence)).contains(&Kind::Lost));
    evidence.logs.insert("c3".into(), whole);
    assert_eq!(check(&evidence), []);
}

#[test]
fn a_submit_under_another_term_or_as_another_task_is_found() {
    let found = broken(|world| {
        let answer = answer(&mut world.operations[0]);
        answer.position.as_mut().unwrap().term = 2;
    });
    assert_eq!(kinds(&found), [Kind::Lost]);
    let found = broken(|world| {
        let Value::Submitted { task, .. } = &mut answer(&mut world.operations[0]).value else {
            panic!("not a submit");
        };
        task.id = 2;
    });
    assert!(kinds(&found).contains(&Kind::OtherTask), "{found:?}");
}

#[test]
fn a_read_of_what_was_never_so_is_found() {
    for change in [
        |task: &mut TaskSeen| task.state = TaskState::Succeeded,
        |task: &mut TaskSeen| task.epoch = 3,
        |task: &mut TaskSeen| task.agent = "a2".into(),
        |task: &mut TaskSeen| task.last_index += 1,
        |task: &mut TaskSeen| task.id = 9,
    ] {
        let found = broken(|world| {
            let Value::Task { task } = &mut answer(&mut world.operations[1]).value else {
                panic!("not a get");
            };
            change(task);
        });
        let never = found.iter().find(|it| it.kind == Kind::NeverSo);
        assert!(never.is_some_and(|it| it.operations == [2]), "{found:?}");
    }
}

#[test]
fn a_list_that_leaves_something_out_is_found() {
    let found = broken(|world| {
        let last = world.operations.last_mut().unwrap();
        let Value::Tasks { tasks, .. } = &mut answer(last).value else {
            panic!("not a list");
        };
        tasks.remove(1);
    });
    assert_eq!(kinds(&found), [Kind::NeverSo]);
    assert!(found[0].seen.contains("t1 was left out"), "{}", found[0]);
}

#[test]
fn a_task_that_left_memory_is_compared_with_its_record() {
    let left = || {
        let mut world = World::new();
        world.entry(vec![Op::System(SystemCommand::Retain(Retention {
            hot_tasks: 2,
            ..Retention::default()
        }))]);
        for task in 1..=6 {
            world.submitted(&format!("r{task}"), spec());
            let epoch = world.entry(vec![assign(task, "a1")]);
            world.entry(vec![finish(task, epoch, "a1")]);
            world.got(1);
        }
        assert_eq!(world.state.task_count(), 2);
        let tasks = (1..=6).rev().map(|task| world.shown(task)).collect();
        let outcome = world.answer(Value::Tasks { tasks, next: 0 });
        let list = Action::List {
            states: vec![TaskState::Succeeded],
            limit: 0,
            page: 0,
        };
        world.done(list, outcome);
        world
    };
    assert_eq!(check(&left().evidence()), []);
    let mut world = left();
    let Value::Tasks { tasks, .. } = &mut answer(world.operations.last_mut().unwrap()).value else {
        panic!("not a list");
    };
    tasks[5].epoch += 1;
    tasks.remove(4);
    let found = check(&world.evidence());
    let broken = [Kind::ResultChanged, Kind::NeverSo, Kind::NeverSo];
    assert_eq!(kinds(&found), broken);
}

#[test]
fn a_stale_read_from_a_deposed_leader_goes_backwards() {
    let mut world = World::new();
    world.submitted("r1", spec());
    // Answered from before the assignment, after somebody has seen it.
    let old = world.got(1).clone();
    world.entry(vec![assign(1, "a1")]);
    world.got(1);
    let again = world.got(1);
    let (invoked, answered) = (again.invoked, again.answered);
    let mut stale = old.clone();
    (stale.id, stale.invoked, stale.answered) = (9, at(5_000), Some(at(5_010)));
    world.operations.push(stale);
    assert!(invoked < at(5_000) && answered < Some(at(5_000)));
    let found = check(&world.evidence());
    // Once by its place in the log, once without it.
    assert_eq!(kinds(&found), [Kind::Backwards, Kind::NotLinearizable]);
    assert_eq!(found[0].operations[0], 9);
}

#[test]
fn a_task_that_exists_and_is_denied_is_found() {
    let mut world = World::new();
    world.submitted("r1", spec());
    world.got(1);
    let refused = Outcome::Refused {
        code: "no_such_task".into(),
        message: "there is no task t1".into(),
    };
    world.done(Action::Get { task: 1 }, refused);
    let found = check(&world.evidence());
    assert_eq!(kinds(&found), [Kind::Denied, Kind::NotLinearizable]);
}

#[test]
fn a_refused_submit_that_is_in_the_log_is_found() {
    let mut world = World::new();
    world.entry(vec![submit("r1", spec())]);
    let refused = Outcome::Refused {
        code: "no_room".into(),
        message: "no room".into(),
    };
    let action = Action::Submit {
        request_id: "r1".into(),
        spec: Default::default(),
    };
    world.done(action, refused);
    assert_eq!(kinds(&check(&world.evidence())), [Kind::RefusedButDone]);
}

#[test]
fn orders_and_cancels_are_held_to_their_entries() {
    let mut world = World::new();
    world.submitted("r1", spec());
    let cancel = Command::CancelTask {
        task: TaskId(1),
        reason: String::new(),
    };
    world.entry(vec![client(cancel)]);
    let value = Value::Task {
        task: world.shown(1),
    };
    let outcome = world.answer(value);
    world.done(Action::Cancel { task: 1 }, outcome);
    let cordon = Command::CordonAgent {
        agent: agent("a1"),
        reason: String::new(),
    };
    world.entry(vec![client(cordon)]);
    let outcome = world.answer(Value::Agent { agent: None });
    let order = |order| Action::Order {
        agent: "a1".into(),
        order,
    };
    world.done(order(Order::Cordon), outcome.clone());
    assert_eq!(check(&world.evidence()), []);

    let mut world = World::new();
    world.submitted("r1", spec());
    let outcome = world.answer(Value::Agent { agent: None });
    world.entry(vec![]);
    world.done(order(Order::Cordon), outcome);
    let found = check(&world.evidence());
    assert!(kinds(&found).contains(&Kind::Lost), "{found:?}");
}

#[test]
fn logs_that_differ_below_the_common_end_are_found() {
    let mut evidence = story().evidence();
    let mut other = evidence.logs["c1"].clone();
    other.entries[7].term = 9;
    evidence.logs.insert("c2".into(), other);
    let found = check(&evidence);
    assert_eq!(kinds(&found), [Kind::LogsDiffer]);
    assert_eq!(found[0].entries, [7]);
}

#[test]
fn a_hash_that_the_log_does_not_make_is_found() {
    let world = story();
    let (index, hash) = (world.state.last_applied(), hex::encode(world.state.hash()));
    let mut evidence = world.evidence();
    let status = |hash: &str| cluster_tests::cluster::Status {
        cluster_id: "q".into(),
        leader: None,
        term: 1,
        stale: false,
        members: vec![cluster_tests::cluster::MemberStatus {
            id: "c1".into(),
            role: "voter".into(),
            state: "leader".into(),
            applied: Some(index),
            lag: None,
            state_hash: Some(hash.into()),
            hash_index: None,
            hash_at: None,
        }],
    };
    evidence.statuses = vec![status(&hash)];
    assert_eq!(check(&evidence), []);
    let mut evidence = story().evidence();
    evidence.statuses = vec![status("00ff")];
    assert_eq!(kinds(&check(&evidence)), [Kind::HashOfNoLog]);
}

/// No log does that to a sound `apply`, so the checker's own has a bug here.
#[test]
fn a_state_that_does_not_agree_with_itself_is_found() {
    let mut world = story();
    world.entry(vec![submit("twice", spec())]);
    world.entry(vec![submit("twice", spec())]);
    let evidence = world.evidence();
    assert_eq!(check(&evidence), []);
    mutant::plant(Some(Mutant::NoDedupe));
    let found = kinds(&check(&evidence));
    mutant::plant(None);
    assert!(found.contains(&Kind::Unsound), "{found:?}");
}

#[test]
fn starts_are_held_to_the_assignments_of_the_log() {
    let mut evidence = story().evidence();
    let epochs = [6, 8].map(|epoch| Execution {
        task: epoch / 2 - 2,
        epoch,
    });
    evidence.executions = epochs.to_vec();
    assert_eq!(check(&evidence), []);
    evidence.executions.push(Execution { task: 1, epoch: 7 });
    assert_eq!(kinds(&check(&evidence)), [Kind::RanUnasked]);
}

#[test]
fn journals_are_held_to_the_assignments_and_starts_to_the_journals() {
    let begun = |task, epoch| Begun { task, epoch };
    let good = || {
        let mut evidence = story().evidence();
        let journals = [("a1", begun(1, 6)), ("a2", begun(2, 8))];
        let journals = journals.map(|(agent, begun)| (agent.to_owned(), vec![begun]));
        evidence.journals = journals.into();
        evidence.executions = vec![Execution { task: 1, epoch: 6 }];
        evidence
    };
    assert_eq!(check(&good()), []);
    let broken = |agent: &str, begun: Begun| {
        let mut evidence = good();
        evidence.journals.get_mut(agent).unwrap().push(begun);
        kinds(&check(&evidence))
    };
    assert_eq!(broken("a1", begun(1, 6)), [Kind::RanTwice]);
    assert_eq!(broken("a1", begun(2, 8)), [Kind::RanUnasked]);
    assert_eq!(broken("a1", begun(1, 7)), [Kind::RanUnasked]);
    let mut evidence = good();
    evidence.executions.push(Execution { task: 2, epoch: 8 });
    evidence.journals.get_mut("a2").unwrap().clear();
    assert_eq!(kinds(&check(&evidence)), [Kind::NotWritten]);

    let mut world = World::new();
    let mut once = spec();
    once.at_most_once = true;
    world.submitted("r1", once);
    let epoch = world.entry(vec![assign(1, "a1")]);
    let mut evidence = world.evidence();
    let twice = [("a1", begun(1, epoch)), ("a2", begun(1, epoch + 1))];
    evidence.journals = twice
        .map(|(agent, begun)| (agent.to_owned(), vec![begun]))
        .into();
    assert_eq!(kinds(&check(&evidence)), [Kind::RanUnasked, Kind::RanAgain]);
}

#[test]
fn what_is_no_journal_is_refused_and_a_torn_end_is_none() {
    assert_eq!(journal::parse(&[]), Ok(Vec::new()));
    assert_eq!(journal::parse(b"QJ\0\x01torn"), Ok(Vec::new()));
    assert!(journal::parse(&[7; 64]).is_err());
}

#[test]
fn the_older_of_two_that_want_the_same_goes_first() {
    let waiting = || {
        let mut world = World::new();
        world.submitted("r1", spec());
        world.submitted("r2", spec());
        world
    };
    let mut world = waiting();
    world.entry(vec![assign(2, "a1"), assign(1, "a2")]);
    let found = check(&world.evidence());
    assert_eq!(kinds(&found), [Kind::Overtook]);
    assert!(found[0].seen.starts_with("t1 waited"), "{}", found[0]);
    // The leader had wanted to, and the agent was full by then.
    let mut world = waiting();
    world.entry(vec![assign(2, "a9"), assign(1, "a9")]);
    world.entry(vec![assign(2, "a1")]);
    assert_eq!(check(&world.evidence()), []);
    // Nobody knew of the older one when the newer one was asked for.
    let mut world = waiting();
    world.operations[1].invoked = world.operations[0].invoked;
    world.entry(vec![assign(2, "a1")]);
    assert_eq!(check(&world.evidence()), []);
}

fn set(name: &str, max_running: u32) -> Op {
    client(Command::SetNamespace(model::SetNamespace {
        namespace: name.parse().unwrap(),
        weight: None,
        users: BTreeMap::new(),
        max_running: Some(max_running),
        max_queued: Some(2),
    }))
}

fn rule(action: RuleAction, name: &str) -> Op {
    client(Command::AddRule(AddRule {
        action,
        scope: Scope::default(),
        agents: Agents {
            names: [agent(name)].into(),
            require: Vec::new(),
        },
        reason: "by hand".into(),
        ttl: None,
    }))
}

fn of(name: &str, class: Class) -> TaskSpec {
    TaskSpec {
        namespace: name.parse().unwrap(),
        class: Some(class),
        ..spec()
    }
}

#[test]
fn another_tenants_older_task_may_wait_but_not_one_of_a_higher_class() {
    let overtaken = |older: TaskSpec, quota: Option<Op>| {
        let mut world = World::new();
        world.entry(quota.into_iter().collect());
        world.submitted("r1", older);
        world.submitted("r2", of("green", Class::Batch));
        world.entry(vec![assign(2, "a1")]);
        kinds(&check(&world.evidence()))
    };
    assert_eq!(overtaken(of("blue", Class::Batch), None), []);
    assert_eq!(overtaken(of("green", Class::Batch), None), [Kind::Overtook]);
    let higher = || of("blue", Class::Standard);
    assert_eq!(overtaken(higher(), None), [Kind::Overtook]);
    // Who has waited for long may have risen.
    let mut world = World::new();
    world.submitted("r1", of("green", Class::Batch));
    world.submitted("r2", higher());
    world.later(Class::Batch.patience());
    world.entry(vec![assign(1, "a1")]);
    assert_eq!(check(&world.evidence()), []);
    // It may wait for its namespace's quota.
    assert_eq!(overtaken(higher(), Some(set("blue", 1))), []);
}

#[test]
fn what_a_namespace_has_at_once_is_counted() {
    let mut told = Told::new();
    told.good(vec![set("blue", 1)]);
    let blue = |request| submit(request, of("blue", Class::Standard));
    told.good(vec![blue("r1"), blue("r2")]);
    let begun = told.good(vec![assign(1, "a1")]);
    assert_eq!(begun.replies, [Ok(Reply::Done)]);
    let second = told.assigned(2, told.index + 1, "a2");
    let found = told.bad(vec![assign(2, "a2")], vec![Reply::Done], vec![second]);
    assert_eq!(found, [Kind::OverQuota]);

    let mut told = Told::new();
    told.good(vec![set("blue", 1)]);
    told.good(vec![blue("r1"), blue("r2")]);
    let taken = Reply::Submitted {
        task: TaskId(3),
        duplicate: false,
    };
    let queued = Event::TaskQueued { task: TaskId(3) };
    let found = told.bad(vec![blue("r3")], vec![taken], vec![queued]);
    assert_eq!(found, [Kind::OverQuota]);

    // In one entry a place is left and taken again.
    let mut told = Told::new();
    told.good(vec![set("blue", 5)]);
    told.good(vec![blue("r1"), blue("r2")]);
    told.good(vec![assign(1, "a1"), blue("r3")]);
    assert_eq!(told.books.violations(), []);
}

/// The books over entries whose effects are as they are said to be.
struct Told {
    state: State,
    books: Books,
    index: u64,
}

impl Told {
    fn new() -> Told {
        let Log { entries } = World::new().log;
        let mut told = Told {
            state: State::default(),
            books: Books::new(&History::default()),
            index: 1,
        };
        for entry in entries {
            match &entry.content {
                Content::Blank | Content::Membership => told.state.note_index(entry.index, 1),
                Content::Operations(bytes) => drop(told.good(Entry::decode(bytes).unwrap().ops)),
            }
        }
        told
    }

    /// As the state does it.
    fn good(&mut self, ops: Vec<Op>) -> Applied {
        self.index += 1;
        let stamp = model::Timestamp(self.index * 1_000);
        let entry = Entry {
            stamp,
            wall: stamp,
            ops: ops.clone(),
        };
        let applied = self.state.apply(Stamped {
            index: self.index,
            term: 1,
            membership: 0,
            entry,
        });
        self.books.take(self.index, &ops, &applied);
        applied
    }

    /// As no state should.
    fn bad(mut self, ops: Vec<Op>, replies: Vec<Reply>, events: Vec<Event>) -> Vec<Kind> {
        self.index += 1;
        let applied = Applied {
            replies: replies.into_iter().map(Ok).collect(),
            events,
            ..Applied::default()
        };
        self.books.take(self.index, &ops, &applied);
        kinds(self.books.violations())
    }

    fn assigned(&self, task: u64, epoch: u64, to: &str) -> Event {
        Event::TaskAssigned {
            fence: fence(task, epoch),
            agent: agent(to),
            incarnation: incarnation(to),
        }
    }
}

fn fence(task: u64, epoch: u64) -> Fence {
    Fence {
        task: TaskId(task),
        generation: Generation(1),
        epoch: model::Epoch(epoch),
    }
}

/// One task that waits.
fn one() -> Told {
    let mut told = Told::new();
    told.good(vec![submit("r1", spec())]);
    told
}

#[test]
fn an_assignment_that_no_agent_should_get_is_found() {
    let at = |told: &Told| told.index + 1;
    let told = one();
    let event = told.assigned(1, at(&told), "a9");
    assert_eq!(told.bad(vec![], vec![], vec![event]), [Kind::OnUnfit]);

    let mut told = one();
    let cordon = Command::CordonAgent {
        agent: agent("a1"),
        reason: String::new(),
    };
    told.good(vec![client(cordon)]);
    let event = told.assigned(1, at(&told), "a1");
    assert_eq!(told.bad(vec![], vec![], vec![event]), [Kind::OnCordoned]);

    let mut told = one();
    told.good(vec![rule(RuleAction::Exclude, "a1")]);
    let event = told.assigned(1, at(&told), "a1");
    assert_eq!(told.bad(vec![], vec![], vec![event]), [Kind::AgainstRule]);

    let mut told = one();
    told.good(vec![rule(RuleAction::Pin, "a2")]);
    let event = told.assigned(1, at(&told), "a1");
    assert_eq!(told.bad(vec![], vec![], vec![event]), [Kind::AgainstRule]);

    let mut told = one();
    told.good(vec![submit("r2", spec()), rule(RuleAction::Cap(1), "a1")]);
    told.good(vec![assign(2, "a1")]);
    let event = told.assigned(1, at(&told), "a1");
    assert_eq!(told.bad(vec![], vec![], vec![event]), [Kind::AgainstRule]);

    let mut told = one();
    told.good(vec![client(Command::DrainAgent(DrainAgent {
        agent: agent("a1"),
        reason: String::new(),
        deadline: Millis(1_000),
    }))]);
    let event = told.assigned(1, at(&told), "a1");
    assert_eq!(told.bad(vec![], vec![], vec![event]), [Kind::OnCordoned]);

    let mut told = one();
    told.good(vec![Op::System(SystemCommand::ExpireLease {
        agent: agent("a1"),
        incarnation: incarnation("a1"),
    })]);
    let event = told.assigned(1, at(&told), "a1");
    assert_eq!(told.bad(vec![], vec![], vec![event]), [Kind::OnLost]);

    let told = one();
    let other = Event::TaskAssigned {
        fence: fence(1, at(&told)),
        agent: agent("a1"),
        incarnation: incarnation("a2"),
    };
    assert_eq!(
        told.bad(vec![], vec![], vec![other]),
        [Kind::OtherIncarnation]
    );

    let mut told = Told::new();
    let mut picky = spec();
    picky.require = vec![Expression::Equals("hall".into(), "a2".into())];
    told.good(vec![submit("r1", picky)]);
    let event = told.assigned(1, at(&told), "a1");
    assert_eq!(told.bad(vec![], vec![], vec![event]), [Kind::OnUnfit]);
}

#[test]
fn more_attempts_than_an_agent_may_hold_are_found() {
    let mut told = one();
    told.good(vec![submit("r2", spec()), submit("r3", spec())]);
    let applied = told.good(vec![assign(1, "a1"), assign(2, "a1"), assign(3, "a1")]);
    // One slot, one sent ahead, and the third is refused.
    assert!(applied.replies[1].is_ok() && applied.replies[2].is_err());
    let event = told.assigned(3, told.index + 1, "a1");
    assert_eq!(told.bad(vec![], vec![], vec![event]), [Kind::OverCapacity]);
}

#[test]
fn more_than_an_agent_has_is_found_to_be_given() {
    let asking = |memory_mib| TaskSpec {
        memory_mib: Some(memory_mib),
        ..spec()
    };
    let mut op = register("a1", 4);
    if let Op::Client {
        command: Command::RegisterAgent(profile),
        ..
    } = &mut op
    {
        profile.supply = Some(Supply {
            memory_mib: 10,
            ..Supply::default()
        });
    }
    let mut told = Told::new();
    told.good(vec![
        op,
        submit("r1", asking(6)),
        submit("r2", asking(4)),
        submit("r3", asking(1)),
    ]);
    let applied = told.good(vec![assign(1, "a1"), assign(2, "a1"), assign(3, "a1")]);
    assert!(applied.replies[1].is_ok() && applied.replies[2].is_err());
    let event = told.assigned(3, told.index + 1, "a1");
    assert_eq!(told.bad(vec![], vec![], vec![event]), [Kind::OverCapacity]);
}

#[test]
fn epochs_that_overlap_fall_or_are_not_the_entry_s_are_found() {
    let mut told = one();
    told.good(vec![assign(1, "a1")]);
    let event = told.assigned(1, told.index + 1, "a2");
    assert_eq!(told.bad(vec![], vec![], vec![event]), [Kind::TwoEpochs]);

    let mut told = one();
    told.good(vec![assign(1, "a1")]);
    let epoch = told.index;
    told.good(vec![Op::System(SystemCommand::ExpireLease {
        agent: agent("a1"),
        incarnation: incarnation("a1"),
    })]);
    let event = told.assigned(1, epoch, "a2");
    let found = told.bad(vec![], vec![], vec![event]);
    assert_eq!(found, [Kind::EpochFell, Kind::EpochTooLow]);
}

/// What runs on `a1` and yields, and a task that asks for its place.
fn yielding() -> (Told, u64) {
    let mut told = Told::new();
    let mut low = spec();
    (low.class, low.preemptible) = (Some(model::Class::Batch), true);
    told.good(vec![submit("r1", low)]);
    told.good(vec![assign(1, "a1")]);
    let epoch = told.index;
    told.good(vec![submit("r2", spec())]);
    (told, epoch)
}

fn preempted(task: u64, epoch: u64, by: u64) -> Event {
    Event::Preempted {
        fence: fence(task, epoch),
        agent: agent("a1"),
        by: TaskId(by),
    }
}

#[test]
fn who_gets_a_place_that_is_not_given_up_is_found() {
    let (told, epoch) = yielding();
    assert_eq!(told.bad(vec![], vec![], vec![preempted(1, epoch, 2)]), []);

    // It holds nothing.
    let (told, _) = yielding();
    let found = told.bad(vec![], vec![], vec![preempted(2, 9, 1)]);
    assert_eq!(found, [Kind::PreemptedWrongly]);

    // It does not allow it, and is of no lower class.
    let mut told = one();
    told.good(vec![assign(1, "a1")]);
    let epoch = told.index;
    told.good(vec![submit("r2", spec())]);
    let found = told.bad(vec![], vec![], vec![preempted(1, epoch, 2)]);
    assert_eq!(found, [Kind::PreemptedWrongly]);
}

#[test]
fn a_second_result_and_one_under_a_dead_epoch_are_found() {
    let accepted = || Reply::Finished {
        task: TaskId(1),
        disposition: model::Disposition::Accepted,
    };
    let ran = || {
        let mut told = one();
        told.good(vec![assign(1, "a1")]);
        let epoch = told.index;
        (told, epoch)
    };
    let (mut told, epoch) = ran();
    told.good(vec![finish(1, epoch, "a1")]);
    let again = told.bad(vec![finish(1, epoch, "a1")], vec![accepted()], vec![]);
    assert_eq!(again, [Kind::SecondResult]);

    let (told, epoch) = ran();
    let early = told.bad(vec![finish(1, epoch - 1, "a1")], vec![accepted()], vec![]);
    assert_eq!(early, [Kind::SecondResult]);

    let (mut told, epoch) = ran();
    told.good(vec![finish(1, epoch, "a1")]);
    let task = TaskId(1);
    let ended = Event::TaskEnded {
        task,
        state: StateName::Failed,
    };
    let requeued = Event::TaskRequeued { task };
    let found = told.bad(vec![], vec![], vec![ended, requeued]);
    assert_eq!(found, [Kind::AfterEnd, Kind::AfterEnd]);
}

#[test]
fn a_second_assignment_of_an_at_most_once_task_is_found() {
    let mut told = Told::new();
    let mut once = spec();
    once.at_most_once = true;
    told.good(vec![submit("r1", once)]);
    told.good(vec![assign(1, "a1")]);
    let epoch = told.index;
    let freed = Event::AttemptEnded {
        fence: fence(1, epoch),
        agent: agent("a1"),
    };
    let event = told.assigned(1, told.index + 1, "a2");
    let found = told.bad(vec![], vec![], vec![freed, event]);
    assert_eq!(found, [Kind::RanAgain]);
}

#[test]
fn a_request_id_that_makes_two_tasks_is_found() {
    let second = Reply::Submitted {
        task: TaskId(2),
        duplicate: false,
    };
    let found = one().bad(vec![submit("r1", spec())], vec![second], vec![]);
    assert_eq!(found, [Kind::Doubled]);
    let other = Reply::Submitted {
        task: TaskId(9),
        duplicate: true,
    };
    let found = one().bad(vec![submit("r1", spec())], vec![other], vec![]);
    assert_eq!(found, [Kind::OtherTask]);
}

#[test]
fn what_a_state_does_breaks_no_books() {
    let mut told = one();
    let mut placed = submit("r2", spec());
    if let Op::Client { placement: it, .. } = &mut placed {
        *it = Some(placement("a2"));
    }
    told.good(vec![placed, register("a1", 2)]);
    told.good(vec![assign(1, "a1")]);
    let epoch = told.index;
    told.good(vec![finish(1, epoch, "a1"), finish(1, epoch, "a1")]);
    told.good(vec![by(
        "a1",
        model::Role::Agent,
        Command::UncordonAgent { agent: agent("a1") },
    )]);
    assert_eq!(told.books.violations(), []);
}

/// A task is submitted, and decided on as a leader does, with what it goes by beside it.
fn decided(change: impl FnOnce(&mut Assignment, &mut Observed)) -> Vec<Kind> {
    let mut world = story();
    world.submitted("r99", spec());
    let state = &world.state;
    let sample = Sample {
        presence: Presence::Open,
        ..Sample::default()
    };
    let agents = state.agents().map(|agent| {
        let view = AgentView {
            sample,
            ..AgentView::default()
        };
        (agent.profile.id.clone(), view)
    });
    let fleet = Fleet {
        agents: agents.collect(),
        ..Fleet::default()
    };
    let round = Round {
        now: state.time(),
        taken: &BTreeSet::new(),
        max: 1,
        after: None,
    };
    let mut assigned = scheduler::plan(state, &fleet, round).assignments.remove(0);
    let mut observed = Observed {
        round: 1,
        since: 1,
        applied: state.last_applied(),
        now: state.time(),
        under_way: Vec::new(),
        seed: 0,
        is_whole: true,
        samples: fleet.agents.keys().map(|id| (id.clone(), sample)).collect(),
        paces: Vec::new(),
    };
    change(&mut assigned, &mut observed);
    let system = |command| Op::System(command);
    world.entry(vec![
        system(SystemCommand::Assign(assigned)),
        system(SystemCommand::Observe(observed)),
    ]);
    kinds(&check(&world.evidence()))
}

#[test]
fn a_decision_that_is_not_what_its_inputs_come_to_is_found() {
    assert_eq!(decided(|_, _| {}), []);
    let found = [Kind::DecidedOtherwise];
    let score = |assigned: &mut Assignment, _: &mut Observed| {
        let mut trace = assigned.placement.trace.read().unwrap();
        trace.winner.score += 1;
        assigned.placement.trace = Arc::new(trace.recorded(model::StateVersion::NEWEST));
    };
    assert_eq!(decided(score), found);
    let other = |assigned: &mut Assignment, _: &mut Observed| {
        let agents = ["a1", "a2"].map(agent);
        let other = agents
            .into_iter()
            .find(|it| *it != assigned.placement.agent);
        assigned.placement = placement(other.unwrap().as_str());
    };
    assert_eq!(decided(other), found);
    let unseen = |_: &mut Assignment, observed: &mut Observed| {
        observed
            .samples
            .iter_mut()
            .for_each(|(_, it)| it.load.cpu = Twentieths(7));
    };
    assert_eq!(decided(unseen), found);
    // What does not say all is not held to it.
    let partly = |assigned: &mut Assignment, observed: &mut Observed| {
        score(assigned, observed);
        observed.is_whole = false;
    };
    assert_eq!(decided(partly), []);
}
