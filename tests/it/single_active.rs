//! Queues with a single active consumer: who is served, and who takes over.

use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::method::{basic, queue};

use crate::broker;
use crate::wire::{Client, unique};

fn declare(client: &mut Client) -> ShortString {
    let declare = queue::Declare {
        queue: unique("single"),
        auto_delete: true,
        arguments: FieldTable::from([("x-single-active-consumer", FieldValue::from(true))]),
        ..queue::Declare::default()
    };
    client.declare(1, declare)
}

fn consume(client: &mut Client, queue: &ShortString, priority: i64) {
    client.open(1);
    client.call(
        1,
        basic::Consume {
            queue: queue.clone(),
            consumer_tag: ShortString::from_static("it"),
            arguments: FieldTable::from([("x-priority", priority.into())]),
            ..basic::Consume::default()
        },
    );
}

/// The first one gets everything; when its connection is lost, the one of highest priority gets what it
/// held, marked, before what waited.
// req: SAC-1
#[test]
fn the_next_takes_over_what_a_lost_one_held() {
    let mut publisher = Client::connect(broker::shared());
    publisher.open(1);
    let queue = declare(&mut publisher);
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(broker::shared())).collect();
    for (client, priority) in clients.iter_mut().zip([0, 1, 7]) {
        consume(client, &queue, priority);
    }
    for body in ["a", "b"] {
        publisher.publish(1, &queue, body.as_bytes());
    }
    for body in ["a", "b"] {
        assert_eq!(clients[0].expect_message(1).body, body);
    }
    clients[2].expect_quiet();
    drop(clients.remove(0));
    for body in ["a", "b"] {
        let message = clients[1].expect_message(1);
        assert_eq!(message.body, body);
        assert!(message.redelivered());
    }
    publisher.publish(1, &queue, b"c");
    assert_eq!(clients[1].expect_message(1).body, "c");
    clients[0].expect_quiet();
}

/// One that is full hands nothing over; one that is cancelled does, and keeps what it holds.
#[test]
fn a_full_one_stays_active_and_a_cancelled_one_does_not() {
    let mut publisher = Client::connect(broker::shared());
    publisher.open(1);
    let queue = declare(&mut publisher);
    let mut first = Client::connect(broker::shared());
    first.open(1);
    first.qos(1, 1);
    first.consume(1, &queue, "first", false);
    let mut second = Client::connect(broker::shared());
    consume(&mut second, &queue, 0);
    for body in ["a", "b"] {
        publisher.publish(1, &queue, body.as_bytes());
    }
    let held = first.expect_message(1);
    second.expect_quiet();
    first.call(
        1,
        basic::Cancel {
            consumer_tag: ShortString::from_static("first"),
            no_wait: false,
        },
    );
    assert_eq!(second.expect_message(1).body, "b");
    first.send(
        1,
        basic::Reject {
            delivery_tag: held.delivery_tag(),
            requeue: true,
        },
    );
    let message = second.expect_message(1);
    assert_eq!(message.body, "a");
    assert!(message.redelivered());
}

/// An exclusive consumer is refused, whoever else is there.
// req: SAC-2
#[test]
fn an_exclusive_consumer_is_refused() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = declare(&mut client);
    client.send(
        1,
        basic::Consume {
            queue,
            exclusive: true,
            ..basic::Consume::default()
        },
    );
    client.expect_channel_close(1, 403);
}
