//! Events and the firehose, as those who listen see them.

use crate::amqp::field::{FieldTable, FieldValue};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, Properties};

use super::super::*;
use super::kit::{Client, Flag, broker, inline, text};

/// What a queue holds: routing key, properties and body of each message, taken for good.
fn take(client: &Client, queue: &str) -> Vec<(String, Properties, String)> {
    std::iter::from_fn(|| client.get(queue, AckMode::Automatic))
        .map(|got| {
            let key = String::from_utf8_lossy(got.message.routing_key()).into_owned();
            let content = ContentHeader {
                class_id: CLASS_ID_BASIC,
                body_bytes: 0,
                raw: bytes::Bytes::copy_from_slice(got.message.header()),
            };
            let properties = content.properties().expect("the broker's own");
            (key, properties, text(&got.message))
        })
        .collect()
}

fn events(broker: &Broker, client: &Client) -> Vec<(String, FieldTable)> {
    while broker.poll_timeout().is_some_and(|at| at <= client.now) {
        broker.handle_timeout(client.now, &mut Wakes::new());
    }
    let taken = take(client, "events").into_iter();
    taken
        .map(|(key, properties, body)| {
            assert_eq!(body, "");
            assert_eq!(properties.delivery_mode, Some(2));
            assert_eq!(properties.timestamp, Some(1_700_000_001));
            let headers = properties.headers.expect("events have headers");
            assert_eq!(
                headers.get("timestamp_in_ms"),
                Some(FieldValue::LongLongInt(1_700_000_001_000))
            );
            (key, headers)
        })
        .collect()
}

