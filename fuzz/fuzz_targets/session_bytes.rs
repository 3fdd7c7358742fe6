//! Any bytes to a session with a broker behind it: nothing panics, and these properties hold.
//!
//! * However the stream is cut, the same is answered, as long as no cut decides which frames are handled
//!   together (that may change how confirms are put together, and nothing else).
//! * What is sent is a sequence of whole frames.
//! * When the connection is gone, nothing of it is left: no consumer, no unsettled message, no exclusive
//!   queue, no upload that nobody ends.
//! * Memory grows with the input, whatever the input claims.
//!
//! The first byte says from where the stream starts and how it is cut; the rest is the stream.
#![no_main]

use std::convert::Infallible;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use warren::amqp::field::{Secret, ShortString};
use warren::amqp::frame::{self, ProtocolHeader};
use warren::amqp::method::{Encode, Method, basic, channel, confirm, connection, queue};
use warren::broker::{Alarm, Broker, BrokerSettings, Origin, Waker};
use warren::payload::PayloadId;
use warren::session::{Action, Chunk, Session, SessionSettings, UploadResult};
use warrenmq_fuzz::{CountingAllocator, peak_bytes_of};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Bodies from this size on leave the session as uploads, if the first byte says so.
const PAYLOAD_THRESHOLD_BYTES: u64 = 64;
/// Fewest octets of a frame: no more than one can become whole with as many.
const FRAME_BYTES_MIN: usize = 8;
/// How much memory one octet of input may take at the height of one call.
const BYTES_PER_INPUT_BYTE: usize = 256;
/// Memory that no input is needed for: route cache, maps, buffers.
const BYTES_ALWAYS: usize = 1024 * 1024;

/// The first byte's bits.
#[derive(Clone, Copy)]
struct Plan(u8);

impl Plan {
    /// The stream starts behind the handshake, on open channels.
    fn is_opened(self) -> bool {
        self.0 & 1 != 0
    }

    /// Large bodies leave as uploads.
    fn has_store(self) -> bool {
        self.0 & 2 != 0
    }

    /// The payload store refuses what it gets.
    fn store_refuses(self) -> bool {
        self.0 & 4 != 0
    }

    /// Length of the pieces that the stream is cut into, in bytes.
    fn cut_bytes(self) -> usize {
        usize::from(self.0 >> 3) % FRAME_BYTES_MIN + 1
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&plan, stream)) = input.split_first() else {
        return;
    };
    let plan = Plan(plan);
    let now = Instant::now();
    let frame_by_frame = run(plan, now, frames_of(stream, plan), stream.len());
    let pieces = stream.chunks(plan.cut_bytes()).collect();
    let cut = run(plan, now, pieces, stream.len());
    if frame_by_frame != cut {
        panic!("cuts change what is answered: {}", difference(&frame_by_frame.0, &cut.0));
    }
    run(plan, now, vec![stream], stream.len());
    run_with(Weather::Alarm, plan, now, vec![stream], stream.len());
});

/// Where two answers part, with what follows there.
fn difference(left: &[u8], right: &[u8]) -> String {
    let at = left.iter().zip(right).take_while(|(left, right)| left == right).count();
    let rest = |answer: &[u8]| answer[at..].iter().take(100).map(u8::to_string).collect::<Vec<_>>();
    format!("at octet {at}: {:?} or {:?}", rest(left).join(" "), rest(right).join(" "))
}

/// The stream cut behind each frame, as far as it is one.
fn frames_of(stream: &[u8], plan: Plan) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let mut rest = stream;
    if !plan.is_opened() && rest.len() >= ProtocolHeader::LEN_BYTES {
        let (header, behind) = rest.split_at(ProtocolHeader::LEN_BYTES);
        pieces.push(header);
        rest = behind;
    }
    while let Ok(Some(frame)) = frame::parse(rest, u32::MAX) {
        let (whole, behind) = rest.split_at(frame.frame_bytes);
        pieces.push(whole);
        rest = behind;
    }
    // What is no frame any more, octet by octet: an error shows as soon as it can.
    pieces.extend(rest.chunks(1));
    pieces
}

