//! What a round of the scheduler costs: 256 decisions with 1,000 agents and 100,000 tasks in the queue.
//!
//! `make bench-plan`. The floor beside it is one look at each agent for each decision, without deciding anything.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::sync::Arc;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main};
use model::{
    AddRule, AgentId, AgentProfile, AgentProtocol, Agents, Class, Command, Entry, Generation,
    Incarnation, Kind, Load, Magnitude, Namespace, Op, Presence, Principal, Role, RuleAction,
    Sample, Scope, SetPolicy, Stamped, State, StateVersion, Strategy, Submit, Supply,
    SystemCommand, TaskSpec, Timestamp, Twentieths, Work,
};
use scheduler::{AgentView, Budget, Fleet, PATIENCE, Plan, Round, plan, waits};

const AGENTS: u32 = 1_000;
const SLOTS: u32 = 4;
const QUEUED: usize = 100_000;
const DECISIONS: usize = 256;
const FIRST: Budget = Budget {
    tasks: 1_000,
    looks: 100_000,
};
const NOW: Timestamp = Timestamp(1_700_000_000_000);

/// How tasks differ: by so many namespaces with so many users each, by so many zones of agents that they require, and by so
/// many amounts of memory that they ask for; 0: none.
struct Shape {
    namespaces: usize,
    users: usize,
    zones: usize,
    demands: usize,
}

const fn shape(namespaces: usize, users: usize, zones: usize) -> Shape {
    Shape {
        namespaces,
        users,
        zones,
        demands: 0,
    }
}

fn apply(state: &mut State, ops: Vec<Op>) {
    let index = state.last_applied() + 1;
    let applied = state.apply(Stamped {
        index,
        term: 1,
        membership: 0,
        entry: Entry {
            stamp: NOW,
            wall: NOW,
            ops,
        },
    });
    assert!(applied.replies.iter().all(Result::is_ok));
}

fn by(name: &str, role: Role, command: Command) -> Op {
    Op::Client {
        principal: Principal {
            name: name.into(),
            role,
            fingerprint: [0; 32],
        },
        command,
        placement: None,
        held: None,
    }
}

fn agent(number: u32) -> Op {
    let id = format!("agent-{number}");
    let profile = AgentProfile {
        id: AgentId::new(&id).expect("it is a name"),
        incarnation: Incarnation([1; 16]),
        slots: SLOTS,
        labels: BTreeMap::from([("zone".to_owned(), format!("z{}", number % 50))]),
        version: "bench".into(),
        limits: "rlimit".into(),
        backends: Vec::new(),
        protocol: AgentProtocol::NEWEST,
        supply: Some(Supply {
            cpu_milli: 64_000,
            memory_mib: 64 * 1_024,
            gpus: Vec::new(),
        }),
    };
    by(&id, Role::Agent, Command::RegisterAgent(profile))
}

fn task(number: usize, shape: &Shape) -> Op {
    let namespace = format!("ns-{}", number % shape.namespaces);
    let namespace = Namespace::new(&namespace).expect("it is a name");
    let user = format!("user-{}", number / shape.namespaces % shape.users);
    let mut spec = TaskSpec::process(namespace, vec!["true".into()]);
    if shape.zones > 0 {
        let zone = format!("zone=z{}", number / 7 % shape.zones);
        spec.require = vec![zone.parse().expect("it is an expression")];
    }
    if shape.demands > 0 {
        spec.memory_mib = Some(1 + (number / 7 % shape.demands) as u64);
    }
    let submit = Submit {
        spec,
        request_id: None,
    };
    by(&user, Role::Client, Command::SubmitTask(submit))
}

fn queued(shape: &Shape) -> State {
    queue_up(agents(), shape)
}

fn agents() -> State {
    let mut state = State::default();
    let found = SystemCommand::Found {
        cluster_id: "bench".into(),
        generation: Generation(1),
    };
    let to = StateVersion::NEWEST;
    let raise = SystemCommand::RaiseVersion { to };
    apply(&mut state, vec![Op::System(found), Op::System(raise)]);
    apply(&mut state, (0..AGENTS).map(agent).collect());
    state
}

