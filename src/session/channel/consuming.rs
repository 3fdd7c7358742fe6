//! Consuming, fetching and settling.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};

use crate::amqp::field::{FieldTable, ShortString};
use crate::amqp::frame::{self, FrameKind};
use crate::amqp::limits::{FRAME_END, FRAME_HEADER_BYTES};
use crate::amqp::method::basic;
use crate::amqp::reply::ReplyCode;
use crate::broker::{
    AckMode, BodyRef, Consume, Deliveries, Get, Message, Queue, REPLY_QUEUE, Settle, TracedDelivery,
};

use super::publishing::{PAYLOAD_ARGUMENT, PayloadForm, put_content};
use super::topology::id_of;
use super::{Channel, Context, Mode, Reply, not_implemented};
use crate::session::failure::{Failure, MethodId};
use crate::session::tx::Settlement;
use crate::session::unsettled::Owed;

impl Channel {
    /// Limits what is sent ahead: by count, and by bytes where the settings say so.
    // req: QOS-1
    pub(super) fn qos(&mut self, method: &basic::Qos, cx: &mut Context<'_>) -> Result<(), Failure> {
        if method.prefetch_size != 0 && !cx.rules.counts_prefetch_size {
            let explanation = format!("prefetch_size!=0 ({})", method.prefetch_size);
            return Err(not_implemented(&explanation, id_of!(basic::Qos)));
        }
        self.qos.set(method, cx.now, cx.wakes);
        self.reply(&basic::QosOk {}, cx);
        Ok(())
    }

    pub(super) fn consume(
        &mut self,
        method: &basic::Consume,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let id = id_of!(basic::Consume);
        let queue = self.queue_name(&method.queue, id)?;
        let tag = if method.consumer_tag.is_empty() {
            let tag = cx.connection.vhost().consumer_tag();
            ShortString::try_from(tag.as_bytes()).unwrap_or(ShortString::EMPTY)
        } else {
            method.consumer_tag.detached()
        };
        if self.consumers.contains_key(&tag) {
            let explanation = format_args!("attempt to reuse consumer tag '{tag}'");
            return Err(Failure::new(ReplyCode::NotAllowed, explanation, id));
        }
        if queue.as_bytes() == REPLY_QUEUE {
            return self.consume_replies(method, tag, cx);
        }
        check_payload_argument(&method.arguments, id)?;
        let consume = Consume {
            queue: queue.as_bytes(),
            channel: self.number,
            tag: tag.as_bytes(),
            ack_mode: ack_mode(method.no_ack),
            exclusive: method.exclusive,
            arguments: &method.arguments,
            prefetch: self.qos.prefetch,
            limiter: &self.qos.limiter,
        };
        let consumer = cx
            .connection
            .vhost()
            .consume(cx.connection, &consume, cx.now, cx.wakes);
        let consumer = consumer.map_err(|error| Failure::broker(&error, id))?;
        let queue_timeout = queue_timeout(consumer.queue());
        self.timeout_min = self.timeout_min.into_iter().chain(queue_timeout).min();
        self.consumers.insert(tag.clone(), consumer);
        self.reply_unless(method.no_wait, &basic::ConsumeOk { consumer_tag: tag }, cx);
        Ok(())
    }

    /// Ends a consumer. What the queue handed over before is in the outbox: the session sends it before
    /// it calls [`Self::cancelled`].
    pub(in crate::session) fn cancel(
        &mut self,
        method: &basic::Cancel,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        self.flush_settled(cx);
        if self.cancel_replies(&method.consumer_tag, cx) {
            return Ok(());
        }
        if let Some(consumer) = self.consumers.remove(&method.consumer_tag) {
            let result = cx.connection.vhost().cancel(&consumer, cx.now, cx.wakes);
            result.map_err(|error| Failure::broker(&error, id_of!(basic::Cancel)))?;
        }
        Ok(())
    }

