//! What the broker must do at some time: one ordered list of deadlines for everything in it.
//!
//! Owns: the deadlines, and who hears that an earlier one came. Reads no clock: the server waits for
//! [`Broker::poll_timeout`](super::Broker::poll_timeout) and calls
//! [`Broker::handle_timeout`](super::Broker::handle_timeout).
//! A timer holds what it is for weakly and is taken out when that ends, so deadlines far ahead keep
//! nothing. Whoever arms one keeps to one timer for each of its purposes and moves it seldom: a queue's
//! stays where it is when its front goes, and is set again when it comes up too early.
//! Bound: a few timers for each queue, exchange and connection.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::exchange::Exchange;
use super::outbox::Waker;
use super::queue::Queue;
use super::vhost::Vhost;

/// What a deadline is for.
#[derive(Clone, Debug)]
pub(crate) enum TimerKind {
    /// The first waiting message of a queue expires.
    MessageExpiry(Weak<Queue>),
    /// A queue may have been unused for as long as it lives so.
    QueueExpiry(Weak<Queue>),
    /// Events wait to be published.
    Events,
    /// The first message of a delayed exchange is due.
    Delayed {
        /// The exchange's vhost.
        vhost: Weak<Vhost>,
        /// The exchange.
        exchange: Weak<Exchange>,
    },
    /// A stream's oldest messages are too old, or its consumers go on reading.
    Stream(Weak<Queue>),
}

/// A timer that was armed; by it, it is taken out.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct TimerKey {
    at: Instant,
    serial: u64,
}

impl TimerKey {
    /// When it comes up.
    pub(crate) fn at(self) -> Instant {
        self.at
    }
}

/// The deadlines of a broker.
pub(crate) struct Timers {
    /// What deadlines in messages count from.
    started: Instant,
    armed: Mutex<BTreeMap<TimerKey, TimerKind>>,
    serial_next: AtomicU64,
    waker: RwLock<Option<Arc<dyn Waker>>>,
}

/// Whether an armed timer is the first of all, so that who waits must wait shorter.
#[must_use = "who waits for the next deadline must hear of an earlier one"]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Earliest {
    /// [`Timers::wake`] is to be called, with no lock held.
    Yes,
    /// Another comes first.
    No,
}

impl Timers {
    /// No timer yet; nothing happens before `started`.
    pub(crate) fn new(started: Instant) -> Self {
        Self {
            started,
            armed: Mutex::default(),
            serial_next: AtomicU64::new(0),
            waker: RwLock::default(),
        }
    }

    /// The start of the broker.
    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// What has passed since the start of the broker.
    pub(crate) fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Sets a timer. A queue's lock may be held.
    pub(crate) fn arm(&self, at: Instant, kind: TimerKind) -> (TimerKey, Earliest) {
        let serial = self.serial_next.fetch_add(1, Ordering::Relaxed);
        let key = TimerKey { at, serial };
        let mut armed = self.armed.lock();
        let is_earliest = armed.keys().next().is_none_or(|first| at < first.at);
        armed.insert(key, kind);
        let earliest = match is_earliest {
            true => Earliest::Yes,
            false => Earliest::No,
        };
        (key, earliest)
    }

    /// Takes a timer out; one that came up is out already.
    pub(crate) fn disarm(&self, key: TimerKey) {
        self.armed.lock().remove(&key);
    }

