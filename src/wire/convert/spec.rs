//! Task specs. Defaults that belong to a kind are filled in here, so that what is committed is
//! complete.

use model::{Expression, Kind, Millis, Namespace};

use super::{Malformed, labels_in, labels_out};
use crate::v1;

/// Where none was given.
const DEFAULT_NAMESPACE: &str = "default";

impl From<&model::TaskSpec> for v1::TaskSpec {
    fn from(spec: &model::TaskSpec) -> v1::TaskSpec {
        v1::TaskSpec {
            name: spec.name.clone(),
            namespace: spec.namespace.to_string(),
            process: Some(v1::ProcessSpec {
                command: spec.command.clone(),
                env: spec
                    .env
                    .iter()
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect(),
                cwd: spec.cwd.clone(),
            }),
            labels: labels_out(&spec.labels),
            require: spec.require.iter().map(Expression::to_string).collect(),
            timeout_ms: spec.timeout.map_or(0, |span| span.0),
            deadline_ms: spec.deadline.map_or(0, |span| span.0),
            retries: Some(spec.retries),
            at_most_once: spec.at_most_once,
            memory_mib: spec.memory_mib.unwrap_or(0),
        }
    }
}

impl TryFrom<v1::TaskSpec> for model::TaskSpec {
    type Error = Malformed;

    fn try_from(spec: v1::TaskSpec) -> Result<model::TaskSpec, Malformed> {
        let process = spec
            .process
            .ok_or_else(|| Malformed("no command to run".into()))?;
        let namespace = match spec.namespace.as_str() {
            "" => DEFAULT_NAMESPACE,
            given => given,
        };
        let mut require = Vec::with_capacity(spec.require.len());
        for text in &spec.require {
            let parsed = text.parse::<Expression>();
            require.push(parsed.map_err(|error| Malformed(error.to_string()))?);
        }
        Ok(model::TaskSpec {
            name: spec.name,
            namespace: Namespace::new(namespace)?,
            command: process.command,
            env: process.env.into_iter().collect(),
            cwd: process.cwd,
            labels: labels_in(spec.labels)?,
            require,
            timeout: nonzero(spec.timeout_ms).map(Millis),
            deadline: nonzero(spec.deadline_ms).map(Millis),
            retries: spec.retries.unwrap_or(Kind::Process.default_retries()),
            at_most_once: spec.at_most_once,
            memory_mib: nonzero(spec.memory_mib),
        })
    }
}

/// On the wire 0 says: no limit.
fn nonzero(value: u64) -> Option<u64> {
    (value > 0).then_some(value)
}
