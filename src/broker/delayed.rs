//! Messages that wait in a delayed exchange until their time.
//!
//! Owns: for each such exchange the order in which its messages become due. The messages themselves are
//! in the journal, under a queue id of the exchange's own, the transient ones too, so that memory does
//! not grow with them. Of those that are due before the *horizon*, 24 bytes each are in memory, and
//! some whole; what is due later lies on disk (`delayed/far.rs`) and is read when the horizon moves.
//! ```text
//!                horizon
//!   near (memory)   │   buffer (memory) ── full ──> runs (disk)
//!   <── due ────────│<── near is short: the earliest of both ──┘
//! ```
//! A due time is the publish's time by the calendar and the message's `x-delay`; both are in the
//! journal's record, so a restart finds them again, and what became due meanwhile goes out at once.
//! A message that is due enters its queues and leaves the exchange in one batch of the journal: a crash
//! neither loses nor doubles it.
//! Locks: the one of what is far is held while its files are read and written, and taken before the state's;
//! no file is touched under the state's.
//! Bounds: [`DELAYED_HELD_BYTES_MAX`] and [`DELAYED_NEAR_COUNT_MAX`] for each exchange, and a reference for
//! each message whose body is a payload. Without a journal and a spill directory all is in memory.
//! Spec: the `rabbitmq_delayed_message_exchange` plugin; `spec/amqp.md`, "Delayed messages";
//! `spec/spill.md`, SPILL-10.

mod far;
mod header;

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::journal::{Appended, Journal, Location, Lsn, QueueId};

use super::limits::{
    DELAYED_HELD_BYTES_MAX, DELAYED_NEAR_COUNT_MAX, DELAYED_NEAR_COUNT_MIN, DELAYED_PAGE_COUNT,
};
use super::message::{BodyRef, Message};
use super::payloads::PayloadBody;
use super::spill::Spill;
use super::timers::{Earliest, TimerKey};

use far::Far;
pub(crate) use header::{delay_ms, due_header};

/// After so many milliseconds what could not be read is tried again.
const READ_AGAIN_MS: u64 = 1_000;

/// What waits in one exchange.
#[derive(Debug)]
pub(crate) struct Delays {
    queue: QueueId,
    journal: Option<Journal>,
    bounds: Bounds,
    far: Option<Mutex<Far>>,
    state: Mutex<State>,
}

/// How much is in memory, in messages.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Due before the horizon; twice as many wait behind it for a full batch to be written, at most.
    near_count_max: usize,
    /// Messages of a page.
    page_count: usize,
}

impl Bounds {
    /// Of no meaning, where all is in memory.
    const NONE: Self = Self {
        near_count_max: usize::MAX,
        page_count: DELAYED_PAGE_COUNT,
    };

    /// What an exchange may hold in memory is what a queue may: a quarter of its bytes for what is near, as
    /// much for what will be written, and the rest for pages that are read.
    fn of(spill: &Spill) -> Self {
        let near_count_max = spill.queue_bytes_max() / 64;
        Self {
            near_count_max: near_count_max.clamp(DELAYED_NEAR_COUNT_MIN, DELAYED_NEAR_COUNT_MAX),
            page_count: DELAYED_PAGE_COUNT,
        }
    }

    /// Messages that are written in one go.
    fn batch_count(self) -> usize {
        (self.near_count_max / 2).max(1)
    }
}

#[derive(Debug, Default)]
struct State {
    near: BinaryHeap<Reverse<Waiting>>,
    /// From this one on nothing is in `near`; none if nothing is far.
    horizon: Option<(u64, Lsn)>,
    /// Far, and not on disk yet.
    buffer: Vec<Waiting>,
    /// Far, and on disk or on the way there.
    far_count: usize,
    /// What is far cannot be read before this moment.
    retry_unix_ms: Option<u64>,
    /// Messages kept whole: those that no journal has, and of the near ones as many as there is room for.
    held: HashMap<Lsn, Message>,
    held_bytes: usize,
    /// What keeps the bodies of the others in the payload store.
    payloads: HashMap<Lsn, PayloadBody>,
    /// Numbers where there is no journal: then none has a number there.
    number_last: u64,
    timer: Option<TimerKey>,
    is_deleted: bool,
}

/// One message that waits; ordered by due time, then by publish.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Waiting {
    due_unix_ms: u64,
    lsn: Lsn,
    location: Location,
}

const _: () = assert!(size_of::<Waiting>() == 24, "many of them are kept");

