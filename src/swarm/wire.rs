//! Peer messages to bytes and back.
//!
//! Owns: the byte maps. Knows nothing of states: whether a message is legal now is `peer`'s to say.
//! Bounds: a length is compared with its type's bound before anything is allocated; one message is
//! held at a time. Never panics, whatever comes in.
//! Spec: `spec/peer-protocol.md` section 1, PEER-1, PEER-2, PEER-5.
#![deny(clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::config::{ZONE_BYTES_MAX, Zone};
use crate::payload::PayloadId;
use crate::payload::geometry::BLOCK_BYTES_MAX;
use crate::swarm::limits::{
    BITFIELD_BYTES_MAX, HAVE_PIECES_MAX, OFFER_PIECES_MAX, PEERS_ADDRESSES_MAX,
};

/// The first bytes of every `Hello`.
pub const MAGIC: [u8; 8] = *b"warren-p";
/// The protocol version spoken here.
pub const VERSION: u16 = 1;
/// Length field and type, in bytes.
pub const HEADER_BYTES: usize = 5;
/// Length field, type, slot, piece and offset of a `Block`: what stands before its bytes.
pub const BLOCK_HEADER_BYTES: usize = HEADER_BYTES + BLOCK_FIXED_BYTES;
/// Slot, piece and offset of a `Block`, in bytes.
const BLOCK_FIXED_BYTES: usize = 10;

/// `Bitfield` flag: the sender gives pieces by `Offer`; only what it offers may be asked for.
const FLAG_GIVING: u8 = 1;
/// `Bitfield` flag: requests will be refused until `Unchoke`.
const FLAG_CHOKED: u8 = 2;

/// `Hello` flag: the sender speaks TLS on connections that begin with it.
const FLAG_TLS: u16 = 1;

/// A node's name: the hash of its public key on TLS, a claim on plain TCP.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct NodeId([u8; 32]);

impl NodeId {
    /// The id made of these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0
            .iter()
            .take(5)
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl std::fmt::Debug for NodeId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "NodeId({self})")
    }
}

/// The number that a message's sender chose for a payload on this connection.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Slot(pub u16);

/// A piece's range as it stands in a message: not yet checked against a payload.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RawBlock {
    /// Piece number.
    pub piece: u32,
    /// Where the block begins in the piece, in bytes.
    pub offset_bytes: u32,
    /// Its length in bytes.
    pub len_bytes: u32,
}

/// The first message of each side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hello {
    /// Whether the sender speaks TLS too.
    pub takes_tls: bool,
    /// Who sends it.
    pub node: NodeId,
    /// Fresh for this connection.
    pub nonce: [u8; 32],
    /// Where the sender can be dialled; 0 if it cannot.
    pub listen_port: u16,
    /// Unanswered requests that the sender accepts per payload: 1 to 64.
    pub requests_max: u16,
    /// What the sender is near to, if it has a zone.
    pub zone: Option<Zone>,
}

/// Why a payload is refused or left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// No such payload here, or the proof is wrong.
    Unknown,
    /// Too many peers in this swarm.
    Full,
    /// Both sides are complete.
    Done,
    /// The transfer ended here.
    Forgotten,
    /// The peer sent a piece that does not verify.
    BadPiece,
    /// The peer answered nothing for too long, twice.
    Stalled,
    /// The peer's node is banned.
    Banned,
}

impl Reason {
    const ALL: [Self; 7] = [
        Self::Unknown,
        Self::Full,
        Self::Done,
        Self::Forgotten,
        Self::BadPiece,
        Self::Stalled,
        Self::Banned,
    ];

    const fn code(self) -> u8 {
        match self {
            Self::Unknown => 1,
            Self::Full => 2,
            Self::Done => 3,
            Self::Forgotten => 4,
            Self::BadPiece => 5,
            Self::Stalled => 6,
            Self::Banned => 7,
        }
    }

    fn from_code(code: u8) -> Result<Self, WireError> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.code() == code)
            .ok_or(WireError::Value { kind: "reason" })
    }
}

