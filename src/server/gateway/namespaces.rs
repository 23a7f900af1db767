//! Namespaces: what is set for them, and who uses how much.

use model::{Command, Namespace, Principal};
use tonic::{Request, Response, Status};
use wire::convert::namespace_out;
use wire::status::Failure;
use wire::v1;

use super::tasks::position_of;
use super::{Deadline, Gateway};

#[tonic::async_trait]
impl v1::namespaces_server::Namespaces for Gateway {
    async fn list(
        &self,
        request: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesReply>, Status> {
        self.reader(&request)?;
        let (state, position) = self.read(Deadline::of(request.metadata())).await?;
        let with_users = request.get_ref().users;
        let names = state.namespaces_known().into_iter();
        let namespaces = names.map(|name| {
            let mut namespace = namespace_out(&state, name);
            if !with_users {
                namespace.users.clear();
            }
            namespace
        });
        let namespaces = namespaces.collect();
        Ok(Response::new(v1::ListNamespacesReply {
            position: Some(position),
            namespaces,
        }))
    }

    async fn get(
        &self,
        request: Request<v1::GetNamespaceRequest>,
    ) -> Result<Response<v1::NamespaceReply>, Status> {
        self.reader(&request)?;
        let name = Namespace::new(&request.get_ref().name).map_err(Failure::from)?;
        let (state, position) = self.read(Deadline::of(request.metadata())).await?;
        Ok(Response::new(v1::NamespaceReply {
            position: Some(position),
            namespace: Some(namespace_out(&state, &name)),
        }))
    }

    async fn set(
        &self,
        request: Request<v1::SetNamespaceRequest>,
    ) -> Result<Response<v1::NamespaceReply>, Status> {
        Ok(self.set_namespace(request).await?)
    }
}

impl Gateway {
    async fn set_namespace(
        &self,
        request: Request<v1::SetNamespaceRequest>,
    ) -> Result<Response<v1::NamespaceReply>, Failure> {
        self.ordered(
            request,
            |order| {
                let asked = model::SetNamespace::try_from(order.clone())?;
                Ok((asked.namespace.clone(), Command::SetNamespace(asked)))
            },
            |name, principal, command| self.set_namespace_here(name, principal, command),
            |hop, order| async move { hop.namespaces().set(order).await },
        )
        .await
    }

    async fn set_namespace_here(
        &self,
        name: Namespace,
        principal: Principal,
        command: Command,
    ) -> Result<v1::NamespaceReply, Failure> {
        let accepted = self.done(principal, command).await?;
        let state = self.0.cluster.view();
        Ok(v1::NamespaceReply {
            position: Some(position_of(&accepted)),
            namespace: Some(namespace_out(&state, &name)),
        })
    }
}
