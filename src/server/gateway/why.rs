//! Why a task is where it is: the decision that the log recorded, and, while it waits, how each
//! agent stands towards it now. Only the leader knows the latter, so a follower passes it on.

use model::{Attempt, Command, Principal, Scored, Submit, Task, TaskId};
use scheduler::{AgentVerdict, Ahead, Explanation, Formula, Term};
use tonic::{Request, Response};
use wire::status::Failure;
use wire::v1;

use super::found::Found;
use super::request::Hop;
use super::tasks::spec_of;
use super::{Deadline, Gateway, failure};

impl Gateway {
    pub(super) async fn why_task(
        &self,
        request: Request<v1::WhyRequest>,
    ) -> Result<Response<v1::WhyReply>, Failure> {
        let caller = self.reader(&request)?;
        let deadline = Deadline::of(request.metadata());
        let message = *request.get_ref();
        self.led(
            &caller,
            deadline,
            || self.why_here(TaskId(message.id), deadline),
            |hop| {
                let request = Hop::pass_on(&caller, deadline, message);
                async move { hop.tasks().why(request).await }
            },
        )
        .await
    }

    async fn why_here(&self, id: TaskId, deadline: Deadline) -> Result<v1::WhyReply, Failure> {
        let (state, position) = self.read(deadline).await?;
        let fleet = self
            .0
            .inputs
            .fleet()
            .await
            .ok_or_else(|| failure::not_leader(None))?;
        let now = self.0.cluster.now().state;
        let found = self.find(&state, id).await?;
        let explained = match &found {
            // It may play a long queue through.
            Found::InMemory(_) => {
                let state = state.clone();
                apart(move || scheduler::explain(&state, &fleet, now, id)).await?
            }
            Found::Archived(record) => Some(scheduler::explain_decided(&record.task)),
        };
        let mut explained = explained.ok_or_else(|| failure::no_task(id))?;
        let shown = self.show(&state, &found).await;
        if shown.state() == v1::TaskState::Assigned
            && let Some(waits) = scheduler::may_wait_there(&state, found.task())
        {
            explained.summary = format!("{} {waits}", explained.summary);
        }
        let mut reply = explanation(found.task(), shown, explained);
        reply.position = Some(position);
        Ok(reply)
    }
}

/// What would become of one that is not submitted.
impl Gateway {
    pub(super) async fn plan_task(
        &self,
        request: Request<v1::PlanRequest>,
    ) -> Result<Response<v1::WhyReply>, Failure> {
        let caller = self.0.caller(&request)?;
        let deadline = Deadline::of(request.metadata());
        let message = request.into_inner();
        let command = Command::SubmitTask(Submit {
            spec: spec_of(message.spec.clone())?,
            request_id: None,
        });
        model::access::allows(&caller.principal, &command)?;
        command.validate()?;
        let asked = || (caller.principal.clone(), command.clone());
        self.led(
            &caller,
            deadline,
            || self.plan_here(asked(), deadline),
            |hop| {
                let request = Hop::pass_on(&caller, deadline, message.clone());
                async move { hop.tasks().plan(request).await }
            },
        )
        .await
    }

    async fn plan_here(
        &self,
        asked: (Principal, Command),
        deadline: Deadline,
    ) -> Result<v1::WhyReply, Failure> {
        let (state, position) = self.read(deadline).await?;
        let fleet = self.0.inputs.fleet().await;
        let fleet = fleet.ok_or_else(|| failure::not_leader(None))?;
        let now = self.0.cluster.now().state;
        let planned = apart(move || scheduler::what_if(&state, &fleet, now, asked)).await??;
        let nothing_yet = v1::Task::default();
        let mut reply = explanation(&planned.task, nothing_yet, planned.explanation);
        reply.position = Some(position);
        Ok(reply)
    }
}

/// On a thread of its own, for it takes a while.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| failure::stopping())
}

fn explanation(task: &Task, shown: v1::Task, explained: Explanation) -> v1::WhyReply {
    let record = task.trace.as_ref();
    let trace = record.and_then(|record| record.read());
    let trace = trace.as_ref();
    let (position, strategy_now) = (explained.position(), explained.strategy());
    let decided_by = trace.and_then(|trace| scheduler::formula_of(trace.policy_version));
    let decision = trace.map(|trace| {
        let all = std::iter::once(&trace.winner).chain(&trace.runners_up);
        all.map(|scored| candidate(scored, decided_by)).collect()
    });
    let refusals = trace.map(|trace| {
        let count = |(reason, agents): &(model::Reason, u32)| v1::RefusalCount {
            reason: reason.to_string(),
            agents: *agents,
        };
        trace.refusals.iter().map(count).collect()
    });
    v1::WhyReply {
        position: None,
        task: Some(shown),
        summary: explained.summary,
        decision: decision.unwrap_or_default(),
        decided_at_index: task.latest.as_ref().map_or(0, |attempt| attempt.epoch.0),
        policy_version: record.map_or(0, |record| record.policy_version()),
        refusals: refusals.unwrap_or_default(),
        queue_position: position.map(|position| position as u64),
        ahead: explained.ahead.map(ahead),
        agents_now: explained
            .agents
            .iter()
            .map(|verdict| standing(verdict, explained.formula))
            .collect(),
        strategy: decided_by.map(|it| it.way.to_string()).unwrap_or_default(),
        strategy_now: strategy_now.map(|it| it.to_string()).unwrap_or_default(),
        likely_wait_ms: explained.wait.map(|wait| wait.millis.0),
        likely_wait_is_guess: explained.wait.is_some_and(|wait| wait.is_rough),
        estimate: task.latest.as_ref().and_then(|it| estimate(it)),
    }
}

fn ahead(ahead: Ahead) -> v1::QueueAhead {
    v1::QueueAhead {
        higher: ahead.higher as u64,
        namespaces: ahead.namespaces as u64,
        users: ahead.users as u64,
        older: ahead.older as u64,
        is_least: ahead.is_least,
        first: ahead.first.iter().map(|task| task.0).collect(),
        rival: ahead.rival.map(|rival| v1::Rival {
            namespace: rival.namespace.to_string(),
            user: rival.user.as_deref().unwrap_or_default().to_owned(),
            used_ms: rival.used,
            weight: rival.weight,
            own_used_ms: rival.own_used,
            own_weight: rival.own_weight,
        }),
    }
}

fn estimate(attempt: &Attempt) -> Option<v1::Estimate> {
    let (expected, real) = attempt.waits()?;
    Some(v1::Estimate {
        made_at: attempt.estimate?.made.0,
        expected_wait_ms: expected.0,
        waited_ms: real.0,
    })
}

fn standing(verdict: &AgentVerdict, formula: Option<&Formula>) -> v1::Candidate {
    match &verdict.standing {
        Ok(scored) => candidate(scored, formula),
        Err(reason) => v1::Candidate {
            agent: verdict.agent.to_string(),
            refused: reason.to_string(),
            ..v1::Candidate::default()
        },
    }
}

/// Without a formula, that of a later release, the terms have no names.
fn candidate(scored: &Scored, formula: Option<&Formula>) -> v1::Candidate {
    let known = formula.into_iter().flat_map(Formula::terms);
    let terms = known.zip(&scored.terms);
    let term = |((term, weight), value): ((Term, i64), &i64)| v1::ScoreTerm {
        name: term.as_str().to_owned(),
        value: *value,
        weight,
    };
    v1::Candidate {
        agent: scored.agent.to_string(),
        score: Some(scored.score),
        terms: terms.map(term).collect(),
        refused: String::new(),
    }
}
