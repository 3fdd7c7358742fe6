//! Queues that drop duplicates, while a broker runs and across its ends.

use std::time::Duration;

use super::*;

fn arguments(more: &[(&'static str, FieldValue)]) -> FieldTable {
    let mut arguments = FieldTable::from([("x-message-deduplication", FieldValue::from(true))]);
    for (name, value) in more {
        let name = crate::amqp::field::ShortString::from_static(name);
        arguments.insert(name, value.clone());
    }
    arguments
}

fn declare(client: &Client, queue: &str, more: &[(&'static str, FieldValue)]) {
    client
        .declare_with(queue, &[Flag::Durable], arguments(more))
        .expect("a new queue");
}

fn keyed(key: &str) -> Properties {
    Properties {
        headers: Some(FieldTable::from([(
            "x-deduplication-header",
            FieldValue::from(key),
        )])),
        delivery_mode: Some(2),
        ..Properties::default()
    }
}

fn publish(client: &mut Client, exchange: &str, to: &str, key: &str, body: &str) -> PublishOutcome {
    let published = client.publish_with(exchange, to, keyed(key), inline(body));
    published.expect("the exchange is there").outcome
}

fn send(client: &mut Client, key: &str, body: &str) -> PublishOutcome {
    publish(client, "", "q", key, body)
}

/// A duplicate of what waits or is out is dropped and confirmed like the first; once that has left, in
/// whatever way, the next like it is new.
// req: DEDUP-6
#[test]
fn a_queue_has_each_key_once_until_its_message_leaves() {
    let durable = Durable::new();
    let mut client = durable.client();
    declare(&client, "q", &[]);
    assert!(is_journalled(send(&mut client, "1", "a")));
    let again = send(&mut client, "1", "b");
    assert!(
        matches!(again, PublishOutcome::Routed { .. }),
        "as the first"
    );
    client.publish("", "q", "no key");
    client.publish("", "q", "no key");
    assert_eq!(client.queue("q").depth().ready_count, 3);
    // Out, it is still there.
    let got = client.get("q", AckMode::Manual).expect("it waits");
    send(&mut client, "1", "c");
    let queue = client.queue("q");
    queue.settle(&[got.seq], Settle::Requeue, client.now, &mut client.wakes);
    send(&mut client, "1", "d");
    assert_eq!(client.take_all("q"), ["a", "no key", "no key"]);
    // Each way to leave.
    send(&mut client, "1", "acknowledged");
    let got = client.get("q", AckMode::Manual).expect("it waits");
    queue.settle(&[got.seq], Settle::Ack, client.now, &mut client.wakes);
    send(&mut client, "1", "rejected");
    let got = client.get("q", AckMode::Manual).expect("new again");
    queue.settle(&[got.seq], Settle::Discard, client.now, &mut client.wakes);
    send(&mut client, "1", "purged");
    assert_eq!(queue.purge(), 1);
    let expiring = Properties {
        expiration: Some("5".try_into().expect("short")),
        ..keyed("1")
    };
    client
        .publish_with("", "q", expiring, inline("expired"))
        .expect("the exchange is there");
    client.now += Duration::from_millis(10);
    durable.broker.handle_timeout(client.now, &mut client.wakes);
    assert_eq!(queue.depth().ready_count, 0);
    send(&mut client, "1", "last");
    assert_eq!(client.take_all("q"), ["last"]);
    assert_eq!(queue.keys().expect("it drops duplicates").len(), 0);
}

/// What a purge leaves out with a consumer keeps its key.
#[test]
fn a_purge_forgets_the_keys_of_what_waits_only() {
    let durable = Durable::new();
    let mut client = durable.client();
    declare(&client, "q", &[]);
    send(&mut client, "out", "a");
    let got = client.get("q", AckMode::Manual).expect("it waits");
    send(&mut client, "waits", "b");
    assert_eq!(client.queue("q").purge(), 1);
    send(&mut client, "waits", "c");
    send(&mut client, "out", "d");
    assert_eq!(client.take_all("q"), ["c"]);
    drop(got);
}

/// A message to several queues goes to those that do not have it; refused by one, it may come again there.
// req: DEDUP-6
#[test]
fn each_queue_of_a_route_looks_for_itself() {
    let durable = Durable::new();
    let mut client = durable.client();
    declare(&client, "q", &[]);
    let short = [
        ("x-max-length", FieldValue::from(1)),
        ("x-overflow", FieldValue::from("reject-publish")),
    ];
    declare(&client, "short", &short);
    client
        .declare("plain", &[Flag::Durable])
        .expect("a new queue");
    for queue in ["q", "short", "plain"] {
        client.bind("amq.fanout", queue, "").expect("both there");
    }
    let all = |client: &mut Client, key| publish(client, "amq.fanout", "", key, key);
    assert!(is_journalled(all(&mut client, "1")));
    let again = all(&mut client, "1");
    assert!(matches!(again, PublishOutcome::Routed { .. }));
    assert_eq!(all(&mut client, "2"), PublishOutcome::Rejected);
    assert_eq!(client.take_all("short"), ["1"]);
    let again = all(&mut client, "2");
    assert!(matches!(again, PublishOutcome::Routed { .. }));
    assert_eq!(client.take_all("short"), ["2"]);
    assert_eq!(client.take_all("q"), ["1", "2"]);
    assert_eq!(client.take_all("plain"), ["1", "1", "2", "2"]);
}

/// The keys of what is in a durable queue survive with it, also after a kill, and no duplicate comes back.
/// Those of transient messages go with them.
// req: DEDUP-7
#[test]
fn keys_are_there_after_every_end() {
    for clean in [true, false] {
        let mut durable = Durable::new();
        let mut client = durable.client();
        declare(&client, "q", &[]);
        for key in ["1", "2", "3", "1"] {
            send(&mut client, key, key);
        }
        let transient = Properties {
            delivery_mode: Some(1),
            ..keyed("4")
        };
        client
            .publish_with("", "q", transient, inline("4"))
            .expect("the exchange is there");
        let got = client.get("q", AckMode::Manual).expect("it waits");
        let queue = client.queue("q");
        queue.settle(&[got.seq], Settle::Ack, client.now, &mut client.wakes);
        drop(queue);
        durable = match clean {
            true => durable.restart(),
            false => durable.crash(),
        };
        client = durable.client();
        assert_eq!(client.queue("q").depth().ready_count, 2);
        for key in ["2", "1", "3", "4"] {
            send(&mut client, key, "again");
        }
        assert_eq!(client.take_all("q"), ["2", "3", "again", "again"]);
    }
}

/// In a transaction, too, and a letter that comes back to its queue is no duplicate of itself.
#[test]
fn letters_and_transactions_are_looked_at_too() {
    let durable = Durable::new();
    let mut client = durable.client();
    let dead = [
        ("x-dead-letter-exchange", FieldValue::from("")),
        ("x-dead-letter-routing-key", FieldValue::from("q")),
    ];
    declare(&client, "q", &dead);
    send(&mut client, "1", "a");
    let got = client.get("q", AckMode::Manual).expect("it waits");
    let queue = client.queue("q");
    queue.settle(&[got.seq], Settle::Discard, client.now, &mut client.wakes);
    assert_eq!(queue.depth().ready_count, 1, "its letter is there");
    send(&mut client, "1", "b");
    assert_eq!(queue.depth().ready_count, 1);
    let header = keyed("2").encode();
    let content = crate::amqp::header::ContentHeader {
        class_id: crate::amqp::header::CLASS_ID_BASIC,
        body_bytes: 0,
        raw: header.clone(),
    };
    let properties = content.properties_ref().expect("just written");
    let vhost = client.vhost();
    let mut prepared = Vec::new();
    for _ in 0..2 {
        let publish = Publish {
            exchange: b"",
            routing_key: b"q",
            header: &header,
            properties: &properties,
            body: inline("2"),
        };
        let one = vhost.prepare(
            &client.connection,
            1,
            publish,
            client.now,
            &mut client.wakes,
        );
        prepared.push(one.expect("the exchange is there"));
    }
    let committed = vhost.commit(prepared, &[], client.now, &mut client.wakes);
    assert!(is_whole(&committed.expect("the journal works").published));
    assert_eq!(client.take_all("q"), ["a", "2"]);
}

/// By content, a small body by its octets and a large one by its id; and `x-cache-size` and `x-cache-ttl`
/// bound what is remembered.
// req: DEDUP-5 req: DEDUP-6
#[test]
fn a_queue_knows_messages_by_content_and_for_a_time() {
    let durable = Durable::new();
    let mut client = durable.client();
    declare(
        &client,
        "q",
        &[("x-deduplication-by", FieldValue::from("content"))],
    );
    let id = PayloadId::from_bytes([7; 32]);
    for _ in 0..2 {
        client.publish("", "q", "small");
        let body = Body::Payload(client.vhost().hold_payload(id, 9));
        client
            .publish_with("", "q", Properties::default(), body)
            .expect("the exchange is there");
    }
    assert_eq!(client.take_all("q"), ["small", "payload of 9 bytes"]);
    assert_eq!(durable.counter.count(id), 0, "the duplicate holds nothing");
    client.delete_queue("q").expect("it is there");
    let bounds = [
        ("x-cache-size", FieldValue::from(2)),
        ("x-cache-ttl", FieldValue::from(50)),
    ];
    declare(&client, "q", &bounds);
    for key in ["1", "2", "3", "1", "3"] {
        send(&mut client, key, key);
    }
    assert_eq!(client.queue("q").depth().ready_count, 4, "1 was the oldest");
    client.now += Duration::from_millis(50);
    send(&mut client, "3", "3");
    assert_eq!(client.take_all("q"), ["1", "2", "3", "1", "3"]);
    let refused = client.declare_with("r", &[], arguments(&[("x-cache-size", 0.into())]));
    assert_eq!(refused.expect_err("no size").reply_code().number(), 406);
}

/// What is on the disk already is not waited for: who waits hears of changes only.
// req: DEDUP-8
#[test]
fn a_duplicate_of_what_is_safe_is_confirmed_at_once() {
    let durable = Durable::new();
    let mut client = durable.client();
    declare(&client, "q", &[]);
    let size = FieldTable::from([("x-cache-size", FieldValue::from(10))]);
    client
        .exchange("once", "x-message-deduplication", &[Flag::Durable], size)
        .expect("a new exchange");
    client.bind("once", "q", "").expect("both there");
    for exchange in ["", "once"] {
        let key = format!("key of {exchange}");
        let outcome = publish(&mut client, exchange, "q", &key, "first");
        let PublishOutcome::Routed {
            wait_for: Some(lsn),
        } = outcome
        else {
            panic!("{outcome:?}");
        };
        durable
            .journal
            .wait_durable(lsn)
            .expect("a disk that works");
        assert_eq!(
            publish(&mut client, exchange, "q", &key, "second"),
            PublishOutcome::Routed { wait_for: None }
        );
    }
}
