//! The HTTP listener and its routes.
//!
//! Owns: one listening socket and what each path leads to. `/health` answers anybody; everything else
//! asks for a broker user (basic authentication) or a payload's own access key.
//! Bounds: request heads as the HTTP library has them; no route reads a request body.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::payloads;
use crate::broker::Broker;
use crate::payload::Store;

/// What the routes answer from.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) broker: Arc<Broker>,
    pub(super) store: Store,
}

/// Why the HTTP interface cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for HTTP: {source}; is another broker running there?")]
pub struct HttpError {
    address: SocketAddr,
    source: std::io::Error,
}

/// The HTTP interface of a broker, listening.
#[derive(Debug)]
pub struct HttpServer {
    listener: TcpListener,
    local_addr: SocketAddr,
    context: Context,
}

impl HttpServer {
    /// Listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn bind(
        address: SocketAddr,
        broker: Arc<Broker>,
        store: Store,
    ) -> Result<Self, HttpError> {
        let failed = |source| HttpError { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            local_addr,
            context: Context { broker, store },
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers requests until `stopping` is cancelled.
    pub async fn serve(self, stopping: CancellationToken) {
        let routes = Router::new()
            .route("/health", get(health))
            .route("/payloads/{id}", get(payloads::get))
            .with_state(self.context);
        let service = routes.into_make_service_with_connect_info::<SocketAddr>();
        let stop = async move { stopping.cancelled().await };
        if let Err(error) = axum::serve(self.listener, service)
            .with_graceful_shutdown(stop)
            .await
        {
            tracing::error!(%error, "the HTTP interface ended");
        }
    }
}

/// Whether the broker runs: it does, if this answers.
async fn health() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], "{\"status\":\"ok\"}")
}
