//! Delayed messages and keys of duplicates, while a broker runs and across its ends.

use std::time::{Duration, Instant};

use super::*;

fn delayed(headers: impl IntoIterator<Item = (&'static str, FieldValue)>) -> Properties {
    Properties {
        headers: Some(headers.into_iter().collect_table()),
        delivery_mode: Some(2),
        ..Properties::default()
    }
}

trait CollectTable {
    fn collect_table(self) -> FieldTable;
}

impl<I: IntoIterator<Item = (&'static str, FieldValue)>> CollectTable for I {
    fn collect_table(self) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in self {
            table.insert(crate::amqp::field::ShortString::from_static(name), value);
        }
        table
    }
}

fn delay(ms: i32) -> Properties {
    delayed([("x-delay", FieldValue::from(ms))])
}

/// A durable delayed exchange of type topic, and a queue bound by `a.#`.
fn topology(client: &Client) {
    let arguments = FieldTable::from([("x-delayed-type", FieldValue::from("topic"))]);
    client
        .exchange("later", "x-delayed-message", &[Flag::Durable], arguments)
        .expect("a new exchange");
    client.declare("q", &[Flag::Durable]).expect("a new queue");
    client.bind("later", "q", "a.#").expect("both there");
}

fn publish(client: &mut Client, key: &str, properties: Properties, body: &str) -> PublishOutcome {
    let published = client.publish_with("later", key, properties, inline(body));
    published.expect("the exchange is there").outcome
}

/// Lets time pass and does all that is due.
fn run_until(broker: &Broker, now: Instant) {
    while broker.poll_timeout().is_some_and(|at| at <= now) {
        broker.handle_timeout(now, &mut Wakes::new());
    }
}

fn after(client: &Client, ms: u64) -> Instant {
    client.now + Duration::from_millis(ms)
}

/// Messages wait as long as they ask, go where the named type sends them, in the order of their times,
/// and carry the delay negated; those that ask for none, or for nothing sensible, go at once.
/// Nothing is reported as unroutable before it is known.
// req: DELAY-1 req: DELAY-2
#[test]
fn messages_go_out_when_their_time_has_come() {
    let durable = Durable::new();
    let mut client = durable.client();
    topology(&client);
    for (key, ms, body) in [
        ("a.b", 300, "3"),
        ("a", 100, "1"),
        ("a.c", 300, "4"),
        ("a", 200, "2"),
    ] {
        let outcome = publish(&mut client, key, delay(ms), body);
        assert!(is_journalled(outcome), "it is as safe as in a queue");
    }
    assert!(is_journalled(publish(
        &mut client,
        "nowhere",
        delay(100),
        "lost"
    )));
    publish(&mut client, "a", delay(-5), "at once");
    publish(&mut client, "a", Properties::default(), "at once");
    assert_eq!(
        publish(&mut client, "nowhere", delay(0), "lost"),
        PublishOutcome::Unroutable
    );
    assert_eq!(client.take_all("q"), ["at once", "at once"]);
    let exchange = client.vhost().exchange(b"later").expect("declared");
    assert_eq!(exchange.delayed_count(), 5);
    run_until(&durable.broker, after(&client, 99));
    assert!(client.take_all("q").is_empty());
    run_until(&durable.broker, after(&client, 100));
    let got = client.get("q", AckMode::Automatic).expect("due");
    assert_eq!(text(&got.message), "1");
    assert_eq!(got.message.exchange(), b"later");
    assert_eq!(got.message.header(), delay(-100).encode());
    run_until(&durable.broker, after(&client, 400));
    assert_eq!(client.take_all("q"), ["2", "3", "4"]);
    assert_eq!(exchange.delayed_count(), 0);
    assert_eq!(durable.broker.poll_timeout(), None);
}

