//! `prefetch_size`: refused as RabbitMQ does, or a window of unacknowledged bytes where the settings say so.

use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::method::{Method, basic, queue};

use crate::broker::{self, Own};
use crate::wire::{Client, unique};

/// A broker that counts bytes; bodies of 4 KiB are large to it.
fn counting() -> Own {
    Own::start(|settings| {
        settings.connection.counts_prefetch_size = true;
        settings.payload.threshold_bytes = 4096;
    })
}

fn limit(client: &mut Client, prefetch_size: u32, prefetch_count: u16, global: bool) {
    let qos = basic::Qos {
        prefetch_size,
        prefetch_count,
        global,
    };
    assert!(matches!(client.call(1, qos), Method::BasicQosOk(_)));
}

/// A connection with a queue of bodies of these sizes.
fn with_bodies(own: &Own, sizes: &[usize]) -> (Client, ShortString) {
    let mut client = Client::connect(own.address());
    client.open(1);
    let queue = client.exclusive_queue(1);
    for size in sizes {
        client.publish(1, &queue, &vec![b'x'; *size]);
    }
    (client, queue)
}

/// The delivery tag of the next message, whose body has this size.
fn expect_size(client: &mut Client, size: usize) -> u64 {
    let message = client.expect_message(1);
    assert_eq!(message.body.len(), size);
    message.delivery_tag()
}

/// Nobody who did not ask for it gets another answer than RabbitMQ's.
// req: QOS-1
#[test]
fn a_size_is_refused_by_default() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let qos = basic::Qos {
        prefetch_size: 100,
        ..basic::Qos::default()
    };
    client.send(1, qos);
    let text = client.expect_connection_close(540);
    assert!(text.contains("prefetch_size!=0 (100)"), "{text}");
}

/// What fits goes ahead, to the last byte; what does not waits until something is settled.
// req: QOS-2
#[test]
fn a_consumer_holds_no_more_bytes_than_its_window() {
    let own = counting();
    let (mut client, queue) = with_bodies(&own, &[60, 40, 1, 0, 99]);
    limit(&mut client, 100, 0, false);
    client.consume(1, &queue, "c", false);
    let first = expect_size(&mut client, 60);
    let second = expect_size(&mut client, 40);
    client.expect_quiet();
    client.ack(1, first, false);
    expect_size(&mut client, 1);
    let empty = expect_size(&mut client, 0);
    client.expect_quiet();
    client.ack(1, second, false);
    expect_size(&mut client, 99);
    client.ack(1, empty, false);
    client.expect_quiet();
}

/// The limit concerns sending ahead only: a message larger than the window goes alone.
#[test]
fn what_is_larger_than_the_window_goes_when_nothing_is_out() {
    let own = counting();
    let (mut client, queue) = with_bodies(&own, &[500, 1, 600, 2]);
    limit(&mut client, 100, 0, false);
    client.consume(1, &queue, "c", false);
    for size in [500, 1, 600, 2] {
        let tag = expect_size(&mut client, size);
        client.expect_quiet();
        client.ack(1, tag, false);
    }
    client.expect_quiet();
}

/// The count holds beside the size, and requeueing makes room as acknowledging does.
#[test]
fn count_and_size_hold_together() {
    let own = counting();
    let (mut client, queue) = with_bodies(&own, &[10, 20, 80, 30]);
    limit(&mut client, 100, 2, false);
    client.consume(1, &queue, "c", false);
    let first = expect_size(&mut client, 10);
    let second = expect_size(&mut client, 20);
    client.expect_quiet();
    client.ack(1, first, false);
    let third = expect_size(&mut client, 80);
    client.expect_quiet();
    let reject = basic::Reject {
        delivery_tag: second,
        requeue: true,
    };
    client.send(1, reject);
    let again = expect_size(&mut client, 20);
    client.expect_quiet();
    client.ack(1, again, false);
    // 80 and 30 are more than 100.
    client.expect_quiet();
    client.ack(1, third, false);
    expect_size(&mut client, 30);
}

/// With `global`, a channel's consumers share one window, which also takes what was out before.
#[test]
fn a_channel_shares_its_window() {
    let own = counting();
    let (mut client, one) = with_bodies(&own, &[50]);
    let other = client.exclusive_queue(1);
    client.consume(1, &other, "other", false);
    client.consume(1, &one, "one", false);
    let first = expect_size(&mut client, 50);
    limit(&mut client, 100, 0, true);
    client.publish(1, &other, &[b'y'; 51]);
    client.publish(1, &one, &[b'y'; 40]);
    let second = expect_size(&mut client, 40);
    client.expect_quiet();
    client.ack(1, second, false);
    client.expect_quiet();
    client.ack(1, first, false);
    expect_size(&mut client, 51);
    // Lifting it lets all of them go.
    client.publish(1, &one, &[b'z'; 70]);
    client.expect_quiet();
    limit(&mut client, 0, 0, true);
    expect_size(&mut client, 70);
}

