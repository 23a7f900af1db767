//! The end of a member: the first reason why it must not go on.
//!
//! A failed write, a torn consensus core or an entry that can't be decoded are not repaired while
//! running. Whoever notices reports here; the process exits with the reason and starts again from what
//! is on disk.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
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

    /// Runs one of the member's own tasks. A panic would end it unseen, and leave a member behind that looks
    /// alive and never answers; so it ends the member.
    pub fn watch(
        &self,
        what: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let fatal = self.clone();
        let task = AssertUnwindSafe(task).catch_unwind();
        async move {
            if task.await.is_err() {
                fatal.raise(&format!("{what} panicked; this is a defect"));
            }
        }
    }

    pub fn reason(&self) -> Option<Arc<str>> {
        self.0.borrow().clone()
    }

    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_ends_the_member_and_one_that_ends_does_not() {
        let fatal = FatalSignal::default();
        tokio::spawn(fatal.watch("a good task", async {}))
            .await
            .unwrap();
        assert_eq!(fatal.reason(), None);
        tokio::spawn(fatal.watch("a bad task", async { panic!("oh") }))
            .await
            .unwrap();
        let reason = fatal.reason().unwrap();
        assert!(reason.contains("a bad task panicked"), "{reason}");
    }
}