/// After a clean stop and after a kill the times hold; what became due meanwhile goes out at once; and
/// once it is in its queue it is not delayed again, whatever happens.
// req: DELAY-3 req: DELAY-4 req: DELAY-5
#[test]
fn waiting_messages_survive_every_end() {
    for clean in [true, false] {
        let mut durable = Durable::new();
        let mut client = durable.client();
        topology(&client);
        for (ms, body) in [(500, "soon"), (90_000, "late")] {
            publish(&mut client, "a", delay(ms), body);
        }
        let transient = Properties {
            delivery_mode: Some(1),
            ..delay(600)
        };
        let outcome = publish(&mut client, "a", transient, "transient");
        assert!(!is_journalled(outcome), "nobody waits for it");
        let end = |durable: Durable| match clean {
            true => durable.restart(),
            false => durable.crash(),
        };
        durable = end(durable);
        let mut client = durable.client();
        let exchange = client.vhost().exchange(b"later").expect("durable");
        assert_eq!(exchange.delayed_count(), 3);
        run_until(&durable.broker, after(&client, 499));
        assert!(client.take_all("q").is_empty());
        run_until(&durable.broker, after(&client, 1_000));
        assert_eq!(client.queue("q").depth().ready_count, 2);
        durable = end(durable);
        client = durable.client();
        // The clock of these tests starts again with each broker.
        run_until(&durable.broker, after(&client, 1_000));
        assert_eq!(
            client.take_all("q"),
            ["soon"],
            "transient messages end in queues"
        );
        run_until(&durable.broker, after(&client, 90_000));
        assert_eq!(client.take_all("q"), ["late"]);
        durable = end(durable);
        run_until(&durable.broker, after(&client, 200_000));
        assert!(durable.client().take_all("q").is_empty());
    }
}

/// More than is kept whole is read back from the journal.
#[test]
fn messages_that_memory_has_no_room_for_are_read_back() {
    let durable = Durable::new();
    let mut client = durable.client();
    topology(&client);
    let body = "x".repeat(20_000);
    let count = 2 * limits::DELAYED_HELD_BYTES_MAX / body.len();
    for _ in 0..count {
        publish(&mut client, "a", delay(50), &body);
    }
    run_until(&durable.broker, after(&client, 50));
    let got = client.take_all("q");
    assert_eq!(got.len(), count);
    assert!(got.iter().all(|got| *got == body));
}

/// A body in the payload store is referred to as long as its message waits, also after a restart.
#[test]
fn a_waiting_message_keeps_its_payload() {
    let mut durable = Durable::new();
    let mut client = durable.client();
    topology(&client);
    let id = PayloadId::from_bytes([7; 32]);
    let body = Body::Payload(client.vhost().hold_payload(id, 5_000_000));
    client
        .publish_with("later", "a", delay(100), body)
        .expect("the exchange is there");
    assert_eq!(durable.counter.count(id), 1);
    durable = durable.crash();
    client = durable.client();
    assert_eq!(durable.counter.count(id), 1);
    run_until(&durable.broker, after(&client, 100));
    let got = client.get("q", AckMode::Automatic).expect("due");
    assert_eq!(text(&got.message), "payload of 5000000 bytes");
    drop(got);
    assert_eq!(durable.counter.count(id), 0);
}

/// Deleting a delayed exchange deletes what waits in it; one of the same name starts empty.
#[test]
fn what_waits_goes_with_its_exchange() {
    let mut durable = Durable::new();
    let mut client = durable.client();
    topology(&client);
    publish(&mut client, "a", delay(100), "gone");
    client.delete_exchange("later").expect("it is there");
    assert_eq!(durable.broker.poll_timeout(), None);
    let arguments = FieldTable::from([("x-delayed-type", FieldValue::from("fanout"))]);
    client
        .exchange("later", "x-delayed-message", &[], arguments)
        .expect("a new exchange");
    client.bind("later", "q", "").expect("both there");
    publish(&mut client, "a", delay(100), "goes with the process");
    durable = durable.restart();
    client = durable.client();
    run_until(&durable.broker, after(&client, 1_000));
    assert!(client.take_all("q").is_empty());
    assert!(client.vhost().exchange(b"later").is_none());
}

/// However many publish at once, the timer comes up for the first message: two that arm it at once must
/// not leave the later one.
#[test]
fn the_timer_is_for_the_first_message_whoever_armed_it() {
    let broker = Broker::open(settings(), None, None).expect("nothing to recover");
    let client = Client::new(&broker);
    topology(&client);
    for round in 0..200 {
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let mut client = Client::new(&broker);
                scope.spawn(move || {
                    for number in 0..3 {
                        let ms = 1_000_000 - round * 100 - (thread * 7 + number * 11) % 30;
                        publish(&mut client, "a", delay(ms), "m");
                    }
                });
            }
        });
        let exchange = client.vhost().exchange(b"later").expect("declared");
        let first = exchange.delays().and_then(|delays| delays.first_due());
        let first = first.map(|first| broker.shared.clock.instant(first));
        assert_eq!(broker.poll_timeout(), first);
    }
}

