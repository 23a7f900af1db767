//! Verdicts: written down, then said, and said again until the cluster took note.

use std::sync::Arc;

use model::{Disposition, End, TaskSpec};
use wire::v1::agent_frame::Body;

use super::{Bench, C1, C2, ended, fence, known, records, said, verdicts};
use crate::executor::Exit;
use crate::output::Fate;
use crate::worker::{Effect, Input, Load, RESEND, Said};

#[test]
fn a_verdict_is_said_only_after_it_is_on_disk() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    let effects = bench.ends(1, Exit::Exited(3));
    assert_eq!(records(&effects), [(fence(1), End::Exited { code: 3 })]);
    assert_eq!(verdicts(&effects), []);
    assert_eq!(verdicts(&bench.tick_after(RESEND.0)), []);
    bench.term = 2;
    assert_eq!(verdicts(&bench.lead(C2)), [], "not to a new leader either");
    let effects = bench.tell(Input::Recorded(fence(1)));
    assert_eq!(
        verdicts(&effects),
        [(C2, fence(1))],
        "and only to who leads"
    );
}

#[test]
fn a_verdict_is_said_again_after_three_seconds_until_it_is_settled() {
    let mut bench = Bench::leased(1);
    assert_eq!(verdicts(&bench.reported(1)), [(C1, fence(1))]);
    assert_eq!(verdicts(&bench.tick_after(RESEND.0 - 1)), []);
    assert_eq!(verdicts(&bench.tick_after(1)), [(C1, fence(1))]);
    bench.settle(1, Disposition::Accepted);
    assert_eq!(verdicts(&bench.tick_after(RESEND.0)), []);
}

#[test]
fn a_new_leader_hears_at_once_what_the_old_one_did_not_settle() {
    let mut bench = Bench::leased(1);
    bench.reported(1);
    bench.term = 2;
    bench.pass(1);
    assert_eq!(verdicts(&bench.lead(C2)), [(C2, fence(1))]);
    bench.say(C2, Said::Following);
    assert_eq!(verdicts(&bench.tick_after(RESEND.0)), [], "nobody leads");
}

#[test]
fn whatever_the_cluster_thinks_of_a_verdict_settles_it() {
    let fates = [
        (Disposition::Accepted, Fate::Drop),
        (Disposition::Duplicate, Fate::Drop),
        (Disposition::Stale, Fate::Keep),
        (Disposition::UnknownTask, Fate::Keep),
    ];
    for (disposition, fate) in fates {
        let mut bench = Bench::leased(1);
        bench.reported(1);
        let fence = fence(1);
        assert_eq!(
            bench.settle(1, disposition),
            [Effect::Settle { fence, fate }]
        );
        assert_eq!(bench.settle(1, disposition), [], "it is forgotten");
        bench.term = 2;
        assert_eq!(known(&bench.lead(C1)), Some((C1, vec![])));
    }
}

#[test]
fn output_that_the_verdict_does_not_hold_is_kept() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    let mut ended = ended(Exit::Exited(0));
    ended.captured.tails[0] = b"end".to_vec();
    ended.captured.totals[0] = 1_000_000;
    let fence = fence(1);
    bench.tell(Input::Ended { fence, ended });
    bench.tell(Input::Recorded(fence));
    let effects = bench.settle(1, Disposition::Accepted);
    assert_eq!(
        effects,
        [Effect::Settle {
            fence,
            fate: Fate::Keep
        }]
    );
}

#[test]
fn what_was_not_reported_can_not_be_settled() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    assert_eq!(bench.settle(1, Disposition::Accepted), []);
    let effects = bench.ends(1, Exit::Exited(0));
    assert_eq!(
        records(&effects).len(),
        1,
        "it still runs, and its end counts"
    );
}

#[test]
fn an_attempt_that_ends_twice_has_one_verdict() {
    let mut bench = Bench::leased(1);
    bench.running(1);
    bench.ends(1, Exit::Exited(0));
    assert_eq!(bench.ends(1, Exit::Exited(1)), []);
    let effects = bench.tell(Input::Recorded(fence(1)));
    let [(_, Body::Verdict(verdict))] = said(&effects)[..] else {
        panic!("{effects:?}")
    };
    let verdict = model::Verdict::try_from(verdict.clone()).unwrap();
    assert_eq!(verdict.outcome.end, End::Exited { code: 0 });
}

fn question() -> Arc<TaskSpec> {
    let namespace = model::Namespace::new("default").unwrap();
    let inference = model::Inference {
        model: "m".into(),
        endpoint: model::Endpoint::ChatCompletions,
        request: "{}".into(),
    };
    Arc::new(TaskSpec::inference(namespace, inference))
}

/// A back end is no process of the agent's: what it uses while it is asked can't be told from what others use.
#[test]
fn while_a_model_on_this_machine_is_asked_all_load_is_ours() {
    let own = |bench: &mut Bench| {
        let load = Load {
            cpu: 900,
            own: 100,
            ..Load::default()
        };
        let effects = bench.tell(Input::Load(load));
        let status = said(&effects).into_iter().find_map(|(_, body)| match body {
            Body::Status(status) => status.status.clone(),
            _ => None,
        });
        status.unwrap().own_cpu_load
    };
    let mut bench = Bench::leased(2);
    bench.running(1);
    assert_eq!(own(&mut bench), Some(100));
    bench.assign_spec(2, question());
    bench.tell(Input::Begun(fence(2)));
    assert_eq!(own(&mut bench), Some(900));
    assert_eq!(own(&mut bench), Some(900), "as long as it is asked");
    bench.ends(2, Exit::Exited(0));
    assert_eq!(own(&mut bench), Some(100));
    // Also where it came and went between two looks.
    bench.assign_spec(3, question());
    bench.tell(Input::Begun(fence(3)));
    bench.ends(3, Exit::Exited(0));
    assert_eq!((own(&mut bench), own(&mut bench)), (Some(900), Some(100)));
}
