//! Sessions driven by hand: bytes in, frames and actions out, on a made-up clock, without a socket.

#![allow(clippy::disallowed_methods)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::{Action, Chunk, Session, SessionSettings, UploadId, UploadResult};
use crate::amqp::field::{FieldTable, Secret, ShortString};
use crate::amqp::frame::{self, FrameKind, ProtocolHeader};
use crate::amqp::header::{ContentHeader, Properties};
use crate::amqp::method::{Encode, Method, basic, channel, confirm, connection, queue, tx};
use crate::broker::{Broker, BrokerSettings, Origin, PasswordHash, Waker};
use crate::payload::PayloadId;

mod anonymous;
mod blocked;
mod repeating;
mod replies;
mod timeouts;
mod transactions;

/// Bodies from this size on leave the sessions of these tests as uploads.
const THRESHOLD_BYTES: usize = 10_000;

struct NoWaker;

impl Waker for NoWaker {
    fn wake(&self) {}
}

/// A frame that a session sent, as far as these tests look at it.
#[derive(Clone, Debug, PartialEq)]
enum Sent {
    Method(u16, Method),
    Header(u16),
    /// With the length of its payload.
    Body(u16, usize),
    Heartbeat,
}

/// A session with its broker and its clock.
struct Driven {
    broker: Arc<Broker>,
    session: Session,
    input: BytesMut,
    now: Instant,
}

impl Driven {
    /// A session that has not got a single octet.
    fn new() -> Self {
        let now = Instant::now();
        let settings = BrokerSettings::new([7; 32], now, 0);
        let broker = Broker::open(settings, None, None).expect("nothing to recover");
        let settings = SessionSettings {
            payload_threshold_bytes: Some(THRESHOLD_BYTES as u64),
            ..SessionSettings::default()
        };
        let session = Session::new(
            Arc::new(settings),
            Arc::clone(&broker),
            Origin::Loopback,
            Arc::new(NoWaker),
            now,
        );
        Self {
            broker,
            session,
            input: BytesMut::new(),
            now,
        }
    }

    /// A session behind the handshake, with channels 1 and 2 and a queue `q`.
    fn opened(heartbeat: u16) -> Self {
        Self::opened_as(heartbeat, FieldTable::EMPTY)
    }

    /// The same, of a client that says so of itself.
    fn opened_as(heartbeat: u16, client_properties: FieldTable) -> Self {
        let mut driven = Self::new();
        driven.bytes(&ProtocolHeader::ANSWER);
        driven.method(
            0,
            connection::StartOk {
                client_properties,
                mechanism: short("PLAIN"),
                response: Secret::from(Bytes::from_static(b"\0guest\0guest")),
                ..connection::StartOk::default()
            },
        );
        let tune_ok = connection::TuneOk {
            channel_max: 2047,
            frame_max: 4_096,
            heartbeat,
        };
        driven.method(0, tune_ok);
        let virtual_host = short("/");
        driven.method(0, connection::Open { virtual_host });
        assert!(driven.session.is_open());
        driven.method(1, channel::Open {});
        driven.method(2, channel::Open {});
        driven.method(
            1,
            queue::Declare {
                queue: short("q"),
                ..queue::Declare::default()
            },
        );
        driven.sent();
        driven
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.session.handle_bytes(&mut self.input, self.now);
    }

    fn method(&mut self, number: u16, method: impl Encode) {
        self.bytes(&framed(number, &method));
    }

    fn publish(&mut self, number: u16, body_bytes: usize) {
        self.bytes(&published(number, body_bytes));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        if self.session.poll_timeout().is_some_and(|at| at <= self.now) {
            self.session.handle_timeout(self.now);
        }
    }

    /// Everything that the session sends now. Streamed bodies are zeros.
    fn sent(&mut self) -> Vec<Sent> {
        let octets = self.octets();
        self.session.handle_transmitted(self.now);
        frames_of(&octets)
    }

    fn octets(&mut self) -> BytesMut {
        let mut output = BytesMut::new();
        while let Some(chunk) = self.session.poll_transmit() {
            put_chunk(chunk, &mut output);
        }
        output
    }

