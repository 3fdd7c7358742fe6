//! Declaring, purging and deleting queues.
//!
//! Spec: AMQP 0-9-1, class queue; RabbitMQ's checks in RabbitMQ's order.

use std::sync::Arc;
use std::time::Instant;

use crate::amqp::field::{FieldTable, ShortString};
use crate::journal::Lsn;

use super::super::access::Access;
use super::super::binding::{Bindings, DestinationName};
use super::super::definitions::QueueRecord;
use super::super::error::{Error, ResourceKind};
use super::super::events::INTERNAL_USER;
use super::super::name::Name;
use super::super::outbox::Wakes;
use super::super::queue::arguments::{QueueKind, QueueSettings, check_equivalent, check_same_flag};
use super::super::queue::{DeleteConditions, DeleteRefused, Durability, Queue, QueueSpec};
use super::{Connection, RESERVED_PREFIX, Vhost, without_line_ends};

/// `queue.declare`.
#[derive(Clone, Copy, Debug)]
pub struct QueueDeclare<'a> {
    /// Its name; empty lets the broker make one.
    pub name: &'a [u8],
    /// Only ask whether it exists; everything else is ignored.
    pub passive: bool,
    /// Outlives a restart, unless it is exclusive.
    pub durable: bool,
    /// For this connection alone, and gone with it.
    pub exclusive: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// RabbitMQ's `x-` arguments; unknown ones are kept and ignored.
    pub arguments: &'a FieldTable,
}

/// `queue.declare-ok`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueDeclared {
    /// The name, also if the broker made it.
    pub name: Name,
    /// Messages that wait.
    pub message_count: u32,
    /// Consumers.
    pub consumer_count: u32,
}

/// `queue.delete`.
#[derive(Clone, Copy, Debug)]
pub struct QueueDelete<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Only without consumers.
    pub if_unused: bool,
    /// Only without waiting messages; those that are out do not count.
    pub if_empty: bool,
}

