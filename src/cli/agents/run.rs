//! `agent run`: this process is an agent until it is told to stop.

use std::path::PathBuf;

use clap::Args;
use security::JoinToken;

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::join::{self, Newcomer, Said};
use crate::process::{self, LogArgs};
use crate::settings::{self, Layers};
use crate::task::{mebibytes, pair, processors};

/// Run an agent on this machine
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:
  quorate agent run --join TOKEN --controller c1.example:7400
  quorate agent run --controller c1.example:7400 --label gpu=none
  quorate agent run --controller c1.example:7400 --cpu 14 --memory 60GiB --gpu 24GiB --gpu 24GiB
  quorate agent run --controller c1.example:7400 --backend http://127.0.0.1:8080
  quorate agent run --config /etc/quorate/quorate.toml

It needs a certificate. With --join it gets one by itself, once: `quorate join-token create --role agent`
makes a token. Or `quorate cert create --role agent --id NAME …` makes one to be copied. Settings are
read from /etc/quorate/quorate.toml, /etc/quorate/conf.d/*.toml, QUORATE_AGENT__… and flags; later
ones win. `quorate config show` prints what files and variables say in the end.")]
pub struct RunArgs {
    /// Its name, which its certificate must bear; default: the one in the certificate
    #[arg(long)]
    id: Option<String>,
    /// A controller to dial; may be given several times. The others are learnt from it
    #[arg(long = "controller", value_name = "HOST[:PORT]", value_delimiter = ',')]
    controllers: Vec<String>,
    /// A join token: where there is no certificate yet, get one from the controllers that are named
    #[arg(long, value_name = "TOKEN", value_parser = token)]
    join: Option<Token>,
    /// Where it keeps its journal, output and identity [default: /var/lib/quorate/agent]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The directory with ca.pem, cert.pem and key.pem [default: `identity` in the data directory]
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// Attempts that run at a time [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(model::SLOTS_MAX)))]
    slots: Option<u32>,
    /// Processors that tasks may ask for [default: all]
    #[arg(long, value_name = "N", value_parser = processors)]
    cpu: Option<u32>,
    /// Memory that tasks may ask for, such as 60GiB [default: all]
    #[arg(long, value_name = "SIZE", value_parser = mebibytes)]
    memory: Option<u64>,
    /// A GPU that tasks may ask for, by its memory; several times for several [default: those that nvidia-smi lists]
    #[arg(long = "gpu", value_name = "[NAME=]SIZE", value_parser = gpu)]
    gpus: Vec<(Option<String>, u64)>,
    /// What tasks may require; may be given several times
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// A model server to give to the cluster, such as http://127.0.0.1:8080; may be given several times
    #[arg(long = "backend", value_name = "[NAME=]URL", value_parser = backend)]
    backends: Vec<(Option<String>, String)>,
    /// The API key of those, in a file that only its owner can read
    #[arg(long, value_name = "FILE", requires = "backends")]
    backend_key_file: Option<PathBuf>,
    /// Settings: this file instead of those in /etc/quorate, or a directory like that one
    #[arg(long, value_name = "FILE|DIR")]
    config: Option<PathBuf>,
    #[command(flatten)]
    log: LogArgs,
}

impl RunArgs {
    /// Whether any of it was given: a bare `agent` is more likely a question.
    pub fn says_something(&self) -> bool {
        self.id.is_some()
            || !self.controllers.is_empty()
            || self.data_dir.is_some()
            || self.identity.is_some()
            || self.slots.is_some()
            || self.cpu.is_some()
            || self.memory.is_some()
            || !self.gpus.is_empty()
            || !self.labels.is_empty()
            || !self.backends.is_empty()
            || self.join.is_some()
            || self.config.is_some()
    }

    /// The last layer of the settings.
    fn flags(&self) -> settings::Flags {
        let mut flags = settings::Flags::default();
        flags.set("id", self.id.as_deref());
        flags.set(
            "controllers",
            (!self.controllers.is_empty()).then_some(&self.controllers),
        );
        flags.set("data_dir", self.data_dir.as_deref());
        flags.set("identity", self.identity.as_deref());
        flags.set("slots", self.slots);
        flags.set("cpu_milli", self.cpu);
        flags.set("memory_mib", self.memory);
        let gpu = |(name, vram_mib): &(Option<String>, u64)| agent::GpuConfig {
            vram_mib: *vram_mib,
            name: name.clone(),
        };
        let gpus: Vec<_> = self.gpus.iter().map(gpu).collect();
        flags.set("gpus", (!gpus.is_empty()).then_some(gpus));
        for (key, value) in &self.labels {
            flags.set_in("labels", key, value);
        }
        let backend = |(name, url): &(Option<String>, String)| agent::BackendConfig {
            url: url.clone(),
            name: name.clone(),
            key_file: self.backend_key_file.clone(),
        };
        let backends: Vec<_> = self.backends.iter().map(backend).collect();
        flags.set("backends", (!backends.is_empty()).then_some(backends));
        flags
    }
}

/// `SIZE`, or `NAME=SIZE`.
fn gpu(text: &str) -> std::result::Result<(Option<String>, u64), String> {
    match text.rsplit_once('=') {
        Some((name, size)) => Ok((Some(name.to_owned()), mebibytes(size)?)),
        None => Ok((None, mebibytes(text)?)),
    }
}

/// `URL`, or `NAME=URL`.
fn backend(text: &str) -> std::result::Result<(Option<String>, String), String> {
    match text.split_once('=') {
        Some((name, url)) if !name.is_empty() && !name.contains(':') => {
            Ok((Some(name.to_owned()), url.to_owned()))
        }
        Some(_) | None if text.contains("://") => Ok((None, text.to_owned())),
        Some(_) | None => Err("a URL such as http://127.0.0.1:8080 is expected".to_owned()),
    }
}

pub fn run(args: RunArgs, global: &Global) -> Result<Exit> {
    let layers = Layers::from_process(args.config.as_deref())?;
    process::log(&args.log, global)?;
    let newcomer = settings::newcomer(&layers, args.flags())?;
    if let Some(Token(token)) = &args.join {
        join::join(token, &wishes(&newcomer)?)?;
    }
    let said = join::Said::read(&newcomer.identity_dir())?;
    let mut config = settings::agent(&layers, known(args.flags(), &newcomer, &said))?;
    let own = std::env::current_exe()
        .map_err(|error| Failure::refused("system", format!("where is this program? {error}"), ""));
    config.guard = Some(own?);
    settings::require_identity(&config.identity_dir(), security::Role::Agent)?;
    process::serve("agent", |stop| async move {
        agent::run(config, stop).await.map_err(failed)
    })
}

/// What the machine asks for when it joins.
fn wishes(config: &agent::Config) -> Result<Newcomer> {
    let insists = !config.id.is_empty();
    let name = match insists {
        true => config.id.clone(),
        false => join::host_name(),
    };
    if let Err(error) = model::AgentId::new(&name) {
        return Err(Failure::usage(error, "give --id NAME"));
    }
    Ok(Newcomer {
        role: security::Role::Agent,
        name,
        insists,
        addresses: config.controller_dials(),
        hosts: Vec::new(),
        identity: config.identity_dir(),
    })
}

/// What it was told when it joined stands beside what it is told now; a label of the token's wins.
fn known(mut flags: settings::Flags, config: &agent::Config, said: &Said) -> settings::Flags {
    let mut controllers = config.controllers.clone();
    let others = said
        .controllers
        .iter()
        .filter(|one| !config.controllers.contains(one));
    controllers.extend(others.cloned());
    flags.set(
        "controllers",
        (!controllers.is_empty()).then_some(&controllers),
    );
    for (key, value) in &said.labels {
        flags.set_in("labels", key, value);
    }
    flags
}

/// A join token on the command line. No `Debug` of the secret.
#[derive(Clone)]
pub struct Token(pub JoinToken);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.0.id)
    }
}

pub fn token(text: &str) -> std::result::Result<Token, String> {
    text.parse()
        .map(Token)
        .map_err(|error: security::Error| error.to_string())
}

/// As with a controller: what it was told is the administrator's to mend, a failed disk is bad health.
fn failed(error: agent::Error) -> Failure {
    match error {
        // The settings' own texts do not say where they come from.
        agent::Error::Config(invalid) => settings::invalid("agent", &invalid),
        agent::Error::Fatal(_) => Failure::unhealthy(
            error,
            "mend that and start it again: what is on its disk still counts",
        ),
        agent::Error::Io { .. }
        | agent::Error::Named(_)
        | agent::Error::Corrupt { .. }
        | agent::Error::Altered(_)
        | agent::Error::Journal(_)
        | agent::Error::Thread(_) => Failure::unhealthy(error, ""),
        agent::Error::Identity(_)
        | agent::Error::Locked { .. }
        | agent::Error::Foreign { .. }
        | agent::Error::Schema { .. }
        | agent::Error::WrongIdentity { .. } => Failure::refused("agent", error, ""),
    }
}
