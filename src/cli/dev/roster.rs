//! `cluster.json`: who runs, where, and with which command line, for programs. It is there once the
//! cluster is ready, replaced as a whole at each change, and gone when `dev` has ended.

use serde_json::{Value, json};

use super::layout::{Layout, Part};
use super::member::Member;
use crate::failure::Result;
use crate::files;
use crate::output::SCHEMA;

pub fn render(layout: &Layout, cluster_id: &str, members: &[Member]) -> Value {
    let of = |part: Part| members.iter().filter(move |member| member.part == part);
    json!({
        "schema": SCHEMA,
        "cluster_id": cluster_id,
        "controllers": of(Part::Controller).map(|member| controller(layout, member)).collect::<Vec<_>>(),
        "agents": of(Part::Agent).map(agent).collect::<Vec<_>>(),
        "ca": layout.ca().join("ca.pem"),
        "context": layout.context(),
    })
}

pub fn write(layout: &Layout, roster: &Value) -> Result<()> {
    files::replace(&layout.roster(), format!("{roster:#}\n").as_bytes())
}

pub fn remove(layout: &Layout) -> Result<()> {
    files::remove(&layout.roster())
}

fn controller(layout: &Layout, member: &Member) -> Value {
    let [grpc, raft, https] = layout.addresses(&member.id);
    json!({
        "id": member.id,
        "pid": member.pid(),
        "grpc": grpc,
        "raft": raft,
        "https": https,
        "data_dir": member.data_dir,
        "log": member.log,
        "argv": member.argv,
    })
}

fn agent(member: &Member) -> Value {
    json!({
        "id": member.id,
        "pid": member.pid(),
        "data_dir": member.data_dir,
        "log": member.log,
        "argv": member.argv,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::Wishes;

    #[test]
    fn the_roster_has_the_keys_that_are_documented() {
        let home = tempfile::tempdir().unwrap();
        let layout = Layout::resolve(home.path(), Wishes::default()).unwrap();
        let members = [
            Member::new(&layout, Part::Controller, "c1"),
            Member::new(&layout, Part::Agent, "a1"),
        ];
        let roster = render(&layout, "q1", &members);
        let keys = |value: &Value| {
            value
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(
            keys(&roster),
            [
                "schema",
                "cluster_id",
                "controllers",
                "agents",
                "ca",
                "context"
            ]
        );
        let controller = &roster["controllers"][0];
        let expected = [
            "id", "pid", "grpc", "raft", "https", "data_dir", "log", "argv",
        ];
        assert_eq!(keys(controller), expected);
        assert_eq!(
            keys(&roster["agents"][0]),
            ["id", "pid", "data_dir", "log", "argv"]
        );
        assert_eq!(controller["pid"], Value::Null, "it does not run");
        assert!(
            roster["context"]
                .as_str()
                .unwrap()
                .ends_with("/context.toml")
        );
    }
}
