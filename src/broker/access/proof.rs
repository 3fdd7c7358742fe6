//! Checking passwords whose hashes are slow on purpose, without slowing down those who log in often.
//!
//! Owns: what was proven: for each user a fast hash, under a key that lives as long as the process, of the
//! stored hash and the password that matched it. A changed password is another stored hash, so nothing is to
//! be forgotten. Knows no account.
//! Bounds: one slow check at a time, which bounds their memory; [`WAITING_MAX`] that wait for it; one entry
//! for each user that ever logged in.

use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use parking_lot::Mutex;
use subtle::ConstantTimeEq as _;

use super::password::{HashAlgorithm, PasswordHash};
use crate::broker::name::Name;

/// Slow checks that wait or run; beyond it a login is refused, since whoever guesses must not hold up all.
const WAITING_MAX: usize = 16;

/// What was proven.
pub(super) struct Proofs {
    key: [u8; 32],
    proven: DashMap<Name, [u8; 32]>,
    /// Held by who checks.
    gate: Mutex<()>,
    waiting: AtomicUsize,
}

impl Proofs {
    pub(super) fn new(seed: &[u8; 32]) -> Self {
        Self {
            key: blake3::derive_key("warren 2026 proven passwords", seed),
            proven: DashMap::new(),
            gate: Mutex::new(()),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Whether `hash` is that of `password`; at once, unless the hash is a slow one and this password was not
    /// proven before.
    pub(super) fn check(&self, name: &Name, hash: &PasswordHash, password: &[u8]) -> bool {
        if hash.algorithm() != HashAlgorithm::Argon2id {
            return hash.matches(password);
        }
        let proof = self.proof(hash, password);
        let is_proven = || self.is_proven(name, &proof);
        if is_proven() {
            return true;
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            tracing::warn!(user = %name, "too many passwords are being checked; a login is refused");
            return false;
        }
        let is_right = {
            let _checking = self.gate.lock();
            // Whoever waited may have waited for the same.
            is_proven() || hash.matches(password)
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        if is_right {
            self.proven.insert(name.clone(), proof);
        }
        is_right
    }

    /// Whether [`Self::check`] would take its time.
    pub(super) fn takes_long(&self, name: &Name, hash: &PasswordHash, password: &[u8]) -> bool {
        hash.algorithm() == HashAlgorithm::Argon2id
            && !self.is_proven(name, &self.proof(hash, password))
    }

    fn is_proven(&self, name: &Name, proof: &[u8; 32]) -> bool {
        let proven = self.proven.get(name);
        proven.is_some_and(|proven| proven.ct_eq(proof).into())
    }

    pub(super) fn forget(&self, name: &Name) {
        self.proven.remove(name);
    }

    fn proof(&self, hash: &PasswordHash, password: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        // The hash has a fixed length, so the two cannot be told apart wrongly.
        hasher.update(hash.as_bytes()).update(password);
        *hasher.finalize().as_bytes()
    }
}

impl std::fmt::Debug for Proofs {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Proofs(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was proven stays proven for this password and this hash, and for no other.
    #[test]
    fn a_proof_is_of_one_password_and_one_hash() {
        let proofs = Proofs::new(&[1; 32]);
        let name = Name::from("u");
        let hash = PasswordHash::slow(b"secret", [7; 16]);
        assert!(!proofs.check(&name, &hash, b"other"));
        assert!(proofs.proven.is_empty());
        assert!(proofs.takes_long(&name, &hash, b"secret"));
        assert!(proofs.check(&name, &hash, b"secret"));
        assert!(!proofs.takes_long(&name, &hash, b"secret"));
        assert!(proofs.takes_long(&name, &hash, b"other"));
        // Held by another: only what was proven gets by.
        let checking = proofs.gate.lock();
        assert!(proofs.check(&name, &hash, b"secret"));
        proofs.waiting.store(WAITING_MAX, Ordering::Relaxed);
        assert!(!proofs.check(&name, &hash, b"other"));
        drop(checking);
        proofs.waiting.store(0, Ordering::Relaxed);
        let changed = PasswordHash::slow(b"changed", [7; 16]);
        assert!(!proofs.check(&name, &changed, b"secret"));
        assert!(proofs.check(&name, &changed, b"changed"));
        let fast = PasswordHash::new(b"fast", [7; 4]);
        assert!(!proofs.takes_long(&name, &fast, b"fast"));
        proofs.forget(&name);
        assert!(proofs.proven.is_empty());
    }
}
