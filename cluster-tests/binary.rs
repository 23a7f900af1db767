//! Finds the `quorate` binary under test.
//!
//! `QUORATE_BIN` names one. Otherwise it is the one beside the running program: a test in
//! `target/debug/deps` uses `target/debug/quorate`, a release build the release binary. Where there is
//! none yet, cargo builds it, once.

use std::path::{Path, PathBuf};
use std::process::Command;

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
    let directory = profile_directory()?;
    let path = directory.join(NAME);
    if !path.is_file() {
        build(&directory)?;
    }
    match path.is_file() {
        true => Ok(path),
        false => Err(Error::Invalid(format!("cargo made no {}", path.display()))),
    }
}

/// The `target` directory of this build: on a disk that the person chose for large, fleeting files.
pub fn target_directory() -> Result<PathBuf, Error> {
    let profile = profile_directory()?;
    Ok(profile
        .parent()
        .map_or_else(|| profile.clone(), Path::to_owned))
}

fn profile_directory() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().map_err(Error::io("the running program's path"))?;
    let directory = own.parent().unwrap_or(Path::new("."));
    // Test binaries are one level deeper.
    match directory.file_name().is_some_and(|name| name == "deps") {
        true => Ok(directory.parent().unwrap_or(directory).to_owned()),
        false => Ok(directory.to_owned()),
    }
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
