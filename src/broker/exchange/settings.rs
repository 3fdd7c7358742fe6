//! What the arguments of an exchange mean, checked once when it is declared.
//!
//! Owns: the checks of the types that RabbitMQ has as plugins, in the plugins' words where they have
//! some. `alternate-exchange` is every exchange's and checked where exchanges are declared.
//! Spec: `spec/amqp.md`, "Exchange types".

use std::time::Duration;

use crate::amqp::field::{FieldTable, FieldValue};

use super::super::error::Error;
use super::super::limits::{
    DEDUP_KEYS_DEFAULT, DEDUP_KEYS_MAX, DEDUP_QUEUE_KEYS_DEFAULT, HISTORY_COUNT_DEFAULT,
};
use super::super::queue::arguments;
use super::kind::ExchangeKind;

/// What an exchange does, beside its flags.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ExchangeSettings {
    /// How bindings are looked up: the type, or what a delayed exchange names.
    pub(crate) lookup: ExchangeKind,
    /// Whether messages with `x-delay` wait here.
    pub(crate) delays: bool,
    /// What a consistent hash is a hash of.
    pub(crate) hash_on: HashOn,
    /// Messages kept for who binds later.
    pub(crate) history_count_max: usize,
    /// How duplicates are told, if they are.
    pub(crate) dedup: Option<DedupSettings>,
}

/// What decides where a message of a consistent-hash exchange goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum HashOn {
    RoutingKey,
    Header(String),
    Property(HashProperty),
}

/// The properties that `hash-property` may name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HashProperty {
    CorrelationId,
    MessageId,
    Timestamp,
}

/// How duplicates are told from what is new.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct DedupSettings {
    pub(crate) by: DedupBy,
    /// Keys that are remembered; the oldest goes for one more.
    pub(crate) key_count_max: usize,
    /// How long a key is remembered; as long as there is room if `None`.
    pub(crate) ttl: Option<Duration>,
    /// Whether keys survive a restart, if the exchange or queue does.
    pub(crate) on_disk: bool,
}

/// What must be equal in two messages for the second to be a duplicate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum DedupBy {
    /// The value of this header; a message without it is never a duplicate.
    Header(String),
    /// The body, octet by octet.
    Content,
}

/// The header that tells duplicates unless another is named.
const DEDUP_HEADER: &str = "x-deduplication-header";

impl ExchangeSettings {
    /// Reads and checks the arguments of an exchange that does not exist yet.
    pub(crate) fn from_arguments(
        kind: ExchangeKind,
        arguments: &FieldTable,
    ) -> Result<Self, Error> {
        let mut settings = Self {
            lookup: kind,
            delays: kind == ExchangeKind::Delayed,
            hash_on: HashOn::RoutingKey,
            history_count_max: HISTORY_COUNT_DEFAULT,
            dedup: None,
        };
        if settings.delays {
            settings.lookup = delayed_type(arguments)?;
        }
        match settings.lookup {
            ExchangeKind::ConsistentHash => settings.hash_on = hash_on(arguments)?,
            ExchangeKind::RecentHistory => settings.history_count_max = history_count(arguments)?,
            ExchangeKind::Deduplication => {
                if !arguments.contains("x-cache-size") {
                    return Err(invalid_cache_size());
                }
                settings.dedup = Some(DedupSettings::from_arguments(arguments)?);
            }
            ExchangeKind::Direct
            | ExchangeKind::Fanout
            | ExchangeKind::Headers
            | ExchangeKind::Topic
            | ExchangeKind::Delayed
            | ExchangeKind::LocalRandom
            | ExchangeKind::ModulusHash
            | ExchangeKind::Random => {}
        }
        if settings.dedup.is_none() && asks_for_dedup(arguments) {
            settings.dedup = Some(DedupSettings::from_arguments(arguments)?);
        }
        Ok(settings)
    }
}

/// Whether `x-message-deduplication` is true.
pub(crate) fn asks_for_dedup(arguments: &FieldTable) -> bool {
    arguments.get("x-message-deduplication") == Some(FieldValue::Boolean(true))
}

impl DedupSettings {
    /// Reads and checks the arguments of an exchange that drops duplicates.
    fn from_arguments(arguments: &FieldTable) -> Result<Self, Error> {
        Self::with_default(arguments, DEDUP_KEYS_DEFAULT)
    }

    /// Reads and checks the arguments of a queue that drops duplicates.
    ///
    /// # Errors
    /// 406 in the plugin's words.
    pub(crate) fn of_queue(arguments: &FieldTable) -> Result<Self, Error> {
        Self::with_default(arguments, DEDUP_QUEUE_KEYS_DEFAULT)
    }