    /// Answers `basic.cancel`.
    pub(in crate::session) fn cancelled(&mut self, method: &basic::Cancel, cx: &mut Context<'_>) {
        self.replies_cancelled(&method.consumer_tag);
        let reply = basic::CancelOk {
            consumer_tag: method.consumer_tag.clone(),
        };
        self.reply_unless(method.no_wait, &reply, cx);
    }

    pub(super) fn get(&mut self, method: &basic::Get, cx: &mut Context<'_>) -> Result<(), Failure> {
        let id = id_of!(basic::Get);
        let name = self.queue_name(&method.queue, id)?;
        let get = Get {
            queue: name.as_bytes(),
            ack_mode: ack_mode(method.no_ack),
        };
        let got = cx
            .connection
            .vhost()
            .get(cx.connection, get, cx.now, cx.wakes);
        let (queue, got) = got.map_err(|error| Failure::broker(&error, id))?;
        let Some(got) = got else {
            self.breakdown
                .count(&queue, |counts| counts.fetched_empty += 1);
            self.reply(&basic::GetEmpty {}, cx);
            return Ok(());
        };
        if cx.connection.vhost().is_tracing() {
            let traced = TracedDelivery {
                channel: self.number,
                queue: queue.name().as_bytes(),
                message: &got.message,
                redelivered: got.redelivered,
            };
            let vhost = cx.connection.vhost();
            vhost.trace_delivery(cx.connection, traced, cx.now, cx.wakes);
        }
        self.last_tag += 1;
        let form = PayloadForm::wanted(None, queue.arguments());
        self.breakdown.count(&queue, |counts| {
            counts.redelivered += u64::from(got.redelivered);
            match method.no_ack {
                true => counts.fetched_no_ack += 1,
                false => counts.fetched += 1,
            }
        });
        if !method.no_ack {
            self.unsettled.push(self.last_tag, (queue, got.seq), cx.now);
        }
        let name = |bytes: &[u8]| ShortString::try_from(bytes).unwrap_or(ShortString::EMPTY);
        let reply = basic::GetOk {
            delivery_tag: self.last_tag,
            redelivered: got.redelivered,
            exchange: name(got.message.exchange()),
            routing_key: name(got.message.routing_key()),
            message_count: u32::try_from(got.remaining_count).unwrap_or(u32::MAX),
        };
        self.reply(&reply, cx);
        put_content(&got.message, self.number, form, cx);
        Ok(())
    }

    pub(super) fn recover(
        &mut self,
        requeue: bool,
        id: MethodId,
        reply: Reply,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        if !requeue {
            return Err(not_implemented("requeue=false", id));
        }
        for (queue, seq) in self.unsettled.take_all() {
            queue
                .check_settle(Settle::Requeue, "basic.recover")
                .map_err(|error| Failure::broker(&error, id))?;
            self.settle(queue, seq, Settle::Requeue, cx);
        }
        self.flush_settled(cx);
        if reply == Reply::Wanted {
            self.reply(&basic::RecoverOk {}, cx);
        }
        Ok(())
    }

    #[inline]
    pub(super) fn ack(&mut self, method: &basic::Ack, cx: &mut Context<'_>) -> Result<(), Failure> {
        let id = id_of!(basic::Ack);
        self.settle_tag(method.delivery_tag, method.multiple, Settle::Ack, id, cx)
    }

    pub(super) fn nack(
        &mut self,
        method: &basic::Nack,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let id = id_of!(basic::Nack);
        self.settle_tag(
            method.delivery_tag,
            method.multiple,
            refusal(method.requeue),
            id,
            cx,
        )
    }

    pub(super) fn reject(
        &mut self,
        method: &basic::Reject,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        let id = id_of!(basic::Reject);
        self.settle_tag(method.delivery_tag, false, refusal(method.requeue), id, cx)
    }

