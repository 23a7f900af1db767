//! Verbs that need no cluster: what they make, print and refuse, with the real binary.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cluster_tests::binary;
use cluster_tests::cluster::{Cli, Completed, Workspace, finish};
use serde_json::Value;
use tokio::process::Command;
use tokio::test;

use crate::shape::{
    self, assert_keys, assert_object, assert_refused, in_every_form, is_time, items,
};

/// A person's home without anything in it.
struct Home {
    workspace: Workspace,
    cli: Cli,
}

impl Home {
    fn new(name: &str) -> Home {
        let workspace = Workspace::create(name).unwrap();
        let binary = binary::find().unwrap();
        // An empty name says nothing, as for every variable.
        let cli = Cli::new(&binary, Path::new(""), workspace.path());
        Home { workspace, cli }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.workspace.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    /// With variables of its own.
    async fn run_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Completed {
        let mut command = self.cli.command(arguments);
        command.envs(variables.iter().copied());
        finish(arguments.join(" "), command.spawn().unwrap())
            .await
            .unwrap()
    }

    /// A new cluster's directory.
    async fn init(&self, name: &str) -> Value {
        let data_dir = self.text(name);
        let asked = ["cluster", "init", "--advertise", "127.0.0.1"];
        let asked = [&asked[..], &["--data-dir", &data_dir]].concat();
        self.cli.json(&asked).await.unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
async fn init_makes_a_cluster_that_belongs_to_its_owner_and_never_another_in_its_place() {
    let home = Home::new("init");
    let made = home.init("c1").await;
    let keys = ["cluster_id", "id", "data_dir", "address", "ca", "context"];
    assert_object(&made, &[&["schema"], &keys[..]].concat());
    assert_eq!(
        (&made["id"], &made["address"]),
        (&"c1".into(), &"127.0.0.1:7400".into())
    );
    assert_eq!(made["data_dir"], home.text("c1"));
    for file in [
        "node.json",
        "bootstrap",
        "identity/ca.pem",
        "admin/context.toml",
    ] {
        assert!(home.path("c1").join(file).is_file(), "{file}");
    }
    for private in ["ca/ca.key", "identity/key.pem", "admin/key.pem"] {
        assert_eq!(mode(&home.path("c1").join(private)), 0o600, "{private}");
    }
    assert_eq!(mode(&home.path("c1")), 0o700);
    let again = home.text("c1");
    let again = ["cluster", "init", "--advertise", "h", "--data-dir", &again];
    assert_refused(&home.cli, &again, 1, "exists").await;
    // A machine that was given an identity is one that was to join.
    let key = home.path("c2/identity/key.pem");
    fs::create_dir_all(key.parent().unwrap()).unwrap();
    fs::write(&key, "carried here").unwrap();
    let taken = home.text("c2");
    let taken = ["cluster", "init", "--advertise", "h", "--data-dir", &taken];
    assert_refused(&home.cli, &taken, 1, "exists").await;
    assert_eq!(fs::read_to_string(&key).unwrap(), "carried here");
    for nowhere in [
        &["--advertise", "0.0.0.0"][..],
        &["--advertise", "http://h"],
        &[],
    ] {
        let dir = home.text("c3");
        let asked = [&["cluster", "init", "--data-dir", &dir], nowhere].concat();
        assert_refused(&home.cli, &asked, 1, "usage").await;
        assert!(!home.path("c3").exists());
    }
}

#[test]
async fn init_reads_the_settings_that_the_controller_will_read() {
    let home = Home::new("init-settings");
    let config = home.path("quorate.toml");
    fs::write(
        &config,
        "[controller]\nlisten = '127.0.0.1:9000'\nid = 'c3'\n",
    )
    .unwrap();
    let dir = home.text("data");
    let variables = [("QUORATE_CONTROLLER__DATA_DIR", dir.as_str())];
    let config = config.to_string_lossy();
    let asked = ["cluster", "init", "-o", "json", "--config", &config];
    let done = home.run_with(&variables, &asked).await.success().unwrap();
    let made: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        (&made["id"], &made["address"]),
        (&"c3".into(), &"127.0.0.1:9000".into())
    );
    assert!(home.path("data/node.json").is_file());
}

#[test]
async fn a_certificate_is_made_for_each_role_and_replaces_a_key_only_when_told_to() {
    let home = Home::new("cert");
    let cluster = home.init("c1").await;
    let ca = cluster["ca"].as_str().unwrap();
    let out = home.text("made");
    for (role, id) in [
        ("controller", "c2"),
        ("agent", "worker-1"),
        ("client", "ann"),
    ] {
        let made = [
            "cert", "create", "--ca", ca, "--out", &out, "--role", role, "--id", id,
        ];
        let uri = format!(
            "spiffe://{}/{role}/{id}",
            cluster["cluster_id"].as_str().unwrap()
        );
        let json = in_every_form(&home.cli, &[&made[..], &["--yes"]].concat(), &uri, &[id]).await;
        let keys = ["schema", "cluster_id", "role", "id", "uri", "expires_at"];
        assert_object(&json, &keys);
        assert_eq!((&json["role"], &json["uri"]), (&role.into(), &uri.into()));
        assert!(is_time(&json["expires_at"]), "{json}");
        let key = home.path("made/key.pem");
        assert_eq!(mode(&key), 0o600);
        let before = fs::read(&key).unwrap();
        assert_refused(&home.cli, &made, 1, "usage").await;
        assert_eq!(
            fs::read(&key).unwrap(),
            before,
            "nobody was there to say yes"
        );
    }
    let new = home.text("new");
    for (role, id, code) in [
        ("controller", "c0", "usage"),
        ("controller", "ann", "usage"),
        ("agent", "A 1", "identity"),
        ("king", "ann", "usage"),
    ] {
        let asked = [
            "cert", "create", "--ca", ca, "--out", &new, "--role", role, "--id", id,
        ];
        assert_refused(&home.cli, &asked, 1, code).await;
    }
    assert!(!home.path("new").exists());
}

#[test]
async fn contexts_are_taken_in_chosen_shown_and_deleted() {
    let home = Home::new("context");
    let cluster = home.init("c1").await;
    let file = cluster["context"].as_str().unwrap();
    let cli = &home.cli;
    let none = in_every_form(cli, &["context", "list"], "", &[]).await;
    assert!(items(&none).is_empty());
    assert_refused(cli, &["context", "show"], 2, "not_found").await;
    for name in ["prod", "spare"] {
        let used = ["context", "use", file, "--name", name];
        let json = in_every_form(cli, &used, "127.0.0.1:7400", &[name]).await;
        assert_object(&json, &shape::CONTEXT);
        assert_eq!(
            (&json["name"], &json["current"]),
            (&name.into(), &true.into())
        );
        assert_eq!(json["addresses"], serde_json::json!(["127.0.0.1:7400"]));
        let key = home.text("c1/admin/key.pem");
        assert_eq!((&json["key"], &json["token"]), (&key.into(), &Value::Null));
    }
    cli.expect(&["context", "use", "prod"]).await.unwrap();
    let list = in_every_form(cli, &["context", "list"], "*  prod", &["prod", "spare"]).await;
    let current = items(&list).iter().map(|item| {
        assert_object(item, &shape::CONTEXT);
        item["current"] == true
    });
    assert_eq!(current.collect::<Vec<_>>(), [true, false]);
    let shown = in_every_form(cli, &["context", "show"], "prod", &["prod"]).await;
    assert_eq!(shown["name"], "prod");
    let shown = in_every_form(cli, &["context", "show", "spare"], "spare", &["spare"]).await;
    assert_eq!(
        (&shown["name"], &shown["current"]),
        (&"spare".into(), &false.into())
    );
    // The variable wins, and whoever chooses another one is told.
    let variable = [("QUORATE_CONTEXT", "spare")];
    let shown = home
        .run_with(&variable, &["context", "show", "-o", "quiet"])
        .await;
    assert_eq!(shown.text(), "spare\n");
    let chosen = home.run_with(&variable, &["context", "use", "prod"]).await;
    assert!(
        chosen.stderr.contains("QUORATE_CONTEXT=spare"),
        "{}",
        chosen.stderr
    );
    assert_refused(cli, &["context", "use", "nobody"], 2, "not_found").await;
    assert_refused(cli, &["context", "delete", "nobody"], 2, "not_found").await;
    let deleted = cli.json(&["context", "delete", "prod"]).await.unwrap();
    assert_object(&deleted, &["schema", "name", "deleted"]);
    let list = cli.json(&["context", "list"]).await.unwrap();
    assert_eq!(
        (items(&list).len(), &items(&list)[0]["current"]),
        (1, &false.into())
    );
    assert!(
        home.path("c1/admin/key.pem").is_file(),
        "it is somebody's still"
    );
    assert_eq!(mode(&home.path(".config/quorate/config.toml")), 0o600);
    assert_refused(cli, &["task", "list"], 1, "no_context").await;
}

#[test]
async fn settings_are_checked_and_shown_in_the_order_in_which_they_count() {
    let home = Home::new("config");
    let etc = home.path("etc");
    fs::create_dir_all(etc.join("conf.d")).unwrap();
    let write = |name: &str, text: &str| fs::write(etc.join(name), text).unwrap();
    write(
        "quorate.toml",
        "[controller]\nid = 'c1'\nlisten = '127.0.0.1:1000'\nsnapshot_every = 100\n",
    );
    write(
        "conf.d/20.toml",
        "[controller]\nlisten = '127.0.0.1:1020'\n",
    );
    write(
        "conf.d/10.toml",
        "[controller]\nlisten = '127.0.0.1:1010'\nsnapshot_every = 200\n",
    );
    let etc = home.text("etc");
    let (show, validate) = (
        ["config", "show", "--config", &etc],
        ["config", "validate", "--config", &etc],
    );
    let json = in_every_form(&home.cli, &show, "127.0.0.1:1020", &[]).await;
    assert_object(&json, &["schema", "sources", "controller", "agent"]);
    assert_eq!(json["sources"].as_array().unwrap().len(), 3);
    let controller = &json["controller"];
    assert_eq!(
        (
            &controller["listen"],
            &controller["snapshot_every"],
            &json["agent"]
        ),
        (&"127.0.0.1:1020".into(), &200.into(), &Value::Null)
    );
    let json = in_every_form(&home.cli, &validate, "conf.d/20.toml", &[]).await;
    assert_object(&json, &["schema", "valid", "sections", "sources"]);
    assert_eq!(
        (&json["valid"], &json["sections"][0]),
        (&true.into(), &"controller".into())
    );
    // A variable comes after every file.
    let variable = [("QUORATE_CONTROLLER__LISTEN", "127.0.0.1:1030")];
    let shown = home
        .run_with(&variable, &[&["-o", "json"], &show[..]].concat())
        .await;
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["controller"]["listen"], "127.0.0.1:1030");
    for (name, value) in [
        ("QUORATE_AGENT__SLOTZ", "3"),
        ("QUORATE_CONTROLLER__LISEN", "h"),
    ] {
        let refused = home.run_with(&[(name, value)], &validate).await;
        assert_eq!(refused.code, Some(1));
        assert!(refused.stderr.contains(name), "{}", refused.stderr);
    }
    write("conf.d/30.toml", "[controller]\nsnapshot_evry = 1\n");
    for refused in [
        &show[..],
        &validate,
        &["controller", "run", "--config", &etc],
    ] {
        assert_refused(&home.cli, refused, 1, "config").await;
    }
}

#[test]
async fn the_version_is_said_in_every_form() {
    let home = Home::new("version");
    let version = env!("CARGO_PKG_VERSION");
    let json = in_every_form(&home.cli, &["version"], version, &[version]).await;
    assert_keys(&json, &["schema", "version", "target"]);
    let flag = home.cli.expect(&["--version"]).await.unwrap();
    assert_eq!(flag.text(), format!("quorate {version}\n"));
    let empty = home.run_with(&[("QUORATE_OUTPUT", "")], &["version"]).await;
    assert!(empty.text().starts_with("quorate "), "{}", empty.stderr);
}

#[test]
async fn completions_and_manual_pages_know_every_noun() {
    let home = Home::new("generated");
    let nouns = [
        "agent",
        "cert",
        "cluster",
        "completions",
        "config",
        "context",
        "controller",
    ];
    let nouns = [&nouns[..], &["dev", "task", "version"]].concat();
    for shell in ["bash", "zsh", "fish"] {
        let script = home
            .cli
            .expect(&["completions", shell])
            .await
            .unwrap()
            .text();
        for noun in &nouns {
            assert!(script.contains(noun), "{shell} knows no {noun}");
        }
        fs::write(home.path(shell), script).unwrap();
    }
    // As bash itself does it at `quorate task ca<Tab>`.
    let complete = format!(
        "source '{}'; COMP_WORDS=(quorate task ca); COMP_CWORD=2; _quorate quorate ca task; echo \"${{COMPREPLY[*]}}\"",
        home.text("bash")
    );
    let bash = Command::new("bash")
        .args(["-c", &complete])
        .output()
        .await
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&bash.stdout),
        "cancel\n",
        "{bash:?}"
    );
    assert_refused(&home.cli, &["completions", "tcsh"], 1, "usage").await;

    let pages = home.text("man1");
    home.cli.expect(&["man", &pages]).await.unwrap();
    for noun in nouns {
        let page = fs::read_to_string(home.path("man1").join(format!("quorate-{noun}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{noun}: {page}");
    }
    let page = fs::read_to_string(home.path("man1/quorate-task-submit.1")).unwrap();
    assert!(page.contains("at\\-most\\-once"), "{page}");
}

#[test]
async fn a_line_that_makes_no_sense_is_refused_as_text_and_as_an_object() {
    let home = Home::new("senseless");
    let cases: [&[&str]; 7] = [
        &["frobnicate"],
        &["task", "frobnicate"],
        &["task", "list", "--limit", "many"],
        &["task", "get"],
        &["dev", "--controllers", "0"],
        &["agent", "run", "--label", "no-value"],
        &["agent", "--slots", "2", "list"],
    ];
    for arguments in cases {
        assert_refused(&home.cli, arguments, 1, "usage").await;
    }
    let dir = home.text("nothing");
    assert_refused(
        &home.cli,
        &["dev", "kill", "c1", "--dir", &dir],
        2,
        "unhealthy",
    )
    .await;
}