    fn with_default(arguments: &FieldTable, key_count_default: usize) -> Result<Self, Error> {
        let key_count_max = match arguments.get("x-cache-size") {
            None => key_count_default,
            Some(value) => {
                let count = whole_number(&value).and_then(|count| usize::try_from(count).ok());
                match count {
                    Some(count @ 1..=DEDUP_KEYS_MAX) => count,
                    Some(1..) => {
                        let problem = format!(
                            "Invalid argument, 'x-cache-size' must be at most {DEDUP_KEYS_MAX}"
                        );
                        return Err(Error::Unacceptable { problem });
                    }
                    Some(0) | None => return Err(invalid_cache_size()),
                }
            }
        };
        let ttl = match arguments.get("x-cache-ttl") {
            None => None,
            Some(value) => match whole_number(&value).and_then(|ms| u64::try_from(ms).ok()) {
                Some(ms @ 1..) => Some(Duration::from_millis(ms)),
                Some(0) | None => {
                    return Err(unacceptable(
                        "Invalid argument, 'x-cache-ttl' must be an integer greater than 0",
                    ));
                }
            },
        };
        let on_disk = match arguments.get("x-cache-persistence") {
            None => true,
            Some(FieldValue::LongString(text)) if text == "disk" => true,
            Some(FieldValue::LongString(text)) if text == "memory" => false,
            Some(_) => {
                return Err(unacceptable(
                    "Invalid argument, 'x-cache-persistence' must be either 'disk' or 'memory'",
                ));
            }
        };
        let by = match arguments.get("x-deduplication-by") {
            None => DedupBy::Header(dedup_header(arguments)?),
            Some(FieldValue::LongString(text)) if text == "header" => {
                DedupBy::Header(dedup_header(arguments)?)
            }
            Some(FieldValue::LongString(text)) if text == "content" => DedupBy::Content,
            Some(_) => {
                return Err(unacceptable(
                    "Invalid argument, 'x-deduplication-by' must be either 'header' or 'content'",
                ));
            }
        };
        Ok(Self {
            by,
            key_count_max,
            ttl,
            on_disk,
        })
    }
}

fn dedup_header(arguments: &FieldTable) -> Result<String, Error> {
    let Some(value) = arguments.get(DEDUP_HEADER) else {
        return Ok(DEDUP_HEADER.to_owned());
    };
    let name = value.as_str().filter(|name| !name.is_empty());
    name.map(ToOwned::to_owned)
        .ok_or_else(|| unacceptable("Invalid argument, 'x-deduplication-header' must be a string"))
}

fn delayed_type(arguments: &FieldTable) -> Result<ExchangeKind, Error> {
    let value = arguments.get("x-delayed-type");
    let Some(name) = value.as_ref().and_then(|value| value.as_bytes()) else {
        return Err(unacceptable(
            "Invalid argument, 'x-delayed-type' must be an existing exchange type",
        ));
    };
    match ExchangeKind::from_name(name)? {
        ExchangeKind::Delayed => Err(unacceptable(
            "Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'",
        )),
        kind => Ok(kind),
    }
}

fn hash_on(arguments: &FieldTable) -> Result<HashOn, Error> {
    let text = |name: &str| match arguments.get(name) {
        None => Ok(None),
        Some(value) => match value.as_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(Error::Unacceptable {
                problem: format!("Invalid argument, '{name}' must be a string"),
            }),
        },
    };
    match (text("hash-header")?, text("hash-property")?) {
        (None, None) => Ok(HashOn::RoutingKey),
        (Some(_), Some(_)) => Err(unacceptable(
            "hash-header and hash-property are mutually exclusive",
        )),
        (Some(header), None) => Ok(HashOn::Header(header)),
        (None, Some(property)) => match property.as_str() {
            "correlation_id" => Ok(HashOn::Property(HashProperty::CorrelationId)),
            "message_id" => Ok(HashOn::Property(HashProperty::MessageId)),
            "timestamp" => Ok(HashOn::Property(HashProperty::Timestamp)),
            other => Err(Error::Unacceptable {
                problem: format!("Unsupported property: {other}"),
            }),
        },
    }
}

fn history_count(arguments: &FieldTable) -> Result<usize, Error> {
    let Some(value) = arguments.get("x-recent-history-length") else {
        return Ok(HISTORY_COUNT_DEFAULT);
    };
    match value.as_integer() {
        Some(count @ 1..) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
        Some(_) | None => {
            let printed = match value.as_bytes() {
                Some(octets) => format!("<<\"{}\">>", String::from_utf8_lossy(octets)),
                None => term(&value),
            };
            Err(Error::Unacceptable {
                problem: format!(
                    "Invalid argument {printed}, 'x-recent-history-length' must be a positive \
                     integer"
                ),
            })
        }
    }
}

