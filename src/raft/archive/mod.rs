//! The archive: finished tasks and events, in segments on disk.
//!
//! ```text
//!  apply ──steps──► queue ──► writer's thread ──► segment files ──► retention removes whole ones
//!                                                      └──► reads, and controllers that lack a segment
//! ```
//!
//! What goes where is decided by the log (`model::ArchiveStep`); here it is kept. A segment is a file
//! that is only appended to (`frame`), with an index behind it once it is complete (`index`), and has the same bytes
//! on every controller. Nothing waits for the writer but a snapshot, which is about to replace the entries that the
//! records follow from, and a reader, who finds all that the state that it looks at has archived.
//!
//! One thread writes (`writer`), and says what is where (`catalog`). What is named by the state and
//! is not here as it should be comes from another controller (`network::segments`).

mod catalog;
mod files;
mod frame;
mod incoming;
mod index;
pub mod need;
mod read;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};

use model::{ArchiveStep, Record, State};
use mutant::Mutant;
use tokio::sync::Notify;

use self::catalog::Shared;
use self::need::Need;
use self::writer::Writer;
use crate::error::with_next_step;
use crate::fatal::FatalSignal;
use crate::sync::lock;

pub use self::incoming::Incoming;
pub use self::read::{EventsAt, EventsPage};

/// Bytes of records that may wait while the disk is slow, before apply waits for it.
const WAITING_BYTES: usize = 64 << 20;

/// Looks at one record; may end the scan.
pub type Visit<'v> = dyn FnMut(Record) -> io::Result<ControlFlow<()>> + 'v;

pub struct Archive {
    shared: Arc<Shared>,
    way: Way,
    /// Something is lost that was not before.
    lost: Notify,
}

/// Who writes.
enum Way {
    Thread {
        orders: mpsc::Sender<Order>,
        thread: Mutex<Option<JoinHandle<()>>>,
    },
    /// A simulation has but one thread.
    InPlace(Mutex<Writer>),
}

/// Something for the writer to do, one after the other.
enum Order {
    Append {
        steps: Vec<ArchiveStep>,
        upto: u64,
        bytes: usize,
    },
    Do(Box<Task>, mpsc::SyncSender<io::Result<()>>),
    End,
}

type Task = dyn FnOnce(&mut Writer) -> io::Result<()> + Send;

