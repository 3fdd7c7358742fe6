//! How many peers of one swarm hold each piece.
//!
//! Owns: one counter for each piece, kept in step with the bitfields of the members.

use crate::payload::{Bitfield, Geometry, PieceIndex};

/// Holders of each piece among the peers we know; we ourselves do not count.
#[derive(Clone, Debug)]
pub struct Availability {
    holders: Vec<u16>,
}

impl Availability {
    /// Nobody holds anything.
    pub fn new(geometry: &Geometry) -> Self {
        Self {
            holders: vec![0; geometry.piece_count() as usize],
        }
    }

    /// How many peers hold `piece`.
    pub fn holders(&self, piece: PieceIndex) -> u16 {
        self.holders.get(piece.as_usize()).copied().unwrap_or(0)
    }

    /// One more peer holds `piece`.
    pub fn add(&mut self, piece: PieceIndex) {
        if let Some(count) = self.holders.get_mut(piece.as_usize()) {
            *count = count.saturating_add(1);
        }
    }

    /// One peer fewer holds `piece`.
    pub fn remove(&mut self, piece: PieceIndex) {
        if let Some(count) = self.holders.get_mut(piece.as_usize()) {
            debug_assert!(*count > 0, "a holder was added before it is removed");
            *count = count.saturating_sub(1);
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
