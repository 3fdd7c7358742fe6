//! A made-up network of swarm engines: rates and latency for each node, hosts that lie, stall and vanish.
//!
//! Blocks leave a node one after another at its upload rate, reach the other after the latency, and
//! enter one after another at its download rate. Messages of one connection keep their order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use warren::payload::{AccessKey, Bitfield, Geometry, PayloadId, PieceIndex, Priority};
use warren::swarm::wire::{RawBlock, Slot};
use warren::swarm::{
    Action, ChannelBinding, ConnId, Engine, Limits, Message, NodeId, Order, Role, Settings,
    TransferId, TransferState, Want,
};

/// A block that is longer than this on its way takes no place in the downlink of whom it goes to.
const SLOW_SENDER: Duration = Duration::from_secs(1);

static GOOD: [u8; 256 * 1024] = [0; 256 * 1024];
static BAD: [u8; 256 * 1024] = [1; 256 * 1024];

/// How a node behaves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Conduct {
    /// As the protocol wants it.
    Honest,
    /// Every block it sends is wrong.
    WrongBytes,
    /// It takes requests and never answers.
    Stalls,
    /// It claims to hold everything.
    Lies,
    /// It has another key.
    WrongKey,
    /// It has another key, and shows proofs that it heard from others.
    Replays,
    /// It claims to hold everything and sends a block every few seconds.
    Trickles,
    /// It hangs up when it is asked for something.
    Vanishes,
    /// It repeats what it says a hundred times and asks for all blocks at once.
    Floods,
    /// It sends blocks that nobody asked for.
    Unasked,
    /// Its bitfield is too long.
    Oversized,
    /// It names pieces that there are not, offers what it has not, and says everything out of turn.
    Garbage,
    /// It tells of addresses where nobody is, and of victims outside the swarm.
    Poisons,
}

/// One host.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) conduct: Conduct,
    pub(crate) alive: bool,
    pub(crate) completed: Option<Instant>,
    pub(crate) transfer: Option<TransferId>,
    /// Pieces that passed verification, as the disk has them.
    pub(crate) held: Bitfield,
    pub(crate) control_messages: u64,
    /// It has no listener.
    pub(crate) outbound_only: bool,
    /// Its zone's number, and bytes that came to it from other zones.
    pub(crate) zone: Option<u8>,
    pub(crate) imported_bytes: u64,
    up_bytes_per_second: f64,
    down_bytes_per_second: f64,
    up_free: Instant,
    down_free: Instant,
    timer: Option<Instant>,
}

enum Event {
    Message {
        host: usize,
        conn: ConnId,
        message: Message,
    },
    Sent {
        host: usize,
        conn: ConnId,
    },
    Gone {
        host: usize,
        conn: ConnId,
    },
    Dialled {
        host: usize,
        address: SocketAddr,
    },
    Written {
        host: usize,
        transfer: TransferId,
        piece: PieceIndex,
        good: bool,
    },
    Timer {
        host: usize,
    },
}

struct Link {
    other: usize,
    other_conn: ConnId,
    /// When the last message to the other side arrives.
    arrival: Instant,
}

/// All hosts and what is on its way between them.
pub(crate) struct Network {
    pub(crate) now: Instant,
    pub(crate) began: Instant,
    pub(crate) hosts: Vec<Host>,
    pub(crate) geometry: Geometry,
    pub(crate) steps: u64,
    /// Check an engine's invariants after every so many of its steps.
    pub(crate) check_every: u64,
    latency: Duration,
    links: BTreeMap<(usize, ConnId), Link>,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    next_conn: u64,
    random: u64,
    /// Proofs that hostile hosts heard.
    heard_proofs: Vec<[u8; 32]>,
    /// Dials of addresses where nobody is, for each host.
    pub(crate) vain_dials: BTreeMap<usize, u64>,
}

pub(crate) fn address(host: usize) -> SocketAddr {
    let [.., high, low] = (host as u32).to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 5690))
}

fn host_at(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(v4) => {
            let [_, _, high, low] = v4.ip().octets();
            usize::from(high) << 8 | usize::from(low)
        }
        SocketAddr::V6(_) => usize::MAX,
    }
}

pub(crate) const PAYLOAD: [u8; 32] = [7; 32];

