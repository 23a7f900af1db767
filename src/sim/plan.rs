//! What a run is made of, from its seed: how many of whom, for how long, and which faults. Each seed has a few of
//! them (a swarm): all at once would hide what one of them alone shows.

use std::ops::Range;

use strum::{IntoStaticStr, VariantArray};

use crate::dice::Dice;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, IntoStaticStr, VariantArray)]
pub enum Fault {
    #[strum(serialize = "controller killed")]
    KillController,
    #[strum(serialize = "leader killed")]
    KillLeader,
    #[strum(serialize = "all controllers killed")]
    KillAllControllers,
    #[strum(serialize = "killed in the middle of a write")]
    KillInWrite,
    #[strum(serialize = "killed in the middle of a vote")]
    KillInVote,
    #[strum(serialize = "torn tail")]
    TornTail,
    #[strum(serialize = "bit flipped")]
    FlipBit,
    #[strum(serialize = "controller without power")]
    PowerOff,
    #[strum(serialize = "controller isolated")]
    Isolate,
    #[strum(serialize = "majority and minority split")]
    Split,
    #[strum(serialize = "one way cut")]
    OneWay,
    #[strum(serialize = "port refuses")]
    Refuse,
    #[strum(serialize = "messages late, lost, doubled")]
    Weather,
    #[strum(serialize = "slow disk")]
    SlowDisk,
    #[strum(serialize = "disk errors")]
    BrokenDisk,
    #[strum(serialize = "full disk")]
    FullDisk,
    #[strum(serialize = "wall clock set")]
    WallClock,
    #[strum(serialize = "leadership handed over")]
    HandOver,
    #[strum(serialize = "membership changed")]
    Membership,
    #[strum(serialize = "removal that leaves no quorum asked for")]
    RemoveTooMany,
    #[strum(serialize = "agent killed")]
    KillAgent,
    #[strum(serialize = "agent's journal lost")]
    LoseJournal,
    #[strum(serialize = "agent stopped")]
    StopAgent,
    #[strum(serialize = "agent cut off")]
    CutAgent,
    #[strum(serialize = "agent cut off with the old leader")]
    CutAgentFromLeader,
    #[strum(serialize = "old leader met again")]
    OldLeader,
    #[strum(serialize = "agent stopped until its lease ran out")]
    StopAtLeaseEnd,
    #[strum(serialize = "agent's disk slow")]
    SlowJournal,
    #[strum(serialize = "agent cordoned")]
    Cordon,
    #[strum(serialize = "quota changed under load")]
    Quota,
    #[strum(serialize = "rules made and removed")]
    Rules,
    #[strum(serialize = "crowd of submits")]
    Crowd,
}

impl Fault {
    pub const ALL: &[Fault] = Fault::VARIANTS;

    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Fault, String> {
        let found = Fault::ALL.iter().find(|fault| fault.name() == name);
        found.copied().ok_or_else(|| {
            let known: Vec<&str> = Fault::ALL.iter().map(|fault| fault.name()).collect();
            format!("no fault is called {name}; there are: {}", known.join("; "))
        })
    }
}

impl Fault {
    /// Whether it keeps agents and leaders apart for longer than a lease lasts.
    fn is_of_leases(&self) -> bool {
        matches!(
            self,
            Fault::CutAgent | Fault::CutAgentFromLeader | Fault::StopAtLeaseEnd
        )
    }
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
    /// Faults at a time: under many of them a cluster gets nothing done that one of them could spoil.
    pub at_once: usize,
    /// Of faults, in seconds of virtual time.
    pub seconds: u64,
    /// Of 1,000 tasks so many run for longer than a lease lasts, or nearly.
    pub long: u32,
    /// Milliseconds between two requests of a client.
    pub think: Range<u64>,
    /// Entries between two snapshots.
    pub snapshot_every: u64,
    /// Finished tasks that stay in memory.
    pub hot_tasks: u64,
    /// Keep every line of what happens.
    pub all_lines: bool,
}

impl Plan {
    pub fn of(seed: u64) -> Plan {
        Plan::with(seed, &[])
    }

    /// With these faults alone, where there are any.
    pub fn with(seed: u64, only: &[Fault]) -> Plan {
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
        let mut faults: Vec<Fault> = Fault::ALL.iter().filter(drawn).copied().collect();
        // What one of them comes to in the end, others may cut short.
        if dice.permille(400) {
            let few = 0..dice.within(1..4);
            faults = few.filter_map(|_| dice.pick(Fault::ALL).copied()).collect();
        }
        if !only.is_empty() {
            faults = only.to_vec();
        }
        // A lease that outlives its agent's connection shows where something runs for that long.
        let leases = faults.iter().any(Fault::is_of_leases);
        let long = dice.permille(if leases { 500 } else { 150 });
        let shortest = dice.within(100..3_000);
        Plan {
            seed,
            controllers: if dice.permille(250) { 5 } else { 3 },
            // One that may be lost, and another one that is given what it held.
            agents: dice.within(if leases { 2..5 } else { 1..5 }),
            clients: dice.within(1..6),
            faults,
            pause: shortest..shortest * 4,
            at_once: match dice.below(4) {
                0 => 1,
                1 => 2,
                2 => 4,
                _ => usize::MAX,
            },
            seconds: dice.within(if leases { 30..65 } else { 10..45 }),
            long: if long { 300 } else { 30 },
            // Long tasks fill the agents as it is.
            think: if long { 50..1_500 } else { 5..400 },
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
