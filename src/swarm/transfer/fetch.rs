//! Asks peers for pieces and takes what they send.
//!
//! Spec: `spec/peer-protocol.md` PEER-10 to PEER-12, SWARM-3 to SWARM-5, SWARM-11, SWARM-13.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Shared, Transfer, TransferState};
use crate::payload::{Bitfield, BlockRange, PieceIndex};
use crate::swarm::engine::Action;
use crate::swarm::limits::{ENDGAME_AGE_MIN, IMPORT_TURN_MAX, MOVE_AFTER};
use crate::swarm::peer::{Member, PeerError};
use crate::swarm::picker::{Order, pick};
use crate::swarm::requests::{Attempt, ConnId, Match, checked, raw};
use crate::swarm::window::{pick_in_window, window_pieces};
use crate::swarm::wire::{Message, NodeId, RawBlock};

/// Pieces of one payload fetched at a time even when the node's bound on bytes is reached.
const PIECES_AT_LEAST: usize = 4;

impl Transfer {
    /// Their first message after the proofs.
    pub(crate) fn bitfield(
        &mut self,
        conn: ConnId,
        bits: &[u8],
        giving: bool,
        choked: bool,
    ) -> Result<(), PeerError> {
        // req: PEER-10
        let Some(member) = self.members.get_mut(&conn) else {
            return Ok(());
        };
        if member.have.is_some() {
            return Err(PeerError::BitfieldAgain);
        }
        let have =
            Bitfield::from_bytes(&self.geometry, bits).map_err(|_| PeerError::BitfieldMalformed)?;
        self.availability.add_all(&self.geometry, &have);
        if let Some(giver) = &mut self.giver {
            for piece in have.held(&self.geometry) {
                giver.seen(conn, piece);
            }
        }
        member.have = Some(have);
        member.giving = giving;
        member.chokes_us = choked;
        if let Some(address) = member.dialled {
            self.book.settled(address);
        }
        Ok(())
    }

    /// They hold these pieces now.
    pub(crate) fn peer_has(
        &mut self,
        conn: ConnId,
        pieces: &[u32],
        now: Instant,
    ) -> Result<(), PeerError> {
        let Some(member) = self.members.get_mut(&conn) else {
            return Ok(());
        };
        let have = member.have.as_mut().ok_or(PeerError::EarlyMessage)?;
        let mut gained_bytes = 0;
        for number in pieces {
            // req: PEER-10
            let piece = self.geometry.piece_index(*number);
            let piece = piece.ok_or(PeerError::PieceRange)?;
            if have.set(piece) {
                self.availability.add(piece);
                gained_bytes += u64::from(self.geometry.piece_len_bytes(piece));
            }
            if let Some(giver) = &mut self.giver {
                giver.seen(conn, piece);
            }
        }
        if gained_bytes > 0 {
            member.gains.add(gained_bytes, now);
            member.gained = now;
        }
        Ok(())
    }

    /// They hold everything and give no longer.
    pub(crate) fn peer_has_all(&mut self, conn: ConnId) -> Result<(), PeerError> {
        let Some(member) = self.members.get_mut(&conn) else {
            return Ok(());
        };
        let have = member.have.as_mut().ok_or(PeerError::EarlyMessage)?;
        for piece in self.geometry.pieces() {
            if have.set(piece) {
                self.availability.add(piece);
            }
        }
        member.giving = false;
        member.offered.clear();
        Ok(())
    }

    /// They give us these pieces.
    pub(crate) fn peer_offers(&mut self, conn: ConnId, pieces: &[u32]) -> Result<(), PeerError> {
        let Some(member) = self.members.get_mut(&conn) else {
            return Ok(());
        };
        if member.have.is_none() {
            return Err(PeerError::EarlyMessage);
        }
        for number in pieces {
            let piece = self.geometry.piece_index(*number);
            member.offered.insert(piece.ok_or(PeerError::PieceRange)?);
        }
        Ok(())
    }

    /// Asks every member for as much as it should be asked.
    pub(crate) fn fill_all(&mut self, shared: &mut Shared, now: Instant) {
        let conns: Vec<ConnId> = self.members.keys().copied().collect();
        for conn in conns {
            self.fill(conn, shared, now);
        }
    }

