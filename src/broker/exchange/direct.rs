//! The direct exchange: a message goes where its routing key is bound, octet by octet equal.
//!
//! Spec: AMQP 0-9-1 §3.1.3.1.

use std::collections::HashMap;

use super::super::name::Name;
use super::destinations::{Destination, DestinationId, Destinations};

/// Destinations by routing key.
#[derive(Debug, Default)]
pub(super) struct DirectTable(HashMap<Name, Destinations>);

impl DirectTable {
    pub(super) fn bind(&mut self, key: &Name, destination: Destination) {
        self.0.entry(key.clone()).or_default().add(destination);
    }

    pub(super) fn unbind(&mut self, key: &Name, destination: DestinationId) {
        if let Some(destinations) = self.0.get_mut(key) {
            destinations.remove(destination);
            if destinations.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(super) fn route(&self, key: &[u8], found: &mut Vec<Destination>) {
        if let Some(destinations) = self.0.get(key) {
            destinations.route(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_queue;
    use super::*;

    #[test]
    fn only_the_equal_key_leads_anywhere() {
        let mut table = DirectTable::default();
        let queue = Destination::Queue(test_queue(1));
        table.bind(&Name::from("a.b"), queue.clone());
        let count = |key: &[u8], table: &DirectTable| {
            let mut found = Vec::new();
            table.route(key, &mut found);
            found.len()
        };
        assert_eq!(count(b"a.b", &table), 1);
        assert_eq!(count(b"a", &table), 0);
        assert_eq!(count(b"", &table), 0);
        table.unbind(&Name::from("a.b"), queue.id());
        assert_eq!(count(b"a.b", &table), 0);
        assert!(table.0.is_empty());
    }
}