fn dedup_topology(client: &Client, more: &[(&'static str, FieldValue)], queue: FieldTable) {
    let mut arguments = FieldTable::from([("x-cache-size", FieldValue::from(3))]);
    for (name, value) in more {
        let name = crate::amqp::field::ShortString::from_static(name);
        arguments.insert(name, value.clone());
    }
    client
        .exchange(
            "once",
            "x-message-deduplication",
            &[Flag::Durable],
            arguments,
        )
        .expect("a new exchange");
    client
        .declare_with("q", &[Flag::Durable], queue)
        .expect("a new queue");
    client.bind("once", "q", "").expect("both there");
}

fn publish_once(client: &mut Client, key: Option<&str>, body: &str) -> PublishOutcome {
    let headers =
        key.map(|key| FieldTable::from([("x-deduplication-header", FieldValue::from(key))]));
    let properties = Properties {
        headers,
        delivery_mode: Some(2),
        ..Properties::default()
    };
    let published = client.publish_with("once", "", properties, inline(body));
    published.expect("the exchange is there").outcome
}

/// The second message with a key is confirmed like the first and dropped, also after a clean stop and a
/// kill; one without the header is never a duplicate; the oldest key goes when there are too many.
// req: DEDUP-1 req: DEDUP-3 req: DEDUP-4
#[test]
fn duplicates_are_dropped_across_every_end() {
    for clean in [true, false] {
        let mut durable = Durable::new();
        let mut client = durable.client();
        dedup_topology(&client, &[], FieldTable::EMPTY);
        for key in [Some("1"), Some("2"), Some("1"), None, None] {
            let outcome = publish_once(&mut client, key, "m");
            assert!(matches!(outcome, PublishOutcome::Routed { .. }));
        }
        assert_eq!(client.take_all("q").len(), 4);
        durable = match clean {
            true => durable.restart(),
            false => durable.crash(),
        };
        client = durable.client();
        for key in ["1", "2", "3", "4", "2"] {
            publish_once(&mut client, Some(key), key);
        }
        assert_eq!(client.take_all("q"), ["3", "4"]);
        publish_once(&mut client, Some("1"), "forgotten");
        assert_eq!(
            client.take_all("q"),
            ["forgotten"],
            "three keys are remembered"
        );
    }
}

/// What a full queue refused may come again; keys in memory only are gone after a restart.
// req: DEDUP-2
#[test]
fn a_refused_message_is_no_duplicate_later() {
    let mut durable = Durable::new();
    let mut client = durable.client();
    let queue = FieldTable::from([
        ("x-max-length", FieldValue::from(1)),
        ("x-overflow", FieldValue::from("reject-publish")),
    ]);
    let memory = [("x-cache-persistence", FieldValue::from("memory"))];
    dedup_topology(&client, &memory, queue);
    publish_once(&mut client, Some("1"), "first");
    let refused = publish_once(&mut client, Some("2"), "second");
    assert_eq!(refused, PublishOutcome::Rejected);
    assert_eq!(client.take_all("q"), ["first"]);
    publish_once(&mut client, Some("2"), "second");
    publish_once(&mut client, Some("1"), "duplicate");
    assert_eq!(client.take_all("q"), ["second"]);
    durable = durable.restart();
    client = durable.client();
    publish_once(&mut client, Some("1"), "new");
    assert_eq!(client.take_all("q"), ["new"]);
}

/// Any exchange can tell duplicates, by another header or by the body itself; a payload by its id.
// req: DEDUP-5
#[test]
fn duplicates_can_be_told_by_content() {
    let durable = Durable::new();
    let mut client = durable.client();
    let arguments = FieldTable::from([
        ("x-message-deduplication", FieldValue::from(true)),
        ("x-deduplication-by", FieldValue::from("content")),
    ]);
    client
        .exchange("x", "direct", &[], arguments)
        .expect("a new exchange");
    client.declare("q", &[]).expect("a new queue");
    client.bind("x", "q", "k").expect("both there");
    let id = PayloadId::from_bytes([7; 32]);
    for body in ["a", "b", "a"] {
        client.publish("x", "k", body);
    }
    for _ in 0..2 {
        let body = Body::Payload(client.vhost().hold_payload(id, 9));
        client
            .publish_with("x", "k", Properties::default(), body)
            .expect("the exchange is there");
    }
    assert_eq!(client.take_all("q"), ["a", "b", "payload of 9 bytes"]);
}
