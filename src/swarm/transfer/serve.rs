//! Announces pieces, gives them out as the origin, and answers requests.
//!
//! Spec: `spec/peer-protocol.md` PEER-11, PEER-13, SWARM-1, SWARM-2, SWARM-10.

use std::time::{Duration, Instant};

use super::{Shared, Transfer, TransferState};
use crate::config::Zone;
use crate::payload::{Bitfield, PieceIndex};
use crate::swarm::limits::{
    GIVE_AHEAD_TIME, HAVE_DELAY_MAX, HAVE_DELAY_MIN, HAVE_PIECES_AIM_MAX, HAVE_PIECES_AIM_MIN,
    HAVE_PIECES_MAX, HAVE_PIECES_PART, ORIGIN_SHARE_MIN, REST_TIME, STARVED_AFTER,
};
use crate::swarm::peer::{Member, PeerError};
use crate::swarm::requests::{ConnId, checked, raw};
use crate::swarm::uploads::Rank;
use crate::swarm::wire::{Message, RawBlock};

/// News that goes out without waiting for [`HAVE_DELAY_MIN`].
const NEWS_AT_ONCE: usize = 64;
/// Bytes that the origin offers ahead, at most.
const GIVE_AHEAD_BYTES_MAX: u64 = 8 * 1024 * 1024;

impl Transfer {
    /// Tells members what is new, as far as it is time: at once when this node became complete.
    pub(crate) fn flush_news(&mut self, shared: &mut Shared, now: Instant) {
        // req: SWARM-10
        let all = self.state == TransferState::Complete;
        for (conn, member) in &mut self.members {
            let is_due = member.news_due.is_some_and(|due| due <= now);
            if all || is_due || member.news.len() >= NEWS_AT_ONCE {
                tell_news(*conn, member, shared, now);
            }
        }
    }

    /// When news that waits is to be told.
    pub(crate) fn news_timeout(&self) -> Option<Instant> {
        let due = self.members.values().filter_map(|member| member.news_due);
        due.min()
    }

    /// How long pieces are gathered: until a few came, at the rate at which they come now.
    pub(super) fn news_delay(&self, now: Instant) -> Duration {
        let pieces = gathered_pieces(self.geometry.piece_count());
        let few = u64::from(pieces) * u64::from(self.geometry.piece_bytes().get());
        let rate = self.down_rate.bytes_per_second(now).max(1);
        Duration::from_secs_f64(few as f64 / rate as f64).clamp(HAVE_DELAY_MIN, HAVE_DELAY_MAX)
    }

    /// As the origin: offers pieces that nobody has, to those who relay, a short time ahead.
    pub(crate) fn give(&mut self, shared: &mut Shared, now: Instant) {
        // req: SWARM-1
        // req: SWARM-2
        let piece_bytes = u64::from(self.geometry.piece_bytes().get());
        let ahead = self.up_rate.bytes_per_second(now) as f64 * GIVE_AHEAD_TIME.as_secs_f64();
        let ahead =
            (ahead as u64).clamp(2 * piece_bytes, GIVE_AHEAD_BYTES_MAX.max(2 * piece_bytes));
        let in_a_row = self.given_pieces(ahead);
        let Some(giver) = &mut self.giver else { return };
        giver.expire(now);
        while giver.has_ungiven() && giver.moving_bytes(now) < ahead {
            let mut takers: Vec<_> = self
                .members
                .iter()
                .filter(|(_, member)| {
                    !member.choked && member.have.as_ref().is_some_and(|have| !have.is_full())
                })
                .map(|(conn, member)| {
                    let unsent = giver.unsent_bytes(*conn);
                    let unrelayed = giver.unrelayed_count(*conn);
                    (unsent, unrelayed, member.last_gift, *conn)
                })
                .filter(|(unsent, ..)| *unsent < ahead.div_ceil(2).max(2 * piece_bytes))
                .collect();
            takers.sort_unstable();
            let given = takers.into_iter().find_map(|(.., conn)| {
                let member = self.members.get_mut(&conn)?;
                let held = member.have.as_ref()?;
                let piece = giver.give(&self.geometry, &self.have, conn, held, now)?;
                let mut pieces = vec![piece];
                // The rest of its part goes to the same peer.
                while !(piece.get() + pieces.len() as u32).is_multiple_of(in_a_row) {
                    let next = giver.give(&self.geometry, &self.have, conn, held, now);
                    let Some(next) = next else { break };
                    pieces.push(next);
                }
                member.last_gift = Some(now);
                if let Some(given) = &mut member.given {
                    given.extend(&pieces);
                }
                let pieces: Vec<u32> = pieces.into_iter().map(PieceIndex::get).collect();
                Some((conn, member.slot, pieces))
            });
            let Some((conn, slot, pieces)) = given else {
                break;
            };
            shared.send(conn, Message::Offer { slot, pieces });
        }
    }

