//! Hashing a payload into pieces, in bytes per second on one core.
//!
//! Read against `whole`, BLAKE3 over the same bytes at once: pieces of every size must come within
//! 5 % of it from 64 KiB on. `portions` is what a publisher's body frames make of it.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use warren::payload::hash::merge;
use warren::payload::{Geometry, PayloadHasher, PieceBytes, PieceHash};

/// Payload of each case, in bytes.
const PAYLOAD_BYTES: usize = 32 * 1024 * 1024;
/// Body of an AMQP frame at the usual frame-max, in bytes.
const FRAME_BODY_BYTES: usize = 131_072 - 8;
/// The buffer from which the store's writer hashes, in bytes.
const BUFFER_BYTES: usize = 1024 * 1024;

fn geometry(piece_bytes: u64) -> Geometry {
    let piece_bytes = PieceBytes::new(piece_bytes).expect("a piece size");
    Geometry::new(PAYLOAD_BYTES as u64, piece_bytes).expect("few pieces")
}

fn hash_in_portions(bytes: &[u8], piece_bytes: u64, portion: usize) -> [u8; 32] {
    let mut hasher = PayloadHasher::new(geometry(piece_bytes));
    for portion in bytes.chunks(portion) {
        hasher.update(portion);
    }
    *hasher.finish().expect("all bytes came").0.as_bytes()
}

fn hash(c: &mut Criterion) {
    let bytes: Vec<u8> = (0..PAYLOAD_BYTES)
        .map(|index| (index % 251) as u8)
        .collect();
    let mut group = c.benchmark_group("hash");
    group
        .throughput(Throughput::Bytes(PAYLOAD_BYTES as u64))
        .sample_size(20);
    group.bench_function("whole", |b| b.iter(|| blake3::hash(black_box(&bytes))));
    for piece_bytes in [16 * 1024, 128 * 1024, 1024 * 1024, 16 * 1024 * 1024] {
        group.bench_function(BenchmarkId::new("pieces", piece_bytes), |b| {
            b.iter(|| hash_in_portions(black_box(&bytes), piece_bytes, BUFFER_BYTES));
        });
    }
    group.bench_function("portions", |b| {
        b.iter(|| hash_in_portions(black_box(&bytes), 1024 * 1024, FRAME_BODY_BYTES));
    });
    group.finish();
}

/// The check of a manifest: all piece hashes to the id.
fn merge_hashes(c: &mut Criterion) {
    let mut group = c.benchmark_group("merge");
    for count in [1_024_u32, 65_536] {
        let hashes: Vec<PieceHash> = (0..count)
            .map(|n| PieceHash::from_bytes(*blake3::hash(&n.to_be_bytes()).as_bytes()))
            .collect();
        group.throughput(Throughput::Elements(u64::from(count)));
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| merge(black_box(&hashes)));
        });
    }
    group.finish();
}

criterion_group!(benches, hash, merge_hashes);
criterion_main!(benches);
