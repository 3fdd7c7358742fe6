//! What is asked of a peer in another zone: each piece by one node of a zone, as far as that can be known.
//!
//! Owns: the order in which nodes may import a piece. Bound: [`IMPORT_SCAN_MAX`] pieces are looked at for
//! one decision, going round; four bytes are kept for each piece of a node that has a zone.
//! Spec: `spec/peer-protocol.md` SWARM-36.

use std::time::{Duration, Instant};

use super::Transfer;
use crate::config::Zone;
use crate::payload::PieceIndex;
use crate::swarm::limits::{
    HAVE_DELAY_MAX, IMPORT_FREE, IMPORT_SCAN_MAX, IMPORT_TURN_MAX, IMPORT_TURN_MIN,
};
use crate::swarm::peer::Member;
use crate::swarm::proof::mix;
use crate::swarm::requests::ConnId;
use crate::swarm::wire::NodeId;

/// When pieces were first seen to be held far away.
#[derive(Debug)]
pub(super) struct Imports {
    began: Instant,
    /// Milliseconds since `began`, and one: 0 is not seen yet.
    seen: Vec<u32>,
    /// Where the last look ended.
    next: u32,
    /// How long it took of late from asking for a piece far away to holding it.
    took: Duration,
}

impl Imports {
    pub(super) fn new(now: Instant, piece_count: u32) -> Self {
        Self {
            began: now,
            seen: vec![0; piece_count as usize],
            next: 0,
            took: IMPORT_TURN_MIN / 2,
        }
    }

    /// After this long without a sign of a piece near by, the next node in order may import it: who was to may have
    /// been asking and hearing of it for as long as that, and its announcement takes its time.
    fn turn(&self) -> Duration {
        (self.took * 2 + HAVE_DELAY_MAX).clamp(IMPORT_TURN_MIN, IMPORT_TURN_MAX)
    }

    fn age(&mut self, piece: PieceIndex, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.began).as_millis();
        let stamp = u32::try_from(since)
            .unwrap_or(u32::MAX - 1)
            .saturating_add(1);
        let Some(seen) = self.seen.get_mut(piece.as_usize()) else {
            return Duration::ZERO;
        };
        if *seen == 0 {
            *seen = stamp;
        }
        Duration::from_millis(u64::from(stamp - *seen))
    }
}

impl Transfer {
    /// The piece to ask of a peer in another zone, if this node is to import one that it holds.
    pub(super) fn import(
        &mut self,
        conn: ConnId,
        us: NodeId,
        zone: Option<&Zone>,
        now: Instant,
    ) -> Option<PieceIndex> {
        // req: SWARM-36
        let held = self.members.get(&conn)?.have.as_ref()?;
        let count = self.geometry.piece_count();
        let near: Vec<&Member> = self
            .members
            .values()
            .filter(|member| member.have.is_some() && !member.is_far(zone))
            .collect();
        let part = self.import_pieces();
        let imports = self.imports.get_or_insert_with(|| Imports::new(now, count));
        let turn = imports.turn();
        let from = imports.next;
        // Going round: what lies behind the last look first.
        let candidates = || self.wanted.held_by_both(held, &self.geometry);
        let behind = candidates().skip_while(|piece| piece.get() < from);
        let before = candidates().take_while(|piece| piece.get() < from);
        for piece in behind.chain(before).take(IMPORT_SCAN_MAX) {
            imports.next = piece.get() + 1;
            let age = imports.age(piece, now);
            let is_near = near
                .iter()
                .any(|member| member.have.as_ref().is_some_and(|have| have.has(piece)));
            let own = claim(us, piece, part);
            let before = || {
                let claims = near.iter().map(|member| claim(member.node, piece, part));
                claims.filter(|claim| *claim > own).count()
            };
            let is_turn =
                !is_near && u32::try_from(before()).is_ok_and(|before| age >= turn * before);
            if is_turn || age >= IMPORT_FREE {
                return Some(piece);
            }
        }
        None
    }

    /// A piece came from another zone, this long after it was asked for.
    pub(super) fn imported(&mut self, took: Duration) {
        if let Some(imports) = &mut self.imports {
            imports.took = (imports.took * 3 + took) / 4;
        }
    }
}

/// How strongly a node claims the import of a piece, as of all in its part of so many: all who know it agree.
fn claim(node: NodeId, piece: PieceIndex, part: u32) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *node.as_bytes();
    let id = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    mix(mix(id) ^ u64::from(piece.get() / part))
}
