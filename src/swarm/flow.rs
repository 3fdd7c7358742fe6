//! How much may move: token buckets for the node and each payload, and whose turn it is.
//!
//! Owns: the limits of one direction, what was used of them, and the payloads' shares by priority.
//! Bound: one lane for each payload of the engine.
//! Spec: `spec/peer-protocol.md` SWARM-30, SWARM-31.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::payload::Priority;
use crate::swarm::requests::TransferId;

/// A bucket that was not used is full after this long.
const BURST_TIME: Duration = Duration::from_millis(100);
/// Added to a computed time, so that rounding never wakes somebody a moment too early.
const WAKE_MARGIN: Duration = Duration::from_micros(10);

/// Bytes per second that may go each way; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// Block bytes sent per second.
    pub up: Option<NonZeroU64>,
    /// Block bytes asked for per second.
    pub down: Option<NonZeroU64>,
}

/// A token bucket that may go below zero by what one block costs.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Option<NonZeroU64>,
    level_bytes: f64,
    updated: Instant,
}

impl Bucket {
    fn new(rate: Option<NonZeroU64>, now: Instant) -> Self {
        Self {
            rate,
            level_bytes: 0.0,
            updated: now,
        }
    }

    fn set_rate(&mut self, rate: Option<NonZeroU64>, now: Instant) {
        if self.rate == rate {
            return;
        }
        match (self.rate, rate) {
            (Some(_), Some(_)) => self.refill(now),
            // What moved before there was a limit is not owed.
            (None, _) | (_, None) => *self = Self::new(rate, now),
        }
        self.rate = rate;
    }

    fn refill(&mut self, now: Instant) {
        let Some(rate) = self.rate else { return };
        let rate = rate.get() as f64;
        let age = now.saturating_duration_since(self.updated).as_secs_f64();
        let full = rate * BURST_TIME.as_secs_f64();
        self.level_bytes = (self.level_bytes + rate * age).min(full);
        self.updated = self.updated.max(now);
    }

    fn has_credit(&mut self, now: Instant) -> bool {
        // req: SWARM-30
        self.refill(now);
        self.rate.is_none() || self.level_bytes >= 0.0
    }

    fn take(&mut self, bytes: u64, now: Instant) {
        if self.rate.is_some() {
            self.refill(now);
            self.level_bytes -= bytes as f64;
        }
    }

    fn give_back(&mut self, bytes: u64) {
        if let Some(rate) = self.rate {
            let full = rate.get() as f64 * BURST_TIME.as_secs_f64();
            self.level_bytes = (self.level_bytes + bytes as f64).min(full);
        }
    }

    /// When there will be credit; a time in the past if there is.
    fn ready_at(&self) -> Instant {
        let Some(rate) = self.rate else {
            return self.updated;
        };
        let lacking = (-self.level_bytes).max(0.0);
        let wait = Duration::from_secs_f64(lacking / rate.get() as f64);
        self.updated + wait + WAKE_MARGIN
    }
}

/// One payload's part of a direction.
#[derive(Clone, Copy, Debug)]
struct Lane {
    bucket: Bucket,
    priority: Priority,
    /// Where its next block begins in the order of all, by its share.
    finish: u64,
}

/// What one byte of priority 1 advances a lane by; the others advance more slowly. A u64 lasts for 18 PB.
const TAG_PER_BYTE: u64 = 1024;

/// One direction of the node's traffic.
#[derive(Debug)]
pub(crate) struct Flow {
    node: Bucket,
    lanes: BTreeMap<TransferId, Lane>,
    /// Where the block that was let go last began.
    served: u64,
    /// Payloads that had to wait and are to be asked again.
    blocked: BTreeSet<TransferId>,
}

impl Flow {
    pub(crate) fn new(limit: Option<NonZeroU64>, now: Instant) -> Self {
        Self {
            node: Bucket::new(limit, now),
            lanes: BTreeMap::new(),
            served: 0,
            blocked: BTreeSet::new(),
        }
    }

    /// A payload takes part.
    pub(crate) fn add(
        &mut self,
        transfer: TransferId,
        limit: Option<NonZeroU64>,
        priority: Priority,
        now: Instant,
    ) {
        let lane = Lane {
            bucket: Bucket::new(limit, now),
            priority,
            finish: self.served,
        };
        self.lanes.insert(transfer, lane);
    }

