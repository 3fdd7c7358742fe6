//! Which queues of a route have a message already, and so do not get it again.
//!
//! Owns: the look at their keys, between the hold of their order and the journal: what a queue does not
//! get is not noted for it either, so a crash leaves no second one. A message's key is there before the
//! message is; nobody else publishes to the queue meanwhile, and what leaves it only makes room.
//! Spec: `spec/amqp.md`, "Duplicates".

use std::sync::Arc;

use smallvec::SmallVec;

use crate::journal::{Appended, Lsn};

use super::super::dedup::{DedupKey, Seen};
use super::super::message::Message;
use super::super::queue::Queue;
use super::super::route::Route;

/// A route without the queues that have the message.
#[derive(Debug, Default)]
pub(super) struct Sifted {
    /// What is left; none if all is.
    rest: Option<Route>,
    /// Keys that are new, where they are.
    new: SmallVec<[(Arc<Queue>, DedupKey); 1]>,
    /// It is a duplicate in some queue; where the journal has the first one, for the confirm.
    pub(super) duplicate_of: Option<Lsn>,
}

impl Sifted {
    /// Looks at the keys of a route's queues, whose order is held, and adds those of `message`.
    // req: DEDUP-6
    pub(super) fn new(route: &Route, message: &Message, unix_ms: u64) -> Self {
        let mut sifted = Self::default();
        if !route.has_keys {
            return sifted;
        }
        let headers = message.headers();
        let mut rest = Vec::with_capacity(route.queues.len());
        for queue in &route.queues {
            let key = queue.keys().and_then(|keys| {
                let key = DedupKey::of(keys.by(), message, headers.as_ref())?;
                Some((keys, key))
            });
            if let Some((keys, key)) = key {
                match keys.see(key, headers.as_ref(), unix_ms) {
                    Seen::New { .. } => sifted.new.push((Arc::clone(queue), key)),
                    Seen::Before { durable_at } => {
                        sifted.duplicate_of = sifted.duplicate_of.max(Some(durable_at));
                        continue;
                    }
                }
            }
            rest.push(Arc::clone(queue));
        }
        if sifted.duplicate_of.is_some() {
            let replies = route.replies.clone();
            sifted.rest = Some(Route::new(rest).with_replies(replies));
        }
        sifted
    }

    /// Where the message goes, of the `route` that was looked at.
    pub(super) fn route<'a>(&'a self, route: &'a Route) -> &'a Route {
        self.rest.as_ref().unwrap_or(route)
    }

    /// Notes where the journal has the message: a duplicate's confirm waits for it.
    pub(super) fn recorded(&self, record: Appended) {
        for (queue, key) in &self.new {
            if let Some(keys) = queue.keys() {
                keys.recorded(*key, Lsn::ZERO, record.lsn);
            }
        }
    }
}
