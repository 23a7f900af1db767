//! Reports of ended attempts on their way in, and the answers to all proposals on their way out.
//!
//! A verdict is acknowledged only from the reply of `apply`, so an agent's outbox forgets nothing
//! that is not on a majority of disks. What gets no answer is sent again by the agent.

use model::{Disposition, Fence, Held, Rejected, Reply, Verdict};

use crate::dispatcher::Dispatcher;
use crate::io::{Failure, Message, Output, ProposalId, Refusal, SessionId};
use crate::pending::Origin;

impl Dispatcher {
    pub(crate) fn verdict(&mut self, session: SessionId, verdict: Verdict, held: Option<Held>) {
        if !self.leading {
            return;
        }
        if let Some(open) = self.agents.session(session) {
            self.batch
                .verdict(session, open.principal.clone(), (verdict, held));
        }
    }

    pub(crate) fn proposed(
        &mut self,
        proposal: ProposalId,
        result: Result<Vec<Result<Reply, Rejected>>, Failure>,
        out: &mut Vec<Output>,
    ) {
        let Some(sent) = self.batch.answered(proposal) else {
            return;
        };
        match result {
            Ok(replies) => {
                if sent.reserved_room() {
                    // While it was under way its room may have counted twice.
                    self.batch.want_plan();
                }
                for (origin, reply) in sent.origins.into_iter().zip(replies) {
                    self.replied(origin, reply, out);
                }
            }
            // What was due or planned still is at the next tick. To propose it again at once would
            // make a leader without a quorum spin.
            Err(failure) => {
                if sent.reserved_room() {
                    self.batch.begin_turns_anew();
                }
                for origin in sent.origins {
                    if let Origin::Ticket(ticket) = origin {
                        out.push(Output::Answer {
                            ticket,
                            result: Err(refusal(&failure)),
                        });
                    }
                }
            }
        }
    }

    fn replied(&mut self, origin: Origin, reply: Result<Reply, Rejected>, out: &mut Vec<Output>) {
        match origin {
            Origin::Ticket(ticket) => {
                let result = reply.map_err(Refusal::Rejected);
                out.push(Output::Answer { ticket, result });
            }
            // Its agent sends it again, and then the voters of now are asked for its blobs.
            Origin::Verdict { .. } if reply == Err(Rejected::NotHeld) => {}
            Origin::Verdict { session, fence } => {
                out.push(acknowledge(session, fence, &reply));
            }
            Origin::Registration(agent) => {
                if let (Err(rejected), Some(session)) = (reply, self.agents.current(&agent)) {
                    self.agents.close(session);
                    let reason = format!("registration refused: {rejected}");
                    out.push(Output::Close { session, reason });
                }
            }
            // A refused decision was stale: the next round decides again.
            Origin::Leader => {
                if reply.is_err() {
                    self.batch.want_plan();
                }
            }
        }
    }
}

fn acknowledge(session: SessionId, fence: Fence, reply: &Result<Reply, Rejected>) -> Output {
    let disposition = match reply {
        Ok(Reply::Finished { disposition, .. }) => *disposition,
        // Refused for good: it is not this agent's to report.
        Ok(_) | Err(_) => Disposition::Stale,
    };
    acknowledged(session, fence, disposition)
}

pub(crate) fn acknowledged(session: SessionId, fence: Fence, disposition: Disposition) -> Output {
    let message = Message::VerdictAck { fence, disposition };
    Output::Send { session, message }
}

fn refusal(failure: &Failure) -> Refusal {
    match failure {
        Failure::NotLeader => Refusal::NotLeader,
        Failure::Unavailable { hindrance, why } => Refusal::Unavailable {
            hindrance: *hindrance,
            why: why.clone(),
        },
        Failure::Unknown => Refusal::Unknown,
    }
}
