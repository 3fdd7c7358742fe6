//! What is said of a vhost beside its name: description, tags, default queue type, tracing, limits.
//!
//! Spec: RabbitMQ, "Virtual Hosts".

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::access::Limits;
use super::super::error::Error;
use super::Vhost;

/// Facts about a vhost that an operator sets.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct VhostDetails {
    /// For people.
    pub description: String,
    /// For people and tools.
    pub tags: Vec<String>,
    /// What queues without `x-queue-type` are to be; none is classic.
    pub default_queue_type: Option<String>,
    /// Whether messages are copied to `amq.rabbitmq.trace`.
    pub tracing: bool,
    /// How many connections and queues it may have.
    pub limits: Limits,
    /// It cannot be deleted. The last field: records of earlier versions end before it.
    pub protected_from_deletion: bool,
}

impl Vhost {
    /// What is said of it.
    #[must_use]
    pub fn details(&self) -> Arc<VhostDetails> {
        Arc::clone(&self.details.lock())
    }

    /// Changes what is said of it.
    ///
    /// # Errors
    /// If it cannot be written; then nothing is changed.
    pub fn change_details(&self, change: impl FnOnce(&mut VhostDetails)) -> Result<(), Error> {
        let mut details = self.details.lock();
        let mut changed = VhostDetails::clone(&details);
        change(&mut changed);
        if changed != **details {
            self.shared.store.put_vhost_details(&self.name, &changed)?;
            self.set_tracing(changed.tracing);
            *details = Arc::new(changed);
        }
        Ok(())
    }

    pub(crate) fn restore_details(&self, details: VhostDetails) {
        self.set_tracing(details.tracing);
        *self.details.lock() = Arc::new(details);
    }
}
