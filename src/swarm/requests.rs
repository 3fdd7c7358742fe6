//! What this node has asked for: pacing for each peer, attempts for each piece.
//!
//! Owns: how many bytes may be unanswered, how old they are, and from whom the blocks of a piece came.
//! Every attempt at a piece has one source, so a piece that does not verify has one culprit.
//! Spec: `spec/peer-protocol.md` PEER-11, PEER-12, SWARM-4, SWARM-5, SWARM-13.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::payload::geometry::BLOCK_BYTES_MAX;
use crate::payload::{BlockRange, Geometry, PieceIndex};
use crate::swarm::limits::{QUEUE_TIME, SLOW_BYTES_PER_SECOND, SLOW_WINDOW, STALL_AFTER};
use crate::swarm::wire::{NodeId, RawBlock};

/// A connection, numbered by the driver; never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnId(pub u64);

impl std::fmt::Display for ConnId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A payload that this engine fetches or serves; never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TransferId(pub(crate) u32);

/// The wire form of a checked block.
pub(crate) fn raw(block: BlockRange) -> RawBlock {
    RawBlock {
        piece: block.piece().get(),
        offset_bytes: block.offset_bytes(),
        len_bytes: block.len_bytes(),
    }
}

/// The block that a message names, if the payload has it.
pub(crate) fn checked(geometry: &Geometry, block: RawBlock) -> Option<BlockRange> {
    let piece = geometry.piece_index(block.piece)?;
    geometry.block_range(piece, block.offset_bytes, block.len_bytes)
}

/// The numbers of the pieces that a block which was asked for is, or is of.
fn piece_numbers(geometry: &Geometry, block: RawBlock) -> std::ops::Range<u32> {
    let end = block.offset_bytes + block.len_bytes;
    block.piece..block.piece + end.div_ceil(geometry.piece_bytes().get())
}

/// A request without answer yet.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    cancelled: bool,
}

/// How an answer matched what was asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Match {
    /// It was asked for and is still wanted.
    Wanted,
    /// It was asked for and taken back.
    Cancelled,
    /// It was never asked for: a violation.
    Unasked,
}

/// Requests to one peer for one payload, and how many bytes more it should be asked for.
#[derive(Debug)]
pub(crate) struct Pacing {
    asked: BTreeMap<RawBlock, Asked>,
    outstanding_bytes: u64,
    /// Bytes that should be unanswered at a time.
    target_bytes: u64,
    least_trip: Option<Duration>,
    last_trip: Option<Duration>,
    progress: Instant,
    window_began: Instant,
    window_bytes: u64,
    slow: bool,
}

