//! One request on its way to a handler: who asks, what for, and the broker on whose behalf.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::broker::{Broker, Connection, Name, User, Vhost, Waker, Wakes};

use super::super::logins::{Logins, Refused};
use super::error::ApiError;
use super::{Api, Level, Names};

/// A user who has logged in.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) user: Arc<User>,
    /// It is the broker itself, which may do everything.
    is_internal: bool,
}

impl Caller {
    /// The broker itself.
    pub(super) fn internal() -> Self {
        Self {
            user: Arc::new(User::internal()),
            is_internal: true,
        }
    }

    /// Checks name and password of basic authentication, or a token.
    pub(super) async fn log_in(
        logins: &Logins,
        headers: &HeaderMap,
        from: SocketAddr,
    ) -> Result<Self, ApiError> {
        let Some((name, password)) = credentials_of(headers) else {
            return Err(ApiError::no_login());
        };
        Self::admit(logins.check(&name, &password, from).await)
    }

    /// Checks a name and a password that came another way.
    pub(super) async fn check_login(
        logins: &Logins,
        name: &str,
        password: &str,
        from: SocketAddr,
    ) -> Result<Self, ApiError> {
        let checked = logins.check(name.as_bytes(), password.as_bytes(), from);
        Self::admit(checked.await)
    }

    fn admit(checked: Result<Arc<User>, Refused>) -> Result<Self, ApiError> {
        match checked {
            Ok(user) => Ok(Self {
                user,
                is_internal: false,
            }),
            Err(Refused::Busy) => Err(ApiError::too_many_logins()),
            Err(Refused::Wrong) => Err(ApiError::login_failed()),
        }
    }

    /// Refuses a user without one of the tags that a route asks for.
    pub(super) fn check(&self, level: Level) -> Result<(), ApiError> {
        if !self.may(Level::Management) {
            return Err(ApiError::not_authorised("Not management user"));
        }
        if self.may(level) {
            return Ok(());
        }
        Err(ApiError::not_authorised(match level {
            Level::Administrator => "Not administrator user",
            Level::Monitoring => "Not monitor user",
            Level::Anyone | Level::Management | Level::Policymaker => {
                "User not authorised to access object"
            }
        }))
    }

    pub(super) fn may(&self, level: Level) -> bool {
        if self.is_internal {
            return true;
        }
        let allowed: &[&str] = match level {
            Level::Anyone => return true,
            Level::Management => &["administrator", "monitoring", "policymaker", "management"],
            Level::Policymaker => &["administrator", "policymaker"],
            Level::Monitoring => &["administrator", "monitoring"],
            Level::Administrator => &["administrator"],
        };
        allowed.iter().any(|tag| self.user.has_tag(tag))
    }
}

/// Name and password of basic authentication, or no name and a token.
// req: OAUTH-6
pub(in crate::admin) fn credentials_of(headers: &HeaderMap) -> Option<(Vec<u8>, Vec<u8>)> {
    credentials(headers.get(header::AUTHORIZATION)?)
}

fn credentials(value: &header::HeaderValue) -> Option<(Vec<u8>, Vec<u8>)> {
    let encoded = value.to_str().ok()?;
    let (scheme, encoded) = encoded.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some((Vec::new(), encoded.trim().as_bytes().to_vec()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let engine = base64::engine::general_purpose::STANDARD;
    let decoded = engine.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|octet| *octet == b':')?;
    let (name, password) = decoded.split_at(colon);
    Some((name.to_vec(), password.get(1..)?.to_vec()))
}

/// A request.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) api: Api,
    /// None on routes for anybody.
    pub(super) caller: Option<Caller>,
    pub(super) names: Names,
    pub(super) query: HashMap<String, String>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) now: Instant,
    /// Where it comes from.
    pub(super) from: SocketAddr,
}

/// A connection in the caller's name that gets no deliveries.
struct NoWaker;

impl Waker for NoWaker {
    fn wake(&self) {}
}

impl Call {
    pub(super) fn broker(&self) -> &Arc<Broker> {
        &self.api.broker
    }

    /// What the path says here; empty if the route has no such name.
    pub(super) fn name(&self, name: &str) -> &str {
        self.names.get(name).map_or("", String::as_str)
    }

    /// The same as a name of the broker's.
    pub(super) fn broker_name(&self, name: &str) -> Result<Name, ApiError> {
        to_name(self.name(name))
    }

    /// A name of an exchange, where `amq.default` is the one without a name.
    pub(super) fn exchange_name(&self, name: &str) -> &str {
        match self.name(name) {
            "amq.default" => "",
            name => name,
        }
    }