/// One peer message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Message {
    /// First on every connection.
    Hello(Hello),
    /// Proves the access key of a payload and names the slot it will go by.
    Join {
        /// The sender's number for the payload.
        slot: Slot,
        /// Which payload.
        payload: PayloadId,
        /// See `proof`.
        proof: [u8; 32],
    },
    /// Answers a `Join` that leads nowhere.
    Refuse {
        /// Which payload.
        payload: PayloadId,
        /// Why.
        reason: Reason,
    },
    /// Ends the sender's part in a swarm; answered by `Leave`.
    Leave {
        /// The sender's number for the payload.
        slot: Slot,
        /// Why.
        reason: Reason,
    },
    /// What the sender holds when it joins.
    Bitfield {
        /// The sender's number for the payload.
        slot: Slot,
        /// Ask only for what is offered.
        giving: bool,
        /// Do not ask before `Unchoke`.
        choked: bool,
        /// Wire form of the bitfield; its length is checked against the payload later.
        bits: Bytes,
    },
    /// The sender holds everything and answers any request.
    HaveAll {
        /// The sender's number for the payload.
        slot: Slot,
    },
    /// Pieces that the sender now holds.
    Have {
        /// The sender's number for the payload.
        slot: Slot,
        /// Their numbers.
        pieces: Vec<u32>,
    },
    /// Pieces that the origin gives to this peer to relay.
    Offer {
        /// The sender's number for the payload.
        slot: Slot,
        /// Their numbers.
        pieces: Vec<u32>,
    },
    /// The sender will reject requests.
    Choke {
        /// The sender's number for the payload.
        slot: Slot,
    },
    /// The sender takes requests again.
    Unchoke {
        /// The sender's number for the payload.
        slot: Slot,
    },
    /// Asks for a block.
    Request {
        /// The sender's number for the payload.
        slot: Slot,
        /// What is asked for.
        block: RawBlock,
    },
    /// Takes a request back; it is still answered.
    Cancel {
        /// The sender's number for the payload.
        slot: Slot,
        /// What was asked for.
        block: RawBlock,
    },
    /// Answers a request that will not be served.
    Reject {
        /// The sender's number for the payload.
        slot: Slot,
        /// What was asked for.
        block: RawBlock,
    },
    /// Answers a request.
    Block {
        /// The sender's number for the payload.
        slot: Slot,
        /// Piece number.
        piece: u32,
        /// Where the bytes begin in the piece.
        offset_bytes: u32,
        /// The bytes.
        bytes: Bytes,
    },
    /// Addresses of other peers of the payload.
    Peers {
        /// The sender's number for the payload.
        slot: Slot,
        /// Hints.
        addresses: Vec<SocketAddr>,
    },
    /// Nothing, so that the connection is not idle.
    Ping,
}

/// Bytes that are no peer message. The connection is closed; what came after cannot be told apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A length field that its message type does not allow.
    #[error("length {got_bytes} for a message of type {kind}, of at most {max_bytes}")]
    Length {
        /// Type byte.
        kind: u8,
        /// Length field.
        got_bytes: u32,
        /// The type's bound.
        max_bytes: usize,
    },
    /// A type byte without meaning.
    #[error("unknown message type {kind}")]
    Kind {
        /// Type byte.
        kind: u8,
    },
    /// The content ends early, or goes on after its end.
    #[error("content of type {kind} does not fit its length")]
    Content {
        /// Type byte.
        kind: u8,
    },
    /// A field holds a value that it must not.
    #[error("bad value of {kind}")]
    Value {
        /// Which field.
        kind: &'static str,
    },
}

/// `length u32 | type u8`, checked against the bound of the type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    kind: u8,
    content_bytes: usize,
}

/// Slot, piece and offset of a `Block` whose bytes are still to be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockHeader {
    /// The sender's number for the payload.
    pub slot: Slot,
    /// Piece number.
    pub piece: u32,
    /// Where the bytes begin in the piece.
    pub offset_bytes: u32,
    /// How many bytes follow: 1 to 256 KiB.
    pub len_bytes: usize,
}

/// Content bytes at most, for each type.
fn content_bytes_max(kind: u8) -> Option<usize> {
    Some(match kind {
        0 => 80 + ZONE_BYTES_MAX,
        1 => 66,
        2 => 33,
        3 => 3,
        4 => 3 + BITFIELD_BYTES_MAX,
        5 | 8 | 9 => 2,
        6 => 2 + 4 * HAVE_PIECES_MAX,
        7 => 2 + 4 * OFFER_PIECES_MAX,
        10..=12 => 14,
        13 => BLOCK_FIXED_BYTES + BLOCK_BYTES_MAX as usize,
        14 => 2 + 19 * PEERS_ADDRESSES_MAX,
        15 => 0,
        _ => return None,
    })
}

