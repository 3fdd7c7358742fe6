//! One open channel: what a client does on it, method by method.
//!
//! Owns: delivery tags, consumers by tag, the message being received, confirms, and what the client
//! has acknowledged but the broker does not know yet.
//! Bounds: consumers and unsettled deliveries, as many as the broker lets the client have.
//! Spec: AMQP 0-9-1 classes channel, exchange, queue, basic, confirm; `spec/amqp.md`.

mod breakdown;
mod consuming;
mod content_id;
mod delivered;
mod publishing;
mod repeating;
mod replies;
mod topology;
mod transactions;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::amqp::field::ShortString;
use crate::amqp::frame::{self, FrameRef};
use crate::amqp::header::ContentHeader;
use crate::amqp::method::{Encode, Method, access, basic, channel, confirm};
use crate::amqp::reply::ReplyCode;
use crate::broker::{
    Connection, Consumer, Error as BrokerError, MessageSeq, Place, Publisher, Queue, ReplyConsumer,
    Settle, Tally, Wakes,
};
use crate::journal::Lsn;

use super::confirm::{Answer, Confirms};
use super::content::{Content, Progress, SizeRules};
use super::failure::{Failure, MethodId};
use super::qos::ChannelQos;
use super::transmit::Transmit;
use super::tx::Transaction;
use super::unsettled::Unsettled;
use super::view::ChannelView;
use super::{Action, UploadId, properties};

use breakdown::Breakdown;
pub use breakdown::{DeliveryShare, ExchangeShare, PublishOutcomes};
use delivered::Delivered;
pub(crate) use publishing::NODE_QUEUE;
pub(super) use repeating::Repeats;
use topology::id_of;

/// What a channel needs of its session while it handles something.
pub(super) struct Context<'a> {
    pub(super) connection: &'a Connection,
    pub(super) wakes: &'a mut Wakes,
    pub(super) transmit: &'a mut Transmit,
    pub(super) actions: &'a mut VecDeque<Action>,
    pub(super) upload_next: &'a mut u64,
    pub(super) rules: SizeRules,
    pub(super) now: Instant,
}

/// An open channel.
#[derive(Debug)]
pub(super) struct Channel {
    number: u16,
    /// Given back with the channel.
    _place: Option<Place>,
    content: Content,
    /// A message whose body the payload store is writing.
    upload: Option<Upload>,
    consumers: HashMap<ShortString, Arc<Consumer>>,
    /// Waits for answers by direct reply-to.
    reply_consumer: Option<Arc<ReplyConsumer>>,
    qos: ChannelQos,
    /// The least that any queue consumed here allows for an acknowledgement.
    timeout_min: Option<Duration>,
    publisher: Publisher,
    mode: Mode,
    last_tag: u64,
    delivered: Delivered,
    tally: Tally,
    breakdown: Breakdown,
    unsettled: Unsettled,
    settling: Settling,
    /// The queue last declared here, which an empty queue name means.
    last_queue: ShortString,
}

/// How a publisher on this channel learns that its messages are safe.
#[derive(Debug)]
enum Mode {
    /// It does not.
    Plain,
    /// By confirms.
    Confirm(Confirms),
    /// By the answers to its commits.
    Transaction(Transaction),
}

/// A message whose body goes to the payload store.
#[derive(Debug)]
struct Upload {
    id: UploadId,
    /// Set when the last octet has gone there.
    message: Option<(basic::Publish, ContentHeader)>,
}

/// Settled deliveries that the broker hears of in one call.
#[derive(Debug, Default)]
struct Settling {
    of: Option<(Arc<Queue>, Settle)>,
    seqs: Vec<MessageSeq>,
}