    pub(super) fn user(&self) -> Result<&Arc<User>, ApiError> {
        let caller = self.caller.as_ref().ok_or_else(ApiError::no_login)?;
        Ok(&caller.user)
    }

    pub(super) fn may(&self, level: Level) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.may(level))
    }

    /// The vhost that the path names.
    pub(super) fn vhost(&self) -> Result<Arc<Vhost>, ApiError> {
        let vhost = self.broker().vhost(self.name("vhost").as_bytes());
        vhost.ok_or_else(|| match self.body.is_empty() {
            true => ApiError::not_found(),
            false => ApiError::missing("vhost_not_found"),
        })
    }

    /// Vhosts into which the caller may look: all for administrators, else those it has a right in.
    pub(super) fn visible_vhosts(&self) -> Vec<Arc<Vhost>> {
        let vhosts = self.broker().vhosts().into_iter();
        vhosts.filter(|vhost| self.sees(vhost.name())).collect()
    }

    /// Vhosts that the caller may know of: all for those who watch, else those into which it may look.
    pub(super) fn known_vhosts(&self) -> Vec<Arc<Vhost>> {
        match self.may(Level::Monitoring) {
            true => self.broker().vhosts(),
            false => self.visible_vhosts(),
        }
    }

    fn sees(&self, vhost: &Name) -> bool {
        let has_right = |call: &Self| {
            let users = call.broker().users();
            call.user()
                .is_ok_and(|user| users.authorize_vhost(user, vhost))
        };
        self.may(Level::Administrator) || has_right(self)
    }

    /// Refuses a route about a vhost that the caller may not look at.
    // req: MGMT-2
    pub(super) fn check_vhost(&self, level: Level) -> Result<(), ApiError> {
        if self.caller.is_none() || !self.names.contains_key("vhost") {
            return Ok(());
        }
        let vhost = self.broker_name("vhost")?;
        // Whatever only those may look at who watch all of the broker is no vhost's own.
        if level == Level::Monitoring || self.sees(&vhost) {
            return Ok(());
        }
        Err(ApiError::not_authorised(match level {
            Level::Policymaker => "User not authorised to access object",
            _ => "User not authorised to access virtual host",
        }))
    }

    /// A connection to the path's vhost in the caller's name, for what AMQP has a call for.
    // req: MGMT-3
    pub(super) fn connect(&self) -> Result<Connection, ApiError> {
        let vhost = self.vhost()?;
        self.connect_to(&vhost)
    }

    pub(super) fn connect_to(&self, vhost: &Vhost) -> Result<Connection, ApiError> {
        let name = vhost.name().as_bytes();
        if self
            .caller
            .as_ref()
            .is_some_and(|caller| caller.is_internal)
        {
            return Ok(self.broker().connect_internal(name)?);
        }
        let connected = self.broker().connect(self.user()?, name, Arc::new(NoWaker));
        Ok(connected?)
    }

    /// Runs something that may wake consumers.
    pub(super) fn waking<T>(&self, run: impl FnOnce(&mut Wakes) -> T) -> T {
        run(&mut Wakes::new())
    }

    /// The body as an object; an empty body is an empty one.
    pub(super) fn object(&self) -> Result<Map<String, Value>, ApiError> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) | Err(_) => Err(ApiError::bad_request("not_json")),
        }
    }

    /// The body as an object that has these keys.
    pub(super) fn object_with(&self, keys: &[&str]) -> Result<Map<String, Value>, ApiError> {
        let object = self.object()?;
        let missing: Vec<_> = keys
            .iter()
            .filter(|key| !object.contains_key(**key))
            .map(|key| format!("{{key_missing,{key}}}"))
            .collect();
        match missing.is_empty() {
            true => Ok(object),
            false => Err(ApiError::bad_request(format!("[{}]", missing.join(",")))),
        }
    }
}

/// A name of the broker's from text, if it is not too long.
pub(super) fn to_name(text: &str) -> Result<Name, ApiError> {
    if text.len() > crate::broker::limits::NAME_BYTES_MAX {
        return Err(ApiError::bad_request("a name may have 255 bytes"));
    }
    Ok(Name::from(text))
}

/// A flag in an object: RabbitMQ takes texts too.
pub(super) fn flag(object: &Map<String, Value>, key: &str) -> Result<bool, ApiError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(Value::String(text)) if text == "true" => Ok(true),
        Some(Value::String(text)) if text == "false" => Ok(false),
        Some(other) => Err(ApiError::bad_term("not_boolean", other.clone())),
    }
}

/// A text in an object; empty if it is not there.
pub(super) fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, ApiError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(ApiError::bad_request(format!(
            "{key} is not a string: {other}"
        ))),
    }
}
