//! Properties of a round, on states made by applying real entries.

mod by_hand;
mod estimates;
mod farm;
mod files;
mod health;
mod order;
mod preemption;
mod resources;
mod shares;
mod starving;
mod strategies;
mod traces;
mod what_if;
mod why;

use std::collections::BTreeMap;

use model::{
    AgentId, AgentProfile, Command, DrainAgent, End, Entry, Expression, Fence, Generation,
    Incarnation, Millis, Namespace, Op, Outcome, Presence, Principal, Reason, Role, Sample,
    Stamped, State, Submit, SystemCommand, TaskId, TaskSpec, Timestamp, Verdict,
};

use crate::score::tie;
use crate::{AgentView, Asker, Clock, Fleet, LEASE, Leases, Plan, Round, due, explain, plan};

const NOW: Timestamp = Timestamp(1_000_000);

/// A cluster with agents `(name, slots, zone)` and so many tasks in the queue.
fn cluster(agents: &[(&str, u32, &str)], tasks: &[TaskSpec]) -> State {
    let found = SystemCommand::Found {
        cluster_id: "test".into(),
        generation: Generation(1),
    };
    let to = model::StateVersion::NEWEST;
    let raise = SystemCommand::RaiseVersion { to };
    let mut ops = vec![Op::System(found), Op::System(raise)];
    ops.extend(
        agents
            .iter()
            .map(|(name, slots, zone)| registration(name, *slots, zone)),
    );
    ops.extend(tasks.iter().map(submission));
    let mut state = State::default();
    apply(&mut state, ops);
    state
}

/// How it was decided.
fn trace_of(placement: &model::Placement) -> model::Trace {
    placement.trace.read().expect("this release wrote it")
}

/// An agent with one back end, `x`, that offers `m`; and what is set for it.
fn with_a_back_end(name: &str, slots: u32, limit: u32) -> Vec<Op> {
    let mut registration = registration(name, slots, "a");
    if let Op::Client {
        command: Command::RegisterAgent(profile),
        ..
    } = &mut registration
    {
        profile.backends = vec![model::Backend {
            name: "x".into(),
            url: "http://x".into(),
            models: vec!["m".into()],
            trouble: String::new(),
        }];
    }
    let set = Command::SetBackend(model::SetBackend {
        agent: id(name),
        name: "x".into(),
        weight: None,
        limit: Some(limit),
        max_fails: None,
        fail_timeout: None,
    });
    vec![registration, asked(set)]
}

fn question() -> TaskSpec {
    let namespace = Namespace::new("default").expect("it is a name");
    let inference = model::Inference {
        model: "m".into(),
        endpoint: model::Endpoint::ChatCompletions,
        request: "{}".into(),
    };
    TaskSpec::inference(namespace, inference)
}

/// Somebody who asks for a task, whose ties are broken by this number.
fn asker(seed: u64) -> Asker<'static> {
    Asker {
        user: "ann",
        task: None,
        seed,
        avoided: &[],
    }
}

/// In several entries: one has a limit of operations.
fn submitted(mut state: State, tasks: &[TaskSpec]) -> State {
    for some in tasks.chunks(1_000) {
        apply(&mut state, some.iter().map(submission).collect());
    }
    state
}

fn apply(state: &mut State, ops: Vec<Op>) {
    apply_at(state, NOW, ops);
}

fn apply_at(state: &mut State, now: Timestamp, ops: Vec<Op>) {
    let entry = Entry {
        stamp: now,
        wall: now,
        ops,
    };
    let index = state.last_applied() + 1;
    let applied = state.apply(Stamped {
        index,
        term: 1,
        membership: 0,
        entry,
    });
    assert!(
        applied.replies.iter().all(Result::is_ok),
        "{:?}",
        applied.replies
    );
}

fn registration(name: &str, slots: u32, zone: &str) -> Op {
    let profile = AgentProfile {
        id: id(name),
        incarnation: Incarnation([1; 16]),
        slots,
        labels: BTreeMap::from([("zone".to_owned(), zone.to_owned())]),
        version: "test".into(),
        limits: "rlimit".into(),
        backends: Vec::new(),
        protocol: model::AgentProtocol::FIRST,
        supply: None,
    };
    by(name, Role::Agent, Command::RegisterAgent(profile))
}

fn submission(spec: &TaskSpec) -> Op {
    asked(Command::SubmitTask(Submit {
        spec: spec.clone(),
        request_id: None,
    }))
}

