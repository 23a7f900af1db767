//! The one thread that writes the log, and its queue.
//!
//! It takes what it finds in the queue, up to a cap, as one group: while it waits for the disk the next
//! group gathers by itself, which is all that group commit is. A plain thread and channel: it blocks on
//! the disk nearly all of the time.
//!
//! A simulation runs the same journal in place of the thread, in [`Steps`], between which time passes, and after
//! which a crash may come.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use mutant::Mutant;
use tokio::sync::Notify;

use super::journal::{Change, Journal, Write};
use crate::blocking::Blocking;
use crate::sync::lock;

/// Caps of one group: above them a sync takes long enough to delay those behind it.
const GROUP_ENTRIES: usize = 4096;
const GROUP_BYTES: usize = 4 << 20;

pub enum Writer {
    Thread {
        queue: Mutex<Option<Sender<Write>>>,
        thread: Mutex<Option<JoinHandle<()>>>,
    },
    Stepped(Arc<Steps>),
}

/// The writer's work in the hands of a simulation, group by group. What was queued and not written is lost
/// with it, as in a crash.
pub struct Steps {
    queue: Mutex<Vec<Write>>,
    queued: Notify,
    journal: Mutex<Journal>,
}

impl Steps {
    fn new(journal: Journal) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::default(),
            queued: Notify::new(),
            journal: Mutex::new(journal),
        })
    }

    /// Until something is queued.
    pub async fn queued(&self) {
        while lock(&self.queue).is_empty() {
            self.queued.notified().await;
        }
    }

    /// Whether a vote is among it.
    pub fn has_vote(&self) -> bool {
        let queue = lock(&self.queue);
        queue
            .iter()
            .any(|write| matches!(write.change, Change::Vote(_)))
    }

    /// Makes all that is queued durable, and acknowledges it.
    pub fn write(&self) {
        let group = std::mem::take(&mut *lock(&self.queue));
        if !group.is_empty() {
            lock(&self.journal).write(group);
        }
    }

    fn submit(&self, write: Write) {
        lock(&self.queue).push(write);
        self.queued.notify_one();
    }
}

impl Writer {
    pub fn spawn(journal: Journal) -> io::Result<Self> {
        let (queue, writes) = channel();
        let thread = thread::Builder::new()
            .name("quorate-log".to_owned())
            .spawn(move || {
                let fatal = journal.fatal();
                let run = AssertUnwindSafe(|| run(journal, &writes));
                if panic::catch_unwind(run).is_err() {
                    fatal.raise("the log's writer panicked; this is a defect");
                }
            })?;
        Ok(Self::Thread {
            queue: Mutex::new(Some(queue)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// One without a thread, and the steps in which it is to write.
    pub fn stepped(journal: Journal) -> (Self, Arc<Steps>) {
        let steps = Steps::new(journal);
        (Self::Stepped(steps.clone()), steps)
    }

    /// Who reads beside it blocks in the same way.
    pub fn blocking(&self) -> Blocking {
        match self {
            Self::Thread { .. } => Blocking::OwnThread,
            Self::Stepped(_) => Blocking::InPlace,
        }
    }

    /// Queues a write. Its acknowledgement is called exactly once, also if the writer is gone.
    pub fn submit(&self, mut write: Write) {
        let early = match &write.change {
            Change::Append { .. } => mutant::is(Mutant::AckBeforeFsync),
            Change::Vote(_) => mutant::is(Mutant::VoteNotSynced),
            Change::Truncate { .. } | Change::Purge(_) | Change::Flush => false,
        };
        if early && let Some(ack) = write.ack.take() {
            ack(Ok(()));
        }
        let refused = match self {
            Self::Stepped(steps) => {
                steps.submit(write);
                None
            }
            Self::Thread { queue, .. } => match &*lock(queue) {
                Some(queue) => queue.send(write).err().map(|error| error.0),
                None => Some(write),
            },
        };
        if let Some(ack) = refused.and_then(|write| write.ack) {
            ack(Err(io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the log is closed",
            )));
        }
    }

    /// Writes what is queued and what rides along, then ends the thread and drops the engine.
    pub fn close(&self) {
        self.submit(Write {
            change: Change::Flush,
            ack: None,
        });
        let Self::Thread { queue, thread } = self else {
            return;
        };
        lock(queue).take();
        let thread = lock(thread).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the log's writer panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if matches!(self, Self::Thread { queue, .. } if lock(queue).is_some()) {
            self.close();
        }
    }
}

fn run(mut journal: Journal, writes: &Receiver<Write>) {
    while let Ok(first) = writes.recv() {
        let (mut entries, mut bytes) = (first.change.entries(), first.change.bytes());
        let mut group = vec![first];
        while entries < GROUP_ENTRIES && bytes < GROUP_BYTES {
            let Ok(write) = writes.try_recv() else { break };
            entries += write.change.entries();
            bytes += write.change.bytes();
            group.push(write);
        }
        journal.write(group);
    }
}
