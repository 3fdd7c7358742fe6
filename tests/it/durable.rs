//! What a restart keeps: durable queues, their bindings and persistent messages, in order and unmarked.

use warren::amqp::field::ShortString;
use warren::amqp::header::Properties;
use warren::amqp::method::{basic, exchange, queue};

use crate::broker::Own;
use crate::confirm::take_confirms;
use crate::wire::{Client, persistent};

const QUEUE: ShortString = ShortString::from_static("kept");
const TRANSIENT_QUEUE: ShortString = ShortString::from_static("gone");
const EXCHANGE: ShortString = ShortString::from_static("kept-topic");

fn declare(queue: ShortString, durable: bool) -> queue::Declare {
    queue::Declare {
        queue,
        durable,
        ..queue::Declare::default()
    }
}

/// Publishes to the durable exchange; every queue is bound with `#`.
fn publish(client: &mut Client, properties: &Properties, body: &str) {
    let publish = basic::Publish {
        exchange: EXCHANGE,
        routing_key: ShortString::from_static("a.b"),
        ..basic::Publish::default()
    };
    client.publish_with(1, &publish, properties, body.as_bytes());
}

/// A clean stop keeps what was confirmed as persistent, without what was acknowledged, and nothing else;
/// what nobody saw is not marked as redelivered, what somebody held is.
#[test]
fn a_restart_keeps_what_was_confirmed() {
    let own = Own::start(|_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    let topic = exchange::Declare {
        exchange: EXCHANGE,
        kind: ShortString::from_static("topic"),
        durable: true,
        ..exchange::Declare::default()
    };
    client.call(1, topic);
    for (queue, durable) in [(QUEUE, true), (TRANSIENT_QUEUE, false)] {
        client.declare(1, declare(queue.clone(), durable));
        let bind = queue::Bind {
            queue,
            exchange: EXCHANGE,
            routing_key: ShortString::from_static("#"),
            ..queue::Bind::default()
        };
        client.call(1, bind);
    }
    client.confirm_select(1);
    for number in 1..=100_u64 {
        publish(&mut client, &persistent(), &number.to_string());
    }
    publish(&mut client, &Properties::default(), "transient");
    take_confirms(&mut client, 1, &mut (1..=101).collect());
    let acked = client.get(1, &QUEUE, false).expect("published");
    client.ack(1, acked.delivery_tag(), false);
    let held = client.get(1, &QUEUE, false).expect("published");
    assert_eq!(held.body, "2");
    // Behind an answer the acknowledgement has been handled.
    client.qos(1, 0);
    drop(client);

    let own = Own::start_in(own.stop(), |_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    assert_eq!(client.depth(1, &QUEUE), 99);
    for number in 2..=100_u64 {
        let message = client.get(1, &QUEUE, true).expect("kept");
        assert_eq!(message.body, number.to_string());
        assert_eq!(message.redelivered(), number == 2, "message {number}");
        assert_eq!(message.header.raw, persistent().encode());
    }
    publish(&mut client, &persistent(), "bound still");
    client.qos(1, 0);
    let message = client.get(1, &QUEUE, true).expect("routed");
    assert_eq!(message.body, "bound still");
    client.send(
        1,
        queue::Declare {
            passive: true,
            ..declare(TRANSIENT_QUEUE, false)
        },
    );
    client.expect_channel_close(1, 404);
}

/// Only one server may use a data folder at a time; the first is not disturbed.
#[test]
fn a_data_folder_has_one_server() {
    let own = Own::start(|_| {});
    let error = own.start_twice().expect_err("the folder is in use");
    assert!(error.to_string().contains("data"), "{error}");
    Client::connect(own.address()).open(1);
}
