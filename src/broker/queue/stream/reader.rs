//! Where one consumer reads in a stream, and what it does not want to see.
//!
//! Owns: the next offset, a page of messages from the journal while that lies behind the stream's tail,
//! and the filter. A page is asked for ([`Next::Read`]) and given ([`Stream::give_page`]) under the
//! queue's lock, and read in between with no lock held.
//! Bound: [`STREAM_PAGE_COUNT_MAX`] messages or [`STREAM_PAGE_BYTES_MAX`] bytes of bodies.

use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::amqp::field::{FieldTable, FieldValue};
use crate::journal::Lsn;

use super::super::super::consumer::ConsumerId;
use super::super::super::message::Message;
use super::super::super::name::Name;
use super::{Kept, Stream};

/// Which messages a consumer wants (`x-stream-filter`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    /// Those with one of these values; all if there are none.
    pub(crate) values: SmallVec<[Name; 1]>,
    /// And those without a value.
    pub(crate) match_unfiltered: bool,
}

impl Filter {
    // req: STREAM-6
    fn wants(&self, message: &Message) -> bool {
        if self.values.is_empty() {
            return true;
        }
        let value = filter_value(message);
        match value.as_ref().and_then(FieldValue::as_bytes) {
            Some(value) => self.values.iter().any(|wanted| wanted.as_bytes() == value),
            None => self.match_unfiltered,
        }
    }
}

/// What a publisher says with `x-stream-filter-value`.
fn filter_value(message: &Message) -> Option<FieldValue> {
    let headers: FieldTable = message.headers()?;
    headers.get("x-stream-filter-value")
}

/// Reads of the journal that a stream asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct PageRead {
    pub(crate) reader: ConsumerId,
    /// Offset of the first message that is wanted.
    pub(crate) offset: u64,
    /// Messages behind this number are to be read,
    pub(crate) after: Lsn,
    /// and so many of them passed over.
    pub(crate) skip_count: u64,
}

/// What comes next for a consumer.
#[derive(Debug)]
pub(crate) enum Next {
    /// This message.
    Message { offset: u64, message: Message },
    /// A page must be read first.
    Read(PageRead),
    /// Nothing until something is published, or a page that was asked for has come.
    Nothing,
}

/// See above.
#[derive(Debug)]
pub(crate) struct Reader {
    next: u64,
    /// Messages published before are passed over, in milliseconds since 1970; until the first one that
    /// was not.
    since_unix_ms: u64,
    filter: Filter,
    /// Number of the message before `next`, if it was seen.
    last: Option<Lsn>,
    /// Number of the message at `next`, if it was shown.
    shown: Option<Lsn>,
    /// The first has the offset `next`.
    page: VecDeque<Kept>,
    is_reading: bool,
}

impl Reader {
    pub(super) fn new(next: u64, since_unix_ms: u64, filter: Filter) -> Self {
        Self {
            next,
            since_unix_ms,
            filter,
            last: None,
            shown: None,
            page: VecDeque::new(),
            is_reading: false,
        }
    }

    /// Passes the message at `next`, which was shown.
    pub(super) fn advance(&mut self) {
        self.page.pop_front();
        self.last = self.shown.take();
        self.next += 1;
    }

    fn wants(&mut self, kept: &Kept) -> bool {
        if kept.unix_ms < self.since_unix_ms {
            return false;
        }
        self.since_unix_ms = 0;
        self.filter.wants(&kept.message)
    }
}

impl Stream {
    /// What comes next for a consumer; passes what it does not want.
    pub(crate) fn next_for(&mut self, id: ConsumerId) -> Next {
        let first = self.first();
        let (next, tail_first) = (self.next, self.tail_first());
        let Some(mut reader) = self.readers.remove(&id) else {
            return Next::Nothing;
        };
        if reader.next < first {
            // Retention was faster than it.
            reader.next = first;
            reader.last = None;
            reader.page.clear();
        }
        let found = loop {
            if reader.is_reading || reader.next >= next {
                break Next::Nothing;
            }
            let kept = match reader.page.front() {
                Some(kept) => kept.clone(),
                None if reader.next >= tail_first => match self.in_tail(reader.next) {
                    Some(kept) => kept.clone(),
                    None => break Next::Nothing,
                },
                None => break self.ask(id, &mut reader),
            };
            reader.shown = Some(kept.lsn);
            if reader.wants(&kept) {
                break Next::Message {
                    offset: reader.next,
                    message: kept.message,
                };
            }
            reader.advance();
        };
        self.readers.insert(id, reader);
        found
    }

    fn ask(&self, id: ConsumerId, reader: &mut Reader) -> Next {
        let place = match reader.last {
            Some(last) => Some((last, 0)),
            None => self.find(reader.next),
        };
        let Some((after, skip_count)) = place else {
            return Next::Nothing;
        };
        reader.is_reading = true;
        Next::Read(PageRead {
            reader: id,
            offset: reader.next,
            after,
            skip_count,
        })
    }

    /// Takes the page that was asked for; one that retention has overtaken is of no use.
    pub(crate) fn give_page(&mut self, read: &PageRead, page: VecDeque<Kept>) {
        let first = self.first();
        if let Some(reader) = self.readers.get_mut(&read.reader) {
            reader.is_reading = false;
            if reader.next == read.offset && read.offset >= first {
                reader.page = page;
            }
        }
    }

    /// Consumers that wait for a page.
    pub(crate) fn is_reading(&self, id: ConsumerId) -> bool {
        self.readers
            .get(&id)
            .is_some_and(|reader| reader.is_reading)
    }
}
