//! Routing and queues: what happens between a publish and a delivery. Synchronous; time comes in.
//!
//! Owns: vhosts with their exchanges, queues and bindings; consumers and their outboxes; users and
//! their rights. Knows no socket, no frame and no file but through the journal.
//!
//! A session holds a [`Connection`], a [`Publisher`] and a [`ChannelLimiter`] for each channel, and
//! calls its [`Vhost`]. A publish puts deliveries into consumers' [`Outbox`]es before it returns.
//!
//! # The order of locks
//! A lock may be taken only while locks of smaller number are held, and never two of one number:
//! 0. the gate of duplicates at exchanges, then the orders of queues that have one, by their ids: held from
//!    before the journal until the queues have the message
//! 1. users, parameters, or the broker's list of vhosts
//! 2. a vhost's topology, then its policies or its details
//! 3. a shard of a vhost's exchanges or queues; released before anything else is called
//! 4. an exchange's table
//! 5. a queue's state
//! 6. an outbox
//! 7. a channel's limiter; the keys of duplicates; what waits in a delayed exchange, its files' lock first
//! 8. the timers
//!
//! The pager's and the spill's own locks, and the journal's, come after all of them: they call nothing back. [`Waker`]s are called with no
//! lock held, when [`Wakes`] is told to or dropped.
//! Bounds: [`limits`].

mod access;
mod alarms;
mod audit;
mod binding;
mod body_memory;
mod clock;
mod consumer;
mod dead_letter;
mod dedup;
mod definitions;
mod delayed;
mod error;
mod events;
mod exchange;
mod ids;
pub mod limits;
mod message;
mod name;
mod names;
mod outbox;
mod pager;
mod parameters;
mod payloads;
pub mod policy;
mod queue;
mod recovery;
mod replies;
mod route;
mod shares;
mod spill;
mod stamp;
mod statistics;
#[cfg(test)]
mod tests;
mod timers;
mod usage;
mod vhost;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::journal::{Journal, JournalUsage, Lsn, Recovered};
use crate::payload::ScopeId;

pub use access::{
    Access, AccessObject, AccessRequest, AuthError, Authorizer, HashAlgorithm, Limits, Origin,
    PATTERN_BYTES_MAX, PasswordHash, Pattern, PatternError, Permissions, SALT_BYTES, TAGS_MAX,
    Token, TokenAuthority, TokenError, TopicPermissionEntry, TopicPermissions, User, Users,
    Verdict,
};
pub use alarms::{Alarm, AlarmWait, Alarms, DiskState, MemoryState};
pub use audit::AUDIT;
pub use binding::{Binding, DestinationName};
pub use body_memory::BodyPieces;
pub use clock::TestClock;
pub use consumer::{AckMode, ChannelLimiter, Consumer, Prefetch, QosScope};
pub use definitions::DefinitionError;
pub use error::{Error, Resource, ResourceKind};
pub use events::EventHeaders;
pub use exchange::{Exchange, ExchangeCounts, ExchangeKind};
pub use ids::ConnectionId;
pub use limits::BrokerLimits;
pub use message::{Body, BodyRef, Message, MessageTraits, Persistence, Template};
pub use name::Name;
pub use outbox::{Deliveries, Delivery, Outbox, OutboxItem, Reply, Waker, Wakes};
pub use pager::Pager;
pub use parameters::{Parameter, Parameters};
pub use payloads::{BodyOctets, PayloadBody, PayloadReferences};
pub use queue::arguments::{Overflow, QueueKind, QueueSettings};
pub use queue::{
    Activity, ConsumerState, CountsByKind, Durability, Got, MessageSeq, Peek, Peeked, Queue,
    QueueCounts, QueueDepth, Settle,
};
pub use recovery::OpenError;
pub use replies::{REPLY_QUEUE, ReplyConsumer, is_reply_queue};
pub use route::Publisher;
pub use shares::QueueShare;
pub use spill::SpillSettings;
pub use statistics::{
    ChurnCounts, ClientCounts, ClientStatistics, DeliveryCounts, LetterCounts, LoginCounts,
    LoginProtocol, MESSAGE_SIZE_BOUNDS_BYTES, PublishCounts, Statistics, Tally,
};
pub use usage::Place;
pub use vhost::{
    BindingRequest, Committed, Connection, Consume, ExchangeDeclare, ExchangeDelete, Get, Prepared,
    Publish, PublishOutcome, Published, Put, QueueDeclare, QueueDeclared, QueueDelete, QueuesMeant,
    Settlements, TracedDelivery, Vhost, VhostDetails, is_whole,
};

