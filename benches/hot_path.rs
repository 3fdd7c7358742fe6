//! A small message's whole way through the protocol and the broker, as instructions that can be counted: octets
//! of a publisher's socket in, octets for a consumer's socket out, without sockets, tasks and disks.
//!
//! `benches/hot_path/run` runs it under callgrind and prints instructions per message, which another program on
//! the machine does not change; without callgrind it prints nanoseconds. Names are those of the scenarios in
//! `../shared/bench/`. Read against: 0.2 µs for a small message from socket to queue, sockets included.
#![allow(missing_docs, clippy::disallowed_methods)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use warren::amqp::field::{FieldTable, Secret, ShortString};
use warren::amqp::frame::{self, ProtocolHeader};
use warren::amqp::header::{ContentHeader, Properties};
use warren::amqp::method::{Encode, Method, basic, channel, confirm, connection, queue};
use warren::broker::{Broker, BrokerSettings, Origin, Waker};
use warren::session::{Chunk, Session, SessionSettings};

/// Octets that come with one read of a busy socket.
const READ_BYTES: usize = 64 * 1024;
/// Frame size that the load generator asks for, in bytes.
const FRAME_BYTES_MAX: u32 = 128 * 1024;

struct NoWaker;

impl Waker for NoWaker {
    fn wake(&self) {}
}

/// One connection with one channel.
struct Client {
    session: Session,
    now: Instant,
}

impl Client {
    fn new(broker: &Arc<Broker>, now: Instant) -> Self {
        let session = Session::new(
            Arc::new(SessionSettings::default()),
            Arc::clone(broker),
            Origin::Loopback,
            Arc::new(NoWaker),
            now,
        );
        let mut client = Self { session, now };
        client.bytes(&ProtocolHeader::ANSWER);
        client.method(
            0,
            &connection::StartOk {
                client_properties: FieldTable::EMPTY,
                mechanism: ShortString::from_static("PLAIN"),
                response: Secret::from(Bytes::from_static(b"\0guest\0guest")),
                ..connection::StartOk::default()
            },
        );
        let tune_ok = connection::TuneOk {
            channel_max: 2_047,
            frame_max: FRAME_BYTES_MAX,
            heartbeat: 0,
        };
        client.method(0, &tune_ok);
        let virtual_host = ShortString::from_static("/");
        client.method(0, &connection::Open { virtual_host });
        client.method(1, &channel::Open {});
        assert!(client.session.is_open(), "the handshake");
        client
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let mut input = BytesMut::from(bytes);
        self.session.handle_bytes(&mut input, self.now);
        assert!(input.is_empty(), "whole frames only");
    }

    fn method(&mut self, number: u16, method: &impl Encode) {
        let mut frames = BytesMut::new();
        frame::put_method(&mut frames, number, method);
        self.bytes(&frames);
        self.sent(|_| {});
    }

    /// Takes what the session has to send, as the server does.
    fn sent(&mut self, mut look: impl FnMut(Bytes)) {
        while let Some(chunk) = self.session.poll_transmit() {
            match chunk {
                Chunk::Bytes(bytes) => look(bytes),
                Chunk::Payload(_) | Chunk::Manifest(_) => unreachable!("small messages only"),
            }
        }
        self.session.handle_transmitted(self.now);
    }
}

/// What a scenario consists of.
struct Scenario {
    name: &'static str,
    body_bytes: usize,
    consumers: Consumers,
    confirms: bool,
}

enum Consumers {
    None,
    Automatic,
    /// One acknowledgement for each delivery.
    AckEach,
    /// One for so many.
    AckMultiple(u64),
}

const SCENARIOS: [Scenario; 8] = [
    scenario("S1-16B", 16, Consumers::None, false),
    scenario("S1-1K", 1_024, Consumers::None, false),
    scenario("S1-16B-confirms", 16, Consumers::None, true),
    scenario("S2-16B", 16, Consumers::Automatic, false),
    scenario("S2-1K", 1_024, Consumers::Automatic, false),
    scenario("S3-each", 1_024, Consumers::AckEach, false),
    scenario("S3-multi", 1_024, Consumers::AckMultiple(50), false),
    scenario("S3-each-16B", 16, Consumers::AckEach, false),
];

const fn scenario(
    name: &'static str,
    body_bytes: usize,
    consumers: Consumers,
    confirms: bool,
) -> Scenario {
    Scenario {
        name,
        body_bytes,
        consumers,
        confirms,
    }
}

