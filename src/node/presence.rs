//! Presence: a node tells that it is there, at an interval, when it comes and goes, and when asked.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::edge::Shared;
use super::message::{
    CONTROL_BYTES_MAX, CONTROL_EXCHANGE, PRESENCE_KEY, Presence, PresenceEvent, REQUEST_KEY, encode,
};
use crate::amqp::field::ShortString;
use crate::client::{Channel, ClientError, ConsumeSettings, Publish, QueueSettings};
use crate::disk::{Disk as _, OsDisk};

/// How often a node tells that it is there.
pub const PRESENCE_INTERVAL: Duration = Duration::from_secs(10);
/// After this long without a word a node is gone.
pub const GONE_AFTER: Duration = Duration::from_secs(60);

/// A queue of this connection's own that gets requests for presence.
pub(super) async fn request_queue(channel: &Channel) -> Result<ShortString, ClientError> {
    let own = QueueSettings {
        exclusive: true,
        auto_delete: true,
        ..QueueSettings::default()
    };
    let queue = channel
        .declare_queue(&ShortString::EMPTY, &own)
        .await?
        .queue;
    channel
        .bind_queue(&queue, &CONTROL_EXCHANGE, &REQUEST_KEY)
        .await?;
    Ok(queue)
}

/// Tells the node's presence on one connection.
pub(super) struct Announcer<'a> {
    shared: &'a Arc<Shared>,
    channel: Channel,
    /// This node's address on the way to the broker.
    local: IpAddr,
}

impl<'a> Announcer<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, channel: Channel, local: IpAddr) -> Self {
        Self {
            shared,
            channel,
            local,
        }
    }

    /// Tells everybody who listens.
    // req: CONTROL-14
    pub(super) async fn announce(&mut self, event: PresenceEvent) -> Result<(), ClientError> {
        self.send(CONTROL_EXCHANGE, PRESENCE_KEY, &self.presence(event))
            .await
    }

    async fn send(
        &self,
        exchange: ShortString,
        routing_key: ShortString,
        presence: &Presence,
    ) -> Result<(), ClientError> {
        let (properties, body) = encode(presence);
        let publish = Publish {
            exchange,
            routing_key,
            mandatory: false,
            properties,
        };
        self.channel.publish(&publish, &body).await.map(drop)
    }

    /// Announces at the interval and answers requests until the connection ends.
    pub(super) async fn run(&mut self, requests: &ShortString) -> Result<(), ClientError> {
        let mut consumer = self
            .channel
            .clone()
            .consume(requests, &ConsumeSettings::default())
            .await?;
        let mut ticks = interval(PRESENCE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            tokio::select! {
                _ = ticks.tick() => self.announce(PresenceEvent::Alive).await?,
                request = consumer.next() => {
                    let request = request?;
                    let tag = request.delivery_tag;
                    let reply_to = request.properties().and_then(|properties| properties.reply_to);
                    // Read over a body, if there is one, before the next call.
                    drop(request.body.whole(CONTROL_BYTES_MAX).await);
                    if let Some(reply_to) = reply_to {
                        self.answer(reply_to).await?;
                    }
                    self.channel.ack(tag).await?;
                }
            }
        }
    }

    // req: CONTROL-15
    async fn answer(&self, reply_to: ShortString) -> Result<(), ClientError> {
        let shared = Arc::clone(self.shared);
        let latest = tokio::task::spawn_blocking(move || shared.state.latest()).await;
        let records = match latest {
            Ok(Ok(records)) => records,
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot look up the latest files");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        let mut presence = self.presence(PresenceEvent::Alive);
        let name = &self.shared.settings.name;
        presence.files = records.iter().map(|record| record.receipt(name)).collect();
        self.send(ShortString::EMPTY, reply_to, &presence).await
    }

    fn presence(&self, event: PresenceEvent) -> Presence {
        let settings = &self.shared.settings;
        let peers = self
            .shared
            .swarm
            .local_addr()
            .map(|address| reachable(address, self.local));
        Presence {
            node: settings.name.clone(),
            event,
            groups: settings.groups.clone(),
            peers: peers
                .into_iter()
                .map(|address| address.to_string())
                .collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            free_bytes: OsDisk.free_bytes(&settings.inbox).unwrap_or(0),
            fetching: u32::try_from(self.shared.fetches.count()).unwrap_or(u32::MAX),
            files: Vec::new(),
        }
    }
}

/// Where others reach a listener: an unspecified host is this machine's on the way to the broker.
pub(super) fn reachable(listener: SocketAddr, local: IpAddr) -> SocketAddr {
    let host = if listener.ip().is_unspecified() {
        local
    } else {
        listener.ip()
    };
    SocketAddr::new(host, listener.port())
}
