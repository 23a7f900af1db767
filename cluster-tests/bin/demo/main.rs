//! `make demo`: real work on a real cluster whose leader is killed half-way, and proof that nothing was
//! lost.
//!
//! Three controllers and two agents run as processes of their own, on this machine's disk. Every file of
//! this repository, and as many generated ones as make 200 together, becomes a task: `sha256sum FILE`.
//! With half of the results in, the leader is killed with SIGKILL; a little later, so is one agent. In
//! the end each result is compared with what a plain `sha256sum` says, and both victims are started again,
//! to see that all members hold the same state. Any difference ends it with exit code 1.

#![expect(
    clippy::print_stdout,
    reason = "a program that tells a story on stdout"
)]

mod files;
mod story;
mod tasks;

use std::process::ExitCode;

use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("demo: no threads to run in: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Whichever ends first: the other is dropped, and the cluster with it.
    runtime.block_on(async {
        tokio::select! {
            told = story::tell() => match told {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("\ndemo: FAILED: {error}");
                    ExitCode::FAILURE
                }
            },
            _ = tokio::signal::ctrl_c() => {
                eprintln!("\ndemo: interrupted; ending its processes");
                ExitCode::from(130)
            }
        }
    })
}
