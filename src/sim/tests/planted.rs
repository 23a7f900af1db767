//! That the simulation still finds what it once found: each bug that can be planted, under a fault that brings it out.
//!
//! How many seeds it takes without that help is counted by `make sim ARGS=--mutants`.

use std::sync::Mutex;

use mutant::Mutant;

use sim::{Fault, Plan, run};

/// Most take one or two, the slowest nine.
const SEEDS: u64 = 40;

/// The fault that brings a bug out: what is wrong stays hidden without it, or while others cut it short.
fn brought_out_by(mutant: Mutant) -> Fault {
    match mutant {
        Mutant::AckBeforeFsync => Fault::KillInWrite,
        Mutant::VoteNotSynced | Mutant::ReadyTooEarly => Fault::KillInVote,
        Mutant::TruncationForgotten | Mutant::ObeysOldLeader | Mutant::SettledForgotten => {
            Fault::OldLeader
        }
        Mutant::AssignNotRepeated => Fault::FullDisk,
        Mutant::StampFromWallClock => Fault::WallClock,
        Mutant::CordonIgnored => Fault::Cordon,
        Mutant::StaleRead
        | Mutant::LeaseWithoutQuorum
        | Mutant::LeasesNotRestarted
        | Mutant::NoEpochCheck => Fault::CutAgentFromLeader,
        Mutant::LeaseTooLong => Fault::CutAgent,
        Mutant::LeaseCutShort
        | Mutant::ExpiredLeaseRenewed
        | Mutant::AtMostOnceRepeats
        | Mutant::CapacityUnchecked
        | Mutant::ResourcesUnchecked
        // There are two agents at least, so that one of them is not as is required.
        | Mutant::LabelsUnchecked
        | Mutant::NoDedupe => Fault::StopAtLeaseEnd,
        Mutant::JournalForgotten | Mutant::ReportForgotten => Fault::KillAgent,
        Mutant::IncarnationIgnored => Fault::LoseJournal,
        Mutant::StartBeforeJournal => Fault::SlowJournal,
        Mutant::RunningQuotaUnchecked | Mutant::QueuedQuotaUnchecked => Fault::Quota,
        Mutant::RulesUnchecked => Fault::Rules,
        Mutant::ClassIgnored | Mutant::ShareIgnored => Fault::Crowd,
        Mutant::RemovalUnchecked => Fault::RemoveTooMany,
        Mutant::SampleUntold
        | Mutant::PreemptsItsEqual
        | Mutant::VictimNotAwaited
        | Mutant::EventsDropped
        | Mutant::ApplyOutOfOrder
        | Mutant::ArchiveLosesTasks
        | Mutant::HashForgotten
        | Mutant::EpochNotTheIndex
        | Mutant::VerdictAckedEarly => Fault::StopAgent,
    }
}

/// After how many seeds, and what broke.
fn found(mutant: Mutant) -> Option<(u64, String)> {
    let fault = brought_out_by(mutant);
    mutant::plant(Some(mutant));
    let mut reports = (0..SEEDS).map(|seed| run(&Plan::with(seed, &[fault])));
    let found = reports.find(|report| !report.holds());
    mutant::plant(None);
    found.map(|report| {
        let first = report.violations.first().map(ToString::to_string);
        (report.seed + 1, first.unwrap_or_default())
    })
}

#[test]
fn every_planted_bug_is_found() {
    let missed = Mutex::new(Vec::new());
    let left = Mutex::new(Mutant::ALL.iter());
    let look = || {
        while let Some(mutant) = { left.lock().unwrap().next() } {
            match found(*mutant) {
                Some((seeds, what)) => println!("{:<24} {seeds:>3}  {what}", mutant.name()),
                None => missed.lock().unwrap().push(mutant.name()),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(look);
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "hidden for {SEEDS} seeds: {missed:?}");
}
