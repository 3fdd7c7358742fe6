//! One exchange: its properties, and the table that turns a message into destinations.
//!
//! Owns: the bindings from this exchange, in the shape in which its type looks them up. Which exchanges
//! a message passes on its way is `route.rs`'s business.
//! The table is behind a lock that is read for a lookup and written for a bind; channels remember what
//! they looked up (`route.rs`), so a busy publisher takes no lock here at all.
//! Spec: AMQP 0-9-1 §3.1; `spec/amqp.md`.

mod consistent_hash;
pub(crate) mod destinations;
mod direct;
mod fanout;
mod hash;
mod headers;
mod kind;
mod modulus_hash;
mod random;
pub(crate) mod recent_history;
pub(crate) mod settings;
pub(crate) mod topic;

#[cfg(test)]
pub(crate) use self::tests_kit::test_queue;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::amqp::field::FieldTable;
use crate::amqp::header::PropertiesRef;
use crate::journal::{Journal, QueueId};

use super::binding::{Binding, DestinationName};
use super::dedup::DedupCache;
use super::delayed::Delays;
use super::error::Error;
use super::message::Message;
use super::name::Name;
use super::queue::Durability;
use super::spill::Spill;

use consistent_hash::ConsistentHashTable;
use destinations::Destination;
use direct::DirectTable;
use fanout::FanoutTable;
use headers::HeadersTable;
use modulus_hash::ModulusHashTable;
use random::RandomTable;
use recent_history::History;
use settings::{ExchangeSettings, HashOn};
use topic::TopicTable;

pub use kind::ExchangeKind;

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
    /// What the arguments mean.
    pub(crate) settings: ExchangeSettings,
    /// Where the choices of a random exchange begin.
    pub(crate) seed: u64,
    /// Where it keeps what it must remember.
    pub(crate) logs: ExchangeLogs,
}

/// The ids under which an exchange has records of its own in the journal. An exchange that needs none
/// has them all the same: ids are not short.
#[derive(Clone, Debug)]
pub(crate) struct ExchangeLogs {
    pub(crate) journal: Option<Journal>,
    /// Where the order of messages lies that wait long.
    pub(crate) spill: Option<Arc<Spill>>,
    /// Messages that wait.
    pub(crate) delays: QueueId,
    /// Keys of messages that came through.
    pub(crate) keys: QueueId,
}

/// Messages that came to an exchange itself, not by way of another one, and where they went.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    came: AtomicU64,
    went: AtomicU64,
}

impl Flow {
    /// So many messages came, and each goes to so many queues.
    #[inline]
    pub(crate) fn count(&self, messages: usize, queues: usize) {
        self.came.fetch_add(messages as u64, Ordering::Relaxed);
        if queues > 0 {
            let went = messages as u64 * queues as u64;
            self.went.fetch_add(went, Ordering::Relaxed);
        }
    }
}

/// What happened at an exchange since the broker started. Numbers of messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ExchangeCounts {
    /// Came to it.
    pub came: u64,
    /// Went from it into queues, each queue counted.
    pub went: u64,
}

/// An exchange of one vhost.
pub struct Exchange {
    spec: ExchangeSpec,
    flow: Arc<Flow>,
    /// By its arguments; a policy has no say then.
    alternate: Option<Name>,
    alternate_by_policy: RwLock<Option<Name>>,
    table: RwLock<Table>,
    history: Option<History>,
    delays: Option<Delays>,
    dedup: Option<DedupCache>,
}

#[derive(Debug)]
enum Table {
    ConsistentHash(ConsistentHashTable),
    Direct(DirectTable),
    Fanout(FanoutTable),
    Headers(HeadersTable),
    ModulusHash(ModulusHashTable),
    Random(RandomTable),
    Topic(TopicTable),
}

/// What routing may look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RouteInput<'a> {
    /// The routing key and what `CC` and `BCC` add; at least one.
    pub(crate) keys: &'a [&'a [u8]],
    pub(crate) headers: Option<&'a FieldTable>,
    /// The properties, for what hashes one of them.
    pub(crate) properties: Option<&'a PropertiesRef<'a>>,
    /// The message itself, for what tells duplicates by content.
    pub(crate) message: Option<&'a Message>,
    /// The time by the calendar, in milliseconds since 1970.
    pub(crate) unix_ms: u64,
}

impl<'a> RouteInput<'a> {
    /// Keys and headers alone; the rest counts as absent.
    pub(crate) fn new(keys: &'a [&'a [u8]], headers: Option<&'a FieldTable>) -> Self {
        Self {
            keys,
            headers,
            properties: None,
            message: None,
            unix_ms: 0,
        }
    }
}

