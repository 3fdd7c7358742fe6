//! Records: values to bytes and back.
//!
//! Owns: the byte map of a record and its checksum. Knows nothing of files or of who is alive.
//! Bound: a length is compared with what is there before anything is read or allocated.
//! Spec: `spec/journal.md`, "Record: byte map", JOURNAL-8.

use smallvec::SmallVec;

use super::places::PlaceSet;
use super::types::{
    BodyRecord, Location, Lsn, NewMessage, PayloadRecord, QueueId, StoredMessage, StoredRef,
};

/// Bytes before the body of a record.
pub(crate) const HEAD_BYTES: usize = 32;
/// Every record begins at a multiple of this, in bytes.
pub(crate) const ALIGN_BYTES: usize = 8;
/// A whole sync mark, in bytes.
pub(crate) const MARK_BYTES: usize = HEAD_BYTES + 16;
/// One segment in a catalog, in bytes.
pub(crate) const CATALOG_ENTRY_BYTES: usize = 24;
/// A catalog before its entries: head and count, in bytes.
pub(crate) const CATALOG_FIXED_BYTES: usize = HEAD_BYTES + 8;
/// Tells a sync mark from other bytes when searching for one.
pub(crate) const MARK_MAGIC: u64 = 0x6b72_616d_636e_7973;

const MESSAGE_FIXED_BYTES: usize = 16;
const PAYLOAD_BYTES: usize = 48;
/// What a copy says before it goes on as a message: its number and where it was.
const COPY_FIXED_BYTES: usize = 24;
const FLAG_MORE: u8 = 1;
const MARK_BODY_BYTES: u32 = 16;
const _: () = assert!(MARK_BYTES.is_multiple_of(ALIGN_BYTES));

/// What a record is; the numbers are those of the file format.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Kind {
    Mark = 1,
    Catalog = 2,
    Message = 3,
    Moved = 4,
    Acks = 5,
    QueueDelete = 6,
    DefinitionPut = 7,
    DefinitionRemove = 8,
    DefinitionsReset = 9,
    Released = 10,
    CleanStop = 11,
    Delivered = 13,
    Started = 14,
    Noted = 15,
    Copied = 16,
    Cleared = 17,
    PlaceAcks = 18,
}

impl Kind {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Mark,
            2 => Self::Catalog,
            3 => Self::Message,
            4 => Self::Moved,
            5 => Self::Acks,
            6 => Self::QueueDelete,
            7 => Self::DefinitionPut,
            8 => Self::DefinitionRemove,
            9 => Self::DefinitionsReset,
            10 => Self::Released,
            11 => Self::CleanStop,
            13 => Self::Delivered,
            14 => Self::Started,
            15 => Self::Noted,
            16 => Self::Copied,
            17 => Self::Cleared,
            18 => Self::PlaceAcks,
            _ => return None,
        })
    }

    /// Whether a record of this kind has a number of its own.
    pub(crate) fn is_numbered(self) -> bool {
        match self {
            Self::Mark | Self::Catalog => false,
            Self::Message
            | Self::Moved
            | Self::Acks
            | Self::QueueDelete
            | Self::DefinitionPut
            | Self::DefinitionRemove
            | Self::DefinitionsReset
            | Self::Released
            | Self::CleanStop
            | Self::Delivered
            | Self::Started
            | Self::Noted
            | Self::Copied
            | Self::Cleared
            | Self::PlaceAcks => true,
        }
    }
}

/// The first 32 bytes of a record, without its checksum.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Head {
    pub(crate) body_bytes: u32,
    pub(crate) lsn: Lsn,
    pub(crate) kind: Kind,
    /// Whether the next numbered record belongs to the same atomic batch.
    pub(crate) more: bool,
    pub(crate) queue_count: u16,
    pub(crate) extra: u32,
    pub(crate) queue: QueueId,
}

impl Head {
    pub(crate) fn new(kind: Kind, lsn: Lsn, body_bytes: usize) -> Self {
        let body_bytes = u32::try_from(body_bytes).expect("records are at most half a segment");
        let queue = QueueId(0);
        Self {
            body_bytes,
            lsn,
            kind,
            more: false,
            queue_count: 0,
            extra: 0,
            queue,
        }
    }

    /// Length of the whole record with its padding, in bytes.
    pub(crate) fn record_bytes(&self) -> usize {
        record_bytes(self.body_bytes as usize)
    }