impl Header {
    /// Reads a header without taking it from `input`; `None` while it is not whole.
    pub fn peek(input: &[u8]) -> Result<Option<Self>, WireError> {
        // req: PEER-1
        let mut input = input;
        let (Ok(length), Ok(kind)) = (input.try_get_u32(), input.try_get_u8()) else {
            return Ok(None);
        };
        let max_bytes = content_bytes_max(kind).ok_or(WireError::Kind { kind })?;
        let content_bytes = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_sub(1))
            .filter(|content| *content <= max_bytes)
            .ok_or(WireError::Length {
                kind,
                got_bytes: length,
                max_bytes,
            })?;
        Ok(Some(Self {
            kind,
            content_bytes,
        }))
    }

    /// Bytes of the whole message, this header included.
    pub const fn message_bytes(&self) -> usize {
        HEADER_BYTES + self.content_bytes
    }

    /// Whether this is a `Block`, whose bytes a driver may read into a buffer of its own.
    pub const fn is_block(&self) -> bool {
        self.kind == 13
    }
}

/// Takes the next whole message from `input`; `None` when more bytes are needed.
///
/// A `Block`'s bytes are a slice of `input`'s buffer.
pub fn decode(input: &mut BytesMut) -> Result<Option<Message>, WireError> {
    // req: PEER-5
    let Some(header) = Header::peek(input)? else {
        return Ok(None);
    };
    if input.len() < header.message_bytes() {
        return Ok(None);
    }
    let mut content = input.split_to(header.message_bytes()).freeze();
    content.advance(HEADER_BYTES);
    decode_content(header.kind, content).map(Some)
}

/// Takes the head of a `Block` from `input`, leaving its bytes; `None` when more bytes are needed.
///
/// To be called only when [`Header::is_block`] says so.
pub fn decode_block_header(input: &mut BytesMut) -> Result<Option<BlockHeader>, WireError> {
    let Some(header) = Header::peek(input)? else {
        return Ok(None);
    };
    if input.len() < BLOCK_HEADER_BYTES {
        return Ok(None);
    }
    let kind = header.kind;
    let len_bytes = header
        .content_bytes
        .checked_sub(BLOCK_FIXED_BYTES)
        .filter(|len| *len > 0 && header.is_block())
        .ok_or(WireError::Content { kind })?;
    input.advance(HEADER_BYTES);
    let short = |_| WireError::Content { kind };
    Ok(Some(BlockHeader {
        slot: Slot(input.try_get_u16().map_err(short)?),
        piece: input.try_get_u32().map_err(short)?,
        offset_bytes: input.try_get_u32().map_err(short)?,
        len_bytes,
    }))
}

fn decode_content(kind: u8, mut content: Bytes) -> Result<Message, WireError> {
    let short = |_| WireError::Content { kind };
    let input = &mut content;
    let message = match kind {
        0 => Message::Hello(decode_hello(input)?),
        1 => Message::Join {
            slot: Slot(input.try_get_u16().map_err(short)?),
            payload: PayloadId::from_bytes(take_32(input, kind)?),
            proof: take_32(input, kind)?,
        },
        2 => Message::Refuse {
            payload: PayloadId::from_bytes(take_32(input, kind)?),
            reason: Reason::from_code(input.try_get_u8().map_err(short)?)?,
        },
        15 => Message::Ping,
        _ => decode_slotted(kind, Slot(input.try_get_u16().map_err(short)?), input)?,
    };
    if content.has_remaining() {
        return Err(WireError::Content { kind });
    }
    Ok(message)
}

/// The messages that begin with a slot.
fn decode_slotted(kind: u8, slot: Slot, input: &mut Bytes) -> Result<Message, WireError> {
    let short = |_| WireError::Content { kind };
    Ok(match kind {
        3 => Message::Leave {
            slot,
            reason: Reason::from_code(input.try_get_u8().map_err(short)?)?,
        },
        4 => {
            let flags = input.try_get_u8().map_err(short)?;
            if flags & !(FLAG_GIVING | FLAG_CHOKED) != 0 {
                return Err(WireError::Value { kind: "flags" });
            }
            Message::Bitfield {
                slot,
                giving: flags & FLAG_GIVING != 0,
                choked: flags & FLAG_CHOKED != 0,
                bits: std::mem::take(input),
            }
        }
        5 => Message::HaveAll { slot },
        6 => Message::Have {
            slot,
            pieces: take_pieces(input, kind)?,
        },
        7 => Message::Offer {
            slot,
            pieces: take_pieces(input, kind)?,
        },
        8 => Message::Choke { slot },
        9 => Message::Unchoke { slot },
        10..=12 => {
            let block = RawBlock {
                piece: input.try_get_u32().map_err(short)?,
                offset_bytes: input.try_get_u32().map_err(short)?,
                len_bytes: input.try_get_u32().map_err(short)?,
            };
            match kind {
                10 => Message::Request { slot, block },
                11 => Message::Cancel { slot, block },
                _ => Message::Reject { slot, block },
            }
        }
        13 => {
            let piece = input.try_get_u32().map_err(short)?;
            let offset_bytes = input.try_get_u32().map_err(short)?;
            if !input.has_remaining() {
                return Err(WireError::Content { kind });
            }
            Message::Block {
                slot,
                piece,
                offset_bytes,
                bytes: std::mem::take(input),
            }
        }
        14 => Message::Peers {
            slot,
            addresses: take_addresses(input)?,
        },
        _ => return Err(WireError::Kind { kind }),
    })
}

