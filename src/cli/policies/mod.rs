//! The noun `policy`: how agents are chosen, and what people decided by hand.

mod rules;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use model::{Kind, Namespace, Strategy};
use wire::convert::INHERIT;
use wire::v1;

use crate::args::Global;
use crate::client::{ConnectArgs, Connection, connected, or_interrupted, or_unknown};
use crate::exit::Exit;
use crate::failure::Result;
use crate::object::{in_force, policy_json, policy_scope, policy_table, with_default};
use crate::output::{self, Answer};

/// Say how an agent is chosen among those that fit a task, or where tasks may run
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Examples:
  quorate policy get
  quorate policy set --kind inference --strategy ip_hash
  quorate policy rule-add exclude --agent worker-3 --reason \"its memory is bad\"

The narrowest policy that fits a task holds: that of its kind in its namespace, else of its namespace, else of its kind, \
else of all tasks. `task why` says how an agent was chosen.")]
pub struct PolicyArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Get(GetArgs),
    Set(SetArgs),
    Rules(rules::RulesArgs),
    RuleAdd(rules::AddArgs),
    RuleRemove(rules::RemoveArgs),
}

/// Show the policies, or those that hold for some tasks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate policy get
  quorate policy get --namespace research --kind process")]
struct GetArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Say how agents are to be chosen, for all tasks or some
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate policy set --strategy least_connections
  quorate policy set --namespace research --strategy binpack
  quorate policy set --namespace research --strategy inherit

Strategies:
  adaptive              the best by its machine's health, its attempts for each slot, and how long such tasks take there
                        (what holds where nothing was set)
  round_robin           one after the other
  weighted_round_robin  the same, and one with twice the slots twice as often
  least_connections     the fewest attempts, however many slots there are
  ip_hash               the same agent for the same client while it has room: the user, or what the task's label
                        `session` says
  power_of_two          the less loaded of two that are drawn
  binpack               the fullest agent that has room
  spread                the agent with the fewest attempts of the same namespace
  inherit               nothing of its own any more: as the next wider policy says

It holds for decisions from then on; what runs goes on where it is.")]
struct SetArgs {
    /// How to choose
    #[arg(long, value_name = "STRATEGY", value_parser = strategies(), hide_possible_values = true)]
    strategy: String,
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Debug, Args)]
struct ScopeArgs {
    /// Of tasks of this namespace only
    // Not the one of the context: a policy holds for all where nothing is said.
    #[arg(long = "namespace", value_name = "NAME")]
    namespace: Option<Namespace>,
    /// Of tasks of this kind only
    #[arg(long, value_name = "KIND", value_parser = kinds())]
    kind: Option<Kind>,
}

impl ScopeArgs {
    fn namespace(&self) -> &str {
        self.namespace.as_ref().map_or("", Namespace::as_str)
    }

    fn kind(&self) -> &str {
        self.kind.map_or("", Kind::as_str)
    }

    /// What holds for such tasks, of each kind where none was named: one of them may have a policy of its own.
    fn in_force(&self, policies: &[v1::Policy]) -> Vec<v1::Policy> {
        let mut found: Vec<v1::Policy> = Vec::new();
        for kind in Kind::ALL
            .into_iter()
            .filter(|it| self.kind.is_none_or(|kind| kind == *it))
        {
            let holds = in_force(policies, self.namespace(), kind.as_str());
            if !found.contains(&holds) {
                found.push(holds);
            }
        }
        found
    }

    /// Whether what is about these tasks is about some of those, too; empty: any.
    fn meets(&self, namespace: &str, kind: &str) -> bool {
        let meet = |own: &str, other: &str| own.is_empty() || other.is_empty() || own == other;
        meet(self.namespace(), namespace) && meet(self.kind(), kind)
    }

    fn is_all(&self) -> bool {
        self.namespace.is_none() && self.kind.is_none()
    }
}

fn strategies() -> impl TypedValueParser<Value = String> {
    let names = Strategy::ALL.map(Strategy::as_str).into_iter();
    PossibleValuesParser::new(names.chain([INHERIT]))
}

fn kinds() -> impl TypedValueParser<Value = Kind> {
    let names = PossibleValuesParser::new(Kind::ALL.map(Kind::as_str));
    names.try_map(|name| name.parse::<Kind>())
}

pub fn run(args: PolicyArgs, global: &Global) -> Result<Exit> {
    match args.verb {
        Verb::Get(args) => connected(&args.connect, async |to| get(to, &args, global).await),
        Verb::Set(args) => connected(&args.connect, async |to| set(to, &args, global).await),
        Verb::Rules(args) => rules::rules(&args, global),
        Verb::RuleAdd(args) => rules::add(&args, global),
        Verb::RuleRemove(args) => rules::remove(&args, global),
    }
}

async fn get(cluster: &Connection, args: &GetArgs, global: &Global) -> Result<Exit> {
    let asking = output::waiting("asking the cluster", cluster.policies());
    let policies = or_interrupted(asking).await?;
    match args.scope.is_all() {
        true => list(with_default(policies), global),
        false => list(args.scope.in_force(&policies), global),
    }
}

async fn set(cluster: &Connection, args: &SetArgs, global: &Global) -> Result<Exit> {
    let said = v1::SetPolicyRequest {
        namespace: args.scope.namespace().to_owned(),
        kind: args.scope.kind().to_owned(),
        strategy: args.strategy.clone(),
    };
    let asking = output::waiting("asking the cluster", cluster.set_policy(&said));
    let hint = "it may have happened: see `quorate policy get`; asking again is safe";
    let policies = or_unknown(asking, hint.to_owned()).await?;
    list(args.scope.in_force(&policies), global)
}

fn list(policies: Vec<v1::Policy>, global: &Global) -> Result<Exit> {
    Answer {
        json: output::list(policies.iter().map(policy_json).collect(), None),
        ids: policies.iter().map(policy_scope).collect(),
        table: Box::new(move |_| policy_table(&policies)),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}
