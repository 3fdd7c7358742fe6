//! The arguments of a queue: what they may be, what they mean, and which must agree on redeclare.
//!
//! Owns: RabbitMQ's checks with their texts, in RabbitMQ's order. Knows no queue.
//! What is accepted here and not acted upon yet (TTL, lengths, dead letters, priorities, other queue
//! types) is kept in [`QueueSettings`], the one place that will be asked for it.
//! Spec: RabbitMQ's `x-` arguments; `spec/amqp.md`.

use std::time::Duration;

use bytes::Bytes;

use crate::amqp::field::{FieldTable, FieldValue};

use super::super::error::{Error, Resource};
use super::super::limits::{EXPIRY_MS_MAX, PRIORITY_MAX};
use super::super::name::Name;

/// What a queue does, by `x-queue-type`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum QueueKind {
    /// `classic`: what AMQP 0-9-1 describes.
    #[default]
    Classic,
    /// `quorum`: durable, with a delivery limit.
    Quorum,
    /// `stream`: a log that is read without being consumed.
    Stream,
}

impl QueueKind {
    /// The type that `x-queue-type` names; classic if it names none.
    pub(crate) fn from_arguments(arguments: &FieldTable) -> Self {
        let value = arguments.get("x-queue-type");
        match value.as_ref().and_then(FieldValue::as_str) {
            Some("quorum") => Self::Quorum,
            Some("stream") => Self::Stream,
            Some(_) | None => Self::Classic,
        }
    }

    /// RabbitMQ's name of the module behind the type, which shows in reply texts.
    #[must_use]
    pub fn module_name(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
            Self::Stream => "rabbit_stream_queue",
        }
    }
}

/// What happens beyond a length limit (`x-overflow`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Overflow {
    /// The oldest messages go.
    #[default]
    DropHead,
    /// New messages are refused.
    RejectPublish,
    /// New messages are refused and dead-lettered.
    RejectPublishDlx,
}

/// What the arguments of a queue mean; absent ones are `None`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct QueueSettings {
    /// `x-queue-type`.
    pub kind: QueueKind,
    /// `x-message-ttl`.
    pub message_ttl: Option<Duration>,
    /// `x-expires`: how long the queue lives unused.
    pub expires: Option<Duration>,
    /// `x-max-length`, in messages.
    pub length_count_max: Option<u64>,
    /// `x-max-length-bytes`.
    pub length_bytes_max: Option<u64>,
    /// `x-overflow`.
    pub overflow: Overflow,
    /// `x-dead-letter-exchange`.
    pub dead_letter_exchange: Option<Name>,
    /// `x-dead-letter-routing-key`.
    pub dead_letter_routing_key: Option<Name>,
    /// `x-max-priority`.
    pub priority_max: Option<u8>,
    /// `x-single-active-consumer`.
    pub single_active_consumer: bool,
    /// `x-payload: manifest`: `basic.get` gives the manifest of a large message, not its body.
    pub payload_as_manifest: bool,
}

/// Which integer types there are matters nowhere: a number is a number.
type Check = fn(&FieldValue, &FieldTable) -> Result<(), String>;

/// Each known argument but the type with its check, in RabbitMQ's order.
const CHECKS: &[(&str, Check)] = &[
    ("x-expires", check_expires),
    ("x-message-ttl", check_ttl),
    ("x-dead-letter-exchange", check_string),
    ("x-dead-letter-routing-key", check_dead_letter_key),
    ("x-dead-letter-strategy", check_dead_letter_strategy),
    ("x-max-length", check_not_negative),
    ("x-max-length-bytes", check_not_negative),
    ("x-max-in-memory-length", check_not_negative),
    ("x-max-in-memory-bytes", check_not_negative),
    ("x-max-priority", check_priority),
    ("x-overflow", check_overflow),
    ("x-queue-mode", check_mode),
    ("x-queue-version", check_version),
    ("x-single-active-consumer", check_bool),
    ("x-quorum-initial-group-size", check_group_size),
    ("x-max-age", check_age),
    ("x-stream-max-segment-size-bytes", check_not_negative),
    ("x-initial-cluster-size", check_group_size),
    ("x-queue-leader-locator", check_leader_locator),
    ("x-delivery-limit", check_integer),
];

