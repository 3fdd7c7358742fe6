//! From an exchange and a key to the queues a message goes to.
//!
//! Owns: the walk over exchanges that are bound to exchanges, and each channel's memory of walks it
//! made. Each queue comes once, whatever leads to it; a circle of exchanges is walked once.
//! A channel that publishes as it did before finds its queues without a lock or a search: what it
//! remembers holds until any binding, queue, exchange or right of its vhost goes or comes.
//! Bounds: `ROUTE_CACHE_SLOTS` per channel, `ROUTE_EXCHANGES_MAX` per message.

use std::cell::Cell;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use crate::amqp::field::{FieldTable, FieldValue};
use crate::journal::{Lsn, QueueId};

use super::dedup::{DedupCache, DedupKey, Seen};
use super::delayed::delay_ms;
use super::error::Error;
use super::exchange::destinations::Destination;
use super::exchange::recent_history::asks_not_to_be_kept;
use super::exchange::{Exchange, Flow, RouteInput};
use super::limits::{ROUTE_CACHE_SLOTS, ROUTE_EXCHANGES_MAX};
use super::message::Persistence;
use super::name::Name;
use super::queue::Queue;
use super::replies::{ReplyConsumer, is_reply_name};
use super::shares::{QueueShare, Shares};

/// Where a message goes: queues, each once, and channels that wait for it as an answer.
#[derive(Debug, Default)]
pub(crate) struct Route {
    pub(crate) queues: SmallVec<[Arc<Queue>; 1]>,
    /// Those of them that keep persistent messages on disk.
    durable: SmallVec<[QueueId; 2]>,
    /// Those of them that keep every message on disk.
    kept: SmallVec<[QueueId; 2]>,
    /// Whether the order of one of them must be held: a stream, or one that drops duplicates.
    pub(crate) has_order: bool,
    /// Whether one of them drops duplicates.
    pub(crate) has_keys: bool,
    /// Askers by direct reply-to; they do not count as queues.
    pub(crate) replies: Vec<Arc<ReplyConsumer>>,
    /// What counts at the exchange where the way begins.
    flow: Option<Arc<Flow>>,
    /// Messages that went this way.
    passed: Cell<u64>,
}

impl Route {
    pub(crate) fn new(mut queues: Vec<Arc<Queue>>) -> Self {
        queues.sort_unstable_by_key(|queue| queue.id());
        queues.dedup_by_key(|queue| queue.id());
        let keeping = |persistence| {
            let keeping = queues.iter().filter(|queue| queue.keeps(persistence));
            keeping.map(|queue| queue.id()).collect()
        };
        Self {
            durable: keeping(Persistence::Persistent),
            kept: keeping(Persistence::Transient),
            has_order: queues.iter().any(|queue| queue.is_ordered()),
            has_keys: queues.iter().any(|queue| queue.keys().is_some()),
            queues: queues.into_iter().collect(),
            replies: Vec::new(),
            flow: None,
            passed: Cell::new(0),
        }
    }

    /// So many messages go this way.
    #[inline]
    pub(crate) fn count(&self, messages: usize) {
        self.passed.set(self.passed.get() + messages as u64);
        if let Some(flow) = &self.flow {
            flow.count(messages, self.queues.len());
        }
    }

    /// The same, with these askers.
    pub(crate) fn with_replies(self, replies: Vec<Arc<ReplyConsumer>>) -> Self {
        Self { replies, ..self }
    }

    /// The queues for which such a message must be in the journal.
    pub(crate) fn journalled(&self, persistence: Persistence) -> &[QueueId] {
        match persistence {
            Persistence::Persistent => &self.durable,
            Persistence::Transient => &self.kept,
        }
    }
}

/// Finds exchanges and queues by name, for a walk.
pub(crate) trait Directory {
    fn exchange(&self, name: &[u8]) -> Option<Arc<Exchange>>;
    fn queue(&self, name: &[u8]) -> Option<Arc<Queue>>;
    fn reply_consumer(&self, name: &[u8]) -> Option<Arc<ReplyConsumer>>;
    /// What is held from the look at a key of duplicates until the journal has the key.
    fn dedup_gate(&self) -> MutexGuard<'_, ()>;
}

/// Whether a walk's result may be remembered for the same exchange and key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Repeatable {
    /// The next message with this exchange and key goes the same way.
    Yes,
    /// Something else than exchange and key decided, or more happened than finding queues.
    No,
}

/// What a walk found.
#[derive(Debug)]
pub(crate) struct Walked<'a> {
    pub(crate) route: Route,
    pub(crate) repeatable: Repeatable,
    pub(crate) aside: Aside<'a>,
}

