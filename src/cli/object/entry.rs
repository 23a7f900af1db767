//! An entry of the log in words, one line for each operation.
//!
//! They say who wanted what of whom. Environments are left out, and long commands cut: both may hold what should not
//! be on a screen.

use model::{
    Assignment, Command, DrainAgent, End, Observed, Op, Preemption, Presence, Sample, Strategy,
    Submit, SystemCommand, TaskSpec, Verdict, Work,
};

use crate::shell;

/// Characters of a command that are shown.
const COMMAND: usize = 80;
/// What is told of that was seen of agents.
const SHOWN: usize = 8;

pub fn op_words(op: &Op) -> String {
    match op {
        Op::Client {
            principal,
            command,
            placement,
            ..
        } => {
            let placed = placement.as_ref();
            let placed = placed.map(|it| format!(", placed on {}", it.agent));
            let (by, what) = (&principal.name, command_words(command));
            format!("{by}: {what}{}", placed.unwrap_or_default())
        }
        Op::System(command) => system_words(command),
    }
}

fn command_words(command: &Command) -> String {
    match command {
        Command::SubmitTask(Submit { spec, request_id }) => {
            let id = request_id.as_ref();
            let id = id.map_or_else(
                || "no request id".to_owned(),
                |id| format!("request {}", id.0),
            );
            format!("submit, {id}: {}", spec_words(spec))
        }
        Command::CancelTask { task, reason } => format!("cancel {task}{}", because(reason)),
        Command::RegisterAgent(profile) => format!(
            "register agent {}, incarnation {}, {} slots",
            profile.id, profile.incarnation, profile.slots
        ),
        Command::FinishAttempt(Verdict { fence, outcome }) => format!(
            "finish {} under epoch {} of generation {}: {}",
            fence.task,
            fence.epoch.0,
            fence.generation.0,
            end_words(&outcome.end)
        ),
        Command::CordonAgent { agent, reason } => format!("cordon {agent}{}", because(reason)),
        Command::UncordonAgent { agent } => format!("uncordon {agent}"),
        Command::DrainAgent(DrainAgent {
            agent,
            reason,
            deadline,
        }) => format!("drain {agent} within {} ms{}", deadline.0, because(reason)),
        Command::RemoveAgent { agent } => format!("remove {agent}"),
        Command::CreateJoinToken(token) => {
            format!(
                "create join token {}, for {} machines",
                token.id, token.uses
            )
        }
        Command::RevokeJoinToken { token } => format!("revoke join token {token}"),
        Command::Enrol(enrolment) => {
            format!(
                "let {} in with join token {}",
                enrolment.name, enrolment.token
            )
        }
        Command::SetBackend(asked) => format!("set back end {} of {}", asked.name, asked.agent),
        Command::SetNamespace(asked) => format!("set namespace {}", asked.namespace),
        Command::SetPolicy(asked) => {
            let how = asked
                .strategy
                .map_or("as the next wider policy says", Strategy::as_str);
            format!("choose agents for {}: {how}", asked.scope)
        }
        Command::AddRule(asked) => format!("{asked}{}", because(&asked.reason)),
        Command::RemoveRule { rule } => format!("remove rule {rule}"),
    }
}

fn system_words(command: &SystemCommand) -> String {
    match command {
        SystemCommand::Found {
            cluster_id,
            generation,
        } => format!("found cluster {cluster_id}, generation {}", generation.0),
        SystemCommand::Observe(observed) => observed_words(observed),
        SystemCommand::Assign(Assignment { task, placement }) => {
            format!("assign {task} to {}", placement.agent)
        }
        SystemCommand::Preempt(Preemption {
            victims,
            assignment: Assignment { task, placement },
        }) => {
            let victims = victims.iter().map(|victim| victim.task.to_string());
            let victims = victims.collect::<Vec<_>>().join(", ");
            format!("assign {task} to {} in place of {victims}", placement.agent)
        }
        SystemCommand::ExpireLease { agent, incarnation } => {
            format!("the lease of {agent} ran out, incarnation {incarnation}")
        }
        SystemCommand::ExpireDeadline { task } => format!("the deadline of {task} has passed"),
        SystemCommand::ExpireDrain { agent } => format!("the time to drain {agent} is over"),
        SystemCommand::ExpireRule { rule } => format!("rule {rule} has expired"),
        SystemCommand::Retain(retention) => format!(
            "keep {} finished tasks in memory and {} bytes for {} ms in the archive",
            retention.hot_tasks, retention.max_bytes, retention.max_age.0
        ),
        SystemCommand::RaiseVersion { to } => format!("raise the state version to {to}"),
    }
}

