//! What a task takes of a machine beyond a slot, what an agent has of that, and what is taken of it.
//!
//! What a task asks for is its own from the entry that assigns it until its attempt ends, whether it uses it or not. So
//! the sum of what the attempts of an agent ask for never exceeds what it has, and an entry that would have it so is refused
//! (of what yields, and who gets its place, the larger amount counts: see `preemption`). What a task does not ask for is not counted.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thin_vec::ThinVec;

use crate::label::Expression;
use crate::limit;
use crate::rejected::Rejected;
use crate::trace::Reason;
use crate::trailing::Unset;

/// What a spec says of it beyond the memory, which also is a limit; 0: nothing is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// Thousandths of a processor.
    pub cpu_milli: u32,
    /// See [`Demand::gpus`].
    pub gpus: u32,
    /// See [`Demand::vram_mib`].
    pub vram_mib: u64,
}

impl Unset for Hardware {
    fn is_unset(&self) -> bool {
        *self == Hardware::default()
    }
}

impl Hardware {
    pub(crate) fn validate(&self) -> Result<(), Rejected> {
        let over = |what: &str, most: u64, unit: &str| {
            Err(Rejected::over(
                what,
                usize::try_from(most).unwrap_or(usize::MAX),
                unit,
            ))
        };
        if self.cpu_milli > limit::CPU_MILLI_MAX {
            return over(
                "cpu",
                limit::CPU_MILLI_MAX.into(),
                "thousandths of a processor",
            );
        }
        if self.gpus as usize > limit::GPUS_MAX {
            return over("gpus", limit::GPUS_MAX as u64, "GPUs");
        }
        if self.vram_mib > limit::VRAM_MIB_MAX {
            return over("vram", limit::VRAM_MIB_MAX, "MiB");
        }
        Ok(())
    }
}

/// What an attempt takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Demand {
    /// Thousandths of a processor.
    pub cpu_milli: u32,
    pub memory_mib: u64,
    /// Whole GPUs, which nobody else gets meanwhile.
    pub gpus: u32,
    /// Of whole GPUs: what each of them has at least. Where none is asked for: a share of one GPU.
    pub vram_mib: u64,
}

impl Demand {
    pub fn is_nothing(&self) -> bool {
        *self == Demand::default()
    }

    /// Whether it needs an agent that says what it has.
    fn needs_supply(&self) -> bool {
        self.cpu_milli > 0 || self.takes_gpus()
    }

    pub fn takes_gpus(&self) -> bool {
        self.gpus > 0 || self.vram_mib > 0
    }
}

/// What a task asks of an agent: what it must be like, and what of it the attempt takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Need<'n> {
    /// First, so that what asks for nothing stands before all else: see `Index::queues`.
    pub demand: Demand,
    /// Each must hold.
    pub require: &'n [Expression],
}

/// What an agent has for its attempts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supply {
    /// Thousandths of a processor.
    pub cpu_milli: u32,
    pub memory_mib: u64,
    /// The memory of each GPU, in MiB: a GPU is known by its place here.
    pub gpus: Vec<u64>,
}

/// What is taken of a GPU; never of nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Gpu {
    /// Attempts that have it as a whole: one, where all is well.
    whole: u32,
    /// Those that have a share, and what they have together.
    shares: u32,
    vram_mib: u64,
}

/// What an agent's attempts take of it, together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Taken {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    gpus: BTreeMap<u16, Gpu>,
}

/// Which of an agent's GPUs an attempt has.
pub type Gpus = ThinVec<u16>;

impl Taken {
    pub fn is_nothing(&self) -> bool {
        *self == Taken::default()
    }

    pub fn add(&mut self, demand: &Demand, gpus: &[u16]) {
        self.cpu_milli += u64::from(demand.cpu_milli);
        self.memory_mib += demand.memory_mib;
        for place in gpus {
            let gpu = self.gpus.entry(*place).or_default();
            match demand.gpus {
                0 => {
                    gpu.shares += 1;
                    gpu.vram_mib += demand.vram_mib;
                }
                _ => gpu.whole += 1,
            }
        }
    }

