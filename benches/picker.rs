//! The picker's part of fetching a payload, in nanoseconds per piece chosen.
//!
//! Read against: hashing and copying a piece of 128 KiB take about 60 µs; choosing it from 1,024 should
//! stay below a tenth of that, and from 65,536 (pieces of 16 MiB, 8 ms each) below 1 ms.
#![allow(missing_docs)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use warren::payload::{Bitfield, Geometry, PieceBytes};
use warren::swarm::Order;
use warren::swarm::availability::Availability;
use warren::swarm::picker::pick;

/// Peers that hold pieces, each about two of three.
const PEERS: u32 = 16;

fn bench_pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for piece_count in [256_u32, 1_024, 65_536] {
        let piece_bytes = PieceBytes::new(16 * 1024).expect("valid");
        let size = u64::from(piece_count) * 16 * 1024;
        let geometry = Geometry::new(size, piece_bytes).expect("valid");
        let mut availability = Availability::new(&geometry);
        let mut held = Bitfield::empty(&geometry);
        for peer in 0..PEERS {
            for piece in geometry.pieces() {
                if (piece.get().wrapping_mul(2_654_435_761) >> peer) % 3 > 0 {
                    availability.add(piece);
                    held.set(piece);
                }
            }
        }
        let wanted = Bitfield::full(&geometry);
        group.bench_function(BenchmarkId::from_parameter(piece_count), |bencher| {
            bencher.iter(|| {
                pick(
                    Order::RarestFirst,
                    &geometry,
                    black_box(&wanted),
                    &held,
                    &availability,
                    7,
                )
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench_pick);
criterion_main!(benches);
