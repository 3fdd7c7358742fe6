//! One connection's states: hello, proofs, slots; and one peer's part in one swarm.
//!
//! Owns: what the other side has said and proven, what it holds, and what it may ask. Decides nothing
//! about pieces: that is `transfer`'s.
//! Bounds: 256 joins a connection, eight of them refused; see `limits`.
//! Spec: `spec/peer-protocol.md` sections 1 to 3, PEER-2 to PEER-14.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::config::Zone;
use crate::payload::{AccessKey, Bitfield, PayloadId, PieceIndex};
use crate::swarm::limits::{
    HAVE_DELAY_HELD, HELLO_WAIT, IDLE_MAX, JOINS_PER_CONNECTION_MAX, LIFETIME_MAX,
    PEERS_ADDRESSES_MAX, PING_AFTER, Settings,
};
use crate::swarm::proof::{self, ChannelBinding, Role, Side};
use crate::swarm::rate::Rate;
use crate::swarm::requests::{Pacing, TransferId};
use crate::swarm::wire::{Hello, NodeId, Slot};

/// What a peer did wrong; closes its connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// More answers, or another one, than was asked for.
    #[error("answered what was not asked")]
    AnsweredUnasked,
    /// Its node is banned.
    #[error("its node is banned")]
    Banned,
    /// A second Bitfield, or one after pieces were announced.
    #[error("sent a bitfield twice or too late")]
    BitfieldAgain,
    /// The bits do not fit the payload.
    #[error("sent a bitfield that does not fit the payload")]
    BitfieldMalformed,
    /// Holds a second connection to the same node.
    #[error("is connected twice")]
    Duplicate,
    /// Said something before its bitfield.
    #[error("spoke of pieces before its bitfield")]
    EarlyMessage,
    /// Hello came twice, or something else came first.
    #[error("said hello not exactly once and first")]
    HelloOrder,
    /// The deadline for Hello passed.
    #[error("did not say hello in time")]
    HelloTimeout,
    /// Both sides speak TLS and the connection does not: somebody on the way is in between, or it is a mistake.
    #[error("speaks without TLS though both sides have it")]
    Downgraded,
    /// Nothing came, or nothing was proven, for too long.
    #[error("was idle for too long")]
    Idle,
    /// The connection reached its age.
    #[error("was connected for its full time")]
    Lifetime,
    /// It says that it is another node than its key proves.
    #[error("is not the node that its key says")]
    NodeIdentity,
    /// It found no place in the only swarm that it came for, and was told of others.
    #[error("found no place")]
    NoPlace,
    /// A piece number outside the payload.
    #[error("named a piece outside the payload")]
    PieceRange,
    /// A block that is not inside one piece.
    #[error("named a block outside its piece")]
    BlockRange,
    /// Too many joins that led nowhere.
    #[error("failed to prove too many payloads")]
    RefusedTooOften,
    /// The other end is this node.
    #[error("is this node itself")]
    SelfConnection,
    /// A slot in use was taken again, or there are too many.
    #[error("took a slot that is not free")]
    SlotTaken,
    /// A slot that never was.
    #[error("used a slot that it never took")]
    SlotUnknown,
    /// More unanswered requests than allowed.
    #[error("asked for more than it may")]
    TooManyRequests,
}

/// HelloAwaited ──Hello──> Open ──any error or timeout──> closed (the engine drops the peer)
#[derive(Debug)]
enum PeerState {
    HelloAwaited,
    Open(Hello),
}

/// Asked ──valid Join──> Member; Refuse leads back to absent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Join {
    /// We proved the payload and wait for the other side to.
    Asked {
        /// Our number for it.
        slot: Slot,
    },
    /// Both have.
    Member {
        /// Our number for it.
        slot: Slot,
        /// Theirs.
        theirs: Slot,
    },
}

/// What a slot of the other side stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TheirSlot {
    /// A payload with a member.
    Member(TransferId),
    /// We left; until their `Leave` comes, what they say there is ignored.
    Leaving,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) role: Role,
    pub(crate) remote: SocketAddr,
    /// The address that we dialled, if we did.
    pub(crate) dialled: Option<SocketAddr>,
    pub(crate) joins: BTreeMap<TransferId, Join>,
    pub(crate) refused_count: u32,
    /// It is a server of ranges in this process's own words.
    pub(crate) is_web_seed: bool,
    /// It found no place in a swarm and is not among those who are kept: nothing but another payload keeps it.
    pub(crate) is_turned_away: bool,
    /// Payloads that we refused because they were unknown here, to be joined if they become known.
    pub(crate) refused: Vec<PayloadId>,
    /// What this side says of TLS.
    pub(crate) takes_tls: bool,
    binding: ChannelBinding,
    nonce: [u8; 32],
    opened: Instant,
    received: Instant,
    sent: Instant,
    proven: Instant,
    state: PeerState,
    their_slots: BTreeMap<Slot, TheirSlot>,
    next_slot: u16,
}

