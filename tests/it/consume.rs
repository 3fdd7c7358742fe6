//! Consuming: order, prefetch, redelivery, cancelling, and slow consumers.

use warren::amqp::field::ShortString;
use warren::amqp::method::{Method, basic, queue};

use crate::broker;
use crate::wire::{Client, Event, pattern, unique};

fn number(message: &crate::wire::Message) -> u32 {
    std::str::from_utf8(&message.body)
        .expect("digits")
        .parse()
        .expect("a number")
}

/// Messages reach a consumer in the order in which one channel published them, tags without gaps.
#[test]
fn deliveries_come_in_order() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = client.exclusive_queue(1);
    for i in 0..500 {
        client.publish(1, &queue, i.to_string().as_bytes());
    }
    client.consume(1, &queue, "all", true);
    for i in 500..1_000 {
        client.publish(1, &queue, i.to_string().as_bytes());
    }
    for i in 0..1_000 {
        let message = client.expect_message(1);
        assert_eq!(number(&message), i);
        assert_eq!(message.delivery_tag(), u64::from(i) + 1);
        assert!(!message.redelivered());
    }
}

/// No more than the prefetch count is out at a time; each settled one makes room for one.
#[test]
fn prefetch_bounds_what_is_out() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = client.exclusive_queue(1);
    for i in 0..10 {
        client.publish(1, &queue, i.to_string().as_bytes());
    }
    client.qos(1, 3);
    client.consume(1, &queue, "three", false);
    for i in 0..3 {
        assert_eq!(number(&client.expect_message(1)), i);
    }
    client.expect_quiet();
    client.ack(1, 1, false);
    assert_eq!(number(&client.expect_message(1)), 3);
    client.expect_quiet();
    client.ack(1, 4, true);
    for i in 4..7 {
        assert_eq!(number(&client.expect_message(1)), i);
    }
    client.expect_quiet();
}

/// What a lost connection held comes back in its old order, marked.
#[test]
fn a_lost_connection_gives_back_what_it_held() {
    let mut watcher = Client::connect(broker::shared());
    watcher.open(1);
    let queue = watcher.declare(
        1,
        queue::Declare {
            queue: unique("held"),
            auto_delete: true,
            ..queue::Declare::default()
        },
    );
    for i in 0..5 {
        watcher.publish(1, &queue, i.to_string().as_bytes());
    }
    let mut lost = Client::connect(broker::shared());
    lost.open(1);
    lost.qos(1, 3);
    // The watcher's own consumer keeps the queue, but takes nothing.
    watcher.qos(1, 1);
    lost.consume(1, &queue, "lost", false);
    for i in 0..3 {
        assert_eq!(number(&lost.expect_message(1)), i);
    }
    watcher.consume(1, &queue, "keeps", false);
    let third = watcher.expect_message(1);
    assert_eq!(number(&third), 3);
    drop(lost);
    watcher.ack(1, third.delivery_tag(), false);
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let message = watcher.expect_message(1);
        seen.push((number(&message), message.redelivered()));
        watcher.ack(1, message.delivery_tag(), false);
    }
    seen.sort_unstable();
    assert_eq!(seen, [(0, true), (1, true), (2, true), (4, false)]);
}

/// A rejected message goes back to its place, or away.
#[test]
fn rejecting_puts_back_or_drops() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = client.exclusive_queue(1);
    for body in ["a", "b", "c"] {
        client.publish(1, &queue, body.as_bytes());
    }
    let first = client.get(1, &queue, false).expect("published");
    let second = client.get(1, &queue, false).expect("published");
    let reject = |message: &crate::wire::Message, requeue| basic::Reject {
        delivery_tag: message.delivery_tag(),
        requeue,
    };
    client.send(1, reject(&second, true));
    client.send(1, reject(&first, false));
    let bodies: Vec<_> = std::iter::from_fn(|| client.get(1, &queue, true))
        .map(|message| (message.body.clone(), message.redelivered()))
        .collect();
    assert_eq!(bodies, [("b".into(), true), ("c".into(), false)]);
}

/// After cancel-ok nothing more comes for the consumer, and what is published waits.
#[test]
fn a_cancelled_consumer_gets_nothing_more() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = client.exclusive_queue(1);
    client.consume(1, &queue, "gone", true);
    client.publish(1, &queue, b"before");
    assert_eq!(client.expect_message(1).body, "before");
    let consumer_tag = ShortString::from_static("gone");
    client.call(
        1,
        basic::Cancel {
            consumer_tag,
            no_wait: false,
        },
    );
    client.publish(1, &queue, b"behind");
    client.expect_quiet();
    assert_eq!(
        client.get(1, &queue, true).expect("published").body,
        "behind"
    );
}

/// Who deletes a queue ends its consumers, who hear of it.
#[test]
fn a_deleted_queue_cancels_its_consumers() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    client.open(2);
    let queue = client.exclusive_queue(1);
    client.consume(1, &queue, "told", true);
    client.call(
        2,
        queue::Delete {
            queue,
            ..queue::Delete::default()
        },
    );
    match client.expect_method(1, "basic.cancel") {
        Method::BasicCancel(cancel) => assert_eq!(cancel.consumer_tag, "told"),
        other => panic!("{} is not basic.cancel", other.name()),
    }
}

/// Two consumers share a queue in turn.
#[test]
fn consumers_take_turns() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let queue = client.exclusive_queue(1);
    client.consume(1, &queue, "one", true);
    client.consume(1, &queue, "two", true);
    for i in 0..10 {
        client.publish(1, &queue, i.to_string().as_bytes());
    }
    let tags: Vec<_> = (0..10)
        .map(|_| match client.expect_message(1).method {
            Method::BasicDeliver(deliver) => deliver.consumer_tag.to_string(),
            other => panic!("{} is not basic.deliver", other.name()),
        })
        .collect();
    assert_eq!(tags, ["one", "two"].repeat(5));
}

/// A consumer that does not read holds up nobody: another takes what is left of the queue.
#[test]
fn a_consumer_that_does_not_read_holds_up_nobody() {
    let mut publisher = Client::connect(broker::shared());
    publisher.open(1);
    let queue = publisher.declare(
        1,
        queue::Declare {
            queue: unique("slow"),
            auto_delete: true,
            ..queue::Declare::default()
        },
    );
    let mut slow = Client::connect(broker::shared());
    slow.open(1);
    slow.consume(1, &queue, "slow", true);
    let body = pattern(64 * 1024);
    // 64 MiB: more than its socket and the broker's bound for one connection hold together.
    let message_count = 1_024;
    for _ in 0..message_count {
        publisher.publish(1, &queue, &body);
    }
    publisher.qos(1, 0);
    let mut quick = Client::connect(broker::shared());
    quick.open(1);
    quick.consume(1, &queue, "quick", true);
    let message = quick.expect_message(1);
    assert_eq!(message.body, body);
    // And the slow one gets its own, every octet of it, once it reads.
    assert_eq!(slow.expect_message(1).body, body);
    let mut total = 2;
    while total < message_count {
        for client in [&mut slow, &mut quick] {
            while let Some(event) = client.next_within(std::time::Duration::from_millis(50)) {
                match event {
                    Event::Content(_, message) => assert_eq!(message.body, body),
                    other => panic!("expected a message, got {other:?}"),
                }
                total += 1;
            }
        }
    }
    assert_eq!(total, message_count, "each message once");
}