    pub fn remove(&mut self, demand: &Demand, gpus: &[u16]) {
        self.cpu_milli = self.cpu_milli.saturating_sub(demand.cpu_milli.into());
        self.memory_mib = self.memory_mib.saturating_sub(demand.memory_mib);
        for place in gpus {
            let gpu = self.gpus.entry(*place).or_default();
            match demand.gpus {
                0 => {
                    gpu.shares = gpu.shares.saturating_sub(1);
                    gpu.vram_mib = gpu.vram_mib.saturating_sub(demand.vram_mib);
                }
                _ => gpu.whole = gpu.whole.saturating_sub(1),
            }
            if *gpu == Gpu::default() {
                self.gpus.remove(place);
            }
        }
    }

    /// GPUs of which anything is taken.
    pub fn gpus(&self) -> usize {
        self.gpus.len()
    }

    /// What of a GPU's memory could still be shared out.
    fn vram_left(&self, place: u16, vram_mib: u64) -> u64 {
        match self.gpus.get(&place) {
            None => vram_mib,
            Some(gpu) if gpu.whole > 0 => 0,
            Some(gpu) => vram_mib.saturating_sub(gpu.vram_mib),
        }
    }
}

impl Supply {
    pub fn validate(&self) -> Result<(), Rejected> {
        if self.gpus.len() > limit::GPUS_MAX {
            return Err(Rejected::over("gpus", limit::GPUS_MAX, "GPUs"));
        }
        let is_large = self.cpu_milli > limit::CPU_MILLI_MAX
            || self.memory_mib > limit::MEMORY_MIB_MAX
            || self.gpus.iter().any(|vram| *vram > limit::VRAM_MIB_MAX);
        if is_large {
            return Err(Rejected::Invalid(
                "an agent with more than there can be".into(),
            ));
        }
        match self.gpus.contains(&0) {
            true => Err(Rejected::Invalid("a GPU without memory".into())),
            false => Ok(()),
        }
    }

    /// About how many bytes it takes in the log.
    pub fn size(&self) -> usize {
        16 + 9 * self.gpus.len()
    }

    /// What is left of each GPU's memory to be shared out, with the GPU's place.
    fn shares<'s>(&'s self, taken: &'s Taken) -> impl Iterator<Item = (u64, u16)> + 's {
        let all = (0u16..).zip(&self.gpus);
        all.map(|(place, vram)| (taken.vram_left(place, *vram), place))
    }

    /// The most that is left of one GPU's memory.
    pub fn largest_share(&self, taken: &Taken) -> u64 {
        let left = self.shares(taken).map(|(left, _)| left);
        left.max().unwrap_or(0)
    }

