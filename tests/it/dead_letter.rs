//! Dead letters over real sockets: their way, their history, and that nothing is lost on it.

use std::time::Instant;

use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::header::Properties;
use warren::amqp::method::{basic, queue};

use crate::broker::{self, Own};
use crate::confirm::take_confirms;
use crate::wire::{Client, Message, PATIENCE, pattern, persistent, unique};

/// A queue that buries in `next`, through the default exchange.
pub(crate) fn declare(
    client: &mut Client,
    name: &ShortString,
    next: Option<&ShortString>,
    more: &[(&'static str, i64)],
) {
    let mut arguments = FieldTable::EMPTY;
    if let Some(next) = next {
        let key = FieldValue::LongString(next.clone().into());
        arguments = FieldTable::from([
            ("x-dead-letter-exchange", FieldValue::from("")),
            ("x-dead-letter-routing-key", key),
        ]);
    }
    for (name, value) in more {
        arguments.insert(ShortString::from_static(name), FieldValue::from(*value));
    }
    let declare = queue::Declare {
        queue: name.clone(),
        durable: true,
        arguments,
        ..queue::Declare::default()
    };
    client.declare(1, declare);
}

/// A connection with channel 1 open.
pub(crate) fn connect(own: &Own) -> Client {
    let mut client = Client::connect(own.address());
    client.open(1);
    client
}

/// Publishes to a queue.
pub(crate) fn publish(
    client: &mut Client,
    queue: &ShortString,
    properties: &Properties,
    body: &[u8],
) {
    let publish = basic::Publish {
        routing_key: queue.clone(),
        ..basic::Publish::default()
    };
    client.publish_with(1, &publish, properties, body);
}

/// Fetches a message, which may be a moment away.
pub(crate) fn arrival(client: &mut Client, queue: &ShortString, no_ack: bool) -> Message {
    let start = Instant::now();
    loop {
        if let Some(message) = client.get(1, queue, no_ack) {
            return message;
        }
        assert!(start.elapsed() < PATIENCE, "nothing came to {queue}");
        std::thread::yield_now();
    }
}

fn reject(client: &mut Client, message: &Message) {
    let reject = basic::Reject {
        delivery_tag: message.delivery_tag(),
        requeue: false,
    };
    client.send(1, reject);
}

/// `queue reason count` of each death, as the message tells it.
pub(crate) fn deaths(message: &Message) -> Vec<(String, String, i64)> {
    let headers = message.header.headers().expect("a history");
    let Some(FieldValue::Array(deaths)) = headers.get("x-death") else {
        panic!("x-death is an array");
    };
    let deaths = deaths.iter().map(|death| {
        let death = death.as_table().expect("of tables").clone();
        let text = |name: &str| {
            let value = death.get(name).expect("always there");
            value.as_str().expect("a long string").to_owned()
        };
        let Some(FieldValue::LongLongInt(count)) = death.get("count") else {
            panic!("the count is a long");
        };
        assert!(matches!(death.get("time"), Some(FieldValue::Timestamp(_))));
        (text("queue"), text("reason"), count)
    });
    deaths.collect()
}

fn death(queue: &ShortString, reason: &str, count: i64) -> (String, String, i64) {
    (queue.to_string(), reason.to_owned(), count)
}

/// A chain of three queues, with a restart of the broker at each: the letter is there, once, and tells all.
#[test]
fn a_chain_of_dead_letters_survives_restarts() {
    let mut own = Own::start(|_| {});
    let names = ["a", "b", "c", "end"].map(unique);
    let mut client = connect(&own);
    for (at, name) in names.iter().enumerate() {
        declare(&mut client, name, names.get(at + 1), &[]);
    }
    client.confirm_select(1);
    publish(&mut client, &names[0], &persistent(), b"x");
    take_confirms(&mut client, 1, &mut (1..=1).collect());
    for name in &names[..3] {
        let message = arrival(&mut client, name, false);
        reject(&mut client, &message);
        // Behind an answer the rejection has been handled.
        client.qos(1, 0);
        drop(client);
        own = Own::start_in(own.stop(), |_| {});
        client = connect(&own);
        assert_eq!(client.depth(1, name), 0);
    }
    let letter = client
        .get(1, &names[3], true)
        .expect("the end of the chain");
    let [a, b, c, _] = &names;
    // RabbitMQ turns the older ones round with each death.
    let expected = [c, a, b].map(|name| death(name, "rejected", 1));
    assert_eq!(deaths(&letter), expected);
    assert_eq!(letter.body, "x");
    let properties = letter.header.properties().expect("readable");
    assert_eq!(properties.delivery_mode, Some(2));
}

/// Two queues that expire into each other: what goes round by itself is dropped, and what was rejected on
/// the way goes round again.
#[test]
fn only_a_rejection_lets_a_letter_go_round() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let [work, wait] = ["work", "wait"].map(unique);
    declare(&mut client, &work, Some(&wait), &[]);
    declare(&mut client, &wait, Some(&work), &[("x-message-ttl", 20)]);
    publish(&mut client, &work, &Properties::default(), b"job");
    for count in 1..=3 {
        let message = arrival(&mut client, &work, false);
        if count > 1 {
            let expected = [
                death(&wait, "expired", count - 1),
                death(&work, "rejected", count - 1),
            ];
            assert_eq!(deaths(&message), expected);
        }
        reject(&mut client, &message);
    }
    arrival(&mut client, &work, true);

    let [one, two] = ["one", "two"].map(unique);
    declare(&mut client, &one, Some(&two), &[("x-message-ttl", 20)]);
    declare(&mut client, &two, Some(&one), &[("x-message-ttl", 40)]);
    publish(&mut client, &one, &Properties::default(), b"x");
    publish(&mut client, &two, &Properties::default(), b"y");
    let start = Instant::now();
    while client.depth(1, &one) + client.depth(1, &two) > 0 {
        assert!(start.elapsed() < PATIENCE, "it still goes round");
        std::thread::yield_now();
    }
}

/// A large body dies twice and is stored once: the last of the chain gets all of its bytes.
#[test]
fn a_large_body_dies_without_being_moved() {
    let own = Own::start(|settings| settings.payload.threshold_bytes = 64 * 1024);
    let mut client = connect(&own);
    client.confirm_select(1);
    let names = ["a", "b", "end"].map(unique);
    declare(&mut client, &names[0], Some(&names[1]), &[]);
    let short = [("x-max-length-bytes", 1_000_000)];
    declare(&mut client, &names[1], Some(&names[2]), &short);
    declare(&mut client, &names[2], None, &[]);
    let body = pattern(1_000_001);
    publish(&mut client, &names[0], &persistent(), &body);
    take_confirms(&mut client, 1, &mut (1..=1).collect());
    let message = arrival(&mut client, &names[0], false);
    reject(&mut client, &message);
    let letter = arrival(&mut client, &names[2], true);
    assert!(letter.body == body, "all of its bytes, in order");
    let expected = [
        death(&names[1], "maxlen", 1),
        death(&names[0], "rejected", 1),
    ];
    assert_eq!(deaths(&letter), expected);
    assert_eq!(own.store().list().len(), 1, "it was stored once");
}

/// What a full queue refuses is nacked with RabbitMQ's flags, and a dead letter if the queue says so.
#[test]
fn a_refused_message_is_nacked_and_buried() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let [full, dead] = ["full", "dead"].map(unique);
    declare(&mut client, &dead, None, &[]);
    let arguments = FieldTable::from([
        ("x-dead-letter-exchange", FieldValue::from("")),
        (
            "x-dead-letter-routing-key",
            FieldValue::LongString(dead.clone().into()),
        ),
        ("x-max-length", FieldValue::from(0)),
        ("x-overflow", FieldValue::from("reject-publish-dlx")),
    ]);
    let declare = queue::Declare {
        queue: full.clone(),
        arguments,
        ..queue::Declare::default()
    };
    client.declare(1, declare);
    client.confirm_select(1);
    publish(&mut client, &full, &Properties::default(), b"refused");
    let nack = client.expect_method(1, "basic.nack");
    let expected = basic::Nack {
        delivery_tag: 1,
        multiple: true,
        requeue: true,
    };
    assert_eq!(nack, expected.into());
    let letter = client.get(1, &dead, true).expect("buried");
    assert_eq!(deaths(&letter), [death(&full, "maxlen", 1)]);
}
