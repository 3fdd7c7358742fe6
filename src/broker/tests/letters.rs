//! Dead letters: what dies, where it goes, and what it tells of itself.

use std::sync::Arc;
use std::time::Duration;

use crate::amqp::field::{FieldArray, FieldTable, FieldValue, ShortString};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, Properties};
use crate::payload::PayloadId;

use super::super::limits::DEATHS_KEPT_MAX;
use super::super::*;
use super::kit::{Client, broker, inline, text};

/// A queue whose dead letters go to `exchange`, with `key` if it is given.
fn declare(client: &Client, name: &str, exchange: &str, key: Option<&str>, more: &[(&str, i64)]) {
    let mut arguments = FieldTable::from([("x-dead-letter-exchange", FieldValue::from(exchange))]);
    let mut put = |name: &str, value: FieldValue| {
        arguments.insert(ShortString::try_from(name).unwrap(), value);
    };
    if let Some(key) = key {
        put("x-dead-letter-routing-key", FieldValue::from(key));
    }
    for (name, value) in more {
        put(name, FieldValue::from(*value));
    }
    client.declare_with(name, &[], arguments).unwrap();
}

fn settle(client: &mut Client, queue: &str, how: Settle) {
    let got = client.get(queue, AckMode::Manual).expect("one waits");
    let now = client.now;
    client
        .queue(queue)
        .settle(&[got.seq], how, now, &mut client.wakes);
}

fn pass(broker: &Broker, client: &mut Client, time: Duration) {
    client.now += time;
    while broker.poll_timeout().is_some_and(|next| next <= client.now) {
        broker.handle_timeout(client.now, &mut client.wakes);
    }
}

fn properties(message: &Message) -> Properties {
    let content = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: 0,
        raw: bytes::Bytes::copy_from_slice(message.header()),
    };
    content.properties().expect("a header that was written")
}

fn array(texts: &[&str]) -> FieldValue {
    let values = texts.iter().map(|text| FieldValue::from(*text));
    FieldValue::Array(values.collect::<FieldArray>())
}

/// `reason queue count` of each death that a message tells of.
fn deaths(message: &Message) -> Vec<String> {
    let headers = properties(message).headers.unwrap_or_default();
    let Some(FieldValue::Array(deaths)) = headers.get("x-death") else {
        return Vec::new();
    };
    let deaths = deaths.iter().map(|death| {
        let death = death.as_table().expect("a table").clone();
        let field = |name: &str| {
            let value = death.get(name).expect("a known field");
            value.as_str().map(str::to_owned).unwrap_or_default()
        };
        let count = death.get("count").and_then(|count| count.as_integer());
        format!(
            "{} {} {}",
            field("reason"),
            field("queue"),
            count.unwrap_or(0)
        )
    });
    deaths.collect()
}

/// Every field of the headers after a first death, with types and order.
// req: LETTER-2
#[test]
fn a_dead_letter_tells_its_history() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("dead", &[]).unwrap();
    declare(&client, "q", "", Some("dead"), &[]);
    let published = Properties {
        expiration: Some(ShortString::from_static("60000")),
        delivery_mode: Some(2),
        priority: Some(3),
        user_id: Some(ShortString::from_static("guest")),
        headers: Some(FieldTable::from([
            ("zz", FieldValue::from(1)),
            ("CC", array(&["nowhere"])),
            ("aa", FieldValue::from(2)),
        ])),
        ..Properties::default()
    };
    client
        .publish_with("", "q", published.clone(), inline("x"))
        .unwrap();
    settle(&mut client, "q", Settle::Discard);
    let letter = client.get("dead", AckMode::Automatic).unwrap().message;
    assert_eq!(letter.exchange(), b"");
    assert_eq!(letter.routing_key(), b"dead");
    assert_eq!(text(&letter), "x");
    assert_eq!(letter.traits().priority, 3);
    assert_eq!(letter.expiration(), None);
    let death = FieldTable::from([
        ("count", FieldValue::from(1_i64)),
        ("reason", FieldValue::from("rejected")),
        ("queue", FieldValue::from("q")),
        ("time", FieldValue::Timestamp(1_700_000_001)),
        ("exchange", FieldValue::from("")),
        ("routing-keys", array(&["q", "nowhere"])),
        ("original-expiration", FieldValue::from("60000")),
    ]);
    let death: FieldArray = [FieldValue::Table(death)].into_iter().collect();
    let expected = Properties {
        expiration: None,
        headers: Some(FieldTable::from([
            ("aa", FieldValue::from(2)),
            ("x-death", FieldValue::Array(death)),
            ("x-first-death-exchange", FieldValue::from("")),
            ("x-first-death-queue", FieldValue::from("q")),
            ("x-first-death-reason", FieldValue::from("rejected")),
            ("zz", FieldValue::from(1)),
        ])),
        ..published
    };
    assert_eq!(properties(&letter), expected);
}

