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

use super::edge::Shared;
use super::message::{CONTROL_BYTES_MAX, ControlMessage, decode, peer_addresses};
use crate::amqp::field::ShortString;
use crate::client::{Channel, ClientError, ConsumeSettings, Delivery, QueueSettings};
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

/// Hears announcements on one connection until it ends; for ever silent where the queue cannot be had.
pub(super) async fn run(
    shared: &Arc<Shared>,
    channel: Channel,
    broker: IpAddr,
) -> Result<(), ClientError> {
    let heard = listen(shared, channel, broker).await;
    if let Err(ClientError::ChannelClosed { text, .. }) = &heard {
        tracing::debug!(
            text,
            "no announcements of payloads that are being published"
        );
        std::future::pending::<()>().await;
    }
    heard
}

// req: EARLY-4
async fn listen(shared: &Arc<Shared>, channel: Channel, broker: IpAddr) -> Result<(), ClientError> {
    let Some(queue) = early_queue(shared.settings.name.queue().as_bytes()) else {
        return std::future::pending().await;
    };
    let own = QueueSettings {
        exclusive: true,
        auto_delete: true,
        ..QueueSettings::default()
    };
    channel.declare_queue(&queue, &own).await?;
    let mut consumer = channel.consume(&queue, &ConsumeSettings::default()).await?;
    let mut looks = interval(LOOK_INTERVAL);
    loop {
        tokio::select! {
            _ = looks.tick() => shared.earlies.forget_quiet(Instant::now()),
            delivery = consumer.next() => {
                let delivery = delivery?;
                let tag = delivery.delivery_tag;
                handle(shared, delivery, broker).await;
                consumer.channel().ack(tag).await?;
            }
        }
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
                "fetching what is being published"
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
