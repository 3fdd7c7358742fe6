//! Answers that wait for the disk: a session on a journal that is driven by hand.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::amqp::field::{FieldTable, Secret, ShortString};
use crate::amqp::frame::{self, ProtocolHeader};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, Properties};
use crate::amqp::method::{
    Encode, Method, basic, channel, confirm, connection, exchange, queue, tx,
};
use crate::broker::{Broker, BrokerSettings, Origin, Waker};
use crate::journal::{Driver, Journal, JournalSettings};
use crate::testing::disk::SimDisk;

use super::transmit::PROMISE_COUNT_MAX;
use super::{Chunk, HELD_BYTES_MAX, Session, SessionSettings, UNSENT_BYTES_MAX};

struct Asleep;

impl Waker for Asleep {
    fn wake(&self) {}
}

/// A broker on a simulated disk whose sync thread is this test.
struct Scene {
    disk: SimDisk,
    broker: Arc<Broker>,
    journal: Journal,
    driver: Driver,
    now: Instant,
}

impl Scene {
    #[allow(clippy::disallowed_methods)]
    fn new() -> Self {
        let now = Instant::now();
        let settings = JournalSettings {
            free_bytes_min: 0,
            ..JournalSettings::default()
        };
        let disk = SimDisk::new();
        let opened = Journal::open_by_hand(Arc::new(disk.clone()), Path::new("/journal"), settings);
        let (journal, driver, recovered) = opened.expect("an empty disk");
        let broker = Broker::open(
            BrokerSettings::new([1; 32], now, 0),
            Some((journal.clone(), recovered)),
            None,
        );
        let mut scene = Self {
            disk,
            broker: broker.expect("a new broker"),
            journal,
            driver,
            now,
        };
        scene.write_and_sync();
        scene
    }

    fn write_and_sync(&mut self) {
        while self.driver.turn().expect("the disk is well") {}
    }

    /// A session with channels 1 and 2 open.
    fn session(&self) -> Session {
        let mut session = Session::new(
            Arc::new(SessionSettings::default()),
            Arc::clone(&self.broker),
            Origin::Loopback,
            Arc::new(Asleep),
            self.now,
        );
        let mut input = BytesMut::from(&ProtocolHeader::ANSWER[..]);
        let start_ok = connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: ShortString::from_static("PLAIN"),
            response: Secret::from(Bytes::from_static(b"\0guest\0guest")),
            locale: ShortString::from_static("en_US"),
        };
        let tune_ok = connection::TuneOk {
            channel_max: 2047,
            frame_max: 131_072,
            heartbeat: 0,
        };
        let open = connection::Open {
            virtual_host: ShortString::from_static("/"),
        };
        frame::put_method(&mut input, 0, &start_ok);
        frame::put_method(&mut input, 0, &tune_ok);
        frame::put_method(&mut input, 0, &open);
        frame::put_method(&mut input, 1, &channel::Open {});
        frame::put_method(&mut input, 2, &channel::Open {});
        session.handle_bytes(&mut input, self.now);
        let opened = answers(&mut session);
        assert_eq!(
            opened.last().map(|(_, name)| *name),
            Some("channel.open-ok")
        );
        session
    }

    /// Tells the session how far the disk is, as the server does.
    fn tell(&self, session: &mut Session) {
        session.handle_committed(self.journal.durable_lsn().lsn(), self.now);
    }

    fn send(&self, session: &mut Session, channel: u16, method: &impl Encode) {
        let mut input = BytesMut::new();
        frame::put_method(&mut input, channel, method);
        session.handle_bytes(&mut input, self.now);
    }
}

/// Channels and methods that the session has to send now.
fn methods(session: &mut Session) -> Vec<(u16, Method)> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = session.poll_transmit() {
        match chunk {
            Chunk::Bytes(chunk) => bytes.extend_from_slice(&chunk),
            Chunk::Payload(_) | Chunk::Manifest(_) => panic!("there is no payload store"),
        }
    }
    let mut methods = Vec::new();
    while let Some(frame) = frame::decode(&mut bytes, 131_072).expect("own frames") {
        let method = Method::decode(&frame.payload).expect("own methods");
        methods.push((frame.channel, method));
    }
    methods
}

/// Channels and names of the methods that the session has to send now.
fn answers(session: &mut Session) -> Vec<(u16, &'static str)> {
    let methods = methods(session).into_iter();
    methods
        .map(|(channel, method)| (channel, method.name()))
        .collect()
}

