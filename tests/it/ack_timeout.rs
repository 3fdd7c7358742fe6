//! Deliveries that nobody acknowledges in time.

use std::time::Duration;

use warren::amqp::field::{FieldTable, FieldValue};
use warren::amqp::method::{basic, queue};

use crate::broker::Own;
use crate::wire::{Client, unique};

/// A broker that waits this long for an acknowledgement.
fn waiting(ms: u64) -> Own {
    Own::start(|settings| {
        settings.connection.consumer_timeout = Some(Duration::from_millis(ms));
    })
}

/// The channel is closed, what it held goes to others, and the connection's other channels go on.
// req: ACKTIME-1
#[test]
fn a_late_acknowledgement_closes_the_channel() {
    let own = waiting(300);
    let mut client = Client::connect(own.address());
    client.open(1);
    client.open(2);
    let queue = client.exclusive_queue(2);
    client.publish(2, &queue, b"held");
    client.consume(1, &queue, "slow", false);
    client.expect_message(1);
    let text = client.expect_channel_close(1, 406);
    let expected = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value \
                    used: 300 ms. This timeout value can be configured, see consumers doc guide to learn more";
    assert_eq!(text, expected);
    let again = client.get(2, &queue, true).expect("it came back");
    assert!(again.redelivered());
}

/// Who acknowledges goes on for as long as it likes; automatic acknowledgement has no time.
#[test]
fn who_acknowledges_in_time_goes_on() {
    let own = waiting(2_000);
    let mut client = Client::connect(own.address());
    client.open(1);
    client.open(2);
    let queue = client.exclusive_queue(1);
    client.qos(1, 1);
    client.consume(1, &queue, "steady", false);
    for number in 0..8_u8 {
        client.publish(1, &queue, &[number]);
        let message = client.expect_message(1);
        std::thread::sleep(Duration::from_millis(400));
        client.ack(1, message.delivery_tag(), false);
    }
    let other = client.exclusive_queue(2);
    client.publish(2, &other, b"gone at once");
    client.consume(2, &other, "careless", true);
    client.expect_message(2);
    std::thread::sleep(Duration::from_millis(2_600));
    assert_eq!(client.depth(1, &queue), 0);
    assert_eq!(client.depth(2, &other), 0);
}

/// A queue's own argument comes first, and needs no setting.
#[test]
fn a_queue_has_its_own_time() {
    let own = Own::start(|_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    let declare = queue::Declare {
        queue: unique("timed"),
        exclusive: true,
        arguments: FieldTable::from([("x-consumer-timeout", FieldValue::from(250))]),
        ..queue::Declare::default()
    };
    let queue = client.declare(1, declare);
    client.publish(1, &queue, b"held");
    let consume = basic::Consume {
        queue,
        ..basic::Consume::default()
    };
    client.call(1, consume);
    client.expect_message(1);
    let text = client.expect_channel_close(1, 406);
    assert!(text.contains("Timeout value used: 250 ms"), "{text}");
}
