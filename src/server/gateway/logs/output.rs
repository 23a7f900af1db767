//! One stream of one attempt: from the agent, or from what was kept with the result.
//!
//! ```text
//!   kept whole ──yes──► from the result, done
//!       │ no
//!       ▼
//!   ask the agent ──complete──► done      ──gone───────► kept tail, or nothing yet
//!       ▲    └─ too slow: again from here ──disconnected─► kept tail, or wait for the agent
//!       └────────────────────── wait for a step of the task ◄──────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use model::{Attempt, Fence};
use wire::status::{Code, Failure};
use wire::v1;
use wire::v1::OutputStream;

use super::lines::{LastLines, holds_last_lines, last_lines};
use super::{Begin, Found, Logs, Stop};
use crate::gateway::failure;
use crate::limit;
use crate::sessions::{Ended, Next, Session, Tail, Wanted};

/// Between two looks at an attempt whose agent has nothing to say and of which no event came.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Output<'l> {
    logs: &'l Logs,
    attempt: &'l Attempt,
    stream: OutputStream,
}

/// What the result keeps of a stream.
struct Kept {
    bytes: Bytes,
    total: u64,
}

impl Kept {
    fn begin(&self) -> u64 {
        self.total.saturating_sub(self.bytes.len() as u64)
    }

    fn is_whole(&self) -> bool {
        self.begin() == 0
    }
}

/// Without output from the agent.
enum Without {
    /// Nothing will come any more.
    Over,
    /// Something may come.
    NotYet,
}