/// Each way to die with its reason.
// req: LETTER-1
// req: LENGTH-2
#[test]
fn each_death_has_its_reason() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("dead", &[]).unwrap();
    declare(&client, "short", "", Some("dead"), &[("x-max-length", 1)]);
    declare(&client, "brief", "", Some("dead"), &[("x-message-ttl", 10)]);
    declare(
        &client,
        "small",
        "",
        Some("dead"),
        &[("x-max-length-bytes", 3)],
    );
    client.publish("", "short", "first");
    client.publish("", "short", "second");
    client.publish("", "brief", "third");
    client.publish("", "small", "too long");
    pass(&broker, &mut client, Duration::from_millis(10));
    let mut found = Vec::new();
    while let Some(got) = client.get("dead", AckMode::Automatic) {
        found.push((text(&got.message), deaths(&got.message)));
    }
    let expected = [
        ("first", "maxlen short 1"),
        ("too long", "maxlen small 1"),
        ("third", "expired brief 1"),
    ];
    let expected = expected.map(|(body, death)| (body.to_owned(), vec![death.to_owned()]));
    assert_eq!(found, expected);
}

/// A refused message is nacked, and a dead letter only with `reject-publish-dlx`.
// req: LENGTH-3
#[test]
fn a_refused_message_is_a_dead_letter_if_the_queue_says_so() {
    for (overflow, dead_count) in [("reject-publish", 0), ("reject-publish-dlx", 1)] {
        let broker = broker();
        let mut client = Client::new(&broker);
        client.declare("dead", &[]).unwrap();
        let arguments = FieldTable::from([
            ("x-dead-letter-exchange", FieldValue::from("")),
            ("x-dead-letter-routing-key", FieldValue::from("dead")),
            ("x-max-length", FieldValue::from(1)),
            ("x-overflow", FieldValue::from(overflow)),
        ]);
        client.declare_with("q", &[], arguments).unwrap();
        client.publish("", "q", "kept");
        assert_eq!(client.publish("", "q", "refused"), PublishOutcome::Rejected);
        assert_eq!(client.take_all("q"), ["kept"]);
        assert_eq!(client.take_all("dead").len(), dead_count, "{overflow}");
    }
}

/// Counts go up, and the history has RabbitMQ's order: this death first, the others turned round.
#[test]
fn a_long_history_has_the_order_of_rabbitmq() {
    let broker = broker();
    let mut client = Client::new(&broker);
    for (queue, next) in [("m1", "m2"), ("m2", "m3"), ("m3", "m1")] {
        declare(&client, queue, "", Some(next), &[]);
    }
    client.publish("", "m1", "x");
    let expected: [&[&str]; 7] = [
        &[],
        &["m1 1"],
        &["m2 1", "m1 1"],
        &["m3 1", "m1 1", "m2 1"],
        &["m1 2", "m2 1", "m3 1"],
        &["m2 2", "m3 1", "m1 2"],
        &["m3 2", "m1 2", "m2 2"],
    ];
    for (at, expected) in expected.iter().enumerate() {
        let queue = ["m1", "m2", "m3"][at % 3];
        let message = &client.queue(queue).peek(Peek::new(0, 1))[0].message;
        let expected: Vec<_> = expected.iter().map(|of| format!("rejected {of}")).collect();
        assert_eq!(deaths(message), expected);
        settle(&mut client, queue, Settle::Discard);
    }
}

/// Two queues that bury in each other: what died by itself in both is dropped, after a rejection it goes
/// round again.
// req: LETTER-3
#[test]
fn a_circle_without_a_rejection_ends() {
    let broker = broker();
    let mut client = Client::new(&broker);
    declare(&client, "a", "", Some("b"), &[("x-message-ttl", 10)]);
    declare(&client, "b", "", Some("a"), &[("x-message-ttl", 10)]);
    client.publish("", "a", "x");
    pass(&broker, &mut client, Duration::from_millis(10));
    assert_eq!(client.queue("b").depth().ready_count, 1);
    pass(&broker, &mut client, Duration::from_millis(10));
    assert_eq!(client.queue("a").depth().ready_count, 0);
    client.publish("", "a", "y");
    settle(&mut client, "a", Settle::Discard);
    pass(&broker, &mut client, Duration::from_millis(10));
    let got = client.get("a", AckMode::Automatic).expect("it goes round");
    assert_eq!(deaths(&got.message), ["expired b 1", "rejected a 1"]);
}

