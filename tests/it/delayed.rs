//! Delayed messages over real sockets: when they come, and that a kill neither loses nor doubles one.

use std::collections::BTreeMap;
use std::time::Instant;

use warren::amqp::field::{FieldTable, FieldValue, ShortString};

use crate::broker;
use crate::confirm::take_confirms;
use crate::process::{Process, serve};
use crate::topology::{bind, delete_exchange, delete_queue, drain, exchange, queue, send, text};
use crate::wire::{Client, Message, PATIENCE, unique};

fn delay(ms: i32) -> [(&'static str, FieldValue); 1] {
    [("x-delay", FieldValue::from(ms))]
}

fn delay_of(message: &Message) -> Option<FieldValue> {
    let headers: FieldTable = message.header.headers()?;
    headers.get("x-delay")
}

fn topology(client: &mut Client, name: &ShortString, queue_name: &ShortString) {
    let kind = [("x-delayed-type", FieldValue::from("topic"))];
    exchange(client, name, "x-delayed-message", &kind);
    queue(client, queue_name, &[]);
    bind(client, name, queue_name, "a.#");
}

/// Messages come in the order of their times, with the delay negated; those that ask for none at once.
// req: DELAY-1 req: DELAY-2
#[test]
fn messages_come_when_their_time_has_come() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let (name, late) = (unique("later"), unique("late"));
    topology(&mut client, &name, &late);
    client.open(2);
    client.consume(2, &late, "tag", true);
    for (ms, body) in [(900, "3"), (300, "1"), (600, "2")] {
        send(&mut client, &name, "a.b", &delay(ms), body.as_bytes());
    }
    send(&mut client, &name, "elsewhere", &delay(1), b"lost");
    send(&mut client, &name, "a", &[], b"now");
    for (body, expected) in [
        ("now", None),
        ("1", Some(-300)),
        ("2", Some(-600)),
        ("3", Some(-900)),
    ] {
        let message = client.expect_message(2);
        assert_eq!(text(&message), body);
        assert_eq!(delay_of(&message), expected.map(FieldValue::from));
    }
    delete_queue(&mut client, &late);
    delete_exchange(&mut client, &name);
}

/// A server is killed while messages wait, while they become due, and while more are published: what was
/// confirmed comes, once, however often that happens.
// req: DELAY-3 req: DELAY-4 req: DELAY-5
#[test]
fn a_killed_server_keeps_each_delayed_message_once() {
    const ROUNDS: u64 = 5;
    const CONFIRMED: u64 = 150;
    const UNDER_WAY: u64 = 40;
    let folder = tempfile::tempdir().expect("a folder");
    let [name, late] = ["later", "late"].map(ShortString::from_static);
    let start = || {
        let process = Process::start(serve(folder.path()));
        process.unwrap_or_else(|ended| panic!("{}", ended.errors))
    };
    for round in 0..ROUNDS {
        let process = start();
        let mut client = Client::connect(process.address());
        client.open(1);
        topology(&mut client, &name, &late);
        client.confirm_select(1);
        let send_number = |client: &mut Client, at: u64| {
            // Due before, while and after the process is killed.
            let ms = i32::try_from(1 + at * 37 % 1_500).expect("short");
            let body = format!("{round} {at}");
            send(client, &name, "a.b", &delay(ms), body.as_bytes());
        };
        (0..CONFIRMED).for_each(|at| send_number(&mut client, at));
        take_confirms(&mut client, 1, &mut (1..=CONFIRMED).collect());
        (CONFIRMED..CONFIRMED + UNDER_WAY).for_each(|at| send_number(&mut client, at));
        std::thread::sleep(std::time::Duration::from_millis(round * 200));
        process.signal("KILL");
        process.wait();
    }
    let process = start();
    let mut client = Client::connect(process.address());
    client.open(1);
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let begin = Instant::now();
    let is_missing = |seen: &BTreeMap<String, u32>| {
        let mut confirmed = (0..ROUNDS).flat_map(|round| (0..CONFIRMED).map(move |at| (round, at)));
        confirmed.find(|(round, at)| !seen.contains_key(&format!("{round} {at}")))
    };
    while let Some(missing) = is_missing(&seen) {
        assert!(
            begin.elapsed() < PATIENCE,
            "{missing:?} was confirmed and does not come"
        );
        for message in drain(&mut client, &late) {
            *seen.entry(text(&message)).or_default() += 1;
        }
    }
    // What was under way may be there or not, later too; never twice.
    std::thread::sleep(std::time::Duration::from_millis(1_600));
    for message in drain(&mut client, &late) {
        *seen.entry(text(&message)).or_default() += 1;
    }
    let doubled = seen.iter().find(|(_, count)| **count > 1);
    assert_eq!(doubled, None);
}
