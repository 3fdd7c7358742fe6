//! What status pages and the command line show of a swarm.

use std::net::SocketAddr;
use std::time::Instant;

use super::Engine;
use crate::payload::{Bitfield, PayloadId, Priority};
use crate::swarm::flow::Limits;
use crate::swarm::peer::PeerCounts;
use crate::swarm::requests::TransferId;
use crate::swarm::transfer::{TransferCounts, TransferState};
use crate::swarm::wire::NodeId;

/// One payload's figures.
#[derive(Clone, Debug)]
pub struct TransferStats {
    /// Which transfer.
    pub transfer: TransferId,
    /// Which payload.
    pub payload: PayloadId,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Bytes of each piece but the last.
    pub piece_bytes: u32,
    /// Whether this node gave the payload to the swarm.
    pub is_origin: bool,
    /// What it is in now.
    pub state: TransferState,
    /// Pieces held.
    pub pieces_held: u32,
    /// Pieces of the payload.
    pub piece_count: u32,
    /// The pieces held, for a piece map.
    pub have: Bitfield,
    /// Bytes since the transfer began.
    pub counts: TransferCounts,
    /// Bytes received per second lately.
    pub down_bytes_per_second: u64,
    /// Bytes sent per second lately.
    pub up_bytes_per_second: u64,
    /// Its own limits.
    pub limits: Limits,
    /// Its share where payloads compete.
    pub priority: Priority,
    /// The peers that take part now.
    pub peers: Vec<PeerStats>,
    /// What connections that are gone did, by node; some of these nodes may be among the peers again.
    pub past: Vec<(NodeId, PeerCounts)>,
}

/// One peer's figures in one swarm.
#[derive(Clone, Debug)]
pub struct PeerStats {
    /// Who.
    pub node: NodeId,
    /// Where it can be dialled, if it can.
    pub address: Option<SocketAddr>,
    /// Pieces it says it holds.
    pub pieces_held: u32,
    /// Requests that it has not answered yet.
    pub requests: usize,
    /// Bytes that it may be asked for at a time, as measured.
    pub window_bytes: u64,
    /// What it did.
    pub counts: PeerCounts,
}

impl Engine {
    /// Figures of every transfer.
    pub fn stats(&self, now: Instant) -> Vec<TransferStats> {
        let ids = self.transfers.keys();
        ids.filter_map(|id| self.transfer_stats(*id, now)).collect()
    }

    /// Figures of one transfer.
    pub fn transfer_stats(&self, id: TransferId, now: Instant) -> Option<TransferStats> {
        let transfer = self.transfers.get(&id)?;
        let peers = transfer.members.values().map(|member| PeerStats {
            node: member.node,
            address: member.address,
            pieces_held: member.have.as_ref().map_or(0, Bitfield::held_count),
            requests: member.pacing.outstanding_count(),
            window_bytes: member.pacing.target_bytes(),
            counts: member.counts,
        });
        Some(TransferStats {
            transfer: id,
            payload: transfer.payload,
            size_bytes: transfer.geometry.size_bytes(),
            piece_bytes: transfer.geometry.piece_bytes().get(),
            is_origin: transfer.is_origin,
            state: transfer.state,
            pieces_held: transfer.have.held_count(),
            piece_count: transfer.geometry.piece_count(),
            have: transfer.have.clone(),
            counts: transfer.counts,
            down_bytes_per_second: transfer.down_rate.bytes_per_second(now),
            up_bytes_per_second: transfer.up_rate.bytes_per_second(now),
            limits: self.transfer_limits(id),
            priority: self.shared.uploads.flow.priority(id),
            peers: peers.collect(),
            past: transfer
                .past
                .iter()
                .map(|(node, counts)| (*node, *counts))
                .collect(),
        })
    }

    /// Nodes banned now.
    pub fn banned(&self, now: Instant) -> Vec<NodeId> {
        self.blame.banned(now).collect()
    }

    /// Open connections.
    pub fn connection_count(&self) -> usize {
        self.peers.len()
    }
}
