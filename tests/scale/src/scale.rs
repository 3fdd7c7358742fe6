//! Swarms of 30 to 1,000 nodes, and 10,000 by hand: how near they come to the fluid bound, what a node says, and
//! that the origin's part does not grow with them.
//!
//! `SIM_NODES`, `SIM_BYTES`, `SIM_PIECE` and `SIM_LATENCY_MS` change the ignored one, `SIM_TRACE` shows its uplinks. With
//! `SIM_QUEUE_MS` a downlink's queue holds no more than that, and blocks that find no place stay with their senders.

use std::time::Duration;

use warren::payload::{Geometry, PieceBytes};

use crate::hostile::Conduct;
use crate::network::Network;
use crate::report::Report;
use crate::trace::Trace;

const RATE: f64 = 20_000_000.0 / 8.0;

/// What a run showed.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    /// Fluid bound over the time of the last node.
    efficiency: f64,
    /// Payloads that the origin sent, and that a node received at most.
    origin_copies: f64,
    received_most: f64,
    /// Messages that a node heard and said but blocks, in the mean.
    messages_mean: f64,
    /// Messages that the origin said, but blocks, and its connections at a time, at most.
    origin_messages: u64,
    origin_links: usize,
}

/// An origin and `nodes` nodes of 20 Mbit/s that learn of the payload at once.
fn run(nodes: usize, size_bytes: u64, piece_bytes: u64, latency: Duration) -> Outcome {
    let piece_bytes = PieceBytes::new(piece_bytes).expect("valid");
    let geometry = Geometry::new(size_bytes, piece_bytes).expect("valid");
    let mut network = Network::new(geometry, latency, 1);
    network.check_every = 99_991;
    network.messages_wait = true;
    let queue_ms = scale("SIM_QUEUE_MS", 0);
    network.downlink_queue = (queue_ms > 0).then(|| Duration::from_millis(queue_ms));
    network.trace = Trace::wanted();
    for _ in 0..=nodes {
        network.add_host(RATE, RATE, Conduct::Honest);
    }
    network.want(0, &[], true);
    for number in 1..=nodes {
        network.want(number, &[0], false);
    }
    let limit = Duration::from_secs(1_000);
    let time = match std::env::var_os("SIM_REPORT") {
        Some(_) => {
            let (time, report) = Report::run(&mut network, limit);
            report.print(&network);
            time
        }
        None => network.run(limit),
    };
    let time = time.unwrap_or_else(|| panic!("{}", network.describe()));
    if let Some(trace) = &network.trace {
        trace.print(nodes, geometry.piece_count());
    }
    let size = size_bytes as f64;
    // One copy has to leave the origin and enter each node, and all of them to leave somebody.
    let bound = size / RATE;
    let others = &network.hosts[1..];
    let received = others.iter().map(|host| {
        let stats = host.engine.stats(network.now);
        stats[0].counts.down_bytes as f64 / size
    });
    let messages: u64 = others
        .iter()
        .map(|host| host.control_messages + host.heard_messages)
        .sum();
    let origin = &network.hosts[0];
    let outcome = Outcome {
        efficiency: bound / time.as_secs_f64(),
        origin_copies: network.uploaded(0) as f64 / size,
        received_most: received.fold(0.0, f64::max),
        messages_mean: messages as f64 / nodes as f64,
        origin_messages: origin.control_messages,
        origin_links: origin.links_most,
    };
    println!(
        "{nodes} nodes, {size_bytes} bytes in {} pieces: {outcome:.3?}, {} steps",
        geometry.piece_count(),
        network.steps
    );
    outcome
}

fn scale(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().expect("a number"))
}

/// Of a swarm of a thousand a node says and hears at most so much more than of one of three hundred as the logarithm of
/// their number grows, and the origin gives no more and talks to no more at a time; whom it has no place for costs it
/// a few messages once.
// req: SWARM-1
// req: SWARM-9
#[test]
fn cost_of_a_node_does_not_grow_with_the_swarm() {
    let size = 12_500_000;
    let latency = Duration::from_millis(2);
    let hundreds = run(300, size, 32 * 1024, latency);
    let thousand = run(1_000, size, 32 * 1024, latency);
    let growth = thousand.messages_mean / hundreds.messages_mean;
    assert!(growth <= 1000_f64.ln() / 300_f64.ln(), "{growth}");
    assert!(thousand.origin_copies <= 1.05, "{thousand:?}");
    assert!(thousand.received_most <= 1.1, "{thousand:?}");
    assert!(thousand.origin_links <= 256, "{thousand:?}");
    let further = thousand
        .origin_messages
        .saturating_sub(hundreds.origin_messages);
    assert!(further <= 8 * 700, "{further} more messages of the origin");
}

/// A thousand nodes come near the fluid bound of a payload that is large enough for the start and the end not to
/// decide: they find each other within about a second, and one copy takes 20 s.
// req: SWARM-5
#[test]
fn thousand_nodes_come_near_the_fluid_bound() {
    let latency = Duration::from_millis(2);
    let outcome = run(1_000, 50_000_000, 32 * 1024, latency);
    assert!(outcome.efficiency >= 0.90, "{outcome:?}");
}

/// By hand: any size.
#[test]
#[ignore = "by hand, with SIM_NODES and the like"]
fn swarm_of_any_size() {
    let size = scale("SIM_BYTES", 25_000_000);
    let piece = PieceBytes::for_payload(size).get();
    let latency = Duration::from_millis(scale("SIM_LATENCY_MS", 2));
    let nodes = scale("SIM_NODES", 10_000) as usize;
    let outcome = run(nodes, size, scale("SIM_PIECE", piece.into()), latency);
    assert!(outcome.origin_copies < 1.25);
}