    /// Asks one member for as much as it should be asked.
    pub(crate) fn fill(&mut self, conn: ConnId, shared: &mut Shared, now: Instant) {
        while self.is_fetching() {
            let Some(member) = self.members.get(&conn) else {
                return;
            };
            if member.chokes_us || !member.pacing.has_room(member.requests_allowed) {
                return;
            }
            if member.pacing.outstanding_count() == 0
                && !member.giving
                && member.pacing.has_waited()
                && !member.pacing.has_rested(self.rest_time(now), now)
            {
                return;
            }
            // req: SWARM-30
            if !shared.down.may_go(self.id, now) {
                return;
            }
            let Some(block) = self.next_block(conn, shared, now) else {
                return;
            };
            let len_bytes = u64::from(block.len_bytes());
            shared.down.charge(self.id, len_bytes, now);
            if let Some(member) = self.members.get_mut(&conn) {
                // req: SWARM-10
                super::serve::tell_news(conn, member, shared, now);
                member.pacing.ask(block, now);
                let (slot, block) = (member.slot, raw(block));
                shared.send(conn, Message::Request { slot, block });
            }
        }
    }

    /// What to ask `conn` for next: first the rest of a begun piece, then a new one, then a duplicate.
    fn next_block(
        &mut self,
        conn: ConnId,
        shared: &mut Shared,
        now: Instant,
    ) -> Option<BlockRange> {
        for piece in &self.members.get(&conn)?.attempting {
            let attempts = self.attempts.get_mut(piece)?;
            let own = attempts.iter_mut().find(|attempt| attempt.conn == conn)?;
            if own.has_unasked() {
                return own.next_block(&self.geometry, *piece);
            }
        }
        let bound = shared.settings.download_bytes_max;
        let piece_bytes = u64::from(self.geometry.piece_bytes().get());
        if shared.download_bytes + piece_bytes > bound && self.attempts.len() >= PIECES_AT_LEAST {
            return None;
        }
        let piece = self
            .new_piece(conn, shared, now)
            .or_else(|| self.second_source(conn, shared, now));
        let Some(piece) = piece else {
            self.call_back(conn, shared, now);
            return None;
        };
        let geometry = self.geometry;
        let run = self.run_at(conn, piece, shared.settings.zone.as_ref(), now);
        let block = run.or_else(|| geometry.blocks(piece).next())?;
        for piece in geometry.pieces_of(block) {
            self.begin(piece, conn, shared, now);
        }
        Some(block)
    }

    /// Begins to fetch a piece from a peer; its first block is asked for by who called this.
    fn begin(&mut self, piece: PieceIndex, conn: ConnId, shared: &mut Shared, now: Instant) {
        let Some(member) = self.members.get_mut(&conn) else {
            return;
        };
        member.attempting.push(piece);
        self.wanted.clear(piece);
        shared.download_bytes += u64::from(self.geometry.piece_len_bytes(piece));
        let mut attempt = Attempt::new(&self.geometry, piece, conn, member.node, now);
        attempt.next_block(&self.geometry, piece);
        self.attempts.entry(piece).or_default().push(attempt);
    }

    /// A piece that nobody is asked for yet.
    fn new_piece(&mut self, conn: ConnId, shared: &Shared, now: Instant) -> Option<PieceIndex> {
        let member = self.members.get(&conn)?;
        let offered = member.offered.iter().find(|piece| self.wanted.has(**piece));
        let zone = shared.settings.zone.as_ref();
        let piece = match offered {
            Some(piece) => *piece,
            None if member.giving => return None,
            None if member.is_far(zone) => self.import(conn, shared.node, zone, now)?,
            None => self.pick_for(member.have.as_ref()?, now)?,
        };
        self.is_free_at(conn, piece).then_some(piece)
    }

    /// The piece to ask for of those that a peer holds, by this transfer's order.
    fn pick_for(&self, held: &Bitfield, now: Instant) -> Option<PieceIndex> {
        let next_read = match self.order {
            Order::RarestFirst => None,
            Order::InOrder => pick_in_window(
                &self.geometry,
                &self.have,
                &self.wanted,
                held,
                &self.availability,
                (
                    self.read_piece,
                    window_pieces(&self.geometry, self.down_rate.bytes_per_second(now)),
                ),
                self.salt,
            ),
        };
        next_read.or_else(|| {
            pick(
                Order::RarestFirst,
                &self.geometry,
                &self.wanted,
                held,
                &self.availability,
                self.salt,
            )
        })
    }

