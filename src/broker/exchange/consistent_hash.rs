//! The consistent-hash exchange: each message to one destination, chosen by a hash of its routing key,
//! of a header or of a property, in proportion to the destinations' weights.
//!
//! Owns: the weights. Of all destinations the one with the highest score for a message takes it, where
//! the score is a hash of both, weighted (rendezvous hashing): so the choice depends on who is bound and
//! not on the order of binding, a restart changes nothing, and a destination that comes or goes moves
//! only the messages that it takes or had.
//! A binding's key is its weight. Of several bindings to one destination the greatest counts.
//! Bound: a lookup costs a few nanoseconds per destination.
//! Spec: the `rabbitmq_consistent_hash_exchange` plugin; `spec/amqp.md`.

use std::collections::{BTreeMap, HashMap};

use super::super::binding::Binding;
use super::super::error::Error;
use super::RouteInput;
use super::destinations::{Destination, DestinationId};
use super::hash::{hash, mix};
use super::settings::{HashOn, HashProperty, term};

/// Destinations by weight.
#[derive(Debug)]
pub(super) struct ConsistentHashTable {
    hash_on: HashOn,
    /// The weights of each destination's bindings.
    weights: HashMap<DestinationId, Vec<u32>>,
    /// Each destination once, under the weight that counts.
    groups: BTreeMap<u32, Vec<Member>>,
}

#[derive(Debug)]
struct Member {
    hash: u64,
    destination: Destination,
}

impl ConsistentHashTable {
    pub(super) fn new(hash_on: HashOn) -> Self {
        Self {
            hash_on,
            weights: HashMap::new(),
            groups: BTreeMap::new(),
        }
    }

    pub(super) fn bind(&mut self, binding: &Binding, destination: Destination) {
        let weight = weight(binding.routing_key().as_bytes()).unwrap_or(1);
        let id = destination.id();
        let before = self.greatest(id);
        self.weights.entry(id).or_default().push(weight);
        if before.is_none_or(|before| before < weight) {
            if let Some(before) = before {
                self.take_out(before, id);
            }
            let member = Member {
                hash: hash(binding.destination().name.as_bytes())
                    .rotate_left(binding.destination().kind as u32),
                destination,
            };
            self.groups.entry(weight).or_default().push(member);
        }
    }

    pub(super) fn unbind(&mut self, binding: &Binding) {
        let weight = weight(binding.routing_key().as_bytes()).unwrap_or(1);
        let id = binding.target;
        let Some(weights) = self.weights.get_mut(&id) else {
            return;
        };
        if let Some(at) = weights.iter().position(|other| *other == weight) {
            weights.swap_remove(at);
        }
        if weights.is_empty() {
            self.weights.remove(&id);
        }
        let after = self.greatest(id);
        if after.is_none_or(|after| after < weight)
            && let Some(member) = self.take_out(weight, id)
            && let Some(after) = after
        {
            self.groups.entry(after).or_default().push(member);
        }
    }

    // req: EXCHANGE-1
    pub(super) fn route(&self, input: RouteInput<'_>, found: &mut Vec<Destination>) {
        let message = self.message_hash(input);
        // With u even between 0 and 1, the greatest ln(u) / weight wins in proportion to the weight;
        // among equal weights that is simply the greatest u.
        let winners = self.groups.iter().filter_map(|(weight, members)| {
            let (hash, member) = best(message, members)?;
            let even = (hash as f64 + 1.0) / 18_446_744_073_709_551_617.0;
            Some((even.ln() / f64::from(*weight), member))
        });
        let winner = winners.max_by(|(left, _), (right, _)| left.total_cmp(right));
        found.extend(winner.map(|(_, member)| member.destination.clone()));
    }

    fn message_hash(&self, input: RouteInput<'_>) -> u64 {
        match &self.hash_on {
            HashOn::RoutingKey => hash(input.keys.first().copied().unwrap_or_default()),
            HashOn::Header(name) => {
                let value = input.headers.and_then(|headers| headers.get(name));
                value.map_or(0, |value| match value.as_bytes() {
                    Some(octets) => hash(octets),
                    None => hash(term(&value).as_bytes()),
                })
            }
            HashOn::Property(property) => {
                let Some(properties) = input.properties else {
                    return 0;
                };
                let octets = match property {
                    HashProperty::CorrelationId => properties.correlation_id,
                    HashProperty::MessageId => properties.message_id,
                    HashProperty::Timestamp => {
                        let timestamp = properties.timestamp;
                        return timestamp.map_or(0, |seconds| hash(&seconds.to_be_bytes()));
                    }
                };
                octets.map_or(0, hash)
            }
        }
    }

    fn greatest(&self, id: DestinationId) -> Option<u32> {
        self.weights.get(&id)?.iter().copied().max()
    }

    fn take_out(&mut self, weight: u32, id: DestinationId) -> Option<Member> {
        let group = self.groups.get_mut(&weight)?;
        let at = group
            .iter()
            .position(|member| member.destination.id() == id)?;
        let member = group.swap_remove(at);
        if group.is_empty() {
            self.groups.remove(&weight);
        }
        Some(member)
    }
}

/// Which of some destinations of equal weight a message prefers, and how much.
fn best(message: u64, members: &[Member]) -> Option<(u64, &Member)> {
    members
        .iter()
        .map(|member| (mix(message ^ member.hash), member))
        .max_by_key(|(hash, member)| (*hash, member.destination.id()))
}

/// The weight that a binding key stands for: digits with an optional sign, as Erlang reads integers.
/// Weights beyond 32 bits count as the greatest of these.
fn weight(key: &[u8]) -> Option<u32> {
    let digits = match key {
        [b'+', digits @ ..] => digits,
        digits => digits,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0_u32, |value, digit| {
        value
            .saturating_mul(10)
            .saturating_add(u32::from(digit - b'0'))
    });
    Some(value)
}

