//! By how much agents fall short of what a waiting task asks for: the numbers behind the reasons.

use model::{AgentId, Demand, Mebibytes, Processors, Reason, State, Supply, Taken};

use crate::explain::AgentVerdict;
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

    /// That an agent has too little of it, and that too little is left.
    fn reasons(self) -> [Reason; 2] {
        match self {
            Dimension::Cpu => [Reason::LacksCpu, Reason::CpuTaken],
            Dimension::Memory => [Reason::LacksMemory, Reason::MemoryTaken],
            Dimension::Gpus => [Reason::LacksGpus, Reason::GpusTaken],
            Dimension::Vram => [Reason::LacksVram, Reason::VramTaken],
        }
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
        match (self, demand.gpus, demand.vram_mib) {
            (Dimension::Gpus, _, vram) if vram > 0 => {
                format!("{asked} with {} each", Mebibytes(vram))
            }
            (Dimension::Vram, gpus, _) if gpus > 1 => format!("{asked} on {gpus} of them"),
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
        let [lacks, taken] = dimension.reasons();
        let short = agents.iter().filter(|it| {
            let why = it.standing.as_ref().err();
            why.is_some_and(|why| *why == lacks || *why == taken)
        });
        let amounts = short.filter_map(|it| amounts(state, fleet, (dimension, demand), &it.agent));
        let amounts: Vec<(u64, u64, &AgentId)> = amounts.collect();
        let (most, ..) = amounts.iter().max_by_key(|(all, ..)| *all)?;
        let (_, free, holder) = amounts.iter().max_by_key(|(_, free, _)| *free)?;
        let asks = dimension.wish(demand);
        Some(match *most >= dimension.asked(demand) {
            true => format!(
                "It asks for {asks}; the most that is free is {}, on {holder}.",
                dimension.words(*free)
            ),
            false => format!(
                "It asks for {asks}; no agent that it could run on has more than {}.",
                dimension.words(*most)
            ),
        })
    });
    sentences.collect()
}

fn amounts<'a>(
    state: &State,
    fleet: &Fleet,
    (dimension, demand): (Dimension, &Demand),
    id: &'a AgentId,
) -> Option<(u64, u64, &'a AgentId)> {
    let agent = state.agent(id)?;
    let supply = agent.profile.supply.as_ref()?;
    let view = fleet.agents.get(id).cloned().unwrap_or_default();
    let taken = filter::taken(state, agent, &view);
    let (all, free) = dimension.has(supply, &taken, demand);
    Some((all, free, id))
}
