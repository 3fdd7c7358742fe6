//! Proves an access key without showing it, and makes the nonces that the proof is fresh by.
//!
//! Owns: what is hashed. A proof covers role, both nonces, both node ids, the payload and the channel
//! binding, so it cannot be replayed, reflected or moved. Nothing here is ever logged.
//! Spec: `spec/peer-protocol.md` section 2, PEER-8.

use subtle::ConstantTimeEq;

use crate::payload::{AccessKey, PayloadId};
use crate::swarm::wire::NodeId;

/// Separates this use of the access key from every other.
const CONTEXT: &str = "warren 2026 peer proof v1";

/// Which end of the connection one is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// This side opened the connection.
    Dialler,
    /// This side accepted it.
    Listener,
}

impl Role {
    /// The role of the other end.
    pub const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Listener,
            Self::Listener => Self::Dialler,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Dialler => 0,
            Self::Listener => 1,
        }
    }
}

/// What the transport adds to a proof: on TLS 1.3 the exporter's value, on plain TCP what each side said of TLS.
///
/// The default is plain TCP. Its `Debug` shows no value.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct ChannelBinding {
    value: [u8; 32],
    /// The node whose key the TLS handshake has proven.
    peer: Option<NodeId>,
}

impl ChannelBinding {
    /// The binding of a TLS connection to the node with this id.
    pub const fn tls(exporter: [u8; 32], peer: NodeId) -> Self {
        Self {
            value: exporter,
            peer: Some(peer),
        }
    }

    /// The node whose key the transport has proven; `None` on plain TCP.
    pub const fn peer(&self) -> Option<NodeId> {
        self.peer
    }

    /// The binding of a plain connection whose sides have said this of TLS: who changes their words on the way
    /// breaks the proofs.
    // req: PEER-17
    pub(crate) fn with_words(self, dialler_takes_tls: bool, listener_takes_tls: bool) -> Self {
        if self.peer.is_some() {
            return self;
        }
        let mut value = [0; 32];
        value[0] = u8::from(dialler_takes_tls);
        value[1] = u8::from(listener_takes_tls);
        Self { value, ..self }
    }
}

impl std::fmt::Debug for ChannelBinding {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ChannelBinding")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// One side of a connection, as a proof names it.
#[derive(Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) node: &'a NodeId,
    pub(crate) nonce: &'a [u8; 32],
}

/// The proof by `prover`, which has `role`, to `verifier`.
pub(crate) fn prove(
    key: &AccessKey,
    role: Role,
    prover: Side<'_>,
    verifier: Side<'_>,
    payload: &PayloadId,
    binding: &ChannelBinding,
) -> [u8; 32] {
    // req: PEER-8
    let key = blake3::derive_key(CONTEXT, key.expose());
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(&[role.code()]);
    hasher.update(prover.nonce);
    hasher.update(verifier.nonce);
    hasher.update(prover.node.as_bytes());
    hasher.update(verifier.node.as_bytes());
    hasher.update(payload.as_bytes());
    hasher.update(&binding.value);
    *hasher.finalize().as_bytes()
}

/// Whether two proofs are equal, in constant time.
pub(crate) fn equal(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.ct_eq(right).into()
}

/// Nonces and tie-breaking numbers from one secret seed: never the same twice, not to be guessed.
pub(crate) struct Random {
    seed: [u8; 32],
    counter: u64,
    state: u64,
}

impl Random {
    /// `seed` must come from a secure source, except in simulations.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let mut random = Self {
            seed,
            counter: 0,
            state: 0,
        };
        let first = random.nonce();
        let mut state = [0; 8];
        state.copy_from_slice(&first[..8]);
        random.state = u64::from_le_bytes(state);
        random
    }

    /// 32 bytes for one connection.
    pub(crate) fn nonce(&mut self) -> [u8; 32] {
        self.counter += 1;
        *blake3::keyed_hash(&self.seed, &self.counter.to_le_bytes()).as_bytes()
    }

    /// A number to break ties with; fast and of no secrecy.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }
}

/// Spreads the bits of `value` (the finaliser of splitmix64).
pub(crate) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Changing anything a proof covers changes the proof.
    // req: PEER-8
    #[test]
    fn proof_is_bound_to_everything_it_names() {
        let key = AccessKey::from_bytes([1; 32]);
        let (a, b) = (NodeId::from_bytes([2; 32]), NodeId::from_bytes([3; 32]));
        let a = Side {
            node: &a,
            nonce: &[4; 32],
        };
        let b = Side {
            node: &b,
            nonce: &[5; 32],
        };
        let payload = PayloadId::from_bytes([6; 32]);
        let plain = ChannelBinding::default();
        let proof = prove(&key, Role::Dialler, a, b, &payload, &plain);
        assert!(equal(
            &proof,
            &prove(&key, Role::Dialler, a, b, &payload, &plain)
        ));
        let other_nonce = Side {
            nonce: &[7; 32],
            ..b
        };
        let others = [
            prove(
                &AccessKey::from_bytes([9; 32]),
                Role::Dialler,
                a,
                b,
                &payload,
                &plain,
            ),
            prove(&key, Role::Listener, a, b, &payload, &plain),
            prove(&key, Role::Dialler, b, a, &payload, &plain),
            prove(&key, Role::Dialler, a, other_nonce, &payload, &plain),
            prove(
                &key,
                Role::Dialler,
                a,
                b,
                &PayloadId::from_bytes([8; 32]),
                &plain,
            ),
            prove(
                &key,
                Role::Dialler,
                a,
                b,
                &payload,
                &ChannelBinding::tls([1; 32], NodeId::from_bytes([1; 32])),
            ),
        ];
        for other in others {
            assert!(!equal(&proof, &other));
        }
    }

    /// One seed gives many different nonces, and the same ones again.
    #[test]
    fn nonces_do_not_repeat() {
        let mut random = Random::new([1; 32]);
        let nonces: std::collections::BTreeSet<_> = (0..100).map(|_| random.nonce()).collect();
        assert_eq!(nonces.len(), 100);
        assert_eq!(Random::new([1; 32]).next(), Random::new([1; 32]).next());
    }
}
