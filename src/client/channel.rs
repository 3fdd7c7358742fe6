//! One channel: declaring, publishing, consuming, acknowledging.
//!
//! Owns: the order of what goes out on it (a content's frames are never mixed with another's) and one
//! outstanding request at a time. Clones are the same channel; it closes with its last clone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use super::connection::Inner;
use super::delivery::Delivery;
use super::error::ClientError;
use super::reader::method_frame;
use super::shared::{Answer, ChannelShared, ConsumerSlot, Shared};
use super::{ANSWER_WAIT, WHOLE_BODY_BYTES_MAX};
use crate::amqp::field::{FieldTable, ShortString};
use crate::amqp::frame::{put_body, put_body_frames, put_header, put_method};
use crate::amqp::header::{ContentHeader, Properties};
use crate::amqp::limits::FRAME_OVERHEAD_BYTES;
use crate::amqp::method::{Encode, Method, basic, channel, confirm, exchange, queue};
use crate::amqp::reply::ReplyCode;

/// One chunk of a body on its way to the socket, in bytes; whole frames are added up to it.
const SEND_CHUNK_BYTES: usize = 256 * 1024;

/// A channel of a connection.
#[derive(Clone)]
pub struct Channel {
    inner: Arc<ChannelInner>,
}

struct ChannelInner {
    connection: Arc<Inner>,
    channel: Arc<ChannelShared>,
    number: u16,
    /// Held while the frames of one content go out.
    sending: Mutex<()>,
    /// Held while an answer is waited for.
    asking: Mutex<()>,
    consumer_count: AtomicU64,
}

impl Drop for ChannelInner {
    fn drop(&mut self) {
        // The answer finds no channel and is read over; the number is free again at once, since the
        // broker handles an open behind this close in order.
        let shared = &self.connection.shared;
        let was_open = shared.channels.lock().remove(&self.number).is_some();
        if was_open && self.channel.closed().is_none() {
            let _ = shared
                .outgoing
                .try_send(method_frame(self.number, &goodbye()));
        }
    }
}

fn goodbye() -> channel::Close {
    channel::Close {
        reply_code: ReplyCode::Success.number(),
        reply_text: ShortString::from_static("Goodbye"),
        class_id: 0,
        method_id: 0,
    }
}

/// What a queue is declared as.
#[derive(Clone, Debug, Default)]
pub struct QueueSettings {
    /// Survives a restart of the broker.
    pub durable: bool,
    /// Only for this connection, and goes with it.
    pub exclusive: bool,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// Optional settings.
    pub arguments: FieldTable,
}

/// How to consume.
#[derive(Clone, Debug)]
pub struct ConsumeSettings {
    /// Messages that may be unacknowledged at once, at least 1: the consumer's bound.
    pub prefetch_count: u16,
    /// No other consumer may use the queue.
    pub exclusive: bool,
    /// Longer bodies come as a stream, in bytes.
    pub whole_bytes_max: u64,
    /// Optional settings, such as `x-payload`.
    pub arguments: FieldTable,
}

impl Default for ConsumeSettings {
    fn default() -> Self {
        Self {
            prefetch_count: 16,
            exclusive: false,
            whole_bytes_max: WHOLE_BODY_BYTES_MAX,
            arguments: FieldTable::default(),
        }
    }
}

/// Where and how to publish.
#[derive(Clone, Debug, Default)]
pub struct Publish {
    /// The exchange; empty is the default exchange.
    pub exchange: ShortString,
    /// What the exchange routes by.
    pub routing_key: ShortString,
    /// Return the message if no queue takes it.
    pub mandatory: bool,
    /// The message's properties.
    pub properties: Properties,
}

/// The broker's word on a published message, to be waited for.
#[must_use = "a message is safe only once its confirm has come"]
pub struct Confirm {
    outcome: Option<oneshot::Receiver<Result<(), ClientError>>>,
}

impl Confirm {
    /// Waits until the broker has taken the message; at once if confirms are off.
    ///
    /// # Errors
    /// [`ClientError::Nacked`], [`ClientError::Returned`], or why channel or connection ended.
    pub async fn wait(self) -> Result<(), ClientError> {
        match self.outcome {
            None => Ok(()),
            Some(outcome) => outcome.await.unwrap_or(Err(ClientError::Ended)),
        }
    }
}

