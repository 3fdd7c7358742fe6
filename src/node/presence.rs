//! Presence: a node tells that it is there, at an interval, when it comes and goes, and when asked; and, while
//! somebody looks on, how its transfers stand.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::edge::Shared;
use super::message::{
    CONTROL_BYTES_MAX, CONTROL_EXCHANGE, NodeName, PRESENCE_KEY, Presence, PresenceEvent,
    REQUEST_KEY, decode, encode,
};
use super::report::{Machine, MachineRole, REPORT_KEY, Retry, WATCH_KEY, Watch, swarm_id};
use super::reporting::{Reporting, tell};
use super::tune::{LIMIT_KEY, Tune};
use crate::amqp::field::ShortString;
use crate::client::{Channel, ClientError, ConsumeSettings, Delivery, Publish, QueueSettings};
use crate::disk::{Disk as _, OsDisk};

/// How often a node tells that it is there.
pub const PRESENCE_INTERVAL: Duration = Duration::from_secs(10);
/// After this long without a word a node is gone.
pub const GONE_AFTER: Duration = Duration::from_secs(60);

/// A queue of this connection's own that gets requests for presence.
pub(super) async fn request_queue(
    channel: &Channel,
    node: &NodeName,
) -> Result<ShortString, ClientError> {
    let own = QueueSettings {
        exclusive: true,
        auto_delete: true,
        ..QueueSettings::default()
    };
    let queue = channel
        .declare_queue(&ShortString::EMPTY, &own)
        .await?
        .queue;
    for key in [REQUEST_KEY, WATCH_KEY, LIMIT_KEY, Retry::key(node)] {
        channel.bind_queue(&queue, &CONTROL_EXCHANGE, &key).await?;
    }
    Ok(queue)
}

/// Tells the node's presence on one connection.
pub(super) struct Announcer<'a> {
    shared: &'a Arc<Shared>,
    channel: Channel,
    /// This node's address on the way to the broker.
    local: IpAddr,
    reporting: Reporting,
}

impl<'a> Announcer<'a> {
    pub(super) fn new(shared: &'a Arc<Shared>, channel: Channel, local: IpAddr) -> Self {
        Self {
            shared,
            channel,
            local,
            reporting: Reporting::default(),
        }
    }

    /// Tells everybody who listens.
    // req: CONTROL-14
    pub(super) async fn announce(&mut self, event: PresenceEvent) -> Result<(), ClientError> {
        tell(&self.channel, PRESENCE_KEY, &self.presence(event)).await
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
                () = self.reporting.due() => self.report().await?,
                request = consumer.next() => {
                    let request = request?;
                    let tag = request.delivery_tag;
                    self.handle(request).await?;
                    self.channel.ack(tag).await?;
                }
            }
        }
    }

    /// Answers a request: for presence, for reports, or to try a file again.
    async fn handle(&mut self, request: Delivery) -> Result<(), ClientError> {
        let properties = request.properties().unwrap_or_default();
        // Read over a body, if there is one, before the next call.
        let body = request.body.whole(CONTROL_BYTES_MAX).await;
        let body = body.unwrap_or_default();
        if let Some(watch) = decode::<Watch>(&properties, &body) {
            self.reporting.watch(watch, Instant::now());
        } else if let Some(tune) = decode::<Tune>(&properties, &body) {
            tune.apply(self.shared.settings.name.as_str(), &self.shared.swarm, None);
        } else if let Some(retry) = decode::<Retry>(&properties, &body) {
            let shared = Arc::clone(self.shared);
            let retrying = spawn_blocking(move || super::retry::retry(&shared, &retry));
            if let Err(error) = retrying.await {
                tracing::error!(%error, "trying a file again was cut off");
            }
        } else if let Some(reply_to) = properties.reply_to {
            self.answer(reply_to).await?;
        }
        Ok(())
    }

    /// Tells who looks on how the transfers stand.
    // req: CONTROL-23
    async fn report(&mut self) -> Result<(), ClientError> {
        let swarm = &self.shared.swarm;
        let machine = Machine {
            name: self.shared.settings.name.clone(),
            role: MachineRole::Node,
            swarm_id: swarm.node(),
            address: self.address().map(|address| address.to_string()),
        };
        let report = self
            .reporting
            .report(&machine, &swarm.stats(), Instant::now());
        tell(&self.channel, REPORT_KEY, &report).await
    }

    /// Where peers reach this node.
    fn address(&self) -> Option<SocketAddr> {
        let listener = self.shared.swarm.local_addr();
        listener.map(|address| reachable(address, self.local))
    }

    // req: CONTROL-15
    async fn answer(&self, reply_to: ShortString) -> Result<(), ClientError> {
        let shared = Arc::clone(self.shared);
        let latest = spawn_blocking(move || shared.state.latest()).await;
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
        let (properties, body) = encode(&presence);
        let publish = Publish {
            exchange: ShortString::EMPTY,
            routing_key: reply_to,
            mandatory: false,
            properties,
        };
        self.channel.publish(&publish, &body).await.map(drop)
    }

    fn presence(&self, event: PresenceEvent) -> Presence {
        let settings = &self.shared.settings;
        Presence {
            node: settings.name.clone(),
            event,
            groups: settings.groups.clone(),
            peers: self
                .address()
                .into_iter()
                .map(|address| address.to_string())
                .collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            free_bytes: OsDisk.free_bytes(&settings.inbox).unwrap_or(0),
            fetching: u32::try_from(self.shared.fetches.count()).unwrap_or(u32::MAX),
            swarm_id: swarm_id(&self.shared.swarm.node()),
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
