//! What one connection has to send but did not send yet.
//!
//! Owns: deliveries and consumer cancellations between the publisher that produced them and the
//! session that writes them. Any thread pushes, the connection's own takes.
//! Bound: `bytes_max` of deliveries, counting those taken but not yet [`released`](Outbox::released).
//! At the bound a consumer is *stalled*: it leaves its queue's round until the session made room.
//! Locks: a queue's may be held while pushing; only the channel's limiter is locked under an outbox.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use smallvec::{SmallVec, smallvec};

use super::consumer::{AckMode, Consumer};
use super::limits::{OUTBOX_ITEM_BYTES, REPLY_BYTES_MAX};
use super::message::Message;
use super::queue::{self, MessageSeq, Queue};
use super::replies::ReplyConsumer;

/// Tells a connection's task that its outbox has something; called with no lock held.
pub trait Waker: Send + Sync {
    /// Makes the session's `handle_wake` run soon. Further calls before that change nothing.
    fn wake(&self);
}

/// Messages on their way to one consumer, in order.
#[derive(Debug)]
pub struct Deliveries {
    /// Who gets them; knows its queue, channel, tag and whether it acknowledges.
    pub consumer: Arc<Consumer>,
    /// One at least.
    pub messages: SmallVec<[Delivery; 1]>,
}

/// One message on its way to one consumer.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Its number in the queue, for [`Queue::settle`]; of no use to a consumer that does not acknowledge.
    pub seq: MessageSeq,
    /// Whether it was handed to any consumer before.
    pub redelivered: bool,
}

impl Delivery {
    /// What it counts in the outbox, in bytes. The session gives it back with [`Outbox::released`] once
    /// the delivery left for the socket, or was dropped.
    #[must_use]
    #[inline]
    pub fn cost_bytes(&self) -> usize {
        cost_bytes(&self.message)
    }
}

impl Deliveries {
    /// The queue they came from.
    #[must_use]
    pub fn queue(&self) -> &Arc<Queue> {
        self.consumer.queue()
    }

    /// What they count in the outbox together, in bytes.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        self.messages.iter().map(Delivery::cost_bytes).sum()
    }
}

/// An answer on its way to the channel that asked.
#[derive(Debug)]
pub struct Reply {
    /// Who gets it.
    pub consumer: Arc<ReplyConsumer>,
    /// The answer.
    pub message: Message,
}

impl Reply {
    /// What it counts in the outbox, in bytes; given back as a delivery's.
    #[must_use]
    pub fn cost_bytes(&self) -> usize {
        cost_bytes(&self.message)
    }
}

/// What a session finds in its outbox.
#[derive(Debug)]
pub enum OutboxItem {
    /// Messages for one of the connection's consumers.
    Deliver(Deliveries),
    /// An answer by direct reply-to for one of the connection's channels.
    Reply(Reply),
    /// The queue is gone, and the consumer with it: `basic.cancel` to the client, if it wants to know.
    ConsumerCancelled(Arc<Consumer>),
}

/// The connection's unsent items; shared by its consumers and its session.
pub struct Outbox {
    state: Mutex<State>,
    bytes_max: usize,
    waker: Arc<dyn Waker>,
}

#[derive(Default)]
struct State {
    items: VecDeque<OutboxItem>,
    bytes: usize,
    /// The session knows that it must take.
    notified: bool,
    closed: bool,
    stalled: Vec<Arc<Consumer>>,
}

/// Whether an outbox took a delivery.
#[derive(Debug)]
pub(crate) enum Pushed {
    /// It did.
    Taken,
    /// It is full, or the channel's limit is reached. The consumer is noted there and hears of room
    /// through [`queue::resume`].
    Stalled(Delivery),
    /// The connection is gone.
    Closed(Delivery),
}

/// An outbox that is held for deliveries to one of its consumers: what is paid once for all of them.
pub(crate) struct Handing<'a> {
    outbox: &'a Arc<Outbox>,
    consumer: &'a Arc<Consumer>,
    state: MutexGuard<'a, State>,
}

impl<'a> Handing<'a> {
    /// Who gets what is pushed.
    pub(crate) fn consumer(&self) -> &'a Arc<Consumer> {
        self.consumer
    }

    /// Takes a delivery, unless it is full. One larger than the bound passes when nothing else waits.
    #[inline]
    pub(crate) fn push(&mut self, delivery: Delivery, wakes: &mut Wakes) -> Pushed {
        let (consumer, state) = (self.consumer, &mut *self.state);
        if state.closed {
            return Pushed::Closed(delivery);
        }
        if state.bytes >= self.outbox.bytes_max {
            state.stalled.push(Arc::clone(consumer));
            return Pushed::Stalled(delivery);
        }
        // Under the outbox's lock, so that nothing is counted that is not taken.
        if consumer.ack_mode == AckMode::Manual && !consumer.acquire(delivery.message.size_bytes())
        {
            return Pushed::Stalled(delivery);
        }
        state.bytes += delivery.cost_bytes();
        match state.items.back_mut() {
            Some(OutboxItem::Deliver(last)) if Arc::ptr_eq(&last.consumer, consumer) => {
                last.messages.push(delivery);
            }
            _ => {
                let deliveries = Deliveries {
                    consumer: Arc::clone(consumer),
                    messages: smallvec![delivery],
                };
                state.items.push_back(OutboxItem::Deliver(deliveries));
                self.outbox.notify(state, wakes);
            }
        }
        Pushed::Taken
    }
}

