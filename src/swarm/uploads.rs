//! What others have asked of this node: which request goes out next.
//!
//! Owns: the waiting requests of all peers, and the bytes on their way into sockets.
//! Bound: each peer's waiting requests are at most what our `Hello` allowed.
//! Spec: `spec/peer-protocol.md` PEER-11 to PEER-13, SWARM-6, SWARM-8.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::payload::{BlockRange, PieceIndex};
use crate::swarm::flow::Flow;
use crate::swarm::limits::{SEND_STUCK_AFTER, Settings};
use crate::swarm::rate::Rate;
use crate::swarm::requests::{ConnId, TransferId};

/// A request that waited this long goes before rarer pieces.
const PATIENCE: Duration = Duration::from_secs(1);
/// Sockets hold what the uplink moves in this time.
const UPLINK_TIME: Duration = Duration::from_millis(30);
/// And at least this many bytes, so that no socket runs dry between two reports.
const UPLINK_BYTES_MIN: u64 = 64 * 1024;

/// The waiting requests of one peer for one payload.
#[derive(Debug)]
struct Queue {
    requests: VecDeque<(BlockRange, Instant)>,
    served: Instant,
}

/// A block handed to a socket.
#[derive(Clone, Copy, Debug)]
struct Sending {
    bytes: u64,
    since: Instant,
}

/// A block that goes out next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Upload {
    pub(crate) transfer: TransferId,
    pub(crate) conn: ConnId,
    pub(crate) block: BlockRange,
}

/// What decides between two requests that both can be served now.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Rank {
    /// Not of another zone: who asks from there asks for all of its zone, and goes first.
    pub(crate) is_near: bool,
    /// Pieces that the asking peer holds: who has least goes first, so that all finish together.
    pub(crate) held: u32,
    /// Holders of the piece asked for: the rarest goes first.
    pub(crate) holders: u16,
}

/// All waiting requests of the node.
#[derive(Debug)]
pub(crate) struct Uploads {
    queues: BTreeMap<(TransferId, ConnId), Queue>,
    sending: BTreeMap<ConnId, VecDeque<Sending>>,
    /// Limits, and whose turn it is.
    pub(crate) flow: Flow,
    last: Option<(TransferId, ConnId, PieceIndex)>,
    /// How fast sockets take blocks; `None` before the first.
    rate: Option<Rate>,
    /// When a limit has credit again, if requests wait for nothing else.
    credit_at: Option<Instant>,
    /// When requests were last looked at.
    looked: Option<Instant>,
}

impl Uploads {
    /// Nothing asked; what goes out is bounded by `flow`.
    pub(crate) fn new(flow: Flow) -> Self {
        Self {
            queues: BTreeMap::new(),
            sending: BTreeMap::new(),
            flow,
            last: None,
            rate: None,
            credit_at: None,
            looked: None,
        }
    }

    /// A payload will not be served any more.
    pub(crate) fn remove_transfer(&mut self, transfer: TransferId) {
        self.flow.remove(transfer);
        self.queues.retain(|(of, _), _| *of != transfer);
    }

    /// A peer asks for `block`.
    pub(crate) fn ask(
        &mut self,
        transfer: TransferId,
        conn: ConnId,
        block: BlockRange,
        now: Instant,
    ) {
        let queue = self
            .queues
            .entry((transfer, conn))
            .or_insert_with(|| Queue {
                requests: VecDeque::new(),
                served: now,
            });
        queue.requests.push_back((block, now));
    }

    /// Requests of the peer that wait, for one payload.
    pub(crate) fn waiting_count(&self, transfer: TransferId, conn: ConnId) -> usize {
        self.queues
            .get(&(transfer, conn))
            .map_or(0, |queue| queue.requests.len())
    }

    /// Takes a waiting request back; whether it was still waiting.
    pub(crate) fn cancel(&mut self, transfer: TransferId, conn: ConnId, block: BlockRange) -> bool {
        let Some(queue) = self.queues.get_mut(&(transfer, conn)) else {
            return false;
        };
        let before = queue.requests.len();
        queue.requests.retain(|(waiting, _)| *waiting != block);
        before != queue.requests.len()
    }

    /// Takes all waiting requests of a peer for a payload.
    pub(crate) fn drain(&mut self, transfer: TransferId, conn: ConnId) -> Vec<BlockRange> {
        self.queues
            .remove(&(transfer, conn))
            .map(|queue| queue.requests.into_iter().map(|(block, _)| block).collect())
            .unwrap_or_default()
    }

