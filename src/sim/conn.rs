//! One connection between an agent and a controller: frames in order, each way, as long as both processes live and
//! the network carries them.
//!
//! What the product says in protobuf between `dispatch` and the agent's worker is passed on as it is: the
//! translation has tests of its own.

use std::sync::Arc;
use std::time::Duration;

use agent::parts::{Said, Stamp};
use dispatch::{Cause, Message, SessionId};
use model::Generation;
use openraft_rt_sim::SimRuntime;
use raft::parts::openraft::async_runtime::AsyncRuntime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wire::v1::agent_frame::Body;

use crate::agents::AgentBoot;
use crate::controller::Boot;
use crate::network::Place;
use crate::reactor::{Renewal, Signal};
use crate::world::World;

/// A way that carries nothing for so long is given up.
const SILENCE: Duration = Duration::from_secs(10);

/// From the leader, decided in this term.
pub struct Down {
    pub generation: Generation,
    pub term: u64,
    /// The last entry that it had applied.
    pub as_of: u64,
    pub message: Message,
}

/// The controller's end of a connection.
pub struct Conn {
    pub down: mpsc::UnboundedSender<Down>,
    pub broken: CancellationToken,
}

/// The agent's end.
pub struct Line {
    pub up: mpsc::UnboundedSender<Body>,
}

/// What both ends share while it lasts.
#[derive(Clone)]
pub struct Ends {
    pub world: Arc<World>,
    pub agent: Arc<AgentBoot>,
    pub controller: Arc<Boot>,
    /// The controller's number for it.
    pub session: SessionId,
    /// The agent's.
    pub line: agent::parts::SessionId,
    pub broken: CancellationToken,
}

impl Ends {
    fn place(&self) -> Place {
        self.agent.agent.place
    }

    /// Carries the agent's frames, in order.
    pub async fn carry_up(self, mut frames: mpsc::UnboundedReceiver<Body>) {
        while let Some(body) = frames.recv().await {
            let network = &self.world.network;
            let came = network.carry(self.place(), self.controller.id, SILENCE);
            if !came.await || !self.controller.is_alive() {
                break;
            }
            self.hear(body);
        }
        self.broken.cancel();
    }

    /// Carries the controller's frames, in order.
    pub async fn carry_down(self, mut frames: mpsc::UnboundedReceiver<Down>) {
        while let Some(down) = frames.recv().await {
            let network = &self.world.network;
            let came = network.carry(self.controller.id, self.place(), SILENCE);
            if !came.await || !self.agent.is_alive() {
                break;
            }
            if let Some(said) = said(down.message) {
                let stamp = Stamp {
                    generation: down.generation,
                    term: down.term,
                };
                self.agent.heard(self.line, stamp, said, down.as_of);
            }
        }
        self.broken.cancel();
    }

    fn hear(&self, body: Body) {
        let session = self.session;
        let input = match body {
            Body::Renew(renew) => {
                let received = self.controller.core.now().monotonic;
                let renewal = Renewal {
                    session,
                    nonce: renew.nonce,
                    received,
                };
                // The receiver leaves only when the process is gone.
                self.controller.renewals.send(renewal).ok();
                return;
            }
            Body::Status(status) => {
                let told = status.status.unwrap_or_default();
                dispatch::Input::Status {
                    session,
                    load: dispatch::Load {
                        cpu: told.cpu_load,
                        others: told.cpu_of_others(),
                        memory: told.mem_usage,
                        latency_us: told.net_latency,
                    },
                    intake: match status.draining {
                        true => dispatch::Intake::Closed,
                        false => dispatch::Intake::Open,
                    },
                }
            }
            Body::Known(known) => dispatch::Input::Known {
                session,
                attempts: known.attempts.into_iter().map(model::Fence::from).collect(),
            },
            Body::Verdict(verdict) => {
                let Ok(verdict) = model::Verdict::try_from(verdict) else {
                    return;
                };
                dispatch::Input::Verdict {
                    session,
                    verdict,
                    held: None,
                }
            }
            Body::Started(_) | Body::Output(_) | Body::Backends(_) | Body::Hello(_) => return,
        };
        self.controller.inputs.send(Signal::Input(input)).ok();
    }
}

fn said(message: Message) -> Option<Said> {
    Some(match message {
        Message::Leader(true) => Said::Leading,
        Message::Leader(false) => Said::Following,
        Message::Assign {
            fence,
            attempt,
            gpus,
            after,
            spec,
        } => Said::Assign {
            fence,
            number: attempt,
            gpus,
            after,
            spec,
        },
        Message::Cancel { fence, cause, .. } => match cause {
            Cause::Cancelled => Said::Cancel { fence },
            Cause::Stale => Said::Stale { fence },
            Cause::Recalled => Said::Recall { fence },
            Cause::Evicted => Said::Evict { fence },
            Cause::Preempted => Said::Preempt { fence },
        },
        Message::VerdictAck { fence, disposition } => Said::Settled { fence, disposition },
        Message::RenewAck { nonce } => Said::Renewed { nonce },
        Message::Backends(_) => return None,
    })
}

/// Until one of both ends is gone, or the connection is.
pub async fn until_broken(ends: &Ends) {
    const LOOK: Duration = Duration::from_millis(200);
    loop {
        let over =
            ends.broken.is_cancelled() || !ends.agent.is_alive() || !ends.controller.is_alive();
        if over {
            return ends.broken.cancel();
        }
        SimRuntime::sleep(LOOK).await;
    }
}
