//! All transfers and all peers of one node: events in, actions out.
//!
//! Owns: which connection belongs to which payload, whom to dial, and the clockwork. Does no I/O, reads
//! no clock and hashes no piece: the driver does, and reports. The same engine runs on sockets and in
//! the simulator.
//!
//! Call `handle_*` for what happened, then [`Engine::poll_action`] until it is empty, then sleep until
//! [`Engine::poll_timeout`]. Every call is bounded by peers and pieces of the payloads concerned.
//! Spec: `spec/peer-protocol.md`.

mod early;
mod joining;
mod limits;
mod messages;
mod stats;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;

use crate::payload::{AccessKey, Bitfield, BlockRange, Geometry, PayloadId, PieceIndex, Priority};
use crate::swarm::addresses::Source;
use crate::swarm::blame::{Blame, Verdict};
use crate::swarm::flow::{Flow, Limits};
use crate::swarm::limits::{CHOKE_INTERVAL, DONE_LINGER, ENDGAME_AGE_MIN, Settings, TICK};
use crate::swarm::peer::{Join, Peer, PeerError, TheirSlot};
use crate::swarm::picker::Order;
use crate::swarm::proof::{ChannelBinding, Random, Role};
use crate::swarm::quota::Quota;
use crate::swarm::requests::{ConnId, TransferId, raw};
use crate::swarm::slots::{Place, Slots};
use crate::swarm::transfer::{Shared, Transfer, TransferState};
use crate::swarm::uploads::{Rank, Uploads};
use crate::swarm::wire::{Message, NodeId, Reason, Slot};

pub use stats::{PeerStats, TransferStats};

/// A payload to fetch, or to serve.
#[derive(Clone, Debug)]
pub struct Want {
    /// Which one.
    pub payload: PayloadId,
    /// Its size and pieces.
    pub geometry: Geometry,
    /// What peers must prove to know.
    pub key: AccessKey,
    /// Pieces that are held and verified already; all of them for a seed.
    pub have: Bitfield,
    /// First addresses, from the manifest.
    pub peers: Vec<SocketAddr>,
    /// This node is where the payload comes from: it gives each piece once before it repeats one.
    pub origin: bool,
    /// In which order pieces are asked for.
    pub order: Order,
    /// Bytes per second for this payload, within those of the node.
    pub limits: Limits,
    /// Its share where payloads compete.
    pub priority: Priority,
}

/// What the driver is to do. Actions of one connection are to be done in order.
#[derive(Clone, Debug)]
pub enum Action {
    /// Connect to an address, then [`Engine::handle_connected`] or [`Engine::handle_dial_failed`].
    Dial {
        /// Where.
        address: SocketAddr,
    },
    /// Send a message.
    Send {
        /// On which connection.
        conn: ConnId,
        /// What.
        message: Message,
    },
    /// Read a block and send it as `Block`; then [`Engine::handle_block_sent`], or
    /// [`Engine::handle_read_failed`] when it cannot be read.
    SendBlock {
        /// On which connection.
        conn: ConnId,
        /// Slot for the message.
        slot: Slot,
        /// Of which payload.
        transfer: TransferId,
        /// Which bytes.
        block: BlockRange,
    },
    /// Close a connection; nothing about it is to be reported any more.
    Close {
        /// Which.
        conn: ConnId,
        /// Why.
        reason: PeerError,
    },
    /// Hash a piece, or several in a row, write what matches, then for each [`Engine::handle_verified`], [`Engine::handle_bad`] or
    /// [`Engine::handle_storage_failed`].
    Write {
        /// Of which payload.
        transfer: TransferId,
        /// Which piece, or the first of those.
        piece: PieceIndex,
        /// Its bytes, in order; of several pieces one block.
        blocks: Vec<Bytes>,
    },
    /// Every piece is verified and written; the payload is served until it is forgotten.
    Completed {
        /// Of which payload.
        transfer: TransferId,
    },
    /// A node was banned; for the log.
    Banned {
        /// Who.
        node: NodeId,
        /// For how long.
        time: std::time::Duration,
    },
}

