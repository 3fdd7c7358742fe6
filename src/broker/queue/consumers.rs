//! Whose turn it is: the consumers of one queue, their prefetch counts and the round among them.
//!
//! Owns: which consumers could take a message now, by priority and then in turn.
//! Bound: `consumers_per_queue_max`.
//!
//! ```text
//!           takes its last credit              outbox or channel full
//! Spent <──────────────────────── Ready ────────────────────────────> Stalled
//!   └───────── settled ───────────> ^ <────────── resumed ──────────────┘
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use super::super::consumer::{Consumer, ConsumerId};

/// Where a consumer stands; see the drawing above.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    /// In the round.
    Ready,
    /// It holds as many unsettled messages as its prefetch count allows.
    Spent,
    /// Its outbox or its channel is full; whoever makes room resumes it.
    Stalled,
}

#[derive(Debug)]
struct Slot {
    consumer: Arc<Consumer>,
    place: Place,
    unacked_count: u32,
}

/// Consumers of equal priority, in turn.
#[derive(Debug)]
struct Round {
    priority: i64,
    turn: VecDeque<u32>,
}

/// The consumers of one queue.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    serial: u32,
    count: usize,
    /// Highest priority first; a round without anybody ready is not there,
    /// unless it is the only one.
    rounds: Vec<Round>,
    exclusive: bool,
}

impl Consumers {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Whether one of them wants the queue to itself.
    pub(crate) fn has_exclusive(&self) -> bool {
        self.exclusive
    }

    /// The id that the next consumer must be made with.
    pub(crate) fn next_id(&mut self) -> ConsumerId {
        self.serial = self.serial.wrapping_add(1);
        let beyond = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        ConsumerId {
            slot: self.free.pop().unwrap_or(beyond),
            serial: self.serial,
        }
    }

    /// Adds a consumer made with [`Self::next_id`]; it comes last in the round.
    pub(crate) fn add(&mut self, consumer: Arc<Consumer>) {
        let index = consumer.id.slot as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.exclusive |= consumer.exclusive;
        self.count += 1;
        let (slot, priority) = (consumer.id.slot, consumer.priority);
        if let Some(place) = self.slots.get_mut(index) {
            *place = Some(Slot {
                consumer,
                place: Place::Ready,
                unacked_count: 0,
            });
        }
        self.enter_round(slot, priority);
    }

    /// Takes out a consumer; false if it is not there any more.
    pub(crate) fn remove(&mut self, id: ConsumerId) -> bool {
        let Some(slot) = self.slots.get_mut(id.slot as usize) else {
            return false;
        };
        let Some(removed) = slot.take_if(|slot| slot.consumer.id == id) else {
            return false;
        };
        if removed.place == Place::Ready {
            self.leave_round(id.slot, removed.consumer.priority);
        }
        self.free.push(id.slot);
        self.count -= 1;
        // An exclusive consumer is the only one.
        self.exclusive = false;
        true
    }

    /// Takes out all of them.
    pub(crate) fn drain(&mut self) -> Vec<Arc<Consumer>> {
        let slots = std::mem::take(&mut self.slots);
        self.free.clear();
        self.rounds.clear();
        self.count = 0;
        self.exclusive = false;
        slots
            .into_iter()
            .flatten()
            .map(|slot| slot.consumer)
            .collect()
    }

    /// Whose turn it is, if anybody can take a message.
    pub(crate) fn front(&self) -> Option<&Arc<Consumer>> {
        let index = *self.rounds.first()?.turn.front()?;
        self.slot(index).map(|slot| &slot.consumer)
    }

    /// The front one took a message: the next of its priority has the turn.
    pub(crate) fn front_took(&mut self, unsettled: Unsettled) {
        let Some(round) = self.rounds.first_mut() else {
            return;
        };
        let Some(index) = round.turn.front().copied() else {
            return;
        };
        let mut spent = false;
        if unsettled == Unsettled::Counts
            && let Some(Some(slot)) = self.slots.get_mut(index as usize)
        {
            slot.unacked_count += 1;
            let count_max = slot.consumer.prefetch_count_max;
            spent = count_max != 0 && slot.unacked_count >= count_max;
            if spent {
                slot.place = Place::Spent;
            }
        }
        if spent {
            self.pop_front();
        } else if round.turn.len() > 1 {
            round.turn.rotate_left(1);
        }
    }

    /// The front one can take nothing now; somebody will resume it.
    pub(crate) fn front_stalled(&mut self) {
        if let Some(index) = self.pop_front()
            && let Some(Some(slot)) = self.slots.get_mut(index as usize)
        {
            slot.place = Place::Stalled;
        }
    }

    /// A stalled consumer may have room again.
    pub(crate) fn resume(&mut self, id: ConsumerId) {
        let Some(slot) = self.slot_of(id) else { return };
        if slot.place == Place::Stalled {
            slot.place = Place::Ready;
            let priority = slot.consumer.priority;
            self.enter_round(id.slot, priority);
        }
    }

    /// One message of a consumer is settled. Gives the consumer, if it is still there.
    pub(crate) fn settled(&mut self, id: ConsumerId) {
        let Some(slot) = self.slot_of(id) else { return };
        debug_assert!(slot.unacked_count > 0, "only what was taken is settled");
        slot.unacked_count = slot.unacked_count.saturating_sub(1);
        if slot.place == Place::Spent {
            slot.place = Place::Ready;
            let priority = slot.consumer.priority;
            self.enter_round(id.slot, priority);
        }
    }

    /// The consumers, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Consumer>> {
        self.slots.iter().flatten().map(|slot| &slot.consumer)
    }

    fn slot(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)?.as_ref()
    }

    fn slot_of(&mut self, id: ConsumerId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id.slot as usize)?.as_mut()?;
        (slot.consumer.id == id).then_some(slot)
    }

    fn enter_round(&mut self, index: u32, priority: i64) {
        if let [only] = self.rounds.as_mut_slice()
            && only.turn.is_empty()
        {
            only.priority = priority;
        }
        let at = self
            .rounds
            .partition_point(|round| round.priority > priority);
        match self.rounds.get_mut(at) {
            Some(round) if round.priority == priority => round.turn.push_back(index),
            _ => self.rounds.insert(
                at,
                Round {
                    priority,
                    turn: VecDeque::from([index]),
                },
            ),
        }
    }

    fn leave_round(&mut self, index: u32, priority: i64) {
        if let Some(at) = self
            .rounds
            .iter()
            .position(|round| round.priority == priority)
            && let Some(round) = self.rounds.get_mut(at)
        {
            round.turn.retain(|other| *other != index);
            self.drop_empty_round(at);
        }
    }

    fn pop_front(&mut self) -> Option<u32> {
        let index = self.rounds.first_mut()?.turn.pop_front();
        self.drop_empty_round(0);
        index
    }

    fn drop_empty_round(&mut self, at: usize) {
        // The only round stays, so that one consumer that stops and starts allocates nothing.
        if self.rounds.len() > 1
            && self
                .rounds
                .get(at)
                .is_some_and(|round| round.turn.is_empty())
        {
            self.rounds.remove(at);
        }
    }
}

/// Whether a delivery counts against the prefetch of who takes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unsettled {
    /// It waits for an acknowledgement.
    Counts,
    /// It was settled by being handed over.
    Free,
}
