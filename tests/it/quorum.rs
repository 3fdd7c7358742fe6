//! Quorum queues on one node: what is kept, counted and given up, across restarts too.

use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::header::Properties;
use warren::amqp::method::{basic, queue};

use crate::broker::{self, Own};
use crate::confirm::take_confirms;
use crate::wire::{Client, Message, unique};

fn declare(client: &mut Client, name: ShortString, more: &[(&str, FieldValue)]) -> ShortString {
    let mut arguments = FieldTable::from([("x-queue-type", FieldValue::from("quorum"))]);
    for (argument, value) in more {
        let argument = ShortString::try_from(argument.as_bytes()).expect("short");
        arguments.insert(argument, value.clone());
    }
    let declare = queue::Declare {
        queue: name,
        durable: true,
        arguments,
        ..queue::Declare::default()
    };
    client.declare(1, declare)
}

fn publish(client: &mut Client, queue: &ShortString, body: &str) {
    let publish = basic::Publish {
        routing_key: queue.clone(),
        ..basic::Publish::default()
    };
    client.publish_with(1, &publish, &Properties::default(), body.as_bytes());
}

fn reject(client: &mut Client, message: &Message) {
    let delivery_tag = message.delivery_tag();
    client.send(
        1,
        basic::Reject {
            delivery_tag,
            requeue: true,
        },
    );
}

fn count(message: &Message) -> Option<i64> {
    message
        .header
        .headers()?
        .get("x-delivery-count")?
        .as_integer()
}

fn delete(client: &mut Client, queue: ShortString) {
    client.call(
        1,
        queue::Delete {
            queue,
            ..queue::Delete::default()
        },
    );
}

/// Transient messages are kept over a restart, and so is how often each came back.
// req: QUORUM-1
// req: QUORUM-2
#[test]
fn everything_is_kept_and_counts_go_on() {
    let own = Own::start(|_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    client.confirm_select(1);
    let queue = declare(&mut client, ShortString::from_static("kept"), &[]);
    for body in ["a", "b"] {
        publish(&mut client, &queue, body);
    }
    take_confirms(&mut client, 1, &mut (1..=2).collect());
    for expected in 0..3 {
        let message = client.get(1, &queue, false).expect("published");
        assert_eq!(
            (message.body.as_ref(), count(&message)),
            (&b"a"[..], Some(expected))
        );
        let other = client.get(1, &queue, false).expect("published");
        assert_eq!(other.body, "b");
        // What is rejected goes behind all others, so the order stays.
        reject(&mut client, &message);
        reject(&mut client, &other);
    }
    client.qos(1, 0);
    drop(client);

    let own = Own::start_in(own.stop(), |_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    for body in ["a", "b"] {
        let message = client.get(1, &queue, true).expect("kept");
        assert_eq!(message.body, body);
        assert_eq!(count(&message), Some(3));
        assert!(message.redelivered());
    }
}

/// A message that comes back too often is dead-lettered, however it comes back.
#[test]
fn the_delivery_limit_dead_letters() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let dead = client.exclusive_queue(1);
    let limited = [
        ("x-delivery-limit", 2_i64.into()),
        ("x-dead-letter-exchange", FieldValue::from("")),
        (
            "x-dead-letter-routing-key",
            FieldValue::LongString(dead.as_bytes().to_vec().into()),
        ),
    ];
    let queue = declare(&mut client, unique("limited"), &limited);
    publish(&mut client, &queue, "poison");
    for _ in 0..2 {
        let message = client.get(1, &queue, false).expect("published");
        reject(&mut client, &message);
    }
    let mut lost = Client::connect(broker::shared());
    lost.open(1);
    lost.consume(1, &queue, "lost", false);
    assert_eq!(count(&lost.expect_message(1)), Some(2));
    drop(lost);
    client.consume(1, &dead, "dead", true);
    let message = client.expect_message(1);
    assert_eq!(message.body, "poison");
    let headers = message.header.headers().expect("a history");
    let reason = headers.get("x-first-death-reason").expect("a reason");
    assert_eq!(reason.as_str(), Some("delivery_limit"));
    assert_eq!(client.depth(1, &queue), 0);
    delete(&mut client, queue);
}

/// Without a limit of its own, a queue gives up after RabbitMQ 4's 20; with -1 it never does.
// req: QUORUM-3
#[test]
fn twenty_returns_are_the_default() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let endless = [("x-delivery-limit", FieldValue::from(-1_i64))];
    let queues = [
        (declare(&mut client, unique("default"), &[]), 0),
        (declare(&mut client, unique("endless"), &endless), 1),
    ];
    for (queue, left_count) in queues {
        publish(&mut client, &queue, "again");
        for expected in 0..=20 {
            let message = client.get(1, &queue, false).expect("not given up");
            assert_eq!(count(&message), Some(expected));
            reject(&mut client, &message);
        }
        assert_eq!(client.depth(1, &queue), left_count);
        delete(&mut client, queue);
    }
}

/// What a lost channel held comes before what was never out; what is rejected, behind it.
// req: QUORUM-4
#[test]
fn what_comes_back_has_the_place_of_a_quorum_queue() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = declare(&mut client, unique("places"), &[]);
    for body in ["a", "b", "c", "d"] {
        publish(&mut client, &queue, body);
    }
    client.open(2);
    let held = client.get(2, &queue, false).expect("published");
    assert_eq!(held.body, "a");
    let rejected = client.get(1, &queue, false).expect("published");
    assert_eq!(rejected.body, "b");
    reject(&mut client, &rejected);
    client.qos(1, 0);
    client.close_channel(2);
    let bodies: Vec<_> = std::iter::from_fn(|| client.get(1, &queue, true))
        .map(|message| message.body)
        .collect();
    assert_eq!(bodies, ["a", "c", "d", "b"]);
    delete(&mut client, queue);
}

/// A global prefetch, and a delete under a condition, are not for quorum queues: the connection ends.
// req: QUORUM-5
#[test]
fn what_quorum_queues_cannot_do_ends_the_connection() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = declare(&mut client, unique("cannot"), &[]);
    let mut global = Client::connect(broker::shared());
    global.open(1);
    global.call(
        1,
        basic::Qos {
            prefetch_count: 5,
            global: true,
            ..basic::Qos::default()
        },
    );
    global.send(
        1,
        basic::Consume {
            queue: queue.clone(),
            ..basic::Consume::default()
        },
    );
    global.expect_connection_close(540);
    let mut conditional = Client::connect(broker::shared());
    conditional.open(1);
    conditional.send(
        1,
        queue::Delete {
            queue: queue.clone(),
            if_empty: true,
            ..queue::Delete::default()
        },
    );
    let text = conditional.expect_connection_close(540);
    assert!(text.contains("if-empty"), "{text}");
    delete(&mut client, queue);
}
