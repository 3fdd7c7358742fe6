//! Whose turn it is: the consumers of one queue, their prefetch counts and the round among them.
//!
//! Owns: which consumers could take a message now, by priority and then in turn; with
//! `x-single-active-consumer`, which one is served and who comes after it.
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
    /// It reads a stream and waits for what comes next there.
    Idle,
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

/// Who is served.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Service {
    /// Everybody, by priority and then in turn.
    #[default]
    All,
    /// Only the consumer in this slot, even while it can take nothing; none if there is no consumer.
    Single { active: Option<u32> },
}

/// What a consumer is to its queue, as RabbitMQ's `activity_status` has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Activity {
    /// It is the one that is served (`single_active`).
    SingleActive,
    /// It is served (`up`).
    Up,
    /// Another one is served (`waiting`).
    Waiting,
}

/// A consumer as its queue sees it at one moment.
#[derive(Clone, Debug)]
pub struct ConsumerState {
    /// The consumer.
    pub consumer: Arc<Consumer>,
    /// Whether it is served.
    pub activity: Activity,
    /// Deliveries that it has not settled; what it held when it was cancelled is not counted.
    pub unacked_count: u32,
}

/// The consumers of one queue.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    service: Service,
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
    /// Nobody yet, in a queue that serves all of them or one.
    pub(crate) fn new(single_active: bool) -> Self {
        Self {
            service: match single_active {
                true => Service::Single { active: None },
                false => Service::All,
            },
            ..Self::default()
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
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
        if let Service::Single {
            active: active @ None,
        } = &mut self.service
        {
            *active = Some(slot);
        }
    }

    /// Takes out a consumer.
    // req: SAC-1
    pub(crate) fn remove(&mut self, id: ConsumerId) -> Removed {
        let Some(slot) = self.slots.get_mut(id.slot as usize) else {
            return Removed::Unknown;
        };
        let Some(removed) = slot.take_if(|slot| slot.consumer.id == id) else {
            return Removed::Unknown;
        };
        if removed.place == Place::Ready {
            self.leave_round(id.slot, removed.consumer.priority);
        }
        self.free.push(id.slot);
        self.count -= 1;
        // An exclusive consumer is the only one.
        self.exclusive = false;
        match self.service {
            Service::Single { active } if active == Some(id.slot) => {
                // Those that wait have never been served, so all of them are in the round.
                let next = self.rounds.first().and_then(|round| round.turn.front());
                self.service = Service::Single {
                    active: next.copied(),
                };
                Removed::Active
            }
            Service::Single { .. } | Service::All => Removed::Other,
        }
    }

    /// Takes out all of them.
    pub(crate) fn drain(&mut self) -> Vec<Arc<Consumer>> {
        let slots = std::mem::take(&mut self.slots);
        self.free.clear();
        self.rounds.clear();
        self.count = 0;
        self.exclusive = false;
        if let Service::Single { active } = &mut self.service {
            *active = None;
        }
        slots
            .into_iter()
            .flatten()
            .map(|slot| slot.consumer)
            .collect()
    }

    /// Whose turn it is, if anybody can take a message.
    pub(crate) fn front(&self) -> Option<&Arc<Consumer>> {
        self.slot(self.front_index()?).map(|slot| &slot.consumer)
    }

    /// Whether it is this one's turn.
    #[inline]
    pub(crate) fn is_front(&self, consumer: &Arc<Consumer>) -> bool {
        self.front()
            .is_some_and(|front| Arc::ptr_eq(front, consumer))
    }

    fn front_index(&self) -> Option<u32> {
        match self.service {
            Service::All => self.rounds.first()?.turn.front().copied(),
            Service::Single { active } => active
                .filter(|active| self.slot(*active).map(|slot| slot.place) == Some(Place::Ready)),
        }
    }

    /// The front one took a message: the next of its priority has the turn.
    pub(crate) fn front_took(&mut self, unsettled: Unsettled) {
        let Some(index) = self.front_index() else {
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
            self.drop_from_round(index);
        } else if self.service == Service::All
            && let Some(round) = self.rounds.first_mut()
            && round.turn.len() > 1
        {
            round.turn.rotate_left(1);
        }
    }

    /// The front one can take nothing now; somebody will resume it.
    pub(crate) fn front_stalled(&mut self) {
        let Some(index) = self.front_index() else {
            return;
        };
        self.drop_from_round(index);
        if let Some(Some(slot)) = self.slots.get_mut(index as usize) {
            slot.place = Place::Stalled;
        }
    }

    /// The front one, which reads a stream, must wait for what comes next.
    pub(crate) fn front_idle(&mut self) {
        let Some(index) = self.front_index() else {
            return;
        };
        self.drop_from_round(index);
        if let Some(Some(slot)) = self.slots.get_mut(index as usize) {
            slot.place = Place::Idle;
        }
    }

    /// What idle consumers wait for may have come.
    pub(crate) fn wake_idle(&mut self, mut may_go_on: impl FnMut(ConsumerId) -> bool) {
        for at in 0..self.slots.len() {
            let Some(Some(slot)) = self.slots.get_mut(at) else {
                continue;
            };
            let (id, priority) = (slot.consumer.id, slot.consumer.priority);
            if slot.place == Place::Idle && may_go_on(id) {
                slot.place = Place::Ready;
                self.enter_round(id.slot, priority);
            }
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

    /// All of them with what they are now, in no order.
    pub(crate) fn states(&self) -> impl Iterator<Item = ConsumerState> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(at, slot)| {
            let slot = slot.as_ref()?;
            Some(ConsumerState {
                consumer: Arc::clone(&slot.consumer),
                activity: match self.service {
                    Service::All => Activity::Up,
                    Service::Single { active } if active == u32::try_from(at).ok() => {
                        Activity::SingleActive
                    }
                    Service::Single { .. } => Activity::Waiting,
                },
                unacked_count: slot.unacked_count,
            })
        })
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

    /// Takes the front one, which is in slot `index`, out of its round.
    fn drop_from_round(&mut self, index: u32) {
        match self.service {
            Service::All => {
                if let Some(round) = self.rounds.first_mut() {
                    round.turn.pop_front();
                }
                self.drop_empty_round(0);
            }
            Service::Single { .. } => {
                if let Some(priority) = self.slot(index).map(|slot| slot.consumer.priority) {
                    self.leave_round(index, priority);
                }
            }
        }
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

/// What was taken out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Removed {
    /// The single active consumer: the next one, if there is any, is served now.
    Active,
    /// A consumer that no other one waited for.
    Other,
    /// It was not there.
    Unknown,
}

/// Whether a delivery counts against the prefetch of who takes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Unsettled {
    /// It waits for an acknowledgement.
    Counts,
    /// It was settled by being handed over.
    Free,
}
