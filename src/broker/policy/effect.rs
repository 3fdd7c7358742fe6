//! What a policy changes: its definition joined with the arguments of a queue or exchange.
//!
//! Owns: which of two values counts. Of two numbers it is the lower; of other values the argument's, if
//! there is one, whatever the policy says. Spec: `rabbit_queue_type_util:args_policy_lookup/3`.

use std::time::Duration;

use crate::amqp::field::FieldTable;

use super::super::name::Name;
use super::super::queue::arguments::{DeliveryLimit, Overflow, QueueSettings, age};
use super::{Definition, EffectivePolicy, PolicyValue};

impl EffectivePolicy {
    // req: POLICY-2
    /// The settings of a queue with these arguments, which mean `declared`.
    #[must_use]
    pub fn queue_settings(&self, declared: QueueSettings, arguments: &FieldTable) -> QueueSettings {
        if self.policy.is_none() && self.operator_policy.is_none() {
            return declared;
        }
        let definition = self.definition();
        let count = |key: &str| number(&definition, key);
        let time = |key: &str| count(key).map(Duration::from_millis);
        QueueSettings {
            message_ttl: lower(declared.message_ttl, time("message-ttl")),
            expires: lower(declared.expires, time("expires")),
            length_count_max: lower(declared.length_count_max, count("max-length")),
            length_bytes_max: lower(declared.length_bytes_max, count("max-length-bytes")),
            overflow: overflow(&definition)
                .filter(|_| !arguments.contains("x-overflow"))
                .unwrap_or(declared.overflow),
            dead_letter_exchange: declared
                .dead_letter_exchange
                .or_else(|| name(&definition, "dead-letter-exchange")),
            dead_letter_routing_key: declared
                .dead_letter_routing_key
                .or_else(|| name(&definition, "dead-letter-routing-key")),
            delivery_limit: delivery_limit(declared.delivery_limit, count("delivery-limit")),
            age_max: lower(declared.age_max, max_age(&definition)),
            segment_bytes: declared
                .segment_bytes
                .min(count("stream-max-segment-size-bytes").unwrap_or(declared.segment_bytes)),
            payload_as_manifest: declared.payload_as_manifest
                || text(&definition, "payload") == Some("manifest"),
            ..declared
        }
    }

    /// Where an exchange sends what it has no destination for, if its arguments do not say.
    #[must_use]
    pub fn alternate_exchange(&self) -> Option<Name> {
        name(&self.definition(), "alternate-exchange")
    }
}

fn lower<T: Ord>(argument: Option<T>, policy: Option<T>) -> Option<T> {
    match (argument, policy) {
        (Some(argument), Some(policy)) => Some(argument.min(policy)),
        (argument, policy) => argument.or(policy),
    }
}

/// An argument that allows any number is lowered by a policy, too.
fn delivery_limit(argument: DeliveryLimit, policy: Option<u64>) -> DeliveryLimit {
    let policy = policy.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    match (argument, policy) {
        (argument, None) => argument,
        (DeliveryLimit::Count(argument), Some(policy)) => {
            DeliveryLimit::Count(argument.min(policy))
        }
        (DeliveryLimit::Default | DeliveryLimit::None, Some(policy)) => {
            DeliveryLimit::Count(policy)
        }
    }
}

fn max_age(definition: &Definition) -> Option<Duration> {
    text(definition, "max-age").and_then(|text| age(text.as_bytes()))
}

fn text<'a>(definition: &'a Definition, key: &str) -> Option<&'a str> {
    definition.get(key).and_then(PolicyValue::as_text)
}

fn name(definition: &Definition, key: &str) -> Option<Name> {
    text(definition, key).map(Name::from)
}

fn number(definition: &Definition, key: &str) -> Option<u64> {
    let integer = definition.get(key).and_then(PolicyValue::as_integer);
    integer.and_then(|integer| u64::try_from(integer).ok())
}

fn overflow(definition: &Definition) -> Option<Overflow> {
    match text(definition, "overflow") {
        Some("drop-head") => Some(Overflow::DropHead),
        Some("reject-publish") => Some(Overflow::RejectPublish),
        Some("reject-publish-dlx") => Some(Overflow::RejectPublishDlx),
        Some(_) | None => None,
    }
}
