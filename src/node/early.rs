//! Payloads that are fetched while they are still being published, before their manifests.
//!
//! Begun ──hashes──> pieces come ──manifest that agrees──> taken over; end without a payload, or silence ──> gone
//!
//! Owns: what is being fetched early, and the queue in which a broker announces it. Nothing of it is placed or
//! counted: a manifest decides.
//! Bound: [`EARLY_MAX`] at a time, each with its size reserved in the store.
//! Spec: `spec/early.md` EARLY-4 to EARLY-8.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;

use super::edge::Shared;
use super::message::{CONTROL_BYTES_MAX, ControlMessage, decode, peer_addresses};
use crate::amqp::field::ShortString;
use crate::client::{ClientError, Connection, ConsumeSettings, Delivery, QueueSettings};
use crate::payload::manifest::PEER_COUNT_MAX;
use crate::payload::store::{EarlyPayload, PartialPayload};
use crate::payload::{Manifest, PayloadId, ScopeId};
use crate::server::early::{Begin, MESSAGE_TYPE, Word, decode_hashes, early_queue};
use crate::server::peer::SwarmTransfer;

/// Payloads fetched early at a time; further ones wait for their manifests.
const EARLY_MAX: usize = 4;
/// After so long without a word an announcement is forgotten.
const QUIET_MAX: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Where the queue cannot be had it is tried again after so long: the broker may not have noticed yet that this node's
/// earlier connection is dead.
const DECLARE_INTERVAL: Duration = Duration::from_secs(30);
/// What was taken over is served in the early swarm for so long, for those who are still there.
const LINGER: Duration = Duration::from_secs(10);

impl ControlMessage for Word {
    const TYPE: ShortString = MESSAGE_TYPE;
    const IS_PERSISTENT: bool = false;
}

/// Payloads that are being fetched early.
#[derive(Default)]
pub(super) struct Earlies {
    running: Mutex<HashMap<PayloadId, Early>>,
}

/// One of them.
struct Early {
    file: EarlyPayload,
    transfer: SwarmTransfer,
    heard: Instant,
}

/// What a manifest took over, and what it goes on with.
pub(super) struct TakenOver {
    /// Keeps the pieces until they are fetched on.
    _partial: PartialPayload,
    /// The manifest, with those who gave pieces before among its peers.
    pub(super) manifest: Manifest,
    early: Early,
}

impl TakenOver {
    /// Serves on for a moment in the swarm that is left.
    // req: EARLY-8
    pub(super) fn linger(self, shared: &Shared) {
        let stop = shared.stop.clone();
        shared.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = sleep(LINGER) => {}
            }
            drop(self.early);
        });
    }
}

/// Hears announcements on one connection until it ends.
pub(super) async fn run(
    shared: &Arc<Shared>,
    connection: &Connection,
    broker: IpAddr,
) -> Result<(), ClientError> {
    while_refused(DECLARE_INTERVAL, || listen(shared, connection, broker)).await
}

/// Listens, and again after each `pause` as long as the broker does not let it.
async fn while_refused<F: Future<Output = Result<(), ClientError>>>(
    pause: Duration,
    listen: impl Fn() -> F,
) -> Result<(), ClientError> {
    loop {
        match listen().await {
            Err(ClientError::ChannelClosed { text, .. }) => tracing::debug!(
                text,
                "no announcements of payloads that are being published"
            ),
            ended => return ended,
        }
        sleep(pause).await;
    }
}

/// Lets go of what nothing is heard of, whether there is a connection or not, until the node stops.
// req: EARLY-7
pub(super) async fn look_after(earlies: &Earlies, stop: &CancellationToken) {
    let mut looks = interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => earlies.forget_quiet(Instant::now()),
        }
    }
}

// req: EARLY-4
async fn listen(
    shared: &Arc<Shared>,
    connection: &Connection,
    broker: IpAddr,
) -> Result<(), ClientError> {
    let Some(queue) = early_queue(shared.settings.name.queue().as_bytes()) else {
        return std::future::pending().await;
    };
    let own = QueueSettings {
        exclusive: true,
        auto_delete: true,
        ..QueueSettings::default()
    };
    let channel = connection.channel().await?;
    channel.declare_queue(&queue, &own).await?;
    let mut consumer = channel.consume(&queue, &ConsumeSettings::default()).await?;
    loop {
        let delivery = consumer.next().await?;
        let tag = delivery.delivery_tag;
        handle(shared, delivery, broker).await;
        consumer.channel().ack(tag).await?;
    }
}

