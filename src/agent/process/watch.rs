//! The guard itself: a small process that ends the agent's attempts when the agent can't.
//!
//! Standard input ends when the agent does, however it died. Over it comes, at each renewal, until when
//! the lease holds. At the end of it, and when that time is over and no other was written, the guard
//! kills what carries the mark of this very run of the agent; and the agent itself where it was stopped when it was about to
//! start something, and would do so if it went on ([`starting`](super::starting)).
//!
//! What it can't find: a process that wiped its environment and left the tree of one that did not.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use model::Millis;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::signals::kill_exactly;
use super::starting::{Agent, Late};
use super::table::{Process, Table};
use crate::clock;

/// How late it may notice that the lease is over. It asks the boot clock, for a machine may have been
/// suspended meanwhile.
const ROUND: Duration = Duration::from_millis(250);
/// Between two looks at the process table.
const PAUSE: Duration = Duration::from_millis(20);
/// A process that can't be killed is in an uninterruptible call; for so long it is told again.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Until standard input ends, and nothing with a mark that begins with `prefix` is
/// left.
pub fn watch(prefix: &str) -> io::Result<()> {
    if prefix.len() < 2 {
        return Err(io::Error::other("a mark must say whose it is"));
    }
    let pipe = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    serve(pipe, Agent::parent(), prefix)
}

fn serve(pipe: File, agent: Option<Agent>, prefix: &str) -> io::Result<()> {
    let mut news = News {
        pipe,
        begun: Vec::new(),
        until: None,
    };
    let mut late = Late::of(agent);
    loop {
        let waits = news.until.is_some() || !late.is_over();
        if is_readable(news.pipe.as_fd(), waits.then_some(ROUND))? {
            match news.read()? {
                Heard::Something => {
                    late.forget();
                    continue;
                }
                Heard::End => break,
            }
        }
        late.look();
        if news.until.is_some_and(|until| clock::since_boot() >= until) {
            eprintln!("the agent's lease is over and the agent does nothing: ending its attempts");
            let pipe = news.pipe.as_fd();
            late.begin();
            // What can't be killed may take long.
            end_all(prefix, || {
                late.look();
                is_readable(pipe, Some(Duration::ZERO))
            })?;
            // Unless there is news by now, nothing is left until there is.
            news.until = None;
        }
    }
    end_all(prefix, || Ok(false))
}

/// What the agent writes.
struct News {
    pipe: File,
    /// A line of which the end is missing.
    begun: Vec<u8>,
    until: Option<Millis>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Something,
    End,
}

impl News {
    fn read(&mut self) -> io::Result<Heard> {
        let mut bytes = [0; 4096];
        let count = match self.pipe.read(&mut bytes) {
            Ok(0) => return Ok(Heard::End),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return Ok(Heard::Something);
            }
            Err(error) => return Err(error),
        };
        self.begun.extend_from_slice(&bytes[..count]);
        while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.begun.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            self.until = line.trim().parse().ok().map(Millis).or(self.until);
        }
        Ok(Heard::Something)
    }
}

/// Whether there is something to read, or the end. Forever without a `patience`.
fn is_readable(pipe: BorrowedFd<'_>, patience: Option<Duration>) -> io::Result<bool> {
    let patience = patience.map(|span| Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(span.subsec_nanos()),
    });
    let mut polled = [PollFd::new(&pipe, PollFlags::IN)];
    match poll(&mut polled, patience.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Kills until two looks find nothing; or until there is news, which may be of a lease under which
/// something started meanwhile.
fn end_all(prefix: &str, mut is_over: impl FnMut() -> io::Result<bool>) -> io::Result<()> {
    let begun = Instant::now();
    let mut empty = 0;
    while empty < 2 && begun.elapsed() < PATIENCE {
        let found = marked(prefix);
        // What was found runs since before this: under the old lease, if there is no news yet.
        if is_over()? {
            return Ok(());
        }
        found.iter().for_each(kill_exactly);
        empty = if found.is_empty() { empty + 1 } else { 0 };
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// Living processes with such a mark, and all below them.
fn marked(prefix: &str) -> Vec<Process> {
    let table = Table::read();
    let own = std::process::id();
    let carries = |row: &&Process| {
        !row.zombie
            && row.pid.cast_unsigned() != own
            && row.mark().is_some_and(|mark| mark.starts_with(prefix))
    };
    let roots = table.rows().iter().filter(carries);
    let all = roots.flat_map(|root| {
        let below = table.descendants(root.pid);
        below.into_iter().filter(|row| !row.zombie).chain([*root])
    });
    all.collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    use super::*;
    use crate::process::{Instance, MARK_VARIABLE, Marks, ROSTER};

    fn sleeper(mark: &str) -> Child {
        let listing = ROSTER.spawning();
        let mut command = Command::new("sleep");
        command.arg("1000").env(MARK_VARIABLE, mark);
        let child = command.spawn().unwrap();
        // Or the sweepers of other tests in this program would take it for an orphan.
        listing.add(i32::try_from(child.id()).unwrap());
        child
    }

    struct Watched {
        writer: io::PipeWriter,
        guard: thread::JoinHandle<io::Result<()>>,
    }

    fn watched(marks: &Marks) -> Watched {
        let (reader, writer) = io::pipe().unwrap();
        let prefix = marks.prefix();
        let guard = thread::spawn(move || serve(File::from(OwnedFd::from(reader)), None, &prefix));
        Watched { writer, guard }
    }

    #[test]
    fn when_the_agent_is_gone_its_attempts_are_ended_and_those_of_another_run_are_not() {
        let instance = Instance::new();
        let (marks, again) = (Marks::new(instance.clone()), Marks::new(instance));
        let mut ours = sleeper(&format!("{}t1", marks.prefix()));
        let mut other = sleeper(&format!("{}t1", again.prefix()));
        let Watched { mut writer, guard } = watched(&marks);
        writeln!(writer, "{}", u64::MAX).unwrap();
        drop(writer);
        guard.join().unwrap().unwrap();
        assert_eq!(ours.wait().unwrap().signal(), Some(9));
        assert!(other.try_wait().unwrap().is_none(), "a restarted agent's");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn attempts_end_with_the_lease_unless_it_was_renewed() {
        let marks = Marks::new(Instance::new());
        let Watched { mut writer, guard } = watched(&marks);
        let mut first = sleeper(&format!("{}t1", marks.prefix()));
        let now = clock::since_boot().0;
        // Two at once, of which the latest counts.
        write!(writer, "{}\n{}\n", now + 1, now + 3_600_000).unwrap();
        thread::sleep(2 * ROUND);
        assert!(first.try_wait().unwrap().is_none(), "it holds");
        writeln!(writer, "{}", clock::since_boot().0 + 1).unwrap();
        assert_eq!(first.wait().unwrap().signal(), Some(9));
        // A later lease, under which something starts again.
        writeln!(writer, "{}", clock::since_boot().0 + 3_600_000).unwrap();
        let mut second = sleeper(&format!("{}t2", marks.prefix()));
        thread::sleep(2 * ROUND);
        assert!(second.try_wait().unwrap().is_none());
        drop(writer);
        assert_eq!(second.wait().unwrap().signal(), Some(9));
        guard.join().unwrap().unwrap();
    }
}