/// A queue may bury in itself what was rejected, and nothing else.
#[test]
fn a_queue_may_bury_in_itself() {
    let broker = broker();
    let mut client = Client::new(&broker);
    declare(&client, "q", "", None, &[("x-max-length", 1)]);
    client.publish("", "q", "x");
    settle(&mut client, "q", Settle::Discard);
    assert_eq!(
        deaths(&client.queue("q").peek(Peek::new(0, 1))[0].message),
        ["rejected q 1"]
    );
    client.publish("", "q", "y");
    assert_eq!(client.take_all("q"), ["y"]);
}

/// Full queues that bury in each other make ever more letters, and none of the calls goes astray.
#[test]
fn full_queues_that_bury_in_each_other_come_to_an_end() {
    let broker = broker();
    let mut client = Client::new(&broker);
    let names: Vec<_> = (0..12).map(|at| format!("q{at}")).collect();
    for name in &names {
        declare(&client, name, "amq.fanout", None, &[("x-max-length", 0)]);
        client.bind("amq.fanout", name, "").unwrap();
    }
    client.publish("", "q0", "x");
    for name in &names {
        assert_eq!(client.queue(name).depth().ready_count, 0);
    }
}

/// A chain of queues without room passes a message to its end within the publisher's call, however long.
#[test]
fn a_long_chain_needs_no_stack() {
    const LENGTH: usize = 500;
    let broker = broker();
    let mut client = Client::new(&broker);
    for at in 0..LENGTH {
        let next = format!("q{}", at + 1);
        let name = format!("q{at}");
        declare(&client, &name, "", Some(&next), &[("x-max-length", 0)]);
    }
    client.declare(&format!("q{LENGTH}"), &[]).unwrap();
    client.publish("", "q0", "x");
    let got = client.get(&format!("q{LENGTH}"), AckMode::Automatic);
    let deaths = deaths(&got.expect("it arrived").message);
    assert_eq!(deaths.len(), DEATHS_KEPT_MAX, "older ones are forgotten");
    assert_eq!(deaths[0], format!("maxlen q{} 1", LENGTH - 1));
}

/// A missing exchange, and one that leads nowhere, drop the message; the rejection is none the worse.
#[test]
fn a_dead_letter_without_a_destination_is_dropped() {
    let broker = broker();
    let mut client = Client::new(&broker);
    declare(&client, "q", "no such exchange", None, &[]);
    declare(&client, "r", "amq.direct", None, &[]);
    for queue in ["q", "r"] {
        client.publish("", queue, "x");
        settle(&mut client, queue, Settle::Discard);
        let depth = client.queue(queue).depth();
        assert_eq!((depth.ready_count, depth.unacked_count), (0, 0));
    }
}

/// Without a key of the queue's own, the keys of the publish are used again, those of BCC too; the
/// history names all but these. With one, only that counts, and CC goes.
// req: LETTER-4
#[test]
fn copies_are_dead_lettered_as_they_were_published() {
    let broker = broker();
    let mut client = Client::new(&broker);
    for queue in ["one", "two", "three"] {
        client.declare(queue, &[]).unwrap();
        client.bind("amq.direct", queue, queue).unwrap();
    }
    declare(&client, "kept", "amq.direct", None, &[("x-max-length", 0)]);
    let new = Some("three");
    declare(&client, "new", "amq.direct", new, &[("x-max-length", 0)]);
    client.bind("amq.topic", "kept", "one").unwrap();
    client.bind("amq.topic", "new", "new").unwrap();
    let publish = |client: &mut Client, key: &str| {
        let headers = FieldTable::from([("CC", array(&["two"])), ("BCC", array(&["three"]))]);
        let properties = Properties {
            headers: Some(headers),
            ..Properties::default()
        };
        client
            .publish_with("amq.topic", key, properties, inline("x"))
            .unwrap();
    };
    publish(&mut client, "one");
    for queue in ["one", "two", "three"] {
        let letter = client.get(queue, AckMode::Automatic).unwrap().message;
        assert_eq!(letter.routing_key(), b"one");
        let headers = properties(&letter).headers.unwrap_or_default();
        assert_eq!(headers.get("CC"), Some(array(&["two"])));
        assert_eq!(headers.get("BCC"), None);
        let Some(FieldValue::Array(deaths)) = headers.get("x-death") else {
            panic!("it died");
        };
        let death = deaths.iter().next().expect("once");
        let keys = death.as_table().and_then(|death| death.get("routing-keys"));
        assert_eq!(keys, Some(array(&["one", "two"])));
    }
    publish(&mut client, "new");
    let counts = ["one", "two", "three"].map(|queue| client.queue(queue).depth().ready_count);
    assert_eq!(counts, [0, 0, 1]);
    let letter = client.get("three", AckMode::Automatic).unwrap().message;
    let headers = properties(&letter).headers.unwrap_or_default();
    assert_eq!(headers.get("CC"), None);
}

