//! Properties over random entries: three replicas agree, invariants hold after each entry, a
//! snapshot anywhere and the tail give the same as a full replay, and no bytes make it panic.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::exemplars::by_ann;
use super::kept::Kept;
use super::world::{
    agent_id, backend, client, fence, finish_op, incarnation, inference, placement_on, profile,
    register_op, spec, submit, submit_op,
};
use crate::{
    AddRule, AgentProtocol, Agents, Applied, Assignment, Attachment, BlobRef, Class, Command,
    DrainAgent, End, Entry, Epoch, Event, Generation, Hardware, Interruption, Millis, Namespace,
    Op, Outcome, Preemption, Retention, RuleAction, RuleId, Scope, SetBackend, SetNamespace,
    SetPolicy, Stamped, State, StateVersion, Supply, SystemCommand, TaskId, TaskSpec, Timestamp,
    Victim, invariant,
};

const AGENTS: [&str; 3] = ["a1", "a2", "a3"];

fn agent() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&AGENTS[..])
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Exited { code: 0 }),
        2 => Just(End::Exited { code: 1 }),
        1 => Just(End::Signalled { signal: 9 }),
        1 => Just(End::TimedOut),
        1 => Just(End::Killed),
        1 => Just(End::NotStarted { reason: "no such program".into() }),
        1 => Just(End::Declined { reason: "stopping".into() }),
        2 => Just(interrupted(Interruption::AgentDied)),
        1 => Just(interrupted(Interruption::EndedByAgent)),
    ]
}

fn interrupted(cause: Interruption) -> End {
    End::Interrupted {
        cause,
        reason: "restarted".into(),
    }
}

/// What a submit asks for beside its command: retries or at most once, a deadline, a label.
fn wishes() -> impl Strategy<Value = TaskSpec> {
    let deadline = prop::option::of(prop::sample::select(&[500, 3_000u64][..]));
    let require = prop::option::weighted(0.3, prop::sample::select(&["zone=a", "zone!=a"][..]));
    let asks = prop::bool::weighted(0.3);
    let class = prop::option::weighted(0.3, prop::sample::select(&Class::ALL[..]));
    let wishes = (
        0..3u32,
        any::<bool>(),
        deadline,
        require,
        asks,
        file(),
        class,
        hardware(),
    );
    wishes.prop_map(
        |(retries, once, deadline, require, asks, file, class, hardware)| {
            let mut spec = match asks {
                true => inference("m", "{}"),
                false => spec("true"),
            };
            let file = file.filter(|_| !asks);
            spec.blobs.attachments.extend(file.map(|blob| Attachment {
                name: "data".into(),
                blob,
                executable: false,
            }));
            spec.class = class;
            if let Some((hardware, memory_mib)) = hardware.filter(|_| !asks) {
                (spec.hardware, spec.memory_mib) = (hardware, memory_mib);
            }
            spec.at_most_once = once;
            spec.preemptible = !once;
            spec.retries = if once { 0 } else { retries };
            spec.deadline = deadline.map(crate::Millis);
            let require = require.iter().filter_map(|text| text.parse().ok());
            spec.require.extend(require);
            spec
        },
    )
}

/// Of sizes of which one, two or three fit an agent.
fn hardware() -> impl Strategy<Value = Option<(Hardware, Option<u64>)>> {
    let some = (0..3u32, prop::option::of(1..3u64), 0..3u32, 0..3u64);
    let some = some.prop_map(|(cpu, memory, gpus, vram)| {
        let hardware = Hardware {
            cpu_milli: cpu * 500,
            gpus,
            vram_mib: vram * 8,
        };
        (hardware, memory)
    });
    prop::option::weighted(0.5, some)
}

/// Few of them, so that tasks share them.
fn file() -> impl Strategy<Value = Option<BlobRef>> {
    prop::option::weighted(0.4, (0..4u8).prop_map(|n| BlobRef::of(&[n])))
}

