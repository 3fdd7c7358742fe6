//! Malformed connections, made from a seed, against a broker that serves an honest client meanwhile.
//!
//! Each case is judged by the same rule: the server ends the connection in time, all that it sends
//! until then is well-formed, no task of it panics, and the honest client notices nothing.
//! `WARREN_IT_MALFORMED` sets how many cases run (default [`CASES_DEFAULT`]), `WARREN_IT_SEED` where
//! they begin; a failure names the seed of its case.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use warren::amqp::field::{FieldArray, FieldTable, FieldValue, ShortString};
use warren::amqp::frame::{self, FrameKind, ProtocolHeader};
use warren::amqp::header::{ContentHeader, Properties};
use warren::amqp::method::{Encode, Method, basic, channel, connection, exchange, queue};
use warren::amqp::reply::ReplyCode;

use crate::broker::{self, Own};
use crate::wire::{Client, pattern};

/// How many cases run unless the environment says otherwise.
const CASES_DEFAULT: u64 = 500;

/// Cases at a time: below what one address may open without a login.
const CASES_AT_ONCE: usize = 16;

/// A connection that is not over by then is a failure.
const END_WAIT: Duration = Duration::from_secs(15);

/// What a server may announce as frame-max, and so the largest frame that it may send.
const FRAME_BYTES_MAX: u32 = 131_072;

/// Splitmix64: any seed gives a good sequence.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which must not be 0.
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("64 bits");
        usize::try_from(self.next() % bound).expect("below a usize")
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }
}

/// The server outlives [`CASES_DEFAULT`] malformed connections and serves all along.
// req: FRAME-5
// req: FRAME-6
// req: FRAME-7
// req: METHOD-2
// req: METHOD-3
#[test]
fn malformed_connections_end_and_disturb_nobody() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse().expect("a number"))
    };
    let case_count: u64 = number("WARREN_IT_MALFORMED").unwrap_or(CASES_DEFAULT);
    let first_seed: u64 = number("WARREN_IT_SEED").unwrap_or(1);

    let panics = count_panics_of_servers();
    let own = Own::start(|settings| {
        // What counts logins is tried elsewhere; here it would only slow the cases down.
        settings.admission.unauthenticated_per_address_max = 1_000;
        settings.admission.protocol_header_wait = Duration::from_millis(500);
        settings.admission.handshake_wait = Duration::from_secs(2);
    });
    let address = own.address();
    let over = Arc::new(AtomicBool::new(false));
    let honest = thread::spawn({
        let over = over.clone();
        move || serve_honestly(address, &over)
    });

    let next_case = AtomicU64::new(0);
    let codes_seen = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for _ in 0..CASES_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let case = next_case.fetch_add(1, Ordering::Relaxed);
                    if case >= case_count {
                        return;
                    }
                    let code = check(address, first_seed + case);
                    codes_seen.lock().expect("no panic").extend(code);
                }
            });
        }
    });
    over.store(true, Ordering::Relaxed);
    let rounds = honest.join().expect("the honest client was served");
    assert!(rounds > 0);
    assert_eq!(
        panics.load(Ordering::Relaxed),
        0,
        "a task of the server panicked"
    );
}

/// Publishes and gets until it is over; the number of rounds.
fn serve_honestly(address: SocketAddr, over: &AtomicBool) -> u64 {
    let mut client = Client::connect(address);
    client.open(1);
    let queue = client.exclusive_queue(1);
    let mut rounds = 0;
    while !over.load(Ordering::Relaxed) {
        let body = pattern(usize::try_from(rounds % 5_000).expect("small"));
        client.publish(1, &queue, &body);
        let message = client.get(1, &queue, true).expect("what was published");
        assert_eq!(message.body, body);
        rounds += 1;
        thread::sleep(Duration::from_millis(2));
    }
    rounds
}

/// Counts panics on the threads that run the server's tasks.
fn count_panics_of_servers() -> Arc<AtomicUsize> {
    let panics = Arc::new(AtomicUsize::new(0));
    let counted = panics.clone();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if thread::current()
            .name()
            .is_some_and(|name| name.starts_with("tokio"))
        {
            counted.fetch_add(1, Ordering::Relaxed);
        }
        before(info);
    }));
    panics
}

