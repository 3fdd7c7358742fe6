//! Records on their way to the disk: numbers and places are given here, under one short lock.
//!
//! Owns: the pending parts. Knows nothing of files; the sync thread takes what is pending.
//! Bound: `pending_bytes_max`, checked by the callers before they append.
//! Spec: `spec/journal.md`, "Commit", JOURNAL-3.

use super::record::{MARK_BYTES, encode_mark};
use super::segment::records_at;
use super::types::{Location, Lsn};

/// Records for one segment, behind each other; the first is a sync mark.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) segment: u32,
    /// Where `bytes` go in the segment, in bytes.
    pub(crate) offset: u32,
    /// Set if this part is the first of its segment.
    pub(crate) begins: Option<Begin>,
    /// The last numbered record in it; before its first one while there is none.
    pub(crate) last: Lsn,
    pub(crate) bytes: Vec<u8>,
    /// How many of `bytes` the ledger has already counted.
    pub(crate) counted_bytes: usize,
}

/// How a new segment is to be laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    /// The number of the first numbered record in it.
    pub(crate) first: Lsn,
    /// Length that its file needs, in bytes.
    pub(crate) file_bytes: u32,
}

/// Where the log ends: the next number and place.
#[derive(Debug)]
pub(crate) struct Appender {
    next: Lsn,
    segment: u32,
    offset: u32,
    segment_bytes: u32,
    parts: Vec<Part>,
    pending_bytes: usize,
    /// Taken, and not written because the disk is full, in bytes.
    stalled_bytes: usize,
    /// An upper bound of how many segments existed when `catalog_at` was the last one.
    catalog_count: usize,
    catalog_at: u32,
    spare_buffer: Vec<u8>,
}

/// A buffer larger than this is not kept for the next batch, in bytes.
const KEPT_BUFFER_BYTES_MAX: usize = 8 << 20;

impl Appender {
    /// Goes on in `segment` at `offset` with the number `next`; `segment_count` segments exist.
    pub(crate) fn new(
        next: Lsn,
        segment: u32,
        offset: u32,
        segment_bytes: u32,
        segment_count: usize,
    ) -> Self {
        Self {
            next,
            segment,
            offset,
            segment_bytes,
            parts: Vec::new(),
            pending_bytes: 0,
            stalled_bytes: 0,
            catalog_count: segment_count,
            catalog_at: segment,
            spare_buffer: Vec::new(),
        }
    }

    /// The number of the last record appended.
    pub(crate) fn last(&self) -> Lsn {
        Lsn(self.next.0 - 1)
    }