    #[inline]
    fn settle_tag(
        &mut self,
        tag: u64,
        multiple: bool,
        how: Settle,
        id: MethodId,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        if !multiple {
            let owed = self
                .unsettled
                .take(tag)
                .ok_or_else(|| unknown_tag(tag, id))?;
            return self.settle_one(tag, owed, how, id, cx);
        }
        let owed = match tag {
            0 => self.unsettled.take_all_tagged(),
            tag => self
                .unsettled
                .take_up_to(tag)
                .ok_or_else(|| unknown_tag(tag, id))?,
        };
        for (tag, owed) in owed {
            self.settle_one(tag, owed, how, id, cx)?;
        }
        Ok(())
    }

    #[inline]
    fn settle_one(
        &mut self,
        tag: u64,
        owed: Owed,
        how: Settle,
        id: MethodId,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        if how != Settle::Ack {
            owed.0
                .check_settle(how, "basic.nack and basic.reject")
                .map_err(|error| Failure::broker(&error, id))?;
        }
        if let Mode::Transaction(transaction) = &mut self.mode {
            let added = transaction.settle(Settlement { tag, owed, how });
            return added.map_err(|error| Failure::new(ReplyCode::ResourceError, error, id));
        }
        let (queue, seq) = owed;
        self.settle(queue, seq, how, cx);
        Ok(())
    }

    /// The least that any queue consumed here allows for an acknowledgement.
    pub(in crate::session) fn timeout_min(&self) -> Option<Duration> {
        self.timeout_min
    }

