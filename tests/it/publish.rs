//! Publishing: content in all its cuts, returns, and errors.

use bytes::BytesMut;
use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::frame;
use warren::amqp::header::{ContentHeader, Properties};
use warren::amqp::method::{Method, basic, exchange, queue};

use crate::broker;
use crate::wire::{Client, Opening, pattern, published, unique};

fn to_queue(queue: &ShortString) -> basic::Publish {
    basic::Publish {
        routing_key: queue.clone(),
        ..basic::Publish::default()
    }
}

/// Bodies around every boundary of frames come back as they went in.
#[test]
fn bodies_of_all_sizes_come_back() {
    let opening = Opening {
        frame_bytes_max: 4_096,
        ..Opening::default()
    };
    let mut client = Client::connect_as(broker::shared(), &opening);
    client.open(1);
    let queue = client.exclusive_queue(1);
    for length in [0, 1, 4_087, 4_088, 4_089, 8_176, 8_177, 100_000, 900_000] {
        let body = pattern(length);
        client.publish(1, &queue, &body);
        let message = client.get(1, &queue, true).expect("just published");
        assert_eq!(message.header.body_bytes, length as u64);
        assert_eq!(message.body, body, "{length} octets");
        assert!(message.frame_bytes.iter().all(|bytes| *bytes <= 4_088));
    }
}

/// However a stream is cut into segments, the same messages are understood.
#[test]
fn a_publish_octet_by_octet_is_understood() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = client.exclusive_queue(1);
    let body = pattern(50);
    let mut octets = BytesMut::new();
    for _ in 0..3 {
        octets.extend_from_slice(&published(
            1,
            &to_queue(&queue),
            &Properties::default(),
            &body,
            131_072,
        ));
    }
    for octet in octets {
        client.send_bytes(&[octet]);
    }
    for _ in 0..3 {
        let message = client.get(1, &queue, true).expect("published");
        assert_eq!(message.body, body);
    }
}

/// Contents of two channels may come frame by frame in turn.
#[test]
fn contents_of_two_channels_may_interleave() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    client.open(2);
    let queue = client.exclusive_queue(1);
    let mut octets = BytesMut::new();
    for channel in [1, 2] {
        frame::put_method(&mut octets, channel, &to_queue(&queue));
    }
    for channel in [2, 1] {
        let header = ContentHeader::new(6, &Properties::default());
        frame::put_header(&mut octets, channel, &header);
    }
    for (channel, piece) in [(1, b"one"), (2, b"two"), (1, b"ONE"), (2, b"TWO")] {
        frame::put_body(&mut octets, channel, piece);
    }
    client.send_bytes(&octets);
    client.qos(1, 0);
    client.qos(2, 0);
    let bodies = [
        client.get(1, &queue, true).expect("published").body,
        client.get(1, &queue, true).expect("published").body,
    ];
    assert_eq!(bodies, ["oneONE", "twoTWO"]);
}

/// Properties come back octet by octet, those that the broker does not know included.
#[test]
fn properties_come_back_unchanged() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = client.exclusive_queue(1);
    let properties = Properties {
        content_type: Some(ShortString::from_static("text/plain")),
        headers: Some(FieldTable::from([
            ("number", FieldValue::from(7)),
            ("text", FieldValue::from("x")),
            (
                "nested",
                FieldValue::Table(FieldTable::from([("void", FieldValue::Void)])),
            ),
        ])),
        delivery_mode: Some(1),
        priority: Some(9),
        correlation_id: Some(ShortString::from_static("c")),
        timestamp: Some(1_234_567_890),
        user_id: Some(ShortString::from_static("guest")),
        ..Properties::default()
    };
    client.publish_with(1, &to_queue(&queue), &properties, b"x");
    let message = client.get(1, &queue, true).expect("published");
    assert_eq!(message.header.raw, properties.encode());
}

/// A mandatory message that no queue takes comes back whole, with the reason.
#[test]
fn an_unroutable_mandatory_message_is_returned() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let nowhere = unique("nowhere");
    let publish = basic::Publish {
        mandatory: true,
        ..to_queue(&nowhere)
    };
    let body = pattern(200_000);
    client.publish_with(1, &publish, &Properties::default(), &body);
    let message = client.expect_message(1);
    assert_eq!(message.body, body);
    match message.method {
        Method::BasicReturn(returned) => {
            assert_eq!(returned.reply_code, 312);
            assert_eq!(returned.reply_text, "NO_ROUTE");
            assert_eq!(returned.routing_key, nowhere);
        }
        other => panic!("{} is not basic.return", other.name()),
    }
}

/// What is published behind a failed publish on the same channel is dropped with the channel.
#[test]
fn a_missing_exchange_ends_the_channel_alone() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    client.open(2);
    let queue = client.exclusive_queue(2);
    let missing = basic::Publish {
        exchange: unique("missing"),
        ..basic::Publish::default()
    };
    client.publish_with(1, &missing, &Properties::default(), b"lost");
    client.publish(1, &queue, b"lost too");
    let text = client.expect_channel_close(1, 404);
    assert!(text.starts_with("NOT_FOUND - no exchange 'it."), "{text}");
    client.publish(2, &queue, b"kept");
    assert_eq!(client.get(2, &queue, true).expect("published").body, "kept");
    assert_eq!(client.depth(2, &queue), 0);
}

/// A fan-out reaches each bound queue once, however many bindings lead there.
#[test]
fn each_queue_gets_one_copy() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let topic = unique("topic");
    client.call(
        1,
        exchange::Declare {
            exchange: topic.clone(),
            kind: ShortString::from_static("topic"),
            auto_delete: true,
            ..exchange::Declare::default()
        },
    );
    let queues = [client.exclusive_queue(1), client.exclusive_queue(1)];
    for queue in &queues {
        for key in ["a.#", "*.b", "#"] {
            client.call(
                1,
                queue::Bind {
                    queue: queue.clone(),
                    exchange: topic.clone(),
                    routing_key: ShortString::from_static(key),
                    ..queue::Bind::default()
                },
            );
        }
    }
    let publish = basic::Publish {
        exchange: topic,
        routing_key: ShortString::from_static("a.b"),
        ..basic::Publish::default()
    };
    client.publish_with(1, &publish, &Properties::default(), b"once");
    client.qos(1, 0);
    for queue in &queues {
        assert_eq!(client.get(1, queue, true).expect("routed").body, "once");
        assert!(client.get(1, queue, true).is_none());
    }
}

/// A queue and its messages go with the connection that had it to itself.
#[test]
fn an_exclusive_queue_goes_with_its_connection() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = client.exclusive_queue(1);
    let mut other = Client::connect(broker::shared());
    other.open(1);
    let passive = || queue::Declare {
        queue: queue.clone(),
        passive: true,
        ..queue::Declare::default()
    };
    other.send(1, passive());
    other.expect_channel_close(1, 405);
    drop(client);
    // The broker learns of the loss in its own time.
    loop {
        other.open(1);
        other.send(1, passive());
        match other.expect_method(1, "channel.close") {
            Method::ChannelClose(close) if close.reply_code == 404 => break,
            Method::ChannelClose(close) => assert_eq!(close.reply_code, 405),
            other => panic!("{} is not channel.close", other.name()),
        }
        other.send(1, warren::amqp::method::channel::CloseOk {});
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}
