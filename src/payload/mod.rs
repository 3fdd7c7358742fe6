//! Payloads: BLAKE3 pieces, manifests and the content-addressed store.
