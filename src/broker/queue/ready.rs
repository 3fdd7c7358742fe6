//! The messages of one queue that wait for a consumer, in order.
//!
//! Owns: order, and nothing else: the front is what goes next. A message that comes back goes to the
//! place it had. This is the one file that knows where waiting messages are kept; here they will page
//! out to disk.
//! Bound: the queue's length limit. 40 bytes for each message beside the message itself.

use std::collections::{BTreeMap, VecDeque};

use crate::journal::Lsn;

use super::super::message::Message;
use super::{Entry, MessageSeq};

/// What stands first.
#[derive(Debug)]
pub(crate) enum Front {
    /// A message; it is taken.
    Message(MessageSeq, Entry),
    /// A message that is still on disk: it has been asked for, and the queue goes on when it is there.
    #[allow(dead_code)] // until pages are written
    Loading,
    /// Nothing waits.
    Empty,
}

/// Waiting messages, lowest number first.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// Messages that came back; all stand before `fresh`, since only the front was ever taken.
    returned: BTreeMap<MessageSeq, Entry>,
    /// Never taken since they came, in chunks so that growing never moves a long list.
    fresh: VecDeque<VecDeque<(MessageSeq, Entry)>>,
    fresh_count: usize,
    bytes: u64,
}

/// Messages of one chunk.
const CHUNK_COUNT: usize = 128;

impl Ready {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.returned.len() + self.fresh_count
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.fresh_count == 0 && self.returned.is_empty()
    }

    /// The sum of their bodies in bytes, payloads included.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a message behind all others; its number is higher than any before.
    pub(crate) fn push_back(&mut self, seq: MessageSeq, entry: Entry) {
        self.bytes += entry.message.size_bytes();
        match self.fresh.back_mut() {
            Some(chunk) if chunk.len() < CHUNK_COUNT => {
                debug_assert!(chunk.back().is_none_or(|(last, _)| *last < seq));
                chunk.push_back((seq, entry));
            }
            Some(_) => {
                let mut chunk = VecDeque::with_capacity(CHUNK_COUNT);
                chunk.push_back((seq, entry));
                self.fresh.push_back(chunk);
            }
            // The first chunk grows as it must: most queues are short.
            None => self.fresh.push_back(VecDeque::from([(seq, entry)])),
        }
        self.fresh_count += 1;
    }

    /// Takes the first message.
    pub(crate) fn pop_front(&mut self) -> Front {
        let taken = match self.returned.pop_first() {
            Some(taken) => Some(taken),
            None => self.pop_fresh(),
        };
        match taken {
            Some((seq, entry)) => {
                self.bytes -= entry.message.size_bytes();
                Front::Message(seq, entry)
            }
            None => Front::Empty,
        }
    }

    /// The first message, left where it is; none if there is none, or if it is still on disk.
    pub(crate) fn front(&self) -> Option<(MessageSeq, &Entry)> {
        if let Some((seq, entry)) = self.returned.first_key_value() {
            return Some((*seq, entry));
        }
        let (seq, entry) = self.fresh.front()?.front()?;
        Some((*seq, entry))
    }

    /// Puts a message that was taken back to its place.
    pub(crate) fn put_back(&mut self, seq: MessageSeq, entry: Entry) {
        debug_assert!(
            self.first_fresh().is_none_or(|first| seq < first),
            "only the front is ever taken"
        );
        self.bytes += entry.message.size_bytes();
        let replaced = self.returned.insert(seq, entry);
        debug_assert!(replaced.is_none(), "a number is given once");
    }

    /// Copies of `count` messages from the one at `offset` on.
    pub(crate) fn peek(&self, offset: usize, count: usize) -> Vec<Message> {
        let messages = self.in_memory().map(|(_, entry)| entry.message.clone());
        messages.skip(offset).take(count).collect()
    }

    /// Journal numbers of all messages, in order of the queue; [`Lsn::ZERO`] is left out.
    pub(crate) fn lsns(&self) -> impl Iterator<Item = Lsn> {
        let lsns = self.in_memory().map(|(_, entry)| entry.lsn);
        lsns.filter(|lsn| *lsn != Lsn::ZERO)
    }

    /// As [`Self::lsns`], of messages that somebody has seen.
    pub(crate) fn delivered_lsns(&self) -> impl Iterator<Item = Lsn> {
        let seen = self.in_memory().filter(|(_, entry)| entry.redelivered);
        seen.map(|(_, entry)| entry.lsn)
            .filter(|lsn| *lsn != Lsn::ZERO)
    }

    fn in_memory(&self) -> impl Iterator<Item = (MessageSeq, &Entry)> {
        let returned = self.returned.iter().map(|(seq, entry)| (*seq, entry));
        let fresh = self.fresh.iter().flatten();
        returned.chain(fresh.map(|(seq, entry)| (*seq, entry)))
    }

    fn first_fresh(&self) -> Option<MessageSeq> {
        let (seq, _) = self.fresh.front()?.front()?;
        Some(*seq)
    }

    fn pop_fresh(&mut self) -> Option<(MessageSeq, Entry)> {
        let chunk = self.fresh.front_mut()?;
        let taken = chunk.pop_front()?;
        // The last chunk stays, so that a queue that is always nearly empty allocates nothing.
        if chunk.is_empty() && self.fresh.len() > 1 {
            self.fresh.pop_front();
        }
        self.fresh_count -= 1;
        Some(taken)
    }
}
