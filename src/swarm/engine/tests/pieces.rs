//! Offers, announcements, stalls, bad pieces, resuming.

use super::*;

/// The origin offers each piece once; when everything was given it keeps back, until a peer is in want.
// req: SWARM-1
// req: SWARM-2
#[test]
fn origin_offers_each_piece_once_then_helps_who_starves() {
    let mut scripted = Scripted::member(full(), true);
    scripted.bitfield(&none());
    let mut offered = Vec::new();
    while let Some(message) = scripted.hear() {
        match message {
            Message::Offer { pieces, .. } => {
                for piece in pieces {
                    assert!(!offered.contains(&piece), "offered twice");
                    offered.push(piece);
                    let block = RawBlock {
                        piece,
                        offset_bytes: 0,
                        len_bytes: 16 * 1024,
                    };
                    scripted.say(Message::Request {
                        slot: Slot(5),
                        block,
                    });
                    scripted.engine.handle_block_sent(NEAR, scripted.now);
                    scripted.gather();
                    // The last one is lost on the way.
                    if offered.len() < 20 {
                        scripted.say(Message::Have {
                            slot: Slot(5),
                            pieces: vec![piece],
                        });
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(offered.len(), 20);
    scripted.wait(Duration::from_millis(500));
    scripted.gather();
    let has_all = |message: &Message| matches!(message, Message::HaveAll { .. });
    assert!(!scripted.sent.iter().any(has_all), "others can relay it");
    scripted.wait(Duration::from_millis(800));
    scripted.gather();
    assert!(scripted.sent.iter().any(has_all));
}

/// The first news goes out at once, later news with the next request; what the peer holds itself waits
/// longer, and nothing is forgotten.
// req: SWARM-10
#[test]
fn haves_are_batched() {
    let mut scripted = Scripted::member(none(), false);
    scripted.bitfield(&full());
    scripted.serve(3);
    scripted.gather();
    let told = |scripted: &Scripted| -> usize {
        let haves = scripted.sent.iter().map(|message| match message {
            Message::Have { pieces, .. } => pieces.len(),
            _ => 0,
        });
        haves.sum()
    };
    scripted.wait(Duration::from_millis(100));
    scripted.gather();
    let soon = told(&scripted);
    assert!((1..3).contains(&soon), "{soon} told at once");
    scripted.wait(Duration::from_millis(200));
    scripted.gather();
    assert_eq!(told(&scripted), 3);
}

/// What waits to be announced is announced at the time set for it, though pieces come ever slower meanwhile.
// req: SWARM-10
#[test]
fn announcement_is_not_put_off() {
    let mut scripted = Scripted::member(none(), false);
    scripted.bitfield(&full());
    let asked = scripted.serve(1);
    scripted.block(asked[1]);
    scripted.sent.clear();
    let transfer = scripted.engine.transfers.get_mut(&scripted.id);
    let member = transfer.and_then(|it| it.members.get_mut(&NEAR));
    // As if the piece had come from another: this peer lacks it, and has nothing to be asked for.
    member.expect("a member").have = Some(none());
    let piece = geometry().piece_index(asked[1].piece).expect("inside");
    scripted
        .engine
        .handle_verified(scripted.id, &[piece], scripted.now);
    scripted.gather();
    assert!(scripted.sent.is_empty(), "it waits");
    let due = scripted.engine.transfers[&scripted.id].news_timeout();
    let wait = due.expect("it waits") - scripted.now;
    assert!((HAVE_DELAY_MIN..HAVE_DELAY_MAX).contains(&wait), "{wait:?}");
    scripted.wait(wait);
    let have = Message::Have {
        slot: Slot(1),
        pieces: vec![asked[1].piece],
    };
    assert_eq!(scripted.hear(), Some(have));
}

/// A peer that answers nothing is asked for less, then leaves the swarm.
// req: SWARM-13
#[test]
fn silent_peer_leaves_after_two_stalls() {
    let mut scripted = Scripted::member(none(), false);
    scripted.bitfield(&full());
    for _ in 0..3 {
        for _ in 0..9 {
            scripted.say(Message::Ping);
            scripted.wait(Duration::from_secs(1));
        }
    }
    let left = |message: &Message| {
        matches!(
            message,
            Message::Leave {
                reason: Reason::Stalled,
                ..
            }
        )
    };
    assert!(scripted.sent.iter().any(left));
    assert!(scripted.engine.stats(scripted.now)[0].peers.is_empty());
}

/// A bad piece makes its sender leave; the pieces that it was asked for are wanted again.
// req: SWARM-12
// req: SWARM-4
#[test]
fn bad_piece_has_one_culprit_who_leaves() {
    let mut scripted = Scripted::member(none(), false);
    scripted.bitfield(&full());
    let requests = scripted.requests();
    let pieces: BTreeSet<u32> = requests.iter().map(|request| request.piece).collect();
    assert_eq!(pieces.len(), requests.len(), "no piece is asked twice");
    scripted.block(requests[0]);
    let piece = geometry().piece_index(requests[0].piece).expect("inside");
    scripted.engine.handle_bad(scripted.id, piece, scripted.now);
    scripted.gather();
    let left = |message: &Message| {
        matches!(
            message,
            Message::Leave {
                reason: Reason::BadPiece,
                ..
            }
        )
    };
    assert!(scripted.sent.iter().any(left));
    scripted.engine.check().expect("invariants hold");
    scripted.sent.clear();
    scripted.say(Message::Leave {
        slot: Slot(5),
        reason: Reason::BadPiece,
    });
    let proof = scripted.proof();
    scripted.say(Message::Join {
        slot: Slot(6),
        payload: PAYLOAD,
        proof,
    });
    assert!(
        matches!(scripted.hear(), Some(Message::Refuse { .. })),
        "it does not come back"
    );
}

/// What was verified before is never asked for; a disk that fails one payload leaves the others alone.
// req: SWARM-14
// req: SWARM-15
#[test]
fn resumed_pieces_are_not_asked_and_failures_stay_with_their_payload() {
    let geometry = geometry();
    let mut have = none();
    for piece in geometry.pieces().filter(|piece| piece.get() < 15) {
        have.set(piece);
    }
    let mut scripted = Scripted::member(have, false);
    let mut other = want(none(), false);
    other.payload = PayloadId::from_bytes([8; 32]);
    let other = scripted.engine.want(other, scripted.now).expect("new");
    scripted.bitfield(&full());
    let requests = scripted.serve(100);
    assert_eq!(requests.len(), 5);
    assert!(requests.iter().all(|request| request.piece >= 15));
    scripted
        .engine
        .handle_storage_failed(scripted.id, scripted.now);
    scripted.gather();
    let states: Vec<TransferState> = scripted
        .engine
        .stats(scripted.now)
        .iter()
        .map(|stats| stats.state)
        .collect();
    assert_eq!(states, [TransferState::Failed, TransferState::Fetching]);
    assert!(
        scripted
            .engine
            .transfer_stats(other, scripted.now)
            .is_some()
    );
    scripted.engine.check().expect("invariants hold");
}

/// What a connection brought is known after it is gone, as its node's.
#[test]
fn bytes_of_gone_connections_are_remembered_by_node() {
    let mut scripted = Scripted::member(none(), false);
    scripted.bitfield(&full());
    scripted.serve(3);
    let before = scripted.engine.stats(scripted.now).remove(0);
    assert!(before.past.is_empty());
    let brought = before.peers[0].counts;
    assert!(brought.down_bytes > 0);
    scripted.engine.handle_disconnected(NEAR, scripted.now);
    let after = scripted.engine.stats(scripted.now).remove(0);
    assert!(after.peers.is_empty());
    assert_eq!(after.past, [(Scripted::us(), brought)]);
    assert!(!after.is_origin);
}

/// A second peer of a scripted engine, which holds `have`.
fn join_second(scripted: &mut Scripted, conn: ConnId, have: &Bitfield) {
    let (us, plain) = (NodeId::from_bytes([8; 32]), ChannelBinding::default());
    let now = scripted.now;
    let engine = &mut scripted.engine;
    engine.handle_connected(conn, Role::Listener, address(8), plain, now);
    scripted.gather();
    let Some(Message::Hello(hello)) = scripted.sent.pop_back() else {
        panic!("hello comes first");
    };
    let mut peer = Peer::new(Role::Dialler, address(1), plain, [8; 32], now);
    peer.open(hello, &us).expect("a hello");
    let key = AccessKey::from_bytes([42; 32]);
    let proof = peer.our_proof(&us, &key, &PAYLOAD).expect("greeted");
    let slot = Slot(5);
    let said = [
        Message::Hello(peer.hello(us, &Settings::default())),
        Message::Join {
            slot,
            payload: PAYLOAD,
            proof,
        },
        Message::Bitfield {
            slot,
            giving: false,
            choked: false,
            bits: have.to_bytes().into(),
        },
    ];
    for message in said {
        scripted.engine.handle_message(conn, message, now);
    }
    scripted.gather();
}

/// A request that waits at one peer is taken back when another that holds the piece has nothing to do, and goes there
/// once the first has said that it will not answer; not before, and not twice.
// req: SWARM-39
#[test]
fn idle_peer_gets_what_waits_elsewhere() {
    let mut scripted = Scripted::member(none(), false);
    scripted.bitfield(&full());
    scripted.serve(1);
    let waiting: Vec<PieceIndex> = {
        let transfer = &scripted.engine.transfers[&scripted.id];
        transfer.attempts.keys().copied().collect()
    };
    assert_eq!(waiting.len(), 2, "as many as an unknown peer is asked for");
    let mut have = none();
    for piece in &waiting {
        have.set(*piece);
    }
    let second = ConnId(2);
    join_second(&mut scripted, second, &have);
    scripted.sent.clear();
    scripted.wait(Duration::from_secs(1));
    let cancelled: Vec<RawBlock> = scripted
        .sent
        .drain(..)
        .filter_map(|message| match message {
            Message::Cancel { block, .. } => Some(block),
            Message::Request { .. } => panic!("asked before the first has answered"),
            _ => None,
        })
        .collect();
    let [block] = cancelled.as_slice() else {
        panic!("{cancelled:?}");
    };
    scripted.say(Message::Reject {
        slot: Slot(5),
        block: *block,
    });
    // The first is asked for another in its place.
    let requests = scripted.requests();
    let again = requests.iter().filter(|request| *request == block);
    assert_eq!(again.count(), 1, "{requests:?}");
    let transfer = &scripted.engine.transfers[&scripted.id];
    let piece = geometry().piece_index(block.piece).expect("inside");
    assert_eq!(transfer.members[&second].attempting, [piece]);
    let first = transfer.members[&NEAR].have.as_ref();
    assert!(first.is_some_and(|have| have.has(piece)), "it still has it");
}

/// Who answers quickly is asked for several pieces in a row with one request; they are verified and announced one by
/// one, and nothing is asked for twice.
// req: SWARM-40
#[test]
fn quick_peer_is_asked_for_runs() {
    let mut scripted = Scripted::member(none(), false);
    scripted.bitfield(&full());
    let mut waiting: VecDeque<RawBlock> = scripted.requests().into();
    let mut pieces = Vec::new();
    let mut longest = 0;
    while let Some(block) = waiting.pop_front() {
        assert_eq!(block.len_bytes % (16 * 1024), 0, "whole pieces");
        let run = block.piece..block.piece + block.len_bytes / (16 * 1024);
        longest = longest.max(run.len());
        scripted.others.clear();
        scripted.block(block);
        let [Action::Write { piece, blocks, .. }] = scripted.others.as_slice() else {
            panic!("{:?}", scripted.others);
        };
        assert_eq!(piece.get(), block.piece);
        assert_eq!(
            blocks.iter().map(Bytes::len).sum::<usize>(),
            block.len_bytes as usize
        );
        let written: Vec<PieceIndex> = run
            .filter_map(|number| geometry().piece_index(number))
            .collect();
        scripted
            .engine
            .handle_verified(scripted.id, &written, scripted.now);
        scripted.gather();
        scripted.engine.check().expect("invariants hold");
        pieces.extend(written);
        waiting.extend(scripted.requests());
    }
    assert!(longest >= 2, "{longest} pieces at most");
    pieces.sort_unstable();
    assert_eq!(pieces, geometry().pieces().collect::<Vec<_>>());
}

/// A run is served whole or not at all, and counts as given with each of its pieces.
// req: PEER-11, SWARM-40
#[test]
fn run_is_served_if_all_of_it_is_held() {
    let piece = |index| geometry().piece_index(index).expect("inside");
    let mut held = none();
    for index in 4..8 {
        held.set(piece(index));
    }
    let mut scripted = Scripted::member(held, false);
    scripted.bitfield(&none());
    for (first, count, is_served) in [(4, 4, true), (6, 4, false)] {
        scripted.others.clear();
        scripted.sent.clear();
        let block = RawBlock {
            piece: first,
            offset_bytes: 0,
            len_bytes: count * 16 * 1024,
        };
        let slot = Slot(5);
        scripted.say(Message::Request { slot, block });
        let sent = scripted.others.iter().any(|action| {
            matches!(action, Action::SendBlock { block, .. } if block.len_bytes() == count * 16 * 1024)
        });
        let rejected = scripted
            .sent
            .iter()
            .any(|message| matches!(message, Message::Reject { block: of, .. } if *of == block));
        assert_eq!((sent, rejected), (is_served, !is_served), "from {first} on");
    }
    assert_eq!(scripted.closed(), None);
}

/// A piece of a run that came from elsewhere meanwhile is counted as received twice; the rest of the run is taken.
// req: SWARM-4, SWARM-40
#[test]
fn rest_of_a_run_is_taken() {
    let mut scripted = Scripted::member(none(), false);
    scripted.bitfield(&full());
    let mut waiting: VecDeque<RawBlock> = scripted.requests().into();
    let run = loop {
        let block = waiting.pop_front().expect("runs come");
        if block.len_bytes > 16 * 1024 {
            break block;
        }
        scripted.block(block);
        let piece = geometry().piece_index(block.piece).expect("inside");
        scripted
            .engine
            .handle_verified(scripted.id, &[piece], scripted.now);
        scripted.gather();
        waiting.extend(scripted.requests());
    };
    let (engine, id) = (&mut scripted.engine, scripted.id);
    let first = geometry().piece_index(run.piece).expect("inside");
    let transfer = engine.transfers.get_mut(&id).expect("there");
    transfer.abandon(first, NEAR, &mut engine.shared);
    transfer.wanted.clear(first);
    transfer.have.set(first);
    scripted.others.clear();
    let duplicates = |scripted: &Scripted| {
        scripted.engine.stats(scripted.now)[0]
            .counts
            .duplicate_bytes
    };
    let before = duplicates(&scripted);
    scripted.block(run);
    assert_eq!(duplicates(&scripted), before + 16 * 1024);
    let written: Vec<u32> = scripted
        .others
        .iter()
        .filter_map(|action| match action {
            Action::Write { piece, .. } => Some(piece.get()),
            _ => None,
        })
        .collect();
    let count = run.len_bytes / (16 * 1024);
    assert_eq!(
        written,
        (run.piece + 1..run.piece + count).collect::<Vec<_>>()
    );
}
