//! Looks at a cluster while it is broken: who leads, and what the members say of their states.

use std::convert::Infallible;
use std::sync::Mutex;
use std::time::Duration;

use crate::cluster::Status;
use crate::history::Recorder;
use crate::nodes::Nodes;

/// Well below the time for which a leader stays one.
const EVERY: Duration = Duration::from_millis(250);
/// Looks that are kept for their hashes; of the others only who leads.
const KEPT: usize = 10;

#[derive(Debug)]
pub struct Watcher<'a> {
    nodes: &'a Nodes,
    recorder: &'a Recorder,
    statuses: Mutex<Vec<Status>>,
}

impl<'a> Watcher<'a> {
    pub fn new(nodes: &'a Nodes, recorder: &'a Recorder) -> Watcher<'a> {
        Watcher {
            nodes,
            recorder,
            statuses: Mutex::default(),
        }
    }

    /// Until it is dropped.
    pub async fn run(&self) -> Infallible {
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
            tokio::time::sleep(EVERY).await;
        }
        unreachable!("there are always more numbers")
    }

    pub fn keep(&self, status: Status) {
        let mut statuses = self.statuses.lock();
        match &mut statuses {
            Ok(statuses) => statuses.push(status),
            Err(poisoned) => poisoned.get_mut().push(status),
        }
    }

    pub fn into_statuses(self) -> Vec<Status> {
        let statuses = self.statuses.into_inner();
        statuses.unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
