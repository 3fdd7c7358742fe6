//! Pacing, matching of answers, and attempts with one source.

use super::*;
use crate::payload::PieceBytes;
use crate::swarm::limits::QUEUE_TIME;

const KIB: u64 = 1024;

fn geometry() -> Geometry {
    Geometry::new(1024 * KIB, PieceBytes::new(512 * KIB).expect("valid")).expect("valid")
}

fn blocks(geometry: &Geometry) -> Vec<BlockRange> {
    geometry
        .pieces()
        .flat_map(|piece| geometry.blocks(piece))
        .collect()
}

/// Each request matches one answer; an answer more is a violation, one taken back is told apart.
// req: PEER-12
#[test]
fn every_request_has_exactly_one_answer() {
    let now = Instant::now();
    let geometry = geometry();
    let blocks = blocks(&geometry);
    let mut pacing = Pacing::new(now);
    pacing.ask(blocks[0], now);
    pacing.ask(blocks[2], now);
    assert_eq!(
        pacing.answered(raw(blocks[1]), QUEUE_TIME, now),
        Match::Unasked
    );
    assert_eq!(
        pacing.answered(raw(blocks[0]), QUEUE_TIME, now),
        Match::Wanted
    );
    assert_eq!(
        pacing.answered(raw(blocks[0]), QUEUE_TIME, now),
        Match::Unasked
    );
    assert_eq!(
        pacing.cancel(&geometry, blocks[2].piece(), &[]),
        [raw(blocks[2])]
    );
    assert_eq!(pacing.cancel(&geometry, blocks[2].piece(), &[]), []);
    assert!(pacing.is_asked(blocks[2]));
    assert_eq!(pacing.rejected(raw(blocks[2])), Match::Cancelled);
    assert_eq!(pacing.rejected(raw(blocks[2])), Match::Unasked);
    assert_eq!(pacing.outstanding_bytes, 0);
}

/// A run covers each of its pieces, and is taken back only when none of them is wanted of that peer any more.
// req: SWARM-40
#[test]
fn run_is_taken_back_as_a_whole() {
    let now = Instant::now();
    let piece_bytes = PieceBytes::new(16 * KIB).expect("valid");
    let geometry = Geometry::new(16 * KIB * 40, piece_bytes).expect("valid");
    let piece = |index| geometry.piece_index(index).expect("inside");
    let run = geometry.run_of(piece(4), 4).expect("short");
    let alone = geometry.run_of(piece(8), 1).expect("short");
    let mut pacing = Pacing::new(now);
    pacing.ask(run, now);
    pacing.ask(alone, now);
    let asked = |pacing: &Pacing, index| -> Vec<RawBlock> {
        pacing.asked_of(&geometry, piece(index)).collect()
    };
    assert_eq!(asked(&pacing, 3), []);
    for index in 4..8 {
        assert_eq!(asked(&pacing, index), [raw(run)]);
    }
    assert_eq!(asked(&pacing, 8), [raw(alone)]);
    let attempted = [piece(7), piece(8)];
    assert_eq!(pacing.cancel(&geometry, piece(4), &attempted), []);
    assert_eq!(
        pacing.cancel(&geometry, piece(5), &attempted[1..]),
        [raw(run)]
    );
    assert_eq!(pacing.cancel(&geometry, piece(6), &attempted[1..]), []);
    assert_eq!(pacing.answered(raw(run), QUEUE_TIME, now), Match::Cancelled);
    assert_eq!(asked(&pacing, 5), []);
    assert_eq!(pacing.outstanding_bytes, 16 * KIB);
}

/// A peer whose last answer waited rests as long as it is told to; one that answered at once does not.
// req: SWARM-41
#[test]
fn slow_peer_rests() {
    let mut now = Instant::now();
    let blocks = blocks(&geometry());
    let rest = Duration::from_millis(300);
    let mut pacing = Pacing::new(now);
    assert!(!pacing.has_waited(), "nothing is known of it");
    for (trip, waits) in [(10, false), (40, false), (10 + 51, true), (20, false)] {
        pacing.ask(blocks[0], now);
        now += Duration::from_millis(trip);
        pacing.answered(raw(blocks[0]), QUEUE_TIME, now);
        assert_eq!(pacing.has_waited(), waits, "{trip} ms");
        assert!(pacing.has_rested(Duration::ZERO, now), "nobody is ahead");
        assert!(!pacing.has_rested(rest, now + rest / 2));
        assert!(pacing.has_rested(rest, now + rest));
    }
}

