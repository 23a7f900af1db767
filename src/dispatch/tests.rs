//! The dispatcher against a real state: proposals are applied by the test, in order, and agents
//! are played by it.

mod backends;
mod drains;
mod estimates;
mod learning;
mod leases;
mod limits;
mod minutes;
mod pending;
mod preemption;
mod releases;
mod resources;
mod shortage;

use std::collections::BTreeMap;

use model::{
    AgentId, AgentProfile, Command, Disposition, End, Entry, Fence, Generation, Incarnation,
    Millis, Namespace, Op, Outcome, Principal, Reply, Role, Stamped, State, StateName, Submit,
    SystemCommand, TaskId, TaskSpec, Timestamp, Verdict,
};
use scheduler::{Clock, LEASE};

use crate::{
    Cause, Dispatcher, Failure, Hindrance, Input, Intake, Load, Message, Output, ProposalId,
    Refusal, SessionId, Ticket,
};

/// A leader with its log; time stands still unless the test moves it.
struct Leader {
    state: State,
    dispatcher: Dispatcher,
    index: u64,
    term: u64,
    millis: u64,
    /// What came out and was not a proposal.
    seen: Vec<Output>,
    /// Proposals held back, while `hold` is set.
    held: Vec<(ProposalId, Vec<Op>)>,
    hold: bool,
    tickets: u64,
    /// All that was committed.
    log: Vec<(u64, Entry)>,
}

impl Leader {
    fn new() -> Leader {
        let mut leader = Leader::at_version_1();
        leader.raise();
        leader
    }

    /// With `a1`, which has done one task, in no time.
    fn with_a_quick_agent(slots: u32) -> Leader {
        let mut leader = Leader::new();
        let session = leader.agent("a1", 1, slots);
        leader.submit("first");
        let (_, fence) = leader.assigned()[0];
        leader.pass(10);
        leader.finish(session, fence);
        leader
    }

    fn raise(&mut self) {
        let to = model::StateVersion::NEWEST;
        let raise = SystemCommand::RaiseVersion { to };
        self.commit(vec![Op::System(raise)]);
        let index = self.index;
        let events = vec![];
        self.input(Input::Applied { index, events });
    }

    fn at_version_1() -> Leader {
        let mut leader = Leader {
            state: State::default(),
            dispatcher: Dispatcher::new(),
            index: 0,
            term: 1,
            millis: 0,
            seen: vec![],
            held: vec![],
            hold: false,
            tickets: 0,
            log: vec![],
        };
        let found = SystemCommand::Found {
            cluster_id: "test".into(),
            generation: Generation(1),
        };
        leader.commit(vec![Op::System(found)]);
        leader.input(Input::Lead { term: 1 });
        leader
    }

    fn clock(&self) -> Clock {
        Clock {
            state: Timestamp(1_000_000 + self.millis),
            monotonic: Millis(self.millis),
        }
    }

    fn commit(&mut self, ops: Vec<Op>) -> model::Applied {
        self.index += 1;
        let stamp = Timestamp(1_000_000 + self.millis);
        let entry = Entry {
            stamp,
            wall: stamp,
            ops,
        };
        self.log.push((self.term, entry.clone()));
        self.state.apply(Stamped {
            index: self.index,
            term: self.term,
            membership: 0,
            entry,
        })
    }

