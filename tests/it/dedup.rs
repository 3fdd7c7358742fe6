//! Duplicates over real sockets: dropped and confirmed, at an exchange and in a queue, across a kill.

use warren::amqp::field::{FieldValue, ShortString};
use warren::amqp::method::Method;

use crate::broker;
use crate::confirm::take_confirms;
use crate::process::{Process, serve};
use crate::topology::{
    bind, delete_exchange, delete_queue, drain, exchange, queue, send, settle, text,
};
use crate::wire::{Client, Event, pattern, unique};

fn keyed(key: &str) -> [(&'static str, FieldValue); 1] {
    [("x-deduplication-header", FieldValue::from(key))]
}

fn texts(client: &mut Client, queue: &ShortString) -> Vec<String> {
    drain(client, queue).iter().map(text).collect()
}

/// An exchange remembers what came through, a queue only what is in it; both confirm duplicates.
// req: DEDUP-1 req: DEDUP-6
#[test]
fn duplicates_are_confirmed_and_dropped() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    client.confirm_select(1);
    let (once, behind, own) = (unique("once"), unique("behind"), unique("own"));
    let size = [("x-cache-size", FieldValue::from(100))];
    exchange(&mut client, &once, "x-message-deduplication", &size);
    queue(&mut client, &behind, &[]);
    bind(&mut client, &once, &behind, "");
    let dedup = [("x-message-deduplication", FieldValue::from(true))];
    queue(&mut client, &own, &dedup);
    let default = ShortString::from_static("");
    for (key, body) in [("1", "a"), ("1", "b"), ("2", "c")] {
        send(&mut client, &once, "", &keyed(key), body.as_bytes());
        send(
            &mut client,
            &default,
            &own.to_string(),
            &keyed(key),
            body.as_bytes(),
        );
    }
    settle(&mut client, 6);
    assert_eq!(texts(&mut client, &behind), ["a", "c"]);
    // Out with a consumer, it is still in the queue.
    let got = client.get(1, &own, false).expect("it waits");
    assert_eq!(text(&got), "a");
    send(&mut client, &default, &own.to_string(), &keyed("1"), b"d");
    take_confirms(&mut client, 1, &mut [7].into());
    client.ack(1, got.delivery_tag(), false);
    send(&mut client, &once, "", &keyed("1"), b"e");
    send(&mut client, &default, &own.to_string(), &keyed("1"), b"f");
    take_confirms(&mut client, 1, &mut [8, 9].into());
    assert!(texts(&mut client, &behind).is_empty());
    assert_eq!(texts(&mut client, &own), ["c", "f"]);
    delete_queue(&mut client, &behind);
    delete_queue(&mut client, &own);
    delete_exchange(&mut client, &once);
}

/// A large message is known by its content, which is stored once, or by its header, like any other.
// req: DEDUP-5 req: DEDUP-6
#[test]
fn a_large_message_is_a_duplicate_like_any_other() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    client.confirm_select(1);
    let (by_content, by_header) = (unique("content"), unique("header"));
    let content = [
        ("x-message-deduplication", FieldValue::from(true)),
        ("x-deduplication-by", FieldValue::from("content")),
    ];
    queue(&mut client, &by_content, &content);
    queue(&mut client, &by_header, &content[..1]);
    let default = ShortString::from_static("");
    let mut large = pattern(3 << 20);
    for key in ["1", "2", "2"] {
        for to in [&by_content, &by_header] {
            send(&mut client, &default, &to.to_string(), &keyed(key), &large);
        }
    }
    settle(&mut client, 6);
    assert_eq!(client.depth(1, &by_content), 1);
    assert_eq!(client.depth(1, &by_header), 2);
    large[1 << 20] ^= 1;
    send(&mut client, &default, &by_content.to_string(), &[], &large);
    take_confirms(&mut client, 1, &mut [7].into());
    assert_eq!(client.depth(1, &by_content), 2);
    delete_queue(&mut client, &by_content);
    delete_queue(&mut client, &by_header);
}

/// Waits until so many messages are confirmed, or more.
fn take_some_confirms(client: &mut Client, count: u64) {
    let mut confirmed = 0;
    while confirmed < count {
        match client.next_on(1) {
            Event::Method(_, Method::BasicAck(ack)) => confirmed = confirmed.max(ack.delivery_tag),
            other => panic!("expected a confirm, got {other:?}"),
        }
    }
}

/// A publisher that sends all again after each kill, confirmed or not, is heard once.
// req: DEDUP-3 req: DEDUP-7
#[test]
fn sending_again_after_a_kill_makes_no_second_message() {
    const COUNT: u64 = 200;
    let folder = tempfile::tempdir().expect("a folder");
    let [once, behind, own] = ["once", "behind", "own"].map(ShortString::from_static);
    let default = ShortString::from_static("");
    for answered in [COUNT / 4, COUNT / 2, COUNT] {
        let process = Process::start(serve(folder.path()));
        let process = process.unwrap_or_else(|ended| panic!("{}", ended.errors));
        let mut client = Client::connect(process.address());
        client.open(1);
        let size = [("x-cache-size", FieldValue::from(1_000))];
        exchange(&mut client, &once, "x-message-deduplication", &size);
        queue(&mut client, &behind, &[]);
        bind(&mut client, &once, &behind, "");
        let dedup = [("x-message-deduplication", FieldValue::from(true))];
        queue(&mut client, &own, &dedup);
        client.confirm_select(1);
        for number in 0..COUNT {
            let key = number.to_string();
            send(&mut client, &once, "", &keyed(&key), key.as_bytes());
            send(
                &mut client,
                &default,
                &own.to_string(),
                &keyed(&key),
                key.as_bytes(),
            );
        }
        take_some_confirms(&mut client, 2 * answered);
        process.signal("KILL");
        process.wait();
    }
    let process = Process::start(serve(folder.path()));
    let process = process.unwrap_or_else(|ended| panic!("{}", ended.errors));
    let mut client = Client::connect(process.address());
    client.open(1);
    let expected: Vec<_> = (0..COUNT).map(|number| number.to_string()).collect();
    for queue in [&behind, &own] {
        let mut found = texts(&mut client, queue);
        found.sort_by_key(|number| number.parse::<u64>().expect("a number"));
        assert_eq!(found, expected, "{queue}");
    }
}
