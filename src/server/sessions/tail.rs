//! Output on its way from an agent to one reader of logs, through a session that must not wait.
//!
//! A reader has a bounded buffer. If it is full the tail ends with [`Ended::SlowReader`], and the
//! agent is told to stop; the agent keeps the bytes, so the reader may go on from its offset with
//! a new tail once it has emptied its buffer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::mpsc;
use wire::v1;

use super::session::Session;
use crate::limit;

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// That was all.
    Complete,
    /// The agent does not have it (any more).
    Gone,
    /// The reader was too slow; it may ask again from where it is.
    SlowReader,
    /// The session with the agent ended.
    Disconnected,
}

/// What a reader gets.
#[derive(Debug)]
pub enum Next {
    Chunk(v1::Output),
    End(Ended),
}

#[derive(Debug)]
struct Sink {
    chunks: mpsc::Sender<v1::Output>,
    ended: Arc<OnceLock<Ended>>,
}

impl Sink {
    /// The reader finds the reason once it has read what is buffered.
    fn end(self, why: Ended) {
        // Only whoever removed the sink from the table comes here, so it is not set yet.
        let _already_set = self.ended.set(why);
    }
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    open: HashMap<u64, Sink>,
    closed: bool,
}

/// The open tails of one session.
#[derive(Debug, Default)]
pub struct Tails(Mutex<Table>);

/// The reader's end.
#[derive(Debug)]
pub struct Tail {
    id: u64,
    session: Arc<Session>,
    chunks: mpsc::Receiver<v1::Output>,
    ended: Arc<OnceLock<Ended>>,
}

impl Tail {
    pub async fn next(&mut self) -> Next {
        match self.chunks.recv().await {
            Some(chunk) => Next::Chunk(chunk),
            None => Next::End(self.ended.get().copied().unwrap_or(Ended::Disconnected)),
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if self.session.tails().remove(self.id).is_some() {
            self.session.untail(self.id);
        }
    }
}

impl Tails {
    /// A new tail's number and reader; nothing where the session has ended or has too many.
    pub(super) fn open(&self, session: &Arc<Session>) -> Option<(u64, Tail)> {
        let mut table = self.table();
        if table.closed || table.open.len() >= limit::TAILS_PER_SESSION {
            return None;
        }
        table.last += 1;
        let id = table.last;
        let (sender, chunks) = mpsc::channel(limit::CHUNKS);
        let ended = Arc::new(OnceLock::new());
        table.open.insert(
            id,
            Sink {
                chunks: sender,
                ended: Arc::clone(&ended),
            },
        );
        Some((
            id,
            Tail {
                id,
                session: Arc::clone(session),
                chunks,
                ended,
            },
        ))
    }

    /// Passes a chunk on. True where the agent has to be told to stop.
    pub(super) fn route(&self, output: v1::Output) -> bool {
        let mut table = self.table();
        let id = output.id;
        let Some(sink) = table.open.get(&id) else {
            // Its reader left; the agent was told then.
            return false;
        };
        let end = match (output.gone, output.end) {
            (true, _) => Some(Ended::Gone),
            (false, true) => Some(Ended::Complete),
            (false, false) => None,
        };
        let sent = output.data.is_empty() || sink.chunks.try_send(output).is_ok();
        let why = if sent { end } else { Some(Ended::SlowReader) };
        if let Some(why) = why
            && let Some(sink) = table.open.remove(&id)
        {
            sink.end(why);
        }
        why == Some(Ended::SlowReader) && end.is_none()
    }

    /// The session ended, and with it all its tails.
    pub(super) fn close(&self) {
        let mut table = self.table();
        table.closed = true;
        for (_, sink) in table.open.drain() {
            sink.end(Ended::Disconnected);
        }
    }

    fn remove(&self, id: u64) -> Option<()> {
        self.table().open.remove(&id).map(drop)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sessions::session::tests::session;

    fn chunk(id: u64, end: bool, gone: bool) -> v1::Output {
        v1::Output {
            id,
            offset: 0,
            data: vec![b'x'; 4].into(),
            end,
            gone,
        }
    }

    #[tokio::test]
    async fn a_tail_gets_its_own_chunks_and_then_the_reason_of_its_end() {
        let (session, _frames) = session();
        let (first, mut reader) = session.tails().open(&session).unwrap();
        let (second, _other) = session.tails().open(&session).unwrap();
        assert!(!session.tails().route(chunk(second, false, false)));
        assert!(!session.tails().route(chunk(first, true, false)));
        assert!(matches!(reader.next().await, Next::Chunk(output) if output.id == first));
        assert!(matches!(reader.next().await, Next::End(Ended::Complete)));
    }

    #[tokio::test]
    async fn a_slow_reader_loses_its_tail_and_keeps_what_was_buffered() {
        let (session, _frames) = session();
        let (id, mut reader) = session.tails().open(&session).unwrap();
        for _ in 0..limit::CHUNKS {
            assert!(!session.tails().route(chunk(id, false, false)));
        }
        assert!(
            session.tails().route(chunk(id, false, false)),
            "the agent has to stop"
        );
        assert!(
            !session.tails().route(chunk(id, false, false)),
            "and was told once"
        );
        for _ in 0..limit::CHUNKS {
            assert!(matches!(reader.next().await, Next::Chunk(_)));
        }
        assert!(matches!(reader.next().await, Next::End(Ended::SlowReader)));
    }

    #[tokio::test]
    async fn the_end_of_a_session_ends_its_tails_and_opens_no_more() {
        let (session, _frames) = session();
        let (_, mut reader) = session.tails().open(&session).unwrap();
        session.tails().close();
        assert!(matches!(
            reader.next().await,
            Next::End(Ended::Disconnected)
        ));
        assert!(session.tails().open(&session).is_none());
    }
}
