//! What is written down of each round: that its decisions can be made again from the log.

use model::{Observed, Stamped, State};
use scheduler::{Remade, Remaking};

use super::*;

impl Leader {
    fn says(&mut self, session: SessionId, cpu: u32) {
        let load = Load {
            cpu,
            others: cpu,
            ..Load::default()
        };
        self.input(Input::Status {
            session,
            load,
            intake: Intake::Open,
        });
    }

    /// What comes of deciding all of the log again.
    fn remade(&self) -> Vec<Remade> {
        let mut remaking = Remaking::from(State::default());
        let remade = (1..).zip(&self.log).map(|(index, (term, entry))| {
            let (remade, _) = remaking.apply(Stamped {
                index,
                term: *term,
                membership: 0,
                entry: entry.clone(),
            });
            remade
        });
        let remade = remade.filter(|it| *it != Remade::Nothing).collect();
        assert_eq!(remaking.state().hash(), self.state.hash());
        remade
    }

    pub(super) fn observed(&self) -> Vec<Observed> {
        let ops = self.log.iter().flat_map(|(_, entry)| &entry.ops);
        let observed = ops.filter_map(|op| match op {
            Op::System(SystemCommand::Observe(observed)) => Some(observed.clone()),
            _ => None,
        });
        observed.collect()
    }
}

fn told(observed: &Observed) -> Vec<&str> {
    observed.samples.iter().map(|(id, _)| id.as_str()).collect()
}

#[test]
fn each_decision_can_be_made_again_also_on_what_is_on_its_way() {
    let mut leader = Leader::new();
    let first = leader.agent("a1", 1, 2);
    let second = leader.agent("a2", 2, 2);
    leader.submit("true");
    leader.says(first, 700);
    leader.hold = true;
    leader.submit("true");
    leader.says(second, 300);
    leader.submit("true");
    leader.submit("true");
    assert_eq!(leader.held.len(), 3, "all on their way at once");
    leader.release();
    leader.submit("true");
    for (session, fence) in leader.assigned() {
        leader.finish(session, fence);
    }
    let remade = leader.remade();
    assert!(remade.len() >= 4, "{remade:?}");
    assert!(
        remade.iter().all(|it| matches!(it, Remade::Same(_))),
        "{remade:?}"
    );
    let observed = leader.observed();
    assert_eq!(told(&observed[0]), ["a1", "a2"]);
    assert_eq!(told(&observed[1]), ["a1"]);
    assert_eq!(
        (told(&observed[2]), &observed[2].under_way[..]),
        (vec!["a2"], &[2][..])
    );
    // It was told by one that is on its way.
    assert_eq!(
        (told(&observed[3]), &observed[3].under_way[..]),
        (vec![], &[2, 3][..])
    );
}

#[test]
fn a_decision_that_goes_by_something_else_is_seen() {
    let mut leader = Leader::new();
    leader.agent("a1", 1, 2);
    leader.agent("a2", 2, 2);
    leader.submit("true");
    let is_different = |leader: &Leader| matches!(leader.remade()[..], [Remade::Different(_)]);
    assert_eq!(leader.remade(), [Remade::Same(1)]);
    let honest = leader.log.clone();
    let change = |leader: &mut Leader, what: &dyn Fn(&mut Observed)| {
        let (_, entry) = leader.log.last_mut().unwrap();
        let [.., Op::System(SystemCommand::Observe(observed))] = &mut entry.ops[..] else {
            panic!("{entry:?}");
        };
        what(observed);
        // It has to be the state of this log, too.
        leader.state = State::default();
        for (index, (term, entry)) in (1..).zip(leader.log.clone()) {
            leader.state.apply(Stamped {
                index,
                term,
                membership: 0,
                entry,
            });
        }
    };
    let busy = |observed: &mut Observed| {
        observed
            .samples
            .iter_mut()
            .for_each(|(_, it)| it.load.memory = model::Twentieths(9));
    };
    change(&mut leader, &busy);
    assert!(is_different(&leader));
    leader.log.clone_from(&honest);
    change(&mut leader, &|observed| observed.samples.truncate(1));
    assert!(is_different(&leader));
    leader.log.clone_from(&honest);
    change(&mut leader, &|observed| observed.applied -= 2);
    assert!(is_different(&leader));
    // What says of itself that it is not all is not held to it.
    leader.log.clone_from(&honest);
    change(&mut leader, &|observed| observed.is_whole = false);
    assert!(matches!(leader.remade()[..], [Remade::Unknown(_)]));
}

