//! Takes part in swarms of payloads that are still being published.
//!
//! Spec: `spec/early.md`.

use std::net::SocketAddr;
use std::time::Duration;

use super::core;
use super::transfer::{Source, SwarmTransfer};
use super::{Part, SwarmError, SwarmHandle};
use crate::payload::store::{EarlyPayload, UploadReader};
use crate::payload::{AccessKey, Bitfield, Geometry, PayloadId, PieceHash, PieceIndex, Priority};
use crate::swarm::{Order, Want};

/// Longest wait for what is under way when no more is wanted.
const SETTLE_WAIT: Duration = Duration::from_secs(1);
/// How often that is looked at.
const SETTLE_INTERVAL: Duration = Duration::from_millis(5);

/// A swarm before there is a manifest.
#[derive(Clone, Debug)]
pub struct EarlySwarm {
    /// A random name in the place of the payload's id.
    pub id: PayloadId,
    /// What peers must prove to know.
    pub key: AccessKey,
    /// Size and pieces of the payload.
    pub geometry: Geometry,
}

impl EarlySwarm {
    fn want(&self, peers: Vec<SocketAddr>, origin: bool) -> Want {
        Want {
            payload: self.id,
            geometry: self.geometry,
            key: self.key.clone(),
            have: Bitfield::empty(&self.geometry),
            peers,
            origin,
            order: Order::RarestFirst,
            limits: crate::swarm::Limits::default(),
            priority: Priority::default(),
        }
    }
}

impl SwarmHandle {
    /// Gives a payload out while it is being written; [`SwarmTransfer::gain`] says how far it is.
    ///
    /// # Errors
    /// If the swarm was shut down.
    pub fn give_early(
        &self,
        swarm: &EarlySwarm,
        reader: UploadReader,
    ) -> Result<SwarmTransfer, SwarmError> {
        let want = swarm.want(Vec::new(), true);
        self.begin(want, Source::Growing(reader), Part::Early)
    }

    /// Fetches a payload of which no piece is known yet; [`SwarmTransfer::announce`] makes them known. `peers` are
    /// addresses, `host:port`; names are not looked up.
    ///
    /// # Errors
    /// If the swarm was shut down, or it is fetched already.
    pub fn fetch_early(
        &self,
        swarm: &EarlySwarm,
        peers: &[String],
        file: EarlyPayload,
    ) -> Result<SwarmTransfer, SwarmError> {
        let peers = peers.iter().filter_map(|peer| peer.parse().ok());
        let want = swarm.want(peers.collect(), false);
        self.begin(want, Source::Early(file), Part::Early)
    }
}

impl SwarmTransfer {
    /// An origin's pieces that are written now and can be given.
    pub fn gain(&self, pieces: &[PieceIndex]) {
        core::with(&self.shared, |core, now| {
            core.engine.gain(self.id, pieces, now);
        });
        self.io.gained(pieces.len());
    }

    /// Hashes of pieces that became known, from number `first` on: they are asked for from now on.
    pub fn announce(&self, first: u32, hashes: &[PieceHash]) {
        // req: EARLY-5
        let known = self.io.announce(first, hashes);
        core::with(&self.shared, |core, now| {
            core.engine.reveal(self.id, &known, now);
        });
    }

    /// Asks for no more, and waits a moment for what was asked.
    pub async fn settle(&self) {
        // req: EARLY-6
        core::with(&self.shared, |core, _| core.engine.want_no_more(self.id));
        let settled = async {
            while self.shared.core.lock().engine.under_way_count(self.id) > 0 {
                tokio::time::sleep(SETTLE_INTERVAL).await;
            }
        };
        // What does not come is fetched in the payload's own swarm.
        let _ = tokio::time::timeout(SETTLE_WAIT, settled).await;
        core::with(&self.shared, |core, _| core.engine.abandon(self.id));
    }

    /// Where its peers can be dialled.
    #[must_use]
    pub fn peer_addresses(&self) -> Vec<SocketAddr> {
        self.shared.core.lock().engine.peer_addresses(self.id)
    }
}