/// Sends one case, and judges what comes back; gives the code with which the server closed, 200 if
/// it answered a close.
fn check(address: SocketAddr, seed: u64) -> Option<u16> {
    let mut random = Random(seed);
    let bytes = case(&mut random);
    let mut socket = TcpStream::connect(address).expect("the server listens");
    socket.set_read_timeout(Some(END_WAIT)).expect("a time");
    let mut reader = socket.try_clone().expect("one more handle");
    let writer = thread::spawn(move || {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(1 + random.below(rest.len()));
            // The server may have closed already: that is its right.
            if socket.write_all(piece).is_err() {
                break;
            }
            rest = behind;
        }
        let _ = socket.shutdown(Shutdown::Write);
    });
    let mut answer = Vec::new();
    match reader.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("seed {seed}: the connection is not over: {error}"),
    }
    writer.join().expect("no panic");
    judge(seed, answer.into())
}

/// What a server sends: a protocol header alone, or frames of which the last may be a close.
fn judge(seed: u64, answer: Bytes) -> Option<u16> {
    if answer.as_ref() == ProtocolHeader::ANSWER {
        return None;
    }
    let mut rest: &[u8] = &answer;
    let mut closed = None;
    while !rest.is_empty() {
        let frame = match frame::parse(rest, FRAME_BYTES_MAX) {
            Ok(Some(frame)) => frame,
            // A reset connection may lose its end.
            Ok(None) => return closed,
            Err(error) => panic!("seed {seed}: the server sent a wrong frame: {error}"),
        };
        match frame.kind {
            FrameKind::Method => match Method::decode_in(&answer, frame.payload) {
                Ok(Method::ConnectionClose(close)) => {
                    let code = ReplyCode::from_number(close.reply_code);
                    assert!(
                        code.is_some_and(|code| close.reply_text.to_string().contains(code.name())),
                        "seed {seed}: {close:?}"
                    );
                    closed = Some(close.reply_code);
                }
                // A client that closes as well, at the same time, is answered.
                Ok(Method::ConnectionCloseOk(_)) => closed = closed.or(Some(200)),
                Ok(method) => {
                    assert!(
                        closed.is_none(),
                        "seed {seed}: {} follows connection.close",
                        method.name()
                    );
                }
                Err(error) => panic!("seed {seed}: the server sent a wrong method: {error}"),
            },
            FrameKind::Header => {
                assert!(
                    closed.is_none(),
                    "seed {seed}: a content follows connection.close"
                );
                let header = ContentHeader::decode_in(&answer, frame.payload).expect("a header");
                // Properties that a client left malformed never reach a queue.
                assert!(header.properties_ref().is_ok(), "seed {seed}");
            }
            FrameKind::Body | FrameKind::Heartbeat => {}
        }
        rest = &rest[frame.frame_bytes..];
    }
    closed
}

/// One malformed connection, as all bytes that the client sends.
fn case(random: &mut Random) -> Vec<u8> {
    match random.below(20) {
        0..=8 => mutated_session(random),
        9..=12 => handshake_out_of_order(random),
        13..=15 => table_bomb(random),
        16..=18 => wrong_content(random),
        _ => wrong_protocol(random),
    }
}

fn method_frame(channel: u16, method: impl Encode) -> Vec<u8> {
    let mut output = BytesMut::new();
    frame::put_method(&mut output, channel, &method);
    output.to_vec()
}

fn content_frames(channel: u16, declared_bytes: u64, body: &[u8]) -> Vec<Vec<u8>> {
    let header = ContentHeader::new(declared_bytes, &Properties::default());
    let mut frames = vec![BytesMut::new(), BytesMut::new()];
    frame::put_header(&mut frames[0], channel, &header);
    frame::put_body(&mut frames[1], channel, body);
    frames.into_iter().map(|frame| frame.to_vec()).collect()
}

fn short(text: &'static str) -> ShortString {
    ShortString::from_static(text)
}

fn start_ok() -> Vec<u8> {
    let method = connection::StartOk {
        mechanism: short("PLAIN"),
        response: Bytes::from_static(b"\0guest\0guest").into(),
        locale: short("en_US"),
        ..Default::default()
    };
    method_frame(0, method)
}

fn tune_ok(channel_max: u16, frame_max: u32) -> Vec<u8> {
    method_frame(
        0,
        connection::TuneOk {
            channel_max,
            frame_max,
            heartbeat: 0,
        },
    )
}

fn connection_open() -> Vec<u8> {
    method_frame(
        0,
        connection::Open {
            virtual_host: short("/"),
        },
    )
}

/// The pieces of a session up to an open channel.
fn opening() -> Vec<Vec<u8>> {
    vec![
        ProtocolHeader::ANSWER.to_vec(),
        start_ok(),
        tune_ok(2_047, 8_192),
        connection_open(),
        method_frame(1, channel::Open {}),
    ]
}

