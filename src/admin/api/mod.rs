//! The management HTTP API: RabbitMQ's paths, fields, codes and error bodies under `/api/`.
//!
//! Owns: which path leads where and who may go there. One table, [`routes`], says both, and what is not in
//! it is refused: the login comes first, then the level that the route asks for, then, for routes about a
//! vhost, a right in it, then the handler. Each resource has a file; each file has its part of the table.
//! What a caller does to queues, exchanges and bindings is done as that user, through the same calls as
//! AMQP, so that rights are decided in the broker. Nothing that changes a definition is said to be done before it
//! is on disk.
//! Bounds: [`BODY_BYTES_MAX`], [`DEFINITIONS_BYTES_MAX`], [`DURABLE_WAIT`]; pages as in `paging.rs`.
//! Spec: RabbitMQ's HTTP API reference, 3.10.

mod bindings;
mod broker_error;
mod call;
mod channels;
mod client_rates;
mod connections;
mod definitions;
mod error;
mod exchanges;
mod health;
mod import;
mod json;
mod limits;
mod log;
mod messages;
mod moving;
mod node_counters;
mod nodes;
mod openapi;
mod overview;
mod paging;
mod parameters;
mod permissions;
mod policies;
mod queues;
mod quorum;
mod rates;
mod swarm;
mod system;
mod time;
mod users;
mod vhosts;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::logins::Logins;
use super::observer::Observer;
use super::page::is_known;
use crate::admin::LogControl;
use crate::broker::{AUDIT, Broker};
use crate::config::SyncMode;
use crate::journal::Lsn;
use crate::payload::Store;
use crate::server::Inside;
use crate::server::io_meter::IoMeter;
use crate::server::registry::Registry;
use crate::server::tls::Tls;

use call::{Call, Caller};
use error::ApiError;
use rates::Rates;

pub(super) use call::credentials_of;
#[cfg(feature = "cli")]
pub(crate) use json::percent_encode;
pub(super) use overview::RABBITMQ_VERSION;
pub(super) use parameters::set_cluster_name_of;
pub(super) use rates::sample;

/// Largest body of a request, in bytes; beyond it 413.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Largest body of a definitions import, in bytes; beyond it 413.
const DEFINITIONS_BYTES_MAX: usize = 64 << 20;

/// Longest wait of a request for the disk; beyond it 503. A sync takes milliseconds, on a disk that many use seconds: what
/// takes longer is a disk that is full or stuck, and nobody knows for how long.
const DURABLE_WAIT: Duration = Duration::from_secs(10);

/// What the API answers from.
#[derive(Clone, Debug)]
pub(super) struct Api {
    pub(super) broker: Arc<Broker>,
    pub(super) registry: Arc<Registry>,
    pub(super) meter: Arc<IoMeter>,
    pub(super) durable: watch::Receiver<Lsn>,
    pub(super) facts: Arc<Facts>,
    pub(super) rates: Arc<Rates>,
    /// Looks on at nodes and swarms.
    pub(super) observer: Arc<Observer>,
    pub(super) store: Store,
    pub(super) logins: Arc<Logins>,
    /// The server around it; none where a test has no sockets.
    pub(super) inside: Option<Inside>,
    /// The TLS side, if there is any.
    pub(super) tls: Option<Arc<Tls>>,
    /// The process's log, if it lets itself be changed.
    pub(super) log: Option<Arc<dyn LogControl>>,
    /// What the broker was set to, as far as whoever runs it says so.
    pub(super) settings: Option<watch::Receiver<Value>>,
    /// Asks whoever runs the broker to stop it.
    pub(super) stop: Option<CancellationToken>,
}

/// What stays as it is while the process runs.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) started: Instant,
    /// RabbitMQ's name for a broker process, as in `rabbit@host`.
    pub(super) node: String,
    pub(super) cluster_name: String,
    /// Stays over restarts, as RabbitMQ's `rabbitmq-cluster-id-...`.
    pub(super) cluster_id: String,
    /// Where everything is kept.
    pub(super) data_dir: String,
    /// What confirms wait for.
    pub(super) sync: SyncMode,
    pub(super) version: String,
    pub(super) product: String,
    /// Longest wait for a request's body.
    pub(super) body_wait: Duration,
    /// Protocol and address of each listener.
    pub(super) listeners: Vec<(&'static str, SocketAddr)>,
}

