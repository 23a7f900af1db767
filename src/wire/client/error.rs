//! What a call ends with when it does not end well, and how a single attempt is read.

use std::error::Error as StdError;
use std::time::Duration;

use tonic::Status;

use crate::status::{Code, Failure};
use crate::transport::dial_error;

/// Whether it is known what became of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was changed.
    Known,
    /// It may have been done, or may still be.
    Unknown,
}

/// The end of a call. `failure` has code, message, hint and request id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{failure}")]
pub struct Error {
    pub failure: Failure,
    pub outcome: Outcome,
}

impl Error {
    pub(super) fn known(failure: Failure) -> Self {
        Self {
            failure,
            outcome: Outcome::Known,
        }
    }

    pub fn code(&self) -> Code {
        self.failure.code
    }
}

/// How one attempt ended that did not end well.
#[derive(Clone, Debug)]
pub(super) enum Ended {
    /// In a controller's own words.
    Answered(Failure),
    /// No controller said anything: it is made of what became of the connection.
    Unanswered(Failure),
}

impl Ended {
    pub(super) fn failure(&self) -> &Failure {
        match self {
            Ended::Answered(failure) | Ended::Unanswered(failure) => failure,
        }
    }

    pub(super) fn is_answer(&self) -> bool {
        match self {
            Ended::Answered(_) => true,
            Ended::Unanswered(_) => false,
        }
    }
}

/// What a status means that ended an attempt at `address`.
pub(super) fn of_status(status: &Status, address: &str) -> Ended {
    if let Some(error) = dial_error(status) {
        let lasting = error.failure.is_lasting();
        let code = if lasting {
            Code::NotTrusted
        } else {
            Code::Unreachable
        };
        return Ended::Unanswered(Failure::new(code, error.to_string()));
    }
    // A status that was received has no cause on this side.
    match status.source() {
        Some(cause) => {
            let message = format!("the connection to {address} broke ({})", root(cause));
            Ended::Unanswered(Failure::new(Code::OutcomeUnknown, message))
        }
        None => Ended::Answered(Failure::read(status)),
    }
}

/// No answer at all within the attempt's time.
pub(super) fn of_silence(limit: Duration, address: &str) -> Ended {
    let seconds = limit.as_secs_f32();
    Ended::Unanswered(Failure::new(
        Code::OutcomeUnknown,
        format!("{address} did not answer within {seconds:.1} s"),
    ))
}

fn root(error: &(dyn StdError + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
