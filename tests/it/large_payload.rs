//! Large bodies: stored once, handed out whole or as a manifest, and gone when nobody needs them.

use std::path::Path;
use std::time::Instant;

use bytes::BytesMut;
use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::frame::{self, FrameKind};
use warren::amqp::header::{ContentHeader, Properties};
use warren::amqp::method::{Method, basic, channel, exchange, queue, tx};
use warren::config::ServerSettings;
use warren::payload::message::CONTENT_TYPE;
use warren::payload::store::PayloadInfo;
use warren::payload::{Manifest, PayloadId};

use crate::broker::Own;
use crate::confirm::take_confirms;
use crate::wire::{Client, Message, Opening, PATIENCE, pattern, persistent, published, unique};

/// Bodies of at least this many bytes go to the payload store.
const THRESHOLD_BYTES: usize = 64 * 1024;
/// More than the buffers of a socket and of a connection hold together, in bytes.
pub(crate) const LONG_BYTES: usize = 24 * 1024 * 1024;
/// References that a payload has when no message needs it: the one of its seed.
const SEED_REFERENCE_COUNT: u32 = 1;

fn start() -> Own {
    Own::start(settings)
}

/// Without content ids, so that headers are what the publisher gave.
fn settings(settings: &mut ServerSettings) {
    settings.payload.threshold_bytes = THRESHOLD_BYTES as u64;
    settings.payload.tells_content_ids = false;
}

/// A connection with channel 1 open and in confirm mode.
pub(crate) fn connect(own: &Own) -> Client {
    let mut client = Client::connect(own.address());
    client.open(1);
    client.confirm_select(1);
    client
}

pub(crate) fn id_of(body: &[u8]) -> PayloadId {
    PayloadId::from_bytes(*blake3::hash(body).as_bytes())
}

/// Waits until `look` finds what it looks for.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// The one payload in the store.
pub(crate) fn only_payload(own: &Own) -> PayloadInfo {
    let mut list = own.store().list();
    assert_eq!(list.len(), 1, "{list:?}");
    list.remove(0)
}

/// Waits until the one payload has this many references.
fn until_reference_count(own: &Own, count: u32) {
    let PayloadInfo { scope, id, .. } = only_payload(own);
    let mut last = None;
    let start = Instant::now();
    while last != Some(count) {
        assert!(
            start.elapsed() < PATIENCE,
            "{last:?} references, not {count}"
        );
        last = own.store().info(scope, id).map(|info| info.reference_count);
        std::thread::yield_now();
    }
}

pub(crate) fn declare(client: &mut Client, name: &str, arguments: FieldTable) -> ShortString {
    client.declare(
        1,
        queue::Declare {
            queue: unique(name),
            arguments,
            ..queue::Declare::default()
        },
    )
}

/// A fanout exchange to `count` new queues.
pub(crate) fn fanout(client: &mut Client, count: usize) -> (ShortString, Vec<ShortString>) {
    let exchange = unique("fanout");
    client.call(
        1,
        exchange::Declare {
            exchange: exchange.clone(),
            kind: ShortString::from_static("fanout"),
            ..exchange::Declare::default()
        },
    );
    let mut queues = Vec::new();
    for _ in 0..count {
        let queue = declare(client, "bound", FieldTable::EMPTY);
        let bind = queue::Bind {
            queue: queue.clone(),
            exchange: exchange.clone(),
            ..queue::Bind::default()
        };
        client.call(1, bind);
        queues.push(queue);
    }
    (exchange, queues)
}

/// Publishes and takes the confirm of publish number `tag`.
pub(crate) fn publish(
    client: &mut Client,
    tag: u64,
    (exchange, routing_key): (&ShortString, &ShortString),
    properties: &Properties,
    body: &[u8],
) {
    let publish = basic::Publish {
        exchange: exchange.clone(),
        routing_key: routing_key.clone(),
        ..basic::Publish::default()
    };
    client.publish_with(1, &publish, properties, body);
    take_confirms(client, 1, &mut [tag].into());
}