/// What exchanges on a message's way want besides.
#[derive(Debug, Default)]
pub(crate) struct Aside<'a> {
    /// Those that keep the message for who binds later.
    pub(crate) histories: Vec<Arc<Exchange>>,
    /// Those where it waits, and for how long in milliseconds.
    pub(crate) delays: Vec<(Arc<Exchange>, u64)>,
    /// Keys that were added, by which its duplicates will be told.
    pub(crate) keys: Vec<NewKey>,
    /// It is a duplicate somewhere; where the journal has the first one, for the confirm.
    pub(crate) duplicate_of: Option<Lsn>,
    /// It waited in an exchange, and leaves its place in the journal.
    pub(crate) replaces: Option<(QueueId, Lsn)>,
    /// Held while there are keys or a duplicate, until the journal has them.
    pub(crate) gate: Option<MutexGuard<'a, ()>>,
}

/// A key that an exchange did not know before.
#[derive(Debug)]
pub(crate) struct NewKey {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) key: DedupKey,
    pub(crate) expires_unix_ms: u64,
}

impl Aside<'_> {
    /// Whether nothing needs more than a plain delivery.
    pub(crate) fn is_done(&self) -> bool {
        self.delays.is_empty()
            && self.keys.is_empty()
            && self.duplicate_of.is_none()
            && self.replaces.is_none()
    }

    /// Whether the exchange lets the message through; notes the key of one that it does.
    // req: DEDUP-1
    fn is_new(
        &mut self,
        exchange: &Arc<Exchange>,
        cache: &DedupCache,
        input: RouteInput<'_>,
    ) -> bool {
        let key = input
            .message
            .and_then(|message| DedupKey::of(cache.by(), message, input.headers));
        let Some(key) = key else { return true };
        match cache.see(key, input.headers, input.unix_ms) {
            Seen::New { expires_unix_ms } => {
                self.keys.push(NewKey {
                    exchange: Arc::clone(exchange),
                    key,
                    expires_unix_ms,
                });
                true
            }
            Seen::Before { durable_at } => {
                self.duplicate_of = self.duplicate_of.max(Some(durable_at));
                false
            }
        }
    }
}

/// Walks from `start` to all queues.
pub(crate) fn walk<'a>(
    directory: &'a impl Directory,
    start: &Arc<Exchange>,
    input: RouteInput<'_>,
) -> Walked<'a> {
    let mut queues = Vec::new();
    let mut replies = Vec::new();
    let mut aside = Aside::default();
    let mut repeatable = Repeatable::Yes;
    // Only made when exchanges are bound to exchanges, which most are not.
    let mut seen: Option<HashSet<u64>> = None;
    let mut waiting = vec![Arc::clone(start)];
    let mut found = Vec::new();
    while let Some(exchange) = waiting.pop() {
        if exchange.name().is_empty() {
            for key in input.keys {
                if is_reply_name(key) {
                    replies.extend(directory.reply_consumer(key));
                    // Askers come and go without a word.
                    repeatable = Repeatable::No;
                } else {
                    queues.extend(directory.queue(key));
                }
            }
            if queues.is_empty() {
                // A queue that comes later changes no binding, so this must be looked at again.
                repeatable = Repeatable::No;
            }
            continue;
        }
        if !exchange.routes_by_key_alone() {
            repeatable = Repeatable::No;
        }
        if exchange.delays().is_some()
            && let Some(delay_ms) = delay_ms(input.headers)
        {
            // Where it goes is found when its time has come, duplicates too.
            aside.delays.push((exchange, delay_ms));
            continue;
        }
        if let Some(cache) = exchange.dedup() {
            if aside.gate.is_none() {
                aside.gate = Some(directory.dedup_gate());
            }
            if !aside.is_new(&exchange, cache, input) {
                continue;
            }
        }
        if exchange.history().is_some() && !asks_not_to_be_kept(input.headers) {
            aside.histories.push(Arc::clone(&exchange));
        }
        exchange.route(input, &mut found);
        if found.is_empty()
            && let Some(alternate) = exchange.alternate()
        {
            match directory.exchange(alternate.as_bytes()) {
                // As an alternate the default exchange has no bindings.
                Some(alternate) if alternate.name().as_bytes().is_empty() => {}
                Some(alternate) => found.push(Destination::Exchange(alternate)),
                None => repeatable = Repeatable::No,
            }
        }
        for destination in found.drain(..) {
            match destination {
                Destination::Queue(queue) => queues.push(queue),
                Destination::Exchange(next) => {
                    let seen = seen.get_or_insert_with(|| HashSet::from([start.id()]));
                    if seen.len() < ROUTE_EXCHANGES_MAX && seen.insert(next.id()) {
                        waiting.push(next);
                    }
                }
            }
        }
    }
    let mut route = Route::new(queues).with_replies(replies);
    route.flow = Some(Arc::clone(start.flow()));
    Walked {
        route,
        repeatable,
        aside,
    }
}

/// The octets that the name of a routing header begins with in a table: size and name.
const CC: &[u8] = b"\x02CC";
const BCC: &[u8] = b"\x03BCC";

/// Whether a headers table may hold `CC` or `BCC`; its octets are looked at, not parsed.
pub(crate) fn may_have_more_keys(elements: &[u8]) -> bool {
    elements
        .windows(CC.len())
        .any(|window| window == CC || window == &BCC[..CC.len()])
}

