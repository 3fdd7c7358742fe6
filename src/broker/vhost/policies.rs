//! A vhost's policies, and what they change: live, for what there is and for what comes.
//!
//! Under the topology lock a policy changes together with everything that it is for, so that a queue that
//! is declared meanwhile has either the settings of before or those of after.
//! Spec: RabbitMQ, "Policies".

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::amqp::field::FieldTable;

use super::super::error::Error;
use super::super::exchange::Exchange;
use super::super::name::Name;
use super::super::outbox::Wakes;
use super::super::policy::{EffectivePolicy, POLICIES_PER_VHOST_MAX, Policy, PolicyKind, Subject};
use super::super::queue::Queue;
use super::super::queue::arguments::QueueSettings;
use super::Vhost;

/// Whether something was there before it was put.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Put {
    /// It was not.
    Created,
    /// It was, and is replaced.
    Replaced,
}

/// What holds after a change of the policies. It is applied without the topology lock, since dead letters
/// are published then; so the next change may be faster.
struct Changed {
    /// Higher than that of any change before.
    version: u64,
    settings: Vec<(Arc<Queue>, QueueSettings)>,
}

impl Vhost {
    /// All policies of one kind, by name.
    #[must_use]
    pub fn policies(&self, kind: PolicyKind) -> Vec<Arc<Policy>> {
        self.policies.read().all(kind)
    }

    /// The policy of this name.
    #[must_use]
    pub fn policy(&self, kind: PolicyKind, name: &[u8]) -> Option<Arc<Policy>> {
        self.policies.read().get(kind, name)
    }

    /// Sets a policy, in the place of one with its name, and applies it.
    ///
    /// # Errors
    /// If there are too many, or it cannot be written.
    pub fn put_policy(
        &self,
        policy: Policy,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<Put, Error> {
        let topology = self.lock_topology_to_add()?;
        let put = {
            let mut policies = self.policies.write();
            let kind = policy.kind();
            let put = match policies.get(kind, policy.name().as_bytes()) {
                Some(_) => Put::Replaced,
                None => Put::Created,
            };
            if put == Put::Created && policies.len(kind) >= POLICIES_PER_VHOST_MAX {
                return Err(Error::AccountLimitReached {
                    limited: "policy",
                    count_max: POLICIES_PER_VHOST_MAX,
                });
            }
            let record = policy.record(&self.name);
            self.shared.store.put_policy(&record)?;
            self.policy_came(&record);
            policies.insert(policy);
            put
        };
        let changed = self.settings_of_all();
        drop(topology);
        self.apply_settings(changed, now, wakes);
        Ok(put)
    }

    /// Takes a policy away, and what it changed; false if there is none.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn delete_policy(
        &self,
        kind: PolicyKind,
        name: &[u8],
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<bool, Error> {
        let topology = self.lock_topology();
        {
            let mut policies = self.policies.write();
            let Some(policy) = policies.get(kind, name) else {
                return Ok(false);
            };
            let is_operator = kind == PolicyKind::Operator;
            self.shared
                .store
                .delete_policy(&self.name, is_operator, policy.name())?;
            self.policy_went(policy.name().as_bytes(), is_operator);
            policies.remove(kind, name);
        }
        let changed = self.settings_of_all();
        drop(topology);
        self.apply_settings(changed, now, wakes);
        Ok(true)
    }

    /// What is in effect for a queue.
    #[must_use]
    pub fn queue_policy(&self, queue: &Queue) -> EffectivePolicy {
        let subject = Subject::Queue(queue.settings().kind);
        self.policies
            .read()
            .effective(subject, queue.name().as_bytes())
    }

    /// What is in effect for an exchange.
    #[must_use]
    pub fn exchange_policy(&self, exchange: &Exchange) -> EffectivePolicy {
        let name = exchange.name().as_bytes();
        self.policies.read().effective(Subject::Exchange, name)
    }

    /// The settings of a queue of this name whose arguments mean `declared`. Under the topology lock, so
    /// that no policy changes before the queue is there.
    pub(crate) fn settings_with_policy(
        &self,
        name: &Name,
        declared: QueueSettings,
        arguments: &FieldTable,
    ) -> QueueSettings {
        let subject = Subject::Queue(declared.kind);
        let policies = self.policies.read();
        let effective = policies.effective(subject, name.as_bytes());
        effective.queue_settings(declared, arguments)
    }

    /// Where a policy sends what an exchange of this name has no destination for.
    pub(crate) fn alternate_by_policy(&self, name: &Name) -> Option<Name> {
        let policies = self.policies.read();
        let effective = policies.effective(Subject::Exchange, name.as_bytes());
        effective.alternate_exchange()
    }

    /// Puts a policy back that was found by recovery, before there are queues and exchanges.
    pub(crate) fn restore_policy(&self, policy: Policy) {
        self.policies.write().insert(policy);
    }

    /// Forgets the records of all policies of a vhost that is deleted.
    pub(crate) fn forget_policies(&self) -> Result<(), Error> {
        let mut policies = self.policies.write();
        for kind in [PolicyKind::User, PolicyKind::Operator] {
            let is_operator = kind == PolicyKind::Operator;
            for policy in policies.all(kind) {
                self.shared
                    .store
                    .delete_policy(&self.name, is_operator, policy.name())?;
                policies.remove(kind, policy.name().as_bytes());
            }
        }
        Ok(())
    }

    // req: POLICY-3
    /// Under the topology lock: changes exchanges, and says what holds for each queue now. Also for those
    /// where it holds already: something older may be about to be applied to them.
    fn settings_of_all(&self) -> Changed {
        let mut rerouted = false;
        for exchange in self.exchanges() {
            let alternate = self.alternate_by_policy(exchange.name());
            rerouted |= exchange.set_policy_alternate(alternate);
        }
        if rerouted {
            self.topology_changed();
        }
        let settings = |queue: Arc<Queue>| {
            let resource = self.queue_resource(queue.name().as_bytes());
            // Its arguments were checked when it was declared.
            let declared = QueueSettings::from_arguments(queue.arguments(), &resource).ok()?;
            let settings = self.settings_with_policy(queue.name(), declared, queue.arguments());
            Some((queue, settings))
        };
        Changed {
            version: self.settings_version.fetch_add(1, Ordering::Relaxed) + 1,
            settings: self.queues().into_iter().filter_map(settings).collect(),
        }
    }

    fn apply_settings(&self, changed: Changed, now: Instant, wakes: &mut Wakes) {
        let Changed { version, settings } = changed;
        for (queue, settings) in settings {
            queue.apply_settings(Arc::new(settings), version, now, wakes);
        }
    }
}