/// Who may use a route; each includes those above it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Level {
    /// Anybody, without a login.
    Anyone,
    /// Whoever may use the API at all: one of RabbitMQ's four tags.
    Management,
    /// `policymaker` or `administrator`.
    Policymaker,
    /// `monitoring` or `administrator`.
    Monitoring,
    /// `administrator`.
    Administrator,
}

/// What answers.
#[derive(Clone, Copy)]
enum Handler {
    /// A look at memory.
    Now(fn(&Call) -> Answer),
    /// Something that must wait.
    Later(for<'a> fn(&'a Call) -> BoxFuture<'a, Answer>),
}

/// One method of one path.
struct Route {
    method: Method,
    /// With names in braces for what varies: `/queues/{vhost}/{name}`.
    path: &'static str,
    level: Level,
    handler: Handler,
}

const fn route(
    method: Method,
    path: &'static str,
    level: Level,
    run: fn(&Call) -> Answer,
) -> Route {
    Route {
        method,
        path,
        level,
        handler: Handler::Now(run),
    }
}

const fn slow_route(
    method: Method,
    path: &'static str,
    level: Level,
    run: for<'a> fn(&'a Call) -> BoxFuture<'a, Answer>,
) -> Route {
    Route {
        method,
        path,
        level,
        handler: Handler::Later(run),
    }
}

/// What a handler gives.
type Answer = Result<Reply, ApiError>;

/// An answer that is no error.
#[derive(Debug)]
enum Reply {
    /// 200 with JSON.
    Json(Value),
    /// 201, with the new thing's place relative to the request if it has one.
    Created(Option<String>),
    /// 204.
    NoContent,
    /// 200 with JSON and an entity tag.
    Tagged(Value, HeaderValue),
    /// 304 with the entity tag of what the caller has already.
    NotModified(HeaderValue),
    /// 200 with the methods that a path knows.
    Allow(String),
    /// 503 with JSON: a health check that failed.
    Unhealthy(Value),
}

impl Reply {
    /// 201 for something new, 204 for something that was there.
    fn put(put: crate::broker::Put) -> Self {
        match put {
            crate::broker::Put::Created => Self::Created(None),
            crate::broker::Put::Replaced => Self::NoContent,
        }
    }
}

/// Every route of the API.
fn routes() -> impl Iterator<Item = &'static Route> {
    [
        bindings::ROUTES,
        channels::ROUTES,
        connections::ROUTES,
        definitions::ROUTES,
        exchanges::ROUTES,
        health::ROUTES,
        limits::ROUTES,
        log::ROUTES,
        messages::ROUTES,
        moving::ROUTES,
        nodes::ROUTES,
        openapi::ROUTES,
        overview::ROUTES,
        parameters::ROUTES,
        permissions::ROUTES,
        policies::ROUTES,
        queues::ROUTES,
        quorum::ROUTES,
        swarm::ROUTES,
        system::ROUTES,
        users::ROUTES,
        vhosts::ROUTES,
    ]
    .into_iter()
    .flatten()
}

impl Api {
    /// Answers one request whose path begins with `/api`.
    pub(super) async fn answer(&self, request: Request<Body>, from: SocketAddr) -> Response<Body> {
        let is_head = request.method() == Method::HEAD;
        let answered = self.run(request, from).await;
        let mut response = match answered {
            Ok(reply) => respond(reply),
            Err(error) => error.into_response(),
        };
        if is_head {
            *response.body_mut() = Body::empty();
        }
        response
    }