    /// GPUs with so much memory of which nothing is taken: the memory of each, and its place.
    pub fn free_gpus<'s>(
        &'s self,
        taken: &'s Taken,
        vram_mib: u64,
    ) -> impl Iterator<Item = (u64, u16)> + 's {
        let all = (0u16..).zip(&self.gpus);
        let free =
            all.filter(move |(place, vram)| **vram >= vram_mib && !taken.gpus.contains_key(place));
        free.map(|(place, vram)| (*vram, place))
    }

    /// How much of what is asked for is not free, of the dimension that lacks most, in thousandths.
    pub fn lacks(&self, taken: &Taken, demand: &Demand) -> u64 {
        let lack = |asked: u64, free: u64| match asked {
            0 => 0,
            asked => asked.saturating_sub(free) * 1_000 / asked,
        };
        let cpu = u64::from(self.cpu_milli).saturating_sub(taken.cpu_milli);
        let memory = self.memory_mib.saturating_sub(taken.memory_mib);
        let on_gpus = match demand.gpus {
            0 => lack(demand.vram_mib, self.largest_share(taken)),
            wanted => {
                let free = self.free_gpus(taken, demand.vram_mib).count();
                lack(wanted.into(), free as u64)
            }
        };
        lack(demand.cpu_milli.into(), cpu)
            .max(lack(demand.memory_mib, memory))
            .max(on_gpus)
    }

    /// Whether an agent that has nothing to do could take it; if not, waiting does not help.
    fn could(&self, demand: &Demand) -> Result<(), Reason> {
        if demand.cpu_milli > self.cpu_milli {
            return Err(Reason::LacksCpu);
        }
        if demand.memory_mib > self.memory_mib {
            return Err(Reason::LacksMemory);
        }
        if demand.takes_gpus() {
            let wanted = demand.gpus.max(1) as usize;
            let large = self.gpus.iter().filter(|it| **it >= demand.vram_mib);
            if self.gpus.len() < wanted {
                return Err(Reason::LacksGpus);
            }
            if large.count() < wanted {
                return Err(Reason::LacksVram);
            }
        }
        Ok(())
    }

    /// Which GPUs one more attempt gets, where it has room beside what is taken: the smallest that do, so that larger ones
    /// stay free for those that need them, and of these the first.
    fn room(&self, taken: &Taken, demand: &Demand) -> Result<Gpus, Reason> {
        if taken.cpu_milli + u64::from(demand.cpu_milli) > self.cpu_milli.into()
            && demand.cpu_milli > 0
        {
            return Err(Reason::CpuTaken);
        }
        if taken.memory_mib + demand.memory_mib > self.memory_mib && demand.memory_mib > 0 {
            return Err(Reason::MemoryTaken);
        }
        if !demand.takes_gpus() {
            return Ok(Gpus::new());
        }
        if demand.gpus == 0 {
            let left = self.shares(taken);
            let best = left.filter(|(left, _)| *left >= demand.vram_mib).min();
            let (_, place) = best.ok_or(Reason::VramTaken)?;
            return Ok(Gpus::from([place]));
        }
        let mut free: Vec<(u64, u16)> = self.free_gpus(taken, demand.vram_mib).collect();
        free.sort_unstable();
        let wanted = demand.gpus as usize;
        match free.get(..wanted) {
            Some(first) => Ok(first.iter().map(|(_, place)| *place).collect()),
            None => Err(Reason::GpusTaken),
        }
    }
}

/// Whether an agent with nothing to do could take an attempt. One of an earlier release does not say what it has: its
/// memory is not counted, and what else could be asked for it does not understand.
///
/// # Errors
///
/// What it lacks.
pub fn could(supply: Option<&Supply>, demand: &Demand) -> Result<(), Reason> {
    match supply {
        None if demand.needs_supply() => Err(Reason::TooOld),
        None => Ok(()),
        Some(supply) => supply.could(demand),
    }
}

/// Whether an agent has room for one more attempt beside what is taken, and which GPUs it gets.
///
/// # Errors
///
/// What it lacks, or what of it is taken.
pub fn room(
    supply: Option<&Supply>,
    taken: Option<&Taken>,
    demand: &Demand,
) -> Result<Gpus, Reason> {
    if demand.is_nothing() {
        return Ok(Gpus::new());
    }
    could(supply, demand)?;
    match supply {
        None => Ok(Gpus::new()),
        Some(supply) => {
            const NOTHING: &Taken = &Taken {
                cpu_milli: 0,
                memory_mib: 0,
                gpus: BTreeMap::new(),
            };
            supply.room(taken.unwrap_or(NOTHING), demand)
        }
    }
}

/// Thousandths of a processor, in words: `1.5`.
#[derive(Debug, Clone, Copy)]
pub struct Processors(pub u64);

