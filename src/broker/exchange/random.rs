//! The random exchanges: each message to one destination, whichever it is.
//!
//! Owns: the bindings as a list, and the state of a generator (SplitMix64) whose seed came from
//! outside. A destination bound twice is twice as likely, as in RabbitMQ.
//! `x-local-random` takes queues only, bound with an empty key; all queues of this broker are local.
//! Spec: the `rabbitmq_random_exchange` plugin, RabbitMQ 4's `x-local-random`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::binding::{Binding, DestinationName};
use super::super::error::{Error, ResourceKind};
use super::destinations::Destination;
use super::hash::{below, mix};

/// All bindings, in no order.
#[derive(Debug)]
pub(super) struct RandomTable {
    members: Vec<(u64, Destination)>,
    /// Position of each binding in the list.
    index: HashMap<u64, usize>,
    state: AtomicU64,
}

impl RandomTable {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            members: Vec::new(),
            index: HashMap::new(),
            state: AtomicU64::new(seed),
        }
    }

    pub(super) fn bind(&mut self, binding: &Binding, destination: Destination) {
        self.index.insert(binding.id, self.members.len());
        self.members.push((binding.id, destination));
    }

    pub(super) fn unbind(&mut self, binding: &Binding) {
        let Some(at) = self.index.remove(&binding.id) else {
            return;
        };
        self.members.swap_remove(at);
        if let Some((moved, _)) = self.members.get(at) {
            self.index.insert(*moved, at);
        }
    }

    pub(super) fn route(&self, found: &mut Vec<Destination>) {
        let step = 0x9e37_79b9_7f4a_7c15;
        let state = self.state.fetch_add(step, Ordering::Relaxed);
        let chosen = self.members.get(below(mix(state), self.members.len()));
        found.extend(chosen.map(|(_, destination)| destination.clone()));
    }
}

/// Refuses what a local random exchange does not take: exchanges, and keys.
pub(super) fn check_local_binding(key: &[u8], destination: &DestinationName) -> Result<(), Error> {
    let problem = match (key, destination.kind) {
        (b"", ResourceKind::Queue) => return Ok(()),
        (b"", ResourceKind::Exchange) => "Destination not found".to_owned(),
        (key, _) => format!(
            "Non empty binding '{}' key not permitted",
            String::from_utf8_lossy(key)
        ),
    };
    Err(Error::Unacceptable { problem })
}

#[cfg(test)]
mod tests {
    use super::super::tests_kit::{binding, queue};
    use super::*;

    /// Over many messages each binding gets its share; the same seed repeats the choices.
    #[test]
    fn every_binding_is_as_likely_as_any_other() {
        let choices = |seed| {
            let mut table = RandomTable::new(seed);
            for id in 0..4 {
                table.bind(&binding(id, id % 3, ""), queue(id % 3));
            }
            let mut found = Vec::new();
            for _ in 0..40_000 {
                table.route(&mut found);
            }
            let ids: Vec<_> = found.iter().map(Destination::id).collect();
            ids
        };
        let chosen = choices(1);
        assert_eq!(chosen.len(), 40_000);
        for (id, expected) in [(0, 20_000_i64), (1, 10_000), (2, 10_000)] {
            let id = queue(id).id();
            let count = chosen.iter().filter(|chosen| **chosen == id).count() as i64;
            assert!((count - expected).abs() < 500, "{id:?}: {count}");
        }
        assert_eq!(chosen, choices(1));
        assert_ne!(chosen, choices(2));
    }

    #[test]
    fn nothing_is_chosen_when_all_bindings_are_gone() {
        let mut table = RandomTable::new(1);
        let mut found = Vec::new();
        table.route(&mut found);
        for id in 0..3 {
            table.bind(&binding(id, id, ""), queue(id));
        }
        table.unbind(&binding(0, 0, ""));
        table.unbind(&binding(2, 2, ""));
        table.route(&mut found);
        assert_eq!(found.pop().map(|chosen| chosen.id()), Some(queue(1).id()));
        table.unbind(&binding(1, 1, ""));
        table.route(&mut found);
        assert!(found.is_empty() && table.index.is_empty());
    }
}