impl<'l> Output<'l> {
    pub(super) fn new(logs: &'l Logs, attempt: &'l Attempt, stream: OutputStream) -> Output<'l> {
        Output {
            logs,
            attempt,
            stream,
        }
    }

    pub(super) async fn read(self, from: Begin) -> Result<(), Stop> {
        if let Some(kept) = self.kept().await?
            && suffices(&kept, from)
        {
            return self.send_kept(kept, from).await;
        }
        let from = match from {
            Begin::Offset(offset) => offset,
            Begin::LastLines(wanted) => match self.send_last_lines(wanted).await? {
                Some(end) if self.logs.follow => end,
                Some(_) | None => return Ok(()),
            },
        };
        self.read_from(from).await
    }

    /// Everything from `offset` on.
    async fn read_from(&self, mut offset: u64) -> Result<(), Stop> {
        let interest = self.logs.interest();
        loop {
            let ended = match self.ask(offset, self.logs.follow) {
                Some(tail) => self.pass_on(tail, &mut offset).await?,
                None => Ended::Disconnected,
            };
            let without = match ended {
                Ended::Complete => return Ok(()),
                Ended::SlowReader => continue,
                Ended::Gone | Ended::Disconnected => self.without(ended, offset).await?,
            };
            match without {
                Without::Over => return Ok(()),
                Without::NotYet => {
                    let mut opened = self.logs.gateway.0.sessions.opened();
                    tokio::select! {
                        () = interest.rung() => {}
                        _ = opened.changed() => {}
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                    }
                }
            }
        }
    }

    /// The last lines up to now. Answers where they end; nothing where only the kept tail was left.
    async fn send_last_lines(&self, wanted: u32) -> Result<Option<u64>, Stop> {
        let mut lines = LastLines::new(wanted);
        let mut offset = 0;
        loop {
            let Some(mut tail) = self.ask(offset, false) else {
                return self.instead_of_lines(Ended::Disconnected, wanted).await;
            };
            let ended = loop {
                match self.next_in_time(&mut tail).await? {
                    Next::Chunk(chunk) => {
                        lines.push(chunk.offset, &chunk.data);
                        offset = chunk.offset + chunk.data.len() as u64;
                    }
                    Next::End(ended) => break ended,
                }
            };
            match ended {
                Ended::Complete => break,
                Ended::SlowReader => {}
                Ended::Gone | Ended::Disconnected => {
                    return self.instead_of_lines(ended, wanted).await;
                }
            }
        }
        let (begin, bytes) = lines.finish();
        self.send(begin, bytes, TailOnly::No).await?;
        Ok(Some(offset))
    }

    async fn instead_of_lines(&self, ended: Ended, wanted: u32) -> Result<Option<u64>, Stop> {
        if let Some(kept) = self.kept().await? {
            self.send_kept(kept, Begin::LastLines(wanted)).await?;
            return Ok(None);
        }
        match self.without(ended, 0).await? {
            Without::Over => Ok(None),
            Without::NotYet => Ok(Some(0)),
        }
    }

    /// Passes chunks on until the tail ends.
    async fn pass_on(&self, mut tail: Tail, offset: &mut u64) -> Result<Ended, Stop> {
        loop {
            let next = match self.logs.follow {
                // Silence means nothing where the end is open.
                true => tail.next().await,
                false => self.next_in_time(&mut tail).await?,
            };
            match next {
                Next::Chunk(chunk) => {
                    *offset = chunk.offset + chunk.data.len() as u64;
                    self.send(chunk.offset, chunk.data, TailOnly::No).await?;
                }
                Next::End(ended) => return Ok(ended),
            }
        }
    }

    async fn next_in_time(&self, tail: &mut Tail) -> Result<Next, Stop> {
        let next = tokio::time::timeout(limit::TAIL_ANSWER, tail.next()).await;
        next.map_err(|_| {
            let why = format!(
                "agent {} does not answer for its output",
                self.attempt.agent
            );
            Stop::Failed(Failure::new(Code::Busy, why))
        })
    }

    /// The agent can't be asked, or does not have it.
    async fn without(&self, ended: Ended, offset: u64) -> Result<Without, Stop> {
        if let Some(kept) = self.kept().await? {
            self.send_kept(kept, Begin::Offset(offset)).await?;
            return Ok(Without::Over);
        }
        if !self.is_live() {
            // Lost with its agent: the next attempt begins anew.
            return Ok(Without::Over);
        }
        if self.logs.follow {
            return Ok(Without::NotYet);
        }
        match ended {
            // Assigned, and not begun yet.
            Ended::Gone => Ok(Without::Over),
            Ended::Complete | Ended::SlowReader | Ended::Disconnected => {
                let agent = &self.attempt.agent;
                let why = format!("agent {agent}, which has the output, is not connected here");
                let hint = "try again in a moment, or ask another controller";
                Err(Stop::Failed(Failure::new(Code::Busy, why).with_hint(hint)))
            }
        }
    }

    fn ask(&self, offset: u64, follow: bool) -> Option<Tail> {
        let controller = &self.logs.gateway.0;
        let session: Arc<Session> = controller.sessions.of(&self.attempt.agent)?;
        let fence = Fence {
            task: self.logs.id,
            generation: controller.cluster.view().generation(),
            epoch: self.attempt.epoch,
        };
        session.tail(&Wanted {
            fence,
            stream: self.stream,
            offset,
            follow,
        })
    }

    fn is_live(&self) -> bool {
        let state = self.logs.gateway.0.cluster.view();
        let live = state.task(self.logs.id).and_then(model::Task::live);
        live.is_some_and(|live| live.epoch == self.attempt.epoch)
    }

    /// What the result keeps of this attempt, once its report was accepted.
    async fn kept(&self) -> Result<Option<Kept>, Stop> {
        let cluster = &self.logs.gateway.0.cluster;
        let state = cluster.view();
        // Where the archive can't be read there is the agent.
        let Ok(found) = self.logs.gateway.find(&state, self.logs.id).await else {
            return Ok(None);
        };
        if found.task().settled != Some(self.attempt.epoch) {
            return Ok(None);
        }
        let outcome = match found {
            Found::InMemory(task) => state.result(task.id),
            Found::Archived(record) => record.result.map(Arc::new),
        };
        let Some(outcome) = outcome else {
            return Ok(None);
        };
        let (bytes, blob, total) = match self.stream {
            OutputStream::Stderr => (&outcome.stderr, outcome.blobs.stderr, outcome.stderr_bytes),
            OutputStream::Stdout | OutputStream::Unspecified => {
                (&outcome.stdout, outcome.blobs.stdout, outcome.stdout_bytes)
            }
        };
        let bytes = match blob {
            Some(blob) => {
                let read = cluster.read_small_blob(blob).await;
                read.map_err(|error| Stop::Failed(failure::of_raft(&error)))?
            }
            None => Bytes::copy_from_slice(bytes),
        };
        Ok(Some(Kept { bytes, total }))
    }

    async fn send_kept(&self, kept: Kept, from: Begin) -> Result<(), Stop> {
        let tail_only = if suffices(&kept, from) {
            TailOnly::No
        } else {
            TailOnly::Yes
        };
        let begin = match from {
            Begin::Offset(offset) => offset.clamp(kept.begin(), kept.total),
            Begin::LastLines(wanted) => {
                let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
                kept.total - last_lines(&kept.bytes, wanted).len() as u64
            }
        };
        let skip = usize::try_from(begin - kept.begin()).unwrap_or(usize::MAX);
        let bytes = kept.bytes.slice(skip.min(kept.bytes.len())..);
        self.send(begin, bytes, tail_only).await
    }

    async fn send(&self, offset: u64, data: Bytes, tail_only: TailOnly) -> Result<(), Stop> {
        for (offset, data) in pieces(offset, data, tail_only) {
            let chunk = v1::LogChunk {
                stream: self.stream.into(),
                offset,
                data,
                epoch: self.attempt.epoch.0,
                tail_only: tail_only == TailOnly::Yes,
            };
            let sent = self.logs.chunks.send(Ok(chunk)).await;
            sent.map_err(|_| Stop::Left)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TailOnly {
    Yes,
    No,
}

/// What fits into one answer each, with its place. That only a tail is left is worth an answer even where
/// nothing of it is new.
fn pieces(offset: u64, mut data: Bytes, tail_only: TailOnly) -> Vec<(u64, Bytes)> {
    let mut pieces = Vec::new();
    let mut at = offset;
    while !data.is_empty() {
        let piece = data.split_to(data.len().min(limit::LOG_ANSWER_BYTES));
        let next = at + piece.len() as u64;
        pieces.push((at, piece));
        at = next;
    }
    if pieces.is_empty() && tail_only == TailOnly::Yes {
        pieces.push((offset, data));
    }
    pieces
}

/// Whether the kept bytes hold all that is wanted, so that the agent need not be asked.
fn suffices(kept: &Kept, from: Begin) -> bool {
    kept.is_whole()
        || match from {
            Begin::Offset(offset) => offset >= kept.begin(),
            Begin::LastLines(wanted) => {
                let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
                holds_last_lines(&kept.bytes, wanted)
            }
        }
}