fn queue_up(mut state: State, shape: &Shape) -> State {
    let tasks: Vec<usize> = (0..QUEUED).collect();
    for some in tasks.chunks(1_000) {
        let ops = some.iter().map(|number| task(*number, shape));
        apply(&mut state, ops.collect());
    }
    state
}

/// Machines that are busy to several degrees, and of several speeds.
fn fleet(state: &State) -> Fleet {
    let agents = (0..).zip(state.agents()).map(|(number, agent)| {
        let load = Load {
            cpu: Twentieths(number % 15),
            others: Twentieths(number % 5),
            memory: Twentieths(number % 11),
            latency: Magnitude::of(300 + 100 * u64::from(number % 13)),
        };
        let takes = Magnitude::of(1_000 + 300 * u64::from(number % 7));
        let view = AgentView {
            sample: Sample {
                presence: Presence::Open,
                prefetch: 1,
                load,
            },
            service: Arc::new([(Work::Kind(Kind::Process), takes)].into()),
            ..AgentView::default()
        };
        (agent.profile.id.clone(), view)
    });
    Fleet {
        agents: agents.collect(),
        ..Fleet::default()
    }
}

/// All slots are taken by what yields to what waits.
fn full_of_what_yields(shape: &Shape) -> State {
    let mut state = agents();
    let yields = |number| {
        let mut op = task(number, &self::shape(5, 4, 0));
        if let Op::Client {
            command: Command::SubmitTask(submit),
            ..
        } = &mut op
        {
            (submit.spec.class, submit.spec.preemptible) = (Some(Class::Batch), true);
        }
        op
    };
    let slots = (AGENTS * SLOTS) as usize;
    for first in (0..slots).step_by(DECISIONS) {
        apply(
            &mut state,
            (first..slots.min(first + DECISIONS)).map(yields).collect(),
        );
        let assignments = planned(&state, &fleet(&state), NOW).assignments.into_iter();
        let ops = assignments.map(|it| Op::System(SystemCommand::Assign(it)));
        apply(&mut state, ops.collect());
    }
    queue_up(state, shape)
}

fn round(state: &State, fleet: &Fleet) -> Plan {
    let plan = planned(state, fleet, NOW);
    assert_eq!(plan.assignments.len(), DECISIONS);
    plan
}

fn planned(state: &State, fleet: &Fleet, now: Timestamp) -> Plan {
    let taken = BTreeSet::new();
    let round = Round {
        now,
        taken: &taken,
        max: DECISIONS,
        after: None,
    };
    plan(black_box(state), fleet, round)
}

/// Of each namespace some agents are preferred, one is excluded, and one takes one task at a time: a hundred rules and some.
fn ruled(state: &mut State) {
    let rule = |space: u32, action: RuleAction| {
        let first = space * 7;
        let names = match action {
            RuleAction::Prefer => first..first + 4,
            RuleAction::Cap(_) => first + 4..first + 5,
            RuleAction::Exclude | RuleAction::Pin => first + 5..first + 6,
        };
        let names = names.map(|number| AgentId::new(&format!("agent-{number}")));
        let namespace = Namespace::new(&format!("ns-{space}")).expect("it is a name");
        Command::AddRule(AddRule {
            action,
            scope: Scope {
                namespace: Some(namespace),
                kind: None,
            },
            agents: Agents {
                names: names.collect::<Result<_, _>>().expect("they are names"),
                require: Vec::new(),
            },
            reason: "a bench".into(),
            ttl: None,
        })
    };
    let actions = [RuleAction::Prefer, RuleAction::Exclude, RuleAction::Cap(1)];
    let rules = (0..40).flat_map(|space| actions.map(|action| rule(space, action)));
    let ops = rules.map(|command| by("ann", Role::Client, command));
    apply(state, ops.collect());
}

