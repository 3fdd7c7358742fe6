//! How many connections and channels a user or a vhost has open, held against limits.
//!
//! Owns: the counts, and places in them that are given back when they are dropped.
//! Spec: RabbitMQ, "Virtual Host Limits", "Per User Resource Limits".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one user or vhost.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    connections: AtomicU64,
    channels: AtomicU64,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Counted {
    Connections,
    Channels,
}

/// A place among what is counted.
#[derive(Debug)]
pub struct Place {
    usage: Arc<Usage>,
    counted: Counted,
}

impl Usage {
    fn count(&self, counted: Counted) -> &AtomicU64 {
        match counted {
            Counted::Connections => &self.connections,
            Counted::Channels => &self.channels,
        }
    }

    /// Takes a place, or says which limit leaves none.
    pub(crate) fn take(
        self: &Arc<Self>,
        counted: Counted,
        count_max: Option<u64>,
    ) -> Result<Place, u64> {
        let limit = count_max.unwrap_or(u64::MAX);
        let below = |count: u64| (count < limit).then_some(count + 1);
        let taken = self
            .count(counted)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, below);
        match taken {
            Ok(_) => Ok(Place {
                usage: Arc::clone(self),
                counted,
            }),
            Err(_) => Err(limit),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.usage
            .count(self.counted)
            .fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back_when_it_is_dropped() {
        let usage = Arc::<Usage>::default();
        let first = usage.take(Counted::Channels, Some(1)).expect("room");
        assert_eq!(usage.take(Counted::Channels, Some(1)).err(), Some(1));
        assert!(usage.take(Counted::Connections, Some(1)).is_ok());
        drop(first);
        assert!(usage.take(Counted::Channels, Some(1)).is_ok());
        assert_eq!(usage.take(Counted::Channels, Some(0)).err(), Some(0));
        assert!(usage.take(Counted::Channels, None).is_ok());
    }
}
