//! Resource alarms: while one is on, nobody publishes, and everybody else goes on.
//!
//! Owns: what is short, the limits by which it counts as short, and who waits for it to be over.
//! Measuring is the server's: it reports what it saw, and this decides. An alarm that is on goes off only
//! behind a margin, so that it does not flutter.
//! Bounds: one waiting entry for each blocked connection; those of connections that are gone are
//! dropped whenever the list would grow.
//! Spec: RELIABILITY section 6, "memory" and "disk"; RabbitMQ's words in `connection.blocked`.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use crate::config::MemoryWatermark;

use super::events::Events;
use super::outbox::Waker;

/// The memory alarm goes off when use is below this share of the limit, in percent.
const MEMORY_RELEASE_PERCENT: u64 = 95;
/// The disk alarm goes off when at least this many times the limit is free.
const DISK_RELEASE_FACTOR: u64 = 2;

/// What can be short.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Alarm {
    /// Memory is above its high watermark.
    Memory = 0b001,
    /// Free space is below its limit where the data folder is.
    Disk = 0b010,
    /// The journal found no room; it tells of this itself.
    JournalSpace = 0b100,
}

const DISK_BITS: u8 = Alarm::Disk as u8 | Alarm::JournalSpace as u8;

/// What was measured, and the limit it is held against; in bytes, 0 while nothing was measured.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MemoryState {
    /// What the process uses.
    pub used_bytes: u64,
    /// What it could have: the machine's, or less where a container limits it.
    pub total_bytes: u64,
    /// Above this the alarm is on.
    pub limit_bytes: u64,
}

/// Free space where the data folder is, and the limit it is held against; in bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DiskState {
    /// What is free.
    pub free_bytes: u64,
    /// Below this the alarm is on; 0 while nothing was measured.
    pub limit_bytes: u64,
}

/// A place among those who wait for all alarms to be off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AlarmWait(u64);

/// The broker's alarms; made by the broker, asked by sessions, fed by the server.
#[derive(Default)]
pub struct Alarms {
    on: AtomicU8,
    state: Mutex<State>,
    /// Who hears of changes, and the name of this node.
    events: OnceLock<(Arc<Events>, String)>,
}

#[derive(Default)]
struct State {
    watermark: MemoryWatermark,
    memory: MemoryState,
    disk: DiskState,
    /// The least free space, if an operator has said it.
    disk_limit_bytes: Option<u64>,
    waiting: Vec<Weak<dyn Waker>>,
    /// How often all alarms went off.
    over_count: u64,
}

impl Alarms {
    /// Whether any alarm is on: publishers wait. Costs one load.
    #[inline]
    #[must_use]
    pub fn is_any_on(&self) -> bool {
        self.on.load(Ordering::Acquire) != 0
    }

    /// Whether this one is on.
    #[must_use]
    pub fn is_on(&self, alarm: Alarm) -> bool {
        self.on.load(Ordering::Acquire) & alarm as u8 != 0
    }

