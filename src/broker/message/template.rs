//! Messages that differ in their bodies only, made with one head.

use std::sync::Arc;

use bytes::Bytes;

use super::super::limits::PACKED_BYTES_MAX;
use super::head::{ROUTE_AT, Scratch, put_head, short};
use super::{Body, Form, Message, MessageTraits, Split};

/// What messages have in common that differ in their bodies only: where they were published, and the header.
#[derive(Debug)]
pub struct Template {
    /// The head, and behind it the body of the message that was made last.
    packed: Vec<u8>,
    head_bytes: usize,
    header_bytes: usize,
}

impl Template {
    /// Of such messages.
    #[must_use]
    pub fn new(exchange: &[u8], routing_key: &[u8], header: &[u8], traits: MessageTraits) -> Self {
        let mut head = Scratch::new();
        put_head(&mut head, exchange, routing_key, header, traits, &[]);
        Self {
            head_bytes: head.len(),
            header_bytes: header.len(),
            packed: head.into_vec(),
        }
    }

    /// The message with this body, which lies in `owner`.
    #[inline]
    pub(crate) fn message(&mut self, owner: &Bytes, body: &[u8]) -> Message {
        self.packed.truncate(self.head_bytes);
        if body.len() <= self.packed_body_bytes_max() {
            self.packed.extend_from_slice(body);
            return Message(Form::Packed(Arc::from(self.packed.as_slice())));
        }
        Message(Form::Split(Arc::new(Split {
            head: Box::from(self.packed.as_slice()),
            body: Body::Inline(owner.slice_ref(body)),
        })))
    }

    /// The longest body that is kept in one piece with all else, in bytes.
    pub(crate) fn packed_body_bytes_max(&self) -> usize {
        PACKED_BYTES_MAX.saturating_sub(self.header_bytes)
    }

    /// The exchange they are published to.
    pub(crate) fn exchange(&self) -> &[u8] {
        short(&self.packed, ROUTE_AT)
    }

    /// Their routing key.
    pub(crate) fn routing_key(&self) -> &[u8] {
        short(&self.packed, ROUTE_AT + 1 + self.exchange().len())
    }
}
