//! The cluster: how its members are, letting one in, handing over leadership. Promoting and removing
//! members is in `membership`.
//!
//! The asked member polls the others side by side, each with a short time limit, so that a status
//! is quick and true about who does not answer. Without a quorum it answers from what it has, and
//! says that this may be old.

use futures::future::join_all;
use model::{ControllerId, Role};
use raft::{Member, MemberRole};
use tonic::{Request, Response, Status};
use wire::status::{Code, Failure};
use wire::v1;

use super::request::{Hop, Leader, position_of};
use super::{Deadline, Gateway, failure};
use crate::dispatcher::wall_now;
use crate::{limit, vigil};

#[tonic::async_trait]
impl v1::cluster_server::Cluster for Gateway {
    type EventsStream = super::events::Replies;

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        Ok(self.events_from(request).await?)
    }

    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusReply>, Status> {
        self.reader(&request)?;
        Ok(Response::new(self.cluster_status().await))
    }

    async fn member(
        &self,
        request: Request<v1::MemberRequest>,
    ) -> Result<Response<v1::MemberReply>, Status> {
        let caller = self.reader(&request)?;
        Ok(Response::new(v1::MemberReply {
            removed: self.has_removed(&caller),
            ..self.own_member()
        }))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinReply>, Status> {
        Ok(self.join_member(request).await?)
    }

    async fn transfer_leadership(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipReply>, Status> {
        Ok(self.hand_over(request).await?)
    }

    async fn promote(
        &self,
        request: Request<v1::PromoteRequest>,
    ) -> Result<Response<v1::MembershipReply>, Status> {
        Ok(self.promote_member(request).await?)
    }

    async fn remove(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::MembershipReply>, Status> {
        Ok(self.remove_member(request).await?)
    }
}

/// Status.
impl Gateway {
    async fn cluster_status(&self) -> v1::StatusReply {
        let deadline = Deadline::within(limit::MEMBER_ANSWER);
        let members = self.0.cluster.members();
        let asked = join_all(members.iter().map(|member| self.ask(member)));
        let (read, answers) = tokio::join!(self.read(deadline), asked);
        let (state, position) = match read {
            Ok((state, position)) => (std::sync::Arc::new(state), position),
            Err(_) => self.stale(),
        };
        let stale = position.stale;
        let leadership = *self.0.cluster.leadership().borrow();
        let leader = leadership.leader.filter(|_| !stale);
        let furthest = answers.iter().flatten().map(|member| member.applied).max();
        let furthest = furthest.unwrap_or_default().max(state.last_applied());
        // Where nothing happens nothing is stamped: it is the leader that knows how late it is.
        let now = answers
            .iter()
            .flatten()
            .map(|member| member.state_time)
            .max();
        let now = model::Timestamp(now.unwrap_or_default());
        let looked_at = std::sync::Arc::clone(&state);
        // There may be as many queues as tasks.
        let queue = tokio::task::spawn_blocking(move || looked_at.waiting(now));
        let queue = queue.await.map_or_else(|_| Vec::new(), Vec::from);
        let shown = members
            .iter()
            .zip(answers)
            .map(|(member, answer)| match answer {
                Some(mut answer) => {
                    answer.role = role_name(member.role).into();
                    answer.address = Some((&member.addresses).into());
                    answer.lag = furthest.saturating_sub(answer.applied);
                    answer
                }
                None => unreachable_member(member),
            });
        v1::StatusReply {
            members: shown.collect(),
            position: Some(position),
            cluster_id: state.cluster_id().to_owned(),
            leader: leader.map(|id| id.to_string()).unwrap_or_default(),
            term: leadership.term,
            stale,
            generation: state.generation().0,
            state_version: state.state_version().0,
            queue: queue.into_iter().map(waiting_out).collect(),
        }
    }

    /// What a member says of itself; nothing where it does not answer in time.
    async fn ask(&self, member: &Member) -> Option<v1::Member> {
        if member.id == self.0.id {
            return self.own_member().member;
        }
        let vigil::Answer { reply, skew } = vigil::ask(&self.0, member).await?;
        Some(v1::Member {
            clock_skew_ms: skew.map(|skew| skew.0),
            ..reply.member?
        })
    }

    fn own_member(&self) -> v1::MemberReply {
        let state = self.0.cluster.view();
        let leadership = *self.0.cluster.leadership().borrow();
        let members = self.0.cluster.members();
        let me = members.iter().find(|member| member.id == self.0.id);
        let shown = match leadership.leader {
            _ if leadership.is_me => "leader",
            Some(_) => "follower",
            None => "candidate",
        };
        let (hash_index, hash_at) = state.hash_at();
        v1::MemberReply {
            member: Some(v1::Member {
                id: self.0.id.to_string(),
                role: me.map_or("learner", |me| role_name(me.role)).into(),
                address: Some((&self.0.addresses).into()),
                state: shown.into(),
                applied: state.last_applied(),
                lag: me.and_then(|me| me.lag).unwrap_or_default(),
                state_hash: hex::encode(state.hash()),
                hash_index,
                hash_at: hex::encode(hash_at),
                version: env!("CARGO_PKG_VERSION").into(),
                clock_skew_ms: Some(0),
                state_versions: Some(model::Versions::OF_THIS_RELEASE.into()),
                disk: self.0.disks.of(self.0.id).map(Into::into),
                state_time: self.0.cluster.now().state.0,
            }),
            term: leadership.term,
            leader: leadership
                .leader
                .map(|id| id.to_string())
                .unwrap_or_default(),
            cluster_id: state.cluster_id().to_owned(),
            generation: state.generation().0,
            wall_ms: Some(wall_now().0),
            hashes: wire::convert::state_hashes_out(&self.0.cluster.state_hashes()),
            removed: false,
        }
    }
}

fn unreachable_member(member: &Member) -> v1::Member {
    v1::Member {
        id: member.id.to_string(),
        role: role_name(member.role).into(),
        address: Some((&member.addresses).into()),
        state: "unreachable".into(),
        lag: member.lag.unwrap_or_default(),
        applied: member.matched.unwrap_or_default(),
        ..v1::Member::default()
    }
}

fn role_name(role: MemberRole) -> &'static str {
    match role {
        MemberRole::Leader | MemberRole::Voter => "voter",
        MemberRole::Learner => "learner",
    }
}

/// Membership.
impl Gateway {
    async fn join_member(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinReply>, Failure> {
        let caller = self.0.caller(&request)?;
        let deadline = Deadline::of(request.metadata());
        let message = request.into_inner();
        let id = controller_id(&message.id)?;
        if caller.principal.role != Role::Controller || caller.principal.name != message.id {
            let why = format!("only {id} itself may let {id} join, by its own certificate");
            return Err(Failure::new(Code::Forbidden, why));
        }
        let addresses = message.address.clone();
        let addresses = addresses.ok_or_else(|| Failure::new(Code::Invalid, "no address"))?;
        let addresses = model::Addresses::from(addresses);
        self.led(
            &caller,
            deadline,
            || self.join_here(id, addresses.clone()),
            |hop| {
                let request = Hop::pass_on(&caller, deadline, message.clone());
                async move { hop.cluster().join(request).await }
            },
        )
        .await
    }

    /// Learner, caught up, voter. Repeating it is safe, whatever became of an earlier try.
    async fn join_here(
        &self,
        id: ControllerId,
        addresses: model::Addresses,
    ) -> Result<v1::JoinReply, Failure> {
        let added = self.0.cluster.add_member(id, addresses).await;
        added.map_err(|error| failure::of_raft(&error))?;
        self.tell_agents();
        let position = Some(position_of(&self.0.cluster.view()));
        Ok(v1::JoinReply {
            position,
            voter: true,
        })
    }

    async fn hand_over(
        &self,
        request: Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipReply>, Failure> {
        let caller = self.administrator(&request)?;
        let deadline = Deadline::of(request.metadata());
        let message = request.into_inner();
        let to = match message.to.as_str() {
            "" => None,
            given => Some(controller_id(given)?),
        };
        // Not tried again: the first try may yet succeed, and another would hand over once more.
        let reply = match self.leader(deadline).await? {
            Leader::Here => self.hand_over_here(to).await?,
            Leader::There(hop) if caller.forwarded => {
                return Err(failure::not_leader(Some(hop.address)));
            }
            Leader::There(hop) => {
                let passed_on = Hop::pass_on(&caller, deadline, message);
                let answer = hop.cluster().transfer_leadership(passed_on).await;
                answer
                    .map_err(|status| failure::of_leader(&status))?
                    .into_inner()
            }
        };
        Ok(Response::new(reply))
    }

    async fn hand_over_here(
        &self,
        to: Option<ControllerId>,
    ) -> Result<v1::TransferLeadershipReply, Failure> {
        let handed_over = self.0.cluster.transfer_leadership(to).await;
        handed_over.map_err(|error| failure::of_raft(&error))?;
        let mut leadership = self.0.cluster.leadership();
        let me = self.0.id;
        let moved = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != me));
        // To itself, it is done already and nothing moves.
        let leader = match to == Some(me) {
            true => Some(me),
            false => match tokio::time::timeout(limit::MEMBER_ANSWER, moved).await {
                Ok(Ok(now)) => now.leader,
                Ok(Err(_)) | Err(_) => None,
            },
        };
        Ok(v1::TransferLeadershipReply {
            position: Some(position_of(&self.0.cluster.view())),
            leader: leader.map(|id| id.to_string()).unwrap_or_default(),
        })
    }
}

pub(super) fn controller_id(text: &str) -> Result<ControllerId, Failure> {
    text.parse()
        .map_err(|error: model::ParseIdError| Failure::new(Code::Invalid, error.to_string()))
}

fn waiting_out(it: model::WaitingClass) -> v1::WaitingClass {
    v1::WaitingClass {
        class: it.class.to_string(),
        tasks: it.tasks,
        oldest_ms: it.oldest.map(|oldest| oldest.0),
    }
}
