//! Which cluster, and as whom: flags over variables over the context that is in force.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::book::{self, Book, Context};
use crate::failure::{Failure, Result};

const NO_CONTEXT: &str = "start one with `quorate dev` and paste the line that it prints, or choose \
                          one with `quorate context use`, or set QUORATE_CONTEXT";

/// How to reach the cluster, for every command that asks one.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectArgs {
    /// A context's name, or the path of a context file
    #[arg(long, global = true, value_name = "NAME|FILE")]
    #[arg(env = "QUORATE_CONTEXT", hide_env_values = true)]
    pub context: Option<String>,
    /// gRPC addresses of controllers
    #[arg(long, global = true, value_name = "HOST:PORT,…", value_delimiter = ',')]
    #[arg(env = "QUORATE_ADDR", hide_env_values = true)]
    pub addr: Vec<String>,
    /// The cluster's CA certificate
    #[arg(long, global = true, value_name = "FILE")]
    #[arg(env = "QUORATE_CACERT", hide_env_values = true, value_parser = path())]
    pub cacert: Option<PathBuf>,
    /// Your certificate
    #[arg(long, global = true, value_name = "FILE")]
    #[arg(env = "QUORATE_CERT", hide_env_values = true, value_parser = path())]
    pub cert: Option<PathBuf>,
    /// Your private key
    #[arg(long, global = true, value_name = "FILE")]
    #[arg(env = "QUORATE_KEY", hide_env_values = true, value_parser = path())]
    pub key: Option<PathBuf>,
}

/// One that may be empty: a variable that is set to nothing says nothing.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// Everything that a connection needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub addresses: Vec<String>,
    pub keys: security::KeyFiles,
    pub namespace: Option<String>,
}

impl ConnectArgs {
    pub fn target(&self) -> Result<Target> {
        let context = self.in_force()?;
        resolve(self, context)
    }

    /// The context that was named, or the current one; none where neither is.
    fn in_force(&self) -> Result<Option<Context>> {
        let named = self.context.as_deref().filter(|given| !given.is_empty());
        if let Some(path) = named.filter(|given| book::is_path(given)) {
            return book::load_file(Path::new(path)).map(Some);
        }
        let path = match Book::path() {
            Ok(path) => path,
            // Without a home, variables alone may still say everything.
            Err(_) if named.is_none() => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let book = Book::load(&path)?;
        let name = named.map(str::to_owned).or_else(|| book.current.clone());
        name.map(|name| book.get(&name).cloned()).transpose()
    }
}

fn resolve(args: &ConnectArgs, context: Option<Context>) -> Result<Target> {
    let known = context.is_some();
    let context = context.unwrap_or_default();
    let given = args.addr.iter().filter(|address| !address.is_empty());
    let given: Vec<String> = given.map(|address| address.trim().to_owned()).collect();
    let addresses = if given.is_empty() {
        context.addresses
    } else {
        given
    };
    if addresses.is_empty() {
        let message = if known {
            "the context names no addresses"
        } else {
            "no cluster to ask: no context is in force"
        };
        return Err(Failure::refused("no_context", message, NO_CONTEXT));
    }
    let token = context.token.is_some() || std::env::var_os("QUORATE_TOKEN").is_some();
    let file = |flag: &Option<PathBuf>, from_context: Option<PathBuf>, what: &str| {
        let flag = flag.clone().filter(|path| !path.as_os_str().is_empty());
        flag.or(from_context).ok_or_else(|| {
            let hint = if token {
                "this release knows no tokens; name ca, cert and key".to_owned()
            } else {
                format!("set {what}, or use a context that has it")
            };
            Failure::refused("no_identity", format!("{what} is not known"), hint)
        })
    };
    Ok(Target {
        keys: security::KeyFiles {
            ca: file(&args.cacert, context.ca, "QUORATE_CACERT")?,
            cert: file(&args.cert, context.cert, "QUORATE_CERT")?,
            key: file(&args.key, context.key, "QUORATE_KEY")?,
        },
        addresses,
        namespace: context.namespace,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            addresses: vec!["c1:7400".into()],
            ca: Some("/c/ca.pem".into()),
            cert: Some("/c/cert.pem".into()),
            key: Some("/c/key.pem".into()),
            token: None,
            namespace: Some("team".into()),
        }
    }

    #[test]
    fn what_is_given_wins_over_the_context_and_the_rest_is_kept() {
        let args = ConnectArgs {
            addr: vec!["h1:1".into(), " h2:2".into()],
            key: Some("/k.pem".into()),
            ..ConnectArgs::default()
        };
        let target = resolve(&args, Some(context())).unwrap();
        assert_eq!(target.addresses, ["h1:1", "h2:2"]);
        assert_eq!(target.keys.key, Path::new("/k.pem"));
        assert_eq!(target.keys.ca, Path::new("/c/ca.pem"));
        assert_eq!(target.namespace.as_deref(), Some("team"));
    }

    #[test]
    fn what_is_set_to_nothing_says_nothing() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            connect: ConnectArgs,
        }
        let line = [
            "x",
            "--cacert=",
            "--cert=",
            "--key=",
            "--addr=",
            "--context=",
        ];
        let line = <Line as clap::Parser>::try_parse_from(line).unwrap();
        let target = resolve(&line.connect, Some(context())).unwrap();
        assert_eq!(
            target,
            resolve(&ConnectArgs::default(), Some(context())).unwrap()
        );
    }

    #[test]
    fn without_anything_it_says_how_to_begin() {
        let failure = resolve(&ConnectArgs::default(), None).unwrap_err();
        assert_eq!(failure.code, "no_context");
        assert!(failure.hint.contains("quorate dev"));
    }

    #[test]
    fn a_missing_key_is_named() {
        let failure = resolve(
            &ConnectArgs::default(),
            Some(Context {
                key: None,
                ..context()
            }),
        )
        .unwrap_err();
        assert!(failure.message.contains("QUORATE_KEY"), "{failure}");
    }

    #[test]
    fn a_context_may_be_a_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("context.toml");
        book::save_file(&context(), &path).unwrap();
        let args = ConnectArgs {
            context: Some(path.to_str().unwrap().to_owned()),
            ..ConnectArgs::default()
        };
        assert_eq!(args.target().unwrap().addresses, ["c1:7400"]);
    }
}
