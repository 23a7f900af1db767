//! The files of a node that is down: some nodes have disks of their own, which nobody sees meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::faults::disk::Opened;
use crate::nodes::Node;

/// A data directory while its process does not run.
pub struct DataDir<'n> {
    node: &'n Node,
    disk: Option<Opened>,
}

impl<'n> DataDir<'n> {
    /// Mounts its disk, where it has one.
    pub async fn open(node: &'n Node) -> Result<DataDir<'n>, Error> {
        let disk = match &node.disk {
            None => None,
            Some(disk) => {
                disk.until_free().await?;
                Some(disk.open()?)
            }
        };
        Ok(DataDir { node, disk })
    }

    pub fn path(&self) -> &Path {
        match &self.disk {
            None => &self.node.data_dir,
            Some(disk) => disk.path(),
        }
    }

    /// From now on its process may start again.
    pub async fn close(self) -> Result<(), Error> {
        drop(self.disk);
        match &self.node.disk {
            None => Ok(()),
            Some(disk) => disk.until_free().await,
        }
    }
}

/// The files with such paths below a directory; `*` is a name or the rest of one, without a dot.
pub fn matching(directory: &Path, patterns: &[&str]) -> Result<Vec<PathBuf>, Error> {
    let mut all = Vec::new();
    for pattern in patterns {
        let mut found = vec![PathBuf::new()];
        for wanted in pattern.split('/') {
            let mut below = Vec::new();
            for path in found {
                let names = names_in(&directory.join(&path))?;
                let names = names.iter().filter(|name| is_like(name, wanted));
                below.extend(names.map(|name| path.join(name)));
            }
            found = below;
        }
        all.extend(
            found
                .into_iter()
                .filter(|path| directory.join(path).is_file()),
        );
    }
    Ok(all)
}

/// In an order of their own.
fn names_in(directory: &Path) -> Result<BTreeSet<String>, Error> {
    let listed = match fs::read_dir(directory) {
        // A file, or not there at all.
        Err(error) if matches!(error.kind(), ErrorKind::NotADirectory | ErrorKind::NotFound) => {
            return Ok(BTreeSet::new());
        }
        listed => listed.map_err(Error::file("listing", directory))?,
    };
    let name = |entry: std::io::Result<fs::DirEntry>| {
        Ok(entry?.file_name().to_string_lossy().into_owned())
    };
    let names: std::io::Result<_> = listed.map(name).collect();
    names.map_err(Error::file("listing", directory))
}

fn is_like(name: &str, wanted: &str) -> bool {
    match wanted.strip_suffix('*') {
        None => name == wanted,
        Some(begin) => name.strip_prefix(begin).is_some_and(|it| !it.contains('.')),
    }
}
