//! `cluster transfer-leadership`: before a machine goes down for maintenance.

use clap::Args;
use model::ControllerId;

use super::members;
use crate::args::Global;
use crate::client::{ConnectArgs, Connection, interrupted};
use crate::controller::controller_id;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output;

/// Make another controller the leader
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate cluster transfer-leadership
  quorate cluster transfer-leadership c2")]
pub struct TransferArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// To this one [default: the most advanced voter]
    #[arg(value_name = "CONTROLLER", value_parser = controller_id)]
    id: Option<ControllerId>,
    /// As it was said at first
    #[arg(long, value_name = "CONTROLLER", value_parser = controller_id, hide = true)]
    #[arg(conflicts_with = "id")]
    to: Option<ControllerId>,
}

pub async fn transfer(cluster: &Connection, args: &TransferArgs, global: &Global) -> Result<Exit> {
    let to = args
        .id
        .or(args.to)
        .map(|id| id.to_string())
        .unwrap_or_default();
    let asking = output::waiting(
        "waiting for the new leader",
        cluster.transfer_leadership(&to),
    );
    let leader = tokio::select! {
        leader = asking => leader?,
        () = interrupted() => return Err(stopped()),
    };
    members::print(cluster, done(&leader), global).await
}

/// It was asked for already: no answer means that nobody knows.
fn stopped() -> Failure {
    Failure::interrupted(
        "interrupted before the cluster answered",
        "it may still happen; `quorate cluster status` says who leads",
    )
}

/// `leader`: empty where the others had not chosen yet when the answer was sent.
fn done(leader: &str) -> String {
    match leader {
        "" => {
            "leadership was handed over; who leads is not known yet: ask `quorate cluster status`"
                .into()
        }
        leader => format!("{leader} leads"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_is_not_known_yet_is_said_to_be_so() {
        let text = done("");
        assert!(text.contains("not known yet") && text.contains("`quorate cluster status`"));
        assert_eq!(done("c2"), "c2 leads");
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