const CLOSE: connection::Close = connection::Close {
    reply_code: 200,
    reply_text: ShortString::EMPTY,
    class_id: 0,
    method_id: 0,
};

fn declare(name: &str) -> queue::Declare {
    queue::Declare {
        queue: ShortString::truncated(name),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        no_wait: false,
        arguments: FieldTable::default(),
    }
}

/// A persistent message to a queue.
fn put_persistent(input: &mut BytesMut, channel: u16, queue: &'static str) {
    let persistent = Properties {
        delivery_mode: Some(2),
        ..Properties::default()
    };
    let header = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: 4,
        raw: persistent.encode(),
    };
    let publish = basic::Publish {
        exchange: ShortString::EMPTY,
        routing_key: ShortString::from_static(queue),
        mandatory: false,
        immediate: false,
    };
    frame::put_method_with_content(input, channel, &publish, &header, b"body", 131_072);
}

/// A durable queue's declare-ok comes when its record is synced, and so does the answer to a client
/// that only asks for the queue; what both send meanwhile is answered afterwards, in order.
#[test]
fn declare_ok_waits_for_the_disk() {
    let mut scene = Scene::new();
    let (mut first, mut second) = (scene.session(), scene.session());
    scene.send(&mut first, 1, &declare("q"));
    let passive = queue::Declare {
        passive: true,
        ..declare("q")
    };
    scene.send(&mut second, 1, &passive);
    let qos = basic::Qos {
        prefetch_size: 0,
        prefetch_count: 9,
        global: false,
    };
    scene.send(&mut second, 1, &qos);
    for session in [&mut first, &mut second] {
        scene.tell(session);
        assert_eq!(answers(session), []);
        assert!(session.waits_for_commit());
        assert!(session.wants_bytes());
    }

    scene.write_and_sync();
    for session in [&mut first, &mut second] {
        scene.tell(session);
        assert!(!session.waits_for_commit());
        assert!(session.wants_bytes());
    }
    assert_eq!(answers(&mut first), [(1, "queue.declare-ok")]);
    let expected = [(1, "queue.declare-ok"), (1, "basic.qos-ok")];
    assert_eq!(answers(&mut second), expected);
}

/// The client's `connection.close` is handled behind the answers that wait, which one sync gives.
#[test]
fn the_end_of_a_connection_waits_for_its_answers() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    let mut input = BytesMut::new();
    frame::put_method(&mut input, 1, &declare("q"));
    frame::put_method(&mut input, 2, &declare("r"));
    frame::put_method(&mut input, 0, &CLOSE);
    frame::put_method(&mut input, 2, &declare("too late"));
    session.handle_bytes(&mut input, scene.now);
    assert_eq!(answers(&mut session), []);
    assert!(!session.wants_bytes());
    assert!(!session.is_closed());
    scene.write_and_sync();
    scene.tell(&mut session);
    let expected = [
        (1, "queue.declare-ok"),
        (2, "queue.declare-ok"),
        (0, "connection.close-ok"),
    ];
    assert_eq!(answers(&mut session), expected);
    assert!(session.is_closed());
    let vhost = scene.broker.vhost(b"/").expect("never deleted");
    assert!(vhost.queue(b"too late").is_none());
}

/// Nothing waits for the disk where nothing was written: transient things, and things that are there.
#[test]
fn answers_that_no_crash_can_belie_come_at_once() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    let transient = queue::Declare {
        durable: false,
        ..declare("t")
    };
    scene.send(&mut session, 1, &transient);
    assert_eq!(answers(&mut session), [(1, "queue.declare-ok")]);
    scene.send(&mut session, 1, &declare("q"));
    scene.write_and_sync();
    scene.tell(&mut session);
    scene.send(&mut session, 1, &declare("q"));
    let twice = [(1, "queue.declare-ok"), (1, "queue.declare-ok")];
    assert_eq!(answers(&mut session), twice);
}

