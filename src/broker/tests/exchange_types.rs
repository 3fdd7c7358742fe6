//! The plugins' exchange types, driven through a vhost.

use crate::amqp::field::{FieldTable, FieldValue};
use crate::amqp::header::Properties;

use super::super::*;
use super::kit::{Client, broker, inline};

fn client() -> Client {
    Client::new(&broker())
}

fn counts(client: &Client, queues: &[&str]) -> Vec<usize> {
    let depth = |queue: &&str| client.queue(queue).depth().ready_count;
    queues.iter().map(depth).collect()
}

/// Random, hashing and modulus exchanges give each message to one queue, also behind another exchange,
/// and a channel that repeats itself does not repeat the choice of a random one.
// req: EXCHANGE-2
#[test]
fn each_message_goes_to_one_queue() {
    let queues = ["a", "b", "c"];
    for (kind, key, spreads_one_key) in [
        ("x-random", "", true),
        ("x-local-random", "", true),
        ("x-modulus-hash", "", false),
        ("x-consistent-hash", "1", false),
    ] {
        let mut client = client();
        client
            .exchange("x", kind, &[], FieldTable::EMPTY)
            .expect("a new exchange");
        client
            .exchange("front", "fanout", &[], FieldTable::EMPTY)
            .expect("a new exchange");
        client.bind_exchange("front", "x", "").expect("both there");
        for queue in queues {
            client.declare(queue, &[]).expect("a new queue");
            client.bind("x", queue, key).expect("both there");
        }
        for number in 0..300 {
            client.publish("x", "same", "1");
            client.publish("front", &format!("key-{number}"), "2");
        }
        let counts = counts(&client, &queues);
        assert_eq!(counts.iter().sum::<usize>(), 600, "{kind}");
        assert!(counts.iter().all(|count| *count > 40), "{kind}: {counts:?}");
        let has_all = counts.iter().any(|count| *count >= 300);
        assert_eq!(has_all, !spreads_one_key, "{kind}: {counts:?}");
    }
}

#[test]
fn bindings_that_a_type_does_not_take_are_refused() {
    let client = client();
    client
        .exchange("hash", "x-consistent-hash", &[], FieldTable::EMPTY)
        .expect("a new exchange");
    client
        .exchange("local", "x-local-random", &[], FieldTable::EMPTY)
        .expect("a new exchange");
    client.declare("q", &[]).expect("a new queue");
    let refused = client.bind("hash", "q", "x").expect_err("no weight");
    assert_eq!(
        refused.to_string(),
        "The binding key must be an integer: <<\"x\">>"
    );
    assert_eq!(refused.reply_code().number(), 406);
    let refused = client.bind("local", "q", "k").expect_err("a key");
    assert_eq!(
        refused.to_string(),
        "Non empty binding 'k' key not permitted"
    );
    assert!(client.bind_exchange("local", "hash", "").is_err());
    client.bind("hash", "q", "1").expect("a weight");
    assert_eq!(client.vhost().bindings().len(), 1);
}

/// Who binds later gets what was kept, in order, with the exchange and key of the publish; also an
/// exchange, which passes it on.
#[test]
fn a_recent_history_exchange_gives_its_last_messages_to_who_binds() {
    let mut client = client();
    let length = FieldTable::from([("x-recent-history-length", FieldValue::from(3))]);
    client
        .exchange("x", "x-recent-history", &[], length)
        .expect("a new exchange");
    client
        .exchange("y", "fanout", &[], FieldTable::EMPTY)
        .expect("a new exchange");
    for queue in ["early", "late", "behind"] {
        client.declare(queue, &[]).expect("a new queue");
    }
    client.bind("x", "early", "any").expect("both there");
    client.bind("y", "behind", "").expect("both there");
    for number in 1..=5 {
        client.publish("x", "k", &number.to_string());
    }
    let headers = FieldTable::from([("x-recent-history-no-store", FieldValue::from(true))]);
    let secret = Properties {
        headers: Some(headers),
        ..Properties::default()
    };
    client
        .publish_with("x", "k", secret, inline("secret"))
        .expect("the exchange is there");
    let all = ["1", "2", "3", "4", "5", "secret"];
    assert_eq!(client.take_all("early"), all);
    client.bind("x", "late", "").expect("both there");
    let got = client.get("late", AckMode::Automatic).expect("kept");
    assert_eq!(got.message.exchange(), b"x");
    assert_eq!(got.message.routing_key(), b"k");
    assert_eq!(client.take_all("late"), ["4", "5"]);
    client.bind("x", "late", "").expect("bound already");
    assert!(client.take_all("late").is_empty(), "nothing was bound");
    client.bind_exchange("x", "y", "").expect("both there");
    assert_eq!(client.take_all("behind"), ["3", "4", "5"]);
}
