//! `task submit`: accepted means that a majority of the controllers has it on disk.
//!
//! A submit always has a request id, the caller's or one made here, so that the client may ask again
//! after a timeout and the task still runs once.

use clap::Args;
use wire::v1;

use super::attach::{upload, upload_first};
use super::spec::{SpecArgs, Wanted};
use crate::args::Global;
use crate::client::Connection;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::object::{task_id, task_json, task_table};
use crate::output::{self, Answer, Format};

/// How often files are uploaded before a submit is given up that finds none of them.
const UPLOAD_TRIES: u32 = 3;

/// Submit a command as a task, and return once it is accepted
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate task submit --name nap -- sleep 60
  quorate task submit --retries 2 --timeout 5m --require gpu=none -- make all
  quorate task submit --attach model.bin --attach run.sh -- ./run.sh model.bin
  id=$(quorate task submit -o quiet --from task.toml)

A spec file has the names of the flags, with _ for -; labels and env are tables, require is a list:
  name = \"nightly\"
  command = [\"make\", \"all\"]
  timeout = \"5m\"
  labels = { team = \"x\" }
  env = { A = \"1\" }")]
pub struct SubmitArgs {
    #[command(flatten)]
    spec: SpecArgs,
}

pub async fn submit(
    cluster: &Connection,
    args: SubmitArgs,
    namespace: Option<String>,
    global: &Global,
) -> Result<Exit> {
    let wanted = named(args.spec.wanted(namespace)?);
    upload_first(cluster, &wanted.uploads).await?;
    let reply = tokio::select! {
        reply = send(cluster, &wanted) => reply?,
        () = crate::client::interrupted() => return Err(interrupted(&wanted)),
    };
    let for_people = matches!(global.output, Format::Table | Format::Wide);
    if reply.duplicate && for_people {
        output::note("this request id was used before; here is the task that it made");
    }
    print_one(&reply.task, global)?;
    Ok(Exit::Ok)
}

/// A reply whose task is there, as the protocol says.
pub struct Submitted {
    pub task: v1::Task,
    pub duplicate: bool,
}

/// With a request id, whoever made it.
pub fn named(wanted: Wanted) -> Wanted {
    let made = || uuid::Uuid::new_v4().to_string();
    Wanted {
        request_id: Some(wanted.request_id.unwrap_or_else(made)),
        ..wanted
    }
}

pub async fn send(cluster: &Connection, wanted: &Wanted) -> Result<Submitted> {
    let request_id = wanted.request_id.clone().unwrap_or_default();
    let request = v1::SubmitRequest {
        spec: Some(v1::TaskSpec::from(&wanted.spec)),
        request_id: request_id.clone(),
        wait_ms: 0,
    };
    let mut tries = 0;
    let reply = loop {
        tries += 1;
        let sent = cluster.submit(&request);
        match output::waiting("waiting for a majority to store it", sent).await {
            // Whoever had it is gone meanwhile.
            Err(failure) if failure.code == "no_such_blob" && tries < UPLOAD_TRIES => {
                upload(cluster, &wanted.uploads).await?;
            }
            Err(failure) => return Err(again(failure, &request_id)),
            Ok(reply) => break reply,
        }
    };
    let task = reply
        .task
        .ok_or_else(|| crate::client::malformed("a submit without a task"))?;
    Ok(Submitted {
        task,
        duplicate: reply.duplicate,
    })
}

pub fn interrupted(wanted: &Wanted) -> Failure {
    let request_id = wanted.request_id.clone().unwrap_or_default();
    let failure = Failure::interrupted("interrupted before the cluster answered", "");
    again(
        Failure {
            exit: Exit::Unknown,
            ..failure
        },
        &request_id,
    )
    .with_exit(Exit::Interrupted)
}

/// Where nobody knows whether it was accepted, the request id says how to find out.
fn again(failure: Failure, request_id: &str) -> Failure {
    let with_id = format!("submit the same again with --request-id {request_id}");
    let hint = match failure.code.as_str() {
        "unreachable" => format!("nothing was sent: {}, then {with_id}", failure.hint),
        "no_leader" | "no_quorum" => format!(
            "it may or may not have been accepted: once a majority of controllers runs (see \
             `quorate cluster status`), {with_id}, which never makes a second task"
        ),
        // Its own hint says whether it may have been accepted.
        "no_room" => format!("{}; {with_id}", failure.hint),
        _ if failure.exit == Exit::Unknown => format!(
            "it may or may not have been accepted: {with_id}, which never makes a second task"
        ),
        _ => failure.hint,
    };
    Failure {
        hint,
        request_id: Some(request_id.to_owned()),
        ..failure
    }
}

/// Prints one task as an object.
pub fn print_one(task: &v1::Task, global: &Global) -> Result<()> {
    print_as(task_json(task), std::slice::from_ref(task), global)
}

/// Prints what was asked for by these ids: one as an object, several as a list, however many there are
/// to show of them.
pub fn print_asked(ids: &[model::TaskId], tasks: &[v1::Task], global: &Global) -> Result<()> {
    match (ids, tasks) {
        ([_], [task]) => print_one(task, global),
        _ => {
            let items = tasks.iter().map(task_json).collect();
            print_as(output::list(items, None), tasks, global)
        }
    }
}

fn print_as(json: serde_json::Value, tasks: &[v1::Task], global: &Global) -> Result<()> {
    let shown = tasks.to_vec();
    Answer {
        json,
        ids: tasks.iter().map(task_id).collect(),
        table: Box::new(move |width| task_table(&shown, width, crate::client::now())),
    }
    .print(global.output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_says_how_to_ask_again() {
        let failure = again(Failure::unknown("unavailable", "no leader", ""), "r1");
        assert!(failure.hint.contains("--request-id r1"), "{failure}");
        assert_eq!(failure.request_id.as_deref(), Some("r1"));
        let failure = again(Failure::unknown("outcome_unknown", "it broke", "?"), "r1");
        assert!(failure.hint.contains("--request-id r1"), "{failure}");
        let failure = again(
            Failure::unknown("unreachable", "no way", "look there"),
            "r1",
        );
        assert_eq!(
            failure.hint,
            "nothing was sent: look there, then submit the same again with --request-id r1"
        );
        let failure = again(Failure::unknown("no_quorum", "1 of 3 answers", "?"), "r1");
        assert!(
            failure.hint.contains("cluster status") && failure.hint.contains("--request-id r1"),
            "{failure}"
        );
        let failure = again(Failure::unknown("no_room", "full", "make room"), "r1");
        assert_eq!(
            failure.hint,
            "make room; submit the same again with --request-id r1"
        );
        let failure = again(Failure::refused("invalid", "bad", "mend it"), "r1");
        assert_eq!(failure.hint, "mend it");
    }
}
