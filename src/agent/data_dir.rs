//! The agent's directory: who it belongs to, and that only one process uses it.
//!
//! ```text
//! agent.json   who: schema, id, cluster …     journal   what was begun and how it ended
//! ….crc32c     its checksum                   ….mark    its witness
//! LOCK         held while an agent runs        logs/     output of attempts
//! identity/    ca.pem cert.pem key.pem         scratch/  working directories of running attempts
//! blobs/       files that tasks needed         inputs/   files of attempts that are to start
//! ```

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use durable::checked;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::process::Instance;

const SCHEMA: u32 = 1;

/// Read first, for all else is as its schema says.
#[derive(Debug, Deserialize)]
struct Form {
    schema: u32,
}

/// What `agent.json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Owner {
    schema: u32,
    id: String,
    cluster_id: String,
    /// Of the cluster when a controller first took this agent's session; 0 before. A cluster that
    /// was restored since has a higher one, and the journal means nothing to it.
    #[serde(default)]
    generation: u64,
    /// Random, made with the directory: what was started from here is known by it, whatever becomes
    /// of the journal. Empty where an older release made the directory.
    #[serde(default)]
    instance: String,
}

/// An opened data directory. The lock is held as long as this lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    root: PathBuf,
    owner: Owner,
    instance: Instance,
    _lock: File,
}

impl DataDir {
    /// Makes it if need be, locks it, and refuses one of another agent or cluster.
    pub fn open(root: &Path, id: &str, cluster_id: &str) -> Result<DataDir, Error> {
        let root = absolute(root)?;
        durable::create_dirs(&root).map_err(Error::Named)?;
        let lock = lock(&root)?;
        let (owner, instance) = check_owner(&root, id, cluster_id)?;
        let dir = DataDir {
            root,
            owner,
            instance,
            _lock: lock,
        };
        durable::create_dir(&dir.logs()).map_err(Error::Named)?;
        durable::create_dir(&dir.scratch()).map_err(Error::Named)?;
        Ok(dir)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The cluster's generation that this journal belongs to; 0 before it belonged to any.
    pub fn generation(&self) -> u64 {
        self.owner.generation
    }

    /// From now on the journal belongs to this generation.
    pub fn remember_generation(&mut self, generation: u64) -> Result<(), Error> {
        self.owner.generation = generation;
        write_owner(&self.root.join("agent.json"), &self.owner)
    }

    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    pub fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }
}

fn absolute(root: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(root).map_err(Error::io(root))
}

fn lock(root: &Path) -> Result<File, Error> {
    let path = root.join("LOCK");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(Error::io(&path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked {
            path: root.to_owned(),
        }),
        Err(error) => Err(Error::io(&path)(error.into())),
    }
}

fn check_owner(root: &Path, id: &str, cluster_id: &str) -> Result<(Owner, Instance), Error> {
    let path = root.join("agent.json");
    let instance = Instance::new();
    let ours = Owner {
        schema: SCHEMA,
        id: id.to_owned(),
        cluster_id: cluster_id.to_owned(),
        generation: 0,
        instance: instance.to_string(),
    };
    let read = checked::read(&path).map_err(|error| match error {
        checked::Error::Io(error) => Error::Named(error),
        checked::Error::Altered { .. } => Error::Altered(error),
    })?;
    let Some(text) = read else {
        write_owner(&path, &ours)?;
        return Ok((ours, instance));
    };
    let corrupt = |reason: String| Error::Corrupt {
        path: path.clone(),
        reason,
    };
    let form: Form = serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
    if form.schema != SCHEMA {
        return Err(Error::Schema {
            path: root.to_owned(),
            found: form.schema,
            known: SCHEMA,
        });
    }
    let mut found: Owner =
        serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
    if (&found.id, &found.cluster_id) == (&ours.id, &ours.cluster_id) {
        if found.instance.is_empty() {
            found.instance = ours.instance;
            write_owner(&path, &found)?;
        }
        checked::take_over(&path).map_err(Error::Named)?;
        let instance = Instance::parse(&found.instance)
            .ok_or_else(|| corrupt("its instance is not 16 hexadecimal digits".into()))?;
        return Ok((found, instance));
    }
    Err(Error::Foreign {
        path: root.to_owned(),
        ours: ours.id,
        our_cluster: ours.cluster_id,
        theirs: found.id,
        their_cluster: found.cluster_id,
    })
}

fn write_owner(path: &Path, owner: &Owner) -> Result<(), Error> {
    let text = serde_json::to_vec(owner).map_err(std::io::Error::other);
    text.and_then(|text| checked::replace(path, &text))
        .map_err(Error::Named)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    /// Opens one that was let go. A process that another test starts has all that is open here until it runs its program, so
    /// the lock may be free a moment later.
    fn reopen(dir: &Path, id: &str, cluster: &str) -> Result<DataDir, Error> {
        let begun = Instant::now();
        loop {
            match DataDir::open(dir, id, cluster) {
                Err(Error::Locked { .. }) if begun.elapsed() < Duration::from_secs(10) => {
                    thread::sleep(Duration::from_millis(1));
                }
                opened => return opened,
            }
        }
    }

    #[test]
    fn only_one_agent_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataDir::open(dir.path(), "a1", "q1").unwrap();
        let second = DataDir::open(dir.path(), "a1", "q1");
        assert!(matches!(second, Err(Error::Locked { .. })), "{second:?}");
        let instance = first.instance().clone();
        drop(first);
        let again = reopen(dir.path(), "a1", "q1").unwrap();
        assert_eq!(again.instance(), &instance, "it is the directory's");
    }

    #[test]
    fn the_directory_of_another_agent_or_cluster_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), "a1", "q1").unwrap());
        for (id, cluster) in [("a2", "q1"), ("a1", "q2")] {
            let error = reopen(dir.path(), id, cluster).unwrap_err();
            assert!(matches!(error, Error::Foreign { .. }), "{error}");
        }
        drop(reopen(dir.path(), "a1", "q1").unwrap());
        fs::write(dir.path().join("agent.json"), "{").unwrap();
        let error = reopen(dir.path(), "a1", "q1").unwrap_err();
        assert!(matches!(error, Error::Altered(_)), "{error}");
        fs::remove_file(dir.path().join("agent.json.crc32c")).unwrap();
        let error = reopen(dir.path(), "a1", "q1").unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }

    #[test]
    fn agent_json_is_written_and_read_as_the_first_release_did() {
        const GOLDEN: &str = include_str!("golden/v1/agent.json");
        let owner = Owner {
            schema: 1,
            id: "a1".into(),
            cluster_id: "q92c5c30985b4".into(),
            generation: 2,
            instance: "0123456789abcdef".into(),
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.json");
        write_owner(&path, &owner).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), GOLDEN.trim_end());
        let opened = DataDir::open(dir.path(), "a1", "q92c5c30985b4").unwrap();
        assert_eq!(opened.owner, owner);
    }

    #[test]
    fn a_directory_of_another_release_is_refused_as_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        drop(DataDir::open(dir.path(), "a1", "q1").unwrap());
        let newer = r#"{"schema": 2, "id": "a1", "cluster_id": "q1", "colour": "blue"}"#;
        fs::write(dir.path().join("agent.json"), newer).unwrap();
        fs::remove_file(dir.path().join("agent.json.crc32c")).unwrap();
        let error = reopen(dir.path(), "a1", "q1").unwrap_err();
        let told = matches!(error, Error::Schema { found: 2, .. });
        assert!(told, "{error}");
    }
}
