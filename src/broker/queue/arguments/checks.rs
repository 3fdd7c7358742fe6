//! What each argument of a queue may be, with RabbitMQ's words for what it may not.
//!
//! Owns: the checks in RabbitMQ's order. A check gives what is wrong as an Erlang term, which ends the
//! reply text. Spec: texts as measured from RabbitMQ 3.10.8; what 4 added, in its style.

use std::time::Duration;

use bytes::Bytes;

use crate::amqp::field::{FieldTable, FieldValue};

use super::super::super::limits::{EXPIRY_MS_MAX, PRIORITY_MAX};
use super::QueueKind;

/// Which integer types there are matters nowhere: a number is a number.
type Check = fn(&FieldValue, &FieldTable) -> Result<(), String>;

/// Each known argument but the type with its check, in RabbitMQ's order.
pub(super) const CHECKS: &[(&str, Check)] = &[
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
    ("x-stream-max-segment-size-bytes", check_segment_size),
    ("x-initial-cluster-size", check_group_size),
    ("x-queue-leader-locator", check_leader_locator),
    ("x-delivery-limit", check_delivery_limit),
    // Any value: there is one node only.
    ("x-queue-master-locator", |_, _| Ok(())),
];

/// Arguments that 3.10 did not know, and so took with any value for any type: each is checked only for
/// the types that know it.
pub(super) const NEWER_CHECKS: &[(&str, Check)] = &[
    ("x-quorum-target-group-size", check_group_size),
    ("x-member-placement-tag", check_string),
    ("x-consumer-timeout", check_not_negative),
    ("x-consumer-disconnected-timeout", check_not_negative),
    ("x-delayed-retry-type", check_string),
    ("x-delayed-retry-min", check_not_negative),
    ("x-delayed-retry-max", check_not_negative),
    ("x-stream-filter-size-bytes", check_filter_size),
    ("x-payload", check_payload),
];

/// Least and most octets of `x-stream-filter-size-bytes` (RabbitMQ).
const FILTER_BYTES_MIN: i64 = 16;
const FILTER_BYTES_MAX: i64 = 255;

pub(super) fn not_an_integer(value: &FieldValue) -> String {
    format!("\"expected integer, got {}\"", value.type_name())
}

pub(super) fn unacceptable_type(value: &FieldValue) -> String {
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

/// Any number: those below 0 mean no limit, as -1 in RabbitMQ 4.
fn check_delivery_limit(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    integer(value).map(|_| ())
}

fn check_not_negative(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    not_negative(value).map(|_| ())
}

fn check_ttl(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    match not_negative(value)? {
        number if number > EXPIRY_MS_MAX => Err(format!("{{value_too_large,{number}}}")),
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
    match text(value)?.as_ref() {
        b"default" | b"lazy" => Ok(()),
        other => Err(unsupported("mode", other)),
    }
}

fn check_version(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    match not_negative(value)? {
        1 | 2 => Ok(()),
        number => Err(unsupported("version", number.to_string().as_bytes())),
    }
}

/// Checks `x-queue-type`, before anything else is looked at.
pub(super) fn check_type(value: &FieldValue) -> Result<(), String> {
    let name = text(value)?;
    match QueueKind::from_name(name) {
        Some(_) => Ok(()),
        None => Err(unsupported("type", name)),
    }
}

fn check_age(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    match age(text(value)?) {
        Some(_) => Ok(()),
        None => Err("invalid_max_age".to_owned()),
    }
}

fn check_segment_size(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    not_negative(value).map(|_| ())
}

fn check_filter_size(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    match integer(value)? {
        FILTER_BYTES_MIN..=FILTER_BYTES_MAX => Ok(()),
        number => Err(format!("{{filter_size_out_of_range,{number}}}")),
    }
}

fn check_payload(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    match text(value)?.as_ref() {
        b"body" | b"manifest" => Ok(()),
        other => {
            let other = String::from_utf8_lossy(other);
            Err(format!("\"expected 'body' or 'manifest', got '{other}'\""))
        }
    }
}

fn check_leader_locator(value: &FieldValue, _: &FieldTable) -> Result<(), String> {
    let allowed = ["client-local", "random", "least-leaders", "balanced"];
    one_of(value, &allowed, "invalid_queue_locator_arg")
}

/// A length of time as `x-max-age` and `x-stream-offset` have it: a number from 1 up and one of
/// `Y M D h m s`; years have 365 days and months 30, as in RabbitMQ.
pub(crate) fn age(text: &[u8]) -> Option<Duration> {
    let (unit, number) = text.split_last()?;
    let unit_seconds: u64 = match unit {
        b'Y' => 365 * 86_400,
        b'M' => 30 * 86_400,
        b'D' => 86_400,
        b'h' => 3_600,
        b'm' => 60,
        b's' => 1,
        _ => return None,
    };
    if !number.iter().all(u8::is_ascii_digit) || number.is_empty() {
        return None;
    }
    // More digits than fit mean longer than anything lives.
    let number = std::str::from_utf8(number)
        .ok()?
        .parse()
        .unwrap_or(u64::MAX);
    (number > 0).then(|| Duration::from_secs(unit_seconds.saturating_mul(number)))
}

fn text(value: &FieldValue) -> Result<&Bytes, String> {
    match value {
        FieldValue::LongString(bytes) => Ok(bytes),
        other => Err(unacceptable_type(other)),
    }
}

fn unsupported(what: &str, value: &[u8]) -> String {
    let value = String::from_utf8_lossy(value);
    format!("\"unsupported queue {what} '{value}'\"")
}