struct NoWaker;

impl Waker for NoWaker {
    fn wake(&self) {}
}

/// A session, its broker, and what it sent.
struct Driven {
    broker: Arc<Broker>,
    session: Session,
    input: BytesMut,
    sent: BytesMut,
    open_uploads: HashSet<String>,
    weather: Weather,
    plan: Plan,
    now: Instant,
}

/// Whether publishers are blocked.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Weather {
    /// They are not.
    Calm,
    /// Behind each frame of content, until all else is done.
    Alarm,
}

fn run(plan: Plan, now: Instant, pieces: Vec<&[u8]>, input_bytes: usize) -> (Bytes, bool) {
    run_with(Weather::Calm, plan, now, pieces, input_bytes)
}

/// Feeds the pieces to a new session and ends it. Gives what it sent, and whether it had closed.
fn run_with(
    weather: Weather,
    plan: Plan,
    now: Instant,
    pieces: Vec<&[u8]>,
    input_bytes: usize,
) -> (Bytes, bool) {
    let settings = BrokerSettings::new([7; 32], now, 0);
    let broker = Broker::open(settings, None, None).expect("nothing to recover");
    let settings = SessionSettings {
        payload_threshold_bytes: plan.has_store().then_some(PAYLOAD_THRESHOLD_BYTES),
        ..SessionSettings::default()
    };
    let session = Session::new(
        Arc::new(settings),
        Arc::clone(&broker),
        Origin::Loopback,
        Arc::new(NoWaker),
        now,
    );
    let mut driven = Driven {
        broker,
        session,
        input: BytesMut::new(),
        sent: BytesMut::new(),
        open_uploads: HashSet::new(),
        weather,
        plan,
        now,
    };
    if weather == Weather::Alarm {
        driven.broker.alarms().raise(Alarm::Memory);
    }
    if plan.is_opened() {
        driven.feed(&opening());
        assert!(driven.session.is_open(), "the opening is right");
    }
    for piece in pieces {
        let before_bytes = driven.sent.len();
        let ((), peak_bytes) = peak_bytes_of(|| driven.feed(piece));
        let sent_bytes = driven.sent.len() - before_bytes;
        let bound_bytes = BYTES_ALWAYS + BYTES_PER_INPUT_BYTE * input_bytes + 8 * sent_bytes;
        assert!(
            peak_bytes <= bound_bytes,
            "{peak_bytes} bytes for an input of {input_bytes}"
        );
    }
    let closed = driven.session.is_closed();
    driven.end();
    (driven.sent.freeze(), closed)
}

impl Driven {
    fn feed(&mut self, piece: &[u8]) {
        if !self.session.is_closed() {
            self.input.extend_from_slice(piece);
            self.session.handle_bytes(&mut self.input, self.now);
        }
        self.drive();
    }

    /// Does what the session asks for until it asks for nothing.
    fn drive(&mut self) {
        loop {
            while let Some(action) = self.session.poll_action() {
                self.act(action);
            }
            if !self.session.has_transmit() {
                if self.weather == Weather::Calm || !self.session.is_blocked() {
                    return;
                }
                self.broker.alarms().clear(Alarm::Memory);
                self.session.handle_wake(self.now);
                self.broker.alarms().raise(Alarm::Memory);
                continue;
            }
            while let Some(chunk) = self.session.poll_transmit() {
                match chunk {
                    Chunk::Bytes(bytes) => self.sent.extend_from_slice(&bytes),
                    Chunk::Payload(part) => {
                        let frames = part.read_frames(|_, _| Ok::<_, Infallible>(()));
                        self.sent.extend_from_slice(&frames.expect("nothing is read"));
                    }
                    // Its octets are the store's to know; here it goes unsent.
                    Chunk::Manifest(_) => {}
                }
            }
            self.session.handle_transmitted(self.now);
            self.session.handle_wake(self.now);
        }
    }

