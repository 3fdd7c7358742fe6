//! Streams as far as the journal and the definitions are concerned: their order, and where they begin.

use std::sync::Arc;

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use crate::journal::{JournalError, Lsn};

use super::super::limits::{STREAM_FORGET_COUNT_MAX, STREAM_PAGE_BYTES_MAX};
use super::super::queue::{Queue, Truncated};
use super::super::route::Route;
use super::Vhost;

/// The order of queues that need one, held while messages are appended for them and enqueued.
pub(crate) type Orders<'a> = SmallVec<[MutexGuard<'a, ()>; 1]>;

/// Holds the order of all streams, and queues that drop duplicates, that these routes lead to.
pub(crate) fn hold_orders<'a>(routes: impl IntoIterator<Item = &'a Route>) -> Orders<'a> {
    let routes = routes.into_iter().filter(|route| route.has_order);
    let queues = routes.flat_map(|route| &route.queues);
    let mut ordered: SmallVec<[&Arc<Queue>; 1]> =
        queues.filter(|queue| queue.is_ordered()).collect();
    // One order for everybody, so that nobody waits in a circle.
    ordered.sort_unstable_by_key(|queue| queue.id());
    ordered.dedup_by_key(|queue| queue.id());
    ordered.into_iter().map(|queue| queue.order()).collect()
}

impl Vhost {
    /// Notes that a stream forgot its oldest messages: where it begins now, then that they are gone, so
    /// that a crash in between leaves what the next start can finish.
    pub(crate) fn forget_in_stream(&self, queue: &Queue, truncated: Truncated) {
        if !queue.is_journalled() {
            return;
        }
        let noted = self.shared.store.put_stream_base(queue.id(), truncated);
        if let Err(error) = noted.and_then(|_| Ok(self.ack_up_to(queue, truncated.up_to)?)) {
            tracing::debug!(queue = %queue.name(), %error, "a stream's beginning was not noted");
        }
    }

    /// Notes that the messages of a stream up to this number are gone.
    pub(crate) fn ack_up_to(&self, queue: &Queue, up_to: Lsn) -> Result<(), JournalError> {
        let Some(journal) = &self.shared.journal else {
            return Ok(());
        };
        let mut after = Lsn::ZERO;
        while after < up_to {
            let found = journal.read_backlog(
                queue.id(),
                after,
                STREAM_FORGET_COUNT_MAX,
                STREAM_PAGE_BYTES_MAX,
            )?;
            let Some(last) = found.last() else { break };
            after = last.lsn;
            let gone: Vec<_> = found
                .iter()
                .map(|found| found.lsn)
                .filter(|lsn| *lsn <= up_to)
                .collect();
            queue.journal_left(&gone);
        }
        Ok(())
    }
}
