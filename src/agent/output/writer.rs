//! The thread that writes output to the disk.
//!
//! One for all attempts, and none of those that supervise them: a disk that hangs then holds up
//! nothing but itself. A stream of which the disk lacks something waits in a queue, once; the thread
//! takes a chunk of it from memory, writes it, and lets it wait again if there is more, so that a
//! task that writes without end does not keep the others from the disk. What waits is in memory
//! anyway, so the queue costs a few words for each stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::Stream;
use super::attempt::AttemptLog;
use crate::error::Error;

/// A handle; the thread ends when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    due: Sender<Due>,
}

/// A stream of which the disk lacks something.
#[derive(Debug)]
struct Due {
    log: Arc<AttemptLog>,
    stream: Stream,
}

/// Whether the disk has all of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    Nothing,
    More,
}

impl Writer {
    pub fn start() -> Result<Writer, Error> {
        let (due, waiting) = channel();
        thread::Builder::new()
            .name("output".into())
            .spawn(move || serve(&waiting))
            .map_err(Error::Thread)?;
        Ok(Writer { due })
    }

    /// To be called once until the stream lacks nothing.
    pub(super) fn write(&self, log: Arc<AttemptLog>, stream: Stream) {
        if self.due.send(Due { log, stream }).is_err() {
            tracing::error!("the thread that writes output is gone");
        }
    }
}

fn serve(waiting: &Receiver<Due>) {
    let mut queue = VecDeque::new();
    while let Some(due) = queue.pop_front().or_else(|| waiting.recv().ok()) {
        let Due { log, stream } = due;
        let lack = log.store(stream);
        queue.extend(waiting.try_iter());
        if lack == Lack::More {
            queue.push_back(Due { log, stream });
        }
    }
}
