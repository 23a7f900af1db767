//! A task's output on its way to our own stdout and stderr: written by a thread of its own, behind a
//! bounded queue.
//!
//! Whoever reads it may stop reading for as long as they like (`| less`), and a write then blocks. The
//! runtime has one thread, which must not block with it: there the keepalive is answered, and a
//! controller gives up a client that does not. So only those wait who have more to write.
//!
//! ```text
//! place().await ── room in the queue ─► put ─► thread: write, flush
//!       └───────── a write failed ────► that failure, from then on; or failed().await
//! ```
//!
//! Left out: the answers of commands, which come at the end, and have nobody waiting behind them.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{plain, put};
use crate::failure::{Failure, Result};

/// Pieces that may wait to be written, each a chunk of at most 64 KiB: enough that a reader who keeps up
/// never waits for the network, and little to lose when the command is interrupted.
const QUEUE_PIECES: usize = 16;

/// Where a piece of output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Stdout,
    Stderr,
}

#[derive(Debug)]
enum Piece {
    Output(Target, Vec<u8>),
    /// Of ours, on stderr, in its place among the output. If nobody listens, nobody needs to know.
    Note(String),
}

/// The way to our stdout and stderr.
#[derive(Debug)]
pub struct Outlet {
    pieces: mpsc::Sender<Piece>,
    failed: Arc<OnceLock<Failure>>,
    ended: oneshot::Receiver<()>,
    taken: Arc<AtomicU64>,
}

/// Room for one piece.
#[derive(Debug)]
pub struct Place<'a> {
    permit: mpsc::Permit<'a, Piece>,
    taken: &'a AtomicU64,
}

/// Sees from elsewhere whether an outlet is used.
#[derive(Debug)]
pub struct Meter {
    pieces: mpsc::WeakSender<Piece>,
    taken: Arc<AtomicU64>,
}

impl Outlet {
    /// To those of this process.
    pub fn open() -> Result<Outlet> {
        Outlet::to(io::stdout(), io::stderr())
    }

    /// The thread ends after the last piece, or at the first that could not be written. It is not waited
    /// for where the command is interrupted: a blocked write can't be called off, and ends with the process.
    fn to(
        stdout: impl Write + Send + 'static,
        stderr: impl Write + Send + 'static,
    ) -> Result<Outlet> {
        let (pieces, queue) = mpsc::channel(QUEUE_PIECES);
        let failed = Arc::new(OnceLock::new());
        let (ending, ended) = oneshot::channel();
        let failing = failed.clone();
        let work = move || {
            write_all(queue, stdout, stderr, &failing);
            // Nobody may be waiting.
            let _told = ending.send(());
        };
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(work)
            .map_err(|error| {
                Failure::refused("system", format!("cannot start a thread: {error}"), "")
            })?;
        Ok(Outlet {
            pieces,
            failed,
            ended,
            taken: Arc::default(),
        })
    }

    /// Waits until there is room. Given up meanwhile, nothing was written.
    pub async fn place(&self) -> Result<Place<'_>> {
        match self.pieces.reserve().await {
            Ok(permit) => Ok(Place {
                permit,
                taken: &self.taken,
            }),
            Err(_) => Err(self.failure()),
        }
    }

    pub async fn note(&self, text: String) -> Result<()> {
        self.place().await?.permit.send(Piece::Note(text));
        Ok(())
    }

    /// Waits until a write fails.
    pub async fn failed(&self) -> Failure {
        self.pieces.closed().await;
        self.failure()
    }

    pub fn meter(&self) -> Meter {
        Meter {
            pieces: self.pieces.downgrade(),
            taken: self.taken.clone(),
        }
    }

    /// Waits until everything is written.
    pub async fn finish(self) -> Result<()> {
        drop(self.pieces);
        // It says so at its end in any case.
        let _ended = self.ended.await;
        match self.failed.get() {
            Some(failure) => Err(failure.clone()),
            None => Ok(()),
        }
    }

    fn failure(&self) -> Failure {
        self.failed.get().cloned().unwrap_or_else(|| {
            Failure::refused("output", "what writes the output has ended", "try again")
        })
    }
}

impl Place<'_> {
    pub fn put(self, target: Target, bytes: &[u8]) {
        self.taken.fetch_add(1, Ordering::Relaxed);
        self.permit.send(Piece::Output(target, bytes.to_vec()));
    }
}