fn declare(arguments: FieldTable) -> queue::Declare {
    queue::Declare {
        exclusive: true,
        arguments,
        ..Default::default()
    }
}

fn publish() -> Vec<u8> {
    let publish = basic::Publish {
        routing_key: short("nobody"),
        ..Default::default()
    };
    method_frame(1, publish)
}

/// A session that does a bit of everything, piece by piece.
fn valid_session() -> Vec<Vec<u8>> {
    let mut pieces = opening();
    pieces.push(method_frame(1, declare(FieldTable::EMPTY)));
    let exchange = exchange::Declare {
        exchange: short("amq.topic"),
        kind: short("topic"),
        durable: true,
        ..Default::default()
    };
    pieces.push(method_frame(1, exchange));
    let bind = queue::Bind {
        exchange: short("amq.topic"),
        routing_key: short("a.#"),
        arguments: FieldTable::from([("n", FieldValue::from(1))]),
        ..Default::default()
    };
    pieces.push(method_frame(1, bind));
    pieces.push(method_frame(
        1,
        basic::Qos {
            prefetch_count: 5,
            ..Default::default()
        },
    ));
    pieces.push(publish());
    pieces.extend(content_frames(1, 5, b"hello"));
    let to_queue = basic::Publish {
        exchange: short("amq.topic"),
        routing_key: short("a.b"),
        mandatory: true,
        ..Default::default()
    };
    pieces.push(method_frame(1, to_queue));
    pieces.extend(content_frames(1, 5, b"hello"));
    pieces.push(method_frame(
        1,
        basic::Get {
            no_ack: false,
            ..Default::default()
        },
    ));
    pieces.push(method_frame(
        1,
        basic::Nack {
            delivery_tag: 1,
            multiple: false,
            requeue: true,
        },
    ));
    pieces.push(method_frame(
        1,
        basic::Consume {
            consumer_tag: short("t"),
            ..Default::default()
        },
    ));
    pieces.push(method_frame(1, basic::Recover { requeue: true }));
    pieces.push(method_frame(
        1,
        channel::Close {
            reply_code: 200,
            ..Default::default()
        },
    ));
    pieces.push(method_frame(
        0,
        connection::Close {
            reply_code: 200,
            ..Default::default()
        },
    ));
    pieces
}

fn mutated_session(random: &mut Random) -> Vec<u8> {
    let mut pieces = valid_session();
    let index = random.below(pieces.len());
    match random.below(7) {
        // Bits flipped, behind the opening as often as within it.
        0 => {
            let mut bytes = pieces.concat();
            for _ in 0..=random.below(8) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            return bytes;
        }
        1 => {
            let mut bytes = pieces.concat();
            bytes.truncate(random.below(bytes.len()));
            return bytes;
        }
        2 => {
            let piece = pieces[index].clone();
            pieces.insert(random.below(pieces.len()), piece);
        }
        3 => {
            let other = random.below(pieces.len());
            pieces.swap(index, other);
        }
        // A frame on a channel that is not open, or is the connection itself.
        4 => {
            if let Some(octet) = pieces[index].get_mut(2) {
                *octet = random.pick(&[0, 2, 255]);
            }
        }
        // A size that lies.
        5 => {
            let size: u32 = random.pick(&[0, 1, 4_095, 65_535, 0x7fff_ffff, 0x8000_0000, u32::MAX]);
            if let Some(field) = pieces[index].get_mut(3..7) {
                field.copy_from_slice(&size.to_be_bytes());
            }
        }
        _ => {
            if let Some(end) = pieces[index].last_mut() {
                *end = random.pick(&[0, 0xCD, 0xFF]);
            }
        }
    }
    pieces.concat()
}

fn handshake_out_of_order(random: &mut Random) -> Vec<u8> {
    let frame_max = random.pick(&[0, 1, 4_095, 4_096, 131_072, 131_073, u32::MAX]);
    let channel_max = random.pick(&[0, 1, 2_047, 2_048, u16::MAX]);
    let steps = [
        start_ok(),
        tune_ok(channel_max, frame_max),
        connection_open(),
        method_frame(1, channel::Open {}),
        method_frame(0, connection::SecureOk::default()),
        method_frame(0, connection::CloseOk {}),
        method_frame(0, connection::Start::default()),
        publish(),
        b"\x08\x00\x00\x00\x00\x00\x00\xce".to_vec(),
    ];
    let mut bytes = ProtocolHeader::ANSWER.to_vec();
    for _ in 0..2 + random.below(6) {
        bytes.extend(random.pick(&steps));
    }
    bytes
}

