//! Accepting a session: the hello is checked, then frames are read one after the other.
//!
//! A hello that can never be right is answered with `Refused`; one that may be right later (this
//! controller does not know the cluster's state yet) ends the stream, and the agent comes again.
//! Frames are counted: a gap or a repetition ends the session, for what was missed is not known.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use model::{AgentProfile, Principal};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};
use wire::status::{Code, Failure};
use wire::v1;
use wire::v1::agent_frame::Body;
use wire::v1::controller_frame::Body as Answer;

use super::frames::{self, Outgoing};
use super::renewals::Renewal;
use super::session::Session;
use crate::controller::Controller;
use crate::dispatcher::Signal;
use crate::gateway::failure;
use crate::limit;

/// The gRPC service.
#[derive(Debug)]
pub struct Service(pub Arc<Controller>);

#[tonic::async_trait]
impl v1::sessions_server::Sessions for Service {
    type ConnectStream = Pin<Box<dyn Stream<Item = Result<v1::ControllerFrame, Status>> + Send>>;

    async fn connect(
        &self,
        request: Request<Streaming<v1::AgentFrame>>,
    ) -> Result<Response<Self::ConnectStream>, Status> {
        let controller = &self.0;
        let principal = controller.callers.agent(&request)?;
        let agent = model::AgentId::new(&principal.name)
            .map_err(|error| Failure::new(Code::Invalid, error.to_string()))?;
        if controller.stopping.is_cancelled() {
            return Err(failure::stopping().into());
        }
        let (sender, queue) = mpsc::channel(limit::FRAMES);
        let session = Arc::new(Session::new(controller.sessions.next_id(), agent, sender));
        let era = Arc::clone(controller);
        let outbound = frames::outbound(Arc::clone(&session), queue, era);
        let reader = Reader {
            controller: Arc::clone(controller),
            session,
            principal,
        };
        controller
            .background
            .spawn(reader.run(request.into_inner()));
        Ok(Response::new(Box::pin(outbound)))
    }
}

/// Why a hello was not welcome.
enum Unwelcome {
    /// It will not be next time either.
    Refused(String),
    /// It may be, here or elsewhere.
    NotNow(String),
}

struct Reader {
    controller: Arc<Controller>,
    session: Arc<Session>,
    principal: Principal,
}

impl Reader {
    async fn run(self, mut inbound: Streaming<v1::AgentFrame>) {
        let agent = &self.session.agent;
        match self.hello(&mut inbound).await {
            Ok(profile) => {
                info!(%agent, session = self.session.id.0, "opened session");
                self.open(profile).await;
                let why = self.read(inbound).await;
                self.close(&why).await;
                info!(%agent, session = self.session.id.0, %why, "closed session");
            }
            Err(Unwelcome::Refused(reason)) => {
                info!(%agent, %reason, "refused session");
                let refused = v1::Refused {
                    reason: reason.clone(),
                };
                self.session.send(Outgoing::own(Answer::Refused(refused)));
                self.session.close(&reason);
            }
            Err(Unwelcome::NotNow(reason)) => {
                debug!(%agent, %reason, "put off session");
                self.session.close(&reason);
            }
        }
    }

    async fn hello(
        &self,
        inbound: &mut Streaming<v1::AgentFrame>,
    ) -> Result<AgentProfile, Unwelcome> {
        let first = tokio::time::timeout(limit::HELLO, inbound.message()).await;
        let first = first
            .map_err(|_| Unwelcome::NotNow("no hello arrived in time".into()))?
            .map_err(|status| Unwelcome::NotNow(status.message().to_owned()))?
            .ok_or_else(|| Unwelcome::NotNow("the agent went away".into()))?;
        let Some(Body::Hello(hello)) = first.body else {
            return Err(Unwelcome::Refused("the first frame must be a hello".into()));
        };
        if first.seq != 1 {
            return Err(Unwelcome::Refused("frames are counted from 1".into()));
        }
        let state = self.controller.cluster.view();
        check_hello(&state, &self.principal, &hello)?;
        let profile = AgentProfile::try_from(&hello)
            .map_err(|error| Unwelcome::Refused(error.to_string()))?;
        profile
            .validate()
            .map_err(|rejected| Unwelcome::Refused(rejected.to_string()))?;
        self.session.hear(1);
        Ok(profile)
    }