/// Publishes into a queue and takes the confirm of publish number `tag`.
pub(crate) fn publish_to(client: &mut Client, tag: u64, queue: &ShortString, body: &[u8]) {
    let default = ShortString::from_static("");
    publish(client, tag, (&default, queue), &typed(), body);
}

/// Properties that a manifest must carry over.
pub(crate) fn typed() -> Properties {
    Properties {
        content_type: Some(ShortString::from_static("application/octet-stream")),
        message_id: Some(ShortString::from_static("large")),
        ..Properties::default()
    }
}

pub(crate) fn payload_argument(form: &'static str) -> FieldTable {
    FieldTable::from([("x-payload", FieldValue::from(form))])
}

pub(crate) fn consume_with(queue: &ShortString, arguments: FieldTable) -> basic::Consume {
    basic::Consume {
        queue: queue.clone(),
        arguments,
        ..basic::Consume::default()
    }
}

/// The body, without printing megabytes where it is another one.
#[track_caller]
pub(crate) fn assert_body(message: &Message, body: &[u8]) {
    assert_eq!(message.body.len(), body.len());
    assert!(message.body == body, "the body is another one");
}

/// The message is the manifest of `body`, which this broker serves.
#[track_caller]
pub(crate) fn assert_manifest(own: &Own, message: &Message, body: &[u8]) {
    let properties = message.header.properties().expect("properties");
    let content_type = properties.content_type.as_ref().expect("a content type");
    assert_eq!(content_type.as_bytes(), CONTENT_TYPE.as_bytes());
    assert_eq!(content_type.as_bytes(), b"application/vnd.warren.manifest");
    assert_eq!(properties.message_id, typed().message_id);
    let manifest = Manifest::from_message(&properties, &message.body).expect("a manifest");
    assert_eq!(manifest.id(), id_of(body));
    assert_eq!(manifest.content_type(), Some("application/octet-stream"));
    assert_eq!(manifest.peers(), [own.peer_address().to_string()]);
    let geometry = manifest.geometry();
    assert_eq!(geometry.size_bytes(), body.len() as u64);
    for piece in geometry.pieces() {
        let range = geometry.piece_range(piece);
        let bytes = &body[range.start as usize..range.end as usize];
        assert!(manifest.is_piece(piece, bytes), "piece {}", piece.get());
    }
}

/// How many files lie in `upload` folders below.
pub(crate) fn upload_file_count(folder: &Path) -> usize {
    let scopes = std::fs::read_dir(folder).expect("the store's folder");
    scopes
        .filter_map(|scope| std::fs::read_dir(scope.expect("an entry").path().join("upload")).ok())
        .map(Iterator::count)
        .sum()
}

/// On both sides of the threshold and with several pieces, a body comes back as it was, to a consumer and
/// to `basic.get`, with frames as large as the reader takes; only from the threshold on it is stored.
#[test]
fn bodies_come_back_identical() {
    let own = start();
    let mut client = connect(&own);
    let small_frames = Opening {
        frame_bytes_max: 4_096,
        ..Opening::default()
    };
    let mut consumer = Client::connect_as(own.address(), &small_frames);
    consumer.open(1);
    let consumed = declare(&mut client, "consumed", FieldTable::EMPTY);
    let fetched = declare(&mut client, "fetched", FieldTable::EMPTY);
    consumer.consume(1, &consumed, "whole", true);
    let sizes = [
        THRESHOLD_BYTES - 1,
        THRESHOLD_BYTES,
        THRESHOLD_BYTES + 1,
        1024 * 1024,
        1024 * 1024 + 1,
        5_000_017,
    ];
    for (index, size_bytes) in sizes.into_iter().enumerate() {
        let body = pattern(size_bytes);
        let tag = 2 * index as u64 + 1;
        publish_to(&mut client, tag, &consumed, &body);
        publish_to(&mut client, tag + 1, &fetched, &body);
        let message = consumer.expect_message(1);
        assert_body(&message, &body);
        assert_eq!(message.header.raw, typed().encode());
        let (last, full) = message.frame_bytes.split_last().expect("frames");
        assert!(full.iter().all(|bytes| *bytes == 4_088), "{size_bytes}");
        assert!((1..=4_088).contains(last), "{size_bytes}");
        let message = client.get(1, &fetched, true).expect("published");
        assert_body(&message, &body);
        assert_eq!(message.header.raw, typed().encode());
        // The first one is below the threshold.
        assert_eq!(own.store().list().len(), index);
        let stored = own
            .store()
            .list()
            .iter()
            .any(|info| info.id == id_of(&body));
        assert_eq!(stored, size_bytes >= THRESHOLD_BYTES);
    }
}

