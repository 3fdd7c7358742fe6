//! `/connections`: who is connected, and ending connections with a word to their clients.
//!
//! Who only has the `management` tag sees its own.

use std::sync::Arc;

use axum::http::Method;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::broker::Name;
use crate::server::registry::{ConnectionEntry, Registry};
use crate::session::SessionView;

use super::call::Call;
use super::error::ApiError;
use super::{Answer, Level, Reply, Route, channels, json as convert, paging, queues, slow_route};

pub(super) const ROUTES: &[Route] = &[
    slow_route(Method::GET, "/connections", Level::Management, list),
    slow_route(Method::GET, "/connections/{name}", Level::Management, get),
    slow_route(
        Method::DELETE,
        "/connections/{name}",
        Level::Management,
        delete,
    ),
    slow_route(
        Method::GET,
        "/connections/{name}/channels",
        Level::Management,
        channels_of,
    ),
    slow_route(
        Method::GET,
        "/connections/username/{user}",
        Level::Management,
        list_of_user,
    ),
    slow_route(
        Method::DELETE,
        "/connections/username/{user}",
        Level::Management,
        delete_of_user,
    ),
    slow_route(
        Method::GET,
        "/vhosts/{vhost}/connections",
        Level::Management,
        list_of_vhost,
    ),
];

/// What clients hear when an operator gives no reason.
const REASON: &str = "Closed via management plugin";

pub(super) type Seen = (Arc<ConnectionEntry>, SessionView);

/// Connections that the caller may look at.
pub(super) async fn visible(call: &Call) -> Vec<Seen> {
    let mut views = call.api.registry.views().await;
    let own = call.user().ok().map(|user| user.name().clone());
    let all = call.may(Level::Monitoring);
    views.retain(|(_, view)| view.user.is_some() && (all || view.user == own));
    views
}

async fn find(call: &Call) -> Result<Seen, ApiError> {
    let name = call.name("name");
    let entries = call.api.registry.connections();
    let entry = entries.into_iter().find(|entry| entry.name() == name);
    let entry = entry.ok_or_else(ApiError::not_found)?;
    let view = entry.view().await.ok_or_else(ApiError::not_found)?;
    let own = Some(call.user()?.name());
    if call.may(Level::Monitoring) || view.user.as_ref() == own {
        return Ok((entry, view));
    }
    Err(ApiError::not_authorised(
        "User not authorised to access object",
    ))
}

fn describe(call: &Call, (entry, view): &Seen) -> Value {
    let traffic = entry.traffic();
    let tls = view.tls.as_deref();
    let peer = tls.and_then(|tls| tls.peer.as_ref());
    let no_rate = json!({ "rate": 0.0 });
    let name = |name: &Option<Name>| name.as_ref().map(Name::to_string);
    let mut object = json!({
        "name": entry.name(),
        "node": call.api.facts.node,
        "type": "network",
        "protocol": "AMQP 0-9-1",
        "state": view.state,
        "user": name(&view.user),
        "user_who_performed_action": name(&view.user),
        "vhost": name(&view.vhost),
        "host": entry.local().ip().to_string(),
        "port": entry.local().port(),
        "peer_host": entry.peer().ip().to_string(),
        "peer_port": entry.peer().port(),
        "connected_at": entry.connected_unix_ms(),
        "auth_mechanism": view.mechanism,
        "client_properties": convert::from_table(&view.client_properties),
        "channels": view.channels.len(),
        "channel_max": view.channel_count_max,
        "frame_max": view.frame_bytes_max,
        "timeout": view.heartbeat.as_secs(),
        "recv_cnt": traffic.reads,
        "send_cnt": traffic.writes,
        "send_pend": 0,
        "reductions": 0,
        "reductions_details": no_rate,
        "garbage_collection": queues::no_garbage(),
        "user_provided_name": provided_name(view),
        "ssl": view.tls.is_some(),
        "ssl_cipher": tls.map(|tls| &tls.cipher),
        "ssl_hash": tls.map(|tls| &tls.hash),
        "ssl_key_exchange": tls.map(|tls| &tls.key_exchange),
        "ssl_protocol": tls.map(|tls| tls.protocol),
        "peer_cert_issuer": peer.map(|peer| &peer.issuer),
        "peer_cert_subject": peer.map(|peer| &peer.subject),
        "peer_cert_validity": peer.map(|peer| &peer.validity),
    });
    if let Value::Object(object) = &mut object {
        let rates = &call.api.rates;
        rates.clients(|looks| looks.put_traffic(object, entry, &traffic));
    }
    object
}

