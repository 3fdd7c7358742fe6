//! Time in a queue: when its messages expire, and when an unused queue does.
//!
//! Owns: deadlines and the two timers of a queue. Only the front expires, so a message behind one that
//! lives longer waits for it, counted as waiting (RabbitMQ). What is out does not expire; if it comes back
//! it has the deadline that it had.
//! A timer is armed for the front's deadline and stays when that front goes: it comes up, finds a later
//! front and is armed again. So a queue pays for its timer seldom, and one without TTL never.
//! Bound: [`EXPIRED_AT_ONCE_MAX`] messages die in one call; the timer does the rest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::dead_letter::DeathReason;
use super::super::limits::EXPIRED_AT_ONCE_MAX;
use super::super::message::Message;
use super::super::outbox::Wakes;
use super::super::timers::{Earliest, TimerKey, TimerKind, Timers};
use super::super::vhost::WallClock;
use super::ready::Front;
use super::{After, Queue, State};

/// When a message expires, in milliseconds since the broker's start, rounded up; kept in six bytes since
/// there is one in every waiting message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Deadline([u8; 6]);

impl Deadline {
    /// It does not expire.
    pub(crate) const NEVER: Self = Self([0xFF; 6]);

    const NEVER_MS: u64 = (1 << 48) - 1;

    /// As six octets, for a place outside memory.
    pub(crate) fn to_bytes(self) -> [u8; 6] {
        self.0
    }

    /// What [`Self::to_bytes`] gave.
    pub(crate) fn from_bytes(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    fn from_ms(ms: u64) -> Self {
        let [bytes @ .., _, _] = ms.min(Self::NEVER_MS - 1).to_le_bytes();
        Self(bytes)
    }

    fn ms(self) -> u64 {
        let [a, b, c, d, e, f] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// The deadline of what comes at `now` and lives for `ttl`.
    pub(crate) fn after(ttl: Duration, now: Instant, timers: &Timers) -> Self {
        let passed = timers.since_start(now);
        let mut ms = millis(passed);
        // Never early; but what may not wait at all is due at once.
        // req: TTL-3
        if !ttl.is_zero() && !passed.subsec_nanos().is_multiple_of(1_000_000) {
            ms += 1;
        }
        Self::from_ms(ms.saturating_add(millis(ttl)))
    }

    /// Whether it has come at `now`.
    #[inline]
    pub(crate) fn has_come(self, now: Instant, timers: &Timers) -> bool {
        self != Self::NEVER && self.ms() <= millis(timers.since_start(now))
    }

    /// The deadline as a moment; none if it never comes.
    pub(crate) fn instant(self, timers: &Timers) -> Option<Instant> {
        (self != Self::NEVER).then(|| timers.started() + Duration::from_millis(self.ms()))
    }
}

fn millis(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1_000);
    whole.saturating_add(u64::from(duration.subsec_millis()))
}

/// What a queue keeps of time.
#[derive(Debug, Default)]
pub(super) struct Clockwork {
    /// For the front's deadline; may be earlier.
    message_timer: Option<TimerKey>,
    /// For the end of an unused queue; may be earlier.
    queue_timer: Option<TimerKey>,
    /// Last declared, fetched from, or left by a consumer.
    used_last: Option<Instant>,
}

/// What came of a look at a queue that may have been unused for long enough.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Lease {
    /// It has not, or does not expire.
    Holds,
    /// It is to be deleted.
    Over,
}

/// The deadlines of messages that the journal kept over a restart.
#[derive(Debug)]
pub(super) struct KeptDeadlines<'a> {
    ttl: Option<Duration>,
    /// None once the vhost is gone, and nothing needs to expire.
    clock: Option<WallClock>,
    timers: &'a Timers,
}

impl KeptDeadlines<'_> {
    /// That of a message that was published at `published_unix_ms`.
    ///
    /// It lives on by the calendar, but never longer than a message that comes now, nor shorter than
    /// nothing: a clock that was set back keeps no message for ever.
    // req: TTL-5
    pub(super) fn of(&self, message: &Message, published_unix_ms: u64) -> Deadline {
        let (Some(ttl), Some(clock)) = (lower(self.ttl, message.expiration()), &self.clock) else {
            return Deadline::NEVER;
        };
        let age = clock.started_unix_ms.saturating_sub(published_unix_ms);
        let left = ttl.saturating_sub(Duration::from_millis(age));
        Deadline::after(left, clock.started, self.timers)
    }
}

impl Queue {
    /// The deadline of a message that comes now: the lower of its own time and the queue's.
    // req: TTL-1
    pub(super) fn deadline(&self, state: &State, message: &Message, now: Instant) -> Deadline {
        match lower(state.settings.message_ttl, message.expiration()) {
            None => Deadline::NEVER,
            Some(ttl) => Deadline::after(ttl, now, &self.spec.timers),
        }
    }

