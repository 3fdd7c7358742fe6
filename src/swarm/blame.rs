//! Which nodes sent pieces that do not verify, who is banned for it, and who says so of this node.
//!
//! Owns: the memory of bad pieces and of accusations over all payloads of the node. Bans nodes, not addresses.
//! Bound: 4,096 nodes of each; beyond it the one longest quiet is forgotten.
//! Spec: `spec/peer-protocol.md` SWARM-12, SWARM-38.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::swarm::limits::{ACCUSER_PAUSE, BAD_PIECE_MEMORY, BAN_FIRST, BAN_MAX, BLAMED_NODES_MAX};
use crate::swarm::wire::NodeId;

#[derive(Clone, Copy, Debug)]
struct Record {
    last_bad: Instant,
    bans: u32,
    banned_until: Option<Instant>,
}

/// What became of a node after one more bad piece.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// The first within an hour: it leaves this swarm.
    LeavesSwarm,
    /// A further one: it is banned for this long.
    Banned(Duration),
}

/// All blamed nodes.
#[derive(Debug, Default)]
pub(crate) struct Blame {
    records: BTreeMap<NodeId, Record>,
    /// When a node was last heard that says that a piece from here is bad.
    accusers: BTreeMap<NodeId, Instant>,
}

impl Blame {
    /// `node` sent a piece that does not verify.
    pub(crate) fn bad_piece(&mut self, node: NodeId, now: Instant) -> Verdict {
        // req: SWARM-12
        if !self.records.contains_key(&node) && self.records.len() >= BLAMED_NODES_MAX {
            let oldest = self
                .records
                .iter()
                .min_by_key(|(_, record)| record.last_bad);
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                self.records.remove(&oldest);
            }
        }
        let Some(record) = self.records.get_mut(&node) else {
            let record = Record {
                last_bad: now,
                bans: 0,
                banned_until: None,
            };
            self.records.insert(node, record);
            return Verdict::LeavesSwarm;
        };
        let again =
            record.bans > 0 || now.saturating_duration_since(record.last_bad) < BAD_PIECE_MEMORY;
        record.last_bad = now;
        if !again {
            return Verdict::LeavesSwarm;
        }
        let length = (BAN_FIRST * 2_u32.pow(record.bans.min(8))).min(BAN_MAX);
        record.bans += 1;
        record.banned_until = Some(now + length);
        Verdict::Banned(length)
    }

    /// `node` says that a piece from here is bad; answers whether that is listened to.
    pub(crate) fn hears(&mut self, node: NodeId, now: Instant) -> bool {
        // req: SWARM-38
        let last = self.accusers.get(&node);
        if last.is_some_and(|last| now.saturating_duration_since(*last) < ACCUSER_PAUSE) {
            return false;
        }
        if last.is_none() && self.accusers.len() >= BLAMED_NODES_MAX {
            let oldest = self.accusers.iter().min_by_key(|(_, heard)| **heard);
            if let Some(oldest) = oldest.map(|(node, _)| *node) {
                self.accusers.remove(&oldest);
            }
        }
        self.accusers.insert(node, now);
        true
    }

    /// Whether `node` is banned now.
    pub(crate) fn is_banned(&self, node: &NodeId, now: Instant) -> bool {
        self.records
            .get(node)
            .and_then(|record| record.banned_until)
            .is_some_and(|until| now < until)
    }

    /// Nodes banned now.
    pub(crate) fn banned(&self, now: Instant) -> impl Iterator<Item = NodeId> {
        self.records
            .iter()
            .filter(move |(_, record)| record.banned_until.is_some_and(|until| now < until))
            .map(|(node, _)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One bad piece an hour is no ban; two are, for twice as long each time, up to a day.
    // req: SWARM-12
    #[test]
    fn second_bad_piece_within_an_hour_bans_for_doubling_times() {
        let hour = Duration::from_secs(3600);
        let mut now = Instant::now();
        let mut blame = Blame::default();
        let node = NodeId::from_bytes([1; 32]);
        assert_eq!(blame.bad_piece(node, now), Verdict::LeavesSwarm);
        now += hour;
        assert_eq!(blame.bad_piece(node, now), Verdict::LeavesSwarm);
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            assert_eq!(blame.bad_piece(node, now), Verdict::Banned(hour * hours));
            assert!(blame.is_banned(&node, now));
            now += hour * hours;
            assert!(!blame.is_banned(&node, now));
        }
        assert!(!blame.is_banned(&NodeId::from_bytes([2; 32]), now));
    }

    /// Many nodes with one bad piece each do not grow memory beyond the bound.
    #[test]
    fn blamed_nodes_are_bounded() {
        let now = Instant::now();
        let mut blame = Blame::default();
        for number in 0..5_000_u32 {
            let mut id = [0; 32];
            id[..4].copy_from_slice(&number.to_be_bytes());
            blame.bad_piece(
                NodeId::from_bytes(id),
                now + Duration::from_millis(number.into()),
            );
        }
        assert_eq!(blame.records.len(), BLAMED_NODES_MAX);
    }
}
