//! The codec's part of a small message's way through the broker, in nanoseconds per message.
//!
//! Read against: the whole broker may take 0.2 µs per small message, so publish and delivery
//! together should stay below 0.1 µs here. Sizes: 16-byte and 1 KiB bodies, 8-byte names.
#![allow(missing_docs)]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use warren::amqp::field::{FieldTable, FieldValue, ShortString};
use warren::amqp::frame::{self, FrameKind};
use warren::amqp::header::{ContentHeader, Properties};
use warren::amqp::limits::FRAME_BYTES_DEFAULT;
use warren::amqp::method::{Method, basic};

/// Messages in one buffer, as one read from a socket brings them.
const MESSAGE_COUNT: u64 = 256;

/// Body lengths, in bytes.
const BODY_BYTES: [usize; 2] = [16, 1_024];

fn publish() -> basic::Publish {
    basic::Publish {
        exchange: ShortString::from_static("exchange"),
        routing_key: ShortString::from_static("route-12"),
        ..Default::default()
    }
}

fn header(body_bytes: usize) -> ContentHeader {
    let properties = Properties {
        content_type: Some(ShortString::from_static("text/plain")),
        delivery_mode: Some(2),
        ..Default::default()
    };
    ContentHeader::new(body_bytes as u64, &properties)
}

/// What a publisher sends: [`MESSAGE_COUNT`] times method, header, body.
fn published(body_bytes: usize) -> BytesMut {
    let body = vec![b'x'; body_bytes];
    let header = header(body_bytes);
    let mut stream = BytesMut::new();
    for _ in 0..MESSAGE_COUNT {
        let max = FRAME_BYTES_DEFAULT;
        frame::put_method_with_content(&mut stream, 1, &publish(), &header, &body, max);
    }
    stream
}

/// Frames taken out one by one, each with a share of the buffer.
fn decode_frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_publish_by_frame");
    group.throughput(Throughput::Elements(MESSAGE_COUNT));
    for body_bytes in BODY_BYTES {
        let stream = published(body_bytes);
        group.bench_function(BenchmarkId::from_parameter(body_bytes), |b| {
            b.iter_batched_ref(
                || stream.clone(),
                |input| {
                    while let Ok(Some(frame)) = frame::decode(input, FRAME_BYTES_DEFAULT) {
                        match frame.kind {
                            FrameKind::Method => {
                                black_box(Method::decode(&frame.payload).expect("a publish"));
                            }
                            FrameKind::Header => {
                                black_box(ContentHeader::decode(&frame.payload).expect("a header"));
                            }
                            FrameKind::Body | FrameKind::Heartbeat => {
                                black_box(frame.payload);
                            }
                        }
                    }
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// All frames of one read walked in one shared buffer.
fn decode_shared(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode_publish_shared");
    group.throughput(Throughput::Elements(MESSAGE_COUNT));
    for body_bytes in BODY_BYTES {
        let stream = published(body_bytes);
        group.bench_function(BenchmarkId::from_parameter(body_bytes), |b| {
            b.iter_batched_ref(
                || stream.clone(),
                |input| {
                    let complete = frame::complete_bytes(input, FRAME_BYTES_DEFAULT);
                    let owner = input.split_to(complete).freeze();
                    walk(&owner);
                },
                criterion::BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn walk(owner: &Bytes) {
    let mut rest: &[u8] = owner;
    while let Ok(Some(frame)) = frame::parse(rest, FRAME_BYTES_DEFAULT) {
        match frame.kind {
            FrameKind::Method => {
                black_box(Method::decode_in(owner, frame.payload).expect("a publish"));
            }
            FrameKind::Header => {
                let header = ContentHeader::decode_in(owner, frame.payload).expect("a header");
                black_box(header.properties_ref().expect("properties"));
                black_box(header);
            }
            FrameKind::Body | FrameKind::Heartbeat => {
                black_box(owner.slice_ref(frame.payload));
            }
        }
        rest = &rest[frame.frame_bytes..];
    }
}

/// `basic.deliver`, header and body appended to an outgoing buffer.
fn encode_deliver(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode_deliver");
    group.throughput(Throughput::Elements(MESSAGE_COUNT));
    for body_bytes in BODY_BYTES {
        let (header, body) = (header(body_bytes), vec![b'x'; body_bytes]);
        let mut output = BytesMut::with_capacity(1 << 20);
        group.bench_function(BenchmarkId::from_parameter(body_bytes), |b| {
            b.iter(|| {
                output.clear();
                for delivery_tag in 0..MESSAGE_COUNT {
                    let deliver = basic::Deliver {
                        consumer_tag: ShortString::from_static("consumer"),
                        delivery_tag,
                        redelivered: false,
                        exchange: ShortString::from_static("exchange"),
                        routing_key: ShortString::from_static("route-12"),
                    };
                    let max = FRAME_BYTES_DEFAULT;
                    frame::put_method_with_content(&mut output, 1, &deliver, &header, &body, max);
                }
                black_box(output.len());
            });
        });
    }
    group.finish();
}

/// `basic.ack` read and written.
fn acks(c: &mut Criterion) {
    let mut group = c.benchmark_group("ack");
    group.throughput(Throughput::Elements(MESSAGE_COUNT));
    let mut output = BytesMut::with_capacity(1 << 16);
    let put_acks = |output: &mut BytesMut| {
        for delivery_tag in 0..MESSAGE_COUNT {
            frame::put_method(
                output,
                1,
                &basic::Ack {
                    delivery_tag,
                    multiple: false,
                },
            );
        }
    };
    group.bench_function("encode", |b| {
        b.iter(|| {
            output.clear();
            put_acks(&mut output);
            black_box(output.len());
        });
    });
    let mut stream = BytesMut::new();
    put_acks(&mut stream);
    let owner = stream.freeze();
    group.bench_function("decode_shared", |b| b.iter(|| walk(&owner)));
    group.finish();
}

/// A table of headers: checked, and one value looked up.
fn tables(c: &mut Criterion) {
    let table: FieldTable = (0..10)
        .map(|index| {
            let name = ShortString::truncated(format!("x-header-{index}"));
            (name, FieldValue::from("a value of 20 bytes."))
        })
        .collect();
    c.bench_function("table_of_ten_check", |b| {
        b.iter(|| FieldTable::from_elements(black_box(table.elements().clone())));
    });
    c.bench_function("table_of_ten_get_last", |b| {
        b.iter(|| black_box(&table).get("x-header-9"))
    });
}

criterion_group!(
    benches,
    decode_frames,
    decode_shared,
    encode_deliver,
    acks,
    tables
);
criterion_main!(benches);
