//! Several pieces asked for as one: small pieces are relayed soon, and what a request costs is paid once.
//!
//! Spec: `spec/peer-protocol.md` SWARM-40.

use std::time::Instant;

use super::Transfer;
use crate::config::Zone;
use crate::payload::{BlockRange, PieceIndex};
use crate::swarm::limits::{GIVE_RUNS_MIN, RUN_TIME, RUNS_MIN};
use crate::swarm::picker::Order;
use crate::swarm::requests::ConnId;

impl Transfer {
    /// The whole pieces around a wanted `piece` that are asked of a peer with one request: as many as come in a moment,
    /// from all peers. `None` if there is no other.
    ///
    /// They lie in one of the payload's parts of that many, so that all nodes make the same ones and few are cut.
    pub(super) fn run_at(
        &self,
        conn: ConnId,
        piece: PieceIndex,
        zone: Option<&Zone>,
        now: Instant,
    ) -> Option<BlockRange> {
        // req: SWARM-40
        let member = self.members.get(&conn)?;
        let is_far = member.is_far(zone);
        let part = match self.order {
            Order::InOrder => return None,
            Order::RarestFirst if is_far => self.import_pieces(),
            Order::RarestFirst => {
                let rate = self.down_rate.bytes_per_second(now) as f64;
                self.pieces_in((rate * RUN_TIME.as_secs_f64()) as u64)
            }
        };
        // A piece that is asked for a second time comes alone.
        if part < 2 || !self.wanted.has(piece) {
            return None;
        }
        let takes = |number: u32| {
            let piece = self.geometry.piece_index(number)?;
            let is_held = match member.offered.is_empty() {
                false => member.offered.contains(&piece),
                true => member.have.as_ref().is_some_and(|have| have.has(piece)),
            };
            let is_here = || {
                let mut near = self.members.values().filter(|member| !member.is_far(zone));
                near.any(|member| member.have.as_ref().is_some_and(|have| have.has(piece)))
            };
            let is_taken = is_held
                && self.wanted.has(piece)
                && self.is_free_at(conn, piece)
                && !(is_far && is_here());
            is_taken.then_some(piece)
        };
        let begins = piece.get() - piece.get() % part;
        let before = (begins..piece.get()).rev().map_while(takes);
        let first = before.last().unwrap_or(piece);
        let behind = (piece.get() + 1..begins + part).map_while(takes);
        let last = behind.last().unwrap_or(piece);
        let count = last.get() - first.get() + 1;
        (count > 1)
            .then(|| self.geometry.run_of(first, count))
            .flatten()
    }

    /// Pieces of which a node imports all that it imports one of, so that they can be asked for as one.
    pub(super) fn import_pieces(&self) -> u32 {
        // req: SWARM-36
        self.pieces_in(self.geometry.size_bytes() / RUNS_MIN)
    }

    /// Pieces that an origin gives to one peer in a row, if it gives `ahead_bytes` ahead.
    pub(super) fn given_pieces(&self, ahead_bytes: u64) -> u32 {
        self.pieces_in(ahead_bytes / GIVE_RUNS_MIN)
    }

    /// The greatest power of two of pieces in `bytes`, 1 at least and at most what one block takes.
    fn pieces_in(&self, bytes: u64) -> u32 {
        let count = bytes / u64::from(self.geometry.piece_bytes().get());
        let most = u64::from(self.geometry.pieces_per_block());
        let count = u32::try_from(count.clamp(1, most)).unwrap_or(1);
        1 << count.ilog2()
    }
}