impl Outbox {
    pub(crate) fn new(bytes_max: usize, waker: Arc<dyn Waker>) -> Self {
        Self {
            state: Mutex::default(),
            bytes_max,
            waker,
        }
    }

    /// Moves everything unsent to the end of `into`.
    ///
    /// The bytes stay counted until [`Outbox::released`].
    pub fn take(&self, into: &mut VecDeque<OutboxItem>) {
        let mut state = self.state.lock();
        state.notified = false;
        if into.is_empty() {
            std::mem::swap(&mut state.items, into);
        } else {
            into.append(&mut state.items);
        }
    }

    /// Gives back room for `bytes` that left for the socket, and lets stalled consumers draw again.
    ///
    /// Called once per batch with the sum of [`Delivery::cost_bytes`].
    pub fn released(&self, bytes: usize, now: Instant, wakes: &mut Wakes) {
        let resumed = {
            let mut state = self.state.lock();
            debug_assert!(bytes <= state.bytes, "released what was never taken");
            state.bytes = state.bytes.saturating_sub(bytes);
            // Half empty, so that a consumer does not stop and start for every message.
            if state.bytes > self.bytes_max / 2 {
                return;
            }
            std::mem::take(&mut state.stalled)
        };
        queue::resume(resumed, now, wakes);
    }

    /// Unsent bytes, as counted against the bound.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// Holds the outbox for deliveries to one of its consumers.
    #[inline]
    pub(crate) fn begin<'a>(self: &'a Arc<Self>, consumer: &'a Arc<Consumer>) -> Handing<'a> {
        Handing {
            outbox: self,
            consumer,
            state: self.state.lock(),
        }
    }

    /// Takes an answer; false if the connection is gone or has not taken too many before it.
    pub(crate) fn push_reply(
        self: &Arc<Self>,
        consumer: Arc<ReplyConsumer>,
        message: Message,
        wakes: &mut Wakes,
    ) -> bool {
        let mut state = self.state.lock();
        if state.closed || state.bytes >= REPLY_BYTES_MAX {
            return false;
        }
        let reply = Reply { consumer, message };
        state.bytes += reply.cost_bytes();
        state.items.push_back(OutboxItem::Reply(reply));
        self.notify(&mut state, wakes);
        true
    }

    /// Takes a cancellation, however full it is: one per consumer at most.
    pub(crate) fn push_cancelled(self: &Arc<Self>, consumer: Arc<Consumer>, wakes: &mut Wakes) {
        let mut state = self.state.lock();
        if !state.closed {
            state
                .items
                .push_back(OutboxItem::ConsumerCancelled(consumer));
            self.notify(&mut state, wakes);
        }
    }

    /// Drops a consumer that left its queue while it was stalled.
    pub(crate) fn forget(&self, consumer: &Arc<Consumer>) {
        let mut state = self.state.lock();
        state
            .stalled
            .retain(|stalled| !Arc::ptr_eq(stalled, consumer));
    }

    /// Takes out what waits for one channel, which is closed. Its deliveries are given back; their bytes
    /// stay counted until [`Outbox::released`].
    pub(crate) fn withdraw(&self, channel: u16) -> Vec<Deliveries> {
        let mut state = self.state.lock();
        let mut withdrawn = Vec::new();
        for item in std::mem::take(&mut state.items) {
            match item {
                OutboxItem::Deliver(deliveries) if deliveries.consumer.channel == channel => {
                    withdrawn.push(deliveries);
                }
                OutboxItem::ConsumerCancelled(consumer) if consumer.channel == channel => {}
                OutboxItem::Reply(reply) if reply.consumer.channel() == channel => {
                    state.bytes = state.bytes.saturating_sub(reply.cost_bytes());
                }
                OutboxItem::Deliver(_)
                | OutboxItem::Reply(_)
                | OutboxItem::ConsumerCancelled(_) => {
                    state.items.push_back(item);
                }
            }
        }
        withdrawn
    }

    /// Takes nothing any more; gives back what was never taken.
    pub(crate) fn close(&self) -> VecDeque<OutboxItem> {
        let mut state = self.state.lock();
        state.closed = true;
        state.stalled.clear();
        std::mem::take(&mut state.items)
    }

    fn notify(self: &Arc<Self>, state: &mut State, wakes: &mut Wakes) {
        if !state.notified {
            state.notified = true;
            wakes.add(self);
        }
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Outbox")
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

/// What a delivery of `message` counts in an outbox, in bytes.
fn cost_bytes(message: &Message) -> usize {
    OUTBOX_ITEM_BYTES + message.memory_bytes()
}

/// Connections to wake once all locks are gone; filled by broker calls, one entry per connection and
/// batch. Dropping it wakes them, so none is forgotten.
///
/// A session keeps one for all that it handles of one read, and so pays for a wake-up once.
#[derive(Default)]
pub struct Wakes(SmallVec<[Arc<Outbox>; 8]>);

impl Wakes {
    /// Nobody to wake yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes everybody noted so far.
    pub fn wake_all(&mut self) {
        for outbox in self.0.drain(..) {
            outbox.waker.wake();
        }
    }

    fn add(&mut self, outbox: &Arc<Outbox>) {
        self.0.push(Arc::clone(outbox));
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.wake_all();
    }
}

impl fmt::Debug for Wakes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Wakes({})", self.0.len())
    }
}
