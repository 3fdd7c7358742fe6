//! A stream: a log that is read without being consumed, as `x-queue-type: stream` has it.
//!
//! Owns: which offsets there are and where they lie in the journal, what retention takes away, and where
//! each consumer reads. Knows no outbox and no lock: the queue asks what comes next for whom
//! (`queue/feed.rs`) and reads from the journal with no lock held.
//! Order: offsets are given in the order of the journal's numbers, so that a restart finds them again; who
//! publishes to a stream holds its order from the append to the enqueue ([`Queue::order`](super::Queue)).
//! Bounds: the newest messages up to [`STREAM_TAIL_BYTES_MAX`], longer only while they are not on
//! disk; one mark for each [`MARK_EVERY`] messages, or for each segment of the journal that a start found;
//! a page for each consumer that reads behind the tail.
//! Without a journal everything is in memory.
//! Spec: RabbitMQ's streams as AMQP 0-9-1 sees them; `spec/amqp.md`.

mod reader;
mod retention;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::journal::{Lsn, Span};

use super::super::consumer::{Consumer, ConsumerId};
use super::super::limits::{STREAM_TAIL_BYTES_MAX, STREAM_TAIL_ITEM_BYTES};
use super::super::message::{BodyRef, Message};
use super::super::payloads::PayloadBody;
use super::arguments::StreamOffset;

pub(crate) use reader::Filter;
pub(super) use reader::{Next, PageRead, Reader};
pub(crate) use retention::Truncated;

/// Of so many messages that come, one has an entry in the index.
pub(super) const MARK_EVERY: u64 = 256;

/// A message of a stream in memory.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) lsn: Lsn,
    /// When it was published, in milliseconds since 1970.
    pub(super) unix_ms: u64,
    pub(super) message: Message,
}

/// Where a message of the index lies.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// How many messages of its segment come before it.
    within: u64,
    lsn: Lsn,
    /// When it was published; of one that a start found, a time at which none before it is younger.
    unix_ms: u64,
}

/// What retention takes away at once.
#[derive(Debug)]
struct Segment {
    /// Offset of its first message.
    first: u64,
    count: u64,
    bytes: u64,
    marks: Vec<Mark>,
    /// Of its last message.
    newest: Mark,
}

/// A stream's log and its readers.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    /// Offset of the next message.
    next: u64,
    bytes: u64,
    /// The newest messages: the last one has the offset `next - 1`.
    tail: VecDeque<Kept>,
    tail_bytes: usize,
    /// What keeps bodies of messages outside the tail in the payload store.
    payloads: BTreeMap<Lsn, PayloadBody>,
    readers: HashMap<ConsumerId, Reader>,
    /// Deliveries that were not acknowledged, by their numbers.
    outstanding: HashMap<u64, (Arc<Consumer>, u64)>,
}

impl Stream {
    /// An empty stream whose first message gets the offset `base`.
    pub(super) fn new(base: u64) -> Self {
        Self {
            segments: VecDeque::new(),
            next: base,
            bytes: 0,
            tail: VecDeque::new(),
            tail_bytes: 0,
            payloads: BTreeMap::new(),
            readers: HashMap::new(),
            outstanding: HashMap::new(),
        }
    }

    /// Offset of the oldest message that is kept; of the next one if there is none.
    pub(super) fn first(&self) -> u64 {
        self.segments
            .front()
            .map_or(self.next, |oldest| oldest.first)
    }

    /// How many messages are kept.
    pub(super) fn len(&self) -> u64 {
        self.next - self.first()
    }

    /// The sum of their bodies and headers in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Deliveries that were not acknowledged.
    pub(super) fn outstanding_count(&self) -> usize {
        self.outstanding.len()
    }

    /// Adds a message; its number is higher than any before. `segment_bytes` is when a new segment begins.
    // req: STREAM-1
    pub(super) fn push(&mut self, kept: Kept, segment_bytes: u64) {
        debug_assert!(
            self.segments
                .back()
                .is_none_or(|last| last.newest.lsn < kept.lsn)
                || kept.lsn == Lsn::ZERO,
            "offsets are given in the order of the journal"
        );
        let mut mark = Mark {
            within: 0,
            lsn: kept.lsn,
            unix_ms: kept.unix_ms,
        };
        let size_bytes = kept.message.size_bytes() + kept.message.header().len() as u64;
        if self
            .segments
            .back()
            .is_none_or(|last| last.bytes >= segment_bytes)
        {
            self.segments.push_back(Segment {
                first: self.next,
                count: 0,
                bytes: 0,
                marks: Vec::new(),
                newest: mark,
            });
        }
        if let Some(last) = self.segments.back_mut() {
            mark.within = last.count;
            let marked = last.marks.last().map(|mark| mark.within + MARK_EVERY);
            if marked.is_none_or(|next| mark.within >= next) {
                last.marks.push(mark);
            }
            last.count += 1;
            last.bytes += size_bytes;
            last.newest = mark;
        }
        self.bytes += size_bytes;
        self.next += 1;
        self.tail_bytes += tail_cost(&kept);
        self.tail.push_back(kept);
    }

