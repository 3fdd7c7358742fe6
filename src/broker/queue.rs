//! One queue: its waiting messages, its unacknowledged ones and its consumers.
//!
//! Owns: order, delivery and settling. Knows no other queue, no exchange and no vhost; where its
//! messages came from and where dead ones go is decided above it.
//! One lock holds all of its state; a publish, a settle of many, or a resume takes it once. Under it,
//! messages go into consumers' outboxes; wake-ups are noted in [`Wakes`] and happen after it.
//! Invariant: when the lock is free, nothing waits, or nobody is ready, or the first that waits is being
//! read from disk.
//! Bounds: waiting messages by the queue's arguments, unacknowledged ones by prefetch.
//!
//! Each message is in one place at a time:
//! ```text
//!             ┌──────────────── requeued ────────────────┐
//!             v                                          │
//! publish ─> Ready ── delivered or fetched ──────────> Unacked ── acked, discarded ──> gone
//!             └──── handed over without acknowledgement, purged, queue deleted ──────> gone
//! ```
//!
//! What dies on the way (expired, dropped from a full queue, rejected) is handed out of the lock and then
//! published to the dead-letter exchange (`dead_letter.rs`), before the journal hears that it left.

mod after;
pub(crate) mod arguments;
mod consumers;
mod dispatch;
mod duplicates;
pub(crate) mod expiry;
mod feed;
mod intake;
mod overflow;
mod paging;
mod peek;
mod priorities;
mod quorum;
mod ready;
mod settle;
mod stream;
mod subscribe;
mod types;
mod unacked;

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::amqp::field::FieldTable;
use crate::journal::{Journal, Location, Lsn, QueueId};

use super::access::User;
use super::consumer::{AckMode, Consumer};
use super::dedup::DedupCache;
use super::ids::ConnectionId;
use super::message::{Message, Persistence};
use super::name::Name;
use super::outbox::Wakes;
use super::stamp::DELIVERY_COUNT;
use super::timers::{Earliest, TimerKey, Timers};
use super::vhost::Vhost;

pub(crate) use after::Settled;
use after::{After, Releases};
use arguments::{QueueKind, QueueSettings};
use consumers::Consumers;
pub use consumers::{Activity, ConsumerState};
pub(crate) use dispatch::resume;
use expiry::{Clockwork, Deadline};
pub(crate) use intake::Run;
pub(crate) use paging::Paging;
pub use peek::{Peek, Peeked};
use priorities::Priorities;
use ready::Front;
pub use settle::Settle;
use settle::note_release;
pub(crate) use stream::Filter;
use stream::Stream;
pub(crate) use stream::Truncated;
pub(crate) use subscribe::Cancelled;
pub(crate) use types::{ConsumeRefused, DeleteConditions, DeleteRefused, Enqueued, NewConsumer};
pub use types::{CountsByKind, Got, QueueCounts, QueueDepth};
use unacked::{Out, Unacked};

/// A message's number in its queue: its place in the order, never given twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MessageSeq(pub(crate) u64);

/// Whether a queue outlives a restart of the broker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Durability {
    /// Its definition and its persistent messages do.
    Durable,
    /// It goes with the process.
    Transient,
}

/// A message in a queue.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) message: Message,
    /// Its number in the journal, [`Lsn::ZERO`] if it is not there.
    pub(crate) lsn: Lsn,
    /// Where the journal has it; of no meaning without a number.
    pub(crate) location: Location,
    pub(crate) redelivered: bool,
    /// How often it came back; counted by quorum queues only.
    pub(crate) return_count: u32,
    /// When it expires if it still waits then.
    pub(crate) deadline: Deadline,
}

/// What never changes about a queue.
#[derive(Debug)]
pub(crate) struct QueueSpec {
    pub(crate) id: QueueId,
    pub(crate) vhost: Name,
    pub(crate) name: Name,
    pub(crate) durability: Durability,
    pub(crate) auto_delete: bool,
    pub(crate) owner: Option<(ConnectionId, Arc<User>)>,
    pub(crate) arguments: FieldTable,
    /// Those at the beginning; [`Queue::settings`] has those in effect.
    pub(crate) settings: Arc<QueueSettings>,
    /// Where dead letters go from.
    pub(crate) home: Weak<Vhost>,
    /// Where its deadlines stand.
    pub(crate) timers: Arc<Timers>,
    /// Where settled messages are noted; only for durable queues.
    pub(crate) journal: Option<Journal>,
    /// What keeps it out of memory when it is long.
    pub(crate) paging: Arc<Paging>,
}