impl Network {
    pub(crate) fn new(geometry: Geometry, latency: Duration, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            now,
            began: now,
            hosts: Vec::new(),
            geometry,
            steps: 0,
            check_every: 1,
            latency,
            links: BTreeMap::new(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            next_conn: 0,
            random: seed,
            heard_proofs: Vec::new(),
            vain_dials: BTreeMap::new(),
        }
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.random ^ (self.random >> 29)
    }

    /// Adds a host with these rates in bytes per second.
    pub(crate) fn add_host(&mut self, up: f64, down: f64, conduct: Conduct) -> usize {
        self.add_host_with(up, down, conduct, Settings::default())
    }

    /// Adds a host that nobody can dial.
    pub(crate) fn add_outbound_host(&mut self, up: f64, down: f64) -> usize {
        let host = self.add_host(up, down, Conduct::Honest);
        self.hosts[host].outbound_only = true;
        self.hosts[host].engine.set_listen_port(None);
        host
    }

    /// Adds a host that may know its zone.
    pub(crate) fn add_host_in(&mut self, up: f64, down: f64, zone: u8, knows: bool) -> usize {
        let label = format!("zone-{zone}").parse().expect("a label");
        let settings = Settings {
            zone: knows.then_some(label),
            ..Settings::default()
        };
        let host = self.add_host_with(up, down, Conduct::Honest, settings);
        self.hosts[host].zone = Some(zone);
        host
    }

