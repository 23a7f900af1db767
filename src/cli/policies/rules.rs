//! Rules by hand: `policy rules`, `rule-add` and `rule-remove`.

use std::time::Duration;

use clap::{Args, Subcommand};
use model::{Expression, RuleId};
use wire::v1;

use super::ScopeArgs;
use crate::args::Global;
use crate::client::{ConnectArgs, Connection, connected, now, or_interrupted, or_unknown};
use crate::exit::Exit;
use crate::failure::Result;
use crate::object::{rule_json, rule_table};
use crate::output::{self, Answer};
use crate::task::{millis, time};

/// List the rules that were made by hand, or those that are about some tasks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate policy rules
  quorate policy rules --namespace research -o wide

AGENTS NOW counts those that a rule names and that are registered: at 0 a pin lets its tasks run nowhere.")]
pub struct RulesArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Decide by hand where tasks run
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Examples:
  quorate policy rule-add exclude --agent worker-3 --reason \"its memory is bad\"
  quorate policy rule-add pin --require site=berlin --namespace research --reason \"the data may not leave\"
  quorate policy rule-add prefer --require gpu=a100 --kind inference --ttl 2h --reason \"warm already\"
  quorate policy rule-add cap --most 2 --agent worker-1 --namespace nightly --reason \"its disk is slow\"

All rules that are about a task hold at once. An exclusion wins over a pin; of several pins each has to be met; a \
preference chooses among the agents that are left. A rule that would leave tasks without any agent is refused, and so \
is one to which others leave none of its agents. One that does the same with the same tasks and agents is replaced, so it can be given again with another reason \
or time. What was assigned before stays where it is; whoever waits because of a rule is told so by `task why`.")]
pub struct AddArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The tasks run on these agents only
    #[command(
        after_help = "Example:\n  quorate policy rule-add pin --require site=berlin --namespace research --reason \"the data may not leave\""
    )]
    Pin(WhatArgs),
    /// The tasks run on none of these agents
    #[command(
        after_help = "Example:\n  quorate policy rule-add exclude --agent worker-3 --reason \"its memory is bad\""
    )]
    Exclude(WhatArgs),
    /// These agents are taken first, as long as one of them has a free slot
    #[command(
        after_help = "Example:\n  quorate policy rule-add prefer --require gpu=a100 --kind inference --ttl 2h --reason \"warm already\""
    )]
    Prefer(WhatArgs),
    /// Each of these agents holds so many of the tasks at most
    #[command(
        after_help = "Example:\n  quorate policy rule-add cap --most 2 --agent worker-1 --namespace nightly --reason \"its disk is slow\""
    )]
    Cap {
        /// How many
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        most: u32,
        #[command(flatten)]
        what: WhatArgs,
    },
}

#[derive(Debug, Args)]
struct WhatArgs {
    /// This agent; may be given several times
    #[arg(long = "agent", value_name = "ID")]
    agents: Vec<model::AgentId>,
    /// Agents with such labels: key=value, key!=value, "key in (a,b)" or key; given several times, all of them hold
    #[arg(long, value_name = "EXPRESSION")]
    require: Vec<Expression>,
    /// Why; shown to those who meet the rule later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// For how long [default: until somebody removes it]
    #[arg(long, value_name = "TIME", value_parser = time)]
    ttl: Option<Duration>,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Take a rule back
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate policy rule-remove r17")]
pub struct RemoveArgs {
    /// As `policy rules` shows it
    #[arg(value_name = "RULE")]
    id: RuleId,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub fn rules(args: &RulesArgs, global: &Global) -> Result<Exit> {
    connected(&args.connect, async |to| list(to, args, global).await)
}

pub fn add(args: &AddArgs, global: &Global) -> Result<Exit> {
    let (action, most, what) = match &args.action {
        Action::Pin(what) => ("pin", 0, what),
        Action::Exclude(what) => ("exclude", 0, what),
        Action::Prefer(what) => ("prefer", 0, what),
        Action::Cap { most, what } => ("cap", *most, what),
    };
    let asked = v1::AddRuleRequest {
        action: action.to_owned(),
        most,
        namespace: what.scope.namespace().to_owned(),
        kind: what.scope.kind().to_owned(),
        agents: what.agents.iter().map(ToString::to_string).collect(),
        require: what.require.iter().map(ToString::to_string).collect(),
        reason: what.reason.clone(),
        ttl_ms: what.ttl.map(|ttl| millis(ttl).0),
    };
    connected(&what.connect, async |to| {
        let asking = output::waiting("asking the cluster", to.add_rule(&asked));
        let hint = "it may hold already: see `quorate policy rules`; asking again is safe";
        let (rule, replaced) = or_unknown(asking, hint.to_owned()).await?;
        let agents = match rule.fits {
            1 => "1 agent".to_owned(),
            agents => format!("{agents} agents"),
        };
        let mut text = format!("{}: {}; {agents} now", rule.id, rule.words);
        if let Some(before) = replaced {
            let held = match before.expires_at {
                None => "for good",
                Some(_) => "for a time",
            };
            let (by, reason) = (&before.by, &before.reason);
            text.push_str(&format!(
                "\nin place of what {by} had said {held}: {reason}"
            ));
        }
        shown(&rule, text, global)
    })
}

pub fn remove(args: &RemoveArgs, global: &Global) -> Result<Exit> {
    let id = args.id.to_string();
    connected(&args.connect, async |to| {
        let asking = output::waiting("asking the cluster", to.remove_rule(&id));
        let hint = "it may be gone already: see `quorate policy rules`; asking again is safe";
        let rule = or_unknown(asking, hint.to_owned()).await?;
        let text = match rule.words.as_str() {
            "" => format!("{id} holds no more"),
            _ => format!("{id} holds no more: {}", rule.words),
        };
        shown(&rule, text, global)
    })
}

fn shown(rule: &v1::Rule, text: String, global: &Global) -> Result<Exit> {
    Answer {
        json: rule_json(rule),
        ids: vec![rule.id.clone()],
        table: Box::new(move |_| text.clone()),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

async fn list(cluster: &Connection, args: &RulesArgs, global: &Global) -> Result<Exit> {
    let asking = output::waiting("asking the cluster", cluster.rules());
    let mut rules = or_interrupted(asking).await?;
    rules.retain(|rule| args.scope.meets(&rule.namespace, &rule.kind));
    if rules.is_empty() && output::watched() {
        output::note("no rules by hand: placement follows the policies alone");
    }
    Answer {
        json: output::list(rules.iter().map(rule_json).collect(), None),
        ids: rules.iter().map(|rule| rule.id.clone()).collect(),
        table: Box::new(move |width| match rules.as_slice() {
            [] => String::new(),
            rules => rule_table(rules, width, now()),
        }),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}
