//! Where a message will go, as far as that can be told before it is there.
//!
//! Owns: nothing. Looks without changing anything: no duplicate is noted, nothing is kept or counted.
//! Bound: [`QUEUES_MEANT_MAX`].
//! Spec: `spec/early.md` EARLY-1; `spec/payload-store.md` MEMBODY-1.

use std::sync::Arc;

use crate::broker::access::Access;
use crate::broker::exchange::RouteInput;
use crate::broker::exchange::destinations::Destination;
use crate::broker::message::Persistence;
use crate::broker::name::Name;
use crate::broker::queue::Queue;

use super::{Connection, Vhost};

/// Most queues that are named or looked at; further ones are not.
const QUEUES_MEANT_MAX: usize = 4_096;

/// Where a message goes if it comes now.
#[derive(Debug, Default)]
pub struct QueuesMeant {
    queues: Vec<Arc<Queue>>,
    /// Nothing beside the queues is meant, by exchange and key.
    is_all: bool,
}

impl QueuesMeant {
    /// The queues.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Queue>> {
        self.queues.iter()
    }

    /// Names, beginning with `prefix`, of those queues, as many as are named at most.
    #[must_use]
    pub fn named(&self, prefix: &[u8]) -> Vec<Name> {
        // req: EARLY-1
        let names = self.queues.iter().map(|queue| queue.name());
        names
            .filter(|name| name.as_bytes().starts_with(prefix))
            .take(QUEUES_MEANT_MAX)
            .cloned()
            .collect()
    }

    /// Whether, as far as can be told, such a message needs no place on disk, and will not wait for somebody to come:
    /// no queue keeps it there, and each has a consumer.
    #[must_use]
    pub fn passes_through(&self, persistence: Persistence) -> bool {
        // req: MEMBODY-1
        let is_fleeting = |queue: &Arc<Queue>| !queue.keeps(persistence) && queue.is_consumed();
        self.is_all
            && !self.queues.is_empty()
            && self.queues.len() <= QUEUES_MEANT_MAX
            && self.queues.iter().all(is_fleeting)
    }
}

impl Vhost {
    /// The queues that a message with this exchange and key goes to if it comes now from somebody who may publish it
    /// there.
    ///
    /// Only what the exchange itself finds by the key: no exchange behind it, no alternate, and none whose choice
    /// depends on more. So it may be fewer than the message reaches.
    #[must_use]
    pub fn queues_meant(
        &self,
        by: &Connection,
        exchange: &[u8],
        routing_key: &[u8],
    ) -> QueuesMeant {
        let Ok(source) = self.exchange_to_publish(by, exchange) else {
            return QueuesMeant::default();
        };
        let authorized = self.authorize_topic(by, &source, routing_key, Access::Write);
        if authorized.is_err() || !source.routes_by_key_alone() {
            return QueuesMeant::default();
        }
        let mut found = Vec::new();
        if source.name().as_bytes().is_empty() {
            found.extend(self.queue(routing_key).map(Destination::Queue));
        } else {
            source.route(RouteInput::new(&[routing_key], None), &mut found);
        }
        let found_count = found.len();
        let queues = found
            .into_iter()
            .filter_map(|destination| match destination {
                Destination::Queue(queue) => Some(queue),
                Destination::Exchange(_) => None,
            });
        let queues: Vec<Arc<Queue>> = queues.collect();
        QueuesMeant {
            is_all: queues.len() == found_count,
            queues,
        }
    }
}
