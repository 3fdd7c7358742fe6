//! Records: values to bytes and back.
//!
//! Owns: the byte map of a record and its checksum, marks, catalogs and the small kinds. Messages stand in
//! [`message`], numbers and runs of them in [`numbers`]. Knows nothing of files or of who is alive.
//! Bound: a length is compared with what is there before anything is read or allocated.
//! Spec: `spec/journal.md`, "Record: byte map", JOURNAL-8.

mod message;
mod numbers;

use super::places::PlaceSet;
use super::types::{Lsn, QueueId};

pub(crate) use message::{
    MessageView, Origin, decode_payload, encode_message, encode_payload, message_body_bytes,
};
pub(crate) use numbers::{Input, Runs, encode_runs, encode_sorted_runs, encode_varint};

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::types::{BodyRecord, NewMessage};
    use super::*;

    fn encoded(salt: u64) -> Vec<u8> {
        let message = NewMessage {
            exchange: b"orders",
            routing_key: b"eu.new",
            header: &[1, 2, 3],
            body: BodyRecord::Inline(b"hello"),
            queues: &[QueueId(1)],
            flags: 7,
            time_unix_ms: 99,
        };
        let mut out = Vec::new();
        let body_bytes = message_body_bytes(&message).unwrap();
        encode_message(&mut out, Lsn(5), false, &message, body_bytes);
        write_checksum(&mut out, salt);
        out
    }

    /// One flipped bit anywhere, or another salt, makes a record bad.
    // req: JOURNAL-8
    #[test]
    fn flipped_bit_or_other_salt_is_refused() {
        let bytes = encoded(3);
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
