//! Blocking work, taken off the runtime's own threads; or not, where a simulation has but one.

use std::io;

use futures::FutureExt;
use futures::future::{self, BoxFuture};
use openraft::AsyncRuntime;

/// Where work that blocks on the disk is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    OwnThread,
    /// A simulated disk does not block.
    InPlace,
}

impl Blocking {
    /// Boxed, because the runtime's own future carries the caller's lifetimes in its type, which the
    /// compiler then can't prove to be `Send` where it is spawned.
    pub fn run<R, T, F>(self, work: F) -> BoxFuture<'static, io::Result<T>>
    where
        R: AsyncRuntime,
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        match self {
            Self::InPlace => future::ready(work()).boxed(),
            Self::OwnThread => {
                let running = R::spawn_blocking(work);
                async move { running.await? }.boxed()
            }
        }
    }
}
