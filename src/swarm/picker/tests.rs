//! Rarest first, and the origin's giving.

use std::time::{Duration, Instant};

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

    /// Whoever comes, takes, relays and leaves: no piece is given twice while another was never given,
    /// and when nothing is left, every piece is with somebody.
    // req: SWARM-1
    #[test]
    fn no_piece_is_given_again_before_all_were_given(
        operations in proptest::collection::vec((0_u8..3, 0_u64..4), 1..200),
    ) {
        let now = Instant::now();
        let geometry = geometry(12);
        let ours = Bitfield::full(&geometry);
        let mut giver = Giver::new(&geometry);
        let mut held: Vec<Bitfield> = (0..4).map(|_| Bitfield::empty(&geometry)).collect();
        let mut on_way: Vec<Vec<PieceIndex>> = vec![Vec::new(); 4];
        for (operation, who) in operations {
            let (conn, slot) = (ConnId(who), who as usize);
            match operation {
                0 => {
                    if let Some(piece) = giver.give(&geometry, &ours, conn, &held[slot], now) {
                        prop_assert!(held.iter().all(|held| !held.has(piece)));
                        prop_assert!(on_way.iter().flatten().all(|other| *other != piece));
                        on_way[slot].push(piece);
                    }
                }
                1 => {
                    if let Some(piece) = on_way[slot].pop() {
                        held[slot].set(piece);
                        giver.seen(conn, piece);
                    }
                }
                _ => {
                    on_way[slot].clear();
                    held[slot] = Bitfield::empty(&geometry);
                    let held = &held;
                    giver.lost(conn, |piece| held.iter().any(|other| other.has(piece)));
                }
            }
            let somewhere = |piece: PieceIndex| {
                held.iter().any(|held| held.has(piece)) || on_way.iter().flatten().any(|other| *other == piece)
            };
            let lost = geometry.pieces().filter(|piece| !somewhere(*piece)).count();
            prop_assert_eq!(giver.not_given_count, lost);
        }
    }
}

/// A gift that does not arrive is given to somebody else; one that is stuck does not hold up the end.
// req: SWARM-1
#[test]
fn gift_that_stalls_is_given_again() {
    let now = Instant::now();
    let geometry = geometry(1);
    let (ours, none) = (Bitfield::full(&geometry), Bitfield::empty(&geometry));
    let mut giver = Giver::new(&geometry);
    let piece = giver.give(&geometry, &ours, ConnId(1), &none, now);
    assert!(piece.is_some() && !giver.is_done(now));
    assert_eq!(giver.give(&geometry, &ours, ConnId(2), &none, now), None);
    assert!(giver.is_done(now + Duration::from_secs(2)));
    giver.expire(now + GIVE_STALL);
    assert_eq!(giver.give(&geometry, &ours, ConnId(2), &none, now), piece);
}
