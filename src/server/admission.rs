//! Who may connect: counts of connections, and of those that have not logged in yet.
//!
//! Owns: the counts of a server's listeners. A place is given back when its guard is dropped. When too many have not
//! logged in, the one that came first loses its place to the one that comes: whoever is honest is done long before.
//! Logins that failed are counted in `failed_logins.rs`.
//! Bounds: RELIABILITY section 6, "unauthenticated connections" and "connections".

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::descriptors;
use super::failed_logins::FailedLogins;
use crate::config::AdmissionSettings;

/// The door of one listener.
#[derive(Debug)]
pub(super) struct Admission {
    counts: Mutex<Counts>,
    failed: Arc<FailedLogins>,
}

#[derive(Debug)]
struct Counts {
    settings: AdmissionSettings,
    /// Connections for which the process has file descriptors.
    descriptor_share: usize,
    connections: usize,
    /// By number: the oldest first.
    unauthenticated: BTreeMap<u64, Waiting>,
    next_number: u64,
    unauthenticated_by_address: HashMap<IpAddr, usize>,
}

/// A connection that has not logged in.
#[derive(Debug)]
struct Waiting {
    address: Option<IpAddr>,
    /// Cancelled when it must go.
    eviction: CancellationToken,
}

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the limit of {0} connections is reached")]
    Connections(usize),
    #[error(
        "{0} connections have all file descriptors that files do not need; raise the process's limit (ulimit -n, LimitNOFILE)"
    )]
    Descriptors(usize),
    #[error("{0} connections from this address have not logged in yet")]
    UnauthenticatedFromAddress(usize),
}

/// A place for one connection.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    /// Where the client is; not known yet behind a proxy.
    address: Option<IpAddr>,
    number: u64,
    eviction: CancellationToken,
    authenticated: bool,
}

impl Admission {
    pub(super) fn new(settings: &AdmissionSettings) -> Arc<Self> {
        Arc::new(Self {
            counts: Mutex::new(Counts {
                settings: settings.clone(),
                descriptor_share: descriptors::amqp_share(),
                connections: 0,
                unauthenticated: BTreeMap::new(),
                next_number: 0,
                unauthenticated_by_address: HashMap::new(),
            }),
            failed: Arc::new(FailedLogins::new(settings.failed_logins_per_minute_max)),
        })
    }

    /// Takes other limits; who is in stays in.
    pub(super) fn set(&self, settings: &AdmissionSettings) {
        self.counts.lock().settings = settings.clone();
        self.failed.set_limit(settings.failed_logins_per_minute_max);
    }

    /// Logins that failed, for whoever else lets users in.
    pub(super) fn failed_logins(&self) -> &Arc<FailedLogins> {
        &self.failed
    }

    /// Gives a place to a connection from `address`, or says why not.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, Refused> {
        // Dropped, it gives its place back.
        let mut place = self.admit_unknown()?;
        place.settle(address)?;
        Ok(place)
    }

    /// Gives a place to a connection of which a proxy will say where it comes from.
    pub(super) fn admit_unknown(self: &Arc<Self>) -> Result<Place, Refused> {
        let counts = &mut *self.counts.lock();
        if counts.connections >= counts.settings.connection_count_max {
            return Err(Refused::Connections(counts.connections));
        }
        if counts.connections >= counts.descriptor_share {
            return Err(Refused::Descriptors(counts.connections));
        }
        // req: LIMIT-1
        while counts.unauthenticated.len() >= counts.settings.unauthenticated_max.max(1)
            && let Some((_, oldest)) = counts.unauthenticated.pop_first()
        {
            oldest.eviction.cancel();
            counts.forget_address(oldest.address);
        }
        let number = counts.next_number;
        counts.next_number += 1;
        let eviction = CancellationToken::new();
        let waiting = Waiting {
            address: None,
            eviction: eviction.clone(),
        };
        counts.unauthenticated.insert(number, waiting);
        counts.connections += 1;
        Ok(Place {
            admission: Arc::clone(self),
            address: None,
            number,
            eviction,
            authenticated: false,
        })
    }
}

impl Place {
    /// The connection comes from `address`, as is known now; says if too many do.
    pub(super) fn settle(&mut self, address: IpAddr) -> Result<(), Refused> {
        let counts = &mut *self.admission.counts.lock();
        let from_address = counts
            .unauthenticated_by_address
            .entry(address)
            .or_insert(0);
        if *from_address >= counts.settings.unauthenticated_per_address_max {
            return Err(Refused::UnauthenticatedFromAddress(*from_address));
        }
        // One that has lost its place is not counted any more.
        if let Some(waiting) = counts.unauthenticated.get_mut(&self.number) {
            waiting.address = Some(address);
            *from_address += 1;
        }
        self.address = Some(address);
        Ok(())
    }