impl Peer {
    pub(crate) fn new(
        role: Role,
        remote: SocketAddr,
        binding: ChannelBinding,
        nonce: [u8; 32],
        now: Instant,
    ) -> Self {
        Self {
            role,
            remote,
            dialled: (role == Role::Dialler).then_some(remote),
            joins: BTreeMap::new(),
            refused_count: 0,
            is_web_seed: false,
            is_turned_away: false,
            refused: Vec::new(),
            takes_tls: false,
            binding,
            nonce,
            opened: now,
            received: now,
            sent: now,
            proven: now,
            state: PeerState::HelloAwaited,
            their_slots: BTreeMap::new(),
            next_slot: 0,
        }
    }

    /// The `Hello` to send first.
    pub(crate) fn hello(&self, node: NodeId, settings: &Settings) -> Hello {
        Hello {
            takes_tls: self.takes_tls,
            node,
            nonce: self.nonce,
            listen_port: settings.listen_port.unwrap_or(0),
            requests_max: settings.requests_max,
            zone: settings.zone.clone(),
        }
    }

    /// What the other side said of itself, once it has.
    pub(crate) fn their_hello(&self) -> Option<&Hello> {
        match &self.state {
            PeerState::HelloAwaited => None,
            PeerState::Open(hello) => Some(hello),
        }
    }

    /// The other side says hello.
    pub(crate) fn open(&mut self, hello: Hello, us: &NodeId) -> Result<(), PeerError> {
        // req: PEER-2
        match self.state {
            PeerState::Open(_) => Err(PeerError::HelloOrder),
            // req: PEER-4
            PeerState::HelloAwaited if hello.node == *us => Err(PeerError::SelfConnection),
            // req: PEER-16
            PeerState::HelloAwaited
                if self
                    .binding
                    .peer()
                    .is_some_and(|proven| proven != hello.node) =>
            {
                Err(PeerError::NodeIdentity)
            }
            // req: PEER-17
            PeerState::HelloAwaited
                if self.binding.peer().is_none() && self.takes_tls && hello.takes_tls =>
            {
                Err(PeerError::Downgraded)
            }
            PeerState::HelloAwaited => {
                self.state = PeerState::Open(hello);
                Ok(())
            }
        }
    }

    /// Where others can dial this peer.
    pub(crate) fn dialable(&self) -> Option<SocketAddr> {
        let port = self.their_hello()?.listen_port;
        let observed = (port != 0).then(|| SocketAddr::new(self.remote.ip(), port));
        self.dialled.or(observed)
    }

    /// Our proof for a payload; `None` before their `Hello`.
    pub(crate) fn our_proof(
        &self,
        us: &NodeId,
        key: &AccessKey,
        payload: &PayloadId,
    ) -> Option<[u8; 32]> {
        let (ours, theirs) = self.sides(us)?;
        let binding = self.binding()?;
        Some(proof::prove(
            key, self.role, ours, theirs, payload, &binding,
        ))
    }

    /// Whether `given` is their proof for a payload under `key`.
    pub(crate) fn verifies(
        &self,
        us: &NodeId,
        key: &AccessKey,
        payload: &PayloadId,
        given: &[u8; 32],
    ) -> bool {
        // req: PEER-8
        let (Some((ours, theirs)), Some(binding)) = (self.sides(us), self.binding()) else {
            return false;
        };
        let role = self.role.other();
        let expected = proof::prove(key, role, theirs, ours, payload, &binding);
        proof::equal(given, &expected)
    }

    /// What proofs on this connection are bound to; `None` before their `Hello`.
    fn binding(&self) -> Option<ChannelBinding> {
        let theirs = self.their_hello()?.takes_tls;
        Some(match self.role {
            Role::Dialler => self.binding.with_words(self.takes_tls, theirs),
            Role::Listener => self.binding.with_words(theirs, self.takes_tls),
        })
    }

