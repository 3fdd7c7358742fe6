//! Queues with priorities: order, what comes back, and what a restart keeps.

use warren::amqp::field::{FieldTable, ShortString};
use warren::amqp::header::Properties;
use warren::amqp::method::{basic, queue};

use crate::broker::{self, Own};
use crate::confirm::take_confirms;
use crate::wire::{Client, persistent, unique};

fn declare(client: &mut Client, name: ShortString, max: i64, durable: bool) -> ShortString {
    let declare = queue::Declare {
        queue: name,
        durable,
        exclusive: !durable,
        arguments: FieldTable::from([("x-max-priority", max.into())]),
        ..queue::Declare::default()
    };
    client.declare(1, declare)
}

fn publish(client: &mut Client, queue: &ShortString, priority: u8, properties: Properties) {
    let publish = basic::Publish {
        routing_key: queue.clone(),
        ..basic::Publish::default()
    };
    let properties = Properties {
        priority: Some(priority),
        ..properties
    };
    client.publish_with(1, &publish, &properties, priority.to_string().as_bytes());
}

fn drained(client: &mut Client, queue: &ShortString) -> Vec<String> {
    let got = std::iter::from_fn(|| client.get(1, queue, true));
    got.map(|message| String::from_utf8_lossy(&message.body).into_owned())
        .collect()
}

/// Higher priorities go first, those above the maximum count as the maximum, equal ones keep their order.
// req: PRIORITY-1
#[test]
fn higher_priorities_go_first() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = declare(&mut client, unique("priorities"), 5, false);
    for priority in [1, 0, 9, 5, 3, 200] {
        publish(&mut client, &queue, priority, Properties::default());
    }
    client.qos(1, 0);
    assert_eq!(
        drained(&mut client, &queue),
        ["9", "5", "200", "3", "1", "0"]
    );
}

/// A consumer that is spent gets the highest of what came meanwhile, and what it gives back keeps its level.
#[test]
fn what_comes_back_keeps_its_level() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = declare(&mut client, unique("levels"), 10, false);
    client.qos(1, 1);
    client.consume(1, &queue, "one", false);
    publish(&mut client, &queue, 2, Properties::default());
    let first = client.expect_message(1);
    for priority in [1, 8, 3] {
        publish(&mut client, &queue, priority, Properties::default());
    }
    client.send(
        1,
        basic::Reject {
            delivery_tag: first.delivery_tag(),
            requeue: true,
        },
    );
    for expected in ["8", "3", "2", "1"] {
        let message = client.expect_message(1);
        assert_eq!(message.body, expected);
        client.ack(1, message.delivery_tag(), false);
    }
}

/// After a restart the order is the same.
#[test]
fn a_restart_keeps_the_order() {
    let own = Own::start(|_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    client.confirm_select(1);
    let queue = declare(&mut client, ShortString::from_static("kept"), 9, true);
    for priority in [0, 4, 9, 4, 2] {
        publish(&mut client, &queue, priority, persistent());
    }
    take_confirms(&mut client, 1, &mut (1..=5).collect());
    drop(client);

    let own = Own::start_in(own.stop(), |_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    assert_eq!(drained(&mut client, &queue), ["9", "4", "4", "2", "0"]);
}