    async fn open(&self, profile: AgentProfile) {
        self.session
            .send(Outgoing::own(Answer::Welcome(self.controller.welcome())));
        self.controller.sessions.add(&self.session);
        self.input(dispatch::Input::SessionOpened {
            session: self.session.id,
            profile,
            principal: self.principal.clone(),
        })
        .await;
    }

    async fn close(&self, why: &str) {
        self.controller.sessions.remove(&self.session);
        self.session.tails().close();
        self.session.close(why);
        self.input(dispatch::Input::SessionClosed {
            session: self.session.id,
        })
        .await;
    }

    /// Reads until the session ends; answers why.
    async fn read(&self, mut inbound: Streaming<v1::AgentFrame>) -> String {
        let mut seq = 1;
        loop {
            let next = tokio::select! {
                biased;
                () = self.session.closing().cancelled() => {
                    return self.session.reason().unwrap_or("closed").to_owned();
                }
                next = tokio::time::timeout(limit::SESSION_SILENCE, inbound.message()) => next,
            };
            let frame = match next {
                Ok(Ok(Some(frame))) => frame,
                Ok(Ok(None)) => return "the agent ended it".into(),
                Ok(Err(status)) => return format!("it broke: {}", status.message()),
                Err(_) => return "the agent was silent".into(),
            };
            seq += 1;
            if frame.seq != seq {
                return format!("frame {} came where {seq} was due", frame.seq);
            }
            let probes = matches!(frame.body, Some(Body::Status(_)));
            if let Err(wrong) = self.handle(frame.body).await {
                return wrong;
            }
            self.session.hear(seq);
            if probes {
                self.session.send(Outgoing::Ack);
            }
        }
    }

    async fn handle(&self, body: Option<Body>) -> Result<(), String> {
        match body {
            Some(Body::Status(status)) => self.status(status).await,
            Some(Body::Renew(v1::Renew { nonce })) => self.renew(nonce).await,
            Some(Body::Started(v1::Started { fence })) => self.started(fence),
            Some(Body::Verdict(verdict)) => self.verdict(verdict).await,
            Some(Body::Output(output)) => {
                self.output(output);
                Ok(())
            }
            Some(Body::Known(known)) => self.known(known).await,
            Some(Body::Backends(told)) => self.backends(told).await,
            Some(Body::Hello(_)) => Err("a hello came twice".into()),
            // A kind of frame that this release does not know: a newer agent.
            None => Ok(()),
        }
    }

    async fn status(&self, report: v1::Status) -> Result<(), String> {
        let intake = match report.draining {
            true => dispatch::Intake::Closed,
            false => dispatch::Intake::Open,
        };
        for fence in report.running {
            self.controller.running(&self.session.agent, fence.into());
        }
        let status = report.status.ok_or("a status without a status")?;
        let load = dispatch::Load {
            cpu: status.cpu_load,
            others: status.cpu_of_others(),
            memory: status.mem_usage,
            latency_us: status.net_latency,
        };
        self.session.keep_status(status);
        self.input(dispatch::Input::Status {
            session: self.session.id,
            load,
            intake,
        })
        .await;
        Ok(())
    }

    async fn renew(&self, nonce: u64) -> Result<(), String> {
        let received = self.controller.cluster.now().monotonic;
        let renewal = Renewal {
            session: self.session.id,
            nonce,
            received,
        };
        // The receiver leaves only when the controller stops.
        let _stopping = self.controller.renewals.send(renewal).await;
        Ok(())
    }

    fn started(&self, fence: Option<v1::Fence>) -> Result<(), String> {
        let fence = wire::convert::fence(fence).map_err(|error| error.to_string())?;
        self.controller.running(&self.session.agent, fence);
        Ok(())
    }

    async fn verdict(&self, verdict: v1::Verdict) -> Result<(), String> {
        let mut verdict = model::Verdict::try_from(verdict).map_err(|error| error.to_string())?;
        // What is not kept need not travel through the log.
        verdict.outcome = verdict.outcome.bounded();
        if !self.controller.has_payload(&verdict) {
            self.input(dispatch::Input::Verdict {
                session: self.session.id,
                verdict,
                held: None,
            })
            .await;
            return Ok(());
        }
        // Only the leader takes it to the log.
        if !self.controller.cluster.leadership().borrow().is_me {
            return Ok(());
        }
        let (controller, session) = (Arc::clone(&self.controller), Arc::clone(&self.session));
        let Some(turn) = session.reporting(verdict.fence) else {
            // It was sent again while it is on its way.
            return Ok(());
        };
        // The next frame does not wait until others have its output.
        self.controller.background.spawn(async move {
            if let Some((verdict, held)) = controller.reportable(verdict, &session).await {
                let report = dispatch::Input::Verdict {
                    session: session.id,
                    verdict,
                    held,
                };
                controller.inputs.send(Signal::Input(report)).await;
            }
            drop(turn);
        });
        Ok(())
    }