/// Arguments that each type knows, in the order in which differences are reported.
const CLASSIC: &[&str] = &[
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-queue-mode",
    "x-queue-version",
    "x-single-active-consumer",
    "x-queue-type",
    "x-queue-master-locator",
];
const QUORUM: &[&str] = &[
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
    "x-overflow",
    "x-single-active-consumer",
    "x-queue-type",
    "x-quorum-initial-group-size",
    "x-delivery-limit",
    "x-message-ttl",
    "x-queue-leader-locator",
];
const STREAM: &[&str] = &[
    "x-max-length-bytes",
    "x-queue-type",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-initial-cluster-size",
    "x-queue-leader-locator",
];

fn known_to(kind: QueueKind) -> &'static [&'static str] {
    match kind {
        QueueKind::Classic => CLASSIC,
        QueueKind::Quorum => QUORUM,
        QueueKind::Stream => STREAM,
    }
}

impl QueueSettings {
    /// Checks the arguments of a queue that does not exist yet, and reads them.
    pub(crate) fn from_arguments(
        arguments: &FieldTable,
        resource: &Resource,
    ) -> Result<Self, Error> {
        if let Some(value) = arguments.get("x-dead-letter-exchange") {
            require_string("x-dead-letter-exchange", &value, resource)?;
        }
        let invalid = |argument: &str, problem| Error::InvalidArgument {
            argument: argument.to_owned(),
            resource: resource.clone(),
            problem,
        };
        if let Some(value) = arguments.get("x-queue-type") {
            check_type(&value).map_err(|problem| invalid("x-queue-type", problem))?;
        }
        let kind = QueueKind::from_arguments(arguments);
        for (argument, check) in CHECKS {
            if known_to(kind).contains(argument)
                && let Some(value) = arguments.get(argument)
            {
                check(&value, arguments).map_err(|problem| invalid(argument, problem))?;
            }
        }
        for (argument, _) in CHECKS {
            if !known_to(kind).contains(argument) && arguments.contains(argument) {
                return Err(Error::InvalidArgumentForType {
                    argument: (*argument).to_owned(),
                    resource: resource.clone(),
                    queue_type: kind.module_name(),
                });
            }
        }
        Ok(Self::read(kind, arguments))
    }

    fn read(kind: QueueKind, arguments: &FieldTable) -> Self {
        let number = |name: &str| arguments.get(name).and_then(|value| value.as_integer());
        let count = |name: &str| number(name).and_then(|value| u64::try_from(value).ok());
        let time = |name: &str| count(name).map(Duration::from_millis);
        let bytes = |name: &str| {
            arguments
                .get(name)
                .and_then(|value| value.as_bytes().cloned())
        };
        let name_of = |name: &str| bytes(name).map(|bytes: Bytes| Name::new(&bytes));
        Self {
            kind,
            message_ttl: time("x-message-ttl"),
            expires: time("x-expires"),
            length_count_max: count("x-max-length"),
            length_bytes_max: count("x-max-length-bytes"),
            overflow: match bytes("x-overflow").as_deref() {
                Some(b"reject-publish") => Overflow::RejectPublish,
                Some(b"reject-publish-dlx") => Overflow::RejectPublishDlx,
                Some(_) | None => Overflow::DropHead,
            },
            dead_letter_exchange: name_of("x-dead-letter-exchange"),
            dead_letter_routing_key: name_of("x-dead-letter-routing-key"),
            priority_max: number("x-max-priority").and_then(|value| u8::try_from(value).ok()),
            single_active_consumer: arguments
                .get("x-single-active-consumer")
                .and_then(|value| value.as_bool())
                .unwrap_or(false),
            payload_as_manifest: bytes("x-payload").as_deref() == Some(b"manifest"),
        }
    }
}