pub(crate) use body_memory::Filling;
pub(crate) use route::may_have_more_keys;
pub(crate) use vhost::RunOutcome;

use body_memory::BodyMemory;
use definitions::{DefinitionStore, VhostRecord};
use events::{EVENT_VHOST, Events};
use limits::TIMERS_AT_ONCE_MAX;
use names::NameMaker;
use queue::Paging;
use spill::Spill;
use timers::{TimerKind, Timers};
use vhost::{Shared, WallClock};

/// What a broker is made of.
#[derive(Debug)]
pub struct BrokerSettings {
    /// Bounds that an operator may change.
    pub limits: BrokerLimits,
    /// The account that a broker without any account makes, with all rights in the first vhost; without one it makes
    /// neither.
    pub default_user: Option<DefaultUser>,
    /// The vhost that such a broker makes.
    pub default_vhost: Name,
    /// Users who may log in from this machine's loopback addresses only.
    pub loopback_users: Vec<Name>,
    /// What new passwords are hashed with.
    pub password_hashing: HashAlgorithm,
    /// The name of this node in events and traces, as `rabbit@host`.
    pub node: String,
    /// Fresh secret bytes; names and salts are made from them.
    pub seed: [u8; 32],
    /// The moment of the start, and the same by the calendar, in milliseconds since 1970.
    pub started: (Instant, u64),
    /// How long queues are kept out of memory; without it they are not, and nobody need run the
    /// [`Pager`].
    pub spill: Option<SpillSettings>,
    /// Most memory for large bodies that need not survive, in bytes; with 0 all of them go to the payload store.
    pub body_memory_bytes_max: u64,
    /// Who is asked for rights before the permissions.
    pub authorizer: Option<Arc<dyn Authorizer>>,
    /// What time the broker goes by, if not by the time that comes in.
    pub clock: Option<TestClock>,
}

impl BrokerSettings {
    /// RabbitMQ's defaults: guest with password guest, from this machine only.
    #[must_use]
    pub fn new(seed: [u8; 32], started: Instant, started_unix_ms: u64) -> Self {
        Self {
            limits: BrokerLimits::default(),
            default_user: Some(DefaultUser {
                name: Name::from("guest"),
                password: b"guest".to_vec(),
            }),
            default_vhost: Name::from("/"),
            loopback_users: vec![Name::from("guest")],
            password_hashing: HashAlgorithm::default(),
            node: "warren@localhost".to_owned(),
            seed,
            started: (started, started_unix_ms),
            spill: None,
            body_memory_bytes_max: 0,
            authorizer: None,
            clock: None,
        }
    }
}

/// The first account.
pub struct DefaultUser {
    /// Its name.
    pub name: Name,
    /// Its password.
    pub password: Vec<u8>,
}

impl fmt::Debug for DefaultUser {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("DefaultUser")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A message broker without its sockets.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    vhosts: DashMap<Name, Arc<Vhost>>,
    /// Held while a vhost comes or goes; has the next scope.
    scope_next: Mutex<u32>,
    connection_next: AtomicU64,
    alarms: Arc<Alarms>,
    password_hashing: HashAlgorithm,
    clock: Option<TestClock>,
}

/// Wakes nobody.
#[cfg_attr(not(feature = "server"), allow(dead_code, unused_imports))]
struct NoWaker;

impl Waker for NoWaker {
    fn wake(&self) {}
}

