//! Takes down what happens, from any number of clients at once.
//!
//! An operation is begun before it is sent, so that one whose client is dropped half way is in the history all the
//! same, with an unknown outcome: forgotten it could hide that it happened.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::operation::{Action, Answer, Operation, Outcome};
use super::timeline::{Effect, Fault, Gauge, Heard, Reign};
use super::{History, Moment};

/// Cheap to clone; clones write to the same history.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    next: AtomicU64,
    /// Ended operations in the order of their ends, and all else.
    written: Mutex<History>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

impl Recorder {
    /// Time begins now.
    pub fn new() -> Recorder {
        Recorder(Arc::new(Inner {
            start: Instant::now(),
            next: AtomicU64::new(1),
            written: Mutex::default(),
        }))
    }

    pub fn now(&self) -> Moment {
        self.at(Instant::now())
    }

    pub fn at(&self, instant: Instant) -> Moment {
        Moment::of(instant.saturating_duration_since(self.0.start))
    }

    /// To be called before the request is sent.
    pub fn begin(&self, client: &str, action: Action) -> Pending {
        let operation = Operation {
            id: self.number(),
            client: client.to_owned(),
            action,
            invoked: self.now(),
            answered: None,
            outcome: Outcome::Unknown {
                code: "abandoned".to_owned(),
                message: "the client went away before an answer came".to_owned(),
            },
        };
        Pending {
            recorder: self.clone(),
            operation: Some(operation),
        }
    }

    /// To be called before anything is broken. Whom it hits may be said later, by [`OpenFault::hits`].
    pub fn fault(&self, name: &str, target: &str) -> OpenFault {
        let fault = Fault {
            id: self.number(),
            name: name.to_owned(),
            target: target.to_owned(),
            begun: self.now(),
            effect: None,
            healed: None,
        };
        let id = fault.id;
        self.lock().faults.push(fault);
        OpenFault {
            recorder: self.clone(),
            id,
        }
    }

    /// This controller leads now. The same as before is no news.
    pub fn leads(&self, controller: &str, term: u64) {
        let from = self.now();
        let mut written = self.lock();
        if let Some(last) = written.reigns.last_mut() {
            // Late news of an earlier leader say nothing of now.
            if last.term > term || (last.term == term && last.controller == controller) {
                return;
            }
            last.until = last.until.or(Some(from));
        }
        written.reigns.push(Reign {
            controller: controller.to_owned(),
            term,
            from,
            until: None,
        });
    }

    /// A number for a stream of events.
    pub fn stream(&self) -> u64 {
        self.number()
    }

    pub fn heard(&self, heard: Heard) {
        self.lock().heard.push(heard);
    }

    pub fn gauge(&self, gauge: Gauge) {
        self.lock().gauges.push(gauge);
    }

    /// All that has ended so far, with the operations in the order of their begins.
    pub fn history(&self) -> History {
        let mut history = self.lock().clone();
        history.operations.sort_by_key(|it| (it.invoked, it.id));
        history
    }

    fn number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.0
            .written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// An operation that is under way. Dropped, its outcome is unknown.
#[derive(Debug)]
#[must_use]
pub struct Pending {
    recorder: Recorder,
    operation: Option<Operation>,
}

impl Pending {
    pub fn ok(self, answer: Answer) {
        self.end(Outcome::Ok(answer));
    }

    pub fn refused(self, code: &str, message: &str) {
        let (code, message) = (code.to_owned(), message.to_owned());
        self.end(Outcome::Refused { code, message });
    }

    pub fn unknown(self, code: &str, message: &str) {
        let (code, message) = (code.to_owned(), message.to_owned());
        self.end(Outcome::Unknown { code, message });
    }

    pub fn end(mut self, outcome: Outcome) {
        let answered = Some(self.recorder.now());
        if let Some(operation) = self.operation.take() {
            self.recorder.lock().operations.push(Operation {
                answered,
                outcome,
                ..operation
            });
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(operation) = self.operation.take() {
            self.recorder.lock().operations.push(operation);
        }
    }
}

/// A fault that has begun. It is in the history from its begin on.
#[derive(Debug, Clone)]
pub struct OpenFault {
    recorder: Recorder,
    id: u64,
}

impl OpenFault {
    /// Whom it turned out to hit.
    pub fn hits(&self, target: &str) {
        self.change(|fault| target.clone_into(&mut fault.target));
    }

    /// It took hold, as this shows. The first proof counts.
    pub fn took_effect(&self, proof: &str) {
        let at = self.recorder.now();
        let proof = proof.to_owned();
        self.change(|fault| {
            fault.effect.get_or_insert(Effect { at, proof });
        });
    }

    pub fn healed(&self) {
        let at = self.recorder.now();
        self.change(|fault| fault.healed = fault.healed.or(Some(at)));
    }

    fn change(&self, change: impl FnOnce(&mut Fault)) {
        let mut written = self.recorder.lock();
        let mut faults = written.faults.iter_mut();
        if let Some(fault) = faults.find(|fault| fault.id == self.id) {
            change(fault);
        }
    }
}
