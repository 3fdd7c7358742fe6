//! From the journal's records back to a running broker.
//!
//! Owns: the order of things at the start: vhosts, accounts, exchanges, queues, bindings, messages.
//! Spec: RELIABILITY section 1: after an unclean stop every message counts as redelivered.

mod exchange_logs;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::amqp::field::{FieldError, FieldTable};
use crate::journal::{JournalError, Lsn, QueueId, Recovered, RecoveredQueue};

use super::Broker;
use super::definitions::{
    BindingRecord, DefinitionError, ExchangeLogRecord, ExchangeRecord, PolicyRecord, QueueRecord,
    Record, StreamBaseRecord,
};
use super::error::{Error, Resource, ResourceKind};
use super::exchange::settings::ExchangeSettings;
use super::exchange::{Exchange, ExchangeKind, ExchangeSpec};
use super::name::Name;
use super::policy::Policy;
use super::queue::arguments::{QueueKind, QueueSettings};
use super::queue::{Durability, Queue, QueueSpec};
use super::vhost::Vhost;

use exchange_logs::ExchangeLogs;

/// Why a broker cannot start from what its journal holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A table of arguments in a definition is damaged.
    #[error("arguments of a definition cannot be read: {0}")]
    Arguments(#[from] FieldError),
    /// A definition cannot be used.
    #[error("a definition cannot be used: {0}")]
    Broker(#[from] Error),
    /// A definition cannot be read.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    /// A message cannot be read.
    #[error("a message cannot be read: {0}")]
    Journal(#[from] JournalError),
    /// The spill directory cannot be made or emptied.
    #[error("the directory for long queues cannot be emptied: {0}")]
    Spill(#[source] std::io::Error),
}

/// An exchange, and the vhost that it is in.
type PlacedExchange = (Arc<Vhost>, Arc<Exchange>);

/// A durable queue, and where it is.
struct Home {
    vhost: Arc<Vhost>,
    queue: Arc<Queue>,
}

impl Broker {
    /// Puts everything back that was recovered.
    pub(super) fn restore(&self, recovered: Recovered) -> Result<(), OpenError> {
        let (mut policies, mut details) = (Vec::new(), Vec::new());
        let mut exchanges = Vec::new();
        let mut logs = HashMap::new();
        let mut queues = Vec::new();
        let mut bindings = Vec::new();
        let mut stream_bases = HashMap::new();
        for (key, value) in &recovered.definitions {
            match Record::decode(key, value)? {
                Record::ScopeNext { next } => {
                    let mut scope_next = self.scope_next.lock();
                    *scope_next = next.max(*scope_next);
                }
                Record::Vhost(record) => drop(self.insert_vhost(&record)),
                Record::User(record) => self.shared.users.restore_user(record),
                Record::Permission(record) => self.shared.users.restore_permissions(&record),
                Record::TopicPermission(record) => {
                    self.shared.users.restore_topic_permissions(&record);
                }
                Record::UserLimits(record) => {
                    let users = &self.shared.users;
                    users.restore_user_limits(&record.user, record.limits);
                }
                Record::Parameter(record) => self.shared.parameters.restore(record),
                Record::Policy(record) => policies.push(record),
                Record::VhostDetails(record) => details.push(record),
                Record::Exchange(record) => exchanges.push(record),
                Record::ExchangeLog(record) => {
                    logs.insert((record.vhost.clone(), record.name.clone()), record);
                }
                Record::Queue(record) => queues.push(record),
                Record::Binding(record) => bindings.push(record),
                Record::StreamBase(record) => drop(stream_bases.insert(record.queue, record)),
            }
        }
        for record in details {
            if let Some(vhost) = self.vhost(&record.name) {
                vhost.restore_details(record.details);
            }
        }
        for record in policies {
            self.restore_policy(record);
        }
        let mut id_max = recovered.queue_id_max.0;
        for log in logs.values() {
            id_max = id_max.max(log.delays).max(log.keys);
        }
        for record in &queues {
            id_max = id_max.max(record.id);
        }
        self.shared
            .queue_id_next
            .store(id_max + 1, Ordering::Relaxed);
        let mut owned = ExchangeLogs::default();
        for record in &exchanges {
            let log = logs.get(&(record.vhost.clone(), record.name.clone()));
            if let Some((vhost, exchange)) = self.restore_exchange(record, log)? {
                owned.add(&vhost, &exchange);
            }
        }
        let mut by_id = HashMap::new();
        for record in &queues {
            if let Some(home) = self.restore_queue(record)? {
                by_id.insert(home.queue.id(), home);
            }
        }
        for record in &bindings {
            self.restore_binding(record)?;
        }
        let Some(journal) = self.shared.journal.clone() else {
            return Ok(());
        };
        let unix_ms = self.shared.clock.started_unix_ms;
        for (id, found) in recovered.queues {
            match by_id.get(&id) {
                Some(home) if home.queue.kind() == QueueKind::Stream => {
                    restore_stream(home, stream_bases.get(&id.0), &found)?;
                }
                Some(home) => {
                    home.queue.restore(&found)?;
                    home.queue.restore_keys()?;
                }
                None if owned.contains(id) => owned.restore(&journal, id, unix_ms)?,
                // Its deletion was the last thing that was noted of it.
                None => drop(journal.append_queue_delete(id)?),
            }
        }
        for home in by_id.values() {
            if let Some(base) = stream_bases.get(&home.queue.id().0)
                && home.queue.depth().ready_count == 0
            {
                home.queue.begin_stream_at(base.first);
            }
            home.queue.begin_time(self.shared.timers.started());
        }
        Ok(())
    }

    fn restore_policy(&self, record: PolicyRecord) {
        let name = String::from_utf8_lossy(&record.name).into_owned();
        match (self.vhost(&record.vhost), Policy::from_record(record)) {
            (Some(vhost), Ok(policy)) => vhost.restore_policy(policy),
            (None, _) => {}
            // Written by another version.
            (Some(vhost), Err(error)) => {
                tracing::error!(vhost = %vhost.name(), policy = name, %error, "policy dropped");
            }
        }
    }

    fn restore_exchange(
        &self,
        record: &ExchangeRecord,
        log: Option<&ExchangeLogRecord>,
    ) -> Result<Option<PlacedExchange>, OpenError> {
        let Some(vhost) = self.vhost(&record.vhost) else {
            return Ok(None);
        };
        let kind = ExchangeKind::from_name(record.kind.as_bytes())?;
        let arguments = table(&record.arguments)?;
        let mut logs = vhost.exchange_logs();
        if let Some(log) = log {
            logs.delays = QueueId(log.delays);
            logs.keys = QueueId(log.keys);
        }
        let spec = ExchangeSpec {
            id: self.shared.serial(),
            name: Name::new(&record.name),
            kind,
            durability: Durability::Durable,
            auto_delete: record.auto_delete,
            internal: record.internal,
            settings: ExchangeSettings::from_arguments(kind, &arguments)?,
            arguments,
            seed: self.shared.names.seed(),
            logs,
        };
        if log.is_none() {
            // A crash came between the exchange and its ids.
            vhost.put_exchange_log(&spec)?;
        }
        Ok(Some((Arc::clone(&vhost), vhost.insert_exchange(spec))))
    }

    fn restore_queue(&self, record: &QueueRecord) -> Result<Option<Home>, OpenError> {
        let Some(vhost) = self.vhost(&record.vhost) else {
            return Ok(None);
        };
        let arguments = table(&record.arguments)?;
        let name = Name::new(&record.name);
        let resource = Resource {
            kind: ResourceKind::Queue,
            vhost: vhost.name().clone(),
            name: name.clone(),
        };
        let declared = QueueSettings::from_arguments(&arguments, &resource)?;
        let settings = vhost.settings_with_policy(&name, declared, &arguments);
        let queue = vhost.insert_queue(QueueSpec {
            id: QueueId(record.id),
            vhost: vhost.name().clone(),
            name,
            durability: Durability::Durable,
            auto_delete: record.auto_delete,
            owner: None,
            settings: settings.shared(),
            arguments,
            home: Arc::downgrade(&vhost),
            timers: Arc::clone(&self.shared.timers),
            journal: self.shared.journal.clone(),
            paging: Arc::clone(&self.shared.paging),
        });
        Ok(Some(Home { vhost, queue }))
    }

    fn restore_binding(&self, record: &BindingRecord) -> Result<(), OpenError> {
        let arguments = table(&record.arguments)?;
        if let Some(vhost) = self.vhost(&record.vhost)
            && !vhost.restore_binding(record, &arguments)
        {
            // A crash came between the end of an end and the end of its bindings.
            self.shared.store.delete_binding(record)?;
        }
        Ok(())
    }
}

/// Puts back a stream: where its offsets lie; its messages stay on disk.
fn restore_stream(
    home: &Home,
    base: Option<&StreamBaseRecord>,
    found: &RecoveredQueue,
) -> Result<(), OpenError> {
    let queue = &home.queue;
    let mut after = Lsn::ZERO;
    if let Some(base) = base {
        queue.begin_stream_at(base.first);
        after = Lsn(base.up_to);
        // A crash may have come before all of them were noted as gone.
        home.vhost.ack_up_to(queue, after)?;
    }
    Ok(queue.restore_stream(after, &found.payloads)?)
}

fn table(elements: &[u8]) -> Result<FieldTable, FieldError> {
    FieldTable::from_elements(bytes::Bytes::copy_from_slice(elements))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod time_tests;
