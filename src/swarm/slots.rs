//! Who is served, when more want than there are slots.
//!
//! Owns: which members have a slot, and which wait for one. Bound: the members of all swarms.
//! Spec: `spec/peer-protocol.md` SWARM-7, SWARM-32, SWARM-33.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::payload::geometry::BLOCK_BYTES_MAX;
use crate::swarm::requests::{ConnId, TransferId};

/// Under a limit, each served peer can be sent a whole block in this time.
const BLOCK_TIME: Duration = Duration::from_secs(4);

/// After this long a peer loses its slot even in the middle of a piece.
const PIECE_TIME_MAX: Duration = Duration::from_secs(600);
/// And if it asks for no more of the piece for so long.
const MID_PIECE_QUIET: Duration = Duration::from_secs(20);

/// A member of one swarm.
pub(crate) type Place = (TransferId, ConnId);

/// Peers that can be served at a time under a limit in bytes per second, at least one.
pub(crate) fn count_under(bytes_per_second: u64) -> usize {
    // req: SWARM-32
    let bytes = bytes_per_second.saturating_mul(BLOCK_TIME.as_secs());
    let count = bytes / u64::from(BLOCK_BYTES_MAX);
    usize::try_from(count).unwrap_or(usize::MAX).max(1)
}

/// What changed for a member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// It has lost its slot.
    Choked(Place),
    /// It has one.
    Served(Place),
}

/// A served member.
#[derive(Clone, Copy, Debug)]
struct Served {
    since: Instant,
    /// When it was last sent a block, if that was not the end of a piece.
    mid_piece: Option<Instant>,
}

impl Served {
    fn new(since: Instant) -> Self {
        Self {
            since,
            mid_piece: None,
        }
    }
}

/// All slots of a node.
#[derive(Debug)]
pub(crate) struct Slots {
    served: BTreeMap<Place, Served>,
    waiting: BTreeMap<Place, Instant>,
    /// Members served at a time.
    count_max: usize,
    /// The same for single payloads, where there is a limit.
    of_transfer: BTreeMap<TransferId, usize>,
}

impl Slots {
    pub(crate) fn new(count_max: usize) -> Self {
        Self {
            served: BTreeMap::new(),
            waiting: BTreeMap::new(),
            count_max,
            of_transfer: BTreeMap::new(),
        }
    }

    /// From now on so many; then [`Slots::rebalance`].
    pub(crate) fn set_count(&mut self, count_max: usize) {
        self.count_max = count_max;
    }

    /// From now on so many of one payload; then [`Slots::rebalance`].
    pub(crate) fn set_transfer_count(&mut self, transfer: TransferId, count_max: Option<usize>) {
        match count_max {
            Some(count) => self.of_transfer.insert(transfer, count),
            None => self.of_transfer.remove(&transfer),
        };
    }

    /// A peer joins a swarm; whether it has a slot at once.
    pub(crate) fn join(&mut self, place: Place, now: Instant) -> bool {
        // req: SWARM-7
        let free = self.served.len() < self.count_max && self.has_room(place.0);
        if free {
            self.served.insert(place, Served::new(now));
        } else {
            self.waiting.insert(place, now);
        }
        free
    }

    /// A peer leaves a swarm; who gets its slot.
    pub(crate) fn leave(&mut self, place: Place, now: Instant) -> Option<Place> {
        self.waiting.remove(&place);
        self.served.remove(&place)?;
        self.promote(now)
    }

    /// The longest served makes room for the longest waiting: who is choked, and who is not any more.
    ///
    /// Not in the middle of a piece, which would be lost, unless that has taken very long.
    pub(crate) fn rotate(&mut self, now: Instant) -> Option<[Place; 2]> {
        // req: SWARM-7
        let next = self.longest_waiting()?;
        let own_full = !self.has_room(next.0);
        let (out, _) = self
            .served
            .iter()
            .filter(|(place, _)| !own_full || place.0 == next.0)
            .filter(|(_, served)| {
                let sent = served.mid_piece;
                sent.is_none_or(|sent| now.saturating_duration_since(sent) >= MID_PIECE_QUIET)
                    || now.saturating_duration_since(served.since) >= PIECE_TIME_MAX
            })
            .min_by_key(|(_, served)| served.since)?;
        Some(self.swap(*out, next, now))
    }

    /// `out` makes room, if somebody waits for a slot that it can have.
    pub(crate) fn pass_on(&mut self, out: Place, now: Instant) -> Option<[Place; 2]> {
        let next = self.longest_waiting()?;
        let fits = self.has_room(next.0) || next.0 == out.0;
        (fits && self.served.contains_key(&out)).then(|| self.swap(out, next, now))
    }

    /// When a served member was sent a block, if that was not the end of a piece.
    pub(crate) fn set_mid_piece(&mut self, place: Place, mid_piece: Option<Instant>) {
        if let Some(served) = self.served.get_mut(&place) {
            served.mid_piece = mid_piece;
        }
    }