impl Waiting {
    fn key(&self) -> (u64, Lsn) {
        (self.due_unix_ms, self.lsn)
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A message whose time has come.
#[derive(Debug)]
pub(crate) struct Due {
    /// Its number in the journal, [`Lsn::ZERO`] if it is not there.
    pub(crate) lsn: Lsn,
    pub(crate) location: Location,
    /// The message, if it need not be read.
    pub(crate) message: Option<Message>,
    /// Keeps its body in the payload store until it is.
    #[allow(dead_code)] // dropped with the rest
    payload: Option<PayloadBody>,
}

/// What is kept of a message in memory, if there is room.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hold {
    Whole,
    Reference,
}

impl Delays {
    /// Nothing waits yet. `spill` is where what is far lies on disk.
    pub(crate) fn new(
        queue: QueueId,
        journal: Option<Journal>,
        spill: Option<&Arc<Spill>>,
    ) -> Self {
        let spill = spill.filter(|_| journal.is_some());
        let bounds = spill.map_or(Bounds::NONE, |spill| Bounds::of(spill));
        Self::with_bounds(queue, journal, spill, bounds)
    }

    fn with_bounds(
        queue: QueueId,
        journal: Option<Journal>,
        spill: Option<&Arc<Spill>>,
        bounds: Bounds,
    ) -> Self {
        let far = |spill: &Arc<Spill>| Far::new(spill, spill.area(queue), bounds.page_count);
        Self {
            queue,
            journal,
            bounds,
            far: spill.map(far).map(Mutex::new),
            state: Mutex::default(),
        }
    }

    /// The id under which its messages are in the journal, if there is one.
    pub(crate) fn journal_queue(&self) -> Option<QueueId> {
        self.journal.as_ref().map(|_| self.queue)
    }

    /// How many messages wait.
    pub(crate) fn len(&self) -> usize {
        let state = self.state.lock();
        state.near.len() + state.buffer.len() + state.far_count
    }

    /// Lets a message wait. `record` is where the journal has it, [`Appended::NONE`] if nowhere.
    /// False if the exchange was deleted meanwhile. Now and then it blocks on the disk.
    pub(crate) fn add(&self, due_unix_ms: u64, record: Appended, message: &Message) -> bool {
        self.place(due_unix_ms, record, message, Hold::Whole)
    }

    /// Puts back a message that recovery found.
    pub(crate) fn restore(&self, due_unix_ms: u64, record: Appended, message: &Message) {
        self.place(due_unix_ms, record, message, Hold::Reference);
    }

    fn place(&self, due_unix_ms: u64, record: Appended, message: &Message, hold: Hold) -> bool {
        let is_too_much = {
            let mut state = self.state.lock();
            if state.is_deleted {
                return false;
            }
            let is_journalled = record.lsn != Lsn::ZERO;
            let lsn = match is_journalled {
                true => record.lsn,
                false => {
                    state.number_last += 1;
                    Lsn(state.number_last)
                }
            };
            let waiting = Waiting {
                due_unix_ms,
                lsn,
                location: record.location,
            };
            let is_far = is_journalled
                && state
                    .horizon
                    .is_some_and(|horizon| waiting.key() >= horizon);
            let bytes = message.memory_bytes();
            let has_room = state.held_bytes + bytes <= DELAYED_HELD_BYTES_MAX;
            if !is_journalled || (hold == Hold::Whole && has_room && !is_far) {
                let mut message = message.clone();
                message.detach();
                state.held_bytes += bytes;
                state.held.insert(lsn, message);
            } else if let BodyRef::Payload(payload) = message.body() {
                state.payloads.insert(lsn, payload.clone());
            }
            match is_far {
                true => state.buffer.push(waiting),
                false => state.near.push(Reverse(waiting)),
            }
            if self.far.is_some() && state.near.len() > self.bounds.near_count_max {
                state.pull_horizon_in();
            }
            self.far.is_some() && state.buffer.len() >= self.bounds.batch_count()
        };
        if is_too_much {
            self.write_far();
        }
        true
    }

    /// Writes what is far and in memory, a batch at a time. Whoever fills a batch writes it; others wait
    /// for that only if they are far ahead of it.
    // req: SPILL-10
    fn write_far(&self) {
        let Some(far) = &self.far else { return };
        let batch_count = self.bounds.batch_count();
        let mut far = match far.try_lock() {
            Some(far) => far,
            None if self.state.lock().buffer.len() < 2 * batch_count => return,
            None => far.lock(),
        };
        loop {
            let batch = {
                let mut state = self.state.lock();
                if state.is_deleted || state.buffer.len() < batch_count {
                    return;
                }
                let batch = std::mem::take(&mut state.buffer);
                state.far_count += batch.len();
                batch
            };
            far.add(batch);
        }
    }

