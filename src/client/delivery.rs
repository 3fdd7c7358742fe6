//! Messages that arrive: whole, or as a stream of bytes while they come.
//!
//! Owns: putting header and body frames together. A body up to the consumer's bound is collected; a
//! longer one is handed on as it arrives, and one that nobody takes any more is read over.

use bytes::{Bytes, BytesMut};
use tokio::sync::{mpsc, oneshot};

use super::STREAM_CHUNKS_MAX;
use super::error::ClientError;
use super::shared::Answer;
use crate::amqp::field::ShortString;
use crate::amqp::header::{ContentHeader, Properties};

/// One message from the broker.
#[derive(Debug)]
pub struct Delivery {
    /// Number to acknowledge it by, on the channel that it came on.
    pub delivery_tag: u64,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// The exchange that it was published to.
    pub exchange: ShortString,
    /// The routing key that it was published with.
    pub routing_key: ShortString,
    /// Body size and properties.
    pub header: ContentHeader,
    /// The body.
    pub body: Body,
}

/// A message's body.
#[derive(Debug)]
pub enum Body {
    /// A long one, still arriving.
    Stream(BodyStream),
    /// All of it.
    Whole(Bytes),
}

/// A body that arrives in chunks; dropping it reads over the rest.
#[derive(Debug)]
pub struct BodyStream {
    chunks: mpsc::Receiver<Bytes>,
    left_bytes: u64,
}

impl Delivery {
    /// The properties; `None` if they cannot be read.
    #[must_use]
    pub fn properties(&self) -> Option<Properties> {
        self.header.properties().ok()
    }
}

impl Body {
    /// All bytes of the body, waiting for those that have not come yet.
    ///
    /// # Errors
    /// [`ClientError::BodyTooLarge`] beyond `max_bytes`, or the connection's error.
    pub async fn whole(self, max_bytes: u64) -> Result<Bytes, ClientError> {
        let got_bytes = match &self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Stream(stream) => stream.left_bytes,
        };
        if got_bytes > max_bytes {
            return Err(ClientError::BodyTooLarge {
                got_bytes,
                max_bytes,
            });
        }
        match self {
            Self::Whole(bytes) => Ok(bytes),
            Self::Stream(mut stream) => {
                let mut whole = BytesMut::new();
                while let Some(chunk) = stream.next().await? {
                    whole.extend_from_slice(&chunk);
                }
                Ok(whole.freeze())
            }
        }
    }
}

impl BodyStream {
    /// The next chunk; `None` after the last.
    ///
    /// # Errors
    /// [`ClientError::Ended`] if the connection or channel ended before the body did.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        if self.left_bytes == 0 {
            return Ok(None);
        }
        match self.chunks.recv().await {
            Some(chunk) => {
                self.left_bytes = self.left_bytes.saturating_sub(chunk.len() as u64);
                Ok(Some(chunk))
            }
            None => Err(ClientError::Ended),
        }
    }

    /// Bytes that have not been taken yet.
    #[must_use]
    pub fn left_bytes(&self) -> u64 {
        self.left_bytes
    }
}

/// Who gets a content once it is there.
pub(super) enum Target {
    Consumer(mpsc::UnboundedSender<Result<Delivery, ClientError>>),
    Get(oneshot::Sender<Result<Answer, ClientError>>),
    /// A returned message: only its reason matters, which the confirm reports.
    Nobody,
}

/// A content between its method and its last body frame.
///
/// Head ──header──> Whole or Stream ──last body frame──> done
pub(super) struct Assembly {
    pub(super) delivery: DeliveryHead,
    pub(super) target: Target,
    pub(super) whole_bytes_max: u64,
    state: State,
}

/// What the method of a delivery says.
pub(super) struct DeliveryHead {
    pub(super) delivery_tag: u64,
    pub(super) redelivered: bool,
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
}