    /// The methods among what the session sends now.
    fn methods(&mut self) -> Vec<Method> {
        let method = |sent| match sent {
            Sent::Method(_, method) => Some(method),
            Sent::Header(_) | Sent::Body(..) | Sent::Heartbeat => None,
        };
        self.sent().into_iter().filter_map(method).collect()
    }

    /// The only thing that the session sends now: `connection.close` with its code and text.
    fn connection_close(&mut self) -> (u16, String) {
        match &self.methods()[..] {
            [Method::ConnectionClose(close)] => (close.reply_code, close.reply_text.to_string()),
            other => panic!("expected connection.close, got {other:?}"),
        }
    }

    /// All actions until now: the only upload, the sizes of its parts, whether it was ended.
    fn upload(&mut self) -> (UploadId, u64, usize, bool) {
        let Some(Action::PayloadBegin {
            upload, size_bytes, ..
        }) = self.session.poll_action()
        else {
            panic!("no upload begins");
        };
        let (mut got_bytes, mut ended) = (0, false);
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::PayloadBytes { upload: of, bytes } if of == upload => {
                    got_bytes += bytes.len();
                }
                Action::PayloadEnd { upload: of } if of == upload => ended = true,
                other => panic!("expected parts of one upload, got {other:?}"),
            }
        }
        (upload, size_bytes, got_bytes, ended)
    }

    fn stored(&mut self, upload: UploadId, size_bytes: usize) {
        let result = UploadResult::Stored {
            id: PayloadId::from_bytes([9; 32]),
            size_bytes: size_bytes as u64,
        };
        self.session.handle_payload(upload, &result, self.now);
    }

    fn ready_count(&self) -> usize {
        let vhost = self.broker.vhost(b"/").expect("never deleted");
        vhost.queue(b"q").expect("declared").depth().ready_count
    }
}

fn put_chunk(chunk: Chunk, output: &mut BytesMut) {
    match chunk {
        Chunk::Bytes(bytes) => output.extend_from_slice(&bytes),
        Chunk::Payload(part) => {
            let frames = part.read_frames(|_, _| Ok::<_, Infallible>(()));
            output.extend_from_slice(&frames.expect("nothing is read"));
        }
        Chunk::Manifest(_) => panic!("nobody asked for a manifest"),
    }
}

fn frames_of(mut octets: &[u8]) -> Vec<Sent> {
    let mut sent = Vec::new();
    while let Some(frame) = frame::parse(octets, u32::MAX).expect("frames are sent") {
        let payload = Bytes::copy_from_slice(frame.payload);
        sent.push(match frame.kind {
            FrameKind::Method => {
                let method = Method::decode(&payload).expect("methods are sent");
                Sent::Method(frame.channel, method)
            }
            FrameKind::Header => Sent::Header(frame.channel),
            FrameKind::Body => Sent::Body(frame.channel, payload.len()),
            FrameKind::Heartbeat => Sent::Heartbeat,
        });
        octets = &octets[frame.frame_bytes..];
    }
    assert!(octets.is_empty(), "whole frames are sent");
    sent
}

fn short(text: &'static str) -> ShortString {
    ShortString::from_static(text)
}

fn framed(number: u16, method: &impl Encode) -> BytesMut {
    let mut output = BytesMut::new();
    frame::put_method(&mut output, number, method);
    output
}

/// A publish to queue `q` with a body of zeros.
fn published(number: u16, body_bytes: usize) -> BytesMut {
    let publish = basic::Publish {
        routing_key: short("q"),
        ..basic::Publish::default()
    };
    let header = ContentHeader::new(body_bytes as u64, &Properties::default());
    let mut output = BytesMut::new();
    let body = vec![0; body_bytes];
    frame::put_method_with_content(&mut output, number, &publish, &header, &body, 4_096);
    output
}

fn consume(no_ack: bool) -> basic::Consume {
    basic::Consume {
        queue: short("q"),
        consumer_tag: short("c"),
        no_ack,
        ..basic::Consume::default()
    }
}

fn ack(delivery_tag: u64, multiple: bool) -> Method {
    basic::Ack {
        delivery_tag,
        multiple,
    }
    .into()
}