/// Quick answers let the window grow, answers after a long queue let it shrink to one block.
// req: SWARM-5
#[test]
fn window_follows_the_queue_at_the_peer() {
    let mut now = Instant::now();
    let geometry = geometry();
    let block = blocks(&geometry)[0];
    let mut pacing = Pacing::new(now);
    let start = pacing.target_bytes();
    let trip = |pacing: &mut Pacing, now: &mut Instant, time| {
        for other in blocks(&geometry).iter().skip(1) {
            pacing.ask(*other, *now);
        }
        pacing.ask(block, *now);
        *now += time;
        pacing.answered(raw(block), QUEUE_TIME, *now);
        for other in blocks(&geometry).iter().skip(1) {
            pacing.rejected(raw(*other));
        }
    };
    trip(&mut pacing, &mut now, Duration::from_millis(10));
    assert_eq!(pacing.target_bytes(), start + 256 * KIB);
    for _ in 0..100 {
        trip(&mut pacing, &mut now, Duration::from_secs(2));
    }
    assert_eq!(pacing.target_bytes(), 1);
    assert!(pacing.has_room(16), "one block may always be asked for");
    pacing.ask(block, now);
    assert!(!pacing.has_room(16));
}

/// The other side's bound on unanswered requests is kept whatever the window says.
// req: PEER-11
#[test]
fn requests_stay_within_what_hello_allowed() {
    let now = Instant::now();
    let geometry = geometry();
    let mut pacing = Pacing::new(now);
    pacing.target_bytes = u64::MAX;
    for block in blocks(&geometry) {
        assert_eq!(pacing.has_room(3), pacing.outstanding_count() < 3);
        pacing.ask(block, now);
    }
}

/// Silence for ten seconds is a stall, bytes of a block are not silence, and a trickle makes slow.
// req: SWARM-13
#[test]
fn silence_is_a_stall_and_a_trickle_is_slow() {
    let mut now = Instant::now();
    let geometry = geometry();
    let blocks = blocks(&geometry);
    let mut pacing = Pacing::new(now);
    pacing.target_bytes = u64::MAX;
    now += STALL_AFTER * 3;
    assert!(!pacing.has_stalled(now), "nothing was asked");
    pacing.ask(blocks[0], now);
    assert!(!pacing.has_stalled(now));
    now += STALL_AFTER;
    assert!(pacing.has_stalled(now));
    pacing.progress(1, now);
    assert!(!pacing.has_stalled(now));
    for _ in 0..4 {
        now += SLOW_WINDOW / 4;
        pacing.progress(KIB, now);
    }
    pacing.judge_speed(now);
    assert!(
        !pacing.has_room(16),
        "a slow peer is asked for one block at a time"
    );
    now += SLOW_WINDOW;
    pacing.progress(SLOW_BYTES_PER_SECOND * 31, now);
    pacing.judge_speed(now);
    assert!(pacing.has_room(16));
}

/// Blocks may come in any order; the piece is whole with the last and in order.
// req: SWARM-4
#[test]
fn blocks_of_an_attempt_come_in_any_order() {
    let geometry = geometry();
    let piece = geometry.piece_index(1).expect("two pieces");
    let node = NodeId::from_bytes([1; 32]);
    let mut attempt = Attempt::new(&geometry, piece, ConnId(1), node, Instant::now());
    let first = attempt.next_block(&geometry, piece).expect("two blocks");
    let second = attempt.next_block(&geometry, piece).expect("two blocks");
    assert!(!attempt.has_unasked() && attempt.next_block(&geometry, piece).is_none());
    assert_eq!(attempt.receive(second, Bytes::from_static(b"two")), None);
    assert!(attempt.is_receiving());
    let whole = attempt.receive(first, Bytes::from_static(b"one"));
    assert_eq!(
        whole,
        Some(vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")])
    );
    assert!(!attempt.is_receiving());
}