/// The same body published twice and to ten queues each is one payload, which each queue gives whole.
#[test]
fn the_same_body_is_stored_once() {
    let own = start();
    let mut client = connect(&own);
    let (exchange, queues) = fanout(&mut client, 10);
    let body = pattern(300_000);
    let key = ShortString::from_static("");
    publish(&mut client, 1, (&exchange, &key), &typed(), &body);
    publish(&mut client, 2, (&exchange, &key), &typed(), &body);
    let info = only_payload(&own);
    assert_eq!(info.id, id_of(&body));
    assert_eq!(own.store().usage().stored_bytes, body.len() as u64);
    for queue in &queues {
        assert_eq!(client.depth(1, queue), 2);
        for _ in 0..2 {
            let message = client.get(1, queue, true).expect("routed");
            assert_body(&message, &body);
        }
    }
    until_reference_count(&own, SEED_REFERENCE_COUNT);
}

/// From one stored copy a consumer takes the manifest, and one of another queue the whole body.
#[test]
fn a_consumer_may_take_the_manifest() {
    let own = start();
    let mut client = connect(&own);
    let (exchange, queues) = fanout(&mut client, 2);
    let mut taker = Client::connect(own.address());
    let mut reader = Client::connect(own.address());
    for (consumer, queue, arguments) in [
        (&mut taker, &queues[0], payload_argument("manifest")),
        (&mut reader, &queues[1], FieldTable::EMPTY),
    ] {
        consumer.open(1);
        consumer.call(1, consume_with(queue, arguments));
    }
    let body = pattern(700_001);
    let key = ShortString::from_static("");
    publish(&mut client, 1, (&exchange, &key), &typed(), &body);
    let manifest = taker.expect_message(1);
    assert_manifest(&own, &manifest, &body);
    let whole = reader.expect_message(1);
    assert_body(&whole, &body);
    assert_eq!(only_payload(&own).id, id_of(&body));
    // What is not stored has no manifest.
    publish(&mut client, 2, (&exchange, &key), &typed(), b"small");
    for consumer in [&mut taker, &mut reader] {
        let small = consumer.expect_message(1);
        assert_body(&small, b"small");
        assert_eq!(small.header.raw, typed().encode());
    }
}

/// The queue's argument gives manifests to `basic.get` and to consumers that do not say what they want.
#[test]
fn a_queue_may_give_manifests() {
    let own = start();
    let mut client = connect(&own);
    let queue = declare(&mut client, "manifests", payload_argument("manifest"));
    let body = pattern(THRESHOLD_BYTES);
    for tag in 1..=3 {
        publish_to(&mut client, tag, &queue, &body);
    }
    let message = client.get(1, &queue, true).expect("published");
    assert_manifest(&own, &message, &body);
    client.qos(1, 1);
    client.call(1, consume_with(&queue, FieldTable::EMPTY));
    let message = client.expect_message(1);
    assert_manifest(&own, &message, &body);
    let mut other = Client::connect(own.address());
    other.open(1);
    other.call(1, consume_with(&queue, payload_argument("body")));
    let message = other.expect_message(1);
    assert_body(&message, &body);
}

