//! Zones on a made-up network: how often a payload crosses a border, and what that costs in time.

use std::time::Duration;

use warren::payload::{Geometry, PieceBytes};

use crate::network::Network;

const MBIT: f64 = 1_000_000.0 / 8.0;
const SIZE: u64 = 3_000_000;

/// Three zones of ten nodes and an origin in the first; seconds to the last node, and copies of the payload
/// that came into each zone.
fn three_zones(knows: bool, seed: u64) -> (f64, [f64; 3]) {
    let piece_bytes = PieceBytes::new(16 * 1024).expect("valid");
    let geometry = Geometry::new(SIZE, piece_bytes).expect("valid");
    let mut network = Network::new(geometry, Duration::from_millis(2), seed);
    network.check_every = 997;
    network.add_host_in(20.0 * MBIT, 20.0 * MBIT, 0, knows);
    network.want(0, &[], true);
    for number in 1..=30_u8 {
        network.add_host_in(20.0 * MBIT, 20.0 * MBIT, number % 3, knows);
    }
    for number in 1..=30 {
        network.want(number, &[0], false);
    }
    let time = network.run(Duration::from_secs(1_000));
    let time = time.unwrap_or_else(|| panic!("{}", network.describe()));
    let mut copies = [0.0; 3];
    for host in &network.hosts {
        if let Some(zone) = host.zone {
            copies[usize::from(zone)] += host.imported_bytes as f64 / SIZE as f64;
        }
    }
    (time.as_secs_f64(), copies)
}

/// The two swarms that are compared meet the same network.
const SEED: u64 = 1;

/// A payload comes into each zone about once, and the last node is not much later than without zones. 1.26 copies at most
/// are what was seen last.
// req: SWARM-36
// req: SWARM-37
#[test]
fn payload_crosses_each_border_about_once() {
    let (time, copies) = three_zones(true, SEED);
    let (time_without, copies_without) = three_zones(false, SEED);
    println!(
        "with zones {time:.2} s, {copies:.2?} copies; without {time_without:.2} s, {copies_without:.2?}"
    );
    assert!(copies.iter().all(|copies| *copies <= 1.3), "{copies:?}");
    assert!(
        copies_without.iter().sum::<f64>() > 6.0,
        "nothing to gain: {copies_without:?}"
    );
    assert!(time <= 1.3 * time_without, "{time} against {time_without}");
}

/// The nodes that import die; the others of their zone do it then, and nothing is left waiting.
// req: SWARM-36
#[test]
fn zone_survives_its_importers() {
    let piece_bytes = PieceBytes::new(32 * 1024).expect("valid");
    let geometry = Geometry::new(4_000_000, piece_bytes).expect("valid");
    let mut network = Network::new(geometry, Duration::from_millis(2), 3);
    network.check_every = 499;
    network.add_host_in(20.0 * MBIT, 20.0 * MBIT, 0, true);
    network.want(0, &[], true);
    for number in 1..=12_u8 {
        network.add_host_in(20.0 * MBIT, 20.0 * MBIT, number % 2, true);
    }
    for number in 1..=12 {
        network.want(number, &[0], false);
    }
    network.run_for(Duration::from_millis(700));
    for host in [1, 3, 5, 7, 9] {
        network.kill(host);
    }
    let time = network.run(Duration::from_secs(200));
    assert!(time.is_some(), "{}", network.describe());
}