    /// As the origin whose every piece went out once: becomes a seed like any other if the rest would take
    /// the swarm too long without it, and not before, since every further copy is one that others can send.
    pub(crate) fn end_giving(&mut self, shared: &mut Shared, now: Instant) {
        // req: SWARM-1
        if !self.giver.as_ref().is_some_and(|giver| giver.is_done(now)) || !self.is_needed(now) {
            return;
        }
        self.giver = None;
        for (conn, member) in &mut self.members {
            if member.given.take().is_some() {
                shared.send(*conn, Message::HaveAll { slot: member.slot });
            }
        }
    }

    /// Whether members that are not complete need this origin's uplink.
    fn is_needed(&self, now: Instant) -> bool {
        let (mut all_gains, mut longest_s) = (0.0, 0.0_f64);
        for member in self.members.values().filter(|member| !member.is_complete()) {
            let Some(have) = &member.have else { continue };
            if now.saturating_duration_since(member.gained) >= STARVED_AFTER {
                return true;
            }
            let gains = member.gains.bytes_per_second(now).max(1) as f64;
            let missing = self.geometry.piece_count() - have.held_count();
            let missing_bytes = u64::from(missing) * u64::from(self.geometry.piece_bytes().get());
            all_gains += gains;
            longest_s = longest_s.max(missing_bytes as f64 / gains);
        }
        let share = self.up_rate.bytes_per_second(now) as f64 / all_gains.max(1.0);
        longest_s > REST_TIME.as_secs_f64() && share >= ORIGIN_SHARE_MIN
    }

    /// A peer asks for a block: it waits its turn, or is rejected.
    pub(crate) fn request(
        &mut self,
        conn: ConnId,
        block: RawBlock,
        shared: &mut Shared,
        now: Instant,
    ) -> Result<(), PeerError> {
        // req: PEER-11
        let piece = self.geometry.piece_index(block.piece);
        let piece = piece.ok_or(PeerError::PieceRange)?;
        let range = self
            .geometry
            .block_range(piece, block.offset_bytes, block.len_bytes)
            .ok_or(PeerError::BlockRange)?;
        let Some(member) = self.members.get(&conn) else {
            return Ok(());
        };
        if shared.uploads.waiting_count(self.id, conn) >= usize::from(shared.settings.requests_max)
        {
            return Err(PeerError::TooManyRequests);
        }
        let may_be_asked = self.geometry.pieces_of(range).all(|piece| {
            let given = member.given.as_ref();
            given.is_none_or(|given| given.contains(&piece)) && self.serves(piece)
        });
        // req: PEER-13
        if member.choked || !may_be_asked {
            let slot = member.slot;
            shared.send(conn, Message::Reject { slot, block });
            return Ok(());
        }
        shared.uploads.ask(self.id, conn, range, now);
        Ok(())
    }

    /// Whether `piece` is held and may be read.
    fn serves(&self, piece: PieceIndex) -> bool {
        match self.state {
            TransferState::Fetching | TransferState::Complete => self.have.has(piece),
            TransferState::Failed => false,
        }
    }

