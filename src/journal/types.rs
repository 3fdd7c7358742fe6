//! The values that go into the journal and come out of it.
//!
//! Owns: names for positions (`Lsn`, `Location`), what is appended (`NewMessage`, `Entry`) and what a
//! recovery or a read gives back. Knows nothing of files.
//! Spec: `spec/journal.md`, "Records".

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;

/// How large a journal is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct JournalUsage {
    /// Segment files.
    pub segment_count: u64,
    /// Their length in bytes, with what is reserved in them.
    pub file_bytes: u64,
    /// Bytes of messages that some queue still holds, estimated.
    pub live_bytes: u64,
    /// Memory that is held for single messages, in bytes: lists of the segment that is written, footers that had
    /// no room on the disk, copies that are not yet durable. Bounded, whatever the number of messages.
    pub memory_bytes: u64,
    /// The number of the last durable record.
    pub durable_record: u64,
}

/// Number of a record: 1 for the first of a store, then one more for each record.
///
/// A message keeps the number of its first record for ever, also when compaction copies it; order
/// of numbers is order of appending. 0 stands before every record.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Before every record.
    pub const ZERO: Self = Self(0);

    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// Name of a durable queue in the journal; chosen by the broker, never used again after a delete.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct QueueId(pub u64);

impl fmt::Display for QueueId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

/// Where a record lies: all that memory must keep, beside the [`Lsn`], of a message that is on disk.
///
/// It may grow stale when compaction moves the message; a read then finds the copy by its `Lsn`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Location {
    /// Number of the segment.
    pub segment: u32,
    /// First byte of the record in the segment, in bytes; a multiple of 8.
    pub offset: u32,
}

/// What an append of a message gives back: its number and its place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Appended {
    /// Number of the message; compare it with a `DurableLsn` to know when to confirm.
    pub lsn: Lsn,
    /// Where it will lie once written.
    pub location: Location,
}

impl Appended {
    /// What stands for a message that is not in the journal.
    pub const NONE: Self = Self {
        lsn: Lsn::ZERO,
        location: Location {
            segment: 0,
            offset: 0,
        },
    };
}

/// The body of a message to append.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BodyRecord<'a> {
    /// The bytes themselves.
    Inline(&'a [u8]),
    /// A payload that lies in the payload store, synced before this record is appended.
    Payload(PayloadRecord),
}

/// Names a body in the payload store.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PayloadRecord {
    /// The store's scope: a vhost's number, or 0 on a node.
    pub scope: u32,
    /// The payload id.
    pub id: [u8; 32],
    /// Length of the payload in bytes.
    pub size_bytes: u64,
}

/// A message to append: one record, whatever the number of queues.
#[derive(Clone, Copy, Debug)]
pub struct NewMessage<'a> {
    /// Exchange name, at most 255 bytes.
    pub exchange: &'a [u8],
    /// Routing key, at most 255 bytes.
    pub routing_key: &'a [u8],
    /// Raw content header: property flags and properties, as they came.
    pub header: &'a [u8],
    /// The body, or the name of it.
    pub body: BodyRecord<'a>,
    /// The durable queues it goes to; at least one, each once, at most 65,535.
    pub queues: &'a [QueueId],
    /// For the broker's own use; kept and given back.
    pub flags: u32,
    /// Wall clock time of the publish, milliseconds since 1970, for expiry across restarts.
    pub time_unix_ms: u64,
}

/// One step of an atomic batch: after a crash all entries of the batch are there, or none.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// A message is published.
    Message(NewMessage<'a>),
    /// Messages are gone from a queue: acknowledged, dropped, purged, expired.
    Acks {
        /// The queue they leave.
        queue: QueueId,
        /// The messages, in any order, each once.
        lsns: &'a [Lsn],
    },
    /// All messages of a queue in ranges of numbers are gone: see
    /// [`Journal::append_cleared`](super::Journal::append_cleared).
    Cleared {
        /// The queue they leave.
        queue: QueueId,
        /// First and last number of each range.
        ranges: &'a [(Lsn, Lsn)],
    },
    /// A small number is noted of messages of a queue: see
    /// [`Journal::append_noted`](super::Journal::append_noted).
    Noted {
        /// The queue that holds them.
        queue: QueueId,
        /// The messages, in any order.
        lsns: &'a [Lsn],
        /// What is noted.
        note: u32,
    },
    /// A queue and all of its messages are gone.
    QueueDelete(QueueId),
    /// A definition is set (`Some`) or removed (`None`).
    Definition {
        /// Its key.
        key: &'a [u8],
        /// Its value.
        value: Option<&'a [u8]>,
    },
}

/// A message as [`Journal::read_message`](super::Journal::read_message) gives it back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredMessage {
    /// Its number.
    pub lsn: Lsn,
    /// Exchange name.
    pub exchange: Bytes,
    /// Routing key.
    pub routing_key: Bytes,
    /// Raw content header.
    pub header: Bytes,
    /// The body, or the name of it.
    pub body: StoredBody,
    /// The queues it went to, as far as they still held it when the record was written.
    pub queues: Vec<QueueId>,
    /// What the broker gave.
    pub flags: u32,
    /// What the broker gave: milliseconds since 1970.
    pub time_unix_ms: u64,
}

