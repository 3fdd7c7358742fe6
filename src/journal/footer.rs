//! The footer of a full segment: what a start and a reader must know of it without reading its records.
//!
//! Owns: the bytes of a footer (lists, summary, trailer) and their checksums. Knows nothing of who asks.
//! Bound: a length or count is compared with what is there before anything is allocated for it.
//! Spec: `spec/journal.md`, "Footer: byte map", JOURNAL-26 to JOURNAL-29.

use super::definitions::Changes;
use super::list::{BLOCK_COUNT, Block, DIRECTORY_ENTRY_BYTES, List};
use super::places::PlaceSet;
use super::record::{
    Input, Runs, decode_payload, encode_payload, encode_sorted_runs, encode_varint,
};
use super::runs::RunSet;
use super::types::{Lsn, PayloadRecord, QueueId};

/// The trailer, which ends the file, in bytes.
pub(crate) const TRAILER_BYTES: usize = 88;
const MAGIC: [u8; 8] = *b"WARRENF\x01";
const CHECKSUM_AT: usize = TRAILER_BYTES - 4;
const FLAG_CLOSED: u32 = 1;

/// Where a list lies in a footer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct ListRef {
    /// Where its directory begins, in bytes from the footer's start; its blocks follow the directory.
    pub(crate) at: u32,
    /// How many messages.
    pub(crate) count: u32,
    /// Length of its blocks, in bytes.
    pub(crate) bytes: u32,
    /// Of the directory.
    pub(crate) checksum: u32,
    /// The numbers of its first and its last message.
    pub(crate) first: Lsn,
    pub(crate) last: Lsn,
}

impl ListRef {
    pub(crate) fn block_count(&self) -> usize {
        (self.count as usize).div_ceil(BLOCK_COUNT)
    }

    pub(crate) fn directory_bytes(&self) -> usize {
        self.block_count() * DIRECTORY_ENTRY_BYTES
    }

    fn encode(list: Option<&Self>, out: &mut Vec<u8>) {
        let Some(list) = list else {
            encode_varint(out, 0);
            return;
        };
        encode_varint(out, u64::from(list.count));
        encode_varint(out, u64::from(list.at));
        encode_varint(out, u64::from(list.bytes));
        out.extend_from_slice(&list.checksum.to_le_bytes());
        encode_varint(out, list.first.0);
        encode_varint(out, list.last.0);
    }

    #[expect(
        clippy::option_option,
        reason = "no list, and no list that makes sense"
    )]
    fn decode(input: &mut Input<'_>) -> Option<Option<Self>> {
        let count = input.varint_u32()?;
        if count == 0 {
            return Some(None);
        }
        Some(Some(Self {
            count,
            at: input.varint_u32()?,
            bytes: input.varint_u32()?,
            checksum: input.u32()?,
            first: Lsn(input.varint()?),
            last: Lsn(input.varint()?),
        }))
    }
}

/// Appends a list's directory and blocks to a footer's body; `None` for an empty list.
pub(crate) fn encode_list(body: &mut Vec<u8>, list: &List) -> Option<ListRef> {
    if list.count() == 0 {
        return None;
    }
    let at = u32::try_from(body.len()).ok()?;
    let bytes = list.bytes();
    let starts = list.blocks().iter().map(|block| block.start as usize);
    let ends = starts.clone().skip(1).chain([bytes.len()]);
    for ((block, start), end) in list.blocks().iter().zip(starts).zip(ends) {
        let checksum = crc32c::crc32c(bytes.get(start..end).unwrap_or_default());
        body.extend_from_slice(&block.first.0.to_le_bytes());
        body.extend_from_slice(&block.start.to_le_bytes());
        body.extend_from_slice(&checksum.to_le_bytes());
    }
    let directory = body.get(at as usize..).unwrap_or_default();
    let checksum = crc32c::crc32c(directory);
    body.extend_from_slice(bytes);
    Some(ListRef {
        at,
        count: list.count(),
        bytes: u32::try_from(bytes.len()).ok()?,
        checksum,
        first: list.first(),
        last: list.last(),
    })
}