/// One published message as its publisher sends it.
fn published(body_bytes: usize) -> BytesMut {
    let mut frames = BytesMut::new();
    let publish = basic::Publish {
        routing_key: ShortString::from_static("hot"),
        ..basic::Publish::default()
    };
    frame::put_method(&mut frames, 1, &publish);
    let header = ContentHeader {
        class_id: 60,
        body_bytes: body_bytes as u64,
        raw: Properties::default().encode(),
    };
    frame::put_header(&mut frames, 1, &header);
    frame::put_body(&mut frames, 1, &vec![b'x'; body_bytes]);
    frames
}

/// Counts the deliveries in what was sent, and gives the last delivery's tag.
fn deliveries(bytes: &Bytes) -> (u64, u64) {
    let (mut count, mut last_tag, mut start) = (0, 0, 0);
    while let Ok(Some(frame)) = frame::parse(&bytes[start..], FRAME_BYTES_MAX) {
        if frame.kind == frame::FrameKind::Method
            && let Ok(Method::BasicDeliver(deliver)) =
                Method::decode(&Bytes::copy_from_slice(frame.payload))
        {
            (count, last_tag) = (count + 1, deliver.delivery_tag);
        }
        start += frame.frame_bytes;
    }
    (count, last_tag)
}

/// Acknowledgements of the deliveries behind `acked` up to `last`.
fn acknowledgements(acked: u64, last: u64, step: u64) -> BytesMut {
    let mut frames = BytesMut::new();
    let multiple = step > 1;
    for delivery_tag in (acked + 1..=last).filter(|tag| tag % step == 0) {
        let ack = basic::Ack {
            delivery_tag,
            multiple,
        };
        frame::put_method(&mut frames, 1, &ack);
    }
    frames
}

/// Sends `message_count` messages through. What the clients do is not the broker's: a delivery's tag is known
/// from their number, so nothing is read that the broker wrote, but in the first round, which shows that it came.
fn run(scenario: &Scenario, message_count: u64) {
    let now = Instant::now();
    let broker = Broker::open(BrokerSettings::new([1; 32], now, 0), None, None);
    let broker = broker.expect("nothing to recover");
    let mut publisher = Client::new(&broker, now);
    publisher.method(
        1,
        &queue::Declare {
            queue: ShortString::from_static("hot"),
            ..queue::Declare::default()
        },
    );
    if scenario.confirms {
        publisher.method(1, &confirm::Select::default());
    }
    let step = match scenario.consumers {
        Consumers::None | Consumers::Automatic => None,
        Consumers::AckEach => Some(1),
        Consumers::AckMultiple(step) => Some(step),
    };
    let mut consumer = match scenario.consumers {
        Consumers::None => None,
        Consumers::Automatic | Consumers::AckEach | Consumers::AckMultiple(_) => {
            let mut consumer = Client::new(&broker, now);
            let consume = basic::Consume {
                queue: ShortString::from_static("hot"),
                no_ack: step.is_none(),
                ..basic::Consume::default()
            };
            consumer.method(1, &consume);
            Some(consumer)
        }
    };
    let one = published(scenario.body_bytes);
    let at_once = (READ_BYTES / one.len()).max(1) as u64;
    let read = Bytes::from(one.repeat(at_once as usize));
    let (mut sent, mut acked) = (0, 0);
    while sent < message_count {
        publisher.bytes(&read);
        publisher.sent(|bytes| drop(black_box(bytes)));
        sent += at_once;
        let Some(consumer) = &mut consumer else {
            continue;
        };
        consumer.session.handle_wake(now);
        let is_first = sent == at_once;
        consumer.sent(|bytes| {
            if is_first {
                assert_eq!(deliveries(&bytes), (at_once, at_once), "all were delivered");
            }
        });
        if let Some(step) = step {
            let last = sent / step * step;
            consumer.bytes(&acknowledgements(acked, last, step));
            acked = last;
        }
    }
    if consumer.is_none() {
        let vhost = broker.vhost(b"/").expect("the default vhost");
        let queue = vhost.queue(b"hot").expect("it was declared");
        assert_eq!(queue.depth().ready_count as u64, sent, "all are queued");
    }
}

/// `hot_path SCENARIO COUNT` runs one; without a scenario all are run, and timed; `--list` names them.
fn main() {
    let is_asked_for = |flag: &str| std::env::args().any(|word| word == flag);
    if is_asked_for("--list") {
        return SCENARIOS
            .iter()
            .for_each(|scenario| println!("{}", scenario.name));
    }
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"));
    let name = arguments.next();
    let count = arguments.next().and_then(|count| count.parse().ok());
    for scenario in &SCENARIOS {
        if name.as_deref().is_some_and(|name| name != scenario.name) {
            continue;
        }
        let count = count.unwrap_or(1_000_000);
        let start = Instant::now();
        run(scenario, count);
        let ns = start.elapsed().as_nanos() as f64 / count as f64;
        println!("{:<18} {ns:8.1} ns/message", scenario.name);
    }
}
