//! The messages of one queue that wait, by their priorities.
//!
//! Owns: which level a message belongs to, and what comes back before everything else in a quorum
//! queue. Each level is a [`Ready`] of its own behind the same calls; a queue without priorities has
//! one, a queue with them has as many as are in use.
//! Bounds: 256 levels; what came back to a quorum queue, as many messages as were out.
//! Spec: RabbitMQ's `x-max-priority`: higher levels first, above the highest counts as the highest.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use crate::journal::{Lsn, QueueId};

use super::super::spill::{Extent, Spill};
use super::arguments::{QueueKind, QueueSettings};
use super::ready::{
    Batch, Front, Load, Loaded, Outline, Outlined, Page, Piece, Ready, RecoveredZone, View,
};
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
#[derive(Debug)]
pub(crate) struct Priorities {
    levels: Levels,
    /// What came back to the front of a quorum queue, in that order.
    returned: VecDeque<(MessageSeq, Entry)>,
    returned_bytes: u64,
    /// Levels above the lowest that are in use, highest first.
    higher: Vec<(u8, Ready)>,
    lowest: Ready,
    /// Whether the pager was told that something is to be loaded, for any of the levels.
    is_asked: bool,
}

impl Priorities {
    /// An empty queue's; without a spill all of it stays in memory.
    pub(crate) fn new(settings: &QueueSettings, queue: QueueId, spill: Option<Arc<Spill>>) -> Self {
        let levels = match (settings.kind, settings.priority_max) {
            (QueueKind::Quorum, _) => Levels::Two,
            (QueueKind::Stream, _) | (QueueKind::Classic, None) => Levels::One,
            (QueueKind::Classic, Some(max)) => Levels::UpTo(max),
        };
        Self::of(levels, Ready::new(queue, spill))
    }

    fn of(levels: Levels, lowest: Ready) -> Self {
        Self {
            levels,
            returned: VecDeque::new(),
            returned_bytes: 0,
            higher: Vec::new(),
            lowest,
            is_asked: false,
        }
    }

    /// Takes all of them out.
    pub(crate) fn take(&mut self) -> Self {
        let empty = Self::of(self.levels, self.lowest.sibling());
        std::mem::replace(self, empty)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.returned.len() + self.all().map(Ready::len).sum::<usize>()
    }