/// Checks that a redeclare asks for what exists; arguments that no queue type knows do not count.
pub(crate) fn check_equivalent(
    current: &FieldTable,
    received: &FieldTable,
    kind: QueueKind,
    resource: &Resource,
) -> Result<(), Error> {
    for argument in known_to(kind) {
        let is_default = |value: &Option<FieldValue>| {
            *argument == "x-queue-type"
                && value
                    .as_ref()
                    .is_none_or(|value| value.as_str() == Some("classic"))
        };
        let (current, received) = (current.get(argument), received.get(argument));
        if is_default(&current) && is_default(&received) {
            continue;
        }
        check_same(argument, current.as_ref(), received.as_ref(), resource)?;
    }
    Ok(())
}

/// Checks one argument of a redeclared queue or exchange.
pub(crate) fn check_same(
    argument: &str,
    current: Option<&FieldValue>,
    received: Option<&FieldValue>,
    resource: &Resource,
) -> Result<(), Error> {
    let (received, current) = match (current, received) {
        (None, None) => return Ok(()),
        (Some(current), Some(received)) if current == received => return Ok(()),
        (Some(current), Some(received)) => {
            let (current, received) = (term(current), term(received));
            if current == received {
                return Ok(());
            }
            (format!("'{received}'"), format!("'{current}'"))
        }
        (current, received) => (typed(received), typed(current)),
    };
    Err(Error::Inequivalent {
        argument: argument.to_owned(),
        resource: resource.clone(),
        received,
        current,
    })
}

/// Checks a yes-or-no property of a redeclared queue or exchange.
pub(crate) fn check_same_flag(
    property: &str,
    current: bool,
    received: bool,
    resource: &Resource,
) -> Result<(), Error> {
    if current == received {
        return Ok(());
    }
    Err(Error::Inequivalent {
        argument: property.to_owned(),
        resource: resource.clone(),
        received: format!("'{received}'"),
        current: format!("'{current}'"),
    })
}

/// Refuses an argument that names something and is no long string.
pub(crate) fn require_string(
    argument: &str,
    value: &FieldValue,
    resource: &Resource,
) -> Result<(), Error> {
    match value {
        FieldValue::LongString(_) => Ok(()),
        other => Err(Error::InvalidArgumentType {
            type_name: other.type_name(),
            argument: argument.to_owned(),
            resource: resource.clone(),
        }),
    }
}

/// The priority that a consumer asks for with `x-priority`.
pub(crate) fn consumer_priority(arguments: &FieldTable, resource: &Resource) -> Result<i64, Error> {
    let invalid = |argument: &str, problem| Error::InvalidArgument {
        argument: argument.to_owned(),
        resource: resource.clone(),
        problem,
    };
    if let Some(value) = arguments.get("x-cancel-on-ha-failover")
        && value.as_bool().is_none()
    {
        let problem = format!("\"expected boolean, got {}\"", value.type_name());
        return Err(invalid("x-cancel-on-ha-failover", problem));
    }
    let Some(value) = arguments.get("x-priority") else {
        return Ok(0);
    };
    match value.as_integer() {
        Some(priority) => Ok(priority),
        None => Err(invalid("x-priority", not_an_integer(&value))),
    }
}

fn typed(value: Option<&FieldValue>) -> String {
    match value {
        Some(value) => format!(
            "the value '{}' of type '{}'",
            term(value),
            value.type_name()
        ),
        None => "none".to_owned(),
    }
}

/// A value as RabbitMQ prints it.
pub(crate) fn term(value: &FieldValue) -> String {
    match value {
        FieldValue::LongString(bytes) | FieldValue::ByteArray(bytes) => {
            String::from_utf8_lossy(bytes).into_owned()
        }
        FieldValue::Boolean(value) => value.to_string(),
        FieldValue::Float(value) => format!("{value:?}"),
        FieldValue::Double(value) => format!("{value:?}"),
        FieldValue::Timestamp(value) => value.to_string(),
        FieldValue::Void => "undefined".to_owned(),
        FieldValue::ShortShortInt(_)
        | FieldValue::ShortShortUint(_)
        | FieldValue::ShortInt(_)
        | FieldValue::ShortUint(_)
        | FieldValue::LongInt(_)
        | FieldValue::LongUint(_)
        | FieldValue::LongLongInt(_)
        | FieldValue::Decimal { .. }
        | FieldValue::Array(_)
        | FieldValue::Table(_) => match value.as_integer() {
            Some(number) => number.to_string(),
            None => format!("{value:?}"),
        },
    }
}

