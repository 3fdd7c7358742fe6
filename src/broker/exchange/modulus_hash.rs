//! The modulus-hash exchange (sharding): each message to one binding, by a hash of its key modulo their
//! number.
//!
//! Owns: the bindings in an order of their own, so that the order of binding makes no difference.
//! Spec: the `rabbitmq_sharding` plugin's `x-modulus-hash`; `spec/amqp.md`.

use super::super::binding::{Binding, DestinationName};
use super::super::name::Name;
use super::destinations::Destination;
use super::hash::{below, hash};

/// All bindings, ordered by key and destination.
#[derive(Debug, Default)]
pub(super) struct ModulusHashTable(Vec<Member>);

#[derive(Debug)]
struct Member {
    key: Name,
    name: DestinationName,
    binding_id: u64,
    destination: Destination,
}

impl Member {
    fn place(&self) -> (&Name, &DestinationName, u64) {
        (&self.key, &self.name, self.binding_id)
    }
}

fn place(binding: &Binding) -> (&Name, &DestinationName, u64) {
    (binding.routing_key(), binding.destination(), binding.id)
}

impl ModulusHashTable {
    pub(super) fn bind(&mut self, binding: &Binding, destination: Destination) {
        let at = self
            .0
            .partition_point(|member| member.place() < place(binding));
        self.0.insert(
            at,
            Member {
                key: binding.routing_key().clone(),
                name: binding.destination().clone(),
                binding_id: binding.id,
                destination,
            },
        );
    }

    pub(super) fn unbind(&mut self, binding: &Binding) {
        let found = self
            .0
            .binary_search_by(|member| member.place().cmp(&place(binding)));
        if let Ok(at) = found {
            self.0.remove(at);
        }
    }

    pub(super) fn route(&self, key: &[u8], found: &mut Vec<Destination>) {
        let chosen = self.0.get(below(hash(key), self.0.len()));
        found.extend(chosen.map(|member| member.destination.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::tests_kit::{binding, queue};
    use super::*;

    #[test]
    fn a_key_has_one_destination_and_all_get_some() {
        let mut table = ModulusHashTable::default();
        let mut other = ModulusHashTable::default();
        for id in 0..5 {
            table.bind(&binding(id, id, "k"), queue(id));
            other.bind(&binding(id, 4 - id, "k"), queue(4 - id));
        }
        let mut counts = HashMap::new();
        for number in 0..5_000 {
            let key = format!("key-{number}");
            let mut found = Vec::new();
            table.route(key.as_bytes(), &mut found);
            other.route(key.as_bytes(), &mut found);
            let ids: Vec<_> = found.iter().map(Destination::id).collect();
            assert_eq!(ids.len(), 2);
            assert_eq!(ids[0], ids[1], "the order of binding makes no difference");
            *counts.entry(ids[0]).or_insert(0) += 1;
        }
        assert!(counts.values().all(|count| (850..1_150).contains(count)));
        for id in 0..5 {
            table.unbind(&binding(id, id, "k"));
        }
        let mut found = Vec::new();
        table.route(b"key", &mut found);
        assert!(found.is_empty());
    }
}