    /// Moves the horizon on, if little is left before it. Blocks on the disk. Says whether it moved.
    fn read_far(&self, unix_ms: u64) -> bool {
        let Some(far) = &self.far else { return false };
        let near_count_max = self.bounds.near_count_max;
        {
            let state = self.state.lock();
            let is_retry_late = state.retry_unix_ms.is_some_and(|retry| retry > unix_ms);
            if state.horizon.is_none() || state.near.len() > near_count_max / 4 || is_retry_late {
                return false;
            }
        }
        let mut far = far.lock();
        let taken = far.take((near_count_max / 2).max(1));
        let far_count = far.len();
        let mut state = self.state.lock();
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) => {
                tracing::error!(%error, "delayed messages on disk cannot be read; they are tried again");
                state.retry_unix_ms = Some(unix_ms.saturating_add(READ_AGAIN_MS));
                return false;
            }
        };
        state.retry_unix_ms = None;
        state.far_count = far_count;
        state.horizon = match (far_count, taken.last()) {
            (1.., Some(last)) => Some((last.due_unix_ms, last.lsn.next())),
            (1.., None) => state.horizon,
            (0, _) => None,
        };
        state.near.extend(taken.into_iter().map(Reverse));
        // What came behind the old horizon may be before the new one.
        let horizon = state.horizon;
        let is_far = |waiting: &Waiting| horizon.is_some_and(|horizon| waiting.key() >= horizon);
        let (behind, before) = std::mem::take(&mut state.buffer)
            .into_iter()
            .partition(is_far);
        state.buffer = behind;
        let before: Vec<Waiting> = before;
        state.near.extend(before.into_iter().map(Reverse));
        true
    }

    /// Takes out the messages that are due at `unix_ms`, at most `count_max`, the earliest first. Blocks on
    /// the disk where they lie there.
    pub(crate) fn take_due(&self, unix_ms: u64, count_max: usize) -> Vec<Due> {
        let mut due = Vec::new();
        loop {
            let is_near_empty = {
                let mut state = self.state.lock();
                state.take_due(unix_ms, count_max, &mut due);
                state.near.is_empty()
            };
            // Also what will be needed soon is read now, so that nobody waits for it then.
            if !self.read_far(unix_ms) || !is_near_empty || due.len() >= count_max {
                return due;
            }
        }
    }

    /// When to look next: see `State::first_due`.
    #[cfg(test)]
    pub(crate) fn first_due(&self) -> Option<u64> {
        self.state.lock().first_due()
    }

    /// Lets the caller arm a timer for the moment of `State::first_due`, in the place of the one that is
    /// armed, or keep that. Nobody else decides meanwhile: two that did could leave the later one.
    pub(crate) fn arm(
        &self,
        decide: impl FnOnce(u64, Option<TimerKey>) -> Option<(TimerKey, Earliest)>,
    ) -> Option<Earliest> {
        let mut state = self.state.lock();
        let first = state.first_due()?;
        let (timer, earliest) = decide(first, state.timer)?;
        state.timer = Some(timer);
        Some(earliest)
    }

    /// Takes the armed timer out, since it came up, or another will be armed.
    pub(crate) fn take_timer(&self) -> Option<TimerKey> {
        self.state.lock().timer.take()
    }

    /// Forgets everything, since the exchange is being deleted; its files go with it. Gives the timer to
    /// take out.
    pub(crate) fn clear(&self) -> Option<TimerKey> {
        let mut state = self.state.lock();
        let timer = state.timer.take();
        *state = State {
            is_deleted: true,
            ..State::default()
        };
        timer
    }
}

impl State {
    /// When to look next, in milliseconds since 1970: when the first message is due, or when what could
    /// not be read is tried again.
    fn first_due(&self) -> Option<u64> {
        let first = self.near.peek().map(|Reverse(first)| first.due_unix_ms);
        first.or(self.retry_unix_ms)
    }

    /// Half of what is near becomes far, the later one.
    fn pull_horizon_in(&mut self) {
        let mut all: Vec<Waiting> = std::mem::take(&mut self.near)
            .into_iter()
            .map(|Reverse(waiting)| waiting)
            .collect();
        let middle = all.len() / 2;
        let (_, first_far, _) = all.select_nth_unstable(middle);
        self.horizon = Some(first_far.key());
        let far = all.split_off(middle);
        for waiting in &far {
            if let Some(message) = self.held.remove(&waiting.lsn) {
                self.held_bytes -= message.memory_bytes();
                if let BodyRef::Payload(payload) = message.body() {
                    self.payloads.insert(waiting.lsn, payload.clone());
                }
            }
        }
        self.buffer.extend(far);
        self.near = all.into_iter().map(Reverse).collect();
    }

    fn take_due(&mut self, unix_ms: u64, count_max: usize, due: &mut Vec<Due>) {
        while due.len() < count_max {
            match self.near.peek() {
                Some(Reverse(first)) if first.due_unix_ms <= unix_ms => {}
                Some(_) | None => break,
            }
            let Some(Reverse(first)) = self.near.pop() else {
                break;
            };
            let message = self.held.remove(&first.lsn);
            self.held_bytes -= message.as_ref().map_or(0, Message::memory_bytes);
            due.push(Due {
                lsn: match self.number_last {
                    0 => first.lsn,
                    _ => Lsn::ZERO,
                },
                location: first.location,
                message,
                payload: self.payloads.remove(&first.lsn),
            });
        }
        if self.near.is_empty() && self.held.capacity() > 1_024 {
            self.held.shrink_to_fit();
            self.near.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests;
