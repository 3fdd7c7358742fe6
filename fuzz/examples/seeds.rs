//! Writes seeds for the AMQP targets into `corpus/`, so that the fuzzer starts from valid input.
//!
//! `cargo run --example seeds` in this folder. One seed for each method, property and field type,
//! and the lengths at which things go wrong.

use std::fs;
use std::io;
use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use warren::amqp::field::{FieldArray, FieldTable, FieldValue, ShortString};
use warren::amqp::frame;
use warren::amqp::header::{ContentHeader, Properties};
use warren::amqp::method::{Method, basic, channel, connection, exchange, queue, tx};
use warren::payload::{AccessKey, Geometry, Hints, Manifest, ManifestParts, PayloadHasher};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    write_all(&corpus.join("amqp_frame"), &frame_seeds())?;
    write_all(&corpus.join("amqp_field"), &field_seeds())?;
    write_all(&corpus.join("session_bytes"), &session_seeds())?;
    write_all(&corpus.join("manifest"), &manifest_seeds())
}

fn write_all(folder: &Path, seeds: &[Bytes]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for (index, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("seed-{index:03}")), seed)?;
    }
    println!("{} seeds in {}", seeds.len(), folder.display());
    Ok(())
}

/// Values of every type, small and at the edge of their range.
fn values() -> Vec<FieldValue> {
    let table = FieldTable::from([("in", FieldValue::Void)]);
    vec![
        FieldValue::Boolean(true),
        FieldValue::ShortShortInt(i8::MIN),
        FieldValue::ShortShortUint(u8::MAX),
        FieldValue::ShortInt(i16::MIN),
        FieldValue::ShortUint(u16::MAX),
        FieldValue::LongInt(i32::MIN),
        FieldValue::LongUint(u32::MAX),
        FieldValue::LongLongInt(i64::MIN),
        FieldValue::Float(1.5),
        FieldValue::Double(f64::NAN),
        FieldValue::Decimal {
            scale: 255,
            value: u32::MAX,
        },
        FieldValue::from("text"),
        FieldValue::LongString(Bytes::from(vec![b'x'; 256])),
        FieldValue::Array(FieldArray::from_iter([
            FieldValue::Void,
            FieldValue::from(true),
        ])),
        FieldValue::Timestamp(u64::MAX),
        FieldValue::Table(table),
        FieldValue::Void,
        FieldValue::ByteArray(Bytes::from_static(b"\0\xff")),
    ]
}

fn short(text: &'static str) -> ShortString {
    ShortString::from_static(text)
}

fn all_values() -> FieldTable {
    values()
        .into_iter()
        .map(|value| (short("k"), value))
        .collect()
}

fn field_seeds() -> Vec<Bytes> {
    let one_each = values()
        .into_iter()
        .map(|value| FieldTable::from([("k", value)]));
    let mut seeds: Vec<Bytes> = one_each.map(|table| table.elements().clone()).collect();
    seeds.push(all_values().elements().clone());
    // Nested to the bound and past it.
    for levels in [1, 15, 16, 17, 200] {
        let nested = (0..levels).fold(FieldValue::Void, |inner, _| {
            FieldValue::Array(FieldArray::from_iter([inner]))
        });
        seeds.push(FieldTable::from([("k", nested)]).elements().clone());
    }
    // Lengths that lie.
    for length in [0, 1, 255, 256, 65_535, 0x7fff_ffff, 0x8000_0000, u32::MAX] {
        for letter in [b'S', b'x', b'A', b'F'] {
            let mut seed = BytesMut::from(&b"\x01k"[..]);
            seed.put_u8(letter);
            seed.put_u32(length);
            seed.put_slice(b"\x01kV");
            seeds.push(seed.freeze());
        }
    }
    seeds
}

