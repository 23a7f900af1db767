//! What of the archive is where: shared by the one that writes and by those who read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Condvar, Mutex};

use durable::at;
use model::State;

use super::frame::damaged;
use super::index::{Footer, Index};
use super::need::Need;
use crate::sync::lock;

/// How much of a segment is here.
#[derive(Debug)]
pub enum Kept {
    /// It grows; the frames up to `end` are whole.
    Open {
        index: Index,
        end: u64,
    },
    Complete(Footer),
    /// It grows, but what this names is not here.
    Begun {
        lacks: Need,
    },
    /// It was complete once, or comes from another controller.
    Lost,
}

#[derive(Debug, Default)]
pub struct Catalog {
    pub segments: BTreeMap<u64, Kept>,
    /// All records of entries up to this one were written, if not synced.
    pub written: u64,
    /// Records of entries before this one are gone.
    pub kept_from: u64,
    /// Why nothing is written any more.
    pub ended: Option<String>,
}

#[derive(Debug)]
pub struct Shared {
    pub dir: PathBuf,
    /// Bytes of records that wait to be written: apply asks for it all the time, so behind no lock.
    pub waiting: AtomicUsize,
    catalog: Mutex<Catalog>,
    changed: Condvar,
}

/// A segment as a reader finds it.
pub struct Found {
    pub file: File,
    /// Where its frames end.
    pub end: u64,
}

impl Shared {
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            waiting: AtomicUsize::new(0),
            catalog: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub fn look<T>(&self, look: impl FnOnce(&Catalog) -> T) -> T {
        look(&lock(&self.catalog))
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut Catalog) -> T) -> T {
        let result = change(&mut lock(&self.catalog));
        self.changed.notify_all();
        result
    }

    /// Until something holds, or nothing is written any more. Blocks.
    pub fn wait(&self, holds: impl Fn(&Catalog) -> bool) -> io::Result<()> {
        let mut catalog = lock(&self.catalog);
        while !holds(&catalog) {
            if let Some(reason) = &catalog.ended {
                return Err(io::Error::other(reason.clone()));
            }
            catalog = self
                .changed
                .wait(catalog)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        Ok(())
    }

    /// Until all that this state archived was written. Blocks for a moment.
    pub fn wait_for(&self, state: &State) -> io::Result<()> {
        let index = state.last_applied();
        self.wait(|catalog| catalog.written >= index)
    }

    pub fn path(&self, first: u64) -> PathBuf {
        self.dir.join(name(first))
    }

    /// Opens a segment and asks its index; an error where it is not here, or not whole.
    pub fn open<T>(&self, first: u64, ask: impl Fn(&Index) -> T) -> io::Result<(Found, T)> {
        // Opened under the lock, so that the file is the one that the catalog speaks of. A growing one is asked
        // there, too: it is in memory.
        let asked = self.look(|catalog| {
            let path = self.path(first);
            let file = || match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(damaged("its file is gone"))
                }
                opened => opened.map_err(at(&path)),
            };
            match catalog.segments.get(&first) {
                Some(Kept::Open { index, end }) => {
                    let found = Found {
                        file: file()?,
                        end: *end,
                    };
                    Ok(Asked::Growing(found, ask(index)))
                }
                Some(Kept::Complete(footer)) => Ok(Asked::Complete(file()?, footer.clone())),
                Some(Kept::Begun { .. } | Kept::Lost) | None => Err(absent(first)),
            }
        })?;
        match asked {
            Asked::Growing(found, answer) => Ok((found, answer)),
            Asked::Complete(file, footer) => {
                let answer = ask(&Index::read(&file, &footer)?);
                let end = footer.frames_end;
                Ok((Found { file, end }, answer))
            }
        }
    }
}

enum Asked<T> {
    Growing(Found, T),
    Complete(File, Footer),
}

pub fn name(first: u64) -> String {
    format!("{first:020}")
}

/// One that came from another controller and is not in its place yet.
pub fn fetched(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.fetched"))
}

/// One that is coming.
pub fn coming(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}.coming"))
}

/// A segment that the state names and this controller does not have: it is on its way, or was lost.
fn absent(first: u64) -> io::Error {
    let text = format!("segment {first} of the archive is not here yet");
    io::Error::new(io::ErrorKind::NotFound, text)
}

impl Catalog {
    /// What is named and not here, and has to come from another controller.
    pub fn lacks(&self, needs: &[Need]) -> Vec<Need> {
        let lacking = needs
            .iter()
            .filter_map(|need| match self.segments.get(&need.first)? {
                Kept::Lost if need.closed => Some(need.clone()),
                Kept::Begun { lacks } => Some(lacks.clone()),
                Kept::Lost | Kept::Open { .. } | Kept::Complete(_) => None,
            });
        lacking.collect()
    }
}
