//! A channel into a broker of this process: calls in the place of frames.
//!
//! Owns: the caller's connection to the core, with its outbox, and the consumers' deliveries between the outbox and
//! whoever takes them.
//! Bounds: what is delivered and not taken is at most the outbox's bytes
//! ([`outbox_bytes_max`](crate::config::ConnectionSettings::outbox_bytes_max)), and each consumer's prefetch.
//! Publishers wait while an alarm is on, as over AMQP.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::delivery::Settling;
use super::{
    ConsumeOptions, Consumer, DeclaredQueue, Delivery, EmbedError, ExchangeOptions, Message,
    QueueOptions,
};
use crate::amqp::field::FieldTable;
use crate::amqp::header::ContentHeader;
use crate::broker::{
    AckMode, BindingRequest, Body, ChannelLimiter, Connection, Consume, Consumer as CoreConsumer,
    Deliveries, Delivery as CoreDelivery, ExchangeDeclare, Get, Name, OutboxItem, Prefetch,
    Publish, PublishOutcome, Publisher, QueueDeclare, QueueDelete, Settle, User, Vhost, Waker,
    Wakes,
};
use crate::journal::Lsn;
use crate::server::{Inside, InsideUpload};

/// The one channel of its connection.
const CHANNEL: u16 = 1;
/// Bytes of a body that are handed to the payload store at once.
const PART_BYTES: usize = 256 * 1024;

/// A channel of an embedded broker; clones are the same channel. It ends with its last clone, consumer and delivery,
/// or with the broker.
///
/// What it declares as exclusive is its own. A consumer that is not asked for its next delivery holds up the others
/// of its channel when the channel's outbox is full of its deliveries: give a slow one a channel of its own.
#[derive(Clone, Debug)]
pub struct Channel {
    pub(super) shared: Arc<Shared>,
}

/// What a channel, its consumers and its deliveries share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) inside: Inside,
    connection: Connection,
    limiter: Arc<ChannelLimiter>,
    publisher: Mutex<Publisher>,
    inbox: Mutex<Inbox>,
    signal: Arc<Signal>,
    closed: CancellationToken,
}

/// Deliveries that left the outbox, for each consumer that has not ended, by tag.
#[derive(Debug, Default)]
struct Inbox {
    taken: VecDeque<OutboxItem>,
    consumers: HashMap<Name, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    consumer: Arc<CoreConsumer>,
    deliveries: VecDeque<CoreDelivery>,
    /// Its queue is gone: nothing more comes.
    has_ended: bool,
}

/// Wakes whoever waits for a delivery or for the end of an alarm.
#[derive(Debug, Default)]
struct Signal(Notify);

impl Waker for Signal {
    fn wake(&self) {
        self.0.notify_waiters();
    }
}

/// What became of a message that was published ahead; see [`Channel::publish_ahead`].
#[derive(Debug)]
#[must_use = "a message is safe only when its confirm says so"]
pub struct Confirm {
    shared: Arc<Shared>,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Routed(Option<Lsn>),
    Rejected,
    Unroutable,
}

