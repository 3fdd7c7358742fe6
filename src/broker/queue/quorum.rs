//! What a quorum queue does with a message that comes back.
//!
//! Owns: the count of failed deliveries, the limit on it, and the place that the message gets. A queue
//! of another type puts it where it was.
//! Spec: RabbitMQ: `x-delivery-count`, `x-delivery-limit`; the places as measured from 3.10.8. A message
//! whose channel ended goes before all that were never out. One that is rejected goes there too if
//! the queue has a delivery limit, and otherwise behind all others, so that it cannot be in their way.

use crate::sabotage::{self, Sabotage};

use super::arguments::{DeliveryLimit, QueueKind, QueueSettings};
use super::{Entry, Settle};

/// Where a message goes that came back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// To the place that it had.
    Old,
    /// Before those that were never out, behind those that came back earlier.
    Returned,
    /// Before all others, where it was.
    First,
    /// Behind all others.
    Last,
    /// Out of the queue: it came back more often than it may.
    Dead,
}

/// Marks a message that comes back, and says where it goes.
// req: QUORUM-2
// req: QUORUM-3
// req: QUORUM-4
pub(super) fn come_back(settings: &QueueSettings, entry: &mut Entry, how: Settle) -> Place {
    if how == Settle::Untouched {
        return match settings.kind {
            // What came back stands before what was never taken, and this stood first.
            QueueKind::Quorum => Place::First,
            QueueKind::Classic | QueueKind::Stream => Place::Old,
        };
    }
    entry.redelivered = !sabotage::is(Sabotage::RequeueLosesFlag);
    if settings.kind != QueueKind::Quorum {
        return Place::Old;
    }
    entry.return_count = entry.return_count.saturating_add(1);
    let limit = settings.delivery_limit.count_max();
    if limit.is_some_and(|limit| entry.return_count > limit) {
        return Place::Dead;
    }
    match (how, settings.delivery_limit) {
        (Settle::Requeue, DeliveryLimit::Default | DeliveryLimit::None) => Place::Last,
        (Settle::Requeue, DeliveryLimit::Count(_))
        | (Settle::Ack | Settle::Discard | Settle::Return | Settle::Untouched, _) => {
            Place::Returned
        }
    }
}
