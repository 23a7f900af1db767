//! A task's output as it appears, each byte once, across reconnects, failovers and further attempts.
//!
//! Chunks carry the attempt's epoch and their offset. Whatever is asked for again after a break is
//! compared with what was written already; a new epoch starts from nothing. What the stream could not
//! give in the end is taken from the tails that are kept with the result. What counts as written is on
//! its way to our own stdout or stderr (`output::Outlet`), which is waited for at the end.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use wire::v1::{self, OutputStream};

use crate::client::Connection;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{Meter, Outlet, Target};

/// Between two tries to reach a log that was cut off.
const PAUSE: Duration = Duration::from_millis(200);
/// Tries in a row without a byte, before it is said that there is no way to the log.
const TRIES: u32 = 50;

/// How far to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What there is now.
    SoFar,
    /// Until the task has ended.
    ToTheEnd,
}

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

type Chunks = BoxStream<'static, Result<v1::LogChunk>>;

/// One reader of one task's output.
pub struct Follow<'a> {
    cluster: &'a Connection,
    id: u64,
    show: Show,
    stdout: Written,
    stderr: Written,
    said_tail_only: bool,
    out: Outlet,
}

impl<'a> Follow<'a> {
    pub fn new(cluster: &'a Connection, id: u64, show: Show) -> Result<Follow<'a>> {
        Ok(Follow {
            cluster,
            id,
            show,
            stdout: Written::default(),
            stderr: Written::default(),
            said_tail_only: false,
            out: Outlet::open()?,
        })
    }

    /// Whether anything comes of it, for one who waits beside [`Follow::read`].
    pub fn meter(&self) -> Meter {
        self.out.meter()
    }

    /// Waits until all that came is written.
    pub async fn finish(self) -> Result<()> {
        self.out.finish().await
    }

    /// Writes what comes, and goes on after breaks.
    pub async fn read(&mut self, extent: Extent, tail: Option<u32>) -> Result<()> {
        let mut tail = tail;
        let mut failures = 0;
        loop {
            let before = (self.stdout.next, self.stderr.next);
            let failure = match self.open(extent, tail).await {
                Ok(chunks) => match self.drain(chunks, tail).await {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                },
                // The client has gone from controller to controller until its patience ended.
                Err(failure) if extent == Extent::SoFar => return Err(failure),
                Err(failure) => failure,
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

    async fn open(&self, extent: Extent, tail: Option<u32>) -> Result<Chunks> {
        let stream = match self.show {
            Show::Both => OutputStream::Unspecified,
            Show::Stderr => OutputStream::Stderr,
        };
        let request = v1::LogsRequest {
            id: self.id,
            stream: stream.into(),
            follow: extent == Extent::ToTheEnd,
            tail,
            offset: 0,
        };
        self.cluster.logs(&request).await
    }

    /// Writes what one stream of chunks gives.
    async fn drain(&mut self, mut chunks: Chunks, tail: Option<u32>) -> Result<()> {
        loop {
            tokio::select! {
                chunk = chunks.next() => match chunk {
                    Some(chunk) => self.write(&chunk?, tail).await?,
                    None => return Ok(()),
                },
                // The next chunk may be long in coming.
                failure = self.out.failed() => return Err(failure),
            }
        }
    }

    /// `tail`: the last lines that were asked for; what lies before those is not missed.
    async fn write(&mut self, chunk: &v1::LogChunk, tail: Option<u32>) -> Result<()> {
        let target = target(chunk.stream(), self.show)?;
        if chunk.tail_only && !self.said_tail_only {
            self.said_tail_only = true;
            self.out.note(tail_only(self.id)).await?;
        }
        let written = match chunk.stream() {
            OutputStream::Stderr => &mut self.stderr,
            OutputStream::Stdout | OutputStream::Unspecified => &mut self.stdout,
        };
        let lost = written.gap(chunk.epoch, chunk.offset);
        if lost > 0 && tail.is_none() && !chunk.tail_only && !chunk.data.is_empty() {
            let text = format!("{lost} bytes of output are no longer kept");
            self.out.note(text).await?;
        }
        // The place comes first: whoever gives this up while it waits has not lost a byte.
        let place = self.out.place().await?;
        let fresh = written.fresh(chunk.epoch, chunk.offset, &chunk.data);
        if !fresh.is_empty() {
            place.put(target, fresh);
        }
        Ok(())
    }

    /// Adds from the task's result what the stream did not bring.
    pub async fn complete(&mut self, task: &v1::Task) -> Result<()> {
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
                let id = model::TaskId(self.id);
                let text = format!(
                    "{lost} bytes of output did not arrive; `quorate task logs {id}` may have them"
                );
                self.out.note(text).await?;
            }
            if !rest.is_empty() {
                let target = target(stream, self.show)?;
                self.out.place().await?.put(target, rest);
            }
        }
        Ok(())
    }
}

fn tail_only(id: u64) -> String {
    let id = model::TaskId(id);
    format!("only the end of {id}'s output is left, as kept with its result")
}

fn target(stream: OutputStream, show: Show) -> Result<Target> {
    match (stream, show) {
        (OutputStream::Stderr, Show::Both) => Ok(Target::Stderr),
        (OutputStream::Stderr, Show::Stderr)
        | (OutputStream::Stdout | OutputStream::Unspecified, Show::Both) => Ok(Target::Stdout),
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
