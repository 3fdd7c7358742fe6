//! A message that was delivered, with its body and the word that settles it.
//!
//! Bounds: [`WHOLE_BODY_BYTES_MAX`] for a body that is given in one piece, `CHUNK_BYTES` for a piece of a longer one.

use std::sync::Arc;

use bytes::Bytes;

use super::EmbedError;
use super::channel::Shared;
use crate::amqp::header::{CLASS_ID_BASIC, ContentHeader, Properties};
use crate::broker::{BodyOctets, BodyRef, Message, MessageSeq, PayloadBody, Queue, Settle, Wakes};
use crate::payload::store::{BodyFile, PayloadReader};
use crate::payload::{Manifest, PayloadId};

/// Longest body that [`Delivery::body`] gives, in bytes: 64 MiB.
pub const WHOLE_BODY_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a payload that are read at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// A message from a queue. Dropped without a word, it goes back to its place there.
#[derive(Debug)]
pub struct Delivery {
    shared: Arc<Shared>,
    message: Message,
    redelivered: bool,
    settling: Settling,
}

/// Whether the queue waits for a word.
#[derive(Debug)]
pub(super) enum Settling {
    Owed { queue: Arc<Queue>, seq: MessageSeq },
    Settled,
}

impl Delivery {
    pub(super) fn new(
        shared: Arc<Shared>,
        message: Message,
        redelivered: bool,
        settling: Settling,
    ) -> Self {
        Self {
            shared,
            message,
            redelivered,
            settling,
        }
    }

    /// The exchange that it was published to; what is no UTF-8 is replaced.
    #[must_use]
    pub fn exchange(&self) -> String {
        String::from_utf8_lossy(self.message.exchange()).into_owned()
    }

    /// The routing key that it was published with; what is no UTF-8 is replaced.
    #[must_use]
    pub fn routing_key(&self) -> String {
        String::from_utf8_lossy(self.message.routing_key()).into_owned()
    }

    /// Whether it was handed to anybody before.
    #[must_use]
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }

    /// Its properties; empty if they cannot be read.
    #[must_use]
    pub fn properties(&self) -> Properties {
        let header = ContentHeader {
            class_id: CLASS_ID_BASIC,
            body_bytes: self.size_bytes(),
            raw: Bytes::copy_from_slice(self.message.header()),
        };
        header.properties().unwrap_or_default()
    }

    /// Length of its body, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.message.size_bytes()
    }

    /// The content id of a body that is stored as a payload; `None` for a large one that is in memory alone.
    #[must_use]
    pub fn payload_id(&self) -> Option<PayloadId> {
        self.payload().and_then(|payload| payload.id().copied())
    }

    /// The manifest of a body that is stored as a payload, with this broker as first peer: whoever has it can fetch
    /// the body from the swarm. `None` for a body that is no payload; a large one that was in memory alone is stored.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn manifest(&self) -> Result<Option<Manifest>, EmbedError> {
        let Some(payload) = self.payload() else {
            return Ok(None);
        };
        let manifest = self.shared.inside.manifest(payload).await;
        Ok(Some(manifest.map_err(EmbedError::Payload)?))
    }

    /// The body, in one piece.
    ///
    /// # Errors
    /// [`EmbedError::BodyTooLarge`] beyond [`WHOLE_BODY_BYTES_MAX`], or what the payload store says.
    pub async fn body(&self) -> Result<Bytes, EmbedError> {
        if let BodyRef::Inline(bytes) = self.message.body() {
            let shared = self.message.shared_body().cloned();
            return Ok(shared.unwrap_or_else(|| Bytes::copy_from_slice(bytes)));
        }
        let got_bytes = self.size_bytes();
        if got_bytes > WHOLE_BODY_BYTES_MAX {
            return Err(EmbedError::BodyTooLarge {
                got_bytes,
                max_bytes: WHOLE_BODY_BYTES_MAX,
            });
        }
        let mut whole = Vec::new();
        let mut chunks = self.chunks();
        while let Some(chunk) = chunks.next().await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.into())
    }

    /// The body, chunk by chunk, for one that is too long for memory. It can be read after the delivery is settled.
    #[must_use]
    pub fn chunks(&self) -> BodyChunks {
        BodyChunks {
            shared: Arc::clone(&self.shared),
            message: self.message.clone(),
            reader: None,
            read_bytes: 0,
        }
    }

    /// Done: the message is gone.
    ///
    /// # Errors
    /// If the channel is closed: the message is back in its queue then, or will be.
    pub fn ack(mut self) -> Result<(), EmbedError> {
        self.settle(Settle::Ack)
    }

    /// Back to its place in the queue, to be delivered again.
    ///
    /// # Errors
    /// If the queue takes nothing back, or the channel is closed.
    pub fn requeue(mut self) -> Result<(), EmbedError> {
        self.settle(Settle::Requeue)
    }

    /// Refused: dropped, or to the queue's dead-letter exchange.
    ///
    /// # Errors
    /// If the queue drops nothing, or the channel is closed.
    pub fn discard(mut self) -> Result<(), EmbedError> {
        self.settle(Settle::Discard)
    }

    fn settle(&mut self, how: Settle) -> Result<(), EmbedError> {
        self.shared.check_open()?;
        let Settling::Owed { queue, seq } = &self.settling else {
            return Ok(());
        };
        if how != Settle::Ack {
            queue.check_settle(how, "requeue and discard")?;
        }
        let mut wakes = Wakes::new();
        queue.settle(&[*seq], how, self.shared.now(), &mut wakes);
        self.settling = Settling::Settled;
        Ok(())
    }

    fn payload(&self) -> Option<&PayloadBody> {
        match self.message.body() {
            BodyRef::Inline(_) => None,
            BodyRef::Payload(payload) => Some(payload),
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Settling::Owed { queue, seq } = &self.settling {
            let mut wakes = Wakes::new();
            queue.settle(&[*seq], Settle::Return, self.shared.now(), &mut wakes);
        }
    }
}

