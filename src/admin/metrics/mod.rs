//! `/metrics`: figures for Prometheus, under RabbitMQ's names, and Warren's own beside them.
//!
//! Owns: which page shows what, and who may see it. Pages: `/metrics` (sums), `/metrics/per-object` (each queue,
//! channel and connection by name), `/metrics/detailed?family=..&vhost=..&queue=..` (chosen families, of queues whose names
//! match), `/metrics/memory-breakdown`. They are served by a listener of their own and by the HTTP interface, to anybody
//! unless `prometheus.authentication` says otherwise.
//! Bounds: a page is made in memory; its length is that of the names of what there is.
//! Spec: RabbitMQ's Prometheus plugin; CONVENTIONS section 9; `spec/management.md` PROM-1 to PROM-4.

mod families;
mod gather;
mod object_families;
mod own;
mod text;
mod write;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

pub(super) use gather::Sources;

use super::api;
use super::logins::Logins;
use crate::broker::Pattern;
use gather::{Clients, Form, Objects};
use write::Wanted;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// What the pages are made from.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    pub(super) sources: Arc<Sources>,
    /// `/metrics` names each object too.
    pub(super) per_object: bool,
    /// Only who may watch sees them.
    pub(super) authentication: bool,
    pub(super) logins: Arc<Logins>,
}

/// The pages.
pub(super) fn routes(metrics: Metrics) -> Router {
    Router::new()
        .route("/metrics", get(all))
        .route("/metrics/per-object", get(per_object))
        .route("/metrics/detailed", get(detailed))
        .route("/metrics/memory-breakdown", get(memory))
        .with_state(metrics)
}

async fn all(
    State(metrics): State<Metrics>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    let form = match metrics.per_object {
        true => Form::PerObject,
        false => Form::Aggregated,
    };
    answer(&metrics, from, &headers, Wanted::all(form)).await
}

async fn per_object(
    State(metrics): State<Metrics>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    answer(&metrics, from, &headers, Wanted::all(Form::PerObject)).await
}

async fn detailed(
    State(metrics): State<Metrics>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let mut chosen: HashMap<String, Vec<String>> = HashMap::new();
    for (name, value) in api::query_pairs(query.as_deref().unwrap_or_default()) {
        chosen.entry(name).or_default().push(value);
    }
    let mut take = |name: &str| chosen.remove(name).unwrap_or_default();
    let queue = take("queue").first().map(|pattern| Pattern::new(pattern));
    match queue.transpose() {
        Ok(queue) => {
            let wanted = Wanted::chosen(take("family"), take("vhost"), queue);
            answer(&metrics, from, &headers, wanted).await
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("queue: {error}\n")).into_response(),
    }
}

async fn memory(
    State(metrics): State<Metrics>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
) -> Response {
    answer(&metrics, from, &headers, Wanted::Memory).await
}

// req: PROM-1
async fn answer(
    metrics: &Metrics,
    from: SocketAddr,
    headers: &HeaderMap,
    wanted: Wanted,
) -> Response {
    if metrics.authentication
        && let Err(refused) = api::check_monitoring(&metrics.logins, headers, from).await
    {
        return *refused;
    }
    let clients = match wanted.names_clients() {
        true => Clients::gather(&metrics.sources.broker, &metrics.sources.registry).await,
        false => Clients::default(),
    };
    let sources = Arc::clone(&metrics.sources);
    // Many queues take a while.
    let made = tokio::task::spawn_blocking(move || {
        let objects = match wanted {
            Wanted::All(_) | Wanted::Chosen { .. } => Objects::gather(&sources, &wanted),
            Wanted::Memory => Objects::default(),
        };
        write::page(&sources, &objects, &clients, &wanted)
    });
    match made.await {
        Ok(text) => ([(CONTENT_TYPE, TEXT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics were not made");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
