//! Why a connection could not be made: for a person in words, for a program as an enum.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use tokio_rustls::rustls::{self, AlertDescription, CertificateError};

/// A connection to `address` could not be made, so nothing was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot reach {address}: {failure}")]
pub struct DialError {
    pub address: String,
    pub failure: DialFailure,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialFailure {
    #[error("it is not an address of the form HOST:PORT")]
    BadAddress,
    #[error("its name is not known ({0})")]
    Unresolved(String),
    /// The machine is there, and nobody listens: the process is dead.
    #[error("connection refused")]
    Refused,
    /// Nothing came back: the machine is dead or stopped, or the network is cut.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error("{0}")]
    Network(String),
    /// We do not accept the server's certificate.
    #[error("its certificate is refused: {0}")]
    ServerRefused(String),
    /// The server does not accept ours.
    #[error("it refuses our certificate: {0}")]
    ClientRefused(&'static str),
    #[error("TLS failed: {0}")]
    Tls(String),
}

impl DialFailure {
    /// Whether trying again as we are, at this address, is pointless.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::BadAddress | Self::ServerRefused(_) | Self::ClientRefused(_) => true,
            Self::Unresolved(_)
            | Self::Refused
            | Self::TimedOut(_)
            | Self::Network(_)
            | Self::Tls(_) => false,
        }
    }
}

impl DialError {
    /// Of an error of the first read on a connection: only there a server says that it refuses our certificate.
    pub fn told_late(address: &str, error: &io::Error) -> Self {
        Self {
            address: address.to_owned(),
            failure: failure(error),
        }
    }
}

/// The reason, where a status says that no connection could be made. `None` means that there was one,
/// and then the request may have arrived.
pub fn dial_error(status: &tonic::Status) -> Option<&DialError> {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref::<DialError>() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// Of an error while connecting or shaking hands.
pub(super) fn failure(error: &io::Error) -> DialFailure {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(tls) = tls {
        return tls_failure(tls);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialFailure::Refused,
        io::ErrorKind::UnexpectedEof => {
            DialFailure::Network("it closed the connection during the handshake".to_owned())
        }
        _ => DialFailure::Network(error.to_string()),
    }
}

fn tls_failure(error: &rustls::Error) -> DialFailure {
    match error {
        // The sentence is our verifier's own.
        rustls::Error::InvalidCertificate(CertificateError::Other(reason)) => {
            DialFailure::ServerRefused(reason.0.to_string())
        }
        rustls::Error::InvalidCertificate(reason) => DialFailure::ServerRefused(reason.to_string()),
        rustls::Error::AlertReceived(alert) => match refusal(*alert) {
            Some(reason) => DialFailure::ClientRefused(reason),
            None => DialFailure::Tls(error.to_string()),
        },
        rustls::Error::InvalidMessage(_) => {
            DialFailure::Tls("what answers there does not speak TLS".to_owned())
        }
        other => DialFailure::Tls(other.to_string()),
    }
}

/// What a server means by the alert it ends a handshake with.
fn refusal(alert: AlertDescription) -> Option<&'static str> {
    match alert {
        AlertDescription::UnknownCA => Some("it was issued by the CA of another cluster"),
        AlertDescription::AccessDenied => Some("its role may not connect there"),
        AlertDescription::CertificateRequired => Some("one is required, and none was shown"),
        AlertDescription::CertificateExpired => {
            Some("it has expired, or one of the two clocks is wrong")
        }
        AlertDescription::CertificateRevoked => Some("it was revoked"),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::DecryptError => Some("it names no identity of that cluster"),
        _ => None,
    }
}