    /// The first deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.armed.lock().keys().next().map(|key| key.at)
    }

    /// Takes the first timer out, if its time has come.
    pub(crate) fn pop_due(&self, now: Instant) -> Option<(TimerKey, TimerKind)> {
        let mut armed = self.armed.lock();
        let first = armed.first_entry()?;
        (first.key().at <= now).then(|| first.remove_entry())
    }

    /// Sets who is told of an earlier deadline.
    pub(crate) fn set_waker(&self, waker: Arc<dyn Waker>) {
        *self.waker.write() = Some(waker);
    }

    /// Tells whoever waits that an earlier deadline came. No lock may be held.
    pub(crate) fn wake(&self) {
        let waker = self.waker.read().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Timers({})", self.armed.lock().len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use std::collections::VecDeque;

    use super::*;

    fn kind() -> TimerKind {
        TimerKind::MessageExpiry(Weak::new())
    }

    /// Timers come up in the order of their deadlines, and only when these have come.
    #[test]
    fn timers_come_up_in_order() {
        let start = Instant::now();
        let timers = Timers::new(start);
        let second = |count| start + Duration::from_secs(count);
        let (late, _) = timers.arm(second(9), kind());
        let (early, earliest) = timers.arm(second(3), kind());
        assert_eq!(earliest, Earliest::Yes);
        let (same, earliest) = timers.arm(second(3), kind());
        assert_eq!(earliest, Earliest::No);
        assert_eq!(timers.next(), Some(second(3)));
        let due = |now| timers.pop_due(now).map(|(key, _)| key);
        assert_eq!(due(second(2)), None);
        assert_eq!(due(second(3)), Some(early));
        timers.disarm(same);
        assert_eq!(due(second(8)), None);
        assert_eq!(due(second(9)), Some(late));
        assert_eq!(timers.next(), None);
    }

    /// What the model of the one that waits does next: see below.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    enum Waiter {
        Looks,
        /// It has seen this deadline, and does not wait yet.
        Saw(Option<u64>),
        Waits(Option<u64>),
    }

    /// What somebody else does next.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    enum Other {
        /// Arms at this second, in the place of the timer that it armed before.
        Arms(u64),
        Wakes,
    }

    /// One order of steps, until nobody has a step left; `choices` says whose turn it is, and grows where a
    /// new choice must be made.
    fn run(plans: &[&[u64]], choices: &mut Vec<(usize, usize)>) {
        let start = Instant::now();
        let timers = Timers::new(start);
        let second = |count| start + Duration::from_secs(count);
        let seconds = |at: Instant| at.duration_since(start).as_secs();
        let mut others: Vec<VecDeque<Other>> = plans
            .iter()
            .map(|plan| plan.iter().map(|at| Other::Arms(*at)).collect())
            .collect();
        let mut armed: Vec<Option<TimerKey>> = vec![None; others.len()];
        let mut waiter = Waiter::Looks;
        // As tokio's `Notify`: one wake-up is remembered.
        let mut is_notified = false;
        let mut depth = 0;
        loop {
            let has_step = |actor: usize| match actor.checked_sub(1) {
                Some(other) => !others[other].is_empty(),
                None => is_notified || !matches!(waiter, Waiter::Waits(_)),
            };
            let ready: Vec<usize> = (0..=others.len())
                .filter(|actor| has_step(*actor))
                .collect();
            if ready.is_empty() {
                break;
            }
            if depth == choices.len() {
                choices.push((0, ready.len()));
            }
            let actor = ready[choices[depth].0];
            depth += 1;
            match (actor.checked_sub(1), waiter) {
                (None, Waiter::Looks) => waiter = Waiter::Saw(timers.next().map(seconds)),
                (None, Waiter::Saw(at)) => waiter = Waiter::Waits(at),
                (None, Waiter::Waits(_)) => (waiter, is_notified) = (Waiter::Looks, false),
                (Some(other), _) => match others[other].pop_front() {
                    Some(Other::Arms(at)) => {
                        if let Some(before) = armed[other].take() {
                            timers.disarm(before);
                        }
                        let (key, earliest) = timers.arm(second(at), kind());
                        armed[other] = Some(key);
                        if earliest == Earliest::Yes {
                            others[other].push_front(Other::Wakes);
                        }
                    }
                    Some(Other::Wakes) => is_notified = true,
                    None => {}
                },
            }
        }
        let Waiter::Waits(until) = waiter else {
            panic!("it waits when nothing is left to do");
        };
        let next = timers.next().map(seconds);
        assert!(
            until.is_some_and(|until| next.is_some_and(|next| until <= next)),
            "it waits until {until:?}, and {next:?} is due: {choices:?}"
        );
    }

    /// Whoever waits for the next deadline never waits beyond it, however looking, waiting, arming, moving
    /// and waking come in between each other: every order of the steps is tried.
    #[test]
    fn no_order_of_steps_loses_a_wake_up() {
        for plans in [
            &[&[5, 3][..], &[4]][..],
            &[&[3, 5], &[4, 2]],
            &[&[2], &[2, 1]],
            &[&[3], &[2], &[1]],
        ] {
            let mut choices: Vec<(usize, usize)> = Vec::new();
            loop {
                run(plans, &mut choices);
                // The next order: the last choice that has another way takes it.
                while choices.last().is_some_and(|(at, count)| at + 1 == *count) {
                    choices.pop();
                }
                match choices.last_mut() {
                    Some((at, _)) => *at += 1,
                    None => break,
                }
            }
        }
    }
}
