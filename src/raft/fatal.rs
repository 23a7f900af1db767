//! The end of a member: the first reason why it must not go on.
//!
//! A failed write, a torn consensus core or an entry that can't be decoded are not repaired while
//! running. Whoever notices reports here; the process exits with the reason and starts again from what
//! is on disk.

use std::sync::Arc;

use tokio::sync::watch;

#[derive(Clone, Debug)]
pub struct FatalSignal(Arc<watch::Sender<Option<Arc<str>>>>);

impl Default for FatalSignal {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl FatalSignal {
    /// Only the first reason is kept: what follows is its consequence.
    pub fn raise(&self, reason: &str) {
        self.0.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                tracing::error!(reason, "this controller can't go on");
                *current = Some(Arc::from(reason));
            }
            first
        });
    }

    pub fn reason(&self) -> Option<Arc<str>> {
        self.0.borrow().clone()
    }

    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.0.subscribe()
    }
}