/// By what the decisions of the entry were made: what is new of agents since the decisions before.
fn observed_words(observed: &Observed) -> String {
    let samples = observed.samples.iter().map(|(agent, sample)| {
        let Sample {
            presence,
            prefetch,
            load,
        } = sample;
        let presence = match presence {
            Presence::Open => "open",
            Presence::NotConnected => "not connected",
            Presence::Declining => "declining",
            Presence::Suspect => "suspect",
        };
        format!(
            "{agent} is {presence}, {prefetch} ahead, cpu {}%, {}% by others, memory {}%, {} µs away",
            load.cpu.thousandths() / 10,
            load.others.thousandths() / 10,
            load.memory.thousandths() / 10,
            load.latency.value()
        )
    });
    let paces = observed.paces.iter().map(|(agent, paces)| {
        let paces = paces.iter().map(|(work, takes)| {
            let work = match work {
                Work::Kind(kind) => kind.as_str(),
                Work::Model(name) => name,
            };
            format!("{work} {} ms", takes.value())
        });
        format!("on {agent} take {}", paces.collect::<Vec<_>>().join(", "))
    });
    let all = observed.samples.len() + observed.paces.len();
    let news: Vec<String> = samples.chain(paces).take(SHOWN).collect();
    let news = match news.is_empty() {
        true => "nothing new of any agent".to_owned(),
        false => news.join("; "),
    };
    let more = match all.saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!("; {more} more"),
    };
    let partly = match observed.is_whole {
        true => "",
        false => ", and by what is not written down",
    };
    let (applied, round) = (observed.applied, observed.round);
    format!("decided as round {round} on the state after entry {applied}{partly}: {news}{more}")
}

fn spec_words(spec: &TaskSpec) -> String {
    let mut words = match &spec.inference {
        Some(inference) => format!("ask {}", inference.model),
        None => {
            let words: Vec<String> = spec.command.iter().map(|word| shell::word(word)).collect();
            shortened(&words.join(" "))
        }
    };
    if !spec.name.is_empty() {
        words = format!("{words}, name {}", spec.name);
    }
    if spec.namespace.as_str() != "default" {
        words = format!("{words}, namespace {}", spec.namespace);
    }
    for require in &spec.require {
        words = format!("{words}, requires {require}");
    }
    if let Some(class) = spec.class {
        words = format!("{words}, class {class}");
    }
    if spec.at_most_once {
        words.push_str(", at most once");
    }
    if spec.preemptible {
        words.push_str(", preemptible");
    }
    words
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(COMMAND) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn because(reason: &str) -> String {
    match reason {
        "" => String::new(),
        reason => format!(", because: {reason}"),
    }
}

fn end_words(end: &End) -> String {
    match end {
        End::Exited { code } => format!("exited with code {code}"),
        End::Signalled { signal } => format!("ended by signal {signal}"),
        End::TimedOut => "timed out".to_owned(),
        End::Killed => "killed by its agent".to_owned(),
        End::NotStarted { reason } => format!("could not be started: {reason}"),
        End::Failed { reason } => format!("failed: {reason}"),
        End::Impossible { reason } => format!("can't be done: {reason}"),
        End::Declined { reason } => format!("declined: {reason}"),
        End::Interrupted { reason, .. } => format!("interrupted: {reason}"),
    }
}
