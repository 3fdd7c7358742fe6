//! The topic exchange: words of the routing key against patterns with `*` (one word) and `#` (any
//! number of words, none included).
//!
//! Owns: all patterns of one exchange as a trie of words, so that the cost of a lookup depends on the
//! patterns that match some way along the key and not on how many there are.
//! A lookup walks the key once with the set of places reached so far, so that no pattern of many `#`
//! makes it long: at most words × places.
//! Words as RabbitMQ counts them: the empty key has none; `.` has two empty ones, and an empty word is
//! a word for `*`.
//! Spec: AMQP 0-9-1 §3.1.3.3; `spec/amqp.md`.

use std::collections::HashMap;

use smallvec::SmallVec;

use super::destinations::{Destination, DestinationId, Destinations};

/// A place in the trie.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Place(u32);

const ROOT: Place = Place(0);

/// All patterns of one topic exchange.
#[derive(Debug)]
pub(crate) struct TopicTable {
    nodes: Vec<Node>,
    free: Vec<Place>,
}

#[derive(Debug, Default)]
struct Node {
    words: HashMap<Box<[u8]>, Place>,
    star: Option<Place>,
    hash: Option<Place>,
    /// Reached over a `#`, so any further word leads here again.
    is_hash: bool,
    destinations: Destinations,
}

impl Node {
    fn is_unused(&self) -> bool {
        self.words.is_empty()
            && self.star.is_none()
            && self.hash.is_none()
            && self.destinations.is_empty()
    }

    fn child(&self, word: &[u8]) -> Option<Place> {
        match word {
            b"*" => self.star,
            b"#" => self.hash,
            word => self.words.get(word).copied(),
        }
    }
}

impl Default for TopicTable {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            free: Vec::new(),
        }
    }
}

/// The places that the words so far lead to, without repetition.
type Places = SmallVec<[Place; 32]>;

impl TopicTable {
    pub(crate) fn bind(&mut self, pattern: &[u8], destination: Destination) {
        let mut place = ROOT;
        for word in words(pattern) {
            place = match self.node(place).child(word) {
                Some(child) => child,
                None => self.add_child(place, word),
            };
        }
        self.node_mut(place).destinations.add(destination);
    }

    pub(crate) fn unbind(&mut self, pattern: &[u8], destination: DestinationId) {
        let mut path = Vec::new();
        let mut place = ROOT;
        for word in words(pattern) {
            let Some(child) = self.node(place).child(word) else {
                return;
            };
            path.push((place, word));
            place = child;
        }
        self.node_mut(place).destinations.remove(destination);
        while self.node(place).is_unused()
            && let Some((parent, word)) = path.pop()
        {
            let parent_node = self.node_mut(parent);
            match word {
                b"*" => parent_node.star = None,
                b"#" => parent_node.hash = None,
                word => drop(parent_node.words.remove(word)),
            }
            *self.node_mut(place) = Node::default();
            self.free.push(place);
            place = parent;
        }
    }

    pub(crate) fn route(&self, key: &[u8], found: &mut Vec<Destination>) {
        let mut reached = Places::new();
        let mut next = Places::new();
        self.reach(ROOT, &mut reached);
        for word in words(key) {
            for place in reached.drain(..) {
                let node = self.node(place);
                if let Some(child) = node.words.get(word) {
                    self.reach(*child, &mut next);
                }
                if let Some(child) = node.star {
                    self.reach(child, &mut next);
                }
                if node.is_hash {
                    self.reach(place, &mut next);
                }
            }
            // Only places behind a `#` are reached in two ways, from before it and from itself.
            next.sort_unstable();
            next.dedup();
            std::mem::swap(&mut reached, &mut next);
            if reached.is_empty() {
                return;
            }
        }
        for place in reached {
            self.node(place).destinations.route(found);
        }
    }

    /// Adds a place, and those that a `#` of no words leads to.
    fn reach(&self, place: Place, places: &mut Places) {
        let mut at = Some(place);
        while let Some(place) = at {
            places.push(place);
            at = self.node(place).hash;
        }
    }

    fn add_child(&mut self, parent: Place, word: &[u8]) -> Place {
        let child = match self.free.pop() {
            Some(place) => place,
            None => {
                self.nodes.push(Node::default());
                Place(u32::try_from(self.nodes.len() - 1).expect("bindings are bounded below 2^32"))
            }
        };
        self.node_mut(child).is_hash = word == b"#";
        let parent = self.node_mut(parent);
        match word {
            b"*" => parent.star = Some(child),
            b"#" => parent.hash = Some(child),
            word => drop(parent.words.insert(Box::from(word), child)),
        }
        child
    }

    fn node(&self, place: Place) -> &Node {
        &self.nodes[place.0 as usize]
    }