impl Meter {
    /// Ends once nothing was put in for this long, although there was room.
    pub async fn idle(&self, time: Duration) {
        loop {
            let before = self.taken.load(Ordering::Relaxed);
            tokio::time::sleep(time).await;
            let pieces = self.pieces.upgrade();
            let room = pieces.is_none_or(|pieces| pieces.capacity() > 0);
            if room && self.taken.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

/// The queue closes after the failure is known, so that whoever finds it closed finds the failure.
fn write_all(
    mut queue: mpsc::Receiver<Piece>,
    mut stdout: impl Write,
    mut stderr: impl Write,
    failed: &OnceLock<Failure>,
) {
    while let Some(piece) = queue.blocking_recv() {
        let written = match piece {
            Piece::Output(Target::Stdout, bytes) => put(&mut stdout, "stdout", &bytes),
            Piece::Output(Target::Stderr, bytes) => put(&mut stderr, "stderr", &bytes),
            Piece::Note(text) => {
                let _unheard = writeln!(stderr, "{}", plain(&text));
                Ok(())
            }
        };
        if let Err(failure) = written {
            // Only this thread sets it, and ends here.
            let _first = failed.set(failure);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc as blocking};

    use super::*;

    /// Far more than anything here takes.
    const SOON: Duration = Duration::from_secs(20);

    /// A pipe whose reader reads when the test says so.
    struct Pager {
        turns: blocking::Receiver<()>,
        read: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Pager {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let closed = |_| io::Error::from(io::ErrorKind::BrokenPipe);
            self.turns.recv().map_err(closed)?;
            self.read.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn pager() -> (Pager, blocking::Sender<()>, Arc<Mutex<Vec<u8>>>) {
        let (turn, turns) = blocking::channel();
        let read = Arc::new(Mutex::new(Vec::new()));
        let pager = Pager {
            turns,
            read: read.clone(),
        };
        (pager, turn, read)
    }

    async fn put_in(outlet: &Outlet, pieces: usize) -> Result<()> {
        for _ in 0..pieces {
            outlet.place().await?.put(Target::Stdout, b"x");
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_reader_that_stops_reading_holds_nothing_else_up() {
        let (pager, turn, read) = pager();
        let outlet = Outlet::to(pager, io::sink()).unwrap();
        let pieces = 3 * QUEUE_PIECES;
        let writing = async {
            put_in(&outlet, pieces).await.unwrap();
        };
        // What shares the thread with the writing goes on, and lets the reader go on in the end.
        let beside = async {
            for _ in 0..pieces {
                tokio::task::yield_now().await;
                turn.send(()).unwrap();
            }
        };
        let both = async { tokio::join!(writing, beside) };
        tokio::time::timeout(SOON, both).await.unwrap();
        outlet.finish().await.unwrap();
        assert_eq!(read.lock().unwrap().len(), pieces);
    }

    #[tokio::test]
    async fn a_reader_that_went_away_ends_the_writing_quietly() {
        let (pager, turn, _) = pager();
        let outlet = Outlet::to(pager, io::sink()).unwrap();
        drop(turn);
        put_in(&outlet, 1).await.unwrap();
        let noticed = tokio::time::timeout(SOON, outlet.failed()).await;
        assert_eq!(noticed.unwrap(), Failure::reader_gone());
        assert_eq!(put_in(&outlet, 1).await, Err(Failure::reader_gone()));
        assert_eq!(outlet.finish().await, Err(Failure::reader_gone()));
    }

    #[tokio::test]
    async fn time_in_which_the_reader_does_not_read_is_not_idle() {
        let (pager, turn, _) = pager();
        let outlet = Outlet::to(pager, io::sink()).unwrap();
        let meter = outlet.meter();
        // One is in the thread's hands, the others fill the queue.
        put_in(&outlet, QUEUE_PIECES + 1).await.unwrap();
        let moment = Duration::from_millis(20);
        let idle = tokio::time::timeout(10 * moment, meter.idle(moment));
        assert!(idle.await.is_err(), "the reader is waited for");
        drop(turn);
        tokio::time::timeout(SOON, meter.idle(moment))
            .await
            .unwrap();
    }
}