impl Broker {
    /// Makes a broker from what its journal recovered; without a journal nothing is durable.
    ///
    /// Without any account, as at the first start, it makes the default vhost and the default user. Reads messages
    /// back and so may block.
    pub fn open(
        settings: BrokerSettings,
        journal: Option<(Journal, Recovered)>,
        payloads: Option<Arc<dyn PayloadReferences>>,
    ) -> Result<Arc<Self>, OpenError> {
        let (journal, recovered) = match journal {
            Some((journal, recovered)) => (Some(journal), recovered),
            None => (None, Recovered::default()),
        };
        let (started, started_unix_ms) = settings.started;
        let clock = settings.clock;
        let started = clock.as_ref().map_or(started, |clock| clock.start(started));
        let timers = Arc::new(Timers::new(started));
        if let Some(clock) = &clock {
            clock.tell(&timers);
        }
        let events = Arc::new(Events::new(Arc::clone(&timers), started));
        let store = DefinitionStore::new(journal.clone(), Some(Arc::clone(&events)));
        let spill = settings.spill.map(Spill::open).transpose();
        let paging = Arc::new(Paging {
            spill: spill.map_err(OpenError::Spill)?,
            pager: Arc::default(),
            payloads: payloads.clone(),
        });
        let shared = Arc::new(Shared {
            limits: settings.limits,
            users: Users::new(settings.loopback_users, &settings.seed, store.clone())
                .with_authorizer(settings.authorizer),
            parameters: Parameters::new(store.clone()),
            journal,
            store,
            payloads,
            body_memory: Arc::new(BodyMemory::new(settings.body_memory_bytes_max)),
            paging,
            names: NameMaker::new(settings.seed),
            clock: WallClock {
                started,
                started_unix_ms,
            },
            timers,
            events,
            node: settings.node,
            statistics: Arc::default(),
            dedup_gate: Mutex::default(),
            queue_id_next: AtomicU64::new(1),
            serial_next: AtomicU64::new(1),
        });
        let broker = Self {
            shared,
            vhosts: DashMap::new(),
            scope_next: Mutex::new(1),
            connection_next: AtomicU64::new(1),
            alarms: Arc::default(),
            password_hashing: settings.password_hashing,
            clock,
        };
        let events = Arc::clone(&broker.shared.events);
        broker.alarms.set_events(events, broker.shared.node.clone());
        broker.restore(recovered)?;
        // The account is the last of the defaults to be written: without it a first start was cut short.
        if let Some(user) = &settings.default_user
            && broker.users().users().is_empty()
        {
            broker.make_defaults(user, &settings.default_vhost)?;
        }
        Ok(Arc::new(broker))
    }

    /// The broker's time when the caller's clock says `now`: every `now` of a broker call is meant so. They differ
    /// only under a [`TestClock`].
    #[inline]
    #[must_use]
    pub fn time(&self, now: Instant) -> Instant {
        match &self.clock {
            None => now,
            Some(clock) => clock.time(now),
        }
    }

    /// What reads the pages of long queues; with [`BrokerSettings::spill`], a thread must run it.
    #[must_use]
    pub fn pager(&self) -> &Arc<Pager> {
        &self.shared.paging.pager
    }

    /// Lets memory for large bodies go that nobody has used since the last call. Call it now and then.
    pub fn trim_body_memory(&self) {
        self.shared.body_memory.trim();
    }

    /// Memory for large bodies that have it or are promised it, in bytes.
    #[must_use]
    pub fn body_memory_bytes(&self) -> u64 {
        self.shared.body_memory.promised_bytes()
    }

    /// Accounts and rights.
    #[must_use]
    pub fn users(&self) -> &Users {
        &self.shared.users
    }

    /// What is short: while anything is, publishers wait.
    #[must_use]
    pub fn alarms(&self) -> &Arc<Alarms> {
        &self.alarms
    }

    /// Values that are kept for plugins and tools.
    #[must_use]
    pub fn parameters(&self) -> &Parameters {
        &self.shared.parameters
    }

    /// A fresh salt for a password's hash.
    #[must_use]
    pub fn salt(&self) -> [u8; SALT_BYTES] {
        self.shared.names.salt()
    }

    /// Hashes a new password as the settings say; with argon2id that takes tens of milliseconds.
    #[must_use]
    pub fn hash_password(&self, password: &[u8]) -> PasswordHash {
        match self.password_hashing {
            HashAlgorithm::Argon2id => PasswordHash::slow(password, self.shared.names.long_salt()),
            HashAlgorithm::Sha256 | HashAlgorithm::Sha512 => {
                PasswordHash::new(password, self.shared.names.salt())
            }
        }
    }

    /// What an answer about definitions must wait for, so that a crash cannot belie it.
    #[must_use]
    pub fn pending_definitions(&self) -> Option<Lsn> {
        self.shared.store.pending()
    }

    /// The vhost of this name.
    #[must_use]
    pub fn vhost(&self, name: &[u8]) -> Option<Arc<Vhost>> {
        self.vhosts.get(name).map(|vhost| Arc::clone(&vhost))
    }

    /// All vhosts, by name.
    #[must_use]
    pub fn vhosts(&self) -> Vec<Arc<Vhost>> {
        let mut vhosts: Vec<_> = self.vhosts.iter().map(|vhost| Arc::clone(&vhost)).collect();
        vhosts.sort_by(|left, right| left.name().cmp(right.name()));
        vhosts
    }

