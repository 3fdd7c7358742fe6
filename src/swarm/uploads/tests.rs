//! Which request goes out next.

use super::*;
use crate::payload::{Geometry, PieceBytes, Priority};

const BLOCK: u64 = 32 * 1024;

fn block(index: u32) -> BlockRange {
    let geometry =
        Geometry::new(BLOCK * 100, PieceBytes::new(BLOCK).expect("valid")).expect("valid");
    let piece = geometry.piece_index(index).expect("inside");
    geometry.blocks(piece).next().expect("one block")
}

fn settings() -> Settings {
    Settings {
        uplink_bytes_max: 2 * BLOCK,
        uplink_bytes_per_peer_max: 2 * BLOCK,
        ..Settings::default()
    }
}

fn rarity(piece: PieceIndex) -> Rank {
    Rank {
        is_near: true,
        held: 0,
        holders: piece.get() as u16,
    }
}

fn uploads(now: Instant) -> Uploads {
    let mut flow = Flow::new(None, now);
    for transfer in [ONE, TWO] {
        flow.add(transfer, None, Priority::default(), now);
    }
    Uploads::new(flow)
}

const ONE: TransferId = TransferId(1);
const TWO: TransferId = TransferId(2);

/// The rarest piece goes first; sockets hold a bounded number of bytes, and the rest can be cancelled.
// req: SWARM-6
#[test]
fn rarest_goes_first_and_the_rest_waits() {
    let now = Instant::now();
    let mut uploads = uploads(now);
    for (conn, index) in [(1, 5), (2, 3), (3, 4)] {
        uploads.ask(ONE, ConnId(conn), block(index), now);
    }
    let rank = |_, _, piece: PieceIndex| rarity(piece);
    let next = |uploads: &mut Uploads, now| uploads.next(&settings(), now, rank).map(|it| it.conn);
    assert_eq!(next(&mut uploads, now), Some(ConnId(2)));
    assert_eq!(next(&mut uploads, now), Some(ConnId(3)));
    assert_eq!(next(&mut uploads, now), None);
    assert!(uploads.cancel(ONE, ConnId(1), block(5)));
    assert!(!uploads.cancel(ONE, ConnId(1), block(5)));
    uploads.ask(ONE, ConnId(1), block(6), now);
    uploads.sent(ConnId(2), now);
    assert_eq!(next(&mut uploads, now), Some(ConnId(1)));
}

/// A peer that does not read holds its own socket, not the uplink.
// req: SWARM-6
#[test]
fn stuck_socket_does_not_hold_up_others() {
    let now = Instant::now();
    let mut uploads = uploads(now);
    for index in 0..3 {
        uploads.ask(ONE, ConnId(1), block(index), now);
    }
    uploads.ask(ONE, ConnId(2), block(9), now);
    for _ in 0..2 {
        let upload = uploads.next(&settings(), now, |_, _, piece| rarity(piece));
        assert_eq!(upload.map(|upload| upload.conn), Some(ConnId(1)));
    }
    assert_eq!(
        uploads.next(&settings(), now, |_, _, _| Rank::default()),
        None
    );
    let later = uploads.timeout().expect("requests wait");
    let upload = uploads.next(&settings(), later, |_, _, _| Rank::default());
    assert_eq!(upload.map(|upload| upload.conn), Some(ConnId(2)));
}

/// A socket that is stuck already is no reason to wake: time would stand still for whoever drives the engine.
// req: SWARM-6
#[test]
fn stuck_socket_wakes_once() {
    let mut now = Instant::now();
    let mut uploads = uploads(now);
    for index in 0..4 {
        uploads.ask(ONE, ConnId(1), block(index), now);
    }
    let next =
        |uploads: &mut Uploads, now| uploads.next(&settings(), now, |_, _, _| Rank::default());
    while next(&mut uploads, now).is_some() {}
    now = uploads.timeout().expect("it may get stuck");
    assert!(next(&mut uploads, now).is_none(), "its socket is full");
    assert_eq!(uploads.timeout(), None);
}

/// Two payloads get the uplink in turn, whichever asked more.
// req: SWARM-8
#[test]
fn payloads_share_the_uplink() {
    let now = Instant::now();
    let mut uploads = uploads(now);
    for index in 0..20 {
        uploads.ask(ONE, ConnId(1), block(index), now);
        uploads.ask(ONE, ConnId(2), block(index), now);
    }
    for index in 0..5 {
        uploads.ask(TWO, ConnId(1), block(index), now);
    }
    let mut sent = [0, 0];
    for _ in 0..10 {
        let upload = uploads
            .next(&settings(), now, |_, _, _| Rank::default())
            .expect("room");
        sent[usize::from(upload.transfer == TWO)] += 1;
        uploads.sent(upload.conn, now);
    }
    assert_eq!(sent, [5, 5]);
}
