//! Salted hashes of passwords.
//!
//! Owns: two forms, told apart by their length. RabbitMQ's is `salt | hash(salt | password)` with SHA-256 or
//! SHA-512. Our own is slow on purpose, so that a stolen store says little: argon2id, as
//! `memory in KiB u32 | passes u32 | lanes u32 | salt, 16 bytes | hash, 32 bytes`. Knows no account.
//! Bounds: what an imported hash may cost, [`MEMORY_KIB_MAX`] and the two behind it.
//! Spec: RabbitMQ, "Passwords"; RFC 9106; OWASP's least cost for argon2id.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

/// Length of the salt in front of a password's hash, in bytes (RabbitMQ's format).
pub const SALT_BYTES: usize = 4;
/// Length of the salt of an argon2id hash, in bytes.
pub(crate) const LONG_SALT_BYTES: usize = 16;
const ARGON2_HASH_BYTES: usize = 32;
const ARGON2_BYTES: usize = 12 + LONG_SALT_BYTES + ARGON2_HASH_BYTES;
/// What a new hash costs: memory in KiB, passes over it, lanes.
const COST: (u32, u32, u32) = (19 * 1_024, 2, 1);
/// Most that checking an imported hash may cost; one that costs more matches nothing.
const MEMORY_KIB_MAX: u32 = 128 * 1_024;
const PASSES_MAX: u32 = 8;
const LANES_MAX: u32 = 8;
const SHA256_BYTES: usize = 32;
const SHA512_BYTES: usize = 64;

/// What a password was hashed with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HashAlgorithm {
    /// Argon2id, which new passwords get.
    #[default]
    Argon2id,
    /// SHA-256, which RabbitMQ can read.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl HashAlgorithm {
    /// RabbitMQ's name of the module behind it, as in definitions.
    #[must_use]
    pub fn module_name(self) -> &'static str {
        match self {
            Self::Argon2id => "argon2id",
            Self::Sha256 => "rabbit_password_hashing_sha256",
            Self::Sha512 => "rabbit_password_hashing_sha512",
        }
    }

    /// The algorithm of this name; none for MD5 and what nobody knows.
    #[must_use]
    pub fn from_module_name(name: &str) -> Option<Self> {
        [Self::Argon2id, Self::Sha256, Self::Sha512]
            .into_iter()
            .find(|algorithm| algorithm.module_name() == name)
    }

    fn all_bytes(self) -> usize {
        match self {
            Self::Argon2id => ARGON2_BYTES,
            Self::Sha256 => SALT_BYTES + SHA256_BYTES,
            Self::Sha512 => SALT_BYTES + SHA512_BYTES,
        }
    }
}

/// A salted hash of a password, as RabbitMQ keeps it.
#[derive(Clone, Eq, PartialEq)]
pub struct PasswordHash(Vec<u8>);

impl PasswordHash {
    /// Hashes a password as RabbitMQ does, with SHA-256.
    #[must_use]
    pub fn new(password: &[u8], salt: [u8; SALT_BYTES]) -> Self {
        let mut bytes = salt.to_vec();
        bytes.extend_from_slice(&digest::<Sha256>(&salt, password));
        Self(bytes)
    }

    /// Hashes a password with argon2id, which takes tens of milliseconds and 19 MiB.
    #[must_use]
    pub fn slow(password: &[u8], salt: [u8; LONG_SALT_BYTES]) -> Self {
        let (memory_kib, passes, lanes) = COST;
        let mut bytes = Vec::with_capacity(ARGON2_BYTES);
        for cost in [memory_kib, passes, lanes] {
            bytes.extend_from_slice(&cost.to_be_bytes());
        }
        bytes.extend_from_slice(&salt);
        // A password beyond 4 GiB gets a hash that matches nothing.
        let hash = argon2id(password, &salt, COST).unwrap_or_default();
        bytes.extend_from_slice(&hash);
        Self(bytes)
    }

    /// Takes a hash that was made elsewhere; one of another length matches no password.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Takes a hash made elsewhere, if it is as long as one of this algorithm is.
    #[must_use]
    pub fn imported(bytes: &[u8], algorithm: HashAlgorithm) -> Option<Self> {
        (bytes.len() == algorithm.all_bytes()).then(|| Self::from_bytes(bytes))
    }

    /// Salt and hash, for export; base64 of it is RabbitMQ's `password_hash`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What it was made with, by its length.
    #[must_use]
    pub fn algorithm(&self) -> HashAlgorithm {
        let length = self.0.len();
        match (
            length == ARGON2_BYTES,
            length == HashAlgorithm::Sha512.all_bytes(),
        ) {
            (true, _) => HashAlgorithm::Argon2id,
            (_, true) => HashAlgorithm::Sha512,
            (false, false) => HashAlgorithm::Sha256,
        }
    }