/// Exchanges, bindings and every kind of delete wait as well.
#[test]
fn every_change_of_the_topology_is_answered_after_its_sync() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    let (name, key) = (ShortString::from_static("q"), ShortString::from_static("k"));
    let exchange = ShortString::from_static("x");
    let mut step = |scene: &mut Scene, put: &dyn Fn(&mut BytesMut), expected: &'static str| {
        let mut input = BytesMut::new();
        put(&mut input);
        session.handle_bytes(&mut input, scene.now);
        assert_eq!(answers(&mut session), [], "{expected} came before the sync");
        scene.write_and_sync();
        scene.tell(&mut session);
        assert_eq!(answers(&mut session), [(1, expected)]);
    };
    let exchange_declare = exchange::Declare {
        exchange: exchange.clone(),
        kind: ShortString::from_static("direct"),
        passive: false,
        durable: true,
        auto_delete: false,
        internal: false,
        no_wait: false,
        arguments: FieldTable::default(),
    };
    let bind = queue::Bind {
        queue: name.clone(),
        exchange: exchange.clone(),
        routing_key: key.clone(),
        no_wait: false,
        arguments: FieldTable::default(),
    };
    let unbind = queue::Unbind {
        queue: name.clone(),
        exchange: exchange.clone(),
        routing_key: key,
        arguments: FieldTable::default(),
    };
    let exchange_delete = exchange::Delete {
        exchange,
        if_unused: false,
        no_wait: false,
    };
    let queue_delete = queue::Delete {
        queue: name,
        if_unused: false,
        if_empty: false,
        no_wait: false,
    };
    let scene = &mut scene;
    step(
        scene,
        &|to| frame::put_method(to, 1, &declare("q")),
        "queue.declare-ok",
    );
    step(
        scene,
        &|to| frame::put_method(to, 1, &exchange_declare),
        "exchange.declare-ok",
    );
    step(
        scene,
        &|to| frame::put_method(to, 1, &bind),
        "queue.bind-ok",
    );
    step(
        scene,
        &|to| frame::put_method(to, 1, &unbind),
        "queue.unbind-ok",
    );
    step(
        scene,
        &|to| frame::put_method(to, 1, &exchange_delete),
        "exchange.delete-ok",
    );
    step(
        scene,
        &|to| frame::put_method(to, 1, &queue_delete),
        "queue.delete-ok",
    );
}

/// Two commits that are sent at once are each answered, after the sync.
#[test]
fn every_commit_of_a_transaction_is_answered() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    scene.send(&mut session, 1, &declare("q"));
    scene.write_and_sync();
    scene.tell(&mut session);
    scene.send(&mut session, 1, &tx::Select {});
    answers(&mut session);
    let mut input = BytesMut::new();
    for _ in 0..2 {
        put_persistent(&mut input, 1, "q");
        frame::put_method(&mut input, 1, &tx::Commit {});
    }
    session.handle_bytes(&mut input, scene.now);
    assert_eq!(answers(&mut session), []);
    scene.write_and_sync();
    scene.tell(&mut session);
    let expected = [(1, "tx.commit-ok"), (1, "tx.commit-ok")];
    assert_eq!(answers(&mut session), expected);
}

/// A client that sends many declares at once gets all answers, in order, and the disk syncs a few times.
#[test]
fn a_thousand_declares_share_a_few_syncs() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    let name = |index: usize| format!("q{index}");
    let mut input = BytesMut::new();
    for index in 0..1_000 {
        frame::put_method(&mut input, 1, &declare(&name(index)));
    }
    let syncs_before = scene.disk.sync_count();
    session.handle_bytes(&mut input, scene.now);
    assert_eq!(answers(&mut session), []);
    scene.write_and_sync();
    scene.tell(&mut session);
    let declared = methods(&mut session)
        .into_iter()
        .map(|answer| match answer {
            (1, Method::QueueDeclareOk(declared)) => declared.queue.to_string(),
            other => panic!("expected queue.declare-ok, got {other:?}"),
        });
    assert!(declared.eq((0..1_000).map(name)));
    let syncs = scene.disk.sync_count() - syncs_before;
    assert!((1..=5).contains(&syncs), "{syncs} syncs");
}

/// Only so many answers wait at once: the rest of what was read is handled when the disk has come on.
#[test]
fn answers_that_wait_are_bounded() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    let count = 2 * PROMISE_COUNT_MAX + 10;
    let mut input = BytesMut::new();
    for index in 0..count {
        // On two channels, since the bound is the connection's.
        let channel = 1 + index as u16 % 2;
        frame::put_method(&mut input, channel, &declare(&format!("q{index}")));
    }
    session.handle_bytes(&mut input, scene.now);
    let mut left = count;
    for expected in [PROMISE_COUNT_MAX, PROMISE_COUNT_MAX, 10] {
        assert_eq!(session.wants_bytes(), expected < PROMISE_COUNT_MAX);
        let vhost = scene.broker.vhost(b"/").expect("never deleted");
        left -= expected;
        assert_eq!(vhost.queue_count(), count - left);
        scene.write_and_sync();
        scene.tell(&mut session);
        assert_eq!(answers(&mut session).len(), expected);
    }
    assert!(session.wants_bytes());
    assert!(!session.waits_for_commit());
}

