//! From the protocol header to an open connection.
//!
//! Owns: what the server says of itself, the login mechanisms, and the order of the opening methods.
//!
//! ```text
//! Header ─header─> Start ─start-ok─> Tune ─tune-ok─> Open ─open─> running
//! ```
//! Up to `tune-ok` a wrong step closes the socket without a word, as RabbitMQ does (after some
//! seconds of silence, which helps nobody).
//! Bound: frames of at most 8,192 bytes before `tune-ok`.
//! Spec: AMQP 0-9-1 §2.2.4; `spec/amqp.md`.

use bytes::Bytes;

use crate::amqp::field::{FieldTable, FieldValue};
use crate::amqp::frame::ProtocolHeader;
use crate::amqp::limits::FRAME_BYTES_MIN;
use crate::amqp::method::{Method, connection};
use crate::amqp::reply::ReplyCode;
use crate::broker::{AuthError, Broker, Origin, User};
use crate::config::{ConnectionSettings, Mechanism};

use std::sync::Arc;

use super::TlsFacts;
use super::failure::{Failure, MethodId};

/// Which opening method comes next.
#[derive(Debug)]
pub(super) enum Handshake {
    /// The eight octets of the protocol header.
    Header,
    /// `connection.start-ok`.
    Start,
    /// `connection.tune-ok`.
    Tune { user: Arc<User> },
    /// `connection.open`.
    Open { user: Arc<User> },
}

/// What the client chose and can do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Client {
    /// Largest frame either side sends, in bytes; 0 before `tune-ok`.
    pub(super) frame_bytes_max: u32,
    /// Wants `basic.cancel` when its consumer's queue goes.
    pub(super) consumer_cancel_notify: bool,
    /// Wants `connection.blocked` when its publishes must wait.
    pub(super) connection_blocked: bool,
    /// Wants `connection.close` when its login is refused.
    pub(super) authentication_failure_close: bool,
}

/// `connection.start` for a client that sent this header.
pub(super) fn start(
    header: ProtocolHeader,
    tls: Option<&TlsFacts>,
    settings: &ConnectionSettings,
) -> connection::Start {
    let (version_major, version_minor) = match header {
        ProtocolHeader::Amqp08 => (8, 0),
        ProtocolHeader::Amqp09 | ProtocolHeader::Amqp091 => (0, 9),
    };
    let capabilities = match header {
        ProtocolHeader::Amqp08 => FieldTable::default(),
        ProtocolHeader::Amqp09 | ProtocolHeader::Amqp091 => {
            FieldTable::from(CAPABILITIES.map(|name| (name, FieldValue::Boolean(true))))
        }
    };
    let text = |text: &str| FieldValue::from(text);
    connection::Start {
        version_major,
        version_minor,
        server_properties: FieldTable::from([
            ("capabilities", FieldValue::Table(capabilities)),
            ("cluster_name", text(&settings.cluster_name)),
            (
                "copyright",
                text("Copyright (c) 2026 The Warren developers"),
            ),
            ("information", text("Licensed under MIT or Apache-2.0")),
            ("platform", text("Rust")),
            ("product", text(&settings.product)),
            ("version", text(&settings.version)),
        ]),
        mechanisms: offered(tls, settings).into(),
        locales: Bytes::from_static(b"en_US"),
    }
}

/// The mechanisms that a client may choose from, with spaces between them.
// req: LOGIN-1
// req: LOGIN-2
fn offered(tls: Option<&TlsFacts>, settings: &ConnectionSettings) -> String {
    let is_known = tls.is_some_and(|tls| tls.peer.is_some());
    let set = settings.mechanisms.iter();
    let set = set.filter(|mechanism| is_known || **mechanism != Mechanism::External);
    let mut names: Vec<_> = set.map(|mechanism| mechanism.name()).collect();
    if settings.anonymous_user.is_some() {
        names.push("ANONYMOUS");
    }
    names.join(" ")
}

/// What RabbitMQ says it can do, all of it.
const CAPABILITIES: [&str; 9] = [
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "consumer_priorities",
    "direct_reply_to",
    "exchange_exchange_bindings",
    "per_consumer_qos",
    "publisher_confirms",
];

/// `connection.tune` with the server's limits.
pub(super) fn tune(settings: &ConnectionSettings) -> connection::Tune {
    connection::Tune {
        channel_max: settings.channel_count_max,
        frame_max: settings.frame_bytes_max,
        heartbeat: u16::try_from(settings.heartbeat.as_secs()).unwrap_or(u16::MAX),
    }
}

