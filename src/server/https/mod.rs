//! The HTTPS port: `/healthz` says that the process runs, `/readyz` whether a write could commit
//! now, `/metrics` the numbers. Open to whoever can connect; nothing of a task is shown here.

mod readiness;
mod scrape;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;
use wire::transport::{Accepted, Incoming};

use self::readiness::Readiness;
use self::scrape::Scrape;
use crate::controller::Controller;

struct Port {
    readiness: Readiness,
    scrape: Scrape,
}

/// Serves until `stopping`.
pub async fn serve(
    controller: Arc<Controller>,
    incoming: Incoming,
    stopping: CancellationToken,
) -> std::io::Result<()> {
    let port = Arc::new(Port {
        readiness: Readiness::new(Arc::clone(&controller)),
        scrape: Scrape::new(controller),
    });
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(port);
    axum::serve(Listener(incoming), router)
        .with_graceful_shutdown(stopping.cancelled_owned())
        .await
}

async fn ready(State(port): State<Arc<Port>>) -> Response {
    match port.readiness.check().await {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()).into_response(),
        Err(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {why}\n"),
        )
            .into_response(),
    }
}

/// The text format's own type, so that a scraper need not guess.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

async fn metrics(State(port): State<Arc<Port>>) -> Response {
    match port.scrape.text() {
        Ok(text) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// Connections whose handshake is done, as axum wants them.
struct Listener(Incoming);

impl axum::serve::Listener for Listener {
    type Io = Accepted;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Accepted, SocketAddr) {
        loop {
            // Failed handshakes are dealt with there, and the stream does not end.
            if let Some(Ok(accepted)) = self.0.next().await {
                let address = accepted.peer().address;
                return (accepted, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}
