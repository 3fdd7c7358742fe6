//! A made-up network of swarm engines: rates and latency for each node, hosts that lie, stall and vanish.
//!
//! Blocks leave a node one after another at its upload rate, reach the other after the latency, and
//! enter one after another at its download rate. Messages of one connection keep their order.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use warren::payload::{AccessKey, Bitfield, Geometry, PayloadId, PieceIndex, Priority};
use warren::swarm::{
    Action, ChannelBinding, ConnId, Engine, Limits, Message, NodeId, Order, Role, Settings,
    TransferId, TransferState, Want,
};

use crate::hostile::Conduct;
use crate::trace::Trace;

/// A host that has so many connections takes no more, as `server::peer` does.
const CONNECTIONS_MAX: usize = 256;
/// A block that is longer than this on its way takes no place in the downlink of whom it goes to.
const SLOW_SENDER: Duration = Duration::from_secs(1);

static GOOD: [u8; 256 * 1024] = [0; 256 * 1024];
pub(crate) static BAD: [u8; 256 * 1024] = [1; 256 * 1024];

/// One host.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) conduct: Conduct,
    pub(crate) alive: bool,
    pub(crate) completed: Option<Instant>,
    pub(crate) transfer: Option<TransferId>,
    /// Pieces that passed verification, as the disk has them.
    pub(crate) held: Bitfield,
    /// Messages that it sent, blocks not counted, and all that it heard.
    pub(crate) control_messages: u64,
    pub(crate) heard_messages: u64,
    /// The most connections that it had at a time.
    pub(crate) links_most: usize,
    /// Dials of its that led to nobody who takes connections.
    pub(crate) refused_dials: u64,
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
    links: BTreeMap<ConnId, Link>,
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