/// Reads a list's directory; `None` if it is damaged.
pub(crate) fn decode_directory(list: &ListRef, bytes: &[u8]) -> Option<Vec<Block>> {
    if crc32c::crc32c(bytes) != list.checksum && !super::sabotage::ignores_checksums() {
        return None;
    }
    let mut input = Input(bytes);
    let mut blocks = Vec::with_capacity(list.block_count().min(bytes.len()));
    for _ in 0..list.block_count() {
        blocks.push(Block {
            first: Lsn(input.u64()?),
            start: input.u32()?,
            checksum: input.u32()?,
        });
    }
    let is_sound = blocks
        .windows(2)
        .all(|pair| matches!(pair, [one, two] if one.first < two.first && one.start < two.start));
    (is_sound && input.0.is_empty()).then_some(blocks)
}

/// What a queue has in a segment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct QueueSummary {
    pub(crate) queue: QueueId,
    /// Length of the inline bodies of all messages in the lists, in bytes.
    pub(crate) body_bytes: u64,
    /// The lowest record number among them, counted from the segment's first.
    pub(crate) first_number: u32,
    /// Record numbers of those that left the queue, by acks in this segment.
    pub(crate) gone: PlaceSet,
    pub(crate) native: Option<ListRef>,
    pub(crate) moved: Option<ListRef>,
}

/// A message of a queue whose body is a payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct HeldPayload {
    pub(crate) queue: QueueId,
    pub(crate) lsn: Lsn,
    /// The number of its record here, counted from the segment's first.
    pub(crate) number: u32,
    pub(crate) payload: PayloadRecord,
}

/// All that a start must know of a segment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Summary {
    pub(crate) first: Lsn,
    pub(crate) end: Lsn,
    /// Kind of the last numbered record, as in the file.
    pub(crate) last_kind: u8,
    /// Whether an atomic batch, or a record of its own, ends in it.
    pub(crate) has_batch_end: bool,
    /// The first record of the batch that goes on in the next segment; 0 if none does.
    pub(crate) batch_open: Lsn,
    /// The highest queue number met.
    pub(crate) queue_max: QueueId,
    /// Message references ever written into it, and bytes of message records.
    pub(crate) references: u64,
    pub(crate) message_bytes: u64,
    pub(crate) queues: Vec<QueueSummary>,
    /// All messages that were copied into it, of whatever queue.
    pub(crate) moved: Option<ListRef>,
    /// Segments from which messages were copied.
    pub(crate) moved_from: Vec<u32>,
    /// What acks in this segment took from earlier ones.
    pub(crate) acks: Vec<(u32, QueueId, PlaceSet)>,
    pub(crate) deletes: Vec<QueueId>,
    pub(crate) released: Vec<u32>,
    pub(crate) delivered: Vec<(QueueId, RunSet)>,
    pub(crate) notes: Vec<(QueueId, u32, RunSet)>,
    pub(crate) payloads: Vec<HeldPayload>,
    pub(crate) definitions: Changes,
}