    /// A payload is gone.
    pub(crate) fn remove(&mut self, transfer: TransferId) {
        self.lanes.remove(&transfer);
        self.blocked.remove(&transfer);
    }

    /// The node's limit, from now on.
    pub(crate) fn set_limit(&mut self, limit: Option<NonZeroU64>, now: Instant) {
        self.node.set_rate(limit, now);
    }

    /// The node's limit.
    pub(crate) fn limit(&self) -> Option<NonZeroU64> {
        self.node.rate
    }

    /// A payload's limit, from now on.
    pub(crate) fn set_lane_limit(
        &mut self,
        transfer: TransferId,
        limit: Option<NonZeroU64>,
        now: Instant,
    ) {
        if let Some(lane) = self.lanes.get_mut(&transfer) {
            lane.bucket.set_rate(limit, now);
        }
    }

    /// A payload's limit.
    pub(crate) fn lane_limit(&self, transfer: TransferId) -> Option<NonZeroU64> {
        self.lanes.get(&transfer)?.bucket.rate
    }

    /// A payload's share, from now on.
    pub(crate) fn set_priority(&mut self, transfer: TransferId, priority: Priority) {
        if let Some(lane) = self.lanes.get_mut(&transfer) {
            lane.priority = priority;
        }
    }

    /// A payload's share.
    pub(crate) fn priority(&self, transfer: TransferId) -> Priority {
        self.lanes
            .get(&transfer)
            .map_or_else(Priority::default, |lane| lane.priority)
    }

    /// Whether a block of this payload may move now, as far as limits go.
    pub(crate) fn has_credit(&mut self, transfer: TransferId, now: Instant) -> bool {
        let lane = self.lanes.get_mut(&transfer);
        self.node.has_credit(now) && lane.is_none_or(|lane| lane.bucket.has_credit(now))
    }

    /// Whether it is this payload's turn, too; if not, it is among those that [`Flow::next_blocked`] gives.
    pub(crate) fn may_go(&mut self, transfer: TransferId, now: Instant) -> bool {
        // req: SWARM-31
        let own = self.turn(transfer);
        let others_first = self.node.rate.is_some() && {
            let earlier: Vec<TransferId> = self
                .blocked
                .iter()
                .copied()
                .filter(|other| self.turn(*other) < own)
                .collect();
            earlier.into_iter().any(|other| self.has_credit(other, now))
        };
        let may_go = !others_first && self.has_credit(transfer, now);
        if !may_go {
            self.blocked.insert(transfer);
        }
        may_go
    }

    /// Where a payload stands in the order of all: the least goes first.
    pub(crate) fn turn(&self, transfer: TransferId) -> u64 {
        self.lanes
            .get(&transfer)
            .map_or(self.served, |lane| lane.finish.max(self.served))
    }

    /// A block moves.
    pub(crate) fn charge(&mut self, transfer: TransferId, bytes: u64, now: Instant) {
        let start = self.turn(transfer);
        self.node.take(bytes, now);
        if let Some(lane) = self.lanes.get_mut(&transfer) {
            lane.bucket.take(bytes, now);
            let advance = bytes.saturating_mul(TAG_PER_BYTE) / u64::from(lane.priority.get());
            lane.finish = start.saturating_add(advance);
            self.served = start;
        }
    }

    /// A block that was charged does not move after all.
    pub(crate) fn refund(&mut self, transfer: TransferId, bytes: u64) {
        self.node.give_back(bytes);
        if let Some(lane) = self.lanes.get_mut(&transfer) {
            lane.bucket.give_back(bytes);
        }
    }

    /// The payload among those that waited whose turn it is, if it may go now; it waits no longer.
    pub(crate) fn next_blocked(&mut self, now: Instant) -> Option<TransferId> {
        let mut waiting: Vec<TransferId> = self.blocked.iter().copied().collect();
        waiting.sort_by_key(|transfer| (self.turn(*transfer), *transfer));
        let next = waiting
            .into_iter()
            .find(|transfer| self.has_credit(*transfer, now))?;
        self.blocked.remove(&next);
        Some(next)
    }

