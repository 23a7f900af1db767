//! `task run`: as if the command ran here. Its output is ours, byte for byte and nothing besides;
//! how it ended is our exit code.
//!
//! ```text
//! submit ─► follow the output ──────────────► add what the result still has ─► exit
//!           wait for the end  (both at once)
//!           Ctrl-C: first cancel, then detach
//! ```

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::Signal;
use wire::v1;

use super::attach::upload_first;
use super::follow::{Extent, Follow, Show};
use super::spec::{SpecArgs, Wanted};
use super::submit::{interrupted, named, send};
use super::wait::settled;
use crate::args::Global;
use crate::client::{Connection, interrupts};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::object::{ended, state_name, task_id};
use crate::output::{self, Format};

/// How long nothing may come of the output once the task has ended, before the kept tail has to do.
const DRAIN: Duration = Duration::from_secs(10);
/// How long a second Ctrl-C leaves the first one's cancel to be accepted: two elections, and no more than a
/// person bears.
const CANCEL_LIMIT: Duration = Duration::from_secs(2);

/// Run a command, or ask a model, as a task: wait for it, and pass its output on
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate task run -- echo 'hello, quorum'
  quorate task run --propagate-exit -- sh -c 'exit 7'
  quorate task run --require gpu=none --memory 512MiB -- ./simulate --seed 7
  quorate task run --model gemma3-270m --prompt 'Why is the sky blue?'

Its stdout and stderr are the task's own, byte for byte, whatever -o says: that only shapes errors,
such as that the task could not be started. `quorate task get -o json` has the result as JSON.
Ctrl-C cancels the task; a second one detaches and leaves it as it is.")]
pub struct RunArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// Exit with the task's own code where it ended by itself
    #[arg(long)]
    propagate_exit: bool,
}

pub async fn run(
    cluster: &Connection,
    args: RunArgs,
    namespace: Option<String>,
    global: &Global,
) -> Result<Exit> {
    let wanted = named(args.spec.wanted(namespace)?);
    upload_first(cluster, &wanted.uploads).await?;
    let mut interrupts = interrupts()?;
    let task = accept(cluster, &wanted, &mut interrupts).await?;
    let id = task.id;
    let outcome = follow_to_the_end(cluster, id, &mut interrupts).await;
    let Outcome::Ended { task, cancelled } = outcome.map_err(|failure| with_id(failure, id))?
    else {
        return Ok(Exit::Interrupted);
    };
    end_line(&task);
    explain(&task, global);
    if cancelled && ended(&task) != Some(Exit::Ok) {
        return Ok(Exit::Interrupted);
    }
    Ok(exit(&task, args.propagate_exit))
}

async fn accept(
    cluster: &Connection,
    wanted: &Wanted,
    interrupts: &mut Signal,
) -> Result<v1::Task> {
    tokio::select! {
        sent = send(cluster, wanted) => sent.map(|submitted| submitted.task),
        _ = interrupts.recv() => Err(interrupted(wanted)),
    }
}

/// There is a task now, and whoever gave the command was not told of it yet: no error leaves it unnamed.
fn with_id(failure: Failure, id: u64) -> Failure {
    // That nobody reads the output any more is said to nobody.
    if failure.exit == Exit::Ok {
        return failure;
    }
    let next = format!("`quorate task wait {}`", model::TaskId(id));
    let hint = match failure.hint.as_str() {
        hint if hint.contains(&next) => return failure,
        "" => format!("what becomes of it: {next}"),
        hint => format!("{hint}; what becomes of the task: {next}"),
    };
    Failure { hint, ..failure }
}

/// With all of its output written, whether that went well or not.
async fn follow_to_the_end(
    cluster: &Connection,
    id: u64,
    interrupts: &mut Signal,
) -> Result<Outcome> {
    let mut follow = Follow::new(cluster, id, Show::Both)?;
    let outcome = attend(cluster, id, &mut follow, interrupts).await;
    if matches!(outcome, Ok(Outcome::Detached)) {
        return outcome;
    }
    let writing = async {
        if let Ok(Outcome::Ended { task, .. }) = &outcome {
            follow.complete(task).await?;
        }
        follow.finish().await
    };
    tokio::select! {
        written = writing => written.and(outcome),
        // Whoever should read it does not, and now nobody waits for that.
        _ = interrupts.recv() => {
            let hint = format!("it is kept: `quorate task logs {}`", model::TaskId(id));
            Err(Failure::interrupted("not all of the output was written", hint))
        }
    }
}

