//! One session with one controller: dialled, kept, and dialled again when it is lost.
//!
//! ```text
//!  worker's frames ─┐                                ┌─► orders, to the worker
//!  chunks of output ┴─► numbered ─► gRPC stream ─► … ┴─► requests for output, served here
//! ```
//!
//! Frames count from 1 in each direction; a gap or a repetition ends the session, for then one side
//! does not know what the other did. What was said on a lost session is not said again here: the
//! worker says what still matters on the next one.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::{AgentProfile, Backend, Generation, Gpus};
use security::{Alpn, Credentials, Expected, KeyFiles, Role};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, UnboundedSender, channel};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};
use wire::convert::{self, Malformed};
use wire::transport::{self, Timers};
use wire::v1;
use wire::v1::agent_frame::Body;
use wire::v1::controller_frame::Body as Order;

use crate::backoff::{AFTER_REFUSAL, Backoff};
use crate::output::Logs;
use crate::tail::Tails;
use crate::worker::{Said, SessionId, Stamp};

/// Frames that wait for the connection; beyond it the session's own writer waits. Few, because
/// a renewal stands behind them: with full chunks of output this is 1 MiB.
const OUTGOING: usize = 16;
/// What the worker may say ahead of the connection, beside two frames for each slot. More means that
/// the controller does not read: the session ends, and another one begins.
const SAID: usize = 1_024;
/// How long a controller may take to answer the hello: to connect, the handshakes and a queue.
const OPENING: Duration = Duration::from_secs(10);
/// Chunks of output in flight, of at most 64 KiB each: a slow reader costs 1 MiB.
const CHUNKS: usize = 16;
/// Frames whose answer is awaited, to measure the round trip.
const PROBES: usize = 8;

/// What every session needs.
pub(crate) struct Context {
    pub profile: AgentProfile,
    pub cluster_id: String,
    pub identity_dir: PathBuf,
    pub logs: Arc<Logs>,
    pub events: UnboundedSender<Event>,
    pub next_session: AtomicU64,
    /// Of the cluster, as the journal knows it; 0 before a controller told it.
    pub generation: AtomicU64,
    /// What its back ends offer; the profile leaves it out.
    pub offered: watch::Receiver<Vec<Backend>>,
}

/// What a session tells the agent.
pub(crate) enum Event {
    /// The controller took it; from now on frames may be said through `voice`, and it is given up when
    /// that is dropped.
    Opened {
        session: SessionId,
        address: String,
        welcome: v1::Welcome,
        generation: u64,
        voice: Voice,
    },
    /// The cluster's controllers changed.
    Moved {
        session: SessionId,
        welcome: v1::Welcome,
    },
    Said {
        session: SessionId,
        stamp: Stamp,
        said: Said,
    },
    Latency {
        session: SessionId,
        micros: u32,
    },
    Closed {
        session: SessionId,
    },
    /// Says when everything before it was handled: output may be asked for right behind the
    /// assignment of the attempt.
    Turn(oneshot::Sender<()>),
}

/// The worker's end of a session. Dropped, it ends the session at once, though frames may still wait
/// and the controller read none.
pub(crate) struct Voice {
    frames: Sender<Body>,
    _held: DropGuard,
}

/// Why a frame was not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsaid {
    /// The session ended.
    Ended,
    /// The controller does not read.
    Full,
}