    fn input(&mut self, input: Input) {
        let clock = self.clock();
        let mut out = vec![];
        self.dispatcher.handle(&self.state, clock, input, &mut out);
        self.dispatcher.flush(&self.state, clock, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Propose { proposal, ops } if self.hold => self.held.push((proposal, ops)),
                Output::Propose { proposal, ops } => self.land(proposal, ops),
                other => self.seen.push(other),
            }
        }
    }

    /// Commits a proposal: events first, then its replies, as a controller sees them.
    fn land(&mut self, proposal: ProposalId, ops: Vec<Op>) {
        let applied = self.commit(ops);
        assert_eq!(model::invariant::check(&self.state), Vec::<String>::new());
        self.input(Input::Applied {
            index: self.index,
            events: applied.events,
        });
        self.input(Input::Proposed {
            proposal,
            result: Ok(applied.replies),
        });
    }

    fn release(&mut self) {
        self.hold = false;
        for (proposal, ops) in std::mem::take(&mut self.held) {
            self.land(proposal, ops);
        }
    }

    fn pass(&mut self, millis: u64) {
        self.millis += millis;
        self.input(Input::Tick);
    }

    fn submit(&mut self, command: &str) -> Ticket {
        let namespace = Namespace::new("default").expect("it is a name");
        self.submit_spec(TaskSpec::process(namespace, vec![command.into()]))
    }

    fn submit_spec(&mut self, spec: TaskSpec) -> Ticket {
        self.request(Command::SubmitTask(Submit {
            spec,
            request_id: None,
        }))
    }

    /// Somebody asks for it.
    fn request(&mut self, command: Command) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.input(Input::Request {
            ticket,
            principal: principal("ann", Role::Client),
            command,
            held: None,
        });
        ticket
    }

    /// An agent connects, registers and says that it knows nothing.
    fn agent(&mut self, name: &str, session: u64, slots: u32) -> SessionId {
        let session = SessionId(session);
        self.open(name, session, slots);
        self.input(Input::Known {
            session,
            attempts: vec![],
        });
        session
    }

    fn open(&mut self, name: &str, session: SessionId, slots: u32) {
        self.open_as(profile(name, slots), session);
    }

    fn open_as(&mut self, profile: AgentProfile, session: SessionId) {
        let principal = principal(profile.id.as_str(), Role::Agent);
        self.input(Input::SessionOpened {
            session,
            profile,
            principal,
        });
    }

    fn finish(&mut self, session: SessionId, fence: Fence) {
        let outcome = Outcome::bare(End::Exited { code: 0 });
        self.input(Input::Verdict {
            session,
            verdict: Verdict { fence, outcome },
            held: None,
        });
    }

    fn assigned(&mut self) -> Vec<(SessionId, Fence)> {
        let mut found = vec![];
        self.seen.retain(|output| match output {
            Output::Send {
                session,
                message: Message::Assign { fence, .. },
            } => {
                found.push((*session, *fence));
                false
            }
            _ => true,
        });
        found
    }

    fn answer(&self, ticket: Ticket) -> Option<&Result<Reply, Refusal>> {
        self.seen.iter().find_map(|output| match output {
            Output::Answer {
                ticket: found,
                result,
            } if *found == ticket => Some(result),
            _ => None,
        })
    }

    fn task(&self, id: u64) -> StateName {
        self.state
            .task(TaskId(id))
            .expect("it was submitted")
            .state()
    }
}

fn profile(name: &str, slots: u32) -> AgentProfile {
    AgentProfile {
        id: AgentId::new(name).expect("it is a name"),
        incarnation: Incarnation([1; 16]),
        slots,
        labels: BTreeMap::new(),
        version: "test".into(),
        limits: "rlimit".into(),
        backends: Vec::new(),
        protocol: model::AgentProtocol::NEWEST,
        supply: None,
    }
}

fn principal(name: &str, role: Role) -> Principal {
    Principal {
        name: name.into(),
        role,
        fingerprint: [0; 32],
    }
}

#[test]
fn a_submit_with_a_free_agent_is_assigned_in_the_same_entry() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 2);
    let before = leader.index;
    let ticket = leader.submit("true");
    assert_eq!(leader.index, before + 1, "one commit");
    let submitted = Reply::Submitted {
        task: TaskId(1),
        duplicate: false,
    };
    assert_eq!(leader.answer(ticket), Some(&Ok(submitted)));
    let fence = leader.state.live_fence(TaskId(1)).expect("it is assigned");
    assert_eq!(leader.assigned(), [(SessionId(1), fence)]);
}

#[test]
fn a_verdict_is_acknowledged_only_after_it_was_applied() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 1);
    leader.submit("true");
    let (_, fence) = leader.assigned()[0];
    leader.hold = true;
    leader.finish(session, fence);
    let acked = |leader: &Leader| {
        leader.seen.iter().any(|output| {
            matches!(
                output,
                Output::Send {
                    message: Message::VerdictAck { .. },
                    ..
                }
            )
        })
    };
    assert!(!acked(&leader), "it is not committed yet");
    leader.release();
    assert!(acked(&leader));
    assert_eq!(leader.task(1), StateName::Succeeded);
}

#[test]
fn waiting_tasks_go_before_new_ones_when_a_slot_gets_free() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 1);
    leader.submit("first");
    leader.submit("second");
    let (_, fence) = leader.assigned()[0];
    assert_eq!(leader.task(2), StateName::Queued);
    // Long enough that nothing is sent ahead to this agent.
    leader.pass(2_000);
    leader.hold = true;
    leader.submit("third");
    leader.finish(session, fence);
    leader.release();
    assert_eq!(leader.task(2), StateName::Assigned);
    assert_eq!(leader.task(3), StateName::Queued);
}

#[test]
fn one_task_is_sent_ahead_to_an_agent_whose_attempts_are_short() {
    let mut leader = Leader::with_a_quick_agent(1);
    for _ in 0..4 {
        leader.submit("more");
    }
    assert_eq!(leader.assigned().len(), 2, "one that runs and one ahead");
}