/// An agent that registers, now and then with other slots or in another zone.
fn registration(inc: impl Strategy<Value = u8>) -> impl Strategy<Value = Op> {
    let zone = prop::sample::select(&["a", "b"][..]);
    let protocol = (1..5u32).prop_map(AgentProtocol);
    let supply = prop::option::weighted(0.8, (1..3u32, 1..4u64, 0..4usize));
    let registration = (agent(), 1..4u32, inc, zone, protocol, supply);
    registration.prop_map(|(agent, slots, inc, zone, protocol, supply)| {
        let mut profile = profile(agent, slots, inc);
        profile.protocol = protocol;
        profile.supply = supply.map(|(cpus, memory_mib, gpus)| Supply {
            cpu_milli: cpus * 1_000,
            memory_mib,
            gpus: [16, 8, 16][..gpus.min(3)].to_vec(),
        });
        profile.labels.insert("zone".into(), zone.into());
        profile.backends = vec![backend("x:m"), backend("y:m+n")];
        register_op(profile)
    })
}

/// What an administrator decides of tasks and an agent, takes back, and what has expired. Rules are found by how far back
/// they were made.
fn by_hand(index: u64) -> impl Strategy<Value = Op> {
    let action = prop::sample::select(vec![
        RuleAction::Pin,
        RuleAction::Exclude,
        RuleAction::Prefer,
        RuleAction::Cap(1),
    ]);
    let kind = prop::option::of(Just(crate::Kind::Process));
    let ttl = prop::option::of(Just(Millis(2_000)));
    let rule = (0..12u64).prop_map(move |back| RuleId {
        entry: index.saturating_sub(back),
        nth: 0,
    });
    prop_oneof![
        4 => (action, agent(), kind, ttl).prop_map(|(action, agent, kind, ttl)| {
            by_ann(Command::AddRule(AddRule {
                action,
                scope: Scope { namespace: None, kind },
                agents: Agents { names: [agent_id(agent)].into(), require: Vec::new() },
                reason: "by hand".into(),
                ttl,
            }))
        }),
        1 => rule.clone().prop_map(|rule| by_ann(Command::RemoveRule { rule })),
        1 => rule.prop_map(|rule| Op::System(SystemCommand::ExpireRule { rule })),
    ]
}

/// What an administrator says of an agent, and the end of a drain.
fn order() -> impl Strategy<Value = Op> {
    let deadline = prop::sample::select(&[0, 2_000u64][..]);
    (agent(), 0..11u8, deadline).prop_map(|(agent, which, deadline)| {
        let agent_number = AGENTS.iter().position(|it| *it == agent);
        let agent = agent_id(agent);
        let command = match which {
            0 => Command::CordonAgent {
                agent,
                reason: "why not".into(),
            },
            1 | 2 => Command::UncordonAgent { agent },
            3 => Command::DrainAgent(DrainAgent {
                agent,
                reason: String::new(),
                deadline: crate::Millis(deadline),
            }),
            4 => Command::RemoveAgent { agent },
            5 | 6 => Command::SetBackend(SetBackend {
                agent,
                name: if which == 5 { "x" } else { "y" }.into(),
                weight: Some(1 + u32::from(deadline > 0)),
                limit: Some(1),
                max_fails: None,
                fail_timeout: None,
            }),
            9 => Command::SetPolicy(SetPolicy {
                scope: Scope {
                    namespace: (agent_number == Some(1))
                        .then(|| "default".parse().expect("it is a name")),
                    kind: (agent_number == Some(2)).then_some(crate::Kind::Process),
                },
                strategy: (deadline > 0).then_some(crate::Strategy::Binpack),
            }),
            7 | 8 => Command::SetNamespace(SetNamespace {
                namespace: Namespace::new("default").expect("it is a name"),
                weight: Some(1 + u32::from(which)),
                users: BTreeMap::from([("ann".to_owned(), 1 + u32::from(which == 7))]),
                max_running: Some(if deadline > 0 { 1 } else { 0 }),
                max_queued: Some(if which == 7 { 3 } else { 0 }),
            }),
            _ => return Op::System(SystemCommand::ExpireDrain { agent }),
        };
        by_ann(command)
    })
}

