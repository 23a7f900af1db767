//! By how much agents fall short of what a waiting task asks for: the numbers behind the reasons.

use model::{AgentId, Demand, Mebibytes, Processors, Reason, State, Supply, Taken};

use super::verdicts::AgentVerdict;
use crate::filter;
use crate::fleet::Fleet;

/// Where a number comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dimension {
    Cpu,
    Memory,
    Gpus,
    Vram,
}

impl Dimension {
    const ALL: [Dimension; 4] = [
        Dimension::Cpu,
        Dimension::Memory,
        Dimension::Gpus,
        Dimension::Vram,
    ];

    /// Of what an agent is short, and whether it has enough of that when nothing else runs there.
    fn of(reason: &Reason, demand: &Demand) -> Option<(Dimension, bool)> {
        Some(match reason {
            Reason::LacksCpu => (Dimension::Cpu, false),
            Reason::CpuTaken => (Dimension::Cpu, true),
            Reason::LacksMemory => (Dimension::Memory, false),
            Reason::MemoryTaken => (Dimension::Memory, true),
            // Some of its GPUs may be large enough, and too few.
            Reason::LacksVram if demand.gpus > 1 => (Dimension::Gpus, false),
            Reason::LacksGpus => (Dimension::Gpus, false),
            Reason::GpusTaken => (Dimension::Gpus, true),
            Reason::LacksVram => (Dimension::Vram, false),
            Reason::VramTaken => (Dimension::Vram, true),
            _ => return None,
        })
    }

    fn asked(self, demand: &Demand) -> u64 {
        match self {
            Dimension::Cpu => demand.cpu_milli.into(),
            Dimension::Memory => demand.memory_mib,
            Dimension::Gpus => demand.gpus.max(1).into(),
            Dimension::Vram => demand.vram_mib,
        }
    }

    /// What an agent has, and what of it is free.
    fn has(self, supply: &Supply, taken: &Taken, demand: &Demand) -> (u64, u64) {
        match self {
            Dimension::Cpu => {
                let all = u64::from(supply.cpu_milli);
                (all, all.saturating_sub(taken.cpu_milli))
            }
            Dimension::Memory => {
                let all = supply.memory_mib;
                (all, all.saturating_sub(taken.memory_mib))
            }
            Dimension::Gpus => {
                let large = supply.gpus.iter().filter(|vram| **vram >= demand.vram_mib);
                let free = supply.free_gpus(taken, demand.vram_mib);
                (large.count() as u64, free.count() as u64)
            }
            Dimension::Vram => {
                let largest = supply.gpus.iter().copied().max();
                (largest.unwrap_or(0), supply.largest_share(taken))
            }
        }
    }

    /// What is asked for.
    fn wish(self, demand: &Demand) -> String {
        let asked = self.words(self.asked(demand));
        match self {
            Dimension::Gpus if demand.vram_mib > 0 => {
                format!("{asked} with {} each", Mebibytes(demand.vram_mib))
            }
            _ => asked,
        }
    }

    fn words(self, amount: u64) -> String {
        match self {
            Dimension::Cpu => {
                let is_one = amount == 1_000;
                format!(
                    "{} CPU{}",
                    Processors(amount),
                    if is_one { "" } else { "s" }
                )
            }
            Dimension::Memory => format!("{} of memory", Mebibytes(amount)),
            Dimension::Gpus => format!("{amount} GPU{}", if amount == 1 { "" } else { "s" }),
            Dimension::Vram => format!("{} of a GPU's memory", Mebibytes(amount)),
        }
    }
}

/// A sentence for each dimension that some agent is short of; empty where none is.
pub fn shortfall(
    state: &State,
    fleet: &Fleet,
    demand: &Demand,
    agents: &[AgentVerdict],
) -> Vec<String> {
    let sentences = Dimension::ALL.into_iter().filter_map(|dimension| {
        let short = agents.iter().filter_map(|it| {
            let (of, is_enough) = Dimension::of(it.standing.as_ref().err()?, demand)?;
            if of != dimension {
                return None;
            }
            let (all, free) = amounts(state, fleet, (dimension, demand), &it.agent)?;
            Some((is_enough, all, free, &it.agent))
        });
        let short: Vec<_> = short.collect();
        let asks = dimension.wish(demand);
        // Of equals one that has enough when nothing else runs there, and the first of these.
        let freest = short.iter().rev();
        let freest = freest.max_by_key(|(is_enough, _, free, _)| (*free, *is_enough));
        let (_, _, free, agent) = freest?;
        if short.iter().any(|(is_enough, ..)| *is_enough) {
            let free = dimension.words(*free);
            let told = format!("It asks for {asks}; the most that is free is {free}, on {agent}.");
            return Some(told);
        }
        let most = short.iter().map(|(_, all, ..)| *all).max()?;
        let most = dimension.words(most);
        Some(format!(
            "It asks for {asks}; no agent that it could run on has more than {most}."
        ))
    });
    sentences.collect()
}

/// What an agent has, and what of it is free.
fn amounts(
    state: &State,
    fleet: &Fleet,
    (dimension, demand): (Dimension, &Demand),
    id: &AgentId,
) -> Option<(u64, u64)> {
    let agent = state.agent(id)?;
    let supply = agent.profile.supply.as_ref()?;
    let view = fleet.agents.get(id).cloned().unwrap_or_default();
    let taken = filter::taken(state, agent, &view);
    Some(dimension.has(supply, &taken, demand))
}