    fn sides<'a>(&'a self, us: &'a NodeId) -> Option<(Side<'a>, Side<'a>)> {
        let hello = self.their_hello()?;
        let ours = Side {
            node: us,
            nonce: &self.nonce,
        };
        let theirs = Side {
            node: &hello.node,
            nonce: &hello.nonce,
        };
        Some((ours, theirs))
    }

    /// A number of our own for one more payload; `None` when too many are joined, or numbers ran out.
    pub(crate) fn new_slot(&mut self) -> Option<Slot> {
        if self.joins.len() >= JOINS_PER_CONNECTION_MAX || self.next_slot == u16::MAX {
            return None;
        }
        self.next_slot += 1;
        Some(Slot(self.next_slot))
    }

    /// The other side takes `slot` for something not known yet.
    pub(crate) fn check_free(&self, slot: Slot) -> Result<(), PeerError> {
        let full = self.their_slots.len() >= JOINS_PER_CONNECTION_MAX;
        if full || self.their_slots.contains_key(&slot) {
            return Err(PeerError::SlotTaken);
        }
        Ok(())
    }

    /// Their slot now stands for `meaning`.
    pub(crate) fn set_their_slot(&mut self, slot: Slot, meaning: TheirSlot) {
        self.their_slots.insert(slot, meaning);
    }

    /// Their slot is free again.
    pub(crate) fn free_their_slot(&mut self, slot: Slot) {
        self.their_slots.remove(&slot);
    }

    /// What their slot stands for.
    pub(crate) fn meaning(&self, slot: Slot) -> Result<TheirSlot, PeerError> {
        // req: PEER-9
        let meaning = self.their_slots.get(&slot).copied();
        meaning.ok_or(PeerError::SlotUnknown)
    }

    /// Something came.
    pub(crate) fn received(&mut self, now: Instant) {
        self.received = now;
    }

    /// Something goes out.
    pub(crate) fn sent(&mut self, now: Instant) {
        self.sent = now;
    }

    pub(crate) fn has_member(&self) -> bool {
        self.joins
            .values()
            .any(|join| matches!(join, Join::Member { .. }))
    }

    /// Whether to close for age or silence.
    pub(crate) fn check_time(&mut self, now: Instant) -> Result<(), PeerError> {
        // req: PEER-3
        let since = |then: Instant| now.saturating_duration_since(then);
        if self.has_member() {
            self.proven = now;
        }
        if self.their_hello().is_none() && since(self.opened) >= HELLO_WAIT {
            return Err(PeerError::HelloTimeout);
        }
        if since(self.received) >= IDLE_MAX || since(self.proven) >= IDLE_MAX {
            return Err(PeerError::Idle);
        }
        if since(self.opened) >= LIFETIME_MAX {
            return Err(PeerError::Lifetime);
        }
        Ok(())
    }

    /// Whether a `Ping` is due.
    pub(crate) fn wants_ping(&self, now: Instant) -> bool {
        self.their_hello().is_some() && now.saturating_duration_since(self.sent) >= PING_AFTER
    }
}

/// What one peer did in one swarm.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PeerCounts {
    /// Block bytes that came from it.
    pub down_bytes: u64,
    /// Block bytes that went to it.
    pub up_bytes: u64,
    /// Pieces from it that verified.
    pub pieces: u32,
    /// Block bytes from it that were not needed any more.
    pub duplicate_bytes: u64,
    /// Times that it left a request without answer.
    pub stalls: u32,
}

impl PeerCounts {
    /// Adds what the same node did on another connection.
    pub fn add(&mut self, other: &Self) {
        self.down_bytes = self.down_bytes.saturating_add(other.down_bytes);
        self.up_bytes = self.up_bytes.saturating_add(other.up_bytes);
        self.pieces = self.pieces.saturating_add(other.pieces);
        self.duplicate_bytes = self.duplicate_bytes.saturating_add(other.duplicate_bytes);
        self.stalls = self.stalls.saturating_add(other.stalls);
    }
}

