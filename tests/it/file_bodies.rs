//! Large bodies in files of their own: what passes through them, when they are stored, and that nothing is left.

use serde_json::json;
use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::frame::FrameKind;
use warren::amqp::method::{basic, queue};
use warren::payload::store::BODY_FILE_COUNT_MAX;

use crate::admin::Managed;
use crate::broker::Own;
use crate::confirm::take_confirms;
use crate::large_payload::{
    LONG_BYTES, assert_body, assert_manifest, assert_small_overtakes, connect, consume_with,
    declare, fanout, id_of, only_payload, payload_argument, publish, publish_to, typed, until,
    upload_file_count,
};
use crate::memory_bodies::{
    BLOCK_BYTES, consumer, declare_kept, into_queue, open, settle, start_with,
};
use crate::process::{Process, serve};
use crate::wire::{Client, Opening, PATIENCE, pattern, persistent, published, unique};

/// Too long for the memory that these brokers have, in bytes.
const BODY_BYTES: usize = 900_001;
const KEY: ShortString = ShortString::EMPTY;

/// With memory for one small body.
fn start() -> Own {
    start_with(BLOCK_BYTES)
}

fn start_with_quota(bytes: u64) -> Own {
    Own::start(|settings| {
        settings.payload.threshold_bytes = 64 * 1024;
        settings.payload.memory_bytes_max = BLOCK_BYTES;
        settings.payload.quota_bytes = Some(bytes);
    })
}

/// Waits until bodies in files have so many bytes together, which is for each one file.
pub(crate) fn until_file_bytes(own: &Own, bytes: u64) {
    until("so much is in files", || {
        let is_so = own.store().usage().reserved_bytes == bytes
            && (bytes > 0) == (upload_file_count(&own.payload_folder()) > 0);
        is_so.then_some(())
    });
}

/// One file is for all consumers, with large frames and small ones, also again for one that hands it back; nothing is
/// stored, and with the last of them the file is gone. What is longer than 16 MiB goes there whatever memory there is.
// req: MEMBODY-5
#[test]
fn a_body_for_consumers_passes_through_a_file() {
    let own = start_with(64 << 20);
    let mut client = connect(&own);
    let (exchange, queues) = fanout(&mut client, 3);
    let mut consumer = consumer(&own, &queues[..2]);
    let small_frames = Opening {
        frame_bytes_max: 8_192,
        ..Opening::default()
    };
    let mut narrow = Client::connect_as(own.address(), &small_frames);
    narrow.open(1);
    narrow.consume(1, &queues[2], "narrow", true);
    let body = pattern((16 << 20) + 1);
    publish(&mut client, 1, (&exchange, &KEY), &typed(), &body);
    assert_eq!(own.broker().body_memory_bytes(), 0);
    assert_eq!(own.store().usage().reserved_bytes, body.len() as u64);
    assert_eq!(upload_file_count(&own.payload_folder()), 1);
    let [first, second] = [(); 2].map(|()| consumer.expect_message(1));
    for message in [&first, &second, &narrow.expect_message(1)] {
        assert_body(message, &body);
        assert_eq!(message.header.raw, typed().encode());
    }
    settle(&mut consumer, &first, true);
    let again = consumer.expect_message(1);
    assert_body(&again, &body);
    assert!(again.redelivered());
    for message in [&second, &again] {
        assert_eq!(upload_file_count(&own.payload_folder()), 1);
        consumer.ack(1, message.delivery_tag(), false);
    }
    until_file_bytes(&own, 0);
    assert_eq!(own.store().list(), []);
}

/// A publisher that is lost within a body leaves no file, and so does one that is turned out for its frames.
// req: MEMBODY-5
#[test]
fn half_a_body_leaves_no_file() {
    let own = start();
    let mut client = connect(&own);
    let queues = [declare(&mut client, "half", FieldTable::EMPTY)];
    let mut consumer = consumer(&own, &queues);
    let mut lost = open(&own);
    let publish = into_queue(&queues[0]);
    let output = published(1, &publish, &typed(), &pattern(4 << 20), 131_072);
    lost.send_bytes(&output[..output.len() / 2]);
    until_file_bytes(&own, 4 << 20);
    drop(lost);
    until_file_bytes(&own, 0);
    let mut closed = open(&own);
    closed.send_bytes(&output[..output.len() / 2]);
    until_file_bytes(&own, 4 << 20);
    closed.send_bytes(&output[..output.len() / 2]);
    closed.expect_connection_close(501);
    until_file_bytes(&own, 0);
    publish_to(&mut client, 1, &queues[0], b"whole");
    assert_body(&consumer.expect_message(1), b"whole");
    assert_eq!(own.store().list(), []);
}

