//! Two or three engines side by side, their messages carried by hand on a made-up clock.

use std::collections::VecDeque;
use std::time::Duration;

use super::*;
use crate::payload::PieceBytes;
use crate::swarm::limits::{
    HAVE_DELAY_MAX, HAVE_DELAY_MIN, HELLO_WAIT, IDLE_MAX, LIFETIME_MAX, PING_AFTER,
};
use crate::swarm::wire::{Hello, RawBlock};

const PAYLOAD: PayloadId = PayloadId::from_bytes([7; 32]);
const NEAR: ConnId = ConnId(1);

fn geometry() -> Geometry {
    let piece_bytes = PieceBytes::new(16 * 1024).expect("valid");
    Geometry::new(16 * 1024 * 20, piece_bytes).expect("valid")
}

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 5690))
}

fn want(have: Bitfield, origin: bool) -> Want {
    Want {
        payload: PAYLOAD,
        geometry: geometry(),
        key: AccessKey::from_bytes([42; 32]),
        have,
        peers: Vec::new(),
        origin,
        order: Order::RarestFirst,
        limits: Limits::default(),
        priority: Priority::default(),
    }
}

fn engine(id: u8, now: Instant) -> Engine {
    let settings = Settings {
        listen_port: Some(5690),
        ..Settings::default()
    };
    Engine::new(settings, NodeId::from_bytes([id; 32]), [id; 32], now)
}

/// An engine that the test talks to as a peer, message by message.
struct Scripted {
    engine: Engine,
    peer: Peer,
    now: Instant,
    id: TransferId,
    sent: VecDeque<Message>,
    others: Vec<Action>,
}

impl Scripted {
    /// The engine holds `have` of the payload; the test dialled it and has said nothing.
    fn new(have: Bitfield, origin: bool) -> Self {
        let now = Instant::now();
        let mut engine = engine(1, now);
        let id = engine.want(want(have, origin), now).expect("new");
        let plain = ChannelBinding::default();
        engine.handle_connected(NEAR, Role::Listener, address(9), plain, now);
        let peer = Peer::new(Role::Dialler, address(1), plain, [9; 32], now);
        let mut scripted = Self {
            engine,
            peer,
            now,
            id,
            sent: VecDeque::new(),
            others: Vec::new(),
        };
        scripted.gather();
        scripted
    }

    /// The same, with both proofs exchanged and the engine's bitfield read.
    fn member(have: Bitfield, origin: bool) -> Self {
        let mut scripted = Self::new(have, origin);
        scripted.greet();
        let proof = scripted.proof();
        scripted.say(Message::Join {
            slot: Slot(5),
            payload: PAYLOAD,
            proof,
        });
        assert!(matches!(scripted.hear(), Some(Message::Join { .. })));
        assert!(matches!(scripted.hear(), Some(Message::Bitfield { .. })));
        scripted
    }

    fn us() -> NodeId {
        NodeId::from_bytes([9; 32])
    }

    fn greet(&mut self) {
        let Some(Message::Hello(hello)) = self.hear() else {
            panic!("hello comes first");
        };
        self.peer.open(hello, &Self::us()).expect("a hello");
        let hello = self.peer.hello(Self::us(), &Settings::default());
        self.say(Message::Hello(hello));
    }

    fn proof(&self) -> [u8; 32] {
        let key = AccessKey::from_bytes([42; 32]);
        self.peer
            .our_proof(&Self::us(), &key, &PAYLOAD)
            .expect("greeted")
    }

    fn say(&mut self, message: Message) {
        self.engine.handle_message(NEAR, message, self.now);
        self.gather();
        self.engine.check().expect("invariants hold");
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.engine.poll_timeout().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.engine.handle_timeout(self.now);
            self.gather();
        }
        self.now = until;
    }

    fn gather(&mut self) {
        while let Some(action) = self.engine.poll_action() {
            match action {
                Action::Send { message, .. } => self.sent.push_back(message),
                other => self.others.push(other),
            }
        }
    }

    fn hear(&mut self) -> Option<Message> {
        self.sent.pop_front()
    }

    fn closed(&self) -> Option<PeerError> {
        self.others.iter().find_map(|action| match action {
            Action::Close { reason, .. } => Some(*reason),
            _ => None,
        })
    }

    fn bitfield(&mut self, have: &Bitfield) {
        let bits = have.to_bytes().into();
        self.say(Message::Bitfield {
            slot: Slot(5),
            giving: false,
            choked: false,
            bits,
        });
    }

    fn block(&mut self, block: RawBlock) {
        let bytes = vec![0; block.len_bytes as usize].into();
        let (piece, offset_bytes) = (block.piece, block.offset_bytes);
        self.say(Message::Block {
            slot: Slot(5),
            piece,
            offset_bytes,
            bytes,
        });
    }

    /// Answers up to `count` requests well, one after another; all that was asked for.
    fn serve(&mut self, count: usize) -> Vec<RawBlock> {
        let mut asked = Vec::new();
        let mut waiting: VecDeque<RawBlock> = self.requests().into();
        while let Some(block) = waiting.pop_front() {
            asked.push(block);
            if asked.len() > count {
                break;
            }
            self.block(block);
            let piece = geometry().piece_index(block.piece).expect("inside");
            self.engine.handle_verified(self.id, piece, self.now);
            self.gather();
            let sent = self.sent.iter().filter_map(|message| match message {
                Message::Request { block, .. } => Some(*block),
                _ => None,
            });
            waiting.extend(sent);
            self.sent
                .retain(|message| !matches!(message, Message::Request { .. }));
        }
        asked
    }

    fn requests(&mut self) -> Vec<RawBlock> {
        let mut requests = Vec::new();
        while let Some(message) = self.hear() {
            if let Message::Request { block, .. } = message {
                requests.push(block);
            }
        }
        requests
    }
}

fn full() -> Bitfield {
    Bitfield::full(&geometry())
}

fn none() -> Bitfield {
    Bitfield::empty(&geometry())
}

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
        .handle_verified(scripted.id, piece, scripted.now);
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

/// A peer beyond the bound gets addresses and is turned away.
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
        .handle_verified(scripted.id, piece, scripted.now);
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