    /// Appends the head; the checksum stays zero until [`write_checksum`].
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; HEAD_BYTES];
        bytes[0..4].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.lsn.0.to_le_bytes());
        bytes[16] = self.kind as u8;
        bytes[17] = if self.more { FLAG_MORE } else { 0 };
        bytes[18..20].copy_from_slice(&self.queue_count.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.extra.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.queue.0.to_le_bytes());
        out.extend_from_slice(&bytes);
    }

    /// Reads a head; `None` if the bytes are too few or the kind or a flag is unknown.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        let body_bytes = input.u32()?;
        let _checksum = input.u32()?;
        let lsn = Lsn(input.u64()?);
        let kind = Kind::from_byte(input.u8()?)?;
        let flags = input.u8()?;
        let queue_count = input.u16()?;
        let extra = input.u32()?;
        let queue = QueueId(input.u64()?);
        if flags & !FLAG_MORE != 0 {
            return None;
        }
        let more = flags & FLAG_MORE != 0;
        Some(Self {
            body_bytes,
            lsn,
            kind,
            more,
            queue_count,
            extra,
            queue,
        })
    }
}

/// A record that was read; its body is not yet looked into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub(crate) head: Head,
    pub(crate) body: &'a [u8],
}

/// Length of a record with a body of `body_bytes`, with its padding, in bytes.
pub(crate) fn record_bytes(body_bytes: usize) -> usize {
    (HEAD_BYTES + body_bytes).next_multiple_of(ALIGN_BYTES)
}

/// Appends zeros up to the next place where a record may begin.
fn pad(out: &mut Vec<u8>, start: usize) {
    let len = (out.len() - start).next_multiple_of(ALIGN_BYTES) + start;
    out.resize(len, 0);
}

fn checksum(record: &[u8], salt: u64) -> u32 {
    let crc = crc32c::crc32c(&salt.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &record[0..4]);
    crc32c::crc32c_append(crc, &record[8..])
}

/// Fills in the checksum of the record at the start of `bytes`, which this program encoded itself.
///
/// Gives the head and the length of the record with its padding.
pub(crate) fn write_checksum(bytes: &mut [u8], salt: u64) -> (Head, usize) {
    let head = Head::decode(bytes).expect("only whole records are pending");
    let end = HEAD_BYTES + head.body_bytes as usize;
    let crc = checksum(&bytes[..end], salt);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    (head, head.record_bytes())
}

/// Reads the record at the start of `bytes`; `None` if it is not whole or its checksum is wrong.
// req: JOURNAL-8
pub(crate) fn decode(bytes: &[u8], salt: u64) -> Option<Record<'_>> {
    let head = Head::decode(bytes)?;
    let end = HEAD_BYTES.checked_add(usize::try_from(head.body_bytes).ok()?)?;
    let record = bytes.get(..end)?;
    let stored = u32::from_le_bytes(record.get(4..8)?.try_into().ok()?);
    if checksum(record, salt) != stored && !super::sabotage::ignores_checksums() {
        return None;
    }
    Some(Record {
        head,
        body: record.get(HEAD_BYTES..)?,
    })
}

/// Reads a record that this process encoded and that has no checksum yet.
pub(crate) fn decode_trusted(bytes: &[u8]) -> Record<'_> {
    let head = Head::decode(bytes).expect("only whole records are pending");
    Record {
        head,
        body: &bytes[HEAD_BYTES..HEAD_BYTES + head.body_bytes as usize],
    }
}

// ---- sync mark ----

/// Appends a sync mark behind the record `last`; `durable` may be patched in later.
pub(crate) fn encode_mark(out: &mut Vec<u8>, last: Lsn, durable: Lsn) {
    Head::new(Kind::Mark, last, MARK_BODY_BYTES as usize).encode(out);
    out.extend_from_slice(&durable.0.to_le_bytes());
    out.extend_from_slice(&MARK_MAGIC.to_le_bytes());
}

/// Writes the durable number into the mark at the start of `mark`.
pub(crate) fn patch_mark(mark: &mut [u8], durable: Lsn) {
    debug_assert_eq!(Head::decode(mark).map(|head| head.kind), Some(Kind::Mark));
    mark[HEAD_BYTES..HEAD_BYTES + 8].copy_from_slice(&durable.0.to_le_bytes());
}

/// The number that a mark names as durable.
pub(crate) fn mark_durable(body: &[u8]) -> Option<Lsn> {
    let mut input = Input(body);
    let durable = Lsn(input.u64()?);
    (input.u64()? == MARK_MAGIC && input.0.is_empty()).then_some(durable)
}

