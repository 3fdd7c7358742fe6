//! The messages of one queue that wait, by their priorities.
//!
//! Owns: which level a message belongs to, and what comes back before everything else in a quorum
//! queue. Each level is a [`Ready`] of its own behind the same calls; a queue without priorities has
//! one, a queue with them has as many as are in use.
//! Bounds: 256 levels; what came back to a quorum queue, as many messages as were out.
//! Spec: RabbitMQ's `x-max-priority`: higher levels first, above the highest counts as the highest.

use std::collections::VecDeque;

use crate::journal::Lsn;

use super::super::message::Message;
use super::arguments::{QueueKind, QueueSettings};
use super::ready::{Front, Ready};
use super::{Entry, MessageSeq};

/// Which level a message waits in, by its priority.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Levels {
    /// All in one.
    #[default]
    One,
    /// As a quorum queue of RabbitMQ 4: above [`NORMAL_PRIORITY_MAX`], and the rest.
    Two,
    /// `x-max-priority`: 0 to this.
    UpTo(u8),
}

/// The highest priority that a quorum queue does not prefer.
const NORMAL_PRIORITY_MAX: u8 = 4;

impl Levels {
    // req: PRIORITY-1
    fn of(self, priority: u8) -> u8 {
        match self {
            Self::One => 0,
            Self::Two => u8::from(priority > NORMAL_PRIORITY_MAX),
            Self::UpTo(max) => priority.min(max),
        }
    }
}

/// Waiting messages: what came back first, then from the highest priority to the lowest.
#[derive(Debug, Default)]
pub(crate) struct Priorities {
    levels: Levels,
    /// What came back to the front of a quorum queue, in that order.
    returned: VecDeque<(MessageSeq, Entry)>,
    returned_bytes: u64,
    /// Levels above the lowest that are in use, highest first.
    higher: Vec<(u8, Ready)>,
    lowest: Ready,
}

impl Priorities {
    /// An empty queue's.
    pub(crate) fn new(settings: &QueueSettings) -> Self {
        let levels = match (settings.kind, settings.priority_max) {
            (QueueKind::Quorum, _) => Levels::Two,
            (QueueKind::Stream, _) | (QueueKind::Classic, None) => Levels::One,
            (QueueKind::Classic, Some(max)) => Levels::UpTo(max),
        };
        Self {
            levels,
            ..Self::default()
        }
    }

    /// Takes all of them out.
    pub(crate) fn take(&mut self) -> Self {
        let levels = self.levels;
        std::mem::replace(
            self,
            Self {
                levels,
                ..Self::default()
            },
        )
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.returned.len() + self.all().map(Ready::len).sum::<usize>()
    }