#[test]
fn after_a_proposal_that_failed_turns_begin_anew_and_all_can_be_made_again() {
    let mut leader = Leader::new();
    let robin = model::SetPolicy {
        scope: model::Scope::default(),
        strategy: Some(model::Strategy::RoundRobin),
    };
    leader.request(Command::SetPolicy(robin));
    let session = leader.agent("a1", 1, 8);
    leader.agent("a2", 2, 8);
    leader.agent("a3", 3, 8);
    leader.submit("true");
    leader.submit("true");
    leader.says(session, 700);
    leader.hold = true;
    leader.submit("true");
    // It took the turn of the third, told of a load, and never came to the log.
    leader.fail_oldest();
    leader.hold = false;
    leader.submit("true");
    leader.submit("true");
    leader.submit("true");
    let remade = leader.remade();
    assert_eq!(remade, vec![Remade::Same(1); 5]);
    let since: Vec<u64> = leader.observed().iter().map(|it| it.since).collect();
    assert_eq!(since, [1, 1, 4, 4, 4]);
    assert_eq!(told(&leader.observed()[2]), ["a1"]);
}

#[test]
fn what_comes_to_the_log_though_its_leader_was_told_that_it_did_not_is_no_matter() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 8);
    leader.agent("a2", 2, 8);
    leader.submit("true");
    leader.says(session, 700);
    leader.hold = true;
    leader.submit("true");
    let late = leader.fail_oldest();
    leader.says(session, 0);
    leader.submit("true");
    let (proposal, ops) = leader.held.remove(0);
    // First the one that had failed, then the one that was decided without it.
    leader.hold = false;
    leader.commit(late);
    leader.land(proposal, ops);
    let remade = leader.remade();
    assert!(
        remade.iter().all(|it| matches!(it, Remade::Same(_))),
        "{remade:?}"
    );
}

#[test]
fn nothing_is_written_down_before_the_state_admits_it() {
    let mut leader = Leader::at_version_1();
    leader.agent("a1", 1, 8);
    leader.submit("true");
    assert_eq!(leader.observed(), []);
    leader.raise();
    // It registers as more than it could say before.
    leader.pass(1);
    leader.submit("true");
    assert_eq!(leader.observed().len(), 1);
    assert!(matches!(
        leader.remade()[..],
        [Remade::Unknown(_), Remade::Same(1)]
    ));
}

#[test]
fn a_leader_that_knows_no_agent_yet_forgets_nothing_of_what_was_learned() {
    let mut leader = Leader::new();
    let session = leader.agent("a1", 1, 1);
    leader.agent("a2", 2, 1);
    leader.submit("true");
    let (of, fence) = leader.assigned()[0];
    let mut outcome = Outcome::bare(End::Exited { code: 0 });
    (outcome.started_at, outcome.finished_at) = (Timestamp(1_000), Timestamp(9_192));
    leader.input(Input::Verdict {
        session: of,
        verdict: Verdict { fence, outcome },
        held: None,
    });
    leader.submit("true");
    let agent = AgentId::new(if of == session { "a1" } else { "a2" }).unwrap();
    let learned = leader.state.service(&agent);
    assert_eq!(
        learned.values().map(|it| it.value()).collect::<Vec<_>>(),
        [8_192]
    );
    // Another controller leads, which only one of them has come to.
    leader.dispatcher = Dispatcher::new();
    leader.term = 2;
    leader.index += 1;
    leader.state.note_index(leader.index, 2);
    leader.input(Input::Lead { term: 2 });
    let other = if of == session { "a2" } else { "a1" };
    leader.agent(other, 3, 1);
    leader.submit("true");
    leader.pass(1);
    assert_eq!(leader.state.service(&agent), learned);
    let gone = leader.state.sample(&agent).map(|it| it.presence);
    assert_eq!(gone, Some(model::Presence::NotConnected));
}

#[test]
fn who_waits_beside_a_hot_agent_gets_it_after_ten_minutes_though_nothing_else_is_decided() {
    let mut leader = Leader::new();
    let idle = leader.agent("a1", 1, 1);
    leader.submit("true");
    let hot = leader.agent("a2", 2, 4);
    // It becomes hot after the last decision.
    leader.says(hot, 990);
    leader.submit("true");
    leader.submit("true");
    let mut nonce = 0;
    let mut pass = |leader: &mut Leader| {
        for (session, cpu) in [(idle, 0), (hot, 990)] {
            leader.says(session, cpu);
            nonce += 1;
            let received = Millis(leader.millis);
            leader.input(Input::LeaseConfirmed {
                session,
                nonce,
                received,
            });
        }
        leader.pass(10_000);
    };
    (0..59).for_each(|_| pass(&mut leader));
    assert_eq!(
        (leader.task(1), leader.task(2)),
        (StateName::Assigned, StateName::Queued)
    );
    pass(&mut leader);
    assert_eq!(
        (leader.task(2), leader.task(3)),
        (StateName::Assigned, StateName::Queued)
    );
    (0..59).for_each(|_| pass(&mut leader));
    assert_eq!(leader.task(3), StateName::Queued);
    pass(&mut leader);
    assert_eq!(leader.task(3), StateName::Assigned);
    let remade = leader.remade();
    assert!(
        remade.iter().all(|it| matches!(it, Remade::Same(_))),
        "{remade:?}"
    );
}
