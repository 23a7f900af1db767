//! The one table between our errors and what gRPC (and HTTP) says.
//!
//! A [`Failure`] has a [`Code`], and the code settles everything else: its stable name, the gRPC code, the
//! HTTP status, and the [`Reaction`], which is what a caller should do about it. A gRPC code alone says
//! too little for that: `UNAVAILABLE` from a leader that proposed nothing and from a connection that broke
//! in the middle of a write mean opposite things. So the code travels beside it, in metadata, together with
//! the next step, the leader's address and the request id.
//!
//! A status without our metadata comes from a proxy or from the transport itself. It is read with care:
//! unless it is clear that nothing happened, the outcome counts as unknown.

mod code;

use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use crate::convert::Malformed;
use crate::v1;

pub use code::{Code, Reaction};

const CODE: &str = "x-quorate-code";
const HINT: &str = "x-quorate-hint";
const LEADER: &str = "x-quorate-leader";
const REQUEST_ID: &str = "x-quorate-request-id";

/// Bytes of a message or a hint in a status. They travel as trailers, percent-encoded, and must fit
/// into the peer's limit for headers.
const TEXT_LIMIT: usize = 2 * 1024;

/// An error on its way to a caller, or as it arrived.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub code: Code,
    pub message: String,
    /// The next step.
    pub hint: Option<String>,
    /// gRPC address of the leader, where known.
    pub leader: Option<String>,
    pub request_id: Option<String>,
}

impl Failure {
    /// With the hint that goes with the code.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: code.hint().map(str::to_owned),
            leader: None,
            request_id: None,
        }
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn with_leader(mut self, address: Option<String>) -> Self {
        self.leader = address;
        self
    }

    pub fn with_request_id(mut self, request_id: impl Into<String>) -> Self {
        self.request_id = Some(request_id.into());
        self
    }

    /// What a status says. One that is not ours is read by its gRPC code alone.
    pub fn read(status: &tonic::Status) -> Self {
        let metadata = status.metadata();
        let text = |key| {
            metadata
                .get(key)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let named = text(CODE).as_deref().and_then(Code::parse);
        let code = named.unwrap_or_else(|| without_our_code(status));
        let message = match status.message() {
            "" => format!("the server answered {:?} and no more", status.code()),
            message => message.to_owned(),
        };
        Self {
            code,
            message,
            hint: text(HINT).or_else(|| code.hint().map(str::to_owned)),
            leader: leader(metadata),
            request_id: text(REQUEST_ID),
        }
    }
}

/// The leader's gRPC address, which replies may carry too.
pub fn leader(metadata: &MetadataMap) -> Option<String> {
    metadata
        .get(LEADER)?
        .to_str()
        .ok()
        .filter(|address| !address.is_empty())
        .map(str::to_owned)
}

/// Tells the caller where the leader is, in a reply that is no error.
pub fn set_leader(metadata: &mut MetadataMap, address: &str) {
    metadata.insert(LEADER, ascii(address));
}

impl From<Failure> for tonic::Status {
    fn from(failure: Failure) -> Self {
        let mut metadata = MetadataMap::new();
        metadata.insert(CODE, MetadataValue::from_static(failure.code.as_str()));
        let texts = [
            (HINT, failure.hint),
            (LEADER, failure.leader),
            (REQUEST_ID, failure.request_id),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                metadata.insert(key, ascii(&text));
            }
        }
        Self::with_metadata(failure.code.grpc(), shortened(&failure.message), metadata)
    }
}

/// On a stream, where a status would end it. The request id is said beside it.
impl From<Failure> for v1::Refusal {
    fn from(failure: Failure) -> Self {
        Self {
            code: failure.code.as_str().to_owned(),
            message: failure.message,
            hint: failure.hint.unwrap_or_default(),
            leader: failure.leader.unwrap_or_default(),
        }
    }
}

/// A code of a newer release has no gRPC code beside it to fall back to, so nothing is known of what happened.
impl From<v1::Refusal> for Failure {
    fn from(refusal: v1::Refusal) -> Self {
        let code = Code::parse(&refusal.code).unwrap_or(Code::OutcomeUnknown);
        let message = match refusal.message.as_str() {
            "" => format!("the server answered {:?} and no more", refusal.code),
            _ => refusal.message,
        };
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            code,
            message,
            hint: said(refusal.hint).or_else(|| code.hint().map(str::to_owned)),
            leader: said(refusal.leader),
            request_id: None,
        }
    }
}

