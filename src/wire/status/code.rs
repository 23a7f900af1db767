//! The table itself: every code with its name, its numbers, what to do about it, and the next step.

/// What the one who called should do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reaction {
    /// The caller's to mend. The same call gets the same answer.
    Rejected,
    /// Nothing happened. Try again, perhaps elsewhere.
    Unavailable,
    /// It may have happened. Try again only what is safe to repeat.
    Unknown,
    /// The server is broken, and trying again will not help.
    Fatal,
}

/// What went wrong. The names are for programs and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    Invalid,
    OverLimit,
    NoSuchTask,
    NoSuchAgent,
    NotFound,
    /// What a task needs was never uploaded, or is not kept any more.
    NoSuchBlob,
    RequestIdReused,
    AlreadyEnded,
    /// Proven who it is, and not allowed.
    Forbidden,
    /// Not proven who it is.
    Unauthenticated,
    /// Possible in another state of the cluster than this.
    Refused,
    /// What it was decided on has changed.
    Stale,
    /// Older than what is kept.
    Compacted,
    Unsupported,
    NotLeader,
    NoLeader,
    NoQuorum,
    Busy,
    /// The namespace has all that its quota allows.
    QuotaUsedUp,
    /// Too little is left on the controllers' disks.
    NoRoom,
    ShuttingDown,
    OutcomeUnknown,
    /// Made by clients: no connection to any controller.
    Unreachable,
    /// Made by clients: client and controllers do not accept each other's certificates.
    NotTrusted,
    Internal,
}

impl Code {
    /// In the order in which they are declared.
    pub const ALL: [Self; 25] = [
        Self::Invalid,
        Self::OverLimit,
        Self::NoSuchTask,
        Self::NoSuchAgent,
        Self::NotFound,
        Self::NoSuchBlob,
        Self::RequestIdReused,
        Self::AlreadyEnded,
        Self::Forbidden,
        Self::Unauthenticated,
        Self::Refused,
        Self::Stale,
        Self::Compacted,
        Self::Unsupported,
        Self::NotLeader,
        Self::NoLeader,
        Self::NoQuorum,
        Self::Busy,
        Self::QuotaUsedUp,
        Self::NoRoom,
        Self::ShuttingDown,
        Self::OutcomeUnknown,
        Self::Unreachable,
        Self::NotTrusted,
        Self::Internal,
    ];