/// Both windows hold: what one of them refuses does not count in the other.
#[test]
fn a_consumers_window_and_its_channels_hold_together() {
    let own = counting();
    let (mut client, queue) = with_bodies(&own, &[60, 60]);
    let other = client.exclusive_queue(1);
    limit(&mut client, 100, 0, false);
    limit(&mut client, 200, 0, true);
    client.consume(1, &other, "second", false);
    client.consume(1, &queue, "narrow", false);
    let first = expect_size(&mut client, 60);
    client.expect_quiet();
    client.publish(1, &other, &[b'y'; 100]);
    expect_size(&mut client, 100);
    client.publish(1, &other, &[b'y'; 1]);
    client.ack(1, first, false);
    expect_size(&mut client, 60);
    client.expect_quiet();
}

/// Without acknowledgements nothing is out, and what is fetched was asked for.
#[test]
fn no_ack_and_get_are_outside() {
    let own = counting();
    let (mut client, queue) = with_bodies(&own, &[90, 90, 90, 90]);
    limit(&mut client, 100, 0, false);
    assert!(client.get(1, &queue, false).is_some());
    client.consume(1, &queue, "c", true);
    for _ in 0..3 {
        expect_size(&mut client, 90);
    }
    let (mut client, queue) = with_bodies(&own, &[90, 90]);
    limit(&mut client, 100, 0, false);
    assert!(client.get(1, &queue, false).is_some());
    client.consume(1, &queue, "c", false);
    expect_size(&mut client, 90);
}

/// Large bodies count with their whole size, also for who takes only the manifest.
#[test]
fn large_payloads_count_with_their_size() {
    let own = counting();
    let (mut client, queue) = with_bodies(&own, &[10_000, 20_000, 30_000]);
    limit(&mut client, 30_000, 0, false);
    client.consume(1, &queue, "whole", false);
    expect_size(&mut client, 10_000);
    let second = expect_size(&mut client, 20_000);
    client.expect_quiet();
    client.ack(1, second, true);
    expect_size(&mut client, 30_000);

    let (mut client, queue) = with_bodies(&own, &[10_000, 25_000]);
    limit(&mut client, 30_000, 0, false);
    let consume = basic::Consume {
        queue,
        consumer_tag: "manifests".try_into().expect("short"),
        arguments: FieldTable::from([("x-payload", FieldValue::from("manifest"))]),
        ..basic::Consume::default()
    };
    client.call(1, consume);
    let first = client.expect_message(1);
    assert!(first.body.len() < 10_000, "a manifest");
    client.expect_quiet();
    client.ack(1, first.delivery_tag(), false);
    client.expect_message(1);
}

/// A consumer that is full leaves the queue to the others, and what it held counts for nobody once it is gone.
#[test]
fn others_go_on_while_one_is_full() {
    let own = counting();
    let (mut full, _) = with_bodies(&own, &[]);
    let queue = full.declare(
        1,
        queue::Declare {
            queue: unique("shared"),
            ..queue::Declare::default()
        },
    );
    limit(&mut full, 10, 0, false);
    full.consume(1, &queue, "full", false);
    full.publish(1, &queue, &[b'a'; 10]);
    expect_size(&mut full, 10);
    full.publish(1, &queue, &[b'b'; 5]);
    full.expect_quiet();
    let mut other = Client::connect(own.address());
    other.open(1);
    other.consume(1, &queue, "other", false);
    expect_size(&mut other, 5);
    drop(full);
    let back = other.expect_message(1);
    assert_eq!((back.body.len(), back.redelivered()), (10, true));
}

/// Quorum queues and streams know a consumer's window, and no channel's.
#[test]
fn quorum_queues_and_streams_have_windows_too() {
    let own = counting();
    for kind in ["quorum", "stream"] {
        let mut client = Client::connect(own.address());
        client.open(1);
        let declare = queue::Declare {
            queue: unique(kind),
            durable: true,
            arguments: FieldTable::from([("x-queue-type", FieldValue::from(kind))]),
            ..queue::Declare::default()
        };
        let queue = client.declare(1, declare);
        limit(&mut client, 100, 10, false);
        client.consume(1, &queue, "c", false);
        for size in [70, 30, 20] {
            client.publish(1, &queue, &vec![b'x'; size]);
        }
        let first = expect_size(&mut client, 70);
        expect_size(&mut client, 30);
        client.expect_quiet();
        client.ack(1, first, false);
        expect_size(&mut client, 20);

        limit(&mut client, 100, 0, true);
        let consume = basic::Consume {
            queue,
            ..basic::Consume::default()
        };
        client.send(1, consume);
        let text = client.expect_connection_close(540);
        assert!(text.contains("global"), "{text}");
    }
}