    async fn run(&self, request: Request<Body>, from: SocketAddr) -> Answer {
        let (head, body) = request.into_parts();
        let method = match head.method {
            Method::HEAD => Method::GET,
            method => method,
        };
        // req: MGMT-9
        if ![Method::GET, Method::OPTIONS].contains(&method) && is_for_another_site(&head.headers) {
            return Err(ApiError::of_another_site());
        }
        let segments = segments(head.uri.path())?;
        let found: Vec<_> = routes()
            .filter_map(|route| Some((route, match_path(route.path, &segments)?)))
            .collect();
        let by_method = found.iter().position(|(route, _)| route.method == method);
        let level = by_method.map(|index| found[index].0.level);
        // Who may not log in learns nothing of what there is.
        // req: MGMT-1
        let caller = match level {
            Some(Level::Anyone) => None,
            _ => Some(Caller::log_in(&self.logins, &head.headers, from).await?),
        };
        let Some(index) = by_method else {
            if found.is_empty() {
                return Err(ApiError::not_found());
            }
            let methods = found.iter().map(|(route, _)| &route.method);
            let allow = allowed(methods.collect());
            return match method == Method::OPTIONS {
                true => Ok(Reply::Allow(allow)),
                false => Err(ApiError::method_not_allowed(allow)),
            };
        };
        let (route, names) = &found[index];
        let act = Act {
            user: caller.as_ref().map(|caller| caller.user.name().to_string()),
            from,
            method: &method,
            path: head.uri.path(),
        };
        if let Some(caller) = &caller {
            let checked = caller.check(route.level);
            checked.inspect_err(|error| act.refused(error))?;
        }
        let body_bytes_max = match route.path.starts_with("/definitions") {
            true => DEFINITIONS_BYTES_MAX,
            false => BODY_BYTES_MAX,
        };
        // req: MGMT-6
        let body = axum::body::to_bytes(body, body_bytes_max);
        let body = tokio::time::timeout(self.facts.body_wait, body).await;
        let body = body
            .map_err(|_| ApiError::too_slow())?
            .map_err(|_| ApiError::too_large(body_bytes_max))?;
        let call = Call {
            api: self.clone(),
            caller,
            names: names.clone(),
            query: query(head.uri.query().unwrap_or_default()),
            headers: head.headers,
            body,
            now: self.broker.time(Instant::now()),
            from,
        };
        let checked = call.check_vhost(route.level);
        checked.inspect_err(|error| act.refused(error))?;
        let result = match route.handler {
            Handler::Now(run) => run(&call),
            Handler::Later(run) => run(&call).await,
        };
        if route.method == Method::GET {
            return match result {
                Ok(Reply::Tagged(_, tag)) if is_known(&call.headers, &tag) => {
                    Ok(Reply::NotModified(tag))
                }
                result => result,
            };
        }
        let result = match result {
            Ok(reply) => self.settle().await.map(|()| reply),
            Err(error) => Err(error),
        };
        act.done(&result);
        result
    }

    /// Longest body of a message that is published from now on, in bytes.
    fn message_bytes_max(&self) -> Option<u64> {
        let settings = self.inside.as_ref()?.session_settings();
        settings.connection.message_bytes_max
    }

    /// Waits until all definitions so far are on disk.
    // req: MGMT-4
    async fn settle(&self) -> Result<(), ApiError> {
        self.wait_durable(self.broker.pending_definitions()).await
    }

    /// Waits until the journal is durable up to `lsn`; no longer than [`DURABLE_WAIT`], and not at all for a disk that has
    /// failed.
    // req: MGMT-12
    async fn wait_durable(&self, lsn: Option<Lsn>) -> Result<(), ApiError> {
        let Some(lsn) = lsn else {
            return Ok(());
        };
        let mut durable = self.durable.clone();
        tokio::select! {
            biased;
            reached = durable.wait_for(|durable| *durable >= lsn) => {
                reached.map(drop).map_err(|_| ApiError::stopping())
            }
            () = self.storage_failed() => Err(ApiError::storage_failed()),
            () = tokio::time::sleep(DURABLE_WAIT) => {
                Err(ApiError::not_durable(self.broker.alarms().reason()))
            }
        }
    }

    /// Waits until the disk fails under the journal.
    async fn storage_failed(&self) {
        match &self.inside {
            Some(inside) => inside.storage_failed().cancelled().await,
            None => std::future::pending().await,
        }
    }
}

/// Methods as `Allow` has them, in RabbitMQ's order.
fn allowed(known: Vec<&Method>) -> String {
    let all = [
        (Method::GET, "HEAD, GET"),
        (Method::POST, "POST"),
        (Method::PUT, "PUT"),
        (Method::DELETE, "DELETE"),
    ];
    let names = all.iter().filter(|(method, _)| known.contains(&method));
    let names = names.map(|(_, name)| *name).chain(["OPTIONS"]);
    names.collect::<Vec<_>>().join(", ")
}

/// Whether a browser sends a request for a page that is not this broker's own. Tools that are no browsers say nothing of
/// it; a page of another site cannot make a browser lie, nor set `X-Forwarded-Host` without being asked first.
fn is_for_another_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if let Some(site) = text("sec-fetch-site") {
        return !["same-origin", "none"].contains(&site);
    }
    let Some(origin) = text("origin") else {
        return false;
    };
    let origin = origin.split_once("://").map(|(_, host)| host);
    let hosts = [text("host"), text("x-forwarded-host")];
    let mut hosts = hosts.into_iter().flatten();
    !hosts.any(|host| origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host)))
}

