//! Looks at a cluster while it is broken: who leads, what the members say of their states, and what the nodes take.

use std::convert::Infallible;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cluster::{Members, Status, bytes_below};
use crate::faults::process::Process;
use crate::history::{Gauge, Recorder};
use crate::nodes::Nodes;

/// Well below the time for which a leader stays one.
const EVERY: Duration = Duration::from_millis(250);
/// Looks that are kept for their hashes; of the others only who leads.
const KEPT: usize = 10;

/// How often it is looked at what the nodes take, in a run of this length or shorter; in longer ones so many times.
const GAUGED: Duration = Duration::from_secs(2);
const GAUGES: u32 = 400;

#[derive(Debug)]
pub struct Watcher<'a> {
    nodes: &'a Nodes,
    recorder: &'a Recorder,
    gauged: Duration,
    statuses: Mutex<Vec<Status>>,
}

impl<'a> Watcher<'a> {
    pub fn new(nodes: &'a Nodes, recorder: &'a Recorder, length: Duration) -> Watcher<'a> {
        Watcher {
            nodes,
            recorder,
            gauged: GAUGED.max(length / GAUGES),
            statuses: Mutex::default(),
        }
    }

    /// Until it is dropped.
    pub async fn run(&self) -> Infallible {
        let mut gauged = Instant::now();
        self.gauge();
        for number in 0_usize.. {
            // Nobody answers at times: that is what the run is for.
            if let Ok(status) = self.nodes.status().await {
                if let Some(leader) = status.leader() {
                    self.recorder.leads(leader, status.term);
                }
                if number.is_multiple_of(KEPT) {
                    self.keep(status);
                }
            }
            if gauged.elapsed() >= self.gauged {
                gauged = Instant::now();
                self.gauge();
            }
            tokio::time::sleep(EVERY).await;
        }
        unreachable!("there are always more numbers")
    }

    /// Of every node that runs.
    fn gauge(&self) {
        let nodes = [self.nodes.controllers(), self.nodes.agents()].concat();
        for node in nodes {
            let Ok(member) = self.nodes.member(&node) else {
                continue;
            };
            let Some((pid, inside)) = member.pid.zip(member.directory_inside()) else {
                continue;
            };
            // It may be going at this moment.
            let taken = Process::resident_bytes(pid).zip(Process::descriptors(pid));
            let Some((resident, descriptors)) = taken else {
                continue;
            };
            self.recorder.gauge(Gauge {
                node,
                at: self.recorder.now(),
                resident,
                descriptors,
                on_disk: bytes_below(&inside),
            });
        }
    }

    pub fn keep(&self, status: Status) {
        let statuses = self.statuses.lock();
        statuses
            .unwrap_or_else(PoisonError::into_inner)
            .push(status);
    }

    pub fn into_statuses(self) -> Vec<Status> {
        let statuses = self.statuses.into_inner();
        statuses.unwrap_or_else(PoisonError::into_inner)
    }
}