    fn node_mut(&mut self, place: Place) -> &mut Node {
        &mut self.nodes[place.0 as usize]
    }
}

/// The words of a key or pattern, between dots.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    // The empty key has no words, where splitting would give one empty word.
    let some = (!key.is_empty()).then_some(key);
    some.into_iter()
        .flat_map(|key| key.split(|octet| *octet == b'.'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::test_queue;
    use super::*;

    fn matches(pattern: &[u8], key: &[u8]) -> bool {
        let mut table = TopicTable::default();
        table.bind(pattern, Destination::Queue(test_queue(1)));
        let mut found = Vec::new();
        table.route(key, &mut found);
        !found.is_empty()
    }

    /// What a pattern means, said as plainly as possible.
    fn matches_naively(pattern: &[&[u8]], key: &[&[u8]]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            ([b"#", rest @ ..], key) => {
                (0..=key.len()).any(|taken| matches_naively(rest, &key[taken..]))
            }
            ([b"*", pattern @ ..], [_, key @ ..]) => matches_naively(pattern, key),
            ([word, pattern @ ..], [first, key @ ..]) => {
                word == first && matches_naively(pattern, key)
            }
            ([], [..]) | ([..], []) => false,
        }
    }

    /// The recorded answers of RabbitMQ to keys at the edge.
    #[test]
    fn empty_words_count_and_the_empty_key_has_none() {
        for (pattern, key, expected) in [
            ("#", "", true),
            ("#.#", "", true),
            ("*", "", false),
            ("", "", true),
            ("*", ".", false),
            ("*.*", ".", true),
            ("#", ".", true),
            ("a.*", "a.", true),
            ("a.#", "a", true),
            ("a.#", "a.", true),
            ("a", "a.", false),
            ("*.stock.#", "us.stock.nyse.x", true),
            ("*.stock.#", "stock.nyse", false),
            ("#.a.#.a.#", "a.b.a", true),
            ("#.a.#.a.#", "a.b", false),
            ("a.*", "a.#", true),
            ("a.b", "a.*", false),
        ] {
            let found = matches(pattern.as_bytes(), key.as_bytes());
            assert_eq!(found, expected, "{pattern:?} {key:?}");
        }
    }

    /// One pattern of many `#` against a long key: the places stay few, so this ends.
    #[test]
    fn many_hashes_do_not_multiply() {
        let pattern = b"#.a.".repeat(30);
        let key = b"a.".repeat(120);
        assert!(!matches(
            &pattern[..pattern.len() - 1],
            &[&key[..], b"b"].concat()
        ));
    }

    #[test]
    fn unbinding_leaves_nothing_behind() {
        let mut table = TopicTable::default();
        let queue = Destination::Queue(test_queue(1));
        for pattern in [&b"a.b.c"[..], b"a.*.#", b"", b"#"] {
            table.bind(pattern, queue.clone());
        }
        for pattern in [&b"a.b.c"[..], b"a.*.#", b"", b"#"] {
            table.unbind(pattern, queue.id());
        }
        assert!(table.node(ROOT).is_unused());
        assert_eq!(table.free.len() + 1, table.nodes.len());
    }

    fn word() -> impl Strategy<Value = &'static str> {
        prop::sample::select(&["a", "b", "*", "#", "#", ""][..])
    }

    fn key() -> impl Strategy<Value = String> {
        prop::collection::vec(word(), 0..6).prop_map(|words| words.join("."))
    }

    proptest! {
        /// Binds and unbinds patterns and compares every lookup with the plain meaning.
        #[test]
        fn the_trie_agrees_with_the_plain_meaning(
            patterns in prop::collection::vec((key(), any::<bool>()), 0..20),
            keys in prop::collection::vec(key(), 1..10),
        ) {
            let mut table = TopicTable::default();
            for (id, (pattern, _)) in patterns.iter().enumerate() {
                table.bind(pattern.as_bytes(), Destination::Queue(test_queue(id as u64)));
            }
            for (id, (pattern, keep)) in patterns.iter().enumerate() {
                if !keep {
                    table.unbind(pattern.as_bytes(), DestinationId::Queue(id as u64));
                }
            }
            for key in &keys {
                let mut found = Vec::new();
                table.route(key.as_bytes(), &mut found);
                let mut found: Vec<_> = found.iter().map(Destination::id).collect();
                found.sort();
                let key: Vec<_> = words(key.as_bytes()).collect();
                let expected: Vec<_> = patterns.iter().enumerate()
                    .filter(|(_, (pattern, keep))| {
                        let pattern: Vec<_> = words(pattern.as_bytes()).collect();
                        *keep && matches_naively(&pattern, &key)
                    })
                    .map(|(id, _)| DestinationId::Queue(id as u64))
                    .collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