/// Finds the next sync mark in `bytes` (which begins at a record boundary) and gives its offset and
/// the number that it names.
pub(crate) fn find_mark(bytes: &[u8], salt: u64) -> Option<(usize, Lsn)> {
    let magic = MARK_MAGIC.to_le_bytes();
    let mut offset = 0usize;
    while let Some(candidate) = bytes.get(offset..offset.checked_add(MARK_BYTES)?) {
        if candidate[MARK_BYTES - 8..] == magic
            && let Some(record) = decode(candidate, salt)
            && record.head.kind == Kind::Mark
            && let Some(durable) = mark_durable(record.body)
        {
            return Some((offset, durable));
        }
        offset += ALIGN_BYTES;
    }
    None
}

// ---- catalog ----

/// One segment as a catalog lists it: its records are `first..end`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct CatalogEntry {
    pub(crate) number: u32,
    pub(crate) first: Lsn,
    /// The number behind the last record that counts.
    pub(crate) end: Lsn,
}

/// Appends the catalog of the segments that exist before record `first`.
pub(crate) fn encode_catalog(out: &mut Vec<u8>, before: Lsn, entries: &[CatalogEntry]) {
    let body_bytes = 8 + entries.len() * CATALOG_ENTRY_BYTES;
    Head::new(Kind::Catalog, before, body_bytes).encode(out);
    let count = u32::try_from(entries.len()).expect("segments have 32-bit numbers");
    out.extend_from_slice(&count.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    for entry in entries {
        out.extend_from_slice(&entry.number.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&entry.first.0.to_le_bytes());
        out.extend_from_slice(&entry.end.0.to_le_bytes());
    }
}

/// Reads the body of a catalog.
pub(crate) fn decode_catalog(body: &[u8]) -> Option<Vec<CatalogEntry>> {
    let mut input = Input(body);
    let count = usize::try_from(input.u32()?).ok()?;
    input.u32()?;
    if input.0.len() != count.checked_mul(CATALOG_ENTRY_BYTES)? {
        return None;
    }
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let number = input.u32()?;
        input.u32()?;
        entries.push(CatalogEntry {
            number,
            first: Lsn(input.u64()?),
            end: Lsn(input.u64()?),
        });
    }
    Some(entries)
}

// ---- message ----

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

// ---- runs of numbers: acks, delivered ----

/// Appends `lsns` as runs; sorts a copy first if they are not in order.
pub(crate) fn encode_runs(out: &mut impl Extend<u8>, lsns: &[Lsn]) {
    if lsns.is_sorted() {
        encode_sorted_runs(out, lsns.iter().copied().map(|lsn| (lsn, 1)));
    } else {
        let mut sorted: SmallVec<[Lsn; 32]> = SmallVec::from_slice(lsns);
        sorted.sort_unstable();
        encode_sorted_runs(out, sorted.iter().copied().map(|lsn| (lsn, 1)));
    }
}

/// Appends runs given as first number and length, in order; neighbours are joined.
pub(crate) fn encode_sorted_runs(
    out: &mut impl Extend<u8>,
    runs: impl Iterator<Item = (Lsn, u64)>,
) {
    let mut end_of_last = 0;
    let mut current: Option<(u64, u64)> = None;
    for (Lsn(first), len) in runs {
        match &mut current {
            Some((start, end)) if first <= *end => {
                debug_assert!(first >= *start, "runs come in order");
                *end = (*end).max(first + len);
            }
            _ => {
                if let Some((start, end)) = current.take() {
                    encode_run(out, &mut end_of_last, start, end);
                }
                current = Some((first, first + len));
            }
        }
    }
    if let Some((start, end)) = current {
        encode_run(out, &mut end_of_last, start, end);
    }
}

fn encode_run(out: &mut impl Extend<u8>, end_of_last: &mut u64, start: u64, end: u64) {
    encode_varint(out, start - *end_of_last);
    encode_varint(out, end - start - 1);
    *end_of_last = end;
}

pub(crate) fn encode_varint(out: &mut impl Extend<u8>, mut value: u64) {
    while value >= 0x80 {
        out.extend([value.to_le_bytes()[0] | 0x80]);
        value >>= 7;
    }
    out.extend([value.to_le_bytes()[0]]);
}

