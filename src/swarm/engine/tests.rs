//! Two or three engines side by side, their messages carried by hand on a made-up clock.

mod connections;
mod ending;
mod pieces;

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

    /// Answers up to `count` requests well, one after another and so slowly that each is for one piece; all that was
    /// asked for.
    fn serve(&mut self, count: usize) -> Vec<RawBlock> {
        let mut asked = Vec::new();
        let mut waiting: VecDeque<RawBlock> = self.requests().into();
        while let Some(block) = waiting.pop_front() {
            asked.push(block);
            if asked.len() > count {
                break;
            }
            self.now += Duration::from_millis(20);
            self.block(block);
            let piece = geometry().piece_index(block.piece).expect("inside");
            self.engine.handle_verified(self.id, &[piece], self.now);
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