impl Summary {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        encode_varint(out, self.first.0);
        encode_varint(out, self.end.0);
        out.push(self.last_kind);
        out.push(u8::from(self.has_batch_end));
        encode_varint(out, self.batch_open.0);
        encode_varint(out, self.queue_max.0);
        encode_varint(out, self.references);
        encode_varint(out, self.message_bytes);
        encode_varint(out, self.queues.len() as u64);
        for queue in &self.queues {
            encode_varint(out, queue.queue.0);
            encode_varint(out, queue.body_bytes);
            encode_varint(out, u64::from(queue.first_number));
            queue.gone.encode(out);
            ListRef::encode(queue.native.as_ref(), out);
            ListRef::encode(queue.moved.as_ref(), out);
        }
        ListRef::encode(self.moved.as_ref(), out);
        encode_numbers(out, &self.moved_from);
        encode_varint(out, self.acks.len() as u64);
        for (target, queue, places) in &self.acks {
            encode_varint(out, u64::from(*target));
            encode_varint(out, queue.0);
            places.encode(out);
        }
        encode_varint(out, self.deletes.len() as u64);
        for queue in &self.deletes {
            encode_varint(out, queue.0);
        }
        encode_numbers(out, &self.released);
        encode_varint(out, self.delivered.len() as u64);
        for (queue, runs) in &self.delivered {
            encode_varint(out, queue.0);
            encode_run_set(out, runs);
        }
        encode_varint(out, self.notes.len() as u64);
        for (queue, note, runs) in &self.notes {
            encode_varint(out, queue.0);
            encode_varint(out, u64::from(*note));
            encode_run_set(out, runs);
        }
        encode_varint(out, self.payloads.len() as u64);
        for held in &self.payloads {
            encode_varint(out, held.queue.0);
            encode_varint(out, held.lsn.0);
            encode_varint(out, u64::from(held.number));
            encode_payload(out, &held.payload);
        }
        self.definitions.encode(out);
    }

    /// Reads what [`Summary::encode`] wrote; `None` for anything else.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        let mut summary = Self {
            first: Lsn(input.varint()?),
            end: Lsn(input.varint()?),
            last_kind: input.u8()?,
            has_batch_end: input.u8()? != 0,
            batch_open: Lsn(input.varint()?),
            queue_max: QueueId(input.varint()?),
            references: input.varint()?,
            message_bytes: input.varint()?,
            ..Self::default()
        };
        let input = &mut input;
        for _ in 0..input.varint()? {
            summary.queues.push(QueueSummary {
                queue: QueueId(input.varint()?),
                body_bytes: input.varint()?,
                first_number: input.varint_u32()?,
                gone: PlaceSet::decode(input)?,
                native: ListRef::decode(input)?,
                moved: ListRef::decode(input)?,
            });
        }
        summary.moved = ListRef::decode(input)?;
        summary.moved_from = decode_numbers(input)?;
        for _ in 0..input.varint()? {
            let target = input.varint_u32()?;
            let queue = QueueId(input.varint()?);
            summary.acks.push((target, queue, PlaceSet::decode(input)?));
        }
        for _ in 0..input.varint()? {
            summary.deletes.push(QueueId(input.varint()?));
        }
        summary.released = decode_numbers(input)?;
        for _ in 0..input.varint()? {
            let queue = QueueId(input.varint()?);
            summary.delivered.push((queue, decode_run_set(input)?));
        }
        for _ in 0..input.varint()? {
            let queue = QueueId(input.varint()?);
            let note = input.varint_u32()?;
            summary.notes.push((queue, note, decode_run_set(input)?));
        }
        for _ in 0..input.varint()? {
            summary.payloads.push(HeldPayload {
                queue: QueueId(input.varint()?),
                lsn: Lsn(input.varint()?),
                number: input.varint_u32()?,
                payload: decode_payload(input)?,
            });
        }
        summary.definitions = Changes::decode(input)?;
        input.0.is_empty().then_some(summary)
    }
}

fn encode_numbers(out: &mut Vec<u8>, numbers: &[u32]) {
    encode_varint(out, numbers.len() as u64);
    for number in numbers {
        encode_varint(out, u64::from(*number));
    }
}

fn decode_numbers(input: &mut Input<'_>) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for _ in 0..input.varint()? {
        numbers.push(input.varint_u32()?);
    }
    Some(numbers)
}

fn encode_run_set(out: &mut Vec<u8>, runs: &RunSet) {
    let mut bytes = Vec::new();
    encode_sorted_runs(&mut bytes, runs.iter());
    encode_varint(out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
}

fn decode_run_set(input: &mut Input<'_>) -> Option<RunSet> {
    let len = usize::try_from(input.varint()?).ok()?;
    let mut set = RunSet::default();
    for (first, len) in Runs::new(input.bytes(len)?) {
        set.insert_run(first, len);
    }
    Some(set)
}

/// The last bytes of a segment with a footer: they say where everything else is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Trailer {
    pub(crate) segment: u32,
    /// Whether the log ended here with a clean stop: then even the last segment need not be read.
    pub(crate) is_closed: bool,
    /// Where the footer begins, in bytes.
    pub(crate) base: u32,
    /// Where its summary begins behind `base`, its length, and its checksum.
    pub(crate) summary_at: u32,
    pub(crate) summary_bytes: u32,
    pub(crate) summary_checksum: u32,
    /// The number behind the last record.
    pub(crate) end: Lsn,
    /// Where the records end, in bytes.
    pub(crate) records_end: u32,
    /// BLAKE3 of the bytes up to `records_end`.
    pub(crate) hash: [u8; 32],
}