    /// How soon a request is served: the peer that holds least first, then the rarest piece.
    ///
    /// A peer that announces nothing is taken to hold at least what it was sent, so silence gains nothing.
    pub(crate) fn rank(&self, conn: ConnId, piece: PieceIndex, zone: Option<&Zone>) -> Rank {
        // req: SWARM-6
        let member = self.members.get(&conn);
        let is_near = member.is_none_or(|member| !member.is_far(zone));
        let held = member.map_or(0, |member| {
            let announced = member.have.as_ref().map_or(0, Bitfield::held_count);
            let piece_bytes = u64::from(self.geometry.piece_bytes().get());
            let sent = member.counts.up_bytes / piece_bytes;
            announced.max(u32::try_from(sent).unwrap_or(u32::MAX))
        });
        Rank {
            is_near,
            held,
            holders: self.availability.holders(piece),
        }
    }

    /// A peer takes a request back: answered by `Reject` if it was still waiting.
    pub(crate) fn cancel(
        &mut self,
        conn: ConnId,
        block: RawBlock,
        shared: &mut Shared,
    ) -> Result<(), PeerError> {
        let range = checked(&self.geometry, block).ok_or(PeerError::BlockRange)?;
        if shared.uploads.cancel(self.id, conn, range) {
            self.send_reject(conn, block, shared);
        }
        Ok(())
    }

    /// Chokes a peer, or takes it up again.
    pub(crate) fn set_choked(&mut self, conn: ConnId, choked: Choked, shared: &mut Shared) {
        // req: PEER-13
        let Some(member) = self.members.get_mut(&conn) else {
            return;
        };
        let slot = member.slot;
        match choked {
            Choked::Yes => {
                member.choked = true;
                shared.send(conn, Message::Choke { slot });
                for block in shared.uploads.drain(self.id, conn) {
                    self.send_reject(conn, raw(block), shared);
                }
            }
            Choked::No => {
                member.choked = false;
                shared.send(conn, Message::Unchoke { slot });
            }
        }
    }

    pub(crate) fn send_reject(&self, conn: ConnId, block: RawBlock, shared: &mut Shared) {
        if let Some(member) = self.members.get(&conn) {
            let slot = member.slot;
            shared.send(conn, Message::Reject { slot, block });
        }
    }
}

/// Pieces told in one message if they come fast enough. A payload that is over after a few of them cannot wait; one of many
/// can, and each message costs both sides a system call and a wake-up.
fn gathered_pieces(piece_count: u32) -> u32 {
    (piece_count / HAVE_PIECES_PART).clamp(HAVE_PIECES_AIM_MIN, HAVE_PIECES_AIM_MAX)
}

/// Tells a member what is new, if anything is.
pub(super) fn tell_news(conn: ConnId, member: &mut Member, shared: &mut Shared, now: Instant) {
    if member.news.is_empty() {
        return;
    }
    for pieces in member.news.chunks(HAVE_PIECES_MAX) {
        let message = Message::Have {
            slot: member.slot,
            pieces: pieces.to_vec(),
        };
        shared.send(conn, message);
    }
    member.news.clear();
    member.news_due = None;
    member.told_news = Some(now);
}

/// Whether a peer is choked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Choked {
    /// Its requests are rejected.
    Yes,
    /// It is served.
    No,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small payload's pieces are told in fours, a large one's in greater numbers, and never in more than go out at once.
    // req: SWARM-10
    #[test]
    fn large_payloads_gather_more() {
        let gathered = [1, 31, 128, 382, 763, 1_024, 65_536].map(gathered_pieces);
        assert_eq!(gathered, [4, 4, 4, 11, 23, 24, 24]);
        assert!(
            gathered
                .iter()
                .all(|pieces| *pieces as usize <= NEWS_AT_ONCE)
        );
    }
}