/// A number, or a string of digits, as the deduplication plugin takes both.
fn whole_number(value: &FieldValue) -> Option<i64> {
    match value.as_str() {
        Some(text) => text.parse().ok(),
        None => value.as_integer(),
    }
}

fn invalid_cache_size() -> Error {
    unacceptable("Missing or invalid argument, 'x-cache-size' must be an integer greater than 0")
}

fn unacceptable(problem: &str) -> Error {
    Error::Unacceptable {
        problem: problem.to_owned(),
    }
}

/// A value as RabbitMQ prints it.
pub(super) fn term(value: &FieldValue) -> String {
    arguments::term(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: ExchangeKind, arguments: FieldTable) -> Result<ExchangeSettings, String> {
        ExchangeSettings::from_arguments(kind, &arguments).map_err(|error| error.to_string())
    }

    fn one(name: &'static str, value: impl Into<FieldValue>) -> FieldTable {
        FieldTable::from([(name, value.into())])
    }

    /// The texts as the plugins of RabbitMQ 3.10.8 gave them.
    #[test]
    fn arguments_are_refused_in_the_plugins_words() {
        let both = FieldTable::from([
            ("hash-header", FieldValue::from("h")),
            ("hash-property", FieldValue::from("message_id")),
        ]);
        for (kind, arguments, problem) in [
            (
                ExchangeKind::ConsistentHash,
                both,
                "hash-header and hash-property are mutually exclusive",
            ),
            (
                ExchangeKind::ConsistentHash,
                one("hash-property", "app_id"),
                "Unsupported property: app_id",
            ),
            (
                ExchangeKind::RecentHistory,
                one("x-recent-history-length", 0),
                "Invalid argument 0, 'x-recent-history-length' must be a positive integer",
            ),
            (
                ExchangeKind::RecentHistory,
                one("x-recent-history-length", "5"),
                "Invalid argument <<\"5\">>, 'x-recent-history-length' must be a positive integer",
            ),
            (
                ExchangeKind::Delayed,
                FieldTable::EMPTY,
                "Invalid argument, 'x-delayed-type' must be an existing exchange type",
            ),
            (
                ExchangeKind::Delayed,
                one("x-delayed-type", "x-delayed-message"),
                "Invalid argument, 'x-delayed-message' can't be used for 'x-delayed-type'",
            ),
            (
                ExchangeKind::Delayed,
                one("x-delayed-type", "nothing"),
                "unknown exchange type 'nothing'",
            ),
            (
                ExchangeKind::Deduplication,
                FieldTable::EMPTY,
                "Missing or invalid argument, 'x-cache-size' must be an integer greater than 0",
            ),
        ] {
            assert_eq!(check(kind, arguments), Err(problem.to_owned()));
        }
    }

    #[test]
    fn a_delayed_exchange_checks_the_arguments_of_what_it_names() {
        let arguments = |size: i32| {
            FieldTable::from([
                (
                    "x-delayed-type",
                    FieldValue::from("x-message-deduplication"),
                ),
                ("x-cache-size", FieldValue::from(size)),
            ])
        };
        let settings = check(ExchangeKind::Delayed, arguments(5)).expect("valid");
        assert!(settings.delays);
        assert_eq!(settings.lookup, ExchangeKind::Deduplication);
        assert_eq!(settings.dedup.map(|dedup| dedup.key_count_max), Some(5));
        assert!(check(ExchangeKind::Delayed, arguments(0)).is_err());
    }

    #[test]
    fn any_exchange_can_be_asked_to_drop_duplicates() {
        let arguments = FieldTable::from([
            ("x-message-deduplication", FieldValue::from(true)),
            ("x-cache-ttl", FieldValue::from("1500")),
            ("x-deduplication-header", FieldValue::from("job")),
        ]);
        let settings = check(ExchangeKind::Topic, arguments).expect("valid");
        let dedup = settings.dedup.expect("asked for");
        assert_eq!(dedup.by, DedupBy::Header("job".to_owned()));
        assert_eq!(dedup.ttl, Some(Duration::from_millis(1_500)));
        assert!(dedup.on_disk);
        assert_eq!(
            check(ExchangeKind::Topic, one("x-message-deduplication", "yes")).map(|s| s.dedup),
            Ok(None)
        );
    }
}
