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

/// What a controller is told. Where no id is given, its certificate says it.
pub fn controller(layers: &Layers, flags: Flags) -> Result<server::Config> {
    let mut config: server::Config = merged(layers, flags)?;
    if config.id == model::ControllerId(0) {
        let named = identity_id(&config.data_dir.join("identity"));
        config.id = named.and_then(|id| id.parse().ok()).unwrap_or(config.id);
    }
    config
        .validate()
        .map_err(|error| invalid("controller", &error))?;
    Ok(config)
}

/// What an agent is told. Where no id is given, its certificate says it.
pub fn agent(layers: &Layers, flags: Flags) -> Result<agent::Config> {
    let mut config: agent::Config = merged(layers, flags)?;
    if config.id.is_empty() {
        let directory = config.identity_dir();
        let id = identity_id(&directory).ok_or_else(|| no_identity(&directory))?;
        config.id = id;
    }
    config
        .validate()
        .map_err(|error| invalid("agent", &error))?;
    Ok(config)
}

/// A setting that can't be, and where settings come from.
pub fn invalid(section: &str, error: &dyn std::fmt::Display) -> Failure {
    let hint = format!("`quorate config show` says where [{section}] settings come from");
    Failure::refused("config", format!("{section}: {error}"), hint)
}

fn no_identity(directory: &Path) -> Failure {
    let keys = security::KeyFiles::in_directory(directory);
    match security::Credentials::load(&keys) {
        Err(error) => Failure::from(error),
        Ok(_) => Failure::usage("no id is given", "give --id"),
    }
}

fn identity_id(directory: &Path) -> Option<String> {
    let keys = security::KeyFiles::in_directory(directory);
    security::Credentials::load(&keys)
        .ok()
        .map(|loaded| loaded.identity().id().to_owned())
}

fn merged<S: Section>(layers: &Layers, flags: Flags) -> Result<S> {
    let defaults = Figment::from(Serialized::defaults(S::default()));
    let mut figment = defaults.clone();
    for layer in layers.of(S::NAME)? {
        let alone = defaults.clone().merge(layer.values.clone());
        alone.extract::<S>().map_err(|error| layer.wrong(&error))?;
        figment = figment.merge(layer.values);
    }
    figment
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
