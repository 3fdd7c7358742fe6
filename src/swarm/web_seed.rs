//! A server of ranges as a peer: speaks the piece protocol to the engine, and turns requests into ranges.
//!
//! Owns: the messages that such a peer says and hears. Knows no socket and no HTTP: who drives it fetches the
//! bytes. So everything that holds for peers holds for it: one piece from one source, verified, blamed.
//! Bound: [`WEB_REQUESTS_MAX`] requests wait at a time.
//! Spec: `spec/peer-protocol.md` section 7, WEB-5, WEB-6.

use std::ops::Range;

use bytes::Bytes;

use crate::payload::{AccessKey, Bitfield, Geometry, PayloadId};
use crate::swarm::proof::{self, ChannelBinding, Role, Side};
use crate::swarm::requests::checked;
use crate::swarm::wire::{Hello, Message, NodeId, RawBlock, Slot};

/// Blocks asked of a web seed at a time.
pub const WEB_REQUESTS_MAX: u16 = 2;
/// The web seed's own number for its only payload.
const SLOT: Slot = Slot(1);
/// Separates the ids of web seeds from all others.
const ID_CONTEXT: &str = "warren 2026 web seed id v1";

/// A range of the payload that the engine asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WebRequest {
    /// Which bytes of the payload.
    pub bytes: Range<u64>,
    block: RawBlock,
}

/// What is to be done next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WebStep {
    /// Give the engine a message.
    Say(Message),
    /// Fetch a range, then [`WebSeed::fetched`] or [`WebSeed::not_fetched`].
    Fetch(WebRequest),
    /// The engine has left: there is nothing more to do.
    End,
}

/// One server of one payload.
pub struct WebSeed {
    node: NodeId,
    nonce: [u8; 32],
    key: AccessKey,
    payload: PayloadId,
    geometry: Geometry,
}

impl WebSeed {
    /// The server behind `url`, as a peer of a payload.
    #[must_use]
    pub fn new(url: &str, key: AccessKey, payload: PayloadId, geometry: Geometry) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(ID_CONTEXT);
        hasher.update(payload.as_bytes());
        hasher.update(url.as_bytes());
        let node = NodeId::from_bytes(*hasher.finalize().as_bytes());
        Self {
            node,
            // Both ends are this node: there is nobody to be fresh for.
            nonce: [0; 32],
            key,
            payload,
            geometry,
        }
    }

    /// Takes what the engine says; gives what follows, in order.
    #[must_use]
    pub fn handle(&self, message: Message) -> Vec<WebStep> {
        match message {
            Message::Hello(hello) => self.begin(&hello),
            Message::Join { .. } => vec![WebStep::Say(Message::Bitfield {
                slot: SLOT,
                giving: false,
                choked: false,
                bits: Bitfield::full(&self.geometry).to_bytes().into(),
            })],
            Message::Request { block, .. } => vec![self.request(block)],
            Message::Refuse { .. } | Message::Leave { .. } => vec![WebStep::End],
            // Every request is answered, cancelled or not; the rest is of no use to a server.
            Message::Bitfield { .. }
            | Message::Block { .. }
            | Message::Cancel { .. }
            | Message::Choke { .. }
            | Message::Have { .. }
            | Message::HaveAll { .. }
            | Message::Offer { .. }
            | Message::Peers { .. }
            | Message::Ping
            | Message::Reject { .. }
            | Message::Unchoke { .. } => Vec::new(),
        }
    }

    fn begin(&self, theirs: &Hello) -> Vec<WebStep> {
        let hello = Hello {
            takes_tls: false,
            node: self.node,
            nonce: self.nonce,
            listen_port: 0,
            requests_max: WEB_REQUESTS_MAX,
            zone: None,
        };
        let own = Side {
            node: &self.node,
            nonce: &self.nonce,
        };
        let engine = Side {
            node: &theirs.node,
            nonce: &theirs.nonce,
        };
        let binding = ChannelBinding::default().with_words(false, theirs.takes_tls);
        let (key, payload) = (&self.key, &self.payload);
        let proof = proof::prove(key, Role::Dialler, own, engine, payload, &binding);
        let join = Message::Join {
            slot: SLOT,
            payload: self.payload,
            proof,
        };
        vec![WebStep::Say(Message::Hello(hello)), WebStep::Say(join)]
    }

    fn request(&self, block: RawBlock) -> WebStep {
        match checked(&self.geometry, block) {
            Some(range) => WebStep::Fetch(WebRequest {
                bytes: self.geometry.block_bytes(range),
                block,
            }),
            None => WebStep::Say(Message::Reject { slot: SLOT, block }),
        }
    }

    /// The answer to a request whose bytes came.
    #[must_use]
    pub fn fetched(&self, request: &WebRequest, bytes: Bytes) -> Message {
        // req: WEB-5
        Message::Block {
            slot: SLOT,
            piece: request.block.piece,
            offset_bytes: request.block.offset_bytes,
            bytes,
        }
    }

    /// The answer to a request whose bytes did not come.
    #[must_use]
    pub fn not_fetched(&self, request: &WebRequest) -> Message {
        Message::Reject {
            slot: SLOT,
            block: request.block,
        }
    }
}

#[cfg(test)]
mod tests;