/// Half of all slots are taken.
fn half_fill(state: &mut State) {
    for _ in 0..(AGENTS * SLOTS / 2).div_ceil(256) {
        let assignments = round(state, &fleet(state)).assignments.into_iter();
        let ops = assignments.map(|it| Op::System(SystemCommand::Assign(it)));
        apply(state, ops.collect());
    }
}

fn rounds(criterion: &mut Criterion) {
    let shapes = [
        ("one tenant", shape(1, 1, 0)),
        ("20 tenants", shape(5, 4, 0)),
        ("20 tenants, 50 requirements", shape(5, 4, 50)),
        ("1000 tenants, 50 requirements", shape(50, 20, 50)),
    ];
    let mut group = criterion.benchmark_group("plan of 256");
    for (name, shape) in &shapes {
        let state = queued(shape);
        let fleet = fleet(&state);
        group.bench_function(*name, |bencher| {
            bencher.iter(|| round(&state, &fleet));
        });
    }
    let demands = Shape {
        demands: 256,
        ..shape(5, 4, 0)
    };
    let state = queued(&demands);
    let agents = fleet(&state);
    group.bench_function("20 tenants, 256 amounts of memory", |bencher| {
        bencher.iter(|| round(&state, &agents));
    });
    let mut state = queued(&shape(50, 20, 0));
    group.bench_function("1000 tenants", |bencher| {
        bencher.iter(|| round(&state, &agents));
    });
    ruled(&mut state);
    group.bench_function("1000 tenants, 120 rules", |bencher| {
        bencher.iter(|| round(&state, &agents));
    });
    let state = queued(&shape(50, 20, 50));
    let mut hot = fleet(&state);
    for (_, view) in hot.agents.iter_mut().step_by(50) {
        view.sample.load.others = Twentieths(20);
    }
    group.bench_function("1000 tenants, 50 requirements, 20 hot agents", |bencher| {
        bencher.iter(|| round(&state, &hot));
    });
    group.bench_function("when the first 1,000 of 1000 tenants start", |bencher| {
        bencher.iter(|| waits(black_box(&state), &hot, NOW, FIRST).0.len());
    });
    for strategy in Strategy::ALL {
        let mut state = queued(&shape(50, 20, 0));
        half_fill(&mut state);
        let scope = Scope::default();
        let strategy = Some(strategy);
        let policy = Command::SetPolicy(SetPolicy { scope, strategy });
        apply(&mut state, vec![by("ann", Role::Client, policy)]);
        let fleet = fleet(&state);
        let name = strategy.map_or("", Strategy::as_str);
        group.bench_function(format!("{name}, 1000 tenants, half full"), |bencher| {
            bencher.iter(|| round(&state, &fleet));
        });
    }
    preemptions(&mut group);
    let state = queued(&shapes[0].1);
    group.bench_function("floor: a look at each agent for each", |bencher| {
        bencher.iter(|| {
            let looks = (0..DECISIONS).flat_map(|_| black_box(&state).agents());
            looks
                .map(|agent| agent.profile.slots)
                .fold(0, u32::wrapping_add)
        });
    });
    group.finish();
}

fn preemptions(group: &mut BenchmarkGroup<'_, WallTime>) {
    let shapes = [
        ("64 preemptions for 1000 tenants", shape(50, 20, 0)),
        (
            "64 preemptions for 1000 tenants, 50 requirements",
            shape(50, 20, 50),
        ),
    ];
    let now = NOW.plus(PATIENCE);
    for (name, shape) in &shapes {
        let state = full_of_what_yields(shape);
        let mut fleet = fleet(&state);
        // Nothing is sent ahead behind what has run for a second.
        for view in fleet.agents.values_mut() {
            view.sample.prefetch = 0;
        }
        group.bench_function(*name, |bencher| {
            bencher.iter(|| assert!(planned(&state, &fleet, now).preemptions.len() >= 32));
        });
    }
}

criterion_group!(benches, rounds);
criterion_main!(benches);
