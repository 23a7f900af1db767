//! `cluster promote` and `cluster remove`: who has a vote. The leader does it, one change at a time; this
//! waits until it is done, and shows the members as they are then.

use std::time::Duration;

use clap::Args;
use model::ControllerId;

use super::members::{self, SETTLED};
use crate::args::Global;
use crate::client::{ConnectArgs, Connection, or_unknown};
use crate::controller::controller_id;
use crate::exit::Exit;
use crate::failure::Result;
use crate::output;
use crate::prompt::confirm;

/// How long a learner may take to catch up.
const CATCH_UP: Duration = Duration::from_secs(60);

/// Make a learner a voter, once it has caught up
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate cluster promote c4

A controller that is started with --join becomes a voter by itself; this is for one whose joining was cut
short. One change at a time: a second one waits for the first.")]
pub struct PromoteArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Such as c4
    #[arg(value_name = "CONTROLLER", value_parser = controller_id)]
    id: ControllerId,
}

/// Take a controller out of the cluster for good
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate cluster remove c3
  quorate cluster remove c3 --yes

A leader hands over first. The removed process ends with exit code 1, and its id is never used again.
Refused where it is the only voter, or where too few of the others answer to go on without it: that could
not be committed. One change at a time: a second one waits for the first.")]
pub struct RemoveArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Such as c3
    #[arg(value_name = "CONTROLLER", value_parser = controller_id)]
    id: ControllerId,
}

pub async fn promote(cluster: &Connection, args: &PromoteArgs, global: &Global) -> Result<Exit> {
    let id = args.id.to_string();
    let text = format!("waiting for {id} to catch up, and for the others to agree");
    let asking = output::waiting(&text, cluster.promote(&id, CATCH_UP));
    done(asking, &format!("quorate cluster promote {id}")).await?;
    members::print(cluster, format!("{id} is a voter"), global).await
}

pub async fn remove(cluster: &Connection, args: &RemoveArgs, global: &Global) -> Result<Exit> {
    let id = args.id.to_string();
    let question = format!("Remove {id} from the cluster? Its id is never used again.");
    confirm(&question, global)?;
    let text = format!("waiting for the others to agree on going on without {id}");
    let asking = output::waiting(&text, cluster.remove(&id, SETTLED));
    done(asking, &format!("quorate cluster remove {id}")).await?;
    members::print(cluster, format!("{id} is removed"), global).await
}

/// To ask again is safe.
async fn done(asking: impl Future<Output = Result<()>>, again: &str) -> Result<()> {
    let hint = format!(
        "it may still happen: see `quorate cluster members`; asking again is safe: `{again}`"
    );
    or_unknown(asking, hint).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[tokio::test]
    async fn a_change_without_an_answer_says_that_asking_again_is_safe() {
        let late = Failure::unknown("busy", "another change is under way", "");
        let failure = done(async { Err(late) }, "quorate cluster remove c3").await;
        let failure = failure.unwrap_err();
        assert!(
            failure.hint.contains("`quorate cluster remove c3`"),
            "{failure}"
        );
        let refused = Failure::refused("refused", "c3 is the only voter", "");
        let kept = done(async { Err(refused.clone()) }, "x").await.unwrap_err();
        assert_eq!(kept, refused);
    }
}
