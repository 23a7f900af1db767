//! Blocking work, taken off the runtime's own threads; or not, where a simulation has but one.

use std::io;
use std::thread;

use futures::FutureExt;
use futures::future::{self, BoxFuture};
use openraft::AsyncRuntime;

/// A tenth of what a thread of the usual priority gets of a busy core.
const NICE: i32 = 10;

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

    /// The same for work that nobody waits for, on a thread that gives way to all others: it would else take a core
    /// from those who are waited for.
    pub fn run_aside<R, T, F>(self, work: F) -> BoxFuture<'static, io::Result<T>>
    where
        R: AsyncRuntime,
        T: Send + 'static,
        F: FnOnce() -> io::Result<T> + Send + 'static,
    {
        match self {
            Self::InPlace => self.run::<R, _, _>(work),
            Self::OwnThread => self.run::<R, _, _>(|| {
                let aside = || {
                    // Of this thread alone. Where it is refused the work is done all the same.
                    rustix::process::nice(NICE).ok();
                    work()
                };
                // A thread of its own: one of the pool could not be given its priority back.
                thread::scope(|scope| {
                    let running = thread::Builder::new().spawn_scoped(scope, aside)?;
                    let ended = running.join();
                    ended.unwrap_or_else(|_| Err(io::Error::other("work beside panicked")))
                })
            }),
        }
    }
}
