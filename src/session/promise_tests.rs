//! Answers that wait for the disk: a session on a journal that is driven by hand.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::amqp::field::{FieldTable, Secret, ShortString};
use crate::amqp::frame::{self, ProtocolHeader};
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, Properties};
use crate::amqp::method::{Encode, Method, basic, channel, connection, exchange, queue, tx};
use crate::broker::{Broker, BrokerSettings, Origin, Waker};
use crate::journal::{Driver, Journal, JournalSettings};
use crate::testing::disk::SimDisk;

use super::{Chunk, Session, SessionSettings};

struct Asleep;

impl Waker for Asleep {
    fn wake(&self) {}
}

/// A broker on a simulated disk whose sync thread is this test.
struct Scene {
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
        let disk = Arc::new(SimDisk::new());
        let opened = Journal::open_by_hand(disk, Path::new("/journal"), settings);
        let (journal, driver, recovered) = opened.expect("an empty disk");
        let broker = Broker::open(
            BrokerSettings::new([1; 32], now, 0),
            Some((journal.clone(), recovered)),
            None,
        );
        let mut scene = Self {
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

/// Channels and names of the methods that the session has to send now.
fn answers(session: &mut Session) -> Vec<(u16, &'static str)> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = session.poll_transmit() {
        match chunk {
            Chunk::Bytes(chunk) => bytes.extend_from_slice(&chunk),
            Chunk::Payload(_) | Chunk::Manifest(_) => panic!("there is no payload store"),
        }
    }
    let mut answers = Vec::new();
    while let Some(frame) = frame::decode(&mut bytes, 131_072).expect("own frames") {
        let method = Method::decode(&frame.payload).expect("own methods");
        answers.push((frame.channel, method.name()));
    }
    answers
}

fn declare(name: &'static str) -> queue::Declare {
    queue::Declare {
        queue: ShortString::from_static(name),
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: false,
        no_wait: false,
        arguments: FieldTable::default(),
    }
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
        assert!(!session.wants_bytes());
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

/// Frames that were read together with the declare are handled, in order, once it is answered.
#[test]
fn what_was_read_behind_an_answer_that_waits_is_handled_after_it() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    let mut input = BytesMut::new();
    frame::put_method(&mut input, 1, &declare("q"));
    frame::put_method(&mut input, 2, &declare("r"));
    frame::put_method(
        &mut input,
        0,
        &connection::Close {
            reply_code: 200,
            reply_text: ShortString::EMPTY,
            class_id: 0,
            method_id: 0,
        },
    );
    session.handle_bytes(&mut input, scene.now);
    for expected in [(1, "queue.declare-ok"), (2, "queue.declare-ok")] {
        assert_eq!(answers(&mut session), []);
        scene.write_and_sync();
        scene.tell(&mut session);
        assert_eq!(answers(&mut session).first(), Some(&expected));
    }
    assert!(session.is_closed());
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

/// Two commits that are sent at once are answered one after the other, each after its sync.
#[test]
fn every_commit_of_a_transaction_is_answered() {
    let mut scene = Scene::new();
    let mut session = scene.session();
    scene.send(&mut session, 1, &declare("q"));
    scene.write_and_sync();
    scene.tell(&mut session);
    scene.send(&mut session, 1, &tx::Select {});
    answers(&mut session);
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
        routing_key: ShortString::from_static("q"),
        mandatory: false,
        immediate: false,
    };
    let mut input = BytesMut::new();
    for _ in 0..2 {
        frame::put_method_with_content(&mut input, 1, &publish, &header, b"body", 131_072);
        frame::put_method(&mut input, 1, &tx::Commit {});
    }
    session.handle_bytes(&mut input, scene.now);
    for _ in 0..2 {
        assert_eq!(answers(&mut session), []);
        scene.write_and_sync();
        scene.tell(&mut session);
        assert_eq!(answers(&mut session), [(1, "tx.commit-ok")]);
    }
}
