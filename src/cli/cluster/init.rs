//! `cluster init`: the birth of a cluster, offline, on the machine of its first controller.
//!
//! It makes the cluster's id and certificate authority, the first controller's certificate and data
//! directory, and a context with which an administrator begins. Nothing is started. The marker `bootstrap`
//! lets the first start form the cluster with itself as the only voter, and is gone afterwards. What makes
//! the directory a controller's, `node.json`, is written last: where it is there, all the rest is.
//!
//! It reads the settings that `controller run` will read, so that both mean the same directory, id and
//! address, whether those stand in a file, a variable or a flag.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use model::ControllerId;
use security::{CERTIFICATE_VALIDITY, Ca, Identity, Role};
use serde_json::json;

use crate::args::Global;
use crate::client::{Context, save_file};
use crate::controller::controller_id;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::output::{Answer, SCHEMA};
use crate::settings::{self, Flags, Layers};
use crate::{cert, files};

/// The generation that every cluster begins with; recoveries raise it.
const FIRST_GENERATION: u64 = 1;
/// Digits of a cluster's id: enough that two clusters never meet by accident.
const ID_DIGITS: usize = 12;
/// Who it is where neither a flag nor a setting says so.
const FIRST_CONTROLLER: ControllerId = ControllerId(1);
/// The first administrator's name.
const ADMIN: &str = "admin";

/// Make a new cluster, on the machine of its first controller
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate cluster init --advertise c1.example

Nothing is started yet; it prints what to do next. Other controllers and agents get certificates
from the CA that it makes, with `quorate cert create`. What the settings of `quorate controller run`
say (files, QUORATE_CONTROLLER__…) counts here too, and flags win over them.")]
pub struct InitArgs {
    /// Where the controller is to keep its log and identity [default: /var/lib/quorate/controller]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The controller's id [default: c1]
    #[arg(long, value_parser = controller_id)]
    id: Option<ControllerId>,
    /// How others will reach it
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// The directory for the CA [default: `ca` in the data directory]
    #[arg(long, value_name = "DIR")]
    ca: Option<PathBuf>,
    /// The directory for the administrator's certificate and context [default: `admin` in the data directory]
    #[arg(long, value_name = "DIR")]
    admin: Option<PathBuf>,
    /// Another host name or address for the certificate; may be given several times
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// Settings: this file instead of those in /etc/quorate, or a directory like that one
    #[arg(long, value_name = "FILE|DIR")]
    config: Option<PathBuf>,
}

impl InitArgs {
    /// The last layer of the settings.
    fn flags(&self) -> Flags {
        let mut flags = Flags::default();
        flags.set("id", self.id.map(|id| id.to_string()));
        flags.set("data_dir", self.data_dir.as_deref());
        flags.set("advertise", self.advertise.as_deref());
        flags
    }
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
    let layers = Layers::from_process(args.config.as_deref())?;
    let plan = plan(args, &layers)?;
    let made = make(&plan)?;
    print(&plan, &made, args.config.as_deref(), global)
}

