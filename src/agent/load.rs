//! How busy this machine is: processors since the last look, and memory.
//!
//! What this program and all below it use of the processors is told apart: the rest is others' load. An agent adopts orphans,
//! and the time of who has ended is kept by its parent, so nearly all of it is found in the process table, which a thread of
//! its own reads: of each process of this very executable, for agents that share a machine do each other's work no wrong. What
//! attempts have others start (a container's daemon, another machine's) is others'.

use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use procfs::process::Stat;
use procfs::{Current, CurrentSI, FromRead, KernelStats, Meminfo};
use rustix::process::getpid;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::clock;
use crate::error::Error;
use crate::process::Table;
use crate::worker::Load;

/// Time of all processors, in ticks since the machine booted.
#[derive(Debug, Clone, Copy, Default)]
struct Ticks {
    busy: u64,
    total: u64,
}

/// Measures when it is asked.
#[derive(Debug)]
pub(crate) struct Meter {
    asks: Sender<()>,
    loads: UnboundedReceiver<Load>,
}

impl Meter {
    /// The thread ends when the meter is dropped.
    pub fn start() -> Result<Meter, Error> {
        let (asks, asked) = channel();
        let (measured, loads) = unbounded_channel();
        thread::Builder::new()
            .name("meter".into())
            .spawn(move || serve(&asked, &measured))
            .map_err(Error::Thread)?;
        Ok(Meter { asks, loads })
    }

    /// The answer comes by [`Meter::next`].
    pub fn ask(&self) {
        // A thread that is gone would have panicked; then there is no load to tell of.
        self.asks.send(()).unwrap_or_default();
    }

    pub async fn next(&mut self) -> Option<Load> {
        self.loads.recv().await
    }
}

fn serve(asked: &Receiver<()>, measured: &UnboundedSender<Load>) {
    let mut gauge = Gauge::default();
    while asked.recv().is_ok() {
        // Whoever asked again meanwhile is answered by the same look.
        while asked.try_recv().is_ok() {}
        if measured.send(gauge.measure()).is_err() {
            return;
        }
    }
}

#[derive(Debug, Default)]
struct Gauge {
    last: Ticks,
    /// Of that what was ours.
    own: u64,
    /// What others used between the two looks before, in thousandths.
    others: Option<u32>,
}

impl Gauge {
    /// The load since the last call; since boot for the first, of which nothing is known to be others'. What comes and goes
    /// within a few seconds counts as ours, and so does what was ours and could not be found: others' is what two looks
    /// have seen.
    fn measure(&mut self) -> Load {
        let now = ticks().unwrap_or(self.last);
        let (cpu, own) = self.count(now, ticks_of(&ours(&Table::read())));
        Load {
            cpu,
            own,
            memory: memory(),
            at: clock::wall(),
        }
    }

    /// The load of all, and the part of it that is ours, in thousandths.
    fn count(&mut self, now: Ticks, own: u64) -> (u32, u32) {
        let busy = now.busy.saturating_sub(self.last.busy);
        let total = now.total.saturating_sub(self.last.total);
        let of_us = own.saturating_sub(self.own);
        (self.last, self.own) = (now, own);
        let cpu = permille(busy, total);
        let others = cpu.saturating_sub(permille(of_us, total));
        let before = self.others.replace(others);
        let lasting = before.map_or(0, |before| before.min(others));
        (cpu, cpu.saturating_sub(lasting))
    }
}

/// All processes of this executable, and all below them.
fn ours(table: &Table) -> BTreeSet<i32> {
    let executable = |pid| fs::read_link(format!("/proc/{pid}/exe")).ok();
    let own = getpid().as_raw_nonzero().get();
    let same = executable(own);
    let is_same = |pid: &i32| *pid == own || (same.is_some() && executable(*pid) == same);
    let roots: Vec<i32> = table
        .rows()
        .iter()
        .map(|row| row.pid)
        .filter(is_same)
        .collect();
    let below = roots.iter().flat_map(|root| table.descendants(*root));
    let below: Vec<i32> = below.map(|row| row.pid).collect();
    roots.into_iter().chain(below).collect()
}

