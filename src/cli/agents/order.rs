//! `agent cordon`, `uncordon` and `remove`: one request each, safe to repeat.

use clap::Args;
use model::AgentId;
use wire::v1;
use wire::v1::agent_order::Order;

use crate::args::Global;
use crate::client::{ConnectArgs, Connection, or_unknown};
use crate::exit::Exit;
use crate::failure::Result;
use crate::object::agent_json;
use crate::output::{self, Answer};

/// Give an agent no new work; what it holds goes on
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate agent cordon a1 --reason 'its disk is slow'

It stays so, whatever the agent does, until `quorate agent uncordon`.")]
pub struct CordonArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Such as a1
    #[arg(value_name = "AGENT")]
    id: AgentId,
    /// Shown to whoever wonders
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
}

/// Give an agent work again; ends a drain
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate agent uncordon a1")]
pub struct UncordonArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Such as a1
    #[arg(value_name = "AGENT")]
    id: AgentId,
}

/// Forget an agent that is gone for good
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate agent drain a1 && ssh a1 systemctl stop quorate-agent && quorate agent remove a1

Only of one that holds nothing, is lost or cordoned, and whose process was stopped. Should it ever start
again, it registers as a new one.")]
pub struct RemoveArgs {
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Such as a1
    #[arg(value_name = "AGENT")]
    id: AgentId,
}

pub async fn cordon(cluster: &Connection, args: &CordonArgs, global: &Global) -> Result<Exit> {
    let reason = args.reason.clone();
    let order = Order::Cordon(v1::CordonAgent { reason });
    let agent = asked(cluster, &args.id, order).await?;
    print(&agent, "gets no new work", global)
}

pub async fn uncordon(cluster: &Connection, args: &UncordonArgs, global: &Global) -> Result<Exit> {
    let order = Order::Uncordon(v1::UncordonAgent {});
    let agent = asked(cluster, &args.id, order).await?;
    print(&agent, "gets work again", global)
}

pub async fn remove(cluster: &Connection, args: &RemoveArgs, global: &Global) -> Result<Exit> {
    let order = Order::Remove(v1::RemoveAgent {});
    let agent = asked(cluster, &args.id, order).await?;
    print(&agent, "is forgotten", global)
}

/// Asks for it.
pub async fn asked(cluster: &Connection, id: &AgentId, order: Order) -> Result<v1::Agent> {
    let message = v1::AgentOrder {
        id: id.to_string(),
        order: Some(order),
    };
    let asking = output::waiting("asking the cluster", cluster.order_agent(&message));
    let hint = format!("it may have happened: see `quorate agent get {id}`; asking again is safe");
    or_unknown(asking, hint).await
}

pub fn print(agent: &v1::Agent, what: &str, global: &Global) -> Result<Exit> {
    let text = format!("{} {what}", agent.id);
    Answer {
        json: agent_json(agent),
        ids: vec![agent.id.clone()],
        table: Box::new(move |_| text.clone()),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}
