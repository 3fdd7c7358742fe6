//! Time and dead letters over a restart of the broker.

use std::time::Duration;

use crate::amqp::field::{FieldArray, FieldTable, FieldValue, ShortString};
use crate::amqp::header::Properties;

use super::super::tests::kit::{Client, Flag, inline};
use super::super::*;
use super::tests::{Durable, STARTED_UNIX_MS};

fn declare(client: &Client, name: &str, arguments: &[(&str, FieldValue)]) {
    let arguments: FieldTable = arguments
        .iter()
        .map(|(name, value)| (ShortString::try_from(*name).unwrap(), value.clone()))
        .collect();
    client
        .declare_with(name, &[Flag::Durable], arguments)
        .unwrap();
}

fn publish(client: &mut Client, queue: &str, expiration: Option<&'static str>) {
    let properties = Properties {
        delivery_mode: Some(2),
        expiration: expiration.map(ShortString::from_static),
        ..Properties::default()
    };
    client
        .publish_with("", queue, properties, inline("x"))
        .unwrap();
}

fn pass(durable: &Durable, client: &mut Client, time: Duration) {
    client.now += time;
    let broker = &durable.broker;
    while broker.poll_timeout().is_some_and(|next| next <= client.now) {
        broker.handle_timeout(client.now, &mut client.wakes);
    }
}

/// What is left of a message's time after a restart, by the calendar.
// req: TTL-5
#[test]
fn time_goes_on_over_a_restart() {
    // Published one second after the start, to live for a minute.
    const LIVES: Duration = Duration::from_secs(60);
    let published = STARTED_UNIX_MS + 1_000;
    for (restart_unix_ms, left) in [
        (published + 10_000, Duration::from_secs(50)),
        (published + 59_999, Duration::from_millis(1)),
        (published + 60_000, Duration::ZERO),
        (published + 1_000_000, Duration::ZERO),
        // The clock was set back: no more than all of its time.
        (published - 1_000_000, LIVES),
    ] {
        for own in [false, true] {
            let durable = Durable::new();
            let mut client = durable.client();
            let ttl = [("x-message-ttl", FieldValue::from(60_000))];
            declare(&client, "q", if own { &[] } else { &ttl });
            publish(&mut client, "q", own.then_some("60000"));
            let durable = durable.restart_at(restart_unix_ms);
            let mut client = durable.client();
            client.now = durable.broker.shared.timers.started();
            if left > Duration::ZERO {
                pass(&durable, &mut client, left - Duration::from_millis(1));
                assert_eq!(client.queue("q").depth().ready_count, 1, "{left:?}");
                pass(&durable, &mut client, Duration::from_millis(1));
            } else {
                pass(&durable, &mut client, Duration::ZERO);
            }
            assert_eq!(client.queue("q").depth().ready_count, 0, "{left:?}");
        }
    }
}

/// What expired while the broker was down is dead-lettered after the start, through a chain of queues.
#[test]
fn what_expired_meanwhile_is_dead_lettered_after_the_start() {
    let durable = Durable::new();
    let mut client = durable.client();
    for (queue, next) in [("a", "b"), ("b", "c"), ("c", "end")] {
        let arguments = [
            ("x-message-ttl", FieldValue::from(1_000)),
            ("x-dead-letter-exchange", FieldValue::from("")),
            ("x-dead-letter-routing-key", FieldValue::from(next)),
        ];
        declare(&client, queue, &arguments);
    }
    declare(&client, "end", &[]);
    publish(&mut client, "a", None);
    let mut durable = durable;
    for (restart, expected) in [["a", "b"], ["b", "c"], ["c", "end"]].iter().enumerate() {
        let minutes = 60_000 * (restart as u64 + 1);
        durable = durable.restart_at(STARTED_UNIX_MS + minutes);
        let mut client = durable.client();
        client.now = durable.broker.shared.timers.started();
        let [before, after] = expected;
        assert_eq!(client.queue(before).depth().ready_count, 1);
        pass(&durable, &mut client, Duration::ZERO);
        assert_eq!(client.queue(before).depth().ready_count, 0);
        assert_eq!(client.queue(after).depth().ready_count, 1);
    }
    let durable = durable.crash();
    assert_eq!(durable.client().take_all("end"), ["x"]);
}

