//! Direct reply-to, driven by hand.

use super::*;
use crate::broker::REPLY_QUEUE;

fn reply_queue() -> ShortString {
    ShortString::try_from(REPLY_QUEUE).expect("short")
}

fn consume_replies(tag: &'static str, no_ack: bool) -> basic::Consume {
    basic::Consume {
        queue: reply_queue(),
        consumer_tag: short(tag),
        no_ack,
        ..basic::Consume::default()
    }
}

fn request() -> BytesMut {
    let publish = basic::Publish {
        routing_key: short("q"),
        ..basic::Publish::default()
    };
    let properties = Properties {
        reply_to: Some(reply_queue()),
        ..Properties::default()
    };
    content(1, &publish, &properties)
}

fn content(number: u16, publish: &basic::Publish, properties: &Properties) -> BytesMut {
    let header = ContentHeader::new(1, properties);
    let mut output = BytesMut::new();
    frame::put_method_with_content(&mut output, number, publish, &header, b"x", 4_096);
    output
}

/// An asker on channel 1 that has sent a request; gives the name that the request carries.
fn asked() -> (Driven, ShortString) {
    let mut driven = Driven::opened(0);
    driven.method(1, consume_replies("a", true));
    driven.bytes(&request());
    driven.sent();
    driven.method(
        2,
        basic::Get {
            queue: short("q"),
            no_ack: true,
        },
    );
    let octets = driven.octets();
    driven.session.handle_transmitted(driven.now);
    let mut rest = &octets[..];
    while let Some(frame) = frame::parse(rest, u32::MAX).expect("frames") {
        if frame.kind == FrameKind::Header {
            let payload = Bytes::copy_from_slice(frame.payload);
            let header = ContentHeader::decode_in(&payload, &payload).expect("a header");
            let properties = header.properties().expect("properties");
            return (driven, properties.reply_to.expect("a name"));
        }
        rest = &rest[frame.frame_bytes..];
    }
    panic!("no request");
}

fn answer(driven: &mut Driven, name: &ShortString, mandatory: bool) -> Vec<Method> {
    let publish = basic::Publish {
        routing_key: name.clone(),
        mandatory,
        ..basic::Publish::default()
    };
    driven.bytes(&content(2, &publish, &Properties::default()));
    driven.methods()
}

/// Answers arrive without a queue, all with the tag that comes next, and a mandatory one is returned too.
// req: REPLYTO-2
// req: REPLYTO-3
#[test]
fn answers_go_straight_to_the_asker() {
    let (mut driven, name) = asked();
    for _ in 0..2 {
        let methods = answer(&mut driven, &name, false);
        let [Method::BasicDeliver(deliver)] = &methods[..] else {
            panic!("expected a delivery, got {methods:?}");
        };
        assert_eq!(deliver.delivery_tag, 1);
        assert_eq!(deliver.consumer_tag, short("a"));
        assert_eq!(deliver.routing_key, name);
    }
    let methods = answer(&mut driven, &name, true);
    assert!(matches!(
        methods[..],
        [Method::BasicReturn(_), Method::BasicDeliver(_)]
    ));
    assert_eq!(driven.ready_count(), 0);
}

/// With its consumer, its channel or its connection the name is void: answers are dropped, and returned if
/// mandatory; the name does not come back with a new consumer.
// req: REPLYTO-2
// req: REPLYTO-3
#[test]
fn a_name_holds_as_long_as_its_consumer() {
    let (mut driven, name) = asked();
    driven.method(
        1,
        basic::Cancel {
            consumer_tag: short("a"),
            no_wait: false,
        },
    );
    driven.method(1, consume_replies("b", true));
    driven.sent();
    let methods = answer(&mut driven, &name, true);
    assert!(matches!(methods[..], [Method::BasicReturn(_)]));
    let (mut driven, name) = asked();
    driven.method(1, channel::Close::default());
    driven.sent();
    assert!(answer(&mut driven, &name, false).is_empty());
}

/// What RabbitMQ refuses is refused with its texts.
// req: REPLYTO-1
// req: REPLYTO-2
// req: REPLYTO-4
#[test]
fn misuse_is_refused() {
    let declare = |name: &'static str, passive| queue::Declare {
        queue: short(name),
        passive,
        durable: true,
        ..queue::Declare::default()
    };
    let before = [consume_replies("a", true)];
    let cases: [(&[basic::Consume], BytesMut, &str); 5] = [
        (
            &[],
            framed(1, &consume_replies("a", false)),
            "PRECONDITION_FAILED - reply consumer cannot acknowledge",
        ),
        (
            &before,
            framed(1, &consume_replies("b", true)),
            "PRECONDITION_FAILED - reply consumer already set",
        ),
        (
            &[],
            request(),
            "PRECONDITION_FAILED - fast reply consumer does not exist",
        ),
        (
            &before,
            framed(1, &declare("amq.rabbitmq.reply-tox", false)),
            "NOT_FOUND - no queue 'amq.rabbitmq.reply-tox' in vhost '/'",
        ),
        (
            &before,
            framed(1, &declare("amq.rabbitmq.reply-to.nobody", true)),
            "NOT_FOUND - no queue 'amq.rabbitmq.reply-to.nobody' in vhost '/'",
        ),
    ];
    for (before, octets, expected) in cases {
        let mut driven = Driven::opened(0);
        for consume in before {
            driven.method(1, consume.clone());
        }
        driven.sent();
        driven.bytes(&octets);
        match &driven.methods()[..] {
            [Method::ChannelClose(close)] => assert_eq!(close.reply_text.to_string(), expected),
            other => panic!("expected channel.close, got {other:?}"),
        }
    }
    let mut driven = Driven::opened(0);
    driven.method(1, declare("amq.rabbitmq.reply-to", false));
    let expected = queue::DeclareOk {
        queue: reply_queue(),
        message_count: 0,
        consumer_count: 1,
    };
    assert_eq!(driven.methods(), [expected.into()]);
}
