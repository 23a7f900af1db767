//! The environment of a task: clean, the same on every agent, plus what the spec says.

use std::collections::BTreeMap;
use std::path::Path;

use crate::executor::Attempt;
use crate::process::{MARK_VARIABLE, Settings};

/// The spec may replace anything but the mark and the identity of the attempt.
pub(super) fn of(
    attempt: &Attempt,
    settings: &Settings,
    scratch: &Path,
    mark: &str,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::from([
        ("PATH".to_owned(), settings.path.clone()),
        ("HOME".to_owned(), scratch.display().to_string()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ]);
    variables.extend(attempt.spec.env.clone());
    let fence = attempt.fence;
    variables.extend([
        ("TASK_ID".to_owned(), fence.task.to_string()),
        ("TASK_EPOCH".to_owned(), fence.epoch.0.to_string()),
        ("TASK_ATTEMPT".to_owned(), attempt.number.to_string()),
        (MARK_VARIABLE.to_owned(), mark.to_owned()),
    ]);
    variables
}
