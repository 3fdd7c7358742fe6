//! Salted hashes of passwords, as RabbitMQ keeps and exports them.
//!
//! Owns: `salt | hash(salt | password)` with SHA-256, or SHA-512 where it came so. Knows no account.
//! Spec: RabbitMQ, "Passwords": the algorithm is known by the hash's length.

use std::fmt;

use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

/// Length of the salt in front of a password's hash, in bytes (RabbitMQ's format).
pub const SALT_BYTES: usize = 4;
const SHA256_BYTES: usize = 32;
const SHA512_BYTES: usize = 64;

/// What a password was hashed with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HashAlgorithm {
    /// SHA-256, which new passwords get.
    #[default]
    Sha256,
    /// SHA-512.
    Sha512,
}

impl HashAlgorithm {
    /// RabbitMQ's name of the module behind it, as in definitions.
    #[must_use]
    pub fn module_name(self) -> &'static str {
        match self {
            Self::Sha256 => "rabbit_password_hashing_sha256",
            Self::Sha512 => "rabbit_password_hashing_sha512",
        }
    }

    /// The algorithm of this name; none for MD5 and what nobody knows.
    #[must_use]
    pub fn from_module_name(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512]
            .into_iter()
            .find(|algorithm| algorithm.module_name() == name)
    }

    fn hash_bytes(self) -> usize {
        match self {
            Self::Sha256 => SHA256_BYTES,
            Self::Sha512 => SHA512_BYTES,
        }
    }
}

/// A salted hash of a password, as RabbitMQ keeps it.
#[derive(Clone, Eq, PartialEq)]
pub struct PasswordHash(Vec<u8>);

impl PasswordHash {
    /// Hashes a password.
    #[must_use]
    pub fn new(password: &[u8], salt: [u8; SALT_BYTES]) -> Self {
        let mut bytes = salt.to_vec();
        bytes.extend_from_slice(&digest::<Sha256>(&salt, password));
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
        (bytes.len() == SALT_BYTES + algorithm.hash_bytes()).then(|| Self::from_bytes(bytes))
    }

    /// Salt and hash, for export; base64 of it is RabbitMQ's `password_hash`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What it was made with, by its length.
    #[must_use]
    pub fn algorithm(&self) -> HashAlgorithm {
        match self.0.len() == SALT_BYTES + SHA512_BYTES {
            true => HashAlgorithm::Sha512,
            false => HashAlgorithm::Sha256,
        }
    }

    /// Whether this is the hash of `password`; takes as long whatever the answer.
    #[must_use]
    pub fn matches(&self, password: &[u8]) -> bool {
        let Some((salt, hash)) = self.0.split_at_checked(SALT_BYTES) else {
            return false;
        };
        let expected = match self.algorithm() {
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
