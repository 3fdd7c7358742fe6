//! One payload on this node: what is held, what is being fetched, who takes part.
//!
//! Owns: the states of pieces and the members of the swarm. `fetch` asks and receives, `pace` and `runs`
//! say how much, `serve` gives and answers. Knows connections only by number.
//! Spec: `spec/peer-protocol.md` sections 3 and 5, SWARM-1 to SWARM-15.

mod fetch;
mod pace;
mod runs;
mod serve;
mod zone;

pub(crate) use serve::Choked;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use crate::config::Zone;
use crate::payload::{AccessKey, Bitfield, Geometry, PayloadId, PieceIndex};
use crate::swarm::addresses::AddressBook;
use crate::swarm::availability::Availability;
use crate::swarm::engine::{Action, Want};
use crate::swarm::flow::Flow;
use crate::swarm::giver::Giver;
use crate::swarm::limits::{FAR_NEIGHBOURS, PARKED_MAX, Settings};
use crate::swarm::peer::{Member, PeerCounts};
use crate::swarm::picker::Order;
use crate::swarm::proof::Random;
use crate::swarm::quota::Quota;
use crate::swarm::rate::Rate;
use crate::swarm::requests::{Attempt, ConnId, TransferId};
use crate::swarm::slots::Slots;
use crate::swarm::uploads::Uploads;
use crate::swarm::wire::{Message, NodeId};

/// What the transfers of one node share.
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) settings: Settings,
    pub(crate) random: Random,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) uploads: Uploads,
    pub(crate) slots: Slots,
    /// Limits of what is asked for, and whose turn it is.
    pub(crate) down: Flow,
    pub(crate) quota: Quota,
    /// Bytes of all pieces being fetched or verified.
    pub(crate) download_bytes: u64,
}

impl Shared {
    pub(crate) fn send(&mut self, conn: ConnId, message: Message) {
        self.actions.push_back(Action::Send { conn, message });
    }
}

/// What a transfer is in now.
///
/// Fetching ──last piece verified──> Complete; either ──disk failed──> Failed, until it is forgotten.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TransferState {
    /// Pieces are missing.
    Fetching,
    /// All pieces are held; others are served.
    Complete,
    /// This node's storage failed it; nothing is asked or served.
    Failed,
}

/// Bytes of one transfer since it began.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TransferCounts {
    /// Block bytes received.
    pub down_bytes: u64,
    /// Block bytes sent.
    pub up_bytes: u64,
    /// Pieces received and verified since the transfer began.
    pub pieces_fetched: u32,
    /// Bytes received that were not needed any more.
    pub duplicate_bytes: u64,
    /// Bytes of pieces that did not verify.
    pub bad_bytes: u64,
    /// Pieces that did not verify.
    pub bad_pieces: u32,
}

/// One payload on this node.
pub(crate) struct Transfer {
    pub(crate) id: TransferId,
    pub(crate) payload: PayloadId,
    pub(crate) geometry: Geometry,
    pub(crate) key: AccessKey,
    pub(crate) order: Order,
    /// Number of the piece that a reader in order needs next.
    pub(crate) read_piece: u32,
    pub(crate) state: TransferState,
    pub(crate) have: Bitfield,
    /// Missing and not being fetched.
    pub(crate) wanted: Bitfield,
    pub(crate) attempts: BTreeMap<PieceIndex, Vec<Attempt>>,
    pub(crate) availability: Availability,
    pub(crate) giver: Option<Giver>,
    pub(crate) members: BTreeMap<ConnId, Member>,
    pub(crate) book: AddressBook,
    /// Of those who found no place here, some whose connections are kept.
    pub(crate) parked: Vec<ConnId>,
    /// How many found none.
    turned_away_count: u64,
    /// Nodes that sent a bad piece of this payload, or stalled twice: they do not come back.
    pub(crate) excluded: BTreeSet<NodeId>,
    pub(crate) counts: TransferCounts,
    /// What earlier connections of each node did, for figures of who served whom.
    pub(crate) past: BTreeMap<NodeId, PeerCounts>,
    /// This node gave the payload to the swarm.
    pub(crate) is_origin: bool,
    /// Pieces may be neither held nor wanted, since nobody knows them yet.
    is_early: bool,
    /// Nothing is asked for any more.
    ends: bool,
    pub(crate) up_rate: Rate,
    pub(crate) down_rate: Rate,
    /// Bytes asked for a second time in the endgame, as long as the first copy was missing.
    duplicate_asked_bytes: u64,
    salt: u64,
    /// What is known of pieces in other zones, once there is a peer in one.
    imports: Option<zone::Imports>,
}

/// Nodes that may be excluded from one swarm; beyond it the least is forgotten.
const EXCLUDED_MAX: usize = 1024;
/// Nodes whose earlier connections are counted; those that come beyond it are not.
const PAST_MAX: usize = 256;