    async fn known(&self, known: v1::Known) -> Result<(), String> {
        let attempts = known.attempts.into_iter().map(model::Fence::from).collect();
        self.input(dispatch::Input::Known {
            session: self.session.id,
            attempts,
        })
        .await;
        Ok(())
    }

    async fn backends(&self, told: v1::Backends) -> Result<(), String> {
        let backends = wire::convert::backends_in(told.backends);
        // What `apply` would refuse is not proposed, again and again.
        model::validate_backends(&backends).map_err(|rejected| rejected.to_string())?;
        self.input(dispatch::Input::Backends {
            session: self.session.id,
            backends,
        })
        .await;
        Ok(())
    }

    fn output(&self, output: v1::Output) {
        let id = output.id;
        if self.session.tails().route(output) {
            self.session.untail(id);
        }
    }

    async fn input(&self, input: dispatch::Input) {
        self.controller.inputs.send(Signal::Input(input)).await;
    }
}

fn check_hello(
    state: &model::State,
    principal: &Principal,
    hello: &v1::Hello,
) -> Result<(), Unwelcome> {
    if hello.agent != principal.name {
        return Err(Unwelcome::Refused(format!(
            "agent {} came with the certificate of {}",
            hello.agent, principal.name
        )));
    }
    let (own, generation) = (state.cluster_id(), state.generation().0);
    if own.is_empty() {
        return Err(Unwelcome::NotNow(
            "this controller does not know its cluster yet".into(),
        ));
    }
    if hello.cluster_id.is_empty() {
        return Ok(());
    }
    if hello.cluster_id != own {
        return Err(Unwelcome::Refused(format!(
            "this is cluster {own}, and the agent belongs to {}",
            hello.cluster_id
        )));
    }
    if hello.generation > generation {
        return Err(Unwelcome::NotNow(
            "this controller is behind the agent's generation".into(),
        ));
    }
    // Generations begin at 1: an agent that never heard of one says 0.
    if (1..generation).contains(&hello.generation) {
        return Err(Unwelcome::Refused(format!(
            "the cluster was restored and is in generation {generation}, the agent's journal is \
             of generation {}; start the agent with an empty data directory",
            hello.generation
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use model::{Entry, Op, Role, Stamped, State, SystemCommand, Timestamp};

    use super::*;

    fn founded() -> State {
        let found = SystemCommand::Found {
            cluster_id: "q1".into(),
            generation: model::Generation(2),
        };
        let entry = Entry {
            stamp: Timestamp(1),
            wall: Timestamp(1),
            ops: vec![Op::System(found)],
        };
        let mut state = State::default();
        state.apply(Stamped {
            index: 1,
            term: 1,
            membership: 0,
            entry,
        });
        state
    }

    fn checked(state: &State, agent: &str, cluster_id: &str, generation: u64) -> &'static str {
        let principal = Principal {
            name: "a1".into(),
            role: Role::Agent,
            fingerprint: [0; 32],
        };
        let hello = v1::Hello {
            agent: agent.into(),
            cluster_id: cluster_id.into(),
            generation,
            ..v1::Hello::default()
        };
        match check_hello(state, &principal, &hello) {
            Ok(()) => "welcome",
            Err(Unwelcome::Refused(_)) => "refused",
            Err(Unwelcome::NotNow(_)) => "not now",
        }
    }

    #[test]
    fn a_hello_is_welcome_only_from_its_owner_cluster_and_generation() {
        let state = founded();
        assert_eq!(checked(&state, "a1", "q1", 2), "welcome");
        assert_eq!(checked(&state, "a1", "", 0), "welcome");
        assert_eq!(checked(&state, "a1", "q1", 0), "welcome");
        assert_eq!(checked(&state, "a2", "q1", 2), "refused");
        assert_eq!(checked(&state, "a1", "q2", 2), "refused");
        assert_eq!(checked(&state, "a1", "q1", 1), "refused");
        assert_eq!(checked(&state, "a1", "q1", 3), "not now");
        assert_eq!(checked(&State::default(), "a1", "q1", 2), "not now");
    }
}
