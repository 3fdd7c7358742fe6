//! A broker in this process: ready in milliseconds, used by plain calls and by any AMQP client, ended by a call.
//!
//! Run: `cargo run --release --example embedded_broker`
#![allow(clippy::disallowed_methods)] // an example measures time

use std::time::Instant;

use warren::amqp::field::ShortString;
use warren::client::{ConnectSettings, Connection};
use warren::embed::{Broker, ConsumeOptions, Message, QueueOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let begun = Instant::now();
    let broker = Broker::builder().listen_on_loopback().start().await?;
    let started = begun.elapsed();
    let uri = broker.amqp_uri().ok_or("it listens")?;
    let connection = Connection::open(&uri.parse()?, &ConnectSettings::default()).await?;
    println!(
        "started in {started:.1?}, first client logged in after {:.1?}",
        begun.elapsed()
    );

    // In this process there is no socket between the caller and the queue.
    let channel = broker.channel()?;
    channel
        .declare_queue("tasks", &QueueOptions::durable())
        .await?;
    channel
        .publish("", "tasks", Message::new("by a call").persistent())
        .await?;

    // The client sees the same queue.
    let over_amqp = connection.channel().await?;
    let waiting = over_amqp
        .queue_depth(&ShortString::from_static("tasks"))
        .await?;
    println!("the client sees {waiting} message");

    let mut consumer = channel.consume("tasks", &ConsumeOptions::prefetch(10))?;
    let delivery = consumer.next().await.ok_or("the broker runs")?;
    println!("got {:?}", delivery.body().await?);
    delivery.ack()?;

    connection.close().await;
    broker.shutdown().await?;
    println!("stopped");
    Ok(())
}