fn plan(args: &InitArgs, layers: &Layers) -> Result<Plan> {
    let mut config = settings::founder(layers, args.flags())?;
    if config.id == ControllerId(0) {
        config.id = FIRST_CONTROLLER;
    }
    let data_dir = files::absolute(&config.data_dir)?;
    let within = |given: &Option<PathBuf>, name: &str| match given {
        Some(path) => files::absolute(path),
        None => Ok(data_dir.join(name)),
    };
    // The server's own reading of the address, so that both mean the same.
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
        id: config.id,
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
    refuse_key(&plan.data_dir.join("identity"))?;
    refuse_key(&plan.admin)?;
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
    files::replace(&plan.data_dir.join("bootstrap"), b"")?;
    files::replace(
        &plan.data_dir.join("node.json"),
        format!("{node:#}\n").as_bytes(),
    )?;
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

/// A key that is there is somebody's: perhaps of a cluster that this machine was to join.
fn refuse_key(directory: &Path) -> Result<()> {
    let key = security::KeyFiles::in_directory(directory).key;
    if !key.exists() {
        return Ok(());
    }
    let message = format!("{} exists already, and is not overwritten", key.display());
    let hint =
        "to join a cluster, see `quorate controller run --help`; to make a new one, move it away";
    Err(Failure::refused("exists", message, hint))
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

fn print(plan: &Plan, made: &Made, config: Option<&Path>, global: &Global) -> Result<Exit> {
    let json = json!({
        "schema": SCHEMA,
        "cluster_id": made.cluster_id,
        "id": plan.id.to_string(),
        "data_dir": plan.data_dir,
        "address": plan.address,
        "ca": plan.ca,
        "context": made.context,
    });
    let text = next_steps(plan, made, config);
    Answer {
        json,
        ids: vec![made.cluster_id.clone()],
        table: Box::new(move |_| text.clone()),
    }
    .print(global.output)?;
    Ok(Exit::Ok)
}

fn next_steps(plan: &Plan, made: &Made, config: Option<&Path>) -> String {
    let config = config.map_or_else(String::new, |path| format!(" --config {}", path.display()));
    let (ca, dir) = (plan.ca.display(), plan.data_dir.display());
    let (context, address) = (made.context.display(), &plan.address);
    // After the last number there is only another one.
    let next = ControllerId(plan.id.0.checked_add(1).unwrap_or(1));
    format!(
        "\
Made cluster {cluster}, with {id} as its first controller.

Start it on this machine:
  quorate controller run --data-dir {dir} --advertise {address}{config}

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

Once it runs, machines can also join by themselves, with nothing to copy:
  quorate join-token create --role agent
  quorate agent run --join TOKEN --controller {address}

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
    fn a_key_that_is_there_already_is_not_overwritten() {
        let home = tempfile::tempdir().unwrap();
        for directory in ["c1/identity", "c1/admin"] {
            let key = home.path().join(directory).join("key.pem");
            files::replace(&key, b"somebody's").unwrap();
            let failure = make(&plan_in(home.path())).unwrap_err();
            assert_eq!((failure.exit.code(), failure.code.as_str()), (1, "exists"));
            assert_eq!(fs::read(&key).unwrap(), b"somebody's");
            assert!(!home.path().join("c1/ca").exists(), "nothing was begun");
            files::remove(&key).unwrap();
        }
        make(&plan_in(home.path())).unwrap();
    }

    #[test]
    fn what_the_controller_will_be_told_counts_here_too() {
        let variables = [
            ("QUORATE_CONTROLLER__DATA_DIR", "/data"),
            ("QUORATE_CONTROLLER__ID", "c4"),
            ("QUORATE_CONTROLLER__LISTEN", "0.0.0.0:9000"),
            ("QUORATE_CONTROLLER__ADVERTISE", "c4.example"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let nowhere = tempfile::tempdir().unwrap();
        let layers = Layers::read(Some(nowhere.path()), variables.into()).unwrap();
        let told = plan(&args(None), &layers).unwrap();
        assert_eq!(
            (told.id, &*told.data_dir),
            (ControllerId(4), Path::new("/data"))
        );
        assert_eq!(told.address, "c4.example:9000");
        let flags = InitArgs {
            data_dir: Some("/x".into()),
            ..args(Some("other"))
        };
        let told = plan(&flags, &layers).unwrap();
        assert_eq!(
            (&*told.data_dir, &*told.address),
            (Path::new("/x"), "other:9000")
        );
    }

    fn args(advertise: Option<&str>) -> InitArgs {
        InitArgs {
            data_dir: None,
            id: None,
            advertise: advertise.map(str::to_owned),
            ca: None,
            admin: None,
            names: vec!["c1".into()],
            config: None,
        }
    }

    #[test]
    fn the_first_address_is_read_as_the_controller_reads_it() {
        let plan_for = |advertise: &str| plan(&args(Some(advertise)), &Layers::default());
        assert_eq!(plan_for("c1.example").unwrap().address, "c1.example:7400");
        assert_eq!(plan_for("::1").unwrap().names, ["::1", "c1"]);
        for wrong in ["", "0.0.0.0", "http://x", "h:70000"] {
            assert_eq!(plan_for(wrong).unwrap_err().exit.code(), 1, "{wrong}");
        }
    }

    #[test]
    fn the_highest_id_has_next_steps_too() {
        let home = tempfile::tempdir().unwrap();
        let last = Plan {
            id: ControllerId(u64::MAX),
            ..plan_in(home.path())
        };
        let made = make(&last).unwrap();
        let text = next_steps(&last, &made, None);
        assert!(text.contains("--role controller --id c1 "), "{text}");
    }
}
