//! Policies by themselves: what is accepted, which is in effect, and what it makes of arguments.

use std::time::Duration;

use crate::amqp::field::{FieldTable, FieldValue};

use super::super::queue::arguments::{DeliveryLimit, Overflow, QueueSettings};
use super::*;

fn integer(value: i64) -> PolicyValue {
    PolicyValue::Integer(value)
}

fn text(value: &str) -> PolicyValue {
    PolicyValue::Text(value.to_owned())
}

fn definition(pairs: &[(&str, PolicyValue)]) -> Definition {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

fn policy(kind: PolicyKind, name: &str, pattern: &str, priority: i64, key: (&str, i64)) -> Policy {
    let definition = definition(&[(key.0, integer(key.1))]);
    Policy::new(
        kind,
        &Name::from(name),
        pattern,
        "queues",
        priority,
        definition,
    )
    .expect(name)
}

fn check(kind: PolicyKind, key: &str, value: PolicyValue) -> Result<(), String> {
    let definition = definition(&[(key, value)]);
    let made = Policy::new(kind, &Name::from("p"), ".*", "all", 0, definition);
    made.map(|_| ()).map_err(|error| error.to_string())
}

/// Texts as RabbitMQ 3.10.8 answers them.
// req: POLICY-4
#[test]
fn refusals_are_in_the_words_of_rabbitmq() {
    for (key, value, refusal) in [
        (
            "alternate-exchange",
            integer(1),
            "1 is not a valid alternate exchange name",
        ),
        (
            "dead-letter-strategy",
            text("x"),
            "<<\"x\">> is not a valid dead letter strategy",
        ),
        (
            "message-ttl",
            text("a"),
            "<<\"a\">> is not a valid message TTL",
        ),
        (
            "message-ttl",
            PolicyValue::Null,
            "null is not a valid message TTL",
        ),
        (
            "message-ttl",
            PolicyValue::Decimal("5.0".to_owned()),
            "5.0 is not a valid message TTL",
        ),
        ("expires", integer(0), "0 is not a valid queue expiry"),
        (
            "max-length",
            integer(-1),
            "-1 is not a valid maximum length",
        ),
        (
            "max-length-bytes",
            integer(-1),
            "-1 is not a valid maximum length in bytes",
        ),
        (
            "queue-mode",
            text("x"),
            "<<\"x\">> is not a valid queue-mode value",
        ),
        (
            "queue-version",
            integer(3),
            "3 is not a valid queue-version value",
        ),
        (
            "overflow",
            text("x"),
            "<<\"x\">> is not a valid overflow value",
        ),
        (
            "delivery-limit",
            integer(-1),
            "-1 is not a valid delivery limit",
        ),
        (
            "stream-max-segment-size-bytes",
            integer(-1),
            "-1 is not a valid segment size",
        ),
        (
            "queue-master-locator",
            text("x"),
            "<<\"x\">> invalid queue-master-locator value",
        ),
        (
            "ha-params",
            integer(1),
            "ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown",
        ),
        (
            "nonsense",
            integer(1),
            "[{<<\"nonsense\">>,1}] are not recognised policy settings",
        ),
    ] {
        let expected = format!("Validation failed\n\n{refusal}\n");
        assert_eq!(check(PolicyKind::User, key, value), Err(expected), "{key}");
    }
    let list = PolicyValue::List(vec![text("a"), integer(1)]);
    let refusal = check(PolicyKind::User, "message-ttl", list).expect_err("a list");
    assert!(refusal.contains("[<<\"a\">>,1] is not"), "{refusal}");
    let map = PolicyValue::Map(vec![("a".to_owned(), integer(1))]);
    let refusal = check(PolicyKind::User, "message-ttl", map).expect_err("a map");
    assert!(refusal.contains("#{<<\"a\">> => 1} is not"), "{refusal}");
    let none = Policy::new(
        PolicyKind::User,
        &Name::from("p"),
        "(",
        "x",
        0,
        Definition::new(),
    );
    let problems = none.expect_err("all of it wrong").to_string();
    assert!(
        problems.starts_with(
            "Validation failed\n\nno policy provided\napply-to 'x' unrecognised; should be \
             'queues', 'exchanges' or 'all'\npattern should be regular expression but is invalid: "
        ),
        "{problems}"
    );
}

#[test]
fn an_operator_may_only_limit() {
    assert_eq!(
        check(PolicyKind::Operator, "max-length", integer(1)),
        Ok(())
    );
    let refusal = check(PolicyKind::Operator, "dead-letter-exchange", text("a"));
    let refusal = refusal.expect_err("not a limit");
    assert!(
        refusal.contains("not recognised policy settings"),
        "{refusal}"
    );
    assert_eq!(
        check(PolicyKind::User, "dead-letter-exchange", text("a")),
        Ok(())
    );
    assert_eq!(check(PolicyKind::User, "max-age", text("7D")), Ok(()));
    assert!(check(PolicyKind::User, "max-age", text("D")).is_err());
}

/// One policy of each kind counts: that with the highest priority among those that match.
// req: POLICY-1
#[test]
fn the_highest_priority_counts_alone() {
    let mut policies = Policies::default();
    policies.insert(policy(PolicyKind::User, "low", ".*", 0, ("max-length", 10)));
    policies.insert(policy(
        PolicyKind::User,
        "high",
        "^a",
        5,
        ("message-ttl", 7),
    ));
    policies.insert(policy(
        PolicyKind::User,
        "other",
        "^b",
        9,
        ("max-length", 1),
    ));
    policies.insert(policy(
        PolicyKind::Operator,
        "op",
        ".*",
        0,
        ("message-ttl", 3),
    ));
    let queue = Subject::Queue(QueueKind::Classic);
    let effective = policies.effective(queue, b"aa");
    let name = |policy: &Option<Arc<Policy>>| policy.as_ref().map(|one| one.name().to_string());
    assert_eq!(name(&effective.policy).as_deref(), Some("high"));
    assert_eq!(name(&effective.operator_policy).as_deref(), Some("op"));
    // The lower of two, and nothing of the policy that lost.
    assert_eq!(
        effective.definition(),
        definition(&[("message-ttl", integer(3))])
    );
    let effective = policies.effective(queue, b"c");
    assert_eq!(name(&effective.policy).as_deref(), Some("low"));
    // These are for queues.
    let none = policies.effective(Subject::Exchange, b"aa");
    assert_eq!(none, EffectivePolicy::default());
    // A stream knows no message TTL, so the policy passes it by, and the next one counts.
    let stream = policies.effective(Subject::Queue(QueueKind::Stream), b"aa");
    assert_eq!(stream, EffectivePolicy::default());
}

// req: POLICY-2
#[test]
fn of_numbers_the_lower_counts_and_of_the_rest_the_argument() {
    let effective = |value: Definition| EffectivePolicy {
        policy: Policy::new(PolicyKind::User, &Name::from("p"), ".*", "queues", 0, value)
            .ok()
            .map(Arc::new),
        operator_policy: None,
    };
    let effective = effective(definition(&[
        ("max-length", integer(5)),
        ("message-ttl", integer(5)),
        ("expires", integer(9)),
        ("overflow", text("reject-publish")),
        ("dead-letter-exchange", text("policy")),
        ("dead-letter-routing-key", text("policy")),
    ]));
    let declared = QueueSettings {
        length_count_max: Some(7),
        message_ttl: Some(Duration::from_millis(3)),
        dead_letter_exchange: Some(Name::from("argument")),
        ..QueueSettings::default()
    };
    let settings = effective.queue_settings(declared.clone(), &FieldTable::default());
    assert_eq!(settings.length_count_max, Some(5));
    assert_eq!(settings.message_ttl, Some(Duration::from_millis(3)));
    assert_eq!(settings.expires, Some(Duration::from_millis(9)));
    assert_eq!(settings.overflow, Overflow::RejectPublish);
    assert_eq!(settings.dead_letter_exchange, Some(Name::from("argument")));
    assert_eq!(settings.dead_letter_routing_key, Some(Name::from("policy")));
    let arguments = FieldTable::from([("x-overflow", FieldValue::from("drop-head"))]);
    let settings = effective.queue_settings(declared.clone(), &arguments);
    assert_eq!(settings.overflow, Overflow::DropHead);
    let numbers = definition(&[
        ("delivery-limit", integer(4)),
        ("max-age", text("1h")),
        ("stream-max-segment-size-bytes", integer(1_000)),
    ]);
    let numbers = EffectivePolicy {
        policy: Policy::new(
            PolicyKind::User,
            &Name::from("p"),
            ".*",
            "queues",
            0,
            numbers,
        )
        .ok()
        .map(Arc::new),
        operator_policy: None,
    };
    let limited = QueueSettings {
        delivery_limit: DeliveryLimit::Count(2),
        segment_bytes: 5_000,
        ..QueueSettings::default()
    };
    let settings = numbers.queue_settings(limited, &FieldTable::default());
    assert_eq!(settings.delivery_limit, DeliveryLimit::Count(2));
    assert_eq!(settings.age_max, Some(Duration::from_secs(3_600)));
    assert_eq!(settings.segment_bytes, 1_000);
    let settings = numbers.queue_settings(QueueSettings::default(), &FieldTable::default());
    assert_eq!(settings.delivery_limit, DeliveryLimit::Count(4));
    let unchanged = EffectivePolicy::default().queue_settings(declared.clone(), &arguments);
    assert_eq!(unchanged, declared);
}
