//! Hello, proofs, leaving, and whom to dial.
//!
//! Spec: `spec/peer-protocol.md` sections 1, 2 and 4, PEER-4, PEER-6, PEER-7, PEER-9, SWARM-9.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{Action, Engine};
use crate::payload::PayloadId;
use crate::swarm::limits::{JOINS_REFUSED_MAX, PEERS_ADDRESSES_MAX};
use crate::swarm::peer::{Join, Member, Peer, PeerError, TheirSlot};
use crate::swarm::proof::{Role, mix};
use crate::swarm::requests::{ConnId, TransferId};
use crate::swarm::transfer::Transfer;
use crate::swarm::wire::{Hello, Message, Reason, Slot};

/// How often a member is told new addresses.
const TELL_INTERVAL: Duration = Duration::from_secs(2);
/// Addresses told at a time; a newcomer that found no place gets up to 16.
const TELL_AT_ONCE: usize = 4;

impl Engine {
    pub(super) fn hello(
        &mut self,
        conn: ConnId,
        hello: Hello,
        now: Instant,
    ) -> Result<(), PeerError> {
        let node = hello.node;
        let us = self.node;
        let Some(peer) = self.peers.get_mut(&conn) else {
            return Ok(());
        };
        let opened = peer.open(hello, &us);
        let dialled = peer.dialled;
        let refusal = match opened {
            Err(reason) => Some(reason),
            Ok(()) if self.blame.is_banned(&node, now) => Some(PeerError::Banned),
            Ok(()) => None,
        };
        if let Some(reason) = refusal {
            // Who found no way to speak TLS this time may find one the next.
            let dialled = dialled.filter(|_| reason != PeerError::Downgraded);
            for transfer in self.transfers.values_mut() {
                if let Some(address) = dialled {
                    transfer.book.forget(address);
                }
            }
            return Err(reason);
        }
        if let Some(address) = dialled {
            let waiting: Vec<TransferId> = self
                .transfers
                .iter()
                .filter(|(_, transfer)| transfer.book.is_dialling(address))
                .map(|(id, _)| *id)
                .collect();
            for id in waiting {
                self.ask(id, conn, now);
            }
        }
        Ok(())
    }

    /// Proves a payload to a peer, unless that is under way.
    fn ask(&mut self, id: TransferId, conn: ConnId, now: Instant) {
        let (Some(transfer), Some(peer)) = (self.transfers.get_mut(&id), self.peers.get_mut(&conn))
        else {
            return;
        };
        let excluded = peer
            .their_hello()
            .is_none_or(|hello| transfer.excluded.contains(&hello.node));
        if excluded || peer.joins.contains_key(&id) {
            if let Some(address) = peer.dialled {
                transfer.book.failed(address, now);
            }
            return;
        }
        if let Some((slot, proof)) = prove(peer, transfer, &self.node) {
            peer.joins.insert(id, Join::Asked { slot });
            let payload = transfer.payload;
            let message = Message::Join {
                slot,
                payload,
                proof,
            };
            self.shared.send(conn, message);
        }
    }

