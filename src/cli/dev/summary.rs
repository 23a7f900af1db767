//! What `dev` says to a person: that it is ready and what to do next, and what happens to its children.

use std::path::Path;

use super::layout::{Layout, Part};
use super::member::{Ended, Member, in_words};
use super::ready::Standing;
use crate::shell;

/// Once everything works.
pub fn ready(
    layout: &Layout,
    standing: &Standing,
    members: &[Member],
    used: Option<&Path>,
) -> String {
    let running = |part: Part| {
        members
            .iter()
            .filter(move |member| member.part == part && member.pid().is_some())
    };
    let controllers = running(Part::Controller).count();
    let agents = running(Part::Agent).count();
    let [grpc, _, _] = layout.addresses("c1");
    let example = if standing.leader.is_empty() {
        "c1"
    } else {
        standing.leader.as_str()
    };
    let pinned = match used {
        Some(path) => format!("It is your current context now ({}).\n", path.display()),
        None => String::new(),
    };
    format!(
        "\
Ready: {controllers} {} ({example} leads) and {agents} {}, the first at {grpc}, everything in {}.
{pinned}
In another terminal:

export QUORATE_CONTEXT={}

  quorate cluster status
  quorate task run -- echo 'hello, quorum'
  quorate dev kill {example}          # the leader; look again, then:
  quorate dev start {example}

Logs are in {}. Ctrl-C stops everything; `quorate dev` continues where it was.",
        plural(controllers, "controller"),
        plural(agents, "agent"),
        layout.dir.display(),
        shell_word(&layout.context()),
        layout.dir.join("log").display(),
    )
}

/// A child ended that nobody had asked to.
pub fn died(ended: &Ended, member: &Member, layout: &Layout) -> String {
    let words = match member.last_words() {
        Some(words) if ended.status.code().is_some() => format!(": {words}"),
        _ => String::new(),
    };
    format!(
        "{} (pid {}) {}{words}\n  start it again: {}",
        ended.id,
        ended.pid,
        in_words(ended.status),
        command(layout, &format!("start {}", ended.id))
    )
}

/// A `dev` command for this directory, as another terminal would type it.
pub fn command(layout: &Layout, rest: &str) -> String {
    let usual = super::directory(None, None).is_ok_and(|usual| usual == layout.dir);
    if usual {
        format!("quorate dev {rest}")
    } else {
        format!("quorate dev {rest} --dir {}", shell_word(&layout.dir))
    }
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}

fn shell_word(path: &Path) -> String {
    shell::word(&path.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::Wishes;

    #[test]
    fn the_summary_has_a_line_to_paste() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("my cluster");
        let layout = Layout::resolve(&dir, Wishes::default()).unwrap();
        let standing = Standing {
            leader: "c2".into(),
            ..Standing::default()
        };
        let text = ready(&layout, &standing, &[], None);
        let line = format!(
            "\nexport QUORATE_CONTEXT='{}'\n",
            layout.context().display()
        );
        assert!(text.contains(&line), "{text}");
        assert!(text.contains("quorate dev kill c2"), "{text}");
        assert!(command(&layout, "start c1").ends_with("my cluster'"));
    }
}
