//! One vhost: its exchanges, queues and bindings, and all that a connection may do with them.
//!
//! Owns: names to things, and the rules of declaring and deleting (`vhost/{exchanges,queues,bindings}.rs`),
//! publishing and consuming (`vhost/{publishing,consuming}.rs`).
//! Changes of topology go one at a time under one lock; looking up a name takes none but a shard's.
//! Bounds: [`BrokerLimits`].

mod aside;
mod bindings;
mod committing;
mod consuming;
mod details;
mod duplicates;
mod events;
mod exchanges;
mod policies;
mod preview;
mod publishing;
mod queues;
mod streams;
mod tracing;

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::journal::{Journal, Lsn, QueueId, StoredMessage};
use crate::payload::store::BodyFile;
use crate::payload::{PayloadId, ScopeId};

use super::access::{Access, User, Users};
use super::audit::AUDIT;
use super::binding::{Binding, Bindings};
use super::body_memory::{BodyMemory, Filling};
use super::definitions::DefinitionStore;
use super::error::{Error, Resource, ResourceKind};
use super::events::{Events, INTERNAL_USER};
use super::exchange::{Exchange, ExchangeKind};
use super::ids::ConnectionId;
use super::limits::{BODY_FILE_SIZE_BYTES_MAX, BrokerLimits};
use super::message::Message;
use super::name::Name;
use super::names::NameMaker;
use super::outbox::{Outbox, Wakes};
use super::parameters::Parameters;
use super::payloads::{BodyOctets, PayloadBody, PayloadReferences};
use super::policy::Policies;
use super::queue::{CountsByKind, DeleteConditions, Paging, Queue, QueueCounts};
use super::replies::{Replies, ReplyConsumer};
use super::route::{Directory, Generation};
use super::statistics::{ClientStatistics, Statistics};
use super::timers::Timers;
use super::usage::{Counted, Place, Usage};

pub use bindings::BindingRequest;
pub use committing::{Committed, Prepared, Settlements, is_whole};
pub use consuming::{Consume, Get};
pub use details::VhostDetails;
pub use exchanges::{ExchangeDeclare, ExchangeDelete};
pub use policies::Put;
pub use preview::QueuesMeant;
pub(crate) use publishing::RunOutcome;
pub(crate) use publishing::split_bcc;
pub use publishing::{Publish, PublishOutcome, Published};
pub use queues::{QueueDeclare, QueueDeclared, QueueDelete};
pub use tracing::TracedDelivery;

/// What all vhosts of a broker share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: BrokerLimits,
    pub(crate) users: Users,
    pub(crate) parameters: Parameters,
    pub(crate) journal: Option<Journal>,
    pub(crate) store: DefinitionStore,
    pub(crate) payloads: Option<Arc<dyn PayloadReferences>>,
    pub(crate) body_memory: Arc<BodyMemory>,
    pub(crate) paging: Arc<Paging>,
    pub(crate) names: NameMaker,
    pub(crate) clock: WallClock,
    pub(crate) timers: Arc<Timers>,
    pub(crate) events: Arc<Events>,
    pub(crate) node: String,
    pub(crate) statistics: Arc<Statistics>,
    /// Held from the look at a key of duplicates until the journal has the key.
    pub(crate) dedup_gate: Mutex<()>,
    pub(crate) queue_id_next: AtomicU64,
    pub(crate) serial_next: AtomicU64,
}

/// Wall-clock time by a clock that never jumps: the moment of the start, and what passed since.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    pub(crate) started: Instant,
    pub(crate) started_unix_ms: u64,
}

impl WallClock {
    /// The moment of a time by the calendar; the start, for what was before it.
    pub(crate) fn instant(&self, unix_ms: u64) -> Instant {
        let passed = Duration::from_millis(unix_ms.saturating_sub(self.started_unix_ms));
        self.started
            .checked_add(passed)
            .unwrap_or(self.started + FAR_AHEAD)
    }

    /// Milliseconds since 1970 at `now`.
    pub(crate) fn unix_ms(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.started).as_millis();
        self.started_unix_ms
            .saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

/// What stands for moments that a clock cannot tell.
const FAR_AHEAD: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);

