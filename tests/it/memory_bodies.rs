//! Large bodies in memory: what passes through without being stored, what is stored all the same, and when it must be.

use std::collections::BTreeSet;

use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::frame;
use warren::amqp::header::Properties;
use warren::amqp::method::{basic, queue, tx};
use warren::config::ServerSettings;
use warren::payload::store::Usage;

use crate::broker::Own;
use crate::confirm::take_confirms;
use crate::file_bodies::until_file_bytes;
use crate::large_payload::{
    assert_body, assert_manifest, assert_small_overtakes, connect, consume_with, declare, fanout,
    id_of, only_payload, payload_argument, publish, publish_to, typed, until,
};
use crate::wire::{Client, Message, pattern, persistent, published, unique};

/// Bodies of at least this many bytes are large.
const THRESHOLD_BYTES: usize = 64 * 1024;
/// Memory that bodies take comes in blocks of so many bytes.
pub(crate) const BLOCK_BYTES: u64 = 256 * 1024;
const KEY: ShortString = ShortString::EMPTY;

fn start() -> Own {
    start_with(32 << 20)
}

/// With so much memory for bodies, in bytes.
pub(crate) fn start_with(memory_bytes: u64) -> Own {
    Own::start(|settings| change(settings, memory_bytes))
}

fn change(settings: &mut ServerSettings, memory_bytes: u64) {
    settings.payload.threshold_bytes = THRESHOLD_BYTES as u64;
    settings.payload.memory_bytes_max = memory_bytes;
}

/// A connection with channel 1.
pub(crate) fn open(own: &Own) -> Client {
    let mut client = Client::connect(own.address());
    client.open(1);
    client
}

pub(crate) fn into_queue(queue: &ShortString) -> basic::Publish {
    basic::Publish {
        routing_key: queue.clone(),
        ..basic::Publish::default()
    }
}

/// A durable queue that keeps whatever comes.
pub(crate) fn declare_kept(client: &mut Client) -> ShortString {
    let kept = queue::Declare {
        queue: unique("kept"),
        durable: true,
        arguments: FieldTable::from([("x-queue-type", FieldValue::from("quorum"))]),
        ..queue::Declare::default()
    };
    client.declare(1, kept)
}

/// A connection that consumes these queues on channel 1, with acknowledgements.
pub(crate) fn consumer(own: &Own, queues: &[ShortString]) -> Client {
    let mut consumer = open(own);
    for (queue, tag) in queues.iter().zip(["1", "2", "3"]) {
        consumer.consume(1, queue, tag, false);
    }
    consumer
}

pub(crate) fn settle(consumer: &mut Client, message: &Message, requeue: bool) {
    let nack = basic::Nack {
        delivery_tag: message.delivery_tag(),
        multiple: false,
        requeue,
    };
    consumer.send(1, nack);
}

pub(crate) fn until_memory_bytes(own: &Own, bytes: u64) {
    until("so much memory is taken", || {
        (own.broker().body_memory_bytes() == bytes).then_some(())
    });
}

/// One copy goes to all consumers, as it was published and again if it is handed back, and nothing is stored; its
/// memory is free when the last of them is done.
// req: MEMBODY-1
// req: MEMBODY-2
#[test]
fn a_body_for_consumers_passes_through() {
    let own = start();
    let mut client = connect(&own);
    let (exchange, queues) = fanout(&mut client, 3);
    let mut consumer = consumer(&own, &queues);
    let body = pattern(700_001);
    publish(&mut client, 1, (&exchange, &KEY), &typed(), &body);
    let first = consumer.expect_message(1);
    let rest = [consumer.expect_message(1), consumer.expect_message(1)];
    for message in rest.iter().chain([&first]) {
        assert_body(message, &body);
        assert_eq!(message.header.raw, typed().encode());
    }
    assert_eq!(own.store().list(), []);
    assert_eq!(own.broker().body_memory_bytes(), 3 * BLOCK_BYTES);
    settle(&mut consumer, &first, true);
    let again = consumer.expect_message(1);
    assert_body(&again, &body);
    assert!(again.redelivered());
    for message in rest.iter().chain([&again]) {
        consumer.ack(1, message.delivery_tag(), false);
    }
    until_memory_bytes(&own, 0);
    assert_eq!(own.store().list(), []);
}

