//! Events and the firehose over real sockets.

use std::collections::BTreeMap;

use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::method::{Method, basic, exchange, tx};

use crate::broker::Own;
use crate::dead_letter::arrival;
use crate::topology::{bind, drain, queue, send, text};
use crate::wire::{Client, Message};

fn key(message: &Message) -> String {
    match &message.method {
        Method::BasicGetOk(got) => got.routing_key.to_string(),
        other => panic!("{} was not fetched", other.name()),
    }
}

fn headers(message: &Message) -> FieldTable {
    message.header.headers().expect("headers")
}

fn header(message: &Message, name: &str) -> String {
    match headers(message).get(name) {
        Some(FieldValue::LongString(octets)) => String::from_utf8_lossy(&octets).into_owned(),
        other => format!("{other:?}"),
    }
}

/// The event exchange is there, internal and of type topic, in the first vhost only; who binds to it hears
/// what comes and goes, with RabbitMQ's names.
// req: EVENT-1
#[test]
fn who_binds_to_the_event_exchange_hears_what_happens() {
    let own = Own::start(|_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    let event = ShortString::from_static("amq.rabbitmq.event");
    let declare = exchange::Declare {
        exchange: event.clone(),
        kind: ShortString::from_static("topic"),
        durable: true,
        internal: true,
        ..exchange::Declare::default()
    };
    client.send(
        1,
        exchange::Declare {
            passive: true,
            ..declare
        },
    );
    client.expect_method(1, "exchange.declare-ok");
    client.open(2);
    let publish = basic::Publish {
        exchange: event.clone(),
        ..basic::Publish::default()
    };
    client.publish_with(2, &publish, &Default::default(), b"forged");
    let refused = client.expect_channel_close(2, 403);
    assert!(
        refused.contains("cannot publish to internal exchange"),
        "{refused}"
    );

    let [events, q] = ["events", "q"].map(ShortString::from_static);
    queue(&mut client, &events, &[]);
    bind(&mut client, &event, &events, "queue.*");
    bind(&mut client, &event, &events, "connection.#");
    queue(&mut client, &q, &[]);
    let mut other = Client::connect(own.address());
    other.open(1);
    crate::topology::delete_queue(&mut other, &q);
    drop(other);
    let mut seen: BTreeMap<String, Message> = BTreeMap::new();
    for _ in 0..4 {
        let message = arrival(&mut client, &events, true);
        seen.insert(key(&message), message);
    }
    let names: Vec<&str> = seen.keys().map(String::as_str).collect();
    let expected = [
        "connection.closed",
        "connection.created",
        "queue.created",
        "queue.deleted",
    ];
    assert_eq!(names, expected);
    for name in ["queue.created", "queue.deleted"] {
        let message = &seen[name];
        assert_eq!(header(message, "name"), "q");
        assert_eq!(header(message, "vhost"), "/");
        assert_eq!(header(message, "user_who_performed_action"), "guest");
        assert!(headers(message).get("timestamp_in_ms").is_some());
        assert!(message.body.is_empty());
    }
    assert_eq!(header(&seen["connection.created"], "user"), "guest");
}

/// While tracing is on, publishes and deliveries are copied, those of a transaction too, as they are
/// published; turned off, nothing is.
// req: TRACE-1
#[test]
fn the_firehose_copies_what_goes_in_and_out() {
    let own = Own::start(|_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    let [traces, q] = ["traces", "q"].map(ShortString::from_static);
    queue(&mut client, &traces, &[]);
    queue(&mut client, &q, &[]);
    let trace = ShortString::from_static("amq.rabbitmq.trace");
    bind(&mut client, &trace, &traces, "publish.#");
    bind(&mut client, &trace, &traces, "deliver.q");
    let default = ShortString::from_static("");
    send(&mut client, &default, "q", &[], b"before");
    assert_eq!(client.depth(1, &q), 1);
    own.set_tracing(true);
    let direct = ShortString::from_static("amq.direct");
    bind(&mut client, &direct, &q, "k");
    send(&mut client, &direct, "k", &[("x", 1.into())], b"plain");
    let published = arrival(&mut client, &traces, true);
    assert_eq!(
        (key(&published), text(&published)),
        ("publish.amq.direct".into(), "plain".into())
    );
    assert_eq!(header(&published, "exchange_name"), "amq.direct");
    assert_eq!(header(&published, "user"), "guest");
    assert_eq!(header(&published, "vhost"), "/");
    let queues = headers(&published).get("routed_queues");
    let Some(FieldValue::Array(queues)) = queues else {
        panic!("routed_queues is an array: {queues:?}");
    };
    assert_eq!(queues.iter().next(), Some(FieldValue::from("q")));
    let properties = headers(&published).get("properties");
    assert!(
        matches!(properties, Some(FieldValue::Table(_))),
        "{properties:?}"
    );

    // A transaction's publish is traced when it is made, and once.
    client.open(3);
    client.call(3, tx::Select {});
    let publish = basic::Publish {
        exchange: direct.clone(),
        routing_key: ShortString::from_static("k"),
        ..basic::Publish::default()
    };
    client.publish_with(3, &publish, &Default::default(), b"in a transaction");
    let traced = arrival(&mut client, &traces, true);
    assert_eq!(text(&traced), "in a transaction");
    assert_eq!(
        headers(&traced).get("channel"),
        Some(FieldValue::LongInt(3))
    );
    assert_eq!(client.depth(1, &q), 2, "it is not committed");
    client.call(3, tx::Commit {});
    assert_eq!(client.depth(1, &q), 3);
    assert!(drain(&mut client, &traces).is_empty());

    let got = client.get(1, &q, true).expect("it waits");
    assert_eq!(text(&got), "before");
    let traced = arrival(&mut client, &traces, true);
    assert_eq!(
        (key(&traced), text(&traced)),
        ("deliver.q".into(), "before".into())
    );
    own.set_tracing(false);
    client.get(1, &q, true).expect("it waits");
    send(&mut client, &direct, "k", &[], b"after");
    client.depth(1, &q);
    assert!(drain(&mut client, &traces).is_empty());
}
