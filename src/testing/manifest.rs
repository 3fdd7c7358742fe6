//! Manifests of given bytes.
//!
//! Owns: what every test of a payload wants first; one that wants another name, key or peers changes the parts.

use crate::payload::{AccessKey, Geometry, Hints, Manifest, ManifestParts, PayloadHasher};

/// What a manifest of `bytes` is made of, in pieces of the usual size: with a key, and without a name or peers.
///
/// # Panics
/// If there are no bytes.
pub fn manifest_parts(bytes: &[u8]) -> ManifestParts {
    let geometry = Geometry::for_payload(bytes.len() as u64).expect("a size that is allowed");
    let mut hasher = PayloadHasher::new(geometry);
    hasher.update(bytes);
    let (id, piece_hashes) = hasher.finish().expect("all bytes came");
    ManifestParts {
        id,
        geometry,
        piece_hashes,
        peers: Vec::new(),
        key: AccessKey::from_bytes([9; 32]),
        name: None,
        content_type: None,
        hints: Hints::default(),
    }
}

/// The manifest that is made of [`manifest_parts`].
///
/// # Panics
/// If there are no bytes.
pub fn manifest_of(bytes: &[u8]) -> Manifest {
    Manifest::new(manifest_parts(bytes)).expect("the hashes merge to the id")
}
