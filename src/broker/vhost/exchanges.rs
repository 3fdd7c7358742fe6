//! Declaring and deleting exchanges.
//!
//! Spec: AMQP 0-9-1, class exchange; RabbitMQ's checks in RabbitMQ's order.

use std::sync::Arc;

use crate::amqp::field::FieldTable;
use crate::journal::QueueId;

use super::super::access::Access;
use super::super::binding::{Bindings, DestinationName};
use super::super::dedup::DedupCache;
use super::super::definitions::{ExchangeLogRecord, ExchangeRecord};
use super::super::delayed::Delays;
use super::super::error::{Error, ResourceKind};
use super::super::events::{EVENT_EXCHANGE, EVENT_VHOST};
use super::super::exchange::settings::ExchangeSettings;
use super::super::exchange::{Exchange, ExchangeKind, ExchangeLogs, ExchangeSpec};
use super::super::name::Name;
use super::super::queue::Durability;
use super::super::queue::arguments::{check_same, check_same_flag, require_string};
use super::tracing::TRACE_EXCHANGE;
use super::{Connection, RESERVED_PREFIX, Vhost, without_line_ends};

/// `exchange.declare`.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeDeclare<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its type by name.
    pub kind: &'a [u8],
    /// Only ask whether it exists; everything else is ignored.
    pub passive: bool,
    /// Outlives a restart.
    pub durable: bool,
    /// Goes with the last binding from it.
    pub auto_delete: bool,
    /// Takes messages from exchanges only.
    pub internal: bool,
    /// `alternate-exchange` and what its type knows mean something; others are kept and ignored.
    pub arguments: &'a FieldTable,
}

/// `exchange.delete`.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeDelete<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Only if nothing is bound to it.
    pub if_unused: bool,
}

/// The exchanges that are always there, by name and type.
const PREDECLARED: [(&str, ExchangeKind); 8] = [
    ("", ExchangeKind::Direct),
    ("amq.direct", ExchangeKind::Direct),
    ("amq.fanout", ExchangeKind::Fanout),
    ("amq.headers", ExchangeKind::Headers),
    ("amq.match", ExchangeKind::Headers),
    (EVENT_EXCHANGE, ExchangeKind::Topic),
    (TRACE_EXCHANGE, ExchangeKind::Topic),
    ("amq.topic", ExchangeKind::Topic),
];

impl Vhost {
    /// Declares an exchange, or checks that it is as declared.
    pub fn exchange_declare(
        &self,
        by: &Connection,
        declare: &ExchangeDeclare<'_>,
    ) -> Result<(), Error> {
        let name = &*without_line_ends(declare.name);
        if declare.passive {
            refuse_default(name)?;
            return match self.exchange(name) {
                Some(_) => Ok(()),
                None => Err(self.no_exchange(name)),
            };
        }
        let kind = ExchangeKind::from_name(declare.kind)?;
        refuse_default(name)?;
        self.authorize(by, ResourceKind::Exchange, name, Access::Configure)?;
        if let Some(exchange) = self.exchange(name) {
            return self.check_exchange(&exchange, kind, declare);
        }
        if name.starts_with(RESERVED_PREFIX) {
            return Err(Error::ReservedPrefix {
                kind: ResourceKind::Exchange,
                name: Name::new(name),
            });
        }
        if let Some(alternate) = declare.arguments.get("alternate-exchange") {
            let resource = self.exchange_resource(name);
            require_string("alternate-exchange", &alternate, &resource)?;
            self.authorize(by, ResourceKind::Exchange, name, Access::Read)?;
            let alternate = alternate.as_bytes().map_or(&b""[..], |name| name);
            self.authorize(by, ResourceKind::Exchange, alternate, Access::Write)?;
        }
        let settings = ExchangeSettings::from_arguments(kind, declare.arguments)?;
        let topology = self.lock_topology_to_add()?;
        if let Some(exchange) = self.exchange(name) {
            // Somebody was faster.
            return self.check_exchange(&exchange, kind, declare);
        }
        let count_max = self.shared.limits.exchanges_per_vhost_max;
        if self.exchanges.len() >= count_max {
            return Err(Error::LimitReached {
                resource: self.exchange_resource(name),
                limited: "exchange",
                count_max,
            });
        }
        let spec = ExchangeSpec {
            id: self.shared.serial(),
            name: Name::new(name),
            kind,
            durability: match declare.durable {
                true => Durability::Durable,
                false => Durability::Transient,
            },
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments: declare.arguments.detached(),
            settings,
            seed: self.shared.names.seed(),
            logs: self.exchange_logs(),
        };
        if spec.durability == Durability::Durable {
            self.shared
                .store
                .put_exchange(&self.exchange_record(&spec))?;
            self.put_exchange_log(&spec)?;
        }
        let exchange = self.insert_exchange(spec);
        self.exchange_came(&exchange, by.user.name().as_bytes());
        drop(topology);
        Ok(())
    }