/// Ann asks for it.
fn asked(command: Command) -> Op {
    by("ann", Role::Client, command)
}

/// How an attempt ended, as its agent says.
fn report(agent: &str, fence: Fence, outcome: Outcome) -> Op {
    let verdict = Verdict { fence, outcome };
    by(agent, Role::Agent, Command::FinishAttempt(verdict))
}

fn by(name: &str, role: Role, command: Command) -> Op {
    let principal = Principal {
        name: name.into(),
        role,
        fingerprint: [0; 32],
    };
    Op::Client {
        principal,
        command,
        placement: None,
        held: None,
    }
}

fn task(require: &str) -> TaskSpec {
    let namespace = Namespace::new("default").expect("it is a name");
    let mut spec = TaskSpec::process(namespace, vec!["true".into()]);
    let require = (!require.is_empty()).then(|| require.parse::<Expression>().unwrap());
    spec.require = require.into_iter().collect();
    spec
}

fn id(name: &str) -> AgentId {
    AgentId::new(name).expect("it is a name")
}

/// Everybody connected, nothing sent ahead.
fn fleet(state: &State) -> Fleet {
    let view = AgentView {
        sample: Sample {
            presence: Presence::Open,
            ..Sample::default()
        },
        ..AgentView::default()
    };
    let agents = state
        .agents()
        .map(|agent| (agent.profile.id.clone(), view.clone()));
    Fleet {
        agents: agents.collect(),
        ..Fleet::default()
    }
}

/// So many attempts are on their way to an agent.
fn reserve(fleet: &mut Fleet, agent: &str, attempts: u32) {
    let view = fleet.agents.get_mut(&id(agent)).expect("it is there");
    view.reserved.attempts = attempts;
}

fn planned(state: &State, fleet: &Fleet) -> Plan {
    plan_without(state, fleet, &[])
}

fn plan_without(state: &State, fleet: &Fleet, taken: &[TaskId]) -> Plan {
    let taken = taken.iter().copied().collect();
    let round = Round {
        now: NOW,
        taken: &taken,
        max: 100,
        after: None,
    };
    plan(state, fleet, round)
}

fn chosen(state: &State, fleet: &Fleet) -> Vec<(u64, String)> {
    let plan = planned(state, fleet);
    let pair = |a: &model::Assignment| (a.task.0, a.placement.agent.to_string());
    plan.assignments.iter().map(pair).collect()
}

#[test]
fn tasks_spread_by_what_is_assigned_and_never_beyond_the_slots() {
    let state = cluster(&[("a1", 2, "a"), ("a2", 4, "a")], &vec![task(""); 20]);
    let mut counts = BTreeMap::new();
    for (_, agent) in chosen(&state, &fleet(&state)) {
        *counts.entry(agent).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([("a1".into(), 2), ("a2".into(), 4)]));
}

#[test]
fn the_agent_with_the_least_assigned_for_its_slots_comes_first() {
    // Slots and what is taken of them, a tie being no test of anything.
    let cases = [
        ((4, 3), (4, 0), "a2"),
        ((4, 1), (4, 2), "a1"),
        ((8, 2), (2, 1), "a1"),
        ((2, 1), (16, 9), "a1"),
    ];
    for ((slots1, taken1), (slots2, taken2), wanted) in cases {
        let agents = [("a1", slots1, "a"), ("a2", slots2, "a")];
        let state = cluster(&agents, &[task("")]);
        let mut fleet = fleet(&state);
        reserve(&mut fleet, "a1", taken1);
        reserve(&mut fleet, "a2", taken2);
        let case = format!("{taken1} of {slots1} or {taken2} of {slots2}");
        assert_eq!(chosen(&state, &fleet), [(1, wanted.to_owned())], "{case}");
    }
}

#[test]
fn equal_agents_share_equally_however_alike_their_names_are() {
    for count in [2, 3, 8] {
        let agents: Vec<AgentId> = (1..=count)
            .map(|number| id(&format!("a{number}")))
            .collect();
        let mut shares: BTreeMap<&AgentId, usize> = BTreeMap::new();
        for seed in 0..8_000 {
            let first = agents.iter().min_by_key(|agent| tie(seed, agent));
            *shares.entry(first.expect("there are some")).or_default() += 1;
        }
        let even = 8_000 / count;
        let fair = |share: &usize| share.abs_diff(even) * 10 < even;
        assert!(
            shares.len() == count && shares.values().all(fair),
            "{shares:?}"
        );
    }
}