/// What waits for somebody, must survive, is wanted as a manifest, has copies, or is part of a transaction is stored;
/// not what is persistent, but for no queue that is.
// req: MEMBODY-1
#[test]
fn what_is_kept_is_stored() {
    let own = start();
    let mut client = connect(&own);
    let body = pattern(THRESHOLD_BYTES);
    let [lone, plain] = ["lone", "plain"].map(|name| declare(&mut client, name, FieldTable::EMPTY));
    let manifests = declare(&mut client, "manifests", payload_argument("manifest"));
    let durable = queue::Declare {
        queue: unique("durable"),
        durable: true,
        ..queue::Declare::default()
    };
    let durable = client.declare(1, durable);
    let queues = [plain.clone(), manifests.clone(), durable.clone()];
    let mut consumer = consumer(&own, &queues);
    client.open(2);
    client.call(2, tx::Select {});
    let default = ShortString::EMPTY;
    let mut stored_count = 0;
    let copies = FieldValue::Array([FieldValue::from("elsewhere")].into_iter().collect());
    let copied = Properties {
        headers: Some(FieldTable::from([("CC", copies)])),
        ..Properties::default()
    };
    let cases = [
        (&plain, typed(), false),
        (&plain, persistent(), false),
        (&durable, typed(), false),
        (&durable, persistent(), true),
        (&manifests, typed(), true),
        (&lone, typed(), true),
        (&plain, copied, true),
    ];
    for (number, (queue, properties, is_stored)) in (1..).zip(cases) {
        let mut body = body.clone();
        body[0] = number as u8;
        publish(&mut client, number, (&default, queue), &properties, &body);
        if queue != &lone {
            consumer.expect_message(1);
        }
        stored_count += usize::from(is_stored);
        assert_eq!(own.store().list().len(), stored_count, "case {number}");
        let is_there = own.store().list().iter().any(|it| it.id == id_of(&body));
        assert_eq!(is_there, is_stored, "case {number}");
    }
    client.publish(2, &plain, &body);
    client.call(2, tx::Commit {});
    consumer.expect_message(1);
    assert_eq!(own.store().list().len(), stored_count + 1);
}

/// What comes when memory is taken goes into a file; with none at all, it is stored.
// req: MEMBODY-2
#[test]
fn what_memory_has_no_room_for_goes_into_a_file() {
    let own = start_with(4 * BLOCK_BYTES);
    let mut client = connect(&own);
    let queues = [declare(&mut client, "short", FieldTable::EMPTY)];
    let mut consumer = consumer(&own, &queues);
    let bodies: [Vec<u8>; 3] = [700_001, 700_002, 700_003].map(pattern);
    publish_to(&mut client, 1, &queues[0], &bodies[0]);
    publish_to(&mut client, 2, &queues[0], &bodies[1]);
    assert_eq!(own.broker().body_memory_bytes(), 3 * BLOCK_BYTES);
    assert_eq!(own.store().usage().reserved_bytes, 700_002);
    for body in &bodies[..2] {
        let message = consumer.expect_message(1);
        assert_body(&message, body);
        consumer.ack(1, message.delivery_tag(), false);
    }
    until_memory_bytes(&own, 0);
    until_file_bytes(&own, 0);
    publish_to(&mut client, 3, &queues[0], &bodies[2]);
    assert_body(&consumer.expect_message(1), &bodies[2]);
    assert_eq!(own.store().usage(), Usage::default());

    let own = start_with(0);
    let mut client = connect(&own);
    let queues = [declare(&mut client, "none", FieldTable::EMPTY)];
    let mut consumer = self::consumer(&own, &queues);
    publish_to(&mut client, 1, &queues[0], &bodies[0]);
    assert_body(&consumer.expect_message(1), &bodies[0]);
    assert_eq!(only_payload(&own).id, id_of(&bodies[0]));
}

/// A publisher that is lost within a body gives its memory back.
// req: MEMBODY-2
#[test]
fn half_a_body_leaves_no_memory() {
    let own = start();
    let mut client = connect(&own);
    let queues = [declare(&mut client, "half", FieldTable::EMPTY)];
    let mut consumer = consumer(&own, &queues);
    let mut lost = open(&own);
    let publish = into_queue(&queues[0]);
    let output = published(1, &publish, &typed(), &pattern(8 << 20), 131_072);
    lost.send_bytes(&output[..output.len() / 2]);
    until_memory_bytes(&own, 8 << 20);
    drop(lost);
    until_memory_bytes(&own, 0);
    publish_to(&mut client, 1, &queues[0], b"whole");
    assert_body(&consumer.expect_message(1), b"whole");
}