/// Room for few tasks, entries and bytes, so that everything that can leave does.
fn small(n: u64) -> Retention {
    Retention {
        hot_tasks: n % 4,
        segment_entries: 1 + n,
        segment_bytes: 200 * n,
        max_age: Millis(100_000 * n),
        max_bytes: 1_000 * n,
    }
}

/// Of one or two victims, which are found by how far back they were assigned.
fn preemption(index: u64) -> impl Strategy<Value = Op> {
    let victim = (1..12u64, 0..6u64).prop_map(move |(task, back)| Victim {
        task: TaskId(task),
        epoch: Epoch(index.saturating_sub(back)),
    });
    let victims = prop::collection::vec(victim, 1..3);
    (1..12u64, agent(), 1..3u8, victims).prop_map(|(task, agent, inc, victims)| {
        let placement = placement_on(agent, inc);
        let task = TaskId(task);
        let assignment = Assignment { task, placement };
        Op::System(SystemCommand::Preempt(Preemption {
            victims,
            assignment,
        }))
    })
}

/// Few tasks, agents and epochs, so that operations meet: `epoch` counts back from the index.
fn op(index: u64) -> impl Strategy<Value = Op> {
    let task = 1..12u64;
    let inc = 1..3u8;
    prop_oneof![
        4 => (0..6u8, wishes(), prop::option::of((agent(), inc.clone()))).prop_map(
            |(request, spec, place)| {
                let id = format!("r{request}");
                let request = (request < 4).then_some(id.as_str());
                submit_op(submit(spec, request), place.map(|(agent, inc)| placement_on(agent, inc)))
            }
        ),
        4 => (task.clone(), agent(), inc.clone()).prop_map(|(task, agent, inc)| {
            let placement = placement_on(agent, inc);
            Op::System(SystemCommand::Assign(Assignment { task: TaskId(task), placement }))
        }),
        3 => preemption(index),
        5 => (task.clone(), 0..8u64, agent(), end(), file()).prop_map(
            move |(task, back, agent, end, stdout)| {
                let mut outcome = Outcome::bare(end);
                outcome.blobs.stdout = stdout;
                outcome.stdout_bytes = stdout.map_or(0, |it| it.size);
                finish_op(fence(task, index.saturating_sub(back)), agent, outcome)
            }
        ),
        2 => task.clone().prop_map(|task| Op::Client {
            principal: client("ann"),
            command: Command::CancelTask { task: TaskId(task), reason: String::new() },
            placement: None,
            held: None,
        }),
        2 => registration(inc.clone()),
        2 => order(),
        2 => by_hand(index),
        2 => super::joining::random(),
        1 => Just(Op::System(SystemCommand::RaiseVersion { to: StateVersion::NEWEST })),
        1 => (agent(), inc).prop_map(|(agent, inc)| {
            let (agent, incarnation) = (agent_id(agent), incarnation(inc));
            Op::System(SystemCommand::ExpireLease { agent, incarnation })
        }),
        1 => task.clone().prop_map(|task| {
            Op::System(SystemCommand::ExpireDeadline { task: TaskId(task) })
        }),
        1 => task.prop_map(|task| {
            Op::System(SystemCommand::Retain(small(task)))
        }),
    ]
}

/// A log: each entry with its term, or none where Raft wrote a blank one.
type Log = Vec<(u64, Option<Entry>)>;

