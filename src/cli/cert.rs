//! The noun `cert`: certificates from the cluster's CA, for an administrator to carry to a machine.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use security::{Ca, CertifiedKey, Credentials, Identity, KeyFiles, Role};
use serde_json::{Value, json};

use crate::args::Global;
use crate::controller::controller_id;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{Answer, SCHEMA, fields, rfc3339};
use crate::{files, prompt};

/// Make certificates
#[derive(Debug, Args)]
#[command(arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "Example:
  quorate cert create --role agent --id a7 --ca /var/lib/quorate/controller/ca --out ./a7")]
pub struct CertArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(CreateArgs),
}

/// Make a certificate and its key, signed by the cluster's CA
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate cert create --role controller --id c2 --name c2.example --ca DIR/ca --out ./c2
  quorate cert create --role agent --id a7 --ca DIR/ca --out ./a7
  quorate cert create --role client --id alice --ca DIR/ca --out ./alice

Copy the directory to that machine as `identity` in its data directory: ca.pem, cert.pem and
key.pem. The key must be readable by its owner only.")]
struct CreateArgs {
    /// What its holder may be: controller, agent or client
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Role,
    /// Who its holder is: c2, a7, alice
    #[arg(long)]
    id: String,
    /// The directory with ca.pem and ca.key
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// The directory to write ca.pem, cert.pem and key.pem to
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A host name or address of a controller, for browsers and other programs; may be given several times
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// How long it is valid
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = validity)]
    validity: Duration,
}

pub fn run(args: CertArgs, global: &Global) -> Result<Exit> {
    match args.verb {
        Verb::Create(args) => create(&args, global),
    }
}

fn create(args: &CreateArgs, global: &Global) -> Result<Exit> {
    let ca = Ca::load(&args.ca)?;
    let identity = Identity::new(ca.cluster(), args.role, &args.id)?;
    check_id(args.role, &args.id)?;
    let out = files::absolute(&args.out)?;
    if KeyFiles::in_directory(&out).key.exists() {
        prompt::confirm(
            &format!("{} has a key already. Replace it?", out.display()),
            global,
        )?;
    }
    let issued = ca.issue(&identity, &args.names, args.validity)?;
    let written = save(&issued, &out, &ca)?;
    print(&identity, &written, global)
}

/// Writes an identity directory and reads it back as its holder will.
pub fn save(issued: &CertifiedKey, out: &std::path::Path, ca: &Ca) -> Result<Credentials> {
    let keys = issued.save(out, ca.pem())?;
    Ok(Credentials::load(&keys)?)
}

/// A controller's id is a number with a letter; the others are names.
fn check_id(role: Role, id: &str) -> Result<()> {
    let checked = match role {
        Role::Controller => controller_id(id).map(|_| ()),
        Role::Agent => model::AgentId::new(id)
            .map(|_| ())
            .map_err(|error| error.to_string()),
        Role::Client => Ok(()),
    };
    checked.map_err(|error| Failure::usage(error, "see `quorate cert create --help`"))
}

fn print(identity: &Identity, written: &Credentials, global: &Global) -> Result<Exit> {
    let until = written
        .expires_at()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let until = rfc3339(u64::try_from(until.as_millis()).unwrap_or(u64::MAX));
    let json = json!({
        "schema": SCHEMA,
        "cluster_id": identity.cluster(),
        "role": identity.role().as_str(),
        "id": identity.id(),
        "uri": identity.to_string(),
        "expires_at": until,
    });
    let rows: Vec<(&str, String)> = ["uri", "expires_at"]
        .map(|key| (key, json[key].as_str().unwrap_or_default().to_owned()))
        .into();
    let ids = vec![json["id"].as_str().map_or_else(String::new, str::to_owned)];
    debug_assert!(json.is_object() && !matches!(json["uri"], Value::Null));
    Answer {
        json,
        ids,
        table: Box::new(move |_| fields(&rows)),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

fn role(text: &str) -> std::result::Result<Role, String> {
    text.parse::<Role>().map_err(|error| error.to_string())
}

fn validity(text: &str) -> std::result::Result<Duration, String> {
    let span = humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is not a time such as 90d or 1y"))?;
    if span.is_zero() {
        Err("it would never be valid".to_owned())
    } else {
        Ok(span)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_id_that_a_controller_starts_with_is_certified() {
        check_id(Role::Controller, "c2").unwrap();
        check_id(Role::Agent, "hall-2").unwrap();
        check_id(Role::Agent, "A").unwrap_err();
        for wrong in ["c0", "c02", "c00", "2", "c", "c-1", "c18446744073709551616"] {
            let failure = check_id(Role::Controller, wrong).unwrap_err();
            assert_eq!(failure.exit, Exit::Refused, "{wrong}");
        }
        let failure = check_id(Role::Controller, "c02").unwrap_err();
        assert!(failure.message.contains("c2"), "{failure}");
    }
}
