//! Limits, priorities and the upload quota of a running swarm.

use super::core;
use super::transfer::SwarmTransfer;
use super::{SwarmHandle, SwarmSettings};
use crate::config::TrafficSettings;
use crate::payload::Priority;
use crate::swarm::{Limits, QuotaUse, UploadQuota};

impl From<&TrafficSettings> for Limits {
    fn from(settings: &TrafficSettings) -> Self {
        Self {
            up: settings.up_bytes_per_second,
            down: settings.down_bytes_per_second,
        }
    }
}

impl From<&TrafficSettings> for UploadQuota {
    fn from(settings: &TrafficSettings) -> Self {
        Self {
            day_bytes: settings.up_day_bytes_max,
            total_bytes: settings.up_total_bytes_max,
        }
    }
}

impl SwarmSettings {
    /// The same with these limits, this quota, this zone and these hosts of web seeds.
    #[must_use]
    pub fn with_traffic(mut self, traffic: &TrafficSettings) -> Self {
        self.engine.limits = traffic.into();
        self.engine.quota = traffic.into();
        self.engine.zone.clone_from(&traffic.zone);
        self.web_seed_hosts.clone_from(&traffic.web_seed_hosts);
        self
    }
}

impl SwarmHandle {
    /// Takes other limits and another quota, from now on.
    pub fn set_traffic(&self, traffic: &TrafficSettings) {
        self.set_limits(traffic.into());
        self.set_quota(traffic.into());
    }

    /// Takes other limits, from now on.
    pub fn set_limits(&self, limits: Limits) {
        core::with(&self.shared, |core, now| {
            core.engine.set_limits(limits, now)
        });
    }

    /// The limits of now.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.shared.core.lock().engine.limits()
    }

    /// Takes another upload quota, from now on.
    pub fn set_quota(&self, quota: UploadQuota) {
        core::with(&self.shared, |core, now| core.engine.set_quota(quota, now));
    }

    /// What was used of the upload quota.
    #[must_use]
    pub fn quota_use(&self) -> QuotaUse {
        core::with(&self.shared, |core, now| core.engine.quota_use(now))
    }

    /// What an earlier run had used of the upload quota.
    pub fn restore_quota_use(&self, used: QuotaUse) {
        core::with(&self.shared, |core, now| {
            core.engine.restore_quota_use(used, now);
        });
    }
}

impl SwarmTransfer {
    /// Gives the payload limits of its own, from now on.
    pub fn set_limits(&self, limits: Limits) {
        core::with(&self.shared, |core, now| {
            core.engine.set_transfer_limits(self.id, limits, now);
        });
    }

    /// Gives the payload another share where payloads compete, from now on.
    pub fn set_priority(&self, priority: Priority) {
        core::with(&self.shared, |core, _| {
            core.engine.set_priority(self.id, priority);
        });
    }
}
