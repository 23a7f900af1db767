//! An agent that runs nothing: it says what a real one would. `hold` leaves an attempt running,
//! everything else succeeds and echoes its arguments. An argument `endless` makes its full output one
//! line without an end, of ten MiB.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use security::Role;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use wire::v1;
use wire::v1::agent_frame::Body;
use wire::v1::controller_frame::Body as Said;
use wire::v1::sessions_client::SessionsClient;

use super::fixture::{Fixture, PATIENCE};
use crate::node::Node;

/// Runs until dropped.
pub struct FakeAgent {
    task: JoinHandle<()>,
    words: mpsc::UnboundedSender<Body>,
    pub seen: Arc<Mutex<Vec<Said>>>,
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeAgent {
    /// With a session at this controller, and four slots.
    pub async fn connect(fixture: &Fixture, node: &Node, id: &str) -> FakeAgent {
        let (mut session, frames) = Session::open(fixture, node, id).await;
        session.say(Body::Hello(hello(id)));
        let seen = Arc::clone(&session.seen);
        let (words, heard) = mpsc::unbounded_channel();
        FakeAgent {
            task: tokio::spawn(session.run(frames, heard)),
            words,
            seen,
        }
    }

    /// Something that it would not say by itself.
    pub fn say(&self, body: Body) {
        self.words.send(body).unwrap();
    }

    /// Waits until its controller has confirmed this renewal.
    pub async fn until_renewed(&self, nonce: u64) {
        let answered = async {
            while !self.is_renewed(nonce) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.unwrap();
    }

    pub fn is_renewed(&self, nonce: u64) -> bool {
        self.said(|said| *said == Said::RenewAck(v1::RenewAck { nonce }))
    }

    pub fn said(&self, wanted: impl Fn(&Said) -> bool) -> bool {
        self.seen.lock().unwrap().iter().any(wanted)
    }
}

pub fn hello(id: &str) -> v1::Hello {
    v1::Hello {
        agent: id.into(),
        incarnation: vec![7; 16].into(),
        slots: 4,
        version: "test".into(),
        limits: "rlimit".into(),
        protocol: model::AgentProtocol::NEWEST.0,
        ..v1::Hello::default()
    }
}

/// A session's raw ends.
pub struct Session {
    frames: mpsc::UnboundedSender<v1::AgentFrame>,
    seq: u64,
    seen: Arc<Mutex<Vec<Said>>>,
    id: String,
    /// Tasks whose full output is endless.
    endless: HashSet<u64>,
}

/// Bytes in one frame of output.
const FRAME: usize = 1024 * 1024;
/// Bytes of an endless line.
pub const ENDLESS: usize = 10 * FRAME;

impl Session {
    pub async fn open(
        fixture: &Fixture,
        node: &Node,
        id: &str,
    ) -> (Session, Streaming<v1::ControllerFrame>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut client = SessionsClient::new(fixture.channel(node, Role::Agent, id));
        let outbound = UnboundedReceiverStream::new(receiver);
        let frames = client.connect(outbound).await.unwrap().into_inner();
        let seen = Arc::default();
        (
            Session {
                frames: sender,
                seq: 0,
                seen,
                id: id.to_owned(),
                endless: HashSet::new(),
            },
            frames,
        )
    }

    pub fn say(&mut self, body: Body) {
        self.seq += 1;
        self.say_as(self.seq, body);
    }

    pub fn say_as(&self, seq: u64, body: Body) {
        // The controller may have closed the session.
        let _closed = self.frames.send(v1::AgentFrame {
            seq,
            ack: 0,
            body: Some(body),
        });
    }

    async fn run(
        mut self,
        mut frames: Streaming<v1::ControllerFrame>,
        mut words: mpsc::UnboundedReceiver<Body>,
    ) {
        let mut due = 0;
        loop {
            let frame = tokio::select! {
                Some(body) = words.recv() => {
                    self.say(body);
                    continue;
                }
                frame = frames.message() => frame,
            };
            let Ok(Some(frame)) = frame else { return };
            due += 1;
            assert_eq!(frame.seq, due, "frames are counted");
            // One without a body only acknowledges.
            let Some(body) = frame.body else { continue };
            self.seen.lock().unwrap().push(body.clone());
            self.answer(body);
        }
    }

    fn answer(&mut self, body: Said) {
        match body {
            Said::Leader(v1::Leader { leading: true }) => {
                self.say(Body::Known(v1::Known {
                    attempts: Vec::new(),
                }));
                self.say(Body::Renew(v1::Renew { nonce: 1 }));
                let id = self.id.clone();
                let status = v1::DeviceStatus {
                    id,
                    cpu_load: 250,
                    ..Default::default()
                };
                self.say(Body::Status(v1::Status {
                    status: Some(status),
                    ..Default::default()
                }));
            }
            Said::Assign(assign) => self.run_attempt(assign),
            Said::Tail(tail) => self.output(tail),
            Said::Cancel(cancel) => {
                let killed = v1::outcome::End::Killed(v1::Killed {
                    reason: cancel.reason,
                });
                self.verdict(cancel.fence.unwrap(), killed, Vec::new());
            }
            Said::Welcome(_)
            | Said::Leader(_)
            | Said::RenewAck(_)
            | Said::VerdictAck(_)
            | Said::Untail(_)
            | Said::BackendsSet(_)
            | Said::Refused(_) => {}
        }
    }

    fn run_attempt(&mut self, assign: v1::Assign) {
        let (fence, command) = (
            assign.fence.unwrap(),
            assign.spec.unwrap().process.unwrap().command,
        );
        self.say(Body::Started(v1::Started { fence: Some(fence) }));
        if command[0] == "hold" {
            return;
        }
        if command.iter().any(|word| word == "endless") {
            self.endless.insert(fence.task);
        }
        let exited = v1::outcome::End::Exited(v1::Exited {
            code: Some(0),
            signal: None,
        });
        self.verdict(fence, exited, command[1..].join(" ").into_bytes());
    }

    fn verdict(&mut self, fence: v1::Fence, end: v1::outcome::End, stdout: Vec<u8>) {
        // "long" stands for an output of which only the end is kept.
        let before = if stdout.starts_with(b"long") {
            1_000
        } else {
            0
        };
        let outcome = v1::Outcome {
            end: Some(end),
            stdout_bytes: before + stdout.len() as u64,
            stdout: stdout.into(),
            ..v1::Outcome::default()
        };
        self.say(Body::Verdict(v1::Verdict {
            fence: Some(fence),
            outcome: Some(outcome),
        }));
    }

    /// The full output is three lines on stdout, unless it is endless, and nothing on stderr.
    fn output(&mut self, tail: v1::Tail) {
        let endless = tail
            .fence
            .is_some_and(|fence| self.endless.contains(&fence.task));
        let mut full: bytes::Bytes = if endless {
            vec![b'x'; ENDLESS].into()
        } else {
            b"one\ntwo\nthree\n".to_vec().into()
        };
        let mut offset = tail.offset;
        let mut data = match tail.stream() {
            v1::OutputStream::Stdout => full.split_off(usize::try_from(offset).unwrap()),
            v1::OutputStream::Stderr | v1::OutputStream::Unspecified => bytes::Bytes::new(),
        };
        loop {
            let piece = data.split_to(data.len().min(FRAME));
            let next = offset + piece.len() as u64;
            self.say(Body::Output(v1::Output {
                id: tail.id,
                offset,
                data: piece,
                end: !tail.follow && data.is_empty(),
                gone: false,
            }));
            if data.is_empty() {
                return;
            }
            offset = next;
        }
    }
}