impl Channel {
    pub(super) fn open(inside: Inside, user: &Arc<User>, vhost: &str) -> Result<Self, EmbedError> {
        let signal = Arc::new(Signal::default());
        let waker = Arc::clone(&signal) as Arc<dyn Waker>;
        let connection = inside.broker().connect(user, vhost.as_bytes(), waker)?;
        let shared = Shared {
            inside,
            connection,
            limiter: Arc::new(ChannelLimiter::new()),
            publisher: Mutex::new(Publisher::on_channel(CHANNEL)),
            inbox: Mutex::default(),
            signal,
            closed: CancellationToken::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Declares a queue, or checks that it is as declared; an empty name lets the broker make one. It is on disk
    /// when this returns, if it is durable.
    ///
    /// # Errors
    /// If there is another of that name, or the user may not.
    pub async fn declare_queue(
        &self,
        name: &str,
        options: &QueueOptions,
    ) -> Result<DeclaredQueue, EmbedError> {
        let shared = &self.shared;
        shared.check_open()?;
        let declare = QueueDeclare {
            name: name.as_bytes(),
            passive: false,
            durable: options.durable,
            exclusive: options.exclusive,
            auto_delete: options.auto_delete,
            arguments: &options.arguments,
        };
        let declared = {
            // As in `consume`: an exclusive queue that is made behind the end would never go.
            let _inbox = options.exclusive.then(|| shared.inbox.lock());
            shared.check_open()?;
            shared
                .vhost()
                .queue_declare(&shared.connection, &declare, shared.now())?
        };
        shared.settle_definitions().await?;
        Ok(DeclaredQueue {
            name: declared.name.to_string(),
            message_count: declared.message_count,
            consumer_count: declared.consumer_count,
        })
    }

    /// Deletes a queue with what is in it; gives how many messages waited there, 0 if there is none.
    ///
    /// # Errors
    /// If the user may not.
    pub async fn delete_queue(&self, name: &str) -> Result<u32, EmbedError> {
        let shared = &self.shared;
        shared.check_open()?;
        let delete = QueueDelete {
            name: name.as_bytes(),
            if_unused: false,
            if_empty: false,
        };
        let mut wakes = Wakes::new();
        let count = shared
            .vhost()
            .queue_delete(&shared.connection, &delete, &mut wakes)?;
        drop(wakes);
        shared.settle_definitions().await?;
        Ok(count)
    }

    /// Drops what waits in a queue; gives how many messages that were.
    ///
    /// # Errors
    /// If there is no such queue, or the user may not.
    pub fn purge_queue(&self, name: &str) -> Result<u32, EmbedError> {
        let shared = &self.shared;
        shared.check_open()?;
        Ok(shared
            .vhost()
            .queue_purge(&shared.connection, name.as_bytes())?)
    }

    /// Declares an exchange, or checks that it is as declared.
    ///
    /// # Errors
    /// If there is another of that name, or the user may not.
    pub async fn declare_exchange(
        &self,
        name: &str,
        options: &ExchangeOptions,
    ) -> Result<(), EmbedError> {
        let shared = &self.shared;
        shared.check_open()?;
        let declare = ExchangeDeclare {
            name: name.as_bytes(),
            kind: options.kind.as_bytes(),
            passive: false,
            durable: options.durable,
            auto_delete: options.auto_delete,
            internal: false,
            arguments: &options.arguments,
        };
        shared
            .vhost()
            .exchange_declare(&shared.connection, &declare)?;
        shared.settle_definitions().await
    }

    /// Binds a queue to an exchange.
    ///
    /// # Errors
    /// If one of them is not there, or the user may not.
    pub async fn bind_queue(
        &self,
        queue: &str,
        exchange: &str,
        routing_key: &str,
    ) -> Result<(), EmbedError> {
        let shared = &self.shared;
        shared.check_open()?;
        let request = BindingRequest {
            source: exchange.as_bytes(),
            destination: queue.as_bytes(),
            routing_key: routing_key.as_bytes(),
            arguments: &FieldTable::EMPTY,
        };
        let mut wakes = Wakes::new();
        let now = shared.now();
        shared
            .vhost()
            .queue_bind(&shared.connection, &request, now, &mut wakes)?;
        drop(wakes);
        shared.settle_definitions().await
    }

    /// Publishes a message and waits until it is safe: in all its queues, and on disk where it is persistent and the
    /// queue durable.
    ///
    /// # Errors
    /// [`EmbedError::Unroutable`] if no queue takes a mandatory message, [`EmbedError::Nacked`] if one refuses it,
    /// [`EmbedError::Storage`] if the disk failed before it was safe; or what the broker refuses.
    pub async fn publish(
        &self,
        exchange: &str,
        routing_key: &str,
        message: Message,
    ) -> Result<(), EmbedError> {
        let confirm = self.publish_ahead(exchange, routing_key, message).await?;
        confirm.wait().await
    }

    /// Publishes a message, and leaves the wait for its safety to [`Confirm::wait`]: many may be under way.
    ///
    /// Waits while the broker is short of memory or disk, and while a large body is stored.
    ///
    /// # Errors
    /// What the broker refuses.
    pub async fn publish_ahead(
        &self,
        exchange: &str,
        routing_key: &str,
        message: Message,
    ) -> Result<Confirm, EmbedError> {
        let shared = &self.shared;
        let body = message.body.clone();
        let settings = shared.inside.session_settings();
        shared.check_size(body.len() as u64)?;
        message.check(shared.connection.user().name().as_bytes())?;
        shared.wait_for_alarms().await?;
        let threshold_bytes = settings.payload_threshold_bytes.unwrap_or(u64::MAX);
        let body = match body.len() as u64 >= threshold_bytes {
            false => Body::Inline(body),
            true => {
                let mut writer = self.store_body(body.len() as u64)?;
                writer.write(body).await?;
                return writer.publish(exchange, routing_key, message).await;
            }
        };
        shared.publish(exchange, routing_key, &message, body)
    }

    /// Begins a message whose body of `size_bytes` comes piece by piece and need never be in memory as a whole; it
    /// is stored as a payload whatever its size. The message's own body does not count.
    ///
    /// # Errors
    /// If the body will be larger than the broker takes, or the broker is shut down.
    pub fn store_body(&self, size_bytes: u64) -> Result<PayloadWriter, EmbedError> {
        self.shared.check_open()?;
        self.shared.check_size(size_bytes)?;
        let scope = self.shared.vhost().scope();
        Ok(PayloadWriter {
            upload: self.shared.inside.begin_upload(scope, size_bytes),
            shared: Arc::clone(&self.shared),
        })
    }

    /// Starts to consume a queue.
    ///
    /// # Errors
    /// If there is no such queue, somebody has it exclusively, or the user may not.
    pub fn consume(&self, queue: &str, options: &ConsumeOptions) -> Result<Consumer, EmbedError> {
        let shared = &self.shared;
        shared.check_open()?;
        let tag = shared.vhost().consumer_tag();
        let ack_mode = match options.no_ack {
            true => AckMode::Automatic,
            false => AckMode::Manual,
        };
        let consume = Consume {
            queue: queue.as_bytes(),
            channel: CHANNEL,
            tag: tag.as_bytes(),
            ack_mode,
            exclusive: options.exclusive,
            arguments: &options.arguments,
            prefetch: Prefetch::of(options.prefetch_count_max),
            limiter: &shared.limiter,
        };
        let mut wakes = Wakes::new();
        let consumer = {
            // Nothing is taken out of the outbox before its consumer is known here.
            let mut inbox = shared.inbox.lock();
            // Whoever closes says so first and then takes the inbox: what is consumed behind that would never end.
            shared.check_open()?;
            let (vhost, now) = (shared.vhost(), shared.now());
            let consumer = vhost.consume(&shared.connection, &consume, now, &mut wakes)?;
            let waiting = Waiting {
                consumer: Arc::clone(&consumer),
                deliveries: VecDeque::new(),
                has_ended: false,
            };
            inbox.consumers.insert(tag, waiting);
            consumer
        };
        drop(wakes);
        Ok(Consumer::new(Arc::clone(shared), consumer))
    }

    /// Takes one message out of a queue, if any waits; it is to be settled.
    ///
    /// # Errors
    /// If there is no such queue, or the user may not.
    pub fn get(&self, queue: &str) -> Result<Option<Delivery>, EmbedError> {
        let shared = &self.shared;
        shared.check_open()?;
        let get = Get {
            queue: queue.as_bytes(),
            ack_mode: AckMode::Manual,
        };
        let mut wakes = Wakes::new();
        let (queue, got) = shared
            .vhost()
            .get(&shared.connection, get, shared.now(), &mut wakes)?;
        Ok(got.map(|got| {
            let settling = Settling::Owed {
                queue,
                seq: got.seq,
            };
            Delivery::new(Arc::clone(shared), got.message, got.redelivered, settling)
        }))
    }

    /// Ends the channel now: its consumers end, and what they did not take goes back to its queues, as do deliveries
    /// that are settled after this.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl Confirm {
    /// Waits until the message is safe.
    ///
    /// # Errors
    /// As [`Channel::publish`].
    pub async fn wait(self) -> Result<(), EmbedError> {
        match self.outcome {
            Outcome::Routed(lsn) => self.shared.wait_durable(lsn).await,
            Outcome::Rejected => Err(EmbedError::Nacked),
            Outcome::Unroutable => Err(EmbedError::Unroutable),
        }
    }
}

/// A large body on its way into the broker; dropping it gives it up.
#[derive(Debug)]
pub struct PayloadWriter {
    upload: InsideUpload,
    shared: Arc<Shared>,
}

impl PayloadWriter {
    /// Adds bytes, waiting while the disk is behind.
    ///
    /// # Errors
    /// Never for what the store refuses: [`Self::publish`] says that. If the channel is closed.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), EmbedError> {
        self.shared.check_open()?;
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(PART_BYTES));
            if !self.upload.push(part).await {
                break;
            }
        }
        Ok(())
    }

    /// Publishes `message` with this body, once the body is on disk.
    ///
    /// # Errors
    /// If it is not as long as was said, or cannot be stored; or what the broker refuses.
    pub async fn publish(
        self,
        exchange: &str,
        routing_key: &str,
        message: Message,
    ) -> Result<Confirm, EmbedError> {
        let Self { upload, shared } = self;
        message.check(shared.connection.user().name().as_bytes())?;
        let stored = upload.finish().await;
        let (id, size_bytes, reference) = stored.map_err(EmbedError::Payload)?;
        let body = Body::Payload(shared.vhost().hold_payload(id, size_bytes));
        drop(reference);
        shared.publish(exchange, routing_key, &message, body)
    }
}