    /// Appended and not yet taken to be written, or taken while the disk is full, in bytes.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending_bytes + self.stalled_bytes
    }

    /// Tells how much of what was taken waits for space on the disk.
    pub(crate) fn set_stalled_bytes(&mut self, bytes: usize) {
        self.stalled_bytes = bytes;
    }

    /// Whether what was taken waits for space on the disk.
    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled_bytes > 0
    }

    /// Whether something is pending, at most `bytes_max` bytes that go into the segment that is written.
    pub(crate) fn is_within(&self, bytes_max: usize) -> bool {
        let needs_no_segment = self.parts.iter().all(|part| part.begins.is_none());
        !self.parts.is_empty() && needs_no_segment && self.pending_bytes <= bytes_max
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Appends one numbered record of `bytes` bytes, which `encode` writes.
    pub(crate) fn append(
        &mut self,
        bytes: usize,
        encode: impl FnOnce(&mut Vec<u8>, Lsn),
    ) -> (Lsn, Location) {
        let lsn = self.next;
        let part = self.part_for(bytes);
        let start = part.bytes.len();
        let at = u32::try_from(start).expect("a part is at most a segment");
        let location = Location {
            segment: part.segment,
            offset: part.offset + at,
        };
        encode(&mut part.bytes, lsn);
        assert_eq!(
            part.bytes.len() - start,
            bytes,
            "a record is as long as announced"
        );
        part.last = lsn;
        self.next = lsn.next();
        self.advance(bytes);
        (lsn, location)
    }

    /// Makes a batch of a mark alone, if nothing is pending.
    // req: JOURNAL-4
    pub(crate) fn append_mark(&mut self) {
        if self.parts.is_empty() {
            let _ = self.part_for(0);
        }
    }

    /// The part in which `bytes` bytes have room; begins a new one, with its mark, where needed.
    // req: JOURNAL-3
    fn part_for(&mut self, bytes: usize) -> &mut Part {
        let mark = if self.parts.is_empty() { MARK_BYTES } else { 0 };
        let fits = self.offset as usize + mark + bytes <= self.segment_bytes as usize;
        if !fits || mark > 0 {
            let begins = (!fits).then(|| self.begin_segment(bytes));
            let before = self.last();
            let mut buffer = std::mem::take(&mut self.spare_buffer);
            buffer.clear();
            encode_mark(&mut buffer, before, Lsn::ZERO);
            self.parts.push(Part {
                segment: self.segment,
                offset: self.offset,
                begins,
                last: before,
                bytes: buffer,
                counted_bytes: 0,
            });
            self.advance(MARK_BYTES);
        }
        self.parts
            .last_mut()
            .expect("one was pushed if there was none")
    }

    fn begin_segment(&mut self, bytes: usize) -> Begin {
        self.segment += 1;
        let ahead = (self.segment - self.catalog_at) as usize;
        self.offset = records_at(self.catalog_count + ahead);
        let needed = self.offset as usize + MARK_BYTES + bytes;
        let needed = u32::try_from(needed).expect("a record is at most half a segment");
        Begin {
            first: self.next,
            file_bytes: needed.max(self.segment_bytes),
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.offset += u32::try_from(bytes).expect("a record is at most half a segment");
        self.pending_bytes += bytes;
    }

    /// Takes all that is pending, in order.
    pub(crate) fn take(&mut self) -> Vec<Part> {
        self.pending_bytes = 0;
        std::mem::take(&mut self.parts)
    }

    /// Gives a written buffer back, to be filled again.
    pub(crate) fn reuse(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() > self.spare_buffer.capacity()
            && buffer.capacity() <= KEPT_BUFFER_BYTES_MAX
        {
            self.spare_buffer = buffer;
        }
    }

    /// What is pending and not yet counted by the ledger; the caller counts it at once.
    pub(crate) fn parts_mut(&mut self) -> &mut [Part] {
        &mut self.parts
    }

    /// Tells how many segments exist while `last` is the last one that was made.
    pub(crate) fn set_segment_count(&mut self, count: usize, last: u32) {
        self.catalog_count = count;
        self.catalog_at = last;
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::{Head, Kind, encode_plain, record_bytes};
    use super::*;

    fn append(appender: &mut Appender, body: &[u8]) -> (Lsn, Location) {
        appender.append(record_bytes(body.len()), |out, lsn| {
            encode_plain(out, &Head::new(Kind::DefinitionPut, lsn, body.len()), body);
        })
    }

    /// Each batch and each part in a new segment begins with a mark, and places follow each other.
    // req: JOURNAL-3
    #[test]
    fn parts_begin_with_marks() {
        let mut appender = Appender::new(Lsn(10), 1, 1_000, 2_000, 1);
        let (lsn, first) = append(&mut appender, &[0; 100]);
        assert_eq!(lsn, Lsn(10));
        assert_eq!(
            first,
            Location {
                segment: 1,
                offset: 1_048
            }
        );
        for _ in 0..10 {
            append(&mut appender, &[0; 100]);
        }
        let parts = appender.take();
        assert_eq!(parts.len(), 2);
        for part in &parts {
            assert_eq!(Head::decode(&part.bytes).unwrap().kind, Kind::Mark);
        }
        assert!(parts[0].begins.is_none());
        let begins = parts[1].begins.unwrap();
        assert_eq!(begins.first, parts[0].last.next());
        assert_eq!(parts[1].segment, 2);
        assert_eq!(parts[1].last, Lsn(20));
    }

    /// A record that no segment of the usual length has room for makes its segment longer.
    #[test]
    fn segment_grows_for_a_long_record() {
        let mut appender = Appender::new(Lsn(1), 1, 1_000, 2_000, 500);
        append(&mut appender, &[0; 2_000]);
        let parts = appender.take();
        let end = parts[0].offset as usize + parts[0].bytes.len();
        assert_eq!(parts[0].begins.unwrap().file_bytes as usize, end);
    }
}