#[test]
fn a_task_that_fits_nowhere_does_not_hold_up_those_behind_it() {
    let state = cluster(
        &[("a1", 1, "a")],
        &[task("zone=nowhere"), task(""), task("")],
    );
    assert_eq!(chosen(&state, &fleet(&state)), [(2, "a1".to_owned())]);
}

#[test]
fn however_many_tasks_fit_nowhere_those_behind_them_go_and_nothing_is_cut() {
    let mut tasks = vec![task("zone=nowhere"); 5_000];
    tasks.push(task(""));
    let state = cluster(&[("a1", 2, "a")], &[]);
    let state = submitted(state, &tasks);
    let plan = planned(&state, &fleet(&state));
    let ids: Vec<u64> = plan.assignments.iter().map(|a| a.task.0).collect();
    assert_eq!((ids, plan.cut), (vec![5_001], false));
}

#[test]
fn a_round_with_more_requirements_than_it_looks_at_goes_on_with_the_others() {
    let mut tasks: Vec<TaskSpec> = (0..5_000).map(|n| task(&format!("host=h{n}"))).collect();
    tasks.push(task("zone=a"));
    let state = submitted(cluster(&[("a1", 2, "a")], &[]), &tasks);
    let fleet = fleet(&state);
    let first = planned(&state, &fleet);
    assert_eq!((first.assignments.len(), first.cut), (0, true));
    let taken = std::collections::BTreeSet::new();
    let round = Round {
        now: NOW,
        taken: &taken,
        max: 100,
        after: first.resume.as_ref(),
    };
    let second = plan(&state, &fleet, round);
    assert_eq!(second.assignments[0].task, TaskId(5_001));
}

#[test]
fn a_ripe_retry_takes_its_place_by_age() {
    let mut retried = task("");
    retried.retries = 1;
    let mut state = cluster(&[("a1", 1, "a")], &[retried, task("")]);
    let first = planned(&state, &fleet(&state)).assignments.remove(0);
    apply(
        &mut state,
        vec![Op::System(SystemCommand::Assign(first.clone()))],
    );
    let fence = state.live_fence(TaskId(1)).expect("it was assigned");
    let outcome = Outcome::bare(End::Exited { code: 1 });
    apply(&mut state, vec![report("a1", fence, outcome)]);
    let taken = std::collections::BTreeSet::new();
    let at = |now| Round {
        now,
        taken: &taken,
        max: 100,
        after: None,
    };
    let early = plan(&state, &fleet(&state), at(NOW));
    assert_eq!(early.assignments[0].task, TaskId(2));
    let ripe = plan(&state, &fleet(&state), at(NOW.plus(Millis(60_000))));
    assert_eq!(ripe.assignments[0].task, TaskId(1));
}

#[test]
fn a_replaced_incarnation_that_holds_nothing_leaves_no_lease_behind() {
    let state = cluster(&[("a1", 1, "a")], &[]);
    let mut leases = Leases::since(Millis(0));
    for n in 0..10 {
        leases.renew(&id("a1"), Incarnation([n; 16]), Millis(5_000));
    }
    leases.forget_unwatched(&state);
    assert_eq!(leases.len(), 1);
    assert!(!leases.expired(&id("a1"), Incarnation([1; 16]), Millis(LEASE.0 + 1)));
}

#[test]
fn older_tasks_go_first_and_taken_ones_are_left_out() {
    let state = cluster(&[("a1", 2, "a")], &vec![task(""); 4]);
    let tasks: Vec<u64> = chosen(&state, &fleet(&state))
        .iter()
        .map(|(task, _)| *task)
        .collect();
    assert_eq!(tasks, [1, 2]);
    let plan = plan_without(&state, &fleet(&state), &[TaskId(1)]);
    let tasks: Vec<u64> = plan.assignments.iter().map(|a| a.task.0).collect();
    assert_eq!(tasks, [2, 3]);
}

#[test]
fn placements_that_are_not_applied_yet_take_room() {
    let state = cluster(&[("a1", 2, "a")], &vec![task(""); 4]);
    let mut fleet = fleet(&state);
    reserve(&mut fleet, "a1", 1);
    assert_eq!(chosen(&state, &fleet).len(), 1);
}

