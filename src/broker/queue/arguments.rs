//! The arguments of a queue: what they mean, and which must agree on redeclare.
//!
//! Owns: [`QueueSettings`], the one place that says what a queue does, and which type of queue knows
//! which argument. What each may be is in `arguments/checks.rs`. Knows no queue.
//! Spec: RabbitMQ's `x-` arguments; `spec/amqp.md`.

mod checks;
mod consumer;

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;

use crate::amqp::field::{FieldTable, FieldValue};

use super::super::error::{Error, Resource};
use super::super::exchange::settings::{DedupSettings, asks_for_dedup};
use super::super::limits::{
    DELIVERY_LIMIT_DEFAULT, STREAM_SEGMENT_BYTES_DEFAULT, STREAM_SEGMENT_BYTES_MAX,
};
use super::super::name::Name;

use checks::{CHECKS, NEWER_CHECKS, check_type};

pub(crate) use checks::age;
pub(crate) use consumer::{ConsumerArguments, StreamOffset};

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
        let name = value.as_ref().and_then(FieldValue::as_bytes);
        name.and_then(|name| Self::from_name(name))
            .unwrap_or_default()
    }

    /// The type of this name.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"classic" => Some(Self::Classic),
            b"quorum" => Some(Self::Quorum),
            b"stream" => Some(Self::Stream),
            _ => None,
        }
    }

    /// Its name, as in `x-queue-type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
            Self::Stream => "stream",
        }
    }

    /// Whether every message is kept on disk, whatever its delivery mode.
    pub(crate) fn keeps_transient(self) -> bool {
        match self {
            Self::Classic => false,
            Self::Quorum | Self::Stream => true,
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
    /// `x-message-deduplication`: how duplicates of what is in the queue are told.
    pub(crate) dedup: Option<DedupSettings>,
    /// `x-delivery-limit` of a quorum queue.
    pub delivery_limit: DeliveryLimit,
    /// `x-max-age` of a stream.
    pub age_max: Option<Duration>,
    /// `x-stream-max-segment-size-bytes`: what a stream's retention removes at once.
    pub segment_bytes: u64,
}

/// How often a message of a quorum queue may come back before it is dead-lettered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum DeliveryLimit {
    /// As often as RabbitMQ 4 allows ([`DELIVERY_LIMIT_DEFAULT`]). What is rejected goes behind all
    /// others, as in a RabbitMQ 3.10 queue without a limit.
    #[default]
    Default,
    /// This often. What is rejected goes before those that were never out.
    Count(u32),
    /// For ever (below 0); order as by default.
    None,
}

impl DeliveryLimit {
    /// How often it may come back; `None` for ever.
    #[must_use]
    pub fn count_max(self) -> Option<u32> {
        match self {
            Self::Default => Some(DELIVERY_LIMIT_DEFAULT),
            Self::Count(count) => Some(count),
            Self::None => None,
        }
    }
}

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
    "x-consumer-timeout",
    "x-payload",
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
    "x-quorum-target-group-size",
    "x-member-placement-tag",
    "x-consumer-timeout",
    "x-consumer-disconnected-timeout",
    "x-delayed-retry-type",
    "x-delayed-retry-min",
    "x-delayed-retry-max",
    "x-payload",
];
const STREAM: &[&str] = &[
    "x-max-length-bytes",
    "x-queue-type",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-initial-cluster-size",
    "x-queue-leader-locator",
    "x-stream-filter-size-bytes",
    "x-payload",
];

fn known_to(kind: QueueKind) -> &'static [&'static str] {
    match kind {
        QueueKind::Classic => CLASSIC,
        QueueKind::Quorum => QUORUM,
        QueueKind::Stream => STREAM,
    }
}

/// Those of a queue without arguments, as most are: one for all of them.
static PLAIN: LazyLock<Arc<QueueSettings>> = LazyLock::new(Arc::default);

impl QueueSettings {
    /// Whether a stream with these forgets something.
    pub(crate) fn has_retention(&self) -> bool {
        self.length_bytes_max.is_some() || self.age_max.is_some()
    }

    /// The same, to be shared.
    pub(crate) fn shared(self) -> Arc<Self> {
        match self == **PLAIN {
            true => Arc::clone(&PLAIN),
            false => Arc::new(self),
        }
    }

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
        for (argument, check) in CHECKS.iter().chain(NEWER_CHECKS) {
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
        let mut settings = Self::read(kind, arguments);
        if kind != QueueKind::Stream && asks_for_dedup(arguments) {
            settings.dedup = Some(DedupSettings::of_queue(arguments)?);
        }
        if settings.segment_bytes > STREAM_SEGMENT_BYTES_MAX {
            return Err(Error::SegmentTooLarge);
        }
        Ok(settings)
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
                // A quorum queue knows the word and drops from its front (RabbitMQ).
                Some(b"reject-publish-dlx") if kind == QueueKind::Classic => {
                    Overflow::RejectPublishDlx
                }
                Some(_) | None => Overflow::DropHead,
            },
            dead_letter_exchange: name_of("x-dead-letter-exchange"),
            dead_letter_routing_key: name_of("x-dead-letter-routing-key"),
            priority_max: number("x-max-priority").and_then(|value| u8::try_from(value).ok()),
            single_active_consumer: arguments
                .get("x-single-active-consumer")
                .and_then(|value| value.as_bool())
                .unwrap_or(false),
            dedup: None,
            payload_as_manifest: bytes("x-payload").as_deref() == Some(b"manifest"),
            delivery_limit: match number("x-delivery-limit") {
                None => DeliveryLimit::Default,
                Some(..0) => DeliveryLimit::None,
                Some(count) => DeliveryLimit::Count(u32::try_from(count).unwrap_or(u32::MAX)),
            },
            age_max: bytes("x-max-age").and_then(|text| age(&text)),
            segment_bytes: count("x-stream-max-segment-size-bytes")
                .filter(|bytes| *bytes > 0)
                .unwrap_or(STREAM_SEGMENT_BYTES_DEFAULT),
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
        (Some(current), Some(received)) if is_same(current, received) => return Ok(()),
        (Some(current), Some(received)) => (quoted(received), quoted(current)),
        (current, received) => (typed(received), typed(current)),
    };
    Err(Error::Inequivalent {
        argument: argument.to_owned(),
        resource: resource.clone(),
        received,
        current,
    })
}

/// A value in quotes; a void one is none.
fn quoted(value: &FieldValue) -> String {
    match value {
        FieldValue::Void => "none".to_owned(),
        value => format!("'{}'", term(value)),
    }
}

/// Whether two values are the same, whatever width their numbers have and whichever type of string they
/// are; a whole number is no float.
fn is_same(one: &FieldValue, other: &FieldValue) -> bool {
    let float = |value: &FieldValue| match value {
        FieldValue::Float(value) => Some(f64::from(*value)),
        FieldValue::Double(value) => Some(*value),
        _ => None,
    };
    match (one.as_integer(), other.as_integer()) {
        (Some(one), Some(other)) => return one == other,
        (Some(_), None) | (None, Some(_)) => return false,
        (None, None) => {}
    }
    if let (Some(one), Some(other)) = (one.as_bytes(), other.as_bytes()) {
        return one == other;
    }
    match (float(one), float(other)) {
        (Some(one), Some(other)) => one == other,
        (Some(_), None) | (None, Some(_) | None) => one == other,
    }
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
