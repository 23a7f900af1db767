//! How an attempt ended, as its agent reports it, and what became of that report.

use serde::{Deserialize, Serialize};

use crate::blob::{BlobRef, OutcomeBlobs};
use crate::inference::Usage;
use crate::limit;
use crate::time::Timestamp;
use crate::trailing::positional;

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    Exited {
        code: i32,
    },
    /// Ended by a signal that the agent did not send.
    Signalled {
        signal: i32,
    },
    /// Killed by the agent at the task's timeout.
    TimedOut,
    /// Killed by the agent because the task was cancelled.
    Killed,
    /// The process could not be started: no such program, no permission, no such directory.
    NotStarted {
        reason: String,
    },
    /// It ran, and failed without an exit code: a back end that broke off, say. Another try may do better.
    Failed {
        reason: String,
    },
    /// What was asked for can't be done, however often it is tried.
    Impossible {
        reason: String,
    },
    /// The agent would not take it: it is stopping. Nothing ran.
    Declined {
        reason: String,
    },
    /// Journaled as started, and not seen to an end of its own: how far it came is not known.
    Interrupted {
        cause: Interruption,
        reason: String,
    },
}

/// Who ended an attempt that did not come to an end of its own. It tells a task that kills its
/// agents from one that only was on an agent when that was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Interruption {
    /// The agent's process died under it; the next one reports.
    AgentDied,
    /// The agent lives, and ended it: it was stopped, or could reach no leader.
    EndedByAgent,
}

/// What an agent reports of an attempt, and what is kept of it as the task's result.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    pub end: End,
    /// The last bytes of each stream.
    #[serde(with = "serde_bytes")]
    pub stdout: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub stderr: Vec<u8>,
    /// How many bytes each stream had in all.
    pub stdout_bytes: u64,
    pub stderr_bytes: u64,
    /// The agent's wall time, for display.
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    /// Of an inference, where the back end told.
    #[serde(default)]
    pub usage: Option<Usage>,
    /// The kept part of a stream that is too large for the log; it is empty then above.
    #[serde(default)]
    pub blobs: Box<OutcomeBlobs>,
}

positional!(Outcome {
    end, stdout: bytes, stderr: bytes, stdout_bytes, stderr_bytes, started_at, finished_at, usage
} later { blobs });

impl Outcome {
    /// An end without output.
    pub fn bare(end: End) -> Outcome {
        Outcome {
            end,
            stdout: Vec::new(),
            stderr: Vec::new(),
            stdout_bytes: 0,
            stderr_bytes: 0,
            usage: None,
            blobs: Box::default(),
            started_at: Timestamp(0),
            finished_at: Timestamp(0),
        }
    }

    /// Whether the kept tails are less than what was written.
    pub fn truncated(&self) -> bool {
        kept(&self.stdout, self.blobs.stdout) != self.stdout_bytes
            || kept(&self.stderr, self.blobs.stderr) != self.stderr_bytes
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let reason = match &self.end {
            End::NotStarted { reason }
            | End::Failed { reason }
            | End::Impossible { reason }
            | End::Declined { reason }
            | End::Interrupted { reason, .. } => reason.len(),
            End::Exited { .. } | End::Signalled { .. } | End::TimedOut | End::Killed => 0,
        };
        let blobs = 48 * self.blobs.refs().count();
        64 + reason + blobs + self.stdout.len() + self.stderr.len()
    }

    /// Keeps how it ended and how much it wrote, but nothing of what.
    pub(crate) fn drop_tails(&mut self) {
        self.stdout = Vec::new();
        self.stderr = Vec::new();
        *self.blobs = OutcomeBlobs::default();
    }

    /// Within the limits, whatever an agent sent.
    pub fn bounded(mut self) -> Outcome {
        keep_tail(&mut self.stdout);
        keep_tail(&mut self.stderr);
        // A stream stands in one place.
        for (blob, inline) in [
            (&mut self.blobs.stdout, &self.stdout),
            (&mut self.blobs.stderr, &self.stderr),
        ] {
            blob.take_if(|blob| !inline.is_empty() || blob.validate().is_err());
        }
        self.stdout_bytes = self.stdout_bytes.max(kept(&self.stdout, self.blobs.stdout));
        self.stderr_bytes = self.stderr_bytes.max(kept(&self.stderr, self.blobs.stderr));
        match &mut self.end {
            End::NotStarted { reason }
            | End::Failed { reason }
            | End::Impossible { reason }
            | End::Declined { reason }
            | End::Interrupted { reason, .. } => {
                *reason = bounded_reason(reason);
            }
            End::Exited { .. } | End::Signalled { .. } | End::TimedOut | End::Killed => {}
        }
        self
    }
}

/// Bytes of a stream that are kept.
fn kept(inline: &[u8], blob: Option<BlobRef>) -> u64 {
    blob.map_or(inline.len() as u64, |blob| blob.size)
}

fn keep_tail(bytes: &mut Vec<u8>) {
    bytes.drain(..bytes.len().saturating_sub(limit::TAIL_MAX_BYTES));
}

/// At most so many bytes of a reason, cut between characters.
pub(crate) fn bounded_reason(text: &str) -> String {
    let mut end = text.len().min(limit::REASON_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// What became of a report; whichever it is, the agent may forget it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disposition {
    Accepted,
    /// This very report was accepted before.
    Duplicate,
    /// Not the live attempt (any more): it changed nothing.
    Stale,
    UnknownTask,
}