/// More octets than were announced end the connection with the next frame, as of any body; the memory is free.
// req: MEMBODY-2
#[test]
fn a_body_that_is_too_long_leaves_no_memory() {
    let own = start();
    let mut client = connect(&own);
    let queues = [declare(&mut client, "overrun", FieldTable::EMPTY)];
    let mut consumer = consumer(&own, &queues);
    let mut wrong = open(&own);
    let publish = into_queue(&queues[0]);
    let mut output = published(1, &publish, &typed(), &pattern(100_000), 8_192);
    // All but the last body frame.
    output.truncate(output.len() - 100_000 % (8_192 - 8) - 8);
    wrong.send_bytes(&output);
    until_memory_bytes(&own, BLOCK_BYTES);
    output.clear();
    frame::put_body(&mut output, 1, &pattern(8_000));
    frame::put_body(&mut output, 1, &[1]);
    frame::put_method(&mut output, 1, &publish);
    wrong.send_bytes(&output);
    wrong.expect_connection_close(505);
    until_memory_bytes(&own, 0);
    publish_to(&mut client, 1, &queues[0], b"right");
    assert_body(&consumer.expect_message(1), b"right");
}

/// A consumer that wants manifests gets one of a body that is in memory, and another one the body, of which it had a
/// part by then.
// req: MEMBODY-3
#[test]
fn a_manifest_is_made_when_it_is_wanted() {
    let own = start();
    let mut client = connect(&own);
    let (exchange, queues) = fanout(&mut client, 2);
    let mut reader = consumer(&own, &queues[..1]);
    let mut taker = open(&own);
    taker.call(1, consume_with(&queues[1], payload_argument("manifest")));
    let body = pattern(16 << 20);
    publish(&mut client, 1, (&exchange, &KEY), &typed(), &body);
    let manifest = taker.expect_message(1);
    assert_manifest(&own, &manifest, &body);
    assert_eq!(only_payload(&own).id, id_of(&body));
    assert_body(&reader.expect_message(1), &body);
    until_memory_bytes(&own, 0);
    // Now it has an id.
    drop(reader);
    let again = until("the message is back", || client.get(1, &queues[0], true));
    assert_body(&again, &body);
    let headers = again.header.properties().expect("properties").headers;
    let id = FieldValue::from(id_of(&body).to_string().as_str());
    assert_eq!(headers, Some(FieldTable::from([("x-payload-id", id)])));
}

/// A body that dies into a queue which keeps everything is stored then, and is there after a restart; one that the
/// store refuses is lost, and the broker goes on.
// req: MEMBODY-3
#[test]
fn a_body_is_stored_when_it_must_survive() {
    let own = start();
    let mut client = connect(&own);
    let kept = declare_kept(&mut client);
    let letters = FieldTable::from([
        ("x-dead-letter-exchange", FieldValue::from("")),
        (
            "x-dead-letter-routing-key",
            FieldValue::LongString(kept.clone().into()),
        ),
    ]);
    let dying = [declare(&mut client, "dying", letters)];
    let mut consumer = consumer(&own, &dying);
    let body = pattern(1_000_001);
    publish_to(&mut client, 1, &dying[0], &body);
    let message = consumer.expect_message(1);
    assert_eq!(own.store().list(), []);
    settle(&mut consumer, &message, false);
    until("the letter is there", || {
        (client.depth(1, &kept) == 1).then_some(())
    });
    assert_eq!(only_payload(&own).id, id_of(&body));
    until_memory_bytes(&own, 0);
    drop((client, consumer));

    let own = Own::start_in(own.stop(), |settings| {
        change(settings, 32 << 20);
        settings.payload.quota_bytes = Some(1_000_001);
    });
    let mut client = connect(&own);
    let message = client.get(1, &kept, false).expect("it survived");
    assert_body(&message, &body);
    let letters = FieldTable::from([
        ("x-dead-letter-exchange", FieldValue::from("")),
        (
            "x-dead-letter-routing-key",
            FieldValue::LongString(kept.clone().into()),
        ),
    ]);
    let dying = [declare(&mut client, "dying", letters)];
    let mut consumer = self::consumer(&own, &dying);
    publish_to(&mut client, 1, &dying[0], &body[1..]);
    let message = consumer.expect_message(1);
    settle(&mut consumer, &message, false);
    until_memory_bytes(&own, 0);
    assert_eq!(client.depth(1, &kept), 0, "there was no room for it");
    assert_eq!(only_payload(&own).id, id_of(&body));
}