/// A form that is none, or no text, is refused.
#[test]
fn an_unknown_form_is_refused() {
    let own = start();
    let mut client = connect(&own);
    let queue = declare(&mut client, "forms", FieldTable::EMPTY);
    for (channel, value) in [
        (2, FieldValue::from("torrent")),
        (3, FieldValue::from(true)),
    ] {
        client.open(channel);
        let arguments = FieldTable::from([("x-payload", value)]);
        client.send(channel, consume_with(&queue, arguments));
        let text = client.expect_channel_close(channel, 406);
        assert!(text.contains("x-payload"), "{text}");
    }
}

/// A body that is handed back is delivered again as it was, marked.
#[test]
fn a_requeued_body_comes_again() {
    let own = start();
    let mut client = connect(&own);
    let queue = declare(&mut client, "requeued", FieldTable::EMPTY);
    let body = pattern(900_000);
    publish_to(&mut client, 1, &queue, &body);
    client.consume(1, &queue, "again", false);
    for round in 0..3 {
        let message = client.expect_message(1);
        assert_body(&message, &body);
        assert_eq!(message.redelivered(), round > 0);
        client.send(
            1,
            basic::Nack {
                delivery_tag: message.delivery_tag(),
                multiple: false,
                requeue: round < 2,
            },
        );
    }
    until_reference_count(&own, SEED_REFERENCE_COUNT);
}

/// An acknowledgement, a purge and a deletion each give back the reference of the message they end.
#[test]
fn references_go_with_their_messages() {
    let own = start();
    let mut client = connect(&own);
    let body = pattern(200_000);
    let queues: Vec<ShortString> = ["acked", "purged", "deleted"]
        .map(|name| declare(&mut client, name, FieldTable::EMPTY))
        .into();
    for (tag, queue) in (1..).zip(&queues) {
        publish_to(&mut client, tag, queue, &body);
    }
    until_reference_count(&own, SEED_REFERENCE_COUNT + 3);
    let message = client.get(1, &queues[0], false).expect("published");
    until_reference_count(&own, SEED_REFERENCE_COUNT + 3);
    client.ack(1, message.delivery_tag(), false);
    until_reference_count(&own, SEED_REFERENCE_COUNT + 2);
    client.call(
        1,
        queue::Purge {
            queue: queues[1].clone(),
            ..queue::Purge::default()
        },
    );
    until_reference_count(&own, SEED_REFERENCE_COUNT + 1);
    client.call(
        1,
        queue::Delete {
            queue: queues[2].clone(),
            ..queue::Delete::default()
        },
    );
    until_reference_count(&own, SEED_REFERENCE_COUNT);
}

/// A publisher that is lost within a body leaves nothing behind, in memory or on disk.
#[test]
fn half_a_body_leaves_nothing() {
    let own = start();
    let mut client = connect(&own);
    let queue = declare(&mut client, "half", FieldTable::EMPTY);
    let body = pattern(4 * 1024 * 1024);
    let mut lost = Client::connect(own.address());
    lost.open(1);
    let mut output = BytesMut::new();
    let publish = basic::Publish {
        routing_key: queue.clone(),
        ..basic::Publish::default()
    };
    let header = ContentHeader::new(body.len() as u64, &Properties::default());
    frame::put_method_with_content(&mut output, 1, &publish, &header, &body, 131_072);
    lost.send_bytes(&output[..output.len() / 2]);
    until("the upload begins", || {
        (upload_file_count(&own.payload_folder()) > 0).then_some(())
    });
    assert_eq!(own.store().usage().reserved_bytes, body.len() as u64);
    drop(lost);
    until("the upload is gone", || {
        let is_gone = own.store().usage().reserved_bytes == 0
            && upload_file_count(&own.payload_folder()) == 0;
        is_gone.then_some(())
    });
    assert_eq!(own.store().list(), []);
    assert_eq!(client.depth(1, &queue), 0);
    publish_to(&mut client, 1, &queue, &body);
    let message = client.get(1, &queue, true).expect("published");
    assert_body(&message, &body);
}

