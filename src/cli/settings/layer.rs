//! Where settings come from: the layers below the flags, each remembering its file or variables.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use figment::Figment;
use figment::error::Kind;
use figment::providers::Serialized;
use figment::value::{Dict, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::failure::{Failure, Result};
use crate::mistake;

const DIRECTORY: &str = "/etc/quorate";
/// Sections that a file may have.
const SECTIONS: [&str; 2] = ["controller", "agent"];
/// Between the parts of a variable's name.
const SEPARATOR: &str = "__";

/// Files and variables, in the order in which they count.
#[derive(Debug, Default)]
pub struct Layers {
    files: Vec<(PathBuf, toml::Table)>,
    variables: BTreeMap<String, String>,
}

/// One section of one layer.
pub struct Layer {
    origin: String,
    section: &'static str,
    /// What it may mean, the likeliest first.
    readings: Vec<Dict>,
}

impl Layers {
    /// Those of this process. `config`: instead of the files in `/etc/quorate`.
    pub fn from_process(config: Option<&Path>) -> Result<Layers> {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((
                name.into_string().ok()?,
                value.to_string_lossy().into_owned(),
            ))
        });
        Layers::read(config, variables.collect())
    }

    pub fn read(config: Option<&Path>, variables: BTreeMap<String, String>) -> Result<Layers> {
        let paths = match config {
            Some(path) if path.is_dir() => in_directory(path)?,
            Some(path) => vec![path.to_owned()],
            None => in_directory(Path::new(DIRECTORY))?,
        };
        let mut files = Vec::new();
        for path in paths {
            let table = read(&path)?;
            files.push((path, table));
        }
        Ok(Layers { files, variables })
    }

    /// The files that were read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// The variables that count for a section.
    pub fn variables<'a>(&'a self, section: &str) -> impl Iterator<Item = &'a str> {
        let prefix = prefix(section);
        self.variables
            .keys()
            .map(String::as_str)
            .filter(move |name| name.starts_with(&prefix))
    }

    pub fn of(&self, section: &'static str) -> Result<Vec<Layer>> {
        let mut layers = Vec::new();
        for (path, table) in &self.files {
            if let Some(values) = table.get(section) {
                let origin = path.display().to_string();
                let readings = vec![dict(values, path, section)?];
                layers.push(Layer {
                    origin,
                    section,
                    readings,
                });
            }
        }
        for name in self.variables(section) {
            let path = name[prefix(section).len()..].to_lowercase();
            let parts: Vec<&str> = path.split(SEPARATOR).collect();
            let values = readings_of(&self.variables[name]).into_iter();
            layers.push(Layer {
                origin: name.to_owned(),
                section,
                readings: values.map(|value| nested(&parts, value)).collect(),
            });
        }
        Ok(layers)
    }
}

impl Layer {
    /// The first reading that fits these settings. Where none does, the likeliest says why.
    pub fn fitting<S: DeserializeOwned>(self, defaults: &Figment) -> Result<Serialized<Dict>> {
        let mut wrong = None;
        for reading in &self.readings {
            let values = Serialized::defaults(reading.clone());
            match defaults.clone().merge(values.clone()).extract::<S>() {
                Ok(_) => return Ok(values),
                Err(error) => wrong = wrong.or(Some(error)),
            }
        }
        match wrong {
            Some(error) => Err(self.wrong(&error)),
            None => Ok(Serialized::defaults(Dict::new())),
        }
    }

    /// What this layer has wrong, with its name in front.
    fn wrong(&self, error: &figment::Error) -> Failure {
        let section = self.section;
        let at = error
            .path
            .iter()
            .filter(|part| *part != "default")
            .cloned()
            .collect::<Vec<_>>();
        let key = at.join(".");
        let message = match &error.kind {
            Kind::UnknownField(field, known) => {
                let place = if key.is_empty() || key == *field {
                    field.clone()
                } else {
                    key
                };
                let known = known.join(", ");
                return Failure::refused(
                    "config",
                    format!("{}: unknown key `{place}` in [{section}]", self.origin),
                    format!("mend or delete it; there is: {known}"),
                );
            }
            Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
                format!("it is {found}, and should be {expected}")
            }
            other => other.to_string(),
        };
        let place = if key.is_empty() {
            section.to_owned()
        } else {
            format!("{section}.{key}")
        };
        Failure::refused(
            "config",
            format!("{}: {place}: {message}", self.origin),
            "mend it, then check with `quorate config validate`",
        )
    }
}

/// The flags that were given, as the last layer.
#[derive(Debug, Default)]
pub struct Flags {
    pub values: Dict,
}

impl Flags {
    pub fn set(&mut self, key: &str, value: Option<impl Serialize>) {
        let value = value.and_then(|value| Value::serialize(value).ok());
        if let Some(value) = value {
            self.values.insert(key.to_owned(), value);
        }
    }

    /// One entry of a map.
    pub fn set_in(&mut self, map: &str, key: &str, value: &str) {
        let entry = self
            .values
            .entry(map.to_owned())
            .or_insert_with(|| Value::from(Dict::new()));
        if let Value::Dict(_, entries) = entry {
            entries.insert(key.to_owned(), Value::from(value));
        }
    }
}

fn prefix(section: &str) -> String {
    format!("QUORATE_{}{SEPARATOR}", section.to_uppercase())
}

fn in_directory(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = [directory.join("quorate.toml")]
        .into_iter()
        .filter(|path| path.exists())
        .collect();
    let more = directory.join("conf.d");
    let entries = match fs::read_dir(&more) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(paths),
        Err(error) => return Err(Failure::file("read", &more, &error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry
            .map_err(|error| Failure::file("read", &more, &error))?
            .path();
        if path.extension().is_some_and(|end| end == "toml") {
            found.push(path);
        }
    }
    found.sort();
    paths.extend(found);
    Ok(paths)
}

fn read(path: &Path) -> Result<toml::Table> {
    let text = fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let message = mistake::in_toml(path.display(), &text, &error);
        Failure::refused("config", message, "mend that line")
    })?;
    match table.keys().find(|key| !SECTIONS.contains(&key.as_str())) {
        Some(key) => Err(Failure::refused(
            "config",
            format!("{}: unknown key `{key}` at the top", path.display()),
            "sections are [controller] and [agent]",
        )),
        None => Ok(table),
    }
}

fn dict(values: &toml::Value, path: &Path, section: &str) -> Result<Dict> {
    let wrong = || {
        let message = format!("{}: `{section}` is not a section", path.display());
        Failure::refused("config", message, format!("write it as [{section}]"))
    };
    match Value::serialize(values) {
        Ok(Value::Dict(_, dict)) => Ok(dict),
        _ => Err(wrong()),
    }
}

fn nested(parts: &[&str], value: Value) -> Dict {
    match parts {
        [last] => [((*last).to_owned(), value)].into_iter().collect(),
        [first, rest @ ..] => [((*first).to_owned(), Value::from(nested(rest, value)))]
            .into_iter()
            .collect(),
        [] => Dict::new(),
    }
}

/// What a variable's text may mean: a number, a boolean or `[a,b]`; or just this text, for a label may
/// well be `2`; or a list, its items between commas.
fn readings_of(text: &str) -> Vec<Value> {
    let parsed = match text.parse::<Value>() {
        Ok(value) => value,
        Err(never) => match never {},
    };
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    let items: Vec<Value> = items.map(Value::from).collect();
    vec![parsed, Value::from(text), Value::from(items)]
}
