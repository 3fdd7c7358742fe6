//! Passwords that HTTP requests have checked at once.
//!
//! Owns: how many, so that whoever guesses over HTTP leaves room in the queue of slow checks for clients of AMQP, and
//! nobody's right password is refused because that queue is full.
//! Bounds: [`AT_ONCE_MAX`] checks, [`WAIT_MAX`] of waiting for one.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Checks at once: what a queue of 16 has room for beside AMQP's 8.
const AT_ONCE_MAX: usize = 8;
/// Longest wait for a place.
const WAIT_MAX: Duration = Duration::from_secs(5);

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// A place among the checks; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct LoginPlace(());

impl LoginPlace {
    /// A place, after some waiting if there is none; none if that took too long. Blocks.
    pub(super) fn take() -> Option<Self> {
        let deadline = Instant::now() + WAIT_MAX;
        let mut taken = TAKEN.lock();
        while *taken >= AT_ONCE_MAX {
            if FREED.wait_until(&mut taken, deadline).timed_out() {
                return None;
            }
        }
        *taken += 1;
        Some(Self(()))
    }
}

impl Drop for LoginPlace {
    fn drop(&mut self) {
        *TAKEN.lock() -= 1;
        FREED.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The only test that takes places, since they are the process's.
    #[test]
    fn a_place_that_is_freed_is_the_next_ones() {
        let places: Vec<_> = (0..AT_ONCE_MAX).map(|_| LoginPlace::take()).collect();
        assert!(places.iter().all(Option::is_some));
        let waiting = std::thread::spawn(|| LoginPlace::take().is_some());
        drop(places);
        assert!(waiting.join().expect("it ends"));
        assert_eq!(*TAKEN.lock(), 0);
    }
}