/// A frame that is too large is refused as soon as its header is there.
fn too_large() -> BytesMut {
    let mut head = BytesMut::new();
    frame::put_frame_head(&mut head, FrameKind::Method, 1, 5_000);
    head
}

/// After frames were lost, the client's `close-ok` counts wherever it stands: found by fuzzing
/// `session_bytes`, where it depended on the cuts of the stream.
#[test]
fn close_ok_is_found_where_frames_were_lost() {
    let close_ok = framed(0, &connection::CloseOk {});
    let with = |before: &[u8], behind: &[u8]| [before, &close_ok, behind].concat();
    let mut wrong_end = framed(1, &basic::Qos::default());
    wrong_end.truncate(wrong_end.len() - 1);
    wrong_end.extend_from_slice(b"x");
    let streams = [
        with(&too_large(), b""),
        with(&too_large(), b"and more"),
        with(&wrong_end, b""),
        with(&wrong_end, &wrong_end),
    ];
    for stream in streams {
        for cut in [1, 5, stream.len()] {
            let mut driven = Driven::opened(0);
            for piece in stream.chunks(cut) {
                driven.bytes(piece);
            }
            assert_eq!(driven.connection_close().0, 501);
            assert!(driven.session.is_closed(), "pieces of {cut}");
        }
    }
}

/// A client that never answers `connection.close` is left after a while.
#[test]
fn a_close_without_an_answer_ends_in_time() {
    let mut driven = Driven::opened(0);
    driven.bytes(&too_large());
    driven.connection_close();
    driven.bytes(b"anything");
    assert!(!driven.session.is_closed());
    driven.pass(Duration::from_secs(60));
    assert!(driven.session.is_closed());
}

/// Where a header or a body must come, every method is refused with 505, closing ones included.
#[test]
fn no_method_may_come_within_a_message() {
    let methods: [Method; 6] = [
        basic::Qos::default().into(),
        ack(1, false),
        basic::Cancel::default().into(),
        basic::Publish::default().into(),
        channel::Close::default().into(),
        channel::Open {}.into(),
    ];
    let whole = published(1, 5);
    let publish = framed(
        1,
        &basic::Publish {
            routing_key: short("q"),
            ..basic::Publish::default()
        },
    );
    // A body frame of five octets takes 13.
    let beginnings = [
        (publish.len(), "got non content header frame instead"),
        (whole.len() - 13, "got non content body frame instead"),
    ];
    for method in methods {
        for (beginning, expected) in beginnings {
            let mut driven = Driven::opened(0);
            driven.bytes(&whole[..beginning]);
            driven.method(1, method.clone());
            let (code, text) = driven.connection_close();
            assert_eq!(code, 505, "{}", method.name());
            assert!(text.ends_with(expected), "{}: {text}", method.name());
        }
    }
}

/// Memory is taken for what came of a body, whatever its header announces.
#[test]
fn an_announced_size_takes_no_memory() {
    let mut driven = Driven::opened(0);
    let settings = SessionSettings {
        payload_threshold_bytes: None,
        ..SessionSettings::default()
    };
    driven.session.settings = Arc::new(settings);
    let mut octets = framed(1, &basic::Publish::default());
    let header = ContentHeader::new(u64::MAX, &Properties::default());
    frame::put_header(&mut octets, 1, &header);
    frame::put_body(&mut octets, 1, b"one");
    frame::put_body(&mut octets, 1, b"two");
    driven.bytes(&octets);
    assert_eq!(driven.sent(), []);
    assert!(driven.session.is_open());
}

/// Each step of the opening has its time; whoever stops is left without a word.
#[test]
fn the_opening_must_end_in_time() {
    let mut silent = Driven::new();
    let waits = crate::config::AdmissionSettings::default();
    silent.pass(waits.protocol_header_wait - Duration::from_millis(1));
    assert!(!silent.session.is_closed());
    silent.pass(Duration::from_millis(1));
    assert!(silent.session.is_closed());

    let mut greeted = Driven::new();
    greeted.bytes(&ProtocolHeader::ANSWER);
    greeted.sent();
    greeted.pass(waits.handshake_wait - Duration::from_millis(1));
    assert!(!greeted.session.is_closed());
    greeted.pass(Duration::from_millis(1));
    assert!(greeted.session.is_closed());
    assert_eq!(greeted.sent(), []);
}