/// `magic 8 | version u16 | flags u16 | node 32 | nonce 32 | listen port u16 | requests max u16 | zone`.
fn decode_hello(input: &mut Bytes) -> Result<Hello, WireError> {
    // req: PEER-2
    let short = |_| WireError::Content { kind: 0 };
    let mut magic = [0; 8];
    input.try_copy_to_slice(&mut magic).map_err(short)?;
    if magic != MAGIC {
        return Err(WireError::Value { kind: "magic" });
    }
    if input.try_get_u16().map_err(short)? != VERSION {
        return Err(WireError::Value { kind: "version" });
    }
    let flags = input.try_get_u16().map_err(short)?;
    if flags & !FLAG_TLS != 0 {
        return Err(WireError::Value { kind: "flags" });
    }
    let hello = Hello {
        takes_tls: flags & FLAG_TLS != 0,
        node: NodeId(take_32(input, 0)?),
        nonce: take_32(input, 0)?,
        listen_port: input.try_get_u16().map_err(short)?,
        requests_max: input.try_get_u16().map_err(short)?,
        zone: take_zone(input)?,
    };
    if !(1..=crate::swarm::limits::REQUESTS_ALLOWED_MAX).contains(&hello.requests_max) {
        return Err(WireError::Value {
            kind: "requests max",
        });
    }
    Ok(hello)
}

/// All that is left; nothing is no zone.
fn take_zone(input: &mut Bytes) -> Result<Option<Zone>, WireError> {
    // req: PEER-15
    let label = input.split_off(0);
    if label.is_empty() {
        return Ok(None);
    }
    let zone = str::from_utf8(&label).ok().and_then(|it| it.parse().ok());
    zone.map(Some).ok_or(WireError::Value { kind: "zone" })
}

fn take_32(input: &mut Bytes, kind: u8) -> Result<[u8; 32], WireError> {
    let mut bytes = [0; 32];
    input
        .try_copy_to_slice(&mut bytes)
        .map_err(|_| WireError::Content { kind })?;
    Ok(bytes)
}

fn take_pieces(input: &mut Bytes, kind: u8) -> Result<Vec<u32>, WireError> {
    if !input.has_remaining() || !input.remaining().is_multiple_of(4) {
        return Err(WireError::Content { kind });
    }
    let mut pieces = Vec::with_capacity(input.remaining() / 4);
    while let Ok(piece) = input.try_get_u32() {
        pieces.push(piece);
    }
    Ok(pieces)
}

/// Each is `family u8 | address 4 or 16 | port u16`.
fn take_addresses(input: &mut Bytes) -> Result<Vec<SocketAddr>, WireError> {
    let short = |_| WireError::Content { kind: 14 };
    let mut addresses = Vec::with_capacity(PEERS_ADDRESSES_MAX.min(input.remaining() / 7));
    while input.has_remaining() {
        let ip = match input.try_get_u8().map_err(short)? {
            4 => IpAddr::V4(Ipv4Addr::from_bits(input.try_get_u32().map_err(short)?)),
            6 => IpAddr::V6(Ipv6Addr::from_bits(input.try_get_u128().map_err(short)?)),
            _ => return Err(WireError::Value { kind: "family" }),
        };
        addresses.push(SocketAddr::new(ip, input.try_get_u16().map_err(short)?));
    }
    if addresses.is_empty() || addresses.len() > PEERS_ADDRESSES_MAX {
        return Err(WireError::Value { kind: "addresses" });
    }
    Ok(addresses)
}