/// What waits on one channel holds up no other, and each answer waits for its own record only.
#[test]
fn channels_wait_apart() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    scene.send(&mut session, 1, &declare("a"));
    scene.write_and_sync();
    // It is durable, but nobody said so yet.
    scene.send(&mut session, 2, &declare("b"));
    let qos = basic::Qos {
        prefetch_size: 0,
        prefetch_count: 9,
        global: false,
    };
    scene.send(&mut session, 1, &qos);
    scene.send(&mut session, 3, &channel::Open {});
    scene.send(&mut session, 3, &qos);
    let free = [(3, "channel.open-ok"), (3, "basic.qos-ok")];
    assert_eq!(answers(&mut session), free);
    scene.tell(&mut session);
    let first = [(1, "queue.declare-ok"), (1, "basic.qos-ok")];
    assert_eq!(answers(&mut session), first);
    assert!(session.waits_for_commit());
    scene.write_and_sync();
    scene.tell(&mut session);
    assert_eq!(answers(&mut session), [(2, "queue.declare-ok")]);
    assert!(!session.waits_for_commit());
}

/// A channel's failure comes behind the answers that it owes; what the client sends behind its own mistake is dropped.
#[test]
fn a_channel_fails_behind_its_answers() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    let other = queue::Declare {
        auto_delete: true,
        ..declare("a")
    };
    let mut input = BytesMut::new();
    frame::put_method(&mut input, 1, &declare("a"));
    frame::put_method(&mut input, 1, &other);
    frame::put_method(&mut input, 1, &declare("dropped"));
    frame::put_method(&mut input, 2, &declare("b"));
    session.handle_bytes(&mut input, scene.now);
    assert_eq!(answers(&mut session), []);
    scene.write_and_sync();
    scene.tell(&mut session);
    let expected = [
        (1, "queue.declare-ok"),
        (1, "channel.close"),
        (2, "queue.declare-ok"),
    ];
    assert_eq!(answers(&mut session), expected);
    scene.send(&mut session, 1, &channel::CloseOk {});
    scene.send(&mut session, 1, &channel::Open {});
    assert_eq!(answers(&mut session), [(1, "channel.open-ok")]);
    let vhost = scene.broker.vhost(b"/").expect("never deleted");
    assert!(vhost.queue(b"dropped").is_none());
}

/// A client that closes a channel and opens it again gets the answers of both lives in order.
#[test]
fn a_channel_is_closed_and_opened_behind_its_answers() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    let close = channel::Close {
        reply_code: 200,
        reply_text: ShortString::EMPTY,
        class_id: 0,
        method_id: 0,
    };
    let mut input = BytesMut::new();
    frame::put_method(&mut input, 1, &declare("a"));
    frame::put_method(&mut input, 1, &close);
    frame::put_method(&mut input, 1, &channel::Open {});
    frame::put_method(&mut input, 1, &declare("b"));
    session.handle_bytes(&mut input, scene.now);
    assert_eq!(answers(&mut session), []);
    scene.write_and_sync();
    scene.tell(&mut session);
    let expected = [
        (1, "queue.declare-ok"),
        (1, "channel.close-ok"),
        (1, "channel.open-ok"),
        (1, "queue.declare-ok"),
    ];
    assert_eq!(answers(&mut session), expected);
}

/// A connection that fails says so behind all answers that it owes, whatever channel they are on.
#[test]
fn a_connection_fails_behind_its_answers() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    let mut input = BytesMut::new();
    frame::put_method(&mut input, 1, &declare("a"));
    frame::put_method(&mut input, 2, &declare("b"));
    // A channel that is not open.
    frame::put_method(&mut input, 9, &tx::Select {});
    frame::put_method(&mut input, 1, &declare("dropped"));
    session.handle_bytes(&mut input, scene.now);
    assert_eq!(answers(&mut session), []);
    assert!(!session.is_open());
    assert!(session.waits_for_commit());
    scene.write_and_sync();
    scene.tell(&mut session);
    let expected = [
        (1, "queue.declare-ok"),
        (2, "queue.declare-ok"),
        (0, "connection.close"),
    ];
    assert_eq!(answers(&mut session), expected);
    scene.send(&mut session, 0, &connection::CloseOk {});
    assert!(session.is_closed());
}

