//! Who lets himself in over HTTP: names and passwords, or tokens, with each request.
//!
//! Owns: how many passwords one broker's HTTP requests have checked at once, so that whoever guesses leaves room in the
//! queue of slow checks for clients of AMQP, and nobody's right password is refused because that queue is full; and that
//! whoever comes from where too many logins failed waits, as over AMQP. All doors of the HTTP interface ask here.
//! Bounds: [`AT_ONCE_MAX`] checks, [`WAIT_MAX`] of waiting for one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::broker::{AUDIT, Broker, LoginProtocol, Origin, User};
use crate::server::failed_logins::FailedLogins;
use crate::server::slowly;

/// Checks at once: what a queue of 16 has room for beside AMQP's 8.
const AT_ONCE_MAX: usize = 8;
/// Longest wait for a place.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The HTTP interface's doorkeeper.
#[derive(Debug)]
pub(super) struct Logins {
    broker: Arc<Broker>,
    failed: Arc<FailedLogins>,
    places: Places,
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Refused {
    /// Who asks again in a moment may be.
    Busy,
    /// Name and password are not right, or not from there.
    Wrong,
}

impl Logins {
    pub(super) fn new(broker: Arc<Broker>, failed: Arc<FailedLogins>) -> Self {
        Self {
            broker,
            failed,
            places: Places::default(),
        }
    }

    /// Checks a name with its password, after a wait if too many from there were wrong.
    // req: LIMIT-3
    pub(super) async fn check(
        &self,
        name: &[u8],
        password: &[u8],
        from: SocketAddr,
    ) -> Result<Arc<User>, Refused> {
        let address = from.ip();
        if let Some(delay) = self.failed.delay(address, Instant::now()) {
            tokio::time::sleep(delay).await;
        }
        let origin = match address.to_canonical().is_loopback() {
            true => Origin::Loopback,
            false => Origin::Remote,
        };
        let checked = slowly(|| {
            let _place = self.places.take()?;
            let users = self.broker.users();
            Some(users.authenticate(name, password, origin))
        });
        let result = checked.ok_or(Refused::Busy)?;
        let statistics = self.broker.statistics();
        statistics.login_attempted(LoginProtocol::Http, &result);
        result.map_err(|error| {
            self.failed.note(address, Instant::now());
            let user = String::from_utf8_lossy(name);
            tracing::warn!(target: AUDIT, %user, %from, %error, "HTTP login refused");
            Refused::Wrong
        })
    }
}

/// Places for checks.
#[derive(Debug, Default)]
struct Places {
    taken: Mutex<usize>,
    freed: Condvar,
}

/// One of them; it is free again when this is dropped.
#[derive(Debug)]
struct Place<'a>(&'a Places);

impl Places {
    /// A place, after some waiting if there is none; none if that took too long. Blocks.
    fn take(&self) -> Option<Place<'_>> {
        let deadline = Instant::now() + WAIT_MAX;
        let mut taken = self.taken.lock();
        while *taken >= AT_ONCE_MAX {
            if self.freed.wait_until(&mut taken, deadline).timed_out() {
                return None;
            }
        }
        *taken += 1;
        Some(Place(self))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.taken.lock() -= 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_is_freed_is_the_next_ones() {
        let all = Places::default();
        let places: Vec<_> = (0..AT_ONCE_MAX).map(|_| all.take()).collect();
        assert!(places.iter().all(Option::is_some));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| all.take().is_some());
            drop(places);
            assert!(waiting.join().expect("it ends"));
        });
        assert_eq!(*all.taken.lock(), 0);
    }

    /// Whoever guesses is answered later from some failure on, and nobody else is.
    // req: LIMIT-3
    #[tokio::test]
    async fn whoever_guesses_waits() {
        use crate::broker::BrokerSettings;
        use futures_util::FutureExt as _;
        let broker = Broker::open(BrokerSettings::new([5; 32], Instant::now(), 0), None, None);
        let failed = Arc::new(FailedLogins::new(3));
        let logins = Logins::new(broker.expect("nothing to recover"), failed);
        let (far, near) = ([203, 0, 113, 9], [127, 0, 0, 1]);
        let at_once = |from: [u8; 4], password: &'static [u8]| {
            let checked = logins.check(b"guest", password, SocketAddr::from((from, 1)));
            checked.now_or_never().map(|result| result.map(|_| ()))
        };
        for _ in 0..3 {
            assert_eq!(at_once(far, b"wrong"), Some(Err(Refused::Wrong)));
        }
        assert_eq!(at_once(far, b"wrong"), None, "it waits");
        assert_eq!(at_once(near, b"guest"), Some(Ok(())));
    }
}