async fn handle(shared: &Arc<Shared>, delivery: Delivery, broker: IpAddr) {
    let properties = delivery.properties().unwrap_or_default();
    let body = delivery.body.whole(CONTROL_BYTES_MAX).await;
    let body = body.unwrap_or_default();
    let earlies = &shared.earlies;
    match decode::<Word>(&properties, &body) {
        Some(Word::Begin(begin)) => begin_early(shared, &begin, broker).await,
        Some(Word::Pieces {
            swarm,
            first,
            hashes,
        }) => {
            if let (Ok(id), Some(hashes)) = (swarm.parse(), decode_hashes(&hashes)) {
                earlies.with(id, |early| early.transfer.announce(first, &hashes));
            }
        }
        Some(Word::End { swarm, stored }) => {
            if let Ok(id) = swarm.parse::<PayloadId>() {
                earlies.end(id, stored);
            }
        }
        None => tracing::debug!("an announcement has none of its forms; it is dropped"),
    }
}

/// Takes part in a swarm that was announced, if there is room for it.
async fn begin_early(shared: &Arc<Shared>, begin: &Begin, broker: IpAddr) {
    let Some(swarm) = begin.swarm() else {
        tracing::debug!("an announcement names no payload that could be; it is dropped");
        return;
    };
    if shared.earlies.running.lock().len() >= EARLY_MAX || begin.peers.len() > PEER_COUNT_MAX {
        return;
    }
    let (store, geometry) = (shared.store.clone(), swarm.geometry);
    let reserve = move || store.begin_early(ScopeId::NODE, geometry);
    let file = match spawn_blocking(reserve).await {
        Ok(Ok(file)) => file,
        Ok(Err(error)) => {
            tracing::info!(%error, "a payload is not fetched before its manifest");
            return;
        }
        Err(_) => return,
    };
    let peers = peer_addresses(&begin.peers, Some(broker));
    match shared.swarm.fetch_early(&swarm, &peers, file.clone()) {
        Ok(transfer) => {
            tracing::info!(
                swarm = %format_args!("{:.10}", swarm.id),
                size_bytes = geometry.size_bytes(),
                "takes part while it is being published"
            );
            let early = Early {
                file,
                transfer,
                heard: Instant::now(),
            };
            let earlier = shared.earlies.running.lock().insert(swarm.id, early);
            drop(earlier);
        }
        Err(error) => tracing::debug!(%error, "a payload is not fetched before its manifest"),
    }
}

/// Makes what was fetched early the manifest's, if some of it is.
// req: EARLY-6
pub(super) async fn take_over(shared: &Arc<Shared>, manifest: &Manifest) -> Option<TakenOver> {
    let early = shared.earlies.take(manifest)?;
    early.transfer.settle().await;
    let (file, wanted) = (early.file.clone(), manifest.clone());
    let taken = spawn_blocking(move || file.take_over(&wanted)).await;
    let partial = match taken {
        Ok(Ok(Some(partial))) => partial,
        Ok(Ok(None)) => return None,
        Ok(Err(error)) => {
            tracing::warn!(%error, "what was fetched before the manifest is of no use");
            return None;
        }
        Err(_) => return None,
    };
    let known = manifest.peers().iter().cloned();
    let met = early.transfer.peer_addresses();
    let met = met.iter().map(SocketAddr::to_string);
    let mut peers: Vec<String> = known.collect();
    for peer in met {
        if !peers.contains(&peer) && peers.len() < PEER_COUNT_MAX {
            peers.push(peer);
        }
    }
    let manifest = manifest.with_peers(peers).ok()?;
    tracing::info!(
        payload = %format_args!("{:.10}", manifest.id()),
        pieces = partial.held().held_count(),
        piece_count = manifest.geometry().piece_count(),
        "taken over from before the manifest"
    );
    Some(TakenOver {
        _partial: partial,
        manifest,
        early,
    })
}

