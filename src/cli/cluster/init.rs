//! `cluster init`: the birth of a cluster, offline, on the machine of its first controller.
//!
//! It makes the cluster's id and certificate authority, the first controller's certificate and data
//! directory, and a context with which an administrator begins. Nothing is started. What makes the
//! directory a controller's, `node.json`, is written last but for the marker `bootstrap`, which lets the
//! first start form the cluster with itself as the only voter, and is gone afterwards.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use model::ControllerId;
use security::{CERTIFICATE_VALIDITY, Ca, Identity, Role};
use serde_json::json;

use crate::args::Global;
use crate::client::{Context, save_file};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{Answer, SCHEMA};
use crate::{cert, files};

/// The generation that every cluster begins with; recoveries raise it.
const FIRST_GENERATION: u64 = 1;
/// Digits of a cluster's id: enough that two clusters never meet by accident.
const ID_DIGITS: usize = 12;
/// The first administrator's name.
const ADMIN: &str = "admin";

/// Make a new cluster, on the machine of its first controller
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate cluster init --advertise c1.example

Nothing is started yet; it prints what to do next. Other controllers and agents get certificates
from the CA that it makes, with `quorate cert create`.")]
pub struct InitArgs {
    /// Where the controller is to keep its log and identity
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/quorate/controller"
    )]
    data_dir: PathBuf,
    /// The controller's id
    #[arg(long, default_value = "c1")]
    id: ControllerId,
    /// How others will reach it
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: String,
    /// The directory for the CA [default: `ca` in the data directory]
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// The directory for the administrator's certificate and context [default: `admin` in the data directory]
    #[arg(long, value_name = "DIR")]
    admin: Option<PathBuf>,
    /// Another host name or address for the certificate; may be given several times
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
}

/// What is to be made.
#[derive(Debug, Clone)]
pub struct Plan {
    pub id: ControllerId,
    pub data_dir: PathBuf,
    pub ca: PathBuf,
    pub admin: PathBuf,
    /// The gRPC address, with its port.
    pub address: String,
    /// Host names for the certificate.
    pub names: Vec<String>,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Made {
    pub cluster_id: String,
    pub context: PathBuf,
}

pub fn run(args: &InitArgs, global: &Global) -> Result<Exit> {
    let plan = plan(args)?;
    let made = make(&plan)?;
    print(&plan, &made, &args.advertise, global)
}

fn plan(args: &InitArgs) -> Result<Plan> {
    if args.id.0 == 0 {
        return Err(Failure::usage(
            "c0 can't be a controller's id",
            "begin with c1",
        ));
    }
    let data_dir = files::absolute(&args.data_dir)?;
    let within = |given: &Option<PathBuf>, name: &str| match given {
        Some(path) => files::absolute(path),
        None => Ok(data_dir.join(name)),
    };
    // The server's own reading of the address, so that both mean the same.
    let config = server::Config {
        id: args.id,
        advertise: args.advertise.clone(),
        ..server::Config::default()
    };
    config
        .validate()
        .map_err(|error| Failure::usage(error, "give --advertise HOST[:PORT]"))?;
    let advertised = config
        .listen_on()
        .and_then(|bound| config.advertised(&bound));
    let advertised =
        advertised.map_err(|error| Failure::usage(error, "give --advertise HOST[:PORT]"))?;
    let host = advertised
        .grpc
        .rsplit_once(':')
        .map_or(advertised.grpc.as_str(), |(host, _)| host);
    let host = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned();
    let mut names = vec![host];
    names.extend(
        args.names
            .iter()
            .filter(|name| !names.contains(name))
            .cloned()
            .collect::<Vec<_>>(),
    );
    Ok(Plan {
        id: args.id,
        ca: within(&args.ca, "ca")?,
        admin: within(&args.admin, "admin")?,
        address: advertised.grpc,
        names,
        data_dir,
    })
}

/// Makes everything, or says why not; nothing that was there is overwritten.
pub fn make(plan: &Plan) -> Result<Made> {
    refuse_used(&plan.data_dir)?;
    let cluster_id = new_id();
    let ca = Ca::create(&cluster_id)?;
    // All that can be refused comes before anything is written, or the mended command would find a CA.
    let issue = |role, id: &str, names: &[String]| {
        let identity = Identity::new(&cluster_id, role, id)?;
        ca.issue(&identity, names, CERTIFICATE_VALIDITY)
    };
    let controller = issue(Role::Controller, &plan.id.to_string(), &plan.names)?;
    let admin = issue(Role::Client, ADMIN, &[])?;
    private_directory(&plan.data_dir)?;
    ca.save(&plan.ca)?;
    cert::save(&controller, &plan.data_dir.join("identity"), &ca)?;
    cert::save(&admin, &plan.admin, &ca)?;
    let context = save_context(&plan.admin, &plan.address)?;
    let node = json!({
        "schema": SCHEMA,
        "cluster_id": cluster_id,
        "node_id": plan.id.to_string(),
        "generation": FIRST_GENERATION,
    });
    files::replace(
        &plan.data_dir.join("node.json"),
        format!("{node:#}\n").as_bytes(),
    )?;
    files::replace(&plan.data_dir.join("bootstrap"), b"")?;
    Ok(Made {
        cluster_id,
        context,
    })
}

/// A context beside the administrator's certificate, so that both can be carried along.
fn save_context(directory: &Path, address: &str) -> Result<PathBuf> {
    let path = directory.join("context.toml");
    let context = Context {
        addresses: vec![address.to_owned()],
        ca: Some("ca.pem".into()),
        cert: Some("cert.pem".into()),
        key: Some("key.pem".into()),
        ..Context::default()
    };
    save_file(&context, &path)?;
    Ok(path)
}

fn refuse_used(data_dir: &Path) -> Result<()> {
    let used = |name: &str| {
        Err(Failure::refused(
            "exists",
            format!(
                "{} has a {name} already: it belongs to a cluster",
                data_dir.display()
            ),
            "choose another --data-dir, or start what is there with `quorate controller run`",
        ))
    };
    for name in ["node.json", "log"] {
        match fs::symlink_metadata(data_dir.join(name)) {
            Ok(_) => return used(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure::file("look into", data_dir, &error)),
        }
    }
    Ok(())
}

fn private_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Failure::file("create", path, &error))
}

