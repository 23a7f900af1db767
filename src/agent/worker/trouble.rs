//! The agent's own trouble: a full disk, no descriptors, no memory, processes that it can't watch. A
//! task is not to blame for it, and an agent in trouble must not work off the queue by failing what
//! others could run. So it gives back what it has, says that it takes nothing, and tries again after
//! a pause.

use model::Millis;

use crate::worker::{Effect, Worker};

/// The first pause; doubled each time until something starts.
const FIRST: Millis = Millis(1_000);
/// The longest: so long after the trouble is over an agent may idle.
const LONGEST: Millis = Millis(60_000);

#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// Nothing starts until then.
    until: Option<Millis>,
    /// The last pause; unset where all is well.
    pause: Option<Millis>,
}

impl Trouble {
    pub fn is_over(&self) -> bool {
        self.until.is_none()
    }

    /// Something started.
    pub fn forget(&mut self) {
        self.pause = None;
    }
}

impl Worker {
    /// Those that were begun at the same time fail with the first one, and are one trouble.
    pub(super) fn pause(&mut self, now: Millis, reason: &str, out: &mut Vec<Effect>) {
        if !self.trouble.is_over() {
            return;
        }
        let last = self.trouble.pause;
        let pause = last.map_or(FIRST, |last| Millis((last.0 * 2).min(LONGEST.0)));
        tracing::error!(%reason, pause_ms = pause.0, "can't run anything: giving back what waits");
        self.trouble.pause = Some(pause);
        self.trouble.until = Some(Millis(now.0.saturating_add(pause.0)));
        self.say_status_to_all(out);
        self.decline_waiting(out);
    }

    pub(super) fn end_pause_if_due(&mut self, now: Millis, out: &mut Vec<Effect>) {
        if self.trouble.until.is_some_and(|until| now >= until) {
            self.trouble.until = None;
            self.say_status_to_all(out);
        }
    }
}
