//! What ended badly, in the words of the one table (`wire::status`) that all gateways share.

use dispatch::{Hindrance, Refusal};
use model::{AgentId, TaskId};
use wire::status::{Code, Failure};

use crate::dispatcher::hindrance_of;

/// This controller is on its way out; another one is not.
pub fn stopping() -> Failure {
    Failure::new(Code::ShuttingDown, "this controller is shutting down")
}

pub fn no_leader() -> Failure {
    Failure::new(
        Code::NoLeader,
        "no controller leads, so nothing can be decided now",
    )
}

pub fn not_leader(leader: Option<String>) -> Failure {
    Failure::new(Code::NotLeader, "this controller does not lead").with_leader(leader)
}

/// Somebody leads, but nobody confirmed in time that it still does.
pub fn no_quorum() -> Failure {
    Failure::new(
        Code::NoQuorum,
        "no majority of controllers answered in time",
    )
}

/// Perhaps it was committed, perhaps not.
pub fn unknown() -> Failure {
    Failure::new(
        Code::OutcomeUnknown,
        "no answer came in time, so the outcome is unknown",
    )
}

pub fn no_task(id: TaskId) -> Failure {
    model::Rejected::NoSuchTask(id).into()
}

/// It was accepted under this request id before, and what became of it is not kept any more.
pub fn no_record(id: TaskId) -> Failure {
    let text = format!("it was accepted before, as {id}, and its record is not kept any more");
    Failure::new(Code::Compacted, text)
}

pub fn no_agent(id: &AgentId) -> Failure {
    model::Rejected::NoSuchAgent(id.clone()).into()
}

/// The dispatcher's answer to a request.
pub fn of_refusal(refusal: Refusal) -> Failure {
    match refusal {
        Refusal::Rejected(rejected) => rejected.into(),
        Refusal::NotLeader => not_leader(None),
        Refusal::Unavailable { hindrance, why } => Failure::new(code_of(hindrance), why),
        Refusal::Unknown => unknown(),
    }
}

/// Trying again is right for all of them; the code says what to look at if it does not help.
fn code_of(hindrance: Hindrance) -> Code {
    match hindrance {
        Hindrance::NoLeader => Code::NoLeader,
        Hindrance::NoQuorum => Code::NoQuorum,
        Hindrance::Busy => Code::Busy,
        Hindrance::NoRoom => Code::NoRoom,
        Hindrance::Stopping => Code::ShuttingDown,
    }
}

/// Of a read, or of a change to the membership.
pub fn of_raft(error: &raft::Error) -> Failure {
    let message = error.to_string();
    match error {
        raft::Error::NotLeader { leader } => {
            not_leader(leader.as_ref().map(|leader| leader.addresses.grpc.clone()))
        }
        raft::Error::Unavailable { hindrance, .. } => {
            Failure::new(code_of(hindrance_of(*hindrance)), message)
        }
        raft::Error::Unknown(_) => Failure::new(Code::OutcomeUnknown, message),
        raft::Error::Rejected(_) => Failure::new(Code::Refused, message),
        raft::Error::Fatal(_) => Failure::new(Code::Internal, message),
    }
}

/// Of blobs that a majority should have.
pub fn of_hold(error: raft::HoldError) -> Failure {
    match error {
        raft::HoldError::Nowhere(blob) => {
            let digest = blob.digest;
            let text = format!("no controller has the file or request with digest {digest}");
            Failure::new(Code::NoSuchBlob, text)
        }
        raft::HoldError::NoRoom(why) => Failure::new(Code::NoRoom, why),
        raft::HoldError::Other(error) => of_raft(&error),
    }
}

/// What the leader, or the way to it, answered to a request that was passed on.
pub fn of_leader(status: &tonic::Status) -> Failure {
    match wire::transport::dial_error(status) {
        // Never sent. Who cannot reach the leader can do no better than wait for another.
        Some(error) => {
            let message = format!("the leader that is known here does not answer ({error})");
            Failure::new(Code::NoLeader, message)
        }
        None => Failure::read(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_leader_answered_reaches_the_caller_unchanged() {
        let said = Failure::new(Code::OverLimit, "spec is over its limit of 1 bytes");
        assert_eq!(of_leader(&tonic::Status::from(said.clone())), said);
    }

    #[test]
    fn each_hindrance_has_a_code_of_its_own() {
        let refused = |hindrance| {
            let why = "x".to_owned();
            of_refusal(Refusal::Unavailable { hindrance, why }).code
        };
        assert_eq!(refused(Hindrance::NoLeader), Code::NoLeader);
        assert_eq!(refused(Hindrance::NoQuorum), Code::NoQuorum);
        assert_eq!(refused(Hindrance::Busy), Code::Busy);
        assert_eq!(refused(Hindrance::NoRoom), Code::NoRoom);
        assert_eq!(refused(Hindrance::Stopping), Code::ShuttingDown);
        let handover = raft::Error::no_leader("leadership is being handed over");
        assert_eq!(of_raft(&handover).code, Code::NoLeader);
        assert_eq!(of_raft(&raft::Error::no_quorum("x")).code, Code::NoQuorum);
        assert_eq!(of_raft(&raft::Error::stopping()).code, Code::ShuttingDown);
    }

    #[test]
    fn a_connection_that_broke_leaves_the_outcome_unknown() {
        let broken = tonic::Status::unknown("transport error");
        assert_eq!(of_leader(&broken).code, Code::OutcomeUnknown);
    }
}
