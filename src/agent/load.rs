//! How busy this machine is: processors since the last look, and memory.

use procfs::{Current, CurrentSI, KernelStats, Meminfo};

use crate::clock;
use crate::worker::Load;

/// Time of all processors, in ticks since the machine booted.
#[derive(Debug, Clone, Copy, Default)]
struct Ticks {
    busy: u64,
    total: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Meter {
    last: Ticks,
}

impl Meter {
    /// The load since the last call; since boot for the first.
    pub fn measure(&mut self) -> Load {
        let now = ticks().unwrap_or(self.last);
        let busy = now.busy.saturating_sub(self.last.busy);
        let total = now.total.saturating_sub(self.last.total);
        self.last = now;
        Load {
            cpu: permille(busy, total),
            memory: memory(),
            at: clock::wall(),
        }
    }
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
    use super::*;

    #[test]
    fn a_load_is_in_thousandths() {
        let mut meter = Meter::default();
        for _ in 0..2 {
            let load = meter.measure();
            assert!(load.cpu <= 1000);
            assert!((1..=1000).contains(&load.memory), "{load:?}");
        }
        assert_eq!(permille(1, 0), 0);
        assert_eq!(permille(1, 4), 250);
    }
}
