//! Logins that failed, by address: who guesses is answered later.
//!
//! Owns: the counts of one broker, over all its ways in: AMQP's listeners and HTTP's ask the same one.
//! Bounds: RELIABILITY section 6, "failed logins"; [`ADDRESSES_MAX`] addresses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Addresses whose failed logins are counted at once; beyond it those of others are not.
const ADDRESSES_MAX: usize = 10_000;
/// How long failed logins count together.
const WINDOW: Duration = Duration::from_secs(60);
/// How long whoever comes from where too many failed waits.
const DELAY: Duration = Duration::from_secs(1);

/// How many logins failed from where within a minute.
#[derive(Debug)]
pub(crate) struct FailedLogins {
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    per_minute_max: u32,
    by_address: HashMap<IpAddr, Failed>,
}

/// Of one address.
#[derive(Debug)]
struct Failed {
    count: u32,
    since: Instant,
}

impl FailedLogins {
    /// Nobody has failed yet; so many failures within a minute are let pass.
    pub(crate) fn new(per_minute_max: u32) -> Self {
        Self {
            counts: Mutex::new(Counts {
                per_minute_max,
                by_address: HashMap::new(),
            }),
        }
    }

    /// Takes another limit.
    pub(super) fn set_limit(&self, per_minute_max: u32) {
        self.counts.lock().per_minute_max = per_minute_max;
    }

    /// A login failed. Those of this machine's own addresses are not counted: whoever is here has
    /// other ways, and honest programs come from there too.
    // req: LIMIT-3
    pub(crate) fn note(&self, address: IpAddr, now: Instant) {
        if address.to_canonical().is_loopback() {
            return;
        }
        let failed = &mut self.counts.lock().by_address;
        if failed.len() >= ADDRESSES_MAX && !failed.contains_key(&address) {
            failed.retain(|_, failed| now.duration_since(failed.since) < WINDOW);
            if failed.len() >= ADDRESSES_MAX {
                return;
            }
        }
        let fresh = || Failed {
            count: 0,
            since: now,
        };
        let entry = failed.entry(address).or_insert_with(fresh);
        if now.duration_since(entry.since) >= WINDOW {
            *entry = fresh();
        }
        entry.count = entry.count.saturating_add(1);
    }

    /// How long whoever comes from `address` must wait before it is listened to.
    // req: LIMIT-3
    pub(crate) fn delay(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let counts = self.counts.lock();
        let failed = counts.by_address.get(&address)?;
        let is_over =
            failed.count >= counts.per_minute_max && now.duration_since(failed.since) < WINDOW;
        is_over.then_some(DELAY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who fails too often is kept waiting, for a minute, and nobody else is.
    // req: LIMIT-3
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn failed_logins_are_counted_by_address() {
        let failed = FailedLogins::new(2);
        let (guesser, other, own) = (
            IpAddr::from([203, 0, 113, 9]),
            IpAddr::from([203, 0, 113, 8]),
            IpAddr::from([127, 0, 0, 1]),
        );
        let begin = Instant::now();
        for delay in [None, None, Some(DELAY)] {
            assert_eq!(failed.delay(guesser, begin), delay);
            failed.note(guesser, begin);
            failed.note(own, begin);
        }
        assert_eq!(
            (failed.delay(other, begin), failed.delay(own, begin)),
            (None, None)
        );
        let later = begin + WINDOW;
        assert_eq!(failed.delay(guesser, later), None);
        failed.note(guesser, later);
        assert_eq!(failed.delay(guesser, later), None);
        failed.note(guesser, later);
        assert_eq!(failed.delay(guesser, later), Some(DELAY));
        failed.set_limit(3);
        assert_eq!(failed.delay(guesser, later), None);
    }

    /// Of a flood of addresses so many are counted, and they make room when their minute is over.
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn addresses_are_bounded() {
        let failed = FailedLogins::new(1);
        let begin = Instant::now();
        let address = |number: usize| {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            IpAddr::from((0xcb00_0000 + number).to_be_bytes())
        };
        for number in 0..=ADDRESSES_MAX {
            failed.note(address(number), begin);
        }
        assert_eq!(failed.delay(address(0), begin), Some(DELAY));
        assert_eq!(failed.delay(address(ADDRESSES_MAX), begin), None);
        let later = begin + WINDOW;
        failed.note(address(ADDRESSES_MAX), later);
        assert_eq!(failed.delay(address(ADDRESSES_MAX), later), Some(DELAY));
        assert_eq!(failed.counts.lock().by_address.len(), 1);
    }
}