impl Channel {
    /// Its number on the connection.
    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// `place` is where a limit of its user counts it.
    pub(super) fn new(number: u16, place: Option<Place>, qos: ChannelQos, tally: Tally) -> Self {
        Self {
            number,
            _place: place,
            content: Content::Idle,
            upload: None,
            consumers: HashMap::new(),
            reply_consumer: None,
            qos,
            timeout_min: None,
            publisher: Publisher::on_channel(number),
            mode: Mode::Plain,
            last_tag: 0,
            delivered: Delivered::default(),
            tally,
            breakdown: Breakdown::default(),
            unsettled: Unsettled::default(),
            settling: Settling::default(),
            last_queue: ShortString::EMPTY,
        }
    }

    /// Whether a method may come: not in the middle of a message.
    #[inline]
    pub(super) fn expects_method(&self) -> bool {
        self.content.is_idle()
    }

    /// A method came in the middle of a message.
    pub(super) fn method_unexpected(&self) -> Failure {
        self.content.method_unexpected()
    }

    /// Takes a method; one is expected.
    pub(super) fn handle_method(
        &mut self,
        method: Method,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        debug_assert!(self.expects_method(), "the session looked");
        let id = MethodId {
            class_id: method.class_id(),
            method_id: method.method_id(),
        };
        match method {
            Method::BasicPublish(publish) => {
                // What left a queue that drops duplicates makes room for what comes behind it.
                // req: DEDUP-6
                let pending = self.settling.of.as_ref();
                if pending.is_some_and(|(queue, _)| queue.drops_duplicates()) {
                    self.flush_settled(cx);
                }
                self.content = Content::Header { publish };
                return Ok(());
            }
            Method::BasicAck(ack) => return self.ack(&ack, cx),
            Method::BasicNack(nack) => return self.nack(&nack, cx),
            Method::BasicReject(reject) => return self.reject(&reject, cx),
            _ => {}
        }
        // Whatever comes now must see what was settled before it.
        self.flush_settled(cx);
        match method {
            Method::ExchangeDeclare(declare) => self.exchange_declare(&declare, cx),
            Method::ExchangeDelete(delete) => self.exchange_delete(&delete, cx),
            Method::ExchangeBind(bind) => self.exchange_bind(&bind, cx),
            Method::ExchangeUnbind(unbind) => self.exchange_unbind(&unbind, cx),
            Method::QueueDeclare(declare) => self.queue_declare(&declare, cx),
            Method::QueueBind(bind) => self.queue_bind(&bind, cx),
            Method::QueueUnbind(unbind) => self.queue_unbind(&unbind, cx),
            Method::QueuePurge(purge) => self.queue_purge(&purge, cx),
            Method::QueueDelete(delete) => self.queue_delete(&delete, cx),
            Method::BasicQos(qos) => self.qos(&qos, cx),
            Method::BasicConsume(consume) => self.consume(&consume, cx),
            Method::BasicGet(get) => self.get(&get, cx),
            Method::BasicRecover(recover) => self.recover(recover.requeue, id, Reply::Wanted, cx),
            Method::BasicRecoverAsync(recover) => {
                self.recover(recover.requeue, id, Reply::Unwanted, cx)
            }
            Method::ConfirmSelect(select) => self.confirm_select(select.no_wait, cx),
            Method::ChannelFlow(flow) if flow.active => {
                self.reply(&channel::FlowOk { active: true }, cx);
                Ok(())
            }
            Method::ChannelFlow(_) => Err(not_implemented("active=false", id)),
            Method::AccessRequest(_) => {
                self.reply(&access::RequestOk { ticket: 1 }, cx);
                Ok(())
            }
            Method::TxSelect(_) => self.tx_select(cx),
            Method::TxRollback(_) => self.tx_rollback(cx),
            _ => Err(Failure::new(
                ReplyCode::CommandInvalid,
                "unimplemented method",
                id,
            )),
        }
    }

