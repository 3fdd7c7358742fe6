//! What stands in front of a message's body: traits, route, header and hidden keys in one piece of memory.
//!
//! Owns: the layout, drawn at [`Message`](super::Message): writing it, and finding what is in it.

use smallvec::SmallVec;

use super::super::limits::NAME_BYTES_MAX;
use super::super::name::Name;
use super::{MessageTraits, Persistence};

pub(super) const FLAG_PERSISTENT: u8 = 1;
/// The expiration field counts; it is in milliseconds.
pub(super) const FLAG_EXPIRES: u8 = 2;
/// There are hidden keys.
pub(super) const FLAG_HIDDEN_KEYS: u8 = 4;
pub(super) const PRIORITY_AT: usize = 1;
pub(super) const HEADER_SIZE_AT: usize = 2;
pub(super) const EXPIRATION_AT: usize = 6;
pub(super) const ROUTE_AT: usize = 10;
/// What the fixed fields and the two name sizes take, in bytes.
pub(super) const HEAD_OVERHEAD_BYTES: usize = ROUTE_AT + 2;
/// What the size of the hidden keys takes, in bytes.
pub(super) const HIDDEN_SIZE_BYTES: usize = 2;

/// Where a message is put together: on the stack, unless it is long.
pub(super) type Scratch = SmallVec<[u8; 1_024]>;

/// The octets of the short string at `at`; empty if there is none.
#[inline]
pub(super) fn short(head: &[u8], at: usize) -> &[u8] {
    let length = head.get(at).map_or(0, |length| usize::from(*length));
    head.get(at + 1..at + 1 + length).unwrap_or_default()
}

#[inline]
pub(super) fn header_size(head: &[u8]) -> usize {
    head.get(HEADER_SIZE_AT..EXPIRATION_AT)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, |bytes| u32::from_le_bytes(bytes) as usize)
}

/// What the hidden keys at `at` take, in bytes, their size included.
#[inline]
pub(super) fn hidden_size(head: &[u8], at: usize) -> usize {
    if head
        .first()
        .is_none_or(|flags| flags & FLAG_HIDDEN_KEYS == 0)
    {
        return 0;
    }
    head.get(at..at + HIDDEN_SIZE_BYTES)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, |bytes| {
            HIDDEN_SIZE_BYTES + usize::from(u16::from_le_bytes(bytes))
        })
}

/// Puts everything but the body into an empty `head`.
pub(super) fn put_head(
    head: &mut Scratch,
    exchange: &[u8],
    routing_key: &[u8],
    header: &[u8],
    traits: MessageTraits,
    hidden_keys: &[Name],
) {
    let exchange = exchange.get(..NAME_BYTES_MAX).unwrap_or(exchange);
    let routing_key = routing_key.get(..NAME_BYTES_MAX).unwrap_or(routing_key);
    let (header, header_bytes) = match u32::try_from(header.len()) {
        Ok(header_bytes) => (header, header_bytes),
        Err(_) => (&[][..], 0),
    };
    let mut flags = match traits.persistence {
        Persistence::Persistent => FLAG_PERSISTENT,
        Persistence::Transient => 0,
    };
    if traits.expiration.is_some() {
        flags |= FLAG_EXPIRES;
    }
    if !hidden_keys.is_empty() {
        flags |= FLAG_HIDDEN_KEYS;
    }
    let expiration = traits.expiration.unwrap_or_default().as_millis();
    let expiration = u32::try_from(expiration).unwrap_or(u32::MAX);
    let [h0, h1, h2, h3] = header_bytes.to_le_bytes();
    let [e0, e1, e2, e3] = expiration.to_le_bytes();
    let exchange_bytes = u8::try_from(exchange.len()).unwrap_or(u8::MAX);
    head.extend_from_slice(&[
        flags,
        traits.priority,
        h0,
        h1,
        h2,
        h3,
        e0,
        e1,
        e2,
        e3,
        exchange_bytes,
    ]);
    head.extend_from_slice(exchange);
    head.push(u8::try_from(routing_key.len()).unwrap_or(u8::MAX));
    head.extend_from_slice(routing_key);
    head.extend_from_slice(header);
    if !hidden_keys.is_empty() {
        put_hidden_keys(hidden_keys, head);
    }
}

/// Adds the hidden keys; those that do not fit the size, which no header that came over the wire has
/// room for, are left out.
fn put_hidden_keys(keys: &[Name], head: &mut Scratch) {
    let at = head.len();
    head.extend_from_slice(&[0; HIDDEN_SIZE_BYTES]);
    let mut size: u16 = 0;
    for key in keys {
        let key = key.as_bytes();
        let Ok(length) = u8::try_from(key.len()) else {
            continue;
        };
        let Some(longer) = size.checked_add(1 + u16::from(length)) else {
            break;
        };
        size = longer;
        head.push(length);
        head.extend_from_slice(key);
    }
    if let Some(place) = head.get_mut(at..at + HIDDEN_SIZE_BYTES) {
        place.copy_from_slice(&size.to_le_bytes());
    }
}
