//! When a run is to come to its end: after its time, when somebody asks for it, or when it can't go on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Cheap to clone; asking one is asking all its clones, and those made of it by [`Ending::after`].
#[derive(Debug, Clone)]
pub struct Ending {
    asked: Arc<watch::Sender<bool>>,
    /// What this one is a part of: all runs.
    whole: Option<Arc<watch::Sender<bool>>>,
    at: Option<Instant>,
}

impl Default for Ending {
    fn default() -> Ending {
        Ending {
            asked: Arc::new(watch::Sender::new(false)),
            whole: None,
            at: None,
        }
    }
}

impl Ending {
    /// With this one, or by itself, and after so much time at the latest.
    pub fn after(&self, length: Duration) -> Ending {
        Ending {
            asked: Arc::new(watch::Sender::new(false)),
            whole: Some(Arc::clone(&self.asked)),
            at: Some(Instant::now() + length),
        }
    }

    /// Asks for the end.
    pub fn ask(&self) {
        self.asked.send_replace(true);
    }

    pub fn was_asked(&self) -> bool {
        let whole = self.whole.as_ref();
        *self.asked.borrow() || whole.is_some_and(|whole| *whole.borrow())
    }

    pub fn is_over(&self) -> bool {
        self.was_asked() || self.at.is_some_and(|at| at <= Instant::now())
    }

    /// Waits so long, or until it is over.
    pub async fn pause(&self, length: Duration) {
        let until = Instant::now() + length;
        let until = self.at.map_or(until, |at| at.min(until));
        let mut asked = self.asked.subscribe();
        let whole = self.whole.as_ref().unwrap_or(&self.asked);
        let mut whole = whole.subscribe();
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            // The senders live as long as this value.
            _asked = asked.wait_for(|asked| *asked) => {}
            _asked = whole.wait_for(|asked| *asked) => {}
        }
    }
}
