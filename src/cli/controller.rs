//! The noun `controller`: this process is a controller until it is told to stop.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use model::ControllerId;

use crate::agents::{Token, token};
use crate::args::Global;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::join::{self, Newcomer};
use crate::process::{self, LogArgs};
use crate::settings::{self, Flags, Layers};

/// Run a controller on this machine
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate controller run --data-dir /var/lib/quorate/controller --advertise c1.example
  quorate controller --config /etc/quorate/quorate.toml    the same as `controller run --config …`")]
pub struct ControllerArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    bare: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(RunArgs),
}

/// Run a controller on this machine
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:
  quorate controller run --advertise c1.example
  quorate controller run --advertise c2.example --join TOKEN --controller c1.example:7400
  quorate controller run --id c2 --advertise c2.example --join c1.example:7400

The first controller of a cluster is made by `quorate cluster init`. Every other one joins: by a token from
`quorate join-token create --role controller`, which gives it an id and a certificate, or with a certificate
from `quorate cert create` and --join. Settings are read from /etc/quorate/quorate.toml,
/etc/quorate/conf.d/*.toml, QUORATE_CONTROLLER__… and flags; later ones win.")]
struct RunArgs {
    /// Its id, such as c1, which its certificate must bear; default: the one in the certificate
    #[arg(long, value_parser = controller_id)]
    id: Option<ControllerId>,
    /// Where it keeps its log and identity [default: /var/lib/quorate/controller]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Listen here: gRPC on PORT (7400), Raft on PORT + 1, HTTPS on PORT + 2
    #[arg(long, value_name = "HOST[:PORT]")]
    listen: Option<String>,
    /// How others reach it [default: as --listen]
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// A join token: get a certificate by it, and membership, from the controllers that --controller names.
    /// Or, for one that has a certificate, the controllers to ask for membership
    #[arg(long, value_name = "TOKEN|HOST[:PORT],…", value_delimiter = ',', value_parser = joining)]
    join: Vec<Joining>,
    /// A controller of the cluster to join; may be given several times
    #[arg(long = "controller", value_name = "HOST[:PORT]", value_delimiter = ',')]
    controllers: Vec<String>,
    /// Settings: this file instead of those in /etc/quorate, or a directory like that one
    #[arg(long, value_name = "FILE|DIR")]
    config: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

impl RunArgs {
    /// The last layer of the settings.
    fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        flags.set("id", self.id.map(|id| id.to_string()));
        flags.set("data_dir", self.data_dir.as_deref());
        flags.set("listen", self.listen.as_deref());
        flags.set("advertise", self.advertise.as_deref());
        let addresses = self.addresses();
        flags.set("join", (!addresses.is_empty()).then_some(&addresses));
        flags
    }

    /// Whom to ask for membership.
    fn addresses(&self) -> Vec<String> {
        let named = self.join.iter().filter_map(|one| match one {
            Joining::At(address) => Some(address),
            Joining::By(_) => None,
        });
        named.chain(&self.controllers).cloned().collect()
    }

    fn token(&self) -> Option<&security::JoinToken> {
        self.join.iter().find_map(|one| match one {
            Joining::By(Token(token)) => Some(token),
            Joining::At(_) => None,
        })
    }
}

/// What `--join` takes.
#[derive(Debug, Clone)]
enum Joining {
    By(Token),
    At(String),
}

fn joining(text: &str) -> std::result::Result<Joining, String> {
    match security::JoinToken::looks_like(text) {
        true => token(text).map(Joining::By),
        false => Ok(Joining::At(text.to_owned())),
    }
}

/// As an option of the command line; 0 stands for none in the settings. A certificate holds the text, which
/// therefore is the one that the number is written as.
pub fn controller_id(text: &str) -> std::result::Result<ControllerId, String> {
    match text.parse() {
        Ok(ControllerId(0)) => Err("ids begin with c1".to_owned()),
        Ok(id) if id.to_string() != text => Err(format!("`{text}` is written {id}")),
        Ok(id) => Ok(id),
        Err(error) => Err(format!("{error}")),
    }
}

pub fn run(args: ControllerArgs, global: &Global) -> Result<Exit> {
    let args = match args.verb {
        Some(Verb::Run(args)) => args,
        None => args.bare,
    };
    let layers = Layers::from_process(args.config.as_deref())?;
    process::log(&args.log, global)?;
    let newcomer = settings::founder(&layers, args.flags())?;
    if let Some(token) = args.token() {
        join::join(token, &wishes(&newcomer)?)?;
    }
    let mut config = settings::controller(&layers, args.flags())?;
    let said = join::Said::read(&config.data_dir.join("identity"))?;
    let others = said
        .controllers
        .into_iter()
        .filter(|one| !config.join.contains(one));
    config.join.extend(others.collect::<Vec<_>>());
    settings::require_identity(
        &config.data_dir.join("identity"),
        security::Role::Controller,
    )?;
    process::raise_descriptors();
    process::serve("controller", |stop| async move {
        server::run(config, stop).await.map_err(failed)
    })
}

/// What the machine asks for when it joins. All that can be wrong with its settings is found before the token is
/// used, but for the id, which the cluster gives.
fn wishes(config: &server::Config) -> Result<Newcomer> {
    let insists = config.id != ControllerId(0);
    let mut named = config.clone();
    if !insists {
        named.id = ControllerId(u64::MAX);
    }
    named
        .validate()
        .map_err(|error| settings::invalid("controller", &error))?;
    let advertised = config
        .listen_on()
        .and_then(|bound| config.advertised(&bound));
    let advertised = advertised.map_err(|error| settings::invalid("controller", &error))?;
    let (host, _) = advertised
        .grpc
        .rsplit_once(':')
        .unwrap_or((&advertised.grpc, ""));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok(Newcomer {
        role: security::Role::Controller,
        name: if insists {
            config.id.to_string()
        } else {
            String::new()
        },
        insists,
        addresses: config.join_addresses(),
        hosts: vec![host.to_owned()],
        identity: config.data_dir.join("identity"),
    })
}

/// What it was told is the administrator's to mend; a disk or a log that fails, at the start or later, is
/// bad health.
fn failed(error: server::Error) -> Failure {
    match error {
        server::Error::Fatal(_) | server::Error::Stopped { .. } => Failure::unhealthy(error, ""),
        other => Failure::refused("controller", other, ""),
    }
}
