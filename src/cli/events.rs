//! `events`: what happened, one JSON object a line, and on as it happens, across failovers.
//!
//! A stream that breaks is continued where it stopped, at whichever controller answers: replies hold whole
//! entries and say with which one to go on, so no event is missed, and none is printed twice.

use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use tokio::time::{Instant, sleep};
use wire::v1;

use crate::args::Global;
use crate::client::{ConnectArgs, Connection, interrupted, runtime};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::object::event_json;
use crate::output;

/// Between two tries to find a controller that goes on.
const PAUSE: Duration = Duration::from_millis(200);
/// How long no controller may answer before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Follow what happens: tasks, attempts, agents
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate events
  quorate events --since 1200
  quorate events --since 0 --until-now | jq -c 'select(.type == \"task_ended\")'

One JSON object a line. To go on after line L, ask with --since L.index + 1 once all events of that
index were read, or again with L.index and skip those up to L.n. Events are kept as long as the archive
keeps its segments; an older index is refused as `compacted`, with the oldest one that is kept.")]
pub struct EventsArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Begin with the events of this log index; without it, with what happens from now on
    #[arg(long, value_name = "INDEX")]
    since: Option<u64>,
    /// End with what has happened by now
    #[arg(long)]
    until_now: bool,
}

pub fn run(args: &EventsArgs, _: &Global) -> Result<Exit> {
    let target = args.connect.target()?;
    runtime()?.block_on(async {
        let cluster = Connection::open(&target)?;
        tokio::select! {
            told = tell(&cluster, args) => told.map(|()| Exit::Ok),
            () = interrupted() => Err(Failure::interrupted("no longer following", "")),
        }
    })
}

async fn tell(cluster: &Connection, args: &EventsArgs) -> Result<()> {
    let mut request = v1::EventsRequest {
        since: args.since,
        until_now: args.until_now,
    };
    let (mut heard, mut last) = (Instant::now(), None);
    loop {
        let broken = match cluster.events(&request).await {
            Ok(mut replies) => loop {
                let next = replies.next().await;
                // An idle stream says nothing: until it broke, somebody was there.
                heard = Instant::now();
                match next {
                    Some(Ok(reply)) => {
                        print(&reply, &mut last)?;
                        request.since = Some(reply.next);
                    }
                    Some(Err(failure)) => break failure,
                    None if args.until_now => return Ok(()),
                    // A controller that stops ends its streams.
                    None => break Failure::unknown("unreachable", "the stream has ended", ""),
                }
            },
            Err(failure) => failure,
        };
        if broken.exit != Exit::Unknown || heard.elapsed() > PATIENCE {
            let index = request.since.unwrap_or_default();
            let hint = format!("to go on: `quorate events --since {index}`");
            let open = broken.exit == Exit::Unknown;
            return Err(match open {
                true => Failure { hint, ..broken },
                false => broken,
            });
        }
        sleep(PAUSE).await;
    }
}

/// What comes again, because it was told in parts and the stream broke in between, is not printed again.
fn print(reply: &v1::EventsReply, last: &mut Option<(u64, u32)>) -> Result<()> {
    let events = reply.events.iter().filter(|event| {
        let place = (event.index, event.n);
        let fresh = last.is_none_or(|last| last < place);
        *last = (*last).max(Some(place));
        fresh
    });
    let lines: String = events
        .map(|event| format!("{}\n", event_json(event)))
        .collect();
    match lines.is_empty() {
        true => Ok(()),
        false => output::bytes(lines.as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_event_has_all_keys_whatever_it_is_about() {
        let event = v1::Event {
            index: 7,
            n: 1,
            time: 1_767_225_600_120,
            r#type: "task_ended".into(),
            task: Some(17),
            state: v1::TaskState::Succeeded.into(),
            ..v1::Event::default()
        };
        let shown: Value = event_json(&event);
        let wanted = json!({
            "schema": 1,
            "index": 7,
            "n": 1,
            "time": "2026-01-01T00:00:00.120Z",
            "type": "task_ended",
            "task": "t17",
            "epoch": null,
            "agent": null,
            "state": "succeeded",
            "reason": null,
            "segment": null,
            "namespace": null,
            "kind": null,
            "rule": null,
        });
        assert_eq!(shown, wanted);
    }
}
