//! Consuming, fetching, and what happens when a channel or a connection ends.
//!
//! Spec: AMQP 0-9-1, `basic.consume`, `basic.cancel`, `basic.get`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::amqp::field::FieldTable;

use super::super::access::Access;
use super::super::consumer::{AckMode, ChannelLimiter, Consumer, Prefetch, QosScope};
use super::super::error::{Error, Resource, ResourceKind};
use super::super::name::Name;
use super::super::outbox::{Deliveries, OutboxItem, Wakes};
use super::super::queue::arguments::{ConsumerArguments, QueueKind};
use super::super::queue::{
    Cancelled, ConsumeRefused, DeleteConditions, Filter, Got, MessageSeq, NewConsumer, Queue,
    Settle,
};
use super::super::replies::{REPLY_NAME_PREFIX, REPLY_QUEUE, ReplyConsumer};
use super::{Connection, Vhost, without_line_ends};

/// `basic.consume`.
#[derive(Clone, Copy, Debug)]
pub struct Consume<'a> {
    /// The queue.
    pub queue: &'a [u8],
    /// The channel of the connection.
    pub channel: u16,
    /// The tag; the session has seen to it that the channel has no other of that name.
    pub tag: &'a [u8],
    /// Whether deliveries are acknowledged.
    pub ack_mode: AckMode,
    /// Nobody else may consume.
    pub exclusive: bool,
    /// `x-priority` means something here; the rest is the session's to look at.
    pub arguments: &'a FieldTable,
    /// How much may be unsettled; ignored without acknowledgements.
    pub prefetch: Prefetch,
    /// What the channel's consumers share.
    pub limiter: &'a Arc<ChannelLimiter>,
}

/// `basic.get`.
#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    /// The queue.
    pub queue: &'a [u8],
    /// Whether what is fetched is acknowledged.
    pub ack_mode: AckMode,
}

impl Vhost {
    /// Starts a consumer. Messages may be in the outbox when this returns: the session sends
    /// `consume-ok` before it takes them.
    pub fn consume(
        &self,
        by: &Connection,
        consume: &Consume<'_>,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<Arc<Consumer>, Error> {
        let name = &*without_line_ends(consume.queue);
        self.authorize(by, ResourceKind::Queue, name, Access::Read)?;
        let queue = self.usable_queue(by, name)?;
        let resource = self.queue_resource(name);
        let kind = queue.kind();
        let read = ConsumerArguments::read(consume.arguments, kind, &resource)?;
        check_mode(consume, kind, &resource)?;
        let consumer_count_max = self.shared.limits.consumers_per_queue_max;
        let new = NewConsumer {
            outbox: Arc::clone(&by.outbox),
            limiter: Arc::clone(consume.limiter),
            window: (consume.prefetch.bytes_max != 0)
                .then(|| Arc::new(ChannelLimiter::window(consume.prefetch.bytes_max))),
            channel: consume.channel,
            by: (
                by.channel_pid(consume.channel).into_boxed_str(),
                by.user.name().clone(),
            ),
            tag: Name::new(consume.tag),
            ack_mode: consume.ack_mode,
            // The other types take the flag and mean nothing by it (RabbitMQ).
            exclusive: consume.exclusive && kind == QueueKind::Classic,
            prefetch_count_max: consume.prefetch.count_max.into(),
            priority: read.priority,
            offset: read.offset,
            filter: Filter {
                values: read.filter,
                match_unfiltered: read.match_unfiltered,
            },
            arguments: consume.arguments.detached(),
            consumer_count_max,
        };
        let consumer = queue
            .consume(new, now, wakes)
            .map_err(|refused| match refused {
                ConsumeRefused::InExclusiveUse => Error::ExclusiveUse { resource },
                ConsumeRefused::Gone => self.no_queue(name),
                ConsumeRefused::TooMany => Error::LimitReached {
                    resource,
                    limited: "consumer",
                    count_max: consumer_count_max,
                },
            })?;
        self.consumer_came(&consumer);
        Ok(consumer)
    }

