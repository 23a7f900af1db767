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

/// What a status means that ended an attempt at `address`.
pub(super) fn of_status(status: &Status, address: &str) -> Failure {
    if let Some(error) = dial_error(status) {
        let lasting = error.failure.is_lasting();
        let code = if lasting {
            Code::NotTrusted
        } else {
            Code::Unreachable
        };
        return Failure::new(code, error.to_string());
    }
    // A status that was received has no cause on this side.
    match status.source() {
        Some(cause) => {
            let message = format!("the connection to {address} broke ({})", root(cause));
            Failure::new(Code::OutcomeUnknown, message)
        }
        None => Failure::read(status),
    }
}

/// No answer at all within the attempt's time.
pub(super) fn of_silence(limit: Duration, address: &str) -> Failure {
    let seconds = limit.as_secs_f32();
    Failure::new(
        Code::OutcomeUnknown,
        format!("{address} did not answer within {seconds:.1} s"),
    )
}

/// Of two failures of a round, the one to tell: somebody's answer rather than nobody's, and what leaves
/// the outcome open rather than anything else.
pub(super) fn weightier(one: Option<Failure>, other: Failure) -> Failure {
    let weight = |failure: &Failure| match failure.code {
        Code::NotTrusted => 0,
        Code::Unreachable => 1,
        Code::OutcomeUnknown => 3,
        _ => 2,
    };
    match one {
        Some(one) if weight(&one) >= weight(&other) => one,
        Some(_) | None => other,
    }
}

fn root(error: &(dyn StdError + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