    /// Deletes an exchange with its bindings; one that does not exist is deleted already.
    pub fn exchange_delete(
        &self,
        by: &Connection,
        delete: &ExchangeDelete<'_>,
    ) -> Result<(), Error> {
        let name = &*without_line_ends(delete.name);
        refuse_default(name)?;
        self.authorize(by, ResourceKind::Exchange, name, Access::Configure)?;
        // Whether it exists or not.
        if name.starts_with(RESERVED_PREFIX) {
            return Err(Error::SystemExchange {
                resource: self.exchange_resource(name),
            });
        }
        let mut topology = self.lock_topology();
        let Some(exchange) = self.exchange(name) else {
            return Ok(());
        };
        if delete.if_unused && topology.has_source(exchange.name()) {
            return Err(Error::InUse {
                resource: self.exchange_resource(name),
            });
        }
        self.delete_exchange_in(&mut topology, &exchange, by.user.name().as_bytes())
    }

    /// Puts the exchanges there that every vhost has; the first one has that of events, too.
    pub(crate) fn declare_predeclared(&self) {
        for (name, kind) in PREDECLARED {
            if name == EVENT_EXCHANGE && self.name.as_bytes() != EVENT_VHOST.as_bytes() {
                continue;
            }
            let arguments = FieldTable::default();
            self.insert_exchange(ExchangeSpec {
                id: self.shared.serial(),
                name: Name::from(name),
                kind,
                durability: Durability::Durable,
                auto_delete: false,
                internal: name == TRACE_EXCHANGE || name == EVENT_EXCHANGE,
                settings: ExchangeSettings::from_arguments(kind, &arguments)
                    .expect("the standard's types need no arguments"),
                arguments,
                seed: 0,
                logs: ExchangeLogs {
                    journal: None,
                    spill: None,
                    delays: QueueId(0),
                    keys: QueueId(0),
                },
            });
        }
    }

    pub(crate) fn insert_exchange(&self, spec: ExchangeSpec) -> Arc<Exchange> {
        let exchange = Arc::new(Exchange::new(spec));
        exchange.set_policy_alternate(self.alternate_by_policy(exchange.name()));
        self.exchanges
            .insert(exchange.name().clone(), Arc::clone(&exchange));
        exchange
    }

    /// Deletes an exchange, the bindings from and to it, and the auto-delete exchanges which had
    /// nothing but those bindings, and so on.
    pub(super) fn delete_exchange_in(
        &self,
        topology: &mut Bindings,
        exchange: &Arc<Exchange>,
        user: &[u8],
    ) -> Result<(), Error> {
        let mut doomed = vec![Arc::clone(exchange)];
        while let Some(exchange) = doomed.pop() {
            let name = exchange.name();
            if self.exchanges.remove(name).is_none() {
                continue;
            }
            for binding in topology.of_source(name) {
                self.remove_binding_in(topology, &binding.key, user)?;
            }
            let as_destination = DestinationName {
                kind: ResourceKind::Exchange,
                name: name.clone(),
            };
            for binding in topology.of_destination(&as_destination) {
                self.remove_binding_in(topology, &binding.key, user)?;
                doomed.extend(self.unused_auto_delete(topology, binding.source()));
            }
            if exchange.durability() == Durability::Durable {
                self.shared.store.delete_exchange(&self.name, name)?;
            }
            self.delete_exchange_logs(&exchange)?;
            self.exchange_went(&exchange, user);
        }
        self.topology_changed();
        Ok(())
    }