fn names(events: &[(String, FieldTable)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

fn header(table: &FieldTable, name: &str) -> String {
    match table.get(name) {
        Some(FieldValue::LongString(octets)) => String::from_utf8_lossy(&octets).into_owned(),
        Some(other) => format!("{other:?}"),
        None => "missing".to_owned(),
    }
}

/// Nothing is noted before somebody listens; then each thing that comes and goes is told with RabbitMQ's
/// key and headers, in order; and nothing any more when the last one stops.
// req: EVENT-1 req: EVENT-2
#[test]
fn what_comes_and_goes_is_told_to_who_listens() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("before", &[]).expect("a new queue");
    assert_eq!(broker.poll_timeout(), None);
    client.declare("events", &[]).expect("a new queue");
    client
        .bind("amq.rabbitmq.event", "events", "#")
        .expect("both there");
    let seen = events(&broker, &client);
    assert_eq!(names(&seen), ["binding.created"]);
    assert_eq!(header(&seen[0].1, "source_name"), "amq.rabbitmq.event");

    let alternate = FieldTable::from([("alternate-exchange", FieldValue::from("amq.fanout"))]);
    client
        .exchange("x", "topic", &[Flag::Durable, Flag::AutoDelete], alternate)
        .expect("a new exchange");
    client.declare("q", &[Flag::Durable]).expect("a new queue");
    client.bind("x", "q", "k.*").expect("both there");
    let consumer = client.consume("q", "tag", 5).expect("a consumer");
    client.unbind("x", "q", "k.*").expect("it was bound");
    client
        .vhost()
        .cancel(&consumer, client.now, &mut Wakes::new())
        .expect("it was there");
    client.delete_queue("q").expect("it was there");
    broker.emit("alarm.set", |headers| {
        headers.text("source", "memory");
    });
    let seen = events(&broker, &client);
    assert_eq!(
        names(&seen),
        [
            "exchange.created",
            "queue.created",
            "binding.created",
            "consumer.created",
            "binding.deleted",
            "exchange.deleted",
            "consumer.deleted",
            "queue.deleted",
            "alarm.set",
        ]
    );
    let exchange = &seen[0].1;
    for (name, expected) in [
        ("name", "x"),
        ("vhost", "/"),
        ("type", "topic"),
        ("durable", "Boolean(true)"),
        ("internal", "Boolean(false)"),
        ("policy", ""),
        ("user_who_performed_action", "guest"),
    ] {
        assert_eq!(header(exchange, name), expected, "{name}");
    }
    let Some(FieldValue::Array(arguments)) = exchange.get("arguments") else {
        panic!("arguments are a list");
    };
    let arguments: Vec<_> = arguments.iter().collect();
    let printed = "{<<\"alternate-exchange\">>,longstr,<<\"amq.fanout\">>}";
    assert_eq!(arguments, [FieldValue::from(printed)]);
    let binding = &seen[2].1;
    for (name, expected) in [
        ("source_kind", "exchange"),
        ("destination_name", "q"),
        ("destination_kind", "queue"),
        ("routing_key", "k.*"),
    ] {
        assert_eq!(header(binding, name), expected, "{name}");
    }
    let consumer = &seen[3].1;
    assert_eq!(header(consumer, "consumer_tag"), "tag");
    assert_eq!(header(consumer, "prefetch_count"), "LongLongInt(5)");

    client
        .unbind("amq.rabbitmq.event", "events", "#")
        .expect("it was bound");
    let seen = events(&broker, &client);
    assert!(seen.is_empty(), "its own end is told to nobody");
    client.declare("after", &[]).expect("a new queue");
    assert_eq!(broker.poll_timeout(), None);
}

/// Accounts, vhosts and their rights; only vhost `/` has the exchange.
#[test]
fn changes_of_accounts_are_told() {
    let broker = broker();
    let client = Client::new(&broker);
    client.declare("events", &[]).expect("a new queue");
    client
        .bind("amq.rabbitmq.event", "events", "user.#")
        .expect("both there");
    client
        .bind("amq.rabbitmq.event", "events", "vhost.*")
        .expect("both there");
    client
        .bind("amq.rabbitmq.event", "events", "permission.*")
        .expect("both there");
    let (user, vhost) = (Name::from("u"), Name::from("v"));
    let made = broker.create_vhost(&vhost).expect("a new vhost");
    assert!(made.exchange(b"amq.rabbitmq.event").is_none());
    let users = broker.users();
    users
        .put_user(&user, None, vec!["monitoring".to_owned()])
        .expect("a new user");
    let password = PasswordHash::new(b"pw", broker.salt());
    users
        .put_user(&user, Some(password), vec!["monitoring".to_owned()])
        .expect("a user");
    users
        .put_permissions(&user, &vhost, Permissions::all())
        .expect("both there");
    users
        .delete_permissions(&user, &vhost)
        .expect("they were there");
    users.delete_user(b"u").expect("it was there");
    broker
        .delete_vhost(b"v", &mut Wakes::new())
        .expect("it was there");
    let seen = events(&broker, &client);
    assert_eq!(
        names(&seen),
        [
            "vhost.created",
            "user.created",
            "user.tags.set",
            "user.password.changed",
            "permission.created",
            "permission.deleted",
            "user.deleted",
            "vhost.deleted",
        ]
    );
}

/// While it is on, each publish is copied, with its body; a channel that repeats itself too; copies are
/// not copied; and a copy says where the message went.
// req: TRACE-1
#[test]
fn the_firehose_copies_what_is_published() {
    let broker = broker();
    let mut client = Client::new(&broker);
    client.declare("trace", &[]).expect("a new queue");
    client.declare("q", &[]).expect("a new queue");
    client
        .bind("amq.rabbitmq.trace", "trace", "#")
        .expect("both there");
    client.publish("", "q", "before");
    client.vhost().set_tracing(true);
    for _ in 0..2 {
        client.publish("", "q", "repeated");
    }
    let headers = FieldTable::from([
        ("h", FieldValue::from(1)),
        (
            "BCC",
            FieldValue::Array([FieldValue::from("nowhere")].into_iter().collect()),
        ),
    ]);
    let properties = Properties {
        headers: Some(headers),
        delivery_mode: Some(2),
        ..Properties::default()
    };
    client
        .publish_with("amq.topic", "none", properties, inline("lost"))
        .expect("the exchange is there");
    client.vhost().set_tracing(false);
    client.publish("", "q", "after");
    let copies = take(&client, "trace");
    let seen: Vec<_> = copies
        .iter()
        .map(|(key, _, body)| (key.as_str(), body.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("publish.", "repeated"),
            ("publish.", "repeated"),
            ("publish.amq.topic", "lost"),
        ]
    );
    let first = copies[0].1.headers.as_ref().expect("copies have headers");
    let queues = FieldValue::Array([FieldValue::from("q")].into_iter().collect());
    assert_eq!(first.get("routed_queues"), Some(queues));
    assert_eq!(header(first, "exchange_name"), "");
    assert_eq!(header(first, "user"), "guest");
    assert_eq!(
        first.get("properties"),
        Some(FieldValue::Table(FieldTable::EMPTY))
    );
    let last = copies[2].1.headers.as_ref().expect("copies have headers");
    let keys = ["none", "nowhere"].map(FieldValue::from);
    assert_eq!(
        last.get("routing_keys"),
        Some(FieldValue::Array(keys.into_iter().collect()))
    );
    let Some(FieldValue::Table(properties)) = last.get("properties") else {
        panic!("properties are a table");
    };
    assert_eq!(
        properties.get("delivery_mode"),
        Some(FieldValue::LongInt(2))
    );
    let headers = FieldTable::from([("h", FieldValue::from(1))]);
    assert_eq!(properties.get("headers"), Some(FieldValue::Table(headers)));
}