    /// Takes a content header or body frame.
    pub(super) fn handle_content(
        &mut self,
        owner: &Bytes,
        frame: &FrameRef<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), Failure> {
        match self.content.handle_frame(owner, frame, cx.rules)? {
            Progress::More => Ok(()),
            Progress::Whole {
                publish,
                header,
                body,
            } => self.publish_inline(&publish, &header, body, cx),
            Progress::UploadBegins { size_bytes } => {
                self.begin_upload(size_bytes, cx);
                Ok(())
            }
            Progress::UploadPart(bytes) => {
                self.push_upload(bytes, cx);
                Ok(())
            }
            Progress::UploadWhole {
                publish,
                header,
                last,
            } => {
                self.end_upload(publish, header, last, cx);
                Ok(())
            }
            Progress::MemoryWhole {
                publish,
                header,
                body,
            } => self.publish_in_memory(&publish, &header, *body, cx),
            Progress::TooLarge { size_bytes } => {
                let max = cx.rules.message_bytes_max.unwrap_or(u64::MAX);
                Err(properties::too_large(size_bytes, max))
            }
        }
    }

    /// Tells the broker what was settled since the last call.
    pub(super) fn flush_settled(&mut self, cx: &mut Context<'_>) {
        if let Some((queue, how)) = self.settling.of.take() {
            if how == Settle::Ack {
                let count = self.settling.seqs.len() as u64;
                self.breakdown.count(&queue, |counts| counts.acked += count);
            }
            queue.settle(&self.settling.seqs, how, cx.now, cx.wakes);
            self.settling.seqs.clear();
        }
    }

    /// Sends the confirms that can be given now.
    pub(super) fn flush_confirms(&mut self, cx: &mut Context<'_>) {
        if let Mode::Confirm(confirms) = &mut self.mode {
            self.tally.counts_mut().confirmed += confirms.confirmable_count();
        }
        self.tally.tell();
        let Mode::Confirm(confirms) = &mut self.mode else {
            return;
        };
        let frames = cx.transmit.frames(self.number);
        confirms.take_answers(|answer| match answer {
            Answer::Ack { tag, multiple } => {
                frame::put_method(
                    frames,
                    self.number,
                    &basic::Ack {
                        delivery_tag: tag,
                        multiple,
                    },
                );
            }
            Answer::Nack { tag, multiple } => {
                let nack = basic::Nack {
                    delivery_tag: tag,
                    multiple,
                    // It means nothing here; the field's default.
                    requeue: true,
                };
                frame::put_method(frames, self.number, &nack);
            }
        });
    }

    /// The journal is durable up to `durable`: the confirms that waited for it go out.
    pub(super) fn committed(&mut self, durable: Lsn, cx: &mut Context<'_>) {
        if let Mode::Confirm(confirms) = &mut self.mode {
            confirms.committed(durable);
            self.flush_confirms(cx);
        }
    }

    /// Whether a confirm waits for the disk.
    pub(super) fn waits_for_commit(&self) -> bool {
        match &self.mode {
            Mode::Plain | Mode::Transaction(_) => false,
            Mode::Confirm(confirms) => confirms.is_waiting(),
        }
    }

    fn confirm_select(&mut self, no_wait: bool, cx: &mut Context<'_>) -> Result<(), Failure> {
        match self.mode {
            Mode::Plain => self.mode = Mode::Confirm(Confirms::default()),
            Mode::Confirm(_) => {}
            Mode::Transaction(_) => {
                return Err(Failure::new(
                    ReplyCode::PreconditionFailed,
                    "cannot switch from tx to confirm mode",
                    id_of!(confirm::Select),
                ));
            }
        }
        self.reply_unless(no_wait, &confirm::SelectOk {}, cx);
        Ok(())
    }