    /// Ids for what a new exchange may have to remember.
    pub(crate) fn exchange_logs(&self) -> ExchangeLogs {
        ExchangeLogs {
            journal: self.shared.journal.clone(),
            spill: self.shared.paging.spill.clone(),
            delays: self.shared.queue_id(),
            keys: self.shared.queue_id(),
        }
    }

    /// Notes the ids of an exchange that has records of its own.
    pub(crate) fn put_exchange_log(&self, spec: &ExchangeSpec) -> Result<(), Error> {
        if !spec.settings.delays && spec.settings.dedup.is_none() {
            return Ok(());
        }
        let record = ExchangeLogRecord {
            vhost: self.name.as_bytes().to_vec(),
            name: spec.name.as_bytes().to_vec(),
            delays: spec.logs.delays.0,
            keys: spec.logs.keys.0,
        };
        self.shared.store.put_exchange_log(&record).map(drop)
    }

    /// What waits in a deleted exchange is gone, and what it remembered.
    fn delete_exchange_logs(&self, exchange: &Exchange) -> Result<(), Error> {
        if let Some(delays) = exchange.delays()
            && let Some(timer) = delays.clear()
        {
            self.shared.timers.disarm(timer);
        }
        if let Some(dedup) = exchange.dedup() {
            dedup.clear();
        }
        let delays = exchange.delays().and_then(Delays::journal_queue);
        let keys = exchange.dedup().and_then(DedupCache::journal_queue);
        if let Some(journal) = &self.shared.journal {
            for queue in delays.into_iter().chain(keys) {
                journal.append_queue_delete(queue)?;
            }
            if (delays.is_some() || keys.is_some()) && exchange.durability() == Durability::Durable
            {
                let store = &self.shared.store;
                store.delete_exchange_log(&self.name, exchange.name())?;
            }
        }
        Ok(())
    }

    /// The exchange, if it goes because nothing is bound to it any more.
    pub(super) fn unused_auto_delete(
        &self,
        topology: &Bindings,
        source: &Name,
    ) -> Option<Arc<Exchange>> {
        let exchange = self.exchange(source.as_bytes())?;
        (exchange.is_auto_delete() && !topology.has_source(source)).then_some(exchange)
    }

    pub(super) fn no_exchange(&self, name: &[u8]) -> Error {
        Error::NotFound {
            resource: self.exchange_resource(name),
        }
    }

    fn check_exchange(
        &self,
        exchange: &Exchange,
        kind: ExchangeKind,
        declare: &ExchangeDeclare<'_>,
    ) -> Result<(), Error> {
        let resource = self.exchange_resource(exchange.name().as_bytes());
        if exchange.kind() != kind {
            return Err(Error::Inequivalent {
                argument: "type".to_owned(),
                resource,
                received: format!("'{kind}'"),
                current: format!("'{}'", exchange.kind()),
            });
        }
        let durable = exchange.durability() == Durability::Durable;
        check_same_flag("durable", durable, declare.durable, &resource)?;
        check_same_flag(
            "auto_delete",
            exchange.is_auto_delete(),
            declare.auto_delete,
            &resource,
        )?;
        check_same_flag(
            "internal",
            exchange.is_internal(),
            declare.internal,
            &resource,
        )?;
        let argument = "alternate-exchange";
        let (current, received) = (
            exchange.arguments().get(argument),
            declare.arguments.get(argument),
        );
        check_same(argument, current.as_ref(), received.as_ref(), &resource)
    }

    fn exchange_record(&self, spec: &ExchangeSpec) -> ExchangeRecord {
        ExchangeRecord {
            vhost: self.name.as_bytes().to_vec(),
            name: spec.name.as_bytes().to_vec(),
            kind: spec.kind.name().to_owned(),
            auto_delete: spec.auto_delete,
            internal: spec.internal,
            arguments: spec.arguments.elements().to_vec(),
        }
    }
}

/// The default exchange is not for touching.
pub(super) fn refuse_default(exchange: &[u8]) -> Result<(), Error> {
    match exchange {
        b"" => Err(Error::DefaultExchange),
        _ => Ok(()),
    }
}