enum Outcome {
    Ended {
        task: Box<v1::Task>,
        cancelled: bool,
    },
    Detached,
}

/// How far the cancel of the first Ctrl-C is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cancel {
    NotAsked,
    Sent,
    Answered,
}

/// Follows the output until the task has ended and the output with it, or until nobody wants it.
async fn attend(
    cluster: &Connection,
    id: u64,
    follow: &mut Follow<'_>,
    interrupts: &mut Signal,
) -> Result<Outcome> {
    let meter = follow.meter();
    let mut following = std::pin::pin!(follow.read(Extent::ToTheEnd, None));
    let mut settling = std::pin::pin!(settled(cluster, id));
    let mut cancelling = std::pin::pin!(cancel(cluster, id));
    let (mut followed, mut cancelled) = (false, Cancel::NotAsked);
    let task = loop {
        tokio::select! {
            task = &mut settling => break task?,
            // A log that can't be followed is no reason to give up: the result has the end of it.
            written = &mut following, if !followed => {
                followed = true;
                if let Err(failure) = only_output(written) {
                    // As a pipe would end a program that ran here.
                    return cancel(cluster, id).await.and(Err(failure));
                }
            }
            sent = &mut cancelling, if cancelled == Cancel::Sent => {
                cancelled = Cancel::Answered;
                not_cancelled(id, sent);
            }
            _ = interrupts.recv() => match cancelled {
                Cancel::NotAsked => {
                    cancelled = Cancel::Sent;
                    output::note(&format!("cancelling {}; Ctrl-C again detaches", model::TaskId(id)));
                }
                Cancel::Sent => {
                    // Were it dropped now, the task might never hear of it.
                    tokio::select! {
                        sent = tokio::time::timeout(CANCEL_LIMIT, &mut cancelling) => {
                            not_cancelled(id, sent.unwrap_or_else(|_| Err(no_answer())));
                        }
                        _ = interrupts.recv() => not_cancelled(id, Err(no_answer())),
                    }
                    return Ok(detach(id));
                }
                Cancel::Answered => return Ok(detach(id)),
            }
        }
    };
    if !followed {
        tokio::select! {
            written = following => only_output(written)?,
            () = meter.idle(DRAIN) => {}
            _ = interrupts.recv() => {}
        }
    }
    Ok(Outcome::Ended {
        task: Box::new(task),
        cancelled: cancelled != Cancel::NotAsked,
    })
}

/// Failures of our own stdout count; those of the way to the log do not.
fn only_output(written: Result<()>) -> Result<()> {
    match written {
        Err(failure) if matches!(failure.code.as_str(), "output" | "reader_gone") => Err(failure),
        _ => Ok(()),
    }
}

async fn cancel(cluster: &Connection, id: u64) -> Result<()> {
    let request = v1::CancelTaskRequest {
        id,
        reason: "interrupted in `task run`".to_owned(),
    };
    match cluster.cancel(&request).await {
        // It was quicker.
        Err(failure) if failure.code == "already_ended" => Ok(()),
        other => other.map(|_| ()),
    }
}

fn not_cancelled(id: u64, sent: Result<()>) {
    if let Err(failure) = sent {
        output::note(&format!(
            "could not cancel {}: {failure}",
            model::TaskId(id)
        ));
    }
}

fn no_answer() -> Failure {
    Failure::unknown("timeout", "no controller has answered yet", "")
}

fn detach(id: u64) -> Outcome {
    let id = model::TaskId(id);
    output::note(&format!(
        "detached from {id}; it may still run: `quorate task wait {id}`"
    ));
    Outcome::Detached
}

