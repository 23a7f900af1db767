//! One attempt of a process, from its scratch directory to the last of its descendants.
//!
//! ```text
//! launcher: scratch ─► program ─► limit ─► spawn
//!                                            │
//!     ┌──────────────────────────────────────┘
//!     ├─► wait (pidfd) ───────► kill group, and what left it ─► reap ─► tidy up
//!     │     timeout, stop: TERM,    ▲
//!     │     grace, then all KILL ───┘
//!     └─► copy stdout and stderr until their end
//! ```
//!
//! All attempts share a few threads, so nothing here may wait for a disk: what a process prints goes
//! to memory, and another thread writes it down.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, join, select};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::Shared;
use super::launcher::Launched;
use super::limits::Confinement;
use super::orphans::{Left, Remains};
use super::prepare::{Failed, Order, Prepared};
use super::roster::ROSTER;
use super::signals::{Group, kill_exactly};
use crate::executor::{Attempt, Exit, Hands, Urgency};
use crate::output::{AttemptLog, Stream};

/// After the process and all its descendants ended, only what is in the pipe is left to copy. A pipe
/// that still does not end is held by a process that can't be killed, and is given up.
const DRAIN: Duration = Duration::from_secs(1);
/// How much longer a disk that is behind may take to make room for the rest. Its writes do stall for
/// seconds, under load; an attempt whose disk hangs must end all the same.
const STALL: Duration = Duration::from_secs(5);
/// Read from a pipe at once: what a pipe holds.
const READ_BYTES: usize = 64 * 1024;
/// Read at first.
const FIRST_READ_BYTES: usize = 512;
/// A process in an uninterruptible call dies when the call returns; until then it is told again.
const KILL_AGAIN: Duration = Duration::from_secs(1);

pub(super) async fn run(shared: Arc<Shared>, attempt: Attempt, hands: Hands) -> Exit {
    let mut listed = Listed::new(shared.settings.marks.of(attempt.fence));
    let limit = attempt
        .spec
        .timeout
        .map(|span| Duration::from_millis(span.0));
    let order = Order {
        shared: Arc::clone(&shared),
        attempt,
        mark: listed.mark.clone(),
        stop: hands.stop.clone(),
    };
    let Prepared {
        scratch,
        confinement,
        launched,
    } = shared.launcher.launch(order).await;
    let exit = match launched {
        Ok(launched) => {
            listed.main = Some(launched.mark.pid);
            supervise(
                &shared,
                launched,
                &listed,
                hands,
                limit,
                confinement.as_ref(),
            )
            .await
        }
        Err(Failed::Task(why)) => Exit::NotStarted(why),
        Err(Failed::Agent(why)) => Exit::Unable(why),
        Err(Failed::Stopped) => Exit::Prevented,
        Err(Failed::Unwatched(why)) => Exit::Lost(why),
    };
    if let Some(confinement) = confinement {
        confinement.end().await;
    }
    drop(listed);
    shared.sweeper.look();
    if let Some(scratch) = scratch {
        shared.scratch.release(scratch);
    }
    exit
}

async fn supervise(
    shared: &Shared,
    launched: Launched,
    listed: &Listed,
    hands: Hands,
    limit: Option<Duration>,
    confinement: Option<&Confinement>,
) -> Exit {
    let Hands {
        output,
        started,
        stop,
    } = hands;
    let pid = launched.mark.pid;
    match Supervised::new(shared, launched, &listed.mark, confinement) {
        Ok((process, stdout, stderr, running)) => {
            started(Some(running));
            process.watch(stdout, stderr, &output, limit, stop).await
        }
        Err(error) => {
            // Out of descriptors: what can't be watched must not run.
            super::kill_group(pid);
            Exit::Lost(format!("can't watch it: {error}"))
        }
    }
}

/// The attempt's entry in the roster: taken out however this ends, so that the sweeper ends what
/// nobody watches any more.
struct Listed {
    mark: String,
    main: Option<i32>,
}

impl Listed {
    fn new(mark: String) -> Listed {
        ROSTER.begin(&mark);
        Listed { mark, main: None }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        ROSTER.end(&self.mark, self.main);
    }
}

/// A process that runs.
struct Supervised<'a> {
    shared: &'a Shared,
    confinement: Option<&'a Confinement>,
    mark: &'a str,
    pid: i32,
    group: Group,
    pidfd: AsyncFd<OwnedFd>,
}

/// Why it was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    TimedOut,
    Stopped,
}

type Running<'a> = (
    Supervised<'a>,
    pipe::Receiver,
    pipe::Receiver,
    crate::journal::ProcessMark,
);

