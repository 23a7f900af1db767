//! `cluster status` and `cluster members`: one controller is asked, and asks the others.

use crate::args::Global;
use crate::client::{Connection, or_interrupted};
use crate::exit::Exit;
use crate::failure::Result;
use crate::object::{member_json, members_table, status_json, status_table};
use crate::output::{self, Answer};

/// Without a quorum it still answers, says so, and ends with 2.
pub async fn status(cluster: &Connection, global: &Global) -> Result<Exit> {
    let asking = output::waiting("asking the cluster", cluster.status());
    let status = or_interrupted(asking).await?;
    let exit = if status.stale {
        Exit::NotFound
    } else {
        Exit::Ok
    };
    Answer {
        json: status_json(&status),
        ids: vec![status.leader.clone()],
        table: Box::new(move |width| status_table(&status, width)),
    }
    .print(global.output)?;
    Ok(exit)
}

pub async fn members(cluster: &Connection, global: &Global) -> Result<Exit> {
    let asking = output::waiting("asking the cluster", cluster.status());
    let status = or_interrupted(asking).await?;
    let exit = if status.stale {
        Exit::NotFound
    } else {
        Exit::Ok
    };
    let members = status.members;
    Answer {
        json: output::list(members.iter().map(member_json).collect(), None),
        ids: members.iter().map(|member| member.id.clone()).collect(),
        table: Box::new(move |width| members_table(&members, width)),
    }
    .print(global.output)?;
    Ok(exit)
}
