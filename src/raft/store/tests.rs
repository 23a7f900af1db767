//! openraft's own conformance suite, and what it leaves out: what is on disk after a restart.

mod conformance;
mod crashes;
mod records;
mod reopening;
mod writing;