impl Exchange {
    pub(crate) fn new(spec: ExchangeSpec) -> Self {
        let table = match spec.settings.lookup {
            ExchangeKind::ConsistentHash => {
                Table::ConsistentHash(ConsistentHashTable::new(spec.settings.hash_on.clone()))
            }
            ExchangeKind::Direct => Table::Direct(DirectTable::default()),
            ExchangeKind::Headers => Table::Headers(HeadersTable::default()),
            ExchangeKind::LocalRandom | ExchangeKind::Random => {
                Table::Random(RandomTable::new(spec.seed))
            }
            ExchangeKind::ModulusHash => Table::ModulusHash(ModulusHashTable::default()),
            ExchangeKind::Topic => Table::Topic(TopicTable::default()),
            ExchangeKind::Deduplication
            | ExchangeKind::Delayed
            | ExchangeKind::Fanout
            | ExchangeKind::RecentHistory => Table::Fanout(FanoutTable::default()),
        };
        let history = (spec.settings.lookup == ExchangeKind::RecentHistory)
            .then(|| History::new(spec.settings.history_count_max));
        let logs = &spec.logs;
        let delays = spec
            .settings
            .delays
            .then(|| Delays::new(logs.delays, logs.journal.clone(), logs.spill.as_ref()));
        let dedup = spec.settings.dedup.clone().map(|dedup| {
            let log = logs.journal.clone().map(|journal| (journal, logs.keys));
            DedupCache::new(dedup, log)
        });
        let alternate = spec.arguments.get("alternate-exchange");
        let alternate = alternate.and_then(|value| value.as_bytes().map(|name| Name::new(name)));
        Self {
            spec,
            flow: Arc::default(),
            alternate,
            alternate_by_policy: RwLock::default(),
            table: RwLock::new(table),
            history,
            delays,
            dedup,
        }
    }

    /// Its number, never used again while the process lives.
    #[must_use]
    pub(crate) fn id(&self) -> u64 {
        self.spec.id
    }

