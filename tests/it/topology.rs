//! Shorthands for tests that need exchanges with arguments, and queues bound to them.

use std::collections::BTreeSet;

use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::header::Properties;
use warren::amqp::method::{basic, exchange, queue};

use crate::confirm::take_confirms;
use crate::wire::{Client, Message};

/// A table of these values.
pub(crate) fn table(values: &[(&str, FieldValue)]) -> FieldTable {
    let mut table = FieldTable::EMPTY;
    for (name, value) in values {
        table.insert(ShortString::truncated((*name).to_owned()), value.clone());
    }
    table
}

/// Declares a durable exchange on channel 1.
pub(crate) fn exchange(
    client: &mut Client,
    name: &ShortString,
    kind: &'static str,
    arguments: &[(&str, FieldValue)],
) {
    let declare = exchange::Declare {
        exchange: name.clone(),
        kind: ShortString::from_static(kind),
        durable: true,
        arguments: table(arguments),
        ..exchange::Declare::default()
    };
    client.call(1, declare);
}

/// Deletes an exchange.
pub(crate) fn delete_exchange(client: &mut Client, name: &ShortString) {
    let delete = exchange::Delete {
        exchange: name.clone(),
        ..exchange::Delete::default()
    };
    client.call(1, delete);
}

/// Declares a durable queue on channel 1.
pub(crate) fn queue(client: &mut Client, name: &ShortString, arguments: &[(&str, FieldValue)]) {
    let declare = queue::Declare {
        queue: name.clone(),
        durable: true,
        arguments: table(arguments),
        ..queue::Declare::default()
    };
    client.declare(1, declare);
}

/// Deletes a queue.
pub(crate) fn delete_queue(client: &mut Client, name: &ShortString) {
    let delete = queue::Delete {
        queue: name.clone(),
        ..queue::Delete::default()
    };
    client.call(1, delete);
}

/// Binds a queue.
pub(crate) fn bind(client: &mut Client, source: &ShortString, queue: &ShortString, key: &str) {
    client.call(1, binding(source, queue, key));
}

/// The method that binds a queue.
pub(crate) fn binding(source: &ShortString, queue: &ShortString, key: &str) -> queue::Bind {
    queue::Bind {
        queue: queue.clone(),
        exchange: source.clone(),
        routing_key: ShortString::truncated(key.to_owned()),
        ..queue::Bind::default()
    }
}

/// Publishes a persistent message on channel 1.
pub(crate) fn send(
    client: &mut Client,
    exchange: &ShortString,
    key: &str,
    headers: &[(&str, FieldValue)],
    body: &[u8],
) {
    let publish = basic::Publish {
        exchange: exchange.clone(),
        routing_key: ShortString::truncated(key.to_owned()),
        ..basic::Publish::default()
    };
    let properties = Properties {
        headers: (!headers.is_empty()).then(|| table(headers)),
        delivery_mode: Some(2),
        ..Properties::default()
    };
    client.publish_with(1, &publish, &properties, body);
}

/// Takes the confirms of all that was published on channel 1 since it was put into confirm mode.
pub(crate) fn settle(client: &mut Client, count: u64) {
    let mut tags: BTreeSet<u64> = (1..=count).collect();
    take_confirms(client, 1, &mut tags);
}

/// Everything that waits in a queue, taken for good.
pub(crate) fn drain(client: &mut Client, queue: &ShortString) -> Vec<Message> {
    std::iter::from_fn(|| client.get(1, queue, true)).collect()
}

/// A message's body as text.
pub(crate) fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}
