//! The journal's writer thread: it takes all records that wait, writes them with one call, flushes
//! once, and then says which are durable.
//!
//! While a flush runs the next batch gathers, so the slower the disk the more attempts share one
//! flush. A thread of its own, because a flush blocks.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use model::{Fence, Verdict};
use tokio::sync::mpsc::UnboundedSender;

use super::ledger::Recovered;
use super::record::{ProcessMark, Record};
use super::store::Store;
use crate::clock;
use crate::error::Error;

/// Records in one write: with the largest verdicts that is 32 MiB.
const BATCH_MAX: usize = 256;

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
    records: Sender<Record>,
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
        let (records, waiting) = channel();
        let thread = thread::Builder::new()
            .name("journal".into())
            .spawn(move || serve(store, &waiting, &durable))
            .map_err(Error::Thread)?;
        Ok((Journal { records }, recovered, thread))
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
        // The thread is gone only after it said `Failed`, which ends the agent.
        if self.records.send(record).is_err() {
            tracing::debug!("the journal is closed");
        }
    }
}

fn serve(mut store: Store, waiting: &Receiver<Record>, durable: &UnboundedSender<Vec<Durable>>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    while let Ok(first) = waiting.recv() {
        batch.clear();
        batch.push(first);
        batch.extend(waiting.try_iter().take(BATCH_MAX - 1));
        let told = match write(&mut store, &batch) {
            Ok(()) => batch.iter().filter_map(told).collect(),
            Err(error) => vec![Durable::Failed(error.to_string())],
        };
        let failed = matches!(told.first(), Some(Durable::Failed(_)));
        if !told.is_empty() && durable.send(told).is_err() || failed {
            return;
        }
    }
}

fn write(store: &mut Store, batch: &[Record]) -> io::Result<()> {
    store.append(batch)?;
    if batch.iter().any(Record::must_sync) {
        store.sync()?;
    }
    store.compact()
}

fn told(record: &Record) -> Option<Durable> {
    match record {
        Record::Begun { fence, .. } => Some(Durable::Begun(*fence)),
        Record::Ended(verdict) => Some(Durable::Ended(verdict.fence)),
        Record::Opened { .. } | Record::Running { .. } | Record::Settled { .. } => None,
    }
}
