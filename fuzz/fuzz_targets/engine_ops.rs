//! Two swarm engines that exchange a payload while the fuzzer cuts, delays, forges and fails.
//!
//! Each byte of the input is an operation: let a message through, connect, cut, let time pass, answer the
//! disk's part well or badly, forge a message of a proven peer from the bytes that follow. After each the
//! invariants of both engines hold: no piece in two states, none asked of two peers but in the endgame, no
//! bound exceeded; and once the fuzzer stops, the honest exchange still ends with the whole payload.
#![no_main]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use warren::payload::{
    AccessKey, Bitfield, BlockRange, Geometry, PayloadId, PieceBytes, PieceIndex, Priority,
};
use warren::swarm::wire::{self, Slot};
use warren::swarm::{
    Action, ChannelBinding, ConnId, Engine, Limits, Message, NodeId, Order, Role, Settings,
    TransferId, TransferState, UploadQuota, Want,
};

const SIZE_BYTES: u64 = 4 * LONG_PIECE_BYTES - 5;
/// Pieces of two blocks.
const LONG_PIECE_BYTES: u64 = 512 * 1024;
/// Pieces of which four are a block.
const SHORT_PIECE_BYTES: u64 = 64 * 1024;

/// What every block holds.
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

struct Host {
    engine: Engine,
    transfer: TransferId,
    held: Bitfield,
    /// The open connection, and what is on its way out over it.
    conn: Option<ConnId>,
    out: VecDeque<Message>,
    blocks: VecDeque<(ConnId, Slot, BlockRange)>,
    writes: VecDeque<PieceIndex>,
    dials: VecDeque<SocketAddr>,
}

struct Pair {
    hosts: [Host; 2],
    geometry: Geometry,
    now: Instant,
    next_conn: u64,
}

fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + host as u8], 5690))
}

impl Pair {
    fn new(origin: bool, piece_bytes: u64) -> Self {
        let now = Instant::now();
        let piece_bytes = PieceBytes::new(piece_bytes).expect("valid");
        let geometry = Geometry::new(SIZE_BYTES, piece_bytes).expect("valid");
        let host = |number: usize| {
            let settings = Settings {
                listen_port: Some(5690),
                ..Settings::default()
            };
            let id = [1 + number as u8; 32];
            let mut engine = Engine::new(settings, NodeId::from_bytes(id), id, now);
            let held = match number {
                0 => Bitfield::full(&geometry),
                _ => Bitfield::empty(&geometry),
            };
            let want = Want {
                payload: PayloadId::from_bytes([7; 32]),
                geometry,
                key: AccessKey::from_bytes([42; 32]),
                have: held.clone(),
                peers: vec![address(1 - number)],
                origin: origin && number == 0,
                order: Order::RarestFirst,
                limits: Limits::default(),
                priority: Priority::default(),
            };
            let transfer = engine.want(want, now).expect("new");
            Host {
                engine,
                transfer,
                held,
                conn: None,
                out: VecDeque::new(),
                blocks: VecDeque::new(),
                writes: VecDeque::new(),
                dials: VecDeque::new(),
            }
        };
        let mut pair = Self {
            hosts: [host(0), host(1)],
            geometry,
            now,
            next_conn: 0,
        };
        pair.settle();
        pair
    }

    fn settle(&mut self) {
        for number in 0..2 {
            while let Some(action) = self.hosts[number].engine.poll_action() {
                let host = &mut self.hosts[number];
                match action {
                    Action::Dial { address } => host.dials.push_back(address),
                    Action::Send { conn, message } if host.conn == Some(conn) => {
                        host.out.push_back(message);
                    }
                    Action::SendBlock {
                        conn, slot, block, ..
                    } if host.conn == Some(conn) => {
                        host.blocks.push_back((conn, slot, block));
                    }
                    Action::Close { conn, .. } if host.conn == Some(conn) => self.cut(number),
                    Action::Write { piece, blocks, .. } => {
                        let len: usize = blocks.iter().map(Bytes::len).sum();
                        let piece_bytes = self.geometry.piece_bytes().get() as usize;
                        let count = len.div_ceil(piece_bytes);
                        let from = self.geometry.pieces().skip_while(|it| *it != piece);
                        host.writes.extend(from.take(count));
                    }
                    Action::Completed { .. } => assert!(host.held.is_full()),
                    _ => {}
                }
            }
            if let Err(wrong) = self.hosts[number].engine.check() {
                panic!("{wrong}");
            }
        }
    }

    fn connect(&mut self, dialler: usize) {
        if self.hosts[0].conn.is_some() {
            return;
        }
        let plain = ChannelBinding::default();
        for (number, role) in [(dialler, Role::Dialler), (1 - dialler, Role::Listener)] {
            let conn = ConnId(self.next_conn);
            self.next_conn += 1;
            let host = &mut self.hosts[number];
            host.conn = Some(conn);
            let remote = address(1 - number);
            host.engine
                .handle_connected(conn, role, remote, plain, self.now);
        }
    }

    /// The connection breaks; `by` knows already.
    fn cut(&mut self, by: usize) {
        for number in [by, 1 - by] {
            let host = &mut self.hosts[number];
            host.out.clear();
            host.blocks.clear();
            if let Some(conn) = host.conn.take() {
                host.engine.handle_disconnected(conn, self.now);
            }
        }
    }