    /// A payload became known here: joins the peers that asked for it before.
    pub(super) fn join_those_who_asked(&mut self, id: TransferId, payload: PayloadId) {
        let now = self.ticked;
        let conns: Vec<ConnId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.refused.contains(&payload))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in conns {
            self.ask(id, conn, now);
        }
    }

    /// A peer proves a payload, or tries to.
    pub(super) fn join(
        &mut self,
        conn: ConnId,
        slot: Slot,
        payload: PayloadId,
        proof: &[u8; 32],
        now: Instant,
    ) -> Result<(), PeerError> {
        // req: PEER-6
        // req: PEER-7
        let Some(peer) = self.peers.get_mut(&conn) else {
            return Ok(());
        };
        peer.check_free(slot)?;
        let Some(hello) = peer.their_hello().cloned() else {
            return Err(PeerError::HelloOrder);
        };
        let proven = self
            .by_payload
            .get(&payload)
            .into_iter()
            .flatten()
            .filter_map(|id| self.transfers.get(id))
            .find(|transfer| peer.verifies(&self.node, &transfer.key, &payload, proof))
            .map(|transfer| transfer.id);
        let transfer = proven.and_then(|id| self.transfers.get_mut(&id));
        let Some(transfer) = transfer.filter(|it| !it.excluded.contains(&hello.node)) else {
            peer.refused_count += 1;
            if peer.refused_count >= JOINS_REFUSED_MAX {
                return Err(PeerError::RefusedTooOften);
            }
            if !peer.refused.contains(&payload) {
                peer.refused.push(payload);
            }
            let reason = Reason::Unknown;
            self.shared.send(conn, Message::Refuse { payload, reason });
            return Ok(());
        };
        let id = transfer.id;
        peer.refused.retain(|refused| *refused != payload);
        let ours = match peer.joins.get(&id) {
            Some(Join::Member { .. }) => return Err(PeerError::SlotTaken),
            Some(Join::Asked { slot }) => *slot,
            None => {
                let Some((ours, proof)) = prove(peer, transfer, &self.node) else {
                    return Err(PeerError::SlotTaken);
                };
                let message = Message::Join {
                    slot: ours,
                    payload,
                    proof,
                };
                self.shared.send(conn, message);
                ours
            }
        };
        let join = Join::Member {
            slot: ours,
            theirs: slot,
        };
        peer.joins.insert(id, join);
        peer.set_their_slot(slot, TheirSlot::Member(id));
        let member = Member::new(peer, &hello, ours, now);
        if let Some(address) = peer.dialled {
            transfer.book.in_use(address);
        }
        // req: SWARM-9
        let full = transfer.members.len() >= self.shared.settings.neighbours_max;
        let zone = self.shared.settings.zone.as_ref();
        let surplus = transfer.far_surplus(zone);
        match surplus.filter(|_| full && !member.is_far(zone)) {
            // req: SWARM-37
            Some(far) => self.leave(id, far, Reason::Full, now),
            None if full => {
                self.turn_away(id, conn, ours, slot, now);
                return Ok(());
            }
            None => {}
        }
        let Some(transfer) = self.transfers.get_mut(&id) else {
            return Ok(());
        };
        transfer.add_member(conn, member, &mut self.shared, now);
        self.tell_newcomer(id, conn, now);
        self.drop_duplicate(conn, &hello, now);
        Ok(())
    }

    /// A proven peer for which there is no place: it gets addresses and goes. Some are kept at hand, so that those who
    /// come next can be told of them: they have places to give, and the members here may have none left.
    fn turn_away(&mut self, id: TransferId, conn: ConnId, ours: Slot, theirs: Slot, now: Instant) {
        let addresses = self.addresses(id, conn, PEERS_ADDRESSES_MAX);
        if !addresses.is_empty() {
            let slot = ours;
            self.shared.send(conn, Message::Peers { slot, addresses });
        }
        let reason = Reason::Full;
        self.shared
            .send(conn, Message::Leave { slot: ours, reason });
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.joins.remove(&id);
            peer.set_their_slot(theirs, TheirSlot::Leaving);
            let dialled = peer.dialled;
            self.join_ended(id, dialled, now);
        }
        let salt = self.shared.random.next();
        let transfer = self.transfers.get_mut(&id);
        let Some(out) = transfer.and_then(|transfer| transfer.park(conn, salt)) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(&out) {
            peer.is_turned_away = true;
            // Who has yet to read what it was told says goodbye first.
            if out != conn && peer.joins.is_empty() {
                self.close(out, PeerError::NoPlace, now);
            }
        }
    }

    /// Addresses of other members, chosen at random.
    fn addresses(&mut self, id: TransferId, conn: ConnId, count: usize) -> Vec<SocketAddr> {
        // req: PEER-14
        let salt = self.shared.random.next();
        let Some(transfer) = self.transfers.get(&id) else {
            return Vec::new();
        };
        let told = transfer.members.get(&conn).map(|member| &member.told);
        let peer = self.peers.get(&conn);
        let own = peer.and_then(Peer::dialable);
        let hello = peer.and_then(Peer::their_hello);
        let zone = hello.and_then(|hello| hello.zone.as_ref());
        let members = transfer.members.iter();
        let members = members
            .filter(|(other, _)| **other != conn)
            .filter_map(|(_, member)| Some((member.is_far(zone), member.address?)));
        let parked = transfer.parked.iter().filter(|other| **other != conn);
        let parked = parked.filter_map(|other| {
            let other = self.peers.get(other)?;
            let theirs = other.their_hello()?.zone.as_ref();
            let is_far = zone.is_some() && theirs.is_some() && zone != theirs;
            Some((is_far, other.dialable()?))
        });
        let mut addresses: Vec<(bool, u64, SocketAddr)> = members
            .chain(parked)
            .filter(|(_, address)| Some(*address) != own)
            .filter(|(_, address)| told.is_none_or(|told| !told.contains(address)))
            .map(|(is_far, address)| {
                let tie = mix(salt ^ u64::from(address.port()) ^ ip_bits(&address));
                (is_far, tie, address)
            })
            .collect();
        // req: SWARM-37
        addresses.sort_unstable();
        addresses.truncate(count);
        addresses.into_iter().map(|(.., address)| address).collect()
    }

    /// A new member learns of half of the others; they learn of it in time.
    fn tell_newcomer(&mut self, id: TransferId, conn: ConnId, now: Instant) {
        self.tell(id, conn, PEERS_ADDRESSES_MAX / 2, now);
    }

    fn tell(&mut self, id: TransferId, conn: ConnId, count: usize, now: Instant) {
        let mut addresses = self.addresses(id, conn, count);
        let Some(member) = self
            .transfers
            .get_mut(&id)
            .and_then(|transfer| transfer.members.get_mut(&conn))
        else {
            return;
        };
        member.told_peers = now;
        addresses.truncate(member.take_tells(addresses.len(), now));
        if addresses.is_empty() {
            return;
        }
        if member.told.len() > 8 * PEERS_ADDRESSES_MAX {
            member.told.clear();
        }
        member.told.extend(addresses.iter().copied());
        let slot = member.slot;
        self.shared.send(conn, Message::Peers { slot, addresses });
    }

    /// Tells members that still fetch of others that came later.
    pub(super) fn tell_peers(&mut self, id: TransferId, now: Instant) {
        let Some(transfer) = self.transfers.get(&id) else {
            return;
        };
        let due: Vec<ConnId> = transfer
            .members
            .iter()
            .filter(|(_, member)| {
                !member.is_complete()
                    && now.saturating_duration_since(member.told_peers) >= TELL_INTERVAL
            })
            .map(|(conn, _)| *conn)
            .collect();
        for conn in due {
            self.tell(id, conn, TELL_AT_ONCE, now);
        }
    }

    /// Of two connections to one node, the one dialled by the lesser id stays.
    fn drop_duplicate(&mut self, conn: ConnId, hello: &Hello, now: Instant) {
        // req: PEER-4
        let other = self.peers.iter().find(|(other, peer)| {
            **other != conn
                && peer.has_member()
                && peer
                    .their_hello()
                    .is_some_and(|theirs| theirs.node == hello.node)
        });
        let Some((other, other_role)) = other.map(|(other, peer)| (*other, peer.role)) else {
            return;
        };
        let Some(role) = self.peers.get(&conn).map(|peer| peer.role) else {
            return;
        };
        let stays = if self.node < hello.node {
            Role::Dialler
        } else {
            Role::Listener
        };
        let goes = if role == other_role {
            // Both dialled by the same side: that side closes its newer one.
            match role {
                Role::Dialler => conn,
                Role::Listener => return,
            }
        } else if role == stays {
            other
        } else {
            conn
        };
        self.close(goes, PeerError::Duplicate, now);
    }

    /// Our proof led nowhere.
    pub(super) fn refused(
        &mut self,
        conn: ConnId,
        payload: PayloadId,
        reason: Reason,
        now: Instant,
    ) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        let ids = self.by_payload.get(&payload).into_iter().flatten();
        let asked: Vec<TransferId> = ids
            .filter(|id| matches!(peer.joins.get(*id), Some(Join::Asked { .. })))
            .copied()
            .collect();
        // Two scopes may ask for one payload id; answers come in the order of the questions.
        let Some(id) = asked.first().copied() else {
            return;
        };
        peer.joins.remove(&id);
        let dialled = peer.dialled;
        tracing::debug!(peer = %peer.remote, ?reason, "peer refused a payload");
        self.join_ended(id, dialled, now);
    }

    /// The other side left a swarm.
    pub(super) fn left(
        &mut self,
        conn: ConnId,
        slot: Slot,
        reason: Reason,
        now: Instant,
    ) -> Result<(), PeerError> {
        // req: PEER-9
        let peer = self.peers.get_mut(&conn).ok_or(PeerError::SlotUnknown)?;
        let meaning = peer.meaning(slot)?;
        peer.free_their_slot(slot);
        let TheirSlot::Member(id) = meaning else {
            // req: SWARM-9
            let is_idle = peer.is_turned_away && peer.joins.is_empty();
            return if is_idle {
                Err(PeerError::NoPlace)
            } else {
                Ok(())
            };
        };
        if let Some(Join::Member { slot, .. }) = peer.joins.remove(&id) {
            if reason == Reason::BadPiece {
                self.heed_accusation(id, conn, now);
            }
            self.remove_member(id, conn, now);
            self.shared.send(conn, Message::Leave { slot, reason });
        }
        Ok(())
    }

    /// A member says that a piece from here is bad: that can be so only if it was sent a block.
    fn heed_accusation(&mut self, id: TransferId, conn: ConnId, now: Instant) {
        // req: SWARM-38
        let transfer = self.transfers.get(&id);
        let member = transfer.and_then(|transfer| transfer.members.get(&conn));
        let served = member.filter(|member| member.counts.up_bytes > 0);
        if let Some(node) = served.map(|member| member.node)
            && self.blame.hears(node, now)
        {
            self.accused.insert(id);
        }
    }

    /// A dial led to nobody.
    pub(super) fn dial_ended(&mut self, address: SocketAddr, now: Instant) {
        for transfer in self.transfers.values_mut() {
            if transfer.book.is_dialling(address) {
                transfer.book.failed(address, now);
            }
        }
    }

    /// A join led to nothing.
    pub(super) fn join_ended(&mut self, id: TransferId, dialled: Option<SocketAddr>, now: Instant) {
        if let (Some(transfer), Some(address)) = (self.transfers.get_mut(&id), dialled) {
            transfer.book.failed(address, now);
        }
    }

    /// When [`Engine::dial`] has something to do next: never as long as nothing can be dialled or nobody is missed.
    pub(super) fn dial_timeout(&self) -> Option<Instant> {
        let settings = &self.shared.settings;
        let is_full =
            self.dials.len() >= settings.dials_max || self.peers.len() >= settings.connections_max;
        if is_full {
            return None;
        }
        let dials_out_only = settings.listen_port.is_none();
        let transfers = self.transfers.values();
        let searching =
            transfers.filter(|it| it.is_dialling(dials_out_only) && it.lacks_neighbours(settings));
        searching.filter_map(|it| it.book.next_at()).min()
    }

    /// Looks for neighbours of every payload that lacks some.
    pub(super) fn dial_all(&mut self, now: Instant) {
        let ids: Vec<TransferId> = self.transfers.keys().copied().collect();
        for id in ids {
            self.dial(id, now);
        }
    }

    /// Dials, or asks over connections that are there, until there are neighbours enough.
    pub(super) fn dial(&mut self, id: TransferId, now: Instant) {
        // req: SWARM-9
        let settings = &self.shared.settings;
        let (dials_max, connections_max) = (settings.dials_max, settings.connections_max);
        let dials_out_only = settings.listen_port.is_none();
        loop {
            let salt = self.shared.random.next();
            let settings = &self.shared.settings;
            let Some(transfer) = self
                .transfers
                .get_mut(&id)
                .filter(|it| it.is_dialling(dials_out_only) && it.lacks_neighbours(settings))
            else {
                return;
            };
            let Some(address) = transfer.book.next(salt, now) else {
                return;
            };
            let there = self
                .peers
                .iter()
                .find(|(_, peer)| peer.dialled == Some(address) || peer.dialable() == Some(address))
                .map(|(conn, peer)| {
                    (
                        *conn,
                        peer.joins.contains_key(&id),
                        peer.their_hello().is_some(),
                    )
                });
            match there {
                Some((_, true, _)) => transfer.book.left(address, now),
                Some((conn, false, true)) => {
                    transfer.book.dialling(address);
                    self.ask_there(id, conn, address, now);
                }
                // Its hello will make it be asked.
                Some((_, false, false)) => transfer.book.dialling(address),
                None if self.dials.contains(&address) => transfer.book.dialling(address),
                None => {
                    if self.dials.len() >= dials_max || self.peers.len() >= connections_max {
                        return;
                    }
                    transfer.book.dialling(address);
                    self.dials.insert(address);
                    self.shared.actions.push_back(Action::Dial { address });
                }
            }
        }
    }

    /// Asks for a payload over a connection that is there; how the address fares follows the answer.
    fn ask_there(&mut self, id: TransferId, conn: ConnId, address: SocketAddr, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            // An accepted connection is known by the address that it can be dialled at from here on.
            peer.dialled.get_or_insert(address);
        }
        self.ask(id, conn, now);
        let asked = self
            .peers
            .get(&conn)
            .is_some_and(|peer| peer.joins.contains_key(&id));
        if let Some(transfer) = self.transfers.get_mut(&id).filter(|_| !asked) {
            transfer.book.failed(address, now);
        }
    }
}

/// A slot and a proof of ours for one more payload on a connection.
fn prove(
    peer: &mut Peer,
    transfer: &Transfer,
    us: &crate::swarm::wire::NodeId,
) -> Option<(Slot, [u8; 32])> {
    let proof = peer.our_proof(us, &transfer.key, &transfer.payload)?;
    Some((peer.new_slot()?, proof))
}

fn ip_bits(address: &SocketAddr) -> u64 {
    match address.ip() {
        std::net::IpAddr::V4(ip) => u64::from(ip.to_bits()) << 16,
        // The low half tells hosts of one network apart.
        std::net::IpAddr::V6(ip) => (ip.to_bits() & u128::from(u64::MAX)) as u64,
    }
}