/// What the client calls the connection, if it does.
fn provided_name(view: &SessionView) -> Value {
    let name = view.client_properties.get("connection_name");
    let name = name.as_ref().and_then(|name| name.as_str());
    name.map_or(Value::Null, Value::from)
}

async fn listed(call: &Call, is_meant: impl Fn(&SessionView) -> bool) -> Answer {
    let seen = visible(call).await;
    let meant = seen.iter().filter(|(_, view)| is_meant(view));
    paging::list(call, meant.map(|seen| describe(call, seen)).collect())
}

fn list(call: &Call) -> BoxFuture<'_, Answer> {
    listed(call, |_| true).boxed()
}

fn list_of_user(call: &Call) -> BoxFuture<'_, Answer> {
    let user = call.name("user").as_bytes();
    listed(call, move |view| {
        view.user.as_ref().map(Name::as_bytes) == Some(user)
    })
    .boxed()
}

fn list_of_vhost(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let vhost = call.vhost()?;
        listed(call, |view| view.vhost.as_ref() == Some(vhost.name())).await
    }
    .boxed()
}

fn get(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let seen = find(call).await?;
        let mut object = describe(call, &seen);
        // RabbitMQ has empty texts here and nulls in lists.
        if let Value::Object(object) = &mut object {
            for field in OF_TLS {
                if let Some(value) = object.get_mut(field).filter(|value| value.is_null()) {
                    *value = "".into();
                }
            }
        }
        paging::one(call, object)
    }
    .boxed()
}

/// What is known of a connection over TLS only.
const OF_TLS: [&str; 7] = [
    "ssl_cipher",
    "ssl_hash",
    "ssl_key_exchange",
    "ssl_protocol",
    "peer_cert_issuer",
    "peer_cert_subject",
    "peer_cert_validity",
];

fn channels_of(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let seen = find(call).await?;
        paging::list(call, channels::of_connection(call, &seen))
    }
    .boxed()
}

/// The reason in `X-Reason`, or the usual one.
fn reason(call: &Call) -> String {
    let given = call
        .headers
        .get("x-reason")
        .and_then(|reason| reason.to_str().ok());
    given
        .filter(|reason| !reason.is_empty())
        .unwrap_or(REASON)
        .to_owned()
}

fn delete(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let (entry, _) = find(call).await?;
        entry.close(&reason(call));
        tracing::info!(conn = entry.name(), "a connection is closed by an operator");
        Ok(Reply::NoContent)
    }
    .boxed()
}

fn delete_of_user(call: &Call) -> BoxFuture<'_, Answer> {
    async {
        let user = call.name("user").as_bytes();
        let seen = visible(call).await;
        let is_meant = |view: &SessionView| view.user.as_ref().map(Name::as_bytes) == Some(user);
        for (entry, _) in seen.iter().filter(|(_, view)| is_meant(view)) {
            entry.close(&reason(call));
        }
        Ok(Reply::NoContent)
    }
    .boxed()
}

/// Ends the connections of a user that is deleted.
pub(super) fn close_of_user(registry: &Arc<Registry>, user: &Name) {
    let (user, reason) = (user.clone(), format!("user '{user}' is deleted"));
    close_where(registry, reason, move |view| {
        view.user.as_ref() == Some(&user)
    });
}

/// Ends the connections to a vhost that is deleted.
pub(super) fn close_of_vhost(registry: &Arc<Registry>, vhost: &Name) {
    let (vhost, reason) = (vhost.clone(), format!("vhost '{vhost}' is deleted"));
    close_where(registry, reason, move |view| {
        view.vhost.as_ref() == Some(&vhost)
    });
}

fn close_where(
    registry: &Arc<Registry>,
    reason: String,
    is_meant: impl Fn(&SessionView) -> bool + Send + 'static,
) {
    let registry = Arc::clone(registry);
    tokio::spawn(async move {
        for (entry, view) in registry.views().await {
            if is_meant(&view) {
                entry.close(&reason);
            }
        }
    });
}
