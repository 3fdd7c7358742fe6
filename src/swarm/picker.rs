//! Which piece next: rarest first or in order for a receiver, each once for the origin.
//!
//! Owns: the choice, as a function of what is known; and what the origin has given to whom.
//! Bound: one look costs at most one step for each piece of the payload (65,536).
//! Spec: `spec/peer-protocol.md` section 5, SWARM-1 to SWARM-3.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::payload::{Bitfield, Geometry, PieceIndex};
use crate::swarm::availability::Availability;
use crate::swarm::limits::{GIVE_STALL, SEND_STUCK_AFTER};
use crate::swarm::proof::mix;
use crate::swarm::requests::ConnId;

/// In which order a receiver asks for pieces.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Order {
    /// The piece that the fewest peers hold.
    #[default]
    RarestFirst,
    /// The first missing piece, for a consumer that streams.
    InOrder,
}

/// The piece to ask a peer for: one of `wanted` that `held` has. `salt` breaks ties, for each node in
/// its own way, so that nodes that see the same do not all ask for the same.
pub fn pick(
    order: Order,
    geometry: &Geometry,
    wanted: &Bitfield,
    held: &Bitfield,
    availability: &Availability,
    salt: u64,
) -> Option<PieceIndex> {
    // req: SWARM-3
    let mut useful = wanted.held_by_both(held, geometry);
    match order {
        Order::InOrder => useful.next(),
        Order::RarestFirst => useful.min_by_key(|piece| {
            let tie = mix(salt ^ u64::from(piece.get()));
            (availability.holders(*piece), tie)
        }),
    }
}

/// NotGiven ──offer──> Given ──seen held by any peer──> Out; a taker that leaves or stalls leads back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Giving {
    NotGiven,
    Given,
    Out,
}

/// A piece on its way from the origin to the one peer it was given to.
#[derive(Clone, Copy, Debug)]
struct Gift {
    to: ConnId,
    since: Instant,
    unsent_bytes: u32,
}

/// What an origin has given out. Each piece goes to one peer before any goes to two.
#[derive(Debug)]
pub(crate) struct Giver {
    pieces: Vec<Giving>,
    not_given_count: usize,
    /// Every piece before this one has been given at least once.
    first_not_given: usize,
    gifts: BTreeMap<PieceIndex, Gift>,
    /// Who took a piece that nobody else was seen with yet.
    takers: BTreeMap<PieceIndex, ConnId>,
}

impl Giver {
    pub(crate) fn new(geometry: &Geometry) -> Self {
        let count = geometry.piece_count() as usize;
        Self {
            pieces: vec![Giving::NotGiven; count],
            not_given_count: count,
            first_not_given: 0,
            gifts: BTreeMap::new(),
            takers: BTreeMap::new(),
        }
    }

    /// Whether every piece was given and sent, but for those that got stuck.
    pub(crate) fn is_done(&self, now: Instant) -> bool {
        self.not_given_count == 0 && self.unsent_bytes(None, now) == 0
    }

    /// Whether there is a piece left that nobody was given.
    pub(crate) fn has_ungiven(&self) -> bool {
        self.not_given_count > 0
    }

    /// Bytes offered, not yet handed to a socket, and not stuck; all together and to `conn`.
    pub(crate) fn unsent_bytes(&self, conn: Option<ConnId>, now: Instant) -> u64 {
        self.gifts
            .values()
            .filter(|gift| conn.is_none_or(|conn| gift.to == conn))
            .filter(|gift| {
                conn.is_some() || now.saturating_duration_since(gift.since) < SEND_STUCK_AFTER
            })
            .map(|gift| u64::from(gift.unsent_bytes))
            .sum()
    }

    /// Pieces that `conn` took and that no other peer was seen with yet.
    pub(crate) fn unrelayed_count(&self, conn: ConnId) -> usize {
        self.takers.values().filter(|taker| **taker == conn).count()
    }

    /// The next piece for `conn`, which holds `held`; it is given by this call.
    pub(crate) fn give(
        &mut self,
        geometry: &Geometry,
        ours: &Bitfield,
        conn: ConnId,
        held: &Bitfield,
        now: Instant,
    ) -> Option<PieceIndex> {
        // req: SWARM-1
        let first = u32::try_from(self.first_not_given).ok()?;
        let piece = (first..geometry.piece_count())
            .filter_map(|index| geometry.piece_index(index))
            .find(|piece| {
                self.pieces.get(piece.as_usize()) == Some(&Giving::NotGiven)
                    && ours.has(*piece)
                    && !held.has(*piece)
            })?;
        let gift = Gift {
            to: conn,
            since: now,
            unsent_bytes: geometry.piece_len_bytes(piece),
        };
        self.set(piece, Giving::Given);
        self.gifts.insert(piece, gift);
        self.takers.insert(piece, conn);
        while self
            .pieces
            .get(self.first_not_given)
            .is_some_and(|state| *state != Giving::NotGiven)
        {
            self.first_not_given += 1;
        }
        Some(piece)
    }

    /// `bytes` of `piece` went to the socket of the peer it was given to.
    pub(crate) fn sent(&mut self, conn: ConnId, piece: PieceIndex, bytes: u32, now: Instant) {
        if let Some(gift) = self.gifts.get_mut(&piece).filter(|gift| gift.to == conn) {
            // A piece that moves slowly has not stalled.
            gift.since = now;
            gift.unsent_bytes = gift.unsent_bytes.saturating_sub(bytes);
        }
    }

    /// `conn` holds `piece`.
    pub(crate) fn seen(&mut self, conn: ConnId, piece: PieceIndex) {
        if self.takers.get(&piece).is_some_and(|taker| *taker != conn) {
            self.takers.remove(&piece);
        }
        self.gifts.remove(&piece);
        self.set(piece, Giving::Out);
    }

    /// `conn` left; what was on its way to it, and what only it was seen with, is to be given again.
    ///
    /// `still_held` says whether some other peer holds a piece.
    pub(crate) fn lost(&mut self, conn: ConnId, still_held: impl Fn(PieceIndex) -> bool) {
        let taken: Vec<PieceIndex> = self
            .takers
            .iter()
            .filter(|(_, taker)| **taker == conn)
            .map(|(piece, _)| *piece)
            .collect();
        for piece in taken {
            self.takers.remove(&piece);
            self.gifts.remove(&piece);
            if still_held(piece) {
                self.set(piece, Giving::Out);
            } else {
                self.take_back(piece);
            }
        }
    }

    /// Gifts that did not arrive in time are to be given again.
    pub(crate) fn expire(&mut self, now: Instant) {
        let stalled: Vec<PieceIndex> = self
            .gifts
            .iter()
            .filter(|(_, gift)| now.saturating_duration_since(gift.since) >= GIVE_STALL)
            .map(|(piece, _)| *piece)
            .collect();
        for piece in stalled {
            self.gifts.remove(&piece);
            self.takers.remove(&piece);
            self.take_back(piece);
        }
    }

    fn take_back(&mut self, piece: PieceIndex) {
        self.set(piece, Giving::NotGiven);
        self.first_not_given = self.first_not_given.min(piece.as_usize());
    }

    fn set(&mut self, piece: PieceIndex, to: Giving) {
        if let Some(state) = self.pieces.get_mut(piece.as_usize()) {
            let was = usize::from(*state == Giving::NotGiven);
            let is = usize::from(to == Giving::NotGiven);
            self.not_given_count = self.not_given_count + is - was;
            *state = to;
        }
    }
}

#[cfg(test)]
mod tests;
