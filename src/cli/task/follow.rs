//! A task's output as it appears, each byte once, across reconnects, failovers and further attempts.
//!
//! Chunks carry the attempt's epoch and their offset. Whatever is asked for again after a break is
//! compared with what was written already; a new epoch starts from nothing. What the stream could not
//! give in the end is taken from the tails that are kept with the result.

use std::time::Duration;

use futures::StreamExt;
use wire::v1::{self, OutputStream};

use crate::client::Connection;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output;

/// Between two tries to reach a log that was cut off.
const PAUSE: Duration = Duration::from_millis(200);
/// Tries in a row without a byte, before it is said that there is no way to the log.
const TRIES: u32 = 50;

/// What to show of a task's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// Each on our own of the same name.
    Both,
    /// Only this one, on stdout.
    Stderr,
}

/// Where one stream is written, and how far.
#[derive(Debug, Default)]
struct Written {
    epoch: u64,
    next: u64,
}

impl Written {
    /// The part of a chunk that was not written yet.
    fn fresh<'a>(&mut self, epoch: u64, offset: u64, data: &'a [u8]) -> &'a [u8] {
        if epoch < self.epoch {
            return &[];
        }
        if epoch > self.epoch {
            *self = Written { epoch, next: 0 };
        }
        let known = usize::try_from(self.next.saturating_sub(offset)).unwrap_or(usize::MAX);
        let fresh = data.get(known..).unwrap_or_default();
        if !fresh.is_empty() {
            self.next = offset + data.len() as u64;
        }
        fresh
    }

    /// How many bytes lie between what was written and a chunk that comes now.
    fn gap(&self, epoch: u64, offset: u64) -> u64 {
        let next = if epoch > self.epoch { 0 } else { self.next };
        if epoch < self.epoch {
            0
        } else {
            offset.saturating_sub(next)
        }
    }

    /// What the kept tail can add, and how many bytes before it nobody has any more.
    fn rest<'a>(&self, epoch: u64, tail: &'a [u8], total: u64) -> (&'a [u8], u64) {
        let next = if epoch > self.epoch { 0 } else { self.next };
        let start = total.saturating_sub(tail.len() as u64);
        let known = usize::try_from(next.saturating_sub(start)).unwrap_or(usize::MAX);
        (
            tail.get(known..).unwrap_or_default(),
            start.saturating_sub(next),
        )
    }
}

/// One reader of one task's output.
pub struct Follow<'a> {
    cluster: &'a Connection,
    id: u64,
    show: Show,
    stdout: Written,
    stderr: Written,
    said_tail_only: bool,
}

