//! Gives memory back to the system that connections have had.
//!
//! Owns: when that is worth its while. The C library keeps what is freed in the middle of its arenas: two thousand
//! connections that came and went left most of what they had behind (`benches/hostile`), all of it free. To walk through
//! the arenas takes milliseconds, so that it is done only after many connections have ended, and when no more do. It is
//! the command's business, not the library's: a host has an allocator of its own.
//! Bound: one look a second, and one walk for [`GONE_COUNT`] connections that have ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::server::registry::Registry;

/// Time between two looks at how many connections there are.
const INTERVAL: Duration = Duration::from_secs(1);
/// So many connections fewer than there were are worth a walk: each leaves some 12 KiB.
const GONE_COUNT: usize = 500;

/// How many connections there were.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Tide {
    /// At most, since memory was given back.
    high: usize,
    /// At the last look.
    last: usize,
}

impl Tide {
    /// Takes a look's count; whether memory is to be given back.
    fn turns(&mut self, count: usize) -> bool {
        let is_falling = count < self.last;
        self.high = self.high.max(count);
        self.last = count;
        let turns = !is_falling && self.high - count >= GONE_COUNT;
        if turns {
            self.high = count;
        }
        turns
    }
}

/// Looks as long as it is polled.
pub(super) async fn give_back_after_crowds(registry: Arc<Registry>) {
    let mut tide = Tide::default();
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        if !tide.turns(registry.len()) {
            continue;
        }
        let began = Instant::now();
        match tokio::task::spawn_blocking(allocator::give_back).await {
            Ok(has_given) => {
                tracing::debug!(has_given, took = ?began.elapsed(), "free memory goes back to the system");
            }
            Err(error) => tracing::error!(%error, "free memory does not go back to the system"),
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(
    unsafe_code,
    reason = "only the C library has this function; what it brings is measured in benches/hostile"
)]
mod allocator {
    // SAFETY: the name and the types are those of malloc_trim(3), which takes the allocator's own locks and may be
    // called at any time from any thread.
    unsafe extern "C" {
        safe fn malloc_trim(pad_bytes: usize) -> std::ffi::c_int;
    }

    /// Has the allocator hand whole free pages to the system, and says whether it did; what is in use stays as it is.
    pub(super) fn give_back() -> bool {
        malloc_trim(0) != 0
    }
}

/// Other allocators give back by themselves, or cannot.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod allocator {
    pub(super) fn give_back() -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is done once for many that went, when no more go, and not for those that come and go.
    #[test]
    fn memory_is_given_back_when_many_have_gone() {
        let mut tide = Tide::default();
        let mut turned = |counts: &[usize]| -> Vec<bool> {
            counts.iter().map(|count| tide.turns(*count)).collect()
        };
        assert_eq!(
            turned(&[10, 2_000, 1_900, 40, 40]),
            [false, false, false, false, true]
        );
        assert_eq!(turned(&[40, 300, 0, 300, 0]), [false; 5], "too few");
        assert_eq!(turned(&[520, 10, 12]), [false, false, true]);
    }

    /// Pages in the middle of the heap that nobody uses are the system's again.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn free_pages_are_given_back() {
        let mut blocks: Vec<Box<[u8; 4_096]>> = (0..4_096).map(|_| Box::new([1; 4_096])).collect();
        // Every other one stays, and the last, so that nothing is given back by itself.
        let mut number = 0;
        blocks.retain(|_| {
            number += 1;
            number % 64 == 0
        });
        assert!(allocator::give_back(), "{} blocks are left", blocks.len());
    }
}