/// Own silence brings a heartbeat, the client's silence the end, and with it what it held goes back.
#[test]
fn a_silent_client_loses_its_connection() {
    let mut driven = Driven::opened(10);
    driven.publish(1, 5);
    driven.method(1, consume(false));
    driven.sent();
    assert_eq!(driven.ready_count(), 0);
    driven.pass(Duration::from_secs(5));
    assert_eq!(driven.sent(), [Sent::Heartbeat]);
    for _ in 0..5 {
        driven.pass(Duration::from_secs(5));
    }
    assert!(driven.session.is_closed());
    assert_eq!(driven.ready_count(), 1);
}

/// A large body leaves as an upload; what was sent behind it waits, and confirms keep their order.
#[test]
fn a_large_body_leaves_as_an_upload() {
    let mut driven = Driven::opened(0);
    driven.method(1, confirm::Select { no_wait: true });
    let large_bytes = 5 * THRESHOLD_BYTES;
    let mut stream = published(1, large_bytes);
    stream.extend_from_slice(&published(1, 5));
    driven.bytes(&stream);
    let (upload, size_bytes, got_bytes, ended) = driven.upload();
    assert_eq!(size_bytes, large_bytes as u64);
    assert_eq!(got_bytes, large_bytes);
    assert!(ended);
    assert!(!driven.session.wants_bytes());
    assert_eq!(
        driven.sent(),
        [],
        "nothing is confirmed before it is stored"
    );
    driven.stored(upload, large_bytes);
    assert!(driven.session.wants_bytes());
    let acked: Vec<_> = driven.methods();
    assert_eq!(acked, [ack(2, true)]);
    assert_eq!(driven.ready_count(), 2);
}

/// What cannot be stored closes the channel; other channels go on.
#[test]
fn a_refused_upload_closes_its_channel() {
    let mut driven = Driven::opened(0);
    driven.publish(1, THRESHOLD_BYTES);
    let (upload, ..) = driven.upload();
    let reason = "the disk is full".to_owned();
    let refused = UploadResult::Refused { reason };
    driven.session.handle_payload(upload, &refused, driven.now);
    match &driven.methods()[..] {
        [Method::ChannelClose(close)] => {
            assert_eq!(close.reply_code, 406);
            assert_eq!(close.reply_text, "PRECONDITION_FAILED - the disk is full");
        }
        other => panic!("expected channel.close, got {other:?}"),
    }
    driven.publish(1, 5);
    driven.publish(2, 5);
    assert_eq!(driven.ready_count(), 1, "only the open channel's");
}

/// A connection that goes in the middle of an upload ends it.
#[test]
fn a_lost_connection_aborts_its_upload() {
    let mut driven = Driven::opened(0);
    let stream = published(1, THRESHOLD_BYTES);
    driven.bytes(&stream[..stream.len() / 2]);
    let (upload, _, got_bytes, ended) = driven.upload();
    assert!(got_bytes < THRESHOLD_BYTES && !ended);
    driven.session.handle_disconnect(driven.now);
    match driven.session.poll_action() {
        Some(Action::PayloadAbort { upload: aborted }) => assert_eq!(aborted, upload),
        other => panic!("expected the end of the upload, got {other:?}"),
    }
}