    /// In the endgame, a piece that somebody else has been asked for, for the longest time.
    fn second_source(&mut self, conn: ConnId, shared: &Shared, now: Instant) -> Option<PieceIndex> {
        // req: SWARM-4
        if !self.is_endgame() {
            return None;
        }
        let member = self.members.get(&conn)?;
        if member.giving {
            return None;
        }
        let have = member.have.as_ref()?;
        let age_min = if member.is_far(shared.settings.zone.as_ref()) {
            IMPORT_TURN_MAX
        } else {
            ENDGAME_AGE_MIN
        };
        let (piece, _) = self
            .attempts
            .iter()
            .filter(|(piece, _)| have.has(**piece))
            .filter_map(|(piece, attempts)| match attempts.as_slice() {
                [only] if only.is_receiving() && only.conn != conn => Some((*piece, only.since)),
                _ => None,
            })
            .filter(|(piece, since)| {
                now.saturating_duration_since(*since) >= age_min && self.is_free_at(conn, *piece)
            })
            .min_by_key(|(_, since)| *since)?;
        let piece_bytes = u64::from(self.geometry.piece_bytes().get());
        let budget = self.geometry.size_bytes() / 100 + piece_bytes;
        let len_bytes = u64::from(self.geometry.piece_len_bytes(piece));
        if self.counts.duplicate_bytes + self.duplicate_asked_bytes + len_bytes > budget {
            return None;
        }
        self.duplicate_asked_bytes += len_bytes;
        Some(piece)
    }

    /// For a peer that has nothing to do, takes back a request that waits elsewhere: if it still waits there, it comes
    /// to this peer; if not, its block comes and nothing is lost.
    fn call_back(&mut self, conn: ConnId, shared: &mut Shared, now: Instant) {
        // req: SWARM-39
        let zone = shared.settings.zone.as_ref();
        let Some(idle) = self.members.get(&conn) else {
            return;
        };
        let Some(have) = idle.have.as_ref().filter(|_| !idle.giving) else {
            return;
        };
        if idle.pacing.outstanding_count() > 0 || idle.is_far(zone) {
            return;
        }
        let mut others = self.attempts.values().flatten();
        if others.any(|attempt| attempt.moves_to == Some(conn)) {
            return;
        }
        let age_min = idle.pacing.last_trip() + MOVE_AFTER;
        let waiting = self.attempts.iter_mut().filter_map(|(piece, attempts)| {
            let [only] = attempts.as_mut_slice() else {
                return None;
            };
            let is_old = now.saturating_duration_since(only.since) >= age_min;
            (is_old && only.may_move() && have.has(*piece)).then_some((*piece, only))
        });
        // Of the peer that is asked for most, what it was asked for last.
        let found = waiting
            .filter_map(|(piece, only)| {
                let other = self.members.get(&only.conn)?;
                let asked = other.pacing.outstanding_count();
                let is_busy = asked >= 2 && !other.giving && !other.is_far(zone);
                let is_alone = self
                    .geometry
                    .blocks(piece)
                    .all(|block| other.pacing.is_asked(block));
                (is_busy && is_alone).then_some((asked, only.since, piece, only))
            })
            .max_by_key(|(asked, since, piece, _)| (*asked, *since, *piece));
        let Some((_, _, piece, only)) = found else {
            return;
        };
        only.moves_to = Some(conn);
        let (from, block) = (only.conn, self.geometry.blocks(piece).next());
        if let (Some(other), Some(block)) = (self.members.get(&from), block) {
            let (slot, block) = (other.slot, raw(block));
            shared.send(from, Message::Cancel { slot, block });
        }
    }

    /// Whether no cancelled request for `piece` is still unanswered at `conn`.
    pub(super) fn is_free_at(&self, conn: ConnId, piece: PieceIndex) -> bool {
        let asked = |member: &Member| member.pacing.asked_of(&self.geometry, piece).next();
        self.members
            .get(&conn)
            .is_some_and(|member| asked(member).is_none())
    }

    /// A block came.
    pub(crate) fn block(
        &mut self,
        conn: ConnId,
        piece: u32,
        offset_bytes: u32,
        bytes: Bytes,
        shared: &mut Shared,
        now: Instant,
    ) -> Result<(), PeerError> {
        let piece = self.geometry.piece_index(piece);
        let piece = piece.ok_or(PeerError::PieceRange)?;
        let len_bytes = u32::try_from(bytes.len()).map_err(|_| PeerError::BlockRange)?;
        let block = self.geometry.block_range(piece, offset_bytes, len_bytes);
        let block = block.ok_or(PeerError::BlockRange)?;
        let queue_time = self.queue_time(now);
        let Some(member) = self.members.get_mut(&conn) else {
            return Ok(());
        };
        // req: PEER-12
        let matched = member.pacing.answered(raw(block), queue_time, now);
        let len_bytes = u64::from(len_bytes);
        match matched {
            Match::Unasked => return Err(PeerError::AnsweredUnasked),
            Match::Cancelled => {
                member.counts.duplicate_bytes += len_bytes;
                self.counts.duplicate_bytes += len_bytes;
            }
            Match::Wanted => {}
        }
        member.stalls = 0;
        member.counts.down_bytes += len_bytes;
        self.counts.down_bytes += len_bytes;
        self.down_rate.add(len_bytes, now);
        if matched == Match::Wanted {
            self.take(conn, block, bytes, shared);
        }
        Ok(())
    }

