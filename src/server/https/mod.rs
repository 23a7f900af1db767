//! The HTTPS port: `/healthz` says that the process runs, `/readyz` whether a write could commit
//! now, `/metrics` the numbers. Open to whoever can connect; nothing of a task is shown here.

mod readiness;
mod scrape;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;
use wire::transport::Incoming;

use self::readiness::Readiness;
use self::scrape::Scrape;
use crate::controller::Controller;
use crate::limit;

struct Port {
    readiness: Readiness,
    scrape: Scrape,
}

/// Serves until `stopping`. Whoever connects is a stranger: `incoming` limits how many there may be,
/// and this how long one may take to ask.
pub async fn serve(
    controller: Arc<Controller>,
    mut incoming: Incoming,
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
    let mut http = auto::Builder::new(TokioExecutor::new()).http1_only();
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limit::HTTPS_REQUEST);
    let connections = TaskTracker::new();
    let accepting = async {
        loop {
            // Failed handshakes are dealt with in the stream.
            let Some(Ok(accepted)) = incoming.next().await else {
                continue;
            };
            let service = TowerToHyperService::new(router.clone());
            let served = http
                .serve_connection(TokioIo::new(accepted), service)
                .into_owned();
            let stopping = stopping.clone();
            connections.spawn(async move {
                if let Some(Err(error)) = stopping.run_until_cancelled(served).await {
                    debug!(%error, "a connection broke");
                }
            });
        }
    };
    stopping.run_until_cancelled(accepting).await;
    connections.close();
    connections.wait().await;
    Ok(())
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
