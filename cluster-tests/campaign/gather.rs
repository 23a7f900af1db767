//! The end of a run: all work ends, all members agree, and what everybody has on its disk is read.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::v1::tasks_client::TasksClient;

use super::scenario::Span;
use super::troubles::Troubles;
use super::watcher::Watcher;
use crate::checkers::{Evidence, Final, is_converged};
use crate::cluster::{self, Members, Status};
use crate::history::Recorder;
use crate::journal;
use crate::log::Log;
use crate::nodes::Nodes;
use crate::traffic::{self, Caller, ExecutionLog, Onlookers, Running};
use crate::{Error, wait};

/// For clients that only look on to end, and for members to be at the same index.
const SETTLED: Duration = Duration::from_secs(60);

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
        load: Running,
        onlookers: Onlookers,
        watcher: Watcher<'_>,
    ) -> Evidence {
        let ended = load.finish().await.map(drop);
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
        let converged = self.converged().await;
        if let Some(status) = self.noted("waiting for all members to agree", converged) {
            watcher.keep(status);
        }
        let mut evidence = Evidence {
            voters: self.nodes.controllers().len(),
            ..Evidence::default()
        };
        for (id, address) in self
            .nodes
            .controllers()
            .into_iter()
            .zip(self.nodes.addresses())
        {
            let listed = self.listed(&address).await;
            if let Some(listed) = self.noted("listing the tasks of one controller", listed) {
                evidence.finals.insert(id, listed);
            }
        }
        let executions = self.executions.read();
        evidence.executions = self
            .noted("reading what was started", executions)
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

    async fn converged(&self) -> Result<Status, Error> {
        wait::until("all members at the same index", SETTLED, || async {
            let status = self.nodes.status().await;
            let status = status.map_err(|error| error.to_string())?;
            match is_converged(&status) {
                true => Ok(status),
                false => Err(status.describe()),
            }
        })
        .await
    }

    /// A controller's own list of tasks.
    async fn listed(&self, address: &str) -> Result<Vec<Final>, Error> {
        let mut client = TasksClient::new(cluster::channel(address, &self.nodes.tls()));
        let tasks = Caller::list_own(&mut client).await;
        Ok(traffic::finals(&tasks.map_err(Error::call("Tasks.List"))?))
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
