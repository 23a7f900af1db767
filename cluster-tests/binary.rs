//! Finds the `quorate` binary under test.
//!
//! `QUORATE_BIN` names one. Otherwise it is the one beside the running program: a test in
//! `target/debug/deps` uses `target/debug/quorate`, a release build the release binary. Where there is
//! none yet, or one that is older than its sources, cargo builds it; but a test build is the person's to make.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::Error;

const NAME: &str = "quorate";

/// Where the binary is. Blocks while cargo builds it.
pub fn find() -> Result<PathBuf, Error> {
    if let Some(given) = std::env::var_os("QUORATE_BIN") {
        let path = std::path::absolute(PathBuf::from(given)).map_err(Error::io("QUORATE_BIN"))?;
        return match path.is_file() {
            true => Ok(path),
            false => Err(Error::Invalid(format!(
                "QUORATE_BIN: no file {}",
                path.display()
            ))),
        };
    }
    let (directory, is_test) = profile_directory()?;
    let path = directory.join(NAME);
    match (path.is_file(), newer_source(&path)) {
        (true, None) => {}
        // A test build has more in it than cargo would build by itself.
        (true, Some(source)) if is_test => {
            return Err(Error::Invalid(format!(
                "{} is older than {}: build it first, by `cargo build --workspace --bins --tests`",
                path.display(),
                source.display()
            )));
        }
        (true, Some(_)) | (false, _) => build(&directory)?,
    }
    match path.is_file() {
        true => Ok(path),
        false => Err(Error::Invalid(format!("cargo made no {}", path.display()))),
    }
}

/// What a report says of it: the release, the build, and by what it can be told from others.
pub fn told(binary: &Path) -> String {
    let version = Command::new(binary).arg("--version").output();
    let version = version.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
    let build = binary.parent().and_then(Path::file_name);
    let bytes = std::fs::read(binary).unwrap_or_default();
    format!(
        "{}, {} build, SHA-256 {}",
        version.unwrap_or_else(|error| error.to_string()),
        build.map_or("unknown".into(), |build| build.to_string_lossy()),
        &hex::encode(Sha256::digest(bytes))[..16]
    )
}

/// A file that a binary was made of, by cargo's own list beside it, and that is newer.
pub fn newer_source(binary: &Path) -> Option<PathBuf> {
    let modified = |path: &Path| path.metadata().and_then(|it| it.modified()).ok();
    let list = std::fs::read_to_string(binary.with_extension("d")).ok()?;
    let made = modified(binary)?;
    let (_, sources) = list.split_once(": ")?;
    // A space in a name is written with a backslash before it.
    let sources = sources.replace("\\ ", "\0");
    let sources = sources
        .split_whitespace()
        .map(|name| PathBuf::from(name.replace('\0', " ")));
    sources
        .into_iter()
        .find(|source| modified(source).is_some_and(|it| it > made))
}

/// The `target` directory of this build: on a disk that the person chose for large, fleeting files.
pub fn target_directory() -> Result<PathBuf, Error> {
    let (profile, _) = profile_directory()?;
    Ok(profile
        .parent()
        .map_or_else(|| profile.clone(), Path::to_owned))
}

/// Of the running program, and whether that is a test: they are one level deeper.
fn profile_directory() -> Result<(PathBuf, bool), Error> {
    let own = std::env::current_exe().map_err(Error::io("the running program's path"))?;
    let directory = own.parent().unwrap_or(Path::new("."));
    let is_test = directory.file_name().is_some_and(|name| name == "deps");
    let profile = match is_test {
        true => directory.parent().unwrap_or(directory),
        false => directory,
    };
    Ok((profile.to_owned(), is_test))
}

fn build(profile_directory: &Path) -> Result<(), Error> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--package", NAME])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile_directory
        .file_name()
        .is_some_and(|name| name == "release")
    {
        cargo.arg("--release");
    }
    let status = cargo
        .status()
        .map_err(Error::io("cargo build --package quorate"))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::Invalid(format!(
            "cargo build --package {NAME}: {status}"
        ))),
    }
}