/// A consumer that is lost while a body goes to it from its file leaves the message, whole, to the next one.
// req: MEMBODY-5
#[test]
fn half_a_delivery_from_a_file_goes_back() {
    let own = start();
    let mut client = connect(&own);
    let queues = [declare(&mut client, "cut", FieldTable::EMPTY)];
    let mut lost = consumer(&own, &queues);
    lost.take_little();
    let body = pattern(LONG_BYTES);
    publish_to(&mut client, 1, &queues[0], &body);
    let mut received_bytes = 0;
    while received_bytes < 1 << 20 {
        let frame = lost.frame(PATIENCE).expect("in time").expect("a frame");
        if frame.kind == FrameKind::Body {
            received_bytes += frame.payload.len();
        }
    }
    drop(lost);
    let mut next = consumer(&own, &queues);
    let message = next.expect_message(1);
    assert_body(&message, &body);
    assert!(message.redelivered());
    next.ack(1, message.delivery_tag(), false);
    until_file_bytes(&own, 0);
    assert_eq!(own.store().list(), []);
}

/// A consumer that goes without having taken all of a body whose message needs no acknowledgement leaves no file.
// req: MEMBODY-5
#[test]
fn half_a_delivery_without_acknowledgement_leaves_no_file() {
    let own = start();
    let mut client = connect(&own);
    let queue = declare(&mut client, "gone", FieldTable::EMPTY);
    let mut lost = open(&own);
    lost.take_little();
    lost.consume(1, &queue, "all", true);
    publish_to(&mut client, 1, &queue, &pattern(LONG_BYTES));
    lost.frame(PATIENCE).expect("in time").expect("a frame");
    drop(lost);
    until_file_bytes(&own, 0);
    assert_eq!(client.depth(1, &queue), 0);
}

/// What waits is fetched, shown by the management API, purged, deleted with its queue, or left behind by a stop: each time
/// its file goes, or becomes a payload's.
// req: MEMBODY-5
// req: MEMBODY-6
#[test]
fn a_file_goes_with_its_message() {
    let managed = Managed::of(start());
    let own = &managed.own;
    let mut client = connect(own);
    let queue = declare(&mut client, "waiting", FieldTable::EMPTY);
    let mut consumer = open(own);
    consumer.qos(1, 1);
    consumer.consume(1, &queue, "one", false);
    publish_to(&mut client, 1, &queue, b"busy");
    let busy = consumer.expect_message(1);
    let bodies: Vec<Vec<u8>> = (0..5).map(|number| pattern(BODY_BYTES + number)).collect();
    let size = |number: usize| bodies[number].len() as u64;

    publish_to(&mut client, 2, &queue, &bodies[0]);
    until_file_bytes(own, size(0));
    let got = client.get(1, &queue, true).expect("it waits");
    assert_body(&got, &bodies[0]);
    until_file_bytes(own, 0);

    publish_to(&mut client, 3, &queue, &bodies[1]);
    let purge = queue::Purge {
        queue: queue.clone(),
        ..queue::Purge::default()
    };
    client.call(1, purge);
    until_file_bytes(own, 0);
    assert_eq!(own.store().list(), []);

    publish_to(&mut client, 4, &queue, &bodies[2]);
    let path = format!("queues/%2F/{queue}/get");
    let get = json!({"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"});
    let (status, shown) = managed.ask("POST", &path, &get);
    assert_eq!(status, 200);
    let id = id_of(&bodies[2]).to_string();
    assert_eq!(shown[0]["payload_id"].as_str(), Some(id.as_str()));
    assert_eq!(only_payload(own).id, id_of(&bodies[2]));
    until_file_bytes(own, 0);
    let got = client.get(1, &queue, true).expect("it waits");
    assert_body(&got, &bodies[2]);

    publish_to(&mut client, 5, &queue, &bodies[3]);
    until_file_bytes(own, size(3));
    let delete = queue::Delete {
        queue: queue.clone(),
        ..queue::Delete::default()
    };
    client.call(1, delete);
    until_file_bytes(own, 0);

    let queues = [declare(&mut client, "stopped", FieldTable::EMPTY)];
    let _holder = self::consumer(own, &queues);
    publish_to(&mut client, 6, &queues[0], &bodies[4]);
    until_file_bytes(own, size(4));
    drop(busy);
    let folder = managed.own.stop();
    let own = Own::start_in(folder, |_| {});
    assert_eq!(upload_file_count(&own.payload_folder()), 0);
    assert_eq!(own.store().list().len(), 1, "what was shown");
}

