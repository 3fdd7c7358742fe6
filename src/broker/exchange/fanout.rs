//! The fanout exchange: a message goes wherever anything is bound, whatever its key.
//!
//! Spec: AMQP 0-9-1 §3.1.3.2.

use super::destinations::{Destination, DestinationId, Destinations};

/// All destinations.
#[derive(Debug, Default)]
pub(super) struct FanoutTable(Destinations);

impl FanoutTable {
    pub(super) fn bind(&mut self, destination: Destination) {
        self.0.add(destination);
    }

    pub(super) fn unbind(&mut self, destination: DestinationId) {
        self.0.remove(destination);
    }

    pub(super) fn route(&self, found: &mut Vec<Destination>) {
        self.0.route(found);
    }
}