    /// Starts to wait for answers on a channel (`basic.consume` of the pseudo-queue). The session sees to it
    /// that a channel does so once.
    pub fn consume_replies(&self, by: &Connection, channel: u16, tag: &[u8]) -> Arc<ReplyConsumer> {
        let name = self.shared.names.name(REPLY_NAME_PREFIX);
        let name = Name::from(name.as_str());
        self.replies.add(name, Name::new(tag), channel, &by.outbox)
    }

    /// Ends the waiting for answers; later ones are dropped.
    pub fn cancel_replies(&self, consumer: &ReplyConsumer) {
        self.replies.remove(consumer);
    }

    /// Whether a name that belongs to direct reply-to stands for anything: the pseudo-queue always does, an
    /// asker's name as long as it waits.
    ///
    /// # Errors
    /// 404, as for a queue that does not exist.
    pub fn check_reply_queue(&self, name: &[u8]) -> Result<(), Error> {
        if name == REPLY_QUEUE || self.replies.find(name).is_some() {
            return Ok(());
        }
        Err(self.no_queue(name))
    }

    /// A consumer tag that was never used.
    #[must_use]
    pub fn consumer_tag(&self) -> Name {
        Name::from(self.shared.names.name("amq.ctag-").as_str())
    }

    /// Ends a consumer; what it holds stays with its channel. An auto-delete queue goes with its last.
    ///
    /// Deliveries that were under way are still in the outbox: the session takes them before it sends
    /// `cancel-ok`.
    pub fn cancel(
        &self,
        consumer: &Arc<Consumer>,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<(), Error> {
        let queue = consumer.queue();
        let cancelled = queue.cancel(consumer, now);
        if cancelled != Cancelled::Unknown {
            self.consumer_went(consumer);
        }
        match cancelled {
            Cancelled::Last if queue.is_auto_delete() => {
                self.delete_queue(queue, DeleteConditions::IF_UNUSED, wakes)
                    .map(|_| ())
                    .or_else(|error| match error {
                        // Somebody came meanwhile.
                        Error::InUse { .. } => Ok(()),
                        other => Err(other),
                    })
            }
            Cancelled::TakenOver => {
                queue.draw(now, wakes);
                Ok(())
            }
            Cancelled::Last | Cancelled::OthersRemain | Cancelled::Unknown => Ok(()),
        }
    }

    /// Fetches one message, if any waits.
    // req: STREAM-4
    pub fn get(
        &self,
        by: &Connection,
        get: Get<'_>,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<(Arc<Queue>, Option<Got>), Error> {
        let name = &*without_line_ends(get.queue);
        self.authorize(by, ResourceKind::Queue, name, Access::Read)?;
        let queue = self.usable_queue(by, name)?;
        if queue.kind() == QueueKind::Stream {
            return Err(Error::NotForStreams {
                what: "basic.get",
                resource: self.queue_resource(name),
            });
        }
        let got = queue.get(get.ack_mode, now, wakes);
        Ok((queue, got))
    }

    /// Ends a channel: its consumers go, then everything that it did not settle goes back to its place,
    /// what is still in the outbox included.
    ///
    /// `unsettled` is what the session took and nobody settled.
    pub fn close_channel(
        &self,
        by: &Connection,
        channel: u16,
        consumers: &[Arc<Consumer>],
        unsettled: &[(Arc<Queue>, MessageSeq)],
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<(), Error> {
        // First all of them, so that nothing that goes back comes again on the same channel.
        let mut result = Ok(());
        let mut last_of = Vec::new();
        let mut taken_over = Vec::new();
        for consumer in consumers {
            let cancelled = consumer.queue().cancel(consumer, now);
            if cancelled != Cancelled::Unknown {
                self.consumer_went(consumer);
            }
            match cancelled {
                Cancelled::Last => last_of.push(Arc::clone(consumer.queue())),
                Cancelled::TakenOver => taken_over.push(Arc::clone(consumer.queue())),
                Cancelled::OthersRemain | Cancelled::Unknown => {}
            }
        }
        let withdrawn = by.outbox.withdraw(channel);
        let withdrawn_bytes = withdrawn.iter().map(Deliveries::cost_bytes).sum();
        let withdrawn = withdrawn.iter().flat_map(unsettled_of);
        requeue(unsettled.iter().cloned().chain(withdrawn), now, wakes);
        for queue in taken_over {
            queue.draw(now, wakes);
        }
        by.outbox.released(withdrawn_bytes, now, wakes);
        for queue in last_of.into_iter().filter(|queue| queue.is_auto_delete()) {
            match self.delete_queue(&queue, DeleteConditions::IF_UNUSED, wakes) {
                Ok(_) | Err(Error::InUse { .. }) => {}
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Ends a connection, after each of its channels was closed: its exclusive queues go.
    pub fn disconnect(
        &self,
        by: &Connection,
        now: Instant,
        wakes: &mut Wakes,
    ) -> Result<(), Error> {
        let mut result = Ok(());
        let left = by.outbox.close();
        let left = left.iter().filter_map(|item| match item {
            OutboxItem::Deliver(deliveries) => Some(deliveries),
            OutboxItem::Reply(_) | OutboxItem::ConsumerCancelled(_) => None,
        });
        requeue(left.flat_map(unsettled_of), now, wakes);
        for queue in std::mem::take(&mut *by.exclusive_queues.lock()) {
            if let Err(error) = self.delete_queue(&queue, DeleteConditions::default(), wakes) {
                result = Err(error);
            }
        }
        result
    }
}

/// Refuses a prefetch or acknowledgement mode that the queue's type does not know.
// req: QUORUM-5
// req: STREAM-3
fn check_mode(consume: &Consume<'_>, kind: QueueKind, resource: &Resource) -> Result<(), Error> {
    let resource = || resource.clone();
    let is_stream = kind == QueueKind::Stream;
    let (has_count, has_global) = match consume.prefetch.scope {
        QosScope::Consumer => (
            consume.prefetch.count_max != 0,
            consume.limiter.is_limited(),
        ),
        QosScope::Channel => (consume.limiter.count_max() != 0, false),
    };
    if is_stream && !has_count {
        return Err(Error::PrefetchNotSet {
            resource: resource(),
        });
    }
    if kind != QueueKind::Classic && has_global {
        return Err(Error::GlobalQos {
            resource: resource(),
        });
    }
    if is_stream && consume.ack_mode == AckMode::Automatic {
        return Err(Error::NotForStreams {
            what: "automatic acknowledgement",
            resource: resource(),
        });
    }
    Ok(())
}

/// What deliveries that were never sent leave to be settled.
fn unsettled_of(deliveries: &Deliveries) -> impl Iterator<Item = (Arc<Queue>, MessageSeq)> {
    let messages = match deliveries.consumer.ack_mode() {
        AckMode::Manual => deliveries.messages.as_slice(),
        AckMode::Automatic => &[],
    };
    let queue = deliveries.queue();
    messages
        .iter()
        .map(|delivery| (Arc::clone(queue), delivery.seq))
}

/// Puts messages back to their places, with one lock for each queue.
fn requeue(
    unsettled: impl Iterator<Item = (Arc<Queue>, MessageSeq)>,
    now: Instant,
    wakes: &mut Wakes,
) {
    let mut by_queue: HashMap<u64, (Arc<Queue>, Vec<MessageSeq>)> = HashMap::new();
    for (queue, seq) in unsettled {
        let of_queue = by_queue
            .entry(queue.id().0)
            .or_insert_with(|| (queue, Vec::new()));
        of_queue.1.push(seq);
    }
    let mut queues: Vec<_> = by_queue.into_values().collect();
    queues.sort_by_key(|(queue, _)| queue.id());
    for (queue, seqs) in queues {
        queue.settle(&seqs, Settle::Return, now, wakes);
    }
}