impl Voice {
    pub fn say(&self, body: Body) -> Result<(), Unsaid> {
        self.frames.try_send(body).map_err(|error| match error {
            TrySendError::Closed(_) => Unsaid::Ended,
            TrySendError::Full(_) => Unsaid::Full,
        })
    }
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Identity(#[from] security::Error),
    #[error("{}", .0.message())]
    Status(Box<Status>),
    #[error("it refused this agent: {0}")]
    Refused(String),
    #[error("it closed the session")]
    Closed,
    #[error("it did not answer within {OPENING:?}")]
    Silent,
    #[error("its frame {got} came where {wanted} was due")]
    Sequence { got: u64, wanted: u64 },
    #[error("it sent something unreadable: {0}")]
    Malformed(#[from] Malformed),
    #[error("it did not read what this agent said")]
    GivenUp,
    #[error("the agent ends")]
    Ending,
}

impl From<Status> for Lost {
    fn from(status: Status) -> Lost {
        Lost::Status(Box::new(status))
    }
}

/// Keeps a session with the controller at `address`, until it is dropped.
pub(crate) async fn keep(context: Arc<Context>, address: String) {
    let mut backoff = Backoff::default();
    let mut told = String::new();
    loop {
        let session = SessionId(context.next_session.fetch_add(1, Ordering::Relaxed));
        let (lasted, lost) = match open(&context, &address, session).await {
            Ok(link) => {
                let since = Instant::now();
                let lost = link.run(&context).await.err().unwrap_or(Lost::Closed);
                (since.elapsed(), lost)
            }
            Err(lost) => (Duration::ZERO, lost),
        };
        if context.events.send(Event::Closed { session }).is_err() {
            return;
        }
        if backoff.forgive(lasted) {
            told.clear();
        }
        // Once for each reason: a controller that is off would fill the log.
        let reason = lost.to_string();
        if reason != told {
            tracing::warn!(%address, %reason, "no session with this controller");
            told = reason;
        }
        let wait = match lost {
            Lost::Refused(_) | Lost::Identity(_) => AFTER_REFUSAL,
            Lost::Status(_)
            | Lost::Closed
            | Lost::Silent
            | Lost::Sequence { .. }
            | Lost::Malformed(_)
            | Lost::GivenUp
            | Lost::Ending => backoff.next(),
        };
        tokio::time::sleep(wait).await;
    }
}

/// Dials, says hello, and hears whether this agent is welcome.
async fn open(context: &Context, address: &str, session: SessionId) -> Result<Link, Lost> {
    // Read anew each time: certificates are renewed while the agent runs.
    let credentials = Credentials::load(&KeyFiles::in_directory(&context.identity_dir))?;
    let expected = Expected::any(Role::Controller);
    let tls = security::client_config(&credentials, expected, Alpn::H2)?;
    let connection = transport::channel(address, tls, Timers::default());
    let mut client = v1::sessions_client::SessionsClient::new(connection)
        .max_decoding_message_size(transport::MESSAGE_LIMIT)
        .max_encoding_message_size(transport::MESSAGE_LIMIT);

    let (frames, outgoing) = channel(OUTGOING);
    let mut writer = Writer {
        frames,
        seq: 0,
        ack: 0,
        probes: VecDeque::new(),
    };
    writer.send(Body::Hello(hello(context))).await?;
    let opening = async {
        let connected = client.connect(ReceiverStream::new(outgoing)).await?;
        let mut incoming = connected.into_inner();
        let first = writer.welcome(&mut incoming).await?;
        Ok::<_, Lost>((incoming, first))
    };
    let opened = timeout(OPENING, opening).await.map_err(|_| Lost::Silent)?;
    let (incoming, (generation, welcome)) = opened?;
    tracing::info!(%address, controller = %welcome.controller, "opened a session");
    let slots = usize::try_from(context.profile.slots).unwrap_or(SAID);
    let (frames, said) = channel(SAID + 2 * slots);
    let given_up = CancellationToken::new();
    let voice = Voice {
        frames,
        _held: given_up.clone().drop_guard(),
    };
    let (chunks, written) = channel(CHUNKS);
    let tails = Tails::new(Arc::clone(&context.logs), chunks);
    tell(
        context,
        Event::Opened {
            session,
            address: address.to_owned(),
            welcome,
            generation,
            voice,
        },
    )?;
    Ok(Link {
        session,
        writer,
        incoming,
        said,
        given_up,
        written,
        tails,
    })
}

/// An agent that was in no cluster yet names none.
fn hello(context: &Context) -> v1::Hello {
    let generation = context.generation.load(Ordering::Relaxed);
    let cluster_id = if generation == 0 {
        String::new()
    } else {
        context.cluster_id.clone()
    };
    let profile = AgentProfile {
        backends: context.offered.borrow().clone(),
        ..context.profile.clone()
    };
    convert::hello(&profile, cluster_id, Generation(generation))
}

fn tell(context: &Context, event: Event) -> Result<(), Lost> {
    context.events.send(event).map_err(|_| Lost::Ending)
}

/// The numbered frames of one connection.
struct Writer {
    frames: Sender<v1::AgentFrame>,
    /// Of the last frame that was sent.
    seq: u64,
    /// Of the last frame that was handled.
    ack: u64,
    /// Statuses, which are answered at once, by number, and when they were sent.
    probes: VecDeque<(u64, Instant)>,
}

impl Writer {
    async fn send(&mut self, body: Body) -> Result<(), Lost> {
        self.seq += 1;
        if matches!(body, Body::Status(_)) {
            self.probes.push_back((self.seq, Instant::now()));
            if self.probes.len() > PROBES {
                self.probes.pop_front();
            }
        }
        let frame = v1::AgentFrame {
            seq: self.seq,
            ack: self.ack,
            body: Some(body),
        };
        self.frames.send(frame).await.map_err(|_| Lost::Closed)
    }

    /// Checks the number of a frame that came.
    fn take(&mut self, frame: &v1::ControllerFrame) -> Result<(), Lost> {
        let wanted = self.ack + 1;
        if frame.seq != wanted {
            return Err(Lost::Sequence {
                got: frame.seq,
                wanted,
            });
        }
        self.ack = wanted;
        Ok(())
    }

    async fn welcome(
        &mut self,
        incoming: &mut Streaming<v1::ControllerFrame>,
    ) -> Result<(u64, v1::Welcome), Lost> {
        let first = incoming.message().await?.ok_or(Lost::Closed)?;
        self.take(&first)?;
        match first.body {
            Some(Order::Welcome(welcome)) => Ok((first.generation, welcome)),
            Some(Order::Refused(v1::Refused { reason })) => Err(Lost::Refused(reason)),
            _ => Err(Malformed("a session begins with Welcome".into()).into()),
        }
    }

    /// The time in microseconds since the latest probe that `frame` answers. Only a bare
    /// acknowledgement is sent at once: any other frame waited for something, such as a quorum.
    fn round_trip(&mut self, frame: &v1::ControllerFrame) -> Option<u32> {
        if frame.body.is_some() {
            return None;
        }
        let mut latest = None;
        while let Some((seq, sent)) = self.probes.front().copied()
            && seq <= frame.ack
        {
            latest = Some(sent);
            self.probes.pop_front();
        }
        latest.map(|sent| u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX))
    }
}

/// An open session.
struct Link {
    session: SessionId,
    writer: Writer,
    incoming: Streaming<v1::ControllerFrame>,
    /// By the worker.
    said: Receiver<Body>,
    /// The worker let go of it.
    given_up: CancellationToken,
    /// By attempts, to whom the controller asked to listen.
    written: Receiver<Body>,
    tails: Tails,
}

impl Link {
    async fn run(mut self, context: &Context) -> Result<(), Lost> {
        let given_up = self.given_up.clone();
        // Wherever it waits: a frame that is not read is waited for inside an arm.
        tokio::select! {
            biased;
            () = given_up.cancelled() => Err(Lost::GivenUp),
            ended = self.carry(context) => ended,
        }
    }