/// Messages of one queue, as they come.
pub struct Consumer {
    tag: ShortString,
    channel: Channel,
    deliveries: mpsc::UnboundedReceiver<Result<Delivery, ClientError>>,
}

impl Consumer {
    /// The next message.
    ///
    /// # Errors
    /// Why the consumer, its channel or its connection ended; nothing comes after that.
    pub async fn next(&mut self) -> Result<Delivery, ClientError> {
        self.deliveries
            .recv()
            .await
            .unwrap_or(Err(ClientError::Ended))
    }

    /// The channel to acknowledge on.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Ends the consumer; what it had not acknowledged stays so until the channel closes.
    ///
    /// # Errors
    /// Why channel or connection ended.
    pub async fn cancel(self) -> Result<(), ClientError> {
        let cancel = basic::Cancel {
            consumer_tag: self.tag.clone(),
            no_wait: false,
        };
        match self.channel.ask(&cancel, "basic.cancel").await? {
            Method::BasicCancelOk(_) => {}
            other => return Err(unexpected(&other)),
        }
        self.channel
            .inner
            .channel
            .consumers
            .lock()
            .remove(&self.tag);
        Ok(())
    }
}

fn unexpected(method: &Method) -> ClientError {
    ClientError::Protocol(format!("unexpected answer {}", method.name()))
}

impl Channel {
    pub(super) async fn open(
        connection: Arc<Inner>,
        channel: Arc<ChannelShared>,
        number: u16,
    ) -> Result<Self, ClientError> {
        let inner = ChannelInner {
            connection,
            channel,
            number,
            sending: Mutex::new(()),
            asking: Mutex::new(()),
            consumer_count: AtomicU64::new(0),
        };
        let opened = Self {
            inner: Arc::new(inner),
        };
        match opened.ask(&channel::Open {}, "channel.open").await? {
            Method::ChannelOpenOk(_) => Ok(opened),
            other => Err(unexpected(&other)),
        }
    }

    fn shared(&self) -> &Shared {
        &self.inner.connection.shared
    }

    /// Why the channel or its connection is closed, if it is.
    #[must_use]
    pub fn closed(&self) -> Option<ClientError> {
        self.inner
            .channel
            .closed()
            .or_else(|| self.shared().closed())
    }

    fn check_open(&self) -> Result<(), ClientError> {
        self.closed().map_or(Ok(()), Err)
    }

    async fn send(&self, method: &impl Encode) -> Result<(), ClientError> {
        self.check_open()?;
        let _sending = self.inner.sending.lock().await;
        self.shared()
            .send(method_frame(self.inner.number, method))
            .await
    }

    /// Sends a method and waits for its answer.
    async fn ask(&self, method: &impl Encode, what: &'static str) -> Result<Method, ClientError> {
        match self.ask_any(method, what).await? {
            Answer::Method(method) => Ok(method),
            Answer::Message(_) => Err(ClientError::Protocol("a message as answer".to_owned())),
        }
    }

