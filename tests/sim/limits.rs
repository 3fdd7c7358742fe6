//! Limits, priorities and the upload quota on a made-up network.

use std::num::NonZeroU64;
use std::time::Duration;

use warren::payload::{Geometry, PayloadId, PieceBytes, Priority};
use warren::swarm::{Limits, TransferId, UploadQuota};

use crate::hostile::Conduct;
use crate::network::Network;

const MBIT: f64 = 1_000_000.0 / 8.0;
const FAST: f64 = 100.0 * MBIT;

fn network(size_bytes: u64, piece_bytes: u64) -> Network {
    let piece_bytes = PieceBytes::new(piece_bytes).expect("valid");
    let geometry = Geometry::new(size_bytes, piece_bytes).expect("valid");
    let mut network = Network::new(geometry, Duration::from_millis(2), 1);
    network.check_every = 499;
    network
}

fn rate(bytes_per_second: u64) -> Option<NonZeroU64> {
    NonZeroU64::new(bytes_per_second)
}

/// Bytes that a host sent and received of one payload.
fn moved(network: &Network, host: usize, id: TransferId) -> (u64, u64) {
    let stats = network.hosts[host].engine.transfer_stats(id, network.now);
    let counts = stats.expect("running").counts;
    (counts.up_bytes, counts.down_bytes)
}

fn assert_near(measured: u64, wanted: f64, what: &str) {
    let share = measured as f64 / wanted;
    println!("{what}: {measured} bytes, {share:.3} of the limit");
    assert!((0.95..=1.05).contains(&share), "{what}: {share}");
}

/// A node's limit on sending is kept within 5 %, with small and with large pieces, and can change.
// req: SWARM-30
#[test]
fn upload_limit_is_kept() {
    for piece_bytes in [32 * 1024, 1024 * 1024] {
        let mut network = network(50_000_000, piece_bytes);
        network.add_host(FAST, FAST, Conduct::Honest);
        let origin = network.want_with(0, &[], true, |_| {});
        let limits = Limits {
            up: rate(2_000_000),
            down: None,
        };
        network.on(0, |engine, now| engine.set_limits(limits, now));
        for number in 1..=4 {
            network.add_host(FAST, FAST, Conduct::Honest);
            network.want(number, &[0], false);
        }
        for bytes_per_second in [2_000_000, 1_000_000, 3_000_000] {
            let limits = Limits {
                up: rate(bytes_per_second),
                down: None,
            };
            network.on(0, |engine, now| engine.set_limits(limits, now));
            network.run_for(Duration::from_secs(1));
            let before = moved(&network, 0, origin).0;
            network.run_for(Duration::from_secs(7));
            let sent = moved(&network, 0, origin).0 - before;
            let wanted = bytes_per_second as f64 * 7.0;
            assert_near(
                sent,
                wanted,
                &format!("pieces of {piece_bytes}, up {bytes_per_second}"),
            );
        }
        assert!(
            network.run(Duration::from_secs(600)).is_some(),
            "{}",
            network.describe()
        );
    }
}

/// A node's limit on fetching is kept within 5 %, and one of the payload alone likewise; the others go on
/// at their own speed.
// req: SWARM-30
#[test]
fn download_limits_are_kept() {
    let mut network = network(30_000_000, 64 * 1024);
    network.add_host(FAST, FAST, Conduct::Honest);
    network.want(0, &[], true);
    let mut ids = Vec::new();
    for number in 1..=5 {
        network.add_host(FAST, FAST, Conduct::Honest);
        let own = Limits {
            up: None,
            down: rate(1_000_000).filter(|_| number == 2),
        };
        ids.push(network.want_with(number, &[0], false, |want| want.limits = own));
    }
    let limits = Limits {
        up: None,
        down: rate(500_000),
    };
    network.on(1, |engine, now| engine.set_limits(limits, now));
    network.run_for(Duration::from_secs(2));
    let before = [moved(&network, 1, ids[0]).1, moved(&network, 2, ids[1]).1];
    network.run_for(Duration::from_secs(20));
    let node = moved(&network, 1, ids[0]).1 - before[0];
    let payload = moved(&network, 2, ids[1]).1 - before[1];
    assert_near(node, 500_000.0 * 20.0, "a node's download");
    assert_near(payload, 1_000_000.0 * 20.0, "a payload's download");
    for number in 3..=5 {
        assert!(
            network.hosts[number].completed.is_some(),
            "others are not held up"
        );
    }
    network.on(1, |engine, now| engine.set_limits(Limits::default(), now));
    assert!(
        network.run(Duration::from_secs(100)).is_some(),
        "{}",
        network.describe()
    );
}

