//! The journal's writer thread: it takes all records that wait, writes them with one call, flushes
//! once, and then says which are durable.
//!
//! While a flush runs the next batch gathers, so the slower the disk the more attempts share one
//! flush. A thread of its own, because a flush blocks. Records that nobody waits for (which process an
//! attempt became, that its verdict is settled) wake nobody: they go with the next batch, or by
//! themselves a little later.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use failpoint::Point;
use model::{Fence, Verdict};
use tokio::sync::mpsc::UnboundedSender;

use super::ledger::Recovered;
use super::record::{ProcessMark, Record};
use super::store::Store;
use crate::clock;
use crate::error::Error;

/// Records in one write: with the largest verdicts that is 32 MiB.
const BATCH_MAX: usize = 256;
/// How long a record that nobody waits for may wait for others.
const LINGER: Duration = Duration::from_millis(100);

/// What the writer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Durable {
    /// It may start now.
    Begun(Fence),
    /// It may be reported now.
    Ended(Fence),
    /// The disk failed. Nothing that was not said to be durable is.
    Failed(String),
}

/// A handle; the thread ends when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    news: Sender<News>,
    lingering: Lingering,
}

enum News {
    /// Somebody waits for it to be on disk.
    Record(Record),
    /// The first one lingers.
    Lingering,
}

/// Records that nobody waits for.
#[derive(Debug, Clone, Default)]
struct Lingering(Arc<Mutex<Vec<Record>>>);

impl Lingering {
    /// How many there are with this one.
    fn push(&self, record: Record) -> usize {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.push(record);
        records.len()
    }

    fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Journal {
    /// Opens the file and starts the thread, which tells `durable` in batches.
    pub fn open(
        path: &Path,
        durable: UnboundedSender<Vec<Durable>>,
    ) -> Result<(Journal, Recovered, JoinHandle<()>), Error> {
        let store = Store::open(path)?;
        let recovered = Recovered {
            incarnation: store.incarnation(),
            held: store.ledger().held.clone(),
            settled: store.ledger().settled().collect(),
        };
        let (news, waiting) = channel();
        let lingering = Lingering::default();
        let mut writer = Writer {
            store,
            lingering: lingering.clone(),
            durable,
        };
        let thread = thread::Builder::new()
            .name("journal".into())
            .spawn(move || while writer.serve(&waiting) {})
            .map_err(Error::Thread)?;
        Ok((Journal { news, lingering }, recovered, thread))
    }

    pub fn begun(&self, fence: Fence, attempt: u32) {
        self.write(Record::Begun {
            fence,
            attempt,
            at: clock::wall(),
        });
    }

    pub fn running(&self, fence: Fence, process: ProcessMark) {
        self.write(Record::Running { fence, process });
    }

    pub fn ended(&self, verdict: Verdict) {
        self.write(Record::Ended(verdict));
    }

    pub fn settled(&self, fence: Fence) {
        self.write(Record::Settled { fence });
    }

    fn write(&self, record: Record) {
        if record.must_sync() {
            self.tell(News::Record(record));
        } else if self.lingering.push(record) == 1 {
            self.tell(News::Lingering);
        }
    }

    fn tell(&self, news: News) {
        // The thread is gone only after it said `Failed`, which ends the agent.
        if self.news.send(news).is_err() {
            tracing::debug!("the journal is closed");
        }
    }
}

struct Writer {
    store: Store,
    lingering: Lingering,
    durable: UnboundedSender<Vec<Durable>>,
}

impl Writer {
    /// Writes one batch; whether there may be another one.
    fn serve(&mut self, waiting: &Receiver<News>) -> bool {
        let (first, open) = match waiting.recv() {
            Ok(News::Record(record)) => (Some(record), true),
            Ok(News::Lingering) => next_record(waiting),
            Err(_) => (None, false),
        };
        let more = waiting.try_iter().filter_map(|news| match news {
            News::Record(record) => Some(record),
            News::Lingering => None,
        });
        let waited_for: Vec<Record> = match first {
            Some(first) => std::iter::once(first)
                .chain(more.take(BATCH_MAX - 1))
                .collect(),
            None => Vec::new(),
        };
        // Only now: the news of those that linger is taken with the others.
        let mut lingering = self.lingering.take();
        // Where its end is known by now, which process it was is of no use.
        let ended: HashSet<Fence> = waited_for.iter().filter_map(ended).collect();
        lingering.retain(
            |record| !matches!(record, Record::Running { fence, .. } if ended.contains(fence)),
        );
        // Behind the others, for each follows one that was waited for.
        let mut batch = waited_for;
        batch.extend(lingering);
        self.write(&batch) && open
    }

    /// Whether the disk still takes records, and somebody wants to know.
    fn write(&mut self, batch: &[Record]) -> bool {
        let written = self.store.append(batch).and_then(|()| {
            if batch.iter().any(Record::must_sync) {
                self.store.sync()?;
            }
            Ok(())
        });
        if let Err(error) = written {
            return self.fail(&error);
        }
        for record in batch {
            match record {
                Record::Begun { .. } => failpoint::at(Point::StartBefore),
                Record::Ended(_) => failpoint::at(Point::ReportBefore),
                Record::Opened { .. } | Record::Running { .. } | Record::Settled { .. } => {}
            }
        }
        let told: Vec<Durable> = batch.iter().filter_map(told).collect();
        if !told.is_empty() && self.durable.send(told).is_err() {
            return false;
        }
        // Only then: nobody waits for it, and it may take long.
        match self.store.compact() {
            Ok(()) => true,
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&self, error: &io::Error) -> bool {
        let failed = Durable::Failed(error.to_string());
        // Whoever is not there any more needs no journal either.
        if self.durable.send(vec![failed]).is_err() {
            tracing::warn!(%error, "the journal failed at the end");
        }
        false
    }
}

/// The next record that somebody waits for, if one comes before those that linger have to go; and
/// whether others may come.
fn next_record(waiting: &Receiver<News>) -> (Option<Record>, bool) {
    let until = Instant::now() + LINGER;
    loop {
        match waiting.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(News::Record(record)) => return (Some(record), true),
            Ok(News::Lingering) => {}
            Err(RecvTimeoutError::Timeout) => return (None, true),
            Err(RecvTimeoutError::Disconnected) => return (None, false),
        }
    }
}

fn ended(record: &Record) -> Option<Fence> {
    match record {
        Record::Ended(verdict) => Some(verdict.fence),
        Record::Opened { .. }
        | Record::Begun { .. }
        | Record::Running { .. }
        | Record::Settled { .. } => None,
    }
}

fn told(record: &Record) -> Option<Durable> {
    match record {
        Record::Begun { fence, .. } => Some(Durable::Begun(*fence)),
        Record::Ended(verdict) => Some(Durable::Ended(verdict.fence)),
        Record::Opened { .. } | Record::Running { .. } | Record::Settled { .. } => None,
    }
}
