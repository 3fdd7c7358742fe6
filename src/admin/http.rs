//! The HTTP listener and its routes.
//!
//! Owns: the listening sockets, plain and for TLS, and what each path leads to. `/health` answers anybody, and so do the
//! page's own files (`page.rs`); everything else asks for a broker user (basic authentication) or a payload's own access key. What is under `/api` is
//! `api/mod.rs`' business.
//! Bounds: connections and request heads as in `serve.rs`; request bodies as in `api/mod.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::LogControl;
use super::api::{self, Api, Facts};
use super::logins::Logins;
use super::metrics::{self, Metrics, Sources};
use super::observer::Observer;
use super::serve::{Door, serve};
use super::tls_listener::TlsListener;
use super::{page, payloads};
use crate::broker::Broker;
use crate::config::{PrometheusSettings, ServerSettings};
use crate::payload::Store;
use crate::server::tls::Tls;
use crate::server::{InheritedSockets, Listening, ServerHandle};

/// What the routes answer from.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) broker: Arc<Broker>,
    pub(super) store: Store,
    pub(super) logins: Arc<Logins>,
}

/// Why the HTTP interface cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for HTTP: {source}; is another broker running there?")]
pub struct HttpError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Why definitions cannot be brought in.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DefinitionsError(String);

/// The HTTP interface of a broker, listening.
#[derive(Debug)]
pub struct HttpServer {
    listener: Listening,
    local_addr: SocketAddr,
    tls: Option<(Listening, SocketAddr, Arc<Tls>)>,
    context: Context,
    api: Api,
    metrics: Metrics,
    /// `/metrics` is there: the settings want it.
    shows_metrics: bool,
    door: Arc<Door>,
    metrics_listener: Option<(Listening, SocketAddr)>,
}

