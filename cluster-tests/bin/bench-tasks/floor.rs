//! What this machine can do without a cluster, measured in the same run: the figures above it are read as
//! ratios to these.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cluster_tests::Error;

/// How long each is measured.
const SPAN: Duration = Duration::from_secs(2);
/// Bytes of one write: about an entry with one small task.
const RECORD: [u8; 512] = [b'q'; 512];

/// Appends followed by an fdatasync, one after the other, on the cluster's disk.
pub fn fdatasyncs_per_second(directory: &Path) -> Result<f64, Error> {
    let path = directory.join("floor");
    let mut file = File::create(&path).map_err(Error::file("creating", &path))?;
    let begun = Instant::now();
    let mut done = 0_u32;
    while begun.elapsed() < SPAN {
        file.write_all(&RECORD)
            .map_err(Error::file("writing", &path))?;
        file.sync_data().map_err(Error::file("syncing", &path))?;
        done += 1;
    }
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}

/// `true` started and waited for, by as many threads as there are cores.
pub fn spawns_per_second() -> Result<f64, Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let begun = Instant::now();
    let counts: Vec<Result<u32, Error>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| spawn_until(begun + SPAN)))
            .collect();
        let lost = |_| Err(Error::Invalid("a spawning thread died".to_owned()));
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(lost))
            .collect()
    });
    let total = counts.into_iter().sum::<Result<u32, Error>>()?;
    Ok(f64::from(total) / begun.elapsed().as_secs_f64())
}

fn spawn_until(end: Instant) -> Result<u32, Error> {
    let mut done = 0;
    while Instant::now() < end {
        let mut command = Command::new("true");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.output().map_err(Error::io("spawning `true`"))?;
        done += 1;
    }
    Ok(done)
}
