//! Power cut under an agent's directory: what it is to remember is there afterwards, and it always opens.
//!
//! One writer keeps a journal going as attempts would: begun, ended, and settled but for a few, whose
//! verdicts wait for the cluster for ever. The other makes one directory after the other, and learns its
//! cluster's generation.

use std::collections::BTreeSet;
use std::path::Path;

use crash::{Cuts, Life};
use model::{End, Epoch, Fence, Generation, Incarnation, Outcome, TaskId, Verdict};
use tokio::sync::mpsc::unbounded_channel;

use crate::data_dir::DataDir;
use crate::error::Error;
use crate::journal::{Durable, Journal, Recovered};

const ID: &str = "a1";
const CLUSTER: &str = "q1";
/// Attempts that are under way at once.
const IN_FLIGHT: u64 = 16;

fn fence(n: u64) -> Fence {
    Fence {
        task: TaskId(n),
        generation: Generation(1),
        epoch: Epoch(n),
    }
}

/// With output of up to 64 KiB, so that the journal is rewritten now and then; others for another attempt.
fn verdict(n: u64) -> Verdict {
    let mut outcome = Outcome::bare(End::Exited { code: 0 });
    let length = match is_left_unsettled(n) {
        true => 100,
        false => n.wrapping_mul(0x9e37) % (64 << 10),
    };
    outcome.stdout = (0..length).map(|at| (n + at).to_le_bytes()[0]).collect();
    Verdict {
        fence: fence(n),
        outcome,
    }
}

fn is_left_unsettled(n: u64) -> bool {
    n.is_multiple_of(16)
}

/// What a journal knows when it is opened, or a new one where there is none.
fn known_to(journal: &Path) -> Result<Recovered, Error> {
    let (told, _durable) = unbounded_channel();
    let (journal, known, thread) = Journal::open(journal, told)?;
    drop(journal);
    thread.join().unwrap();
    Ok(known)
}

fn keep_journal(life: &Life) -> Result<(), Error> {
    let path = life.dir.join("journal");
    let (told, mut durable) = unbounded_channel();
    let (journal, known, _thread) = Journal::open(&path, told)?;
    let known = known.held.keys().chain(&known.settled);
    let mut last = known.map(|fence| fence.task.0).max().unwrap_or(0);
    let mut begin = || {
        last += 1;
        journal.begun(fence(last), 1);
    };
    let say = |what: &str, n: u64| {
        let said = life.acknowledge(format!("{what} {n}"));
        said.map_err(Error::io(&path))
    };
    (0..IN_FLIGHT).for_each(|_| begin());
    while let Some(batch) = durable.blocking_recv() {
        for durable in batch {
            match durable {
                Durable::Begun(Fence {
                    task: TaskId(n), ..
                }) => {
                    say("begun", n)?;
                    journal.ended(verdict(n));
                }
                Durable::Ended(Fence {
                    task: TaskId(n), ..
                }) => {
                    say("ended", n)?;
                    if !is_left_unsettled(n) {
                        journal.settled(fence(n));
                    }
                    begin();
                }
                Durable::Failed(reason) => return Err(Error::Journal(reason)),
            }
        }
    }
    Ok(())
}

/// What was acknowledged until now, in all lives.
#[derive(Default)]
struct Told {
    incarnation: Option<Incarnation>,
    /// Attempts whose verdicts nobody settled.
    unsettled: BTreeSet<u64>,
}

impl Told {
    /// Compares what a journal knows with this, and with what was acknowledged in the last life.
    fn compare(&mut self, known: &Recovered, acknowledged: &[String]) -> Result<(), String> {
        let first = *self.incarnation.get_or_insert(known.incarnation);
        if first != known.incarnation {
            return Err("it is another incarnation".to_owned());
        }
        let settled: BTreeSet<Fence> = known.settled.iter().copied().collect();
        for line in acknowledged {
            let (what, n) = line.split_once(' ').unwrap();
            let n = n.parse().unwrap();
            let held = known.held.get(&fence(n));
            let remembered = match what {
                "begun" => held.is_some_and(|held| held.begun.is_some()),
                _ => held.is_some_and(|held| held.verdict == Some(verdict(n))),
            };
            if !remembered && !settled.contains(&fence(n)) {
                return Err(format!("{line} was on disk, and is forgotten"));
            }
            if what == "ended" && is_left_unsettled(n) {
                self.unsettled.insert(n);
            }
        }
        for &n in &self.unsettled {
            let held = known.held.get(&fence(n));
            if held.and_then(|held| held.verdict.as_ref()) != Some(&verdict(n)) {
                return Err(format!("the verdict of {n}, which nobody settled, is gone"));
            }
        }
        Ok(())
    }
}

#[test]
fn what_was_begun_and_how_it_ended_is_remembered_when_the_power_is_cut() {
    let cuts = Cuts {
        test: "tests::crashes::what_was_begun_and_how_it_ended_is_remembered_when_the_power_is_cut",
        default: 10,
        most: 400,
    };
    let mut told = Told::default();
    cuts.run(keep_journal, |data, acknowledged| {
        let known = known_to(&data.join("journal")).map_err(|error| error.to_string())?;
        told.compare(&known, acknowledged)
    });
}

/// Makes one directory after the other, each of which learns two generations.
fn settle_in(life: &Life) -> Result<(), Error> {
    (1..).try_for_each(|number| {
        let root = life.dir.join(format!("{}-{number}", life.number));
        let mut dir = DataDir::open(&root, ID, CLUSTER)?;
        let known = known_to(&dir.journal())?;
        for generation in 1..=2 {
            dir.remember_generation(generation)?;
            let who = format!("{} {:?}", dir.instance(), known.incarnation);
            life.acknowledge(format!("{} {generation} {who}", root.display()))
                .map_err(Error::io(&root))?;
            life.rest();
        }
        Ok(())
    })
}

/// Who a directory says that it is: generation, instance and incarnation.
fn who_is(root: &Path) -> Result<(u64, String), String> {
    let open = || {
        let dir = DataDir::open(root, ID, CLUSTER)?;
        let known = known_to(&dir.journal())?;
        let who = format!("{} {:?}", dir.instance(), known.incarnation);
        Ok::<_, Error>((dir.generation(), who))
    };
    open().map_err(|error| error.to_string())
}

#[test]
fn an_agent_is_who_it_was_when_the_power_is_cut() {
    let cuts = Cuts {
        test: "tests::crashes::an_agent_is_who_it_was_when_the_power_is_cut",
        default: 10,
        most: 20,
    };
    cuts.run(settle_in, |data, acknowledged| {
        for line in acknowledged {
            let mut words = line.splitn(3, ' ');
            let mut word = || words.next().unwrap();
            let (root, generation, who) = (word(), word().parse().unwrap(), word());
            let (found, is) = who_is(Path::new(root))?;
            if found < generation || is != who {
                return Err(format!("{line} was promised, it is {found} {is}"));
            }
        }
        for entry in std::fs::read_dir(data).unwrap() {
            let root = entry.unwrap().path();
            who_is(&root)?;
            std::fs::remove_dir_all(&root).unwrap();
        }
        Ok(())
    });
}
