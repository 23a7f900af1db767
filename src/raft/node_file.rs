//! Whose data directory this is: `node.json`, and the lock that keeps a second process out.
//!
//! Who it is decides what its votes and entries count for, so `node.json` has a checksum.

use std::fs::{File, OpenOptions};
use std::path::Path;

use durable::{at, checked};
use model::{ControllerId, Generation};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::Error;

const SCHEMA: u32 = 1;
const NAME: &str = "node.json";

/// The identity of a controller's data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFile {
    pub cluster_id: String,
    pub node_id: ControllerId,
    pub generation: Generation,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    schema: u32,
    cluster_id: String,
    node_id: String,
    generation: u64,
}

impl NodeFile {
    /// Reads it; `None` where the directory is nobody's yet.
    pub fn read(data_dir: &Path) -> Result<Option<Self>, Error> {
        let path = data_dir.join(NAME);
        let Some(bytes) = checked::read(&path).map_err(refusal)? else {
            return Ok(None);
        };
        let foreign = |what: String| {
            Error::Rejected(format!(
                "{}: {what}; is this a Quorate data directory?",
                path.display()
            ))
        };
        let record: Record =
            serde_json::from_slice(&bytes).map_err(|error| foreign(error.to_string()))?;
        if record.schema != SCHEMA {
            return Err(foreign(format!(
                "schema {} is unknown to this release",
                record.schema
            )));
        }
        let node_id = record.node_id.parse().map_err(|_| {
            foreign(format!(
                "{:?} is not a controller id such as c1",
                record.node_id
            ))
        })?;
        let generation = Generation(record.generation);
        Ok(Some(Self {
            cluster_id: record.cluster_id,
            node_id,
            generation,
        }))
    }

    /// Writes it so that it survives a power cut.
    pub fn write(&self, data_dir: &Path) -> Result<(), Error> {
        let record = Record {
            schema: SCHEMA,
            cluster_id: self.cluster_id.clone(),
            node_id: self.node_id.to_string(),
            generation: self.generation.0,
        };
        let mut bytes = serde_json::to_vec_pretty(&record).expect("plain data always serializes");
        bytes.push(b'\n');
        Ok(checked::replace(&data_dir.join(NAME), &bytes)?)
    }

    /// Takes possession of a directory, or makes sure that it is this node's already.
    pub fn claim(&self, data_dir: &Path) -> Result<(), Error> {
        match Self::read(data_dir)? {
            None => self.write(data_dir),
            Some(found) if found == *self => Ok(checked::take_over(&data_dir.join(NAME))?),
            Some(found) => Err(Error::Rejected(format!(
                "{} belongs to controller {} of cluster {} (generation {}), not to {} of {} \
                 (generation {}); give each controller a data directory of its own",
                data_dir.display(),
                found.node_id,
                found.cluster_id,
                found.generation.0,
                self.node_id,
                self.cluster_id,
                self.generation.0,
            ))),
        }
    }
}

fn refusal(error: checked::Error) -> Error {
    match error {
        checked::Error::Io(error) => error.into(),
        checked::Error::Altered { .. } => Error::Fatal(format!(
            "{error}; see that its cluster_id, node_id and generation are right (this controller's certificate names the \
             first two, and `quorate data-dir info` shows what other controllers have), then remove the one with the \
             checksum and start this controller again"
        )),
    }
}

/// Held as long as a process works on a data directory.
#[derive(Debug)]
pub struct DirectoryLock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

impl DirectoryLock {
    pub fn take(data_dir: &Path) -> Result<Self, Error> {
        let path = data_dir.join("LOCK");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(at(&path))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map(Self)
            .map_err(|(_, errno)| {
                let dir = data_dir.display();
                Error::Rejected(format!(
                    "{dir} is in use by another process ({errno}); stop it first"
                ))
            })
    }
}

#[cfg(test)]
mod tests {
    use crash::{Cuts, Life};

    use super::*;

