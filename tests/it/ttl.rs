//! Messages and queues that expire, over real sockets and over restarts. What must be there after its
//! time is waited for; that nothing comes early is for the tests with a made-up clock.

use std::time::Instant;

use warren::amqp::field::ShortString;
use warren::amqp::header::Properties;
use warren::amqp::method::{Method, basic, queue};

use crate::broker::{self, Own};
use crate::confirm::take_confirms;
use crate::dead_letter::{arrival, connect, deaths, declare, publish};
use crate::wire::{Client, Event, PATIENCE, pattern, persistent, unique};

fn expiring(milliseconds: &'static str, properties: Properties) -> Properties {
    Properties {
        expiration: Some(ShortString::from_static(milliseconds)),
        ..properties
    }
}

/// Waits until a passive declare finds no queue of this name.
fn until_gone(client: &mut Client, name: &ShortString) {
    let start = Instant::now();
    loop {
        let declare = queue::Declare {
            queue: name.clone(),
            passive: true,
            ..queue::Declare::default()
        };
        client.send(1, declare);
        match client.next_on(1) {
            // That was a use of it, so look again only after its time.
            Event::Method(_, Method::QueueDeclareOk(_)) => {
                assert!(start.elapsed() < PATIENCE, "{name} is still there");
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            Event::Method(_, Method::ChannelClose(close)) => {
                assert_eq!(close.reply_code, 404);
                return;
            }
            other => panic!("no answer to queue.declare: {other:?}"),
        }
    }
}

/// Ten thousand messages expire and come to the consumer of the dead letters, each once and in order.
#[test]
fn ten_thousand_expire_in_order() {
    const COUNT: u32 = 10_000;
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let [waiting, dead] = ["waiting", "dead"].map(unique);
    declare(&mut client, &dead, None, &[]);
    declare(
        &mut client,
        &waiting,
        Some(&dead),
        &[("x-message-ttl", 300)],
    );
    client.confirm_select(1);
    for number in 0..COUNT {
        let body = number.to_be_bytes();
        publish(&mut client, &waiting, &Properties::default(), &body);
    }
    take_confirms(&mut client, 1, &mut (1..=COUNT.into()).collect());
    client.open(2);
    client.consume(2, &dead, "consumer", true);
    for number in 0..COUNT {
        let letter = client.expect_message(2);
        assert_eq!(letter.body, number.to_be_bytes().as_slice());
    }
    assert_eq!(client.depth(1, &waiting), 0);
    client.expect_quiet();
}

/// Times that are pending when the broker stops go on after the restart: what is over then dies, what has
/// time left keeps it.
#[test]
fn time_goes_on_over_a_restart() {
    let own = Own::start(|_| {});
    let mut client = connect(&own);
    client.confirm_select(1);
    let [short, long, own_time, dead] = ["short", "long", "own", "dead"].map(unique);
    declare(&mut client, &dead, None, &[]);
    declare(
        &mut client,
        &short,
        Some(&dead),
        &[("x-message-ttl", 1_500)],
    );
    declare(
        &mut client,
        &long,
        Some(&dead),
        &[("x-message-ttl", 600_000)],
    );
    declare(&mut client, &own_time, Some(&dead), &[]);
    publish(&mut client, &short, &persistent(), b"short");
    publish(&mut client, &long, &persistent(), b"long");
    let expires = expiring("1500", persistent());
    publish(&mut client, &own_time, &expires, b"own");
    take_confirms(&mut client, 1, &mut (1..=3).collect());
    drop(client);
    let own = Own::start_in(own.stop(), |_| {});
    let mut client = connect(&own);
    let mut bodies = Vec::new();
    for _ in 0..2 {
        let letter = arrival(&mut client, &dead, true);
        bodies.push(letter.body.to_vec());
        assert_eq!(deaths(&letter)[0].1, "expired");
    }
    bodies.sort();
    assert_eq!(bodies, [&b"own"[..], b"short"]);
    assert_eq!(client.depth(1, &short), 0);
    assert_eq!(client.depth(1, &long), 1);
    // And once more: what died stays dead.
    let own = Own::start_in(own.stop(), |_| {});
    let mut client = connect(&own);
    let depths = [&short, &long, &own_time, &dead].map(|queue| client.depth(1, queue));
    assert_eq!(depths, [0, 1, 0, 0]);
}

/// A large body expires like any other, as a reference; without a dead-letter exchange its content goes.
#[test]
fn a_large_body_expires() {
    let own = Own::start(|settings| settings.payload.threshold_bytes = 64 * 1024);
    let mut client = connect(&own);
    client.confirm_select(1);
    let [gone, buried, dead] = ["gone", "buried", "dead"].map(unique);
    declare(&mut client, &dead, None, &[]);
    declare(&mut client, &gone, None, &[]);
    declare(&mut client, &buried, Some(&dead), &[]);
    let body = pattern(300_000);
    let expires = expiring("50", persistent());
    publish(&mut client, &gone, &expires, &body);
    publish(&mut client, &buried, &expires, &body);
    take_confirms(&mut client, 1, &mut (1..=2).collect());
    let letter = arrival(&mut client, &dead, false);
    assert!(letter.body == body, "all of its bytes, in order");
    let properties = letter.header.properties().expect("readable");
    assert_eq!(properties.expiration, None);
    let info = own.store().list().remove(0);
    client.ack(1, letter.delivery_tag(), false);
    let start = Instant::now();
    // The reference of its own that a payload has stays for its retention.
    while own
        .store()
        .info(info.scope, info.id)
        .is_some_and(|info| info.reference_count > 1)
    {
        assert!(start.elapsed() < PATIENCE, "somebody still needs it");
        std::thread::yield_now();
    }
    assert_eq!(client.depth(1, &gone), 0);
}

/// A queue that nobody uses goes; one with a consumer stays until that is gone.
#[test]
fn an_unused_queue_goes() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let name = unique("unused");
    declare(&mut client, &name, None, &[("x-expires", 50)]);
    until_gone(&mut client, &name);

    let mut client = Client::connect(broker::shared());
    client.open(1);
    let name = unique("used");
    declare(&mut client, &name, None, &[("x-expires", 50)]);
    client.consume(1, &name, "consumer", true);
    for _ in 0..3 {
        std::thread::sleep(std::time::Duration::from_millis(60));
        publish(&mut client, &name, &Properties::default(), b"still there");
        assert_eq!(client.expect_message(1).body, "still there");
    }
    let cancel = basic::Cancel {
        consumer_tag: ShortString::from_static("consumer"),
        no_wait: false,
    };
    client.call(1, cancel);
    until_gone(&mut client, &name);
}
