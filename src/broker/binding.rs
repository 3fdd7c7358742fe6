//! Bindings: what leads from an exchange to a queue or another exchange.
//!
//! Owns: a binding's identity, and the lists of bindings by source and by destination, which say what
//! goes when a queue or an exchange goes. How messages find their way is the exchanges' business.
//! Identity is source, destination, routing key *and* arguments, as in RabbitMQ.
//! Bound: `bindings_per_vhost_max`.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::amqp::field::{FieldTable, FieldValue, ShortString};

use super::error::ResourceKind;
use super::exchange::destinations::DestinationId;
use super::name::Name;
use super::queue::Durability;

/// What a binding leads to.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DestinationName {
    /// Queue or exchange.
    pub kind: ResourceKind,
    /// Its name.
    pub name: Name,
}

/// What makes a binding the same as another.
#[derive(Clone, Debug)]
pub(crate) struct BindingKey {
    pub(crate) source: Name,
    pub(crate) destination: DestinationName,
    pub(crate) routing_key: Name,
    pub(crate) arguments: FieldTable,
    /// The arguments with their names in order, so that order makes no difference.
    sorted: Vec<(ShortString, FieldValue)>,
}

impl BindingKey {
    pub(crate) fn new(
        source: Name,
        destination: DestinationName,
        routing_key: Name,
        arguments: &FieldTable,
    ) -> Self {
        let arguments = arguments.detached();
        let mut sorted: Vec<_> = arguments.iter().collect();
        sorted.sort_by(|(left, _), (right, _)| left.cmp(right));
        Self {
            source,
            destination,
            routing_key,
            arguments,
            sorted,
        }
    }
}

impl PartialEq for BindingKey {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
            && self.destination == other.destination
            && self.routing_key == other.routing_key
            && self.sorted == other.sorted
    }
}

impl Eq for BindingKey {}

impl Hash for BindingKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
        self.destination.hash(state);
        self.routing_key.hash(state);
        self.sorted.hash(state);
    }
}

/// One binding.
#[derive(Debug)]
pub struct Binding {
    pub(crate) key: BindingKey,
    /// Given once in the life of the process, in the order of making.
    pub(crate) id: u64,
    /// What the destination's name stood for when the binding was made.
    pub(crate) target: DestinationId,
    /// Whether it outlives a restart: both its ends do.
    pub(crate) durability: Durability,
}

impl Binding {
    /// The exchange it leads from.
    #[must_use]
    pub fn source(&self) -> &Name {
        &self.key.source
    }

    /// What it leads to.
    #[must_use]
    pub fn destination(&self) -> &DestinationName {
        &self.key.destination
    }

    /// Its key or pattern.
    #[must_use]
    pub fn routing_key(&self) -> &Name {
        &self.key.routing_key
    }

    /// Its arguments.
    #[must_use]
    pub fn arguments(&self) -> &FieldTable {
        &self.key.arguments
    }
}

impl PartialEq for Binding {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Binding {}

impl Hash for Binding {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl Borrow<BindingKey> for Arc<Binding> {
    fn borrow(&self) -> &BindingKey {
        &self.key
    }
}

/// All bindings of one vhost; behind the vhost's topology lock.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    by_source: HashMap<Name, HashSet<Arc<Binding>>>,
    by_destination: HashMap<DestinationName, HashSet<Arc<Binding>>>,
    count: usize,
}

impl Bindings {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Whether there is such a binding.
    pub(crate) fn contains(&self, key: &BindingKey) -> bool {
        let from = self.by_source.get(&key.source);
        from.is_some_and(|from| from.contains(key))
    }

    /// Adds a binding that is not there yet.
    pub(crate) fn insert(&mut self, binding: &Arc<Binding>) {
        let from = self.by_source.entry(binding.source().clone()).or_default();
        let is_new = from.insert(Arc::clone(binding));
        debug_assert!(is_new, "the caller asked before");
        let to = self
            .by_destination
            .entry(binding.destination().clone())
            .or_default();
        to.insert(Arc::clone(binding));
        self.count += 1;
    }

    /// Takes out a binding.
    pub(crate) fn remove(&mut self, key: &BindingKey) -> Option<Arc<Binding>> {
        let from = self.by_source.get_mut(&key.source)?;
        let removed = from.take(key)?;
        if from.is_empty() {
            self.by_source.remove(&key.source);
        }
        if let Some(to) = self.by_destination.get_mut(&key.destination) {
            to.remove(key);
            if to.is_empty() {
                self.by_destination.remove(&key.destination);
            }
        }
        self.count -= 1;
        Some(removed)
    }

    /// Whether any binding leads from this exchange.
    pub(crate) fn has_source(&self, source: &Name) -> bool {
        self.by_source.contains_key(source)
    }

    /// The bindings from this exchange, oldest first.
    pub(crate) fn of_source(&self, source: &Name) -> Vec<Arc<Binding>> {
        sorted(self.by_source.get(source))
    }

    /// The bindings to this queue or exchange, oldest first.
    pub(crate) fn of_destination(&self, destination: &DestinationName) -> Vec<Arc<Binding>> {
        sorted(self.by_destination.get(destination))
    }

    /// All bindings, oldest first.
    pub(crate) fn all(&self) -> Vec<Arc<Binding>> {
        let mut all: Vec<_> = self.by_source.values().flatten().cloned().collect();
        all.sort_by_key(|binding| binding.id);
        all
    }
}

/// In the order in which they were made, so that what follows from it is the same in every run.
fn sorted(bindings: Option<&HashSet<Arc<Binding>>>) -> Vec<Arc<Binding>> {
    let mut bindings: Vec<_> = bindings.into_iter().flatten().cloned().collect();
    bindings.sort_by_key(|binding| binding.id);
    bindings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(arguments: FieldTable) -> BindingKey {
        let destination = DestinationName {
            kind: ResourceKind::Queue,
            name: Name::from("q"),
        };
        BindingKey::new(Name::from("x"), destination, Name::from("k"), &arguments)
    }

    fn add(bindings: &mut Bindings, id: u64, key: BindingKey) {
        bindings.insert(&Arc::new(Binding {
            key,
            id,
            target: DestinationId::Queue(1),
            durability: Durability::Transient,
        }));
    }

    #[test]
    fn arguments_are_part_of_the_identity_and_their_order_is_not() {
        let one = || ("a", FieldValue::from(1));
        let two = || ("b", FieldValue::from(2));
        let mut bindings = Bindings::default();
        add(&mut bindings, 1, key(FieldTable::from([one(), two()])));
        assert!(bindings.contains(&key(FieldTable::from([two(), one()]))));
        assert!(!bindings.contains(&key(FieldTable::default())));
        add(&mut bindings, 2, key(FieldTable::default()));
        assert_eq!(bindings.len(), 2);
        let removed = bindings.remove(&key(FieldTable::from([two(), one()])));
        assert_eq!(removed.map(|binding| binding.id), Some(1));
        assert!(bindings.has_source(&Name::from("x")));
        bindings.remove(&key(FieldTable::default()));
        assert!(!bindings.has_source(&Name::from("x")));
        assert_eq!(bindings.len(), 0);
    }
}
