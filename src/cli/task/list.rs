//! `task list`: newest first, a page at a time.

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use wire::v1::{self, TaskState};

use super::quantity::{millis, time};
use crate::args::Global;
use crate::client::{Connection, now};
use crate::exit::Exit;
use crate::failure::Result;
use crate::object::{task_id, task_json, task_table};
use crate::output::{self, Answer};

/// Tasks of a page where it is not said; what fits a screen twice.
const PAGE: u32 = 100;
/// What a controller gives at most.
const PAGE_MAX: i64 = 1000;

/// List tasks, newest first
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate task list --state queued,running
  quorate task list --since 1h --agent a1 -o wide
  quorate task list --state failed -o quiet | xargs -n1 quorate task logs

Where neither --namespace nor QUORATE_NAMESPACE names a namespace, the context's counts, as for
`task submit`; a context without one lists all of them.")]
pub struct ListArgs {
    /// Only in these states
    #[arg(long, value_enum, value_delimiter = ',')]
    state: Vec<State>,
    /// Only of this kind
    #[arg(long, value_parser = ["process", "inference"])]
    kind: Option<String>,
    /// Only of this namespace; default: the context's, else all
    #[arg(long, env = "QUORATE_NAMESPACE", hide_env_values = true)]
    namespace: Option<String>,
    /// Of all namespaces, whatever the context or QUORATE_NAMESPACE says
    #[arg(long)]
    all_namespaces: bool,
    /// Only submitted by this user
    #[arg(long)]
    user: Option<String>,
    /// Only on this agent
    #[arg(long)]
    agent: Option<String>,
    /// Only submitted since: a time such as 2026-01-31T12:00:00Z, or a span such as 1h
    #[arg(long, value_name = "TIME", value_parser = instant)]
    since: Option<u64>,
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = PAGE, value_parser = clap::value_parser!(u32).range(1..=PAGE_MAX))]
    limit: u32,
    /// Go on where the page before ended (its `next`)
    #[arg(long, value_name = "NEXT")]
    page: Option<u64>,
    /// Ask one controller for what it knows, without a quorum; how new that is comes on stderr
    #[arg(long)]
    stale: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum State {
    Queued,
    Assigned,
    Running,
    Succeeded,
    Failed,
    Cancelled,
    Unknown,
    DeadLetter,
}

impl From<State> for TaskState {
    fn from(state: State) -> TaskState {
        match state {
            State::Queued => TaskState::Queued,
            State::Assigned => TaskState::Assigned,
            State::Running => TaskState::Running,
            State::Succeeded => TaskState::Succeeded,
            State::Failed => TaskState::Failed,
            State::Cancelled => TaskState::Cancelled,
            State::Unknown => TaskState::Unknown,
            State::DeadLetter => TaskState::DeadLetter,
        }
    }
}

impl ListArgs {
    /// The namespace to list, empty for all; chosen as for a submit.
    fn namespace(&self, of_context: Option<String>) -> String {
        if self.all_namespaces {
            return String::new();
        }
        let given = |text: &String| !text.is_empty();
        let own = self.namespace.clone().filter(given);
        own.or(of_context).unwrap_or_default()
    }
}

pub async fn list(
    cluster: &Connection,
    args: ListArgs,
    namespace: Option<String>,
    global: &Global,
) -> Result<Exit> {
    let namespace = args.namespace(namespace);
    let request = v1::ListTasksRequest {
        states: args
            .state
            .iter()
            .map(|state| TaskState::from(*state).into())
            .collect(),
        namespace,
        user: args.user.unwrap_or_default(),
        agent: args.agent.unwrap_or_default(),
        since: args.since.unwrap_or(0),
        limit: args.limit,
        page: args.page.unwrap_or(0),
        stale: args.stale,
        kind: args.kind.unwrap_or_default(),
    };
    let asking = output::waiting("asking the cluster", cluster.tasks(&request));
    let reply = crate::client::or_interrupted(asking).await?;
    super::note_stale(&reply.position.unwrap_or_default());
    let next = (reply.next > 0).then(|| reply.next.to_string());
    let json = output::list(reply.tasks.iter().map(task_json).collect(), next.clone());
    let ids: Vec<String> = reply.tasks.iter().map(task_id).collect();
    let empty = ids.is_empty();
    let tasks = reply.tasks;
    Answer {
        json,
        ids,
        table: Box::new(move |width| table(&tasks, width)),
    }
    .print(global.output)?;
    if matches!(global.output, output::Format::Table | output::Format::Wide) {
        match next {
            Some(next) => output::note(&format!("there is more: --page {next}")),
            None if empty && output::watched() => output::note("no tasks"),
            None => {}
        }
    }
    Ok(Exit::Ok)
}

fn table(tasks: &[v1::Task], width: output::Width) -> String {
    if tasks.is_empty() {
        String::new()
    } else {
        task_table(tasks, width, now())
    }
}

/// A point in time, or a span before now, as milliseconds since the epoch.
fn instant(text: &str) -> std::result::Result<u64, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return u64::try_from(at.as_millisecond()).map_err(|_| "before 1970".to_owned());
    }
    let span = time(text).map_err(|_| {
        format!("`{text}` is neither a time such as 2026-01-31T12:00:00Z nor a span such as 1h")
    })?;
    // 0 would mean: all.
    Ok(now().saturating_sub(millis(span).0).max(1))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{ListArgs, instant};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        list: ListArgs,
    }

    #[test]
    fn the_namespace_is_the_flag_then_the_context_then_all() {
        let at = |line: &[&str], context: Option<&str>| {
            let line = Line::try_parse_from([&["list"], line].concat()).unwrap();
            line.list.namespace(context.map(str::to_owned))
        };
        assert_eq!(at(&["--namespace", "a"], Some("c")), "a");
        assert_eq!(at(&[], Some("c")), "c");
        assert_eq!(at(&["--all-namespaces"], Some("c")), "");
        assert_eq!(at(&["--namespace", "a", "--all-namespaces"], None), "");
        assert_eq!(at(&[], None), "");
    }

    #[test]
    fn since_is_a_time_or_a_span() {
        assert_eq!(instant("1970-01-01T00:00:01Z"), Ok(1000));
        let hour = instant("1h").unwrap();
        assert!(hour > 1_700_000_000_000 && hour < crate::client::now());
        assert!(instant("yesterday").is_err());
    }
}
