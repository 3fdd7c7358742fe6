//! Messages and copies of messages: values to bytes and back.
//!
//! Owns: the bodies of the kinds message, moved message and copied message.
//! Bound: a length is compared with what is there before anything is read or allocated.
//! Spec: `spec/journal.md`, "Record: byte map".

use smallvec::SmallVec;

use super::super::types::{
    BodyRecord, Location, Lsn, NewMessage, PayloadRecord, QueueId, StoredMessage, StoredRef,
};
use super::{HEAD_BYTES, Head, Input, Kind, Record, pad, record_bytes};

const MESSAGE_FIXED_BYTES: usize = 16;
const PAYLOAD_BYTES: usize = 48;
/// What a copy says before it goes on as a message: its number and where it was.
const COPY_FIXED_BYTES: usize = 24;

/// Length of the body of a message record, in bytes; `None` if a part is over its bound.
pub(crate) fn message_body_bytes(message: &NewMessage<'_>) -> Option<usize> {
    if message.exchange.len() > usize::from(u8::MAX)
        || message.routing_key.len() > usize::from(u8::MAX)
        || message.queues.is_empty()
        || message.queues.len() > usize::from(u16::MAX)
        || u32::try_from(message.header.len()).is_err()
    {
        return None;
    }
    let body = match message.body {
        BodyRecord::Inline(bytes) => bytes.len(),
        BodyRecord::Payload(_) => PAYLOAD_BYTES,
    };
    let queues = (message.queues.len() - 1) * 8;
    (MESSAGE_FIXED_BYTES + queues + message.exchange.len() + message.routing_key.len())
        .checked_add(message.header.len())?
        .checked_add(body)
}

/// Appends a message record whose body takes `body_bytes` as [`message_body_bytes`] gave them.
pub(crate) fn encode_message(
    out: &mut Vec<u8>,
    lsn: Lsn,
    more: bool,
    message: &NewMessage<'_>,
    body_bytes: usize,
) {
    let start = out.len();
    out.reserve(record_bytes(body_bytes));
    let (first, others) = message
        .queues
        .split_first()
        .expect("checked when its size was taken");
    let mut head = Head::new(Kind::Message, lsn, body_bytes);
    head.more = more;
    head.queue_count = u16::try_from(message.queues.len()).expect("checked with its size");
    head.extra = message.flags;
    head.queue = *first;
    head.encode(out);

    let mut fixed = [0; MESSAGE_FIXED_BYTES];
    let exchange_len = u8::try_from(message.exchange.len()).expect("checked with its size");
    let key_len = u16::try_from(message.routing_key.len()).expect("checked with its size");
    let header_len = u32::try_from(message.header.len()).expect("checked with its size");
    fixed[0..8].copy_from_slice(&message.time_unix_ms.to_le_bytes());
    fixed[8] = exchange_len;
    fixed[9] = u8::from(matches!(message.body, BodyRecord::Payload(_)));
    fixed[10..12].copy_from_slice(&key_len.to_le_bytes());
    fixed[12..16].copy_from_slice(&header_len.to_le_bytes());
    out.extend_from_slice(&fixed);
    for queue in others {
        out.extend_from_slice(&queue.0.to_le_bytes());
    }
    out.extend_from_slice(message.exchange);
    out.extend_from_slice(message.routing_key);
    out.extend_from_slice(message.header);
    match message.body {
        BodyRecord::Inline(bytes) => out.extend_from_slice(bytes),
        BodyRecord::Payload(payload) => encode_payload(out, &payload),
    }
    debug_assert_eq!(out.len() - start, HEAD_BYTES + body_bytes);
    pad(out, start);
}

pub(crate) fn encode_payload(out: &mut Vec<u8>, payload: &PayloadRecord) {
    out.extend_from_slice(&payload.scope.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&payload.size_bytes.to_le_bytes());
    out.extend_from_slice(&payload.id);
}

/// Where a copied message was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Origin {
    pub(crate) location: Location,
    /// The number of the record there, which is not the message's own if that was a copy too.
    pub(crate) record: Lsn,
}