impl Shared {
    pub(super) fn vhost(&self) -> &Arc<Vhost> {
        self.connection.vhost()
    }

    /// The broker's time.
    pub(super) fn now(&self) -> Instant {
        self.inside.broker().time(Instant::now())
    }

    pub(super) fn check_open(&self) -> Result<(), EmbedError> {
        match (self.inside.failure(), self.closed.is_cancelled()) {
            (Some(failure), _) => Err(failure.into()),
            (None, true) => Err(EmbedError::Closed),
            (None, false) => Ok(()),
        }
    }

    fn check_size(&self, got_bytes: u64) -> Result<(), EmbedError> {
        let settings = self.inside.session_settings();
        match settings.connection.message_bytes_max {
            Some(max_bytes) if got_bytes > max_bytes => Err(EmbedError::BodyTooLarge {
                got_bytes,
                max_bytes,
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn publish(
        self: &Arc<Self>,
        exchange: &str,
        routing_key: &str,
        message: &Message,
        body: Body,
    ) -> Result<Confirm, EmbedError> {
        self.check_open()?;
        let name_bytes = [exchange.len(), routing_key.len()];
        if name_bytes.iter().any(|bytes| *bytes > NAME_BYTES_MAX) {
            let what = "exchange and routing key have 255 bytes at most";
            return Err(EmbedError::Invalid(what.to_owned()));
        }
        let header = ContentHeader::new(0, &message.properties);
        let properties = header
            .properties_ref()
            .map_err(|error| EmbedError::Invalid(error.to_string()))?;
        let publish = Publish {
            exchange: exchange.as_bytes(),
            routing_key: routing_key.as_bytes(),
            header: &header.raw,
            properties: &properties,
            body,
        };
        let mut wakes = Wakes::new();
        let published = {
            let mut publisher = self.publisher.lock();
            let (vhost, now) = (self.vhost(), self.now());
            vhost.publish(&self.connection, &mut publisher, publish, now, &mut wakes)
        };
        drop(wakes);
        let outcome = match published?.outcome {
            PublishOutcome::Routed { wait_for } => Outcome::Routed(wait_for),
            PublishOutcome::Unroutable if message.mandatory => Outcome::Unroutable,
            PublishOutcome::Unroutable => Outcome::Routed(None),
            PublishOutcome::Rejected => Outcome::Rejected,
        };
        Ok(Confirm {
            shared: Arc::clone(self),
            outcome,
        })
    }

    /// Waits until the journal is durable up to `lsn`.
    async fn wait_durable(&self, lsn: Option<Lsn>) -> Result<(), EmbedError> {
        let Some(lsn) = lsn else {
            return Ok(());
        };
        let mut durable = self.inside.durable();
        let storage_failed = self.inside.storage_failed();
        tokio::select! {
            biased;
            reached = durable.wait_for(|durable| *durable >= lsn) => {
                reached.map(drop).map_err(|_| EmbedError::Closed)
            }
            () = storage_failed.cancelled() => match self.inside.failure() {
                Some(failure) => Err(failure.into()),
                None => Err(EmbedError::Closed),
            },
        }
    }

    /// Waits until what was declared cannot be belied by a crash.
    async fn settle_definitions(&self) -> Result<(), EmbedError> {
        self.wait_durable(self.vhost().pending_definitions()).await
    }

    /// Waits until memory and disk suffice.
    async fn wait_for_alarms(&self) -> Result<(), EmbedError> {
        let alarms = self.inside.broker().alarms();
        let waker = Arc::clone(&self.signal) as Arc<dyn Waker>;
        let mut wait = None;
        while alarms.is_any_on() && !wait.is_some_and(|wait| alarms.is_over(wait)) {
            let mut woken = std::pin::pin!(self.signal.0.notified());
            woken.as_mut().enable();
            if wait.is_none() {
                wait = alarms.wake_when_over(&waker);
            }
            if wait.is_none() {
                break;
            }
            tokio::select! {
                () = woken => {}
                () = self.closed.cancelled() => {}
                () = self.inside.storage_failed().cancelled() => {}
            }
            self.check_open()?;
        }
        self.check_open()
    }

    /// The next delivery for a consumer; `None` when none comes any more.
    pub(super) async fn next(self: &Arc<Self>, consumer: &Arc<CoreConsumer>) -> Option<Delivery> {
        loop {
            let mut woken = std::pin::pin!(self.signal.0.notified());
            woken.as_mut().enable();
            if self.closed.is_cancelled() || self.inside.failure().is_some() {
                return None;
            }
            match self.take(consumer) {
                Taken::Delivery(delivery) => return Some(self.hand_over(consumer, delivery)),
                Taken::Nothing => {}
                Taken::Ended => return None,
            }
            tokio::select! {
                () = woken => {}
                () = self.closed.cancelled() => return None,
                () = self.inside.storage_failed().cancelled() => return None,
            }
        }
    }

    /// Takes a delivery without waiting.
    pub(super) fn try_next(self: &Arc<Self>, consumer: &Arc<CoreConsumer>) -> Option<Delivery> {
        match self.take(consumer) {
            Taken::Delivery(delivery) => Some(self.hand_over(consumer, delivery)),
            Taken::Nothing | Taken::Ended => None,
        }
    }

    fn take(&self, consumer: &Arc<CoreConsumer>) -> Taken {
        let (taken, others_have) = {
            let mut inbox = self.inbox.lock();
            let others_have = self.sort(&mut inbox, consumer);
            let Some(waiting) = inbox.consumers.get_mut(consumer.tag()) else {
                return Taken::Ended;
            };
            let taken = match waiting.deliveries.pop_front() {
                Some(delivery) => Taken::Delivery(delivery),
                None if waiting.has_ended => Taken::Ended,
                None => Taken::Nothing,
            };
            (taken, others_have)
        };
        if others_have {
            self.signal.wake();
        }
        if let Taken::Delivery(delivery) = &taken {
            let (cost_bytes, mut wakes) = (delivery.cost_bytes(), Wakes::new());
            let outbox = self.connection.outbox();
            outbox.released(cost_bytes, self.now(), &mut wakes);
        }
        taken
    }

    /// Moves what is in the outbox to its consumers; whether another than `this` got something.
    fn sort(&self, inbox: &mut Inbox, this: &Arc<CoreConsumer>) -> bool {
        let mut taken = std::mem::take(&mut inbox.taken);
        self.connection.outbox().take(&mut taken);
        let mut others_have = false;
        for item in taken.drain(..) {
            match item {
                OutboxItem::Deliver(Deliveries { consumer, messages }) => {
                    others_have |= !Arc::ptr_eq(&consumer, this);
                    match inbox.consumers.get_mut(consumer.tag()) {
                        Some(waiting) => waiting.deliveries.extend(messages),
                        None => self.give_back(&consumer, messages),
                    }
                }
                OutboxItem::ConsumerCancelled(consumer) => {
                    others_have |= !Arc::ptr_eq(&consumer, this);
                    if let Some(waiting) = inbox.consumers.get_mut(consumer.tag()) {
                        waiting.has_ended = true;
                    }
                }
                // Nobody asks for answers on these channels.
                OutboxItem::Reply(_) => {}
            }
        }
        inbox.taken = taken;
        others_have
    }

    fn hand_over(self: &Arc<Self>, consumer: &CoreConsumer, delivery: CoreDelivery) -> Delivery {
        let settling = match consumer.ack_mode() {
            AckMode::Manual => Settling::Owed {
                queue: Arc::clone(consumer.queue()),
                seq: delivery.seq,
            },
            AckMode::Automatic => Settling::Settled,
        };
        let (message, redelivered) = (delivery.message, delivery.redelivered);
        Delivery::new(Arc::clone(self), message, redelivered, settling)
    }

    /// Puts deliveries back that nobody took.
    fn give_back(
        &self,
        consumer: &CoreConsumer,
        deliveries: impl IntoIterator<Item = CoreDelivery>,
    ) {
        let (now, mut wakes) = (self.now(), Wakes::new());
        let mut cost_bytes = 0;
        for delivery in deliveries {
            cost_bytes += delivery.cost_bytes();
            if consumer.ack_mode() == AckMode::Manual {
                let queue = consumer.queue();
                queue.settle(&[delivery.seq], Settle::Return, now, &mut wakes);
            }
        }
        self.connection
            .outbox()
            .released(cost_bytes, now, &mut wakes);
    }

    /// Ends a consumer; what it did not take goes back.
    pub(super) fn cancel(&self, consumer: &Arc<CoreConsumer>) -> Result<(), EmbedError> {
        let mut wakes = Wakes::new();
        let waiting = {
            let mut inbox = self.inbox.lock();
            self.sort(&mut inbox, consumer);
            inbox.consumers.remove(consumer.tag())
        };
        let Some(waiting) = waiting else {
            return Ok(());
        };
        let cancelled = self.vhost().cancel(consumer, self.now(), &mut wakes);
        drop(wakes);
        self.give_back(consumer, waiting.deliveries);
        // What came between the look and the end finds nobody, and goes back too.
        self.sort(&mut self.inbox.lock(), consumer);
        self.signal.wake();
        Ok(cancelled?)
    }

    /// Ends everything on this channel; the second time there is nothing left to end.
    pub(super) fn close(&self) {
        self.closed.cancel();
        let mut wakes = Wakes::new();
        let consumers = std::mem::take(&mut self.inbox.lock().consumers);
        let ended: Vec<_> = consumers
            .values()
            .map(|waiting| &waiting.consumer)
            .cloned()
            .collect();
        let vhost = self.vhost();
        let now = self.now();
        let closed = vhost.close_channel(&self.connection, CHANNEL, &ended, &[], now, &mut wakes);
        for waiting in consumers.into_values() {
            self.give_back(&waiting.consumer, waiting.deliveries);
        }
        let gone = vhost.disconnect(&self.connection, now, &mut wakes);
        if let Err(error) = closed.and(gone) {
            tracing::error!(%error, "cannot note the end of a channel");
        }
        self.signal.wake();
    }

    /// Whether the channel has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.is_closed() {
            self.close();
        }
    }
}

/// What a consumer finds.
enum Taken {
    Delivery(CoreDelivery),
    Nothing,
    Ended,
}

/// Names of exchanges and routing keys are short strings.
const NAME_BYTES_MAX: usize = 255;