    /// Makes a vhost with the predeclared exchanges; one that exists stays as it is.
    pub fn create_vhost(&self, name: &Name) -> Result<Arc<Vhost>, Error> {
        let mut scope_next = self.scope_next.lock();
        if let Some(vhost) = self.vhost(name.as_bytes()) {
            return Ok(vhost);
        }
        let count_max = self.shared.limits.vhosts_max;
        if self.vhosts.len() >= count_max {
            return Err(Error::VhostLimitReached {
                vhost: name.clone(),
                count_max,
            });
        }
        let record = VhostRecord {
            name: name.as_bytes().to_vec(),
            scope: *scope_next,
        };
        self.shared.store.put_scope_next(*scope_next + 1)?;
        self.shared.store.put_vhost(&record)?;
        *scope_next += 1;
        let vhost = self.insert_vhost(&record);
        self.shared.store.tell("vhost.created", |headers| {
            headers.text("name", name.as_bytes());
        });
        Ok(vhost)
    }

    /// Deletes a vhost with all that is in it; false if there is none. Its connections find their
    /// consumers cancelled; closing them is the server's business.
    ///
    /// # Errors
    /// If it is protected from deletion, or its end cannot be written.
    pub fn delete_vhost(&self, name: &[u8], wakes: &mut Wakes) -> Result<bool, Error> {
        let _coming_and_going = self.scope_next.lock();
        let is_protected = |vhost: &Arc<Vhost>| vhost.details().protected_from_deletion;
        // req: VHOST-1
        if self.vhost(name).as_ref().is_some_and(is_protected) {
            let vhost = Name::new(name);
            return Err(Error::VhostProtected { vhost });
        }
        let Some((_, vhost)) = self.vhosts.remove(name) else {
            return Ok(false);
        };
        vhost.clear(wakes)?;
        vhost.forget_policies()?;
        self.shared.parameters.forget_vhost(vhost.name())?;
        self.shared.users.forget_vhost(vhost.name())?;
        self.shared.store.delete_vhost_details(vhost.name())?;
        self.shared.store.delete_vhost(vhost.name())?;
        self.shared.store.tell("vhost.deleted", |headers| {
            headers.text("name", vhost.name().as_bytes());
        });
        Ok(true)
    }

    /// Tells those who listen to `amq.rabbitmq.event` what happened outside the broker's own calls, such
    /// as `alarm.set`. Costs one look at a flag while nobody listens.
    pub fn emit(&self, event: &'static str, fill: impl FnOnce(&mut EventHeaders)) {
        self.shared.events.emit(event, fill);
    }

    /// How large the journal is, if there is one.
    #[must_use]
    pub fn journal_usage(&self) -> Option<JournalUsage> {
        self.shared.journal.as_ref().map(Journal::usage)
    }

    /// What happened since the start.
    #[must_use]
    pub fn statistics(&self) -> &Arc<Statistics> {
        &self.shared.statistics
    }