/// A table that claims or holds too much, in a method or in the headers of a message.
fn table_bomb(random: &mut Random) -> Vec<u8> {
    let elements: Vec<u8> = match random.below(6) {
        // Arrays within arrays, as many as a frame of 8 KiB holds.
        0 => {
            let mut bomb = BytesMut::from(&b"\x01k"[..]);
            for left in (0..1_000_u32).rev() {
                bomb.put_u8(b'A');
                bomb.put_u32(left * 5);
            }
            bomb.to_vec()
        }
        // Values without a size of their own, and without names.
        1 => b"\x00V".repeat(3_000),
        2 => [b"\x01kA\x00\x00\x1b\x58".to_vec(), b"V".repeat(7_000)].concat(),
        // A length beyond the frame.
        3 => b"\x01kS\xff\xff\xff\xff".to_vec(),
        // A name that is no text, with a letter that is no type.
        4 => b"\x04\xff\xfe\x00\xc3z".to_vec(),
        _ => {
            let deep = (0..=random.below(20)).fold(FieldValue::Void, |inner, _| {
                FieldArray::from_iter([inner]).into()
            });
            FieldTable::from([("x-deep", deep)]).elements().to_vec()
        }
    };
    let mut pieces = opening();
    let length = u32::try_from(elements.len()).expect("small").to_be_bytes();
    if random.below(2) == 0 {
        let arguments = [b"\0\x32\0\x0a\0\0\0\x04".as_slice(), &length, &elements].concat();
        pieces.push(raw_frame(1, 1, &arguments));
    } else {
        pieces.push(publish());
        let fixed_part = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0];
        pieces.push(raw_frame(
            2,
            1,
            &[fixed_part.as_slice(), &length, &elements].concat(),
        ));
    }
    pieces.push(method_frame(
        0,
        connection::Close {
            reply_code: 200,
            ..Default::default()
        },
    ));
    pieces.concat()
}

fn raw_frame(type_number: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![type_number];
    frame.extend(channel.to_be_bytes());
    frame.extend(u32::try_from(payload.len()).expect("small").to_be_bytes());
    frame.extend(payload);
    frame.push(0xCE);
    frame
}

/// Contents that are longer or shorter than they say, or come where none belongs.
fn wrong_content(random: &mut Random) -> Vec<u8> {
    let mut pieces = opening();
    let declared = random.pick(&[0, 1, 4, 6, 1_000, 2_000_000, 1 << 62, 1 << 63, u64::MAX]);
    let channel = random.pick(&[1, 1, 1, 0, 2]);
    if random.below(4) != 0 {
        pieces.push(publish());
    }
    let mut content = content_frames(channel, declared, b"hello");
    if random.below(4) == 0 {
        content.swap(0, 1);
    }
    pieces.extend(content);
    for _ in 0..random.below(3) {
        pieces.extend(content_frames(1, 5, b"hello"));
    }
    pieces.push(method_frame(1, basic::Get::default()));
    pieces.push(method_frame(
        0,
        connection::Close {
            reply_code: 200,
            ..Default::default()
        },
    ));
    pieces.concat()
}

fn wrong_protocol(random: &mut Random) -> Vec<u8> {
    let beginnings: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"AMQP\x00\x01\x00\x00",
        b"AMQP\x03\x01\x00\x00",
        b"AMQP\x00\x00\x09\x02",
        b"AMQ",
        b"",
    ];
    let mut bytes = random.pick(&beginnings).to_vec();
    for _ in 0..random.below(64) {
        bytes.extend(random.next().to_be_bytes());
    }
    bytes
}

/// Names that are no text end the connection, as with RabbitMQ; routing keys of a publish may hold any octets.
// req: METHOD-6
#[test]
fn short_strings_of_methods_are_text() {
    let odd = || ShortString::try_from(&b"a\xffb"[..]).expect("short");
    let mut client = Client::connect(broker::shared());
    client.open(1);
    let publish = basic::Publish {
        routing_key: odd(),
        mandatory: true,
        ..basic::Publish::default()
    };
    client.publish_with(1, &publish, &Properties::default(), b"back");
    match client.expect_message(1).method {
        Method::BasicReturn(returned) => assert_eq!(returned.routing_key, odd()),
        other => panic!("{} is not basic.return", other.name()),
    }
    let declare = queue::Declare {
        queue: odd(),
        exclusive: true,
        ..queue::Declare::default()
    };
    client.send(1, declare);
    let text = client.expect_connection_close(501);
    assert_eq!(text, "FRAME_ERROR - Malformed UTF-8 in shortstr");
}
