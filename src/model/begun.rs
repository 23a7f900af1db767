//! When tasks were begun lately: whether a line is served.
//!
//! A user's tasks of one class take turns by age. So a task whose user's older ones are begun, one after the other, is
//! being served: its turn comes. Where younger ones alone are, on machines that it can't use, or none is, it is not.

use serde::{Deserialize, Serialize};

use crate::id::TaskId;

/// Kept at most; what is known of longer ago is forgotten.
const KEPT_MAX: usize = 8;

/// Beginnings of a tenant's tasks of one class: enough to tell for each task when one that came no later was begun last.
///
/// Both the tasks and the times increase: who came later than another one and was begun before it says nothing more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Begun(Vec<(TaskId, u64)>);

impl Begun {
    /// One is begun, at a time that is not before the last one's. Of those within one `cell` of time, in the order of
    /// their age, the first is kept alone, so that what is told is too early by less than that.
    pub fn note(&mut self, task: TaskId, time: u64, cell: u64) {
        let older = self.0.partition_point(|(id, _)| *id < task);
        self.0.truncate(older);
        let cell = cell.max(1);
        if self
            .0
            .last()
            .is_some_and(|(_, at)| at / cell == time / cell)
        {
            return;
        }
        self.0.push((task, time));
        if self.0.len() > KEPT_MAX {
            self.0.remove(0);
        }
    }

    /// When it, or one that came before it, was begun last, as far as that is known.
    pub fn up_to(&self, task: TaskId) -> Option<u64> {
        let older = self.0.partition_point(|(id, _)| *id <= task);
        let (_, at) = self.0.get(older.checked_sub(1)?)?;
        Some(*at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_tells_when_one_that_came_no_later_was_begun_last(
            cell in 1_u64..20,
            steps in prop::collection::vec((0_u64..40, 0_u64..6), 0..60),
        ) {
            let (mut begun, mut all, mut now) = (Begun::default(), Vec::new(), 0);
            let mut kept_from = 0;
            for (id, passed) in steps {
                now += passed;
                begun.note(TaskId(id), now, cell);
                all.push((id, now));
                if begun.0.len() == KEPT_MAX {
                    kept_from = kept_from.max(begun.0[0].1);
                }
                prop_assert!(begun.0.len() <= KEPT_MAX);
                prop_assert!(begun.0.is_sorted_by(|one, next| one.0 < next.0 && one.1 <= next.1));
            }
            for asked in 0..40 {
                let last = all.iter().filter(|(id, _)| *id <= asked).map(|(_, at)| *at).max();
                match (begun.up_to(TaskId(asked)), last) {
                    (Some(told), Some(last)) => {
                        prop_assert!(told <= last && last < (told / cell + 1) * cell, "{told} {last}");
                    }
                    (None, Some(last)) => prop_assert!(last <= kept_from, "{last} is forgotten"),
                    (told, None) => prop_assert_eq!(told, None),
                }
            }
        }
    }
}