/// More bodies than there may be files go into the store.
// req: MEMBODY-5
#[test]
fn bodies_beyond_the_number_of_files_are_stored() {
    let own = start();
    let mut client = connect(&own);
    let queues = [declare(&mut client, "many", FieldTable::EMPTY)];
    let mut consumer = consumer(&own, &queues);
    let count = BODY_FILE_COUNT_MAX + 2;
    let bodies: Vec<Vec<u8>> = (0..count).map(|number| pattern(300_000 + number)).collect();
    for (tag, body) in (1..).zip(&bodies) {
        publish_to(&mut client, tag, &queues[0], body);
    }
    assert_eq!(
        upload_file_count(&own.payload_folder()),
        BODY_FILE_COUNT_MAX
    );
    assert_eq!(own.store().list().len(), 2);
    for body in &bodies {
        let message = consumer.expect_message(1);
        assert_body(&message, body);
        consumer.ack(1, message.delivery_tag(), false);
    }
    until_file_bytes(&own, 0);
    publish_to(&mut client, count as u64 + 1, &queues[0], &bodies[0]);
    assert_body(&consumer.expect_message(1), &bodies[0]);
    assert_eq!(own.store().list().len(), 2);
}

/// A body for which the store has no room is refused with its words, at its beginning; others go on.
// req: MEMBODY-5
#[test]
fn a_body_without_room_is_refused() {
    let own = start_with_quota(1_000_000);
    let mut client = connect(&own);
    let queues = [declare(&mut client, "full", FieldTable::EMPTY)];
    let mut consumer = consumer(&own, &queues);
    let body = pattern(BODY_BYTES);
    publish_to(&mut client, 1, &queues[0], &body);
    let mut refused = open(&own);
    refused.publish(1, &queues[0], &body);
    let text = refused.expect_channel_close(1, 406);
    let expected =
        "no room for 900001 bytes in the payload store: 900001 of its quota of 1000000 are in use";
    assert!(text.contains(expected), "{text}");
    let message = consumer.expect_message(1);
    assert_body(&message, &body);
    consumer.ack(1, message.delivery_tag(), false);
    // It is acknowledged when this is answered, and who needs its room need not wait for more.
    consumer.qos(1, 0);
    publish_to(&mut client, 2, &queues[0], &body);
    assert_body(&consumer.expect_message(1), &body);
}

/// A consumer that wants manifests gets one, for which the file becomes a payload without a copy; who was in the middle of
/// the body gets the rest of it.
// req: MEMBODY-6
#[test]
fn a_manifest_is_made_of_a_file() {
    // Too little for two copies.
    let own = start_with_quota(LONG_BYTES as u64 + 1);
    let mut client = connect(&own);
    let (exchange, queues) = fanout(&mut client, 2);
    let mut reader = consumer(&own, &queues[..1]);
    reader.take_little();
    let mut taker = open(&own);
    taker.qos(1, 1);
    taker.send(1, consume_with(&queues[1], payload_argument("manifest")));
    taker.next_on(1);
    publish_to(&mut client, 1, &queues[1], b"busy");
    let busy = taker.expect_message(1);
    let body = pattern(LONG_BYTES);
    publish(&mut client, 2, (&exchange, &KEY), &typed(), &body);
    until_file_bytes(&own, body.len() as u64);
    taker.ack(1, busy.delivery_tag(), false);
    let manifest = taker.expect_message(1);
    assert_manifest(&own, &manifest, &body);
    assert_eq!(only_payload(&own).id, id_of(&body));
    assert_body(&reader.expect_message(1), &body);
    until_file_bytes(&own, 0);
    // Now it has an id.
    drop(reader);
    let again = until("the message is back", || client.get(1, &queues[0], true));
    assert_body(&again, &body);
    let headers = again.header.properties().expect("properties").headers;
    let id = FieldValue::from(id_of(&body).to_string().as_str());
    assert_eq!(headers, Some(FieldTable::from([("x-payload-id", id)])));
}