impl Transfer {
    pub(crate) fn new(id: TransferId, want: Want, salt: u64, now: Instant) -> Self {
        let geometry = want.geometry;
        let mut wanted = Bitfield::empty(&geometry);
        // req: SWARM-14
        for piece in want.have.missing(&geometry) {
            wanted.set(piece);
        }
        let state = if want.have.is_full() {
            TransferState::Complete
        } else {
            TransferState::Fetching
        };
        let gives = want.origin && state == TransferState::Complete;
        Self {
            id,
            payload: want.payload,
            geometry,
            key: want.key,
            order: want.order,
            read_piece: 0,
            state,
            have: want.have,
            wanted,
            attempts: BTreeMap::new(),
            availability: Availability::new(&geometry),
            giver: gives.then(|| Giver::new(&geometry)),
            members: BTreeMap::new(),
            book: AddressBook::new(salt),
            parked: Vec::new(),
            turned_away_count: 0,
            excluded: BTreeSet::new(),
            counts: TransferCounts::default(),
            past: BTreeMap::new(),
            is_origin: want.origin,
            is_early: false,
            ends: false,
            up_rate: Rate::new(now),
            down_rate: Rate::new(now),
            duplicate_asked_bytes: 0,
            salt,
            imports: None,
        }
    }

    /// Nothing is known of its pieces yet: none is wanted before it is told. An origin gives each as it gains it.
    pub(crate) fn await_pieces(&mut self) {
        // req: EARLY-5
        self.is_early = true;
        self.wanted = Bitfield::empty(&self.geometry);
        if self.is_origin {
            self.giver = Some(Giver::new(&self.geometry));
        }
    }

    /// These pieces are known from now on, and wanted.
    pub(crate) fn reveal(&mut self, pieces: &[PieceIndex]) {
        for piece in pieces {
            if !self.have.has(*piece) && !self.attempts.contains_key(piece) {
                self.want(*piece);
            }
        }
    }

    /// This node holds these pieces from now on, from elsewhere; answers whether they were the last.
    pub(crate) fn gain(&mut self, pieces: &[PieceIndex]) -> bool {
        for piece in pieces {
            self.wanted.clear(*piece);
            self.have.set(*piece);
        }
        let is_last = self.is_fetching() && self.have.is_full();
        if is_last {
            self.state = TransferState::Complete;
        }
        is_last
    }

    /// The piece is missing and nobody is asked for it: it is to be asked for, unless the transfer ends.
    pub(crate) fn want(&mut self, piece: PieceIndex) {
        if !self.ends {
            self.wanted.set(piece);
        }
    }

    /// No further piece is asked for, and none a second time; what is under way may come.
    pub(crate) fn want_no_more(&mut self) {
        // req: EARLY-6
        self.is_early = true;
        self.ends = true;
        self.wanted = Bitfield::empty(&self.geometry);
    }

    /// What is under way is not waited for any more, but for pieces that have come and are being verified.
    pub(crate) fn abandon_all(&mut self, shared: &mut Shared) {
        let attempts = self.attempts.iter();
        let asked: Vec<(PieceIndex, ConnId)> = attempts
            .flat_map(|(piece, sources)| sources.iter().map(|source| (*piece, source.conn)))
            .collect();
        for (piece, conn) in asked {
            self.abandon(piece, conn, shared);
        }
    }

    pub(crate) fn is_fetching(&self) -> bool {
        self.state == TransferState::Fetching
    }

    /// Whether it looks for peers itself: it wants pieces, or nobody can come to get its own.
    pub(crate) fn is_dialling(&self, dials_out_only: bool) -> bool {
        // req: SWARM-34
        match self.state {
            TransferState::Fetching => true,
            TransferState::Complete => dials_out_only,
            TransferState::Failed => false,
        }
    }

    /// Whether only pieces that are already asked for are missing.
    pub(crate) fn is_endgame(&self) -> bool {
        // req: SWARM-4
        self.is_fetching() && !self.ends && self.wanted.is_empty() && !self.attempts.is_empty()
    }

    /// Members that count as neighbours: those near. Who counted those of other zones, too, would know few of its own,
    /// and what two of a zone do not know of each other is imported twice.
    fn neighbour_count(&self, zone: Option<&Zone>) -> usize {
        // req: SWARM-37
        self.members.len() - self.far_members(zone).count()
    }

    /// Whether more peers are looked for, besides those that are being dialled.
    pub(crate) fn lacks_neighbours(&self, settings: &Settings) -> bool {
        // req: SWARM-9
        let dialling = self.book.dialling_count();
        let neighbours = self.neighbour_count(settings.zone.as_ref());
        neighbours + dialling < settings.neighbours_aim
            && self.members.len() + dialling < settings.neighbours_max
    }

    fn far_members(&self, zone: Option<&Zone>) -> impl Iterator<Item = (&ConnId, &Member)> {
        let members = self.members.iter();
        members.filter(move |(_, member)| member.is_far(zone))
    }