    /// Whether none waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.returned.is_empty() && self.all().all(Ready::is_empty)
    }

    /// The sum of their bodies in bytes, payloads included.
    pub(crate) fn bytes(&self) -> u64 {
        self.returned_bytes + self.all().map(Ready::bytes).sum::<u64>()
    }

    /// Adds a message behind all others of its level; its number is higher than any before.
    pub(crate) fn push_back(&mut self, seq: MessageSeq, entry: Entry) {
        self.level_of(&entry).push_back(seq, entry);
    }

    /// Takes the first message of the highest level that has any.
    pub(crate) fn pop_front(&mut self) -> Front {
        if let Some((seq, entry)) = self.returned.pop_front() {
            self.returned_bytes -= entry.message.size_bytes();
            return Front::Message(seq, entry);
        }
        for at in 0..self.higher.len() {
            let Some((_, level)) = self.higher.get_mut(at) else {
                break;
            };
            match level.pop_front() {
                Front::Empty => {}
                front @ (Front::Message(..) | Front::Loading) => {
                    if level.is_empty() {
                        self.higher.remove(at);
                    }
                    return front;
                }
            }
        }
        self.lowest.pop_front()
    }

    /// The first message, left where it is; none if there is none, or if it is still on disk.
    pub(crate) fn front(&self) -> Option<(MessageSeq, &Entry)> {
        if let Some((seq, entry)) = self.returned.front() {
            return Some((*seq, entry));
        }
        self.all().find(|level| !level.is_empty())?.front()
    }

    /// Puts a message back to the place that it had when it was taken.
    pub(crate) fn put_back(&mut self, seq: MessageSeq, entry: Entry) {
        self.level_of(&entry).put_back(seq, entry);
    }

    /// Puts the message that was just taken in front of all others again: nobody could have it.
    pub(crate) fn untake(&mut self, seq: MessageSeq, entry: Entry) {
        match self.levels {
            Levels::One | Levels::UpTo(_) => self.put_back(seq, entry),
            Levels::Two => {
                self.returned_bytes += entry.message.size_bytes();
                self.returned.push_front((seq, entry));
            }
        }
    }

    /// Puts a message that was out before those that never were, and behind those that came back.
    pub(crate) fn give_back(&mut self, seq: MessageSeq, entry: Entry) {
        debug_assert_eq!(self.levels, Levels::Two, "only quorum queues do so");
        self.returned_bytes += entry.message.size_bytes();
        self.returned.push_back((seq, entry));
    }

    /// Copies of `count` messages from the one at `offset` on.
    pub(crate) fn peek(&self, mut offset: usize, count: usize) -> Vec<Message> {
        let returned = self.returned.iter().map(|(_, entry)| entry.message.clone());
        let mut found: Vec<_> = returned.skip(offset).take(count).collect();
        offset = offset.saturating_sub(self.returned.len());
        for level in self.all() {
            if found.len() == count {
                break;
            }
            found.extend(level.peek(offset, count - found.len()));
            offset = offset.saturating_sub(level.len());
        }
        found
    }

    /// Journal numbers of all messages; [`Lsn::ZERO`] is left out.
    pub(crate) fn lsns(&self) -> impl Iterator<Item = Lsn> {
        let returned = self.returned.iter().map(|(_, entry)| entry.lsn);
        let returned = returned.filter(|lsn| *lsn != Lsn::ZERO);
        returned.chain(self.all().flat_map(Ready::lsns))
    }

    /// As [`Self::lsns`], of messages that somebody has seen.
    pub(crate) fn delivered_lsns(&self) -> impl Iterator<Item = Lsn> {
        let returned = self.returned.iter();
        let returned = returned.filter(|(_, entry)| entry.redelivered);
        let returned = returned.map(|(_, entry)| entry.lsn);
        let returned = returned.filter(|lsn| *lsn != Lsn::ZERO);
        returned.chain(self.all().flat_map(Ready::delivered_lsns))
    }

    /// The levels in use, highest first.
    fn all(&self) -> impl Iterator<Item = &Ready> {
        let higher = self.higher.iter().map(|(_, level)| level);
        higher.chain(std::iter::once(&self.lowest))
    }

    fn level_of(&mut self, entry: &Entry) -> &mut Ready {
        let level = match self.levels.of(entry.message.traits().priority) {
            0 => return &mut self.lowest,
            level => level,
        };
        let at = self.higher.partition_point(|(other, _)| *other > level);
        if self.higher.get(at).is_none_or(|(other, _)| *other != level) {
            self.higher.insert(at, (level, Ready::default()));
        }
        match self.higher.get_mut(at) {
            Some((_, ready)) => ready,
            None => &mut self.lowest,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::super::message::{Body, MessageTraits, Persistence};
    use super::super::expiry::Deadline;
    use super::*;
    use crate::journal::Appended;

    fn entry(priority: u8) -> Entry {
        let traits = MessageTraits {
            persistence: Persistence::Transient,
            priority,
            expiration: None,
        };
        let body = Body::Inline(Bytes::from_static(b"12345"));
        Entry {
            message: Message::new(b"", b"q", &[0, 0], traits, body),
            lsn: Lsn::ZERO,
            location: Appended::NONE.location,
            redelivered: false,
            return_count: 0,
            deadline: Deadline::NEVER,
        }
    }

    fn filled(settings: &QueueSettings, priorities: &[u8]) -> Priorities {
        let mut waiting = Priorities::new(settings);
        for (at, priority) in priorities.iter().enumerate() {
            waiting.push_back(MessageSeq(at as u64), entry(*priority));
        }
        waiting
    }

    fn drained(waiting: &mut Priorities) -> Vec<u64> {
        let mut order = Vec::new();
        while let Front::Message(seq, _) = waiting.pop_front() {
            order.push(seq.0);
        }
        assert!(waiting.is_empty());
        assert_eq!(waiting.bytes(), 0);
        order
    }

    fn classic(priority_max: Option<u8>) -> QueueSettings {
        QueueSettings {
            priority_max,
            ..QueueSettings::default()
        }
    }

    #[test]
    fn higher_levels_go_first_and_equal_ones_in_order() {
        let mut waiting = filled(&classic(Some(5)), &[0, 1, 5, 0, 255, 3]);
        assert_eq!(waiting.len(), 6);
        assert_eq!(waiting.bytes(), 30);
        assert_eq!(waiting.front().map(|(seq, _)| seq.0), Some(2));
        assert_eq!(drained(&mut waiting), [2, 4, 5, 1, 0, 3]);
    }

    #[test]
    fn without_a_maximum_priorities_mean_nothing() {
        assert_eq!(drained(&mut filled(&classic(None), &[0, 9, 3])), [0, 1, 2]);
        assert_eq!(
            drained(&mut filled(&classic(Some(0)), &[0, 9, 3])),
            [0, 1, 2]
        );
    }

    #[test]
    fn what_comes_back_has_its_place_within_its_level() {
        let mut waiting = filled(&classic(Some(3)), &[1, 1, 2]);
        let mut taken = Vec::new();
        while let Front::Message(seq, entry) = waiting.pop_front() {
            taken.push((seq, entry));
        }
        // Out are 2, 0 and 1; they come back last first.
        for (seq, entry) in taken.into_iter().rev() {
            waiting.put_back(seq, entry);
        }
        waiting.push_back(MessageSeq(9), entry(1));
        assert_eq!(drained(&mut waiting), [2, 0, 1, 9]);
    }

    #[test]
    fn a_quorum_queue_has_two_levels_and_gives_what_came_back_first() {
        let quorum = QueueSettings {
            kind: QueueKind::Quorum,
            ..QueueSettings::default()
        };
        let mut waiting = filled(&quorum, &[0, 4, 5, 9]);
        let Front::Message(seq, first) = waiting.pop_front() else {
            panic!("four wait");
        };
        assert_eq!(seq, MessageSeq(2));
        waiting.give_back(seq, first);
        waiting.give_back(MessageSeq(20), entry(0));
        assert_eq!(drained(&mut waiting), [2, 20, 3, 0, 1]);
    }

    /// Levels that emptied take no memory; messages of levels that do not exist are seen by a look.
    #[test]
    fn a_look_sees_all_levels_in_order_and_empty_ones_go() {
        let mut waiting = filled(&classic(Some(200)), &[0, 100, 200]);
        let seen: Vec<u8> = waiting
            .peek(1, 5)
            .iter()
            .map(|message| message.traits().priority)
            .collect();
        assert_eq!(seen, [100, 0]);
        assert_eq!(drained(&mut waiting), [2, 1, 0]);
        assert!(waiting.higher.is_empty());
    }
}
