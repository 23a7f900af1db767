//! Whether a write could commit now: a quorum is asked, so the answer is not a guess from what
//! was heard a while ago. Answers are shared for a moment, so that probes are no load.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Mutex;

use crate::controller::Controller;
use crate::{limit, quorum};

type Answer = Result<(), String>;

pub struct Readiness {
    controller: Arc<Controller>,
    last: Mutex<Option<(Instant, Answer)>>,
}

impl Readiness {
    pub fn new(controller: Arc<Controller>) -> Readiness {
        Readiness {
            controller,
            last: Mutex::new(None),
        }
    }

    /// Why not, in words.
    pub async fn check(&self) -> Answer {
        // At once, whatever was true a moment ago.
        if self.controller.leaving.is_cancelled() {
            return Err("shutting down".into());
        }
        if let Some(reason) = self.controller.cluster.fatal().borrow().as_deref() {
            return Err(reason.to_owned());
        }
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = last.as_ref()
            && at.elapsed() < limit::READY_FRESH
        {
            return answer.clone();
        }
        let answer = self.ask().await;
        *last = Some((Instant::now(), answer.clone()));
        answer
    }

    async fn ask(&self) -> Answer {
        let cluster = &self.controller.cluster;
        if !cluster
            .members()
            .iter()
            .any(|member| member.id == self.controller.id)
        {
            return Err("not a member of a cluster yet".into());
        }
        if cluster.leadership().borrow().leader.is_none() {
            return Err("no leader".into());
        }
        let read = quorum::read(cluster);
        match tokio::time::timeout(limit::READY_ANSWER, read).await {
            Ok(Ok(read)) if read.value.cluster_id().is_empty() => {
                Err("the cluster is being founded".into())
            }
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no quorum answered in time".into()),
        }
    }
}
