//! Layers in their order, and mistakes with their place.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{Flags, Layers};
use crate::failure::Result;

fn layers(directory: &Path, variables: &[(&str, &str)]) -> Result<Layers> {
    let variables: BTreeMap<String, String> = variables
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    Layers::read(Some(directory), variables)
}

fn etc(files: &[(&str, &str)]) -> tempfile::TempDir {
    let etc = tempfile::tempdir().unwrap();
    fs::create_dir(etc.path().join("conf.d")).unwrap();
    for (name, text) in files {
        fs::write(etc.path().join(name), text).unwrap();
    }
    etc
}

fn controller(
    directory: &Path,
    variables: &[(&str, &str)],
    flags: Flags,
) -> Result<server::Config> {
    super::controller(&layers(directory, variables)?, flags)
}

#[test]
fn later_layers_win_and_the_rest_is_kept() {
    let etc = etc(&[
        (
            "quorate.toml",
            "[controller]\nid = 'c1'\nlisten = '127.0.0.1:1000'\nadvertise = 'a'\n",
        ),
        (
            "conf.d/10.toml",
            "[controller]\nlisten = '127.0.0.1:1010'\nadvertise = 'b'\n",
        ),
        (
            "conf.d/20.toml",
            "[controller.peer_addresses]\nc2 = 'proxy:1'\n[agent]\nslots = 3\n",
        ),
        ("conf.d/notes.txt", "not read"),
    ]);
    let variables = [
        ("QUORATE_CONTROLLER__ADVERTISE", "c"),
        ("QUORATE_CONTROLLER__JOIN", "[h1, h2]"),
        ("QUORATE_CONTROLLER__PEER_ADDRESSES__C3", "proxy:2"),
        ("QUORATE_CONTEXT", "not a setting of a server"),
    ];
    let mut flags = Flags::default();
    flags.set("listen", Some("127.0.0.1:1020"));
    let config = controller(etc.path(), &variables, flags).unwrap();
    assert_eq!(config.id, model::ControllerId(1));
    assert_eq!(config.listen, "127.0.0.1:1020");
    assert_eq!(config.advertise, "c");
    assert_eq!(config.join, ["h1", "h2"]);
    assert_eq!(config.peer_addresses[&model::ControllerId(2)], "proxy:1");
    assert_eq!(config.peer_addresses[&model::ControllerId(3)], "proxy:2");
}

#[test]
fn an_unknown_key_is_named_with_its_file() {
    let etc = etc(&[
        ("quorate.toml", "[controller]\nid = 'c1'\nadvertise = 'a'\n"),
        ("conf.d/10.toml", "[controller]\nlisen = 'x'\n"),
    ]);
    let text = controller(etc.path(), &[], Flags::default())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("10.toml: unknown key `lisen` in [controller]"),
        "{text}"
    );
    assert!(text.contains("listen"), "it says what there is: {text}");
}

#[test]
fn an_unknown_variable_under_a_prefix_is_named() {
    let etc = etc(&[("quorate.toml", "[controller]\nid = 'c1'\nadvertise = 'a'\n")]);
    let variables = [("QUORATE_CONTROLLER__LISEN", "x")];
    let text = controller(etc.path(), &variables, Flags::default())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("QUORATE_CONTROLLER__LISEN: unknown key `lisen`"),
        "{text}"
    );
}

#[test]
fn a_mistake_in_the_other_process_section_is_found_at_once_too() {
    let etc = etc(&[(
        "quorate.toml",
        "[controller]\nid = 'c1'\n[agent]\nslotz = 3\n",
    )]);
    let refused = controller(etc.path(), &[], Flags::default()).unwrap_err();
    assert!(refused.to_string().contains("slotz"), "{refused}");
    let variables = [("QUORATE_CONTROLLER__LISTENN", "x")];
    let layers = layers(&etc.path().join("conf.d"), &variables).unwrap();
    let refused = super::agent(&layers, Flags::default()).unwrap_err();
    let refused = refused.to_string().to_lowercase();
    assert!(refused.contains("listenn"), "{refused}");
}

#[test]
fn a_variable_that_looks_like_a_number_may_be_a_text_and_a_list_needs_no_brackets() {
    let etc = etc(&[]);
    let variables = [
        ("QUORATE_AGENT__ID", "42"),
        ("QUORATE_AGENT__LABELS__HALL", "2"),
        ("QUORATE_AGENT__LABELS__GPU", "true"),
        ("QUORATE_AGENT__LABELS__VERSION", "1.10"),
        ("QUORATE_AGENT__SLOTS", "3"),
        ("QUORATE_AGENT__CONTROLLERS", "h1:7400, h2:7400"),
    ];
    let read = layers(etc.path(), &variables).unwrap();
    let config = super::agent(&read, Flags::default()).unwrap();
    assert_eq!((config.id.as_str(), config.slots), ("42", 3));
    let labels: Vec<_> = config
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(labels, ["gpu=true", "hall=2", "version=1.10"]);
    assert_eq!(config.controllers, ["h1:7400", "h2:7400"]);
    let variables = [
        ("QUORATE_CONTROLLER__ID", "c1"),
        ("QUORATE_CONTROLLER__ADVERTISE", "h"),
        ("QUORATE_CONTROLLER__JOIN", "h1:7400"),
    ];
    let config = controller(etc.path(), &variables, Flags::default()).unwrap();
    assert_eq!(config.join, ["h1:7400"]);
    let wrong = layers(etc.path(), &[("QUORATE_AGENT__SLOTS", "many")]).unwrap();
    let text = super::agent(&wrong, Flags::default())
        .unwrap_err()
        .to_string();
    assert!(text.contains("QUORATE_AGENT__SLOTS: agent.slots"), "{text}");
}