/// A consumer that is lost while a body streams to it leaves the message to the next one.
#[test]
fn half_a_delivery_goes_back() {
    let own = start();
    let mut client = connect(&own);
    let queue = declare(&mut client, "cut", FieldTable::EMPTY);
    let body = pattern(LONG_BYTES);
    publish_to(&mut client, 1, &queue, &body);
    let mut lost = Client::connect(own.address());
    lost.open(1);
    lost.consume(1, &queue, "lost", false);
    let mut received_bytes = 0;
    while received_bytes < 1024 * 1024 {
        let frame = lost.frame(PATIENCE).expect("in time").expect("a frame");
        if frame.kind == FrameKind::Body {
            received_bytes += frame.payload.len();
        }
    }
    assert_eq!(client.depth(1, &queue), 0);
    drop(lost);
    let message = until("the message is back", || client.get(1, &queue, false));
    assert_body(&message, &body);
    assert!(message.redelivered());
    client.ack(1, message.delivery_tag(), false);
    until_reference_count(&own, SEED_REFERENCE_COUNT);
}

/// A small message on one channel does not wait for the end of a long body on another.
#[test]
fn a_long_body_lets_other_channels_through() {
    let own = start();
    let mut client = connect(&own);
    let long_queue = declare(&mut client, "long", FieldTable::EMPTY);
    let small_queue = declare(&mut client, "small", FieldTable::EMPTY);
    let body = pattern(LONG_BYTES);
    publish_to(&mut client, 1, &long_queue, &body);
    let mut consumer = Client::connect(own.address());
    consumer.take_little();
    for channel in [1, 2] {
        consumer.open(channel);
    }
    consumer.consume(2, &small_queue, "small", true);
    consumer.send(1, consume_with(&long_queue, FieldTable::EMPTY));
    assert_small_overtakes(&mut consumer, &body, || {
        publish_to(&mut client, 2, &small_queue, b"small");
    });
}

/// A consumer gets `body` on channel 1, and on channel 2, before it has all of that, the message `small` which
/// `publish_small` publishes once a part of the body has come.
pub(crate) fn assert_small_overtakes(
    consumer: &mut Client,
    body: &[u8],
    mut publish_small: impl FnMut(),
) {
    let (mut long, mut small) = (BytesMut::new(), None);
    let mut is_published = false;
    while long.len() < body.len() {
        let frame = consumer.frame(PATIENCE).expect("in time").expect("a frame");
        match (frame.channel, frame.kind) {
            (1, FrameKind::Body) => {
                long.extend_from_slice(&frame.payload);
                if !is_published {
                    is_published = true;
                    publish_small();
                }
            }
            (2, FrameKind::Body) => small = Some(frame.payload),
            (1 | 2, FrameKind::Method | FrameKind::Header) => {}
            _ => panic!("not expected: {frame:?}"),
        }
    }
    assert!(long == body, "the long body is another one");
    let small = small.expect("it came before the long body's end");
    assert_eq!(small, b"small"[..]);
}