    /// Whether this is the hash of `password`; takes as long whatever the answer.
    #[must_use]
    pub fn matches(&self, password: &[u8]) -> bool {
        let Some((salt, hash)) = self.0.split_at_checked(SALT_BYTES) else {
            return false;
        };
        let expected = match self.algorithm() {
            HashAlgorithm::Argon2id => return matches_slow(&self.0, password).unwrap_or(false),
            HashAlgorithm::Sha256 => digest::<Sha256>(salt, password),
            HashAlgorithm::Sha512 => digest::<Sha512>(salt, password),
        };
        expected.ct_eq(hash).into()
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PasswordHash(..)")
    }
}

/// `None` for what is cut off or costs too much.
fn matches_slow(bytes: &[u8], password: &[u8]) -> Option<bool> {
    let (memory_kib, rest) = bytes.split_first_chunk()?;
    let (passes, rest) = rest.split_first_chunk()?;
    let (lanes, rest) = rest.split_first_chunk()?;
    let (salt, hash) = rest.split_first_chunk::<LONG_SALT_BYTES>()?;
    let cost = (
        u32::from_be_bytes(*memory_kib),
        u32::from_be_bytes(*passes),
        u32::from_be_bytes(*lanes),
    );
    if cost.0 > MEMORY_KIB_MAX || cost.1 > PASSES_MAX || cost.2 > LANES_MAX {
        return None;
    }
    let expected = argon2id(password, salt, cost)?;
    Some(expected.ct_eq(hash).into())
}

fn argon2id(
    password: &[u8],
    salt: &[u8; LONG_SALT_BYTES],
    (memory_kib, passes, lanes): (u32, u32, u32),
) -> Option<[u8; ARGON2_HASH_BYTES]> {
    let params = Params::new(memory_kib, passes, lanes, Some(ARGON2_HASH_BYTES)).ok()?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut hash = [0; ARGON2_HASH_BYTES];
    argon2.hash_password_into(password, salt, &mut hash).ok()?;
    Some(hash)
}

fn digest<D: Digest>(salt: &[u8], password: &[u8]) -> Vec<u8> {
    let mut hasher = D::new();
    hasher.update(salt);
    hasher.update(password);
    hasher.finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector that RabbitMQ's documentation gives.
    #[test]
    fn the_hash_is_that_of_rabbitmq() {
        let hash = PasswordHash::new(b"test12", [0x90, 0x8d, 0xc6, 0x0a]);
        let expected = [
            0x90, 0x8d, 0xc6, 0x0a, 0xa5, 0xb9, 0x24, 0xb3, 0x09, 0x6b, 0x88, 0x97, 0xd6, 0x5a,
            0x3b, 0x5f, 0x80, 0xfa, 0x5d, 0xb6, 0x2a, 0x94, 0xb8, 0x31, 0x22, 0xcd, 0xf4, 0xf8,
            0xfe, 0xad, 0x10, 0xd5, 0x15, 0xd8, 0xf3, 0x91,
        ];
        assert!(hash.matches(b"test12"));
        assert!(!hash.matches(b"test13"));
        assert_eq!(hash.as_bytes(), expected);
    }

    /// Other passwords, and bytes changed anywhere, do not match, nor does what would cost too much.
    #[test]
    fn slow_hashes_match_their_password_alone() {
        let hash = PasswordHash::slow(b"secret", *b"0123456789abcdef");
        assert_eq!(hash.algorithm(), HashAlgorithm::Argon2id);
        assert!(hash.matches(b"secret") && !hash.matches(b"secrets"));
        let imported = PasswordHash::imported(hash.as_bytes(), HashAlgorithm::Argon2id);
        assert!(imported.is_some_and(|hash| hash.matches(b"secret")));
        for (at, octet) in [(0, 0xff), (7, 0), (11, 0), (12, 0), (59, 0)] {
            let mut bytes = hash.as_bytes().to_vec();
            bytes[at] = octet;
            let changed = PasswordHash::from_bytes(&bytes);
            assert!(
                bytes == hash.as_bytes() || !changed.matches(b"secret"),
                "{at}"
            );
        }
    }

    /// SHA-512 is told by its length; a hash of no known length is refused and matches nothing.
    #[test]
    fn imported_hashes_say_what_they_are_by_their_length() {
        let mut bytes = vec![1, 2, 3, 4];
        bytes.extend(digest::<Sha512>(&[1, 2, 3, 4], b"secret"));
        let hash = PasswordHash::imported(&bytes, HashAlgorithm::Sha512).expect("its length");
        assert_eq!(hash.algorithm(), HashAlgorithm::Sha512);
        assert!(hash.matches(b"secret") && !hash.matches(b"secrets"));
        assert!(PasswordHash::imported(&bytes, HashAlgorithm::Sha256).is_none());
        assert!(!PasswordHash::from_bytes(b"1234").matches(b""));
        assert!(!PasswordHash::from_bytes(b"").matches(b""));
    }
}