impl<'a> Supervised<'a> {
    fn new(
        shared: &'a Shared,
        launched: Launched,
        mark: &'a str,
        confinement: Option<&'a Confinement>,
    ) -> io::Result<Running<'a>> {
        let Launched {
            mark: running,
            pidfd,
            stdout,
            stderr,
        } = launched;
        let group = Group::new(running.pid).ok_or_else(|| io::Error::other("it has no group"))?;
        let pidfd = watched(pidfd)?;
        let stdout = pipe::Receiver::from_owned_fd(stdout)?;
        let stderr = pipe::Receiver::from_owned_fd(stderr)?;
        let process = Supervised {
            shared,
            confinement,
            mark,
            pid: running.pid,
            group,
            pidfd,
        };
        Ok((process, stdout, stderr, running))
    }

    /// Until it and all of its descendants ended.
    async fn watch(
        &self,
        stdout: pipe::Receiver,
        stderr: pipe::Receiver,
        output: &Arc<AttemptLog>,
        timeout_after: Option<Duration>,
        stop: watch::Receiver<Urgency>,
    ) -> Exit {
        let copies = join(
            copy(stdout, output, Stream::Stdout),
            copy(stderr, output, Stream::Stderr),
        );
        let (copies, ended) = (pin!(copies), pin!(self.ended(timeout_after, stop)));
        match select(ended, copies).await {
            Either::Left((exit, mut copies)) => {
                let mut whole = timeout(DRAIN, &mut copies).await.is_ok();
                if !whole && output.is_behind() {
                    whole = timeout(STALL, copies).await.is_ok();
                }
                if !whole {
                    let pid = self.pid;
                    let disk_is_behind = output.is_behind();
                    tracing::warn!(pid, disk_is_behind, "gave up on output that does not end");
                }
                exit
            }
            Either::Right((_, ended)) => ended.await,
        }
    }

    async fn ended(&self, timeout_after: Option<Duration>, stop: watch::Receiver<Urgency>) -> Exit {
        let cause = self.wait(timeout_after, stop).await;
        // Its number is not given away before it is reaped: so this is still its group.
        self.group.kill();
        if let Some(confinement) = self.confinement {
            confinement.kill();
        }
        if Remains::new(self.mark.to_owned(), self.pid).end().await == Left::Perhaps {
            ROSTER.outlaw(self.mark);
            self.shared.sweeper.look();
        }
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = waitid(WaitId::PidFd(self.pidfd.get_ref().as_fd()), options);
        match (cause, status) {
            (Some(Cause::TimedOut), _) => Exit::TimedOut,
            (Some(Cause::Stopped), _) => Exit::Stopped,
            (None, Ok(Some(status))) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Exited(code),
                (None, Some(signal)) => Exit::Signalled(signal),
                (None, None) => Exit::Lost("it ended in an unknown way".to_owned()),
            },
            (None, other) => {
                tracing::error!(pid = self.pid, ?other, "lost a process that was watched");
                Exit::Lost("its end could not be seen".to_owned())
            }
        }
    }

    /// Until the process itself is dead, and not yet reaped. Why, if it was told to.
    async fn wait(
        &self,
        timeout_after: Option<Duration>,
        mut stop: watch::Receiver<Urgency>,
    ) -> Option<Cause> {
        let mut cause = None;
        let mut killed = false;
        let mut deadline = timeout_after.and_then(|span| Instant::now().checked_add(span));
        loop {
            // Where nobody is left to stop it, the agent is going down, and it with it.
            let watched = stop.has_changed().is_ok();
            let urgency = if watched {
                *stop.borrow_and_update()
            } else {
                Urgency::AtOnce
            };
            let rushed = urgency == Urgency::AtOnce && !killed;
            if rushed || (urgency == Urgency::Gently && cause.is_none()) {
                cause.get_or_insert(Cause::Stopped);
                killed |= rushed;
                deadline = Some(self.press(rushed).await);
            }
            tokio::select! {
                biased;
                _ = self.pidfd.readable() => return cause,
                // Either way the loop looks at it again.
                _ = stop.changed(), if watched => {}
                () = until(deadline) => {
                    killed |= cause.is_some();
                    cause.get_or_insert(Cause::TimedOut);
                    deadline = Some(self.press(killed).await);
                }
            }
        }
    }

    /// Asks it to end, or makes it. When to press harder.
    async fn press(&self, hard: bool) -> Instant {
        if hard {
            ROSTER.outlaw(self.mark);
            self.shared.sweeper.look();
            // Seen before they lose their parent, and so the way to them.
            let descendants = self.shared.sweeper.descendants(self.pid).await;
            self.group.kill();
            descendants.iter().for_each(kill_exactly);
            if let Some(confinement) = self.confinement {
                confinement.kill();
            }
            return Instant::now() + KILL_AGAIN;
        }
        self.group.terminate();
        Instant::now() + self.shared.settings.grace
    }
}

#[expect(
    deprecated,
    reason = "what replaces it is unsafe, because a type may give away another descriptor each \
              time it is asked; an `OwnedFd` can't"
)]
fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Until its end, and the disk has all of it.
async fn copy(pipe: pipe::Receiver, output: &Arc<AttemptLog>, stream: Stream) {
    read(pipe, output, stream).await;
    output.stored(stream).await;
}

async fn read(pipe: pipe::Receiver, output: &Arc<AttemptLog>, stream: Stream) {
    // Most attempts write little or nothing, so the large buffer is made when it is needed.
    let mut buffer = vec![0; FIRST_READ_BYTES];
    loop {
        if pipe.readable().await.is_err() {
            return;
        }
        match pipe.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => {
                output.write(stream, &buffer[..count]).await;
                if count == buffer.len() {
                    buffer.resize(READ_BYTES, 0);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::warn!(%error, stream = stream.name(), "could not read output");
                return;
            }
        }
    }
}