impl Shared {
    pub(crate) fn queue_id(&self) -> QueueId {
        QueueId(self.queue_id_next.fetch_add(1, Ordering::Relaxed))
    }

    /// A number for an exchange or a binding, given once in the life of the process.
    pub(crate) fn serial(&self) -> u64 {
        self.serial_next.fetch_add(1, Ordering::Relaxed)
    }
}

/// A connection as the broker knows it: who it is, and where its deliveries go.
///
/// Made by [`Broker::connect`](super::Broker::connect); ends with [`Vhost::disconnect`].
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    user: Arc<User>,
    vhost: Arc<Vhost>,
    outbox: Arc<Outbox>,
    exclusive_queues: Mutex<Vec<Arc<Queue>>>,
    /// Where limits count it.
    places: Vec<Place>,
    name: OnceLock<String>,
    /// It acts for the broker itself, and no right is asked for.
    is_internal: bool,
}

impl Connection {
    pub(crate) fn new(
        id: ConnectionId,
        user: Arc<User>,
        vhost: Arc<Vhost>,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self {
            id,
            user,
            vhost,
            outbox,
            exclusive_queues: Mutex::default(),
            places: Vec::new(),
            name: OnceLock::new(),
            is_internal: false,
        }
    }

    /// A connection of the broker's own.
    #[cfg_attr(not(feature = "server"), allow(dead_code, unused_imports))]
    pub(crate) fn internal(
        id: ConnectionId,
        user: Arc<User>,
        vhost: Arc<Vhost>,
        outbox: Arc<Outbox>,
    ) -> Self {
        Self {
            is_internal: true,
            ..Self::new(id, user, vhost, outbox)
        }
    }

    /// Counts this connection where limits count connections.
    // req: RIGHT-3
    pub(crate) fn take_places(&mut self, users: &Users) -> Result<(), Error> {
        let limit = self.vhost.details().limits.connection_count_max;
        let place = self.vhost.usage.take(Counted::Connections, limit);
        self.places.push(
            place.map_err(|count_max| Error::VhostConnectionLimitReached {
                vhost: self.vhost.name.clone(),
                user: self.user.name().clone(),
                count_max,
            })?,
        );
        let (usage, limits) = users.usage(self.user.name());
        let place = usage.take(Counted::Connections, limits.connection_count_max);
        self.places.push(
            place.map_err(|count_max| Error::UserConnectionLimitReached {
                user: self.user.name().clone(),
                count_max,
            })?,
        );
        Ok(())
    }

    /// Counts a channel of this connection, as long as the place is kept.
    ///
    /// # Errors
    /// If its user has as many as it may have.
    pub fn open_channel(&self) -> Result<Place, Error> {
        let (usage, limits) = self.vhost.shared.users.usage(self.user.name());
        let place = usage.take(Counted::Channels, limits.channel_count_max);
        place.map_err(|count_max| Error::UserChannelLimitReached {
            user: self.user.name().clone(),
            count_max,
        })
    }

    /// The broker's counters.
    #[must_use]
    pub fn statistics(&self) -> &Arc<Statistics> {
        &self.vhost.shared.statistics
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Who logged in.
    #[must_use]
    pub fn user(&self) -> &Arc<User> {
        &self.user
    }

    /// The vhost it opened.
    #[must_use]
    pub fn vhost(&self) -> &Arc<Vhost> {
        &self.vhost
    }

    /// Notes an exclusive queue, to be deleted at the end; forgets those that went before.
    fn own(&self, queue: &Arc<Queue>) {
        let mut queues = self.exclusive_queues.lock();
        // Looked through only when it has doubled, so that each queue is looked at a few times at most.
        if queues.len() == queues.capacity() {
            queues.retain(|queue| !queue.is_deleted());
        }
        queues.push(Arc::clone(queue));
    }

    /// Where its deliveries wait for the session.
    #[must_use]
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }
}

