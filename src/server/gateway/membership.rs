//! Promoting and removing members, on the leader. One change at a time: whoever comes second waits for its
//! turn until its deadline, and each change is checked against the members of that moment.

use model::{ControllerId, Role};
use tonic::{Request, Response};
use wire::status::{Code, Failure};
use wire::v1;

use super::cluster::controller_id;
use super::request::{Hop, position_of};
use super::{Deadline, Gateway, failure};
use crate::authority;
use crate::callers::Caller;

impl Gateway {
    pub(super) fn administrator<T>(&self, request: &Request<T>) -> Result<Caller, Failure> {
        let caller = self.0.caller(request)?;
        match caller.principal.role {
            Role::Client => Ok(caller),
            Role::Agent | Role::Controller => {
                let why = "it needs a client's certificate";
                Err(Failure::new(Code::Forbidden, why))
            }
        }
    }

    pub(super) async fn promote_member(
        &self,
        request: Request<v1::PromoteRequest>,
    ) -> Result<Response<v1::MembershipReply>, Failure> {
        let caller = self.administrator(&request)?;
        let deadline = Deadline::of(request.metadata());
        let message = request.into_inner();
        let id = controller_id(&message.id)?;
        self.led(
            &caller,
            deadline,
            || async move { self.changed(self.0.cluster.promote(id).await) },
            |hop| {
                let request = Hop::pass_on(&caller, deadline, message.clone());
                async move { hop.cluster().promote(request).await }
            },
        )
        .await
    }

    /// Of the leader itself: it hands over, and then does not lead, so its successor is asked.
    pub(super) async fn remove_member(
        &self,
        request: Request<v1::RemoveRequest>,
    ) -> Result<Response<v1::MembershipReply>, Failure> {
        let caller = self.administrator(&request)?;
        let deadline = Deadline::of(request.metadata());
        let message = request.into_inner();
        let id = controller_id(&message.id)?;
        self.led(
            &caller,
            deadline,
            || async move {
                authority::before_removal(&self.0).await?;
                self.changed(self.0.cluster.remove_member(id).await)
            },
            |hop| {
                let request = Hop::pass_on(&caller, deadline, message.clone());
                async move { hop.cluster().remove(request).await }
            },
        )
        .await
    }

    fn changed(&self, change: Result<(), raft::Error>) -> Result<v1::MembershipReply, Failure> {
        change.map_err(|error| failure::of_raft(&error))?;
        self.tell_agents();
        let position = Some(position_of(&self.0.cluster.view()));
        Ok(v1::MembershipReply { position })
    }

    /// Where the controllers are now.
    pub(super) fn tell_agents(&self) {
        for session in self.0.sessions.all() {
            session.welcome(self.0.welcome());
        }
    }

    /// Whether it is a controller that asks, and one that was removed. It may never have heard of it.
    pub(super) fn has_removed(&self, caller: &Caller) -> bool {
        let id = caller.principal.name.parse::<ControllerId>();
        caller.principal.role == Role::Controller
            && id.is_ok_and(|id| self.0.cluster.was_removed(id))
    }
}
