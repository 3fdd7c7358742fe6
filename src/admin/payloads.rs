//! `/payloads/ID`: a payload over HTTP, with ranges, for clients that speak no swarm.
//!
//! Who may read it: a broker user with rights in the payload's vhost, by basic authentication, or
//! whoever knows the payload's access key (`?key=HEX`). Others get 401, whether or not it exists.
//! Bounds: [`READ_BYTES`] in memory per request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use subtle::ConstantTimeEq as _;

use super::api::credentials_of;
use super::http::Context;
use super::logins::Refused;
use super::range::Wanted;
use crate::broker::User;
use crate::payload::store::{PayloadReader, Presence};
use crate::payload::{PayloadId, ScopeId};

/// Bytes read from the store at a time.
const READ_BYTES: u64 = 256 * 1024;

/// Answers `GET` and `HEAD`.
pub(super) async fn get(
    State(context): State<Context>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    method: Method,
    Path(id): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let Ok(id) = id.parse::<PayloadId>() else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "a payload id is 64 hexadecimal digits",
        );
    };
    let rights = Rights::of(&headers, query.get("key"), address, &context).await;
    let Some(scope) = context
        .store
        .scopes_of(id)
        .into_iter()
        .find(|scope| rights.allow(*scope, id, &context))
    else {
        return match rights {
            Rights::User(_) => refuse(StatusCode::NOT_FOUND, "no such payload in your vhosts"),
            Rights::Key(_) | Rights::None => unauthorized(),
        };
    };
    let is_whole = |presence| matches!(presence, Presence::Complete | Presence::Adopted);
    if !context
        .store
        .info(scope, id)
        .is_some_and(|info| is_whole(info.presence))
    {
        return refuse(StatusCode::NOT_FOUND, "the payload is not complete here");
    }
    let store = context.store.clone();
    let opened = tokio::task::spawn_blocking(move || store.open_reader(scope, id)).await;
    let reader = match opened {
        Ok(Ok(reader)) => reader,
        Ok(Err(error)) => {
            tracing::warn!(payload = %id, %error, "a payload cannot be served");
            return refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the payload cannot be read",
            );
        }
        Err(_) => return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the broker is stopping"),
    };
    let size_bytes = reader.geometry().size_bytes();
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok());
    match Wanted::of(range, size_bytes) {
        Wanted::Whole => answer(reader, 0..size_bytes, StatusCode::OK, &method),
        Wanted::Part(range) => answer(reader, range, StatusCode::PARTIAL_CONTENT, &method),
        Wanted::Unsatisfiable => {
            let mut response = refuse(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "the range is behind the end",
            );
            if let Ok(value) = format!("bytes */{size_bytes}").parse() {
                response.headers_mut().insert(CONTENT_RANGE, value);
            }
            response
        }
    }
}

/// What a request proves about who sent it.
enum Rights {
    /// A broker user who logged in.
    User(Arc<User>),
    /// An access key in hexadecimal, not compared yet.
    Key(String),
    /// Nothing.
    None,
}

impl Rights {
    async fn of(
        headers: &HeaderMap,
        key: Option<&String>,
        address: SocketAddr,
        context: &Context,
    ) -> Self {
        if let Some(key) = key {
            return Self::Key(key.to_ascii_lowercase());
        }
        let Some((name, password)) = credentials_of(headers) else {
            return Self::None;
        };
        match context.logins.check(&name, &password, address).await {
            Ok(user) => Self::User(user),
            // Whoever finds no place asks again in a moment.
            Err(Refused::Busy | Refused::Wrong) => Self::None,
        }
    }

    /// Whether they reach the payload in this scope.
    fn allow(&self, scope: ScopeId, id: PayloadId, context: &Context) -> bool {
        match self {
            Self::User(user) => context.broker.vhosts().into_iter().any(|vhost| {
                let users = context.broker.users();
                vhost.scope() == scope && users.authorize_vhost(user, vhost.name())
            }),
            Self::Key(given) => context
                .store
                .access_key(scope, id)
                .is_some_and(|key| key.expose_hex().as_bytes().ct_eq(given.as_bytes()).into()),
            Self::None => false,
        }
    }
}

/// The bytes of a range, read as the client takes them.
fn answer(
    reader: PayloadReader,
    range: Range<u64>,
    status: StatusCode,
    method: &Method,
) -> Response {
    let size_bytes = reader.geometry().size_bytes();
    let length = range.end - range.start;
    let mut headers = vec![
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (CONTENT_LENGTH, length.to_string()),
        (ACCEPT_RANGES, "bytes".to_owned()),
        (ETAG, format!("\"{}\"", reader.id())),
    ];
    if status == StatusCode::PARTIAL_CONTENT {
        let last = range.end.saturating_sub(1);
        headers.push((
            CONTENT_RANGE,
            format!("bytes {}-{last}/{size_bytes}", range.start),
        ));
    }
    let body = if *method == Method::HEAD {
        Body::empty()
    } else {
        Body::from_stream(stream::unfold(
            (reader, range),
            |(reader, range)| async move {
                if range.is_empty() {
                    return None;
                }
                let end = range.end.min(range.start + READ_BYTES);
                let part = read(reader.clone(), range.start..end).await;
                // After an error the body ends early, which the length tells the client.
                let rest = if part.is_ok() {
                    end..range.end
                } else {
                    range.end..range.end
                };
                Some((part, (reader, rest)))
            },
        ))
    };
    let mut response = (status, body).into_response();
    for (name, value) in headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn read(reader: PayloadReader, range: Range<u64>) -> Result<Bytes, std::io::Error> {
    let read = move || {
        let length = usize::try_from(range.end - range.start).unwrap_or(0);
        let mut buffer = vec![0; length];
        reader
            .read_at(&mut buffer, range.start)
            .map_err(std::io::Error::other)?;
        Ok(Bytes::from(buffer))
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(std::io::Error::other)?
}

fn unauthorized() -> Response {
    let mut response = refuse(
        StatusCode::UNAUTHORIZED,
        "log in as a broker user, or give the payload's access key as ?key=",
    );
    if let Ok(value) = "Basic realm=\"Warren\"".parse() {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

fn refuse(status: StatusCode, reason: &str) -> Response {
    let error = status
        .canonical_reason()
        .unwrap_or("error")
        .to_lowercase()
        .replace(' ', "_");
    let body = serde_json::json!({ "error": error, "reason": reason });
    (status, axum::Json(body)).into_response()
}
