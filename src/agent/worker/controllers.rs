//! What controllers say, who of them leads, and the lease that the leader keeps alive.

use model::{Fence, Millis};
use mutant::Mutant;
use wire::v1;
use wire::v1::agent_frame::Body;

use crate::executor::Urgency;
use crate::lease;
use crate::worker::attempts::{Attempt, Ending, Phase};
use crate::worker::{Effect, Load, Said, SessionId, Stamp, Worker};

/// A session that a controller took.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Round trip, measured lately; 0: not yet.
    latency_micros: u32,
}

impl Worker {
    pub(super) fn on_opened(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        self.peers.insert(session, Peer::default());
        self.say_status(session, out);
    }

    pub(super) fn on_closed(&mut self, session: SessionId) {
        self.peers.remove(&session);
        if self.leader == Some(session) {
            self.leader = None;
        }
    }

    pub(super) fn on_latency(&mut self, session: SessionId, micros: u32) {
        if let Some(peer) = self.peers.get_mut(&session) {
            peer.latency_micros = micros;
        }
    }

    pub(super) fn on_load(&mut self, load: Load, out: &mut Vec<Effect>) {
        // A back end is no process of the agent's, and answers for it: its share of the load is not known.
        let asks = self.attempts.values().any(Attempt::asks);
        let asked = std::mem::take(&mut self.asked) || asks;
        let is_ours = asked && self.nature.asks_here;
        self.load = Load {
            own: if is_ours { load.cpu } else { load.own },
            ..load
        };
        self.say_status_to_all(out);
    }

    pub(super) fn say_status_to_all(&self, out: &mut Vec<Effect>) {
        for &session in self.peers.keys() {
            self.say_status(session, out);
        }
    }

    /// What only a leader may say counts from the leader, and only if no other was elected later.
    /// The term of a controller that does not lead says nothing of the kind: one that lost its
    /// peers raises it with every election that it stands for and nobody holds.
    pub(super) fn on_said(
        &mut self,
        now: Millis,
        session: SessionId,
        stamp: Stamp,
        said: Said,
        out: &mut Vec<Effect>,
    ) {
        if said == Said::Following {
            return self.on_following(session);
        }
        if stamp < self.highest && !mutant::is(Mutant::ObeysOldLeader) {
            tracing::info!(?session, ?stamp, highest = ?self.highest, "refused a stale leader");
            return self.on_following(session);
        }
        if said == Said::Leading {
            self.highest = stamp;
            return self.on_leading(now, session, out);
        }
        if self.leader != Some(session) && !mutant::is(Mutant::ObeysOldLeader) {
            tracing::warn!(
                ?session,
                "refused an order from a controller that does not lead"
            );
            return;
        }
        match said {
            Said::Assign {
                fence,
                number,
                gpus,
                after,
                spec,
            } => {
                let phase = Phase::Waiting { spec };
                let attempt = Attempt {
                    number,
                    gpus,
                    after,
                    phase,
                };
                self.on_assign(fence, attempt, out);
            }
            Said::Cancel { fence } => self.on_end(fence, Ending::Cancelled, out),
            Said::Stale { fence } => self.end_attempt(fence, Ending::Stale, out),
            Said::Recall { fence } => self.on_recall(fence, out),
            Said::Preempt { fence } => self.on_end(fence, Ending::Preempted, out),
            Said::Evict { fence } => self.end_attempt(fence, Ending::Drained, out),
            Said::Renewed { nonce } => self.on_renewed(nonce, out),
            Said::Settled { fence, disposition } => self.on_settled(fence, disposition, out),
            Said::Backends(settings) => out.push(Effect::SetBackends(settings)),
            Said::Leading | Said::Following => {}
        }
    }

    fn on_leading(&mut self, now: Millis, session: SessionId, out: &mut Vec<Effect>) {
        self.leader = Some(session);
        let attempts = self.attempts.keys().map(v1::Fence::from).collect();
        out.push(Effect::Say {
            session,
            body: Body::Known(v1::Known { attempts }),
        });
        self.renewed = None;
        self.renew_if_due(now, out);
        self.forget_sending();
        self.report_all(now, out);
    }

