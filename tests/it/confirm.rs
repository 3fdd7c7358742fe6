//! Publisher confirms: each publish is answered once, and after its return.

use std::collections::BTreeSet;

use warren::amqp::field::ShortString;
use warren::amqp::header::Properties;
use warren::amqp::method::{Method, basic, queue};

use crate::broker;
use crate::wire::{Client, Event, persistent, unique};

/// Takes confirms until none of `open` is left; each must be confirmed once.
pub(crate) fn take_confirms(client: &mut Client, channel: u16, open: &mut BTreeSet<u64>) {
    while !open.is_empty() {
        match client.next_on(channel) {
            Event::Method(_, Method::BasicAck(ack)) if ack.multiple => {
                let settled: Vec<_> = open.range(..=ack.delivery_tag).copied().collect();
                assert!(
                    settled.contains(&ack.delivery_tag),
                    "{} was open",
                    ack.delivery_tag
                );
                settled.iter().for_each(|tag| assert!(open.remove(tag)));
            }
            Event::Method(_, Method::BasicAck(ack)) => {
                assert!(
                    open.remove(&ack.delivery_tag),
                    "{} was open",
                    ack.delivery_tag
                );
            }
            other => panic!("expected a confirm, got {other:?}"),
        }
    }
}

/// Every publish to a durable queue is confirmed, persistent or not, none twice.
#[test]
fn every_publish_is_confirmed_once() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = client.declare(
        1,
        queue::Declare {
            queue: unique("confirmed"),
            durable: true,
            ..queue::Declare::default()
        },
    );
    client.confirm_select(1);
    let publish = basic::Publish {
        routing_key: queue.clone(),
        ..basic::Publish::default()
    };
    let mut open = BTreeSet::new();
    for tag in 1..=1_000 {
        let properties = if tag % 3 == 0 {
            Properties::default()
        } else {
            persistent()
        };
        client.publish_with(1, &publish, &properties, tag.to_string().as_bytes());
        open.insert(tag);
        if open.len() >= 100 {
            take_confirms(&mut client, 1, &mut open);
        }
    }
    take_confirms(&mut client, 1, &mut open);
    client.expect_quiet();
    assert_eq!(client.depth(1, &queue), 1_000);
    client.call(
        1,
        queue::Delete {
            queue,
            ..queue::Delete::default()
        },
    );
}

/// An unroutable mandatory message is returned first, then confirmed.
#[test]
fn a_return_comes_before_its_confirm() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    client.confirm_select(1);
    let publish = basic::Publish {
        routing_key: unique("nowhere"),
        mandatory: true,
        ..basic::Publish::default()
    };
    for _ in 0..3 {
        client.publish_with(1, &publish, &persistent(), b"back");
    }
    let (mut returned_count, mut confirmed_to) = (0, 0);
    while confirmed_to < 3 {
        match client.next_on(1) {
            Event::Content(_, message) => {
                assert!(matches!(message.method, Method::BasicReturn(_)));
                returned_count += 1;
            }
            Event::Method(_, Method::BasicAck(ack)) => {
                confirmed_to = ack.delivery_tag;
                assert!(
                    returned_count >= confirmed_to,
                    "confirmed before it was returned"
                );
            }
            other => panic!("expected a return or a confirm, got {other:?}"),
        }
    }
}

/// Channels count for themselves, from `confirm.select` on.
#[test]
fn channels_count_for_themselves() {
    let mut client = Client::connect(broker::shared());
    for channel in [1, 2] {
        client.open(channel);
    }
    let queue = client.exclusive_queue(1);
    client.publish(2, &queue, b"not counted");
    for channel in [1, 2] {
        client.confirm_select(channel);
        client.publish(channel, &queue, b"counted");
        take_confirms(&mut client, channel, &mut BTreeSet::from([1]));
    }
    assert_eq!(client.depth(1, &queue), 3);
}

/// A confirmed message of a consumer's own connection reaches it as well.
#[test]
fn a_confirmed_message_is_delivered() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    client.open(2);
    let queue = client.exclusive_queue(1);
    client.consume(2, &queue, "own", true);
    client.confirm_select(1);
    let publish = basic::Publish {
        routing_key: queue,
        exchange: ShortString::EMPTY,
        ..basic::Publish::default()
    };
    client.publish_with(1, &publish, &persistent(), b"x");
    take_confirms(&mut client, 1, &mut BTreeSet::from([1]));
    assert_eq!(client.expect_message(2).body, "x");
}
