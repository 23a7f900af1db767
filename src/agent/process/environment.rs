//! The environment of a task: clean, the same on every agent, plus what the spec says.

use std::collections::BTreeMap;
use std::path::Path;

use crate::executor::Attempt;
use crate::process::{MARK_VARIABLE, Settings};

/// What CUDA goes by, and HIP too.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// The spec may replace anything but the mark, the identity of the attempt and which GPUs it has. On a machine with GPUs a
/// task that asked for none sees none, so that it does not use another one's, unless its spec says which.
///
/// # Errors
///
/// It has a GPU that this machine does not have (any more).
pub(super) fn of(
    attempt: &Attempt,
    settings: &Settings,
    scratch: &Path,
    mark: &str,
) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::from([
        ("PATH".to_owned(), settings.path.clone()),
        ("HOME".to_owned(), scratch.display().to_string()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
    ]);
    let gpus = gpus(attempt, settings)?;
    if !settings.gpus.is_empty() {
        variables.insert(VISIBLE.to_owned(), String::new());
    }
    variables.extend(attempt.spec.env.clone());
    if !gpus.is_empty() {
        variables.insert(VISIBLE.to_owned(), gpus.join(","));
        // So that numbers mean what drivers' tools mean by them; CUDA's own order is by speed.
        let order = ("CUDA_DEVICE_ORDER".to_owned(), "PCI_BUS_ID".to_owned());
        variables.extend([order]);
    }
    let fence = attempt.fence;
    variables.extend([
        ("TASK_ID".to_owned(), fence.task.to_string()),
        ("TASK_EPOCH".to_owned(), fence.epoch.0.to_string()),
        ("TASK_ATTEMPT".to_owned(), attempt.number.to_string()),
        (MARK_VARIABLE.to_owned(), mark.to_owned()),
    ]);
    Ok(variables)
}

/// What its GPUs are called.
fn gpus<'a>(attempt: &Attempt, settings: &'a Settings) -> Result<Vec<&'a str>, String> {
    let name = |place: &u16| {
        let name = settings.gpus.get(usize::from(*place));
        name.map(String::as_str)
            .ok_or_else(|| format!("it was assigned GPU {place}, which is not there"))
    };
    attempt.gpus.iter().map(name).collect()
}
