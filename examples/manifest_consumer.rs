//! A consumer that gets the manifest of a large message in its place, and fetches the body from the swarm: many of
//! them give each other the pieces, and the broker sends each piece hardly more than once.
//!
//! Run: `cargo run --release --example manifest_consumer`
#![allow(clippy::disallowed_methods)] // an example has a folder

use std::net::SocketAddr;
use std::sync::Arc;

use warren::Broker;
use warren::amqp::field::{FieldTable, ShortString};
use warren::client::{ConnectSettings, Connection, ConsumeSettings};
use warren::disk::OsDisk;
use warren::embed::{Manifest, Message, QueueOptions};
use warren::payload::{ScopeId, Store, StoreSettings};
use warren::server::peer::{Swarm, SwarmSettings};

/// Manifests are small: 32 bytes for each piece.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let broker = Broker::builder()
        .listen_on_loopback()
        .peers(loopback)
        .start()
        .await?;
    let channel = broker.channel()?;
    channel
        .declare_queue("models", &QueueOptions::durable())
        .await?;
    let body: Vec<u8> = (0..5 << 20).map(|place: u32| (place / 773) as u8).collect();
    channel
        .publish("", "models", Message::new(body.clone()).persistent())
        .await?;

    // Any AMQP client can ask for manifests: `x-payload: manifest` at basic.consume.
    let uri = broker.amqp_uri().ok_or("it listens")?;
    let connection = Connection::open(&uri.parse()?, &ConnectSettings::default()).await?;
    let over_amqp = connection.channel().await?;
    let mut arguments = FieldTable::EMPTY;
    arguments.insert(ShortString::from_static("x-payload"), "manifest");
    let settings = ConsumeSettings {
        arguments,
        ..ConsumeSettings::default()
    };
    let mut consumer = over_amqp
        .consume(&ShortString::from_static("models"), &settings)
        .await?;
    let delivery = consumer.next().await?;
    let properties = delivery.properties().ok_or("readable properties")?;
    let tag = delivery.delivery_tag;
    let manifest_body = delivery.body.whole(MANIFEST_BYTES_MAX).await?;
    let manifest = Manifest::from_message(&properties, &manifest_body)?;
    println!(
        "{} bytes in {} pieces, from {:?}",
        manifest.geometry().size_bytes(),
        manifest.piece_hashes().len(),
        manifest.peers()
    );

    // The pieces come from whoever has them, and none is kept that does not match its hash.
    let folder = tempfile::tempdir()?;
    let store = Store::open(Arc::new(OsDisk), folder.path(), StoreSettings::default())?;
    let swarm = Swarm::start(SwarmSettings::default(), store.clone()).await?;
    let transfer = swarm.fetch(ScopeId::NODE, &manifest).await?;
    transfer.finished().await?;
    let reader = store.open_reader(ScopeId::NODE, manifest.id())?;
    let mut fetched = vec![0; body.len()];
    reader.read_at(&mut fetched, 0)?;
    assert_eq!(fetched, body);
    over_amqp.ack(tag).await?;
    println!("fetched {:.16}", manifest.id().to_string());

    drop(transfer);
    swarm.shutdown().await;
    connection.close().await;
    broker.shutdown().await?;
    Ok(())
}