impl fmt::Display for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1_000, self.0 % 1_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// MiB, in words: `512 MiB` or `24 GiB`.
#[derive(Debug, Clone, Copy)]
pub struct Mebibytes(pub u64);

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            whole if whole > 0 && whole.is_multiple_of(1_024) => write!(f, "{} GiB", whole / 1_024),
            other => write!(f, "{other} MiB"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1024;

    fn supply() -> Supply {
        Supply {
            cpu_milli: 8_000,
            memory_mib: 32 * GIB,
            gpus: vec![24 * GIB, 16 * GIB, 24 * GIB],
        }
    }

    fn whole(gpus: u32, vram_mib: u64) -> Demand {
        Demand {
            gpus,
            vram_mib,
            ..Demand::default()
        }
    }

    fn take(taken: &mut Taken, demand: Demand) -> Result<Vec<u16>, Reason> {
        let gpus = room(Some(&supply()), Some(taken), &demand)?;
        taken.add(&demand, &gpus);
        Ok(gpus.to_vec())
    }

    #[test]
    fn whole_gpus_are_the_smallest_that_do_and_nobody_elses() {
        let mut taken = Taken::default();
        assert_eq!(take(&mut taken, whole(1, 0)), Ok(vec![1]));
        assert_eq!(take(&mut taken, whole(1, 20 * GIB)), Ok(vec![0]));
        assert_eq!(take(&mut taken, whole(2, 0)), Err(Reason::GpusTaken));
        assert_eq!(take(&mut taken, whole(0, GIB)), Ok(vec![2]));
        assert_eq!(take(&mut taken, whole(1, 0)), Err(Reason::GpusTaken));
        assert_eq!(taken.gpus(), 3);
    }

    #[test]
    fn shares_fill_a_gpu_before_the_next_and_keep_others_from_having_it_whole() {
        let mut taken = Taken::default();
        assert_eq!(take(&mut taken, whole(0, 10 * GIB)), Ok(vec![1]));
        assert_eq!(take(&mut taken, whole(0, 6 * GIB)), Ok(vec![1]));
        assert_eq!(take(&mut taken, whole(0, 1)), Ok(vec![0]));
        assert_eq!(take(&mut taken, whole(2, 0)), Err(Reason::GpusTaken));
        assert_eq!(take(&mut taken, whole(1, 0)), Ok(vec![2]));
        assert_eq!(take(&mut taken, whole(0, 24 * GIB)), Err(Reason::VramTaken));
    }

    #[test]
    fn what_can_never_fit_is_told_from_what_does_not_fit_now() {
        let cpu = |cpu_milli| Demand {
            cpu_milli,
            ..Demand::default()
        };
        let memory = |memory_mib| Demand {
            memory_mib,
            ..Demand::default()
        };
        let mut taken = Taken::default();
        assert_eq!(take(&mut taken, cpu(8_001)), Err(Reason::LacksCpu));
        assert_eq!(take(&mut taken, memory(33 * GIB)), Err(Reason::LacksMemory));
        assert_eq!(take(&mut taken, whole(4, 0)), Err(Reason::LacksGpus));
        assert_eq!(take(&mut taken, whole(3, 20 * GIB)), Err(Reason::LacksVram));
        assert_eq!(take(&mut taken, whole(0, 25 * GIB)), Err(Reason::LacksVram));
        assert_eq!(take(&mut taken, cpu(8_000)), Ok(vec![]));
        assert_eq!(take(&mut taken, cpu(1)), Err(Reason::CpuTaken));
        assert_eq!(take(&mut taken, memory(30 * GIB)), Ok(vec![]));
        assert_eq!(take(&mut taken, memory(3 * GIB)), Err(Reason::MemoryTaken));
        assert_eq!(take(&mut taken, memory(2 * GIB)), Ok(vec![]));
        assert_eq!(take(&mut taken, Demand::default()), Ok(vec![]));
    }

    #[test]
    fn what_is_given_back_is_as_if_it_had_never_been_taken() {
        let all = [whole(1, 0), whole(0, 3), whole(0, 4)];
        let mut taken = Taken::default();
        let held: Vec<_> = all
            .iter()
            .map(|demand| (demand, take(&mut taken, *demand).unwrap()))
            .collect();
        for (demand, gpus) in &held {
            assert!(!taken.is_nothing());
            taken.remove(demand, gpus);
        }
        assert!(taken.is_nothing(), "{taken:?}");
    }

    #[test]
    fn an_agent_that_does_not_say_what_it_has_is_not_asked_for_it() {
        let memory = Demand {
            memory_mib: GIB,
            ..Demand::default()
        };
        assert_eq!(room(None, None, &memory), Ok(Gpus::new()));
        assert_eq!(room(None, None, &whole(1, 0)), Err(Reason::TooOld));
    }
}
