//! Hello, proofs, what is legal when, who is turned away.

use super::*;

/// Hello must come, once and first, and not from ourselves.
// req: PEER-2
// req: PEER-4
#[test]
fn hello_is_said_once_and_first() {
    let mut early = Scripted::new(full(), false);
    early.say(Message::Ping);
    assert_eq!(early.closed(), Some(PeerError::HelloOrder));
    let mut twice = Scripted::new(full(), false);
    twice.greet();
    let again = twice.peer.hello(Scripted::us(), &Settings::default());
    twice.say(Message::Hello(again));
    assert_eq!(twice.closed(), Some(PeerError::HelloOrder));
    let mut mirror = Scripted::new(full(), false);
    let own = Hello {
        takes_tls: false,
        node: NodeId::from_bytes([1; 32]),
        nonce: [1; 32],
        listen_port: 0,
        requests_max: 1,
        zone: None,
    };
    mirror.say(Message::Hello(own));
    assert_eq!(mirror.closed(), Some(PeerError::SelfConnection));
}

/// Silence before Hello ends after 5 s, later after 30 s, and an hour ends all; a quiet side pings.
// req: PEER-3
#[test]
fn silent_and_old_connections_are_closed() {
    let mut silent = Scripted::new(full(), false);
    silent.wait(HELLO_WAIT + Duration::from_secs(1));
    assert_eq!(silent.closed(), Some(PeerError::HelloTimeout));
    let mut idle = Scripted::member(full(), false);
    idle.wait(PING_AFTER + Duration::from_secs(1));
    assert!(idle.sent.contains(&Message::Ping));
    assert_eq!(idle.closed(), None);
    idle.wait(IDLE_MAX);
    assert_eq!(idle.closed(), Some(PeerError::Idle));
    let mut unproven = Scripted::new(full(), false);
    unproven.greet();
    for _ in 0..4 {
        unproven.say(Message::Ping);
        unproven.wait(PING_AFTER);
    }
    assert_eq!(unproven.closed(), Some(PeerError::Idle));
    let mut old = Scripted::member(full(), false);
    for _ in 0..=LIFETIME_MAX.as_secs() / PING_AFTER.as_secs() {
        old.say(Message::Ping);
        old.wait(PING_AFTER);
    }
    assert_eq!(old.closed(), Some(PeerError::Lifetime));
}

/// A wrong proof, one for another connection and one for an unknown payload get the same answer and nothing
/// else; the eighth ends the connection.
// req: PEER-6
// req: PEER-7
// req: PEER-8
#[test]
fn unproven_peer_hears_refusals_only() {
    let replayed = {
        let mut other = Scripted::new(full(), false);
        other.greet();
        let mut proof = other.proof();
        proof[0] ^= 1;
        proof
    };
    let mut scripted = Scripted::new(full(), false);
    scripted.greet();
    for number in 0..8 {
        assert_eq!(scripted.closed(), None);
        let payload = if number % 2 == 0 {
            PAYLOAD
        } else {
            PayloadId::from_bytes([1; 32])
        };
        scripted.say(Message::Join {
            slot: Slot(number),
            payload,
            proof: replayed,
        });
        let refused = Message::Refuse {
            payload,
            reason: Reason::Unknown,
        };
        assert_eq!(scripted.hear(), (number < 7).then_some(refused));
    }
    assert_eq!(scripted.closed(), Some(PeerError::RefusedTooOften));
    assert!(scripted.sent.is_empty());
}

/// Leaving is answered; a slot in between is silent, one that never was is a violation.
// req: PEER-9
#[test]
fn leave_is_answered_and_unknown_slots_end_the_connection() {
    let mut scripted = Scripted::member(full(), false);
    scripted.say(Message::Leave {
        slot: Slot(5),
        reason: Reason::Done,
    });
    assert!(matches!(scripted.hear(), Some(Message::Leave { .. })));
    let proof = scripted.proof();
    scripted.say(Message::Join {
        slot: Slot(6),
        payload: PAYLOAD,
        proof,
    });
    assert!(matches!(scripted.hear(), Some(Message::Join { .. })));
    scripted.engine.forget(scripted.id, scripted.now);
    scripted.gather();
    scripted.say(Message::Choke { slot: Slot(6) });
    assert_eq!(scripted.closed(), None);
    scripted.say(Message::Leave {
        slot: Slot(6),
        reason: Reason::Forgotten,
    });
    assert_eq!(scripted.closed(), None);
    scripted.say(Message::Choke { slot: Slot(6) });
    assert_eq!(scripted.closed(), Some(PeerError::SlotUnknown));
}