/// Refuses a binding key that is no weight.
pub(super) fn check_binding(key: &[u8]) -> Result<(), Error> {
    let problem = match (weight(key), key) {
        (Some(1..), _) => return Ok(()),
        (Some(0), _) => "The binding key must be greater than 0".to_owned(),
        (None, [b'-', digits @ ..]) if weight(digits).is_some() && !digits.starts_with(b"+") => {
            "The binding key must be greater than 0".to_owned()
        }
        (None, key) => {
            let key = match key {
                [] => "<<>>".to_owned(),
                key => format!("<<\"{}\">>", String::from_utf8_lossy(key)),
            };
            format!("The binding key must be an integer: {key}")
        }
    };
    Err(Error::Unacceptable { problem })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::amqp::field::{FieldTable, FieldValue};

    use super::super::tests_kit::{binding, queue};
    use super::*;

    fn table(weights: &[(u64, u32)]) -> ConsistentHashTable {
        let mut table = ConsistentHashTable::new(HashOn::RoutingKey);
        for (id, weight) in weights {
            let key = weight.to_string();
            table.bind(&binding(*id, *id, &key), queue(*id));
        }
        table
    }

    fn choose(table: &ConsistentHashTable, key: &str) -> Option<DestinationId> {
        let mut found = Vec::new();
        table.route(RouteInput::new(&[key.as_bytes()], None), &mut found);
        assert!(found.len() <= 1, "one destination at most");
        found.first().map(Destination::id)
    }

    /// Shares of 60,000 keys against the weights: within five standard deviations.
    #[test]
    fn shares_follow_the_weights() {
        let table = table(&[(1, 1), (2, 2), (3, 2), (4, 5)]);
        let mut counts = HashMap::new();
        for number in 0..60_000 {
            let chosen = choose(&table, &format!("key-{number}"));
            *counts.entry(chosen).or_insert(0_u32) += 1;
        }
        for (id, share) in [(1, 0.1), (2, 0.2), (3, 0.2), (4, 0.5)] {
            let count = f64::from(counts[&Some(DestinationId::Queue(id))]);
            let expected = 60_000.0 * share;
            let deviation = (60_000.0_f64 * share * (1.0 - share)).sqrt();
            assert!((count - expected).abs() < 5.0 * deviation, "{id}: {count}");
        }
    }

    #[test]
    fn keys_are_weights_as_erlang_reads_integers() {
        let check = |key: &str| check_binding(key.as_bytes()).map_err(|error| error.to_string());
        for key in ["1", "+3", "010", "99999999999999999999"] {
            assert_eq!(check(key), Ok(()), "{key}");
        }
        for key in ["0", "-1", "-0", "+0"] {
            let problem = "The binding key must be greater than 0".to_owned();
            assert_eq!(check(key), Err(problem), "{key}");
        }
        for (key, printed) in [
            ("", "<<>>"),
            ("x", "<<\"x\">>"),
            ("1.5", "<<\"1.5\">>"),
            (" 1", "<<\" 1\">>"),
            ("-", "<<\"-\">>"),
        ] {
            let problem = format!("The binding key must be an integer: {printed}");
            assert_eq!(check(key), Err(problem), "{key}");
        }
    }

    proptest! {
        // req: EXCHANGE-1
        /// The order of binding makes no difference, and who goes moves only what it had.
        #[test]
        fn only_the_messages_of_who_goes_move(
            weights in prop::collection::btree_map(0_u64..50, 1_u32..9, 2..12),
            again in prop::collection::vec((0_u64..50, 1_u32..9), 0..5),
            keys in prop::collection::vec("[a-z]{0,8}", 1..40),
        ) {
            let weights: Vec<_> = weights.into_iter().collect();
            let mut first = table(&weights);
            let reversed: Vec<_> = weights.iter().rev().copied().collect();
            let second = table(&reversed);
            for key in &keys {
                prop_assert_eq!(choose(&first, key), choose(&second, key));
            }
            // Further bindings to the same destinations that go again leave no trace.
            for (id, weight) in &again {
                first.bind(&binding(100 + *id, *id, &weight.to_string()), queue(*id));
            }
            for (id, weight) in &again {
                first.unbind(&binding(100 + *id, *id, &weight.to_string()));
            }
            let gone = weights[0];
            for key in &keys {
                prop_assert_eq!(choose(&first, key), choose(&second, key));
            }
            first.unbind(&binding(gone.0, gone.0, &gone.1.to_string()));
            for key in &keys {
                let before = choose(&second, key);
                if before != Some(DestinationId::Queue(gone.0)) {
                    prop_assert_eq!(choose(&first, key), before);
                }
            }
            for (id, weight) in &weights[1..] {
                first.unbind(&binding(*id, *id, &weight.to_string()));
            }
            prop_assert!(first.groups.is_empty() && first.weights.is_empty());
        }
    }

    #[test]
    fn a_header_or_a_property_can_stand_for_the_key() {
        let mut by_header = table(&[(1, 1), (2, 1), (3, 1)]);
        by_header.hash_on = HashOn::Header("h".to_owned());
        let by_key = table(&[(1, 1), (2, 1), (3, 1)]);
        for value in ["a", "b", "c", "d", "e"] {
            let headers = FieldTable::from([("h", FieldValue::from(value))]);
            let mut found = Vec::new();
            by_header.route(RouteInput::new(&[b"any"], Some(&headers)), &mut found);
            let chosen = found.first().map(Destination::id);
            assert_eq!(chosen, choose(&by_key, value));
        }
    }
}