    fn act(&mut self, action: Action) {
        let name = |upload| format!("{upload:?}");
        match action {
            Action::PayloadBegin { upload, .. } => {
                assert!(self.open_uploads.insert(name(upload)), "begun twice");
            }
            Action::PayloadBytes { upload, bytes } => {
                assert!(self.open_uploads.contains(&name(upload)), "not begun");
                assert!(!bytes.is_empty());
            }
            Action::PayloadAbort { upload } => {
                assert!(self.open_uploads.remove(&name(upload)), "not begun");
            }
            Action::PayloadEnd { upload } => {
                assert!(self.open_uploads.remove(&name(upload)), "not begun");
                let result = if self.plan.store_refuses() {
                    UploadResult::Refused {
                        reason: "no space".to_owned(),
                    }
                } else {
                    let id = PayloadId::from_bytes([9; 32]);
                    UploadResult::Stored {
                        id,
                        size_bytes: PAYLOAD_THRESHOLD_BYTES,
                    }
                };
                self.session.handle_payload(upload, &result, self.now);
            }
        }
    }

    /// The socket is gone; nothing of the connection may be left.
    fn end(&mut self) {
        self.session.handle_disconnect(self.now);
        self.drive();
        assert!(self.session.is_closed());
        assert!(
            self.open_uploads.is_empty(),
            "uploads that nobody ends: {:?}",
            self.open_uploads
        );
        for queue in self.broker.vhost(b"/").expect("never deleted").queues() {
            let depth = queue.depth();
            assert_eq!(depth.unacked_count, 0, "unsettled messages are left");
            assert_eq!(depth.consumer_count, 0, "consumers are left");
            assert_eq!(queue.owner(), None, "an exclusive queue is left");
        }
        let mut rest = &self.sent[..];
        if rest.starts_with(&ProtocolHeader::ANSWER) {
            rest = &rest[ProtocolHeader::LEN_BYTES..];
        }
        while let Some(frame) = frame::parse(rest, u32::MAX).expect("only frames are sent") {
            if frame.kind == frame::FrameKind::Method {
                let payload = Bytes::copy_from_slice(frame.payload);
                Method::decode(&payload).expect("only methods are sent");
            }
            rest = &rest[frame.frame_bytes..];
        }
        assert!(rest.is_empty(), "only whole frames are sent");
    }
}

/// The opening of a connection with two channels, one of them confirming, and a queue named `q`.
fn opening() -> BytesMut {
    let mut octets = BytesMut::from(&ProtocolHeader::ANSWER[..]);
    let mut put = |number: u16, method: &dyn Fn(&mut BytesMut, u16)| method(&mut octets, number);
    let start_ok = connection::StartOk {
        mechanism: ShortString::from_static("PLAIN"),
        response: Secret::from(Bytes::from_static(b"\0guest\0guest")),
        ..connection::StartOk::default()
    };
    put(0, &method(start_ok));
    put(
        0,
        &method(connection::TuneOk {
            channel_max: 2047,
            frame_max: 4_096,
            heartbeat: 0,
        }),
    );
    let virtual_host = ShortString::from_static("/");
    put(0, &method(connection::Open { virtual_host }));
    put(1, &method(channel::Open {}));
    put(2, &method(channel::Open {}));
    put(2, &method(confirm::Select { no_wait: false }));
    let name = ShortString::from_static("q");
    put(
        1,
        &method(queue::Declare {
            queue: name.clone(),
            ..queue::Declare::default()
        }),
    );
    put(
        1,
        &method(basic::Consume {
            queue: name,
            ..basic::Consume::default()
        }),
    );
    octets
}

fn method(method: impl Encode) -> impl Fn(&mut BytesMut, u16) {
    move |octets, number| frame::put_method(octets, number, &method)
}
