//! The plugins' exchange types over real sockets: where messages go, and what is refused.

use std::collections::{BTreeMap, BTreeSet};

use warren::amqp::field::{FieldValue, ShortString};
use warren::amqp::method::exchange;

use crate::broker::{self, Own};
use crate::topology::{
    bind, binding, delete_exchange, delete_queue, drain, exchange, queue, send, settle, table, text,
};
use crate::wire::{Client, unique};

const MESSAGES: u64 = 600;

/// An exchange of this type with queues bound to it by these keys.
fn fixture(
    client: &mut Client,
    kind: &'static str,
    keys: &[&str],
) -> (ShortString, Vec<ShortString>) {
    let name = unique(kind);
    exchange(client, &name, kind, &[]);
    let queues: Vec<_> = keys.iter().map(|_| unique("q")).collect();
    for (queue_name, key) in queues.iter().zip(keys) {
        queue(client, queue_name, &[]);
        bind(client, &name, queue_name, key);
    }
    (name, queues)
}

fn delete(client: &mut Client, name: &ShortString, queues: &[ShortString]) {
    for queue in queues {
        delete_queue(client, queue);
    }
    delete_exchange(client, name);
}

/// The bodies in each queue.
fn bodies(client: &mut Client, queues: &[ShortString]) -> Vec<Vec<String>> {
    let of = |queue| drain(client, queue).iter().map(text).collect();
    queues.iter().map(of).collect()
}

/// Each message goes to one queue: by its key where the type hashes it, so that one key always meets
/// the same one, and by chance where it does not.
// req: EXCHANGE-2
#[test]
fn each_message_goes_to_one_of_the_queues() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    client.confirm_select(1);
    let mut published = 0;
    for (kind, key, by_key) in [
        ("x-consistent-hash", "1", true),
        ("x-modulus-hash", "", true),
        ("x-random", "", false),
        ("x-local-random", "", false),
    ] {
        let (name, queues) = fixture(&mut client, kind, &[key; 3]);
        for number in 0..MESSAGES {
            let key = format!("key-{}", number % 60);
            send(&mut client, &name, &key, &[], key.as_bytes());
        }
        published += MESSAGES;
        settle_since(&mut client, published);
        let found = bodies(&mut client, &queues);
        assert_eq!(
            found.iter().map(Vec::len).sum::<usize>() as u64,
            MESSAGES,
            "{kind}"
        );
        assert!(
            found.iter().all(|of| of.len() > 30),
            "{kind} leaves one out"
        );
        let mut homes: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
        for (at, of) in found.iter().enumerate() {
            for key in of {
                homes.entry(key).or_default().insert(at);
            }
        }
        let has_one_home = homes.values().all(|homes| homes.len() == 1);
        assert_eq!(has_one_home, by_key, "{kind}: {homes:?}");
        delete(&mut client, &name, &queues);
    }
}

fn settle_since(client: &mut Client, published: u64) {
    let mut tags = (published - MESSAGES + 1..=published).collect();
    crate::confirm::take_confirms(client, 1, &mut tags);
}

/// A consistent hash spreads by weight, and by a header where it is told to.
// req: EXCHANGE-1
#[test]
fn a_consistent_hash_goes_by_weight_and_header() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    client.confirm_select(1);
    let name = unique("hash");
    let by_header = [("hash-header", FieldValue::from("job"))];
    exchange(&mut client, &name, "x-consistent-hash", &by_header);
    let queues = [unique("light"), unique("heavy")];
    for (queue_name, weight) in queues.iter().zip(["1", "9"]) {
        queue(&mut client, queue_name, &[]);
        bind(&mut client, &name, queue_name, weight);
    }
    for number in 0..MESSAGES {
        let job = format!("job-{number}");
        send(
            &mut client,
            &name,
            "same",
            &[("job", job.as_str().into())],
            b"x",
        );
    }
    settle(&mut client, MESSAGES);
    let counts = bodies(&mut client, &queues);
    let [light, heavy] = [counts[0].len(), counts[1].len()];
    assert_eq!((light + heavy) as u64, MESSAGES);
    assert!(light > 0 && heavy > 4 * light, "{light} and {heavy}");
    delete(&mut client, &name, &queues);
}

/// A weight that is none, a key where none may be, and arguments that make no sense are refused in the
/// plugins' words, and close the channel only.
#[test]
fn what_a_type_does_not_take_is_refused() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let (hash, queues) = fixture(&mut client, "x-consistent-hash", &["5"]);
    let local = unique("local");
    exchange(&mut client, &local, "x-local-random", &[]);
    client.open(2);
    client.send(2, binding(&hash, &queues[0], "much"));
    let refused = client.expect_channel_close(2, 406);
    assert!(
        refused.contains("The binding key must be an integer"),
        "{refused}"
    );
    client.open(2);
    client.send(2, binding(&local, &queues[0], "key"));
    let refused = client.expect_channel_close(2, 406);
    assert!(
        refused.contains("Non empty binding 'key' key not permitted"),
        "{refused}"
    );
    for (kind, arguments, words) in [
        (
            "x-delayed-message",
            table(&[]),
            "'x-delayed-type' must be an existing exchange type",
        ),
        (
            "x-recent-history",
            table(&[("x-recent-history-length", 0.into())]),
            "'x-recent-history-length' must be a positive integer",
        ),
        (
            "x-message-deduplication",
            table(&[]),
            "'x-cache-size' must be an integer greater than 0",
        ),
    ] {
        client.open(2);
        let declare = exchange::Declare {
            exchange: unique("refused"),
            kind: ShortString::from_static(kind),
            arguments,
            ..exchange::Declare::default()
        };
        client.send(2, declare);
        let refused = client.expect_channel_close(2, 406);
        assert!(refused.contains(words), "{kind}: {refused}");
    }
    delete(&mut client, &hash, &queues);
    delete_exchange(&mut client, &local);
}

/// Who binds to a recent-history exchange gets what came last, in order, as it was published.
// req: EXCHANGE-3
#[test]
fn a_late_binding_gets_the_recent_history() {
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let name = unique("history");
    let length = [("x-recent-history-length", FieldValue::from(3))];
    exchange(&mut client, &name, "x-recent-history", &length);
    for number in 0..5 {
        send(&mut client, &name, "k", &[], number.to_string().as_bytes());
    }
    let secret = [("x-recent-history-no-store", FieldValue::from(true))];
    send(&mut client, &name, "k", &secret, b"secret");
    let late = unique("late");
    queue(&mut client, &late, &[]);
    bind(&mut client, &name, &late, "");
    assert_eq!(
        bodies(&mut client, std::slice::from_ref(&late)),
        [["2", "3", "4"]]
    );
    delete(&mut client, &name, &[late]);
}

/// Where a consistent hash sends a key does not change with a restart.
// req: EXCHANGE-1
#[test]
fn a_restart_moves_no_key() {
    let mut own = Own::start(|_| {});
    let mut before = None;
    let mut names = None;
    for _ in 0..2 {
        let mut client = Client::connect(own.address());
        client.open(1);
        client.confirm_select(1);
        let (name, queues) = names
            .get_or_insert_with(|| fixture(&mut client, "x-consistent-hash", &["3", "1", "2"]));
        for number in 0..100 {
            let key = number.to_string();
            send(&mut client, name, &key, &[], key.as_bytes());
        }
        settle(&mut client, 100);
        let found = bodies(&mut client, queues);
        let expected = before.get_or_insert_with(|| found.clone());
        assert_eq!(*expected, found);
        drop(client);
        own = Own::start_in(own.stop(), |_| {});
    }
}