/// Bitfields of the wrong length, a second one, and pieces outside the payload are violations.
// req: PEER-10
#[test]
fn bitfields_and_piece_numbers_are_checked() {
    let cases = [
        (vec![0; 2], PeerError::BitfieldMalformed),
        (vec![0, 0, 1], PeerError::BitfieldMalformed),
    ];
    for (bits, expected) in cases {
        let mut scripted = Scripted::member(none(), false);
        scripted.say(Message::Bitfield {
            slot: Slot(5),
            giving: false,
            choked: false,
            bits: bits.into(),
        });
        assert_eq!(scripted.closed(), Some(expected));
    }
    let mut again = Scripted::member(none(), false);
    again.bitfield(&none());
    again.bitfield(&none());
    assert_eq!(again.closed(), Some(PeerError::BitfieldAgain));
    let mut outside = Scripted::member(none(), false);
    outside.bitfield(&none());
    outside.say(Message::Have {
        slot: Slot(5),
        pieces: vec![20],
    });
    assert_eq!(outside.closed(), Some(PeerError::PieceRange));
    let mut early = Scripted::member(none(), false);
    early.say(Message::Have {
        slot: Slot(5),
        pieces: vec![1],
    });
    assert_eq!(early.closed(), Some(PeerError::EarlyMessage));
}

/// Requests outside a piece or too many at once are violations; for what is not held they are rejected.
// req: PEER-11
#[test]
fn requests_are_checked() {
    let ask = |piece, offset_bytes, len_bytes| Message::Request {
        slot: Slot(5),
        block: RawBlock {
            piece,
            offset_bytes,
            len_bytes,
        },
    };
    for (piece, offset, len, expected) in [
        (20, 0, 1, PeerError::PieceRange),
        (0, 1, 16 * 1024, PeerError::BlockRange),
        (0, 0, 0, PeerError::BlockRange),
        (0, u32::MAX, 2, PeerError::BlockRange),
    ] {
        let mut scripted = Scripted::member(full(), false);
        scripted.say(ask(piece, offset, len));
        assert_eq!(scripted.closed(), Some(expected));
    }
    let mut empty = Scripted::member(none(), false);
    empty.say(ask(0, 0, 16 * 1024));
    assert!(matches!(empty.hear(), Some(Message::Reject { .. })));
    let mut greedy = Scripted::member(full(), false);
    let mut asked = 0;
    while greedy.closed().is_none() {
        asked += 1;
        assert!(asked < 100, "there is a bound");
        greedy.say(ask(asked % 20, 0, 16 * 1024));
    }
    assert_eq!(greedy.closed(), Some(PeerError::TooManyRequests));
}

/// A block that answers nothing ends the connection; each that was asked is verified once.
// req: PEER-12
// req: SWARM-11
#[test]
fn unasked_blocks_end_the_connection() {
    let mut scripted = Scripted::member(none(), false);
    scripted.bitfield(&full());
    let requests = scripted.requests();
    assert!(!requests.is_empty() && requests.len() <= 16);
    scripted.block(requests[0]);
    assert!(matches!(scripted.others.last(), Some(Action::Write { .. })));
    assert!(
        !scripted
            .sent
            .iter()
            .any(|message| matches!(message, Message::Have { .. }))
    );
    let piece = geometry().piece_index(requests[0].piece).expect("inside");
    scripted
        .engine
        .handle_verified(scripted.id, &[piece], scripted.now);
    scripted.gather();
    let have = Message::Have {
        slot: Slot(1),
        pieces: vec![piece.get()],
    };
    assert!(scripted.sent.contains(&have), "announced once verified");
    scripted.block(requests[0]);
    assert_eq!(scripted.closed(), Some(PeerError::AnsweredUnasked));
}

