//! The noun `context`: the clusters that a person talks to, under names.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::args::Global;
use crate::client::{Book, Context, load_file};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{self, Answer, Format, SCHEMA, Table, fields};
use crate::{files, prompt};

/// Manage the clusters that you talk to
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Examples:
  quorate context list
  quorate context use ./admin.toml --name prod

They are kept in ~/.config/quorate/config.toml; QUORATE_CONFIG names another file. QUORATE_CONTEXT
(a name, or the path of a context file) wins over the current one.")]
pub struct ContextArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the contexts; a star marks the current one
    #[command(after_help = "Example:\n  quorate context list")]
    List,
    Use(UseArgs),
    Show(ShowArgs),
    Delete(DeleteArgs),
}

/// Make a context the current one; a context file is taken in first
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate context use prod
  quorate context use /var/lib/quorate/controller/admin/context.toml --name prod")]
struct UseArgs {
    /// A name, or the path of a context file
    #[arg(value_name = "NAME|FILE")]
    which: String,
    /// The name to take a file in under; default: the file's, or its directory's
    #[arg(long)]
    name: Option<String>,
}

/// Show one context, or the one in force
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  quorate context show\n  quorate context show prod -o json")]
struct ShowArgs {
    /// A name, or the path of a context file; default: the one in force
    #[arg(
        value_name = "NAME|FILE",
        env = "QUORATE_CONTEXT",
        hide_env_values = true
    )]
    which: Option<String>,
}

/// Delete a context. Its certificate and key stay where they are
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  quorate context delete old")]
struct DeleteArgs {
    name: String,
}

pub fn run(args: ContextArgs, global: &Global) -> Result<Exit> {
    match args.verb {
        Verb::List => list(global),
        Verb::Use(args) => use_(args, global),
        Verb::Show(args) => show(args, global),
        Verb::Delete(args) => delete(&args, global),
    }
}

