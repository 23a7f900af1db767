//! A scan over recent pairs and the engine below them as if they were one.

use std::io;
use std::ops::{ControlFlow, Range};

use crate::store::engine::{Batch, Key, LogEngine, Visit};

/// Visits the pairs of a range in order. A recent pair hides the engine's of the same key, also where it is a removal.
pub fn scan(
    recent: Batch,
    below: &dyn LogEngine,
    range: Range<Key>,
    visit: &mut Visit<'_>,
) -> io::Result<()> {
    let mut recent = recent.into_iter().peekable();
    let mut ended = false;
    below.scan(range, &mut |key, value| {
        let mut hidden = false;
        while let Some((above, pair)) = recent.next_if(|(above, _)| above.as_slice() <= key) {
            hidden = above == key;
            if let Some(pair) = pair
                && visit(&above, &pair).is_break()
            {
                ended = true;
                return ControlFlow::Break(());
            }
        }
        if !hidden && visit(key, value).is_break() {
            ended = true;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    if ended {
        return Ok(());
    }
    for (key, value) in recent {
        if let Some(value) = value
            && visit(&key, &value).is_break()
        {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::memory::MemoryEngine;

    fn pairs<V: Strategy>(value: V) -> impl Strategy<Value = BTreeMap<Key, V::Value>> {
        prop::collection::btree_map(prop::collection::vec(0..20_u8, 1), value, 0..12)
    }

    proptest! {
        // A failing case is printed; a file of it would land beside the crates.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_shows_what_one_map_of_both_would(
            below in pairs(prop::collection::vec(any::<u8>(), 1)),
            recent in pairs(prop::option::of(prop::collection::vec(any::<u8>(), 1))),
            limit in 1..20_usize,
        ) {
            let engine = MemoryEngine::default();
            let changes = |pairs: &BTreeMap<Key, Vec<u8>>| -> Batch {
                pairs.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect()
            };
            engine.commit(changes(&below)).unwrap();
            let mut one: Batch = changes(&below);
            one.extend(recent.clone());
            let wanted: Vec<_> = one.into_iter().filter_map(|(key, value)| Some((key, value?))).take(limit).collect();
            let mut found = Vec::new();
            scan(recent, &engine, vec![0]..vec![99], &mut |key, value| {
                found.push((key.to_vec(), value.to_vec()));
                match found.len() == limit {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            }).unwrap();
            prop_assert_eq!(found, wanted);
        }
    }
}