/// A choked peer's requests are rejected, and a peer that chokes us is not asked.
// req: PEER-13
#[test]
fn choked_peers_do_not_ask() {
    let mut scripted = Scripted::member(none(), false);
    scripted.say(Message::Bitfield {
        slot: Slot(5),
        giving: false,
        choked: true,
        bits: full().to_bytes().into(),
    });
    assert!(scripted.requests().is_empty());
    scripted.say(Message::Unchoke { slot: Slot(5) });
    assert!(!scripted.requests().is_empty());
    let mut server = Scripted::member(full(), false);
    let key = (server.id, NEAR);
    server
        .engine
        .choke(key, crate::swarm::transfer::Choked::Yes);
    server.gather();
    assert_eq!(server.hear(), Some(Message::Choke { slot: Slot(1) }));
    let block = RawBlock {
        piece: 0,
        offset_bytes: 0,
        len_bytes: 100,
    };
    server.say(Message::Request {
        slot: Slot(5),
        block,
    });
    assert_eq!(
        server.hear(),
        Some(Message::Reject {
            slot: Slot(1),
            block
        })
    );
}

/// Hints beyond sixteen a minute are ignored.
// req: PEER-14
#[test]
fn hints_are_limited_for_each_minute() {
    let mut scripted = Scripted::member(none(), false);
    for round in 0..4 {
        let addresses = (0..10)
            .map(|host| address(100 + 10 * round + host))
            .collect();
        scripted.say(Message::Peers {
            slot: Slot(5),
            addresses,
        });
    }
    let dials = |scripted: &Scripted| {
        scripted
            .others
            .iter()
            .filter(|action| matches!(action, Action::Dial { .. }))
            .count()
    };
    assert!(dials(&scripted) <= 8, "dialled under a budget");
    let mut failed = 0;
    while let Some(Action::Dial { address }) = scripted.others.pop() {
        failed += 1;
        scripted.engine.handle_dial_failed(address, scripted.now);
        scripted.gather();
        assert!(failed <= 16, "only what the minute allows is dialled");
    }
    assert_eq!(failed, 16);
}

/// A peer beyond the bound gets addresses and is turned away; some are kept at hand, the connections of the others
/// end when they have said goodbye.
// req: SWARM-9
#[test]
fn full_swarm_turns_away_with_addresses() {
    let now = Instant::now();
    let mut scripted = Scripted::new(full(), false);
    scripted.engine.shared.settings.neighbours_max = 0;
    scripted.greet();
    let proof = scripted.proof();
    scripted.say(Message::Join {
        slot: Slot(5),
        payload: PAYLOAD,
        proof,
    });
    assert!(matches!(scripted.hear(), Some(Message::Join { .. })));
    let full = Message::Leave {
        slot: Slot(1),
        reason: Reason::Full,
    };
    assert_eq!(scripted.hear(), Some(full));
    assert!(scripted.engine.stats(now)[0].peers.is_empty());
    let transfer = &scripted.engine.transfers[&scripted.id];
    assert_eq!(transfer.parked, [NEAR], "it is named to who comes next");
    // Had it not been kept, its goodbye would end the connection, so that those who come next find one.
    if let Some(peer) = scripted.engine.peers.get_mut(&NEAR) {
        peer.is_turned_away = true;
    }
    scripted.say(Message::Leave {
        slot: Slot(5),
        reason: Reason::Full,
    });
    assert_eq!(scripted.closed(), Some(PeerError::NoPlace));
    let transfer = &scripted.engine.transfers[&scripted.id];
    assert_eq!(transfer.parked, []);
}

/// A peer without a place proves the payload before it says so: that is no success, and it is asked after pauses that
/// grow. Once it has taken this node they begin anew.
// req: SWARM-9
#[test]
fn full_peer_is_asked_less_and_less_often() {
    let now = Instant::now();
    let mut engine = engine(1, now);
    let mut wanted = want(none(), false);
    wanted.peers = vec![address(9)];
    let id = engine.want(wanted, now).expect("new");
    let plain = ChannelBinding::default();
    engine.handle_connected(NEAR, Role::Dialler, address(9), plain, now);
    let mut scripted = Scripted {
        engine,
        peer: Peer::new(Role::Listener, address(1), plain, [9; 32], now),
        now,
        id,
        sent: VecDeque::new(),
        others: Vec::new(),
    };
    scripted.gather();
    scripted.greet();
    let mut slot = 0;
    // Takes the next proof, and turns the node away; when that was.
    let mut turn_away = |scripted: &mut Scripted, is_member: bool| {
        slot += 1;
        let is_join = |message: &Message| matches!(message, Message::Join { .. });
        while !scripted.sent.iter().any(is_join) {
            scripted.wait(Duration::from_millis(5));
        }
        let asked = scripted.now;
        scripted.sent.clear();
        let (slot, payload, proof) = (Slot(slot), PAYLOAD, scripted.proof());
        scripted.say(Message::Join {
            slot,
            payload,
            proof,
        });
        if is_member {
            scripted.say(Message::Bitfield {
                slot,
                giving: false,
                choked: false,
                bits: none().to_bytes().into(),
            });
        }
        let reason = Reason::Full;
        scripted.say(Message::Leave { slot, reason });
        scripted.sent.clear();
        asked
    };
    let slack = Duration::from_millis(5);
    for is_member in [false, true] {
        let mut before = turn_away(&mut scripted, is_member);
        for most in [100, 200, 400, 800, 1_000, 1_000].map(Duration::from_millis) {
            let asked = turn_away(&mut scripted, false);
            let pause = asked - before;
            assert!(
                pause >= most / 2 && pause <= most + slack,
                "{pause:?} of {most:?}"
            );
            before = asked;
        }
    }
}

