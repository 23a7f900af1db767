//! The whole log once more, from nothing: each decision is made again from what is written beside it, and compared.

use std::collections::BTreeMap;

use model::{Entry, Stamped, State};
use scheduler::{Remade, Remaking};

use crate::report::Counts;

/// What an entry said, by its index; nothing of one that carries no operations. With its term.
pub type Entries = BTreeMap<u64, (u64, Option<Entry>)>;

const DECIDED: &str = "decisions can be made again";
const STATE: &str = "I6 the log alone makes the state";

/// Up to the first entry that nobody told of.
pub fn decide(
    entries: Entries,
    hash_of: impl Fn(u64) -> Option<[u8; 32]>,
) -> (Vec<(&'static str, String)>, Counts) {
    let mut broken = Vec::new();
    let mut counts = Counts::default();
    let mut remaking = Remaking::from(State::default());
    let all = (0..).zip(entries);
    for (_, (index, (term, entry))) in all.take_while(|(next, (index, _))| next == index) {
        let remade = match entry {
            None => {
                remaking.note_index(index, term);
                Remade::Nothing
            }
            Some(entry) => {
                let (remade, _) = remaking.apply(Stamped {
                    index,
                    term,
                    // It tells who holds blobs, of which there are none.
                    membership: 0,
                    entry,
                });
                remade
            }
        };
        match remade {
            Remade::Nothing => {}
            Remade::Same(decisions) => {
                *counts.entry(DECIDED).or_default() += decisions as u64;
            }
            Remade::Unknown(why) => *counts.entry(why).or_default() += 1,
            Remade::Different(what) => broken.push((DECIDED, format!("entry {index}: {what}"))),
        }
        if hash_of(index).is_some_and(|hash| hash != remaking.state().hash()) {
            broken.push((STATE, format!("not as of entry {index}")));
            break;
        }
    }
    (broken, counts)
}