    /// A login failed.
    pub(super) fn login_failed(&self, now: Instant) {
        if let Some(address) = self.address {
            self.admission.failed.note(address, now);
        }
    }

    /// How long the connection must wait before it is listened to.
    pub(super) fn delay(&self, now: Instant) -> Option<Duration> {
        self.admission.failed.delay(self.address?, now)
    }

    /// The connection has logged in.
    pub(super) fn authenticated(&mut self) {
        if !std::mem::replace(&mut self.authenticated, true) {
            let counts = &mut *self.admission.counts.lock();
            counts.forget_unauthenticated(self.number);
        }
    }

    /// Cancelled when the connection must go.
    pub(super) fn eviction(&self) -> CancellationToken {
        self.eviction.clone()
    }

    /// Waits until the connection must go, because too many have not logged in; for ever once it has logged in.
    pub(super) async fn evicted(&self) {
        match self.authenticated {
            true => std::future::pending().await,
            false => self.eviction.cancelled().await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock();
        counts.connections -= 1;
        if !self.authenticated {
            counts.forget_unauthenticated(self.number);
        }
    }
}

impl Counts {
    fn forget_unauthenticated(&mut self, number: u64) {
        if let Some(waiting) = self.unauthenticated.remove(&number) {
            self.forget_address(waiting.address);
        }
    }

    fn forget_address(&mut self, address: Option<IpAddr>) {
        let Some(address) = address else { return };
        if let Some(from_address) = self.unauthenticated_by_address.get_mut(&address) {
            *from_address -= 1;
            if *from_address == 0 {
                self.unauthenticated_by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The oldest of those that have not logged in goes when one more comes, and whoever has logged in stays.
    // req: LIMIT-1
    #[tokio::test]
    async fn the_oldest_gives_way() {
        let settings = AdmissionSettings {
            unauthenticated_max: 2,
            ..AdmissionSettings::default()
        };
        let admission = Admission::new(&settings);
        let address = IpAddr::from([127, 0, 0, 1]);
        let mut honest = admission.admit(address).expect("a place");
        let slow = admission.admit(address).expect("a place");
        honest.authenticated();
        let next = admission.admit(address).expect("a place");
        assert!(!slow.eviction.is_cancelled());
        let last = admission.admit(address).expect("a place");
        slow.evicted().await;
        assert!(!honest.eviction.is_cancelled() && !next.eviction.is_cancelled());
        drop(slow);
        {
            let counts = admission.counts.lock();
            assert_eq!(counts.unauthenticated.len(), 2);
            assert_eq!(counts.unauthenticated_by_address.get(&address), Some(&2));
            assert_eq!(counts.connections, 3);
        }
        drop((next, last, honest));
        let counts = admission.counts.lock();
        assert!(counts.unauthenticated.is_empty() && counts.unauthenticated_by_address.is_empty());
        assert_eq!(counts.connections, 0);
    }

    /// Each limit refuses by its own name, and a place given back can be had again.
    #[test]
    fn places_are_limited_and_come_back() {
        let settings = AdmissionSettings {
            unauthenticated_max: 4,
            unauthenticated_per_address_max: 2,
            connection_count_max: 4,
            ..AdmissionSettings::default()
        };
        let admission = Admission::new(&settings);
        let (one, other) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let mut first = admission.admit(one).expect("a place");
        let second = admission.admit(one).expect("a place");
        let refused = admission.admit(one).expect_err("two from one address");
        assert_eq!(refused, Refused::UnauthenticatedFromAddress(2));
        let _third = admission.admit(other).expect("a place");
        first.authenticated();
        let _fourth = admission.admit(other).expect("a place");
        assert_eq!(
            admission.admit(one).expect_err("four"),
            Refused::Connections(4)
        );
        // A lower limit refuses who comes, and nobody who is there.
        let fewer = AdmissionSettings {
            connection_count_max: 2,
            ..settings
        };
        admission.set(&fewer);
        assert_eq!(
            admission.admit(one).expect_err("four of two"),
            Refused::Connections(4)
        );
        admission.set(&settings);
        drop((first, second));
        assert!(admission.admit(one).is_ok());
        assert_eq!(admission.counts.lock().unauthenticated_by_address.len(), 1);
    }
}