    /// A member of another zone to leave for a near one: one that nothing is asked of, the youngest.
    pub(crate) fn far_surplus(&self, zone: Option<&Zone>) -> Option<ConnId> {
        // req: SWARM-37
        if self.far_members(zone).count() <= FAR_NEIGHBOURS {
            return None;
        }
        let far = self.far_members(zone);
        let least = far.min_by_key(|(_, member)| {
            let is_busy = !member.attempting.is_empty() || !member.offered.is_empty();
            (is_busy, std::cmp::Reverse(member.joined))
        });
        least.map(|(conn, _)| *conn)
    }

    /// A proven peer finds no place: whether to keep its connection, and whose to end for that. All who came, early or
    /// late, are as likely to be among the kept.
    pub(crate) fn park(&mut self, conn: ConnId, salt: u64) -> Option<ConnId> {
        // req: SWARM-9
        self.turned_away_count += 1;
        if self.parked.len() < PARKED_MAX {
            self.parked.push(conn);
            return None;
        }
        let place = usize::try_from(salt % self.turned_away_count).unwrap_or(usize::MAX);
        match self.parked.get_mut(place) {
            Some(parked) => Some(std::mem::replace(parked, conn)),
            None => Some(conn),
        }
    }

    /// A node that does not take part in this swarm any more.
    pub(crate) fn exclude(&mut self, node: NodeId) {
        if self.excluded.len() >= EXCLUDED_MAX {
            self.excluded.pop_first();
        }
        self.excluded.insert(node);
    }

    /// A proven peer joins: it is sent what we hold.
    pub(crate) fn add_member(
        &mut self,
        conn: ConnId,
        mut member: Member,
        shared: &mut Shared,
        now: Instant,
    ) {
        self.parked.retain(|parked| *parked != conn);
        member.choked = !shared.slots.join((self.id, conn), now);
        let giving = self.giver.is_some();
        let bits = if giving {
            member.given = Some(BTreeSet::new());
            Bitfield::empty(&self.geometry)
        } else {
            self.have.clone()
        };
        // req: PEER-10
        let message = Message::Bitfield {
            slot: member.slot,
            giving,
            choked: member.choked,
            bits: bits.to_bytes().into(),
        };
        shared.send(conn, message);
        self.members.insert(conn, member);
    }

    /// A peer is gone: what it was asked for is wanted again, what it was given is given again.
    pub(crate) fn remove_member(
        &mut self,
        conn: ConnId,
        shared: &mut Shared,
        now: Instant,
    ) -> Option<Member> {
        let attempting = self.members.get(&conn)?.attempting.clone();
        for piece in attempting {
            self.abandon(piece, conn, shared);
        }
        let member = self.members.remove(&conn)?;
        if let Some(have) = &member.have {
            self.availability.remove_all(&self.geometry, have);
        }
        if let Some(giver) = &mut self.giver {
            let availability = &self.availability;
            let held = member
                .have
                .iter()
                .flat_map(|have| have.held(&self.geometry));
            giver.lost(conn, held, |piece| availability.holders(piece) > 0);
        }
        shared.uploads.drain(self.id, conn);
        self.remember(&member);
        let unanswered_bytes = member.pacing.outstanding_bytes();
        shared.down.refund(self.id, unanswered_bytes);
        if let Some(address) = member.dialled {
            self.book.left(address, now);
        }
        Some(member)
    }

    /// Adds what a peer that is gone did to what its node did before.
    fn remember(&mut self, member: &Member) {
        let counts = &member.counts;
        let is_known = self.past.contains_key(&member.node);
        let has_served = counts.up_bytes + counts.down_bytes > 0;
        if has_served && (is_known || self.past.len() < PAST_MAX) {
            self.past.entry(member.node).or_default().add(counts);
        }
    }

    /// The node's own invariants; for tests and simulations.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn check(&self) -> Result<(), String> {
        let endgame_limit = 2;
        for (piece, attempts) in &self.attempts {
            if self.have.has(*piece) || self.wanted.has(*piece) {
                return Err(format!("{piece:?} is fetched and also held or wanted"));
            }
            if attempts.is_empty() || attempts.len() > endgame_limit {
                return Err(format!("{piece:?} has {} sources", attempts.len()));
            }
            for attempt in attempts.iter().filter(|attempt| attempt.is_receiving()) {
                let known = self
                    .members
                    .get(&attempt.conn)
                    .is_some_and(|member| member.attempting.contains(piece));
                if !known {
                    return Err(format!("{piece:?} is asked of nobody"));
                }
            }
        }
        for piece in self.geometry.pieces() {
            let states = u8::from(self.have.has(piece))
                + u8::from(self.wanted.has(piece))
                + u8::from(self.attempts.contains_key(&piece));
            if states != 1 && !(states == 0 && self.is_early) {
                return Err(format!("{piece:?} is in {states} states"));
            }
            let holders = self
                .members
                .values()
                .filter(|member| member.have.as_ref().is_some_and(|have| have.has(piece)))
                .count();
            if usize::from(self.availability.holders(piece)) != holders {
                return Err(format!(
                    "{piece:?} has {holders} holders, counted otherwise"
                ));
            }
        }
        Ok(())
    }
}