/// Random, and short enough to be read out.
fn new_id() -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("q{}", &random[..ID_DIGITS])
}

fn print(plan: &Plan, made: &Made, advertise: &str, global: &Global) -> Result<Exit> {
    let json = json!({
        "schema": SCHEMA,
        "cluster_id": made.cluster_id,
        "id": plan.id.to_string(),
        "data_dir": plan.data_dir,
        "address": plan.address,
        "ca": plan.ca,
        "context": made.context,
    });
    let text = next_steps(plan, made, advertise);
    Answer {
        json,
        ids: vec![made.cluster_id.clone()],
        table: Box::new(move |_| text.clone()),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

fn next_steps(plan: &Plan, made: &Made, advertise: &str) -> String {
    let (ca, dir) = (plan.ca.display(), plan.data_dir.display());
    let (context, address) = (made.context.display(), &plan.address);
    let next = ControllerId(plan.id.0 + 1);
    format!(
        "\
Made cluster {cluster}, with {id} as its first controller.

Start it on this machine:
  quorate controller run --data-dir {dir} --advertise {advertise}

Then talk to it:
  quorate context use {context} --name {cluster}
  quorate cluster status

Two more controllers make it survive the loss of one. For each, make a certificate here,
copy the directory to that machine as `identity` in its data directory, and start it there:
  quorate cert create --role controller --id {next} --name HOST --ca {ca} --out ./{next}
  quorate controller run --advertise HOST --join {address}

For each worker the same:
  quorate cert create --role agent --id a1 --ca {ca} --out ./a1
  quorate agent run --controller {address}

{ca}/ca.key makes certificates for this cluster: keep a copy where only you can read it.",
        cluster = made.cluster_id,
        id = plan.id,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_in(home: &Path) -> Plan {
        Plan {
            id: ControllerId(1),
            data_dir: home.join("c1"),
            ca: home.join("c1/ca"),
            admin: home.join("c1/admin"),
            address: "127.0.0.1:7400".into(),
            names: vec!["127.0.0.1".into()],
        }
    }

    #[test]
    fn what_init_makes_is_one_cluster_that_knows_itself() {
        let home = tempfile::tempdir().unwrap();
        let plan = plan_in(home.path());
        let made = make(&plan).unwrap();
        let load = |dir: &str| {
            let keys = security::KeyFiles::in_directory(&home.path().join(dir));
            security::Credentials::load(&keys)
                .unwrap()
                .identity()
                .clone()
        };
        let controller = load("c1/identity");
        assert_eq!(
            (controller.cluster(), controller.id()),
            (made.cluster_id.as_str(), "c1")
        );
        assert_eq!(load("c1/admin").role(), Role::Client);
        let context = crate::client::load_file(&made.context).unwrap();
        assert_eq!(context.addresses, ["127.0.0.1:7400"]);
        assert!(context.key.unwrap().is_absolute());
        assert!(home.path().join("c1/bootstrap").exists());
    }

    #[test]
    fn a_directory_of_a_cluster_is_never_taken_again() {
        let home = tempfile::tempdir().unwrap();
        make(&plan_in(home.path())).unwrap();
        let before = fs::read(home.path().join("c1/ca/ca.pem")).unwrap();
        let failure = make(&plan_in(home.path())).unwrap_err();
        assert_eq!((failure.exit.code(), failure.code.as_str()), (1, "exists"));
        assert_eq!(fs::read(home.path().join("c1/ca/ca.pem")).unwrap(), before);
    }

    #[test]
    fn a_name_that_no_certificate_may_bear_leaves_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let wrong = Plan {
            names: vec!["not a host!".into()],
            ..plan_in(home.path())
        };
        make(&wrong).unwrap_err();
        assert!(!wrong.data_dir.exists() && !wrong.ca.exists());
        make(&plan_in(home.path())).unwrap();
    }

    #[test]
    fn the_first_address_is_read_as_the_controller_reads_it() {
        let args = |advertise: &str| InitArgs {
            data_dir: "/x".into(),
            id: ControllerId(1),
            advertise: advertise.into(),
            ca: None,
            admin: None,
            names: vec!["c1".into()],
        };
        let plan_for = |advertise: &str| plan(&args(advertise));
        assert_eq!(plan_for("c1.example").unwrap().address, "c1.example:7400");
        assert_eq!(plan_for("::1").unwrap().names, ["::1", "c1"]);
        for wrong in ["", "0.0.0.0", "http://x", "h:70000"] {
            assert_eq!(plan_for(wrong).unwrap_err().exit.code(), 1, "{wrong}");
        }
    }
}