impl Pacing {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            asked: BTreeMap::new(),
            outstanding_bytes: 0,
            target_bytes: 1,
            least_trip: None,
            last_trip: None,
            progress: now,
            window_began: now,
            window_bytes: 0,
            slow: false,
        }
    }

    /// Whether another block may be asked for; `allowed` is what the peer's `Hello` takes.
    pub(crate) fn has_room(&self, allowed: u16) -> bool {
        // req: PEER-11
        let count = self.asked.len();
        count < usize::from(allowed)
            && (count == 0 || (!self.slow && self.outstanding_bytes < self.target_bytes))
    }

    pub(crate) fn outstanding_count(&self) -> usize {
        self.asked.len()
    }

    pub(crate) fn outstanding_bytes(&self) -> u64 {
        self.outstanding_bytes
    }

    /// How long the last answer took; nothing before the first.
    pub(crate) fn last_trip(&self) -> Duration {
        self.last_trip.unwrap_or_default()
    }

    /// Whether the last answer came late: the peer has others to serve.
    pub(crate) fn has_waited(&self) -> bool {
        match (self.last_trip, self.least_trip) {
            (Some(last), Some(least)) => last.saturating_sub(least) > QUEUE_TIME,
            _ => false,
        }
    }

    /// Whether the last answer came `rest` ago.
    pub(crate) fn has_rested(&self, rest: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.progress) >= rest
    }

    pub(crate) fn target_bytes(&self) -> u64 {
        self.target_bytes
    }

    /// A request for `block` goes out.
    pub(crate) fn ask(&mut self, block: BlockRange, now: Instant) {
        if self.asked.is_empty() {
            self.progress = now;
            self.window_began = now;
            self.window_bytes = 0;
        }
        let asked = Asked {
            at: now,
            cancelled: false,
        };
        if self.asked.insert(raw(block), asked).is_none() {
            self.outstanding_bytes += u64::from(block.len_bytes());
        }
    }

    /// Whether `block` waits for an answer, taken back or not.
    pub(crate) fn is_asked(&self, block: BlockRange) -> bool {
        self.asked.contains_key(&raw(block))
    }

    /// What was asked for of `piece`, taken back or not.
    pub(crate) fn asked_of(
        &self,
        geometry: &Geometry,
        piece: PieceIndex,
    ) -> impl Iterator<Item = RawBlock> + use<'_> {
        let (geometry, number) = (*geometry, piece.get());
        let reach = geometry.pieces_per_block();
        let first = RawBlock {
            piece: (number + 1).saturating_sub(reach),
            offset_bytes: 0,
            len_bytes: 0,
        };
        let near = self.asked.range(first..).map(|(block, _)| *block);
        near.take_while(move |block| block.piece <= number)
            .filter(move |block| piece_numbers(&geometry, *block).contains(&number))
    }

    /// What was asked for of `piece` is taken back, but for a run with a piece that is still `attempted`; answers
    /// what, for `Cancel`.
    pub(crate) fn cancel(
        &mut self,
        geometry: &Geometry,
        piece: PieceIndex,
        attempted: &[PieceIndex],
    ) -> Vec<RawBlock> {
        let blocks: Vec<RawBlock> = self.asked_of(geometry, piece).collect();
        let blocks = blocks.into_iter().filter(|block| {
            let run = piece_numbers(geometry, *block);
            !attempted.iter().any(|piece| run.contains(&piece.get()))
        });
        blocks
            .filter(|block| {
                let asked = self.asked.get_mut(block);
                asked.is_some_and(|asked| !std::mem::replace(&mut asked.cancelled, true))
            })
            .collect()
    }

    /// Some bytes of a block came, though not all yet.
    pub(crate) fn progress(&mut self, bytes: u64, now: Instant) {
        self.progress = now;
        self.window_bytes += bytes;
    }

    /// A whole block came; `queue_time` is how long requests may wait at the peer.
    pub(crate) fn answered(
        &mut self,
        block: RawBlock,
        queue_time: Duration,
        now: Instant,
    ) -> Match {
        // req: PEER-12
        let Some(asked) = self.asked.remove(&block) else {
            return Match::Unasked;
        };
        self.outstanding_bytes -= u64::from(block.len_bytes);
        self.progress(u64::from(block.len_bytes), now);
        self.adapt(
            now.saturating_duration_since(asked.at),
            u64::from(block.len_bytes),
            queue_time,
        );
        if asked.cancelled {
            Match::Cancelled
        } else {
            Match::Wanted
        }
    }

    /// The peer will not send `block`.
    pub(crate) fn rejected(&mut self, block: RawBlock) -> Match {
        let Some(asked) = self.asked.remove(&block) else {
            return Match::Unasked;
        };
        self.outstanding_bytes -= u64::from(block.len_bytes);
        if asked.cancelled {
            Match::Cancelled
        } else {
            Match::Wanted
        }
    }

    /// Grows while the queue at the peer is short, shrinks when it is long.
    fn adapt(&mut self, trip: Duration, len_bytes: u64, queue_time: Duration) {
        // req: SWARM-5
        let least = self.least_trip.map_or(trip, |least| least.min(trip));
        self.least_trip = Some(least);
        self.last_trip = Some(trip);
        let queued = trip.saturating_sub(least);
        if queued <= queue_time {
            let most = u64::from(BLOCK_BYTES_MAX) * 64;
            self.target_bytes = (self.target_bytes + len_bytes).min(most);
            // What is not used is not kept: growth follows what was really unanswered.
            self.target_bytes = self
                .target_bytes
                .min(2 * (self.outstanding_bytes + 2 * len_bytes));
        } else if queued > 2 * queue_time {
            self.target_bytes = self.target_bytes.saturating_sub(len_bytes / 2).max(1);
        }
    }

    /// Whether nothing has come for too long although something was asked.
    pub(crate) fn has_stalled(&self, now: Instant) -> bool {
        // req: SWARM-13
        !self.asked.is_empty() && now.saturating_duration_since(self.progress) >= STALL_AFTER
    }

    /// After a stall: everything asked is taken back, and one block at a time is asked from here on.
    pub(crate) fn forgive(&mut self, now: Instant) {
        self.progress = now;
        self.slow = true;
    }

    /// Looks at the last half minute: a peer that trickles is slow until it does better.
    pub(crate) fn judge_speed(&mut self, now: Instant) {
        // req: SWARM-13
        if self.asked.is_empty() || now.saturating_duration_since(self.window_began) < SLOW_WINDOW {
            return;
        }
        self.slow = self.window_bytes < SLOW_BYTES_PER_SECOND * SLOW_WINDOW.as_secs();
        self.window_began = now;
        self.window_bytes = 0;
    }
}

