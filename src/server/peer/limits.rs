//! Limits, priorities and the upload quota of a running swarm.

use std::num::NonZeroU64;

use super::core;
use super::transfer::SwarmTransfer;
use super::{SwarmHandle, SwarmSettings};
use crate::config::TrafficSettings;
use crate::payload::{PayloadId, Priority, ScopeId};
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

/// What is to change of a payload's limits; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LimitsChange {
    /// Block bytes sent per second; `Some(None)` lifts the limit.
    pub up: Option<Option<NonZeroU64>>,
    /// Block bytes asked for per second; `Some(None)` lifts the limit.
    pub down: Option<Option<NonZeroU64>>,
    /// Its share where payloads compete.
    pub priority: Option<Priority>,
}

impl SwarmHandle {
    /// Gives every transfer of a payload other limits of its own, or another share, from now on, or only that of the
    /// payload in `scope`; answers how many there are.
    pub fn change_limits(
        &self,
        scope: Option<ScopeId>,
        payload: PayloadId,
        change: &LimitsChange,
    ) -> usize {
        // req: SWARM-30
        let key = match scope.map(|scope| self.shared.store.access_key(scope, payload)) {
            // What is not there has no transfer.
            Some(None) => return 0,
            Some(key) => key,
            None => None,
        };
        core::with(&self.shared, |core, now| {
            let mut transfers = core.engine.transfers_of(payload);
            if let Some(key) = &key {
                transfers.retain(|id| core.engine.is_opened_by(*id, key));
            }
            for id in &transfers {
                let earlier = core.engine.transfer_limits(*id);
                let limits = Limits {
                    up: change.up.unwrap_or(earlier.up),
                    down: change.down.unwrap_or(earlier.down),
                };
                core.engine.set_transfer_limits(*id, limits, now);
                if let Some(priority) = change.priority {
                    core.engine.set_priority(*id, priority);
                }
            }
            transfers.len()
        })
    }

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::OsDisk;
    use crate::payload::{AccessKey, Store, StoreSettings};
    use crate::server::peer::Swarm;

    /// What is said of a payload in one scope changes nothing for the same payload in another.
    // req: CONTROL-28
    #[tokio::test]
    async fn limits_are_changed_in_their_scope() {
        let folder = tempfile::tempdir().expect("a folder");
        let settings = StoreSettings {
            free_bytes_min: 0,
            ..StoreSettings::default()
        };
        let store = Store::open(Arc::new(OsDisk), folder.path(), settings).expect("a store");
        let [ours, theirs] = [ScopeId::new(1), ScopeId::new(2)];
        let swarm = Swarm::start(SwarmSettings::default(), store.clone()).await;
        let swarm = swarm.expect("it starts");
        let mut transfers = Vec::new();
        let mut stored = Vec::new();
        for (scope, key) in [(ours, [1; 32]), (theirs, [2; 32])] {
            let upload = store.begin_upload(scope, 5, AccessKey::from_bytes(key));
            let mut upload = upload.expect("room");
            upload.write(b"hello").expect("room");
            let payload = upload.finish().expect("stored");
            transfers.push(swarm.seed(scope, payload.id).await.expect("served"));
            stored.push(payload);
        }
        let id = stored[0].id;
        let change = LimitsChange {
            up: Some(NonZeroU64::new(50_000)),
            ..LimitsChange::default()
        };
        assert_eq!(swarm.change_limits(Some(ScopeId::new(3)), id, &change), 0);
        assert_eq!(swarm.change_limits(Some(theirs), id, &change), 1);
        let up_limit = |key: [u8; 32]| {
            let engine = &swarm.shared.core.lock().engine;
            let mut ids = engine.transfers_of(id).into_iter();
            let found = ids.find(|id| engine.is_opened_by(*id, &AccessKey::from_bytes(key)));
            engine.transfer_limits(found.expect("served")).up
        };
        assert_eq!(up_limit([2; 32]), NonZeroU64::new(50_000));
        assert_eq!(up_limit([1; 32]), None);
        assert_eq!(swarm.change_limits(None, id, &change), 2);
        assert_eq!(up_limit([1; 32]), NonZeroU64::new(50_000));
        swarm.shutdown().await;
    }
}