/// A client that closes its connection while ours is being closed gets its answers too.
#[test]
fn two_ends_that_cross_come_behind_the_answers() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    scene.send(&mut session, 1, &declare("a"));
    scene.send(&mut session, 9, &tx::Select {});
    scene.send(&mut session, 0, &CLOSE);
    assert_eq!(answers(&mut session), []);
    assert!(!session.is_closed());
    scene.write_and_sync();
    scene.tell(&mut session);
    let expected = [
        (1, "queue.declare-ok"),
        (0, "connection.close"),
        (0, "connection.close-ok"),
    ];
    assert_eq!(answers(&mut session), expected);
    assert!(session.is_closed());
}

/// When the disk has failed, nothing that waited for it is said any more, only that.
#[test]
fn a_failed_disk_answers_nothing_that_waited() {
    for fails_before in [false, true] {
        let scene = Scene::new();
        let mut session = scene.session();
        scene.send(&mut session, 1, &declare("a"));
        if fails_before {
            scene.send(&mut session, 9, &tx::Select {});
        }
        session.handle_storage_failure(scene.now);
        match &methods(&mut session)[..] {
            [(0, Method::ConnectionClose(close))] => assert_eq!(close.reply_code, 541),
            other => panic!("expected connection.close, got {other:?}"),
        }
        assert!(!session.waits_for_commit());
        scene.send(&mut session, 0, &connection::CloseOk {});
        assert!(session.is_closed());
    }
}

/// A confirm on a channel whose answer waits comes behind it, and only when it is due.
#[test]
fn confirms_keep_their_place_behind_answers() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    scene.send(&mut session, 1, &declare("q"));
    scene.write_and_sync();
    scene.tell(&mut session);
    scene.send(&mut session, 1, &confirm::Select { no_wait: false });
    answers(&mut session);
    let mut input = BytesMut::new();
    put_persistent(&mut input, 1, "q");
    frame::put_method(&mut input, 1, &declare("r"));
    put_persistent(&mut input, 1, "r");
    session.handle_bytes(&mut input, scene.now);
    assert_eq!(answers(&mut session), []);
    scene.write_and_sync();
    scene.tell(&mut session);
    match &methods(&mut session)[..] {
        [(1, Method::QueueDeclareOk(_)), (1, Method::BasicAck(ack))] => {
            assert_eq!((ack.delivery_tag, ack.multiple), (2, true));
        }
        other => panic!("expected queue.declare-ok and basic.ack, got {other:?}"),
    }
}

/// Who wants no answer waits for nothing.
#[test]
fn a_change_without_an_answer_promises_nothing() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    let unanswered = queue::Declare {
        no_wait: true,
        ..declare("q")
    };
    scene.send(&mut session, 1, &unanswered);
    assert!(!session.waits_for_commit());
    // But who asks afterwards does.
    scene.send(&mut session, 2, &declare("q"));
    assert_eq!(answers(&mut session), []);
    scene.write_and_sync();
    scene.tell(&mut session);
    assert_eq!(answers(&mut session), [(2, "queue.declare-ok")]);
}

/// Bodies of [`put_transient`].
const TRANSIENT_BYTES: usize = 100 * 1024;

/// A transient message that fits in one frame.
fn put_transient(input: &mut BytesMut, channel: u16, queue: &'static str) {
    let header = ContentHeader {
        class_id: CLASS_ID_BASIC,
        body_bytes: TRANSIENT_BYTES as u64,
        raw: Properties::default().encode(),
    };
    let publish = basic::Publish {
        exchange: ShortString::EMPTY,
        routing_key: ShortString::from_static(queue),
        mandatory: false,
        immediate: false,
    };
    let body = vec![7; TRANSIENT_BYTES];
    frame::put_method_with_content(input, channel, &publish, &header, &body, 131_072);
}

/// Writes what can go, and says how many frames that were.
fn write(scene: &Scene, session: &mut Session) -> usize {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = session.poll_transmit() {
        if let Chunk::Bytes(chunk) = chunk {
            bytes.extend_from_slice(&chunk);
        }
    }
    session.handle_transmitted(scene.now);
    let frames = std::iter::from_fn(|| frame::decode(&mut bytes, 131_072).expect("own frames"));
    frames.count()
}

