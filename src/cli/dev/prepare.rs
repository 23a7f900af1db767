//! Making a development cluster's directories, with the steps that a real administrator takes, and
//! later renewing certificates that ran out.

use std::path::Path;
use std::time::{Duration, SystemTime};

use security::{CERTIFICATE_VALIDITY, Ca, Credentials, Identity, KeyFiles, Role};

use super::claim;
use super::layout::Layout;
use crate::client::{Context, save_file};
use crate::cluster::init;
use crate::failure::Result;
use crate::{cert, files};

/// A certificate that ends sooner than this is made anew.
const RENEW_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
const LOOPBACK: [&str; 2] = ["127.0.0.1", "localhost"];

/// Makes the cluster, or makes sure that it can go on. Gives the cluster's id, and the controllers that
/// must not be started because their data is gone.
pub fn prepare(layout: &Layout) -> Result<Prepared> {
    if !layout.continued {
        claim::begin(layout)?;
        init::make(&init::Plan {
            id: model::ControllerId(1),
            data_dir: layout.data_dir("c1"),
            ca: layout.ca(),
            admin: layout.admin(),
            address: layout.addresses("c1")[0].clone(),
            names: names(),
        })?;
    }
    let ca = Ca::load(&layout.ca())?;
    let lost = lost(layout)?;
    // The first controller has the key, as on a real machine, so that others may join; they get it from there.
    let key = layout.data_dir("c1").join("ca");
    if !Ca::is_in(&key) && !lost.iter().any(|id| id == "c1") {
        ca.keep(&key)?;
    }
    for id in layout
        .controller_ids()
        .iter()
        .filter(|id| !lost.contains(*id))
    {
        certificate(&ca, Role::Controller, id, &layout.identity(id))?;
    }
    for id in layout.agent_ids() {
        certificate(&ca, Role::Agent, &id, &layout.identity(&id))?;
    }
    certificate(&ca, Role::Client, "admin", &layout.admin())?;
    write_context(layout)?;
    for id in layout.controller_ids().iter().chain(&layout.agent_ids()) {
        let path = layout.settings(id);
        if !path.exists() {
            let text = format!("# Settings of {id}, beside those on its command line.\n");
            files::replace(&path, text.as_bytes())?;
        }
    }
    files::create_directory(&layout.dir.join("log"))?;
    layout.save()?;
    claim::end(layout)?;
    Ok(Prepared {
        cluster_id: ca.cluster().to_owned(),
        lost,
    })
}

/// A cluster that can be started.
#[derive(Debug)]
pub struct Prepared {
    pub cluster_id: String,
    pub lost: Vec<String>,
}

/// Controllers that took part before and have no data any more. One that forgot its votes must not come
/// back under its name.
fn lost(layout: &Layout) -> Result<Vec<String>> {
    if !layout.continued {
        return Ok(Vec::new());
    }
    let mut lost = Vec::new();
    for id in layout.controller_ids() {
        // Its certificate went with its data; the log of what it said stands elsewhere.
        if layout.log(&id).exists() && !layout.identity(&id).exists() {
            lost.push(id);
        }
    }
    Ok(lost)
}

/// Makes a certificate where there is none that is good for some time.
fn certificate(ca: &Ca, role: Role, id: &str, directory: &Path) -> Result<()> {
    let keys = KeyFiles::in_directory(directory);
    let good = Credentials::load(&keys).is_ok_and(|credentials| {
        let known = credentials.identity();
        let end = SystemTime::now() + RENEW_BEFORE;
        known.cluster() == ca.cluster() && known.id() == id && credentials.expires_at() > end
    });
    if good {
        return Ok(());
    }
    let identity = Identity::new(ca.cluster(), role, id)?;
    let names = if role == Role::Controller {
        names()
    } else {
        Vec::new()
    };
    cert::save(
        &ca.issue(&identity, &names, CERTIFICATE_VALIDITY)?,
        directory,
        ca,
    )?;
    Ok(())
}

fn names() -> Vec<String> {
    LOOPBACK.map(str::to_owned).into()
}

fn write_context(layout: &Layout) -> Result<()> {
    let admin = layout.admin();
    let context = Context {
        addresses: layout.grpc(),
        ca: Some(admin.join("ca.pem")),
        cert: Some(admin.join("cert.pem")),
        key: Some(admin.join("key.pem")),
        ..Context::default()
    };
    save_file(&context, &layout.context())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::dev::Wishes;

    fn layout(dir: &Path) -> Layout {
        Layout::resolve(
            dir,
            Wishes {
                agents: Some(1),
                ..Wishes::default()
            },
        )
        .unwrap()
    }

    fn expiry(layout: &Layout, id: &str) -> SystemTime {
        Credentials::load(&KeyFiles::in_directory(&layout.identity(id)))
            .unwrap()
            .expires_at()
    }

    #[test]
    fn a_second_run_changes_nothing_but_certificates_that_ran_out() {
        let home = tempfile::tempdir().unwrap();
        let first = prepare(&layout(home.path())).unwrap();
        let again = layout(home.path());
        assert!(again.continued);
        let ca = Ca::load(&again.ca()).unwrap();
        let identity = Identity::new(ca.cluster(), Role::Agent, "a1").unwrap();
        let short = ca.issue(&identity, &[], Duration::from_secs(60)).unwrap();
        short.save(&again.identity("a1"), ca.pem()).unwrap();
        let (before, kept) = (expiry(&again, "a1"), expiry(&again, "c2"));
        assert_eq!(prepare(&again).unwrap().cluster_id, first.cluster_id);
        assert!(expiry(&again, "a1") > before + RENEW_BEFORE);
        assert_eq!(expiry(&again, "c2"), kept);
    }

    #[test]
    fn what_a_member_keeps_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        let layout = layout(home.path());
        prepare(&layout).unwrap();
        for id in ["c1", "c2", "c3", "a1"] {
            let mode = fs::metadata(layout.data_dir(id)).unwrap().permissions();
            assert_eq!(mode.mode() & 0o777, 0o700, "{id}");
        }
    }

    #[test]
    fn a_controller_whose_data_is_gone_is_not_made_again() {
        let home = tempfile::tempdir().unwrap();
        prepare(&layout(home.path())).unwrap();
        let again = layout(home.path());
        fs::write(again.log("c2"), "it ran").unwrap();
        fs::remove_dir_all(again.data_dir("c2")).unwrap();
        assert_eq!(prepare(&again).unwrap().lost, ["c2"]);
        assert!(!again.identity("c2").exists());
    }
}