/// An answer has no line end of its own. Only on a screen, for else its bytes are all there is.
fn end_line(task: &v1::Task) {
    let answer = task
        .spec
        .as_ref()
        .is_some_and(|spec| spec.inference.is_some());
    let result = task.result.as_ref();
    let open = result.is_some_and(|it| !it.stdout.is_empty() && !it.stdout.ends_with(b"\n"));
    if answer && open && std::io::stdout().is_terminal() {
        // Whoever reads it has all of it.
        writeln!(std::io::stdout()).ok();
    }
}

/// What the task itself could not say. Where it ended by itself, its own words are all there is,
/// unless a person watches.
fn explain(task: &v1::Task, global: &Global) {
    if ended(task) == Some(Exit::Ok) {
        return;
    }
    let by_itself = task
        .result
        .as_ref()
        .is_some_and(|result| result.exit_code.is_some());
    if by_itself && !output::watched() {
        return;
    }
    let failure = unsaid(task);
    match global.output {
        Format::Json | Format::Yaml => output::failure(&failure, global.output, global.coloured()),
        // No error of ours, so it does not look like one.
        Format::Table | Format::Wide | Format::Quiet => output::note(&failure.message),
    }
}

fn unsaid(task: &v1::Task) -> Failure {
    let (id, state) = (task_id(task), state_name(task.state()));
    let reason = if task.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", task.reason)
    };
    let hint = format!("see `quorate task get {id}`");
    Failure::refused("task_failed", format!("{id} {state}{reason}"), hint)
        .with_exit(Exit::TaskFailed)
}

fn exit(task: &v1::Task, propagate: bool) -> Exit {
    let own = task
        .result
        .as_ref()
        .filter(|_| propagate)
        .and_then(|result| {
            // As a shell counts: 128 and the signal.
            result
                .exit_code
                .or(result.signal.map(|signal| 128 + signal))
        });
    match own.and_then(|code| u8::try_from(code).ok()) {
        Some(code) => Exit::Task(code),
        None => ended(task).unwrap_or(Exit::Unknown),
    }
}

#[cfg(test)]
mod tests {
    use wire::v1::{self, TaskState};

    use super::{exit, with_id};
    use crate::exit::Exit;
    use crate::failure::Failure;

    fn task(state: TaskState, code: Option<i32>, signal: Option<i32>) -> v1::Task {
        let result = v1::TaskResult {
            exit_code: code,
            signal,
            ..Default::default()
        };
        v1::Task {
            state: state.into(),
            result: Some(result),
            ..Default::default()
        }
    }

    #[test]
    fn the_exit_code_is_ours_unless_the_tasks_own_is_asked_for() {
        let failed = task(TaskState::Failed, Some(7), None);
        assert_eq!(exit(&failed, false), Exit::TaskFailed);
        assert_eq!(exit(&failed, true), Exit::Task(7));
        assert_eq!(
            exit(&task(TaskState::Succeeded, Some(0), None), true).code(),
            0
        );
        assert_eq!(
            exit(&task(TaskState::Failed, None, Some(9)), true),
            Exit::Task(137)
        );
        assert_eq!(
            exit(&task(TaskState::Cancelled, None, None), true),
            Exit::TaskFailed
        );
    }

    #[test]
    fn an_error_after_the_submit_names_the_task_and_how_to_go_on() {
        let broken = Failure::unhealthy("the controller broke", "see its log");
        let failure = with_id(broken.clone(), 17);
        assert!(failure.hint.contains("see its log"), "{failure}");
        assert!(
            failure.hint.contains("`quorate task wait t17`"),
            "{failure}"
        );
        assert_eq!((failure.exit, failure.code), (broken.exit, broken.code));
        let failure = with_id(Failure::refused("forbidden", "no", ""), 17);
        assert!(
            failure.hint.contains("`quorate task wait t17`"),
            "{failure}"
        );
        let said = Failure::unknown("no_leader", "none", "later: `quorate task wait t17`");
        assert_eq!(with_id(said.clone(), 17), said);
        assert_eq!(with_id(Failure::reader_gone(), 17), Failure::reader_gone());
    }
}