#[test]
fn what_is_under_way_is_neither_planned_twice_nor_beyond_the_slots() {
    let mut leader = Leader::new();
    leader.hold = true;
    leader.agent("a1", 1, 2);
    leader.release();
    leader.input(Input::Known {
        session: SessionId(1),
        attempts: vec![],
    });
    leader.hold = true;
    for _ in 0..5 {
        leader.submit("true");
        leader.pass(100);
    }
    leader.release();
    leader.pass(100);
    assert_eq!(leader.state.count(StateName::Assigned), 2);
    assert_eq!(leader.assigned().len(), 2);
    assert_eq!(leader.state.task_count(), 5);
}

#[test]
fn a_new_session_is_told_what_it_missed_and_what_is_stale() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 2);
    leader.submit("true");
    let (_, fence) = leader.assigned()[0];
    let stale = Fence {
        task: TaskId(99),
        ..fence
    };
    leader.open("a1", SessionId(2), 2);
    assert!(leader.seen.iter().any(|output| matches!(
        output,
        Output::Close {
            session: SessionId(1),
            ..
        }
    )));
    assert_eq!(leader.assigned(), [], "not before it said what it knows");
    leader.input(Input::Known {
        session: SessionId(2),
        attempts: vec![stale],
    });
    assert_eq!(leader.assigned(), [(SessionId(2), fence)]);
    assert!(leader.seen.iter().any(|output| matches!(
        output,
        Output::Send { message: Message::Cancel { fence, cause: Cause::Stale, .. }, .. }
            if *fence == stale
    )));
}

#[test]
fn an_attempt_that_the_agent_knows_is_not_sent_again() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 2);
    leader.submit("true");
    let (_, fence) = leader.assigned()[0];
    leader.open("a1", SessionId(2), 2);
    leader.input(Input::Known {
        session: SessionId(2),
        attempts: vec![fence],
    });
    assert_eq!(leader.assigned(), []);
}

#[test]
fn a_deposed_leader_answers_honestly() {
    let mut leader = Leader::new();
    leader.hold = true;
    let mut tickets = vec![];
    for _ in 0..6 {
        tickets.push(leader.submit("true"));
    }
    assert_eq!(leader.held.len(), 3, "the pipeline is full, the rest waits");
    leader.input(Input::Follow);
    let under_way: Vec<ProposalId> = leader.held.drain(..).map(|(id, _)| id).collect();
    for (proposal, failure) in under_way.into_iter().zip([
        Failure::Unknown,
        Failure::NotLeader,
        Failure::Unavailable {
            hindrance: Hindrance::NoQuorum,
            why: "no quorum".into(),
        },
    ]) {
        leader.input(Input::Proposed {
            proposal,
            result: Err(failure),
        });
    }
    let answers: Vec<_> = tickets
        .iter()
        .map(|t| leader.answer(*t).cloned().unwrap())
        .collect();
    assert_eq!(answers[0], Err(Refusal::Unknown), "it may be in the log");
    assert_eq!(answers[1], Err(Refusal::NotLeader));
    let no_quorum = Refusal::Unavailable {
        hindrance: Hindrance::NoQuorum,
        why: "no quorum".into(),
    };
    assert_eq!(answers[2], Err(no_quorum));
    assert!(
        answers[3..]
            .iter()
            .all(|answer| *answer == Err(Refusal::NotLeader))
    );
    let late = leader.submit("true");
    assert_eq!(leader.answer(late), Some(&Err(Refusal::NotLeader)));
}

#[test]
fn a_report_of_a_dead_epoch_is_acknowledged_as_stale() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 1);
    leader.submit("true");
    let (_, fence) = leader.assigned()[0];
    let stale = Fence {
        epoch: model::Epoch(fence.epoch.0 - 1),
        ..fence
    };
    leader.finish(session, stale);
    let ack = Message::VerdictAck {
        fence: stale,
        disposition: Disposition::Stale,
    };
    assert!(leader.seen.contains(&Output::Send {
        session,
        message: ack
    }));
    assert_eq!(leader.task(1), StateName::Assigned);
}

#[test]
fn an_agent_that_takes_nothing_is_sent_nothing_and_its_next_session_is_open_again() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 2);
    leader.submit("first");
    let (_, given) = leader.assigned()[0];
    leader.input(Input::Status {
        session,
        load: Load::default(),
        intake: Intake::Closed,
    });
    leader.submit("second");
    let outcome = Outcome::bare(End::Declined {
        reason: "the agent is stopping".into(),
    });
    leader.input(Input::Verdict {
        session,
        verdict: Verdict {
            fence: given,
            outcome,
        },
        held: None,
    });
    leader.pass(1_000);
    assert_eq!(leader.assigned(), [], "it would only be given back again");
    leader.agent("a1", 2, 2);
    let sent = leader.assigned();
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(sent.iter().all(|(to, _)| *to == SessionId(2)));
}