/// Queues that drop duplicates or whose messages may live on as dead letters have what is stored from the beginning.
// req: MEMBODY-5
#[test]
fn what_may_need_an_id_is_stored_at_once() {
    let own = start();
    let mut client = connect(&own);
    let letters = FieldTable::from([("x-dead-letter-exchange", FieldValue::from("none"))]);
    let known = FieldTable::from([
        ("x-message-deduplication", FieldValue::from(true)),
        ("x-deduplication-by", FieldValue::from("content")),
    ]);
    let queues = [letters, known].map(|arguments| declare(&mut client, "id", arguments));
    let mut consumer = consumer(&own, &queues);
    for (number, queue) in queues.iter().enumerate() {
        let body = pattern(BODY_BYTES + number);
        publish_to(&mut client, number as u64 + 1, queue, &body);
        assert_body(&consumer.expect_message(1), &body);
        assert_eq!(own.store().list().len(), number + 1);
        assert_eq!(own.store().usage().reserved_bytes, 0);
    }
}

/// A queue that drops duplicates, and was bound when the body was on its way already, knows it by its content all the same.
// req: MEMBODY-6
#[test]
fn a_body_in_a_file_is_known_by_its_content() {
    let own = start();
    let mut client = connect(&own);
    let (exchange, queues) = fanout(&mut client, 1);
    let mut consumer = consumer(&own, &queues);
    let known = FieldTable::from([
        ("x-message-deduplication", FieldValue::from(true)),
        ("x-deduplication-by", FieldValue::from("content")),
    ]);
    let known = declare(&mut client, "known", known);
    let body = pattern(BODY_BYTES);
    let publish = basic::Publish {
        exchange: exchange.clone(),
        ..basic::Publish::default()
    };
    let output = published(1, &publish, &typed(), &body, 131_072);
    let (front, back) = output.split_at(output.len() / 2);
    let mut publisher = connect(&own);
    publisher.send_bytes(front);
    until_file_bytes(&own, body.len() as u64);
    let bind = queue::Bind {
        queue: known.clone(),
        exchange,
        ..queue::Bind::default()
    };
    client.call(1, bind);
    publisher.send_bytes(back);
    take_confirms(&mut publisher, 1, &mut [1].into());
    assert_body(&consumer.expect_message(1), &body);
    assert_eq!(own.store().list(), []);
    publish_to(&mut client, 1, &known, &body);
    assert_eq!(client.depth(1, &known), 1, "the second is its like");
    assert_body(&client.get(1, &known, true).expect("the first"), &body);
    publish_to(&mut client, 2, &known, &body);
    assert_eq!(client.depth(1, &known), 1, "the first is gone");
}