#[test]
fn the_same_input_gives_the_same_plan_and_its_trace_adds_up() {
    let state = cluster(
        &[("a1", 3, "a"), ("a2", 3, "b"), ("a3", 3, "a")],
        &vec![task("zone=a"); 5],
    );
    let fleet = fleet(&state);
    let first = planned(&state, &fleet);
    assert_eq!(first, planned(&state, &fleet));
    // On another machine, too: its state came in a snapshot.
    let elsewhere = State::decode(&state.encode()).expect("it is a snapshot");
    assert_eq!(first, planned(&elsewhere, &fleet));
    for assignment in &first.assignments {
        let trace = &trace_of(&assignment.placement);
        assert_eq!(trace.winner.agent, assignment.placement.agent);
        assert!(
            trace
                .runners_up
                .iter()
                .all(|other| other.score >= trace.winner.score)
        );
        let refused: u32 = trace.refusals.iter().map(|(_, agents)| agents).sum();
        assert_eq!(
            1 + trace.runners_up.len() + refused as usize,
            3,
            "every agent is counted"
        );
    }
}

#[test]
fn agents_without_a_session_or_silent_get_nothing_and_why_says_so() {
    let state = cluster(
        &[("a1", 1, "a"), ("a2", 1, "a"), ("a3", 1, "b")],
        &[task("zone=a")],
    );
    let mut fleet = fleet(&state);
    fleet.agents.get_mut(&id("a1")).unwrap().sample.presence = Presence::NotConnected;
    fleet.agents.get_mut(&id("a2")).unwrap().sample.presence = Presence::Suspect;
    assert_eq!(chosen(&state, &fleet), []);
    let explanation = explain(&state, &fleet, NOW, TaskId(1)).expect("it is known");
    let reasons: Vec<_> = explanation
        .agents
        .iter()
        .map(|a| a.standing.clone())
        .collect();
    let refused = [Reason::NotConnected, Reason::Suspect, Reason::LabelMismatch];
    assert_eq!(reasons, refused.map(Err));
    assert_eq!(explanation.position(), Some(1));
    assert_eq!(
        explanation.summary,
        "It waits as number 1 in the queue: of 3 agents 1 does not satisfy its `require`, 1 is not \
         connected, 1 is suspect. It can start once one of a1, a2 is back."
    );
}

fn drain(agent: &str, deadline: u64) -> Op {
    asked(Command::DrainAgent(DrainAgent {
        agent: id(agent),
        reason: String::new(),
        deadline: Millis(deadline),
    }))
}

#[test]
fn agents_that_are_closed_get_nothing_and_why_says_by_what() {
    let agents = [("a1", 1, "a"), ("a2", 1, "a"), ("a3", 1, "a")];
    let mut state = cluster(&agents, &[task("")]);
    let cordon = Command::CordonAgent {
        agent: id("a1"),
        reason: "disk".into(),
    };
    apply(&mut state, vec![asked(cordon), drain("a2", 1_000)]);
    let mut fleet = fleet(&state);
    fleet.agents.get_mut(&id("a3")).unwrap().sample.presence = Presence::Declining;
    // What passes by itself is no better answer.
    fleet.agents.get_mut(&id("a1")).unwrap().sample.presence = Presence::NotConnected;
    assert_eq!(chosen(&state, &fleet), []);
    let explained = explain(&state, &fleet, NOW, TaskId(1)).expect("it is known");
    let reasons: Vec<_> = explained
        .agents
        .iter()
        .map(|a| a.standing.clone())
        .collect();
    let refused = [Reason::Cordoned, Reason::Draining, Reason::Declining];
    assert_eq!(reasons, refused.map(Err));
    assert_eq!(
        explained.summary,
        "It waits as number 1 in the queue: of 3 agents 1 is cordoned, 1 is being drained, 1 takes \
         nothing now. a2 is being drained by ann. a1 was cordoned by ann: disk. `quorate agent uncordon a2` lets it go there."
    );
    let uncordon = |agent| asked(Command::UncordonAgent { agent: id(agent) });
    apply(&mut state, vec![uncordon("a2")]);
    assert_eq!(chosen(&state, &fleet), [(1, "a2".to_owned())]);
}

