//! Settings of a server, in layers: files, then variables, then flags; later ones win.
//!
//! `/etc/quorate/quorate.toml`, then `/etc/quorate/conf.d/*.toml` in the order of their names, then
//! `QUORATE_CONTROLLER__…` and `QUORATE_AGENT__…`, then flags. Each layer is read on its own against the
//! defaults first, so that an unknown key or a wrong type is reported with the file or variable that has
//! it, and never silently becomes a default.

mod layer;

use std::path::Path;

use figment::Figment;
use figment::providers::Serialized;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Result};

pub use layer::{Flags, Layers};

/// The section of a process, its prefix of variables, and its settings.
trait Section: Serialize + DeserializeOwned + Default {
    const NAME: &'static str;
}

impl Section for server::Config {
    const NAME: &'static str = "controller";
}

impl Section for agent::Config {
    const NAME: &'static str = "agent";
}

/// What an agent is told that has not joined yet, so nothing of it need be known but whom to ask.
pub fn newcomer(layers: &Layers, flags: Flags) -> Result<agent::Config> {
    fitting::<server::Config>(layers)?;
    merged(layers, flags)
}

/// What a controller is told. Where no id is given, its certificate says it.
pub fn controller(layers: &Layers, flags: Flags) -> Result<server::Config> {
    fitting::<agent::Config>(layers)?;
    let mut config = merged(layers, flags)?;
    check_controller(&mut config)?;
    Ok(config)
}

/// What a controller is told that has no certificate yet, the first of its cluster or one that joins: its id may be
/// missing.
pub fn founder(layers: &Layers, flags: Flags) -> Result<server::Config> {
    fitting::<agent::Config>(layers)?;
    merged(layers, flags)
}

/// The same from files and variables alone, also where it can't work; then with the reason.
pub fn controller_as_given(layers: &Layers) -> Result<(server::Config, Option<Failure>)> {
    let mut config = merged(layers, Flags::default())?;
    let complaint = check_controller(&mut config).err();
    Ok((config, complaint))
}

fn check_controller(config: &mut server::Config) -> Result<()> {
    if config.id == model::ControllerId(0) {
        let named = holder(
            &config.data_dir.join("identity"),
            security::Role::Controller,
        )?;
        config.id = named
            .parse()
            .map_err(|error: model::ParseIdError| invalid("controller", &error))?;
    }
    config
        .validate()
        .map_err(|error| invalid("controller", &error))
}

/// What an agent is told. Where no id is given, its certificate says it.
pub fn agent(layers: &Layers, flags: Flags) -> Result<agent::Config> {
    fitting::<server::Config>(layers)?;
    let mut config = merged(layers, flags)?;
    check_agent(&mut config)?;
    Ok(config)
}

/// The same from files and variables alone, also where it can't work; then with the reason.
pub fn agent_as_given(layers: &Layers) -> Result<(agent::Config, Option<Failure>)> {
    let mut config = merged(layers, Flags::default())?;
    let complaint = check_agent(&mut config).err();
    Ok((config, complaint))
}

fn check_agent(config: &mut agent::Config) -> Result<()> {
    if config.id.is_empty() {
        config.id = holder(&config.identity_dir(), security::Role::Agent)?;
    }
    config.validate().map_err(|error| invalid("agent", &error))
}

/// A setting that can't be, and where settings come from.
pub fn invalid(section: &str, error: &dyn std::fmt::Display) -> Failure {
    let hint =
        format!("`quorate config show` prints what [{section}] says, and its files and variables");
    Failure::refused("config", format!("{section}: {error}"), hint)
}

/// Who a certificate is for.
fn holder(directory: &Path, role: security::Role) -> Result<String> {
    require_identity(directory, role)?;
    let keys = security::KeyFiles::in_directory(directory);
    Ok(security::Credentials::load(&keys)?
        .identity()
        .id()
        .to_owned())
}

/// Nothing starts without a certificate; where there is none at all, this says how to get one.
pub fn require_identity(directory: &Path, role: security::Role) -> Result<()> {
    let missing = std::fs::symlink_metadata(directory.join("cert.pem"))
        .is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound);
    if !missing {
        return Ok(());
    }
    let make = format!("`quorate cert create --role {role}`");
    let hint = match role {
        security::Role::Controller => {
            format!(
                "`quorate cluster init` makes a cluster's first controller; any other joins by a token \
                 (--join), or {make} makes it one"
            )
        }
        security::Role::Agent => {
            format!(
                "join by a token (`quorate join-token create`, then --join), or make one with {make}"
            )
        }
        security::Role::Client => format!("make one with {make}"),
    };
    let message = format!("there is no certificate in {}", directory.display());
    Err(Failure::refused("identity", message, hint))
}

/// The defaults with the layers above them. A key that the section does not have is an error, also for a process that
/// reads the other section: it would be found only when that one starts.
fn fitting<S: Section>(layers: &Layers) -> Result<Figment> {
    let defaults = Figment::from(Serialized::defaults(S::default()));
    let mut figment = defaults.clone();
    for layer in layers.of(S::NAME)? {
        figment = figment.merge(layer.fitting::<S>(&defaults)?);
    }
    Ok(figment)
}

fn merged<S: Section>(layers: &Layers, flags: Flags) -> Result<S> {
    fitting::<S>(layers)?
        .merge(Serialized::defaults(flags.values))
        .extract::<S>()
        .map_err(|error| {
            Failure::usage(
                format!("{}: {error}", S::NAME),
                format!("see `quorate {} run --help`", S::NAME),
            )
        })
}

#[cfg(test)]
mod tests;