fn not_an_integer(value: &FieldValue) -> String {
    format!("\"expected integer, got {}\"", value.type_name())
}

fn unacceptable_type(value: &FieldValue) -> String {
    format!("{{unacceptable_type,{}}}", value.type_name())
}

fn integer(value: &FieldValue) -> Result<i64, String> {
    value.as_integer().ok_or_else(|| not_an_integer(value))
}

fn not_negative(value: &FieldValue) -> Result<i64, String> {
    match integer(value)? {
        number @ 0.. => Ok(number),
        number => Err(format!("{{value_negative,{number}}}")),
    }
}

fn one_of(value: &FieldValue, allowed: &[&str], problem: &str) -> Result<(), String> {
    match value {
        FieldValue::LongString(bytes) => {
            let found = allowed.iter().any(|allowed| allowed.as_bytes() == bytes);
            found.then_some(()).ok_or_else(|| problem.to_owned())
        }
        other => Err(unacceptable_type(other)),
    }
}

fn check_integer(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    integer(value).map(|_| ())
}

fn check_not_negative(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    not_negative(value).map(|_| ())
}

fn check_ttl(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    match not_negative(value)? {
        number if number > EXPIRY_MS_MAX => Err(format!("{{value_too_big,{number}}}")),
        _ => Ok(()),
    }
}

fn check_expires(value: &FieldValue, arguments: &FieldTable) -> Result<(), String> {
    match integer(value)? {
        0 => Err("{value_zero,0}".to_owned()),
        _ => check_ttl(value, arguments),
    }
}

fn check_priority(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    match not_negative(value)? {
        number if number > PRIORITY_MAX => Err(format!("{{max_value_exceeded,{number}}}")),
        _ => Ok(()),
    }
}

fn check_group_size(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    match not_negative(value)? {
        0 => Err("{value_zero,0}".to_owned()),
        _ => Ok(()),
    }
}

fn check_string(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    match value {
        FieldValue::LongString(_) => Ok(()),
        other => Err(unacceptable_type(other)),
    }
}

fn check_bool(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    value
        .as_bool()
        .map(|_| ())
        .ok_or_else(|| unacceptable_type(value))
}

fn check_dead_letter_key(value: &FieldValue, arguments: &FieldTable) -> Result<(), String> {
    check_string(value, arguments)?;
    match arguments.get("x-dead-letter-exchange") {
        Some(_) => Ok(()),
        None => Err("routing_key_but_no_dlx_defined".to_owned()),
    }
}

fn check_dead_letter_strategy(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    one_of(
        value,
        &["at-most-once", "at-least-once"],
        "invalid_dlx_strategy",
    )
}

fn check_overflow(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    let allowed = ["drop-head", "reject-publish", "reject-publish-dlx"];
    one_of(value, &allowed, "invalid_overflow")
}

fn check_mode(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    one_of(value, &["default", "lazy"], "invalid_queue_mode")
}

fn check_version(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    match not_negative(value)? {
        1 | 2 => Ok(()),
        number => Err(format!("{{unsupported_queue_version,{number}}}")),
    }
}

fn check_type(value: &FieldValue) -> Result<(), String> {
    match value {
        FieldValue::LongString(bytes) => match bytes.as_ref() {
            b"classic" | b"quorum" | b"stream" => Ok(()),
            other => {
                let name = String::from_utf8_lossy(other);
                Err(format!("\"unsupported queue type '{name}'\""))
            }
        },
        other => Err(unacceptable_type(other)),
    }
}

fn check_age(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    let FieldValue::LongString(bytes) = value else {
        return Err(unacceptable_type(value));
    };
    let is_age = bytes.split_last().is_some_and(|(unit, number)| {
        b"YMDhms".contains(unit)
            && std::str::from_utf8(number).is_ok_and(|number| number.parse::<u64>().is_ok())
    });
    is_age
        .then_some(())
        .ok_or_else(|| "{invalid_max_age}".to_owned())
}

fn check_leader_locator(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    let allowed = ["client-local", "random", "least-leaders", "balanced"];
    one_of(value, &allowed, "invalid_queue_locator_arg")
}
