//! What went wrong beside the promises: the cluster could not be used any more, or the harness failed.

use crate::Error;

#[derive(Debug, Default)]
pub struct Troubles {
    /// Of the cluster.
    pub failures: Vec<String>,
    /// Of the harness: the run shows less than it should.
    pub gaps: Vec<String>,
}

impl Troubles {
    /// Takes down what an error means for the run.
    pub fn note(&mut self, during: &str, error: &Error) {
        let text = format!("{during}: {error}");
        match error {
            Error::Timeout { .. }
            | Error::Broken(_)
            | Error::Call { .. }
            | Error::Command { .. } => {
                self.failures.push(text);
            }
            Error::Invalid(_)
            | Error::Missing(_)
            | Error::File { .. }
            | Error::Io { .. }
            | Error::Format { .. }
            | Error::Tool { .. }
            | Error::Security(_) => self.gaps.push(text),
        }
    }

    pub fn extend(&mut self, other: Troubles) {
        self.failures.extend(other.failures);
        self.gaps.extend(other.gaps);
    }
}
