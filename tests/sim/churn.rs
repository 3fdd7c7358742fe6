//! Nodes that die and come back, and an origin that does not.

use std::time::Duration;

use crate::hostile::Conduct;
use crate::network::Network;
use crate::swarm::{MBIT, geometry, swarm, with_seeds};

/// The origin dies once each piece has left it, long before the others are done; every node completes.
// req: SWARM-1
#[test]
fn swarm_outlives_its_origin() {
    with_seeds(3, |seed| {
        let size = 4_000_000;
        let mut network = Network::new(geometry(size, 16 * 1024), Duration::from_millis(5), seed);
        network.check_every = 17;
        swarm(&mut network, 20, |_| 20.0 * MBIT, 40.0 * MBIT);
        while network.uploaded(0) < size {
            assert!(network.step(network.began + Duration::from_secs(100)));
        }
        // What is under way arrives.
        network.run_for(Duration::from_millis(100));
        assert!(!network.all_complete(), "it dies too late to be missed");
        network.kill(0);
        assert!(
            network.run(Duration::from_secs(200)).is_some(),
            "{}",
            network.describe()
        );
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