    async fn ask_any(
        &self,
        method: &impl Encode,
        what: &'static str,
    ) -> Result<Answer, ClientError> {
        let _asking = self.inner.asking.lock().await;
        let (sender, answer) = oneshot::channel();
        *self.inner.channel.answer.lock() = Some(sender);
        self.send(method).await?;
        // The channel may have closed between the check and the wait.
        if let Some(error) = self.closed() {
            self.inner.channel.close(&error);
        }
        match timeout(ANSWER_WAIT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.closed().unwrap_or(ClientError::Ended)),
            Err(_) => {
                let error = ClientError::Timeout {
                    what,
                    seconds: ANSWER_WAIT.as_secs(),
                };
                self.shared().close(&error);
                Err(error)
            }
        }
    }

    /// Creates a durable exchange of a kind (`topic`, `direct`, ...), or checks that it is there so.
    ///
    /// # Errors
    /// 406 if it exists as something else; then the channel is closed.
    pub async fn declare_exchange(
        &self,
        exchange: &ShortString,
        kind: &str,
    ) -> Result<(), ClientError> {
        let declare = exchange::Declare {
            exchange: exchange.clone(),
            kind: short(kind)?,
            durable: true,
            ..exchange::Declare::default()
        };
        match self.ask(&declare, "exchange.declare").await? {
            Method::ExchangeDeclareOk(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Creates a queue, or checks that it is there so; gives its name and what is in it.
    ///
    /// # Errors
    /// 406 if it exists as something else, 405 if another connection owns it; then the channel is
    /// closed.
    pub async fn declare_queue(
        &self,
        queue: &ShortString,
        settings: &QueueSettings,
    ) -> Result<queue::DeclareOk, ClientError> {
        let declare = queue::Declare {
            queue: queue.clone(),
            durable: settings.durable,
            exclusive: settings.exclusive,
            auto_delete: settings.auto_delete,
            arguments: settings.arguments.clone(),
            ..queue::Declare::default()
        };
        match self.ask(&declare, "queue.declare").await? {
            Method::QueueDeclareOk(declared) => Ok(declared),
            other => Err(unexpected(&other)),
        }
    }

    /// How many messages are ready in a queue that must be there.
    ///
    /// # Errors
    /// 404 if it is missing, 405 if it is another connection's own; then the channel is closed.
    pub async fn queue_depth(&self, queue: &ShortString) -> Result<u32, ClientError> {
        let declare = queue::Declare {
            queue: queue.clone(),
            passive: true,
            ..queue::Declare::default()
        };
        match self.ask(&declare, "queue.declare").await? {
            Method::QueueDeclareOk(declared) => Ok(declared.message_count),
            other => Err(unexpected(&other)),
        }
    }

    /// Routes from an exchange to a queue.
    ///
    /// # Errors
    /// 404 if either is missing; then the channel is closed.
    pub async fn bind_queue(
        &self,
        queue: &ShortString,
        exchange: &ShortString,
        routing_key: &ShortString,
    ) -> Result<(), ClientError> {
        let bind = queue::Bind {
            queue: queue.clone(),
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
            ..queue::Bind::default()
        };
        match self.ask(&bind, "queue.bind").await? {
            Method::QueueBindOk(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes a binding back; one that is not there is no error.
    ///
    /// # Errors
    /// Why channel or connection ended.
    pub async fn unbind_queue(
        &self,
        queue: &ShortString,
        exchange: &ShortString,
        routing_key: &ShortString,
    ) -> Result<(), ClientError> {
        let unbind = queue::Unbind {
            queue: queue.clone(),
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
            ..queue::Unbind::default()
        };
        match self.ask(&unbind, "queue.unbind").await? {
            Method::QueueUnbindOk(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Deletes a queue with its messages; gives how many there were.
    ///
    /// # Errors
    /// Why channel or connection ended.
    pub async fn delete_queue(&self, queue: &ShortString) -> Result<u32, ClientError> {
        let delete = queue::Delete {
            queue: queue.clone(),
            ..queue::Delete::default()
        };
        match self.ask(&delete, "queue.delete").await? {
            Method::QueueDeleteOk(deleted) => Ok(deleted.message_count),
            other => Err(unexpected(&other)),
        }
    }

    /// Switches publisher confirms on: from now on a [`Confirm`] waits for the broker's word.
    ///
    /// # Errors
    /// Why channel or connection ended.
    pub async fn select_confirms(&self) -> Result<(), ClientError> {
        match self
            .ask(&confirm::Select { no_wait: false }, "confirm.select")
            .await?
        {
            Method::ConfirmSelectOk(_) => {}
            other => return Err(unexpected(&other)),
        }
        self.inner.channel.confirms.lock().last.get_or_insert(0);
        Ok(())
    }

    /// Publishes a message whose body is at hand.
    ///
    /// # Errors
    /// Why channel or connection ended; what the broker thinks of the message says the [`Confirm`].
    pub async fn publish(&self, publish: &Publish, body: &[u8]) -> Result<Confirm, ClientError> {
        let shared = self.shared();
        let header = ContentHeader::new(body.len() as u64, &publish.properties);
        check_header(&header, shared.frame_bytes_max)?;
        self.check_open()?;
        let _sending = self.inner.sending.lock().await;
        let confirm = self.expect_confirm();
        let mut frames = self.content_head(publish, &header);
        let piece_bytes = SEND_CHUNK_BYTES.max(shared.frame_bytes_max as usize);
        let frame_payload_bytes = (shared.frame_bytes_max - FRAME_OVERHEAD_BYTES) as usize;
        let portion_bytes = (piece_bytes / frame_payload_bytes).max(1) * frame_payload_bytes;
        for portion in body.chunks(portion_bytes) {
            put_body_frames(
                &mut frames,
                self.inner.number,
                portion,
                shared.frame_bytes_max,
            );
            shared.send(frames.split().freeze()).await?;
        }
        if !frames.is_empty() {
            shared.send(frames.freeze()).await?;
        }
        Ok(confirm)
    }

    /// Publishes a message of `body_bytes` as it is read; no more than a few chunks are in memory.
    ///
    /// # Errors
    /// Why channel or connection ended. If the reader fails or ends early the connection is ended
    /// too, since half a message cannot be taken back.
    pub async fn publish_from(
        &self,
        publish: &Publish,
        body_bytes: u64,
        body: &mut (impl AsyncRead + Unpin + Send),
    ) -> Result<Confirm, ClientError> {
        let shared = self.shared();
        let header = ContentHeader::new(body_bytes, &publish.properties);
        check_header(&header, shared.frame_bytes_max)?;
        self.check_open()?;
        let _sending = self.inner.sending.lock().await;
        let confirm = self.expect_confirm();
        shared
            .send(self.content_head(publish, &header).freeze())
            .await?;
        let frame_payload_bytes = shared.frame_bytes_max - FRAME_OVERHEAD_BYTES;
        let mut piece = vec![0; frame_payload_bytes as usize];
        let mut left_bytes = body_bytes;
        let mut frames = BytesMut::new();
        while left_bytes > 0 {
            let want_bytes = u64::from(frame_payload_bytes).min(left_bytes);
            let (portion, _) = piece.split_at_mut(usize::try_from(want_bytes).unwrap_or(0));
            if let Err(error) = body.read_exact(portion).await {
                let error = ClientError::from(error);
                shared.close(&error);
                return Err(error);
            }
            put_body(&mut frames, self.inner.number, portion);
            left_bytes -= want_bytes;
            if left_bytes == 0 || frames.len() >= SEND_CHUNK_BYTES {
                shared.send(frames.split().freeze()).await?;
            }
        }
        Ok(confirm)
    }

    /// Method and header of a content.
    fn content_head(&self, publish: &Publish, header: &ContentHeader) -> BytesMut {
        let mut frames = BytesMut::new();
        let method = basic::Publish {
            exchange: publish.exchange.clone(),
            routing_key: publish.routing_key.clone(),
            mandatory: publish.mandatory,
            immediate: false,
        };
        put_method(&mut frames, self.inner.number, &method);
        put_header(&mut frames, self.inner.number, header);
        frames
    }

    /// Numbers the next publish; called while `sending` is held.
    fn expect_confirm(&self) -> Confirm {
        let mut confirms = self.inner.channel.confirms.lock();
        let Some(last) = &mut confirms.last else {
            return Confirm { outcome: None };
        };
        *last += 1;
        let number = *last;
        let (sender, outcome) = oneshot::channel();
        confirms.waiting.insert(number, sender);
        Confirm {
            outcome: Some(outcome),
        }
    }

    /// Starts a consumer.
    ///
    /// # Errors
    /// 404 if the queue is missing, 403 if another has it for itself; then the channel is closed.
    pub async fn consume(
        &self,
        queue: &ShortString,
        settings: &ConsumeSettings,
    ) -> Result<Consumer, ClientError> {
        let qos = basic::Qos {
            prefetch_size: 0,
            prefetch_count: settings.prefetch_count.max(1),
            global: false,
        };
        match self.ask(&qos, "basic.qos").await? {
            Method::BasicQosOk(_) => {}
            other => return Err(unexpected(&other)),
        }
        let number = self.inner.consumer_count.fetch_add(1, Ordering::Relaxed);
        let tag = ShortString::truncated(format!("warren-{}-{number}", self.inner.number));
        let (sender, deliveries) = mpsc::unbounded_channel();
        let slot = ConsumerSlot {
            deliveries: sender,
            whole_bytes_max: settings.whole_bytes_max,
        };
        // Deliveries may come right behind the answer, so the slot is there first.
        self.inner
            .channel
            .consumers
            .lock()
            .insert(tag.clone(), slot);
        let consume = basic::Consume {
            queue: queue.clone(),
            consumer_tag: tag.clone(),
            no_local: false,
            no_ack: false,
            exclusive: settings.exclusive,
            no_wait: false,
            arguments: settings.arguments.clone(),
        };
        match self.ask(&consume, "basic.consume").await? {
            Method::BasicConsumeOk(_) => {}
            other => return Err(unexpected(&other)),
        }
        Ok(Consumer {
            tag,
            channel: self.clone(),
            deliveries,
        })
    }

    /// Takes one message out of a queue, to be acknowledged; `None` if it has none ready.
    ///
    /// # Errors
    /// 404 if the queue is missing; then the channel is closed.
    pub async fn get(&self, queue: &ShortString) -> Result<Option<Delivery>, ClientError> {
        let get = basic::Get {
            queue: queue.clone(),
            no_ack: false,
        };
        match self.ask_any(&get, "basic.get").await? {
            Answer::Message(delivery) => Ok(Some(delivery)),
            Answer::Method(Method::BasicGetEmpty(_)) => Ok(None),
            Answer::Method(other) => Err(unexpected(&other)),
        }
    }

    /// Acknowledges one delivery.
    ///
    /// # Errors
    /// Why channel or connection ended.
    pub async fn ack(&self, delivery_tag: u64) -> Result<(), ClientError> {
        self.send(&basic::Ack {
            delivery_tag,
            multiple: false,
        })
        .await
    }

    /// Gives one delivery back to its queue.
    ///
    /// # Errors
    /// Why channel or connection ended.
    pub async fn requeue(&self, delivery_tag: u64) -> Result<(), ClientError> {
        self.send(&basic::Nack {
            delivery_tag,
            multiple: false,
            requeue: true,
        })
        .await
    }

    /// Refuses one delivery for good: it is dropped, or dead-lettered where the queue says so.
    ///
    /// # Errors
    /// Why channel or connection ended.
    pub async fn discard(&self, delivery_tag: u64) -> Result<(), ClientError> {
        self.send(&basic::Nack {
            delivery_tag,
            multiple: false,
            requeue: false,
        })
        .await
    }

    /// Closes the channel.
    ///
    /// # Errors
    /// Why channel or connection ended before.
    pub async fn close(self) -> Result<(), ClientError> {
        match self.ask(&goodbye(), "channel.close").await? {
            Method::ChannelCloseOk(_) => {}
            other => return Err(unexpected(&other)),
        }
        self.shared().channels.lock().remove(&self.inner.number);
        self.inner.channel.close(&ClientError::Ended);
        Ok(())
    }
}

/// A header goes in one frame; one that does not fit would close the connection.
fn check_header(header: &ContentHeader, frame_bytes_max: u32) -> Result<(), ClientError> {
    let room = frame_bytes_max.saturating_sub(FRAME_OVERHEAD_BYTES) as usize;
    if header.payload_bytes() > room {
        return Err(ClientError::Unusable(
            "the message's properties are larger than a frame",
        ));
    }
    Ok(())
}

fn short(text: &str) -> Result<ShortString, ClientError> {
    ShortString::try_from(text)
        .map_err(|_| ClientError::Unusable("a name is longer than 255 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Properties that do not fit one frame are refused before anything is sent.
    #[test]
    fn header_larger_than_a_frame_is_refused() {
        let mut headers = FieldTable::default();
        headers.insert(ShortString::from_static("long"), "x".repeat(5_000));
        let properties = Properties {
            headers: Some(headers),
            ..Properties::default()
        };
        let header = ContentHeader::new(0, &properties);
        assert!(check_header(&header, 4_096).is_err());
        assert!(check_header(&header, 131_072).is_ok());
    }
}
