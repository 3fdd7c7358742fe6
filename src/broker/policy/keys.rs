//! The keys of definitions: what each may be, who may set it, and which queues know it.
//!
//! Owns: RabbitMQ's checks with their texts. A key of what Warren has no use for (mirrored queues,
//! federation) is accepted with RabbitMQ's check, so that definitions can be carried over, and has no effect.

use super::super::limits::{EXPIRY_MS_MAX, STREAM_SEGMENT_BYTES_MAX};
use super::super::queue::arguments::QueueKind;
use super::{DEFINITION_KEYS_MAX, Definition, PolicyKind, PolicyValue, Subject};

/// What a key may be.
struct Key {
    name: &'static str,
    check: Check,
    /// What RabbitMQ says behind a value that does not hold.
    refusal: &'static str,
    /// Whether an operator may set it.
    operator: bool,
    /// Types of queues that do not know it: a policy with it is not applied to them at all.
    unknown_to: &'static [QueueKind],
}

type Check = fn(&PolicyValue) -> bool;

use QueueKind::{Classic, Quorum, Stream};

/// A key that only a policy may have.
const fn key(
    name: &'static str,
    check: Check,
    refusal: &'static str,
    unknown_to: &'static [QueueKind],
) -> Key {
    Key {
        name,
        check,
        refusal,
        operator: false,
        unknown_to,
    }
}

/// A key that an operator policy may have too.
const fn limit(
    name: &'static str,
    check: Check,
    refusal: &'static str,
    unknown_to: &'static [QueueKind],
) -> Key {
    Key {
        operator: true,
        ..key(name, check, refusal, unknown_to)
    }
}

const MIRRORING: &[QueueKind] = &[Quorum, Stream];

const KEYS: &[Key] = &[
    key(
        "alternate-exchange",
        text,
        "is not a valid alternate exchange name",
        &[],
    ),
    key(
        "consumer-timeout",
        not_negative,
        "is not a valid consumer timeout",
        &[],
    ),
    key(
        "dead-letter-exchange",
        text,
        "is not a valid dead letter exchange name",
        &[Stream],
    ),
    key(
        "dead-letter-routing-key",
        text,
        "is not a valid dead letter routing key",
        &[Stream],
    ),
    key(
        "dead-letter-strategy",
        strategy,
        "is not a valid dead letter strategy",
        &[Classic, Stream],
    ),
    limit(
        "delivery-limit",
        not_negative,
        "is not a valid delivery limit",
        &[Classic, Stream],
    ),
    limit("expires", expiry, "is not a valid queue expiry", &[Stream]),
    key(
        "federation-upstream",
        text,
        "is not a valid federation upstream name",
        &[],
    ),
    key(
        "federation-upstream-set",
        text,
        "is not a valid federation upstream set name",
        &[],
    ),
    key(
        "ha-mode",
        mirror_mode,
        "is not a valid ha-mode value",
        MIRRORING,
    ),
    key(
        "ha-params",
        any,
        "is not a valid ha-params value",
        MIRRORING,
    ),
    key(
        "ha-promote-on-failure",
        promotion,
        "is not a valid ha-promote-on-failure value",
        MIRRORING,
    ),
    key(
        "ha-promote-on-shutdown",
        promotion,
        "is not a valid ha-promote-on-shutdown value",
        MIRRORING,
    ),
    key(
        "ha-sync-batch-size",
        not_negative,
        "is not a valid ha-sync-batch-size value",
        MIRRORING,
    ),
    key(
        "ha-sync-mode",
        sync_mode,
        "is not a valid ha-sync-mode value",
        MIRRORING,
    ),
    key(
        "initial-cluster-size",
        not_negative,
        "is not a valid cluster size",
        &[Classic, Quorum],
    ),
    key("max-age", age, "is not a valid max age", &[Classic, Quorum]),
    limit(
        "max-in-memory-bytes",
        not_negative,
        "is not a valid maximum memory in bytes",
        &[Stream],
    ),
    limit(
        "max-in-memory-length",
        not_negative,
        "is not a valid maximum memory in bytes",
        &[Stream],
    ),
    limit(
        "max-length",
        not_negative,
        "is not a valid maximum length",
        &[Stream],
    ),
    limit(
        "max-length-bytes",
        not_negative,
        "is not a valid maximum length in bytes",
        &[],
    ),
    limit("message-ttl", ttl, "is not a valid message TTL", &[Stream]),
    limit(
        "overflow",
        overflow,
        "is not a valid overflow value",
        &[Stream],
    ),
    key("payload", payload, "is not a valid payload value", &[]),
    key(
        "queue-leader-locator",
        leader_locator,
        "is not a valid queue leader locator value",
        &[Classic],
    ),
    key(
        "queue-master-locator",
        master_locator,
        "invalid queue-master-locator value",
        MIRRORING,
    ),
    key(
        "queue-mode",
        queue_mode,
        "is not a valid queue-mode value",
        MIRRORING,
    ),
    limit(
        "queue-version",
        version,
        "is not a valid queue-version value",
        MIRRORING,
    ),
    key(
        "stream-max-segment-size-bytes",
        segment,
        "is not a valid segment size",
        &[Classic, Quorum],
    ),
    key(
        "target-group-size",
        not_negative,
        "is not a valid target group size",
        &[Classic, Stream],
    ),
];

fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}

/// Checks all keys and values; says what is wrong with the first that is.
// req: POLICY-4
pub(super) fn check(kind: PolicyKind, definition: &Definition) -> Result<(), String> {
    if definition.is_empty() {
        return Err("no policy provided".to_owned());
    }
    if definition.len() > DEFINITION_KEYS_MAX {
        return Err(format!("more than {DEFINITION_KEYS_MAX} policy settings"));
    }
    let allowed = |name: &str| find(name).filter(|key| key.operator || kind == PolicyKind::User);
    for (name, value) in definition {
        if let Some(key) = allowed(name)
            && !(key.check)(value)
        {
            return Err(format!("{value} {}", key.refusal));
        }
    }
    let of_mirrors = ["ha-params", "ha-sync-mode", "ha-promote-on-shutdown"];
    if !definition.contains_key("ha-mode")
        && of_mirrors.iter().any(|name| definition.contains_key(*name))
    {
        return Err(
            "ha-mode must be specified to specify ha-params, ha-sync-mode or \
                    ha-promote-on-shutdown"
                .to_owned(),
        );
    }
    let unknown: Vec<_> = definition
        .iter()
        .filter(|(name, _)| allowed(name).is_none())
        .map(|(name, value)| format!("{{<<\"{name}\">>,{value}}}"))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let unknown = unknown.join(",");
    Err(format!("[{unknown}] are not recognised policy settings"))
}

/// Whether a policy with this definition can be applied: RabbitMQ passes over those with a key that the
/// queue's type does not know.
pub(super) fn are_known_to(definition: &Definition, subject: Subject) -> bool {
    match subject {
        Subject::Exchange => true,
        Subject::Queue(kind) => definition
            .keys()
            .all(|name| find(name).is_none_or(|key| !key.unknown_to.contains(&kind))),
    }
}

fn any(_: &PolicyValue) -> bool {
    true
}

fn text(value: &PolicyValue) -> bool {
    value
        .as_text()
        .is_some_and(|text| text.len() <= super::super::limits::NAME_BYTES_MAX)
}

fn one_of(value: &PolicyValue, allowed: &[&str]) -> bool {
    value.as_text().is_some_and(|text| allowed.contains(&text))
}

fn not_negative(value: &PolicyValue) -> bool {
    value.as_integer().is_some_and(|integer| integer >= 0)
}

fn ttl(value: &PolicyValue) -> bool {
    value
        .as_integer()
        .is_some_and(|ms| (0..=EXPIRY_MS_MAX).contains(&ms))
}

fn expiry(value: &PolicyValue) -> bool {
    value
        .as_integer()
        .is_some_and(|ms| (1..=EXPIRY_MS_MAX).contains(&ms))
}

fn segment(value: &PolicyValue) -> bool {
    let bytes = value
        .as_integer()
        .and_then(|bytes| u64::try_from(bytes).ok());
    bytes.is_some_and(|bytes| bytes <= STREAM_SEGMENT_BYTES_MAX)
}

fn strategy(value: &PolicyValue) -> bool {
    one_of(value, &["at-most-once", "at-least-once"])
}

fn overflow(value: &PolicyValue) -> bool {
    one_of(
        value,
        &["drop-head", "reject-publish", "reject-publish-dlx"],
    )
}

fn queue_mode(value: &PolicyValue) -> bool {
    one_of(value, &["default", "lazy"])
}

fn version(value: &PolicyValue) -> bool {
    matches!(value.as_integer(), Some(1 | 2))
}

fn payload(value: &PolicyValue) -> bool {
    one_of(value, &["manifest", "body"])
}

fn age(value: &PolicyValue) -> bool {
    let text = value.as_text();
    text.is_some_and(|text| super::super::queue::arguments::age(text.as_bytes()).is_some())
}

fn leader_locator(value: &PolicyValue) -> bool {
    one_of(
        value,
        &["client-local", "balanced", "least-leaders", "random"],
    )
}

fn master_locator(value: &PolicyValue) -> bool {
    one_of(value, &["min-masters", "client-local", "random"])
}

fn mirror_mode(value: &PolicyValue) -> bool {
    one_of(value, &["all", "exactly", "nodes"])
}

fn sync_mode(value: &PolicyValue) -> bool {
    one_of(value, &["manual", "automatic"])
}

fn promotion(value: &PolicyValue) -> bool {
    one_of(value, &["always", "when-synced"])
}