/// While a large body is streamed on one channel, an answer on another goes between its parts.
#[test]
fn a_streamed_body_lets_others_through() {
    let mut driven = Driven::opened(0);
    let large_bytes = 3 << 20;
    driven.publish(1, large_bytes);
    let (upload, ..) = driven.upload();
    driven.stored(upload, large_bytes);
    driven.method(1, consume(true));
    // The first part is out when the other channel asks.
    let mut octets = BytesMut::new();
    while let Some(chunk) = driven.session.poll_transmit() {
        let is_part = matches!(chunk, Chunk::Payload(_));
        put_chunk(chunk, &mut octets);
        if is_part {
            break;
        }
    }
    driven.method(2, basic::Qos::default());
    octets.extend_from_slice(&driven.octets());
    let sent = frames_of(&octets);
    let is_body = |sent: &Sent| matches!(sent, Sent::Body(1, _));
    let answer = Sent::Method(2, basic::QosOk {}.into());
    let answered_at = sent.iter().position(|sent| *sent == answer);
    let answered_at = answered_at.expect("an answer");
    assert!(
        sent[answered_at..]
            .iter()
            .filter(|sent| is_body(sent))
            .count()
            > 100
    );
    let body_bytes: usize = sent
        .iter()
        .map(|sent| match sent {
            Sent::Body(1, bytes) => *bytes,
            Sent::Method(..) | Sent::Header(_) | Sent::Body(..) | Sent::Heartbeat => 0,
        })
        .sum();
    assert_eq!(body_bytes, large_bytes);
}

/// Deliveries stop when what is unsent reaches the outbox's bound, and go on when it has left.
#[test]
fn unsent_deliveries_are_bounded() {
    let mut driven = Driven::opened(0);
    let (body_bytes, message_count) = (9_000, 200);
    for _ in 0..message_count {
        driven.publish(1, body_bytes);
    }
    driven.method(1, consume(true));
    let mut delivered_count = 0;
    let mut rounds = 0;
    while delivered_count < message_count {
        let count = driven
            .methods()
            .iter()
            .filter(|method| matches!(method, Method::BasicDeliver(_)))
            .count();
        let bound = crate::broker::limits::OUTBOX_BYTES_DEFAULT;
        assert!(count * body_bytes <= bound + body_bytes, "{count} at once");
        delivered_count += count;
        rounds += 1;
        driven.session.handle_wake(driven.now);
    }
    assert!(rounds > 1);
    assert_eq!(delivered_count, message_count);
}

/// A channel that is closing drops what comes, and its number can be used again afterwards.
#[test]
fn a_closing_channel_drops_what_comes() {
    let mut driven = Driven::opened(0);
    driven.method(1, ack(7, false));
    driven.publish(1, 5);
    driven.method(1, tx::Commit {});
    let names: Vec<_> = driven.methods().iter().map(Method::name).collect();
    assert_eq!(names, ["channel.close"]);
    assert_eq!(driven.ready_count(), 0);
    driven.method(1, channel::CloseOk {});
    driven.method(1, channel::Open {});
    driven.publish(1, 5);
    let names: Vec<_> = driven.methods().iter().map(Method::name).collect();
    assert_eq!(names, ["channel.open-ok"]);
    assert_eq!(driven.ready_count(), 1);
}

/// Who asks and asks without taking the answers is not heard until it has taken them; then all are
/// answered, in order, as if nothing had been.
#[test]
fn unread_answers_stop_the_client() {
    let mut driven = Driven::opened(10);
    driven.publish(1, 9_000);
    let (round_count, mut stream) = (1_000_u64, BytesMut::new());
    for delivery_tag in 1..=round_count {
        let get = basic::Get {
            queue: short("q"),
            no_ack: false,
        };
        frame::put_method(&mut stream, 1, &get);
        let reject = basic::Reject {
            delivery_tag,
            requeue: true,
        };
        frame::put_method(&mut stream, 1, &reject);
    }
    frame::put_method(&mut stream, 2, &basic::Qos::default());
    driven.bytes(&stream);
    let (mut next_tag, mut rounds, mut last) = (1, 0, None);
    while next_tag <= round_count {
        assert!(!driven.session.wants_bytes() || rounds > 0);
        let octets = driven.octets();
        assert!(octets.len() < 2 * 1024 * 1024 + 20_000, "{}", octets.len());
        if !driven.session.wants_bytes() {
            // Its heartbeats cannot be seen meanwhile; what it takes shows that it lives.
            driven.now += Duration::from_secs(20);
            driven.session.handle_progress(driven.now);
            driven.pass(Duration::from_secs(20));
        }
        driven.session.handle_transmitted(driven.now);
        for sent in frames_of(&octets) {
            if let Sent::Method(_, Method::BasicGetOk(got)) = &sent {
                assert_eq!(got.delivery_tag, next_tag);
                next_tag += 1;
            }
            last = Some(sent);
        }
        rounds += 1;
    }
    assert!(rounds > 3, "{rounds}");
    let rest = driven.sent();
    let answer = Sent::Method(2, basic::QosOk {}.into());
    assert!(rest.contains(&answer) || last == Some(answer));
    assert!(driven.session.wants_bytes());
    assert!(driven.session.is_open());
}

