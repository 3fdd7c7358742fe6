//! Rarest first.

use proptest::prelude::*;

use super::*;
use crate::payload::PieceBytes;

fn geometry(piece_count: u32) -> Geometry {
    let piece_bytes = PieceBytes::new(16 * 1024).expect("valid");
    Geometry::new(u64::from(piece_count) * 16 * 1024, piece_bytes).expect("valid")
}

fn bits(geometry: &Geometry, held: &[bool]) -> Bitfield {
    let mut bitfield = Bitfield::empty(geometry);
    for piece in geometry.pieces().filter(|piece| held[piece.as_usize()]) {
        bitfield.set(piece);
    }
    bitfield
}

proptest! {
    /// The pick is wanted, held, and no other such piece has fewer holders; none is picked only if none is useful.
    // req: SWARM-3
    #[test]
    fn pick_is_a_rarest_useful_piece(
        pieces in proptest::collection::vec((any::<bool>(), any::<bool>(), 0_u16..4), 1..150),
        salt in any::<u64>(),
    ) {
        let geometry = geometry(pieces.len() as u32);
        let wanted = bits(&geometry, &pieces.iter().map(|piece| piece.0).collect::<Vec<_>>());
        let held = bits(&geometry, &pieces.iter().map(|piece| piece.1).collect::<Vec<_>>());
        let mut availability = Availability::new(&geometry);
        for piece in geometry.pieces() {
            for _ in 0..pieces[piece.as_usize()].2 {
                availability.add(piece);
            }
        }
        let useful = || pieces.iter().filter(|(wanted, held, _)| *wanted && *held);
        let fewest = useful().map(|(.., holders)| *holders).min();
        let picked = pick(Order::RarestFirst, &geometry, &wanted, &held, &availability, salt);
        prop_assert_eq!(picked.is_some(), fewest.is_some());
        if let Some(piece) = picked {
            prop_assert!(wanted.has(piece) && held.has(piece));
            prop_assert_eq!(Some(availability.holders(piece)), fewest);
        }
        let first = pick(Order::InOrder, &geometry, &wanted, &held, &availability, salt);
        let expected = pieces.iter().position(|(wanted, held, _)| *wanted && *held);
        prop_assert_eq!(first.map(PieceIndex::as_usize), expected);
    }
}
