//! An agent that runs nothing: it speaks the real session protocol, over TLS, with every controller, and
//! reports each attempt as ended the moment it is assigned, or when a test says so.
//!
//! It is there to load the controllers with nothing else in the way, and to be the liar that a real agent
//! never is. It keeps to the protocol: leaders are told apart by (generation, term), a lease has to be
//! confirmed before anything is taken up, verdicts are repeated until acknowledged, a known attempt is
//! never taken twice. What it leaves out is the disk: its journal is in memory.

mod fleet;
mod protocol;
mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use security::Credentials;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use wire::v1;

pub use fleet::Fleet;
pub use protocol::{Counts, Journal, Key, Profile, exited};

use crate::{Error, cluster, wait};

/// Whether it answers an assignment by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conduct {
    /// With success, at once.
    AtOnce,
    /// Only through [`BenchAgent::report`].
    WhenTold,
}

/// A connected agent; it goes silent when this is dropped.
#[derive(Debug)]
pub struct BenchAgent {
    journal: Arc<Mutex<Journal>>,
    // Told of what is to be said; a session that is busy meanwhile sees it afterwards.
    changed: watch::Sender<()>,
    assigned: mpsc::UnboundedReceiver<v1::Assign>,
    // Aborts the sessions when it goes.
    sessions: JoinSet<()>,
}

impl BenchAgent {
    /// Opens a session with each controller. `credentials` name the agent.
    pub fn start(
        credentials: &Credentials,
        controllers: &[String],
        slots: u32,
        conduct: Conduct,
    ) -> Result<BenchAgent, Error> {
        let turns = Arc::new(Semaphore::new(controllers.len()));
        BenchAgent::start_by_turns(credentials, controllers, slots, conduct, &turns)
    }

    /// The same; sessions are opened only by turns, which it may share with other agents.
    fn start_by_turns(
        credentials: &Credentials,
        controllers: &[String],
        slots: u32,
        conduct: Conduct,
        turns: &Arc<Semaphore>,
    ) -> Result<BenchAgent, Error> {
        let tls = cluster::grpc_tls(credentials)?;
        let profile = Profile {
            agent: credentials.identity().id().to_owned(),
            incarnation: *uuid::Uuid::new_v4().as_bytes(),
            slots,
        };
        let (tell, assigned) = mpsc::unbounded_channel();
        let journal = Arc::new(Mutex::new(Journal::new(profile, conduct, tell)));
        let changed = watch::Sender::new(());
        let mut sessions = JoinSet::new();
        for (number, address) in controllers.iter().enumerate() {
            let (journal, changed) = (Arc::clone(&journal), changed.subscribe());
            let (channel, turns) = (cluster::channel(address, &tls), Arc::clone(turns));
            sessions.spawn(session::keep_up(number, channel, turns, journal, changed));
        }
        Ok(BenchAgent {
            journal,
            changed,
            assigned,
            sessions,
        })
    }

    /// Waits until the leader has confirmed its lease: from now on it is given work.
    pub async fn until_leased(&self, limit: Duration) -> Result<(), Error> {
        wait::until_now("the lease of a bench agent", limit, || {
            let journal = lock(&self.journal);
            match journal.has_lease(Instant::now()) {
                true => Ok(()),
                false => Err(journal.describe()),
            }
        })
        .await
    }

    /// The next attempt that it was given.
    pub async fn assigned(&mut self, limit: Duration) -> Result<v1::Assign, Error> {
        let next = tokio::time::timeout(limit, self.assigned.recv()).await;
        next.ok().flatten().ok_or_else(|| Error::Timeout {
            what: "an assignment".to_owned(),
            waited: limit,
            last: lock(&self.journal).describe(),
        })
    }

    /// Puts a verdict into the outbox, true or not: it is sent until it is acknowledged.
    pub fn report(&self, fence: v1::Fence, outcome: v1::Outcome) {
        lock(&self.journal).report(fence, outcome);
        self.changed.send_replace(());
    }

    /// No renewal and no status from now on, and nothing is sent; its sessions stay open.
    pub fn fall_silent(&self) {
        lock(&self.journal).set_silent(true);
    }

    /// The end of that.
    pub fn speak_again(&self) {
        lock(&self.journal).set_silent(false);
        self.changed.send_replace(());
    }

    /// What became of its verdicts, as far as acknowledged; the first answer counts.
    pub fn dispositions(&self) -> BTreeMap<Key, v1::Disposition> {
        lock(&self.journal).dispositions().clone()
    }

    /// Waits for the answer to a verdict.
    pub async fn disposition(
        &self,
        fence: v1::Fence,
        limit: Duration,
    ) -> Result<v1::Disposition, Error> {
        wait::until_now("the acknowledgement of a verdict", limit, || {
            let journal = lock(&self.journal);
            let known = journal.dispositions().get(&Key::from(&fence)).copied();
            known.ok_or_else(|| journal.describe())
        })
        .await
    }

    /// Whether a leader of a term above `term` has confirmed its lease, so that it is given work by it.
    pub fn is_leased_after(&self, term: u64) -> Result<(), String> {
        let journal = lock(&self.journal);
        match journal.has_lease(Instant::now()) && journal.leased_in() > term {
            true => Ok(()),
            false => Err(journal.describe()),
        }
    }

    /// Whether it has a session with so many controllers.
    pub fn has_sessions(&self, wanted: usize) -> Result<(), String> {
        let journal = lock(&self.journal);
        match journal.open_sessions() >= wanted {
            true => Ok(()),
            false => Err(journal.describe()),
        }
    }

    /// Whether its lease was confirmed so often.
    pub fn has_renewed(&self, times: u64) -> Result<(), String> {
        let journal = lock(&self.journal);
        match journal.counts().renewed >= times {
            true => Ok(()),
            false => Err(journal.describe()),
        }
    }

    /// Every attempt that it took up.
    pub fn taken(&self) -> Vec<Key> {
        lock(&self.journal).taken().collect()
    }

    pub fn counts(&self) -> Counts {
        lock(&self.journal).counts()
    }

    /// Whether any session still runs; they run until this value is dropped.
    pub fn is_running(&self) -> bool {
        !self.sessions.is_empty()
    }
}

/// A panic in between leaves a journal that is whole: each change is one call.
fn lock(journal: &Mutex<Journal>) -> std::sync::MutexGuard<'_, Journal> {
    journal.lock().unwrap_or_else(PoisonError::into_inner)
}