impl From<model::Rejected> for Failure {
    fn from(rejected: model::Rejected) -> Self {
        let code = match &rejected {
            model::Rejected::Invalid(_) => Code::Invalid,
            model::Rejected::OverLimit { .. } => Code::OverLimit,
            model::Rejected::NoSuchTask(_) => Code::NoSuchTask,
            model::Rejected::NoSuchAgent(_) => Code::NoSuchAgent,
            model::Rejected::RequestIdReused { .. } => Code::RequestIdReused,
            model::Rejected::AlreadyEnded { .. } => Code::AlreadyEnded,
            model::Rejected::Forbidden { .. } => Code::Forbidden,
            model::Rejected::Stale(_) => Code::Stale,
            model::Rejected::QuotaUsedUp { .. } => Code::QuotaUsedUp,
            model::Rejected::AgentInUse { .. }
            | model::Rejected::NameTaken { .. }
            | model::Rejected::QuotaTooLow { .. }
            | model::Rejected::RuleContradicts(_)
            | model::Rejected::NotYet { .. } => Code::Refused,
            model::Rejected::NoSuchJoinToken(_)
            | model::Rejected::NoSuchBackend { .. }
            | model::Rejected::NoSuchRule(_) => Code::NotFound,
            model::Rejected::JoinTokenRefused { .. } => Code::Unauthenticated,
            model::Rejected::NotHeld => Code::Busy,
        };
        let message = rejected.to_string();
        match rejected {
            model::Rejected::RequestIdReused { request_id, .. } => {
                Self::new(code, message).with_request_id(request_id)
            }
            model::Rejected::Invalid(_)
            | model::Rejected::OverLimit { .. }
            | model::Rejected::NoSuchTask(_)
            | model::Rejected::NoSuchAgent(_)
            | model::Rejected::AlreadyEnded { .. }
            | model::Rejected::Forbidden { .. }
            | model::Rejected::AgentInUse { .. }
            | model::Rejected::NameTaken { .. }
            | model::Rejected::NotYet { .. }
            | model::Rejected::NoSuchJoinToken(_)
            | model::Rejected::NoSuchBackend { .. }
            | model::Rejected::JoinTokenRefused { .. }
            | model::Rejected::NotHeld
            | model::Rejected::QuotaUsedUp { .. }
            | model::Rejected::QuotaTooLow { .. }
            | model::Rejected::RuleContradicts(_)
            | model::Rejected::NoSuchRule(_)
            | model::Rejected::Stale(_) => Self::new(code, message),
        }
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::new(Code::Invalid, malformed.to_string())
    }
}

impl From<model::ParseIdError> for Failure {
    fn from(error: model::ParseIdError) -> Self {
        Malformed::from(error).into()
    }
}

/// The closest of our codes. One whose name is of a newer release falls back to this as well.
fn without_our_code(status: &tonic::Status) -> Code {
    use tonic::Code as Grpc;
    let ours = status.metadata().contains_key(CODE);
    match status.code() {
        Grpc::InvalidArgument => Code::Invalid,
        Grpc::NotFound => Code::NotFound,
        Grpc::AlreadyExists | Grpc::FailedPrecondition => Code::Refused,
        Grpc::PermissionDenied => Code::Forbidden,
        Grpc::Unauthenticated => Code::Unauthenticated,
        // A message over the limit arrives as one of these.
        Grpc::ResourceExhausted | Grpc::OutOfRange => Code::OverLimit,
        Grpc::Unimplemented => Code::Unsupported,
        Grpc::Unavailable if ours => Code::Busy,
        // A reset stream looks like an internal error too, and then something lies beneath it.
        Grpc::Internal if status_is_the_servers(status) => Code::Internal,
        Grpc::Ok
        | Grpc::Cancelled
        | Grpc::Unknown
        | Grpc::DeadlineExceeded
        | Grpc::Aborted
        | Grpc::Internal
        | Grpc::Unavailable
        | Grpc::DataLoss => Code::OutcomeUnknown,
    }
}

/// A status that was received has no cause on this side; one that was made here of a broken connection
/// does.
fn status_is_the_servers(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_none()
}

/// Metadata holds printable ASCII; anything else in a text becomes a question mark.
fn ascii(text: &str) -> MetadataValue<Ascii> {
    let printable = |c: char| {
        if c == ' ' || c.is_ascii_graphic() {
            c
        } else {
            '?'
        }
    };
    let text: String = text.chars().take(TEXT_LIMIT).map(printable).collect();
    text.parse()
        .expect("printable ASCII is always a valid metadata value")
}

