//! The queue around a stream: publishing to it, giving its consumers what comes next, and reading pages for
//! those that are behind.
//!
//! Owns: when a stream is looked at. A page is read from the journal with no lock held, by whoever settled
//! or started a consumer; a publisher leaves it to the timer, which also goes on where one call has
//! read enough. Acknowledgements only make room for the next deliveries, whatever they say.
//! Bound: [`STREAM_READS_AT_ONCE_MAX`] pages for each call.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::journal::{Appended, JournalError, Lsn, PayloadRecord};

use super::super::consumer::ConsumerId;
use super::super::limits::{
    STREAM_PAGE_BYTES_MAX, STREAM_PAGE_COUNT_MAX, STREAM_READS_AT_ONCE_MAX,
};
use super::super::message::Message;
use super::super::outbox::{Delivery, Pushed, Wakes};
use super::super::stamp::STREAM_OFFSET;
use super::super::timers::{Earliest, TimerKey, TimerKind};
use super::consumers::Unsettled;
use super::peek::{Answer, Peeked};
use super::stream::{Kept, Next, PageRead, Stream};
use super::{After, MessageSeq, Queue, Releases, State, note_release};

/// How long a consumer waits for a page that could not be read yet.
const READ_AGAIN: Duration = Duration::from_millis(50);

