//! Many bench agents in one process: each with a certificate of its own, and with its own connection and
//! session to every controller, as that many machines would have.
//!
//! What they share is the process: its processor time and its open files, of which three controllers take
//! three for each agent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use security::{Ca, Credentials, Identity, Role};
use tokio::sync::Semaphore;

use super::{BenchAgent, Conduct, Counts};
use crate::checkers::Execution;
use crate::cluster::{self, Cluster};
use crate::{Error, wait};

/// Sessions that are being opened at once. A thousand machines have a processor each for their side of a handshake, and
/// this process has one: were it to begin all at once, it would finish none of them in time.
const OPENING: usize = 64;
/// Files of the process beside the agents' connections: its own clients, threads and logs.
const OTHER_FILES: u64 = 256;

/// Connected agents that answer at once; they go silent when this is dropped.
#[derive(Debug)]
pub struct Fleet {
    agents: Vec<BenchAgent>,
}

impl Fleet {
    /// Starts `size` agents, `b1` and on, all at once. It does not wait for their sessions.
    pub async fn start(cluster: &Cluster, size: u32, slots: u32) -> Result<Fleet, Error> {
        let addresses = cluster.addresses()?;
        allow_files(u64::from(size) * addresses.len() as u64 + OTHER_FILES)?;
        let directory = cluster::authority_directory(&cluster.layout()?)?;
        // Keys by the thousand are seconds of work.
        let issued = tokio::task::spawn_blocking(move || {
            let ca = Ca::load(&directory)?;
            (1..=size).map(|number| issue(&ca, number)).collect()
        });
        let issued: Result<Vec<Credentials>, security::Error> = issued
            .await
            .map_err(|error| Error::Invalid(error.to_string()))?;
        let turns = Arc::new(Semaphore::new(OPENING));
        let start = |one: &Credentials| {
            BenchAgent::start_by_turns(one, &addresses, slots, Conduct::AtOnce, &turns)
        };
        let agents = issued?.iter().map(start).collect::<Result<_, Error>>()?;
        Ok(Fleet { agents })
    }

    pub fn len(&self) -> usize {
        self.agents.len()
    }

    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    /// Waits until a leader of a term above `term` has confirmed every lease; says how long that took.
    pub async fn until_leased_after(&self, term: u64, limit: Duration) -> Result<Duration, Error> {
        let what = format!("leases of {} agents after term {term}", self.len());
        self.until(&what, limit, |agent| agent.is_leased_after(term))
            .await
    }

    /// Waits until every agent has a session with so many controllers; says how long that took.
    pub async fn until_connected(&self, to: usize, limit: Duration) -> Result<Duration, Error> {
        let what = format!("sessions of {} agents with {to} controllers", self.len());
        self.until(&what, limit, |agent| agent.has_sessions(to))
            .await
    }

    /// Waits until the lease of each was confirmed `times` more.
    pub async fn until_renewed(&self, times: u64, limit: Duration) -> Result<Duration, Error> {
        let most = self.agents.iter().map(|agent| agent.counts().renewed).max();
        let wanted = most.unwrap_or_default() + times;
        let what = format!("{times} renewals by {} agents", self.len());
        self.until(&what, limit, |agent| agent.has_renewed(wanted))
            .await
    }

    async fn until(
        &self,
        what: &str,
        limit: Duration,
        holds: impl Fn(&BenchAgent) -> Result<(), String>,
    ) -> Result<Duration, Error> {
        let begun = Instant::now();
        wait::until_now(what, limit, || {
            let mut lacking = self.agents.iter().filter_map(|agent| holds(agent).err());
            match lacking.next() {
                None => Ok(()),
                Some(first) => Err(format!(
                    "{} lack it, one of them {first}",
                    1 + lacking.count()
                )),
            }
        })
        .await?;
        Ok(begun.elapsed())
    }

    /// Every attempt that any of them took up, as often as it was.
    pub fn executions(&self) -> Vec<Execution> {
        let taken = self.agents.iter().flat_map(BenchAgent::taken);
        taken
            .map(|key| Execution {
                task: key.task,
                epoch: key.epoch,
            })
            .collect()
    }

    /// Of all of them together.
    pub fn counts(&self) -> Counts {
        let counts = self.agents.iter().map(BenchAgent::counts);
        counts.fold(Counts::default(), |sum, one| Counts {
            assigned: sum.assigned + one.assigned,
            repeated: sum.repeated + one.repeated,
            cancelled: sum.cancelled + one.cancelled,
            acknowledged: sum.acknowledged + one.acknowledged,
            sessions: sum.sessions + one.sessions,
            renewed: sum.renewed + one.renewed,
        })
    }
}

fn issue(ca: &Ca, number: u32) -> Result<Credentials, security::Error> {
    let identity = Identity::new(ca.cluster(), Role::Agent, &format!("b{number}"))?;
    let issued = ca.issue(&identity, &[], security::CERTIFICATE_VALIDITY)?;
    Credentials::from_pem(ca.pem(), &issued.cert_pem, &issued.key_pem)
}

/// As many open files as the system lets us have; too few would look like a fault of the cluster.
fn allow_files(needed: u64) -> Result<(), Error> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)
        .map_err(|errno| Error::Invalid(format!("the limit of open files: {errno}")))?;
    if hard < needed {
        return Err(Error::Invalid(format!(
            "this process may have {hard} files open, and {needed} are needed: raise `ulimit -n`"
        )));
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .map_err(|errno| Error::Invalid(format!("raising the limit of open files: {errno}")))
}