    /// Takes what was asked for: each piece that is whole by it is to be verified and written, the pieces of a run together.
    fn take(&mut self, conn: ConnId, block: BlockRange, bytes: Bytes, shared: &mut Shared) {
        let mut rest = bytes.clone();
        let mut pieces = Vec::new();
        for part in self.geometry.split(block) {
            let bytes = rest.split_to((part.len_bytes() as usize).min(rest.len()));
            let whole = self.take_block(conn, part, bytes, shared);
            pieces.extend(whole.map(|blocks| (part.piece(), blocks)));
        }
        let count = self.geometry.pieces_of(block).len();
        if count > 1 && pieces.len() == count {
            pieces = vec![(block.piece(), vec![bytes])];
        }
        for (piece, blocks) in pieces {
            shared.actions.push_back(Action::Write {
                transfer: self.id,
                piece,
                blocks,
            });
        }
    }

    /// Puts a wanted block to its piece; all its blocks once the last is there.
    fn take_block(
        &mut self,
        conn: ConnId,
        block: BlockRange,
        bytes: Bytes,
        shared: &mut Shared,
    ) -> Option<Vec<Bytes>> {
        let piece = block.piece();
        let own = self.attempts.get_mut(&piece).and_then(|attempts| {
            let mut attempts = attempts.iter_mut();
            attempts.find(|attempt| attempt.conn == conn && attempt.is_receiving())
        });
        let Some(own) = own else {
            // One of a run that came from elsewhere meanwhile.
            let len_bytes = u64::from(block.len_bytes());
            self.counts.duplicate_bytes += len_bytes;
            if let Some(member) = self.members.get_mut(&conn) {
                member.counts.duplicate_bytes += len_bytes;
            }
            return None;
        };
        let blocks = own.receive(block, bytes)?;
        let attempts = self.attempts.get(&piece).into_iter().flatten();
        if let Some(member) = self.members.get_mut(&conn) {
            member.attempting.retain(|attempted| *attempted != piece);
            member.offered.remove(&piece);
        }
        let others: Vec<ConnId> = attempts
            .filter(|attempt| attempt.conn != conn)
            .map(|attempt| attempt.conn)
            .collect();
        for other in others {
            self.abandon(piece, other, shared);
        }
        Some(blocks)
    }

    /// Takes a piece away from one source: what came is dropped, what was asked is cancelled.
    pub(crate) fn abandon(&mut self, piece: PieceIndex, conn: ConnId, shared: &mut Shared) {
        let len_bytes = u64::from(self.geometry.piece_len_bytes(piece));
        let Some(attempts) = self.attempts.get_mut(&piece) else {
            return;
        };
        let position = attempts
            .iter()
            .position(|attempt| attempt.conn == conn && attempt.is_receiving());
        let Some(position) = position else { return };
        if attempts.len() > 1 {
            self.duplicate_asked_bytes = self.duplicate_asked_bytes.saturating_sub(len_bytes);
        }
        let dropped = attempts.swap_remove(position);
        self.counts.duplicate_bytes += dropped.received_bytes();
        if attempts.is_empty() {
            self.attempts.remove(&piece);
            self.want(piece);
        }
        shared.download_bytes -= len_bytes;
        if let Some(member) = self.members.get_mut(&conn) {
            member.attempting.retain(|attempted| *attempted != piece);
            let attempting = &member.attempting;
            for block in member.pacing.cancel(&self.geometry, piece, attempting) {
                let slot = member.slot;
                shared.send(conn, Message::Cancel { slot, block });
            }
        }
    }