    /// Counts what comes to it.
    pub(crate) fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// What happened at it since the broker started.
    #[must_use]
    pub fn counts(&self) -> ExchangeCounts {
        ExchangeCounts {
            came: self.flow.came.load(Ordering::Relaxed),
            went: self.flow.went.load(Ordering::Relaxed),
        }
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
    pub fn alternate(&self) -> Option<Name> {
        match &self.alternate {
            Some(alternate) => Some(alternate.clone()),
            None => self.alternate_by_policy.read().clone(),
        }
    }

    /// Sets where a policy sends those messages; says whether that is another place than before.
    pub(crate) fn set_policy_alternate(&self, alternate: Option<Name>) -> bool {
        let mut current = self.alternate_by_policy.write();
        let changes = *current != alternate;
        *current = alternate;
        changes
    }

    /// The last messages, if it keeps them for who binds later.
    pub(crate) fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    /// The messages that wait here, if messages may.
    pub(crate) fn delays(&self) -> Option<&Delays> {
        self.delays.as_ref()
    }

    /// The keys of what came through, if duplicates are dropped.
    pub(crate) fn dedup(&self) -> Option<&DedupCache> {
        self.dedup.as_ref()
    }

    /// How many messages wait for their time; 0 for all but delayed exchanges.
    #[must_use]
    pub fn delayed_count(&self) -> usize {
        self.delays.as_ref().map_or(0, Delays::len)
    }

    /// Whether the same key always leads to the same destinations, until a binding changes, and
    /// nothing else happens on the way.
    // req: EXCHANGE-2
    pub(crate) fn routes_by_key_alone(&self) -> bool {
        let settings = &self.spec.settings;
        if settings.delays || settings.dedup.is_some() {
            return false;
        }
        match settings.lookup {
            ExchangeKind::Direct
            | ExchangeKind::Fanout
            | ExchangeKind::ModulusHash
            | ExchangeKind::Topic => true,
            ExchangeKind::ConsistentHash => settings.hash_on == HashOn::RoutingKey,
            ExchangeKind::Deduplication
            | ExchangeKind::Delayed
            | ExchangeKind::Headers
            | ExchangeKind::LocalRandom
            | ExchangeKind::Random
            | ExchangeKind::RecentHistory => false,
        }
    }

    /// Refuses a binding from here that its type does not take.
    pub(crate) fn check_binding(
        &self,
        key: &[u8],
        destination: &DestinationName,
        arguments: &FieldTable,
    ) -> Result<(), Error> {
        match self.spec.settings.lookup {
            ExchangeKind::ConsistentHash => consistent_hash::check_binding(key),
            ExchangeKind::Headers => headers::check_arguments(arguments),
            ExchangeKind::LocalRandom => random::check_local_binding(key, destination),
            ExchangeKind::Deduplication
            | ExchangeKind::Delayed
            | ExchangeKind::Direct
            | ExchangeKind::Fanout
            | ExchangeKind::ModulusHash
            | ExchangeKind::Random
            | ExchangeKind::RecentHistory
            | ExchangeKind::Topic => Ok(()),
        }
    }

    /// Adds a binding from here; one that is there already counts once more.
    pub(crate) fn bind(&self, binding: &Arc<Binding>, destination: Destination) {
        match &mut *self.table.write() {
            Table::ConsistentHash(table) => table.bind(binding, destination),
            Table::Direct(table) => table.bind(binding.routing_key(), destination),
            Table::Fanout(table) => table.bind(destination),
            Table::Headers(table) => table.bind(binding, destination),
            Table::ModulusHash(table) => table.bind(binding, destination),
            Table::Random(table) => table.bind(binding, destination),
            Table::Topic(table) => table.bind(binding.routing_key().as_bytes(), destination),
        }
    }

    /// Takes a binding from here away again.
    pub(crate) fn unbind(&self, binding: &Binding) {
        let destination = binding.target;
        match &mut *self.table.write() {
            Table::ConsistentHash(table) => table.unbind(binding),
            Table::Direct(table) => table.unbind(binding.routing_key(), destination),
            Table::Fanout(table) => table.unbind(destination),
            Table::Headers(table) => table.unbind(binding),
            Table::ModulusHash(table) => table.unbind(binding),
            Table::Random(table) => table.unbind(binding),
            Table::Topic(table) => table.unbind(binding.routing_key().as_bytes(), destination),
        }
    }

    /// Adds where the message goes from here to `found`; one destination may be added more than once.
    pub(crate) fn route(&self, input: RouteInput<'_>, found: &mut Vec<Destination>) {
        match &*self.table.read() {
            Table::ConsistentHash(table) => table.route(input, found),
            Table::Direct(table) => {
                for key in input.keys {
                    table.route(key, found);
                }
            }
            Table::Fanout(table) => table.route(found),
            Table::Headers(table) => table.route(input.headers, found),
            // Only the routing key itself is hashed, as in RabbitMQ.
            Table::ModulusHash(table) => {
                table.route(input.keys.first().copied().unwrap_or_default(), found);
            }
            Table::Random(table) => table.route(found),
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

/// What the tests of the tables share.
#[cfg(test)]
mod tests_kit {
    use super::super::binding::{BindingKey, DestinationName};
    use super::super::error::ResourceKind;
    use super::destinations::DestinationId;
    use super::*;

    pub(super) fn queue(id: u64) -> Destination {
        Destination::Queue(test_queue(id))
    }

    /// A binding with this id and key to the queue `qID`.
    pub(super) fn binding(id: u64, queue: u64, key: &str) -> Binding {
        let destination = DestinationName {
            kind: ResourceKind::Queue,
            name: Name::from(format!("q{queue}").as_str()),
        };
        Binding {
            key: BindingKey::new(
                Name::from("x"),
                destination,
                Name::from(key),
                &FieldTable::EMPTY,
            ),
            id,
            target: DestinationId::Queue(queue),
            durability: Durability::Transient,
        }
    }

    /// A queue as a destination, for tests of the tables.
    pub(crate) fn test_queue(id: u64) -> Arc<crate::broker::queue::Queue> {
        use crate::broker::queue::{Queue, QueueSpec};
        Queue::new(QueueSpec {
            id: QueueId(id),
            vhost: Name::from("/"),
            name: Name::from(format!("q{id}").as_str()),
            durability: Durability::Transient,
            auto_delete: false,
            owner: None,
            arguments: FieldTable::default(),
            settings: crate::broker::QueueSettings::default().shared(),
            home: std::sync::Weak::new(),
            timers: test_timers(),
            journal: None,
            paging: Arc::default(),
        })
    }

    #[allow(clippy::disallowed_methods)]
    fn test_timers() -> Arc<crate::broker::timers::Timers> {
        Arc::new(crate::broker::timers::Timers::new(std::time::Instant::now()))
    }
}