/// Checks a login.
pub(super) fn authenticate(
    start_ok: &connection::StartOk,
    client: &mut Client,
    broker: &Broker,
    origin: Origin,
    tls: Option<&TlsFacts>,
    settings: &ConnectionSettings,
) -> Result<Arc<User>, Failure> {
    if let Some(FieldValue::Table(capabilities)) = start_ok.client_properties.get("capabilities") {
        let can = |name: &str| capabilities.get(name).and_then(|can| can.as_bool()) == Some(true);
        client.consumer_cancel_notify = can("consumer_cancel_notify");
        client.connection_blocked = can("connection.blocked");
        client.authentication_failure_close = can("authentication_failure_close");
    }
    let response = start_ok.response.expose();
    let users = broker.users();
    let name = start_ok.mechanism.as_bytes();
    let mut set = settings.mechanisms.iter();
    let chosen = set.find(|mechanism| mechanism.name().as_bytes() == name);
    let user = match (chosen, &settings.anonymous_user) {
        (Some(Mechanism::Plain), _) => {
            let login = plain(response);
            let (name, password) =
                login.ok_or_else(|| Failure::socket("malformed PLAIN response"))?;
            users.authenticate(&name, &password, origin)
        }
        (Some(Mechanism::Amqplain), _) => {
            let login = amqplain(response);
            let (name, password) =
                login.ok_or_else(|| Failure::socket("malformed AMQPLAIN response"))?;
            users.authenticate(&name, &password, origin)
        }
        // req: LOGIN-2
        (Some(Mechanism::External), _) => match TlsFacts::login(tls) {
            Ok(name) => users.admit(name.as_bytes(), origin),
            Err(error) => {
                tracing::warn!(%error, "a login by certificate is refused");
                Err(AuthError::BadCredentials)
            }
        },
        // req: LOGIN-1
        (None, Some(user)) if name == b"ANONYMOUS" => users.admit(user.as_bytes(), origin),
        (None, _) => return Err(Failure::socket("unknown login mechanism")),
    };
    user.map_err(|error| match (client.authentication_failure_close, error) {
        (true, AuthError::BadCredentials) => refused(format_args!(
            "Login was refused using authentication mechanism {}. \
             For details see the broker logfile.",
            start_ok.mechanism
        )),
        (true, AuthError::LoopbackOnly | AuthError::BadToken(_)) => refused(format_args!(
            "Login was refused using authentication mechanism {}. \
             For details see the broker logfile.",
            start_ok.mechanism
        )),
        (false, error) => Failure::socket(error),
    })
}

/// Who a client says it is, whether that is true or not.
pub(super) fn claimed_name(start_ok: &connection::StartOk) -> Option<Bytes> {
    claimed(start_ok).map(|(name, _)| name)
}

/// Whether checking a login may take some tens of milliseconds, or wait for another machine.
pub(super) fn takes_long(start_ok: &connection::StartOk, broker: &Broker) -> bool {
    let login = claimed(start_ok);
    login.is_some_and(|(name, password)| broker.users().takes_long(&name, &password))
}

/// The name and the password that a client shows, if its mechanism has them.
fn claimed(start_ok: &connection::StartOk) -> Option<(Bytes, Bytes)> {
    let response = start_ok.response.expose();
    match start_ok.mechanism.as_bytes() {
        b"PLAIN" => plain(response),
        b"AMQPLAIN" => amqplain(response),
        _ => None,
    }
}

fn refused(explanation: std::fmt::Arguments<'_>) -> Failure {
    Failure::connection(ReplyCode::AccessRefused, explanation, MethodId::default())
}

/// `[authorisation identity] NUL name NUL password`; RabbitMQ takes no authorisation identity.
fn plain(response: &Bytes) -> Option<(Bytes, Bytes)> {
    let mut parts = response.split(|octet| *octet == 0);
    let (identity, name, password) = (parts.next()?, parts.next()?, parts.next()?);
    (identity.is_empty() && parts.next().is_none())
        .then(|| (response.slice_ref(name), response.slice_ref(password)))
}

/// The elements of a table with `LOGIN` and `PASSWORD`.
fn amqplain(response: &Bytes) -> Option<(Bytes, Bytes)> {
    let table = FieldTable::from_elements(response.clone()).ok()?;
    let text = |name| match table.get(name) {
        Some(FieldValue::LongString(text)) => Some(text),
        _ => None,
    };
    Some((text("LOGIN")?, text("PASSWORD")?))
}

/// Takes the client's limits, unless they are outside of the server's.
pub(super) fn tuned(
    tune_ok: &connection::TuneOk,
    settings: &ConnectionSettings,
) -> Result<u32, Failure> {
    let frame_max = tune_ok.frame_max;
    if frame_max < FRAME_BYTES_MIN || frame_max > settings.frame_bytes_max {
        return Err(Failure::socket(format_args!(
            "frame-max {frame_max} is out of range"
        )));
    }
    let channel_max = tune_ok.channel_max;
    if channel_max == 0 || channel_max > settings.channel_count_max {
        return Err(Failure::socket(format_args!(
            "channel-max {channel_max} is out of range"
        )));
    }
    Ok(frame_max)
}

/// A method that is not the one that must come.
pub(super) fn unexpected(method: &Method) -> Failure {
    Failure::socket(format_args!(
        "{} is out of order in the handshake",
        method.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PLAIN takes exactly a name and a password, without an identity in front.
    #[test]
    fn plain_takes_a_name_and_a_password() {
        let read = |response: &'static [u8]| plain(&Bytes::from_static(response));
        let pair = |name: &'static str, password: &'static str| {
            Some((
                Bytes::from_static(name.as_bytes()),
                Bytes::from_static(password.as_bytes()),
            ))
        };
        assert_eq!(read(b"\0guest\0secret"), pair("guest", "secret"));
        assert_eq!(read(b"\0\0"), pair("", ""));
        for malformed in [
            &b"guestguest"[..],
            b"",
            b"\0guest",
            b"x\0guest\0guest",
            b"\0a\0b\0c",
        ] {
            assert_eq!(
                plain(&Bytes::copy_from_slice(malformed)),
                None,
                "{malformed:?}"
            );
        }
    }

    /// AMQPLAIN is a table without its length, in any order.
    #[test]
    fn amqplain_takes_login_and_password() {
        let table = FieldTable::from([
            ("PASSWORD", FieldValue::from("secret")),
            ("LOGIN", FieldValue::from("guest")),
        ]);
        let pair = Some((Bytes::from_static(b"guest"), Bytes::from_static(b"secret")));
        assert_eq!(amqplain(table.elements()), pair);
        assert_eq!(amqplain(&Bytes::from_static(b"\x05LOGINS\0")), None);
    }
}