impl Archive {
    /// Opens the archive of a member; [`Archive::settle`] says what is to be in it.
    pub fn open(data: &Path, fatal: FatalSignal) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::new(data.join("archive")));
        durable::create_dir(&shared.dir)?;
        let (orders, queue) = mpsc::channel();
        let (writer, ends) = (Writer::new(shared.clone()), shared.clone());
        let thread = thread::Builder::new()
            .name("quorate-archive".to_owned())
            .spawn(move || {
                let served = catch_unwind(AssertUnwindSafe(|| serve(writer, &ends, &queue)));
                let reason = match &served {
                    Ok(Ok(())) => "the archive is closed".to_owned(),
                    Ok(Err(error)) => format!("the archive can't be written: {}", told(error)),
                    Err(_) => "the archive's writer panicked; this is a defect".to_owned(),
                };
                if !matches!(served, Ok(Ok(()))) {
                    fatal.raise(&reason);
                }
                ends.change(|catalog| catalog.ended = Some(reason));
            })?;
        let way = Way::Thread {
            orders,
            thread: Mutex::new(Some(thread)),
        };
        Ok(Arc::new(Self::new(shared, way)))
    }

    /// The same without a thread.
    pub fn open_inline(data: &Path) -> io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::new(data.join("archive")));
        durable::create_dir(&shared.dir)?;
        let way = Way::InPlace(Mutex::new(Writer::new(shared.clone())));
        Ok(Arc::new(Self::new(shared, way)))
    }

    fn new(shared: Arc<Shared>, way: Way) -> Self {
        Self {
            shared,
            way,
            lost: Notify::new(),
        }
    }

    /// What entries did, up to the one at `upto`: called before their view is published. Does not wait for the disk.
    pub fn take(&self, mut steps: Vec<ArchiveStep>, upto: u64) -> io::Result<()> {
        if mutant::is(Mutant::ArchiveLosesTasks) && upto.is_multiple_of(7) {
            for step in &mut steps {
                step.records.clear();
            }
        }
        let records = steps.iter().flat_map(|step| &step.records);
        let bytes = records.map(|record| record.bytes.len()).sum();
        match &self.way {
            Way::InPlace(writer) => lock(writer).append(&steps, upto),
            Way::Thread { orders, .. } => {
                self.shared.waiting.fetch_add(bytes, Ordering::Relaxed);
                let order = Order::Append { steps, upto, bytes };
                orders.send(order).map_err(|_| closed())
            }
        }
    }

    /// Whether so much waits that apply should wait, too.
    pub fn is_behind(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) > WAITING_BYTES
    }

    /// Until that is no longer so. Blocks.
    pub fn catch_up(&self) -> io::Result<()> {
        self.shared.wait(|_| !self.is_behind())
    }

    /// When it returns, all that was taken before the call survives a power cut. Blocks.
    pub fn flush(&self) -> io::Result<()> {
        self.order(Writer::sync)
    }

    /// The log goes on from this state. Blocks.
    pub fn settle(&self, state: &State) -> io::Result<()> {
        let needs = Need::of(state);
        let (upto, kept_from) = (state.last_applied(), state.archived_from());
        self.order(move |writer| writer.settle(&needs, upto, kept_from))?;
        self.lost.notify_one();
        Ok(())
    }

    /// Those of a state's segments that have to come from another controller.
    pub fn lacks(&self, state: &State) -> Vec<Need> {
        self.shared.look(|catalog| catalog.lacks(&Need::of(state)))
    }

    /// Until something may be lacking.
    pub async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Those that are not here, for a state that is not here yet. Blocks.
    pub fn missing(&self, needs: &[Need]) -> io::Result<Vec<Need>> {
        // What was taken counts.
        self.flush()?;
        let dir = &self.shared.dir;
        let mut missing = Vec::new();
        for need in needs {
            let here = files::has(&self.shared.path(need.first), need)?
                || files::has(&catalog::fetched(dir, need.first), need)?;
            if !here {
                missing.push(need.clone());
            }
        }
        Ok(missing)
    }

    /// Begins to write a segment that comes from another controller.
    pub fn incoming(&self, need: &Need) -> io::Result<Incoming> {
        Incoming::new(&self.shared, need)
    }

    /// Takes one into use that came for the state of now. Blocks.
    pub fn adopt(&self, need: &Need) -> io::Result<()> {
        let need = need.clone();
        self.order(move |writer| writer.adopt(&need))
    }

    /// Calls `visit` with the records of a segment, in order, as another controller asked. Blocks.
    pub fn visit(&self, first: u64, end: u64, visit: &mut Visit<'_>) -> io::Result<()> {
        self.shared.wait(|catalog| catalog.written + 1 >= end)?;
        let (found, begin) = self.shared.open(first, |_| frame::BEGIN)?;
        self.scan(
            first,
            frame::Scan::new(found.file, begin, found.end)?,
            end,
            visit,
        )
    }

    fn scan(
        &self,
        first: u64,
        mut scan: frame::Scan,
        end: u64,
        visit: &mut Visit<'_>,
    ) -> io::Result<()> {
        while let Some(record) = self.sound(first, scan.next())? {
            if record.key.index >= end || visit(record)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// What was read of a segment; where it is damaged, another controller's takes its place.
    fn sound<T>(&self, first: u64, read: io::Result<T>) -> io::Result<T> {
        read.map_err(|error| {
            if !is_damage(&error) {
                return error;
            }
            let text = format!("segment {first} of the archive is damaged: {error}");
            tracing::error!("{text}; it is fetched from another controller");
            if self.order(move |writer| writer.damaged(first)).is_ok() {
                self.lost.notify_one();
            }
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    }

    fn order(
        &self,
        task: impl FnOnce(&mut Writer) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        match &self.way {
            Way::InPlace(writer) => task(&mut lock(writer)),
            Way::Thread { orders, .. } => {
                let (done, result) = mpsc::sync_channel(1);
                let order = Order::Do(Box::new(task), done);
                orders.send(order).map_err(|_| closed())?;
                result.recv().map_err(|_| closed())?
            }
        }
    }

    /// Writes what waits, syncs it, and ends the writer. Blocks.
    pub fn close(&self) {
        if let Way::Thread { thread, orders } = &self.way
            && let Some(thread) = lock(thread).take()
        {
            // It may have ended by itself; then it said why.
            self.flush().ok();
            orders.send(Order::End).ok();
            if thread.join().is_err() {
                tracing::error!("the archive was not closed in order");
            }
        }
    }
}

/// Reads a segment in a directory, in its place or where it came to, without changing anything. What is wrong with it is
/// told of the file in its place.
pub fn verify(dir: &Path, need: &Need) -> Result<(), (PathBuf, io::Error)> {
    let path = dir.join(catalog::name(need.first));
    let came = catalog::fetched(dir, need.first);
    match files::verify(&path, need) {
        Err(_) if files::verify(&came, need).is_ok() => Ok(()),
        verified => verified.map_err(|error| (path, error)),
    }
}

/// Does what is ordered until the end. So is an error: what a failed write left on the disk is looked at by the next
/// start.
fn serve(mut writer: Writer, shared: &Shared, queue: &mpsc::Receiver<Order>) -> io::Result<()> {
    while let Ok(order) = queue.recv() {
        match order {
            Order::Append { steps, upto, bytes } => {
                writer.append(&steps, upto)?;
                shared.waiting.fetch_sub(bytes, Ordering::Relaxed);
                // Who waits for room looks again.
                shared.change(|_| ());
            }
            Order::Do(task, done) => {
                let result = task(&mut writer);
                let failed = result
                    .as_ref()
                    .map_err(|error| io::Error::new(error.kind(), error.to_string()))
                    .err();
                // Who asked may be gone.
                done.send(result).ok();
                if let Some(error) = failed {
                    return Err(error);
                }
            }
            Order::End => break,
        }
    }
    Ok(())
}

/// Another controller's copy is better than this one.
fn is_damage(error: &io::Error) -> bool {
    let unreadable = error.raw_os_error() == Some(nix::libc::EIO);
    unreadable
        || matches!(
            error.kind(),
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
        )
}

/// What happened, and the next step where the error does not say it itself.
fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::InvalidData => error.to_string(),
        _ => with_next_step(error),
    }
}

fn closed() -> io::Error {
    io::Error::other("the archive's writer has ended")
}
