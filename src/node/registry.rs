//! The registry: one message in one queue that says which nodes ever joined.
//!
//! A queue hands its message to one taker at a time, so the message is a value with a lock: take it,
//! publish the changed one, and acknowledge the old once the new is confirmed.
//! Bound: [`TRIES_MAX`] tries while others hold it.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::edge::NodeSettings;
use super::message::{CONTROL_BYTES_MAX, REGISTRY_QUEUE, Registered, Registry, decode, encode};
use super::unix_ms;
use crate::amqp::field::ShortString;
use crate::client::{Channel, ClientError, Connection, Publish, QueueSettings};

/// Tries while the registry is empty, which may mean that another node holds its message.
const TRIES_MAX: u32 = 20;
/// Pause between two tries.
const TRY_PAUSE: Duration = Duration::from_millis(50);

/// All messages of the registry, merged; they are given back when the channel closes.
async fn take(channel: &Channel) -> Result<(Registry, Vec<u64>), ClientError> {
    let mut registry = Registry::default();
    let mut tags = Vec::new();
    while let Some(message) = channel.get(&REGISTRY_QUEUE).await? {
        tags.push(message.delivery_tag);
        let Some(properties) = message.properties() else {
            continue;
        };
        let Ok(body) = message.body.whole(CONTROL_BYTES_MAX).await else {
            continue;
        };
        match decode::<Registry>(&properties, &body) {
            Some(found) => registry.merge(found),
            // req: CONTROL-17
            None => tracing::warn!("a message in {REGISTRY_QUEUE} is no registry; it is dropped"),
        }
    }
    Ok((registry, tags))
}

async fn open(connection: &Connection) -> Result<Channel, ClientError> {
    let channel = connection.channel().await?;
    let durable = QueueSettings {
        durable: true,
        ..QueueSettings::default()
    };
    channel.declare_queue(&REGISTRY_QUEUE, &durable).await?;
    Ok(channel)
}

/// Notes that the node is here now.
// req: CONTROL-16
pub(super) async fn enter(
    connection: &Connection,
    settings: &NodeSettings,
    stop: &CancellationToken,
) -> Result<(), ClientError> {
    let channel = open(connection).await?;
    channel.select_confirms().await?;
    let tries_max = if stop.is_cancelled() {
        TRIES_MAX / 4
    } else {
        TRIES_MAX
    };
    let mut tries = 0;
    let (mut registry, tags) = loop {
        let (registry, tags) = take(&channel).await?;
        tries += 1;
        if !tags.is_empty() || tries == tries_max {
            break (registry, tags);
        }
        sleep(TRY_PAUSE).await;
    };
    let node = Registered {
        groups: settings.groups.clone(),
        seen_unix_ms: unix_ms(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    registry.merge(Registry {
        nodes: [(settings.name.clone(), node)].into(),
    });
    let (properties, body) = encode(&registry);
    let publish = Publish {
        exchange: ShortString::EMPTY,
        routing_key: REGISTRY_QUEUE,
        mandatory: true,
        properties,
    };
    match channel.publish(&publish, &body).await?.wait().await {
        Ok(()) => {
            for tag in tags {
                channel.ack(tag).await?;
            }
        }
        Err(error @ (ClientError::Nacked | ClientError::Returned { .. })) => {
            tracing::warn!(%error, "the registry does not take this node");
        }
        Err(error) => return Err(error),
    }
    channel.close().await
}

/// What the registry says now; nothing is changed.
pub(super) async fn read(connection: &Connection) -> Result<Registry, ClientError> {
    let channel = open(connection).await?;
    let mut tries = 0;
    let registry = loop {
        let (registry, tags) = take(&channel).await?;
        tries += 1;
        if !tags.is_empty() || tries == 4 {
            for tag in tags {
                channel.requeue(tag).await?;
            }
            break registry;
        }
        sleep(TRY_PAUSE).await;
    };
    channel.close().await?;
    Ok(registry)
}
