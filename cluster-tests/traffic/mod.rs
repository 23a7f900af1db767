//! Work for a cluster, and a record of what it answered.

pub mod bench_agent;
mod caller;
mod executions;
mod load;
mod model_server;
mod onlooker;
mod prober;

pub use caller::{Caller, Failure};
pub use executions::ExecutionLog;
pub use load::{Load, Running, finals, unanswered};
pub use model_server::ModelServer;
pub use onlooker::Onlookers;
pub use prober::{Ack, Prober};

use wire::v1;

/// A spec with nothing but a command, in the default namespace.
pub fn process<S: Into<String>>(command: impl IntoIterator<Item = S>) -> v1::TaskSpec {
    v1::TaskSpec {
        namespace: DEFAULT_NAMESPACE.to_owned(),
        process: Some(v1::ProcessSpec {
            command: command.into_iter().map(Into::into).collect(),
            ..v1::ProcessSpec::default()
        }),
        ..v1::TaskSpec::default()
    }
}

/// A submit with a request id of its own, so that it may be repeated.
pub fn submit(spec: v1::TaskSpec) -> v1::SubmitRequest {
    v1::SubmitRequest {
        spec: Some(spec),
        request_id: uuid::Uuid::new_v4().to_string(),
        wait_ms: 0,
    }
}

const DEFAULT_NAMESPACE: &str = "default";