/// Appends `message` to `output`.
///
/// Lists must be within their bounds, as every maker of messages keeps them; a longer one would be
/// refused by the other side.
pub fn encode(message: &Message, output: &mut BytesMut) {
    let start = output.len();
    output.put_u32(0);
    match message {
        Message::Hello(hello) => {
            output.put_u8(0);
            output.put_slice(&MAGIC);
            output.put_u16(VERSION);
            output.put_u16(if hello.takes_tls { FLAG_TLS } else { 0 });
            output.put_slice(hello.node.as_bytes());
            output.put_slice(&hello.nonce);
            output.put_u16(hello.listen_port);
            output.put_u16(hello.requests_max);
            if let Some(zone) = &hello.zone {
                output.put_slice(zone.as_str().as_bytes());
            }
        }
        Message::Join {
            slot,
            payload,
            proof,
        } => {
            put_slotted(output, 1, *slot);
            output.put_slice(payload.as_bytes());
            output.put_slice(proof);
        }
        Message::Refuse { payload, reason } => {
            output.put_u8(2);
            output.put_slice(payload.as_bytes());
            output.put_u8(reason.code());
        }
        Message::Leave { slot, reason } => {
            put_slotted(output, 3, *slot);
            output.put_u8(reason.code());
        }
        Message::Bitfield {
            slot,
            giving,
            choked,
            bits,
        } => {
            put_slotted(output, 4, *slot);
            let giving = if *giving { FLAG_GIVING } else { 0 };
            let choked = if *choked { FLAG_CHOKED } else { 0 };
            output.put_u8(giving | choked);
            output.put_slice(bits);
        }
        Message::HaveAll { slot } => put_slotted(output, 5, *slot),
        Message::Have { slot, pieces } => put_pieces(output, 6, *slot, pieces),
        Message::Offer { slot, pieces } => put_pieces(output, 7, *slot, pieces),
        Message::Choke { slot } => put_slotted(output, 8, *slot),
        Message::Unchoke { slot } => put_slotted(output, 9, *slot),
        Message::Request { slot, block } => put_block(output, 10, *slot, *block),
        Message::Cancel { slot, block } => put_block(output, 11, *slot, *block),
        Message::Reject { slot, block } => put_block(output, 12, *slot, *block),
        Message::Block {
            slot,
            piece,
            offset_bytes,
            bytes,
        } => {
            put_slotted(output, 13, *slot);
            output.put_u32(*piece);
            output.put_u32(*offset_bytes);
            output.put_slice(bytes);
        }
        Message::Peers { slot, addresses } => {
            put_slotted(output, 14, *slot);
            for address in addresses {
                match address.ip() {
                    IpAddr::V4(ip) => {
                        output.put_u8(4);
                        output.put_slice(&ip.octets());
                    }
                    IpAddr::V6(ip) => {
                        output.put_u8(6);
                        output.put_slice(&ip.octets());
                    }
                }
                output.put_u16(address.port());
            }
        }
        Message::Ping => output.put_u8(15),
    }
    let length = u32::try_from(output.len() - start - 4).expect("a message is far below 4 GiB");
    if let Some(field) = output.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// What stands before the bytes of a `Block`, for a driver that sends those straight from a file.
pub fn encode_block_header(header: BlockHeader) -> [u8; BLOCK_HEADER_BYTES] {
    let mut bytes = [0; BLOCK_HEADER_BYTES];
    let mut output = bytes.as_mut_slice();
    let length = 1 + BLOCK_FIXED_BYTES + header.len_bytes;
    output.put_u32(u32::try_from(length).expect("a block is at most 256 KiB"));
    output.put_u8(13);
    output.put_u16(header.slot.0);
    output.put_u32(header.piece);
    output.put_u32(header.offset_bytes);
    bytes
}

fn put_slotted(output: &mut BytesMut, kind: u8, slot: Slot) {
    output.put_u8(kind);
    output.put_u16(slot.0);
}

fn put_pieces(output: &mut BytesMut, kind: u8, slot: Slot, pieces: &[u32]) {
    put_slotted(output, kind, slot);
    for piece in pieces {
        output.put_u32(*piece);
    }
}

fn put_block(output: &mut BytesMut, kind: u8, slot: Slot, block: RawBlock) {
    put_slotted(output, kind, slot);
    output.put_u32(block.piece);
    output.put_u32(block.offset_bytes);
    output.put_u32(block.len_bytes);
}

#[cfg(test)]
mod tests;