/// A limit that is low for the size of the blocks chokes, and never looks like a stall: everybody completes
/// and nobody is turned out.
// req: SWARM-32
#[test]
fn low_limit_is_no_stall() {
    let mut network = network(6 * 1024 * 1024, 1024 * 1024);
    network.add_host(FAST, FAST, Conduct::Honest);
    let limits = Limits {
        up: rate(64 * 1024),
        down: None,
    };
    network.on(0, |engine, now| engine.set_limits(limits, now));
    network.want(0, &[], true);
    for number in 1..=8 {
        network.add_host(FAST, FAST, Conduct::Honest);
        network.want(number, &[0], false);
    }
    let time = network.run(Duration::from_secs(3_000));
    let time = time.unwrap_or_else(|| panic!("{}", network.describe()));
    let copies = network.uploaded(0) as f64 / (6.0 * 1024.0 * 1024.0);
    println!("64 KiB/s: {time:?}, the origin sent {copies:.2} copies");
    for host in &network.hosts {
        for stats in host.engine.stats(network.now) {
            let stalls: u32 = stats.peers.iter().map(|peer| peer.counts.stalls).sum();
            assert_eq!(stalls, 0, "a limit looked like a stall");
        }
        assert!(host.engine.banned(network.now).is_empty());
    }
}

/// Payloads share a limited and a busy uplink by priority.
// req: SWARM-31
#[test]
fn priorities_share_the_uplink() {
    for limit in [rate(2_000_000), None] {
        let mut network = network(60_000_000, 64 * 1024);
        network.add_host(20.0 * MBIT, FAST, Conduct::Honest);
        let limits = Limits {
            up: limit,
            down: None,
        };
        network.on(0, |engine, now| engine.set_limits(limits, now));
        let mut ids = Vec::new();
        for (number, priority) in [30, 10, 10].into_iter().enumerate() {
            let payload = PayloadId::from_bytes([number as u8; 32]);
            ids.push(network.want_with(0, &[], true, |want| {
                want.payload = payload;
                want.priority = Priority::new(priority).expect("valid");
            }));
            // More peers for those with less of a share: it is not by peer.
            for _ in 0..=2 * number {
                let host = network.add_host(FAST, FAST, Conduct::Honest);
                network.want_with(host, &[0], false, |want| want.payload = payload);
            }
        }
        network.run_for(Duration::from_secs(3));
        let before: Vec<u64> = ids.iter().map(|id| moved(&network, 0, *id).0).collect();
        network.run_for(Duration::from_secs(12));
        let sent: Vec<u64> = ids
            .iter()
            .zip(before)
            .map(|(id, before)| moved(&network, 0, *id).0 - before)
            .collect();
        let all: u64 = sent.iter().sum();
        println!("limit {limit:?}: {sent:?}");
        for (sent, share) in sent.iter().zip([0.6, 0.2, 0.2]) {
            let wanted = all as f64 * share;
            assert_near(*sent, wanted, "a payload's share");
        }
    }
}

/// A node whose quota is used serves nobody and is not held to have stalled; the others complete from each
/// other, and it serves again when the quota is raised.
// req: SWARM-33
#[test]
fn used_quota_chokes() {
    let size = 4_000_000;
    let mut network = network(size, 32 * 1024);
    network.add_host(FAST, FAST, Conduct::Honest);
    let quota = |bytes| UploadQuota {
        day_bytes: Some(bytes),
        total_bytes: None,
    };
    network.on(0, |engine, now| engine.set_quota(quota(size / 2), now));
    let origin = network.want_with(0, &[], true, |_| {});
    for number in 1..=4 {
        network.add_host(FAST, FAST, Conduct::Honest);
        network.want(number, &[0], false);
    }
    network.run_for(Duration::from_secs(60));
    let sent = moved(&network, 0, origin).0;
    assert!((size / 2..size / 2 + 300_000).contains(&sent), "{sent}");
    assert!(!network.all_complete());
    network.on(0, |engine, now| engine.set_quota(quota(10 * size), now));
    let began = network.now;
    assert!(
        network.run(Duration::from_secs(120)).is_some(),
        "{}",
        network.describe()
    );
    assert!(
        network.now - began < Duration::from_secs(20),
        "it serves at once"
    );
    for host in &network.hosts {
        assert!(host.engine.banned(network.now).is_empty());
    }
}