    fn longest_waiting(&self) -> Option<Place> {
        let (next, _) = self.waiting.iter().min_by_key(|(_, since)| **since)?;
        Some(*next)
    }

    fn swap(&mut self, out: Place, into: Place, now: Instant) -> [Place; 2] {
        self.served.remove(&out);
        self.waiting.remove(&into);
        self.served.insert(into, Served::new(now));
        self.waiting.insert(out, now);
        [out, into]
    }

    /// Makes who is served fit the counts, after one has changed.
    pub(crate) fn rebalance(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(out) = self.surplus() {
            self.served.remove(&out);
            self.waiting.insert(out, now);
            changes.push(Change::Choked(out));
        }
        while let Some(into) = self.promote(now) {
            changes.push(Change::Served(into));
        }
        changes
    }

    /// The longest served of those that are too many.
    fn surplus(&self) -> Option<Place> {
        let too_many = self.served.len() > self.count_max;
        self.served
            .iter()
            .filter(|(place, _)| {
                let most = self.of_transfer.get(&place.0);
                too_many || most.is_some_and(|most| self.served_of(place.0) > *most)
            })
            .min_by_key(|(_, served)| served.since)
            .map(|(place, _)| *place)
    }

    fn served_of(&self, transfer: TransferId) -> usize {
        self.served.keys().filter(|(of, _)| *of == transfer).count()
    }

    fn has_room(&self, transfer: TransferId) -> bool {
        let most = self.of_transfer.get(&transfer);
        most.is_none_or(|most| self.served_of(transfer) < *most)
    }

    fn promote(&mut self, now: Instant) -> Option<Place> {
        if self.served.len() >= self.count_max {
            return None;
        }
        let (next, _) = self
            .waiting
            .iter()
            .filter(|(place, _)| self.has_room(place.0))
            .min_by_key(|(_, since)| **since)?;
        let next = *next;
        self.waiting.remove(&next);
        self.served.insert(next, Served::new(now));
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: TransferId = TransferId(1);
    const TWO: TransferId = TransferId(2);

    fn of(transfer: TransferId, conn: u64) -> Place {
        (transfer, ConnId(conn))
    }

    /// With fewer slots than peers each is served in turn, and a leaver's slot is passed on.
    // req: SWARM-7
    #[test]
    fn slots_go_round() {
        let mut now = Instant::now();
        let mut slots = Slots::new(2);
        assert!(slots.join(of(ONE, 1), now));
        assert_eq!(slots.rotate(now), None, "nobody waits");
        now += Duration::from_secs(1);
        assert!(slots.join(of(ONE, 2), now));
        assert!(!slots.join(of(ONE, 3), now));
        now += Duration::from_secs(1);
        assert_eq!(slots.rotate(now), Some([of(ONE, 1), of(ONE, 3)]));
        assert_eq!(slots.leave(of(ONE, 2), now), Some(of(ONE, 1)));
        assert_eq!(slots.leave(of(ONE, 1), now), None);
    }

    /// A begun piece is brought to its end before its slot is passed on, unless it is not asked for any more.
    // req: SWARM-7
    #[test]
    fn begun_piece_keeps_its_slot() {
        let mut now = Instant::now();
        let mut slots = Slots::new(1);
        assert!(slots.join(of(ONE, 1), now));
        assert!(!slots.join(of(ONE, 2), now));
        slots.set_mid_piece(of(ONE, 1), Some(now));
        assert_eq!(slots.rotate(now), None);
        assert_eq!(slots.pass_on(of(ONE, 2), now), None, "it has no slot");
        let passed = Some([of(ONE, 1), of(ONE, 2)]);
        assert_eq!(slots.pass_on(of(ONE, 1), now), passed);
        slots.set_mid_piece(of(ONE, 2), Some(now));
        now += MID_PIECE_QUIET;
        assert_eq!(slots.rotate(now), Some([of(ONE, 2), of(ONE, 1)]));
    }

    /// Fewer slots choke who is served longest; none choke all; more take them up again, each payload
    /// within its own count.
    // req: SWARM-32
    // req: SWARM-33
    #[test]
    fn counts_can_change() {
        let mut now = Instant::now();
        let mut slots = Slots::new(10);
        for conn in 1..=3 {
            now += Duration::from_secs(1);
            assert!(slots.join(of(ONE, conn), now));
            assert!(slots.join(of(TWO, conn), now));
        }
        slots.set_transfer_count(ONE, Some(1));
        let changes = slots.rebalance(now);
        assert_eq!(
            changes,
            [Change::Choked(of(ONE, 1)), Change::Choked(of(ONE, 2))]
        );
        slots.set_count(0);
        assert_eq!(slots.rebalance(now).len(), 4, "all that were served");
        assert_eq!(slots.rotate(now), None, "nobody makes room");
        slots.set_count(10);
        slots.set_transfer_count(TWO, Some(2));
        assert_eq!(slots.rebalance(now).len(), 3);
        assert_eq!(slots.leave(of(TWO, 9), now), None);
        assert_eq!((count_under(1), count_under(1 << 20)), (1, 16));
    }
}
