//! Every kind of fault, one file for each: what it needs, how it is inflicted, what proves it, how it is healed.
//!
//! To add one, see `docs/how-to/add-a-fault.md`.

mod clock_jump;
mod crash_loop;
mod crawl;
mod cut;
mod damage;
mod disk_full;
pub mod failpoint;
mod fall_behind;
mod flap;
mod half_close;
mod hide;
mod kill;
mod late_start;
mod link;
mod noise;
mod pause;
mod power_cut;
mod rejoin;
mod rolling;
mod slow_fsync;
mod terminate;
mod transfer;

use crate::faults::Kind;

/// In the order in which they are shown and drawn: new ones come last.
pub const ALL: &[&[Kind]] = &[
    &kill::KINDS,
    &pause::KINDS,
    &terminate::KINDS,
    &crash_loop::KINDS,
    &transfer::KINDS,
    &rolling::KINDS,
    &cut::KINDS,
    &flap::KINDS,
    &noise::KINDS,
    &half_close::KINDS,
    &link::KINDS,
    &clock_jump::KINDS,
    &disk_full::KINDS,
    &hide::KINDS,
    &failpoint::KINDS,
    &fall_behind::KINDS,
    &power_cut::KINDS,
    &damage::KINDS,
    &slow_fsync::KINDS,
    &rejoin::KINDS,
    &late_start::KINDS,
    &crawl::KINDS,
];
