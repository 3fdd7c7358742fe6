//! Kinds of queues, driven without frames.

use crate::amqp::field::{FieldTable, FieldValue};

use super::super::{Activity, QueueKind};
use super::kit::{Client, Flag, broker};

fn with(arguments: &[(&'static str, FieldValue)]) -> FieldTable {
    let named = arguments.iter();
    named
        .map(|(name, value)| {
            (
                crate::amqp::field::ShortString::from_static(name),
                value.clone(),
            )
        })
        .collect()
}

/// A vhost's default type is that of queues which name none and can be of that type; those that are there
/// stay what they are.
#[test]
fn a_vhost_may_have_another_default_type() {
    let client = Client::new(&broker());
    client.declare("before", &[Flag::Durable]).unwrap();
    client
        .vhost()
        .change_details(|details| details.default_queue_type = Some("quorum".to_owned()))
        .unwrap();
    for name in ["before", "after"] {
        client.declare(name, &[Flag::Durable]).unwrap();
        // And again, as every client does.
        client.declare(name, &[Flag::Durable]).unwrap();
    }
    client.declare("own", &[Flag::Exclusive]).unwrap();
    client.declare("transient", &[]).unwrap();
    let classic = with(&[("x-queue-type", "classic".into())]);
    client
        .declare_with("classic", &[Flag::Durable], classic)
        .unwrap();
    for (name, kind) in [
        ("before", QueueKind::Classic),
        ("after", QueueKind::Quorum),
        ("own", QueueKind::Classic),
        ("transient", QueueKind::Classic),
        ("classic", QueueKind::Classic),
    ] {
        assert_eq!(client.queue(name).kind(), kind, "{name}");
    }
    let quorum = with(&[("x-queue-type", "quorum".into())]);
    client
        .declare_with("after", &[Flag::Durable], quorum)
        .unwrap();
}

/// What is compared on redeclare is the value: not its width, nor the type of its string.
#[test]
fn equal_values_are_equal_whatever_their_type() {
    let client = Client::new(&broker());
    let declare = |name: &str, arguments: FieldTable| client.declare_with(name, &[], arguments);
    let priority = |value: FieldValue| with(&[("x-max-priority", value)]);
    declare("q", priority(FieldValue::LongInt(5))).unwrap();
    declare("q", priority(FieldValue::ShortShortUint(5))).unwrap();
    declare("q", priority(FieldValue::LongLongInt(5))).unwrap();
    for other in [FieldValue::Double(5.0), "5".into(), 6_i64.into()] {
        let error = declare("q", priority(other)).unwrap_err().to_string();
        assert!(
            error.starts_with("inequivalent arg 'x-max-priority'"),
            "{error}"
        );
    }
}

/// Who is served, and who waits for it.
// req: SAC-1
#[test]
fn states_of_consumers_tell_who_is_active() {
    let mut client = Client::new(&broker());
    let single = with(&[("x-single-active-consumer", true.into())]);
    client.declare_with("single", &[], single).unwrap();
    client.declare("plain", &[]).unwrap();
    let first = client.consume("single", "first", 1).unwrap();
    client.consume("single", "second", 0).unwrap();
    client.consume("plain", "other", 0).unwrap();
    client.publish("", "single", "a");
    let states = |client: &Client, queue: &str| {
        let mut states: Vec<_> = client
            .queue(queue)
            .consumer_states()
            .iter()
            .map(|state| {
                (
                    state.consumer.tag().to_string(),
                    state.activity,
                    state.unacked_count,
                )
            })
            .collect();
        states.sort_by(|one, other| one.0.cmp(&other.0));
        states
    };
    assert_eq!(
        states(&client, "single"),
        [
            ("first".to_owned(), Activity::SingleActive, 1),
            ("second".to_owned(), Activity::Waiting, 0)
        ]
    );
    assert_eq!(
        states(&client, "plain"),
        [("other".to_owned(), Activity::Up, 0)]
    );
    let vhost = client.vhost();
    vhost.cancel(&first, client.now, &mut client.wakes).unwrap();
    assert_eq!(
        states(&client, "single"),
        [("second".to_owned(), Activity::SingleActive, 0)]
    );
}
