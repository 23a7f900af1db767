//! Task specs. Defaults that belong to a kind are filled in here, so that what is committed is
//! complete.

use model::{Endpoint, Expression, Millis, Namespace};

use super::{Malformed, labels_in, labels_out};
use crate::v1;

/// Where none was given.
const DEFAULT_NAMESPACE: &str = "default";

impl From<&model::TaskSpec> for v1::TaskSpec {
    fn from(spec: &model::TaskSpec) -> v1::TaskSpec {
        let process = || v1::ProcessSpec {
            command: spec.command.clone(),
            env: spec
                .env
                .iter()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            cwd: spec.cwd.clone(),
        };
        v1::TaskSpec {
            name: spec.name.clone(),
            namespace: spec.namespace.to_string(),
            process: spec.inference.is_none().then(process),
            labels: labels_out(&spec.labels),
            require: spec.require.iter().map(Expression::to_string).collect(),
            timeout_ms: spec.timeout.map_or(0, |span| span.0),
            deadline_ms: spec.deadline.map_or(0, |span| span.0),
            retries: Some(spec.retries),
            at_most_once: spec.at_most_once,
            memory_mib: spec.memory_mib.unwrap_or(0),
            inference: spec.inference.as_deref().map(|it| Box::new(it.into())),
            attachments: spec
                .blobs
                .attachments
                .iter()
                .map(v1::Attachment::from)
                .collect(),
            bulk: spec
                .blobs
                .bulk
                .as_ref()
                .map(|bulk| Box::new(bulk.blob.into())),
            class: spec.class.map_or("", model::Class::as_str).into(),
            cpu_milli: spec.hardware.cpu_milli,
            gpus: spec.hardware.gpus,
            vram_mib: spec.hardware.vram_mib,
            prefer: spec.prefer.iter().map(Expression::to_string).collect(),
            preemptible: spec.preemptible,
        }
    }
}

impl From<&model::Inference> for v1::InferenceSpec {
    fn from(inference: &model::Inference) -> v1::InferenceSpec {
        let endpoint = match inference.endpoint {
            Endpoint::ChatCompletions => v1::Endpoint::ChatCompletions,
            Endpoint::Completions => v1::Endpoint::Completions,
            Endpoint::Embeddings => v1::Endpoint::Embeddings,
        };
        v1::InferenceSpec {
            model: inference.model.clone(),
            endpoint: endpoint.into(),
            request: inference.request.clone(),
        }
    }
}

impl TryFrom<v1::InferenceSpec> for model::Inference {
    type Error = Malformed;

    fn try_from(spec: v1::InferenceSpec) -> Result<model::Inference, Malformed> {
        let endpoint = match spec.endpoint() {
            v1::Endpoint::ChatCompletions => Endpoint::ChatCompletions,
            v1::Endpoint::Completions => Endpoint::Completions,
            v1::Endpoint::Embeddings => Endpoint::Embeddings,
            v1::Endpoint::Unspecified => return Err(Malformed::missing("the endpoint")),
        };
        Ok(model::Inference {
            model: spec.model,
            endpoint,
            request: spec.request,
        })
    }
}

/// Conditions on an agent.
pub(super) fn require_in(texts: &[String]) -> Result<Vec<Expression>, Malformed> {
    let parsed = texts.iter().map(|text| text.parse::<Expression>());
    let parsed: Result<_, _> = parsed.collect();
    parsed.map_err(|error: model::label::ParseError| Malformed(error.to_string()))
}

impl TryFrom<v1::TaskSpec> for model::TaskSpec {
    type Error = Malformed;

    fn try_from(spec: v1::TaskSpec) -> Result<model::TaskSpec, Malformed> {
        let namespace = match spec.namespace.as_str() {
            "" => DEFAULT_NAMESPACE,
            given => given,
        };
        let namespace = Namespace::new(namespace)?;
        let mut read = match (spec.process, spec.inference) {
            (Some(process), None) => model::TaskSpec {
                env: process.env.into_iter().collect(),
                cwd: process.cwd,
                ..model::TaskSpec::process(namespace, process.command)
            },
            (None, Some(inference)) => {
                model::TaskSpec::inference(namespace, (*inference).try_into()?)
            }
            (Some(_), Some(_)) => {
                let text = "a command and an inference: a task is one of them";
                return Err(Malformed(text.into()));
            }
            (None, None) => return Err(Malformed("no command to run, and no model to ask".into())),
        };
        let mut require = require_in(&spec.require)?;
        // Its own model is required, said or not.
        let implied = std::mem::take(&mut read.require);
        require.extend(
            implied
                .into_iter()
                .filter(|it| !spec.require.contains(&it.to_string())),
        );
        let attachments = spec.attachments.into_iter();
        let attachments = attachments.map(model::Attachment::try_from);
        read.blobs.attachments = attachments.collect::<Result<_, _>>()?;
        let bulk = spec.bulk.map(|bulk| model::BlobRef::try_from(*bulk));
        let bulk = bulk.transpose()?;
        let read = model::TaskSpec {
            name: spec.name,
            labels: labels_in(spec.labels)?,
            require,
            prefer: require_in(&spec.prefer)?.into(),
            preemptible: spec.preemptible,
            timeout: nonzero(spec.timeout_ms).map(Millis),
            deadline: nonzero(spec.deadline_ms).map(Millis),
            retries: spec.retries.unwrap_or(read.retries),
            at_most_once: spec.at_most_once,
            memory_mib: nonzero(spec.memory_mib),
            class: class(&spec.class)?,
            hardware: model::Hardware {
                cpu_milli: spec.cpu_milli,
                gpus: spec.gpus,
                vram_mib: spec.vram_mib,
            },
            ..read
        };
        Ok(match bulk {
            Some(blob) => read.with_bulk(blob),
            None => read,
        })
    }
}

/// On the wire an empty one says: the kind's own.
fn class(name: &str) -> Result<Option<model::Class>, Malformed> {
    let given = (!name.is_empty()).then(|| name.parse::<model::Class>());
    let given = given.transpose();
    given.map_err(|error| Malformed(error.to_string()))
}

/// On the wire 0 says: no limit.
fn nonzero(value: u64) -> Option<u64> {
    (value > 0).then_some(value)
}
