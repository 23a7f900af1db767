//! The noun `join-token`: secrets that let machines into the cluster.
//!
//! The secret is made here and printed once; the cluster gets a hash of it, so that nobody can read it there
//! again. The pin in it comes from the CA certificate with which this command itself has checked the cluster.

use std::time::Duration;

use clap::{Args, Subcommand};
use security::Role;
use serde_json::Value;
use wire::v1;

use crate::args::Global;
use crate::client::{ConnectArgs, Connection, connected, now, or_interrupted, or_unknown};
use crate::controller::controller_id;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::object::{join_token_json, join_token_table};
use crate::output::{self, Answer};
use crate::task::{millis, pair, time};

/// Let machines into the cluster
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Example:
  quorate join-token create --role agent
  quorate join-token list")]
pub struct JoinTokenArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Make a join token; its secret is shown only now
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate join-token create --role agent
  quorate join-token create --role agent --uses 20 --ttl 1h --label site=berlin
  quorate join-token create --role controller -o quiet

Whoever has the token can join until it is used up, has expired or is revoked. On the machine:
  quorate agent run --join TOKEN --controller HOST:7400
  quorate controller run --join TOKEN --controller HOST:7400 --advertise HOST")]
struct CreateArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// What a machine becomes: agent or controller
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Role,
    /// How long it is good
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    ttl: Duration,
    /// How many machines it lets in
    #[arg(long, value_name = "N", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(model::JOIN_TOKEN_USES_MAX)))]
    uses: u32,
    /// The id of the one machine that it is for [default: what the machine asks for; a controller gets the next one]
    #[arg(long)]
    id: Option<String>,
    /// How long the certificates live that it gives; they renew themselves at two thirds of that
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = time)]
    validity: Duration,
    /// A label for the agents that it lets in, beside their own; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
}

/// List the join tokens, without their secrets
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  quorate join-token list\n  quorate join-token list -o wide")]
struct ListArgs {
    #[command(flatten)]
    connect: ConnectArgs,
}

/// Make a join token worthless; who joined with it stays
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate join-token revoke 1f2e3d4c")]
struct RevokeArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// As `join-token list` shows it
    #[arg(value_name = "ID")]
    id: model::JoinTokenId,
}

pub fn run(args: JoinTokenArgs, global: &Global) -> Result<Exit> {
    match args.verb {
        Verb::Create(args) => connected(&args.connect, async |to| create(to, &args, global).await),
        Verb::List(args) => connected(&args.connect, async |to| list(to, global).await),
        Verb::Revoke(args) => connected(&args.connect, async |to| revoke(to, &args, global).await),
    }
}

async fn create(cluster: &Connection, args: &CreateArgs, global: &Global) -> Result<Exit> {
    check_id(args)?;
    let token = security::JoinToken::generate(cluster.pin()?)?;
    let labels = args.labels.iter().map(|(key, value)| v1::Label {
        key: key.clone(),
        value: value.clone(),
    });
    let request = v1::CreateJoinTokenRequest {
        id: token.id.clone(),
        secret_hash: token.secret.hash().0.to_vec().into(),
        role: args.role.as_str().to_owned(),
        name: args.id.clone().unwrap_or_default(),
        uses: args.uses,
        ttl_ms: millis(args.ttl).0,
        validity_ms: millis(args.validity).0,
        labels: labels.collect(),
    };
    let asking = output::waiting("asking the cluster", cluster.create_join_token(&request));
    let hint = format!(
        "it may have been made, and nobody has its secret: `quorate join-token revoke {}`, and make another",
        token.id
    );
    let made = or_unknown(asking, hint).await?;
    let text = token.to_string();
    let mut json = join_token_json(&made);
    if let Value::Object(keys) = &mut json {
        keys.insert("token".to_owned(), text.clone().into());
    }
    let shown = text.clone();
    Answer {
        json,
        ids: vec![text],
        table: Box::new(move |_| shown.clone()),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

fn check_id(args: &CreateArgs) -> Result<()> {
    let Some(id) = &args.id else {
        return Ok(());
    };
    let checked = match args.role {
        Role::Controller => controller_id(id).map(drop),
        Role::Agent | Role::Client => model::AgentId::new(id)
            .map(drop)
            .map_err(|error| error.to_string()),
    };
    checked.map_err(|error| Failure::usage(error, "see `quorate join-token create --help`"))
}

async fn list(cluster: &Connection, global: &Global) -> Result<Exit> {
    let asking = output::waiting("asking the cluster", cluster.join_tokens());
    let tokens = or_interrupted(asking).await?;
    if tokens.is_empty() && output::watched() {
        output::note("no join tokens");
    }
    Answer {
        json: output::list(tokens.iter().map(join_token_json).collect(), None),
        ids: tokens.iter().map(|token| token.id.clone()).collect(),
        table: Box::new(move |width| match tokens.as_slice() {
            [] => String::new(),
            tokens => join_token_table(tokens, width, now()),
        }),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

async fn revoke(cluster: &Connection, args: &RevokeArgs, global: &Global) -> Result<Exit> {
    let id = args.id.to_string();
    let asking = output::waiting("asking the cluster", cluster.revoke_join_token(&id));
    let hint = "it may have been revoked: see `quorate join-token list`; asking again is safe";
    let token = or_unknown(asking, hint.to_owned()).await?;
    let text = format!("{id} lets nobody in any more");
    Answer {
        json: join_token_json(&token),
        ids: vec![id],
        table: Box::new(move |_| text.clone()),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

fn role(text: &str) -> std::result::Result<Role, String> {
    match text.parse() {
        Ok(role @ (Role::Agent | Role::Controller)) => Ok(role),
        Ok(Role::Client) | Err(_) => Err("agent or controller is expected".to_owned()),
    }
}