/// The keys that `CC` and `BCC` add, and whether there is a `BCC` to remove.
pub(crate) fn more_keys(headers: &FieldTable) -> Result<(Vec<Name>, bool), Error> {
    let mut keys = Vec::new();
    let mut has_bcc = false;
    for name in ["CC", "BCC"] {
        match headers.get(name) {
            None => {}
            Some(FieldValue::Array(values)) => {
                has_bcc |= name == "BCC";
                for value in &values {
                    if let FieldValue::LongString(key) = value {
                        keys.push(Name::new(&key));
                    }
                }
            }
            Some(other) => {
                let type_name = other.type_name();
                return Err(Error::InvalidMessage {
                    problem: format!("{{unacceptable_type_in_header,\"{name}\",{type_name}}}"),
                });
            }
        }
    }
    Ok((keys, has_bcc))
}

/// What a remembered route depends on; any change makes all of them void.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Generation {
    pub(crate) topology: u64,
    pub(crate) rights: u64,
}

/// What one channel remembers of where its messages went; made by the session, one per channel.
#[derive(Debug, Default)]
pub struct Publisher {
    /// Its number, for traces.
    channel: u16,
    last: Option<Remembered>,
    others: Option<Box<Others>>,
    /// What went on ways that are not remembered.
    shares: Shares,
}

#[derive(Debug)]
struct Others {
    slots: [Option<Remembered>; ROUTE_CACHE_SLOTS],
    hasher: RandomState,
}

#[derive(Debug)]
struct Remembered {
    generation: Generation,
    exchange: Name,
    key: Name,
    route: Route,
}

impl Remembered {
    fn is_for(&self, exchange: &[u8], key: &[u8], generation: Generation) -> bool {
        self.generation == generation
            && self.key.as_bytes() == key
            && self.exchange.as_bytes() == exchange
    }

    fn add_to(&self, shares: &mut Shares) {
        shares.add(
            self.exchange.as_bytes(),
            &self.route,
            self.route.passed.get(),
        );
    }
}

impl Publisher {
    /// Remembers nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers nothing yet, on the channel of this number.
    #[must_use]
    pub fn on_channel(channel: u16) -> Self {
        Self {
            channel,
            ..Self::default()
        }
    }

    /// The channel's number.
    pub(crate) fn channel(&self) -> u16 {
        self.channel
    }

    /// The remembered route, if it still holds.
    pub(crate) fn recall(
        &mut self,
        exchange: &[u8],
        key: &[u8],
        generation: Generation,
    ) -> Option<&Route> {
        let is_last = self
            .last
            .as_ref()
            .is_some_and(|last| last.is_for(exchange, key, generation));
        if !is_last {
            let slot = self.slot(exchange, key)?;
            if !slot.as_ref()?.is_for(exchange, key, generation) {
                return None;
            }
            // Swapped, so that two keys in turn keep both.
            let recalled = slot.take();
            let before = std::mem::replace(&mut self.last, recalled);
            self.put_by(before);
        }
        self.last.as_ref().map(|last| &last.route)
    }

    /// Remembers a route, in the place of another.
    pub(crate) fn remember(
        &mut self,
        exchange: &[u8],
        key: &[u8],
        generation: Generation,
        route: Route,
    ) -> &Route {
        let remembered = Remembered {
            generation,
            exchange: Name::new(exchange),
            key: Name::new(key),
            route,
        };
        let before = self.last.take();
        self.put_by(before);
        &self.last.insert(remembered).route
    }

    fn put_by(&mut self, remembered: Option<Remembered>) {
        let Some(remembered) = remembered else { return };
        self.others.get_or_insert_with(|| {
            Box::new(Others {
                slots: [const { None }; ROUTE_CACHE_SLOTS],
                hasher: RandomState::new(),
            })
        });
        let (exchange, key) = (remembered.exchange.clone(), remembered.key.clone());
        let slot = self.slot(exchange.as_bytes(), key.as_bytes());
        if let Some(forgotten) = slot.and_then(|slot| slot.replace(remembered)) {
            forgotten.add_to(&mut self.shares);
        }
    }

    /// A message goes a way that is not remembered.
    pub(crate) fn passes(&mut self, exchange: &[u8], route: &Route) {
        self.shares.add(exchange, route, 1);
    }

    /// How many messages went from which exchange into which queue, in no order.
    #[must_use]
    pub fn shares(&self) -> Vec<QueueShare> {
        let mut shares = self.shares.clone();
        let others = self.others.iter().flat_map(|others| &others.slots);
        for remembered in others.chain([&self.last]).flatten() {
            remembered.add_to(&mut shares);
        }
        shares.list()
    }

    fn slot(&mut self, exchange: &[u8], key: &[u8]) -> Option<&mut Option<Remembered>> {
        let others = self.others.as_mut()?;
        let hash = others.hasher.hash_one((exchange, key)) as usize;
        others.slots.get_mut(hash % ROUTE_CACHE_SLOTS)
    }
}
