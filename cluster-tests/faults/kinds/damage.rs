//! Files that are not any more what was written: a bit is another one, or the end is gone.
//!
//! Whoever finds one when it starts refuses to, and says which and what to do; or starts and goes on with all that it
//! acknowledged, which is for a run's checkers to see. There is no third way. What nobody else has any more is not damaged
//! where a controller would fetch it from another.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use async_trait::async_trait;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::cluster::{Members, tail};
use crate::faults::data_dir::{DataDir, matching};
use crate::faults::{Fault, Kind, Need, Whom, kill};
use crate::nodes::{Node, Nodes};
use crate::{Error, wait};

const CONTROLLERS: &[Need] = &[Need::Controllers(3)];
const AGENTS: &[Need] = &[Need::Agents(2)];

pub const KINDS: [Kind; 4] = [
    Kind {
        name: "bit-flip",
        about: "a controller dies, and one bit of one of its files is another one when it starts",
        needs: CONTROLLERS,
        make: || Damage::of(Change::Flip, Whom::Controller),
    },
    Kind {
        name: "truncate",
        about: "a controller dies, and one of its files has lost its end when it starts",
        needs: CONTROLLERS,
        make: || Damage::of(Change::Cut, Whom::Controller),
    },
    Kind {
        name: "bit-flip-agent",
        about: "an agent dies, and one bit of one of its files is another one when it starts",
        needs: AGENTS,
        make: || Damage::of(Change::Flip, Whom::Agent),
    },
    Kind {
        name: "truncate-agent",
        about: "an agent dies, and one of its files has lost its end when it starts",
        needs: AGENTS,
        make: || Damage::of(Change::Cut, Whom::Agent),
    },
];

/// Files that serve the same.
struct Sort {
    /// Below a data directory, as [`matching`] takes them.
    paths: &'static [&'static str],
    care: Care,
}

/// What has to be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    Nothing,
    /// The same bytes at another controller, from which they are fetched.
    Copy,
}

const fn sort(paths: &'static [&'static str], care: Care) -> Sort {
    Sort { paths, care }
}

const OF_CONTROLLERS: &[Sort] = &[
    sort(&["node.json", "node.json.crc32c"], Care::Nothing),
    sort(&["log.mark"], Care::Nothing),
    sort(&["log/CURRENT"], Care::Nothing),
    sort(&["log/*/db"], Care::Nothing),
    sort(&["log/*/conf", "log/*/snap.*"], Care::Nothing),
    sort(&["log/wal.*"], Care::Nothing),
    sort(&["snapshots/CURRENT"], Care::Nothing),
    sort(&["snapshots/*/manifest.json"], Care::Nothing),
    sort(&["snapshots/*/data"], Care::Nothing),
    sort(&["archive/*"], Care::Copy),
    sort(&["blobs/*"], Care::Copy),
];

const OF_AGENTS: &[Sort] = &[
    sort(&["agent.json", "agent.json.crc32c"], Care::Nothing),
    sort(&["journal"], Care::Nothing),
    sort(&["journal.mark"], Care::Nothing),
];

/// For a start to come to its end, one way or the other: it may have a snapshot and much of a log to read.
const DECIDED: Duration = Duration::from_secs(60);
/// Half of all files that are cut lose no more than this: their last records.
const LAST_BYTES: usize = 1024;
/// How an error begins to say what to do.
const STEPS: [&str; 9] = [
    "let the machine join",
    "see to",
    "see that",
    "see who",
    "move the file",
    "give it",
    "give each",
    "start ",
    "is this a",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Flip,
    Cut,
}

struct Damage {
    change: Change,
    whom: Whom,
    victim: Option<Victim>,
}

/// Who was killed.
struct Victim {
    id: String,
    /// What is to be put back: where, below its data directory, and what.
    damaged: Option<(PathBuf, Vec<u8>)>,
    /// How long its log was before the start.
    said: u64,
    /// It goes on with the file as it is.
    goes_on: bool,
}

impl Damage {
    fn of(change: Change, whom: Whom) -> Box<dyn Fault> {
        Box::new(Damage {
            change,
            whom,
            victim: None,
        })
    }

