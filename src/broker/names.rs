//! Names that the broker makes up.
//!
//! Owns: a secret seed and a counter. The seed comes from outside, so that a broker of the same seed
//! makes the same names; without it nobody can guess the next one.

use std::sync::atomic::{AtomicU64, Ordering};

/// Makes names that were never given before.
pub(crate) struct NameMaker {
    seed: [u8; 32],
    count: AtomicU64,
}

/// Octets behind the prefix, as in RabbitMQ.
const GENERATED_CHARS: usize = 22;

impl NameMaker {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self {
            seed,
            count: AtomicU64::new(0),
        }
    }

    /// `prefix` and 22 characters of base64 as URLs use it.
    pub(crate) fn name(&self, prefix: &str) -> String {
        let bytes = self.bytes();
        let mut name = String::with_capacity(prefix.len() + GENERATED_CHARS);
        name.push_str(prefix);
        let mut bits = 0_u32;
        let mut bit_count = 0;
        for byte in bytes {
            bits = (bits << 8) | u32::from(byte);
            bit_count += 8;
            while bit_count >= 6 && name.len() < prefix.len() + GENERATED_CHARS {
                bit_count -= 6;
                name.push(char::from(
                    ALPHABET[(bits >> bit_count) as usize % ALPHABET.len()],
                ));
            }
        }
        name
    }

    /// Four bytes for a password's salt.
    pub(crate) fn salt(&self) -> [u8; 4] {
        let [a, b, c, d, ..] = self.bytes();
        [a, b, c, d]
    }

    /// Sixteen bytes for the salt of a slow hash.
    pub(crate) fn long_salt(&self) -> [u8; 16] {
        let bytes = self.bytes();
        std::array::from_fn(|index| bytes.get(index).copied().unwrap_or_default())
    }

    /// A number that nobody can guess, for a generator of choices.
    pub(crate) fn seed(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    fn bytes(&self) -> [u8; 32] {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        *blake3::keyed_hash(&self.seed, &count.to_le_bytes()).as_bytes()
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl std::fmt::Debug for NameMaker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("NameMaker")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_have_the_length_of_rabbitmqs_and_do_not_repeat() {
        let maker = NameMaker::new([7; 32]);
        let names: HashSet<_> = (0..1_000).map(|_| maker.name("amq.gen-")).collect();
        assert_eq!(names.len(), 1_000);
        for name in &names {
            assert_eq!(name.len(), 30, "{name}");
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_names() {
        let name = |seed| NameMaker::new([seed; 32]).name("amq.ctag-");
        assert_eq!(name(1), name(1));
        assert_ne!(name(1), name(2));
    }
}
