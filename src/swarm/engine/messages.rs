//! Takes each peer message to the transfer that it is about, if it is legal now.
//!
//! Spec: `spec/peer-protocol.md` sections 1 and 3, PEER-2, PEER-9 to PEER-14.

use std::time::Instant;

use super::Engine;
use crate::swarm::addresses::Source;
use crate::swarm::peer::{PeerError, TheirSlot};
use crate::swarm::requests::{ConnId, TransferId};
use crate::swarm::transfer::Transfer;
use crate::swarm::wire::{Message, Slot};

impl Engine {
    pub(super) fn dispatch(
        &mut self,
        conn: ConnId,
        message: Message,
        now: Instant,
    ) -> Result<(), PeerError> {
        let greeted = self
            .peers
            .get(&conn)
            .is_some_and(|peer| peer.their_hello().is_some());
        match message {
            Message::Hello(hello) => self.hello(conn, hello, now),
            // req: PEER-2
            _ if !greeted => Err(PeerError::HelloOrder),
            Message::Join {
                slot,
                payload,
                proof,
            } => self.join(conn, slot, payload, &proof, now),
            Message::Refuse { payload, reason } => {
                self.refused(conn, payload, reason, now);
                Ok(())
            }
            Message::Leave { slot, reason } => self.left(conn, slot, reason, now),
            Message::Ping => Ok(()),
            Message::Bitfield {
                slot,
                giving,
                choked,
                bits,
            } => {
                let Some((id, transfer)) = self.at_slot(conn, slot)? else {
                    return Ok(());
                };
                transfer.bitfield(conn, &bits, giving, choked)?;
                self.fill(id, conn, now);
                Ok(())
            }
            Message::HaveAll { slot } => {
                self.then_fill(conn, slot, now, |it| it.peer_has_all(conn))
            }
            Message::Have { slot, pieces } => {
                self.then_fill(conn, slot, now, |it| it.peer_has(conn, &pieces, now))
            }
            Message::Offer { slot, pieces } => {
                self.then_fill(conn, slot, now, |it| it.peer_offers(conn, &pieces))
            }
            Message::Choke { slot } => self.set_chokes_us(conn, slot, Chokes::Yes, now),
            Message::Unchoke { slot } => self.set_chokes_us(conn, slot, Chokes::No, now),
            Message::Request { slot, block } => {
                let Some((id, _)) = self.at_slot(conn, slot)? else {
                    return Ok(());
                };
                let Some(transfer) = self.transfers.get_mut(&id) else {
                    return Ok(());
                };
                transfer.request(conn, block, &mut self.shared, now)
            }
            Message::Cancel { slot, block } => {
                let Some((id, _)) = self.at_slot(conn, slot)? else {
                    return Ok(());
                };
                let Some(transfer) = self.transfers.get_mut(&id) else {
                    return Ok(());
                };
                transfer.cancel(conn, block, &mut self.shared)
            }
            Message::Reject { slot, block } => {
                let Some((id, _)) = self.at_slot(conn, slot)? else {
                    return Ok(());
                };
                if let Some(transfer) = self.transfers.get_mut(&id) {
                    transfer.reject(conn, block, &mut self.shared, now)?;
                    transfer.fill_all(&mut self.shared, now);
                }
                Ok(())
            }
            Message::Block {
                slot,
                piece,
                offset_bytes,
                bytes,
            } => {
                let Some((id, _)) = self.at_slot(conn, slot)? else {
                    return Ok(());
                };
                if let Some(transfer) = self.transfers.get_mut(&id) {
                    transfer.block(conn, piece, offset_bytes, bytes, &mut self.shared, now)?;
                    transfer.fill(conn, &mut self.shared, now);
                }
                Ok(())
            }
            Message::Peers { slot, addresses } => {
                let Some((id, transfer)) = self.at_slot(conn, slot)? else {
                    return Ok(());
                };
                // req: PEER-14
                let Some(member) = transfer.members.get_mut(&conn) else {
                    return Ok(());
                };
                let taken = member.take_hints(addresses.len(), now);
                for address in addresses.into_iter().take(taken) {
                    transfer.book.learn(address, Source::Peer, now);
                }
                self.dial(id, now);
                Ok(())
            }
        }
    }

    /// The transfer that a peer's slot stands for; `None` when we have left it.
    fn at_slot(
        &mut self,
        conn: ConnId,
        slot: Slot,
    ) -> Result<Option<(TransferId, &mut Transfer)>, PeerError> {
        // req: PEER-9
        let peer = self.peers.get(&conn).ok_or(PeerError::SlotUnknown)?;
        match peer.meaning(slot)? {
            TheirSlot::Leaving => Ok(None),
            TheirSlot::Member(id) => Ok(self.transfers.get_mut(&id).map(|transfer| (id, transfer))),
        }
    }

    fn then_fill(
        &mut self,
        conn: ConnId,
        slot: Slot,
        now: Instant,
        apply: impl FnOnce(&mut Transfer) -> Result<(), PeerError>,
    ) -> Result<(), PeerError> {
        let Some((id, transfer)) = self.at_slot(conn, slot)? else {
            return Ok(());
        };
        apply(transfer)?;
        self.fill(id, conn, now);
        Ok(())
    }

    fn fill(&mut self, id: TransferId, conn: ConnId, now: Instant) {
        if let Some(transfer) = self.transfers.get_mut(&id) {
            transfer.fill(conn, &mut self.shared, now);
        }
    }

    fn set_chokes_us(
        &mut self,
        conn: ConnId,
        slot: Slot,
        chokes: Chokes,
        now: Instant,
    ) -> Result<(), PeerError> {
        let Some((id, transfer)) = self.at_slot(conn, slot)? else {
            return Ok(());
        };
        if let Some(member) = transfer.members.get_mut(&conn) {
            member.chokes_us = chokes == Chokes::Yes;
        }
        self.fill(id, conn, now);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Chokes {
    Yes,
    No,
}
