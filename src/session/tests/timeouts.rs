//! Deliveries that nobody acknowledges.

use super::*;
use crate::amqp::field::FieldValue;

/// A channel that leaves a delivery unacknowledged for longer than its queue allows is closed, and the
/// message goes back; one that acknowledges in time, or whose queue says nothing, stays open.
// req: ACKTIME-1
#[test]
fn a_channel_that_does_not_acknowledge_is_closed() {
    let mut driven = Driven::opened(0);
    driven.method(
        1,
        queue::Declare {
            queue: short("timed"),
            arguments: FieldTable::from([("x-consumer-timeout", FieldValue::LongInt(10_000))]),
            ..queue::Declare::default()
        },
    );
    let timed = basic::Consume {
        queue: short("timed"),
        ..consume(false)
    };
    driven.method(2, consume(false));
    driven.method(1, timed);
    let publish = basic::Publish {
        routing_key: short("timed"),
        ..basic::Publish::default()
    };
    let header = ContentHeader::new(1, &Properties::default());
    let mut octets = BytesMut::new();
    for _ in 0..2 {
        frame::put_method_with_content(&mut octets, 1, &publish, &header, b"x", 4_096);
    }
    driven.bytes(&octets);
    driven.publish(2, 1);
    driven.sent();
    driven.pass(Duration::from_secs(8));
    driven.method(1, ack(1, false));
    driven.pass(Duration::from_secs(1));
    assert_eq!(driven.methods(), []);
    driven.pass(Duration::from_secs(4));
    match &driven.methods()[..] {
        [Method::ChannelClose(close)] => {
            let text = close.reply_text.to_string();
            let expected = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. \
                            Timeout value used: 10000 ms. This timeout value can be configured";
            assert!(text.starts_with(expected), "{text}");
            assert_eq!(
                (close.reply_code, close.class_id, close.method_id),
                (406, 0, 0)
            );
        }
        other => panic!("expected channel.close, got {other:?}"),
    }
    let vhost = driven.broker.vhost(b"/").expect("never deleted");
    let depth = vhost.queue(b"timed").expect("declared").depth();
    assert_eq!(depth.ready_count, 1);
    driven.method(2, ack(1, false));
    driven.pass(Duration::from_secs(100));
    assert!(driven.session.is_open());
}
