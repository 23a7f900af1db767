//! What a run is made of, from its seed: how many of whom, for how long, and which faults. Each seed has a few of
//! them (a swarm): all at once would hide what one of them alone shows.

use std::ops::Range;

use crate::dice::Dice;

macro_rules! faults {
    ($($variant:ident = $name:literal,)+) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($variant,)+
        }

        impl Fault {
            pub const ALL: &[Fault] = &[$(Fault::$variant),+];

            pub fn name(self) -> &'static str {
                match self {
                    $(Fault::$variant => $name,)+
                }
            }
        }
    };
}

faults! {
    KillController = "controller killed",
    KillLeader = "leader killed",
    KillAllControllers = "all controllers killed",
    KillInWrite = "killed in the middle of a write",
    KillInVote = "killed in the middle of a vote",
    PowerOff = "controller without power",
    Isolate = "controller isolated",
    Split = "majority and minority split",
    OneWay = "one way cut",
    Refuse = "port refuses",
    Weather = "messages late, lost, doubled",
    SlowDisk = "slow disk",
    BrokenDisk = "disk errors",
    FullDisk = "full disk",
    WallClock = "wall clock set",
    HandOver = "leadership handed over",
    Membership = "membership changed",
    KillAgent = "agent killed",
    LoseJournal = "agent's journal lost",
    StopAgent = "agent stopped",
    CutAgent = "agent cut off",
    CutAgentFromLeader = "agent cut off with the old leader",
    Cordon = "agent cordoned",
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub controllers: u64,
    pub agents: u64,
    pub clients: u64,
    pub faults: Vec<Fault>,
    /// Milliseconds between two faults.
    pub pause: Range<u64>,
    /// Of faults, in seconds of virtual time.
    pub seconds: u64,
    /// Of 1,000 tasks so many run for longer than a lease lasts, or nearly.
    pub long: u32,
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// Finished tasks that stay in memory.
    pub hot_tasks: u64,
    /// Keep every line of what happens.
    pub all_lines: bool,
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        let dice = Dice::new(seed ^ 0x706c_616e);
        let share = dice.within(100..600);
        let drawn = |fault: &&Fault| {
            // A cluster whose disks all fail is repaired by hand, not by itself.
            let share = match fault {
                Fault::BrokenDisk | Fault::FullDisk => share / 2,
                _ => share,
            };
            dice.permille(u32::try_from(share).unwrap_or(0))
        };
        let faults = Fault::ALL.iter().filter(drawn).copied().collect();
        let shortest = dice.within(100..3_000);
        Plan {
            seed,
            controllers: if dice.permille(250) { 5 } else { 3 },
            agents: dice.within(1..5),
            clients: dice.within(1..6),
            faults,
            pause: shortest..shortest * 4,
            seconds: dice.within(8..45),
            long: if dice.permille(250) { 500 } else { 30 },
            snapshot_every: match dice.below(3) {
                0 => 50,
                1 => 300,
                _ => 50_000,
            },
            hot_tasks: match dice.below(2) {
                0 => 20,
                _ => 10_000,
            },
            all_lines: false,
        }
    }
}
