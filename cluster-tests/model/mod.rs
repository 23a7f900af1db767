//! What clients may be told, without a look into the log: a specification, and the search that holds a history to it.
//!
//! [`search`] is general: it finds an order of some operations that explains all their answers, or shows that there is
//! none. [`task`] is what one task does. Tasks do not touch each other in what the API promises, so each
//! is judged by itself, which keeps the search small.

pub mod search;
pub mod task;
