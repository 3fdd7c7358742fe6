//! Transactions, driven by hand.

use super::*;
use crate::amqp::field::FieldValue;

/// A session with a transaction open on channel 1.
fn selected() -> Driven {
    let mut driven = Driven::opened(0);
    driven.method(1, tx::Select {});
    driven.sent();
    driven
}

/// What a commit gives the channel's own consumer, and what it returns, comes before its answer.
// req: TX-2
#[test]
fn a_commit_is_answered_behind_what_comes_of_it() {
    let mut driven = selected();
    driven.method(1, consume(true));
    driven.sent();
    driven.publish(1, 5);
    let nowhere = basic::Publish {
        routing_key: short("nowhere"),
        mandatory: true,
        ..basic::Publish::default()
    };
    let header = ContentHeader::new(1, &Properties::default());
    let mut octets = BytesMut::new();
    frame::put_method_with_content(&mut octets, 1, &nowhere, &header, b"x", 4_096);
    driven.bytes(&octets);
    assert_eq!(driven.methods(), []);
    driven.method(1, tx::Commit {});
    assert!(matches!(
        driven.methods()[..],
        [
            Method::BasicReturn(_),
            Method::BasicDeliver(_),
            Method::TxCommitOk(_)
        ]
    ));
}

/// A queue that refuses a message of the commit closes the channel; what the others took stays.
// req: TX-3
#[test]
fn a_refused_message_makes_a_commit_partial() {
    let mut driven = selected();
    driven.method(
        2,
        queue::Declare {
            queue: short("full"),
            arguments: FieldTable::from([
                ("x-max-length", FieldValue::LongInt(1)),
                ("x-overflow", FieldValue::from("reject-publish")),
            ]),
            ..queue::Declare::default()
        },
    );
    driven.sent();
    let publish = basic::Publish {
        routing_key: short("full"),
        ..basic::Publish::default()
    };
    let header = ContentHeader::new(1, &Properties::default());
    let mut octets = BytesMut::new();
    for _ in 0..2 {
        frame::put_method_with_content(&mut octets, 1, &publish, &header, b"x", 4_096);
    }
    octets.extend_from_slice(&published(1, 1));
    driven.bytes(&octets);
    driven.method(1, tx::Commit {});
    match &driven.methods()[..] {
        [Method::ChannelClose(close)] => {
            let text = close.reply_text.to_string();
            assert_eq!(text, "PRECONDITION_FAILED - partial tx completion");
            assert_eq!((close.class_id, close.method_id), (90, 20));
        }
        other => panic!("expected channel.close, got {other:?}"),
    }
    assert_eq!(driven.ready_count(), 1);
}

/// A transaction without end is refused at its bound, and nothing of it counts.
// req: TX-4
#[test]
fn an_open_transaction_is_bounded() {
    let mut driven = selected();
    let octets = published(1, 9_000);
    let mut count = 0;
    while driven.session.is_open() {
        driven.bytes(&octets);
        count += 1;
    }
    assert_eq!(driven.connection_close().0, 506);
    assert!((14_000..15_000).contains(&count), "{count}");
    assert_eq!(driven.ready_count(), 0);
}