impl StoredMessage {
    /// The same, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> StoredRef<'_> {
        StoredRef {
            lsn: self.lsn,
            exchange: &self.exchange,
            routing_key: &self.routing_key,
            header: &self.header,
            body: match &self.body {
                StoredBody::Inline(bytes) => BodyRecord::Inline(bytes),
                StoredBody::Payload(payload) => BodyRecord::Payload(*payload),
            },
            queues: &self.queues,
            flags: self.flags,
            time_unix_ms: self.time_unix_ms,
        }
    }
}

/// A message as [`Journal::read_messages`](super::Journal::read_messages) shows it, borrowed from what
/// was read.
#[derive(Clone, Copy, Debug)]
pub struct StoredRef<'a> {
    /// Its number.
    pub lsn: Lsn,
    /// Exchange name.
    pub exchange: &'a [u8],
    /// Routing key.
    pub routing_key: &'a [u8],
    /// Raw content header.
    pub header: &'a [u8],
    /// The body, or the name of it.
    pub body: BodyRecord<'a>,
    /// The queues it went to, as far as they still held it when the record was written.
    pub queues: &'a [QueueId],
    /// What the broker gave.
    pub flags: u32,
    /// What the broker gave: milliseconds since 1970.
    pub time_unix_ms: u64,
}

impl StoredRef<'_> {
    /// A copy of it.
    #[must_use]
    pub fn to_stored(&self) -> StoredMessage {
        StoredMessage {
            lsn: self.lsn,
            exchange: Bytes::copy_from_slice(self.exchange),
            routing_key: Bytes::copy_from_slice(self.routing_key),
            header: Bytes::copy_from_slice(self.header),
            body: match self.body {
                BodyRecord::Inline(body) => StoredBody::Inline(Bytes::copy_from_slice(body)),
                BodyRecord::Payload(payload) => StoredBody::Payload(payload),
            },
            queues: self.queues.to_vec(),
            flags: self.flags,
            time_unix_ms: self.time_unix_ms,
        }
    }
}

/// The body of a stored message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StoredBody {
    /// The bytes themselves.
    Inline(Bytes),
    /// A payload in the payload store.
    Payload(PayloadRecord),
}

/// What a queue held when the store was opened. The messages themselves stay on disk:
/// [`Journal::read_backlog`](super::Journal::read_backlog) reads them in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RecoveredQueue {
    /// How many messages; never 0.
    pub count: u64,
    /// Length of their inline bodies together, in bytes.
    pub body_bytes: u64,
    /// The lowest number among them.
    pub first: Lsn,
    /// The highest number among them.
    pub last: Lsn,
    /// Those whose body is a payload, in order: the broker must take a reference to each.
    pub payloads: Vec<(Lsn, PayloadRecord)>,
}

/// Messages of a queue that follow each other there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span {
    /// The number of the first one.
    pub first: Lsn,
    /// The number of the last one.
    pub last: Lsn,
    /// How many messages; never 0.
    pub count: u64,
    /// Length of their inline bodies together, in bytes.
    pub body_bytes: u64,
}

/// A message of a queue as [`Journal::read_backlog`](super::Journal::read_backlog) gives it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BacklogMessage {
    /// Its number: acknowledge it by this.
    pub lsn: Lsn,
    /// Where it lies.
    pub location: Location,
    /// Whether it may have been delivered before: noted at a clean stop, or, of a message that is older
    /// than this open of the store, because the last run did not end cleanly.
    pub was_delivered: bool,
    /// The greatest value that was noted of it for this queue; 0 if none was.
    pub note: u32,
    /// The message.
    pub message: StoredMessage,
}

/// A message of a queue as [`Journal::visit_backlog`](super::Journal::visit_backlog) shows it, borrowed
/// from what was read.
#[derive(Clone, Copy, Debug)]
pub struct BacklogRef<'a> {
    /// As [`BacklogMessage::lsn`].
    pub lsn: Lsn,
    /// Where it lies.
    pub location: Location,
    /// As [`BacklogMessage::was_delivered`].
    pub was_delivered: bool,
    /// As [`BacklogMessage::note`].
    pub note: u32,
    /// The message.
    pub message: StoredRef<'a>,
}

impl BacklogRef<'_> {
    /// A copy of it.
    #[must_use]
    pub fn to_message(&self) -> BacklogMessage {
        BacklogMessage {
            lsn: self.lsn,
            location: self.location,
            was_delivered: self.was_delivered,
            note: self.note,
            message: self.message.to_stored(),
        }
    }
}

/// What a store held when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Definitions, ordered by key.
    pub definitions: Vec<(Vec<u8>, Vec<u8>)>,
    /// What each queue holds. A queue without messages has no entry; a queue that the definitions do not
    /// know is to be deleted by the broker.
    pub queues: HashMap<QueueId, RecoveredQueue>,
    /// Whether the last run ended with [`Journal::close`](super::Journal::close).
    pub clean: bool,
    /// Highest number of any queue id met in the segments; ids above it are free.
    pub queue_id_max: QueueId,
}