    fn node(id: u64) -> NodeFile {
        NodeFile {
            cluster_id: "a".to_owned(),
            node_id: ControllerId(id),
            generation: Generation(1),
        }
    }

    #[test]
    fn a_directory_belongs_to_its_first_owner() {
        let dir = tempfile::tempdir().unwrap();
        node(1).claim(dir.path()).unwrap();
        node(1).claim(dir.path()).unwrap();
        let refusal = node(2).claim(dir.path()).unwrap_err().to_string();
        assert!(
            refusal.contains("belongs to controller c1 of cluster a"),
            "{refusal}"
        );
    }

    #[test]
    fn something_else_under_the_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("node.json"), "{}").unwrap();
        assert!(matches!(
            NodeFile::read(dir.path()),
            Err(Error::Rejected(_))
        ));
    }

    #[test]
    fn a_changed_generation_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(NAME);
        node(1).claim(dir.path()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(
            &path,
            text.replace("\"generation\": 1", "\"generation\": 3"),
        )
        .unwrap();
        let Err(Error::Fatal(why)) = NodeFile::read(dir.path()) else {
            panic!("another generation was made")
        };
        let words = ["node.json", "node.json.crc32c", "data-dir info"];
        assert!(words.iter().all(|word| why.contains(word)), "{why}");
    }

    #[test]
    fn a_directory_of_an_older_release_is_given_a_checksum() {
        let dir = tempfile::tempdir().unwrap();
        node(1).claim(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join("node.json.crc32c")).unwrap();
        node(1).claim(dir.path()).unwrap();
        assert!(dir.path().join("node.json.crc32c").exists());
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirectoryLock::take(dir.path()).unwrap();
        assert!(matches!(
            DirectoryLock::take(dir.path()),
            Err(Error::Rejected(_))
        ));
        drop(held);
        DirectoryLock::take(dir.path()).unwrap();
    }

    /// Takes one directory after the other, and raises its generation.
    fn claim_on(life: &Life) -> Result<(), Error> {
        (1..).try_for_each(|number| {
            let dir = life.dir.join(format!("{}-{number}", life.number));
            durable::create_dirs(&dir)?;
            let _lock = DirectoryLock::take(&dir)?;
            for generation in 1..=3 {
                let owner = NodeFile {
                    generation: Generation(generation),
                    ..node(number)
                };
                match generation {
                    1 => owner.claim(&dir)?,
                    _ => owner.write(&dir)?,
                }
                life.acknowledge(format!("{} {number} {generation}", dir.display()))?;
                life.rest();
            }
            Ok(())
        })
    }

    /// Whether what one acknowledgement says is so.
    fn compare(line: &str) -> Result<(), String> {
        let words: Vec<&str> = line.split(' ').collect();
        let [dir, number, generation] = words[..] else {
            panic!("three words: {line}")
        };
        let [number, generation] = [number, generation].map(|word| word.parse().unwrap());
        let found = NodeFile::read(Path::new(dir)).map_err(|error| error.to_string())?;
        match found {
            Some(found) if found.generation.0 >= generation && found.node_id.0 == number => Ok(()),
            Some(_) | None => Err(format!("{line} was written, there is {found:?}")),
        }
    }

    #[test]
    fn a_directory_keeps_its_owner_or_has_none_yet_when_the_power_is_cut() {
        let cuts = Cuts {
            test: "node_file::tests::a_directory_keeps_its_owner_or_has_none_yet_when_the_power_is_cut",
            default: 10,
            most: 40,
        };
        cuts.run(claim_on, |data, acknowledged| {
            acknowledged.iter().try_for_each(|line| compare(line))?;
            for entry in std::fs::read_dir(data).unwrap() {
                let dir = entry.unwrap().path();
                NodeFile::read(&dir).map_err(|error| error.to_string())?;
                std::fs::remove_dir_all(&dir).unwrap();
            }
            Ok(())
        });
    }
}