/// What clients forge is no reason to fail; what is no table goes.
#[test]
fn a_forged_history_does_no_harm() {
    let table = |fields: &[(&'static str, FieldValue)]| {
        let fields = fields.iter().cloned();
        FieldValue::Table(
            fields
                .map(|(name, value)| (ShortString::from_static(name), value))
                .collect(),
        )
    };
    let of = |queue: &str, reason: &str| {
        let fields = [("queue", queue.into()), ("reason", reason.into())];
        table(&fields)
    };
    let list =
        |entries: &[FieldValue]| FieldValue::Array(entries.iter().cloned().collect::<FieldArray>());
    let cases = [
        (FieldValue::from("forged"), Some(vec!["expired q 1"])),
        (list(&[]), Some(vec!["expired q 1"])),
        (list(&[FieldValue::from("junk")]), Some(vec!["expired q 1"])),
        (list(&[of("q", "expired")]), Some(vec!["expired q 1"])),
        (list(&[of("dead", "expired")]), None),
        (
            list(&[of("dead", "rejected")]),
            Some(vec!["expired q 1", "rejected dead 0"]),
        ),
        (
            list(&[of("dead", "expired"), of("other", "rejected")]),
            Some(vec!["expired q 1", "rejected other 1", "expired dead 1"]),
        ),
    ];
    for (forged, expected) in cases {
        let broker = broker();
        let mut client = Client::new(&broker);
        client.declare("dead", &[]).unwrap();
        declare(&client, "q", "", Some("dead"), &[]);
        let properties = Properties {
            expiration: Some(ShortString::from_static("0")),
            headers: Some(FieldTable::from([("x-death", forged.clone())])),
            ..Properties::default()
        };
        client
            .publish_with("", "q", properties, inline("x"))
            .unwrap();
        let got = client.get("dead", AckMode::Automatic);
        let found = got.map(|got| deaths(&got.message));
        let expected = expected.map(|of| of.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(found, expected, "{forged:?}");
    }
}

/// A body in the payload store goes on as a reference to the same content.
// req: LENGTH-1
// req: LETTER-6
#[test]
fn a_large_body_is_not_moved() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("dead", &[]).unwrap();
    let bytes_max = 10_i64 << 30;
    declare(
        &client,
        "q",
        "",
        Some("dead"),
        &[("x-max-length-bytes", bytes_max)],
    );
    let id = PayloadId::from_bytes([9; 32]);
    for _ in 0..2 {
        let body = Body::Payload(client.vhost().hold_payload(id, 6 << 30));
        client
            .publish_with("", "q", Properties::default(), body)
            .unwrap();
    }
    assert_eq!(client.queue("q").depth().ready_bytes, 6 << 30);
    let letter = client.get("dead", AckMode::Automatic).unwrap().message;
    assert_eq!(deaths(&letter), ["maxlen q 1"]);
    let BodyRef::Payload(payload) = letter.body() else {
        panic!("it was a payload");
    };
    assert_eq!((payload.id(), payload.size_bytes()), (Some(&id), 6 << 30));
}

/// Headers of the letter, history included, route it.
#[test]
fn headers_route_dead_letters() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("dead", &[]).unwrap();
    let arguments = FieldTable::from([
        ("x-match", FieldValue::from("all-with-x")),
        ("x-first-death-reason", FieldValue::from("maxlen")),
    ]);
    client
        .bind_with("amq.headers", "dead", "", &arguments)
        .unwrap();
    declare(&client, "q", "amq.headers", None, &[("x-max-length", 0)]);
    declare(&client, "r", "amq.headers", None, &[]);
    client.publish("", "q", "dropped");
    client.publish("", "r", "rejected");
    settle(&mut client, "r", Settle::Discard);
    assert_eq!(client.take_all("dead"), ["dropped"]);
}

/// Two threads whose queues bury in each other neither wait for each other nor lose anything.
#[test]
fn queues_that_bury_in_each_other_at_once_do_not_lock_up() {
    let broker = broker();
    let first = Client::new(&broker);
    first.declare("end", &[]).unwrap();
    first.bind("amq.fanout", "end", "").unwrap();
    for (queue, next) in [("a", "b"), ("b", "a")] {
        declare(&first, queue, "", Some(next), &[("x-max-length", 1)]);
    }
    std::thread::scope(|scope| {
        for queue in ["a", "b"] {
            let broker = Arc::clone(&broker);
            scope.spawn(move || {
                let mut client = Client::new(&broker);
                for _ in 0..2_000 {
                    client.publish("", queue, "x");
                }
            });
        }
    });
    for queue in ["a", "b"] {
        let counts = first.queue(queue).counts();
        assert_eq!(first.queue(queue).depth().ready_count, 1);
        assert_eq!(counts.dropped, counts.published - 1);
    }
}