    /// How many wait at each priority, from 0 to the highest; none if the queue has no priorities of its own.
    pub(crate) fn lengths(&self) -> Option<Vec<usize>> {
        let Levels::UpTo(max) = self.levels else {
            return None;
        };
        let mut lengths = vec![0; usize::from(max) + 1];
        let higher = self.higher.iter().map(|(level, ready)| (*level, ready));
        for (level, ready) in higher.chain([(0, &self.lowest)]) {
            if let Some(length) = lengths.get_mut(usize::from(level)) {
                *length += ready.len();
            }
        }
        Some(lengths)
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

    // ---- what is not in memory: see `Ready` ----

    /// Whether the first message must be read before it can be taken.
    pub(crate) fn is_front_on_disk(&self) -> bool {
        !self.is_empty() && self.front().is_none()
    }

    /// The next messages that must leave the memory, if too many are in it.
    pub(crate) fn next_batch(&mut self) -> Option<Arc<Batch>> {
        self.all_mut().find_map(Ready::next_batch)
    }

    /// Notes where a batch was written; if it was not, it stays in memory.
    pub(crate) fn written(&mut self, batch: &Batch, result: io::Result<Extent>) {
        // None has it if the level was emptied, or the queue: its files go with it.
        if let Some(level) = self.all_mut().find(|level| level.has(&batch.area)) {
            level.written(batch, result);
        }
    }

    /// Whether the pager must be told that a page is to be loaded: once until [`Self::next_load`].
    pub(crate) fn ask_load(&mut self) -> bool {
        let asks = !self.is_asked && self.all().any(Ready::wants_load);
        self.is_asked |= asks;
        asks
    }

    /// What is to be read next.
    pub(crate) fn next_load(&mut self) -> Option<Load> {
        self.is_asked = false;
        self.all_mut().find_map(Ready::next_load)
    }

    /// Takes in what was read, and gives how many of its messages were missing; nothing if it is of no
    /// use any more.
    pub(crate) fn install(&mut self, load: &Load, loaded: Loaded) -> Option<usize> {
        let level = self.all_mut().find(|level| level.has(&load.area))?;
        level.install(load, loaded)
    }

    /// Notes that something could not be read: nothing is asked for until [`Self::retry_stalled`].
    pub(crate) fn set_stalled(&mut self, load: &Load) {
        self.all_mut().for_each(|level| level.set_stalled(load));
    }

    /// How many numbers there are for the messages of a page, before those of what stands behind it.
    pub(crate) fn room_of(&self, load: &Load, page: &Page) -> u64 {
        let level = self.all().find(|level| level.has(&load.area));
        level.map_or(0, |level| level.room_of(page))
    }

    /// Lets what could not be read be tried again.
    pub(crate) fn retry_stalled(&mut self) {
        self.all_mut().for_each(Ready::retry_stalled);
    }

    /// Takes over what recovery found; false if it must be read and added, one by one. A queue with
    /// levels must know each message's priority. A quorum queue need not: what it has not read yet
    /// stands among the normal ones.
    pub(crate) fn restore(&mut self, zone: RecoveredZone) -> bool {
        match self.levels {
            Levels::One | Levels::Two => self.lowest.restore(zone),
            Levels::UpTo(_) => false,
        }
    }

    /// Where its messages are, for going through their journal numbers.
    pub(crate) fn outline(&self, which: Outline) -> Outlined {
        let mut outlined = Outlined::new(which);
        let returned = self.returned.iter().map(|(_, entry)| entry);
        let wanted = returned.filter(|entry| which == Outline::All || entry.redelivered);
        let lsns = wanted
            .map(|entry| entry.lsn)
            .filter(|lsn| *lsn != Lsn::ZERO);
        outlined.lsns.extend(lsns);
        self.all().for_each(|level| level.outline(&mut outlined));
        outlined
    }

    /// `count` messages from the one at `offset` on, or where they are to be read.
    pub(crate) fn view(&self, offset: usize, count: usize) -> Vec<Piece> {
        let mut view = View::new(offset, count);
        let returned = self.returned.iter().map(|(_, entry)| entry);
        view.messages(self.returned.len(), returned);
        self.all().for_each(|level| level.view(&mut view));
        view.pieces
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Ready> {
        let higher = self.higher.iter_mut().map(|(_, level)| level);
        higher.chain(std::iter::once(&mut self.lowest))
    }

    /// The levels in use, highest first.
    fn all(&self) -> impl Iterator<Item = &Ready> {
        let higher = self.higher.iter().map(|(_, level)| level);
        higher.chain(std::iter::once(&self.lowest))
    }

    fn level_of(&mut self, entry: &Entry) -> &mut Ready {
        if self.levels == Levels::One {
            return &mut self.lowest;
        }
        let level = match self.levels.of(entry.message.traits().priority) {
            0 => return &mut self.lowest,
            level => level,
        };
        let at = self.higher.partition_point(|(other, _)| *other > level);
        if self.higher.get(at).is_none_or(|(other, _)| *other != level) {
            self.higher.insert(at, (level, self.lowest.sibling()));
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

    use super::super::super::message::{Body, Message, MessageTraits, Persistence};
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
        let mut waiting = Priorities::new(settings, QueueId(1), None);
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
        let mut seen = Vec::new();
        for piece in waiting.view(1, 5) {
            let Piece::Messages(messages) = piece else {
                panic!("all of it is in memory");
            };
            seen.extend(messages.iter().map(|seen| seen.message.traits().priority));
        }
        assert_eq!(seen, [100, 0]);
        assert_eq!(drained(&mut waiting), [2, 1, 0]);
        assert!(waiting.higher.is_empty());
    }
}
