//! The end of a run: all work ends, all members agree, and what everybody has on its disk is read.

use std::collections::BTreeMap;
use std::time::Duration;

use super::scenario::Span;
use super::troubles::Troubles;
use super::watcher::Watcher;
use super::work::Work;
use crate::Error;
use crate::checkers::Evidence;
use crate::cluster::Members;
use crate::history::Recorder;
use crate::journal;
use crate::log::Log;
use crate::nodes::Nodes;
use crate::traffic::{ExecutionLog, Onlookers};

/// For clients that only look on to end, and for members to be at the same index.
const SETTLED: Duration = Duration::from_secs(60);
/// For tasks whose clients gave them up: what lost its agents again and again waits up to 72 s before it is tried again.
const TRIED_AGAIN: Duration = Duration::from_secs(90);

pub struct Gathering<'a> {
    pub nodes: &'a Nodes,
    pub recorder: &'a Recorder,
    pub executions: &'a ExecutionLog,
    pub span: Span,
    pub troubles: &'a mut Troubles,
}

impl Gathering<'_> {
    /// Whatever there is; what is missing is noted, and the checkers say what they lack.
    pub async fn finish(
        mut self,
        work: Work,
        onlookers: Onlookers,
        watcher: Watcher<'_>,
    ) -> Evidence {
        let ended = work.finish().await;
        self.noted("waiting for the last results", ended);
        let ended = tokio::time::timeout(SETTLED, onlookers.finish()).await;
        let ended = ended.unwrap_or_else(|_elapsed| {
            Err(Error::Broken(
                "an agent that was closed can't be opened again".to_owned(),
            ))
        });
        self.noted("opening what was closed", ended);
        let whole = self.nodes.until_whole().await.map(drop);
        self.noted("waiting for everybody to be back", whole);
        // Whether they have is what I13 judges.
        let _judged = self.nodes.until_all_ended(TRIED_AGAIN).await;
        let converged = self.nodes.until_converged(SETTLED).await;
        if let Some(status) = self.noted("waiting for all members to agree", converged) {
            watcher.keep(status);
        }
        let mut evidence = Evidence {
            voters: self.nodes.controllers().len(),
            ..Evidence::default()
        };
        for id in self.nodes.controllers() {
            let listed = self.nodes.finals_of(&id).await;
            if let Some(listed) = self.noted("listing the tasks of one controller", listed) {
                evidence.finals.insert(id, listed);
            }
        }
        let lines = self.executions.lines();
        (evidence.executions, evidence.signs) = self
            .noted("reading what was started", lines)
            .unwrap_or_default();
        // After the last question.
        evidence.statuses = watcher.into_statuses();
        evidence.history = self.recorder.history();
        evidence.unlogged = self.span.unlogged().map(str::to_owned);
        if self.span == Span::Long {
            // Neither are its agents' journals, which are rewritten when they have grown.
            return evidence;
        }
        for id in self.nodes.controllers() {
            let log = self.log_of(&id).await;
            if let Some(log) = self.noted("reading a log", log) {
                evidence.logs.insert(id, log);
            }
        }
        let journals = self.journals();
        evidence.journals = self
            .noted("reading the agents' journals", journals)
            .unwrap_or_default();
        evidence
    }

    fn noted<T>(&mut self, during: &str, result: Result<T, Error>) -> Option<T> {
        result
            .inspect_err(|error| self.troubles.note(during, error))
            .ok()
    }

    async fn log_of(&self, id: &str) -> Result<Log, Error> {
        if self.nodes.node(id)?.fallen().await.is_none() {
            self.nodes.terminate(id).await?;
        }
        self.nodes.dumped_log(id).await
    }

    fn journals(&self) -> Result<BTreeMap<String, Vec<journal::Begun>>, Error> {
        let of = |id: String| {
            let data_dir = self.nodes.member(&id)?.data_dir;
            Ok((id, journal::read(&data_dir.join("journal"))?))
        };
        self.nodes.agents().into_iter().map(of).collect()
    }
}