/// A client that neither takes its answers nor lives is cut off all the same.
#[test]
fn a_choked_silent_client_is_cut_off() {
    let mut driven = Driven::opened(10);
    let nowhere = basic::Publish {
        routing_key: short("nowhere"),
        mandatory: true,
        ..basic::Publish::default()
    };
    let header = ContentHeader::new(9_000, &Properties::default());
    let mut stream = BytesMut::new();
    for _ in 0..300 {
        frame::put_method_with_content(&mut stream, 1, &nowhere, &header, &[0; 9_000], 4_096);
    }
    driven.bytes(&stream);
    assert!(!driven.session.wants_bytes());
    driven.pass(Duration::from_secs(26));
    assert!(driven.session.is_closed());
}

/// A new token is looked at where that stops nobody else, wherever its frame stands.
#[test]
fn a_new_secret_is_seen_among_other_frames() {
    let secret = connection::UpdateSecret {
        new_secret: Secret::from(Bytes::from_static(b"token")),
        ..connection::UpdateSecret::default()
    };
    let secret = framed(0, &secret);
    let publish = published(1, 100);
    let holds = |frames: &[&[u8]]| super::incoming::holds_secret(&frames.concat());
    assert!(holds(&[&secret]));
    assert!(holds(&[&publish, &publish, &secret, &publish]));
    assert!(holds(&[&publish, &secret[..20]]));
    assert!(!holds(&[&publish, &publish]));
    assert!(!holds(&[&publish, &publish[..30]]));
    assert!(!holds(&[]));
}

/// A password that is slow to check is checked where that stops nobody else, also of a client that does not wait for the
/// server's start; one that is not, or was proven before, at once.
#[test]
fn a_slow_login_is_seen_behind_the_protocol_header() {
    let login = |response: &'static [u8]| {
        let login = connection::StartOk {
            mechanism: short("PLAIN"),
            response: Secret::from(Bytes::from_static(response)),
            ..connection::StartOk::default()
        };
        framed(0, &login)
    };
    let mut driven = Driven::new();
    let slow = PasswordHash::slow(b"secret", [7; 16]);
    let put = driven
        .broker
        .users()
        .put_user(&"slow".into(), Some(slow), Vec::new());
    put.unwrap();
    for quick in [&b"\0guest\0guest"[..], b"\0nobody\0secret", b"malformed"] {
        let both = [&ProtocolHeader::ANSWER, &login(quick)[..]].concat();
        assert!(!driven.session.may_take_long(&both));
    }
    let login = login(b"\0slow\0secret");
    assert!(!driven.session.may_take_long(&ProtocolHeader::ANSWER));
    let both = [&ProtocolHeader::ANSWER, &login[..]].concat();
    assert!(driven.session.may_take_long(&both));
    assert!(!driven.session.may_take_long(&both[..both.len() - 1]));
    driven.bytes(&ProtocolHeader::ANSWER);
    assert!(driven.session.may_take_long(&login));
    assert!(!driven.session.may_take_long(&login[..5]));
    let heartbeat = [8, 0, 0, 0, 0, 0, 0, 0xce];
    let behind_heartbeat = [&heartbeat, &login[..]].concat();
    assert!(driven.session.may_take_long(&behind_heartbeat));
    driven.bytes(&login);
    assert!(!driven.session.may_take_long(&login), "it is logged in");
    let broker = Arc::clone(&driven.broker);
    let users = broker.users();
    assert!(!users.takes_long(b"slow", b"secret"), "it was proven");
    assert!(users.takes_long(b"slow", b"other"));
}
