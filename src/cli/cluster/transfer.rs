//! `cluster transfer-leadership`: before a machine goes down for maintenance.

use clap::Args;
use model::ControllerId;
use serde_json::json;

use crate::args::Global;
use crate::client::{ConnectArgs, Connection, interrupted};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{self, Answer, SCHEMA};

/// Make another controller the leader
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate cluster transfer-leadership
  quorate cluster transfer-leadership --to c2")]
pub struct TransferArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// To this one [default: the most advanced voter]
    #[arg(long, value_name = "CONTROLLER")]
    to: Option<ControllerId>,
}

pub async fn transfer(cluster: &Connection, args: &TransferArgs, global: &Global) -> Result<Exit> {
    let to = args.to.map(|id| id.to_string()).unwrap_or_default();
    let asking = output::waiting(
        "waiting for the new leader",
        cluster.transfer_leadership(&to),
    );
    let leader = tokio::select! {
        leader = asking => leader?,
        () = interrupted() => return Err(stopped()),
    };
    answer(leader).print(global.output)?;
    Ok(Exit::Ok)
}

/// It was asked for already: no answer means that nobody knows.
fn stopped() -> Failure {
    Failure::interrupted(
        "interrupted before the cluster answered",
        "it may still happen; `quorate cluster status` says who leads",
    )
}

/// `leader`: empty where the others had not chosen yet when the answer was sent.
fn answer(leader: String) -> Answer {
    let known = Some(leader).filter(|leader| !leader.is_empty());
    let text = match &known {
        Some(leader) => format!("{leader} leads"),
        None => {
            "leadership was handed over; who leads is not known yet: ask `quorate cluster status`"
                .to_owned()
        }
    };
    Answer {
        json: json!({ "schema": SCHEMA, "leader": known }),
        ids: known.into_iter().collect(),
        table: Box::new(move |_| text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Width;

    #[test]
    fn a_leader_that_is_not_known_yet_is_null_and_said_so() {
        let unknown = answer(String::new());
        assert_eq!(unknown.json.to_string(), r#"{"schema":1,"leader":null}"#);
        assert!(unknown.ids.is_empty());
        let text = (unknown.table)(Width::Normal);
        assert!(text.contains("not known yet") && text.contains("`quorate cluster status`"));
        let known = answer("c2".to_owned());
        assert_eq!(known.json["leader"], "c2");
        assert_eq!((known.table)(Width::Normal), "c2 leads");
    }

    #[test]
    fn an_interrupted_transfer_says_that_it_may_still_happen_and_how_to_look() {
        let failure = stopped();
        assert_eq!(failure.exit, Exit::Interrupted);
        assert!(failure.hint.contains("may still happen"), "{failure}");
        assert!(
            failure.hint.contains("`quorate cluster status`"),
            "{failure}"
        );
    }
}
