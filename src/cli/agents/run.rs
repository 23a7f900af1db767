//! `agent run`: this process is an agent until it is told to stop.

use std::path::PathBuf;

use clap::Args;

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::process::{self, LogArgs};
use crate::settings::{self, Layers};
use crate::task::pair;

/// Run an agent on this machine
#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:
  quorate agent run --controller c1.example:7400 --label gpu=none
  quorate agent run --controller c1.example:7400 --backend http://127.0.0.1:8080
  quorate agent run --config /etc/quorate/quorate.toml

It needs a certificate: `quorate cert create --role agent --id NAME …` makes one. Settings are
read from /etc/quorate/quorate.toml, /etc/quorate/conf.d/*.toml, QUORATE_AGENT__… and flags; later
ones win. `quorate config show` prints what files and variables say in the end.")]
pub struct RunArgs {
    /// Its name, which its certificate must bear; default: the one in the certificate
    #[arg(long)]
    id: Option<String>,
    /// A controller to dial; may be given several times. The others are learnt from it
    #[arg(long = "controller", value_name = "HOST[:PORT]", value_delimiter = ',')]
    controllers: Vec<String>,
    /// Where it keeps its journal, output and identity [default: /var/lib/quorate/agent]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The directory with ca.pem, cert.pem and key.pem [default: `identity` in the data directory]
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    /// Attempts that run at a time [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(model::SLOTS_MAX)))]
    slots: Option<u32>,
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
            || !self.labels.is_empty()
            || !self.backends.is_empty()
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
    let mut config = settings::agent(&layers, args.flags())?;
    let own = std::env::current_exe()
        .map_err(|error| Failure::refused("system", format!("where is this program? {error}"), ""));
    config.guard = Some(own?);
    settings::require_identity(&config.identity_dir(), security::Role::Agent)?;
    process::log(&args.log, global)?;
    process::serve("agent", |stop| async move {
        agent::run(config, stop).await.map_err(failed)
    })
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
        | agent::Error::Corrupt { .. }
        | agent::Error::Journal(_)
        | agent::Error::Thread(_) => Failure::unhealthy(error, ""),
        agent::Error::Identity(_)
        | agent::Error::Locked { .. }
        | agent::Error::Foreign { .. }
        | agent::Error::Schema { .. }
        | agent::Error::WrongIdentity { .. } => Failure::refused("agent", error, ""),
    }
}
