//! Nodes that die and come back, and an origin that does not.

use std::time::Duration;

use crate::hostile::Conduct;
use crate::network::Network;
use crate::swarm::{MBIT, geometry, swarm, with_seeds};

/// Bytes on their way out of a host when the engine counts them as sent: those are lost if it dies at once.
const ON_ITS_WAY: u64 = 128 * 1024;

/// The origin dies as soon as it has sent what its payload has, or, a crowd later, one copy and a tenth; every node
/// completes, since no piece left it twice before each had left it once.
// req: SWARM-1
#[test]
fn swarm_outlives_its_origin() {
    for (nodes, piece_bytes, copies) in [(20, 16, 1.0), (30, 32, 1.0), (30, 16, 1.1)] {
        with_seeds(3, |seed| {
            let size = 4_000_000;
            let geometry = geometry(size, piece_bytes * 1024);
            let mut network = Network::new(geometry, Duration::from_millis(5), seed);
            network.check_every = 17;
            network.messages_wait = true;
            swarm(&mut network, nodes, |_| 20.0 * MBIT, 40.0 * MBIT);
            let until = network.began + Duration::from_secs(100);
            let most = (size as f64 * copies) as u64;
            // An origin that has given all is silent: it never comes to more by itself.
            let mut sent = (0, network.now);
            while network.uploaded(0) < most && network.now - sent.1 < Duration::from_millis(200) {
                assert!(network.step(until));
                if network.uploaded(0) != sent.0 {
                    sent = (network.uploaded(0), network.now);
                }
            }
            assert!(network.uploaded(0) >= size, "it was killed too early");
            assert!(
                network.uploaded(0) <= size + ON_ITS_WAY,
                "it repeated pieces"
            );
            if copies > 1.0 {
                assert!(network.now - sent.1 >= Duration::from_millis(200));
            } else {
                // What is under way arrives.
                network.run_for(Duration::from_millis(100));
            }
            assert!(!network.all_complete(), "it dies too late to be missed");
            network.kill(0);
            assert!(
                network.run(Duration::from_secs(200)).is_some(),
                "{}",
                network.describe()
            );
        });
    }
}

/// Pieces that only `holder` has beside the origin.
fn sole_pieces(network: &Network, holder: usize) -> u32 {
    let others = || network.hosts[1..].iter().enumerate();
    let pieces = network.hosts[holder].held.held(&network.geometry);
    let sole = pieces.filter(|piece| {
        others().all(|(number, host)| number + 1 == holder || !host.alive || !host.held.has(*piece))
    });
    sole.count() as u32
}

/// Whoever holds pieces that nobody else has but the origin dies with them, again and again, in the middle and after
/// the origin had given all: it gives them once more, and no more than them and what was on its way.
// req: SWARM-1
#[test]
fn origin_gives_again_what_died_with_its_taker() {
    with_seeds(3, |seed| {
        let size = 4_000_000;
        let piece_bytes = 16 * 1024;
        let mut network = Network::new(geometry(size, piece_bytes), Duration::from_millis(5), seed);
        network.check_every = 17;
        network.messages_wait = true;
        swarm(&mut network, 20, |_| 20.0 * MBIT, 40.0 * MBIT);
        let mut lost = 0;
        for share in [0.2, 0.4, 0.6, 0.8, 1.0] {
            let sent = (size as f64 * share) as u64;
            while network.uploaded(0) < sent {
                assert!(network.step(network.began + Duration::from_secs(100)));
            }
            let alive = (1..=20).filter(|host| network.hosts[*host].alive);
            let holder = alive.max_by_key(|host| sole_pieces(&network, *host));
            let holder = holder.expect("many are alive");
            lost += sole_pieces(&network, holder);
            network.kill(holder);
        }
        assert!(lost > 5, "{lost} pieces died with their only holders");
        let time = network.run(Duration::from_secs(200));
        assert!(time.is_some(), "{}", network.describe());
        let copies = network.uploaded(0) as f64 / size as f64;
        println!("seed {seed}: {lost} pieces lost, {time:?}, origin {copies:.3} copies");
    });
}

/// An origin and thirty nodes, of a rate at which one copy takes 40 s: as long as 100 MB at 20 Mbit/s.
fn thirty_nodes(seed: u64) -> Network {
    const RATE: f64 = 250_000.0;
    let geometry = geometry(10_000_000, 16 * 1024);
    let mut network = Network::new(geometry, Duration::from_millis(5), seed);
    network.check_every = 997;
    network.messages_wait = true;
    for _ in 0..=30 {
        network.add_host(RATE, RATE, Conduct::Honest);
    }
    network.want(0, &[], true);
    for number in 1..=30 {
        network.want(number, &[0], false);
    }
    network
}

/// A third is killed at half time and comes back 5 s later with what it had verified: none of it is fetched again, and
/// the last node takes at most 1.25 times as long as without.
// req: SWARM-14
#[test]
fn killed_nodes_resume_where_they_were() {
    with_seeds(1, |seed| {
        let mut calm = thirty_nodes(seed);
        let undisturbed = calm.run(Duration::from_secs(1_000)).expect("completes");

        let mut network = thirty_nodes(seed);
        network.run_for(undisturbed / 2);
        let killed: Vec<usize> = (1..=10).map(|third| third * 3).collect();
        for host in &killed {
            network.kill(*host);
        }
        network.run_for(Duration::from_secs(5));
        let mut before = Vec::new();
        for host in &killed {
            before.push(network.hosts[*host].held.held_count());
            network.restart(*host, &[0, 1]);
        }
        let time = network.run(Duration::from_secs(1_000));
        let time = time.unwrap_or_else(|| panic!("{}", network.describe()));
        for (host, before) in killed.iter().zip(before) {
            let stats = &network.hosts[*host].engine.stats(network.now)[0];
            assert!(before > 0, "something was verified before the kill");
            assert_eq!(
                stats.counts.pieces_fetched + before,
                network.geometry.piece_count()
            );
        }
        let ratio = time.as_secs_f64() / undisturbed.as_secs_f64();
        println!("undisturbed {undisturbed:.1?}, with a third killed {time:.1?}: {ratio:.3} times");
        assert!(ratio <= 1.25, "{ratio} times the undisturbed time");
    });
}