impl Earlies {
    /// Does something with one of them, which has been heard of.
    fn with(&self, id: PayloadId, work: impl FnOnce(&Early)) {
        let mut running = self.running.lock();
        if let Some(early) = running.get_mut(&id) {
            early.heard = Instant::now();
            work(early);
        }
    }

    /// It is over: without a payload nothing of it stays.
    // req: EARLY-7
    fn end(&self, id: PayloadId, is_stored: bool) {
        if is_stored {
            self.with(id, |_| {});
        } else {
            let ended = self.running.lock().remove(&id);
            drop(ended);
        }
    }

    /// Lets go of those that nothing was heard of for long.
    // req: EARLY-7
    fn forget_quiet(&self, now: Instant) {
        let is_quiet = |early: &Early| now.saturating_duration_since(early.heard) >= QUIET_MAX;
        let quiet: Vec<Early> = {
            let mut running = self.running.lock();
            running
                .extract_if(|_, early| is_quiet(early))
                .map(|(_, early)| early)
                .collect()
        };
        if !quiet.is_empty() {
            tracing::info!(count = quiet.len(), "forgotten: no manifest came of it");
        }
    }

    /// The node stops.
    pub(super) fn forget_all(&self) {
        let all = std::mem::take(&mut *self.running.lock());
        drop(all);
    }

    /// The one that a manifest agrees with.
    fn take(&self, manifest: &Manifest) -> Option<Early> {
        let mut running = self.running.lock();
        let agreeing = running
            .iter()
            .find(|(_, early)| early.file.agrees(manifest));
        let id = *agreeing?.0;
        running.remove(&id)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::disk::OsDisk;
    use crate::payload::{AccessKey, Geometry, Store, StoreSettings};
    use crate::server::peer::{EarlySwarm, Swarm, SwarmSettings};

    /// A queue that cannot be had is tried again, as long as the connection lasts.
    #[tokio::test]
    async fn refused_queue_is_tried_again() {
        let tries = Cell::new(0);
        let listen = async || {
            tries.set(tries.get() + 1);
            match tries.get() {
                1 | 2 => Err(ClientError::ChannelClosed {
                    code: 405,
                    text: "another connection has it".to_owned(),
                }),
                _ => Err(ClientError::Ended),
            }
        };
        let ended = while_refused(Duration::ZERO, listen).await;
        assert!(matches!(ended, Err(ClientError::Ended)));
        assert_eq!(tries.get(), 3);
    }

    /// What nothing was heard of for long goes while there is no connection, with what it reserved.
    // req: EARLY-7
    #[tokio::test]
    async fn quiet_announcements_go_without_a_connection() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = StoreSettings {
            free_bytes_min: 0,
            ..StoreSettings::default()
        };
        let store = Store::open(Arc::new(OsDisk), folder.path(), settings).expect("opens");
        let swarm = Swarm::start(SwarmSettings::default(), store.clone()).await;
        let swarm = swarm.expect("starts");
        let now = Instant::now();
        let long_ago = now.checked_sub(QUIET_MAX).expect("it ran for a minute");
        let earlies = Earlies::default();
        for (number, heard) in [(1, long_ago), (2, now)] {
            let early = EarlySwarm {
                id: PayloadId::from_bytes([number; 32]),
                key: AccessKey::from_bytes([number; 32]),
                geometry: Geometry::for_payload(1 << 20).expect("valid"),
            };
            let file = store.begin_early(ScopeId::NODE, early.geometry);
            let file = file.expect("room");
            let transfer = swarm.fetch_early(&early, &[], file.clone());
            let early_of = |transfer| Early {
                file,
                transfer,
                heard,
            };
            let one = early_of(transfer.expect("new"));
            earlies.running.lock().insert(early.id, one);
        }
        let stop = CancellationToken::new();
        let gone = async {
            while store.usage().reserved_bytes > 1 << 20 {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = look_after(&earlies, &stop) => panic!("the node has not stopped"),
            gone = tokio::time::timeout(Duration::from_secs(30), gone) => gone.expect("it goes"),
        }
        let left: Vec<PayloadId> = earlies.running.lock().keys().copied().collect();
        assert_eq!(left, [PayloadId::from_bytes([2; 32])], "the other is fresh");
        earlies.forget_all();
        swarm.shutdown().await;
    }
}