/// A virtual host.
pub struct Vhost {
    name: Name,
    scope: ScopeId,
    /// For its queues, which send dead letters by it.
    this: Weak<Self>,
    shared: Arc<Shared>,
    exchanges: DashMap<Name, Arc<Exchange>>,
    queues: DashMap<Name, Arc<Queue>>,
    topology: Mutex<Bindings>,
    policies: RwLock<Policies>,
    /// Counts changes of the policies; changed under the topology lock only.
    settings_version: AtomicU64,
    details: Mutex<Arc<VhostDetails>>,
    usage: Arc<Usage>,
    replies: Replies,
    /// What happened in queues that are gone.
    counts_of_gone: Mutex<CountsByKind>,
    clients: Arc<ClientStatistics>,
    unroutable_count: AtomicU64,
    /// Whether messages are copied to the firehose.
    is_tracing: AtomicBool,
    /// Changed under the topology lock only.
    is_deleted: AtomicBool,
    /// Counts what can change where a message goes.
    generation: AtomicU64,
}

impl Vhost {
    pub(crate) fn new(name: Name, scope: ScopeId, this: Weak<Self>, shared: Arc<Shared>) -> Self {
        Self {
            name,
            scope,
            this,
            shared,
            exchanges: DashMap::new(),
            queues: DashMap::new(),
            topology: Mutex::default(),
            policies: RwLock::default(),
            settings_version: AtomicU64::new(0),
            details: Mutex::default(),
            usage: Arc::default(),
            replies: Replies::default(),
            counts_of_gone: Mutex::default(),
            clients: Arc::default(),
            unroutable_count: AtomicU64::new(0),
            is_tracing: AtomicBool::new(false),
            is_deleted: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What an answer about the topology must wait for, so that a crash cannot belie it: definitions
    /// that the journal has and the disk has not, whichever connection they came from.
    #[must_use]
    pub fn pending_definitions(&self) -> Option<Lsn> {
        self.shared.store.pending()
    }

    /// Its scope in the payload store.
    #[must_use]
    pub fn scope(&self) -> ScopeId {
        self.scope
    }

    /// The exchange of this name; the default exchange's is empty.
    #[must_use]
    pub fn exchange(&self, name: &[u8]) -> Option<Arc<Exchange>> {
        self.exchanges
            .get(name)
            .map(|exchange| Arc::clone(&exchange))
    }

    /// All exchanges, in no order.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Arc<Exchange>> {
        self.exchanges
            .iter()
            .map(|exchange| Arc::clone(&exchange))
            .collect()
    }

    /// The queue of this name.
    #[must_use]
    pub fn queue(&self, name: &[u8]) -> Option<Arc<Queue>> {
        self.queues.get(name).map(|queue| Arc::clone(&queue))
    }

    /// All queues, in no order.
    #[must_use]
    pub fn queues(&self) -> Vec<Arc<Queue>> {
        self.queues.iter().map(|queue| Arc::clone(&queue)).collect()
    }

    /// All bindings, oldest first. Those of the default exchange are understood and not listed.
    #[must_use]
    pub fn bindings(&self) -> Vec<Arc<Binding>> {
        self.topology.lock().all()
    }

    /// What happened in its queues since the start, those that are gone included. Looks at each queue.
    #[must_use]
    pub fn counts(&self) -> QueueCounts {
        let mut counts = QueueCounts::default();
        for (_, of_kind) in self.counts_by_kind().iter() {
            counts.add(of_kind);
        }
        counts
    }

    /// The same for each kind of queue.
    #[must_use]
    pub fn counts_by_kind(&self) -> CountsByKind {
        let mut counts = self.counts_of_gone();
        for queue in &self.queues {
            counts.add(queue.kind(), &queue.counts());
        }
        counts
    }

    /// What happened in its queues that are gone.
    #[must_use]
    pub fn counts_of_gone(&self) -> CountsByKind {
        *self.counts_of_gone.lock()
    }

    /// What its clients did beside that.
    #[must_use]
    pub fn client_statistics(&self) -> &Arc<ClientStatistics> {
        &self.clients
    }

    /// The broker's counters.
    pub(crate) fn statistics(&self) -> &Statistics {
        &self.shared.statistics
    }

    /// How many queues there are.
    #[must_use]
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// How many published messages no queue was meant to get.
    #[must_use]
    pub fn unroutable_count(&self) -> u64 {
        self.unroutable_count.load(Ordering::Relaxed)
    }

    /// Refers to content that the vhost has in the payload store; other vhosts' content is not found.
    #[must_use]
    pub fn find_payload(&self, id: PayloadId) -> Option<PayloadBody> {
        PayloadBody::find(self.shared.payloads.clone(), self.scope, id)
    }

    /// Refers to content in the payload store, for a message's body. The content must be stored.
    #[must_use]
    pub fn hold_payload(&self, id: PayloadId, size_bytes: u64) -> PayloadBody {
        PayloadBody::hold(self.shared.payloads.clone(), self.scope, id, size_bytes)
    }

    /// Memory for a large body that need not survive; none if there is not so much left, or no payload store to keep it
    /// in should it have to.
    // req: MEMBODY-1
    pub(crate) fn promise_body(&self, size_bytes: u64) -> Option<Filling> {
        self.shared.payloads.as_ref()?;
        self.shared.body_memory.promise(size_bytes)
    }

    /// A message's body that came into memory.
    pub(crate) fn body_in_memory(&self, size_bytes: u64, filling: Filling) -> PayloadBody {
        let references = self.shared.payloads.clone();
        let octets = BodyOctets::Memory(filling.finish());
        PayloadBody::unstored(references, self.scope, size_bytes, octets)
    }

    /// Whether a large body that need not be stored, and for which there is no memory, may be in a file of its own.
    // req: MEMBODY-5
    pub(crate) fn may_be_in_file(&self, size_bytes: u64) -> bool {
        self.shared.payloads.is_some()
            && self.shared.body_memory.is_any()
            && size_bytes <= BODY_FILE_SIZE_BYTES_MAX
    }

    /// A message's body that came into a file of its own.
    pub(crate) fn body_in_file(&self, file: Arc<BodyFile>) -> PayloadBody {
        let (references, size_bytes) = (self.shared.payloads.clone(), file.size_bytes());
        PayloadBody::unstored(references, self.scope, size_bytes, BodyOctets::File(file))
    }

    /// Time by the calendar.
    pub(crate) fn clock(&self) -> WallClock {
        self.shared.clock
    }

    /// Deletes everything in a vhost that is being deleted.
    pub(crate) fn clear(&self, wakes: &mut Wakes) -> Result<(), Error> {
        {
            // Under the lock: whoever adds something now has it deleted, who comes later is refused.
            let _topology = self.lock_topology();
            self.is_deleted.store(true, Ordering::Relaxed);
        }
        for queue in self.queues() {
            self.delete_queue(&queue, DeleteConditions::default(), wakes)?;
        }
        let mut topology = self.lock_topology();
        for exchange in self.exchanges() {
            self.delete_exchange_in(&mut topology, &exchange, INTERNAL_USER.as_bytes())?;
        }
        Ok(())
    }

    /// A message as the journal kept it.
    pub(crate) fn stored_message(&self, stored: StoredMessage) -> Message {
        Message::from_stored(&stored.as_ref(), |payload| {
            let id = PayloadId::from_bytes(payload.id);
            self.hold_payload(id, payload.size_bytes)
        })
    }

    fn resource(&self, kind: ResourceKind, name: &[u8]) -> Resource {
        Resource {
            kind,
            vhost: self.name.clone(),
            name: Name::new(name),
        }
    }

    fn queue_resource(&self, name: &[u8]) -> Resource {
        self.resource(ResourceKind::Queue, name)
    }

    fn exchange_resource(&self, name: &[u8]) -> Resource {
        self.resource(ResourceKind::Exchange, name)
    }

    /// Finds a queue that `by` may use: it exists, and is not another connection's own.
    fn usable_queue(&self, by: &Connection, name: &[u8]) -> Result<Arc<Queue>, Error> {
        let queue = self.queue(name).ok_or_else(|| Error::NotFound {
            resource: self.queue_resource(name),
        })?;
        self.check_owner(by, &queue)?;
        Ok(queue)
    }

    fn check_owner(&self, by: &Connection, queue: &Queue) -> Result<(), Error> {
        match queue.owner() {
            Some(owner) if owner != by.id => Err(Error::Locked {
                resource: self.queue_resource(queue.name().as_bytes()),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses what the connection's user has no right to.
    fn authorize(
        &self,
        by: &Connection,
        kind: ResourceKind,
        name: &[u8],
        access: Access,
    ) -> Result<(), Error> {
        let user = &by.user;
        if by.is_internal
            || self
                .shared
                .users
                .authorize(user, &self.name, kind, name, access)
        {
            return Ok(());
        }
        let name = match kind {
            ResourceKind::Exchange if name.is_empty() => b"amq.default",
            ResourceKind::Exchange | ResourceKind::Queue => name,
        };
        let resource = self.resource(kind, name);
        // req: AUDIT-1
        ::tracing::warn!(
            target: AUDIT,
            user = %user.name(),
            from = by.name(),
            %resource,
            ?access,
            "access refused"
        );
        Err(Error::AccessRefused {
            resource,
            user: user.name().clone(),
        })
    }

    /// Refuses routing keys that the connection's user has no right to, at topic exchanges.
    // req: RIGHT-2
    fn authorize_topic(
        &self,
        by: &Connection,
        exchange: &Exchange,
        routing_key: &[u8],
        access: Access,
    ) -> Result<(), Error> {
        if exchange.kind() != ExchangeKind::Topic || by.is_internal {
            return Ok(());
        }
        let (users, user) = (&self.shared.users, &by.user);
        if users.authorize_topic(user, &self.name, exchange.name(), routing_key, access) {
            return Ok(());
        }
        ::tracing::warn!(
            target: AUDIT,
            user = %user.name(),
            from = by.name(),
            exchange = %exchange.name(),
            routing_key = %Name::new(routing_key),
            ?access,
            "access refused"
        );
        Err(Error::TopicRefused {
            routing_key: Name::new(routing_key),
            exchange: self.exchange_resource(exchange.name().as_bytes()),
            user: user.name().clone(),
        })
    }

    fn generation(&self) -> Generation {
        Generation {
            topology: self.generation.load(Ordering::Acquire),
            rights: self.shared.users.generation(),
        }
    }

    /// Makes void what channels remember; called after the change, under the topology lock.
    fn topology_changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Locks the topology to add something; refused once the vhost is being deleted, since its
    /// definitions would outlive it.
    fn lock_topology_to_add(&self) -> Result<MutexGuard<'_, Bindings>, Error> {
        let topology = self.topology.lock();
        if self.is_deleted.load(Ordering::Relaxed) {
            return Err(Error::VhostNotFound {
                vhost: self.name.clone(),
            });
        }
        Ok(topology)
    }

    fn lock_topology(&self) -> MutexGuard<'_, Bindings> {
        self.topology.lock()
    }
}

impl Directory for Vhost {
    fn dedup_gate(&self) -> MutexGuard<'_, ()> {
        self.shared.dedup_gate.lock()
    }

    fn exchange(&self, name: &[u8]) -> Option<Arc<Exchange>> {
        Self::exchange(self, name)
    }

    fn queue(&self, name: &[u8]) -> Option<Arc<Queue>> {
        Self::queue(self, name)
    }

    fn reply_consumer(&self, name: &[u8]) -> Option<Arc<ReplyConsumer>> {
        self.replies.find(name)
    }
}

impl fmt::Debug for Vhost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Vhost")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Names that begin so are the broker's own.
const RESERVED_PREFIX: &[u8] = b"amq.";

/// A name without CR and LF, which RabbitMQ drops from names of exchanges and queues.
fn without_line_ends(name: &[u8]) -> Cow<'_, [u8]> {
    let is_line_end = |octet: &u8| matches!(octet, b'\r' | b'\n');
    if !name.iter().any(is_line_end) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(
        name.iter()
            .copied()
            .filter(|octet| !is_line_end(octet))
            .collect(),
    )
}

#[cfg(test)]
mod tests;
