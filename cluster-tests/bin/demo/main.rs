//! `make demo`: real work on a real cluster whose leader is killed half-way, and proof that nothing was
//! lost.
//!
//! Three controllers and two agents run as processes of their own, on this machine's disk. Every file of
//! this repository, and as many generated ones as make 200 together, becomes a task: `sha256sum FILE`.
//! With half of the results in, and the agents at work on the other half, the leader is killed with
//! SIGKILL; so is, once another leads, one of the agents. In the end each result is compared with what a plain
//! `sha256sum` says, and both victims are started again, to see that all members hold the same state. Any
//! difference ends it with exit code 1; so does a kill that changed nothing, for then nothing was shown.

#![expect(
    clippy::print_stdout,
    reason = "a program that tells a story on stdout"
)]

mod files;
mod story;
mod tasks;

use std::process::ExitCode;

use clap::Parser;
use cluster_tests::Error;
use tokio::runtime::Runtime;

/// Real work on a real cluster whose leader is killed half-way; nothing is lost
#[derive(Debug, Clone, Parser)]
#[command(name = "demo")]
pub struct Arguments {
    /// How many files, each of them a task [default: 200, or as many as are committed here]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(LEAST_TASKS..))]
    tasks: Option<u32>,
}

/// With fewer there is no half-way.
const LEAST_TASKS: i64 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
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
            told = story::tell(&arguments) => match told {
                Ok(()) => ExitCode::SUCCESS,
                // It says so itself: what was seen proves nothing, for or against.
                Err(error @ Error::Invalid(_)) => {
                    eprintln!("\ndemo: {error}");
                    ExitCode::FAILURE
                }
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