    /// Adds messages that a start found, which stay on disk; `newest_unix_ms` is when the last of them was
    /// published, and `payloads` are the bodies among them that are in the payload store.
    pub(super) fn restore(
        &mut self,
        span: Span,
        newest_unix_ms: u64,
        payloads: impl IntoIterator<Item = (Lsn, PayloadBody)>,
        segment_bytes: u64,
    ) {
        debug_assert!(self.tail.is_empty(), "nothing was published before");
        let before = self.segments.back().map_or(0, |last| last.newest.unix_ms);
        let mut size_bytes = span.body_bytes;
        for (lsn, payload) in payloads {
            size_bytes = size_bytes.saturating_add(payload.size_bytes());
            self.payloads.insert(lsn, payload);
        }
        let mut newest = Mark {
            within: span.count - 1,
            lsn: span.last,
            unix_ms: newest_unix_ms.max(before),
        };
        let mut first = Mark {
            within: 0,
            lsn: span.first,
            unix_ms: before,
        };
        self.bytes = self.bytes.saturating_add(size_bytes);
        match self.segments.back_mut() {
            Some(last) if last.bytes < segment_bytes => {
                first.within = last.count;
                newest.within += last.count;
                last.marks.push(first);
                last.count += span.count;
                last.bytes = last.bytes.saturating_add(size_bytes);
                last.newest = newest;
            }
            Some(_) | None => self.segments.push_back(Segment {
                first: self.next,
                count: span.count,
                bytes: size_bytes,
                marks: vec![first],
                newest,
            }),
        }
        self.next += span.count;
    }

    /// Lets go of what the tail need not hold: what is on disk, beyond the bound.
    // req: STREAM-7
    pub(super) fn trim_tail(&mut self, durable: Lsn) {
        while self.tail_bytes > STREAM_TAIL_BYTES_MAX
            && let Some(oldest) = self.tail.front()
            && oldest.lsn != Lsn::ZERO
            && oldest.lsn <= durable
            && let Some(kept) = self.tail.pop_front()
        {
            self.tail_bytes -= tail_cost(&kept);
            if let BodyRef::Payload(payload) = kept.message.body() {
                self.payloads.insert(kept.lsn, payload.clone());
            }
        }
    }

    /// Offset of the first message in memory.
    fn tail_first(&self) -> u64 {
        self.next - self.tail.len() as u64
    }

    /// The message of this offset, if it is in memory.
    fn in_tail(&self, offset: u64) -> Option<&Kept> {
        let at = offset.checked_sub(self.tail_first())?;
        self.tail.get(usize::try_from(at).ok()?)
    }

    /// The place in the journal from which the message of this offset is found: behind a number, and how
    /// many to pass.
    fn find(&self, offset: u64) -> Option<(Lsn, u64)> {
        let behind = self
            .segments
            .partition_point(|segment| segment.first <= offset);
        let segment = self.segments.get(behind.checked_sub(1)?)?;
        let within = offset - segment.first;
        let marks = &segment.marks;
        let behind = marks.partition_point(|mark| mark.within <= within);
        let mark = marks.get(behind.checked_sub(1)?)?;
        Some((Lsn(mark.lsn.0.saturating_sub(1)), within - mark.within))
    }

    /// Where to look for what was published at `unix_ms` or later, and that time. What is published
    /// from now on counts as later, also if that time is still to come (RabbitMQ).
    fn since(&self, unix_ms: u64) -> (u64, u64) {
        let behind = self
            .segments
            .partition_point(|segment| segment.newest.unix_ms < unix_ms);
        let Some(segment) = self.segments.get(behind) else {
            return (self.next, 0);
        };
        let marks = &segment.marks;
        let behind = marks.partition_point(|mark| mark.unix_ms < unix_ms);
        let mark = marks.get(behind.saturating_sub(1));
        let within = mark.map_or(0, |mark| mark.within);
        (segment.first + within, unix_ms)
    }

    /// Adds a consumer that begins at `offset`; `now_unix_ms` is the time now.
    pub(super) fn add_reader(
        &mut self,
        id: ConsumerId,
        offset: StreamOffset,
        filter: Filter,
        now_unix_ms: u64,
    ) {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (next, since_unix_ms) = match offset {
            StreamOffset::First => (self.first(), 0),
            StreamOffset::Last => (self.next.saturating_sub(1).max(self.first()), 0),
            StreamOffset::Next => (self.next, 0),
            StreamOffset::Number(offset) => (offset.max(self.first()), 0),
            StreamOffset::UnixMs(unix_ms) => self.since(unix_ms),
            StreamOffset::Ago(time) => self.since(now_unix_ms.saturating_sub(millis(time))),
        };
        self.readers
            .insert(id, Reader::new(next, since_unix_ms, filter));
    }

    /// Forgets a consumer; what it holds is settled as usual.
    pub(super) fn remove_reader(&mut self, id: ConsumerId) {
        self.readers.remove(&id);
    }

    /// A delivery went out, with a body of `bytes`.
    pub(super) fn sent(&mut self, seq: u64, consumer: &Arc<Consumer>, bytes: u64) {
        if let Some(reader) = self.readers.get_mut(&consumer.id) {
            reader.advance();
        }
        self.outstanding.insert(seq, (Arc::clone(consumer), bytes));
    }

    /// A delivery is settled, in whatever way; gives who had it, and the bytes of its body.
    pub(super) fn settled(&mut self, seq: u64) -> Option<(Arc<Consumer>, u64)> {
        self.outstanding.remove(&seq)
    }
}

fn tail_cost(kept: &Kept) -> usize {
    kept.message.memory_bytes() + STREAM_TAIL_ITEM_BYTES
}

#[cfg(test)]
mod tests;
