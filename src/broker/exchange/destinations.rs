//! A set of destinations: what the bindings of one key, or of one place in a trie, lead to.
//!
//! Owns: each destination once, with the number of bindings that lead to it. Short sets are a short
//! list; long ones get an index, so that adding and removing stay cheap at any length.
//! Bound: the bindings of the vhost.

use std::collections::HashMap;
use std::sync::Arc;

use smallvec::SmallVec;

use super::super::queue::Queue;
use super::Exchange;

/// Where a binding leads.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    Queue(Arc<Queue>),
    Exchange(Arc<Exchange>),
}

/// Tells destinations apart; ids of queues and exchanges are never used again.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum DestinationId {
    Queue(u64),
    Exchange(u64),
}

impl Destination {
    pub(crate) fn id(&self) -> DestinationId {
        match self {
            Self::Queue(queue) => DestinationId::Queue(queue.id().0),
            Self::Exchange(exchange) => DestinationId::Exchange(exchange.id()),
        }
    }
}

/// Destinations with the number of bindings to each.
#[derive(Debug, Default)]
pub(crate) struct Destinations {
    members: SmallVec<[Member; 1]>,
    /// Position of each member; only once there are more than [`LIST_COUNT_MAX`].
    /// Boxed, since most sets are a list of one.
    #[allow(clippy::box_collection)]
    index: Option<Box<HashMap<DestinationId, usize>>>,
}

#[derive(Debug)]
struct Member {
    destination: Destination,
    binding_count: u32,
}

/// Up to this many members, looking through the list is the cheapest index.
const LIST_COUNT_MAX: usize = 16;

impl Destinations {
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Counts one more binding to `destination`.
    pub(crate) fn add(&mut self, destination: Destination) {
        let id = destination.id();
        if let Some(at) = self.position(id)
            && let Some(member) = self.members.get_mut(at)
        {
            member.binding_count += 1;
            return;
        }
        if let Some(index) = &mut self.index {
            index.insert(id, self.members.len());
        }
        self.members.push(Member {
            destination,
            binding_count: 1,
        });
        if self.index.is_none() && self.members.len() > LIST_COUNT_MAX {
            let members = self.members.iter().enumerate();
            let index = members
                .map(|(at, member)| (member.destination.id(), at))
                .collect();
            self.index = Some(Box::new(index));
        }
    }

    /// Counts one binding fewer.
    pub(crate) fn remove(&mut self, id: DestinationId) {
        let Some(at) = self.position(id) else { return };
        let Some(member) = self.members.get_mut(at) else {
            return;
        };
        member.binding_count -= 1;
        if member.binding_count > 0 {
            return;
        }
        self.members.swap_remove(at);
        if let Some(index) = &mut self.index {
            index.remove(&id);
            if let Some(moved) = self.members.get(at) {
                index.insert(moved.destination.id(), at);
            }
            if self.members.len() <= LIST_COUNT_MAX / 2 {
                self.index = None;
                self.members.shrink_to_fit();
            }
        }
    }

    /// Adds all members to `found`.
    pub(crate) fn route(&self, found: &mut Vec<Destination>) {
        found.extend(self.members.iter().map(|member| member.destination.clone()));
    }

    fn position(&self, id: DestinationId) -> Option<usize> {
        match &self.index {
            Some(index) => index.get(&id).copied(),
            None => self
                .members
                .iter()
                .position(|member| member.destination.id() == id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_queue;
    use super::*;

    fn ids(set: &Destinations) -> Vec<DestinationId> {
        let mut found = Vec::new();
        set.route(&mut found);
        let mut ids: Vec<_> = found.iter().map(Destination::id).collect();
        ids.sort();
        ids
    }

    #[test]
    fn a_destination_stays_until_its_last_binding_goes() {
        let mut set = Destinations::default();
        let queue = Destination::Queue(test_queue(1));
        set.add(queue.clone());
        set.add(queue.clone());
        set.remove(queue.id());
        assert_eq!(ids(&set), [queue.id()]);
        set.remove(queue.id());
        assert!(set.is_empty());
    }

    /// Grows past the list, shrinks back below it, and holds the right members at each step.
    #[test]
    fn long_sets_hold_what_short_ones_would() {
        let mut set = Destinations::default();
        let mut expected = Vec::new();
        for id in 0..40 {
            set.add(Destination::Queue(test_queue(id)));
            expected.push(DestinationId::Queue(id));
            assert_eq!(ids(&set), expected);
        }
        for id in (0..40).step_by(3).chain((0..40).filter(|id| id % 3 != 0)) {
            set.remove(DestinationId::Queue(id));
            expected.retain(|other| *other != DestinationId::Queue(id));
            assert_eq!(ids(&set), expected);
        }
        assert!(set.is_empty());
    }
}