fn frame_seeds() -> Vec<Bytes> {
    let mut seeds = Vec::new();
    // Every method with empty arguments long enough for any of them, and the filled ones below.
    for &(class_id, method_id, _) in Method::ALL {
        for argument_bytes in [0, 2, 3, 9, 16] {
            let mut seed = BytesMut::from(&b"\x10"[..]);
            frame::put_frame_head(&mut seed, frame::FrameKind::Method, 1, 4 + argument_bytes);
            seed.put_u16(class_id);
            seed.put_u16(method_id);
            seed.put_bytes(0, argument_bytes as usize);
            seed.put_u8(0xCE);
            seeds.push(seed.freeze());
        }
    }
    for method in filled_methods() {
        let mut seed = BytesMut::from(&b"\x03"[..]);
        frame::put_method(&mut seed, 1, &method);
        seeds.push(seed.freeze());
    }
    for properties in [Properties::default(), all_properties()] {
        let header = ContentHeader::new(5, &properties);
        let mut seed = BytesMut::from(&b"\x05"[..]);
        let publish = basic::Publish {
            routing_key: short("q"),
            ..Default::default()
        };
        frame::put_method_with_content(&mut seed, 1, &publish, &header, b"hello", 4_096);
        frame::put_heartbeat(&mut seed);
        seeds.push(seed.freeze());
    }
    // Frame headers whose size lies.
    for size in [0_u32, 4_088, 4_096, 4_097, 0x7fff_ffff, u32::MAX] {
        let mut seed = BytesMut::from(&b"\x00"[..]);
        frame::put_frame_head(&mut seed, frame::FrameKind::Body, 1, size);
        seed.put_slice(b"\xce");
        seeds.push(seed.freeze());
    }
    seeds
}

fn filled_methods() -> Vec<Method> {
    vec![
        connection::Start {
            version_minor: 9,
            server_properties: all_values(),
            mechanisms: Bytes::from_static(b"PLAIN AMQPLAIN"),
            locales: Bytes::from_static(b"en_US"),
            ..Default::default()
        }
        .into(),
        connection::StartOk {
            client_properties: all_values(),
            mechanism: short("PLAIN"),
            response: Bytes::from_static(b"\0guest\0guest").into(),
            locale: short("en_US"),
        }
        .into(),
        connection::TuneOk {
            channel_max: 2_047,
            frame_max: 131_072,
            heartbeat: 60,
        }
        .into(),
        connection::Open {
            virtual_host: short("/"),
        }
        .into(),
        channel::Close {
            reply_code: 404,
            reply_text: short("gone"),
            class_id: 50,
            method_id: 10,
        }
        .into(),
        exchange::Declare {
            exchange: short("x"),
            kind: short("topic"),
            durable: true,
            arguments: all_values(),
            ..Default::default()
        }
        .into(),
        queue::Declare {
            queue: short("q"),
            arguments: all_values(),
            ..Default::default()
        }
        .into(),
        queue::Bind {
            queue: short("q"),
            exchange: short("x"),
            routing_key: short("a.*.#"),
            arguments: all_values(),
            ..Default::default()
        }
        .into(),
        basic::Consume {
            queue: short("q"),
            arguments: all_values(),
            ..Default::default()
        }
        .into(),
        basic::Deliver {
            consumer_tag: short("ctag"),
            delivery_tag: u64::MAX,
            redelivered: true,
            exchange: short("x"),
            routing_key: short("key"),
        }
        .into(),
        basic::Nack {
            delivery_tag: 7,
            multiple: true,
            requeue: true,
        }
        .into(),
    ]
}

fn all_properties() -> Properties {
    Properties {
        content_type: Some(short("text/plain")),
        content_encoding: Some(short("none")),
        headers: Some(all_values()),
        delivery_mode: Some(2),
        priority: Some(9),
        correlation_id: Some(short("c-1")),
        reply_to: Some(short("answers")),
        expiration: Some(short("60000")),
        message_id: Some(short("m-1")),
        timestamp: Some(1_000_000_000),
        message_type: Some(short("kind")),
        user_id: Some(short("guest")),
        app_id: Some(short("app")),
        cluster_id: Some(short("cl")),
    }
}