/// A queue of one vhost.
pub struct Queue {
    spec: QueueSpec,
    /// Of a stream and of a queue that drops duplicates: see [`Self::order`].
    order: Mutex<()>,
    /// For the pager, which finds it by this.
    me: Weak<Self>,
    /// Of the messages in it, if it drops duplicates; changed under the order or the state's lock.
    keys: Option<Box<DedupCache>>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    deleted: bool,
    /// What the arguments and the policies in effect mean.
    settings: Arc<QueueSettings>,
    /// See [`Queue::apply_settings`].
    settings_version: u64,
    clockwork: Clockwork,
    seq_next: u64,
    ready: Priorities,
    unacked: Unacked,
    consumers: Consumers,
    /// The log, if it is a stream: then nothing is in `ready` and `unacked`.
    stream: Option<Box<Stream>>,
    stream_timer: Option<TimerKey>,
    /// What the stream forgot and the journal does not know yet.
    truncated: Option<Truncated>,
    counts: QueueCounts,
}

impl Queue {
    pub(crate) fn new(spec: QueueSpec) -> Arc<Self> {
        let spill = spec.paging.spill.clone();
        let state = State {
            deleted: false,
            settings: Arc::clone(&spec.settings),
            settings_version: 0,
            clockwork: Clockwork::default(),
            stream_timer: None,
            truncated: None,
            seq_next: 0,
            ready: Priorities::new(&spec.settings, spec.id, spill),
            unacked: Unacked::default(),
            consumers: Consumers::new(spec.settings.single_active_consumer),
            stream: (spec.settings.kind == QueueKind::Stream).then(|| Box::new(Stream::new(0))),
            counts: QueueCounts::default(),
        };
        let keys = spec.settings.dedup.clone();
        Arc::new_cyclic(|me| Self {
            spec,
            keys: keys.map(|settings| Box::new(DedupCache::new(settings, None))),
            order: Mutex::default(),
            me: Weak::clone(me),
            state: Mutex::new(state),
        })
    }

    /// Its number, never used again.
    #[must_use]
    pub fn id(&self) -> QueueId {
        self.spec.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.spec.name
    }

    /// Its vhost's name.
    #[must_use]
    pub fn vhost(&self) -> &Name {
        &self.spec.vhost
    }

    /// Whether it outlives a restart.
    #[must_use]
    pub fn durability(&self) -> Durability {
        self.spec.durability
    }

    /// Whether it goes with its last consumer.
    #[must_use]
    pub fn is_auto_delete(&self) -> bool {
        self.spec.auto_delete
    }

    /// The connection that has it to itself.
    #[must_use]
    pub fn owner(&self) -> Option<ConnectionId> {
        self.spec.owner.as_ref().map(|(connection, _)| *connection)
    }

    /// Whose connection has it to itself.
    #[must_use]
    pub fn owner_user(&self) -> Option<&Arc<User>> {
        self.spec.owner.as_ref().map(|(_, user)| user)
    }

    /// The arguments it was declared with.
    #[must_use]
    pub fn arguments(&self) -> &FieldTable {
        &self.spec.arguments
    }

    /// Whether such messages in it are in the journal.
    // req: QUORUM-1
    pub(crate) fn keeps(&self, persistence: Persistence) -> bool {
        self.is_journalled()
            && (persistence == Persistence::Persistent || self.spec.settings.kind.keeps_transient())
    }

    /// Whether persistent messages in it are in the journal.
    pub(crate) fn is_journalled(&self) -> bool {
        self.spec.journal.is_some()
    }

    /// What it is, by `x-queue-type`.
    #[must_use]
    pub fn kind(&self) -> QueueKind {
        self.spec.settings.kind
    }

    /// What holds now: arguments and policies together.
    #[must_use]
    pub fn settings(&self) -> Arc<QueueSettings> {
        Arc::clone(&self.state.lock().settings)
    }