    /// The hint for a write whose outcome is not known. Who knows that it was a read, or what is safe to
    /// repeat, has a better one.
    pub(crate) const IT_MAY_HAVE_HAPPENED: &str = "it may have happened: send it again with the same \
        request id, which is safe, or look before sending it without one";

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::OverLimit => "over_limit",
            Self::NoSuchTask => "no_such_task",
            Self::NoSuchAgent => "no_such_agent",
            Self::NotFound => "not_found",
            Self::NoSuchBlob => "no_such_blob",
            Self::RequestIdReused => "request_id_reused",
            Self::AlreadyEnded => "already_ended",
            Self::Forbidden => "forbidden",
            Self::Unauthenticated => "unauthenticated",
            Self::Refused => "refused",
            Self::Stale => "stale",
            Self::Compacted => "compacted",
            Self::Unsupported => "unsupported",
            Self::NotLeader => "not_leader",
            Self::NoLeader => "no_leader",
            Self::NoQuorum => "no_quorum",
            Self::Busy => "busy",
            Self::QuotaUsedUp => "quota_used_up",
            Self::NoRoom => "no_room",
            Self::ShuttingDown => "shutting_down",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Unreachable => "unreachable",
            Self::NotTrusted => "not_trusted",
            Self::Internal => "internal",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.as_str() == name)
    }

    pub fn reaction(self) -> Reaction {
        match self {
            Self::NotLeader
            | Self::NoLeader
            | Self::NoQuorum
            | Self::Busy
            | Self::NoRoom
            | Self::ShuttingDown
            | Self::Unreachable => Reaction::Unavailable,
            Self::OutcomeUnknown => Reaction::Unknown,
            Self::Internal => Reaction::Fatal,
            Self::Invalid
            | Self::OverLimit
            | Self::QuotaUsedUp
            | Self::NoSuchTask
            | Self::NoSuchAgent
            | Self::NotFound
            | Self::NoSuchBlob
            | Self::RequestIdReused
            | Self::AlreadyEnded
            | Self::Forbidden
            | Self::Unauthenticated
            | Self::Refused
            | Self::Stale
            | Self::Compacted
            | Self::Unsupported
            | Self::NotTrusted => Reaction::Rejected,
        }
    }

    pub fn grpc(self) -> tonic::Code {
        match self {
            Self::Invalid => tonic::Code::InvalidArgument,
            Self::OverLimit | Self::QuotaUsedUp => tonic::Code::ResourceExhausted,
            Self::NoSuchTask | Self::NoSuchAgent | Self::NotFound | Self::NoSuchBlob => {
                tonic::Code::NotFound
            }
            Self::RequestIdReused => tonic::Code::AlreadyExists,
            Self::AlreadyEnded | Self::Refused => tonic::Code::FailedPrecondition,
            Self::Forbidden => tonic::Code::PermissionDenied,
            Self::Unauthenticated | Self::NotTrusted => tonic::Code::Unauthenticated,
            Self::Stale => tonic::Code::Aborted,
            Self::Compacted => tonic::Code::OutOfRange,
            Self::Unsupported => tonic::Code::Unimplemented,
            Self::NotLeader
            | Self::NoLeader
            | Self::NoQuorum
            | Self::Busy
            | Self::NoRoom
            | Self::ShuttingDown
            | Self::Unreachable => tonic::Code::Unavailable,
            Self::OutcomeUnknown => tonic::Code::DeadlineExceeded,
            Self::Internal => tonic::Code::Internal,
        }
    }

    pub fn http(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated | Self::NotTrusted => 401,
            Self::Forbidden => 403,
            Self::NoSuchTask | Self::NoSuchAgent | Self::NotFound | Self::NoSuchBlob => 404,
            Self::RequestIdReused | Self::AlreadyEnded | Self::Refused | Self::Stale => 409,
            Self::Compacted => 410,
            Self::OverLimit | Self::QuotaUsedUp => 429,
            Self::Internal => 500,
            Self::Unsupported => 501,
            Self::NotLeader
            | Self::NoLeader
            | Self::NoQuorum
            | Self::Busy
            | Self::NoRoom
            | Self::ShuttingDown
            | Self::Unreachable => 503,
            Self::OutcomeUnknown => 504,
        }
    }

    /// The next step where none better is known.
    pub fn hint(self) -> Option<&'static str> {
        match self {
            Self::NoSuchTask => Some("see `quorate task list`"),
            Self::NoSuchAgent => Some("see `quorate agent list`"),
            Self::NoSuchBlob => Some("upload it, and submit again"),
            Self::RequestIdReused => Some("send the same spec again, or use a new request id"),
            Self::AlreadyEnded => Some("see how with `quorate task get`"),
            Self::Unauthenticated => Some("connect with a certificate of this cluster"),
            Self::Unsupported => {
                Some("compare versions with `quorate version` and `quorate cluster status`")
            }
            Self::NotLeader => Some("ask the leader"),
            Self::NoLeader | Self::NoQuorum => Some(
                "try again; if it stays so, see `quorate cluster status`: a majority of \
                 controllers must run and reach each other",
            ),
            Self::Busy => Some("try again in a moment"),
            Self::QuotaUsedUp => Some(
                "submit again once some of them have begun, or have the quota raised: see `quorate namespace get`",
            ),
            Self::NoRoom => Some(
                "make room on the controllers' disks, then try again; see `quorate cluster status -o wide`",
            ),
            Self::ShuttingDown => Some("ask another controller"),
            Self::OutcomeUnknown => Some(Self::IT_MAY_HAVE_HAPPENED),
            Self::Unreachable => {
                Some("check that the controllers run and that the addresses are right")
            }
            Self::NotTrusted => {
                Some("check that ca, cert and key belong to this cluster and are still valid")
            }
            Self::Internal => Some("see the controller's log"),
            Self::Invalid
            | Self::OverLimit
            | Self::NotFound
            | Self::Forbidden
            | Self::Refused
            | Self::Stale
            | Self::Compacted => None,
        }
    }
}