/// One proven peer of one payload.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) node: NodeId,
    /// Our number for the payload on this connection.
    pub(crate) slot: Slot,
    /// Where others can dial it.
    pub(crate) address: Option<SocketAddr>,
    pub(crate) dialled: Option<SocketAddr>,
    pub(crate) requests_allowed: u16,
    /// Its zone, if it has one.
    pub(crate) zone: Option<Zone>,
    /// It is asked as sparingly as a peer in another zone.
    is_web_seed: bool,
    pub(crate) joined: Instant,
    /// What it holds; `None` until its bitfield came.
    pub(crate) have: Option<Bitfield>,
    /// It gives: only what it offered may be asked.
    pub(crate) giving: bool,
    pub(crate) offered: BTreeSet<PieceIndex>,
    /// It chokes us.
    pub(crate) chokes_us: bool,
    /// We choke it.
    pub(crate) choked: bool,
    /// We give to it: it may ask only for what we offered.
    pub(crate) given: Option<BTreeSet<PieceIndex>>,
    pub(crate) last_gift: Option<Instant>,
    pub(crate) pacing: Pacing,
    /// Pieces that we are fetching from it.
    pub(crate) attempting: Vec<PieceIndex>,
    /// Stalls in a row, without a block in between.
    pub(crate) stalls: u32,
    /// Pieces to be announced to it.
    pub(crate) news: Vec<u32>,
    pub(crate) told_news: Option<Instant>,
    /// When it is to be told; `None` while nothing is new.
    pub(crate) news_due: Option<Instant>,
    pub(crate) told: BTreeSet<SocketAddr>,
    pub(crate) told_peers: Instant,
    pub(crate) counts: PeerCounts,
    /// How fast it gains pieces, in bytes, from whomever.
    pub(crate) gains: Rate,
    /// When it last gained one.
    pub(crate) gained: Instant,
    hints: Budget,
    tells: Budget,
}

impl Member {
    pub(crate) fn new(peer: &Peer, hello: &Hello, slot: Slot, now: Instant) -> Self {
        Self {
            node: hello.node,
            slot,
            address: peer.dialable(),
            dialled: peer.dialled,
            requests_allowed: hello.requests_max,
            zone: hello.zone.clone(),
            is_web_seed: peer.is_web_seed,
            joined: now,
            have: None,
            giving: false,
            offered: BTreeSet::new(),
            chokes_us: false,
            choked: false,
            given: None,
            last_gift: None,
            pacing: Pacing::new(now),
            attempting: Vec::new(),
            stalls: 0,
            news: Vec::new(),
            told_news: None,
            news_due: None,
            told: BTreeSet::new(),
            told_peers: now,
            counts: PeerCounts::default(),
            gains: Rate::new(now),
            gained: now,
            hints: Budget::new(now),
            tells: Budget::new(now),
        }
    }

    /// How many of `count` addresses told by this peer are taken now.
    pub(crate) fn take_hints(&mut self, count: usize, now: Instant) -> usize {
        // req: PEER-14
        self.hints.take(count, now)
    }

    /// How many of `count` addresses this peer may be told now.
    pub(crate) fn take_tells(&mut self, count: usize, now: Instant) -> usize {
        // req: PEER-14
        self.tells.take(count, now)
    }

    /// One more piece is to be announced to it.
    ///
    /// The first waits for `delay` since anything was announced; what the peer holds itself for
    /// [`HAVE_DELAY_HELD`]. A time once set moves only nearer, however the rate changes meanwhile.
    pub(crate) fn add_news(&mut self, piece: PieceIndex, delay: Duration, now: Instant) {
        // req: SWARM-10
        let wanted = self.have.as_ref().is_none_or(|have| !have.has(piece));
        let delay = if wanted { delay } else { HAVE_DELAY_HELD };
        let due = self.told_news.map_or(now, |told| (told + delay).max(now));
        self.news_due = Some(self.news_due.map_or(due, |earlier| earlier.min(due)));
        self.news.push(piece.get());
    }

    /// Whether it is in another zone than a node of zone `ours`, or a web seed.
    pub(crate) fn is_far(&self, ours: Option<&Zone>) -> bool {
        // req: WEB-6
        let theirs = self.zone.as_ref();
        self.is_web_seed || (ours.is_some() && theirs.is_some() && ours != theirs)
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.have.as_ref().is_some_and(Bitfield::is_full)
    }
}

/// 16 addresses in any window of a minute.
#[derive(Clone, Copy, Debug)]
struct Budget {
    began: Instant,
    used: usize,
}

impl Budget {
    const WINDOW: Duration = Duration::from_secs(60);

    fn new(now: Instant) -> Self {
        Self {
            began: now,
            used: 0,
        }
    }

    fn take(&mut self, count: usize, now: Instant) -> usize {
        if now.saturating_duration_since(self.began) >= Self::WINDOW {
            *self = Self::new(now);
        }
        let taken = count.min(PEERS_ADDRESSES_MAX - self.used);
        self.used += taken;
        taken
    }
}