/// A transient queue `t` of so many messages.
fn fill(scene: &Scene, session: &mut Session, count: usize) {
    let transient = queue::Declare {
        durable: false,
        ..declare("t")
    };
    scene.send(session, 1, &transient);
    let mut input = BytesMut::new();
    for _ in 0..count {
        put_transient(&mut input, 1, "t");
    }
    session.handle_bytes(&mut input, scene.now);
    write(scene, session);
}

/// What a slow disk lets wait on one channel is bounded, however much goes out on another one meanwhile.
#[test]
fn deliveries_that_wait_are_bounded() {
    let mut scene = Scene::new();
    let (mut publisher, mut session) = (scene.session(), scene.session());
    fill(&scene, &mut publisher, 200);
    scene.send(&mut session, 1, &declare("q"));
    let consume = basic::Consume {
        queue: ShortString::from_static("t"),
        consumer_tag: ShortString::EMPTY,
        no_local: false,
        no_ack: true,
        exclusive: false,
        no_wait: false,
        arguments: FieldTable::default(),
    };
    scene.send(&mut session, 1, &consume);
    let qos = basic::Qos {
        prefetch_size: 0,
        prefetch_count: 1,
        global: false,
    };
    for _ in 0..200 {
        session.handle_wake(scene.now);
        scene.send(&mut session, 2, &qos);
        assert!(
            write(&scene, &mut session) <= 1,
            "nothing but the answer of channel 2"
        );
    }
    let held = session.transmit.held_bytes();
    assert!(
        held >= HELD_BYTES_MAX,
        "{held}: other channels would wait for no reason"
    );
    assert!(held < HELD_BYTES_MAX + 2 * UNSENT_BYTES_MAX, "{held}");

    scene.write_and_sync();
    scene.tell(&mut session);
    let mut frame_count = 0;
    for _ in 0..200 {
        session.handle_wake(scene.now);
        frame_count += write(&scene, &mut session);
    }
    assert_eq!(session.transmit.held_bytes(), 0);
    // Two answers, the qos-oks that waited to be read, and three frames for each message.
    assert!(frame_count >= 2 + 3 * 200, "{frame_count}");
}

/// Who asks for much behind an answer that waits is read again when that has gone, and not with each heartbeat before.
#[test]
fn who_has_much_to_come_is_not_read() {
    let mut scene = Scene::new();
    let (mut publisher, mut session) = (scene.session(), scene.session());
    fill(&scene, &mut publisher, 40);
    scene.send(&mut session, 1, &declare("q"));
    let get = basic::Get {
        queue: ShortString::from_static("t"),
        no_ack: true,
    };
    let mut input = BytesMut::new();
    for _ in 0..40 {
        frame::put_method(&mut input, 1, &get);
    }
    session.handle_bytes(&mut input, scene.now);
    for _ in 0..10 {
        assert!(!session.wants_bytes());
        assert_eq!(write(&scene, &mut session), 0);
    }
    assert!(session.transmit.held_bytes() < UNSENT_BYTES_MAX + 2 * TRANSIENT_BYTES);
    scene.write_and_sync();
    scene.tell(&mut session);
    let mut frame_count = 0;
    while session.has_transmit() {
        frame_count += write(&scene, &mut session);
    }
    assert_eq!(frame_count, 1 + 3 * 40);
    assert!(session.wants_bytes());
}

/// Two ends that crossed wait for the disk no longer than a client has for its `close-ok`, and hear when it hangs up.
#[test]
fn ends_that_crossed_have_a_deadline() {
    let scene = Scene::new();
    let mut session = scene.session();
    scene.send(&mut session, 1, &declare("a"));
    scene.send(&mut session, 9, &tx::Select {});
    scene.send(&mut session, 0, &CLOSE);
    assert!(!session.is_closed());
    assert!(
        session.wants_bytes(),
        "a socket that is gone must be noticed"
    );
    let deadline = session.poll_timeout().expect("there is a deadline");
    session.handle_timeout(deadline);
    assert!(session.is_closed());
}

/// A payload that cannot be read ends the connection with all that it had.
#[test]
fn a_stream_that_fails_ends_the_connection() {
    let scene = Scene::new();
    let mut session = scene.session();
    let exclusive = queue::Declare {
        exclusive: true,
        durable: false,
        ..declare("mine")
    };
    scene.send(&mut session, 1, &exclusive);
    let vhost = scene.broker.vhost(b"/").expect("never deleted");
    assert!(vhost.queue(b"mine").is_some());
    session.handle_stream_failed("gone", scene.now);
    assert!(session.is_closed());
    assert!(vhost.queue(b"mine").is_none());
}