    fn sorts(&self) -> &'static [Sort] {
        match self.whom {
            Whom::Agent => OF_AGENTS,
            _ => OF_CONTROLLERS,
        }
    }

    /// Which file, and what it holds; sorts before files, for there are more of some than of others.
    fn draw(
        &self,
        nodes: &Nodes,
        id: &str,
        data: &Path,
        rng: &mut StdRng,
    ) -> Result<(PathBuf, Vec<u8>), Error> {
        let mut sorts = Vec::new();
        for sort in self.sorts() {
            let mut files = Vec::new();
            for path in matching(data, sort.paths)? {
                let file = data.join(&path);
                let bytes = fs::read(&file).map_err(Error::file("reading", &file))?;
                let is_last = sort.care == Care::Copy && !is_elsewhere(nodes, id, &path, &bytes);
                if written(&bytes) > 0 && !is_last {
                    files.push((path, bytes));
                }
            }
            sorts.push(files);
        }
        sorts.retain(|files| !files.is_empty());
        let drawn = sorts.choose(rng).and_then(|files| files.choose(rng));
        let nothing = || Error::Invalid(format!("{id} has no file that could be damaged"));
        drawn.cloned().ok_or_else(nothing)
    }

    /// Other bytes than these, and what is other about them.
    fn changed(&self, before: &[u8], rng: &mut StdRng) -> (Vec<u8>, String) {
        let (mut bytes, written) = (before.to_vec(), written(before));
        match self.change {
            Change::Flip => {
                let (at, bit) = (rng.random_range(0..written), rng.random_range(0..8_u32));
                bytes[at] ^= 1 << bit;
                (bytes, format!("bit {bit} of byte {at} of {written}"))
            }
            Change::Cut => {
                let least = match rng.random_bool(0.5) {
                    true => written.saturating_sub(LAST_BYTES),
                    false => 0,
                };
                let left = rng.random_range(least..written);
                bytes.truncate(left);
                (bytes, format!("cut off after {left} of {written} bytes"))
            }
        }
    }

    /// Damages a file of one whose process has ended.
    async fn inflict_on(
        &mut self,
        nodes: &Nodes,
        node: &Node,
        rng: &mut StdRng,
    ) -> Result<String, Error> {
        let data = DataDir::open(node).await?;
        let (path, before) = self.draw(nodes, &node.id, data.path(), rng)?;
        let (after, change) = self.changed(&before, rng);
        let file = data.path().join(&path);
        if let Some(victim) = &mut self.victim {
            victim.damaged = Some((path.clone(), before.clone()));
        }
        fs::write(&file, after).map_err(Error::file("damaging", &file))?;
        data.close().await?;
        // What counts is what the start will find.
        let data = DataDir::open(node).await?;
        let file = data.path().join(&path);
        let found = fs::read(&file).map_err(Error::file("reading", &file))?;
        data.close().await?;
        match found == before {
            true => Err(Error::Invalid(format!(
                "{} was not changed",
                file.display()
            ))),
            false => Ok(format!("{}: {change}", path.display())),
        }
    }

    /// How the start ended: with the process, or with one that is at work.
    async fn decided(&self, nodes: &Nodes, victim: &Victim) -> Result<Option<ExitStatus>, Error> {
        let Victim { id, said, .. } = victim;
        let node = nodes.node(id)?;
        let what = format!("{id} to refuse to start, or to be at work");
        let decided = wait::until(&what, DECIDED, || async {
            match node.fallen().await {
                Some(status) => Ok(Some(status)),
                None if self.whom == Whom::Agent => is_heard(nodes, node, *said).await,
                None => answers(nodes, id).await,
            }
        });
        decided.await.map_err(|error| {
            let log = tail(&node.log);
            Error::Broken(format!("{error}; its log ends:\n{log}"))
        })
    }
}

#[async_trait]
impl Fault for Damage {
    async fn inflict(&mut self, nodes: &Nodes, rng: &mut StdRng) -> Result<String, Error> {
        let id = self.whom.draw_one(nodes, rng).await?;
        kill(nodes, &id).await?;
        let node = nodes.node(&id)?;
        node.ended().await?;
        self.victim = Some(Victim {
            id: id.clone(),
            damaged: None,
            said: node.said(),
            goes_on: false,
        });
        let drawn = self.inflict_on(nodes, node, rng).await?;
        nodes.try_start(&id).await?;
        Ok(format!("{id}, {drawn}"))
    }