/// Bodies that are in files when their queue gets a policy for dead letters are stored when they die into a queue which keeps
/// them, rejected or with the queue too long; no file is left, and they are there after a restart.
// req: MEMBODY-6
#[test]
fn a_body_in_a_file_is_stored_when_it_must_survive() {
    let managed = Managed::of(start());
    let own = &managed.own;
    let mut client = connect(own);
    let kept = declare_kept(&mut client);
    let queue = declare(&mut client, "dying", FieldTable::EMPTY);
    let mut consumer = open(own);
    consumer.qos(1, 1);
    consumer.consume(1, &queue, "one", false);
    let bodies = [pattern(BODY_BYTES), pattern(BODY_BYTES + 1)];
    for (tag, body) in (1..).zip(&bodies) {
        publish_to(&mut client, tag, &queue, body);
    }
    let message = consumer.expect_message(1);
    assert_eq!(own.store().list(), []);
    let mut definition = json!({
        "dead-letter-exchange": "", "dead-letter-routing-key": kept.to_string(), "max-length": 0,
    });
    let put = |definition: &serde_json::Value| {
        let policy = json!({"pattern": queue.to_string(), "definition": definition});
        let status = managed.status("PUT", "policies/%2F/letters", &policy);
        assert!(matches!(status, 201 | 204), "{status}");
    };
    put(&definition);
    until("the second died of the length", || {
        (client.depth(1, &kept) == 1).then_some(())
    });
    assert_eq!(only_payload(own).id, id_of(&bodies[1]));
    until_file_bytes(own, bodies[0].len() as u64);
    definition["max-length"] = json!(10);
    put(&definition);
    settle(&mut consumer, &message, false);
    until("the first died of its rejection", || {
        (client.depth(1, &kept) == 2).then_some(())
    });
    until_file_bytes(own, 0);
    let own = Own::start_in(managed.own.stop(), |_| {});
    let mut client = connect(&own);
    for body in [&bodies[1], &bodies[0]] {
        let message = client.get(1, &kept, true).expect("it survived");
        assert_body(&message, body);
    }
}

/// A body that cannot be stored when somebody asks for more is refused, or stays what it was: whole, in its file, and stored
/// when that is possible again.
// req: MEMBODY-6
#[test]
fn a_body_that_cannot_be_stored_stays_in_its_file() {
    let managed = Managed::of(start());
    let own = &managed.own;
    let mut client = connect(own);
    let queue = declare(&mut client, "stuck", FieldTable::EMPTY);
    let mut consumer = open(own);
    consumer.qos(1, 1);
    consumer.consume(1, &queue, "one", false);
    publish_to(&mut client, 1, &queue, b"busy");
    let busy = consumer.expect_message(1);
    let body = pattern(BODY_BYTES);
    publish_to(&mut client, 2, &queue, &body);
    until_file_bytes(own, body.len() as u64);
    // Where the payload's folder would be.
    let scopes = std::fs::read_dir(own.payload_folder()).expect("the store's folder");
    let scope = scopes.map(|scope| scope.expect("an entry").path()).next();
    let id = id_of(&body).to_string();
    let in_the_way = scope.expect("one scope").join(&id[..2]);
    std::fs::write(&in_the_way, b"").expect("a file");
    let path = format!("queues/%2F/{queue}/get");
    let get = json!({"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"});
    let (status, shown) = managed.ask("POST", &path, &get);
    assert_eq!((status, shown[0]["payload_id"].as_str()), (200, None));
    assert_eq!(own.store().list(), []);
    until_file_bytes(own, body.len() as u64);
    consumer.ack(1, busy.delivery_tag(), false);
    let message = consumer.expect_message(1);
    assert_body(&message, &body);
    settle(&mut consumer, &message, true);
    assert_body(&consumer.expect_message(1), &body);

    // A queue that keeps it, bound when a part of it has come.
    let (exchange, queues) = fanout(&mut client, 1);
    let mut other = self::consumer(own, &queues);
    let kept = declare_kept(&mut client);
    let publish = basic::Publish {
        exchange: exchange.clone(),
        ..basic::Publish::default()
    };
    let output = published(1, &publish, &typed(), &body, 131_072);
    let (front, back) = output.split_at(output.len() / 2);
    let bind = queue::Bind {
        queue: kept.clone(),
        exchange: exchange.clone(),
        ..queue::Bind::default()
    };
    let unbind = queue::Unbind {
        queue: kept.clone(),
        exchange,
        ..queue::Unbind::default()
    };
    for is_possible in [false, true] {
        if is_possible {
            std::fs::remove_file(&in_the_way).expect("there");
        }
        let mut publisher = connect(own);
        publisher.send_bytes(front);
        until_file_bytes(own, 2 * body.len() as u64);
        client.call(1, bind.clone());
        publisher.send_bytes(back);
        if is_possible {
            take_confirms(&mut publisher, 1, &mut [1].into());
            assert_body(&other.expect_message(1), &body);
            assert_eq!(only_payload(own).id, id_of(&body));
        } else {
            let text = publisher.expect_channel_close(1, 406);
            assert!(text.contains("cannot create"), "{text}");
            assert_eq!(own.store().list(), []);
        }
        // That of the first message.
        until_file_bytes(own, body.len() as u64);
        assert_eq!(client.depth(1, &kept), u32::from(is_possible));
        client.call(1, unbind.clone());
    }
    let (status, shown) = managed.ask("POST", &path, &get);
    assert_eq!((status, shown.as_array().map(Vec::len)), (200, Some(0)));
    drop(consumer);
    let (_, shown) = until("it is back", || {
        let answer = managed.ask("POST", &path, &get);
        (answer.1.as_array().map(Vec::len) == Some(1)).then_some(answer)
    });
    assert_eq!(shown[0]["payload_id"].as_str(), Some(id.as_str()));
    until_file_bytes(own, 0);
    assert_body(&client.get(1, &queue, true).expect("it is back"), &body);
}

