//! Binding queues and exchanges to exchanges, and undoing it.
//!
//! Spec: AMQP 0-9-1, `queue.bind`, `queue.unbind`; RabbitMQ's `exchange.bind`, `exchange.unbind`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use crate::amqp::field::FieldTable;

use super::super::access::Access;
use super::super::binding::{Binding, BindingKey, Bindings, DestinationName};
use super::super::definitions::BindingRecord;
use super::super::error::{Error, ResourceKind};
use super::super::exchange::destinations::Destination;
use super::super::exchange::{Exchange, RouteInput};
use super::super::name::Name;
use super::super::outbox::Wakes;
use super::super::queue::Durability;
use super::super::route::{Route, walk};
use super::exchanges::refuse_default;
use super::{Connection, Vhost, without_line_ends};

/// A binding to make or to undo.
#[derive(Clone, Copy, Debug)]
pub struct BindingRequest<'a> {
    /// The exchange that it leads from.
    pub source: &'a [u8],
    /// The queue or exchange that it leads to.
    pub destination: &'a [u8],
    /// Key or pattern.
    pub routing_key: &'a [u8],
    /// For headers exchanges; part of the identity for all.
    pub arguments: &'a FieldTable,
}

/// The names of a binding's ends.
struct Ends<'a> {
    source: Cow<'a, [u8]>,
    destination: Cow<'a, [u8]>,
}

impl Vhost {
    /// Binds a queue; an equal binding changes nothing.
    ///
    /// A recent-history exchange gives the queue its last messages at once.
    pub fn queue_bind(
        &self,
        by: &Connection,
        request: &BindingRequest<'_>,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<(), Error> {
        self.bind(by, ResourceKind::Queue, request, now, wakes)
    }

    /// Undoes [`Self::queue_bind`]; what is not bound is unbound already.
    pub fn queue_unbind(&self, by: &Connection, request: &BindingRequest<'_>) -> Result<(), Error> {
        self.unbind(by, ResourceKind::Queue, request)
    }

    /// Binds an exchange; circles are allowed.
    pub fn exchange_bind(
        &self,
        by: &Connection,
        request: &BindingRequest<'_>,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<(), Error> {
        self.bind(by, ResourceKind::Exchange, request, now, wakes)
    }

    /// Undoes [`Self::exchange_bind`]; what is not bound is unbound already.
    pub fn exchange_unbind(
        &self,
        by: &Connection,
        request: &BindingRequest<'_>,
    ) -> Result<(), Error> {
        self.unbind(by, ResourceKind::Exchange, request)
    }

    fn bind(
        &self,
        by: &Connection,
        kind: ResourceKind,
        request: &BindingRequest<'_>,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<(), Error> {
        let Ends {
            source,
            destination,
        } = self.ends(by, kind, request)?;
        let mut topology = self.lock_topology_to_add()?;
        let exchange = self
            .exchange(&source)
            .ok_or_else(|| self.no_exchange(&source))?;
        let target = self.target(kind, &destination)?;
        if let Destination::Queue(queue) = &target {
            self.check_owner(by, queue)?;
        }
        let key = self.binding_key(kind, &source, &destination, request);
        exchange.check_binding(request.routing_key, &key.destination, request.arguments)?;
        if topology.contains(&key) {
            return Ok(());
        }
        let count_max = self.shared.limits.bindings_per_vhost_max;
        if topology.len() >= count_max {
            return Err(Error::LimitReached {
                resource: self.resource(kind, &destination),
                limited: "binding",
                count_max,
            });
        }
        let binding = self.add_binding(&mut topology, key, &exchange, target.clone())?;
        self.topology_changed();
        self.binding_came(&topology, &binding, by.user.name().as_bytes());
        drop(topology);
        self.give_history(&exchange, target, now, wakes)
    }

