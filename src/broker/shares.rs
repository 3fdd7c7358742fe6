//! What one channel's messages went to: how many from which exchange into which queue.
//!
//! Owns: the counts of ways that the channel does not remember (any more); those of a remembered way are counted with it
//! (`route.rs`), so that a message on a known way costs an addition.
//! Bounds: [`PAIRS_MAX`] exchanges and queues of one channel; what goes elsewhere is not told apart.

use std::collections::HashMap;

use crate::journal::QueueId;

use super::name::Name;
use super::route::Route;

/// Most pairs of exchange and queue that are told apart on one channel.
const PAIRS_MAX: usize = 256;

/// How many messages one channel brought from an exchange into a queue.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueShare {
    /// Where they were published.
    pub exchange: Name,
    /// The queue's name.
    pub queue: Name,
    /// The queue's number: another of its name is another queue.
    pub queue_id: QueueId,
    /// Messages.
    pub published: u64,
}

/// The counts of one channel.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares {
    by_queue: HashMap<QueueId, OfQueue>,
    pair_count: usize,
}

#[derive(Clone, Debug)]
struct OfQueue {
    name: Name,
    by_exchange: Vec<(Name, u64)>,
}

impl Shares {
    /// So many messages were published at `exchange` and took `route`.
    pub(crate) fn add(&mut self, exchange: &[u8], route: &Route, count: u64) {
        if count == 0 {
            return;
        }
        for queue in &route.queues {
            let has_room = self.pair_count < PAIRS_MAX;
            let of_queue = match self.by_queue.get_mut(&queue.id()) {
                Some(known) => known,
                None if has_room => self.by_queue.entry(queue.id()).or_insert_with(|| OfQueue {
                    name: queue.name().clone(),
                    by_exchange: Vec::new(),
                }),
                None => continue,
            };
            let mut known = of_queue.by_exchange.iter_mut();
            match known.find(|(name, _)| name.as_bytes() == exchange) {
                Some((_, sum)) => *sum += count,
                None if has_room => {
                    self.pair_count += 1;
                    of_queue.by_exchange.push((Name::new(exchange), count));
                }
                None => {}
            }
        }
    }

    /// All of them, in no order.
    pub(crate) fn list(&self) -> Vec<QueueShare> {
        let by_queue = self.by_queue.iter();
        let listed = by_queue.flat_map(|(queue_id, of_queue)| {
            let by_exchange = of_queue.by_exchange.iter();
            by_exchange.map(|(exchange, published)| QueueShare {
                exchange: exchange.clone(),
                queue: of_queue.name.clone(),
                queue_id: *queue_id,
                published: *published,
            })
        });
        listed.collect()
    }
}
