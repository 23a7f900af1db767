//! Contexts: what a client needs to reach a cluster, under a name.
//!
//! They are kept in `~/.config/quorate/config.toml` (`QUORATE_CONFIG` names another file), one table
//! each, and `current` names the one in force. A context may also be a file of its own, which is what
//! `quorate dev` and `quorate cluster init` write; paths in it are relative to that file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::mistake;

/// How to reach one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// gRPC addresses of controllers, any of them will do.
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl Context {
    /// With the paths that this directory's file meant.
    fn within(mut self, directory: &Path) -> Context {
        for path in [&mut self.ca, &mut self.cert, &mut self.key]
            .into_iter()
            .flatten()
        {
            *path = directory.join(&*path);
        }
        self
    }
}

/// A person's own contexts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Book {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contexts: BTreeMap<String, Context>,
}

impl Book {
    /// Where it is: `QUORATE_CONFIG`, or the person's configuration directory.
    pub fn path() -> Result<PathBuf> {
        path_from(|name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        })
        .ok_or_else(|| {
            Failure::refused(
                "config",
                "there is no home directory to keep contexts in",
                "set HOME or QUORATE_CONFIG",
            )
        })
    }

    /// Empty where there is no file yet.
    pub fn load(path: &Path) -> Result<Book> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Book::default()),
            Err(error) => return Err(Failure::file("read", path, &error)),
        };
        let book: Book = parse(&text, path)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let contexts = book.contexts.into_iter();
        let contexts = contexts
            .map(|(name, context)| (name, context.within(directory)))
            .collect();
        Ok(Book {
            current: book.current,
            contexts,
        })
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        save(self, path)
    }

    /// The context of this name.
    pub fn get(&self, name: &str) -> Result<&Context> {
        self.contexts.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let hint = if names.is_empty() {
                "there are none yet: `quorate context use FILE` takes a context file in".to_owned()
            } else {
                format!("there is: {}", names.join(", "))
            };
            Failure::not_found(format!("there is no context `{name}`"), hint)
        })
    }
}

/// Whether this names a file and not a context of the book.
pub fn is_path(given: &str) -> bool {
    given.contains('/')
        || Path::new(given)
            .extension()
            .is_some_and(|end| end == "toml")
}

/// A context file, its paths made absolute.
pub fn load_file(path: &Path) -> Result<Context> {
    let text = fs::read_to_string(path).map_err(|error| Failure::file("read", path, &error))?;
    let whole = fs::canonicalize(path).map_err(|error| Failure::file("read", path, &error))?;
    let context: Context = parse(&text, path)?;
    Ok(context.within(whole.parent().unwrap_or(Path::new("/"))))
}

pub fn save_file(context: &Context, path: &Path) -> Result<()> {
    save(context, path)
}

fn path_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    if let Some(path) = variable("QUORATE_CONFIG") {
        return Some(path);
    }
    let home = || variable("HOME").map(|home| home.join(".config"));
    let base = variable("XDG_CONFIG_HOME")
        .filter(|path| path.is_absolute())
        .or_else(home)?;
    Some(base.join("quorate/config.toml"))
}

fn parse<T: for<'de> Deserialize<'de>>(text: &str, path: &Path) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let message = mistake::in_toml(path.display(), text, &error);
        Failure::refused("config", message, "mend or delete that line")
    })
}

fn save(value: &impl Serialize, path: &Path) -> Result<()> {
    let text = toml::to_string(value).map_err(|error| {
        Failure::refused("config", format!("cannot write it as TOML: {error}"), "")
    })?;
    crate::files::replace(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    fn sample() -> Context {
        Context {
            addresses: vec!["127.0.0.1:7400".into()],
            ca: Some("/x/ca.pem".into()),
            cert: Some("/x/cert.pem".into()),
            key: Some("/x/key.pem".into()),
            token: None,
            namespace: Some("default".into()),
        }
    }

    #[test]
    fn a_book_is_read_as_it_was_written() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("deep/config.toml");
        assert_eq!(Book::load(&path).unwrap(), Book::default());
        let contexts = [("dev".to_owned(), sample())].into_iter().collect();
        let book = Book {
            current: Some("dev".into()),
            contexts,
        };
        book.save(&path).unwrap();
        assert_eq!(Book::load(&path).unwrap(), book);
        assert!(book.get("prod").unwrap_err().hint.contains("dev"));
    }

    #[test]
    fn paths_in_a_context_file_are_relative_to_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("admin.toml");
        fs::write(
            &path,
            "addresses = ['h:1']\nca = 'id/ca.pem'\nkey = '/k.pem'\n",
        )
        .unwrap();
        let context = load_file(&path).unwrap();
        assert_eq!(
            context.ca,
            Some(fs::canonicalize(home.path()).unwrap().join("id/ca.pem"))
        );
        assert_eq!(context.key, Some(PathBuf::from("/k.pem")));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file_and_line() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("admin.toml");
        fs::write(&path, "addresses = ['h:1']\ncaa = 'id/ca.pem'\n").unwrap();
        let text = load_file(&path).unwrap_err().to_string();
        assert!(
            text.contains("admin.toml:2") && text.contains("caa"),
            "{text}"
        );
    }

    #[test]
    fn the_book_is_where_the_variables_say() {
        let variables = |set: &'static [(&str, &str)]| {
            move |name: &str| {
                set.iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, value)| PathBuf::from(value))
            }
        };
        let at = |set| path_from(variables(set));
        assert_eq!(at(&[]), None);
        assert_eq!(
            at(&[("HOME", "/h")]).unwrap(),
            Path::new("/h/.config/quorate/config.toml")
        );

        assert_eq!(
            at(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")]).unwrap(),
            Path::new("/c/quorate/config.toml")
        );
        assert_eq!(
            at(&[("QUORATE_CONFIG", "/q.toml"), ("HOME", "/h")]).unwrap(),
            Path::new("/q.toml")
        );
    }

    #[test]
    fn a_name_is_no_path() {
        assert!(!is_path("dev"));
        assert!(is_path("./dev") && is_path("dev.toml") && is_path("/tmp/x/context"));
    }
}
