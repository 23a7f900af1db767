//! What there is to do: the repository's committed files, generated ones to make up the number, and what
//! a plain `sha256sum` says about each.
//!
//! The committed files are copied first: somebody may be editing them while the demonstration runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster_tests::Error;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

/// Together with the committed files; more than this only where more are committed.
const WANTED: usize = 200;
/// Bytes of a generated file: from a few to some hundred thousand, so that tasks differ in length.
const LARGEST: u64 = 512 * 1024;

/// The work, and how much of it was generated.
pub struct Work {
    pub files: Vec<PathBuf>,
    pub generated: usize,
}

/// `tasks`: so many files and no more, committed ones first.
pub fn collect(scratch: &Path, tasks: Option<u32>) -> Result<Work, Error> {
    let mut committed = committed()?;
    let wanted = match tasks {
        Some(tasks) => usize::try_from(tasks).unwrap_or(usize::MAX),
        None => WANTED.max(committed.len()),
    };
    committed.truncate(wanted);
    let mut files = copy(&committed, &scratch.join("repository"))?;
    let generated = wanted - files.len();
    let directory = scratch.join("generated");
    fs::create_dir_all(&directory).map_err(Error::file("creating", &directory))?;
    // The same files at each run: a seed of its own, not the system's randomness.
    let mut random = StdRng::seed_from_u64(7);
    for number in 0..generated {
        let path = directory.join(format!("file-{number:03}"));
        let size = usize::try_from(random.next_u64() % LARGEST).unwrap_or_default();
        let mut bytes = vec![0; size];
        random.fill_bytes(&mut bytes);
        fs::write(&path, bytes).map_err(Error::file("writing", &path))?;
        files.push(path);
    }
    Ok(Work { files, generated })
}

/// The committed files, as they are named in the repository; none where this is not a checkout.
fn committed() -> Result<Vec<PathBuf>, Error> {
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output();
    let Ok(listed) = listed else {
        return Ok(Vec::new());
    };
    let names = String::from_utf8_lossy(&listed.stdout).into_owned();
    let files = names
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from);
    // One that was committed and is deleted just now can't be read by anybody.
    Ok(files.filter(|path| root().join(path).is_file()).collect())
}

fn copy(names: &[PathBuf], into: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for name in names {
        let to = into.join(name);
        let directory = to.parent().unwrap_or(into);
        fs::create_dir_all(directory).map_err(Error::file("creating", directory))?;
        fs::copy(root().join(name), &to).map_err(Error::file("copying to", &to))?;
        files.push(to);
    }
    Ok(files)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// What `sha256sum` prints for each, run here and now.
pub fn expected(files: &[PathBuf]) -> Result<BTreeMap<PathBuf, String>, Error> {
    files
        .iter()
        .map(|file| {
            let done = Command::new("sha256sum").arg(file).output();
            let done = done.map_err(Error::io("running sha256sum"))?;
            match done.status.success() {
                true => Ok((
                    file.clone(),
                    String::from_utf8_lossy(&done.stdout).into_owned(),
                )),
                false => {
                    let said = String::from_utf8_lossy(&done.stderr).into_owned();
                    Err(Error::Broken(format!(
                        "sha256sum {}: {said}",
                        file.display()
                    )))
                }
            }
        })
        .collect()
}
