//! Payloads: BLAKE3 pieces, manifests and the content-addressed store.
//!
//! Owns: what a large body is once it is no longer a string of frames: its id, its pieces and their
//! hashes, the manifest that stands for it, and the files that hold it. Knows nothing of sockets,
//! queues or time; files are reached through [`crate::disk::Disk`] alone.
//! Spec: `spec/manifest.md` (MANIFEST, PIECE), `spec/payload-store.md` (STORE).

pub mod bitfield;
pub mod geometry;
pub mod hash;
pub mod id;
pub mod manifest;
pub mod message;
pub mod priority;
pub mod store;
pub mod writer;

pub use bitfield::{Bitfield, BitfieldError};
pub use geometry::{BlockRange, Geometry, GeometryError, PieceBytes, PieceIndex};
pub use hash::{PayloadHasher, PieceHasher};
pub use id::{AccessKey, ParseHexError, PayloadId, PieceHash, ScopeId};
pub use manifest::{Hints, Manifest, ManifestError, ManifestParts};
pub use priority::{Priority, PriorityError};
pub use store::{Store, StoreError, StoreSettings, StoredPayload};
