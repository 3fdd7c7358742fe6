//! Who may connect: counts of connections, and of those that have not logged in yet.
//!
//! Owns: the counts of one listener. A place is given back when its guard is dropped.
//! Bounds: RELIABILITY section 6, "unauthenticated connections" and "connections".

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::AdmissionSettings;

/// The door of one listener.
#[derive(Debug)]
pub(super) struct Admission {
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    settings: AdmissionSettings,
    connections: usize,
    unauthenticated: usize,
    unauthenticated_by_address: HashMap<IpAddr, usize>,
}

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the limit of {0} connections is reached")]
    Connections(usize),
    #[error("{0} connections have not logged in yet")]
    Unauthenticated(usize),
    #[error("{0} connections from this address have not logged in yet")]
    UnauthenticatedFromAddress(usize),
}

/// A place for one connection.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    address: IpAddr,
    authenticated: bool,
}

impl Admission {
    pub(super) fn new(settings: &AdmissionSettings) -> Arc<Self> {
        Arc::new(Self {
            counts: Mutex::new(Counts {
                settings: settings.clone(),
                connections: 0,
                unauthenticated: 0,
                unauthenticated_by_address: HashMap::new(),
            }),
        })
    }

    /// Takes other limits; who is in stays in.
    pub(super) fn set(&self, settings: &AdmissionSettings) {
        self.counts.lock().settings = settings.clone();
    }

    /// Gives a place to a connection from `address`, or says why not.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Place, Refused> {
        let counts = &mut *self.counts.lock();
        if counts.connections >= counts.settings.connection_count_max {
            return Err(Refused::Connections(counts.connections));
        }
        if counts.unauthenticated >= counts.settings.unauthenticated_max {
            return Err(Refused::Unauthenticated(counts.unauthenticated));
        }
        let from_address = counts
            .unauthenticated_by_address
            .entry(address)
            .or_insert(0);
        if *from_address >= counts.settings.unauthenticated_per_address_max {
            return Err(Refused::UnauthenticatedFromAddress(*from_address));
        }
        *from_address += 1;
        counts.unauthenticated += 1;
        counts.connections += 1;
        Ok(Place {
            admission: Arc::clone(self),
            address,
            authenticated: false,
        })
    }
}

impl Place {
    /// The connection has logged in.
    pub(super) fn authenticated(&mut self) {
        if !std::mem::replace(&mut self.authenticated, true) {
            self.admission
                .counts
                .lock()
                .forget_unauthenticated(self.address);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock();
        counts.connections -= 1;
        if !self.authenticated {
            counts.forget_unauthenticated(self.address);
        }
    }
}

impl Counts {
    fn forget_unauthenticated(&mut self, address: IpAddr) {
        self.unauthenticated -= 1;
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

    /// Each limit refuses by its own name, and a place given back can be had again.
    #[test]
    fn places_are_limited_and_come_back() {
        let settings = AdmissionSettings {
            unauthenticated_max: 3,
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
        assert_eq!(
            admission.admit(other).expect_err("three"),
            Refused::Unauthenticated(3)
        );
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