fn list(global: &Global) -> Result<Exit> {
    let book = Book::load(&Book::path()?)?;
    let current = |name: &str| book.current.as_deref() == Some(name);
    let item = |(name, context): (&String, &Context)| to_json(Some(name), context, current(name));
    let json = output::list(book.contexts.iter().map(item).collect(), None);
    let mut table = Table::new(&["", "NAME", "ADDRESSES", "NAMESPACE"]);
    for (name, context) in &book.contexts {
        table.row(vec![
            if current(name) {
                "*".into()
            } else {
                String::new()
            },
            name.clone(),
            context.addresses.join(","),
            context.namespace.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    let ids: Vec<String> = book.contexts.keys().cloned().collect();
    let text = if ids.is_empty() {
        if matches!(global.output, Format::Table | Format::Wide) {
            output::note(
                "no contexts; `quorate context use FILE` takes in the context.toml that \
                 `quorate cluster init` or `quorate dev` made",
            );
        }
        String::new()
    } else {
        table.render()
    };
    Answer {
        json,
        ids,
        table: Box::new(move |_| text.clone()),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

fn use_(args: UseArgs, global: &Global) -> Result<Exit> {
    let path = Book::path()?;
    let mut book = Book::load(&path)?;
    let name = if crate::client::is_path(&args.which) {
        let file = PathBuf::from(&args.which);
        let context = load_file(&file)?;
        let name = args.name.map_or_else(|| name_for(&file), Ok)?;
        take_in(&mut book, &name, context, global)?;
        name
    } else {
        book.get(&args.which)?;
        args.which
    };
    book.current = Some(name.clone());
    book.save(&path)?;
    print(Some(&name), book.get(&name)?, true, global)?;
    if let Some(other) = overruled(std::env::var("QUORATE_CONTEXT").ok(), &name) {
        output::note(&format!(
            "QUORATE_CONTEXT={other} is set here, and wins over the current context: `unset QUORATE_CONTEXT`"
        ));
    }
    Ok(Exit::Ok)
}

/// What the variable says, where that is another context than the one just chosen.
fn overruled(variable: Option<String>, chosen: &str) -> Option<String> {
    variable.filter(|other| !other.is_empty() && other != chosen)
}

/// Adds a context under a name of the book; another one of that name is not lost by accident.
fn take_in(book: &mut Book, name: &str, context: Context, global: &Global) -> Result<()> {
    if crate::client::is_path(name) || name.is_empty() {
        let hint = "choose one without slashes that does not end in .toml";
        return Err(Failure::usage(
            format!("`{name}` can't be a context's name"),
            hint,
        ));
    }
    if book
        .contexts
        .get(name)
        .is_some_and(|known| *known != context)
    {
        prompt::confirm(
            &format!("There is another context `{name}`. Replace it?"),
            global,
        )?;
    }
    book.contexts.insert(name.to_owned(), context);
    Ok(())
}

/// Makes this context the current one, without asking: for `dev --use`.
pub fn adopt(name: &str, context: Context) -> Result<PathBuf> {
    let path = Book::path()?;
    let mut book = Book::load(&path)?;
    book.contexts.insert(name.to_owned(), context);
    book.current = Some(name.to_owned());
    book.save(&path)?;
    Ok(path)
}

/// `prod` for `prod.toml`, and `dev` for `dev/context.toml`.
fn name_for(file: &Path) -> Result<String> {
    let whole = files::absolute(file)?;
    let text =
        |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).map(str::to_owned);
    let stem = text(whole.file_stem()).filter(|stem| stem != "context");
    let directory = whole.parent().and_then(Path::file_name);
    stem.or_else(|| text(directory))
        .ok_or_else(|| Failure::usage("the file's name makes no name", "give --name"))
}

fn show(args: ShowArgs, global: &Global) -> Result<Exit> {
    let book = Book::load(&Book::path()?)?;
    match args.which.filter(|which| !which.is_empty()) {
        Some(which) if crate::client::is_path(&which) => {
            print(None, &load_file(Path::new(&which))?, false, global)
        }
        Some(name) => {
            let current = book.current.as_deref() == Some(name.as_str());
            print(Some(&name), book.get(&name)?, current, global)
        }
        None => match &book.current {
            Some(name) => print(Some(name), book.get(name)?, true, global),
            None => Err(Failure::not_found(
                "no context is current",
                "`quorate context use` sets one",
            )),
        },
    }
}

fn delete(args: &DeleteArgs, global: &Global) -> Result<Exit> {
    let path = Book::path()?;
    let mut book = Book::load(&path)?;
    book.get(&args.name)?;
    book.contexts.remove(&args.name);
    if book.current.as_deref() == Some(args.name.as_str()) {
        book.current = None;
    }
    book.save(&path)?;
    deleted(&args.name).print(global.output)?;
    Ok(Exit::Ok)
}

fn deleted(name: &str) -> Answer {
    let text = format!("deleted {name}");
    Answer {
        json: json!({ "schema": SCHEMA, "name": name, "deleted": true }),
        ids: vec![name.to_owned()],
        table: Box::new(move |_| text.clone()),
    }
}

fn print(name: Option<&str>, context: &Context, current: bool, global: &Global) -> Result<Exit> {
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let mut rows = vec![
        ("name", name.unwrap_or_default().to_owned()),
        (
            "current",
            if current { "yes".into() } else { String::new() },
        ),
        ("addresses", context.addresses.join("\n")),
        ("ca", path(&context.ca).unwrap_or_default()),
        ("cert", path(&context.cert).unwrap_or_default()),
        ("key", path(&context.key).unwrap_or_default()),
        ("namespace", context.namespace.clone().unwrap_or_default()),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    Answer {
        json: to_json(name, context, current),
        ids: name.map(str::to_owned).into_iter().collect(),
        table: Box::new(move |_| fields(&rows)),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

/// A token is never printed, only whether there is one.
fn to_json(name: Option<&str>, context: &Context, current: bool) -> Value {
    json!({
        "schema": SCHEMA,
        "name": name,
        "current": current,
        "addresses": context.addresses,
        "ca": context.ca,
        "cert": context.cert,
        "key": context.key,
        "token": context.token.as_ref().map(|_| "set"),
        "namespace": context.namespace,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Width;

    #[test]
    fn a_context_file_gets_a_name_that_says_something() {
        assert_eq!(name_for(Path::new("/x/prod.toml")).unwrap(), "prod");
        assert_eq!(name_for(Path::new("/x/dev/context.toml")).unwrap(), "dev");
    }

    #[test]
    fn a_deletion_is_confirmed_in_every_format() {
        let answer = deleted("old");
        assert_eq!(
            answer.json.to_string(),
            r#"{"schema":1,"name":"old","deleted":true}"#
        );
        assert_eq!((answer.table)(Width::Normal), "deleted old");
    }

    #[test]
    fn a_variable_that_names_another_context_is_spoken_of() {
        let set = |value: &str| Some(value.to_owned());
        assert_eq!(
            overruled(set("/dev/context.toml"), "prod"),
            set("/dev/context.toml")
        );
        for silent in [None, set(""), set("prod")] {
            assert_eq!(overruled(silent, "prod"), None);
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let context = Context {
            token: Some("secret".into()),
            ..Context::default()
        };
        assert!(
            !to_json(Some("x"), &context, false)
                .to_string()
                .contains("secret")
        );
    }
}