    /// The peer will not answer a request.
    pub(crate) fn reject(
        &mut self,
        conn: ConnId,
        block: RawBlock,
        shared: &mut Shared,
        now: Instant,
    ) -> Result<(), PeerError> {
        let Some(member) = self.members.get_mut(&conn) else {
            return Ok(());
        };
        let matched = member.pacing.rejected(block);
        if matched != Match::Unasked {
            shared.down.refund(self.id, u64::from(block.len_bytes));
        }
        match matched {
            Match::Unasked => return Err(PeerError::AnsweredUnasked),
            Match::Cancelled => return Ok(()),
            Match::Wanted => {}
        }
        let Some(range) = checked(&self.geometry, block) else {
            return Ok(());
        };
        let piece = range.piece();
        let attempts = self.attempts.get(&piece).into_iter().flatten();
        let own = attempts.into_iter().find(|attempt| attempt.conn == conn);
        if let Some(idle) = own.and_then(|own| own.moves_to) {
            self.abandon(piece, conn, shared);
            self.fill(idle, shared, now);
            return Ok(());
        }
        for piece in self.geometry.pieces_of(range) {
            member.offered.remove(&piece);
            // It does not serve what it said it holds: unless it is for the choke, do not ask it again.
            let have = member.have.as_mut().filter(|_| !member.chokes_us);
            if have.is_some_and(|have| have.clear(piece)) {
                self.availability.remove(piece);
            }
        }
        for piece in self.geometry.pieces_of(range) {
            self.abandon(piece, conn, shared);
        }
        Ok(())
    }

    /// Pieces were verified and written. Answers whether the last was among them.
    pub(crate) fn verified(
        &mut self,
        pieces: &[PieceIndex],
        shared: &mut Shared,
        now: Instant,
    ) -> bool {
        let delay = self.news_delay(now);
        let mut is_any = false;
        for piece in pieces {
            is_any |= self.gain_one(*piece, delay, shared, now);
        }
        let is_full = is_any && self.have.is_full();
        if is_full {
            self.state = TransferState::Complete;
        }
        self.flush_news(shared, now);
        is_full
    }

    /// A piece was verified and written; whether anybody waited for that.
    fn gain_one(
        &mut self,
        piece: PieceIndex,
        delay: Duration,
        shared: &mut Shared,
        now: Instant,
    ) -> bool {
        // req: SWARM-11
        let Some(attempt) = self.end_verifying(piece, shared) else {
            return false;
        };
        self.counts.pieces_fetched += 1;
        if let Some(member) = self.members.get_mut(&attempt.conn) {
            member.counts.pieces += 1;
            if member.is_far(shared.settings.zone.as_ref()) {
                self.imported(now.saturating_duration_since(attempt.since));
            }
        }
        self.have.set(piece);
        for member in self.members.values_mut() {
            member.add_news(piece, delay, now);
        }
        true
    }

    /// A piece did not match its hash: wanted again; answers who sent it.
    pub(crate) fn bad(
        &mut self,
        piece: PieceIndex,
        shared: &mut Shared,
    ) -> Option<(ConnId, NodeId)> {
        // req: SWARM-12
        let attempt = self.end_verifying(piece, shared)?;
        self.counts.bad_pieces += 1;
        self.counts.bad_bytes += u64::from(self.geometry.piece_len_bytes(piece));
        self.want(piece);
        Some((attempt.conn, attempt.node))
    }

    /// A piece was right and nobody keeps it any more: it is missing as before.
    pub(crate) fn not_kept(&mut self, piece: PieceIndex, shared: &mut Shared) {
        if self.end_verifying(piece, shared).is_some() {
            self.want(piece);
        }
    }

    fn end_verifying(&mut self, piece: PieceIndex, shared: &mut Shared) -> Option<Attempt> {
        let attempts = self.attempts.get_mut(&piece)?;
        let position = attempts
            .iter()
            .position(|attempt| !attempt.is_receiving())?;
        let attempt = attempts.swap_remove(position);
        debug_assert!(
            attempts.is_empty(),
            "other sources are dropped before a piece is verified"
        );
        self.attempts.remove(&piece);
        shared.download_bytes -= u64::from(self.geometry.piece_len_bytes(piece));
        Some(attempt)
    }

    /// Members that left a request unanswered for too long: their pieces are asked elsewhere.
    ///
    /// Answers those that did so twice in a row.
    pub(crate) fn check_stalls(&mut self, shared: &mut Shared, now: Instant) -> Vec<ConnId> {
        // req: SWARM-13
        let mut out = Vec::new();
        let mut stalled = Vec::new();
        for (conn, member) in &mut self.members {
            member.pacing.judge_speed(now);
            if !member.pacing.has_stalled(now) {
                continue;
            }
            member.stalls += 1;
            member.counts.stalls += 1;
            member.pacing.forgive(now);
            if member.stalls >= 2 {
                out.push(*conn);
            }
            stalled.push((*conn, member.attempting.clone()));
        }
        for (conn, pieces) in stalled {
            for piece in pieces {
                self.abandon(piece, conn, shared);
            }
        }
        out
    }
}
