//! A broker, three nodes and a sender in one process: a large file reaches all of them through the swarm.
//!
//! Run: `cargo run --release --example file_distribution`
#![allow(clippy::disallowed_methods)] // an example has files

use std::net::SocketAddr;

use warren::config::{PeerTls, TrafficSettings};
use warren::node::distributor::DistributorSettings;
use warren::node::send::{SendSettings, send};
use warren::payload::Hints;
use warren::{Broker, Node};

/// Large enough to be cut into pieces, in bytes.
const FILE_BYTES: usize = 8 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    let broker = Broker::builder().listen_on_loopback().start().await?;
    let uri = broker.amqp_uri().ok_or("it listens")?;

    let mut nodes = Vec::new();
    for name in ["north", "south", "west"] {
        let mut node = Node::builder(&uri, name)?
            .group("sites")?
            .inbox(at(name).join("inbox"))
            .data_dir(at(name).join("data"))
            .peers(loopback)
            .start()
            .await?;
        node.ready().await;
        nodes.push(node);
    }

    let bytes: Vec<u8> = (0..FILE_BYTES).map(|place| (place / 977) as u8).collect();
    std::fs::write(at("map.bin"), &bytes)?;
    let settings = SendSettings {
        distributor: DistributorSettings {
            broker: uri.parse()?,
            payload_threshold_bytes: 1 << 20,
            peer_listen: Some(loopback),
            traffic: TrafficSettings::default(),
            hints: Hints::default(),
            peer_tls: PeerTls::default(),
            data_dir: at("origin"),
            reply_queue: None,
        },
        group: "sites".parse()?,
        wait: true,
        node_count: Some(nodes.len()),
        timeout: None,
        seed_for: None,
        manifest_folder: None,
    };
    let report = send(settings, &[at("map.bin")], |_| {}).await?;
    let file = report.files.first().ok_or("one file was sent")?;
    let copies = file.uploaded_bytes as f64 / FILE_BYTES as f64;
    println!(
        "{} nodes hold it; the sender gave out {copies:.1} copies",
        file.nodes.len()
    );
    assert!(report.complete);
    for name in ["north", "south", "west"] {
        assert_eq!(
            std::fs::read(at(name).join("inbox/map.bin"))?,
            bytes,
            "{name}"
        );
    }

    for node in nodes {
        node.shutdown().await?;
    }
    broker.shutdown().await?;
    Ok(())
}
