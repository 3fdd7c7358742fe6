//! Memory and disk alarms over sockets: publishers wait, consumers go on, nobody is cut off.

use std::time::Duration;

use warren::amqp::field::ShortString;
use warren::amqp::method::{Method, queue};
use warren::config::MemoryWatermark;

use crate::broker::Own;
use crate::wire::{Client, Event, Opening, unique};

/// A watermark that every process is above, and one that none is.
const ABOVE: MemoryWatermark = MemoryWatermark::Absolute(1_000);
const BELOW: MemoryWatermark = MemoryWatermark::Relative(1.0);

fn told(own: &Own, heartbeat: u16) -> Client {
    let opening = Opening {
        heartbeat,
        ..Opening::default()
    };
    let mut client = Client::connect_as(own.address(), &opening);
    client.open(1);
    client
}

fn expect_blocked(client: &mut Client, expected: &str) {
    match client.next_on(0) {
        Event::Method(0, Method::ConnectionBlocked(blocked)) => {
            assert_eq!(blocked.reason.to_string(), expected);
        }
        other => panic!("expected connection.blocked, got {other:?}"),
    }
}

fn expect_unblocked(client: &mut Client) {
    match client.next_on(0) {
        Event::Method(0, Method::ConnectionUnblocked(_)) => {}
        other => panic!("expected connection.unblocked, got {other:?}"),
    }
}

fn declared(client: &mut Client, name: &str) -> ShortString {
    client.declare(
        1,
        queue::Declare {
            queue: unique(name),
            ..queue::Declare::default()
        },
    )
}

/// The watermark is set while the broker runs: the next publish waits, longer than heartbeats allow silence,
/// a consumer drains what is there, and the publish arrives when the watermark is lifted.
// req: ALARM-1
// req: ALARM-2
// req: ALARM-3
#[test]
fn publishers_wait_and_consumers_go_on() {
    let own = Own::start(|settings| settings.alarm.disk_free_bytes_min = Some(1));
    let (mut publisher, mut consumer) = (told(&own, 1), told(&own, 0));
    let queue = declared(&mut consumer, "alarm");
    publisher.publish(1, &queue, b"before");
    while consumer.depth(1, &queue) != 1 {
        std::thread::yield_now();
    }
    own.alarms().set_memory_watermark(ABOVE);
    publisher.publish(1, &queue, b"waits");
    expect_blocked(&mut publisher, "low on memory");
    let got = consumer.get(1, &queue, true).expect("a message");
    assert_eq!(&got.body[..], b"before");
    // A heartbeat of one second: without the exception it would be cut off within three.
    std::thread::sleep(Duration::from_secs(4));
    assert!(consumer.get(1, &queue, true).is_none());
    own.alarms().set_memory_watermark(BELOW);
    expect_unblocked(&mut publisher);
    while consumer.depth(1, &queue) != 1 {
        std::thread::yield_now();
    }
    let got = consumer.get(1, &queue, true).expect("a message");
    assert_eq!(&got.body[..], b"waits");
}

/// A broker whose disk is too full at the start takes no publish and says why.
// req: ALARM-4
#[test]
fn a_disk_with_too_little_room_blocks_from_the_start() {
    let own = Own::start(|settings| settings.alarm.disk_free_bytes_min = Some(u64::MAX));
    let mut publisher = told(&own, 0);
    let queue = declared(&mut publisher, "full");
    publisher.publish(1, &queue, b"waits");
    expect_blocked(&mut publisher, "low on disk");
    publisher.expect_quiet();
}