enum State {
    Head,
    Whole {
        header: ContentHeader,
        body: BytesMut,
    },
    Stream {
        chunks: mpsc::Sender<Bytes>,
        left_bytes: u64,
    },
}

impl Assembly {
    pub(super) fn new(delivery: DeliveryHead, target: Target, whole_bytes_max: u64) -> Self {
        Self {
            delivery,
            target,
            whole_bytes_max,
            state: State::Head,
        }
    }

    /// Takes the content header; gives `None` if nothing more is to come.
    pub(super) fn handle_header(
        mut self,
        header: ContentHeader,
    ) -> Result<Option<Self>, ClientError> {
        let State::Head = self.state else {
            return Err(ClientError::Protocol("a second content header".to_owned()));
        };
        let header = header.detached();
        if header.body_bytes == 0 {
            self.finish(header, Body::Whole(Bytes::new()));
            return Ok(None);
        }
        if header.body_bytes <= self.whole_bytes_max {
            let capacity = usize::try_from(header.body_bytes).unwrap_or(0);
            self.state = State::Whole {
                header,
                body: BytesMut::with_capacity(capacity),
            };
            return Ok(Some(self));
        }
        let (chunks, receiver) = mpsc::channel(STREAM_CHUNKS_MAX);
        let left_bytes = header.body_bytes;
        let stream = BodyStream {
            chunks: receiver,
            left_bytes,
        };
        let target = std::mem::replace(&mut self.target, Target::Nobody);
        let head = self.delivery.take();
        give(target, head, header, Body::Stream(stream));
        self.state = State::Stream { chunks, left_bytes };
        Ok(Some(self))
    }

    /// Takes a body frame; gives `None` after the last.
    pub(super) async fn handle_body(mut self, piece: Bytes) -> Result<Option<Self>, ClientError> {
        let too_long = || ClientError::Protocol("more body than the header announced".to_owned());
        match &mut self.state {
            State::Head => Err(ClientError::Protocol(
                "a body without its header".to_owned(),
            )),
            State::Whole { header, body } => {
                body.extend_from_slice(&piece);
                let (got_bytes, want_bytes) = (body.len() as u64, header.body_bytes);
                if got_bytes > want_bytes {
                    return Err(too_long());
                }
                if got_bytes < want_bytes {
                    return Ok(Some(self));
                }
                let (header, body) = (header.clone(), std::mem::take(body).freeze());
                self.finish(header, Body::Whole(body));
                Ok(None)
            }
            State::Stream { chunks, left_bytes } => {
                *left_bytes = left_bytes
                    .checked_sub(piece.len() as u64)
                    .ok_or_else(too_long)?;
                // Nobody may want the rest; it is read over then.
                let _ = chunks.send(piece).await;
                Ok((*left_bytes > 0).then_some(self))
            }
        }
    }

    fn finish(mut self, header: ContentHeader, body: Body) {
        let head = self.delivery.take();
        give(self.target, head, header, body);
    }
}

impl DeliveryHead {
    fn take(&mut self) -> Self {
        Self {
            delivery_tag: self.delivery_tag,
            redelivered: self.redelivered,
            exchange: std::mem::take(&mut self.exchange).detached(),
            routing_key: std::mem::take(&mut self.routing_key).detached(),
        }
    }
}

fn give(target: Target, head: DeliveryHead, header: ContentHeader, body: Body) {
    let DeliveryHead {
        delivery_tag,
        redelivered,
        exchange,
        routing_key,
    } = head;
    let delivery = Delivery {
        delivery_tag,
        redelivered,
        exchange,
        routing_key,
        header,
        body,
    };
    // Who asked may be gone; then the message stays unacknowledged and comes again.
    match target {
        Target::Consumer(deliveries) => drop(deliveries.send(Ok(delivery))),
        Target::Get(answer) => drop(answer.send(Ok(Answer::Message(delivery)))),
        Target::Nobody => {}
    }
}
