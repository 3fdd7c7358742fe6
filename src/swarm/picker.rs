//! Which piece a receiver asks for next: rarest first or in order.
//!
//! Owns: the choice, as a function of what is known.
//! Bound: one look costs at most a step for each 64 pieces of the payload (65,536) and each number of holders.
//! Spec: `spec/peer-protocol.md` section 5, SWARM-3.

use crate::payload::{Bitfield, Geometry, PieceIndex};
use crate::swarm::availability::Availability;

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
    if wanted.is_empty() {
        return None;
    }
    match order {
        Order::InOrder => wanted.held_by_both(held, geometry).next(),
        Order::RarestFirst => availability
            .levels()
            .find_map(|level| Bitfield::one_of_all([wanted, held, level], geometry, salt)),
    }
}

#[cfg(test)]
mod tests;
