//! Every test of this crate, in one binary: the pure parts first, then whole clusters.
//!
//! Each cluster test brings a cluster of its own, and they take turns, since their limits are those of
//! a machine that does nothing else. What a test did and how long things took goes to stderr in any
//! case. `QUORATE_KEEP=1` keeps the directories; a failed test always keeps its own.

#[cfg(test)]
mod agents;
mod archive;
#[cfg(test)]
mod bench_agent_protocol;
#[cfg(test)]
mod blobs;
#[cfg(test)]
mod breaking;
#[cfg(test)]
mod bring_up;
#[cfg(test)]
mod campaigns;
#[cfg(test)]
mod clock;
#[cfg(test)]
mod controllers;
#[cfg(test)]
mod data_dirs;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod dev;
#[cfg(test)]
mod drains;
#[cfg(test)]
mod failpoints;
#[cfg(test)]
mod fleet;
#[cfg(test)]
mod following;
#[cfg(test)]
mod full_disks;
#[cfg(test)]
mod history;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod inference;
mod input;
#[cfg(test)]
mod interrupts;
#[cfg(test)]
mod joining;
#[cfg(test)]
mod leader;
#[cfg(test)]
mod membership;
#[cfg(test)]
mod networks;
#[cfg(test)]
mod offline;
#[cfg(test)]
mod offline_data;
#[cfg(test)]
mod parsing;
mod policies;
#[cfg(test)]
mod preemption;
mod process_tasks;
mod program;
#[cfg(test)]
mod readiness;
#[cfg(test)]
mod recording;
#[cfg(test)]
mod reporting;
#[cfg(test)]
mod resources;
#[cfg(test)]
mod rules;
mod shape;
mod shares;
#[cfg(test)]
mod site;
#[cfg(test)]
mod verbs;
#[cfg(test)]
mod versions;
#[cfg(test)]
mod wal;
#[cfg(test)]
mod why;
