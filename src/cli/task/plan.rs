//! `task plan`: what would become of a task, without submitting it.

use clap::Args;
use wire::v1;

use super::spec::SpecArgs;
use crate::args::Global;
use crate::client::{Connection, or_interrupted};
use crate::exit::Exit;
use crate::failure::Result;
use crate::object::{plan_json, plan_text};
use crate::output::{self, Answer};

/// Say where a task would run now, or why it would wait, without submitting it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate task plan --require gpu=a100 -- ./train.sh
  quorate task plan --class batch --namespace research --from task.toml

Nothing is kept, and no file is uploaded. What would be refused is refused, with exit code 1.")]
pub struct PlanArgs {
    #[command(flatten)]
    spec: SpecArgs,
}

pub async fn plan(
    cluster: &Connection,
    args: PlanArgs,
    namespace: Option<String>,
    global: &Global,
) -> Result<Exit> {
    let wanted = args.spec.wanted(namespace)?;
    let asking = cluster.plan(v1::TaskSpec::from(&wanted.spec));
    let plan = or_interrupted(output::waiting("asking the cluster", asking)).await?;
    let agent = plan.decision.first().map(|winner| winner.agent.clone());
    Answer {
        json: plan_json(&plan),
        ids: agent.into_iter().collect(),
        table: Box::new(move |_| plan_text(&plan)),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}
