//! The members once something about them was changed: what was done on stderr or in front of the table, and
//! the answer as `cluster members` gives it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::args::Global;
use crate::client::{Connection, or_interrupted};
use crate::exit::Exit;
use crate::failure::Result;
use crate::object::{member_json, members_table};
use crate::output::{self, Answer};

/// How long a change may take among controllers that answer: a handover, an election, two entries, and the
/// end of somebody else's change.
pub const SETTLED: Duration = Duration::from_secs(30);
/// How long to look for a controller that answers with a quorum: one that was removed may not.
const QUORUM: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

pub async fn print(cluster: &Connection, done: String, global: &Global) -> Result<Exit> {
    let members = or_interrupted(output::waiting("asking the cluster", settled(cluster))).await?;
    Answer {
        json: output::list(members.iter().map(member_json).collect(), None),
        ids: members.iter().map(|member| member.id.clone()).collect(),
        table: Box::new(move |width| format!("{done}\n\n{}", members_table(&members, width))),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

/// As a quorum sees them, or as somebody does where none is found soon.
async fn settled(cluster: &Connection) -> Result<Vec<wire::v1::Member>> {
    let begun = Instant::now();
    loop {
        match cluster.status().await {
            Ok(status) if !status.stale && !status.leader.is_empty() => return Ok(status.members),
            Ok(status) if begun.elapsed() > QUORUM => return Ok(status.members),
            Ok(_) => sleep(PAUSE).await,
            Err(failure) => return Err(failure),
        }
    }
}
