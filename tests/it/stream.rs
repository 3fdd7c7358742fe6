//! Streams: reading from any offset, again and again, behind and abreast of the publisher, across restarts.

use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::header::Properties;
use warren::amqp::method::{basic, queue};

use crate::broker::{self, Own};
use crate::confirm::take_confirms;
use crate::wire::{Client, Message, unique};

fn declare(client: &mut Client, name: ShortString, more: &[(&str, FieldValue)]) -> ShortString {
    let mut arguments = FieldTable::from([("x-queue-type", FieldValue::from("stream"))]);
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

/// Publishes messages with these numbers as their bodies, padded to `body_bytes`, and takes the confirms.
fn fill(
    client: &mut Client,
    queue: &ShortString,
    numbers: std::ops::Range<u64>,
    body_bytes: usize,
) {
    client.open(9);
    client.confirm_select(9);
    let mut tags = (1..=numbers.end - numbers.start).collect();
    for number in numbers {
        let body = format!("{number:0body_bytes$}");
        client.publish(9, queue, body.as_bytes());
    }
    take_confirms(client, 9, &mut tags);
    client.close_channel(9);
}

fn consume(client: &mut Client, channel: u16, queue: &ShortString, more: &[(&str, FieldValue)]) {
    let mut arguments = FieldTable::EMPTY;
    for (argument, value) in more {
        let argument = ShortString::try_from(argument.as_bytes()).expect("short");
        arguments.insert(argument, value.clone());
    }
    client.call(
        channel,
        basic::Consume {
            queue: queue.clone(),
            arguments,
            ..basic::Consume::default()
        },
    );
}

fn from(offset: impl Into<FieldValue>) -> [(&'static str, FieldValue); 1] {
    [("x-stream-offset", offset.into())]
}

fn offset(message: &Message) -> u64 {
    let headers = message.header.headers().expect("an offset");
    let offset = headers.get("x-stream-offset").expect("an offset");
    u64::try_from(offset.as_integer().expect("a number")).expect("not negative")
}

fn number(message: &Message) -> u64 {
    let digits = std::str::from_utf8(&message.body).expect("digits");
    digits.parse().expect("a number")
}

fn expect(client: &mut Client, channel: u16, numbers: std::ops::Range<u64>) {
    for expected in numbers {
        let message = client.expect_message(channel);
        assert_eq!((offset(&message), number(&message)), (expected, expected));
        assert!(!message.redelivered());
        client.ack(channel, message.delivery_tag(), false);
    }
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

/// Consumers begin where they say, each for itself, and go on with what is published.
// req: STREAM-2
#[test]
fn consumers_begin_where_they_say() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = declare(&mut client, unique("offsets"), &[]);
    fill(&mut client, &queue, 0..10, 1);
    let starts: [(FieldValue, u64); 7] = [
        ("first".into(), 0),
        ("last".into(), 9),
        ("next".into(), 10),
        (4_i64.into(), 4),
        ("1h".into(), 0),
        (FieldValue::Timestamp(1), 0),
        (FieldValue::Timestamp(4_000_000_000), 10),
    ];
    for (channel, (start, _)) in (2..).zip(&starts) {
        client.open(channel);
        client.qos(channel, 3);
        consume(&mut client, channel, &queue, &from(start.clone()));
    }
    fill(&mut client, &queue, 10..13, 1);
    for (channel, (_, first)) in (2..).zip(starts) {
        expect(&mut client, channel, first..13);
    }
    client.expect_quiet();
    assert_eq!(client.depth(1, &queue), 13);
    delete(&mut client, queue);
}

/// Acknowledgements only make room; what was not acknowledged is not given again.
// req: STREAM-3
#[test]
fn acknowledgements_only_make_room() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = declare(&mut client, unique("room"), &[]);
    fill(&mut client, &queue, 0..5, 1);
    client.qos(1, 2);
    consume(&mut client, 1, &queue, &from("first"));
    for expected in 0..2 {
        assert_eq!(offset(&client.expect_message(1)), expected);
    }
    client.expect_quiet();
    client.ack(1, 2, true);
    for expected in 2..4 {
        assert_eq!(offset(&client.expect_message(1)), expected);
    }
    client.expect_quiet();
    delete(&mut client, queue);
}

/// A stream that is much longer than what is kept in memory is read from the disk, while it grows.
#[test]
fn a_long_stream_is_read_from_the_disk() {
    let own = Own::start(|_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    let queue = declare(&mut client, ShortString::from_static("long"), &[]);
    fill(&mut client, &queue, 0..3_000, 2_000);
    client.open(2);
    client.qos(2, 50);
    consume(&mut client, 2, &queue, &from("first"));
    expect(&mut client, 2, 0..1_500);
    fill(&mut client, &queue, 3_000..3_100, 2_000);
    expect(&mut client, 2, 1_500..3_100);
    client.open(3);
    client.qos(3, 10);
    consume(&mut client, 3, &queue, &from(777_i64));
    expect(&mut client, 3, 777..800);
}

/// A restart keeps messages and offsets, after either kind of retention too.
// req: STREAM-1
// req: STREAM-5
#[test]
fn a_restart_keeps_offsets() {
    let own = Own::start(|_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    let small = [
        ("x-max-length-bytes", FieldValue::from(20_000_i64)),
        ("x-stream-max-segment-size-bytes", 5_000_i64.into()),
    ];
    let queue = declare(&mut client, ShortString::from_static("kept"), &small);
    fill(&mut client, &queue, 0..100, 1_000);
    let kept_count = u64::from(client.depth(1, &queue));
    assert!((15..40).contains(&kept_count), "{kept_count} are kept");
    let first = 100 - kept_count;
    drop(client);

    let own = Own::start_in(own.stop(), |_| {});
    let mut client = Client::connect(own.address());
    client.open(1);
    assert_eq!(u64::from(client.depth(1, &queue)), kept_count);
    client.qos(1, 10);
    consume(&mut client, 1, &queue, &from("first"));
    expect(&mut client, 1, first..100);
    fill(&mut client, &queue, 100..101, 1_000);
    expect(&mut client, 1, 100..101);
}

/// A consumer with a filter gets what has one of its values, and what has none if it wants that.
// req: STREAM-6
#[test]
fn a_filter_passes_over_what_it_does_not_want() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = declare(&mut client, unique("filtered"), &[]);
    let publish = basic::Publish {
        routing_key: queue.clone(),
        ..basic::Publish::default()
    };
    for (value, body) in [
        (Some("eu"), "0"),
        (None, "1"),
        (Some("us"), "2"),
        (Some("eu"), "3"),
    ] {
        let headers = value
            .map(|value| FieldTable::from([("x-stream-filter-value", FieldValue::from(value))]));
        let properties = Properties {
            headers,
            ..Properties::default()
        };
        client.publish_with(1, &publish, &properties, body.as_bytes());
    }
    client.qos(1, 1);
    let wanted = [
        ("x-stream-offset", FieldValue::from("first")),
        ("x-stream-filter", "eu".into()),
    ];
    consume(&mut client, 1, &queue, &wanted);
    for expected in [0, 3] {
        let message = client.expect_message(1);
        assert_eq!(offset(&message), expected);
        client.ack(1, message.delivery_tag(), false);
    }
    client.open(2);
    client.qos(2, 10);
    let and_unfiltered = [
        ("x-stream-offset", FieldValue::from("first")),
        ("x-stream-filter", "us".into()),
        ("x-stream-match-unfiltered", true.into()),
    ];
    consume(&mut client, 2, &queue, &and_unfiltered);
    for expected in [1, 2] {
        assert_eq!(offset(&client.expect_message(2)), expected);
    }
    client.expect_quiet();
    delete(&mut client, queue);
}

/// A stream's messages cannot be rejected: the connection ends, and the broker goes on.
// req: STREAM-4
#[test]
fn rejecting_ends_the_connection() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = declare(&mut client, unique("rejected"), &[]);
    fill(&mut client, &queue, 0..1, 1);
    let mut other = Client::connect(broker::shared());
    other.open(1);
    other.qos(1, 1);
    consume(&mut other, 1, &queue, &from("first"));
    let message = other.expect_message(1);
    other.send(
        1,
        basic::Reject {
            delivery_tag: message.delivery_tag(),
            requeue: true,
        },
    );
    other.expect_connection_close(540);
    assert_eq!(client.depth(1, &queue), 1);
    delete(&mut client, queue);
}