    /// Refuses a client that has not acknowledged its oldest delivery in time: in its queue's, or else in
    /// `usual`.
    // req: ACKTIME-1
    pub(in crate::session) fn check_timeout(
        &self,
        usual: Option<Duration>,
        now: Instant,
    ) -> Result<(), Failure> {
        let Some((queue, out)) = self.unsettled.oldest(now) else {
            return Ok(());
        };
        match queue_timeout(queue).or(usual) {
            Some(timeout) if out >= timeout => Err(Failure::new(
                ReplyCode::PreconditionFailed,
                format_args!(
                    "delivery acknowledgement on channel {} timed out. Timeout value used: {} ms. \
                     This timeout value can be configured, see consumers doc guide to learn more",
                    self.number,
                    timeout.as_millis()
                ),
                MethodId::default(),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Sends deliveries.
    pub(in crate::session) fn deliver(&mut self, deliveries: Deliveries, cx: &mut Context<'_>) {
        let Deliveries { consumer, messages } = deliveries;
        let is_tracing = cx.connection.vhost().is_tracing();
        let delivered_count = messages.len() as u64;
        let mut redelivered_count = 0;
        for delivery in messages {
            redelivered_count += u64::from(delivery.redelivered);
            if is_tracing {
                let traced = TracedDelivery {
                    channel: self.number,
                    queue: consumer.queue().name().as_bytes(),
                    message: &delivery.message,
                    redelivered: delivery.redelivered,
                };
                let vhost = cx.connection.vhost();
                vhost.trace_delivery(cx.connection, traced, cx.now, cx.wakes);
            }
            self.last_tag += 1;
            let deliver = Deliver {
                consumer_tag: consumer.tag().as_bytes(),
                delivery_tag: self.last_tag,
                redelivered: delivery.redelivered,
            };
            let message = &delivery.message;
            let is_sent = self.delivered.put(self.number, &deliver, message, cx);
            if !is_sent {
                put_deliver(
                    cx.transmit.frames(self.number),
                    self.number,
                    &deliver,
                    message,
                );
                let form = match message.body() {
                    BodyRef::Inline(_) => PayloadForm::Body,
                    BodyRef::Payload(_) => {
                        let arguments = consumer.queue().arguments();
                        PayloadForm::wanted(Some(consumer.arguments()), arguments)
                    }
                };
                put_content(message, self.number, form, cx);
            }
            if consumer.ack_mode() == AckMode::Manual {
                let owed = (Arc::clone(consumer.queue()), delivery.seq);
                self.unsettled.push(self.last_tag, owed, cx.now);
            }
        }
        self.breakdown.count(consumer.queue(), |counts| {
            counts.redelivered += redelivered_count;
            match consumer.ack_mode() {
                AckMode::Manual => counts.delivered += delivered_count,
                AckMode::Automatic => counts.delivered_no_ack += delivered_count,
            }
        });
    }
}

/// What `basic.deliver` says beside where its message came from.
pub(super) struct Deliver<'a> {
    pub(super) consumer_tag: &'a [u8],
    pub(super) delivery_tag: u64,
    pub(super) redelivered: bool,
}

/// The queue's own longest wait for an acknowledgement; none if it says nothing.
fn queue_timeout(queue: &Queue) -> Option<Duration> {
    let ms = queue.arguments().get(TIMEOUT_ARGUMENT)?.as_integer()?;
    u64::try_from(ms)
        .ok()
        .filter(|ms| *ms > 0)
        .map(Duration::from_millis)
}

/// Queue argument: longest wait for an acknowledgement, in milliseconds (RabbitMQ 3.12).
const TIMEOUT_ARGUMENT: &str = "x-consumer-timeout";

/// `basic.deliver` straight from what the message holds: its route is on the wire as it is kept.
#[inline]
pub(super) fn put_deliver(
    output: &mut BytesMut,
    channel: u16,
    deliver: &Deliver<'_>,
    message: &Message,
) {
    let consumer_tag = deliver.consumer_tag;
    let route = message.route_wire();
    let payload_bytes = FIXED_BYTES + consumer_tag.len() + route.len();
    let payload_size = u32::try_from(payload_bytes).unwrap_or(u32::MAX);
    output.reserve(payload_bytes + FRAME_ROOM_BYTES);
    frame::put_frame_head(output, FrameKind::Method, channel, payload_size);
    output.put_u16(basic::Deliver::CLASS_ID);
    output.put_u16(basic::Deliver::METHOD_ID);
    output.put_u8(u8::try_from(consumer_tag.len()).unwrap_or(u8::MAX));
    output.put_slice(consumer_tag);
    output.put_u64(deliver.delivery_tag);
    output.put_u8(u8::from(deliver.redelivered));
    output.put_slice(route);
    output.put_u8(FRAME_END);
}

/// Where a frame of `basic.deliver` has the length of the consumer's tag, in bytes from its beginning; behind the
/// tag are the delivery tag and the flag.
pub(super) const TAG_LENGTH_AT: usize = FRAME_HEADER_BYTES + 4;

/// Class, method, tag length, delivery tag and flags of `basic.deliver`, in bytes.
const FIXED_BYTES: usize = 14;
/// Room for a frame's head and end, in bytes.
const FRAME_ROOM_BYTES: usize = 8;

/// `x-payload` says `body` or `manifest`.
fn check_payload_argument(arguments: &FieldTable, id: MethodId) -> Result<(), Failure> {
    let Some(wanted) = arguments.get(PAYLOAD_ARGUMENT) else {
        return Ok(());
    };
    match wanted.as_str() {
        Some("body" | "manifest") => Ok(()),
        Some(_) | None => Err(Failure::new(
            ReplyCode::PreconditionFailed,
            format_args!("invalid arg '{PAYLOAD_ARGUMENT}': expected 'body' or 'manifest'"),
            id,
        )),
    }
}

fn ack_mode(no_ack: bool) -> AckMode {
    if no_ack {
        AckMode::Automatic
    } else {
        AckMode::Manual
    }
}

fn refusal(requeue: bool) -> Settle {
    if requeue {
        Settle::Requeue
    } else {
        Settle::Discard
    }
}

fn unknown_tag(tag: u64, id: MethodId) -> Failure {
    let explanation = format_args!("unknown delivery tag {tag}");
    Failure::new(ReplyCode::PreconditionFailed, explanation, id)
}
