//! A test that runs once more, in a mount namespace of its own.
//!
//! Whoever copies a mount namespace, and many a sandbox does, has a disk that is mounted in it, too, and
//! keeps it from being unmounted: mounted again after a cut it would still be the one that was shut down. In a
//! namespace of ours nobody does. And it goes with its last process, however that ends, with all that is mounted.

use std::process::{Command, Stdio};

use crate::disk::tool;

const APART: &str = "QUORATE_CRASH_APART";
const UNSHARE: [&str; 3] = ["--mount", "--propagation", "private"];

pub fn is_here() -> bool {
    std::env::var_os(APART).is_some()
}

/// Whether this machine lets us; else why not.
pub fn is_possible() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("mounting a loop device needs root".to_owned());
    }
    tool("unshare", &[&UNSHARE[..], &["true"]].concat())
}

/// Runs the test of this name there, and fails as it does.
#[expect(clippy::print_stdout, reason = "the runner keeps it for those who ask")]
pub fn run(test: &str) {
    let output = Command::new("unshare")
        .args(UNSHARE)
        .arg(std::env::current_exe().expect("a program has a path"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(APART, "1")
        .stderr(Stdio::inherit())
        .output()
        .expect("unshare was there before");
    let text = String::from_utf8_lossy(&output.stdout);
    // Marked, so that nobody takes its summary for that of the outer run.
    text.lines().for_each(|line| println!("| {line}"));
    assert!(output.status.success(), "{test} failed");
    assert!(text.contains("1 passed"), "there is no test {test}");
}
