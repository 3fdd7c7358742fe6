//! Where a message will go, as far as that can be told before it is there.
//!
//! Owns: nothing. Looks without changing anything: no duplicate is noted, nothing is kept or counted.
//! Bound: [`QUEUES_MEANT_MAX`].
//! Spec: `spec/early.md` EARLY-1.

use crate::broker::access::Access;
use crate::broker::exchange::RouteInput;
use crate::broker::exchange::destinations::Destination;
use crate::broker::name::Name;

use super::{Connection, Vhost};

/// Most queues that are named; further ones are not.
const QUEUES_MEANT_MAX: usize = 4_096;

impl Vhost {
    /// Names, beginning with `prefix`, of the queues that a message with this exchange and key goes to if it comes
    /// now from somebody who may publish it there.
    ///
    /// Only what the exchange itself finds by the key: no exchange behind it, no alternate, and none whose choice
    /// depends on more. So it may be fewer than the message reaches.
    #[must_use]
    pub fn queues_meant(
        &self,
        by: &Connection,
        exchange: &[u8],
        routing_key: &[u8],
        prefix: &[u8],
    ) -> Vec<Name> {
        // req: EARLY-1
        let Ok(source) = self.exchange_to_publish(by, exchange) else {
            return Vec::new();
        };
        let authorized = self.authorize_topic(by, &source, routing_key, Access::Write);
        if authorized.is_err() || !source.routes_by_key_alone() {
            return Vec::new();
        }
        let mut found = Vec::new();
        if source.name().as_bytes().is_empty() {
            found.extend(self.queue(routing_key).map(Destination::Queue));
        } else {
            source.route(RouteInput::new(&[routing_key], None), &mut found);
        }
        let queues = found.iter().filter_map(|destination| match destination {
            Destination::Queue(queue) => Some(queue.name()),
            Destination::Exchange(_) => None,
        });
        queues
            .filter(|name| name.as_bytes().starts_with(prefix))
            .take(QUEUES_MEANT_MAX)
            .cloned()
            .collect()
    }
}