/// A body that begins to come for a queue which keeps nothing, and meets one that keeps it when it is whole, is stored
/// then, or refused with the store's words.
// req: MEMBODY-3
#[test]
fn a_body_that_meets_a_queue_which_keeps_it_is_stored() {
    let own = Own::start(|settings| {
        change(settings, 32 << 20);
        settings.payload.quota_bytes = Some(1_000_000);
    });
    let mut client = connect(&own);
    let (exchange, queues) = fanout(&mut client, 1);
    let mut consumer = consumer(&own, &queues);
    let kept = declare_kept(&mut client);
    let bind = queue::Bind {
        queue: kept.clone(),
        exchange: exchange.clone(),
        ..queue::Bind::default()
    };
    let unbind = queue::Unbind {
        queue: kept.clone(),
        exchange: exchange.clone(),
        ..queue::Unbind::default()
    };
    let publish = basic::Publish {
        exchange,
        ..basic::Publish::default()
    };
    let body = pattern(900_000);
    let mut publisher = connect(&own);
    for (body, is_taken) in [(&body[..], true), (&body[1..], false)] {
        let output = published(1, &publish, &typed(), body, 131_072);
        let (front, back) = output.split_at(output.len() / 2);
        publisher.send_bytes(front);
        until_memory_bytes(&own, 4 * BLOCK_BYTES);
        client.call(1, bind.clone());
        publisher.send_bytes(back);
        if is_taken {
            take_confirms(&mut publisher, 1, &mut [1].into());
            assert_body(&consumer.expect_message(1), body);
        } else {
            let text = publisher.expect_channel_close(1, 406);
            assert!(text.contains("no room for 899999 bytes"), "{text}");
        }
        assert_eq!(client.depth(1, &kept), 1);
        until_memory_bytes(&own, 0);
        client.call(1, unbind.clone());
    }
    assert_eq!(only_payload(&own).id, id_of(&body));
}

/// A queue that may hold so many bytes counts those in memory.
// req: MEMBODY-4
#[test]
fn a_body_in_memory_counts_with_its_size() {
    let own = start();
    let mut client = connect(&own);
    let arguments = FieldTable::from([("x-max-length-bytes", FieldValue::from(1_000_000))]);
    let queues = [declare(&mut client, "bounded", arguments)];
    let mut consumer = open(&own);
    consumer.qos(1, 1);
    consumer.consume(1, &queues[0], "one", false);
    let bodies: [Vec<u8>; 3] = [600_000, 600_001, 600_002].map(pattern);
    for (tag, body) in (1..).zip(&bodies) {
        publish_to(&mut client, tag, &queues[0], body);
    }
    let first = consumer.expect_message(1);
    assert_body(&first, &bodies[0]);
    assert_eq!(client.depth(1, &queues[0]), 1, "the second was dropped");
    consumer.ack(1, first.delivery_tag(), false);
    assert_body(&consumer.expect_message(1), &bodies[2]);
    assert_eq!(own.store().list(), []);
}

/// A small message on one channel does not wait for the end of a body from memory on another.
// req: MEMBODY-4
#[test]
fn a_body_in_memory_lets_other_channels_through() {
    let own = start();
    let mut client = connect(&own);
    let queues = ["long", "small"].map(|name| declare(&mut client, name, FieldTable::EMPTY));
    let mut consumer = Client::connect(own.address());
    consumer.take_little();
    for (channel, queue) in (1..).zip(&queues) {
        consumer.open(channel);
        consumer.consume(channel, queue, "all", true);
    }
    let body = pattern(16 << 20);
    publish_to(&mut client, 1, &queues[0], &body);
    assert_eq!(own.store().list(), []);
    assert_small_overtakes(&mut consumer, &body, || {
        client.publish(1, &queues[1], b"small");
        take_confirms(&mut client, 1, &mut BTreeSet::from([2]));
    });
    until_memory_bytes(&own, 0);
}