fn log() -> impl Strategy<Value = Log> {
    let steps = 5..60usize;
    steps.prop_flat_map(|length| {
        let entries = (0..length).map(|position| {
            let index = position as u64 + 2;
            (
                0..10u8,
                0..90_000_000u64,
                prop::option::weighted(0.9, prop::collection::vec(op(index), 0..4)),
            )
        });
        entries.collect::<Vec<_>>().prop_map(|entries| {
            let (mut term, mut now) = (1, 1_000_000);
            let stamped = |(new_term, step, ops): (u8, u64, Option<Vec<Op>>)| {
                term += u64::from(new_term == 0);
                // Mostly small steps, now and then one over the retention.
                now += if step % 7 == 0 { step } else { step % 3_000 };
                let stamp = Timestamp(now);
                let entry = ops.map(|ops| Entry {
                    stamp,
                    wall: stamp,
                    ops,
                });
                (term, entry)
            };
            entries.into_iter().map(stamped).collect()
        })
    })
}

/// Applies what stands at `index`.
fn step(state: &mut State, index: u64, (term, entry): &(u64, Option<Entry>)) -> Applied {
    let Some(entry) = entry else {
        state.note_index(index, *term);
        return Applied::default();
    };
    state.apply(Stamped {
        index,
        term: *term,
        membership: 0,
        entry: entry.clone(),
    })
}

fn founded() -> State {
    let mut state = State::default();
    let found = SystemCommand::Found {
        cluster_id: "test".into(),
        generation: Generation(1),
    };
    let stamp = Timestamp(1_000_000);
    let entry = Entry {
        stamp,
        wall: stamp,
        ops: vec![Op::System(found)],
    };
    state.apply(Stamped {
        index: 1,
        term: 1,
        membership: 0,
        entry,
    });
    state
}

fn replay(state: &mut State, from: usize, log: &[(u64, Option<Entry>)]) {
    let mut kept = Kept::default();
    replay_into(&mut kept, state, from, log);
}