fn shortened(text: &str) -> String {
    if text.len() <= TEXT_LIMIT {
        return text.to_owned();
    }
    let end = (0..=TEXT_LIMIT)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_a_name_of_its_own_and_survives_the_way_through_a_status() {
        let mut names = BTreeSet::new();
        for code in Code::ALL {
            assert!(names.insert(code.as_str()), "{code:?}");
            assert_eq!(Code::parse(code.as_str()), Some(code));
            let failure = Failure::new(code, "what went wrong: ü")
                .with_hint("do this")
                .with_leader(Some("127.0.0.1:7400".to_owned()))
                .with_request_id("r-1");
            let status = tonic::Status::from(failure.clone());
            assert_eq!(status.code(), code.grpc());
            assert_eq!(Failure::read(&status), failure);
            // Through the headers of a real response as well.
            let response = status.into_http::<String>();
            let received = tonic::Status::from_header_map(response.headers()).unwrap();
            assert_eq!(Failure::read(&received), failure);
        }
        assert_eq!(Code::parse("no_such_code"), None);
    }

    #[test]
    fn every_code_survives_the_way_through_a_refusal_on_a_stream() {
        for code in Code::ALL {
            let bare = Failure::new(code, "what went wrong: ü");
            let full = bare
                .clone()
                .with_hint("do this")
                .with_leader(Some("127.0.0.1:7400".to_owned()));
            for failure in [bare, full] {
                let refusal = v1::Refusal::from(failure.clone());
                assert_eq!(refusal.code, code.as_str());
                assert_eq!(Failure::from(refusal), failure);
            }
        }
    }

    #[test]
    fn a_refusal_with_an_unknown_code_is_read_with_care() {
        let newer = v1::Refusal {
            code: "new_trouble".to_owned(),
            ..v1::Refusal::default()
        };
        for refusal in [newer, v1::Refusal::default()] {
            let failure = Failure::from(refusal);
            assert_eq!(failure.code.reaction(), Reaction::Unknown);
            assert!(!failure.message.is_empty() && failure.hint.is_some());
        }
    }

    #[test]
    fn the_declared_names_never_change() {
        let names = Code::ALL.map(Code::as_str).join(" ");
        assert_eq!(
            names,
            "invalid over_limit no_such_task no_such_agent not_found no_such_blob request_id_reused \
             already_ended forbidden unauthenticated refused stale compacted unsupported not_leader \
             no_leader no_quorum busy quota_used_up no_room shutting_down outcome_unknown unreachable not_trusted internal"
        );
    }

    #[test]
    fn reaction_and_numbers_agree() {
        for code in Code::ALL {
            let http = code.http();
            match code.reaction() {
                Reaction::Rejected => {
                    assert!((400..500).contains(&http) || http == 501, "{code:?}")
                }
                Reaction::Unavailable => {
                    assert_eq!(
                        (http, code.grpc()),
                        (503, tonic::Code::Unavailable),
                        "{code:?}"
                    );
                }
                Reaction::Unknown => assert_eq!(http, 504, "{code:?}"),
                Reaction::Fatal => assert_eq!(http, 500, "{code:?}"),
            }
        }
    }

    #[test]
    fn a_status_that_is_not_ours_is_read_with_care() {
        use tonic::Code as Grpc;
        for (grpc, reaction) in [
            (Grpc::Unavailable, Reaction::Unknown),
            (Grpc::Cancelled, Reaction::Unknown),
            (Grpc::Unknown, Reaction::Unknown),
            (Grpc::DeadlineExceeded, Reaction::Unknown),
            (Grpc::Internal, Reaction::Fatal),
            (Grpc::NotFound, Reaction::Rejected),
            (Grpc::Unimplemented, Reaction::Rejected),
            (Grpc::ResourceExhausted, Reaction::Rejected),
        ] {
            let failure = Failure::read(&tonic::Status::new(grpc, ""));
            assert_eq!(failure.code.reaction(), reaction, "{grpc:?}");
            assert!(!failure.message.is_empty());
        }
    }

    #[test]
    fn a_code_of_a_newer_release_is_read_by_its_grpc_code() {
        let mut status = tonic::Status::unavailable("new trouble");
        status
            .metadata_mut()
            .insert(CODE, "new_trouble".parse().unwrap());
        assert_eq!(
            Failure::read(&status).code.reaction(),
            Reaction::Unavailable
        );
    }

    #[test]
    fn odd_and_long_texts_do_not_break_the_status() {
        let long = "ü".repeat(TEXT_LIMIT);
        let failure = Failure::new(Code::Invalid, long.clone())
            .with_hint(format!("line\nbreak \u{1f600} {long}"))
            .with_request_id("\u{0}\r\n");
        let status = tonic::Status::from(failure);
        let received = Failure::read(&status);
        assert!(received.message.len() <= TEXT_LIMIT + 3 && received.message.ends_with('…'));
        assert!(received.hint.unwrap().starts_with("line?break ? ?"));
        assert_eq!(received.request_id.as_deref(), Some("???"));
    }

    #[test]
    fn every_rejection_is_the_callers() {
        let task = model::TaskId(17);
        for rejected in [
            model::Rejected::Invalid("no".to_owned()),
            model::Rejected::NoSuchTask(task),
            model::Rejected::RequestIdReused {
                request_id: "r".to_owned(),
                task,
            },
            model::Rejected::AlreadyEnded {
                task,
                state: "failed".to_owned(),
            },
            model::Rejected::Stale("agent is gone".to_owned()),
        ] {
            let failure = Failure::from(rejected.clone());
            assert_eq!(failure.code.reaction(), Reaction::Rejected);
            assert_eq!(failure.message, rejected.to_string());
        }
    }
}