/// A plain connection between two that speak TLS is closed, and so is one to a node that its key does not name.
// req: PEER-16
// req: PEER-17
#[test]
fn downgraded_and_misnamed_connections_are_closed() {
    let connect = |takes_tls, binding| {
        let mut scripted = Scripted::new(full(), false);
        scripted.engine.handle_disconnected(NEAR, scripted.now);
        scripted.engine.shared.settings.takes_tls = takes_tls;
        let (now, from) = (scripted.now, address(9));
        scripted
            .engine
            .handle_connected(NEAR, Role::Listener, from, binding, now);
        scripted.gather();
        scripted.sent.clear();
        let hello = Hello {
            takes_tls: true,
            node: Scripted::us(),
            nonce: [9; 32],
            listen_port: 0,
            requests_max: 16,
            zone: None,
        };
        scripted.say(Message::Hello(hello));
        scripted.closed()
    };
    let plain = ChannelBinding::default();
    let to = |node: NodeId| ChannelBinding::tls([3; 32], node);
    assert_eq!(connect(false, plain), None, "one side has no TLS");
    assert_eq!(connect(true, plain), Some(PeerError::Downgraded));
    assert_eq!(connect(true, to(Scripted::us())), None);
    let other = NodeId::from_bytes([8; 32]);
    assert_eq!(connect(true, to(other)), Some(PeerError::NodeIdentity));
}

/// A proof holds on the connection that it was made for: not beside TLS, not with another exporter, and not if what
/// the sides said of TLS was changed on the way.
// req: PEER-8
// req: PEER-17
#[test]
fn proofs_are_bound_to_the_transport() {
    let now = Instant::now();
    let (near, far) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
    let key = AccessKey::from_bytes([42; 32]);
    let side = |us: NodeId, them: NodeId, role, binding, words: (bool, bool)| {
        let mut peer = Peer::new(role, address(1), binding, *us.as_bytes(), now);
        peer.takes_tls = words.0;
        let hello = Hello {
            takes_tls: words.1,
            node: them,
            nonce: *them.as_bytes(),
            listen_port: 0,
            requests_max: 16,
            zone: None,
        };
        peer.open(hello, &us).expect("a hello");
        peer
    };
    let plain = ChannelBinding::default();
    let dialler = |binding, words| side(near, far, Role::Dialler, binding, words);
    let listener = |binding, words| side(far, near, Role::Listener, binding, words);
    let proof = |peer: Peer| peer.our_proof(&near, &key, &PAYLOAD).expect("greeted");
    let holds = |peer: Peer, proof| peer.verifies(&far, &key, &PAYLOAD, &proof);
    let tls = |exporter: u8, to| ChannelBinding::tls([exporter; 32], to);
    assert!(holds(
        listener(plain, (false, false)),
        proof(dialler(plain, (false, false)))
    ));
    assert!(holds(
        listener(plain, (true, false)),
        proof(dialler(plain, (false, true)))
    ));
    assert!(!holds(
        listener(plain, (true, false)),
        proof(dialler(plain, (false, false)))
    ));
    assert!(!holds(
        listener(plain, (false, false)),
        proof(dialler(plain, (true, false)))
    ));
    assert!(holds(
        listener(tls(3, near), (true, true)),
        proof(dialler(tls(3, far), (true, true)))
    ));
    assert!(!holds(
        listener(tls(4, near), (true, true)),
        proof(dialler(tls(3, far), (true, true)))
    ));
    assert!(!holds(
        listener(plain, (false, true)),
        proof(dialler(tls(3, far), (true, false)))
    ));
}