    /// What a recent-history exchange kept goes to who is bound now.
    fn give_history(
        &self,
        source: &Exchange,
        target: Destination,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<(), Error> {
        let Some(history) = source.history() else {
            return Ok(());
        };
        for message in history.messages() {
            let route = match &target {
                Destination::Queue(queue) => Route::new(vec![Arc::clone(queue)]),
                Destination::Exchange(exchange) => {
                    let keys = [message.routing_key()];
                    walk(self, exchange, RouteInput::new(&keys, None)).route
                }
            };
            self.deliver(message, &route, now, wakes)?;
        }
        Ok(())
    }

    fn unbind(
        &self,
        by: &Connection,
        kind: ResourceKind,
        request: &BindingRequest<'_>,
    ) -> Result<(), Error> {
        let Ends {
            source,
            destination,
        } = self.ends(by, kind, request)?;
        let mut topology = self.lock_topology();
        let key = self.binding_key(kind, &source, &destination, request);
        // Who takes away nothing needs no right to it.
        if kind == ResourceKind::Queue
            && topology.contains(&key)
            && let Some(queue) = self.queue(&destination)
        {
            self.check_owner(by, &queue)?;
        }
        let user = by.user.name().as_bytes();
        self.remove_binding_in(&mut topology, &key, user)?;
        if let Some(exchange) = self.unused_auto_delete(&topology, &key.source) {
            self.delete_exchange_in(&mut topology, &exchange, user)?;
        }
        Ok(())
    }

    /// Puts a binding back that was found by recovery; false if one of its ends is missing.
    pub(crate) fn restore_binding(&self, record: &BindingRecord, arguments: &FieldTable) -> bool {
        let kind = match record.destination_is_queue {
            true => ResourceKind::Queue,
            false => ResourceKind::Exchange,
        };
        let Some(exchange) = self.exchange(&record.source) else {
            return false;
        };
        let Ok(target) = self.target(kind, &record.destination) else {
            return false;
        };
        let key = BindingKey::new(
            Name::new(&record.source),
            DestinationName {
                kind,
                name: Name::new(&record.destination),
            },
            Name::new(&record.routing_key),
            arguments,
        );
        let binding = Arc::new(Binding {
            key,
            id: self.shared.serial(),
            target: target.id(),
            durability: Durability::Durable,
        });
        let mut topology = self.lock_topology();
        if !topology.contains(&binding.key) {
            topology.insert(&binding);
            exchange.bind(&binding, target);
            self.watch_events(&topology, &binding);
        }
        true
    }

    /// Takes a binding away, wherever it is noted. That its source may go too is the caller's business.
    pub(super) fn remove_binding_in(
        &self,
        topology: &mut Bindings,
        key: &BindingKey,
        user: &[u8],
    ) -> Result<(), Error> {
        let Some(binding) = topology.remove(key) else {
            return Ok(());
        };
        if let Some(exchange) = self.exchange(binding.source().as_bytes()) {
            exchange.unbind(&binding);
        }
        self.topology_changed();
        self.binding_went(topology, &binding, user);
        if binding.durability == Durability::Durable {
            self.shared
                .store
                .delete_binding(&self.binding_record(&binding))?;
        }
        Ok(())
    }

    fn add_binding(
        &self,
        topology: &mut Bindings,
        key: BindingKey,
        exchange: &Exchange,
        target: Destination,
    ) -> Result<Arc<Binding>, Error> {
        let target_durability = match &target {
            Destination::Queue(queue) => queue.durability(),
            Destination::Exchange(exchange) => exchange.durability(),
        };
        let binding = Arc::new(Binding {
            key,
            id: self.shared.serial(),
            target: target.id(),
            durability: match (exchange.durability(), target_durability) {
                (Durability::Durable, Durability::Durable) => Durability::Durable,
                (_, _) => Durability::Transient,
            },
        });
        if binding.durability == Durability::Durable {
            self.shared
                .store
                .put_binding(&self.binding_record(&binding))?;
        }
        topology.insert(&binding);
        exchange.bind(&binding, target);
        Ok(binding)
    }

    /// The names of both ends, after the checks that come before any looking up.
    fn ends<'a>(
        &self,
        by: &Connection,
        kind: ResourceKind,
        request: &BindingRequest<'a>,
    ) -> Result<Ends<'a>, Error> {
        let source = without_line_ends(request.source);
        let destination = without_line_ends(request.destination);
        refuse_default(&source)?;
        match kind {
            ResourceKind::Exchange => refuse_default(&destination)?,
            ResourceKind::Queue => {}
        }
        self.authorize(by, kind, &destination, Access::Write)?;
        self.authorize(by, ResourceKind::Exchange, &source, Access::Read)?;
        if let Some(exchange) = self.exchange(&source) {
            self.authorize_topic(by, &exchange, request.routing_key, Access::Read)?;
        }
        Ok(Ends {
            source,
            destination,
        })
    }

    fn target(&self, kind: ResourceKind, name: &[u8]) -> Result<Destination, Error> {
        let target = match kind {
            ResourceKind::Queue => self.queue(name).map(Destination::Queue),
            ResourceKind::Exchange => self.exchange(name).map(Destination::Exchange),
        };
        target.ok_or_else(|| Error::NotFound {
            resource: self.resource(kind, name),
        })
    }

    fn binding_key(
        &self,
        kind: ResourceKind,
        source: &[u8],
        destination: &[u8],
        request: &BindingRequest<'_>,
    ) -> BindingKey {
        BindingKey::new(
            Name::new(source),
            DestinationName {
                kind,
                name: Name::new(destination),
            },
            Name::new(request.routing_key),
            request.arguments,
        )
    }

    fn binding_record(&self, binding: &Binding) -> BindingRecord {
        BindingRecord {
            vhost: self.name.as_bytes().to_vec(),
            source: binding.source().as_bytes().to_vec(),
            destination_is_queue: binding.destination().kind == ResourceKind::Queue,
            destination: binding.destination().name.as_bytes().to_vec(),
            routing_key: binding.routing_key().as_bytes().to_vec(),
            arguments: binding.arguments().elements().to_vec(),
        }
    }
}
