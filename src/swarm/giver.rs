//! What the origin has given to whom: each piece to one peer before any goes to two.
//!
//! Owns: the state of every piece, and sums that follow it, so that nothing is counted anew with each event.
//! Bound: an entry for each piece that is on its way or that nobody but its taker was seen with.
//! Spec: `spec/peer-protocol.md` section 5, SWARM-1, SWARM-2.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::payload::{Bitfield, Geometry, PieceIndex};
use crate::swarm::limits::{GIVE_STALL, SEND_STUCK_AFTER};
use crate::swarm::requests::ConnId;

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

/// What one peer has of this origin.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Load {
    /// Bytes offered to it and not yet handed to its socket.
    unsent_bytes: u64,
    /// Pieces that it took and that no other peer was seen with yet.
    unrelayed_count: usize,
}

/// What an origin has given out. Each piece goes to one peer before any goes to two.
#[derive(Debug)]
pub(crate) struct Giver {
    pieces: Vec<Giving>,
    not_given_count: usize,
    /// Every piece before this one has been given at least once.
    first_not_given: usize,
    gifts: BTreeMap<PieceIndex, Gift>,
    /// The gifts, by their `since`.
    ages: BTreeSet<(Instant, PieceIndex)>,
    /// Sum of the gifts' `unsent_bytes`.
    unsent_bytes: u64,
    /// Who took a piece that nobody else was seen with yet.
    takers: BTreeMap<PieceIndex, ConnId>,
    /// What gifts and takers come to, for each peer that has any.
    loads: BTreeMap<ConnId, Load>,
}

impl Giver {
    pub(crate) fn new(geometry: &Geometry) -> Self {
        let count = geometry.piece_count() as usize;
        Self {
            pieces: vec![Giving::NotGiven; count],
            not_given_count: count,
            first_not_given: 0,
            gifts: BTreeMap::new(),
            ages: BTreeSet::new(),
            unsent_bytes: 0,
            takers: BTreeMap::new(),
            loads: BTreeMap::new(),
        }
    }

    /// Whether every piece was given and sent, but for those that got stuck.
    pub(crate) fn is_done(&self, now: Instant) -> bool {
        self.not_given_count == 0 && self.moving_bytes(now) == 0
    }

    /// Whether there is a piece left that nobody was given.
    pub(crate) fn has_ungiven(&self) -> bool {
        self.not_given_count > 0
    }

    /// Bytes offered, not yet handed to a socket, and not stuck.
    pub(crate) fn moving_bytes(&self, now: Instant) -> u64 {
        let stuck = self
            .ages
            .iter()
            .take_while(|(since, _)| now.saturating_duration_since(*since) >= SEND_STUCK_AFTER)
            .filter_map(|(_, piece)| self.gifts.get(piece));
        let stuck_bytes: u64 = stuck.map(|gift| u64::from(gift.unsent_bytes)).sum();
        self.unsent_bytes - stuck_bytes
    }

    /// Bytes offered to `conn` and not yet handed to its socket.
    pub(crate) fn unsent_bytes(&self, conn: ConnId) -> u64 {
        self.loads.get(&conn).map_or(0, |load| load.unsent_bytes)
    }

    /// Pieces that `conn` took and that no other peer was seen with yet.
    pub(crate) fn unrelayed_count(&self, conn: ConnId) -> usize {
        self.loads.get(&conn).map_or(0, |load| load.unrelayed_count)
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
        self.set(piece, Giving::Given);
        self.put_gift(
            piece,
            Gift {
                to: conn,
                since: now,
                unsent_bytes: geometry.piece_len_bytes(piece),
            },
        );
        self.takers.insert(piece, conn);
        self.loads.entry(conn).or_default().unrelayed_count += 1;
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
        if self.gifts.get(&piece).is_none_or(|gift| gift.to != conn) {
            return;
        }
        if let Some(mut gift) = self.take_gift(piece) {
            // A piece that moves slowly has not stalled.
            gift.since = now;
            gift.unsent_bytes = gift.unsent_bytes.saturating_sub(bytes);
            self.put_gift(piece, gift);
        }
    }

    /// `conn` holds `piece`.
    pub(crate) fn seen(&mut self, conn: ConnId, piece: PieceIndex) {
        if self.takers.get(&piece).is_some_and(|taker| *taker != conn) {
            self.forget_taker(piece);
        }
        self.take_gift(piece);
        self.set(piece, Giving::Out);
    }

    /// `conn`, which held `held`, left: what was on its way to it, and what nobody is seen with any more, is to be given
    /// again.
    ///
    /// `still_held` says whether some other peer holds a piece.
    pub(crate) fn lost(
        &mut self,
        conn: ConnId,
        held: impl Iterator<Item = PieceIndex>,
        still_held: impl Fn(PieceIndex) -> bool,
    ) {
        let taken = self.takers.iter().filter(|(_, taker)| **taker == conn);
        let taken: Vec<PieceIndex> = taken.map(|(piece, _)| *piece).collect();
        for piece in taken {
            self.forget_taker(piece);
            self.take_gift(piece);
            if still_held(piece) {
                self.set(piece, Giving::Out);
            } else {
                self.take_back(piece);
            }
        }
        for piece in held.filter(|piece| !still_held(*piece)) {
            if self.pieces.get(piece.as_usize()) == Some(&Giving::Out) {
                self.take_back(piece);
            }
        }
    }

    /// Gifts that did not arrive in time are to be given again.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((since, piece)) = self.ages.first().copied()
            && now.saturating_duration_since(since) >= GIVE_STALL
        {
            self.take_gift(piece);
            self.forget_taker(piece);
            self.take_back(piece);
        }
    }

    fn take_back(&mut self, piece: PieceIndex) {
        self.set(piece, Giving::NotGiven);
        self.first_not_given = self.first_not_given.min(piece.as_usize());
    }

    fn put_gift(&mut self, piece: PieceIndex, gift: Gift) {
        let unsent_bytes = u64::from(gift.unsent_bytes);
        self.unsent_bytes += unsent_bytes;
        self.loads.entry(gift.to).or_default().unsent_bytes += unsent_bytes;
        self.ages.insert((gift.since, piece));
        self.gifts.insert(piece, gift);
    }

    fn take_gift(&mut self, piece: PieceIndex) -> Option<Gift> {
        let gift = self.gifts.remove(&piece)?;
        let unsent_bytes = u64::from(gift.unsent_bytes);
        self.ages.remove(&(gift.since, piece));
        self.unsent_bytes -= unsent_bytes;
        self.lighten(gift.to, |load| load.unsent_bytes -= unsent_bytes);
        Some(gift)
    }

    fn forget_taker(&mut self, piece: PieceIndex) {
        if let Some(taker) = self.takers.remove(&piece) {
            self.lighten(taker, |load| load.unrelayed_count -= 1);
        }
    }

    /// Takes something off a peer's load, which is forgotten when nothing is left.
    fn lighten(&mut self, conn: ConnId, take: impl FnOnce(&mut Load)) {
        if let Some(load) = self.loads.get_mut(&conn) {
            take(load);
            if *load == Load::default() {
                self.loads.remove(&conn);
            }
        }
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
