//! One exchange: its properties, and the table that turns a message into destinations.
//!
//! Owns: the bindings from this exchange, in the shape in which its type looks them up. Which exchanges
//! a message passes on its way is `route.rs`'s business.
//! The table is behind a lock that is read for a lookup and written for a bind; channels remember what
//! they looked up (`route.rs`), so a busy publisher takes no lock here at all.
//! Spec: AMQP 0-9-1 §3.1; `spec/amqp.md`.

pub(crate) mod destinations;
mod direct;
mod fanout;
mod headers;
pub(crate) mod topic;

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::amqp::field::FieldTable;

use super::binding::Binding;
use super::error::Error;
use super::name::Name;
use super::queue::Durability;

use destinations::Destination;
use direct::DirectTable;
use fanout::FanoutTable;
use headers::HeadersTable;
use topic::TopicTable;

pub(crate) use headers::check_arguments as check_headers_arguments;

/// How an exchange chooses.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ExchangeKind {
    /// By equality of the routing key.
    Direct,
    /// Everything that is bound.
    Fanout,
    /// By the message's headers.
    Headers,
    /// By the words of the routing key, with wildcards.
    Topic,
}

impl ExchangeKind {
    /// The type that `exchange.declare` names.
    pub fn from_name(name: &[u8]) -> Result<Self, Error> {
        match name {
            b"direct" => Ok(Self::Direct),
            b"fanout" => Ok(Self::Fanout),
            b"headers" => Ok(Self::Headers),
            b"topic" => Ok(Self::Topic),
            b"" => Err(Error::InvalidExchangeType),
            other => Err(Error::UnknownExchangeType {
                kind: Name::new(other),
            }),
        }
    }

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Headers => "headers",
            Self::Topic => "topic",
        }
    }
}

impl fmt::Display for ExchangeKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What never changes about an exchange.
#[derive(Clone, Debug)]
pub(crate) struct ExchangeSpec {
    /// Unlike the name never used again in this process.
    pub(crate) id: u64,
    pub(crate) name: Name,
    pub(crate) kind: ExchangeKind,
    pub(crate) durability: Durability,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    pub(crate) arguments: FieldTable,
}

/// An exchange of one vhost.
pub struct Exchange {
    spec: ExchangeSpec,
    alternate: Option<Name>,
    table: RwLock<Table>,
}

#[derive(Debug)]
enum Table {
    Direct(DirectTable),
    Fanout(FanoutTable),
    Headers(HeadersTable),
    Topic(TopicTable),
}

/// What routing may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteInput<'a> {
    /// The routing key and what `CC` and `BCC` add; at least one.
    pub(crate) keys: &'a [&'a [u8]],
    pub(crate) headers: Option<&'a FieldTable>,
}

impl Exchange {
    pub(crate) fn new(spec: ExchangeSpec) -> Self {
        let table = match spec.kind {
            ExchangeKind::Direct => Table::Direct(DirectTable::default()),
            ExchangeKind::Fanout => Table::Fanout(FanoutTable::default()),
            ExchangeKind::Headers => Table::Headers(HeadersTable::default()),
            ExchangeKind::Topic => Table::Topic(TopicTable::default()),
        };
        let alternate = spec.arguments.get("alternate-exchange");
        let alternate = alternate.and_then(|value| value.as_bytes().map(|name| Name::new(name)));
        Self {
            spec,
            alternate,
            table: RwLock::new(table),
        }
    }

    /// Its number, never used again while the process lives.
    #[must_use]
    pub(crate) fn id(&self) -> u64 {
        self.spec.id
    }

    /// Its name; the default exchange's is empty.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.spec.name
    }

    /// How it chooses.
    #[must_use]
    pub fn kind(&self) -> ExchangeKind {
        self.spec.kind
    }

    /// Whether it outlives a restart.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.spec.durability
    }

    /// Whether it goes with the last binding from it.
    #[must_use]
    pub fn is_auto_delete(&self) -> bool {
        self.spec.auto_delete
    }

    /// Whether only other exchanges may give it messages.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.spec.internal
    }

    /// The arguments it was declared with.
    #[must_use]
    pub fn arguments(&self) -> &FieldTable {
        &self.spec.arguments
    }

    /// Where messages go that it has no destination for.
    #[must_use]
    pub fn alternate(&self) -> Option<&Name> {
        self.alternate.as_ref()
    }

    /// Whether the same key always leads to the same destinations, until a binding changes.
    pub(crate) fn routes_by_key_alone(&self) -> bool {
        match self.spec.kind {
            ExchangeKind::Direct | ExchangeKind::Fanout | ExchangeKind::Topic => true,
            ExchangeKind::Headers => false,
        }
    }

    /// Adds a binding from here; one that is there already counts once more.
    pub(crate) fn bind(&self, binding: &Arc<Binding>, destination: Destination) {
        match &mut *self.table.write() {
            Table::Direct(table) => table.bind(binding.routing_key(), destination),
            Table::Fanout(table) => table.bind(destination),
            Table::Headers(table) => table.bind(binding, destination),
            Table::Topic(table) => table.bind(binding.routing_key().as_bytes(), destination),
        }
    }

    /// Takes a binding from here away again.
    pub(crate) fn unbind(&self, binding: &Binding) {
        let destination = binding.target;
        match &mut *self.table.write() {
            Table::Direct(table) => table.unbind(binding.routing_key(), destination),
            Table::Fanout(table) => table.unbind(destination),
            Table::Headers(table) => table.unbind(binding),
            Table::Topic(table) => table.unbind(binding.routing_key().as_bytes(), destination),
        }
    }

    /// Adds where the message goes from here to `found`; one destination may be added more than once.
    pub(crate) fn route(&self, input: RouteInput<'_>, found: &mut Vec<Destination>) {
        match &*self.table.read() {
            Table::Direct(table) => {
                for key in input.keys {
                    table.route(key, found);
                }
            }
            Table::Fanout(table) => table.route(found),
            Table::Headers(table) => table.route(input.headers, found),
            Table::Topic(table) => {
                for key in input.keys {
                    table.route(key, found);
                }
            }
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Exchange")
            .field("name", &self.spec.name)
            .field("kind", &self.spec.kind)
            .finish_non_exhaustive()
    }
}

/// A queue as a destination, for tests of the tables.
#[cfg(test)]
pub(crate) fn test_queue(id: u64) -> Arc<super::queue::Queue> {
    use super::queue::{Queue, QueueSpec};
    Arc::new(Queue::new(QueueSpec {
        id: crate::journal::QueueId(id),
        vhost: Name::from("/"),
        name: Name::from(format!("q{id}").as_str()),
        durability: Durability::Transient,
        auto_delete: false,
        owner: None,
        arguments: FieldTable::default(),
        settings: super::QueueSettings::default(),
        journal: None,
    }))
}