#[test]
fn a_drain_is_due_once_at_its_deadline_whoever_leads() {
    let mut state = cluster(&[("a1", 1, "a"), ("a2", 1, "a")], &[]);
    apply(&mut state, vec![drain("a1", 60_000), drain("a2", 90_000)]);
    // A new leader has another monotonic clock, and new leases.
    let due_at = |state: &State, millis, monotonic| {
        let clock = Clock {
            state: NOW.plus(Millis(millis)),
            monotonic: Millis(monotonic),
        };
        due(state, &Leases::since(Millis(monotonic)), clock)
    };
    let expire = |agent| SystemCommand::ExpireDrain { agent: id(agent) };
    assert_eq!(due_at(&state, 59_999, 500_000), []);
    assert_eq!(due_at(&state, 60_000, 7), [expire("a1")]);
    assert_eq!(due_at(&state, 90_000, 7), [expire("a1"), expire("a2")]);
    apply_at(
        &mut state,
        NOW.plus(Millis(60_000)),
        vec![Op::System(expire("a1"))],
    );
    assert_eq!(due_at(&state, 60_001, 7), []);
}

#[test]
fn a_lease_ends_after_fifteen_seconds_and_a_new_leader_starts_it_anew() {
    let state = cluster(&[("a1", 1, "a")], &[]);
    let at = |monotonic| Clock {
        state: NOW,
        monotonic: Millis(monotonic),
    };
    let mut leases = Leases::since(Millis(100));
    assert_eq!(due(&state, &leases, at(100 + LEASE.0 - 1)), []);
    assert_eq!(due(&state, &leases, at(100 + LEASE.0)).len(), 1);
    leases.renew(&id("a1"), Incarnation([1; 16]), Millis(5_000));
    assert_eq!(due(&state, &leases, at(5_000 + LEASE.0 - 1)), []);
    assert_eq!(due(&state, &leases, at(5_000 + LEASE.0)).len(), 1);
    assert_eq!(
        due(&state, &Leases::since(Millis(9_000)), at(5_000 + LEASE.0)),
        [],
        "renewed with an earlier leader"
    );
}

#[test]
fn an_agent_gets_no_more_questions_than_its_back_ends_may_answer_and_why_says_so() {
    let mut state = cluster(&[], &[]);
    apply(&mut state, with_a_back_end("a1", 8, 2));
    apply(&mut state, with_a_back_end("a2", 3, 0));
    let state = submitted(state, &vec![question(); 8]);
    let mut fleet = fleet(&state);
    // One is on its way there, and not in the log yet.
    let view = fleet.agents.get_mut(&id("a1")).unwrap();
    view.reserved.attempts = 1;
    view.reserved.asking.insert("m".into(), 1);
    let mut counts = BTreeMap::new();
    for (_, agent) in chosen(&state, &fleet) {
        *counts.entry(agent).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([("a1".into(), 1), ("a2".into(), 3)]));
    let view = fleet.agents.get_mut(&id("a1")).unwrap();
    view.reserved.asking.insert("m".into(), 2);
    fleet.agents.get_mut(&id("a2")).unwrap().sample.presence = Presence::NotConnected;
    let explained = explain(&state, &fleet, NOW, TaskId(1)).expect("it is known");
    assert_eq!(explained.agents[0].standing, Err(Reason::BackendsFull));
    assert!(
        explained
            .summary
            .contains("1 has its back ends for it at the limit"),
        "{}",
        explained.summary
    );
}

#[test]
fn a_question_that_finds_no_back_end_free_holds_up_nothing_else() {
    let mut state = cluster(&[], &[]);
    apply(&mut state, with_a_back_end("a1", 8, 1));
    let state = submitted(state, &[question(), question(), task(""), task("")]);
    let chosen = chosen(&state, &fleet(&state));
    let tasks: Vec<u64> = chosen.iter().map(|(task, _)| *task).collect();
    assert_eq!(tasks, [1, 3, 4]);
}

#[test]
fn a_task_that_the_agents_are_too_old_for_holds_up_nothing_else_in_its_line() {
    let mut state = cluster(&[("a1", 4, "a")], &[]);
    let mut with_file = task("");
    with_file.blobs.attachments.push(model::Attachment {
        name: "data".into(),
        blob: model::BlobRef::of(b"data"),
        executable: false,
    });
    let mut op = submission(&with_file);
    if let Op::Client { held, .. } = &mut op {
        *held = Some(model::Held(0));
    }
    apply(&mut state, vec![op.clone(), op, submission(&task(""))]);
    let fleet = fleet(&state);
    assert_eq!(chosen(&state, &fleet), [(3, "a1".to_owned())]);
    let explained = explain(&state, &fleet, NOW, TaskId(1)).expect("it is known");
    assert_eq!(explained.agents[0].standing, Err(Reason::TooOld));
}