/// What somebody asks for, as the audit trail has it: never a body, which may hold passwords.
struct Act<'a> {
    user: Option<String>,
    from: SocketAddr,
    method: &'a Method,
    path: &'a str,
}

// req: AUDIT-1
impl Act<'_> {
    fn user(&self) -> &str {
        self.user.as_deref().unwrap_or_default()
    }

    /// Whoever asks has no right to it.
    fn refused(&self, error: &ApiError) {
        tracing::warn!(
            target: AUDIT,
            user = self.user(),
            from = %self.from,
            method = %self.method,
            path = self.path,
            reason = &*error.reason(),
            "access refused"
        );
    }

    /// It was tried.
    fn done(&self, result: &Answer) {
        let result = match result {
            Ok(_) => "done".into(),
            Err(error) => error.reason(),
        };
        tracing::info!(
            target: AUDIT,
            user = self.user(),
            from = %self.from,
            method = %self.method,
            path = self.path,
            result = &*result,
            "administrative act"
        );
    }
}

fn respond(reply: Reply) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let json = |response: &mut Response<Body>, value: &Value| {
        *response.body_mut() = Body::from(value.to_string());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::CACHE_CONTROL, NO_CACHE);
    };
    match reply {
        Reply::Json(value) => json(&mut response, &value),
        Reply::Tagged(value, tag) => {
            json(&mut response, &value);
            response.headers_mut().insert(header::ETAG, tag);
        }
        Reply::NotModified(tag) => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().insert(header::ETAG, tag);
        }
        Reply::Unhealthy(value) => {
            json(&mut response, &value);
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        Reply::Allow(allow) => {
            if let Ok(allow) = allow.parse() {
                response.headers_mut().insert(header::ALLOW, allow);
            }
        }
        Reply::Created(place) => {
            *response.status_mut() = StatusCode::CREATED;
            if let Some(place) = place.and_then(|place| place.parse().ok()) {
                response.headers_mut().insert(header::LOCATION, place);
            }
        }
        Reply::NoContent => *response.status_mut() = StatusCode::NO_CONTENT,
    }
    response
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

/// Names in a path, by what the route calls them.
type Names = HashMap<&'static str, String>;

/// The decoded parts of a path behind `/api`. A last empty part, behind a slash at the end, does not count.
fn segments(path: &str) -> Result<Vec<String>, ApiError> {
    let inner = path.strip_prefix("/api").unwrap_or(path);
    let inner = inner.strip_prefix('/').unwrap_or(inner);
    let mut parts: Vec<_> = inner.split('/').collect();
    if parts.last() == Some(&"") {
        parts.pop();
    }
    let decoded = parts
        .into_iter()
        .map(|part| json::percent_decode(part, json::Plus::IsPlus));
    decoded
        .collect::<Option<_>>()
        .ok_or_else(|| ApiError::bad_request("the path is not UTF-8"))
}

/// The names in a path that is as the pattern has it. An empty part stands for vhost `/`.
fn match_path(pattern: &'static str, segments: &[String]) -> Option<Names> {
    let mut names = Names::new();
    let mut parts = pattern.split('/').skip(1);
    for segment in segments {
        let part = parts.next()?;
        match part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'))
        {
            Some("vhost") if segment.is_empty() => drop(names.insert("vhost", "/".to_owned())),
            Some(_) if segment.is_empty() => return None,
            Some(name) => drop(names.insert(name, segment.clone())),
            None if part == segment => {}
            None => return None,
        }
    }
    parts.next().is_none().then_some(names)
}

fn query(text: &str) -> HashMap<String, String> {
    query_pairs(text).collect()
}

/// Names and values of a query, in order; what is no UTF-8 is left out.
pub(super) fn query_pairs(text: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text| json::percent_decode(text, json::Plus::IsSpace);
        Some((decode(name)?, decode(value)?))
    })
}

/// Lets those in who may watch; everybody else gets this answer.
pub(super) async fn check_monitoring(
    logins: &Logins,
    headers: &HeaderMap,
    from: SocketAddr,
) -> Result<(), Box<Response<Body>>> {
    let caller = Caller::log_in(logins, headers, from).await;
    let checked = caller.and_then(|caller| caller.check(Level::Monitoring));
    checked.map_err(|error| Box::new(error.into_response()))
}

#[cfg(test)]
mod tests;