fn replay_into(kept: &mut Kept, state: &mut State, from: usize, log: &[(u64, Option<Entry>)]) {
    for (position, at) in log.iter().enumerate() {
        kept.take(&step(state, (from + position) as u64 + 2, at));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn replicas_agree_and_stay_sound(log in log()) {
        let mut replicas = [founded(), founded(), founded()];
        for (position, at) in log.iter().enumerate() {
            let answers = replicas.each_mut().map(|state| step(state, position as u64 + 2, at));
            prop_assert!(answers.iter().all(|answer| *answer == answers[0]));
            prop_assert!(replicas.iter().all(|state| state.hash() == replicas[0].hash()));
            prop_assert_eq!(invariant::check(&replicas[0]), Vec::<String>::new());
        }
    }

    #[test]
    fn an_agent_that_is_closed_is_assigned_nothing(log in log()) {
        let mut state = founded();
        let mut closed = BTreeSet::new();
        for (position, at) in log.iter().enumerate() {
            for event in step(&mut state, position as u64 + 2, at).events {
                match event {
                    Event::AgentCordoned { agent } | Event::AgentDraining { agent } => {
                        closed.insert(agent);
                    }
                    Event::AgentUncordoned { agent } | Event::AgentRemoved { agent, .. } => {
                        closed.remove(&agent);
                    }
                    Event::TaskAssigned { agent, .. } => prop_assert!(!closed.contains(&agent)),
                    _ => {}
                }
            }
            let shown = state.agents().filter(|agent| agent.cordon.is_some());
            let shown: BTreeSet<_> = shown.map(|agent| agent.profile.id.clone()).collect();
            prop_assert_eq!(&shown, &closed);
        }
    }

    #[test]
    fn what_is_assigned_obeys_every_rule_that_holds(log in log()) {
        let mut state = founded();
        let raise = SystemCommand::RaiseVersion { to: StateVersion::NEWEST };
        let agents = AGENTS.map(|agent| register_op(profile(agent, 3, 1)));
        let ops = [vec![Op::System(raise)], agents.to_vec()].concat();
        let first = Entry { stamp: Timestamp(1_000_000), wall: Timestamp(1_000_000), ops };
        step(&mut state, 2, &(1, Some(first)));
        for (position, at) in log.iter().enumerate() {
            let before = state.clone();
            let events = step(&mut state, position as u64 + 3, at).events;
            let changes = |it: &Event| matches!(it, Event::RuleSet { .. } | Event::RuleRemoved { .. } | Event::RuleExpired { .. });
            if events.iter().any(changes) {
                continue;
            }
            for event in &events {
                let Event::TaskAssigned { fence, agent, .. } = event else { continue };
                let (Some(spec), Some(agent)) = (state.spec(fence.task), state.agent(agent)) else { continue };
                let now = state.time();
                for rule in before.rules().filter(|it| it.expires.is_none_or(|end| now < end)) {
                    let AddRule { action, scope, agents, .. } = &rule.asked;
                    let is_about = |spec: &TaskSpec| scope.kind.is_none_or(|kind| kind == spec.kind());
                    let named = agents.names.contains(&agent.profile.id);
                    let holds = match action {
                        _ if !is_about(&spec) => true,
                        RuleAction::Exclude => !named,
                        RuleAction::Pin => named,
                        RuleAction::Prefer => true,
                        RuleAction::Cap(most) => {
                            let held = state.held_by(&agent.profile.id);
                            let held = held.filter_map(|task| state.spec(task.id));
                            // What was there before the rule stays; nothing comes to it.
                            !named || held.filter(|it| is_about(it)).count() <= *most as usize
                        }
                    };
                    prop_assert!(holds, "{} to {}: {}", fence, agent.profile.id, rule.asked);
                }
            }
        }
    }

    #[test]
    fn a_snapshot_and_the_tail_are_a_full_replay(log in log(), at in any::<prop::sample::Index>()) {
        let cut = at.index(log.len());
        let (mut whole, mut kept) = (founded(), Kept::default());
        replay_into(&mut kept, &mut whole, 0, &log);
        prop_assert_eq!(kept.check(&whole), Vec::<String>::new());
        let (mut early, mut kept_early) = (founded(), Kept::default());
        replay_into(&mut kept_early, &mut early, 0, &log[..cut]);
        let mut restored = State::decode(&early.encode()).expect("it was just encoded");
        // The archive is at least as far as the snapshot; what is written again is the same.
        let (again, mut state) = (cut / 2, founded());
        replay(&mut state, 0, &log[..again]);
        replay_into(&mut kept_early, &mut state, again, &log[again..cut]);
        replay_into(&mut kept_early, &mut restored, cut, &log[cut..]);
        prop_assert_eq!(kept_early, kept);
        prop_assert_eq!(restored.hash(), whole.hash());
        prop_assert_eq!(restored.encode(), whole.encode());
    }

    #[test]
    fn replaying_what_was_applied_changes_nothing(log in log()) {
        // Raft's own entries are not repeated: they only say how far the log is.
        let log: Log = log.into_iter().filter(|(_, entry)| entry.is_some()).collect();
        let mut state = founded();
        replay(&mut state, 0, &log);
        let hash = state.hash();
        replay(&mut state, 0, &log);
        prop_assert_eq!(state.hash(), hash);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), flip in any::<prop::sample::Index>()) {
        let _ = Entry::decode(&bytes);
        let _ = State::decode(&bytes);
        let mut nearly = Entry {
            stamp: Timestamp(1_000_000),
            wall: Timestamp(0),
            ops: vec![submit_op(submit(spec("true"), Some("r")), Some(placement_on("a1", 1)))],
        }.encode();
        let at = flip.index(nearly.len());
        nearly[at] ^= bytes.first().copied().unwrap_or(1);
        if let Ok(entry) = Entry::decode(&nearly) {
            let mut state = founded();
            state.apply(Stamped { index: 2, term: 1, membership: 0, entry });
            prop_assert_eq!(invariant::check(&state), Vec::<String>::new());
        }
    }
}
