//! The checkers against histories made by hand: good ones, and one for each way to be bad. A checker that never caught
//! anything would prove nothing.

mod ends;
mod listening;
pub mod made;
mod replayed;
mod searched;