    fn say(&mut self, to: usize, message: Message) {
        let host = &mut self.hosts[to];
        if let Some(conn) = host.conn {
            host.engine.handle_message(conn, message, self.now);
        }
    }

    fn dial(&mut self, number: usize, reached: bool) {
        if let Some(to) = self.hosts[number].dials.pop_front() {
            if reached && to == address(1 - number) && self.hosts[number].conn.is_none() {
                self.connect(number);
            } else {
                self.hosts[number].engine.handle_dial_failed(to, self.now);
            }
        }
    }

    fn send_block(&mut self, from: usize) {
        let Some((conn, slot, block)) = self.hosts[from].blocks.pop_front() else {
            return;
        };
        self.hosts[from].engine.handle_block_sent(conn, self.now);
        let message = Message::Block {
            slot,
            piece: block.piece().get(),
            offset_bytes: block.offset_bytes(),
            bytes: Bytes::from_static(&ZEROS[..block.len_bytes() as usize]),
        };
        self.say(1 - from, message);
    }

    fn write(&mut self, number: usize, good: bool) {
        let host = &mut self.hosts[number];
        let Some(piece) = host.writes.pop_front() else {
            return;
        };
        if good {
            assert!(host.held.set(piece), "a piece is verified once");
            host.engine.handle_verified(host.transfer, &[piece], self.now);
        } else {
            host.engine.handle_bad(host.transfer, piece, self.now);
        }
    }

    /// Limits, a quota or none, while everything is under way.
    fn limit(&mut self, number: usize, choice: u8) {
        let rate = NonZeroU64::new(128 * 1024);
        let (now, host) = (self.now, &mut self.hosts[number]);
        let both = Limits {
            up: rate,
            down: rate,
        };
        match choice {
            0 => host.engine.set_limits(both, now),
            1 => host.engine.set_transfer_limits(host.transfer, both, now),
            2 => {
                let quota = UploadQuota {
                    day_bytes: Some(LONG_PIECE_BYTES),
                    total_bytes: None,
                };
                host.engine.set_quota(quota, now);
            }
            _ => self.unlimit(number),
        }
    }

    fn unlimit(&mut self, number: usize) {
        let (now, host) = (self.now, &mut self.hosts[number]);
        host.engine.set_limits(Limits::default(), now);
        host.engine.set_transfer_limits(host.transfer, Limits::default(), now);
        host.engine.set_quota(UploadQuota::default(), now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for host in &mut self.hosts {
            host.engine.handle_timeout(self.now);
        }
    }
}

// req: PEER-11
// req: PEER-12
// req: SWARM-4
fuzz_target!(|input: &[u8]| {
    let Some((&first, mut rest)) = input.split_first() else {
        return;
    };
    let piece_bytes = match first & 2 {
        0 => LONG_PIECE_BYTES,
        _ => SHORT_PIECE_BYTES,
    };
    let mut pair = Pair::new(first & 1 == 0, piece_bytes);
    let began = pair.now;
    let mut forged = false;
    while let Some((&operation, after)) = rest.split_first() {
        rest = after;
        let host = usize::from(operation & 1);
        match operation >> 1 & 15 {
            0 => pair.connect(host),
            1 if operation & 0x80 != 0 => pair.limit(host, operation >> 5 & 3),
            1 => pair.cut(host),
            2 => pair.dial(host, true),
            3 => pair.dial(host, false),
            4..=7 => {
                if let Some(message) = pair.hosts[host].out.pop_front() {
                    pair.say(1 - host, message);
                }
            }
            8..=9 => pair.send_block(host),
            10..=11 => pair.write(host, true),
            12 => {
                forged = true;
                pair.write(host, false);
            }
            13 => pair.pass(Duration::from_millis(u64::from(operation))),
            14 => pair.pass(Duration::from_secs(u64::from(operation >> 4))),
            _ => {
                let mut bytes = BytesMut::from(rest);
                if let Ok(Some(message)) = wire::decode(&mut bytes) {
                    forged = true;
                    rest = rest.get(rest.len() - bytes.len()..).unwrap_or_default();
                    pair.say(host, message);
                }
            }
        }
        pair.settle();
    }
    // Who is silent for long is rightly left alone.
    if !forged && pair.now < began + Duration::from_secs(9) {
        finish(&mut pair);
    }
});

/// Without forgery and bad pieces the exchange always ends with the whole payload.
fn finish(pair: &mut Pair) {
    for host in 0..2 {
        pair.unlimit(host);
        pair.settle();
    }
    for _ in 0..4_000 {
        for host in 0..2 {
            pair.dial(host, true);
            pair.settle();
            while let Some(message) = pair.hosts[host].out.pop_front() {
                pair.say(1 - host, message);
                pair.settle();
            }
            pair.send_block(host);
            pair.settle();
            pair.write(host, true);
            pair.settle();
        }
        let stats = pair.hosts[1].engine.stats(pair.now);
        if stats
            .iter()
            .all(|stats| stats.state == TransferState::Complete)
        {
            return;
        }
        pair.pass(Duration::from_millis(100));
        pair.settle();
    }
    panic!("stuck: {:?}", pair.hosts[1].engine.stats(pair.now));
}
