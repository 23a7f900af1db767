//! Calls around joining: of administrators, of those who have a certificate and need the next one, and of a
//! machine that has none yet.

use std::sync::Arc;

use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;
use tonic::Request;
use tonic::transport::Channel;

use super::{Client, Error, Settings, Terms};
use crate::status::{Code, Failure};
use crate::transport::{self, MESSAGE_LIMIT};
use crate::v1;
use crate::v1::enrolments_client::EnrolmentsClient;
use crate::v1::identities_client::IdentitiesClient;
use crate::v1::join_tokens_client::JoinTokensClient;

impl Client {
    pub async fn create_join_token(
        &self,
        request: &v1::CreateJoinTokenRequest,
    ) -> Result<v1::JoinTokenReply, Error> {
        let send = |to, message| async move { tokens(to).create(message).await };
        self.call(Terms::REPEATABLE, request, send).await
    }

    pub async fn join_tokens(&self) -> Result<v1::ListJoinTokensReply, Error> {
        let message = v1::ListJoinTokensRequest {};
        let send = |to, message| async move { tokens(to).list(message).await };
        self.call(Terms::READ, &message, send).await
    }

    pub async fn revoke_join_token(&self, id: &str) -> Result<v1::JoinTokenReply, Error> {
        let message = v1::RevokeJoinTokenRequest { id: id.to_owned() };
        let send = |to, message| async move { tokens(to).revoke(message).await };
        self.call(Terms::REPEATABLE, &message, send).await
    }

    /// Another certificate for whom these certificates speak already.
    pub async fn renew(&self, request: &v1::RenewRequest) -> Result<v1::RenewReply, Error> {
        let send = |to, message| async move { identities(to).renew(message).await };
        self.call(Terms::REPEATABLE, request, send).await
    }
}

/// One try at one controller, over one connection: what is asked depends on it. Nothing is sent before `tls`
/// has accepted the server.
pub async fn enrol(
    address: &str,
    tls: Arc<ClientConfig>,
    settings: Settings,
    make: impl FnOnce([u8; 32]) -> v1::EnrolRequest,
) -> Result<v1::EnrolReply, Failure> {
    let unreachable = |why: String| {
        Failure::new(
            Code::Unreachable,
            format!("no controller answers at {address}: {why}"),
        )
    };
    let dialled = transport::connect(address, tls, settings.timers).await;
    let connection = dialled.map_err(|error| {
        let code = match error.failure.is_lasting() {
            true => Code::NotTrusted,
            false => Code::Unreachable,
        };
        Failure::new(code, error.to_string())
    })?;
    let binding = transport::binding(&connection)
        .ok_or_else(|| unreachable("its TLS session can't be bound to".to_owned()))?;
    let message = make(binding);
    let asked = async {
        let channel = transport::channel_over(connection).await;
        let channel = channel.map_err(|error| unreachable(error.to_string()))?;
        let mut client = EnrolmentsClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
        let mut request = Request::new(message);
        request.set_timeout(settings.patience);
        let answer = client.enrol(request).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| Failure::read(&status))
    };
    match timeout(settings.patience, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(unreachable(format!(
            "it was silent for {:?}",
            settings.patience
        ))),
    }
}

fn tokens(channel: Channel) -> JoinTokensClient<Channel> {
    JoinTokensClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT)
}

fn identities(channel: Channel) -> IdentitiesClient<Channel> {
    IdentitiesClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT)
}
