//! Whose directory is it? `dev` makes a cluster only where nothing is, and removes only what it made.
//!
//! ```text
//! nothing there ──► dev.making ──► CA, certificates, … ──► dev.json, and dev.making goes
//!                       └─ cut short: what stands beside it is `dev`'s own, and is begun anew
//! ```
//!
//! A directory with neither of the two files and something in it belongs to somebody: a project, or a
//! controller whose `ca/` holds the only key of its cluster. It is refused before anything is written.

use std::fs;
use std::io;
use std::path::Path;

use super::layout::{Layout, SETTINGS};
use super::leftover::LOCK;
use crate::failure::{Failure, Result};
use crate::files;

/// Stands from before the first file is made until the cluster is complete.
const MARKER: &str = "dev.making";

/// Refuses a directory that a cluster can neither be made nor continued in. Writes nothing.
pub fn check(dir: &Path) -> Result<()> {
    let ours = |name| dir.join(name).exists();
    if ours(SETTINGS) || ours(MARKER) {
        return Ok(());
    }
    let failed = |error| Failure::file("look into", dir, &error);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        // Two that begin at the same time: the lock is all that the first has made, and decides.
        if name != LOCK {
            return Err(foreign(dir, &name.to_string_lossy()));
        }
    }
    Ok(())
}

fn foreign(dir: &Path, name: &str) -> Failure {
    let message = format!(
        "{} holds `{name}`, and is not the directory of a `quorate dev`: nothing in it was touched",
        dir.display()
    );
    Failure::refused(
        "exists",
        message,
        "give an empty or a new directory with --dir",
    )
}

/// From now on everything here is ours; what an earlier run left that was cut short is removed. Nothing
/// of it ever ran.
pub fn begin(layout: &Layout) -> Result<()> {
    check(&layout.dir)?;
    files::replace(&layout.dir.join(MARKER), b"")?;
    let made = [layout.ca(), layout.admin(), layout.data_dir("c1")];
    for path in made.iter().filter(|path| path.exists()) {
        fs::remove_dir_all(path).map_err(|error| Failure::file("remove", path, &error))?;
    }
    Ok(())
}

/// The cluster is complete, and has its settings.
pub fn end(layout: &Layout) -> Result<()> {
    files::remove(&layout.dir.join(MARKER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::Wishes;
    use crate::dev::prepare::prepare;

    fn layout(dir: &Path) -> Layout {
        Layout::resolve(dir, Wishes::default()).unwrap()
    }

    #[test]
    fn a_directory_with_anything_in_it_is_refused_and_stays_as_it_is() {
        for path in ["admin/users.rb", "ca/ca.key", "c1/notes", "cluster.json"] {
            let home = tempfile::tempdir().unwrap();
            let file = home.path().join(path);
            files::replace(&file, b"mine").unwrap();
            let first = path.split('/').next().unwrap();
            for refusal in [
                check(home.path()).unwrap_err(),
                prepare(&layout(home.path())).unwrap_err(),
            ] {
                assert_eq!(refusal.code, "exists");
                assert!(refusal.message.contains(first), "{refusal}");
                assert!(refusal.hint.contains("--dir"), "{refusal}");
            }
            assert_eq!(fs::read(&file).unwrap(), b"mine");
            let left = fs::read_dir(home.path()).unwrap();
            assert_eq!(left.count(), 1, "nothing was added beside {path}");
        }
    }

    #[test]
    fn a_directory_that_is_empty_or_not_there_is_fine() {
        let home = tempfile::tempdir().unwrap();
        check(home.path()).unwrap();
        check(&home.path().join("deep/er")).unwrap();
        fs::write(home.path().join(LOCK), "1").unwrap();
        check(home.path()).unwrap();
        prepare(&layout(&home.path().join("deep/er"))).unwrap();
    }

    #[test]
    fn a_run_that_was_cut_short_is_begun_anew() {
        let home = tempfile::tempdir().unwrap();
        let layout = layout(home.path());
        begin(&layout).unwrap();
        files::replace(&layout.ca().join("ca.key"), b"half").unwrap();
        files::replace(&layout.data_dir("c1").join("node.json"), b"half").unwrap();
        check(home.path()).unwrap();
        prepare(&layout).unwrap();
        assert!(!home.path().join(MARKER).exists(), "it is complete");
        assert!(self::layout(home.path()).continued);
    }
}