#[test]
fn what_can_not_work_can_be_looked_at_all_the_same() {
    let etc = etc(&[(
        "quorate.toml",
        "[controller]\nid = 'c1'\n[agent]\nid = 'a1'\ncontrollers = ['h']\nslots = 0\n",
    )]);
    let layers = layers(etc.path(), &[]).unwrap();
    let (config, complaint) = super::agent_as_given(&layers).unwrap();
    assert_eq!((config.id.as_str(), config.slots), ("a1", 0));
    assert!(complaint.unwrap().to_string().starts_with("agent: slots"));
    let (config, complaint) = super::controller_as_given(&layers).unwrap();
    assert_eq!(config.id, model::ControllerId(1));
    assert!(complaint.unwrap().to_string().contains("advertise"));
}

#[test]
fn unknown_sections_wrong_types_and_broken_files_are_named() {
    let cases = [
        ("[contoller]\nid = 'c1'\n", "unknown key `contoller`"),
        (
            "[controller]\nid = 'c1'\nsnapshot_every = 'often'\n",
            "snapshot_every",
        ),
        ("[controller]\nid = 'x1'\n", "x1"),
        ("[controller]\nid = \n", "quorate.toml:2"),
        ("controller = 5\n", "not a section"),
    ];
    for (file, part) in cases {
        let etc = etc(&[("quorate.toml", file)]);
        let text = controller(etc.path(), &[], Flags::default())
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("quorate.toml") && text.contains(part),
            "{text}"
        );
    }
}

#[test]
fn a_named_file_stands_alone_and_has_to_be_there() {
    let etc = etc(&[
        (
            "one.toml",
            "[agent]\nid = 'a9'\ncontrollers = ['h']\nslots = 2\n",
        ),
        ("quorate.toml", "[agent]\nslots = 7\n"),
    ]);
    let one = Layers::read(Some(&etc.path().join("one.toml")), BTreeMap::new()).unwrap();
    let config = super::agent(&one, Flags::default()).unwrap();
    assert_eq!((config.id.as_str(), config.slots), ("a9", 2));
    let missing = Layers::read(Some(&etc.path().join("none.toml")), BTreeMap::new());
    assert!(missing.unwrap_err().to_string().contains("none.toml"));
}

#[test]
fn a_label_of_a_flag_is_added_to_those_of_the_file() {
    let etc = etc(&[(
        "quorate.toml",
        "[agent]\nid = 'a1'\ncontrollers = ['h']\nlabels = { rack = '1' }\n",
    )]);
    let mut flags = Flags::default();
    flags.set_in("labels", "gpu", "none");
    let config = super::agent(&layers(etc.path(), &[]).unwrap(), flags).unwrap();
    let labels: Vec<_> = config
        .labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    assert_eq!(labels, ["gpu=none", "rack=1"]);
}

#[test]
fn what_can_not_work_is_said_with_its_section() {
    let etc = etc(&[(
        "quorate.toml",
        "[agent]\nid = 'a1'\ncontrollers = ['h']\nslots = 0\n",
    )]);
    let text = super::agent(&layers(etc.path(), &[]).unwrap(), Flags::default());
    let text = text.unwrap_err().to_string();
    assert!(text.starts_with("agent: slots"), "{text}");
}

#[test]
fn without_an_id_the_certificate_says_it_and_without_one_the_next_step_is_named() {
    let etc = etc(&[("quorate.toml", "[controller]\nadvertise = 'h'\n")]);
    let dir = etc.path().join("data");
    let flags = || {
        let mut flags = Flags::default();
        flags.set("data_dir", Some(&dir));
        flags
    };
    let text = controller(etc.path(), &[], flags())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("no certificate") && text.contains("quorate cluster init"),
        "{text}"
    );
    let ca = security::Ca::create("q1").unwrap();
    let identity = security::Identity::new("q1", security::Role::Controller, "c7").unwrap();
    let issued = ca
        .issue(&identity, &[], security::CERTIFICATE_VALIDITY)
        .unwrap();
    issued.save(&dir.join("identity"), ca.pem()).unwrap();
    let config = controller(etc.path(), &[], flags()).unwrap();
    assert_eq!(config.id, model::ControllerId(7));
}