/// A clean stop keeps a confirmed persistent message with its large body, which is served again.
#[test]
fn a_restart_keeps_a_large_message() {
    let own = start();
    let mut client = connect(&own);
    let queue = client.declare(
        1,
        queue::Declare {
            queue: unique("kept"),
            durable: true,
            arguments: payload_argument("body"),
            ..queue::Declare::default()
        },
    );
    let body = pattern(3_000_001);
    let properties = Properties {
        delivery_mode: persistent().delivery_mode,
        ..typed()
    };
    let default = ShortString::from_static("");
    publish(&mut client, 1, (&default, &queue), &properties, &body);
    drop(client);

    let own = Own::start_in(own.stop(), settings);
    assert_eq!(only_payload(&own).id, id_of(&body));
    // The message and the seed.
    until_reference_count(&own, SEED_REFERENCE_COUNT + 1);
    let mut client = connect(&own);
    assert_eq!(client.depth(1, &queue), 1);
    client.call(1, consume_with(&queue, payload_argument("manifest")));
    let message = client.expect_message(1);
    assert_manifest(&own, &message, &body);
    assert!(!message.redelivered());
    client.send(
        1,
        basic::Reject {
            delivery_tag: message.delivery_tag(),
            requeue: true,
        },
    );
    drop(client);
    let mut client = connect(&own);
    let message = until("the message is back", || client.get(1, &queue, false));
    assert_body(&message, &body);
    assert!(matches!(message.method, Method::BasicGetOk(_)));
    assert_eq!(message.header.raw, properties.encode());
    client.ack(1, message.delivery_tag(), false);
    until_reference_count(&own, SEED_REFERENCE_COUNT);
}

/// A large body keeps its place among small ones of its channel, though it takes longer.
#[test]
fn a_large_body_keeps_its_place() {
    let own = start();
    let mut client = connect(&own);
    let queue = declare(&mut client, "order", FieldTable::EMPTY);
    let body = pattern(2_000_000);
    client.publish(1, &queue, b"before");
    client.publish(1, &queue, &body);
    client.publish(1, &queue, b"after");
    take_confirms(&mut client, 1, &mut (1..=3).collect());
    for expected in [&b"before"[..], &body, b"after"] {
        let message = client.get(1, &queue, true).expect("published");
        assert_body(&message, expected);
    }
}

/// Large bodies of two channels, whose frames come in turn, are told apart.
#[test]
fn bodies_of_two_channels_may_come_in_turn() {
    let own = start();
    let mut client = connect(&own);
    client.open(2);
    client.confirm_select(2);
    let queues = ["first", "second"].map(|name| declare(&mut client, name, FieldTable::EMPTY));
    let mut bodies = [pattern(1_000_000), pattern(1_000_000)];
    bodies[1].reverse();
    let mut outputs = Vec::new();
    for (channel, (queue, body)) in (1..).zip(queues.iter().zip(&bodies)) {
        let publish = basic::Publish {
            routing_key: queue.clone(),
            ..basic::Publish::default()
        };
        outputs.push(published(channel, &publish, &typed(), body, 8_192));
    }
    while outputs.iter().any(|output| !output.is_empty()) {
        for output in &mut outputs {
            let Some(size) = output.get(3..7) else {
                continue;
            };
            let size = u32::from_be_bytes(size.try_into().expect("four octets"));
            client.send_bytes(&output.split_to(size as usize + 8));
        }
    }
    for (channel, (queue, body)) in (1..).zip(queues.iter().zip(&bodies)) {
        take_confirms(&mut client, channel, &mut [1].into());
        let message = client.get(channel, queue, true).expect("published");
        assert_body(&message, body);
    }
    assert_eq!(own.store().list().len(), 2);
}

/// A large body that no queue takes is returned whole, and nobody needs it then.
#[test]
fn an_unroutable_body_is_returned() {
    let own = start();
    let mut client = connect(&own);
    let body = pattern(500_000);
    let publish = basic::Publish {
        routing_key: unique("nowhere"),
        mandatory: true,
        ..basic::Publish::default()
    };
    client.publish_with(1, &publish, &typed(), &body);
    let message = client.expect_message(1);
    assert!(matches!(&message.method, Method::BasicReturn(returned) if returned.reply_code == 312));
    assert_body(&message, &body);
    take_confirms(&mut client, 1, &mut [1].into());
    until_reference_count(&own, SEED_REFERENCE_COUNT);
}

