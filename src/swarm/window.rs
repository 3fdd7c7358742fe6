//! Which piece next for a reader that goes through the payload while it is being fetched.
//!
//! Spec: `spec/peer-protocol.md` SWARM-35.

use std::time::Duration;

use crate::payload::{Bitfield, Geometry, PieceIndex};
use crate::swarm::availability::Availability;
use crate::swarm::proof::mix;

/// Missing pieces behind the read position that go before all others, at least,
const WINDOW_PIECES_MIN: u64 = 8;
/// and at most; each is looked at for a decision.
const WINDOW_PIECES_MAX: u64 = 512;
/// And what comes in this time: a reader far away waits for no round trip.
const WINDOW_TIME: Duration = Duration::from_millis(100);

/// Missing pieces behind the read position that go before all others, for a reader to whom so many bytes come a second.
pub(crate) fn window_pieces(geometry: &Geometry, bytes_per_second: u64) -> usize {
    // req: SWARM-35
    let bytes = bytes_per_second.saturating_mul(WINDOW_TIME.as_millis() as u64) / 1000;
    let pieces = bytes / u64::from(geometry.piece_bytes().get());
    pieces.clamp(WINDOW_PIECES_MIN, WINDOW_PIECES_MAX) as usize
}

/// Of the next `count` missing pieces from number `from` on, the one to ask a peer for that holds `held`: the first
/// of them if nobody is asked for it, else the rarest. `None` if it holds none that is `wanted`.
pub(crate) fn pick_in_window(
    geometry: &Geometry,
    have: &Bitfield,
    wanted: &Bitfield,
    held: &Bitfield,
    availability: &Availability,
    (from, count): (u32, usize),
    salt: u64,
) -> Option<PieceIndex> {
    // req: SWARM-35
    let missing = (from..geometry.piece_count())
        .filter_map(|index| geometry.piece_index(index))
        .filter(|piece| !have.has(*piece))
        .take(count);
    let (_, piece) = missing
        .enumerate()
        .filter(|(_, piece)| wanted.has(*piece) && held.has(*piece))
        .min_by_key(|(place, piece)| {
            let tie = mix(salt ^ u64::from(piece.get()));
            (*place > 0, availability.holders(*piece), tie)
        })?;
    Some(piece)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::PieceBytes;

    /// The faster bytes come, the further the window reaches, between its bounds.
    // req: SWARM-35
    #[test]
    fn window_is_as_long_as_what_comes_meanwhile() {
        let piece_bytes = PieceBytes::new(16 * 1024).expect("valid");
        let geometry = Geometry::new(16 * 1024 * 40, piece_bytes).expect("valid");
        let pieces = |rate| window_pieces(&geometry, rate);
        assert_eq!([0, 1_000_000].map(pieces), [8, 8]);
        assert_eq!(pieces(16 * 1024 * 1000), 100);
        assert_eq!([u64::MAX, 16 * 1024 * 1_000_000].map(pieces), [512, 512]);
    }

    /// The piece at the position first, then the rarest of the window, nothing behind it; pieces that are
    /// held move the window on.
    // req: SWARM-35
    #[test]
    fn window_goes_with_the_reader() {
        let piece_bytes = PieceBytes::new(16 * 1024).expect("valid");
        let geometry = Geometry::new(16 * 1024 * 40, piece_bytes).expect("valid");
        let piece = |index: u32| geometry.piece_index(index).expect("inside");
        let mut availability = Availability::new(&geometry);
        for index in 0..40 {
            for _ in 0..if index == 14 { 1 } else { 3 } {
                availability.add(piece(index));
            }
        }
        let mut have = Bitfield::empty(&geometry);
        let mut wanted = Bitfield::full(&geometry);
        let all = Bitfield::full(&geometry);
        let mut next = |have: &Bitfield, from| {
            let window = (from, window_pieces(&geometry, 0));
            let picked = pick_in_window(&geometry, have, &wanted, &all, &availability, window, 7);
            if let Some(picked) = picked {
                wanted.clear(picked);
            }
            picked.map(PieceIndex::get)
        };
        assert_eq!(next(&have, 10), Some(10));
        assert_eq!(next(&have, 10), Some(14), "the rarest of the window");
        let others: Vec<u32> = (0..6).filter_map(|_| next(&have, 10)).collect();
        assert!(
            others.iter().all(|index| (11..18).contains(index)),
            "{others:?}"
        );
        assert_eq!(next(&have, 10), None, "nothing behind the window");
        have.set(piece(10));
        assert_eq!(next(&have, 10), Some(18));
    }
}
