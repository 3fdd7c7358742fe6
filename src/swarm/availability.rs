//! How many peers of one swarm hold each piece.
//!
//! Owns: one counter for each piece, kept in step with the bitfields of the members, and the pieces of each count,
//! so that a rare one is found without a look at every piece.
//! Bound: 2 bytes for each piece, and a bitfield for each count up to 31.

use crate::payload::{Bitfield, Geometry, PieceIndex};

/// Levels that are told apart; pieces with more holders are as one to who looks for rare ones.
const LEVELS_MAX: usize = 32;

/// Holders of each piece among the peers we know; we ourselves do not count.
#[derive(Clone, Debug)]
pub struct Availability {
    holders: Vec<u16>,
    /// The pieces with 0, 1, 2 and so on holders; in the last those with more too.
    levels: Vec<Bitfield>,
}

impl Availability {
    /// Nobody holds anything.
    pub fn new(geometry: &Geometry) -> Self {
        Self {
            holders: vec![0; geometry.piece_count() as usize],
            levels: vec![Bitfield::full(geometry)],
        }
    }

    /// The pieces by the number of their holders, the rarest first.
    pub fn levels(&self) -> impl Iterator<Item = &Bitfield> {
        self.levels.iter().filter(|level| !level.is_empty())
    }

    /// How many peers hold `piece`.
    pub fn holders(&self, piece: PieceIndex) -> u16 {
        self.holders.get(piece.as_usize()).copied().unwrap_or(0)
    }

    /// One more peer holds `piece`.
    pub fn add(&mut self, piece: PieceIndex) {
        let count = self.holders(piece);
        self.put(piece, count.saturating_add(1));
    }

    /// One peer fewer holds `piece`.
    pub fn remove(&mut self, piece: PieceIndex) {
        let count = self.holders(piece);
        debug_assert!(count > 0, "a holder was added before it is removed");
        self.put(piece, count.saturating_sub(1));
    }

    fn put(&mut self, piece: PieceIndex, count: u16) {
        let Some(holders) = self.holders.get_mut(piece.as_usize()) else {
            return;
        };
        let level = |count: u16| usize::from(count).min(LEVELS_MAX - 1);
        let (from, to) = (level(*holders), level(count));
        *holders = count;
        if let Some(level) = self.levels.get_mut(from) {
            level.clear(piece);
        }
        while let Some(last) = self.levels.last().filter(|_| self.levels.len() <= to) {
            self.levels.push(last.emptied());
        }
        if let Some(level) = self.levels.get_mut(to) {
            level.set(piece);
        }
    }

    /// A peer with these pieces came.
    pub fn add_all(&mut self, geometry: &Geometry, held: &Bitfield) {
        held.held(geometry).for_each(|piece| self.add(piece));
    }

    /// A peer with these pieces went.
    pub fn remove_all(&mut self, geometry: &Geometry, held: &Bitfield) {
        held.held(geometry).for_each(|piece| self.remove(piece));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload::PieceBytes;

    proptest! {
        /// Whoever comes and goes, each piece is in the level of its count and in no other.
        #[test]
        fn levels_agree_with_counts(
            steps in proptest::collection::vec((any::<bool>(), 0_u32..5), 1..400),
        ) {
            let piece_bytes = PieceBytes::new(16 * 1024).expect("valid");
            let geometry = Geometry::new(5 * 16 * 1024, piece_bytes).expect("valid");
            let mut availability = Availability::new(&geometry);
            for (comes, number) in steps {
                let piece = geometry.piece_index(number).expect("inside");
                if comes {
                    availability.add(piece);
                } else if availability.holders(piece) > 0 {
                    availability.remove(piece);
                }
                for piece in geometry.pieces() {
                    let level = usize::from(availability.holders(piece)).min(LEVELS_MAX - 1);
                    let places = availability.levels.iter().enumerate();
                    let found: Vec<_> = places.filter(|(_, it)| it.has(piece)).map(|(at, _)| at).collect();
                    prop_assert_eq!(found, [level]);
                }
            }
        }
    }
}