    /// Lets other settings hold, because a policy came, changed or went.
    ///
    /// Lengths act at once. A TTL acts on what comes from now on; what waits has its deadline already
    /// (RabbitMQ). The time of an unused queue begins again.
    // req: TTL-7
    ///
    /// `version` counts the changes of the vhost's policies: settings that were made out before others that
    /// hold already come too late.
    // req: POLICY-5
    pub(crate) fn apply_settings(
        self: &Arc<Self>,
        settings: Arc<QueueSettings>,
        version: u64,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        let mut after = After::default();
        let earliest = {
            let mut state = self.lock();
            if state.deleted || version < state.settings_version {
                return;
            }
            state.settings_version = version;
            if state.settings == settings {
                return;
            }
            let expires_before = state.settings.expires;
            state.settings = settings;
            self.drop_excess(&mut state, &mut after);
            self.dispatch(&mut state, &mut after, now, wakes);
            match state.settings.expires == expires_before {
                true => Earliest::No,
                false => self.note_use(&mut state, now),
            }
        };
        self.wake_timers(earliest);
        self.finish(after, now, wakes);
    }

    /// Its size now.
    #[must_use]
    pub fn depth(&self) -> QueueDepth {
        let state = self.state.lock();
        if let Some(stream) = &state.stream {
            return QueueDepth {
                ready_count: usize::try_from(stream.len()).unwrap_or(usize::MAX),
                ready_bytes: stream.bytes(),
                unacked_count: stream.outstanding_count(),
                unacked_bytes: 0,
                consumer_count: state.consumers.len(),
            };
        }
        QueueDepth {
            ready_count: state.ready.len(),
            ready_bytes: state.ready.bytes(),
            unacked_count: state.unacked.len(),
            unacked_bytes: state.unacked.bytes(),
            consumer_count: state.consumers.len(),
        }
    }

    /// How many messages wait at each priority, from 0 to the highest; none without `x-max-priority`.
    #[must_use]
    pub fn priority_lengths(&self) -> Option<Vec<usize>> {
        self.state.lock().ready.lengths()
    }

    /// The property `timestamp` of the first message that waits, or of the first that is out if it is less, in seconds
    /// since 1970; none if neither has any, or while the first lies on disk.
    #[must_use]
    pub fn head_timestamp(&self) -> Option<u64> {
        let (ready, out) = {
            let state = self.state.lock();
            let first = |entry: &Entry| entry.message.clone();
            let ready = state.ready.front().map(|(_, entry)| first(entry));
            let out = state.unacked.iter().next();
            (ready, out.map(|(_, out)| first(&out.entry)))
        };
        let timestamps = [ready, out].into_iter().flatten();
        timestamps.filter_map(|message| message.timestamp()).min()
    }

    /// What happened in it since it was declared.
    #[must_use]
    pub fn counts(&self) -> QueueCounts {
        self.state.lock().counts
    }

    /// Whether it was deleted; whoever still holds it finds it empty.
    pub(crate) fn is_deleted(&self) -> bool {
        self.state.lock().deleted
    }

    /// Its consumers now, in no order.
    #[must_use]
    pub fn consumers(&self) -> Vec<Arc<Consumer>> {
        self.state.lock().consumers.iter().cloned().collect()
    }

    /// Whether it has a consumer now.
    pub(crate) fn is_consumed(&self) -> bool {
        !self.state.lock().consumers.is_empty()
    }

    /// Its consumers now with what they are to it, in no order.
    #[must_use]
    pub fn consumer_states(&self) -> Vec<ConsumerState> {
        self.state.lock().consumers.states().collect()
    }

