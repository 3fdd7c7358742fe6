//! `basic.qos` without `global`: each consumer's limit as RabbitMQ has it, or the channel's as the standard has it,
//! by what the client makes of the server's name.

use std::net::SocketAddr;

use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::method::{basic, queue};
use warren::config::QosStyle;

use crate::broker::{self, Own};
use crate::wire::{Client, Opening, unique};

/// A connection whose client calls itself `product`, with a queue of `count` messages.
fn client_of(broker: SocketAddr, product: &'static str, count: usize) -> (Client, ShortString) {
    let opening = Opening {
        product,
        ..Opening::default()
    };
    let mut client = Client::connect_as(broker, &opening);
    client.open(1);
    let queue = client.exclusive_queue(1);
    for number in 0..count {
        client.publish(1, &queue, number.to_string().as_bytes());
    }
    (client, queue)
}

/// The limit is the channel's, and takes effect at once.
fn check_standard(broker: SocketAddr, product: &'static str) {
    let (mut client, queue) = client_of(broker, product, 6);
    client.qos(1, 2);
    client.consume(1, &queue, "first", false);
    client.expect_message(1);
    client.expect_message(1);
    client.expect_quiet();
    client.qos(1, 3);
    client.expect_message(1);
    client.expect_quiet();
    let other = client.exclusive_queue(1);
    client.publish(1, &other, b"waits");
    client.consume(1, &other, "second", false);
    client.expect_quiet();
    client.ack(1, 1, false);
    client.expect_message(1);
    client.expect_quiet();
    client.qos(1, 0);
    for _ in 0..3 {
        client.expect_message(1);
    }
}

/// The limit is the consumer's, and of those that come later.
fn check_rabbitmq(broker: SocketAddr, product: &'static str) {
    let (mut client, queue) = client_of(broker, product, 3);
    client.qos(1, 1);
    client.consume(1, &queue, "first", false);
    client.expect_message(1);
    client.qos(1, 5);
    client.expect_quiet();
    client.consume(1, &queue, "second", false);
    client.expect_message(1);
    client.expect_message(1);
}

/// Nobody but py-amqp draws conclusions from the name `Warren`.
// req: QOS-3
#[test]
fn the_style_is_what_the_client_expects() {
    let warren = Own::start(|_| {});
    check_standard(warren.address(), "py-amqp");
    check_rabbitmq(warren.address(), "pika");
    let named = Own::start(|settings| {
        settings.connection.product = "RabbitMQ".to_owned();
        settings.connection.version = "3.10.8".to_owned();
    });
    check_rabbitmq(named.address(), "py-amqp");
}

/// The setting decides for all.
#[test]
fn the_setting_decides_for_all_clients() {
    let standard = Own::start(|settings| settings.connection.qos = QosStyle::Standard);
    check_standard(standard.address(), "pika");
    let rabbitmq = Own::start(|settings| settings.connection.qos = QosStyle::RabbitMq);
    check_rabbitmq(rabbitmq.address(), "py-amqp");
}

/// A channel's limit that is not called global does for quorum queues and streams.
#[test]
fn quorum_queues_and_streams_take_part_in_the_channels_limit() {
    let own = Own::start(|_| {});
    for kind in ["quorum", "stream"] {
        let (mut client, _) = client_of(own.address(), "py-amqp", 0);
        client.qos(1, 2);
        let declare = queue::Declare {
            queue: unique(kind),
            durable: true,
            arguments: FieldTable::from([("x-queue-type", FieldValue::from(kind))]),
            ..queue::Declare::default()
        };
        let queue = client.declare(1, declare);
        client.consume(1, &queue, "c", false);
        for number in 0..4_u8 {
            client.publish(1, &queue, &[number]);
        }
        client.expect_message(1);
        client.expect_message(1);
        client.expect_quiet();
        client.ack(1, 2, true);
        client.expect_message(1);
        client.expect_message(1);
    }
}

/// The standard's style refuses nothing that the other takes, `global` included.
#[test]
fn global_means_the_channel_in_both() {
    let (mut client, queue) = client_of(broker::shared(), "py-amqp", 3);
    let qos = basic::Qos {
        prefetch_count: 1,
        global: true,
        ..basic::Qos::default()
    };
    client.call(1, qos);
    client.consume(1, &queue, "c", false);
    client.expect_message(1);
    client.expect_quiet();
}