/// A message or moved message record, taken apart but not copied.
#[derive(Clone, Debug)]
pub(crate) struct MessageView<'a> {
    /// The message's own number, also when this record is a copy.
    pub(crate) lsn: Lsn,
    /// Where it was copied from, if this record tells.
    pub(crate) origin: Option<Origin>,
    pub(crate) queues: SmallVec<[QueueId; 4]>,
    /// What lies before the list of further queues: time and lengths.
    fixed: &'a [u8],
    /// What lies behind the list of further queues.
    rest: &'a [u8],
    exchange: &'a [u8],
    routing_key: &'a [u8],
    header: &'a [u8],
    body: BodyRecord<'a>,
    flags: u32,
    time_unix_ms: u64,
}

impl<'a> MessageView<'a> {
    /// `None` if the lengths in it do not agree, or the record is of another kind.
    pub(crate) fn decode(record: &Record<'a>) -> Option<Self> {
        let head = &record.head;
        let mut input = Input(record.body);
        let lsn = match head.kind {
            Kind::Message => head.lsn,
            Kind::Moved | Kind::Copied => Lsn(input.u64()?),
            _ => return None,
        };
        let origin = match head.kind {
            Kind::Copied => Some(Origin {
                location: Location {
                    segment: input.u32()?,
                    offset: input.u32()?,
                },
                record: Lsn(input.u64()?),
            }),
            _ => None,
        };
        let fixed = input.0.get(..MESSAGE_FIXED_BYTES)?;
        let time_unix_ms = input.u64()?;
        let exchange_len = usize::from(input.u8()?);
        let body_kind = input.u8()?;
        let key_len = usize::from(input.u16()?);
        let header_len = usize::try_from(input.u32()?).ok()?;
        let other_count = usize::from(head.queue_count).checked_sub(1)?;
        let mut queues = SmallVec::with_capacity(other_count + 1);
        queues.push(head.queue);
        let mut others = Input(input.bytes(other_count.checked_mul(8)?)?);
        for _ in 0..other_count {
            queues.push(QueueId(others.u64()?));
        }
        let rest = input.0;
        let exchange = input.bytes(exchange_len)?;
        let routing_key = input.bytes(key_len)?;
        let header = input.bytes(header_len)?;
        let body = match body_kind {
            0 => BodyRecord::Inline(input.0),
            1 => {
                let payload = decode_payload(&mut input)?;
                if !input.0.is_empty() {
                    return None;
                }
                BodyRecord::Payload(payload)
            }
            _ => return None,
        };
        Some(Self {
            lsn,
            origin,
            queues,
            fixed,
            rest,
            exchange,
            routing_key,
            header,
            body,
            flags: head.extra,
            time_unix_ms,
        })
    }

    /// Length of the inline body in bytes, or `None` for a payload.
    pub(crate) fn inline_bytes(&self) -> Option<usize> {
        match self.body {
            BodyRecord::Inline(bytes) => Some(bytes.len()),
            BodyRecord::Payload(_) => None,
        }
    }

    /// The payload that is its body, if it is one.
    pub(crate) fn payload(&self) -> Option<PayloadRecord> {
        match self.body {
            BodyRecord::Inline(_) => None,
            BodyRecord::Payload(payload) => Some(payload),
        }
    }

    /// Copies it out.
    pub(crate) fn to_stored(&self) -> StoredMessage {
        self.to_ref().to_stored()
    }

    /// The message as it lies there.
    pub(crate) fn to_ref(&self) -> StoredRef<'_> {
        StoredRef {
            lsn: self.lsn,
            exchange: self.exchange,
            routing_key: self.routing_key,
            header: self.header,
            body: self.body,
            queues: &self.queues,
            flags: self.flags,
            time_unix_ms: self.time_unix_ms,
        }
    }

    /// Length of the body of a copy for `queue_count` queues, in bytes.
    pub(crate) fn copy_body_bytes(&self, queue_count: usize) -> usize {
        COPY_FIXED_BYTES + MESSAGE_FIXED_BYTES + (queue_count - 1) * 8 + self.rest.len()
    }

    /// Appends a copy of it, which was at `origin`, for the queues that still hold it.
    pub(crate) fn encode_copy(
        &self,
        out: &mut Vec<u8>,
        lsn: Lsn,
        queues: &[QueueId],
        origin: Origin,
    ) {
        let start = out.len();
        let (first, others) = queues.split_first().expect("only live messages are moved");
        let mut head = Head::new(Kind::Copied, lsn, self.copy_body_bytes(queues.len()));
        head.queue_count = u16::try_from(queues.len()).expect("a part of the message's queues");
        head.extra = self.flags;
        head.queue = *first;
        head.encode(out);
        out.extend_from_slice(&self.lsn.0.to_le_bytes());
        out.extend_from_slice(&origin.location.segment.to_le_bytes());
        out.extend_from_slice(&origin.location.offset.to_le_bytes());
        out.extend_from_slice(&origin.record.0.to_le_bytes());
        out.extend_from_slice(self.fixed);
        for queue in others {
            out.extend_from_slice(&queue.0.to_le_bytes());
        }
        out.extend_from_slice(self.rest);
        pad(out, start);
    }
}

