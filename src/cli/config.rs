//! The noun `config`: what a server on this machine would be told.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::args::Global;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{self, Answer, SCHEMA};
use crate::settings::{self, Layers};

/// Check and show the settings of servers on this machine
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Example:\n  quorate config validate")]
pub struct ConfigArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check files and variables, without starting anything
    #[command(after_help = "Examples:
  quorate config validate
  quorate config validate --config ./quorate.toml")]
    Validate(SourceArgs),
    /// Print what files and variables say in the end, and which of them were read
    #[command(after_help = "Examples:
  quorate config show
  quorate config show --config ./quorate.toml -o json")]
    Show(SourceArgs),
}

#[derive(Debug, Args)]
struct SourceArgs {
    /// This file instead of those in /etc/quorate, or a directory like that one
    #[arg(long, value_name = "FILE|DIR")]
    config: Option<PathBuf>,
}

pub fn run(args: ConfigArgs, global: &Global) -> Result<Exit> {
    match args.verb {
        Verb::Validate(args) => validate(&Layers::from_process(args.config.as_deref())?, global),
        Verb::Show(args) => show(&Layers::from_process(args.config.as_deref())?, global),
    }
}

/// One section that something is said about; a machine rarely runs both.
struct Section {
    name: &'static str,
    values: Value,
    /// Why nothing can be started with it.
    complaint: Option<Failure>,
}

fn sections(layers: &Layers) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    if !layers.of("controller")?.is_empty() {
        let (config, complaint) = settings::controller_as_given(layers)?;
        let mut values = as_json(&config)?;
        if config.id == model::ControllerId(0) {
            values["id"] = Value::Null;
        }
        sections.push(Section {
            name: "controller",
            values,
            complaint,
        });
    }
    if !layers.of("agent")?.is_empty() {
        let (config, complaint) = settings::agent_as_given(layers)?;
        let mut values = as_json(&config)?;
        if config.id.is_empty() {
            values["id"] = Value::Null;
        }
        sections.push(Section {
            name: "agent",
            values,
            complaint,
        });
    }
    Ok(sections)
}

fn as_json(config: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(config)
        .map_err(|error| Failure::refused("config", format!("cannot show it: {error}"), ""))
}

/// Files, then variables, in the order in which they count.
fn sources(layers: &Layers) -> Vec<String> {
    let files = layers.files().map(|path| path.display().to_string());
    let variables = ["controller", "agent"]
        .into_iter()
        .flat_map(|name| layers.variables(name));
    files.chain(variables.map(str::to_owned)).collect()
}

fn validate(layers: &Layers, global: &Global) -> Result<Exit> {
    let mut names = Vec::new();
    for section in sections(layers)? {
        match section.complaint {
            Some(complaint) => return Err(complaint),
            None => names.push(section.name),
        }
    }
    let sources = sources(layers);
    let text = if sources.is_empty() {
        "nothing is set: no file in /etc/quorate, and no variable".to_owned()
    } else {
        format!("ok: {}", sources.join(", "))
    };
    Answer {
        json: json!({ "schema": SCHEMA, "valid": true, "sections": names, "sources": sources }),
        ids: Vec::new(),
        table: Box::new(move |_| text.clone()),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

fn show(layers: &Layers, global: &Global) -> Result<Exit> {
    let sections = sections(layers)?;
    let sources = sources(layers);
    let of = |wanted: &str| {
        let found = sections.iter().find(|section| section.name == wanted);
        found.map_or(Value::Null, |section| section.values.clone())
    };
    let json = json!({
        "schema": SCHEMA,
        "sources": sources,
        "controller": of("controller"),
        "agent": of("agent"),
    });
    let text = as_toml(&sections, &sources)?;
    Answer {
        json,
        ids: Vec::new(),
        table: Box::new(move |_| text.clone()),
    }
    .print(global.output)?;
    for complaint in sections
        .iter()
        .filter_map(|section| section.complaint.as_ref())
    {
        output::note(&format!("this can't be started: {}", complaint.message));
    }
    Ok(Exit::Ok)
}

fn as_toml(sections: &[Section], sources: &[String]) -> Result<String> {
    let mut text = match sources {
        [] => "# nothing is set: no file in /etc/quorate, and no variable\n".to_owned(),
        sources => sources
            .iter()
            .map(|source| format!("# from {source}\n"))
            .collect(),
    };
    for section in sections {
        // What is not set has no place in TOML.
        let set = section
            .values
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(_, value)| !value.is_null());
        let set: serde_json::Map<String, Value> = set
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let section = toml::to_string(&json!({ section.name: set }))
            .map_err(|error| Failure::refused("config", format!("cannot show it: {error}"), ""))?;
        text = format!("{text}\n{section}");
    }
    Ok(text.trim_end().to_owned())
}