    /// Adds a host with these rates and settings.
    pub(crate) fn add_host_with(
        &mut self,
        up: f64,
        down: f64,
        conduct: Conduct,
        settings: Settings,
    ) -> usize {
        let number = self.hosts.len();
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.random().to_be_bytes());
        id[8..16].copy_from_slice(&(number as u64).to_be_bytes());
        let engine = self.engine(id, settings);
        self.hosts.push(Host {
            engine,
            conduct,
            alive: true,
            completed: None,
            transfer: None,
            held: Bitfield::empty(&self.geometry),
            control_messages: 0,
            outbound_only: false,
            zone: None,
            imported_bytes: 0,
            up_bytes_per_second: up,
            down_bytes_per_second: down,
            up_free: self.now,
            down_free: self.now,
            timer: None,
        });
        number
    }

    fn engine(&mut self, id: [u8; 32], settings: Settings) -> Engine {
        let settings = Settings {
            listen_port: Some(5690),
            ..settings
        };
        let mut seed = id;
        seed[16..24].copy_from_slice(&self.random().to_be_bytes());
        Engine::new(settings, NodeId::from_bytes(id), seed, self.now)
    }

    /// The host learns of the payload, from `peers`.
    pub(crate) fn want(&mut self, host: usize, peers: &[usize], origin: bool) {
        self.want_with(host, peers, origin, |_| {});
    }

    /// The same, with other wishes: another payload id for a host that serves several, limits, an order.
    pub(crate) fn want_with(
        &mut self,
        host: usize,
        peers: &[usize],
        origin: bool,
        change: impl FnOnce(&mut Want),
    ) -> TransferId {
        let now = self.now;
        let it = &mut self.hosts[host];
        if origin {
            it.held = Bitfield::full(&self.geometry);
        }
        let key = match it.conduct {
            Conduct::WrongKey | Conduct::Replays => [66; 32],
            _ => [42; 32],
        };
        let mut want = Want {
            payload: PayloadId::from_bytes(PAYLOAD),
            geometry: self.geometry,
            key: AccessKey::from_bytes(key),
            have: it.held.clone(),
            peers: peers.iter().map(|peer| address(*peer)).collect(),
            origin,
            order: Order::RarestFirst,
            limits: Limits::default(),
            priority: Priority::default(),
        };
        change(&mut want);
        let transfer = it.engine.want(want, now).expect("a new payload");
        it.transfer = Some(transfer);
        self.settle(host);
        transfer
    }

    /// Does something with a host's engine, and what follows from it.
    pub(crate) fn on<T>(&mut self, host: usize, work: impl FnOnce(&mut Engine, Instant) -> T) -> T {
        let result = work(&mut self.hosts[host].engine, self.now);
        self.settle(host);
        result
    }

    /// The host dies at once, without a word; what it verified stays on its disk.
    pub(crate) fn kill(&mut self, host: usize) {
        self.hosts[host].alive = false;
        let conns: Vec<ConnId> = self
            .links
            .range((host, ConnId(0))..=(host, ConnId(u64::MAX)))
            .map(|((_, conn), _)| *conn)
            .collect();
        for conn in conns {
            self.unlink(host, conn);
        }
    }

    /// A killed host comes back with its disk and an empty memory.
    pub(crate) fn restart(&mut self, host: usize, peers: &[usize]) {
        let id = *self.hosts[host].engine.node().as_bytes();
        let engine = self.engine(id, Settings::default());
        let it = &mut self.hosts[host];
        it.engine = engine;
        it.alive = true;
        it.completed = None;
        it.timer = None;
        it.up_free = self.now;
        it.down_free = self.now;
        self.want(host, peers, false);
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        let number = self.next_event;
        self.next_event += 1;
        self.queue.push(Reverse((at, number)));
        self.events.insert(number, event);
    }

    fn link(&mut self, dialler: usize, listener: usize) {
        let (near, far) = (ConnId(self.next_conn), ConnId(self.next_conn + 1));
        self.next_conn += 2;
        for (host, conn, other, other_conn) in [
            (dialler, near, listener, far),
            (listener, far, dialler, near),
        ] {
            let arrival = self.now;
            let link = Link {
                other,
                other_conn,
                arrival,
            };
            self.links.insert((host, conn), link);
        }
        let now = self.now;
        let plain = ChannelBinding::default();
        let (to, mut from) = (address(listener), address(dialler));
        from.set_port(40_000);
        self.hosts[dialler]
            .engine
            .handle_connected(near, Role::Dialler, to, plain, now);
        self.hosts[listener]
            .engine
            .handle_connected(far, Role::Listener, from, plain, now);
        self.settle(dialler);
        self.settle(listener);
    }

    fn unlink(&mut self, host: usize, conn: ConnId) {
        let Some(link) = self.links.remove(&(host, conn)) else {
            return;
        };
        let at = (self.now + self.latency).max(link.arrival);
        let gone = Event::Gone {
            host: link.other,
            conn: link.other_conn,
        };
        self.schedule(at, gone);
    }

    /// Does one thing; answers whether there was one before `until`.
    pub(crate) fn step(&mut self, until: Instant) -> bool {
        let Some(Reverse((at, number))) = self.queue.peek().copied() else {
            return false;
        };
        if at > until {
            self.now = until;
            return false;
        }
        self.queue.pop();
        self.now = at;
        self.steps += 1;
        let event = self.events.remove(&number).expect("scheduled");
        let now = self.now;
        let host = match event {
            Event::Message {
                host,
                conn,
                message,
            } => {
                if self.links.contains_key(&(host, conn)) {
                    self.hosts[host].engine.handle_message(conn, message, now);
                }
                host
            }
            Event::Sent { host, conn } => {
                self.hosts[host].engine.handle_block_sent(conn, now);
                host
            }
            Event::Gone { host, conn } => {
                if self.links.remove(&(host, conn)).is_some() {
                    self.hosts[host].engine.handle_disconnected(conn, now);
                }
                host
            }
            Event::Dialled { host, address } => {
                let other = host_at(address);
                let there = self
                    .hosts
                    .get(other)
                    .is_some_and(|other| other.alive && !other.outbound_only);
                if !self.hosts[host].alive {
                } else if there {
                    self.link(host, other);
                } else {
                    if other >= self.hosts.len() {
                        *self.vain_dials.entry(host).or_default() += 1;
                    }
                    self.hosts[host].engine.handle_dial_failed(address, now);
                }
                host
            }
            Event::Written {
                host,
                transfer,
                piece,
                good,
            } => {
                let it = &mut self.hosts[host];
                if it.alive {
                    if good {
                        assert!(it.held.set(piece), "a piece is verified once");
                        it.engine.handle_verified(transfer, piece, now);
                    } else {
                        it.engine.handle_bad(transfer, piece, now);
                    }
                }
                host
            }
            Event::Timer { host } => {
                let it = &mut self.hosts[host];
                it.timer = None;
                it.engine.handle_timeout(now);
                host
            }
        };
        if self.hosts[host].alive {
            self.settle(host);
            if self.steps.is_multiple_of(self.check_every)
                && let Err(wrong) = self.hosts[host].engine.check()
            {
                panic!("host {host}, step {}: {wrong}", self.steps);
            }
        }
        true
    }

    /// Does what a host's engine wants done, and sets its timer.
    fn settle(&mut self, host: usize) {
        while let Some(action) = self.hosts[host].engine.poll_action() {
            self.act(host, action);
        }
        let wanted = self.hosts[host].engine.poll_timeout();
        let it = &mut self.hosts[host];
        if let Some(at) = wanted
            && it.timer.is_none_or(|timer| at < timer)
        {
            let at = at.max(self.now);
            it.timer = Some(at);
            self.schedule(at, Event::Timer { host });
        }
    }

    fn act(&mut self, host: usize, action: Action) {
        let now = self.now;
        match action {
            Action::Dial { address } => {
                self.schedule(now + self.latency * 2, Event::Dialled { host, address });
            }
            Action::Send { conn, message } => {
                self.hosts[host].control_messages += 1;
                for message in self.distort(host, message) {
                    self.deliver(host, conn, message, now + self.latency);
                }
            }
            Action::SendBlock {
                conn, slot, block, ..
            } => {
                match self.hosts[host].conduct {
                    Conduct::Stalls => {
                        self.schedule(now, Event::Sent { host, conn });
                        return;
                    }
                    Conduct::Vanishes => {
                        self.unlink(host, conn);
                        self.hosts[host].engine.handle_disconnected(conn, now);
                        return;
                    }
                    _ => {}
                }
                let bytes = match self.hosts[host].conduct {
                    Conduct::WrongBytes => &BAD[..block.len_bytes() as usize],
                    _ => &GOOD[..block.len_bytes() as usize],
                };
                let len = f64::from(block.len_bytes());
                let it = &mut self.hosts[host];
                let sent =
                    it.up_free.max(now) + Duration::from_secs_f64(len / it.up_bytes_per_second);
                it.up_free = sent;
                self.schedule(sent, Event::Sent { host, conn });
                let message = Message::Block {
                    slot,
                    piece: block.piece().get(),
                    offset_bytes: block.offset_bytes(),
                    bytes: Bytes::from_static(bytes),
                };
                let Some(link) = self.links.get(&(host, conn)) else {
                    return;
                };
                let zone = self.hosts[host].zone;
                let other = &mut self.hosts[link.other];
                if zone.is_some() && other.zone.is_some() && zone != other.zone {
                    other.imported_bytes += u64::from(block.len_bytes());
                }
                let enter = Duration::from_secs_f64(len / other.down_bytes_per_second);
                let reaches = sent + self.latency;
                let arrival = if reaches > now + SLOW_SENDER {
                    // It enters in good time; others must not wait behind what is not there yet.
                    reaches
                } else {
                    other.down_free = reaches.max(other.down_free + enter);
                    other.down_free
                };
                self.deliver(host, conn, message, arrival);
            }
            Action::Close { conn, .. } => self.unlink(host, conn),
            Action::Write {
                transfer,
                piece,
                blocks,
            } => {
                let good = blocks.iter().all(|block| block.first() == Some(&0));
                let len: usize = blocks.iter().map(Bytes::len).sum();
                assert_eq!(len, self.geometry.piece_len_bytes(piece) as usize);
                let written = Event::Written {
                    host,
                    transfer,
                    piece,
                    good,
                };
                self.schedule(now + Duration::from_millis(1), written);
            }
            Action::Completed { .. } => {
                let it = &mut self.hosts[host];
                assert!(it.held.is_full(), "completed with pieces missing");
                it.completed = Some(now);
            }
            Action::Banned { .. } => {}
        }
    }

    /// What a host really sends where its engine means `message`.
    fn distort(&mut self, host: usize, message: Message) -> Vec<Message> {
        let full = Bytes::from(Bitfield::full(&self.geometry).to_bytes());
        let all = |slot| Message::Bitfield {
            slot,
            giving: false,
            choked: false,
            bits: full.clone(),
        };
        match (self.hosts[host].conduct, message) {
            (
                Conduct::Lies
                | Conduct::WrongBytes
                | Conduct::Stalls
                | Conduct::Trickles
                | Conduct::Vanishes,
                Message::Bitfield { slot, .. },
            ) => vec![all(slot)],
            (
                Conduct::Replays,
                Message::Join {
                    slot,
                    payload,
                    proof,
                },
            ) => {
                let pick = self.random() as usize;
                let heard = self.heard_proofs.get(pick % self.heard_proofs.len().max(1));
                let proof = heard.copied().unwrap_or(proof);
                vec![Message::Join {
                    slot,
                    payload,
                    proof,
                }]
            }
            (Conduct::Floods, Message::Bitfield { slot, .. }) => {
                let requests = self.geometry.pieces().take(100).map(|piece| {
                    let block = self.geometry.blocks(piece).next().expect("a block");
                    let block = RawBlock {
                        piece: piece.get(),
                        offset_bytes: 0,
                        len_bytes: block.len_bytes(),
                    };
                    Message::Request { slot, block }
                });
                let haves = (0..100).map(|_| Message::Have {
                    slot,
                    pieces: (0..self.geometry.piece_count()).collect(),
                });
                [all(slot)]
                    .into_iter()
                    .chain(haves)
                    .chain(requests)
                    .collect()
            }
            (Conduct::Floods, message) => vec![message, Message::Ping, Message::Ping],
            (Conduct::Unasked, Message::Bitfield { slot, .. }) => vec![
                all(slot),
                Message::Block {
                    slot,
                    piece: 0,
                    offset_bytes: 0,
                    bytes: Bytes::from_static(&BAD[..16 * 1024]),
                },
            ],
            (Conduct::Oversized, Message::Bitfield { slot, .. }) => vec![Message::Bitfield {
                slot,
                giving: false,
                choked: false,
                bits: Bytes::from(vec![0xff; 8192]),
            }],
            (Conduct::Garbage, Message::Bitfield { slot, .. }) => {
                let beyond = vec![self.geometry.piece_count() + 7];
                match self.random() % 4 {
                    0 => vec![Message::Have {
                        slot,
                        pieces: vec![0],
                    }],
                    1 => vec![
                        all(slot),
                        Message::Offer {
                            slot,
                            pieces: beyond,
                        },
                    ],
                    2 => vec![all(slot), all(slot)],
                    _ => vec![
                        all(slot),
                        Message::Have {
                            slot: Slot(4_711),
                            pieces: beyond,
                        },
                    ],
                }
            }
            (Conduct::Poisons, Message::Bitfield { slot, .. }) => {
                let mut addresses = Vec::new();
                for number in 0..16 {
                    let nobody = 2_000 + (self.random() % 60_000) as usize;
                    addresses.push(address(nobody + number));
                }
                let told = |slot| Message::Peers {
                    slot,
                    addresses: addresses.clone(),
                };
                vec![all(slot), told(slot), told(slot)]
            }
            (_, message) => vec![message],
        }
    }

    fn deliver(&mut self, host: usize, conn: ConnId, message: Message, at: Instant) {
        let Some(link) = self.links.get_mut(&(host, conn)) else {
            return;
        };
        let at = at.max(link.arrival);
        link.arrival = at;
        if let Message::Join { proof, .. } = &message
            && self.hosts[link.other].conduct == Conduct::Replays
        {
            self.heard_proofs.push(*proof);
        }
        let event = Event::Message {
            host: link.other,
            conn: link.other_conn,
            message,
        };
        self.schedule(at, event);
    }

    /// Whether every honest host that is up has the whole payload.
    pub(crate) fn all_complete(&self) -> bool {
        self.hosts
            .iter()
            .filter(|host| host.conduct == Conduct::Honest && host.alive)
            .all(|host| host.completed.is_some())
    }

    /// Runs until every honest host is complete; the time since the beginning, `None` if `limit` passed.
    pub(crate) fn run(&mut self, limit: Duration) -> Option<Duration> {
        let until = self.began + limit;
        while !self.all_complete() {
            if !self.step(until) {
                return None;
            }
        }
        Some(self.now - self.began)
    }

    /// Runs for a while.
    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Bytes that the host's engine says it sent.
    pub(crate) fn uploaded(&self, host: usize) -> u64 {
        self.hosts[host]
            .engine
            .stats(self.now)
            .iter()
            .map(|stats| stats.counts.up_bytes)
            .sum()
    }

    /// What is wrong, for a failing test: who lacks how much.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for (number, host) in self.hosts.iter().enumerate() {
            let stats = host.engine.stats(self.now);
            let Some(stats) = stats.first() else { continue };
            if host.conduct == Conduct::Honest && stats.state != TransferState::Complete {
                text += &format!(
                    "host {number}: {}/{} pieces, {} peers, alive {}\n",
                    stats.pieces_held,
                    stats.piece_count,
                    stats.peers.len(),
                    host.alive
                );
                for peer in &stats.peers {
                    text += &format!("   {peer:?}\n");
                }
            }
        }
        text
    }
}
