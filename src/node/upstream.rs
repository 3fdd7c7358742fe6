//! The node's connection to its broker, and coming back when it is lost.
//!
//! Away ──connect──> Bound (queue, bindings, consumer) ──> Ready ──lost──> Away, after a growing pause
//!
//! Owns: the loop. While a connection lives, its parts run side by side: files in (`inbox`), receipts
//! out (`receipt`), presence and requests for it (`presence`); the first to fail ends all.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::edge::{NodeError, Shared};
use super::message::{CONTROL_EXCHANGE, FILES_EXCHANGE, PresenceEvent};
use super::{early, inbox, presence, receipt, registry};
use crate::amqp::field::ShortString;
use crate::client::{Channel, ClientError, ConnectSettings, Connection, QueueSettings};

/// First pause before connecting again.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause before connecting again.
const PAUSE_MAX: Duration = Duration::from_secs(15);

/// Connects, serves, and connects again until the node stops.
pub(super) async fn run(shared: Arc<Shared>) -> Result<(), NodeError> {
    let mut pause = PAUSE_MIN;
    loop {
        let settings = ConnectSettings {
            name: format!("warren node {}", shared.settings.name),
            ..ConnectSettings::default()
        };
        let connected = tokio::select! {
            () = shared.stop.cancelled() => return Ok(()),
            connected = Connection::open(&shared.settings.broker, &settings) => connected,
        };
        let error = match connected {
            Ok(connection) => {
                let ended = serve(&shared, &connection).await;
                if *shared.ready.borrow() {
                    pause = PAUSE_MIN;
                }
                connection.close().await;
                match ended {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        if !*shared.ready.borrow() && is_final(&error) {
            return Err(error.into());
        }
        tracing::warn!(broker = %shared.settings.broker, %error, pause_ms = pause.as_millis(), "not connected to the broker; trying again");
        tokio::select! {
            () = shared.stop.cancelled() => return Ok(()),
            () = sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether trying again before the first success would only repeat the answer.
fn is_final(error: &ClientError) -> bool {
    match error {
        // Another connection consumes the queue: the broker may not have noticed yet that this node's
        // earlier one is dead.
        ClientError::ChannelClosed { code: 403, .. } => false,
        ClientError::ChannelClosed { .. }
        | ClientError::ConnectionClosed { .. }
        | ClientError::Protocol(_)
        | ClientError::Tls { .. }
        | ClientError::Unusable(_)
        | ClientError::Uri(_) => true,
        ClientError::BodyTooLarge { .. }
        | ClientError::Connect { .. }
        | ClientError::ConsumerCancelled
        | ClientError::Ended
        | ClientError::HeartbeatMissed { .. }
        | ClientError::Io(_)
        | ClientError::Nacked
        | ClientError::Returned { .. }
        | ClientError::Timeout { .. } => false,
    }
}

/// Declares both exchanges; every part of the control plane does this first.
pub(super) async fn declare_exchanges(channel: &Channel) -> Result<(), ClientError> {
    channel.declare_exchange(&FILES_EXCHANGE, "topic").await?;
    channel.declare_exchange(&CONTROL_EXCHANGE, "topic").await
}

/// Declares the node's queue and binds it to its groups, and to no others.
// req: CONTROL-2
async fn bind(shared: &Arc<Shared>, channel: &Channel) -> Result<ShortString, ClientError> {
    declare_exchanges(channel).await?;
    let queue = shared.settings.name.queue();
    let durable = QueueSettings {
        durable: true,
        ..QueueSettings::default()
    };
    channel.declare_queue(&queue, &durable).await?;
    let groups: Vec<String> = shared
        .settings
        .groups
        .iter()
        .map(|group| group.as_str().to_owned())
        .collect();
    for group in &shared.settings.groups {
        channel
            .bind_queue(&queue, &FILES_EXCHANGE, &group.key())
            .await?;
    }
    let earlier = shared.state.bound_groups().unwrap_or_default();
    for left in earlier.iter().filter(|group| !groups.contains(group)) {
        let key = ShortString::truncated(left.clone());
        channel.unbind_queue(&queue, &FILES_EXCHANGE, &key).await?;
    }
    if earlier != groups
        && let Err(error) = shared.state.set_bound_groups(&groups)
    {
        tracing::warn!(%error, "cannot remember the groups; one that is left later stays bound");
    }
    Ok(queue)
}

/// Runs one connection's life; `Ok` if the node stops.
async fn serve(shared: &Arc<Shared>, connection: &Connection) -> Result<(), ClientError> {
    let files = connection.channel().await?;
    let queue = bind(shared, &files).await?;
    let control = connection.channel().await?;
    let requests = presence::request_queue(&control, &shared.settings.name).await?;
    let out = connection.channel().await?;
    out.select_confirms().await?;
    let mut consumer = files.consume(&queue, &inbox::consume_settings()).await?;
    let broker = connection.peer_addr().ip();
    let local = connection.local_addr().ip();
    let mut presence = presence::Announcer::new(shared, control, local);
    presence.announce(PresenceEvent::Join).await?;
    shared.ready.send_replace(true);
    tracing::info!(broker = %shared.settings.broker, queue = %queue, "connected");
    let ended = tokio::select! {
        ended = inbox::run(shared, &mut consumer, broker) => ended,
        ended = receipt::run(shared, &out) => ended,
        ended = early::run(shared, connection, broker) => ended,
        ended = presence.run(&requests) => ended,
        ended = registry_loop(shared, connection) => ended,
        error = connection.wait_closed() => Err(error),
        () = shared.stop.cancelled() => Ok(()),
    };
    if ended.is_ok() {
        presence.announce(PresenceEvent::Leave).await?;
        registry::enter(connection, &shared.settings, &shared.stop).await?;
    }
    ended
}

/// Enters the node into the registry, once; then there is nothing more to do.
async fn registry_loop(shared: &Arc<Shared>, connection: &Connection) -> Result<(), ClientError> {
    registry::enter(connection, &shared.settings, &shared.stop).await?;
    std::future::pending().await
}