    /// Takes the first waiting message without being a consumer.
    pub(crate) fn get(
        self: &Arc<Self>,
        ack_mode: AckMode,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Option<Got> {
        loop {
            let mut after = After::default();
            let mut state = self.lock_with_front(now, wakes);
            let earliest = self.note_use(&mut state, now);
            after.wake_timers |= earliest == Earliest::Yes;
            self.expire(&mut state, &mut after, now);
            // More died than one call does, or than was read: the next turn goes on.
            let goes_on = after.expired_count > 0 && state.ready.is_front_on_disk();
            let got = match goes_on || self.front_is_due(&state, now) {
                true => None,
                false => Some(self.take_front(&mut state, ack_mode, &mut after, now)),
            };
            let got = got.map(|got| {
                got.map(|got| {
                    // What stands first now may be dead, and does not count.
                    self.expire(&mut state, &mut after, now);
                    Got {
                        remaining_count: state.ready.len(),
                        ..got
                    }
                })
            });
            drop(state);
            self.finish(after, now, wakes);
            if let Some(got) = got {
                return got;
            }
        }
    }

    fn take_front(
        self: &Arc<Self>,
        state: &mut State,
        ack_mode: AckMode,
        after: &mut After,
        now: Instant,
    ) -> Option<Got> {
        let Front::Message(seq, entry) = state.ready.pop_front() else {
            state.counts.delivery.fetched_empty += 1;
            return None;
        };
        // What stands behind it may have expired long ago, and does not count.
        self.expire(state, after, now);
        let message = match self.spec.settings.kind {
            QueueKind::Quorum => {
                let count = entry.return_count.into();
                entry.message.with_number(DELIVERY_COUNT, count)
            }
            QueueKind::Classic | QueueKind::Stream => entry.message.clone(),
        };
        let got = Got {
            message,
            seq,
            redelivered: entry.redelivered,
            remaining_count: state.ready.len(),
        };
        state.counts.delivery.redelivered += u64::from(entry.redelivered);
        match ack_mode {
            AckMode::Manual => {
                state.counts.delivery.fetched += 1;
                let consumer = None;
                state.unacked.insert(seq, Out { entry, consumer });
            }
            AckMode::Automatic => {
                state.counts.delivery.fetched_no_ack += 1;
                after.leave(self, entry.lsn, &entry.message);
            }
        }
        Some(got)
    }

    /// Whether its order must be held while a message is noted for it and put into it.
    pub(crate) fn is_ordered(&self) -> bool {
        self.kind() == QueueKind::Stream || self.keys.is_some()
    }

    /// Removes what waits; what is out stays. Gives the number removed.
    pub(crate) fn purge(&self) -> usize {
        let purged = {
            let mut state = self.state.lock();
            let purged = state.ready.take();
            state.counts.purged += purged.len() as u64;
            self.forget_waiting(&state);
            purged
        };
        // What was purged is let go of behind this: see `After::leave`.
        self.journal_removed(&purged);
        let count = purged.len();
        drop(purged);
        self.sweep();
        count
    }

    /// Ends the queue, if the conditions hold: whoever calls it next finds it gone. Gives the number of
    /// messages that waited.
    ///
    /// Its consumers find a cancellation in their outboxes. What is out is forgotten when its channels
    /// settle it; only their limits still count it.
    pub(crate) fn delete(
        &self,
        conditions: DeleteConditions,
        wakes: &mut Wakes,
    ) -> Result<Remains, DeleteRefused> {
        let (consumers, ready) = {
            let mut state = self.state.lock();
            if state.deleted {
                return Err(DeleteRefused::Gone);
            }
            if conditions.if_empty && !state.ready.is_empty() {
                return Err(DeleteRefused::NotEmpty);
            }
            if conditions.if_unused && !state.consumers.is_empty() {
                return Err(DeleteRefused::InUse);
            }
            if let Some(now) = conditions.if_expired
                && state.lease_ends().is_none_or(|ends| ends > now)
            {
                return Err(DeleteRefused::InUse);
            }
            state.deleted = true;
            self.stop_timers(&mut state);
            if let Some(keys) = &self.keys {
                keys.clear();
            }
            (state.consumers.drain(), state.ready.take())
        };
        for consumer in consumers {
            consumer.outbox.forget(&consumer);
            consumer.forget_limits();
            let outbox = Arc::clone(&consumer.outbox);
            outbox.push_cancelled(consumer, wakes);
        }
        Ok(Remains(ready))
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Queue")
            .field("id", &self.spec.id)
            .field("name", &self.spec.name)
            .finish_non_exhaustive()
    }
}

/// What waited in a queue that is deleted; keep it until the journal has been told, so that payloads
/// stay referred to (STORE-19).
#[derive(Debug)]
pub(crate) struct Remains(Priorities);

impl Remains {
    /// How many messages waited.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

fn has_record(lsn: &Lsn) -> bool {
    *lsn != Lsn::ZERO
}