/// A transaction holds the large bodies in it until it is committed, or gives them back.
#[test]
fn a_transaction_holds_its_bodies() {
    let own = start();
    let mut client = Client::connect(own.address());
    client.open(1);
    client.call(1, tx::Select {});
    let queue = declare(&mut client, "transaction", FieldTable::EMPTY);
    let body = pattern(400_000);
    client.publish(1, &queue, &body);
    client.call(1, tx::Rollback {});
    assert_eq!(client.depth(1, &queue), 0);
    until_reference_count(&own, SEED_REFERENCE_COUNT);
    client.publish(1, &queue, &body);
    assert_eq!(client.depth(1, &queue), 0);
    until_reference_count(&own, SEED_REFERENCE_COUNT + 1);
    client.call(1, tx::Commit {});
    let message = client.get(1, &queue, true).expect("committed");
    assert_body(&message, &body);
    until_reference_count(&own, SEED_REFERENCE_COUNT);
}

/// A body that the store has no room for closes its channel with the reason, and nothing else.
#[test]
fn a_body_without_room_is_refused() {
    let own = Own::start(|settings| {
        settings.payload.threshold_bytes = THRESHOLD_BYTES as u64;
        settings.payload.quota_bytes = Some(1_000_000);
    });
    let mut client = connect(&own);
    let queue = declare(&mut client, "full", FieldTable::EMPTY);
    client.open(2);
    let body = pattern(1_000_001);
    client.publish(2, &queue, &body);
    let text = client.expect_channel_close(2, 406);
    assert!(text.contains("no room for 1000001 bytes"), "{text}");
    assert_eq!(own.store().usage().reserved_bytes, 0);
    assert_eq!(upload_file_count(&own.payload_folder()), 0);
    client.call(2, channel::Open {});
    publish_to(&mut client, 1, &queue, &body[1..]);
    let message = client.get(2, &queue, true).expect("published");
    assert_body(&message, &body[1..]);
}

/// A large body is delivered with its content id behind the publisher's headers. An empty body published
/// with that id stands for the content, which is stored once and counts with its true size; an id that the
/// vhost does not have is refused.
// req: PAYLOAD-1
// req: PAYLOAD-2
#[test]
fn a_content_id_stands_for_its_body() {
    let own = Own::start(|settings| settings.payload.threshold_bytes = THRESHOLD_BYTES as u64);
    let mut client = connect(&own);
    let queue = declare(&mut client, "by-id", FieldTable::default());
    let body = pattern(THRESHOLD_BYTES + 1);
    let own_headers = FieldTable::from([("mine", FieldValue::from("kept"))]);
    let properties = Properties {
        headers: Some(own_headers),
        ..persistent()
    };
    let publish = basic::Publish {
        routing_key: queue.clone(),
        ..basic::Publish::default()
    };
    client.publish_with(1, &publish, &properties, &body);
    take_confirms(&mut client, 1, &mut [1].into());
    let first = client.get(1, &queue, true).expect("the message");
    assert_body(&first, &body);
    let headers = first.header.properties().expect("properties").headers;
    let id = FieldValue::from(id_of(&body).to_string().as_str());
    let both = FieldTable::from([("mine", FieldValue::from("kept")), ("x-payload-id", id)]);
    assert_eq!(headers, Some(both.clone()));
    let by_id = Properties {
        headers: Some(both.clone()),
        ..persistent()
    };
    client.publish_with(1, &publish, &by_id, b"");
    take_confirms(&mut client, 1, &mut [2].into());
    let again = client.get(1, &queue, true).expect("the message");
    assert_body(&again, &body);
    assert_eq!(
        again.header.properties().expect("properties").headers,
        Some(both)
    );
    assert_eq!(only_payload(&own).geometry.size_bytes(), body.len() as u64);
    let unknown = Properties {
        headers: Some(FieldTable::from([(
            "x-payload-id",
            FieldValue::from(id_of(b"unknown").to_string().as_str()),
        )])),
        ..persistent()
    };
    client.publish_with(1, &publish, &unknown, b"");
    let text = client.expect_channel_close(1, 404);
    assert!(text.starts_with("NOT_FOUND - no payload '"), "{text}");
}
