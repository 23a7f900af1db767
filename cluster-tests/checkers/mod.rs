//! Pure judges. They are given what was seen, and answer with what it breaks, never with a guess.

mod convergence;
mod history;

pub use convergence::{check_hashes, is_converged};
pub use history::{Execution, Final, History, Outcome, Record, Violation, check};
