//! The peer port: one listener, behind which gRPC and entries of the log part.

use std::sync::Arc;

use futures::StreamExt;
use rustls::ServerConfig;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use wire::transport;
use wire::v1::peer_server::PeerServer;

use super::dial::MESSAGE_BYTES;
use super::replication::Receiver;
use super::service::Service;
use crate::error::Error;
use crate::fatal::FatalSignal;

/// Serves until `stopping`. The task ends when nothing of it is left.
pub fn serve(
    service: Service,
    receiver: Receiver,
    listener: std::net::TcpListener,
    tls: Arc<ServerConfig>,
    stopping: CancellationToken,
    fatal: FatalSignal,
) -> Result<JoinHandle<()>, Error> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let api = PeerServer::new(service)
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let (receiving, cut) = (TaskTracker::new(), stopping.clone());
    let (received, watched) = (receiving.clone(), fatal.clone());
    let calls = transport::incoming(listener, tls).filter_map(move |accepted| {
        let call = match accepted {
            Ok(connection) if Receiver::is_for(&connection) => {
                let (serving, cut) = (receiver.clone().serve(connection), cut.clone());
                let serving = async move {
                    cut.run_until_cancelled(serving).await;
                };
                receiving.spawn(watched.watch("taking entries", serving));
                None
            }
            call => Some(call),
        };
        std::future::ready(call)
    });
    let server = transport::server(transport::Timers::default())
        .add_service(api)
        .serve_with_incoming(calls);
    let failed = fatal.clone();
    Ok(tokio::spawn(fatal.watch("the peer port", async move {
        // What members say to each other never ends by itself, so it is cut rather than drained.
        if let Some(Err(error)) = stopping.run_until_cancelled(server).await {
            failed.raise(&format!("the peer port has failed: {error}"));
        }
        received.close();
        received.wait().await;
    })))
}