impl Trailer {
    pub(crate) fn encode(&self, salt: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(TRAILER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&self.segment.to_le_bytes());
        let flags = if self.is_closed { FLAG_CLOSED } else { 0 };
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.base.to_le_bytes());
        out.extend_from_slice(&self.summary_at.to_le_bytes());
        out.extend_from_slice(&self.summary_bytes.to_le_bytes());
        out.extend_from_slice(&self.summary_checksum.to_le_bytes());
        out.extend_from_slice(&self.end.0.to_le_bytes());
        out.extend_from_slice(&self.records_end.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.hash);
        out.resize(CHECKSUM_AT, 0);
        let checksum = trailer_checksum(&out, salt);
        out.extend_from_slice(&checksum.to_le_bytes());
        debug_assert_eq!(out.len(), TRAILER_BYTES);
        out
    }

    /// Reads the trailer that `bytes` end with; `None` if there is none of this segment.
    pub(crate) fn decode(bytes: &[u8], segment: u32, salt: u64) -> Option<Self> {
        let bytes = bytes.get(bytes.len().checked_sub(TRAILER_BYTES)?..)?;
        let (content, stored) = bytes.split_at_checked(CHECKSUM_AT)?;
        if content.get(..8) != Some(&MAGIC) {
            return None;
        }
        let is_sound = trailer_checksum(content, salt).to_le_bytes() == stored;
        if !is_sound && !super::sabotage::ignores_checksums() {
            return None;
        }
        let mut input = Input(content.get(8..)?);
        let number = input.u32()?;
        let flags = input.u32()?;
        let trailer = Self {
            segment: number,
            is_closed: flags & FLAG_CLOSED != 0,
            base: input.u32()?,
            summary_at: input.u32()?,
            summary_bytes: input.u32()?,
            summary_checksum: input.u32()?,
            end: Lsn(input.u64()?),
            records_end: {
                let end = input.u32()?;
                input.u32()?;
                end
            },
            hash: input.bytes(32)?.try_into().ok()?,
        };
        (number == segment).then_some(trailer)
    }
}

fn trailer_checksum(content: &[u8], salt: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), content)
}

/// A footer before it has a place: positions in it count from its start.
#[derive(Clone, Debug)]
pub(crate) struct Frozen {
    /// Lists, then the summary.
    pub(crate) body: Vec<u8>,
    pub(crate) summary_at: u32,
    pub(crate) end: Lsn,
}

impl Frozen {
    /// Appends the summary to the lists in `body`.
    pub(crate) fn new(mut body: Vec<u8>, summary: &Summary) -> Option<Self> {
        let summary_at = u32::try_from(body.len()).ok()?;
        summary.encode(&mut body);
        Some(Self {
            body,
            summary_at,
            end: summary.end,
        })
    }

    /// Length with trailer, in bytes.
    pub(crate) fn footer_bytes(&self) -> u64 {
        (self.body.len() + TRAILER_BYTES) as u64
    }