    /// The deadlines of messages that the journal kept over a restart.
    pub(super) fn kept_deadlines(&self) -> KeptDeadlines<'_> {
        let home = self.spec.home.upgrade();
        KeptDeadlines {
            ttl: self.state.lock().settings.message_ttl,
            clock: home.map(|vhost| vhost.clock()),
            timers: &self.spec.timers,
        }
    }

    /// Lets die what stands first and has expired, and arms the timer for what stands first then.
    // req: TTL-2
    pub(super) fn expire(self: &Arc<Self>, state: &mut State, after: &mut After, now: Instant) {
        let timers = &self.spec.timers;
        while let Some((_, entry)) = state.ready.front()
            && entry.deadline.has_come(now, timers)
            && after.expired_count < EXPIRED_AT_ONCE_MAX
            && let Front::Message(_, entry) = state.ready.pop_front()
        {
            self.expired(state, entry, after);
        }
        self.watch_front(state, after);
    }

    /// One message died of age.
    pub(super) fn expired(
        self: &Arc<Self>,
        state: &mut State,
        entry: super::Entry,
        after: &mut After,
    ) {
        state.counts.expired += 1;
        after.expired_count += 1;
        after.bury(self, &state.settings, entry, DeathReason::Expired);
    }

    /// Whether what stands first has expired and was left, because a call does only so much.
    pub(super) fn front_is_due(&self, state: &State, now: Instant) -> bool {
        let front = state.ready.front();
        front.is_some_and(|(_, entry)| entry.deadline.has_come(now, &self.spec.timers))
    }

    /// Sees to it that a timer comes up when what stands first expires.
    pub(super) fn watch_front(self: &Arc<Self>, state: &mut State, after: &mut After) {
        let timers = &self.spec.timers;
        let Some((_, entry)) = state.ready.front() else {
            return;
        };
        let Some(at) = entry.deadline.instant(timers) else {
            return;
        };
        match state.clockwork.message_timer {
            Some(armed) if armed.at() <= at => return,
            Some(later) => timers.disarm(later),
            None => {}
        }
        let kind = TimerKind::MessageExpiry(Arc::downgrade(self));
        let (key, earliest) = timers.arm(at, kind);
        state.clockwork.message_timer = Some(key);
        after.wake_timers |= earliest == Earliest::Yes;
    }

    /// The timer of the front came up.
    pub(crate) fn handle_expiry(self: &Arc<Self>, key: TimerKey, now: Instant, wakes: &mut Wakes) {
        let mut after = After::default();
        {
            let mut state = self.lock();
            if state.clockwork.message_timer == Some(key) {
                state.clockwork.message_timer = None;
            }
            if state.deleted {
                return;
            }
            self.expire(&mut state, &mut after, now);
            self.dispatch(&mut state, &mut after, now, wakes);
        }
        self.finish(after, now, wakes);
    }

    /// The broker starts: what waits goes on expiring, a stream forgets what it must, and the time of an
    /// unused queue begins.
    pub(crate) fn begin_time(self: &Arc<Self>, now: Instant) {
        let mut after = After::default();
        let mut state = self.state.lock();
        let earliest = self.note_use(&mut state, now);
        self.watch_front(&mut state, &mut after);
        self.begin_retention(&mut state, now, &mut after);
        drop(state);
        after.wake_timers |= earliest == Earliest::Yes;
        let dead = self.finish_but_dead(after);
        debug_assert!(dead.is_empty(), "nothing expires but by the timer");
    }

    /// The queue was used without a consumer: declared again, or asked for a message.
    pub(crate) fn used(self: &Arc<Self>, now: Instant) {
        let mut state = self.state.lock();
        let earliest = self.note_use(&mut state, now);
        drop(state);
        self.wake_timers(earliest);
    }

    /// Lets the time of an unused queue begin again, if it has one.
    // req: TTL-6
    pub(super) fn note_use(self: &Arc<Self>, state: &mut State, now: Instant) -> Earliest {
        let Some(expires) = state.settings.expires else {
            return Earliest::No;
        };
        state.clockwork.used_last = state.clockwork.used_last.max(Some(now));
        self.arm_for_lease(state, now + expires)
    }

    fn arm_for_lease(self: &Arc<Self>, state: &mut State, at: Instant) -> Earliest {
        let timers = &self.spec.timers;
        match state.clockwork.queue_timer {
            Some(armed) if armed.at() <= at => return Earliest::No,
            Some(later) => timers.disarm(later),
            None => {}
        }
        let (key, earliest) = timers.arm(at, TimerKind::QueueExpiry(Arc::downgrade(self)));
        state.clockwork.queue_timer = Some(key);
        earliest
    }

    /// The timer of an unused queue came up, or the attempt to delete it failed.
    pub(crate) fn handle_lease(self: &Arc<Self>, key: Option<TimerKey>, now: Instant) -> Lease {
        let mut state = self.state.lock();
        if key.is_some() && state.clockwork.queue_timer == key {
            state.clockwork.queue_timer = None;
        }
        if state.deleted || !state.consumers.is_empty() {
            return Lease::Holds;
        }
        let Some(ends) = state.lease_ends() else {
            return Lease::Holds;
        };
        if ends <= now {
            return Lease::Over;
        }
        let earliest = self.arm_for_lease(&mut state, ends);
        drop(state);
        self.wake_timers(earliest);
        Lease::Holds
    }

    /// The timer of an unused queue came up.
    pub(crate) fn handle_lease_timer(
        self: &Arc<Self>,
        key: TimerKey,
        now: Instant,
        wakes: &mut Wakes,
    ) {
        if self.handle_lease(Some(key), now) == Lease::Over
            && let Some(vhost) = self.spec.home.upgrade()
        {
            vhost.expire_queue(self, now, wakes);
        }
    }

    /// Takes out the timers of a queue that is gone.
    pub(super) fn stop_timers(&self, state: &mut State) {
        let clockwork = &mut state.clockwork;
        for key in [
            &mut clockwork.message_timer,
            &mut clockwork.queue_timer,
            &mut state.stream_timer,
        ] {
            if let Some(key) = key.take() {
                self.spec.timers.disarm(key);
            }
        }
    }

    pub(super) fn wake_timers(&self, earliest: Earliest) {
        if earliest == Earliest::Yes {
            self.spec.timers.wake();
        }
    }
}

impl State {
    /// When the queue goes if nobody uses it until then; none if it does not.
    pub(super) fn lease_ends(&self) -> Option<Instant> {
        let expires = self.settings.expires?;
        Some(self.clockwork.used_last? + expires)
    }
}

fn lower(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, None) => one,
        (None, other) => other,
    }
}
