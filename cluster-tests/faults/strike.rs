//! One fault from its beginning to the moment at which nothing is left of it.

use std::fmt;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use crate::Error;
use crate::faults::{Fault, Kind};
use crate::history::{OpenFault, Recorder};
use crate::nodes::Nodes;
use crate::report::span;

/// For the first task after healing: far above the promise, which is for a report to judge.
const SERVED: Duration = Duration::from_secs(60);

/// A fault that lasts.
pub struct Strike {
    kind: &'static Kind,
    fault: Box<dyn Fault>,
    /// The same in the history.
    taken_down: OpenFault,
    what: String,
    begun: Instant,
    holds_until: tokio::time::Instant,
}

/// What became of a strike.
#[derive(Debug, Clone)]
pub struct Report {
    pub name: &'static str,
    /// What was drawn.
    pub what: String,
    pub proof: String,
    /// From the beginning to the healing.
    pub lasted: Duration,
    /// From the healing until a task that was submitted after it had run.
    pub served_after: Duration,
}

impl Strike {
    /// Inflicts a fault, which is in the history from now on.
    pub async fn begin(
        kind: &'static Kind,
        nodes: &Nodes,
        rng: &mut StdRng,
        recorder: &Recorder,
    ) -> Result<Strike, Error> {
        if let Some(why) = kind.missing(nodes.options()) {
            return Err(Error::Invalid(format!("{}: {why}", kind.name)));
        }
        let mut fault = (kind.make)();
        let begun = Instant::now();
        let taken_down = recorder.fault(kind.name, "");
        let what = match fault.inflict(nodes, rng).await {
            Ok(what) => what,
            Err(error) => {
                // The first error counts; this is for whoever uses the cluster further.
                let _healed = fault.heal(nodes).await;
                taken_down.healed();
                return Err(of(kind, error));
            }
        };
        taken_down.hits(&what);
        let holds_until = tokio::time::Instant::now() + fault.hold();
        Ok(Strike {
            kind,
            fault,
            taken_down,
            what,
            begun,
            holds_until,
        })
    }

    /// Waits until it has lasted long enough, has it proved and healed, and waits until the cluster serves. Others
    /// may last on meanwhile, so not all members need be back.
    pub async fn end(mut self, nodes: &Nodes) -> Result<Report, Error> {
        tokio::time::sleep_until(self.holds_until).await;
        let proof = self.fault.prove(nodes).await;
        if let Ok(proof) = &proof {
            self.taken_down.took_effect(proof);
        }
        let lasted = self.begun.elapsed();
        let healed = Instant::now();
        let healing = self.fault.heal(nodes).await;
        self.taken_down.healed();
        let proof = proof.map_err(|error| of(self.kind, error))?;
        healing.map_err(|error| of(self.kind, error))?;
        nodes.until_serving(SERVED).await?;
        Ok(Report {
            name: self.kind.name,
            what: self.what,
            proof,
            lasted,
            served_after: healed.elapsed(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}: {}; {}; lasted {}, served after {}",
            self.name,
            self.what,
            self.proof,
            span(self.lasted),
            span(self.served_after)
        )
    }
}

/// With the name of the fault; what kind of error it is stays.
fn of(kind: &Kind, error: Error) -> Error {
    match error {
        Error::Invalid(why) => Error::Invalid(format!("{}: {why}", kind.name)),
        other => other,
    }
}