    /// The trailer for a footer that begins at `base`; `None` if that is beyond what a position can say.
    pub(crate) fn trailer(
        &self,
        segment: u32,
        base: u64,
        records_end: u32,
        hash: [u8; 32],
    ) -> Option<Trailer> {
        let summary = self.body.get(self.summary_at as usize..)?;
        Some(Trailer {
            segment,
            is_closed: false,
            base: u32::try_from(base).ok()?,
            summary_at: self.summary_at,
            summary_bytes: u32::try_from(summary.len()).ok()?,
            summary_checksum: crc32c::crc32c(summary),
            end: self.end,
            records_end,
            hash,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::list::{ListEntry, ListForm};

    fn summary() -> Summary {
        let mut runs = RunSet::default();
        runs.insert_run(Lsn(5), 3);
        let mut definitions = Changes::default();
        definitions.reset();
        assert!(definitions.set(b"key", Some(b"value")));
        assert!(definitions.set(b"gone", None));
        let list = ListRef {
            at: 8,
            count: 300,
            bytes: 1_000,
            checksum: 7,
            first: Lsn(5),
            last: Lsn(900),
        };
        Summary {
            first: Lsn(5),
            end: Lsn(1_000),
            last_kind: 11,
            has_batch_end: true,
            batch_open: Lsn(990),
            queue_max: QueueId(12),
            references: 400,
            message_bytes: 40_000,
            queues: vec![QueueSummary {
                queue: QueueId(3),
                body_bytes: 30_000,
                first_number: 4,
                gone: PlaceSet::Runs(vec![(4, 90)]),
                native: Some(list),
                moved: None,
            }],
            moved: Some(list),
            moved_from: vec![1, 2],
            acks: vec![(1, QueueId(3), PlaceSet::All)],
            deletes: vec![QueueId(9)],
            released: vec![1],
            delivered: vec![(QueueId(3), runs.clone())],
            notes: vec![(QueueId(3), 17, runs)],
            payloads: vec![HeldPayload {
                queue: QueueId(3),
                lsn: Lsn(7),
                number: 2,
                payload: PayloadRecord {
                    scope: 1,
                    id: [5; 32],
                    size_bytes: 1 << 40,
                },
            }],
            definitions,
        }
    }

    /// Every part of a summary comes back.
    #[test]
    fn summary_round_trip() {
        let mut bytes = Vec::new();
        summary().encode(&mut bytes);
        assert_eq!(Summary::decode(&bytes), Some(summary()));
        for len in 0..bytes.len() {
            assert_eq!(Summary::decode(&bytes[..len]), None, "{len} bytes");
        }
    }

    /// A flipped bit, another salt or another segment's number makes a trailer none.
    // req: JOURNAL-27
    #[test]
    fn trailer_is_of_its_segment_only() {
        let frozen = Frozen::new(vec![1; 24], &summary()).unwrap();
        let trailer = frozen.trailer(7, 4_096, 4_000, [3; 32]).unwrap();
        let bytes = trailer.encode(9);
        assert_eq!(Trailer::decode(&bytes, 7, 9), Some(trailer));
        assert_eq!(Trailer::decode(&bytes, 7, 8), None);
        assert_eq!(Trailer::decode(&bytes, 6, 9), None);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Trailer::decode(&damaged, 7, 9), None, "bit {bit}");
        }
    }

    /// A directory leads to each block, and a flipped bit in it is seen.
    // req: JOURNAL-27
    #[test]
    fn directory_round_trip() {
        let mut list = List::new(ListForm::Native, Lsn(1));
        for lsn in 1..500 {
            list.push(ListEntry {
                lsn: Lsn(lsn),
                number: u32::try_from(lsn - 1).unwrap(),
                offset: 64,
                body_bytes: 9,
            });
        }
        let mut body = vec![0; 16];
        let found = encode_list(&mut body, &list).unwrap();
        let directory = &body[16..16 + found.directory_bytes()];
        let blocks = decode_directory(&found, directory).unwrap();
        assert_eq!(blocks.len(), list.blocks().len());
        assert_eq!((found.first, found.last), (Lsn(1), Lsn(499)));
        let mut damaged = directory.to_vec();
        damaged[3] ^= 1;
        assert_eq!(decode_directory(&found, &damaged), None);
    }

    proptest! {
        /// No bytes make a decoder panic.
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Summary::decode(&bytes);
            let _ = Trailer::decode(&bytes, 1, 1);
            let list = ListRef { count: 200, ..ListRef::default() };
            let _ = decode_directory(&list, &bytes);
        }
    }
}
