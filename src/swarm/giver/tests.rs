//! The origin's giving: each piece once, and sums that agree with what they sum up.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::payload::PieceBytes;

fn geometry(piece_count: u32) -> Geometry {
    let piece_bytes = PieceBytes::new(16 * 1024).expect("valid");
    Geometry::new(u64::from(piece_count) * 16 * 1024, piece_bytes).expect("valid")
}

/// The sums are those of the gifts and takers that are there.
fn check_sums(giver: &Giver, now: Instant) -> Result<(), TestCaseError> {
    let unsent = |conn: Option<ConnId>, moving: bool| -> u64 {
        let of = giver
            .gifts
            .values()
            .filter(|gift| conn.is_none_or(|conn| gift.to == conn));
        of.filter(|gift| !moving || now.saturating_duration_since(gift.since) < SEND_STUCK_AFTER)
            .map(|gift| u64::from(gift.unsent_bytes))
            .sum()
    };
    prop_assert_eq!(giver.moving_bytes(now), unsent(None, true));
    prop_assert_eq!(giver.unsent_bytes, unsent(None, false));
    for conn in (0..4).map(ConnId) {
        prop_assert_eq!(giver.unsent_bytes(conn), unsent(Some(conn), false));
        let unrelayed = giver
            .takers
            .values()
            .filter(|taker| **taker == conn)
            .count();
        prop_assert_eq!(giver.unrelayed_count(conn), unrelayed);
    }
    let ages: BTreeSet<_> = giver
        .gifts
        .iter()
        .map(|(piece, gift)| (gift.since, *piece))
        .collect();
    prop_assert_eq!(&giver.ages, &ages);
    prop_assert!(
        giver.loads.values().all(|load| *load != Load::default()),
        "nobody is remembered for nothing"
    );
    Ok(())
}

proptest! {
    /// Whoever comes, takes, relays and leaves: no piece is given twice while another was never given,
    /// and when nothing is left, every piece is with somebody.
    // req: SWARM-1
    #[test]
    fn no_piece_is_given_again_before_all_were_given(
        operations in proptest::collection::vec((0_u8..6, 0_u64..4), 1..200),
    ) {
        let mut now = Instant::now();
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
                3 => {
                    if let Some(piece) = on_way[slot].first() {
                        giver.sent(conn, *piece, 10_000, now);
                        // Of somebody else's gift nothing is sent.
                        giver.sent(ConnId(who + 1), *piece, 10_000, now);
                    }
                }
                4 => {
                    now += Duration::from_millis(900 * (1 + who));
                    giver.expire(now);
                    let gifts = &giver.gifts;
                    for on_way in &mut on_way {
                        on_way.retain(|piece| gifts.contains_key(piece));
                    }
                }
                5 => {
                    let others = held[(slot + 1) % 4].held(&geometry).next();
                    if let Some(piece) = others {
                        held[slot].set(piece);
                        giver.seen(conn, piece);
                    }
                }
                _ => {
                    on_way[slot].clear();
                    let left = std::mem::replace(&mut held[slot], Bitfield::empty(&geometry));
                    let held = &held;
                    giver.lost(conn, left.held(&geometry), |piece| held.iter().any(|other| other.has(piece)));
                }
            }
            let somewhere = |piece: PieceIndex| {
                held.iter().any(|held| held.has(piece)) || on_way.iter().flatten().any(|other| *other == piece)
            };
            let lost = geometry.pieces().filter(|piece| !somewhere(*piece)).count();
            prop_assert_eq!(giver.not_given_count, lost);
            check_sums(&giver, now)?;
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