/// A `Want` that cannot be taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The bitfield is one of another payload.
    #[error("bitfield of {got} pieces for a payload of {want}")]
    Bitfield {
        /// Its pieces.
        got: u32,
        /// The payload's.
        want: u32,
    },
    /// The same payload with the same key is there already.
    #[error("payload is in transfer already")]
    Present,
}

/// Which pieces of a payload can be asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Known {
    /// Every one.
    All,
    /// Those that will be told.
    Later,
}

/// All transfers and peers of one node.
pub struct Engine {
    node: NodeId,
    shared: Shared,
    transfers: BTreeMap<TransferId, Transfer>,
    by_payload: BTreeMap<PayloadId, Vec<TransferId>>,
    peers: BTreeMap<ConnId, Peer>,
    dials: BTreeSet<SocketAddr>,
    blame: Blame,
    next_transfer: u32,
    ticked: Instant,
    rotated: Instant,
    /// Whether peers are choked because the upload quota is used.
    is_quota_spent: bool,
    /// Payloads of which a peer says that a piece from here was bad.
    accused: BTreeSet<TransferId>,
}

impl Engine {
    /// An engine for `node`. `seed` must come from a secure random source, except in simulations.
    pub fn new(settings: Settings, node: NodeId, seed: [u8; 32], now: Instant) -> Self {
        let limits = settings.limits;
        let quota = Quota::new(settings.quota, now);
        let shared = Shared {
            node,
            settings,
            random: Random::new(seed),
            actions: VecDeque::new(),
            uploads: Uploads::new(Flow::new(limits.up, now)),
            slots: Slots::new(0),
            down: Flow::new(limits.down, now),
            quota,
            download_bytes: 0,
        };
        let mut engine = Self {
            node,
            shared,
            transfers: BTreeMap::new(),
            by_payload: BTreeMap::new(),
            peers: BTreeMap::new(),
            dials: BTreeSet::new(),
            blame: Blame::default(),
            next_transfer: 0,
            ticked: now,
            rotated: now,
            is_quota_spent: false,
            accused: BTreeSet::new(),
        };
        engine.fit_slots(now);
        engine
    }

    /// This node's id.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Whether this node speaks TLS on connections that come from here on.
    pub fn set_takes_tls(&mut self, takes_tls: bool) {
        self.shared.settings.takes_tls = takes_tls;
    }

    /// The node listens on `port` from here on; what `Hello` will say.
    pub fn set_listen_port(&mut self, port: Option<u16>) {
        self.shared.settings.listen_port = port;
    }

    /// Fetches a payload, or serves it if all of it is held.
    pub fn want(&mut self, want: Want, now: Instant) -> Result<TransferId, EngineError> {
        self.take_part(want, Known::All, now)
    }

    fn take_part(
        &mut self,
        want: Want,
        known: Known,
        now: Instant,
    ) -> Result<TransferId, EngineError> {
        let pieces = want.geometry.piece_count();
        if want.have.piece_count() != pieces {
            return Err(EngineError::Bitfield {
                got: want.have.piece_count(),
                want: pieces,
            });
        }
        let payload = want.payload;
        let present = self.by_payload.get(&payload).into_iter().flatten();
        if present
            .filter_map(|id| self.transfers.get(id))
            .any(|transfer| transfer.key == want.key)
        {
            return Err(EngineError::Present);
        }
        let id = TransferId(self.next_transfer);
        self.next_transfer += 1;
        let salt = self.shared.random.next();
        let peers = want.peers.clone();
        let (limits, priority) = (want.limits, want.priority);
        let mut transfer = Transfer::new(id, want, salt, now);
        if known == Known::Later {
            transfer.await_pieces();
        }
        for address in peers {
            transfer.book.learn(address, Source::Manifest, now);
        }
        if !transfer.is_fetching() {
            let done = Action::Completed { transfer: id };
            self.shared.actions.push_back(done);
        }
        self.shared.uploads.flow.add(id, limits.up, priority, now);
        self.shared.down.add(id, limits.down, priority, now);
        self.transfers.insert(id, transfer);
        self.fit_transfer_slots(id, now);
        self.by_payload.entry(payload).or_default().push(id);
        self.join_those_who_asked(id, payload);
        self.dial(id, now);
        Ok(id)
    }