/// Ticks that these have used, and those of their children that have ended.
fn ticks_of(processes: &BTreeSet<i32>) -> u64 {
    let ticks = |pid: &i32| {
        // One that has just ended counts at its parent with the next look.
        let Ok(stat) = Stat::from_file(format!("/proc/{pid}/stat")) else {
            return 0;
        };
        let reaped = stat.cutime.saturating_add(stat.cstime);
        stat.utime + stat.stime + u64::try_from(reaped).unwrap_or(0)
    };
    processes.iter().map(ticks).sum()
}

fn ticks() -> Option<Ticks> {
    let all = KernelStats::current().ok()?.total;
    // Time of guests is counted as time of users already.
    let idle = all.idle + all.iowait.unwrap_or(0);
    let busy = all.user
        + all.nice
        + all.system
        + all.irq.unwrap_or(0)
        + all.softirq.unwrap_or(0)
        + all.steal.unwrap_or(0);
    Some(Ticks {
        busy,
        total: busy + idle,
    })
}

fn memory() -> u32 {
    let Ok(memory) = Meminfo::current() else {
        return 0;
    };
    let available = memory.mem_available.unwrap_or(memory.mem_free);
    permille(memory.mem_total.saturating_sub(available), memory.mem_total)
}

fn permille(part: u64, whole: u64) -> u32 {
    let thousandths = part.saturating_mul(1000).checked_div(whole).unwrap_or(0);
    u32::try_from(thousandths).unwrap_or(1000).min(1000)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn a_load_is_in_thousandths() {
        let mut gauge = Gauge::default();
        let first = gauge.measure();
        assert_eq!(first.own, first.cpu, "nothing is known to be others'");
        for _ in 0..2 {
            let load = gauge.measure();
            assert!(load.cpu <= 1000 && load.own <= load.cpu);
            assert!((1..=1000).contains(&load.memory), "{load:?}");
        }
        assert_eq!(permille(1, 0), 0);
        assert_eq!(permille(1, 4), 250);
    }

    /// Burns processor time in a grandchild, whose parent waits for it.
    #[test]
    fn what_attempts_used_counts_while_they_run_and_when_they_have_ended() {
        let burning = "sh -c 'while :; do :; done' & read a; kill $!; wait; echo; read a";
        let mut child = std::process::Command::new("sh")
            .args(["-c", burning])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let below = || Table::read().descendants(pid);
        let ticks = || ticks_of(&below().iter().map(|row| row.pid).chain([pid]).collect());
        let began = std::time::Instant::now();
        while ticks() < 20 {
            assert!(began.elapsed().as_secs() < 60, "{} ticks", ticks());
            thread::sleep(std::time::Duration::from_millis(20));
        }
        let mut commands = child.stdin.take().unwrap();
        commands.write_all(b"\n").unwrap();
        let mut line = [0];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        assert!(below().is_empty());
        assert!(ours(&Table::read()).contains(&pid));
        assert!(ticks() >= 20, "{} ticks", ticks());
        drop(commands);
        child.wait().unwrap();
        assert_eq!(ticks(), 0);
    }

    #[test]
    fn others_load_is_what_two_looks_have_seen() {
        let mut gauge = Gauge::default();
        let (mut now, mut own) = (Ticks::default(), 0);
        // Of 1,000 ticks so many are busy, and so many of these ours; shown is what is ours.
        for (busy, of_us, shown) in [
            (900, 0, 900),
            (900, 100, 100),
            (950, 0, 150),
            (950, 900, 900),
            (950, 0, 900),
            (950, 0, 0),
        ] {
            now.busy += busy;
            now.total += 1_000;
            own += of_us;
            let told = (u32::try_from(busy).unwrap(), shown);
            assert_eq!(gauge.count(now, own), told);
        }
    }

    #[tokio::test]
    async fn a_meter_measures_as_often_as_it_is_asked() {
        let mut meter = Meter::start().unwrap();
        for _ in 0..2 {
            meter.ask();
            assert!(meter.next().await.unwrap().memory > 0);
        }
    }
}