    async fn carry(&mut self, context: &Context) -> Result<(), Lost> {
        loop {
            tokio::select! {
                biased;
                body = self.said.recv() => match body {
                    Some(body) => self.writer.send(body).await?,
                    None => return Err(Lost::GivenUp),
                },
                frame = self.incoming.message() => {
                    let frame = frame?.ok_or(Lost::Closed)?;
                    self.writer.take(&frame)?;
                    if let Some(micros) = self.writer.round_trip(&frame) {
                        tell(context, Event::Latency { session: self.session, micros })?;
                    }
                    order(context, self.session, frame, &mut self.tails)?;
                }
                Some(chunk) = self.written.recv() => self.writer.send(chunk).await?,
            }
        }
    }
}

/// Does what concerns output, and passes on what concerns the work.
fn order(
    context: &Context,
    session: SessionId,
    frame: v1::ControllerFrame,
    tails: &mut Tails,
) -> Result<(), Lost> {
    let stamp = Stamp {
        generation: Generation(frame.generation),
        term: frame.term,
    };
    let said = match frame.body {
        None => return Ok(()),
        Some(Order::Welcome(welcome)) => return tell(context, Event::Moved { session, welcome }),
        Some(Order::Refused(v1::Refused { reason })) => return Err(Lost::Refused(reason)),
        Some(Order::Tail(tail)) => {
            let (taken, turn) = oneshot::channel();
            tails.start(tail, turn);
            return tell(context, Event::Turn(taken));
        }
        Some(Order::Untail(v1::Untail { id })) => {
            tails.stop(id);
            return Ok(());
        }
        Some(Order::Leader(v1::Leader { leading: true })) => Said::Leading,
        Some(Order::Leader(v1::Leader { leading: false })) => Said::Following,
        Some(Order::Assign(assign)) => assigned(assign)?,
        Some(Order::Cancel(cancel)) => cancelled(&cancel)?,
        Some(Order::RenewAck(v1::RenewAck { nonce })) => Said::Renewed { nonce },
        Some(Order::VerdictAck(ack)) => settled(&ack)?,
        Some(Order::BackendsSet(told)) => Said::Backends(convert::backends_set_in(told)),
    };
    tell(
        context,
        Event::Said {
            session,
            stamp,
            said,
        },
    )
}

fn assigned(assign: v1::Assign) -> Result<Said, Malformed> {
    let spec = assign
        .spec
        .ok_or_else(|| Malformed("an assignment has no spec".into()))?;
    let spec = Arc::new(model::TaskSpec::try_from(*spec)?);
    let after = assign.after.into_iter();
    let after = after.map(|fence| convert::fence(Some(fence)));
    Ok(Said::Assign {
        fence: convert::fence(assign.fence)?,
        number: assign.attempt,
        gpus: gpus(&assign.gpus)?,
        after: after.collect::<Result<_, _>>()?,
        spec,
    })
}

fn gpus(places: &[u32]) -> Result<Gpus, Malformed> {
    let place = |place: &u32| u16::try_from(*place);
    let places = places.iter().map(place).collect::<Result<_, _>>();
    places.map_err(|_| Malformed("an assignment names a GPU that there can't be".into()))
}

fn cancelled(cancel: &v1::Cancel) -> Result<Said, Malformed> {
    let fence = convert::fence(cancel.fence)?;
    match cancel.cause() {
        v1::CancelCause::Cancelled => Ok(Said::Cancel { fence }),
        v1::CancelCause::Stale => Ok(Said::Stale { fence }),
        v1::CancelCause::Recalled => Ok(Said::Recall { fence }),
        v1::CancelCause::Evicted => Ok(Said::Evict { fence }),
        v1::CancelCause::Preempted => Ok(Said::Preempt { fence }),
        v1::CancelCause::Unspecified => Err(Malformed("a cancel has no cause".into())),
    }
}

fn settled(ack: &v1::VerdictAck) -> Result<Said, Malformed> {
    let disposition = match ack.disposition() {
        v1::Disposition::Accepted => model::Disposition::Accepted,
        v1::Disposition::Duplicate => model::Disposition::Duplicate,
        v1::Disposition::Stale => model::Disposition::Stale,
        v1::Disposition::UnknownTask => model::Disposition::UnknownTask,
        v1::Disposition::Unspecified => {
            return Err(Malformed("a verdict's disposition is missing".into()));
        }
    };
    Ok(Said::Settled {
        fence: convert::fence(ack.fence)?,
        disposition,
    })
}