    async fn prove(&mut self, nodes: &Nodes) -> Result<String, Error> {
        let nobody = || Error::Invalid("nothing was damaged".to_owned());
        let victim = self.victim.as_ref().ok_or_else(nobody)?;
        let decided = self.decided(nodes, victim).await?;
        let node = nodes.node(&victim.id)?;
        let said = node.said_since(victim.said);
        if said.contains("panicked") {
            let text = format!("{} panicked:\n{said}", victim.id);
            return Err(Error::Broken(text));
        }
        let proof = match decided {
            Some(status) => refusal(node, status, &said).map_err(Error::Broken)?,
            None => "its bytes had changed, and it started".to_owned(),
        };
        if let (None, Some(victim)) = (decided, &mut self.victim) {
            victim.goes_on = true;
        }
        Ok(proof)
    }

    async fn heal(&mut self, nodes: &Nodes) -> Result<(), Error> {
        let Some(victim) = self.victim.take().filter(|victim| !victim.goes_on) else {
            return Ok(());
        };
        let node = nodes.node(&victim.id)?;
        nodes.put_down(&victim.id).await?;
        if let Some((path, before)) = victim.damaged {
            let data = DataDir::open(node).await?;
            let file = data.path().join(path);
            fs::write(&file, before).map_err(Error::file("restoring", &file))?;
            data.close().await?;
        }
        nodes.restart(&victim.id).await.map(drop)
    }
}

/// How much of a file something was written to: behind it may be room.
fn written(bytes: &[u8]) -> usize {
    let last = bytes.iter().rposition(|byte| *byte != 0);
    last.map_or(0, |last| last + 1)
}

/// Whether another controller has all of these bytes in the same place.
fn is_elsewhere(nodes: &Nodes, id: &str, path: &Path, bytes: &[u8]) -> bool {
    let others = nodes.controllers().into_iter().filter(|other| other != id);
    let members = others.filter_map(|other| nodes.member(&other).ok());
    let mut copies =
        members.filter_map(|member| fs::read(member.directory_inside()?.join(path)).ok());
    copies.any(|copy| copy.starts_with(bytes))
}

/// A controller that answers, and that the others hear.
async fn answers<T>(nodes: &Nodes, id: &str) -> Result<Option<T>, String> {
    let said = nodes.metrics(id).await;
    said.map_err(|error| error.to_string())?;
    let status = nodes.status().await.map_err(|error| error.to_string())?;
    let is_heard = status.member(id).is_some_and(|it| it.applied.is_some());
    match is_heard && status.leader().is_some() {
        true => Ok(None),
        false => Err(status.describe()),
    }
}

/// An agent that has a session, since it started.
async fn is_heard<T>(nodes: &Nodes, node: &Node, said: u64) -> Result<Option<T>, String> {
    let agent = nodes.agent(&node.id).await;
    let state = agent.map_err(|error| error.to_string())?.state;
    let is_silent = ["suspect", "lost", "unknown"].contains(&state.as_str());
    match !is_silent && node.said_since(said).contains("opened a session") {
        true => Ok(None),
        false => Err(state),
    }
}

/// What one said that ended, which has to name the place and a next step.
fn refusal(node: &Node, status: ExitStatus, said: &str) -> Result<String, String> {
    let id = &node.id;
    let Some(error) = said.lines().find(|line| line.starts_with("error: ")) else {
        return Err(format!("{id} ended ({status}) without an error"));
    };
    let directory = node.data_dir.to_string_lossy();
    let words = error.to_lowercase();
    let named = error.contains(&*directory) && STEPS.iter().any(|step| words.contains(step));
    let refused = status.code().is_some_and(|code| code != 0);
    match named && refused {
        true => Ok(format!(
            "refused ({status}): {}",
            error.replace(&*directory, "")
        )),
        false => Err(format!(
            "{id} ended ({status}) without naming the place and a next step: {error}"
        )),
    }
}
