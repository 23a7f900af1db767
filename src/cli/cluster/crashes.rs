//! Power cut while clusters are made: what makes a directory a controller's is there only with all the rest.

use std::fs;
use std::path::Path;

use crash::{Cuts, Life};
use model::ControllerId;
use security::{CERTIFICATE_VALIDITY, Ca, Credentials, Identity, KeyFiles, Role};

use super::init::{Plan, make};
use crate::cert;
use crate::failure::{Failure, Result};

fn plan_in(home: &Path) -> Plan {
    Plan {
        id: ControllerId(1),
        data_dir: home.join("c1"),
        ca: home.join("ca"),
        admin: home.join("admin"),
        address: "127.0.0.1:7400".into(),
        names: vec!["127.0.0.1".into()],
    }
}

/// Makes one cluster after the other, each with an agent's certificate.
fn make_clusters(life: &Life) -> Result<()> {
    (1..).try_for_each(|number| {
        let home = life.dir.join(format!("{}-{number}", life.number));
        let say = |what: &str| {
            let said = life.acknowledge(format!("{} {what}", home.display()));
            said.map_err(|error| Failure::file("write", &home, &error))
        };
        let plan = plan_in(&home);
        make(&plan)?;
        say("cluster")?;
        life.rest();
        let ca = Ca::load(&plan.ca)?;
        let agent = Identity::new(ca.cluster(), Role::Agent, "a1")?;
        let issued = ca.issue(&agent, &[], CERTIFICATE_VALIDITY)?;
        cert::save(&issued, &home.join("a1"), &ca)?;
        say("certificate")
    })
}

fn identity(directory: &Path) -> std::result::Result<Identity, String> {
    let loaded = Credentials::load(&KeyFiles::in_directory(directory));
    let loaded = loaded.map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(loaded.identity().clone())
}

/// What a controller and its administrator start with.
fn is_whole(home: &Path) -> std::result::Result<(), String> {
    let plan = plan_in(home);
    let ca = Ca::load(&plan.ca).map_err(|error| error.to_string())?;
    identity(&plan.data_dir.join("identity"))?;
    identity(&plan.admin)?;
    let context = crate::client::load_file(&plan.admin.join("context.toml"));
    context.map_err(|failure| failure.message)?;
    let node = fs::read(plan.data_dir.join("node.json")).map_err(|error| error.to_string())?;
    let node: serde_json::Value =
        serde_json::from_slice(&node).map_err(|error| error.to_string())?;
    if node["cluster_id"] != ca.cluster() {
        return Err(format!("node.json says {node}"));
    }
    match plan.data_dir.join("bootstrap").exists() {
        true => Ok(()),
        false => Err("nothing says that its first start founds the cluster".to_owned()),
    }
}

/// Certificates and keys end as PEM does, or are not there.
fn holds_no_half_file(directory: &Path) -> std::result::Result<(), String> {
    for name in ["ca.key", "ca.pem", "cert.pem", "key.pem"] {
        let text = fs::read_to_string(directory.join(name));
        if text.is_ok_and(|text| !text.ends_with("-----\n")) {
            return Err(format!("{} has half a {name}", directory.display()));
        }
    }
    Ok(())
}

#[test]
fn a_cluster_is_made_as_a_whole_or_not_at_all_when_the_power_is_cut() {
    let cuts = Cuts {
        test: "cluster::crashes::a_cluster_is_made_as_a_whole_or_not_at_all_when_the_power_is_cut",
        default: 10,
        most: 8,
    };
    cuts.run(make_clusters, |data, acknowledged| {
        for line in acknowledged {
            match line.split_once(' ').unwrap() {
                (home, "cluster") => is_whole(Path::new(home))?,
                (home, _) => drop(identity(&Path::new(home).join("a1"))?),
            }
        }
        for entry in fs::read_dir(data).unwrap() {
            let home = entry.unwrap().path();
            if home.join("c1/node.json").exists() {
                is_whole(&home)?;
            }
            for part in ["ca", "admin", "c1/identity", "a1"] {
                holds_no_half_file(&home.join(part))?;
            }
            fs::remove_dir_all(&home).unwrap();
        }
        Ok(())
    });
}