    /// The name of this node in events and traces.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.shared.node
    }

    /// Opens a vhost for a connection (`connection.open`). `waker` is called when its outbox gets
    /// something to send.
    pub fn connect(
        &self,
        user: &Arc<User>,
        vhost: &[u8],
        waker: Arc<dyn Waker>,
    ) -> Result<Connection, Error> {
        let found = self.vhost(vhost).ok_or_else(|| Error::VhostNotFound {
            vhost: Name::new(vhost),
        })?;
        let users = &self.shared.users;
        if !users.authorize_vhost(user, found.name()) {
            tracing::warn!(target: AUDIT, user = %user.name(), vhost = %found.name(), "access refused");
            return Err(Error::VhostAccessRefused {
                vhost: found.name().clone(),
                user: user.name().clone(),
            });
        }
        let id = ConnectionId(self.connection_next.fetch_add(1, Ordering::Relaxed));
        let outbox = Outbox::new(self.shared.limits.outbox_bytes_max, waker);
        Ok(Connection::new(
            id,
            Arc::clone(user),
            found,
            Arc::new(outbox),
        ))
    }

    /// Opens a vhost as [`Self::connect`] does, for a client: limits of its user and of the vhost count it
    /// as long as the connection lasts.
    ///
    /// # Errors
    /// What [`Self::connect`] refuses, and a limit that is reached.
    pub fn connect_client(
        &self,
        user: &Arc<User>,
        vhost: &[u8],
        waker: Arc<dyn Waker>,
    ) -> Result<Connection, Error> {
        let mut connection = self.connect(user, vhost, waker)?;
        connection.take_places(&self.shared.users)?;
        Ok(connection)
    }

    /// Opens a vhost for a part of this process that acts for the broker itself: no right is asked for, no
    /// limit counts it, and nothing is delivered to it.
    #[cfg_attr(not(feature = "server"), allow(dead_code, unused_imports))]
    pub(crate) fn connect_internal(&self, vhost: &[u8]) -> Result<Connection, Error> {
        let found = self.vhost(vhost).ok_or_else(|| Error::VhostNotFound {
            vhost: Name::new(vhost),
        })?;
        let id = ConnectionId(self.connection_next.fetch_add(1, Ordering::Relaxed));
        let outbox = Outbox::new(self.shared.limits.outbox_bytes_max, Arc::new(NoWaker));
        let user = Arc::new(User::internal());
        Ok(Connection::internal(id, user, found, Arc::new(outbox)))
    }

    /// Notes in the journal what was delivered already, so that a clean stop does not make every message
    /// look redelivered, and what streams forgot, so that it does not come back. Called when no connection is
    /// left, before the journal is closed.
    pub fn note_for_stop(&self) -> Result<(), Error> {
        for vhost in self.vhosts() {
            for queue in vhost.queues() {
                queue.note_delivered()?;
                queue.note_forgotten();
            }
        }
        Ok(())
    }

    /// The moment of a time by the calendar, in seconds since 1970; the start, for what was before it.
    #[must_use]
    pub fn instant_of(&self, unix_s: u64) -> Instant {
        self.shared.clock.instant(unix_s.saturating_mul(1_000))
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.shared.timers.next()
    }

    /// Sets who is told when [`Self::poll_timeout`] came to be earlier than it was. It may be called under
    /// locks, and must do no more than leave word.
    pub fn set_timeout_waker(&self, waker: Arc<dyn Waker>) {
        self.shared.timers.set_waker(waker);
    }

    /// Does what is due: messages and queues expire. What is not done in this call stays due, so that
    /// no call takes long; call again while [`Self::poll_timeout`] gives a time that has passed.
    pub fn handle_timeout(&self, now: Instant, wakes: &mut Wakes) {
        for _ in 0..TIMERS_AT_ONCE_MAX {
            let Some((key, kind)) = self.shared.timers.pop_due(now) else {
                return;
            };
            match kind {
                TimerKind::MessageExpiry(queue) => {
                    if let Some(queue) = queue.upgrade() {
                        queue.handle_expiry(key, now, wakes);
                    }
                }
                TimerKind::Stream(queue) => {
                    if let Some(queue) = queue.upgrade() {
                        queue.handle_stream_timer(key, now, wakes);
                    }
                }
                TimerKind::QueueExpiry(queue) => {
                    if let Some(queue) = queue.upgrade() {
                        queue.handle_lease_timer(key, now, wakes);
                    }
                }
                TimerKind::Events => {
                    if let Some(vhost) = self.vhost(EVENT_VHOST.as_bytes()) {
                        vhost.publish_events(now, wakes);
                    }
                }
                TimerKind::Delayed { vhost, exchange } => {
                    if let (Some(vhost), Some(exchange)) = (vhost.upgrade(), exchange.upgrade()) {
                        vhost.publish_due(&exchange, now, wakes);
                    }
                }
            }
            wakes.wake_all();
        }
    }

    fn make_defaults(&self, default_user: &DefaultUser, vhost: &Name) -> Result<(), Error> {
        let vhost = self.create_vhost(vhost)?;
        let users = &self.shared.users;
        // That guest's password is guest is known to all: its hash protects nothing, and need not cost a
        // start the time.
        let password = match &default_user.password[..] {
            b"guest" => PasswordHash::new(b"guest", self.shared.names.salt()),
            password => self.hash_password(password),
        };
        let tags = vec!["administrator".to_owned()];
        users.put_permissions(&default_user.name, vhost.name(), Permissions::all())?;
        users.put_user(&default_user.name, Some(password), tags)
    }

    fn insert_vhost(&self, record: &VhostRecord) -> Arc<Vhost> {
        let name = Name::new(&record.name);
        let scope = ScopeId::new(record.scope);
        let shared = Arc::clone(&self.shared);
        let vhost = Arc::new_cyclic(|this| Vhost::new(name.clone(), scope, this.clone(), shared));
        vhost.declare_predeclared();
        self.vhosts.insert(name, Arc::clone(&vhost));
        vhost
    }
}