impl Vhost {
    /// Declares a queue, or checks that it is as declared.
    pub fn queue_declare(
        &self,
        by: &Connection,
        declare: &QueueDeclare<'_>,
        now: Instant,
    ) -> Result<QueueDeclared, Error> {
        let name = &*without_line_ends(declare.name);
        if declare.passive {
            let queue = self.usable_queue(by, name)?;
            queue.used(now);
            return Ok(declared(&queue));
        }
        let arguments = self.with_default_type(name, declare);
        let declare = &QueueDeclare {
            arguments: arguments.as_ref().unwrap_or(declare.arguments),
            ..*declare
        };
        let name = self.name_for(name, declare)?;
        self.authorize(by, ResourceKind::Queue, name.as_bytes(), Access::Configure)?;
        self.shared.statistics.queue_declared();
        if let Some(queue) = self.queue(name.as_bytes()) {
            return self.check_queue(by, &queue, declare, now);
        }
        let resource = self.queue_resource(name.as_bytes());
        let settings = QueueSettings::from_arguments(declare.arguments, &resource)?;
        check_properties(settings.kind, declare).map_err(|property| Error::InvalidProperty {
            property,
            resource: resource.clone(),
        })?;
        if let Some(exchange) = &settings.dead_letter_exchange {
            self.authorize(by, ResourceKind::Queue, name.as_bytes(), Access::Read)?;
            self.authorize(
                by,
                ResourceKind::Exchange,
                exchange.as_bytes(),
                Access::Write,
            )?;
        }
        let topology = self.lock_topology_to_add()?;
        if let Some(queue) = self.queue(name.as_bytes()) {
            // Somebody was faster.
            drop(topology);
            return self.check_queue(by, &queue, declare, now);
        }
        let limit = self.details().limits.queue_count_max;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok());
        let count_max = self.shared.limits.queues_per_vhost_max;
        let count_max = count_max.min(limit.unwrap_or(usize::MAX));
        if self.queues.len() >= count_max {
            return Err(Error::LimitReached {
                resource,
                limited: "queue",
                count_max,
            });
        }
        let settings = self.settings_with_policy(&name, settings, declare.arguments);
        let is_durable = declare.durable && !declare.exclusive;
        let id = self.shared.queue_id();
        if is_durable {
            self.shared.store.put_queue(&QueueRecord {
                vhost: self.name.as_bytes().to_vec(),
                name: name.as_bytes().to_vec(),
                id: id.0,
                auto_delete: declare.auto_delete,
                arguments: declare.arguments.elements().to_vec(),
            })?;
        }
        self.shared.statistics.queue_created();
        let queue = self.insert_queue(QueueSpec {
            id,
            vhost: self.name.clone(),
            name,
            durability: match is_durable {
                true => Durability::Durable,
                false => Durability::Transient,
            },
            auto_delete: declare.auto_delete,
            owner: declare.exclusive.then(|| (by.id, Arc::clone(&by.user))),
            arguments: declare.arguments.detached(),
            settings: settings.shared(),
            home: self.this.clone(),
            timers: Arc::clone(&self.shared.timers),
            journal: self.shared.journal.clone().filter(|_| is_durable),
            paging: Arc::clone(&self.shared.paging),
        });
        if declare.exclusive {
            by.own(&queue);
        }
        self.queue_came(&queue, by);
        drop(topology);
        queue.used(now);
        Ok(declared(&queue))
    }

    /// Whether the connection may read a queue, without reading.
    ///
    /// # Errors
    /// What fetching from it would be refused with.
    pub fn check_read(&self, by: &Connection, name: &[u8]) -> Result<(), Error> {
        self.authorize(by, ResourceKind::Queue, name, Access::Read)?;
        self.usable_queue(by, name).map(|_| ())
    }

    /// The arguments with the vhost's default queue type, where they name none and the queue could be of
    /// that type. A queue that is there and of another type was declared before the default was set.
    fn with_default_type(&self, name: &[u8], declare: &QueueDeclare<'_>) -> Option<FieldTable> {
        let details = self.details();
        let default = details.default_queue_type.as_ref()?;
        let kind = QueueKind::from_name(default.as_bytes())?;
        let is_possible =
            declare.durable && !declare.exclusive && !declare.auto_delete && !name.is_empty();
        if kind == QueueKind::Classic
            || !is_possible
            || declare.arguments.contains("x-queue-type")
            || self.queue(name).is_some_and(|queue| queue.kind() != kind)
        {
            return None;
        }
        let mut arguments = declare.arguments.clone();
        arguments.insert(ShortString::from_static("x-queue-type"), kind.name());
        Some(arguments)
    }

    /// Removes the messages that wait; gives their number.
    pub fn queue_purge(&self, by: &Connection, name: &[u8]) -> Result<u32, Error> {
        let name = &*without_line_ends(name);
        self.authorize(by, ResourceKind::Queue, name, Access::Read)?;
        let queue = self.usable_queue(by, name)?;
        if queue.kind() == QueueKind::Stream {
            return Err(Error::NotForStreams {
                what: "queue.purge",
                resource: self.queue_resource(name),
            });
        }
        Ok(count(queue.purge()))
    }

    /// Deletes a queue; one that does not exist is deleted already. Gives the number of messages that
    /// waited.
    pub fn queue_delete(
        &self,
        by: &Connection,
        delete: &QueueDelete<'_>,
        wakes: &mut Wakes,
    ) -> Result<u32, Error> {
        let name = &*without_line_ends(delete.name);
        self.authorize(by, ResourceKind::Queue, name, Access::Configure)?;
        let Some(queue) = self.queue(name) else {
            return Ok(0);
        };
        self.check_owner(by, &queue)?;
        let conditions = match queue.kind() {
            QueueKind::Classic => DeleteConditions {
                if_unused: delete.if_unused,
                if_empty: delete.if_empty,
                if_expired: None,
            },
            QueueKind::Quorum => {
                let asked = [
                    (delete.if_unused, "if-unused"),
                    (delete.if_empty, "if-empty"),
                ];
                if let Some((_, flag)) = asked.into_iter().find(|(asked, _)| *asked) {
                    let resource = self.queue_resource(name);
                    return Err(Error::DeleteCondition { resource, flag });
                }
                DeleteConditions::default()
            }
            // Taken, and not looked at (RabbitMQ).
            QueueKind::Stream => DeleteConditions::default(),
        };
        self.delete_queue_as(&queue, conditions, by.user.name().as_bytes(), wakes)
    }

    /// Deletes a queue with its bindings, whoever asks for it.
    pub(crate) fn delete_queue(
        &self,
        queue: &Arc<Queue>,
        conditions: DeleteConditions,
        wakes: &mut Wakes,
    ) -> Result<u32, Error> {
        self.delete_queue_as(queue, conditions, INTERNAL_USER.as_bytes(), wakes)
    }

    fn delete_queue_as(
        &self,
        queue: &Arc<Queue>,
        conditions: DeleteConditions,
        user: &[u8],
        wakes: &mut Wakes,
    ) -> Result<u32, Error> {
        let mut topology = self.lock_topology();
        let resource = || self.queue_resource(queue.name().as_bytes());
        let consumers = match self.shared.events.is_on() {
            true => queue.consumers(),
            false => Vec::new(),
        };
        let remains = match queue.delete(conditions, wakes) {
            Ok(remains) => remains,
            Err(DeleteRefused::NotEmpty) => {
                return Err(Error::NotEmpty {
                    resource: resource(),
                });
            }
            Err(DeleteRefused::InUse) => {
                return Err(Error::InUse {
                    resource: resource(),
                });
            }
            Err(DeleteRefused::Gone) => return Ok(0),
        };
        let removed = self.remove_bindings_to(&mut topology, queue);
        // The record goes by the name, so it must be gone before somebody declares the name again.
        let forgotten = match queue.is_journalled() {
            true => self.shared.store.delete_queue(&self.name, queue.name()),
            false => Ok(Lsn::ZERO),
        };
        let forgotten = match queue.kind() {
            QueueKind::Stream => {
                forgotten.and_then(|_| self.shared.store.delete_stream_base(queue.id()))
            }
            QueueKind::Classic | QueueKind::Quorum => forgotten,
        };
        self.queues
            .remove_if(queue.name(), |_, current| Arc::ptr_eq(current, queue));
        self.counts_of_gone
            .lock()
            .add(queue.kind(), &queue.counts());
        self.shared.statistics.queue_deleted();
        self.topology_changed();
        for consumer in &consumers {
            self.consumer_went(consumer);
        }
        self.queue_went(queue, user);
        drop(topology);
        removed?;
        forgotten?;
        if queue.is_journalled()
            && let Some(journal) = &self.shared.journal
        {
            journal.append_queue_delete(queue.id())?;
        }
        Ok(count(remains.len()))
    }

    /// Deletes a queue that nobody used for its time, unless somebody does by now.
    pub(crate) fn expire_queue(&self, queue: &Arc<Queue>, now: Instant, wakes: &mut Wakes) {
        match self.delete_queue(queue, DeleteConditions::expired(now), wakes) {
            Ok(_) => tracing::debug!(queue = %queue.name(), "an unused queue was deleted"),
            Err(Error::InUse { .. }) => drop(queue.handle_lease(None, now)),
            Err(error) => {
                tracing::error!(queue = %queue.name(), %error, "an unused queue was not deleted");
            }
        }
    }

    pub(crate) fn insert_queue(&self, spec: QueueSpec) -> Arc<Queue> {
        let queue = Queue::new(spec);
        self.queues.insert(queue.name().clone(), Arc::clone(&queue));
        queue
    }

    pub(super) fn no_queue(&self, name: &[u8]) -> Error {
        Error::NotFound {
            resource: self.queue_resource(name),
        }
    }

    /// Takes away what leads to a queue, and the auto-delete exchanges that led nowhere else.
    fn remove_bindings_to(&self, topology: &mut Bindings, queue: &Queue) -> Result<(), Error> {
        let as_destination = DestinationName {
            kind: ResourceKind::Queue,
            name: queue.name().clone(),
        };
        for binding in topology.of_destination(&as_destination) {
            self.remove_binding_in(topology, &binding.key, INTERNAL_USER.as_bytes())?;
            if let Some(exchange) = self.unused_auto_delete(topology, binding.source()) {
                self.delete_exchange_in(topology, &exchange, INTERNAL_USER.as_bytes())?;
            }
        }
        Ok(())
    }

    /// The name to declare: the client's, which must not be one of the broker's own, or a new one.
    fn name_for(&self, name: &[u8], declare: &QueueDeclare<'_>) -> Result<Name, Error> {
        if name.starts_with(RESERVED_PREFIX) {
            return Err(Error::ReservedPrefix {
                kind: ResourceKind::Queue,
                name: Name::new(name),
            });
        }
        if !name.is_empty() {
            return Ok(Name::new(name));
        }
        match QueueKind::from_arguments(declare.arguments) {
            QueueKind::Classic => Ok(Name::from(self.shared.names.name("amq.gen-").as_str())),
            kind @ (QueueKind::Quorum | QueueKind::Stream) => Err(Error::ServerNamedType {
                queue_type: kind.module_name(),
            }),
        }
    }

    fn check_queue(
        &self,
        by: &Connection,
        queue: &Arc<Queue>,
        declare: &QueueDeclare<'_>,
        now: Instant,
    ) -> Result<QueueDeclared, Error> {
        let resource = self.queue_resource(queue.name().as_bytes());
        if queue.owner() != declare.exclusive.then_some(by.id) {
            return Err(Error::Locked { resource });
        }
        let is_durable = queue.durability() == Durability::Durable;
        let wants_durable = declare.durable && !declare.exclusive;
        check_same_flag("durable", is_durable, wants_durable, &resource)?;
        check_same_flag(
            "auto_delete",
            queue.is_auto_delete(),
            declare.auto_delete,
            &resource,
        )?;
        check_equivalent(
            queue.arguments(),
            declare.arguments,
            queue.kind(),
            &resource,
        )?;
        queue.used(now);
        Ok(declared(queue))
    }
}

/// Names the first property that the queue's type does not allow.
fn check_properties(kind: QueueKind, declare: &QueueDeclare<'_>) -> Result<(), &'static str> {
    match kind {
        QueueKind::Classic => Ok(()),
        QueueKind::Quorum | QueueKind::Stream => {
            if declare.auto_delete {
                Err("auto-delete")
            } else if declare.exclusive {
                Err("exclusive-owner")
            } else if declare.durable {
                Ok(())
            } else {
                Err("non-durable")
            }
        }
    }
}

fn declared(queue: &Queue) -> QueueDeclared {
    let depth = queue.depth();
    QueueDeclared {
        name: queue.name().clone(),
        message_count: count(depth.ready_count),
        consumer_count: count(depth.consumer_count),
    }
}

/// A number as the wire carries it.
fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