/// What clients say to a session: behind each way to cut it, a stream of whole frames.
fn session_seeds() -> Vec<Bytes> {
    let publish = |output: &mut BytesMut, number, body: &[u8]| {
        let method = basic::Publish {
            routing_key: short("q"),
            mandatory: true,
            ..Default::default()
        };
        let header = ContentHeader::new(body.len() as u64, &all_properties());
        frame::put_method_with_content(output, number, &method, &header, body, 4_096);
    };
    let script = |methods: &[(u16, Method)]| {
        let mut output = BytesMut::new();
        for (number, method) in methods {
            frame::put_method(&mut output, *number, method);
        }
        output
    };
    let mut streams = vec![script(&[
        (3, channel::Open {}.into()),
        (3, tx::Select {}.into()),
        (3, tx::Commit {}.into()),
        (
            3,
            basic::Get {
                queue: short("q"),
                no_ack: false,
            }
            .into(),
        ),
        (
            1,
            basic::Qos {
                prefetch_count: 2,
                global: true,
                ..Default::default()
            }
            .into(),
        ),
        (1, basic::Recover { requeue: true }.into()),
        (
            1,
            basic::Cancel {
                consumer_tag: short("c"),
                no_wait: false,
            }
            .into(),
        ),
        (
            1,
            queue::Delete {
                queue: short("q"),
                ..Default::default()
            }
            .into(),
        ),
        (0, connection::Close::default().into()),
    ])];
    for method in filled_methods() {
        streams.push(script(&[(1, method)]));
    }
    for body_bytes in [0, 1, 63, 64, 5_000] {
        let mut output = BytesMut::new();
        publish(&mut output, 1, &vec![b'x'; body_bytes]);
        publish(&mut output, 2, b"y");
        let ack = basic::Ack {
            delivery_tag: 1,
            multiple: true,
        };
        frame::put_method(&mut output, 1, &ack);
        let reject = basic::Reject {
            delivery_tag: 2,
            requeue: true,
        };
        frame::put_method(&mut output, 1, &reject);
        streams.push(output);
    }
    let mut seeds = Vec::new();
    for (index, stream) in streams.into_iter().enumerate() {
        let cut = u8::try_from(index % 8).expect("below eight") << 3;
        for plan in [1, 3, 7] {
            let mut seed = BytesMut::from(&[plan | cut][..]);
            seed.extend_from_slice(&stream);
            seeds.push(seed.freeze());
        }
    }
    seeds
}

/// Manifest messages of payloads of no, one and several pieces.
fn manifest_seeds() -> Vec<Bytes> {
    let publisher = Properties {
        content_type: Some(ShortString::from_static("video/mp4")),
        headers: Some(FieldTable::from([("job", FieldValue::from("7"))])),
        ..Properties::default()
    };
    [0, 1, 16_384, 16_385, 100_000]
        .into_iter()
        .map(|size| {
            let geometry = Geometry::for_payload(size).expect("a small payload");
            let mut hasher = PayloadHasher::new(geometry);
            hasher.update(&vec![7; size as usize]);
            let (id, piece_hashes) = hasher.finish().expect("all bytes came");
            let manifest = Manifest::new(ManifestParts {
                id,
                geometry,
                piece_hashes,
                peers: vec!["127.0.0.1:5690".to_owned()],
                key: AccessKey::from_bytes([9; 32]),
                name: Some("film".to_owned()),
                content_type: None,
                hints: Hints::default(),
            })
            .expect("true to its id");
            let (properties, body) = manifest.to_message(&publisher);
            let raw = properties.encode();
            let mut seed = BytesMut::new();
            seed.put_u16(u16::try_from(raw.len()).expect("short properties"));
            seed.put_slice(&raw);
            seed.put_slice(&body);
            seed.freeze()
        })
        .collect()
}