    fn on_following(&mut self, session: SessionId) {
        if self.leader == Some(session) {
            self.leader = None;
        }
    }

    pub(super) fn renew_if_due(&mut self, now: Millis, out: &mut Vec<Effect>) {
        let Some(session) = self.leader else { return };
        let due = self
            .renewed
            .is_none_or(|at| now.0 >= at.0.saturating_add(lease::EVERY.0));
        if due {
            self.renewed = Some(now);
            let nonce = self.lease.renew(now);
            out.push(Effect::Say {
                session,
                body: Body::Renew(v1::Renew { nonce }),
            });
        }
    }

    fn on_renewed(&mut self, nonce: u64, out: &mut Vec<Effect>) {
        if self.lease.acknowledged(nonce).is_some()
            && let Some(until) = self.lease.until()
        {
            out.push(Effect::Leased { until });
        }
    }

    /// Without a lease nothing may run: somebody else may have the work by now.
    pub(super) fn check_lease(&mut self, now: Millis, out: &mut Vec<Effect>) {
        if !self.lease.take_lost(now) {
            return;
        }
        let running = self
            .attempts
            .values()
            .filter(|attempt| attempt.is_running())
            .count();
        tracing::warn!(running, "lost the lease: ending all attempts");
        let held: Vec<Fence> = self.attempts.keys().copied().collect();
        for fence in held {
            self.end_attempt(fence, Ending::LeaseLost, out);
        }
        // Ask again at once; whoever leads now may answer.
        self.renewed = None;
    }

    pub(super) fn say_all(&self, body: &Body, out: &mut Vec<Effect>) {
        for &session in self.peers.keys() {
            out.push(Effect::Say {
                session,
                body: body.clone(),
            });
        }
    }

    fn say_status(&self, session: SessionId, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get(&session) else {
            return;
        };
        let running = self
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.is_running());
        let status = v1::DeviceStatus {
            id: self.nature.id.to_string(),
            cpu_load: self.load.cpu,
            own_cpu_load: Some(self.load.own),
            mem_usage: self.load.memory,
            net_latency: peer.latency_micros,
            timestamp: self.load.at.0,
        };
        let status = v1::Status {
            status: Some(status),
            running: running.map(|(fence, _)| fence.into()).collect(),
            draining: !self.takes_work(),
        };
        out.push(Effect::Say {
            session,
            body: Body::Status(status),
        });
    }

    pub(super) fn end_running_for_stop(&mut self, out: &mut Vec<Effect>) {
        let held: Vec<Fence> = self.attempts.keys().copied().collect();
        for fence in held {
            self.end_attempt(fence, Ending::Stopping, out);
        }
    }

    /// Ends an attempt that has not ended, as urgently as the reason wants it.
    pub(super) fn end_attempt(&mut self, fence: Fence, ending: Ending, out: &mut Vec<Effect>) {
        let Some(attempt) = self.attempts.get_mut(&fence) else {
            return;
        };
        let urgency = match ending {
            Ending::LeaseLost => Urgency::AtOnce,
            Ending::Cancelled
            | Ending::Stale
            | Ending::Stopping
            | Ending::Drained
            | Ending::Recalled
            | Ending::Preempted => Urgency::Gently,
        };
        match &mut attempt.phase {
            Phase::Waiting { .. } => {
                self.waiting.retain(|waiting| *waiting != fence);
                self.record(fence, ending.before_it_ran(), out);
            }
            Phase::Beginning { ending: known, .. } => {
                known.get_or_insert(ending);
            }
            Phase::Running {
                ending: known,
                urgency: told,
                ..
            } => {
                known.get_or_insert(ending);
                if *told < urgency {
                    *told = urgency;
                    out.push(Effect::End { fence, urgency });
                }
            }
            Phase::Recording(_) | Phase::Reporting { .. } => {}
        }
    }
}