    /// Ends the channel: its consumers go, what it holds goes back to its queues.
    pub(super) fn close(mut self, cx: &mut Context<'_>) -> Result<(), BrokerError> {
        self.flush_settled(cx);
        if let Some(upload) = &self.upload {
            cx.actions
                .push_back(Action::PayloadAbort { upload: upload.id });
        }
        if let Some(replies) = self.reply_consumer.take() {
            cx.connection.vhost().cancel_replies(&replies);
        }
        let consumers: Vec<_> = self.consumers.into_values().collect();
        let mut unsettled = self.unsettled.take_all();
        if let Mode::Transaction(transaction) = &mut self.mode {
            let (_, settlements) = transaction.take();
            unsettled.extend(settlements.into_iter().map(|settlement| settlement.owed));
        }
        let connection = cx.connection;
        let vhost = connection.vhost();
        vhost.close_channel(
            connection,
            self.number,
            &consumers,
            &unsettled,
            cx.now,
            cx.wakes,
        )
    }

    /// The consumer is gone with its queue; `notify` tells the client.
    pub(super) fn consumer_gone(
        &mut self,
        consumer: &Arc<Consumer>,
        notify: Reply,
        cx: &mut Context<'_>,
    ) {
        let tag = consumer.tag().as_bytes();
        if !self
            .consumers
            .get(tag)
            .is_some_and(|known| Arc::ptr_eq(known, consumer))
        {
            return;
        }
        self.consumers.remove(tag);
        if notify == Reply::Wanted {
            let consumer_tag = ShortString::try_from(tag).unwrap_or(ShortString::EMPTY);
            self.reply(
                &basic::Cancel {
                    consumer_tag,
                    no_wait: true,
                },
                cx,
            );
        }
    }

    /// What an operator may see.
    pub(super) fn view(&self) -> ChannelView {
        let (mut unconfirmed_count, mut uncommitted) = (0, (0, 0));
        match &self.mode {
            Mode::Plain => {}
            Mode::Confirm(confirms) => unconfirmed_count = confirms.unanswered_count(),
            Mode::Transaction(transaction) => uncommitted = transaction.counts(),
        }
        ChannelView {
            number: self.number,
            confirm: matches!(self.mode, Mode::Confirm(_)),
            transactional: matches!(self.mode, Mode::Transaction(_)),
            prefetch_count_max: self.qos.prefetch.count_max,
            global_prefetch_count_max: self.qos.limiter.count_max(),
            unsettled_count: self.unsettled.len(),
            unconfirmed_count,
            uncommitted_count: uncommitted.0,
            uncommitted_ack_count: uncommitted.1,
            published: *self.tally.counts(),
            delivered: self.breakdown.delivered(),
            by_exchange: self.breakdown.exchanges(self.tally.counts()),
            by_queue: self.breakdown.queues(),
            into_queues: self.publisher.shares(),
            consumers: self.consumers.values().cloned().collect(),
        }
    }

    /// Sends a method.
    fn reply(&self, method: &impl Encode, cx: &mut Context<'_>) {
        frame::put_method(cx.transmit.frames(self.number), self.number, method);
    }

    fn reply_unless(&self, no_wait: bool, method: &impl Encode, cx: &mut Context<'_>) {
        if !no_wait {
            self.reply(method, cx);
        }
    }

    /// The queue that a name means: an empty one, the queue last declared on this channel.
    fn queue_name(&self, name: &ShortString, id: MethodId) -> Result<ShortString, Failure> {
        if !name.is_empty() {
            return Ok(name.clone());
        }
        if self.last_queue.is_empty() {
            let explanation = "no previously declared queue";
            return Err(Failure::new(ReplyCode::NotFound, explanation, id));
        }
        Ok(self.last_queue.clone())
    }

    fn settle(&mut self, queue: Arc<Queue>, seq: MessageSeq, how: Settle, cx: &mut Context<'_>) {
        let same = matches!(&self.settling.of, Some((pending, pending_how))
            if Arc::ptr_eq(pending, &queue) && *pending_how == how);
        if !same {
            self.flush_settled(cx);
            self.settling.of = Some((queue, how));
        }
        self.settling.seqs.push(seq);
    }
}

/// Whether a method is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Reply {
    Wanted,
    Unwanted,
}

fn not_implemented(explanation: &str, id: MethodId) -> Failure {
    Failure::new(ReplyCode::NotImplemented, explanation, id)
}