    /// The connection is gone with all it asked for.
    pub(crate) fn remove_conn(&mut self, conn: ConnId) {
        self.queues.retain(|(_, of), _| *of != conn);
        self.sending.remove(&conn);
    }

    /// The oldest block handed to the socket of `conn` has left.
    pub(crate) fn sent(&mut self, conn: ConnId, now: Instant) {
        if let Some(sending) = self.sending.get_mut(&conn) {
            if let Some(block) = sending.pop_front() {
                let rate = self.rate.get_or_insert_with(|| Rate::new(now));
                rate.add(block.bytes, now);
            }
            if sending.is_empty() {
                self.sending.remove(&conn);
            }
        }
    }

    /// Bytes in sockets that count for the uplink: those not stuck behind a peer that does not read.
    fn moving_bytes(&self, now: Instant) -> u64 {
        self.sending
            .values()
            .flatten()
            .filter(|sending| now.saturating_duration_since(sending.since) < SEND_STUCK_AFTER)
            .map(|sending| sending.bytes)
            .sum()
    }

    /// Bytes that sockets may hold: what the uplink moves in a short time, so that the rest can still be
    /// chosen anew or cancelled.
    fn uplink_bytes(&self, settings: &Settings, now: Instant) -> u64 {
        let rate = self.rate.map_or(0, |rate| rate.bytes_per_second(now));
        let ahead = rate as f64 * UPLINK_TIME.as_secs_f64();
        let least = settings.uplink_bytes_max.min(UPLINK_BYTES_MIN);
        (ahead as u64).clamp(least, settings.uplink_bytes_max)
    }

    /// When requests that wait should be looked at again: stuck bytes make room, or a limit has credit.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        if self.queues.values().all(|queue| queue.requests.is_empty()) {
            return None;
        }
        let stuck = self
            .sending
            .values()
            .flatten()
            .map(|sending| sending.since + SEND_STUCK_AFTER)
            // What was stuck when requests were last looked at makes no room by getting older.
            .filter(|at| self.looked.is_none_or(|looked| *at > looked))
            .min();
        // Whatever else makes room is an event of its own.
        stuck.into_iter().chain(self.credit_at).min()
    }

    /// The block to hand to a socket now, if the uplink has room. `rank` is less for what should go first.
    pub(crate) fn next(
        &mut self,
        settings: &Settings,
        now: Instant,
        rank: impl Fn(TransferId, ConnId, PieceIndex) -> Rank,
    ) -> Option<Upload> {
        // req: SWARM-6
        self.credit_at = None;
        self.looked = Some(now);
        if self.queues.is_empty() || self.moving_bytes(now) >= self.uplink_bytes(settings, now) {
            return None;
        }
        let open = |conn: ConnId| {
            let bytes: u64 = self
                .sending
                .get(&conn)
                .map_or(0, |sending| sending.iter().map(|block| block.bytes).sum());
            bytes < settings.uplink_bytes_per_peer_max
        };
        let ready = || {
            self.queues
                .iter()
                .filter(|((_, conn), queue)| !queue.requests.is_empty() && open(*conn))
        };
        let mut asked: Vec<TransferId> = ready().map(|((transfer, _), _)| *transfer).collect();
        asked.dedup();
        // req: SWARM-8
        // req: SWARM-31
        asked.sort_by_key(|transfer| (self.flow.turn(*transfer), *transfer));
        let flow = &mut self.flow;
        let transfer = asked
            .iter()
            .copied()
            .find(|transfer| flow.has_credit(*transfer, now));
        let Some(transfer) = transfer else {
            self.credit_at = self.flow.ready_at(asked.into_iter());
            return None;
        };
        let (_, key) = ready()
            .filter(|((of, _), _)| *of == transfer)
            .filter_map(|(key, queue)| {
                let (block, since) = queue.requests.front()?;
                let begun = self.last == Some((key.0, key.1, block.piece()));
                let urgent = now.saturating_duration_since(*since) >= PATIENCE;
                let rank = rank(transfer, key.1, block.piece());
                Some(((!begun, !urgent, rank, queue.served), *key))
            })
            .min()?;
        let queue = self.queues.get_mut(&key)?;
        let (block, _) = queue.requests.pop_front()?;
        queue.served = now;
        self.last = Some((key.0, key.1, block.piece()));
        let bytes = u64::from(block.len_bytes());
        self.flow.charge(transfer, bytes, now);
        let sending = Sending { bytes, since: now };
        self.sending.entry(key.1).or_default().push_back(sending);
        Some(Upload {
            transfer,
            conn: key.1,
            block,
        })
    }
}

#[cfg(test)]
mod tests;
