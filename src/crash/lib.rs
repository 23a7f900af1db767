//! For tests only: kills processes in the middle of writing, and cuts the power of the file system below them.
//!
//! ```text
//! Writer   this very test, called again: it writes, and acknowledges what it promises (Life)
//!    │     a random number of acknowledgements, and a moment
//! Disk     shut down without writing its journal out: what was not synced is gone
//!    │     kill, umount, mount
//! check    all that was acknowledged before the cut is there, and nothing is there by half
//! ```
//!
//! [`Cuts`] is that, again and again on one disk. It needs root, loop devices and a few tools; without them
//! it says so, and fails where `QUORATE_REQUIRE_ALL` is set. What a writer does and what must be there
//! afterwards is the business of each crate's own tests, which see its private files; so this is a crate
//! that those use in tests alone. It panics where an error would only be unwrapped.
//!
//! Left out: a disk that loses what it said was flushed. Below the file system nothing is lost here.

mod apart;
mod cuts;
mod disk;
mod writer;

use std::str::FromStr;

pub use cuts::{Cuts, skip};
pub use disk::{Disk, cut_power_below, tool};
pub use writer::{Life, Writer};

/// How often something is done: what the variable says, else `default`.
pub fn count<N: FromStr>(variable: &str, default: N) -> N {
    std::env::var(variable)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