    /// When the first of those that wait may go.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.ready_at(self.blocked.iter().copied())
    }

    /// When the first of these payloads may go.
    pub(crate) fn ready_at(&self, waiting: impl Iterator<Item = TransferId>) -> Option<Instant> {
        let node = self.node.ready_at();
        let lanes = waiting.filter_map(|transfer| self.lanes.get(&transfer));
        lanes.map(|lane| lane.bucket.ready_at().max(node)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: TransferId = TransferId(1);
    const TWO: TransferId = TransferId(2);
    const BLOCK: u64 = 256 * 1024;

    fn rate(bytes_per_second: u64) -> Option<NonZeroU64> {
        NonZeroU64::new(bytes_per_second)
    }

    fn priority(value: u8) -> Priority {
        Priority::new(value).expect("valid")
    }

    /// Bytes let go in `time` by somebody who always wants to.
    fn moved(flow: &mut Flow, transfer: TransferId, now: &mut Instant, time: Duration) -> u64 {
        let until = *now + time;
        let mut bytes = 0;
        loop {
            while flow.may_go(transfer, *now) {
                flow.charge(transfer, BLOCK, *now);
                bytes += BLOCK;
            }
            let wake = flow.timeout().expect("it waits");
            assert!(wake > *now, "time goes on");
            if wake > until {
                *now = until;
                return bytes;
            }
            *now = wake;
        }
    }

    /// The rate is exact to a burst and a block, whatever their size; a changed limit counts at once.
    // req: SWARM-30
    #[test]
    fn rate_is_kept_and_can_change() {
        let mut now = Instant::now();
        let mut flow = Flow::new(rate(1_000_000), now);
        flow.add(ONE, None, Priority::default(), now);
        now += Duration::from_secs(60);
        let bytes = moved(&mut flow, ONE, &mut now, Duration::from_secs(20));
        assert!(
            (20_000_000..=20_000_000 + 100_000 + BLOCK).contains(&bytes),
            "{bytes}"
        );
        flow.set_limit(rate(100_000), now);
        let bytes = moved(&mut flow, ONE, &mut now, Duration::from_secs(100));
        assert!(bytes.abs_diff(10_000_000) <= 2 * BLOCK, "{bytes}");
        flow.set_lane_limit(ONE, rate(50_000), now);
        let bytes = moved(&mut flow, ONE, &mut now, Duration::from_secs(100));
        assert!(bytes.abs_diff(5_000_000) <= 2 * BLOCK, "{bytes}");
        flow.set_limit(None, now);
        flow.set_lane_limit(ONE, None, now);
        assert!(flow.may_go(ONE, now), "no limit, no wait");
    }

    /// Two payloads share a limit by priority, and one that was idle has no claim to the past.
    // req: SWARM-31
    #[test]
    fn shares_follow_priorities() {
        let mut now = Instant::now();
        let mut flow = Flow::new(rate(1_000_000), now);
        flow.add(ONE, None, priority(30), now);
        flow.add(TWO, None, priority(10), now);
        moved(&mut flow, ONE, &mut now, Duration::from_secs(30));
        let mut bytes = [0, 0];
        let until = now + Duration::from_secs(100);
        assert!(!flow.may_go(TWO, now) || flow.may_go(TWO, now));
        while now < until {
            for (number, transfer) in [(1, TWO), (0, ONE)] {
                while flow.may_go(transfer, now) {
                    flow.charge(transfer, BLOCK, now);
                    bytes[number] += BLOCK;
                }
            }
            while let Some(transfer) = flow.next_blocked(now) {
                flow.charge(transfer, BLOCK, now);
                bytes[usize::from(transfer == TWO)] += BLOCK;
            }
            flow.may_go(ONE, now);
            flow.may_go(TWO, now);
            now = flow.timeout().expect("both wait");
        }
        let share = bytes[0] as f64 / (bytes[0] + bytes[1]) as f64;
        assert!((0.72..0.78).contains(&share), "{bytes:?}");
    }

    /// What is given back can be used again.
    #[test]
    fn refunds_are_credit() {
        let now = Instant::now();
        let mut flow = Flow::new(rate(1_000), now);
        flow.add(ONE, None, Priority::default(), now);
        flow.charge(ONE, BLOCK, now);
        assert!(!flow.may_go(ONE, now));
        flow.refund(ONE, BLOCK);
        assert!(flow.may_go(ONE, now));
    }
}