/// Reads runs as first number and length; ends early at bytes that make no sense.
#[derive(Clone, Debug)]
pub(crate) struct Runs<'a> {
    input: Input<'a>,
    end_of_last: u64,
}

impl<'a> Runs<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self {
            input: Input(body),
            end_of_last: 0,
        }
    }
}

impl Iterator for Runs<'_> {
    type Item = (Lsn, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let gap = self.input.varint()?;
        let len = self.input.varint()?.checked_add(1)?;
        let start = self.end_of_last.checked_add(gap)?;
        self.end_of_last = start.checked_add(len)?;
        Some((Lsn(start), len))
    }
}

// ---- the small ones ----

/// Appends a record with the given head and body.
pub(crate) fn encode_plain(out: &mut Vec<u8>, head: &Head, body: &[u8]) {
    let start = out.len();
    head.encode(out);
    out.extend_from_slice(body);
    pad(out, start);
}

/// Appends the body of a definition put (`Some`) or remove (`None`).
pub(crate) fn encode_definition(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    let key_len = u32::try_from(key.len()).expect("records are at most half a segment");
    out.extend_from_slice(&key_len.to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value.unwrap_or_default());
}

/// Key and what follows it, of a definition put or remove.
pub(crate) fn decode_definition(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut input = Input(body);
    let key_len = usize::try_from(input.u32()?).ok()?;
    let key = input.bytes(key_len)?;
    Some((key, input.0))
}

/// The segment number in a released record.
pub(crate) fn decode_released(body: &[u8]) -> Option<u32> {
    Input(body).u32()
}

/// The body of acks by place: the segment that they work on, and the records there.
pub(crate) fn encode_place_acks(target: u32, places: &PlaceSet) -> Vec<u8> {
    let mut body = target.to_le_bytes().to_vec();
    places.encode(&mut body);
    body
}

/// Reads what [`encode_place_acks`] wrote.
pub(crate) fn decode_place_acks(body: &[u8]) -> Option<(u32, PlaceSet)> {
    let mut input = Input(body);
    let target = input.u32()?;
    let places = PlaceSet::decode(&mut input)?;
    input.0.is_empty().then_some((target, places))
}

/// Bytes still to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn varint_u32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    pub(crate) fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let low = u64::from(byte & 0x7f);
            if shift == 63 && low > 1 {
                return None;
            }
            value |= low << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::types::StoredBody;
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

    /// One flipped bit anywhere, or another salt, makes a record bad.
    // req: JOURNAL-8
    #[test]
    fn flipped_bit_or_other_salt_is_refused() {
        let queues = [QueueId(1)];
        let bytes = encoded(&message(&queues), 3);
        assert!(decode(&bytes, 4).is_none());
        let end = HEAD_BYTES + Head::decode(&bytes).unwrap().body_bytes as usize;
        for bit in 0..end * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged, 3).is_none(), "bit {bit}");
        }
    }

    /// A mark is found at any record boundary, and only under its own salt.
    #[test]
    fn mark_is_found_behind_other_bytes() {
        let mut bytes = vec![0xff; 64];
        encode_mark(&mut bytes, Lsn(9), Lsn(8));
        write_checksum(&mut bytes[64..], 5);
        bytes.extend_from_slice(&[0; 100]);
        assert_eq!(find_mark(&bytes, 5), Some((64, Lsn(8))));
        assert_eq!(find_mark(&bytes, 6), None);
    }

    proptest! {
        /// Numbers in any order come back as the runs that they form.
        #[test]
        fn runs_round_trip(numbers in proptest::collection::btree_set(1u64..5_000, 0..300)) {
            let lsns: Vec<Lsn> = numbers.iter().rev().copied().map(Lsn).collect();
            let mut body = Vec::new();
            encode_runs(&mut body, &lsns);
            let back: Vec<u64> =
                Runs::new(&body).flat_map(|(Lsn(first), len)| first..first + len).collect();
            prop_assert_eq!(back, numbers.into_iter().collect::<Vec<_>>());
        }

        /// No bytes make a decoder panic.
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(head) = Head::decode(&bytes) {
                let body = bytes.get(HEAD_BYTES..).unwrap_or_default();
                let record = Record { head, body };
                let _ = MessageView::decode(&record);
            }
            let _ = decode_catalog(&bytes);
            let _ = decode_place_acks(&bytes);
            let _ = decode_definition(&bytes);
            let _ = find_mark(&bytes, 0);
            let _ = Runs::new(&bytes).count();
        }
    }
}