    /// RabbitMQ's words for what is short; none if nothing is.
    #[must_use]
    pub fn reason(&self) -> Option<&'static str> {
        let on = self.on.load(Ordering::Acquire);
        match (on & Alarm::Memory as u8 != 0, on & DISK_BITS != 0) {
            (true, true) => Some("low on memory & disk"),
            (true, false) => Some("low on memory"),
            (false, true) => Some("low on disk"),
            (false, false) => None,
        }
    }

    /// Turns one alarm on. False if it was.
    pub fn raise(&self, alarm: Alarm) -> bool {
        let is_new = self.on.fetch_or(alarm as u8, Ordering::AcqRel) & alarm as u8 == 0;
        if is_new {
            self.tell("alarm.set", alarm);
        }
        is_new
    }

    /// Who is to hear of alarms; set once.
    pub(crate) fn set_events(&self, events: Arc<Events>, node: String) {
        // A second one would change nothing.
        drop(self.events.set((events, node)));
    }

    fn tell(&self, event: &'static str, alarm: Alarm) {
        if let Some((events, node)) = self.events.get() {
            events.emit(event, |headers| {
                let source = match alarm {
                    Alarm::Memory => "memory",
                    Alarm::Disk | Alarm::JournalSpace => "disk",
                };
                headers.text("source", source).text("node", node);
            });
        }
    }

    /// Turns one alarm off; with the last, all that wait are woken. False if it was off.
    pub fn clear(&self, alarm: Alarm) -> bool {
        let before = self.on.fetch_and(!(alarm as u8), Ordering::AcqRel);
        if before == alarm as u8 {
            let waiting = {
                let mut state = self.state.lock();
                state.over_count += 1;
                std::mem::take(&mut state.waiting)
            };
            for waker in waiting.iter().filter_map(Weak::upgrade) {
                waker.wake();
            }
        }
        let was_on = before & alarm as u8 != 0;
        if was_on {
            self.tell("alarm.cleared", alarm);
        }
        was_on
    }

    /// Wakes `waker` when all alarms are off; none if they are, and then nothing is noted.
    ///
    /// They have been off since, if only for a moment, when [`Self::is_over`] says so.
    pub fn wake_when_over(&self, waker: &Arc<dyn Waker>) -> Option<AlarmWait> {
        let mut state = self.state.lock();
        // Under the lock: who turns the last one off takes the list after this.
        if !self.is_any_on() {
            return None;
        }
        if state.waiting.len() == state.waiting.capacity() {
            state.waiting.retain(|waker| waker.strong_count() > 0);
        }
        state.waiting.push(Arc::downgrade(waker));
        Some(AlarmWait(state.over_count))
    }

    /// Whether what was waited for has come.
    #[must_use]
    pub fn is_over(&self, wait: AlarmWait) -> bool {
        self.state.lock().over_count != wait.0
    }

    /// Sets how much memory the process may use, and decides at once by what was measured last.
    pub fn set_memory_watermark(&self, watermark: MemoryWatermark) {
        let memory = {
            let mut state = self.state.lock();
            state.watermark = watermark;
            state.memory
        };
        tracing::info!(?watermark, "the memory watermark is set");
        if memory.total_bytes > 0 {
            self.report_memory(memory.used_bytes, memory.total_bytes);
        }
    }

    /// Takes a measurement of memory, in bytes.
    // req: ALARM-4
    pub fn report_memory(&self, used_bytes: u64, total_bytes: u64) {
        let limit_bytes = {
            let mut state = self.state.lock();
            let limit_bytes = state.watermark.limit_bytes(total_bytes);
            state.memory = MemoryState {
                used_bytes,
                total_bytes,
                limit_bytes,
            };
            limit_bytes
        };
        let release_bytes = limit_bytes / 100 * MEMORY_RELEASE_PERCENT;
        if used_bytes > limit_bytes {
            if self.raise(Alarm::Memory) {
                tracing::warn!(
                    used_bytes,
                    limit_bytes,
                    "memory alarm: publishers wait until less is used"
                );
            }
        } else if used_bytes <= release_bytes && self.clear(Alarm::Memory) {
            tracing::warn!(used_bytes, limit_bytes, "memory alarm is over");
        }
    }

    /// Sets the least free space there should be, in bytes, whatever the measurements say of it; decides at once by what
    /// was measured last.
    pub fn set_disk_limit(&self, limit_bytes: u64) {
        let disk = {
            let mut state = self.state.lock();
            state.disk_limit_bytes = Some(limit_bytes);
            state.disk
        };
        tracing::info!(limit_bytes, "the least free space is set");
        self.report_disk(disk.free_bytes, limit_bytes);
    }

    /// Takes a measurement of free space and the least there should be, in bytes.
    pub fn report_disk(&self, free_bytes: u64, limit_bytes: u64) {
        let limit_bytes = {
            let mut state = self.state.lock();
            let limit_bytes = state.disk_limit_bytes.unwrap_or(limit_bytes);
            state.disk = DiskState {
                free_bytes,
                limit_bytes,
            };
            limit_bytes
        };
        if free_bytes < limit_bytes {
            if self.raise(Alarm::Disk) {
                tracing::warn!(
                    free_bytes,
                    limit_bytes,
                    "disk alarm: publishers wait until more is free"
                );
            }
        } else if free_bytes >= limit_bytes.saturating_mul(DISK_RELEASE_FACTOR)
            && self.clear(Alarm::Disk)
        {
            tracing::warn!(free_bytes, limit_bytes, "disk alarm is over");
        }
    }

    /// The journal says whether it has room.
    pub fn report_journal_space(&self, is_short: bool) {
        match is_short {
            true if self.raise(Alarm::JournalSpace) => {
                tracing::warn!("the journal has no room: publishers wait until more is free");
            }
            false if self.clear(Alarm::JournalSpace) => {
                tracing::warn!("the journal has room again");
            }
            true | false => {}
        }
    }

    /// How much memory the process may use.
    #[must_use]
    pub fn memory_watermark(&self) -> MemoryWatermark {
        self.state.lock().watermark
    }

    /// The last measurement of memory.
    #[must_use]
    pub fn memory(&self) -> MemoryState {
        self.state.lock().memory
    }

    /// The last measurement of free space.
    #[must_use]
    pub fn disk(&self) -> DiskState {
        self.state.lock().disk
    }
}

