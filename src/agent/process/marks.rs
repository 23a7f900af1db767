//! Marks: a variable in the environment by which a process of this agent is known again, whatever it
//! did to its group, session or parents.
//!
//! ```text
//! QUORATE_ATTEMPT=INSTANCE.RUN.FENCE
//! ```
//!
//! The instance is the data directory's, and outlives a journal that is lost: whatever carries it is
//! ended at the next start. The run is this process's: its guard ends what carries it, and nothing that
//! an agent started in the meantime.

use std::fmt;

use model::Fence;

/// The variable.
pub(crate) const MARK_VARIABLE: &str = "QUORATE_ATTEMPT";

/// Names a data directory: 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance(String);

impl Instance {
    pub fn new() -> Instance {
        Instance(format!("{:016x}", rand::random::<u64>()))
    }

    /// Nothing where that is none: it becomes part of paths.
    pub fn parse(text: &str) -> Option<Instance> {
        let fits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        fits.then(|| Instance(text.to_owned()))
    }

    /// What all marks of this data directory begin with, of whatever run.
    pub fn prefix(&self) -> String {
        format!("{}.", self.0)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The marks of one run of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marks {
    instance: Instance,
    run: String,
}

impl Marks {
    pub fn new(instance: Instance) -> Marks {
        let run = format!("{:08x}", rand::random::<u32>());
        Marks { instance, run }
    }

    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// Unlike any other run's.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// What the marks of this run begin with.
    pub fn prefix(&self) -> String {
        format!("{}{}.", self.instance.prefix(), self.run)
    }

    /// Unique for an attempt.
    pub fn of(&self, fence: Fence) -> String {
        format!("{}{fence}", self.prefix())
    }
}