/// An event in the queue of all: the earliest is the greatest, of equal ones the one that was scheduled first.
struct Scheduled {
    at: Instant,
    number: u64,
    event: Event,
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

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
    /// What is said waits behind the blocks that were handed to sockets before it.
    pub(crate) messages_wait: bool,
    /// How busy uplinks were, if that is asked for.
    pub(crate) trace: Option<Trace>,
    /// What a downlink's queue holds at most, in time: a block that finds no place there stays with its sender, and so among
    /// what the sender's sockets hold, while other blocks pass it.
    pub(crate) downlink_queue: Option<Duration>,
    latency: Duration,
    queue: BinaryHeap<Scheduled>,
    next_event: u64,
    next_conn: u64,
    /// No host has completed or died since this was set.
    is_settled: bool,
    random: u64,
    /// Proofs that hostile hosts heard.
    pub(crate) heard_proofs: Vec<[u8; 32]>,
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
            messages_wait: false,
            trace: None,
            downlink_queue: None,
            latency,
            queue: BinaryHeap::new(),
            next_event: 0,
            next_conn: 0,
            is_settled: false,
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
            heard_messages: 0,
            links_most: 0,
            refused_dials: 0,
            links: BTreeMap::new(),
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
        self.is_settled = false;
        let conns: Vec<ConnId> = self.hosts[host].links.keys().copied().collect();
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
        self.queue.push(Scheduled { at, number, event });
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
            let it = &mut self.hosts[host];
            it.links.insert(conn, link);
            it.links_most = it.links_most.max(it.links.len());
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
        let Some(link) = self.hosts[host].links.remove(&conn) else {
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
        let Some(next) = self.queue.peek() else {
            return false;
        };
        if next.at > until {
            self.now = until;
            return false;
        }
        let Some(Scheduled { at, event, .. }) = self.queue.pop() else {
            return false;
        };
        self.now = at;
        self.steps += 1;
        let now = self.now;
        if let Some(trace) = &mut self.trace
            && trace.is_open(at - self.began)
        {
            let held = self.hosts[1..].iter().map(|host| host.held.held_count());
            trace.held(at - self.began, held);
        }
        let host = match event {
            Event::Message {
                host,
                conn,
                message,
            } => {
                let it = &mut self.hosts[host];
                if it.links.contains_key(&conn) {
                    it.heard_messages += 1;
                    it.engine.handle_message(conn, message, now);
                }
                host
            }
            Event::Sent { host, conn } => {
                self.hosts[host].engine.handle_block_sent(conn, now);
                host
            }
            Event::Gone { host, conn } => {
                if self.hosts[host].links.remove(&conn).is_some() {
                    self.hosts[host].engine.handle_disconnected(conn, now);
                }
                host
            }
            Event::Dialled { host, address } => {
                let other = host_at(address);
                let there = self.hosts.get(other).is_some_and(|other| {
                    other.alive && !other.outbound_only && other.links.len() < CONNECTIONS_MAX
                });
                if !self.hosts[host].alive {
                } else if there {
                    self.link(host, other);
                } else {
                    if other >= self.hosts.len() {
                        *self.vain_dials.entry(host).or_default() += 1;
                    }
                    let it = &mut self.hosts[host];
                    it.refused_dials += 1;
                    it.engine.handle_dial_failed(address, now);
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
                        it.engine.handle_verified(transfer, &[piece], now);
                    } else {
                        it.engine.handle_bad(transfer, piece, now);
                    }
                }
                host
            }
            Event::Timer { host } => {
                let it = &mut self.hosts[host];
                if it.timer != Some(at) {
                    // It was set anew since.
                    return true;
                }
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
                let leaves = match self.messages_wait {
                    true => self.hosts[host].up_free.max(now),
                    false => now,
                };
                for message in self.distort(host, message) {
                    self.deliver(host, conn, message, leaves + self.latency);
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
                if let Some(trace) = &mut self.trace {
                    trace.busy(host, sent - self.began, len / it.up_bytes_per_second);
                }
                let message = Message::Block {
                    slot,
                    piece: block.piece().get(),
                    offset_bytes: block.offset_bytes(),
                    bytes: Bytes::from_static(bytes),
                };
                let it = &self.hosts[host];
                let Some(other) = it.links.get(&conn).map(|link| link.other) else {
                    self.schedule(sent, Event::Sent { host, conn });
                    return;
                };
                let zone = it.zone;
                let other = &mut self.hosts[other];
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
                let released = match self.downlink_queue {
                    Some(queue) => sent.max(arrival - self.latency - queue),
                    None => sent,
                };
                self.schedule(released, Event::Sent { host, conn });
                self.deliver(host, conn, message, arrival);
            }
            Action::Close { conn, .. } => self.unlink(host, conn),
            Action::Write {
                transfer,
                piece,
                blocks,
            } => {
                let good = blocks.iter().all(|block| block.first() == Some(&0));
                let mut rest: usize = blocks.iter().map(Bytes::len).sum();
                for number in piece.get().. {
                    let piece = self.geometry.piece_index(number).expect("inside");
                    let written = Event::Written {
                        host,
                        transfer,
                        piece,
                        good,
                    };
                    self.schedule(now + Duration::from_millis(1), written);
                    rest -= self.geometry.piece_len_bytes(piece) as usize;
                    if rest == 0 {
                        break;
                    }
                }
            }
            Action::Completed { .. } => {
                let it = &mut self.hosts[host];
                assert!(it.held.is_full(), "completed with pieces missing");
                it.completed = Some(now);
                self.is_settled = false;
            }
            Action::Banned { .. } => {}
        }
    }

    fn deliver(&mut self, host: usize, conn: ConnId, message: Message, at: Instant) {
        let Some(link) = self.hosts[host].links.get_mut(&conn) else {
            return;
        };
        let at = at.max(link.arrival);
        link.arrival = at;
        let (other, other_conn) = (link.other, link.other_conn);
        if let Message::Join { proof, .. } = &message
            && self.hosts[other].conduct == Conduct::Replays
        {
            self.heard_proofs.push(*proof);
        }
        let event = Event::Message {
            host: other,
            conn: other_conn,
            message,
        };
        self.schedule(at, event);
    }

    /// Whether nothing is on its way out of a host.
    #[allow(dead_code, reason = "for reports of tests/scale")]
    pub(crate) fn is_uplink_idle(&self, host: &Host) -> bool {
        host.up_free <= self.now
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
            // Only what changes this is worth looking at every host.
            self.is_settled = true;
            while self.is_settled {
                if !self.step(until) {
                    return None;
                }
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