impl fmt::Debug for Alarms {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Alarms")
            .field("reason", &self.reason())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicU32);

    impl Waker for Counting {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Memory goes on above the limit and off below its margin only.
    // req: ALARM-4
    #[test]
    fn memory_alarm_has_a_margin() {
        let alarms = Alarms::default();
        alarms.set_memory_watermark(MemoryWatermark::Absolute(1_000));
        for (used_bytes, on) in [
            (1_000, false),
            (1_001, true),
            (1_000, true),
            (951, true),
            (950, false),
            (1_000, false),
        ] {
            alarms.report_memory(used_bytes, 10_000);
            assert_eq!(alarms.is_on(Alarm::Memory), on, "{used_bytes}");
        }
    }

    /// A new watermark acts at once on what was measured before.
    #[test]
    fn watermark_acts_at_once() {
        let alarms = Alarms::default();
        alarms.report_memory(5_000, 10_000);
        assert!(!alarms.is_any_on());
        alarms.set_memory_watermark(MemoryWatermark::Absolute(1_000));
        assert_eq!(alarms.reason(), Some("low on memory"));
        alarms.set_memory_watermark(MemoryWatermark::Relative(0.9));
        assert_eq!(alarms.reason(), None);
        assert_eq!(alarms.memory().limit_bytes, 9_000);
    }

    /// Disk goes on below the limit and off at twice of it; the journal's own word counts beside it.
    #[test]
    fn disk_alarm_is_over_at_twice_the_limit() {
        let alarms = Alarms::default();
        for (free_bytes, on) in [(100, false), (99, true), (199, true), (200, false)] {
            alarms.report_disk(free_bytes, 100);
            assert_eq!(alarms.is_on(Alarm::Disk), on, "{free_bytes}");
        }
        alarms.report_journal_space(true);
        alarms.report_disk(1_000, 100);
        assert_eq!(alarms.reason(), Some("low on disk"));
        alarms.report_journal_space(false);
        assert_eq!(alarms.reason(), None);
    }

    /// Who waits is woken by the end of the last alarm, once, and not kept when it is gone.
    #[test]
    fn the_last_alarm_wakes_all() {
        let alarms = Alarms::default();
        let counting = Arc::new(Counting::default());
        let waker: Arc<dyn Waker> = Arc::clone(&counting) as Arc<dyn Waker>;
        assert_eq!(alarms.wake_when_over(&waker), None);
        alarms.raise(Alarm::Memory);
        alarms.raise(Alarm::Disk);
        let wait = alarms.wake_when_over(&waker).expect("alarms are on");
        for _ in 0..1_000 {
            let gone: Arc<dyn Waker> = Arc::new(Counting::default());
            assert!(alarms.wake_when_over(&gone).is_some());
        }
        assert!(alarms.state.lock().waiting.len() < 10, "the gone are kept");
        alarms.clear(Alarm::Memory);
        assert_eq!(counting.0.load(Ordering::Relaxed), 0);
        assert!(!alarms.is_over(wait));
        alarms.clear(Alarm::Disk);
        assert!(alarms.is_over(wait));
        alarms.clear(Alarm::Disk);
        assert_eq!(counting.0.load(Ordering::Relaxed), 1);
    }
}