/// A body that is read chunk by chunk.
#[derive(Debug)]
pub struct BodyChunks {
    shared: Arc<Shared>,
    message: Message,
    reader: Option<Arc<PayloadReader>>,
    read_bytes: u64,
}

impl BodyChunks {
    /// The next bytes, a megabyte at most; `None` after the last.
    ///
    /// # Errors
    /// If the payload store cannot be read.
    pub async fn next(&mut self) -> Result<Option<Bytes>, EmbedError> {
        let left_bytes = self.message.size_bytes().saturating_sub(self.read_bytes);
        if left_bytes == 0 {
            return Ok(None);
        }
        let (scope, id) = match self.message.body() {
            BodyRef::Inline(bytes) => {
                self.read_bytes = bytes.len() as u64;
                let shared = self.message.shared_body().cloned();
                let all = shared.unwrap_or_else(|| Bytes::copy_from_slice(bytes));
                return Ok(Some(all));
            }
            BodyRef::Payload(payload) => {
                match payload.octets() {
                    Some(BodyOctets::Memory(octets)) => {
                        let end = self.read_bytes + left_bytes;
                        let next = octets.range(self.read_bytes..end).next();
                        let bytes: Bytes = next.unwrap_or_default();
                        self.read_bytes += bytes.len() as u64;
                        return Ok(Some(bytes));
                    }
                    Some(BodyOctets::File(file)) => {
                        return self.next_in_file(file, left_bytes).await;
                    }
                    None => {}
                }
                let id = payload.id().copied().ok_or(EmbedError::Closed)?;
                (payload.scope(), id)
            }
        };
        let (store, reader) = (self.shared.inside.store().clone(), self.reader.clone());
        let (place, want_bytes) = (self.read_bytes, left_bytes.min(CHUNK_BYTES));
        let read = tokio::task::spawn_blocking(move || {
            let reader = match reader {
                Some(reader) => reader,
                None => Arc::new(store.open_reader(scope, id)?),
            };
            let mut buffer = vec![0; usize::try_from(want_bytes).unwrap_or(0)];
            reader.read_at(&mut buffer, place)?;
            Ok((reader, buffer))
        });
        let read = read.await.map_err(|_| EmbedError::Closed)?;
        let (reader, buffer) = read.map_err(EmbedError::Store)?;
        self.reader = Some(reader);
        self.read_bytes += want_bytes;
        Ok(Some(buffer.into()))
    }

    async fn next_in_file(
        &mut self,
        file: Arc<BodyFile>,
        left_bytes: u64,
    ) -> Result<Option<Bytes>, EmbedError> {
        let (place, want_bytes) = (self.read_bytes, left_bytes.min(CHUNK_BYTES));
        let read = tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; usize::try_from(want_bytes).unwrap_or(0)];
            file.read_at(&mut buffer, place).map(|()| buffer)
        });
        let read = read.await.map_err(|_| EmbedError::Closed)?;
        let bytes = read.map_err(EmbedError::Store)?;
        self.read_bytes += want_bytes;
        Ok(Some(bytes.into()))
    }
}
