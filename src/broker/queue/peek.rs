//! Looking at waiting messages without taking them.
//!
//! Owns: the answer. It is a copy of what is in memory at one moment; what lies on disk is read after
//! the queue's lock, from there on, so that nobody waits for who looks.
//! Bound: [`Peek::answer_bytes_max`], and one page.

use crate::disk::ReadFrom;

use super::super::limits::PEEK_BYTES_DEFAULT;
use super::super::message::Message;
use super::arguments::QueueKind;
use super::paging::Unreadable;
use super::ready::{Load, Loaded, Piece, Source};
use super::{Entry, Queue};

/// Which waiting messages somebody wants to look at, and how much of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peek {
    /// Messages that stand before the first one that is wanted.
    pub offset: usize,
    /// How many are wanted.
    pub count: usize,
    /// Bodies are cut to so many bytes.
    pub body_bytes_max: usize,
    /// The message with which the bodies of the answer together reach so many bytes is the last one.
    pub answer_bytes_max: usize,
}

impl Peek {
    /// Whole messages, as long as all together are not too long.
    #[must_use]
    pub fn new(offset: usize, count: usize) -> Self {
        Self {
            offset,
            count,
            body_bytes_max: usize::MAX,
            answer_bytes_max: PEEK_BYTES_DEFAULT,
        }
    }
}

/// A message that was looked at.
#[derive(Clone, Debug)]
pub struct Peeked {
    /// The message; its body is cut if it was too long. That of a payload is not read at all.
    pub message: Message,
    /// Length of the whole body in bytes, a payload's too.
    pub size_bytes: u64,
    /// Whether it was handed to anybody before.
    pub redelivered: bool,
}

impl Peeked {
    pub(super) fn of(entry: &Entry) -> Self {
        Self::new(entry.message.clone(), entry.redelivered)
    }

    pub(super) fn new(message: Message, redelivered: bool) -> Self {
        Self {
            size_bytes: message.size_bytes(),
            message,
            redelivered,
        }
    }
}

/// An answer that grows.
#[derive(Debug)]
pub(super) struct Answer {
    peek: Peek,
    found: Vec<Peeked>,
    bytes: usize,
}

impl Answer {
    pub(super) fn new(peek: Peek) -> Self {
        Self {
            peek,
            found: Vec::new(),
            bytes: 0,
        }
    }

    /// Adds messages until it is full.
    pub(super) fn extend(&mut self, messages: impl IntoIterator<Item = Peeked>) {
        for mut peeked in messages {
            if self.is_full() {
                return;
            }
            peeked.message = peeked.message.cut(self.peek.body_bytes_max);
            self.bytes = self.bytes.saturating_add(peeked.message.memory_bytes());
            self.found.push(peeked);
        }
    }

    /// How many more messages are wanted.
    pub(super) fn missing_count(&self) -> usize {
        match self.is_full() {
            true => 0,
            false => self.peek.count - self.found.len(),
        }
    }

    fn is_full(&self) -> bool {
        self.found.len() >= self.peek.count || self.bytes >= self.peek.answer_bytes_max
    }

    pub(super) fn into_found(self) -> Vec<Peeked> {
        self.found
    }
}

impl Queue {
    /// Looks at waiting messages without taking them, in the order in which they go. Blocks on the disk if
    /// they lie there; what cannot be read is left out. A stream's are counted from the first that is kept.
    // req: PEEK-1
    #[must_use]
    pub fn peek(&self, peek: Peek) -> Vec<Peeked> {
        let mut answer = Answer::new(peek);
        if self.kind() == QueueKind::Stream {
            self.peek_stream(peek.offset, &mut answer);
            return answer.into_found();
        }
        let view = self.state.lock().ready.view(peek.offset, peek.count);
        for piece in view {
            if answer.missing_count() == 0 {
                break;
            }
            match piece {
                Piece::Messages(messages) => answer.extend(messages),
                Piece::Returned {
                    mut known,
                    loads,
                    skip,
                    take,
                } => {
                    for (first, load) in loads {
                        if known.range(..first).count() >= skip.saturating_add(take) {
                            break;
                        }
                        match self.read(ReadFrom::Disk, &load) {
                            Ok(Loaded::Page(page)) => {
                                let page = page.into_iter();
                                known.extend(page.map(|(seq, entry)| (seq, Peeked::of(&entry))));
                            }
                            Ok(Loaded::Recovered(_)) => {}
                            Err(error) => self.cannot_show(&error),
                        }
                    }
                    answer.extend(known.into_values().skip(skip).take(take));
                }
                Piece::Load { load, skip, take } => {
                    if let Err(error) = self.look(load, skip, take, &mut answer) {
                        self.cannot_show(&error);
                    }
                }
            }
        }
        answer.into_found()
    }

    fn cannot_show(&self, error: &Unreadable) {
        tracing::warn!(queue = %self.spec.name, %error, "some waiting messages cannot be shown");
    }

    fn look(
        &self,
        mut load: Load,
        mut skip: usize,
        mut take: usize,
        answer: &mut Answer,
    ) -> Result<(), Unreadable> {
        while take > 0 && answer.missing_count() > 0 {
            let loaded = self.read(ReadFrom::Disk, &load)?;
            // A page is read whole; of what recovery found there may be more.
            let last = match (&mut load.source, &loaded) {
                (Source::Recovered { after, .. }, Loaded::Recovered(entries)) => {
                    entries.back().map(|last| *after = last.lsn)
                }
                (Source::Returned(_) | Source::Page(_) | Source::Recovered { .. }, _) => None,
            };
            let before = answer.found.len();
            let mut entries = loaded.into_entries();
            while skip > 0 && entries.next().is_some() {
                skip -= 1;
            }
            answer.extend(entries.take(take).map(|entry| Peeked::of(&entry)));
            take -= answer.found.len() - before;
            if last.is_none() {
                break;
            }
        }
        Ok(())
    }
}