    /// Knows one more address of a payload, from its manifest or its presence messages.
    pub fn add_address(&mut self, id: TransferId, address: SocketAddr, now: Instant) {
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.book.learn(address, Source::Manifest, now);
            self.dial(id, now);
        }
    }

    /// A reader in order has come to this byte: what follows is fetched first from now on.
    pub fn set_read_position(&mut self, id: TransferId, offset_bytes: u64) {
        // req: SWARM-35
        if let Some(transfer) = self.transfers.get_mut(&id) {
            let piece = offset_bytes / u64::from(transfer.geometry.piece_bytes().get());
            transfer.read_piece = u32::try_from(piece).unwrap_or(u32::MAX);
        }
    }

    /// Ends a transfer and leaves its swarm.
    pub fn forget(&mut self, id: TransferId, now: Instant) {
        self.leave_all(id, Reason::Forgotten, now);
        if let Some(transfer) = self.transfers.remove(&id) {
            // What is being verified is not waited for.
            let verifying = transfer.attempts.keys();
            let bytes: u64 = verifying
                .map(|piece| u64::from(transfer.geometry.piece_len_bytes(*piece)))
                .sum();
            self.shared.download_bytes -= bytes;
            if let Some(ids) = self.by_payload.get_mut(&transfer.payload) {
                ids.retain(|other| *other != id);
            }
            self.by_payload.retain(|_, ids| !ids.is_empty());
        }
        self.shared.uploads.remove_transfer(id);
        self.shared.down.remove(id);
        self.shared.slots.set_transfer_count(id, None);
    }

    /// A connection is there: dialled by us to `remote`, or accepted from it.
    pub fn handle_connected(
        &mut self,
        conn: ConnId,
        role: Role,
        remote: SocketAddr,
        binding: ChannelBinding,
        now: Instant,
    ) {
        if role == Role::Dialler {
            self.dials.remove(&remote);
        }
        let nonce = self.shared.random.nonce();
        let mut peer = Peer::new(role, remote, binding, nonce, now);
        peer.takes_tls = self.shared.settings.takes_tls;
        let hello = peer.hello(self.node, &self.shared.settings);
        self.peers.insert(conn, peer);
        self.shared.send(conn, Message::Hello(hello));
    }

    /// A web seed of a payload is there, which [`crate::swarm::web_seed::WebSeed`] speaks for.
    pub fn handle_web_seed(&mut self, conn: ConnId, now: Instant) {
        // Nobody else can be told of it, and it is of no zone.
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let binding = ChannelBinding::default();
        self.handle_connected(conn, Role::Listener, nowhere, binding, now);
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.is_web_seed = true;
        }
    }

    /// Nobody answered at `address`.
    pub fn handle_dial_failed(&mut self, address: SocketAddr, now: Instant) {
        self.dials.remove(&address);
        self.dial_ended(address, now);
        self.dial_all(now);
    }

    /// A message came. What the peer did wrong closes its connection by an action.
    pub fn handle_message(&mut self, conn: ConnId, message: Message, now: Instant) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        peer.received(now);
        if let Err(reason) = self.dispatch(conn, message, now) {
            self.close(conn, reason, now);
        }
        self.upload(now);
    }

    /// Some bytes of a block came, but not all: the peer is slow, not silent.
    pub fn handle_progress(&mut self, conn: ConnId, slot: Slot, bytes: u64, now: Instant) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        peer.received(now);
        if let Ok(TheirSlot::Member(id)) = peer.meaning(slot) {
            let transfer = self.transfers.get_mut(&id);
            let member = transfer.and_then(|transfer| transfer.members.get_mut(&conn));
            if let Some(member) = member {
                member.pacing.progress(bytes, now);
            }
        }
    }

    /// The connection is gone.
    pub fn handle_disconnected(&mut self, conn: ConnId, now: Instant) {
        self.drop_peer(conn, now);
        self.upload(now);
    }

    /// The oldest block handed to the socket of `conn` has left.
    pub fn handle_block_sent(&mut self, conn: ConnId, now: Instant) {
        self.shared.uploads.sent(conn, now);
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.sent(now);
        }
        self.upload(now);
    }

    /// A block could not be read. It is rejected, and the piece is not held any more.
    pub fn handle_read_failed(
        &mut self,
        conn: ConnId,
        id: TransferId,
        block: BlockRange,
        now: Instant,
    ) {
        // req: SWARM-15
        self.shared.uploads.sent(conn, now);
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.send_reject(conn, raw(block), &mut self.shared);
            // Which of several pieces it was is not known.
            let mut lost: Vec<PieceIndex> = transfer.geometry.pieces_of(block).collect();
            lost.retain(|piece| transfer.have.clear(*piece));
            match transfer.state {
                _ if lost.is_empty() => {}
                TransferState::Complete | TransferState::Failed => {
                    self.handle_storage_failed(id, now);
                }
                TransferState::Fetching => {
                    lost.into_iter().for_each(|piece| transfer.want(piece));
                    transfer.fill_all(&mut self.shared, now);
                }
            }
        }
        self.upload(now);
    }

    /// Pieces matched their hashes and are written.
    pub fn handle_verified(&mut self, id: TransferId, pieces: &[PieceIndex], now: Instant) {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        if transfer.verified(pieces, &mut self.shared, now) {
            let done = Action::Completed { transfer: id };
            self.shared.actions.push_back(done);
        }
        transfer.fill_all(&mut self.shared, now);
        self.upload(now);
    }

    /// A piece did not match its hash.
    pub fn handle_bad(&mut self, id: TransferId, piece: PieceIndex, now: Instant) {
        // req: SWARM-12
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        let Some((conn, node)) = transfer.bad(piece, &mut self.shared) else {
            return;
        };
        transfer.exclude(node);
        let verdict = self.blame.bad_piece(node, now);
        self.leave(id, conn, Reason::BadPiece, now);
        if let Verdict::Banned(time) = verdict {
            self.shared.actions.push_back(Action::Banned { node, time });
            let conns: Vec<ConnId> = self
                .peers
                .iter()
                .filter(|(_, peer)| peer.their_hello().is_some_and(|hello| hello.node == node))
                .map(|(conn, _)| *conn)
                .collect();
            for conn in conns {
                self.close(conn, PeerError::Banned, now);
            }
        }
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.fill_all(&mut self.shared, now);
        }
        self.upload(now);
    }

    /// This node's disk failed a payload: it leaves the swarm, other payloads go on.
    pub fn handle_storage_failed(&mut self, id: TransferId, now: Instant) {
        // req: SWARM-15
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.state = TransferState::Failed;
        }
        self.leave_all(id, Reason::Forgotten, now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for transfer in self.transfers.values_mut() {
            transfer.flush_news(&mut self.shared, now);
        }
        if now.saturating_duration_since(self.ticked) >= self.tick_period() {
            self.ticked = now;
            self.tick(now);
        }
        if self.dial_timeout().is_some_and(|due| due <= now) {
            self.dial_all(now);
        }
        self.fill_blocked(now);
        self.upload(now);
    }

    /// The next action; `None` when there is nothing more to do now.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.shared.actions.pop_front();
        if let Some(Action::Send { conn, .. }) = &action {
            let ticked = self.ticked;
            if let Some(peer) = self.peers.get_mut(conn) {
                peer.sent(ticked);
            }
        }
        action
    }

    /// A payload of which a peer says that a piece from here did not verify: what is held of it is to be hashed
    /// again before it is served. `None` when there is no more.
    pub fn poll_accused(&mut self) -> Option<TransferId> {
        // req: SWARM-38
        self.accused.pop_first()
    }

    /// When [`Engine::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let dials_out = self.shared.settings.listen_port.is_none();
        let dials = |transfer: &Transfer| transfer.is_dialling(dials_out);
        let idle = self.peers.is_empty() && !self.transfers.values().any(dials);
        let tick = (!idle).then(|| self.ticked + self.tick_period());
        let news = self.transfers.values().filter_map(Transfer::news_timeout);
        let uploads = self.shared.uploads.timeout();
        let credit = self.shared.down.timeout();
        let quota = self.quota_timeout();
        let dial = self.dial_timeout();
        let others = [tick, uploads, credit, quota, dial].into_iter().flatten();
        news.chain(others).min()
    }

    fn tick_period(&self) -> std::time::Duration {
        if self.transfers.values().any(Transfer::is_endgame) {
            ENDGAME_AGE_MIN
        } else {
            TICK
        }
    }

    /// Hands blocks to sockets while the uplink has room, and gives what the uplink is free for.
    fn upload(&mut self, now: Instant) {
        for transfer in self.transfers.values_mut() {
            transfer.give(&mut self.shared, now);
        }
        loop {
            self.heed_quota(now);
            let transfers = &self.transfers;
            let Shared {
                settings, uploads, ..
            } = &mut self.shared;
            let zone = settings.zone.as_ref();
            let next = uploads.next(settings, now, |id, conn, piece| {
                let transfer = transfers.get(&id);
                transfer.map_or_else(Rank::default, |transfer| transfer.rank(conn, piece, zone))
            });
            let Some(upload) = next else { return };
            let Some(transfer) = self.transfers.get_mut(&upload.transfer) else {
                continue;
            };
            let Some(member) = transfer.members.get_mut(&upload.conn) else {
                continue;
            };
            let len_bytes = upload.block.len_bytes();
            member.counts.up_bytes += u64::from(len_bytes);
            transfer.counts.up_bytes += u64::from(len_bytes);
            transfer.up_rate.add(u64::from(len_bytes), now);
            self.shared.quota.charge(u64::from(len_bytes), now);
            if let Some(giver) = &mut transfer.giver {
                for part in transfer.geometry.split(upload.block) {
                    giver.sent(upload.conn, part.piece(), part.len_bytes(), now);
                }
            }
            self.shared.actions.push_back(Action::SendBlock {
                conn: upload.conn,
                slot: member.slot,
                transfer: upload.transfer,
                block: upload.block,
            });
            transfer.give(&mut self.shared, now);
            let place = (upload.transfer, upload.conn);
            if transfer.geometry.ends_piece(upload.block) {
                self.shared.slots.set_mid_piece(place, None);
                self.pass_slot_on(Some(place), now);
            } else {
                self.shared.slots.set_mid_piece(place, Some(now));
            }
        }
    }

    /// Housekeeping: silence, stalls, missing neighbours, addresses to tell, complete pairs.
    fn tick(&mut self, now: Instant) {
        let mut late = Vec::new();
        for (conn, peer) in &mut self.peers {
            if let Err(reason) = peer.check_time(now) {
                late.push((*conn, reason));
            } else if peer.wants_ping(now) {
                peer.sent(now);
                self.shared.send(*conn, Message::Ping);
            }
        }
        for (conn, reason) in late {
            self.close(conn, reason, now);
        }
        let ids: Vec<TransferId> = self.transfers.keys().copied().collect();
        for id in ids {
            self.tick_transfer(id, now);
        }
        self.pass_slot_on(None, now);
    }

    /// When it is time, a slot goes to the peer that waited longest: that of `place`, which was just sent the
    /// end of a piece, or of one that is in the middle of none.
    fn pass_slot_on(&mut self, place: Option<Place>, now: Instant) {
        // req: SWARM-7
        if now.saturating_duration_since(self.rotated) < CHOKE_INTERVAL {
            return;
        }
        let passed = match place {
            Some(place) => self.shared.slots.pass_on(place, now),
            None => self.shared.slots.rotate(now),
        };
        if let Some([out, into]) = passed {
            self.rotated = now;
            self.choke(out, crate::swarm::transfer::Choked::Yes);
            self.choke(into, crate::swarm::transfer::Choked::No);
        }
    }

    fn tick_transfer(&mut self, id: TransferId, now: Instant) {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        for conn in transfer.check_stalls(&mut self.shared, now) {
            if let Some(member) = self.transfers.get(&id).and_then(|it| it.members.get(&conn)) {
                let node = member.node;
                self.exclude(id, node);
            }
            self.leave(id, conn, Reason::Stalled, now);
        }
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        transfer.fill_all(&mut self.shared, now);
        transfer.end_giving(&mut self.shared, now);
        if transfer.state == TransferState::Complete {
            let done: Vec<ConnId> = transfer
                .members
                .iter()
                .filter(|(_, member)| {
                    member.is_complete()
                        && now.saturating_duration_since(member.joined) >= DONE_LINGER
                })
                .map(|(conn, _)| *conn)
                .collect();
            for conn in done {
                self.leave(id, conn, Reason::Done, now);
            }
        }
        self.tell_peers(id, now);
        self.dial(id, now);
    }

    fn exclude(&mut self, id: TransferId, node: NodeId) {
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.exclude(node);
        }
    }

    fn choke(&mut self, (id, conn): (TransferId, ConnId), choked: crate::swarm::transfer::Choked) {
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.set_choked(conn, choked, &mut self.shared);
        }
    }

    /// Closes a connection for what its peer did.
    fn close(&mut self, conn: ConnId, reason: PeerError, now: Instant) {
        if self.drop_peer(conn, now) {
            self.shared
                .actions
                .push_back(Action::Close { conn, reason });
        }
    }

    /// Forgets a connection and every membership over it.
    fn drop_peer(&mut self, conn: ConnId, now: Instant) -> bool {
        let Some(peer) = self.peers.remove(&conn) else {
            return false;
        };
        for transfer in self.transfers.values_mut() {
            transfer.parked.retain(|parked| *parked != conn);
        }
        for (id, join) in &peer.joins {
            match join {
                Join::Asked { .. } => self.join_ended(*id, peer.dialled, now),
                Join::Member { .. } => self.remove_member(*id, conn, now),
            }
        }
        if peer.their_hello().is_none()
            && let Some(address) = peer.dialled
        {
            self.dial_ended(address, now);
        }
        self.shared.uploads.remove_conn(conn);
        true
    }

    fn remove_member(&mut self, id: TransferId, conn: ConnId, now: Instant) {
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return;
        };
        transfer.remove_member(conn, &mut self.shared, now);
        transfer.fill_all(&mut self.shared, now);
        if let Some(next) = self.shared.slots.leave((id, conn), now) {
            self.choke(next, crate::swarm::transfer::Choked::No);
        }
        self.dial(id, now);
    }

    /// Our side leaves one swarm on one connection.
    fn leave(&mut self, id: TransferId, conn: ConnId, reason: Reason, now: Instant) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        match peer.joins.remove(&id) {
            Some(Join::Member { slot, theirs }) => {
                peer.set_their_slot(theirs, TheirSlot::Leaving);
                self.remove_member(id, conn, now);
                self.shared.send(conn, Message::Leave { slot, reason });
            }
            Some(Join::Asked { slot }) => {
                self.shared.send(conn, Message::Leave { slot, reason });
            }
            None => {}
        }
    }

    fn leave_all(&mut self, id: TransferId, reason: Reason, now: Instant) {
        let conns: Vec<ConnId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.joins.contains_key(&id))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in conns {
            self.leave(id, conn, reason, now);
        }
    }

    /// The engine's invariants; for tests, simulations and fuzzing.
    #[cfg(any(test, feature = "testing"))]
    pub fn check(&self) -> Result<(), String> {
        let mut bytes = 0;
        for (id, transfer) in &self.transfers {
            transfer.check()?;
            if transfer.members.len() > self.shared.settings.neighbours_max {
                return Err(format!("{} members", transfer.members.len()));
            }
            for conn in transfer.members.keys() {
                let joined = self.peers.get(conn).and_then(|peer| peer.joins.get(id));
                if !matches!(joined, Some(Join::Member { .. })) {
                    return Err(format!("member {conn} is not joined"));
                }
            }
            for (piece, attempts) in &transfer.attempts {
                let len = u64::from(transfer.geometry.piece_len_bytes(*piece));
                bytes += len * attempts.len() as u64;
            }
        }
        if bytes != self.shared.download_bytes {
            return Err(format!(
                "{bytes} bytes in flight, counted {}",
                self.shared.download_bytes
            ));
        }
        if self.dials.len() > self.shared.settings.dials_max {
            return Err(format!("{} dials", self.dials.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
