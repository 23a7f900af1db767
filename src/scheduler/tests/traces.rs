//! What stands in the log of each decision, where there is most to tell.

use model::{
    AgentProtocol, AgentState, Attachment, Backend, BlobRef, Placement, SetBackend, Strategy,
    TRACE_MAX_BYTES,
};

use super::*;
use crate::score::formula;
use crate::{Asker, Planner};

/// Agents of each sort that are refused: so many that their number takes three bytes.
const MANY: u32 = 256;

/// As long as a name may be.
fn name(sort: &str, number: u32) -> String {
    format!("{sort}{number:->width$}", width = 63 - sort.len())
}

/// Agents that can do all that is asked, but for what `change` takes from them.
fn many(sort: &str, count: u32, change: impl Fn(&mut AgentProfile)) -> Vec<Op> {
    let agents = (0..count).map(|number| {
        let mut op = registration(&name(sort, number), 1, "a");
        if let Op::Client {
            command: Command::RegisterAgent(profile),
            ..
        } = &mut op
        {
            profile.protocol = AgentProtocol::BLOBS;
            profile.backends = vec![Backend {
                name: "x".into(),
                url: "http://x".into(),
                models: vec!["m".into()],
                trouble: String::new(),
            }];
            change(profile);
        }
        op
    });
    agents.collect()
}

fn of_all(sort: &str, command: impl Fn(AgentId) -> Op) -> Vec<Op> {
    let names = (0..MANY).map(|number| id(&name(sort, number)));
    names.map(command).collect()
}

/// Many agents for each reason to refuse one, and four that are not refused.
fn with_every_reason() -> State {
    let mut state = cluster(&[], &[]);
    for sort in [
        "lost",
        "offline",
        "suspect",
        "busy",
        "cordoned",
        "draining",
        "declining",
        "full",
    ] {
        apply(&mut state, many(sort, MANY, |_| {}));
    }
    let elsewhere =
        |profile: &mut AgentProfile| drop(profile.labels.insert("zone".into(), "b".into()));
    apply(&mut state, many("elsewhere", MANY, elsewhere));
    apply(&mut state, many("bare", MANY, |it| it.backends.clear()));
    let old = |profile: &mut AgentProfile| profile.protocol = AgentProtocol::FIRST;
    apply(&mut state, many("old", MANY, old));
    apply(&mut state, many("good", 4, |_| {}));

    let lost = of_all("lost", |agent| {
        let incarnation = Incarnation([1; 16]);
        Op::System(SystemCommand::ExpireLease { agent, incarnation })
    });
    apply(&mut state, lost);
    let reason = String::new;
    let cordoned = of_all("cordoned", |agent| {
        asked(Command::CordonAgent {
            agent,
            reason: reason(),
        })
    });
    apply(&mut state, cordoned);
    let draining = of_all("draining", |agent| drain(agent.as_str(), 1_000));
    apply(&mut state, draining);
    let full = of_all("full", |agent| {
        asked(Command::SetBackend(SetBackend {
            agent,
            name: "x".into(),
            weight: None,
            limit: Some(1),
            max_fails: None,
            fail_timeout: None,
        }))
    });
    apply(&mut state, full);
    state
}

fn decided(state: &State) -> Placement {
    let mut fleet = fleet(state);
    for (agent, view) in &mut fleet.agents {
        let sort = agent.as_str().split('-').next().expect("a part");
        match sort {
            "offline" => view.sample.presence = Presence::NotConnected,
            "suspect" => view.sample.presence = Presence::Suspect,
            "declining" => view.sample.presence = Presence::Declining,
            "busy" => view.reserved.attempts = 1,
            "full" => drop(view.reserved.asking.insert("m".into(), 1)),
            // As loaded as one may be that still gets something.
            "good" => (view.reserved.attempts, view.sample.prefetch) = (1, 1),
            _ => {}
        }
    }
    let mut spec = task("zone=a");
    spec.require.push(Expression::Offers("m".into()));
    spec.blobs.attachments.push(Attachment {
        name: "data".into(),
        blob: BlobRef::of(b"data"),
        executable: false,
    });
    let avoided = [id(&name("good", 3))];
    let placed = Planner::new(state, &fleet, NOW).place(
        &spec,
        Asker {
            avoided: &avoided,
            ..asker(1)
        },
    );
    placed.expect("some are good")
}

#[test]
fn the_trace_of_a_decision_has_at_most_256_bytes_and_every_reason_is_in_it() {
    let state = with_every_reason();
    let lost = state.agents().filter(|it| it.state == AgentState::Lost);
    assert_eq!(lost.count(), 256);
    let placement = decided(&state);
    let (trace, size) = (trace_of(&placement), placement.trace.size());
    let counts: BTreeMap<_, _> = trace.refusals.iter().cloned().collect();
    let each = [
        (Reason::Lost, MANY),
        (Reason::NotConnected, MANY),
        (Reason::Suspect, MANY),
        (Reason::NoFreeSlot, MANY),
        (Reason::LabelMismatch, MANY),
        (Reason::NotOffered, MANY),
        (Reason::LostBefore, 1),
        (Reason::Cordoned, MANY),
        (Reason::Draining, MANY),
        (Reason::Declining, MANY),
        (Reason::BackendsFull, MANY),
        (Reason::TooOld, MANY),
    ];
    assert_eq!(counts, BTreeMap::from(each));
    // One attempt for its slot, and as quick as any.
    assert_eq!(trace.winner.score, 400);
    assert_eq!(trace.winner.terms, [0, 0, 0, 1_000, 1_000]);
    assert_eq!(
        trace.policy_version,
        formula(Strategy::Adaptive, false).version
    );
    assert!(size <= TRACE_MAX_BYTES, "{size} bytes");
    assert_eq!(TRACE_MAX_BYTES, 256);
}

#[test]
fn a_trace_that_a_later_release_packed_is_told_as_that() {
    let mut state = cluster(&[("a1", 1, "a")], &[task("")]);
    let mut assigned = planned(&state, &fleet(&state)).assignments.remove(0);
    let later = model::TraceRecord::Packed {
        policy_version: 99,
        scores: b"?".as_slice().into(),
    };
    assigned.placement.trace = std::sync::Arc::new(later);
    let id = assigned.task;
    apply(
        &mut state,
        vec![Op::System(SystemCommand::Assign(assigned))],
    );
    let told = explain(&state, &fleet(&state), NOW, id).expect("it is known");
    let expected = "It was assigned to a1, chosen as a later release chooses.";
    assert!(told.summary.starts_with(expected), "{}", told.summary);
}

#[test]
fn a_trace_names_the_winner_and_two_runners_up_however_many_there_are() {
    let agents: Vec<String> = (0..20).map(|n| format!("worker-{n}.example")).collect();
    let agents: Vec<_> = agents.iter().map(|name| (name.as_str(), 2, "a")).collect();
    let state = cluster(&agents, &[task("")]);
    let plan = planned(&state, &fleet(&state));
    let placement = &plan.assignments[0].placement;
    let trace = trace_of(placement);
    assert_eq!(trace.runners_up.len(), 2);
    assert_eq!(trace.refusals, []);
    assert!(placement.trace.size() <= TRACE_MAX_BYTES);
}