impl HttpServer {
    /// Listens on the settings' address for a server that was started with them; port 0 takes a free one.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn bind(settings: &ServerSettings, server: &ServerHandle) -> Result<Self, HttpError> {
        let address = settings.http_listen;
        let failed = |source| HttpError { address, source };
        let sockets = server.sockets();
        let listener = sockets.listen(address).await.map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let mut listeners = vec![("http", local_addr)];
        listeners.extend(server.plain_addr().map(|address| ("amqp", address)));
        listeners.extend(server.amqps_addr().map(|address| ("amqp/ssl", address)));
        let tls = match (settings.tls.http_listen, server.tls()) {
            (Some(address), Some(tls)) => {
                let failed = |source| HttpError { address, source };
                let listener = sockets.listen(address).await.map_err(failed)?;
                let local_addr = listener.local_addr().map_err(failed)?;
                listeners.push(("https", local_addr));
                Some((listener, local_addr, Arc::clone(tls)))
            }
            _ => None,
        };
        let metrics_listener = bind_metrics(&settings.prometheus, sockets).await?;
        if let Some((_, address)) = &metrics_listener {
            listeners.push(("http/prometheus", *address));
        }
        listeners.extend(server.peer_addr().map(|address| ("peer", address)));
        let node = format!("warren@{}", host_name());
        let facts = Facts {
            started: Instant::now(),
            node: node.clone(),
            cluster_name: settings.connection.cluster_name.clone(),
            cluster_id: cluster_id(&node, &settings.data_dir),
            data_dir: settings.data_dir.display().to_string(),
            sync: settings.sync,
            version: settings.connection.version.clone(),
            product: settings.connection.product.clone(),
            body_wait: settings.http.body_wait,
            listeners,
        };
        let broker = Arc::clone(server.broker());
        let failed_logins = Arc::clone(server.failed_logins());
        let logins = Arc::new(Logins::new(Arc::clone(&broker), failed_logins));
        let sources = Sources {
            broker: Arc::clone(&broker),
            registry: Arc::clone(server.registry()),
            meter: Arc::clone(server.io_meter()),
            store: server.store().clone(),
            swarm: server.swarm().clone(),
            started: facts.started,
            sync: facts.sync,
            node: facts.node.clone(),
            cluster_name: facts.cluster_name.clone(),
            cluster_id: facts.cluster_id.clone(),
            version: facts.version.clone(),
            product: facts.product.clone(),
        };
        Ok(Self {
            metrics_listener,
            door: Door::new(&settings.http),
            shows_metrics: settings.prometheus.enabled,
            metrics: Metrics {
                logins: Arc::clone(&logins),
                sources: Arc::new(sources),
                per_object: settings.prometheus.per_object,
                authentication: settings.prometheus.authentication,
            },
            listener,
            local_addr,
            tls,
            context: Context {
                broker: Arc::clone(&broker),
                store: server.store().clone(),
                logins: Arc::clone(&logins),
            },
            api: Api {
                logins,
                inside: Some(server.inside()),
                observer: Observer::new(Arc::clone(&broker), server.swarm().clone()),
                store: server.store().clone(),
                broker,
                registry: Arc::clone(server.registry()),
                meter: Arc::clone(server.io_meter()),
                durable: server.durable(),
                facts: Arc::new(facts),
                rates: Arc::default(),
                tls: server.tls().cloned(),
                log: None,
                settings: None,
                stop: None,
            },
        })
    }

    /// Lets operators see and change what is logged.
    #[must_use]
    pub fn with_log(mut self, log: Arc<dyn LogControl>) -> Self {
        self.api.log = Some(log);
        self
    }

    /// Shows administrators what the broker is set to, as an object; passwords are not to be in it.
    #[must_use]
    pub fn with_settings(mut self, settings: watch::Receiver<serde_json::Value>) -> Self {
        self.api.settings = Some(settings);
        self
    }

    /// Lets administrators stop the broker: `stop` is cancelled then, and whoever holds it does the rest.
    #[must_use]
    pub fn with_stop(mut self, stop: CancellationToken) -> Self {
        self.api.stop = Some(stop);
        self
    }

    /// Brings definitions in, in RabbitMQ's format, as an import by the broker itself.
    ///
    /// # Errors
    /// What is wrong with which entry; what came before it stays.
    pub async fn load_definitions(
        &self,
        document: serde_json::Map<String, serde_json::Value>,
    ) -> Result<(), DefinitionsError> {
        let api = self.api.clone();
        // Passwords are hashed.
        let brought_in = tokio::task::spawn_blocking(move || api.bring_in(&document)).await;
        let brought_in = brought_in.unwrap_or_else(|error| Err(error.to_string()));
        brought_in.map_err(DefinitionsError)
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Where it listens for TLS, if it does.
    #[must_use]
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(|(_, address, _)| *address)
    }

    /// Where it listens for Prometheus, if it does.
    #[must_use]
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_listener.as_ref().map(|(_, address)| *address)
    }

    /// Answers requests until `stopping` is cancelled.
    pub async fn serve(self, stopping: CancellationToken) {
        let rates = Arc::clone(&self.api.rates);
        let sampling = tokio::spawn(api::sample(rates, self.api.sampled(), stopping.clone()));
        let observer = Arc::clone(&self.api.observer);
        let observing = tokio::spawn(observer.run(stopping.clone()));
        let api = self.api;
        let answer = move |ConnectInfo(from): ConnectInfo<SocketAddr>, request: Request| {
            let api = api.clone();
            async move {
                match request.uri().path() {
                    path if path == "/api" || path.starts_with("/api/") => {
                        api.answer(request, from).await
                    }
                    path => page::answer(request.method(), path, request.headers()),
                }
            }
        };
        let routes = Router::new()
            .route("/health", get(health))
            .route("/payloads/{id}", get(payloads::get))
            .fallback(answer)
            .with_state(self.context);
        // req: PROM-5
        let routes = match self.shows_metrics {
            true => routes.merge(metrics::routes(self.metrics.clone())),
            false => routes,
        };
        let over_tls = self.tls.map(|(socket, address, tls)| {
            let listener = TlsListener::start(socket, address, tls, stopping.clone());
            let (routes, door) = (routes.clone(), Arc::clone(&self.door));
            tokio::spawn(serve(listener, routes, door, stopping.clone()))
        });
        let for_prometheus = self.metrics_listener.map(|(socket, _)| {
            let (routes, door) = (metrics::routes(self.metrics), Arc::clone(&self.door));
            tokio::spawn(serve(socket, routes, door, stopping.clone()))
        });
        serve(self.listener, routes, self.door, stopping.clone()).await;
        if let Some(over_tls) = over_tls
            && over_tls.await.is_err()
        {
            tracing::error!("the HTTP interface over TLS ended before its time");
        }
        if observing.await.is_err() {
            tracing::error!("looking on at the nodes ended before its time");
        }
        if let Some(for_prometheus) = for_prometheus
            && for_prometheus.await.is_err()
        {
            tracing::error!("the listener for Prometheus ended before its time");
        }
        if sampling.await.is_err() {
            tracing::error!("the statistics ended before their time");
        }
    }
}

/// Listens for Prometheus. Its usual port may be another broker's on this machine: that is no reason not to start,
/// unless somebody has said which one is meant.
async fn bind_metrics(
    settings: &PrometheusSettings,
    sockets: &InheritedSockets,
) -> Result<Option<(Listening, SocketAddr)>, HttpError> {
    if !settings.enabled {
        return Ok(None);
    }
    let address = settings.listen;
    let listen = async {
        let listener = sockets.listen(address).await?;
        let local_addr = listener.local_addr()?;
        Ok((listener, local_addr))
    };
    match listen.await {
        Ok(listening) => Ok(Some(listening)),
        Err(error) if address == PrometheusSettings::default().listen => {
            tracing::warn!(%address, %error, "no listener for Prometheus; /metrics of the HTTP listener has the same");
            Ok(None)
        }
        Err(source) => Err(HttpError { address, source }),
    }
}

/// A name that stays over restarts, as RabbitMQ's `rabbitmq-cluster-id-...`.
fn cluster_id(node: &str, data_dir: &std::path::Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(node.as_bytes()).update(&[0]);
    hasher.update(data_dir.as_os_str().as_encoded_bytes());
    let hex = hasher.finalize().to_hex();
    format!("rabbitmq-cluster-id-{}", &hex[..22])
}

/// This machine's name, without its domain.
fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or("localhost").to_owned()
}

/// Whether the broker runs: it does, if this answers.
async fn health() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], "{\"status\":\"ok\"}")
}
