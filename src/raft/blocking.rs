//! Blocking work, taken off the runtime's own threads.

use std::io;

use futures::FutureExt;
use futures::future::BoxFuture;
use openraft::AsyncRuntime;

/// Boxed, because the runtime's own future carries the caller's lifetimes in its type, which the compiler
/// then can't prove to be `Send` where it is spawned.
pub fn run<R, T, F>(work: F) -> BoxFuture<'static, io::Result<T>>
where
    R: AsyncRuntime,
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    let running = R::spawn_blocking(work);
    async move { running.await? }.boxed()
}