/// Receiving ──last block──> Verifying ──verified or bad──> gone; abandoned: gone, the piece is wanted again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum AttemptState {
    Receiving,
    Verifying,
}

/// One piece asked of one peer.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) conn: ConnId,
    pub(crate) node: NodeId,
    pub(crate) since: Instant,
    /// It is to go to another peer that has nothing to do, if this one has not begun with it.
    pub(crate) moves_to: Option<ConnId>,
    blocks: Vec<Option<Bytes>>,
    next_block: usize,
    missing_count: usize,
    state: AttemptState,
}

impl Attempt {
    pub(crate) fn new(
        geometry: &Geometry,
        piece: PieceIndex,
        conn: ConnId,
        node: NodeId,
        now: Instant,
    ) -> Self {
        let count = geometry.blocks(piece).len();
        Self {
            conn,
            node,
            since: now,
            moves_to: None,
            blocks: vec![None; count],
            next_block: 0,
            missing_count: count,
            state: AttemptState::Receiving,
        }
    }

    /// The next block of the piece that was not asked for yet; asked for by this call.
    pub(crate) fn next_block(
        &mut self,
        geometry: &Geometry,
        piece: PieceIndex,
    ) -> Option<BlockRange> {
        let block = geometry.blocks(piece).nth(self.next_block)?;
        self.next_block += 1;
        Some(block)
    }

    pub(crate) fn has_unasked(&self) -> bool {
        self.next_block < self.blocks.len()
    }

    pub(crate) fn is_receiving(&self) -> bool {
        self.state == AttemptState::Receiving
    }

    /// Whether it is one block of which nothing has come, and that is not moving yet.
    pub(crate) fn may_move(&self) -> bool {
        self.blocks.len() == 1 && self.is_receiving() && self.moves_to.is_none()
    }

    /// Bytes received so far.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.blocks
            .iter()
            .flatten()
            .map(|bytes| bytes.len() as u64)
            .sum()
    }

    /// A block came; all blocks in order, once the last is there.
    pub(crate) fn receive(&mut self, block: BlockRange, bytes: Bytes) -> Option<Vec<Bytes>> {
        let number = (block.offset_bytes() / BLOCK_BYTES_MAX) as usize;
        let place = self.blocks.get_mut(number)?;
        if place.replace(bytes).is_none() {
            self.missing_count -= 1;
        }
        if self.missing_count > 0 {
            return None;
        }
        self.state = AttemptState::Verifying;
        Some(self.blocks.iter_mut().filter_map(Option::take).collect())
    }
}

#[cfg(test)]
mod tests;