impl Queue {
    /// Holds the order of a stream: from the append to the journal to the enqueue. Taken for several
    /// streams in the order of their ids; no other lock is held when it is taken.
    pub(crate) fn order(&self) -> MutexGuard<'_, ()> {
        self.order.lock()
    }

    /// Adds a published message to the log, and gives it to who waits for it.
    pub(super) fn publish_to_stream(
        self: &Arc<Self>,
        state: &mut State,
        message: &mut Message,
        record: Appended,
        after: &mut After,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        let unix_ms = self.unix_ms(now);
        state.counts.published += 1;
        message.detach();
        let kept = Kept {
            lsn: record.lsn,
            unix_ms,
            message: message.clone(),
        };
        let settings = Arc::clone(&state.settings);
        let Some(stream) = &mut state.stream else {
            return;
        };
        stream.push(kept, settings.segment_bytes);
        stream.trim_tail(self.durable_lsn());
        let truncated = stream.retain(settings.length_bytes_max, settings.age_max, unix_ms);
        if let Some(truncated) = truncated {
            // What it takes to note that is not the publisher's time, either.
            state.truncated = Some(truncated);
            self.arm_stream_timer(state, now, after);
        }
        let Some(stream) = &mut state.stream else {
            return;
        };
        state.consumers.wake_idle(|id| !stream.is_reading(id));
        self.feed(state, after, wakes);
        if !after.reads.is_empty() {
            // Not in the publisher's time.
            for read in std::mem::take(&mut after.reads) {
                if let Some(stream) = &mut state.stream {
                    stream.give_page(&read, VecDeque::new());
                }
            }
            self.arm_stream_timer(state, now, after);
        }
        self.watch_age(state, now, after);
    }

    /// Deliveries were settled, or their channel ended: their consumers have room.
    pub(super) fn settle_in_stream(
        &self,
        state: &mut State,
        seqs: &[MessageSeq],
        limiters: &mut Releases,
    ) {
        for seq in seqs {
            let stream = state.stream.as_mut();
            if let Some((consumer, bytes)) = stream.and_then(|stream| stream.settled(seq.0)) {
                state.counts.delivery.acked += 1;
                state.consumers.settled(consumer.id);
                note_release(limiters, &consumer, bytes);
            }
        }
    }

    /// Gives the consumers what comes next, as long as they can take it and it is in memory.
    pub(super) fn feed(&self, state: &mut State, after: &mut After, wakes: &mut Wakes) {
        let Some(stream) = &mut state.stream else {
            return;
        };
        while let Some(consumer) = state.consumers.front().map(Arc::clone) {
            let (offset, message) = match stream.next_for(consumer.id) {
                Next::Message { offset, message } => (offset, message),
                Next::Read(read) => {
                    after.reads.push(read);
                    state.consumers.front_idle();
                    continue;
                }
                Next::Nothing => {
                    state.consumers.front_idle();
                    continue;
                }
            };
            let seq = MessageSeq(state.seq_next);
            let bytes = message.size_bytes();
            let delivery = Delivery {
                message: message.with_number(STREAM_OFFSET, offset),
                seq,
                redelivered: false,
            };
            match consumer.outbox.begin(&consumer).push(delivery, wakes) {
                Pushed::Taken => {
                    state.seq_next += 1;
                    state.counts.delivery.delivered += 1;
                    stream.sent(seq.0, &consumer, bytes);
                    state.consumers.front_took(Unsettled::Counts);
                }
                Pushed::Stalled(_) | Pushed::Closed(_) => state.consumers.front_stalled(),
            }
        }
    }

    /// Reads pages and goes on with them. No lock may be held.
    pub(super) fn read_pages(
        self: &Arc<Self>,
        mut reads: Vec<PageRead>,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        for _ in 0..STREAM_READS_AT_ONCE_MAX {
            let Some(read) = reads.pop() else { return };
            let page = self.read_page(&read);
            let mut after = After::default();
            {
                let mut guard = self.state.lock();
                let state = &mut *guard;
                let Some(stream) = &mut state.stream else {
                    return;
                };
                let is_empty = page.is_empty();
                stream.give_page(&read, page);
                if is_empty {
                    // Retention took it, or the journal is not that far.
                    self.arm_stream_timer(state, now + READ_AGAIN, &mut after);
                } else {
                    state.consumers.wake_idle(|id| id == read.reader);
                    self.feed(state, &mut after, wakes);
                }
            }
            reads.append(&mut after.reads);
            drop(self.finish_but_dead(after));
        }
        let mut after = After::default();
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            if let Some(stream) = &mut state.stream {
                for read in reads {
                    stream.give_page(&read, VecDeque::new());
                }
            }
            self.arm_stream_timer(state, now, &mut after);
        }
        drop(self.finish_but_dead(after));
    }

    fn read_page(&self, read: &PageRead) -> VecDeque<Kept> {
        let mut page = VecDeque::new();
        let mut after = read.after;
        let (Some(journal), Some(vhost)) = (&self.spec.journal, self.spec.home.upgrade()) else {
            return page;
        };
        if let Some(passed) = read.skip_count.checked_sub(1) {
            match journal.nth_message_behind(self.spec.id, after, passed) {
                Ok(Some(last)) => after = last,
                Ok(None) => return page,
                Err(error) => {
                    tracing::debug!(queue = %self.spec.name, %error, "a page was not found");
                    return page;
                }
            }
        }
        let (count_max, bytes_max) = (STREAM_PAGE_COUNT_MAX, STREAM_PAGE_BYTES_MAX);
        match journal.read_backlog(self.spec.id, after, count_max, bytes_max) {
            Ok(found) => page.extend(found.into_iter().map(|found| Kept {
                lsn: found.lsn,
                unix_ms: found.message.time_unix_ms,
                message: vhost.stored_message(found.message),
            })),
            Err(error) => {
                tracing::debug!(queue = %self.spec.name, %error, "a page was not read");
            }
        }
        page
    }

    /// A stream's timer came up.
    pub(crate) fn handle_stream_timer(
        self: &Arc<Self>,
        key: TimerKey,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        let mut after = After::default();
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            if state.stream_timer != Some(key) {
                return;
            }
            state.stream_timer = None;
            let settings = Arc::clone(&state.settings);
            let now_unix_ms = self.unix_ms(now);
            if let Some(stream) = &mut state.stream {
                let (bytes_max, age_max) = (settings.length_bytes_max, settings.age_max);
                let truncated = stream.retain(bytes_max, age_max, now_unix_ms);
                let noted_late = state.truncated.take();
                after.truncated = truncated.or(noted_late);
                state.consumers.wake_idle(|id| !stream.is_reading(id));
            }
            self.feed(state, &mut after, wakes);
            self.watch_age(state, now, &mut after);
        }
        self.finish(after, now, wakes);
    }

    /// The broker starts: what retention left undone, or what a crash brought back, goes now.
    pub(super) fn begin_retention(
        self: &Arc<Self>,
        state: &mut State,
        now: Instant,
        after: &mut After,
    ) {
        if state.stream.is_some() && state.settings.has_retention() {
            self.arm_stream_timer(state, now, after);
        }
    }

    /// Notes what the stream forgot, which otherwise the timer does, for a clean stop.
    pub(crate) fn note_forgotten(&self) {
        let truncated = self.state.lock().truncated.take();
        if let (Some(truncated), Some(vhost)) = (truncated, self.spec.home.upgrade()) {
            vhost.forget_in_stream(self, truncated);
        }
    }

    /// Arms the timer for the moment at which the oldest segment is too old.
    fn watch_age(self: &Arc<Self>, state: &mut State, now: Instant, after: &mut After) {
        let Some(age_max) = state.settings.age_max else {
            return;
        };
        let ends = state
            .stream
            .as_ref()
            .and_then(|stream| stream.ends_unix_ms(age_max));
        if let Some(ends) = ends {
            let left = Duration::from_millis(ends.saturating_sub(self.unix_ms(now)));
            if let Some(at) = now.checked_add(left) {
                self.arm_stream_timer(state, at, after);
            }
        }
    }

    fn arm_stream_timer(self: &Arc<Self>, state: &mut State, at: Instant, after: &mut After) {
        if let Some(armed) = state.stream_timer {
            if armed.at() <= at {
                return;
            }
            self.spec.timers.disarm(armed);
        }
        let kind = TimerKind::Stream(Arc::downgrade(self));
        let (key, earliest) = self.spec.timers.arm(at, kind);
        state.stream_timer = Some(key);
        after.wake_timers |= earliest == Earliest::Yes;
    }

    /// Puts back what the journal has of a stream behind a number: its offsets, not its messages. `payloads`
    /// are those among them whose body is in the payload store, in order. Blocks on the disk.
    ///
    /// Segments are as they were only if retention needs them so; otherwise one of the journal, which is
    /// larger than nothing, counts as a whole.
    // req: STREAM-8
    pub(crate) fn restore_stream(
        &self,
        after: Lsn,
        payloads: &[(Lsn, PayloadRecord)],
    ) -> Result<(), JournalError> {
        let Some(journal) = &self.spec.journal else {
            return Ok(());
        };
        let settings = self.settings();
        let bytes_max = match settings.has_retention() {
            true => settings.segment_bytes,
            false => u64::MAX,
        };
        for span in journal.spans(self.spec.id, after, bytes_max)? {
            let before = Lsn(span.last.0.saturating_sub(1));
            let newest = journal.read_backlog(self.spec.id, before, 1, 1)?;
            let newest = newest.first().map_or(0, |found| found.message.time_unix_ms);
            let behind = payloads.partition_point(|(lsn, _)| *lsn < span.first);
            let payloads = payloads.iter().skip(behind);
            let payloads = payloads.take_while(|(lsn, _)| *lsn <= span.last);
            let held = payloads.map(|(lsn, payload)| (*lsn, self.hold_payload(payload)));
            let held: Vec<_> = held.collect();
            let mut state = self.state.lock();
            if let Some(stream) = &mut state.stream {
                stream.restore(span, newest, held, settings.segment_bytes);
            }
        }
        Ok(())
    }

    /// Sets the offset of the first message, before any is put back.
    pub(crate) fn begin_stream_at(&self, first: u64) {
        let mut state = self.state.lock();
        if let Some(stream) = &mut state.stream {
            **stream = Stream::new(first);
        }
    }

    /// Looks at a stream's messages from the `offset`th on that is kept.
    pub(super) fn peek_stream(&self, offset: usize, answer: &mut Answer) {
        let (mut at, mut place) = {
            let state = self.state.lock();
            let Some(stream) = &state.stream else {
                return;
            };
            let at = stream.first().saturating_add(offset as u64);
            (at, stream.place_of(at))
        };
        let shown = |at, kept: &Kept| {
            let message = kept.message.with_number(STREAM_OFFSET, at);
            Peeked::new(message, false)
        };
        while answer.missing_count() > 0 {
            let in_memory = {
                let state = self.state.lock();
                let stream = state.stream.as_ref();
                stream.and_then(|stream| stream.peek_tail(at, answer.missing_count()))
            };
            let found: Vec<_> = match (in_memory, place) {
                (Some(kept), _) => {
                    answer.extend(kept.iter().map(|(at, kept)| shown(*at, kept)));
                    break;
                }
                (None, None) => break,
                (None, Some((after, skip_count))) => {
                    let read = PageRead {
                        reader: ConsumerId { slot: 0, serial: 0 },
                        offset: at,
                        after,
                        skip_count,
                    };
                    self.read_page(&read).into()
                }
            };
            let Some(last) = found.last() else { break };
            place = Some((last.lsn, 0));
            let offsets = at..;
            answer.extend(offsets.zip(&found).map(|(at, kept)| shown(at, kept)));
            at += found.len() as u64;
        }
    }

    pub(super) fn unix_ms(&self, now: Instant) -> u64 {
        let home = self.spec.home.upgrade();
        home.map_or(0, |vhost| vhost.unix_ms(now))
    }

    fn durable_lsn(&self) -> Lsn {
        let journal = self.spec.journal.as_ref();
        journal.map_or(Lsn::ZERO, |journal| journal.durable_lsn().lsn())
    }
}