/// A persistent dead letter in a durable queue survives a kill, once, and what died stays dead.
// req: LETTER-5
#[test]
fn a_dead_letter_survives_a_kill_and_its_origin_does_not() {
    let durable = Durable::new();
    let mut client = durable.client();
    let arguments = [
        ("x-dead-letter-exchange", FieldValue::from("")),
        ("x-dead-letter-routing-key", FieldValue::from("dead")),
        ("x-max-length", FieldValue::from(1)),
    ];
    declare(&client, "q", &arguments);
    declare(&client, "dead", &[]);
    publish(&mut client, "q", None);
    publish(&mut client, "q", None);
    let got = client.get("q", AckMode::Manual).unwrap();
    let (queue, now) = (client.queue("q"), client.now);
    queue.settle(&[got.seq], Settle::Discard, now, &mut client.wakes);
    let durable = durable.crash();
    let client = durable.client();
    assert_eq!(client.queue("q").depth().ready_count, 0);
    assert_eq!(client.queue("dead").depth().ready_count, 2);
}

/// However a kill cuts the journal, a message that died is in its queue or in the other, or in both; never
/// in neither.
// req: LETTER-5
#[test]
fn no_kill_loses_a_dead_letter() {
    for seed in 0..40 {
        let durable = Durable::new();
        let mut client = durable.client();
        let arguments = [
            ("x-dead-letter-exchange", FieldValue::from("")),
            ("x-dead-letter-routing-key", FieldValue::from("dead")),
        ];
        declare(&client, "q", &arguments);
        declare(&client, "dead", &[]);
        publish(&mut client, "q", None);
        let durable = durable.crash();
        let mut client = durable.client();
        let got = client.get("q", AckMode::Manual).unwrap();
        let (queue, now) = (client.queue("q"), client.now);
        queue.settle(&[got.seq], Settle::Discard, now, &mut client.wakes);
        let durable = durable.cut(seed);
        let client = durable.client();
        let counts = ["q", "dead"].map(|queue| client.queue(queue).depth().ready_count);
        assert!(counts.iter().sum::<usize>() >= 1, "seed {seed}: {counts:?}");
    }
}

/// The keys of a BCC header are used again for dead letters after a restart, and stay hidden.
// req: LETTER-4
#[test]
fn hidden_keys_outlive_a_restart() {
    let durable = Durable::new();
    let mut client = durable.client();
    declare(&client, "copy", &[]);
    client.bind("amq.direct", "copy", "hidden").unwrap();
    let dlx = [("x-dead-letter-exchange", FieldValue::from("amq.direct"))];
    declare(&client, "q", &dlx);
    let keys: FieldArray = [FieldValue::from("hidden")].into_iter().collect();
    let properties = Properties {
        delivery_mode: Some(2),
        headers: Some(FieldTable::from([("BCC", FieldValue::Array(keys))])),
        ..Properties::default()
    };
    client
        .publish_with("", "q", properties, inline("x"))
        .unwrap();
    let durable = durable.crash();
    let mut client = durable.client();
    let got = client.get("q", AckMode::Manual).unwrap();
    assert!(
        !got.message
            .header()
            .windows(3)
            .any(|octets| octets == b"BCC")
    );
    let (queue, now) = (client.queue("q"), client.now);
    queue.settle(&[got.seq], Settle::Discard, now, &mut client.wakes);
    let durable = durable.crash();
    assert_eq!(durable.client().take_all("copy"), ["x"]);
}

/// The time of an unused durable queue begins again with the broker.
// req: TTL-6
#[test]
fn an_unused_queue_expires_after_a_restart() {
    let durable = Durable::new();
    let client = durable.client();
    declare(&client, "q", &[("x-expires", FieldValue::from(60_000))]);
    let durable = durable.restart_at(STARTED_UNIX_MS + 1_000_000);
    let mut client = durable.client();
    client.now = durable.broker.shared.timers.started();
    pass(&durable, &mut client, Duration::from_millis(59_999));
    assert!(client.vhost().queue(b"q").is_some());
    pass(&durable, &mut client, Duration::from_millis(1));
    assert!(client.vhost().queue(b"q").is_none());
    let durable = durable.crash();
    assert!(durable.client().vhost().queue(b"q").is_none());
}