impl<'a> Follow<'a> {
    pub fn new(cluster: &'a Connection, id: u64, show: Show) -> Follow<'a> {
        Follow {
            cluster,
            id,
            show,
            stdout: Written::default(),
            stderr: Written::default(),
            said_tail_only: false,
        }
    }

    /// Writes what comes until the task has ended, and goes on after breaks.
    pub async fn until_it_ends(&mut self, tail: Option<u32>) -> Result<()> {
        let mut tail = tail;
        let mut failures = 0;
        loop {
            let before = (self.stdout.next, self.stderr.next);
            let Err(failure) = self.once(true, tail).await else {
                return Ok(());
            };
            if failure.exit != Exit::Unknown {
                return Err(failure);
            }
            if before == (self.stdout.next, self.stderr.next) {
                failures += 1;
            } else {
                // What was shown is known by its offsets now: the last lines may be others.
                (failures, tail) = (0, None);
            }
            if failures > TRIES {
                return Err(failure);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Writes what one stream of chunks gives.
    pub async fn once(&mut self, follow: bool, tail: Option<u32>) -> Result<()> {
        let stream = match self.show {
            Show::Both => OutputStream::Unspecified,
            Show::Stderr => OutputStream::Stderr,
        };
        let request = v1::LogsRequest {
            id: self.id,
            stream: stream.into(),
            follow,
            tail,
            offset: 0,
        };
        let mut chunks = self.cluster.logs(&request).await?;
        while let Some(chunk) = chunks.next().await {
            self.write(&chunk?, tail)?;
        }
        Ok(())
    }

    /// `tail`: the last lines that were asked for; what lies before those is not missed.
    fn write(&mut self, chunk: &v1::LogChunk, tail: Option<u32>) -> Result<()> {
        if chunk.tail_only && !self.said_tail_only {
            self.said_tail_only = true;
            self.say_tail_only();
        }
        let written = match chunk.stream() {
            OutputStream::Stderr => &mut self.stderr,
            OutputStream::Stdout | OutputStream::Unspecified => &mut self.stdout,
        };
        let lost = written.gap(chunk.epoch, chunk.offset);
        if lost > 0 && tail.is_none() && !chunk.tail_only && !chunk.data.is_empty() {
            output::note(&format!("{lost} bytes of output are no longer kept"));
        }
        let fresh = written.fresh(chunk.epoch, chunk.offset, &chunk.data);
        put(chunk.stream(), self.show, fresh)
    }

    fn say_tail_only(&self) {
        output::note(&format!(
            "only the end of {}'s output is left, as kept with its result",
            model::TaskId(self.id)
        ));
    }

    /// Adds from the task's result what the stream did not bring.
    pub fn complete(&mut self, task: &v1::Task) -> Result<()> {
        let Some(result) = &task.result else {
            return Ok(());
        };
        for (stream, written, tail, total) in [
            (
                OutputStream::Stdout,
                &self.stdout,
                &result.stdout,
                result.stdout_bytes,
            ),
            (
                OutputStream::Stderr,
                &self.stderr,
                &result.stderr,
                result.stderr_bytes,
            ),
        ] {
            let (rest, lost) = written.rest(task.epoch, tail, total);
            if lost > 0 {
                output::note(&format!(
                    "{lost} bytes of output did not arrive; `quorate task logs {}` may have them",
                    model::TaskId(self.id)
                ));
            }
            put(stream, self.show, rest)?;
        }
        Ok(())
    }
}

fn put(stream: OutputStream, show: Show, data: &[u8]) -> Result<()> {
    match (stream, show) {
        _ if data.is_empty() => Ok(()),
        (OutputStream::Stderr, Show::Both) => output::error_bytes(data),
        (OutputStream::Stderr, Show::Stderr) => output::bytes(data),
        (OutputStream::Stdout | OutputStream::Unspecified, Show::Both) => output::bytes(data),
        (OutputStream::Stdout | OutputStream::Unspecified, Show::Stderr) => Err(Failure::refused(
            "protocol",
            "the controller sent another stream than was asked for",
            "update this program or the controllers",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::Written;

    #[test]
    fn each_byte_is_written_once_whatever_is_sent_again() {
        let mut written = Written::default();
        assert_eq!(written.fresh(7, 0, b"hello"), b"hello");
        assert_eq!(written.fresh(7, 0, b"hello"), b"");
        assert_eq!(written.fresh(7, 3, b"lo world"), b" world");
        assert_eq!(written.fresh(7, 20, b"after a gap"), b"after a gap");
        assert_eq!(written.fresh(7, 31, b""), b"");
        assert_eq!(written.next, 31);
    }

    #[test]
    fn what_is_missing_at_the_front_or_in_the_middle_is_counted() {
        let mut written = Written::default();
        assert_eq!(written.gap(7, 100), 100, "the front of the first attempt");
        written.fresh(7, 100, b"hello");
        assert_eq!(written.gap(7, 105), 0);
        assert_eq!(written.gap(7, 100), 0, "sent again");
        assert_eq!(written.gap(7, 125), 20, "the middle");
        assert_eq!(written.gap(9, 3), 3, "the front of the next attempt");
        assert_eq!(written.gap(5, 999), 0, "an old attempt is not heard");
    }

    #[test]
    fn a_new_attempt_starts_from_nothing_and_an_old_one_is_not_heard() {
        let mut written = Written::default();
        assert_eq!(written.fresh(7, 0, b"first"), b"first");
        assert_eq!(written.fresh(9, 0, b"second"), b"second");
        assert_eq!(written.fresh(7, 5, b"late"), b"");
    }

    #[test]
    fn the_tail_adds_what_is_missing_and_says_what_nobody_has() {
        let written = Written { epoch: 7, next: 5 };
        assert_eq!(written.rest(7, b"hello world", 11), (&b" world"[..], 0));
        assert_eq!(written.rest(7, b"rld", 11), (&b"rld"[..], 3));
        assert_eq!(written.rest(7, b"hello", 5), (&b""[..], 0));
        assert_eq!(
            written.rest(9, b"hello", 5),
            (&b"hello"[..], 0),
            "nothing of that attempt came"
        );
        assert_eq!(
            Written { epoch: 7, next: 99 }.rest(7, b"x", 1),
            (&b""[..], 0)
        );
    }
}
