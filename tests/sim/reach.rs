//! Who can be dialled, who cannot, and readers in order, on a made-up network.

use std::time::Duration;

use warren::payload::{Geometry, PieceBytes};
use warren::swarm::Order;

use crate::hostile::Conduct;
use crate::network::{Network, address};

const MBIT: f64 = 1_000_000.0 / 8.0;

fn network(size_bytes: u64) -> Network {
    let piece_bytes = PieceBytes::new(16 * 1024).expect("valid");
    let geometry = Geometry::new(size_bytes, piece_bytes).expect("valid");
    let mut network = Network::new(geometry, Duration::from_millis(5), 1);
    network.check_every = 499;
    network
}

/// Most nodes cannot be dialled; all complete, they give as well as take over what they opened, and the origin
/// does not pay for them.
// req: SWARM-34
#[test]
fn nodes_that_only_dial_out_take_part() {
    let size = 4_000_000;
    let mut network = network(size);
    network.add_host(20.0 * MBIT, 20.0 * MBIT, Conduct::Honest);
    network.want(0, &[], true);
    for number in 1..=16 {
        if number % 4 == 0 {
            network.add_host(20.0 * MBIT, 20.0 * MBIT, Conduct::Honest);
        } else {
            network.add_outbound_host(20.0 * MBIT, 20.0 * MBIT);
        }
    }
    for number in 1..=16 {
        network.want(number, &[0], false);
    }
    let time = network.run(Duration::from_secs(200));
    let time = time.unwrap_or_else(|| panic!("{}", network.describe()));
    let copies = network.uploaded(0) as f64 / size as f64;
    let given: u64 = (1..=16)
        .filter(|host| network.hosts[*host].outbound_only)
        .map(|host| network.uploaded(host))
        .sum();
    let given = given as f64 / size as f64;
    println!("{time:?}, the origin sent {copies:.2} copies, nodes without a listener {given:.2}");
    assert!(given > 3.0, "nodes without a listener gave {given}");
    assert!(copies < 5.0, "the origin sent {copies}");
}

/// The only node with the payload cannot be dialled: it dials those that want it.
// req: SWARM-34
#[test]
fn seed_without_listener_brings_what_it_has() {
    let mut network = network(1_000_000);
    network.add_outbound_host(20.0 * MBIT, 20.0 * MBIT);
    let origin = network.want_with(0, &[], true, |_| {});
    for number in 1..=3 {
        network.add_host(20.0 * MBIT, 20.0 * MBIT, Conduct::Honest);
        network.want(number, &[], false);
    }
    network.run_for(Duration::from_secs(60));
    assert!(!network.all_complete());
    for number in 1..=3 {
        network.on(0, |engine, now| {
            engine.add_address(origin, address(number), now)
        });
    }
    let began = network.now;
    assert!(
        network.run(Duration::from_secs(200)).is_some(),
        "{}",
        network.describe()
    );
    assert!(network.now - began < Duration::from_secs(30));
}

/// How long a reader that comes to a swarm at work waits for the first tenth, in order, and for all of it.
fn reader(order: Order) -> (Duration, Duration) {
    let mut network = network(8_000_000);
    network.add_host(20.0 * MBIT, 20.0 * MBIT, Conduct::Honest);
    network.want(0, &[], true);
    for number in 1..=8 {
        network.add_host(20.0 * MBIT, 20.0 * MBIT, Conduct::Honest);
        if number != 1 {
            network.want(number, &[0], false);
        }
    }
    network.run_for(Duration::from_secs(1));
    let reader = network.want_with(1, &[0, 2, 3], false, |want| want.order = order);
    let came = network.now;
    let geometry = network.geometry;
    let mut at = Vec::new();
    let mut next = 0;
    while let Some(piece) = geometry.piece_index(next) {
        if network.hosts[1].held.has(piece) {
            at.push(network.now - came);
            next += 1;
            let offset = u64::from(next) * 16 * 1024;
            network.on(1, |engine, _| engine.set_read_position(reader, offset));
        } else {
            let there_is_more = network.step(came + Duration::from_secs(100));
            assert!(there_is_more, "{}", network.describe());
        }
    }
    (at[at.len() / 10], at[at.len() - 1])
}

/// A reader in order has the beginning early, and the end hardly later than a node that does not read.
// req: SWARM-35
#[test]
fn reader_in_order_gets_pieces_in_order() {
    let (tenth, last) = reader(Order::InOrder);
    let (tenth_rarest, last_rarest) = reader(Order::RarestFirst);
    println!(
        "in order: a tenth after {tenth:?}, all after {last:?}; rarest first: {tenth_rarest:?}, {last_rarest:?}"
    );
    assert!(tenth < last / 3, "{tenth:?} of {last:?}");
    assert!(
        tenth < tenth_rarest * 2 / 3,
        "{tenth:?} against {tenth_rarest:?}"
    );
    assert!(
        last < last_rarest * 13 / 10,
        "{last:?} against {last_rarest:?}"
    );
}