pub(crate) fn decode_payload(input: &mut Input<'_>) -> Option<PayloadRecord> {
    let scope = input.u32()?;
    input.u32()?;
    let size_bytes = input.u64()?;
    let id = input.bytes(32)?.try_into().ok()?;
    Some(PayloadRecord {
        scope,
        id,
        size_bytes,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::super::types::StoredBody;
    use super::super::{decode, write_checksum};
    use super::*;

    fn message(queues: &[QueueId]) -> NewMessage<'_> {
        NewMessage {
            exchange: b"orders",
            routing_key: b"eu.new",
            header: &[1, 2, 3],
            body: BodyRecord::Inline(b"hello"),
            queues,
            flags: 7,
            time_unix_ms: 99,
        }
    }

    fn encoded(message: &NewMessage<'_>, salt: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let body_bytes = message_body_bytes(message).unwrap();
        encode_message(&mut out, Lsn(5), false, message, body_bytes);
        write_checksum(&mut out, salt);
        out
    }

    /// A message comes back with every field, for one queue and for several.
    #[test]
    fn message_round_trip() {
        for queues in [vec![QueueId(1)], vec![QueueId(1), QueueId(9), QueueId(4)]] {
            let bytes = encoded(&message(&queues), 3);
            let view = MessageView::decode(&decode(&bytes, 3).unwrap()).unwrap();
            let stored = view.to_stored();
            assert_eq!(stored.lsn, Lsn(5));
            assert_eq!(&stored.exchange[..], b"orders");
            assert_eq!(&stored.routing_key[..], b"eu.new");
            assert_eq!(&stored.header[..], [1, 2, 3]);
            assert_eq!(
                stored.body,
                StoredBody::Inline(Bytes::from_static(b"hello"))
            );
            assert_eq!(stored.queues, queues);
            assert_eq!((stored.flags, stored.time_unix_ms), (7, 99));
        }
    }

    /// A copy keeps the message's number and content, and has the queues that it was given.
    #[test]
    fn moved_message_round_trip() {
        let queues = [QueueId(1), QueueId(9), QueueId(4)];
        let bytes = encoded(&message(&queues), 3);
        let view = MessageView::decode(&decode(&bytes, 3).unwrap()).unwrap();
        let mut copy = Vec::new();
        let origin = Origin {
            location: Location {
                segment: 3,
                offset: 800,
            },
            record: Lsn(5),
        };
        view.encode_copy(&mut copy, Lsn(80), &[QueueId(9), QueueId(4)], origin);
        write_checksum(&mut copy, 4);
        let record = decode(&copy, 4).unwrap();
        assert_eq!(record.head.lsn, Lsn(80));
        let moved = MessageView::decode(&record).unwrap();
        assert_eq!(moved.origin, Some(origin));
        let expected = StoredMessage {
            queues: vec![QueueId(9), QueueId(4)],
            ..view.to_stored()
        };
        assert_eq!(moved.to_stored(), expected);
    }

    /// A body in the payload store is kept by name.
    #[test]
    fn payload_round_trip() {
        let payload = PayloadRecord {
            scope: 3,
            id: [7; 32],
            size_bytes: 1 << 40,
        };
        let queues = [QueueId(1)];
        let message = NewMessage {
            body: BodyRecord::Payload(payload),
            ..message(&queues)
        };
        let bytes = encoded(&message, 3);
        let view = MessageView::decode(&decode(&bytes, 3).unwrap()).unwrap();
        assert_eq!(view.to_stored().body, StoredBody::Payload(payload));
        assert_eq!(view.inline_bytes(), None);
    }
}
