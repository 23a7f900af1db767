//! A farm that is played through in virtual time, on a state made by real entries.

use std::collections::{BTreeMap, BTreeSet};

use model::{
    Command, End, Millis, Namespace, Op, Outcome, SetNamespace, State, SystemCommand, TaskId,
    TaskSpec, Timestamp,
};

use super::{NOW, apply_at, asked, cluster, fleet, report, submission};
use crate::{Round, plan};

pub const SECOND: u64 = 1_000;

/// A cluster at work: what runs, and until when.
pub struct Farm {
    pub state: State,
    pub now: Timestamp,
    pub running: BTreeSet<(Timestamp, TaskId)>,
    /// What tasks that have ended took, by tenant, in milliseconds.
    pub took: BTreeMap<(String, String), u64>,
}

impl Farm {
    pub fn new(slots: u32) -> Farm {
        Farm::of(cluster(&[("a1", slots, "a")], &[]))
    }

    pub fn of(state: State) -> Farm {
        Farm {
            state,
            now: NOW,
            running: BTreeSet::new(),
            took: BTreeMap::new(),
        }
    }

    pub fn apply(&mut self, ops: Vec<Op>) {
        apply_at(&mut self.state, self.now, ops);
    }

    pub fn set(&mut self, name: &str, said: impl FnOnce(&mut SetNamespace)) {
        let mut set = SetNamespace {
            namespace: namespace(name),
            weight: None,
            users: BTreeMap::new(),
            max_running: None,
            max_queued: None,
        };
        said(&mut set);
        self.apply(vec![asked(Command::SetNamespace(set))]);
    }

    pub fn submit(&mut self, (of, user): (&str, &str), spec: &TaskSpec, count: usize) {
        let mut op = submission(&TaskSpec {
            namespace: namespace(of),
            ..spec.clone()
        });
        if let Op::Client { principal, .. } = &mut op {
            principal.name = user.into();
        }
        for some in vec![op; count].chunks(1_000) {
            self.apply(some.to_vec());
        }
    }

    pub fn plan(&self) -> Vec<model::Assignment> {
        self.plan_beside(&BTreeSet::new())
    }

    /// Beside assignments that are under way.
    pub fn plan_beside(&self, taken: &BTreeSet<TaskId>) -> Vec<model::Assignment> {
        let round = Round {
            now: self.now,
            taken,
            max: 256,
            after: None,
        };
        plan(&self.state, &fleet(&self.state), round).assignments
    }

    /// Until `until`; `length` says how long a task of a namespace runs.
    pub fn run(&mut self, until: u64, length: impl Fn(&str, TaskId) -> u64) {
        let until = NOW.plus(Millis(until));
        loop {
            let assignments = self.plan();
            for assigned in &assignments {
                let spec = self.state.spec(assigned.task).expect("it is there");
                let span = Millis(length(spec.namespace.as_str(), assigned.task));
                self.running.insert((self.now.plus(span), assigned.task));
            }
            let assign = |it| Op::System(SystemCommand::Assign(it));
            self.apply(assignments.into_iter().map(assign).collect());
            let Some((at, id)) = self.running.pop_first() else {
                return;
            };
            if at > until {
                self.running.insert((at, id));
                self.now = until;
                return;
            }
            self.now = at;
            self.finish(id, &length);
        }
    }

    pub fn finish(&mut self, id: TaskId, length: impl Fn(&str, TaskId) -> u64) {
        let spec = self.state.spec(id).expect("it is there");
        let user = self.state.task(id).expect("it is there").user.to_string();
        let span = length(spec.namespace.as_str(), id);
        *self
            .took
            .entry((spec.namespace.to_string(), user))
            .or_default() += span;
        let task = self.state.task(id).expect("it is there");
        let agent = task.live().expect("it runs").agent.clone();
        let fence = self.state.live_fence(id).expect("it runs");
        let outcome = Outcome {
            started_at: Timestamp(self.now.0 - span),
            finished_at: self.now,
            ..Outcome::bare(End::Exited { code: 0 })
        };
        self.apply(vec![report(agent.as_str(), fence, outcome)]);
    }

    /// What this part took of all that was used, in thousandths, since it was asked last.
    pub fn part(&mut self, which: impl Fn(&str, &str) -> bool) -> u64 {
        let sum = |took: &BTreeMap<(String, String), u64>, all: bool| {
            let some = took.iter().filter(|((ns, user), _)| all || which(ns, user));
            some.map(|(_, took)| *took).sum::<u64>()
        };
        let part = 1_000 * sum(&self.took, false) / sum(&self.took, true);
        self.took.clear();
        part
    }

    /// Another leader has what the log has, and nothing else.
    pub fn fail_over(&mut self) {
        self.state = State::decode(&self.state.encode()).expect("it is a snapshot");
    }
}

pub fn namespace(name: &str) -> Namespace {
    Namespace::new(name).expect("it is a name")
}