/// A small message on one channel does not wait for the end of a body from a file on another.
// req: MEMBODY-4
#[test]
fn a_body_in_a_file_lets_other_channels_through() {
    let own = start();
    let mut client = connect(&own);
    let queues = ["long", "small"].map(|name| declare(&mut client, name, FieldTable::EMPTY));
    let mut consumer = Client::connect(own.address());
    consumer.take_little();
    for (channel, queue) in (1..).zip(&queues) {
        consumer.open(channel);
        consumer.consume(channel, queue, "all", true);
    }
    let body = pattern(LONG_BYTES);
    publish_to(&mut client, 1, &queues[0], &body);
    assert_small_overtakes(&mut consumer, &body, || {
        publish_to(&mut client, 2, &queues[1], b"small");
    });
    until_file_bytes(&own, 0);
    assert_eq!(own.store().list(), []);
}

/// After a kill the file of a body that nobody kept is gone, and a persistent one that met a durable queue on its way and
/// was confirmed is there.
// req: MEMBODY-5
// req: MEMBODY-6
#[test]
fn a_kill_leaves_what_was_stored_and_no_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = || {
        let process = Process::start(serve(folder.path()));
        process.unwrap_or_else(|ended| panic!("{}", ended.errors))
    };
    let files = || upload_file_count(&folder.path().join("payloads"));
    let process = start();
    let connect = |process: &Process| {
        let mut client = Client::connect(process.address());
        client.open(1);
        client.confirm_select(1);
        client
    };
    let mut client = connect(&process);
    let (exchange, queues) = fanout(&mut client, 1);
    let mut consumer = connect(&process);
    consumer.qos(1, 1);
    consumer.consume(1, &queues[0], "one", false);
    let durable = queue::Declare {
        queue: unique("durable"),
        durable: true,
        ..queue::Declare::default()
    };
    let durable = client.declare(1, durable);
    let bodies = [pattern((17 << 20) + 1), pattern(17 << 20)];
    publish_to(&mut client, 1, &queues[0], &bodies[0]);
    assert_eq!(files(), 1);
    let publish = basic::Publish {
        exchange: exchange.clone(),
        ..basic::Publish::default()
    };
    let output = published(1, &publish, &persistent(), &bodies[1], 131_072);
    let (front, back) = output.split_at(output.len() / 2);
    let mut publisher = connect(&process);
    publisher.send_bytes(front);
    until("the second begins", || (files() == 2).then_some(()));
    let bind = queue::Bind {
        queue: durable.clone(),
        exchange,
        ..queue::Bind::default()
    };
    client.call(1, bind);
    publisher.send_bytes(back);
    take_confirms(&mut publisher, 1, &mut [1].into());
    assert_eq!(files(), 1);
    process.signal("KILL");
    process.wait();
    assert_eq!(files(), 1, "nobody was there to remove it");
    let process = start();
    assert_eq!(files(), 0);
    let mut client = connect(&process);
    let message = client.get(1, &durable, true).expect("it survived");
    assert_body(&message, &bodies[1]);
    assert!(client.get(1, &durable, true).is_none());
}
