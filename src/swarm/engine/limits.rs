//! Limits, priorities and the upload quota, set while the engine runs.
//!
//! Spec: `spec/peer-protocol.md` SWARM-30 to SWARM-33.

use std::time::Instant;

use super::Engine;
use crate::payload::{AccessKey, PayloadId, Priority};
use crate::swarm::flow::Limits;
use crate::swarm::quota::{QuotaUse, UploadQuota};
use crate::swarm::requests::TransferId;
use crate::swarm::slots::{Change, count_under};
use crate::swarm::transfer::Choked;

impl Engine {
    /// The node's limits, from now on.
    pub fn set_limits(&mut self, limits: Limits, now: Instant) {
        // req: SWARM-30
        self.shared.settings.limits = limits;
        self.shared.uploads.flow.set_limit(limits.up, now);
        self.shared.down.set_limit(limits.down, now);
        self.fit_slots(now);
        self.fill_blocked(now);
        self.upload(now);
    }

    /// The node's limits.
    pub fn limits(&self) -> Limits {
        Limits {
            up: self.shared.uploads.flow.limit(),
            down: self.shared.down.limit(),
        }
    }

    /// The transfers of a payload, of which there is one for each access key.
    pub fn transfers_of(&self, payload: PayloadId) -> Vec<TransferId> {
        self.by_payload.get(&payload).cloned().unwrap_or_default()
    }

    /// Whether a transfer is the one that this access key opens.
    pub fn is_opened_by(&self, id: TransferId, key: &AccessKey) -> bool {
        let transfer = self.transfers.get(&id);
        transfer.is_some_and(|transfer| transfer.key == *key)
    }

    /// A payload's own limits of now.
    pub fn transfer_limits(&self, id: TransferId) -> Limits {
        Limits {
            up: self.shared.uploads.flow.lane_limit(id),
            down: self.shared.down.lane_limit(id),
        }
    }

    /// A payload's limits, from now on; nothing happens for one that is not there.
    pub fn set_transfer_limits(&mut self, id: TransferId, limits: Limits, now: Instant) {
        self.shared.uploads.flow.set_lane_limit(id, limits.up, now);
        self.shared.down.set_lane_limit(id, limits.down, now);
        self.fit_transfer_slots(id, now);
        self.fill_blocked(now);
        self.upload(now);
    }

    /// A payload's share, from now on; nothing happens for one that is not there.
    pub fn set_priority(&mut self, id: TransferId, priority: Priority) {
        // req: SWARM-31
        self.shared.uploads.flow.set_priority(id, priority);
        self.shared.down.set_priority(id, priority);
    }

    /// The node's upload quota, from now on.
    pub fn set_quota(&mut self, quota: UploadQuota, now: Instant) {
        self.shared.settings.quota = quota;
        self.shared.quota.set(quota);
        self.upload(now);
    }

    /// What an earlier run had used of the quota.
    pub fn restore_quota_use(&mut self, used: QuotaUse, now: Instant) {
        self.shared.quota.restore(used, now);
        self.upload(now);
    }

    /// What was used of the quota.
    pub fn quota_use(&self, now: Instant) -> QuotaUse {
        self.shared.quota.used(now)
    }

    /// Chokes everybody when the quota is used, and takes them up again when there is one.
    pub(super) fn heed_quota(&mut self, now: Instant) {
        // req: SWARM-33
        let is_spent = self.shared.quota.is_spent(now);
        if is_spent != self.is_quota_spent {
            self.is_quota_spent = is_spent;
            tracing::info!(is_spent, "upload quota");
            self.fit_slots(now);
        }
    }

    pub(super) fn quota_timeout(&self) -> Option<Instant> {
        let timeout = self.shared.quota.timeout();
        timeout.filter(|_| self.is_quota_spent)
    }

    /// Gives the node as many upload slots as its limit and its quota leave.
    pub(super) fn fit_slots(&mut self, now: Instant) {
        let most = self.shared.settings.upload_slots;
        let count = match self.shared.uploads.flow.limit() {
            _ if self.is_quota_spent => 0,
            Some(limit) => most.min(count_under(limit.get())),
            None => most,
        };
        self.shared.slots.set_count(count);
        self.rebalance(now);
    }

    pub(super) fn fit_transfer_slots(&mut self, id: TransferId, now: Instant) {
        let limit = self.shared.uploads.flow.lane_limit(id);
        let count = limit.map(|limit| count_under(limit.get()));
        self.shared.slots.set_transfer_count(id, count);
        self.rebalance(now);
    }

    fn rebalance(&mut self, now: Instant) {
        for change in self.shared.slots.rebalance(now) {
            match change {
                Change::Choked(place) => self.choke(place, Choked::Yes),
                Change::Served(place) => self.choke(place, Choked::No),
            }
        }
    }

    /// Lets payloads ask again that had to wait for a limit, in their turn.
    pub(super) fn fill_blocked(&mut self, now: Instant) {
        // Each may be let go once more than it has waited, since one that asked may have to wait again.
        for _ in 0..=2 * self.transfers.len() {
            let Some(id) = self.shared.down.next_blocked(now) else {
                return;
            };
            if let Some(transfer) = self.transfers.get_mut(&id) {
                transfer.fill_all(&mut self.shared, now);
            }
        }
    }
}
