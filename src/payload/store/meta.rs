//! The metadata file beside a payload.
//!
//! Owns: its bytes. The head can be read without the piece hashes, so that a start with many
//! payloads reads little. Bound: heads of 630 bytes, hashes of 2 MiB.
//! Spec: `spec/payload-store.md` "Metadata", STORE-5.

use std::path::Path;

use crate::disk::{Disk, OpenMode};
use crate::payload::geometry::{Geometry, PieceBytes};
use crate::payload::id::{AccessKey, HASH_BYTES, PayloadId, PieceHash};
use crate::payload::manifest::{
    CONTENT_TYPE_BYTES_MAX, Hints, Manifest, ManifestParts, NAME_BYTES_MAX,
};
use crate::payload::store::error::StoreError;

const MAGIC: &[u8; 8] = b"WARRENP1";
/// Magic, checksum, text size and two reserved bytes.
const PREFIX_BYTES: usize = 16;
/// Id, size, piece size, key and the two text sizes.
const FIXED_BYTES: usize = HASH_BYTES + 8 + 4 + HASH_BYTES + 2 + 2;
const TEXT_BYTES_MAX: usize = NAME_BYTES_MAX + CONTENT_TYPE_BYTES_MAX;
const HEAD_BYTES_MAX: usize = PREFIX_BYTES + FIXED_BYTES + TEXT_BYTES_MAX;
/// Text size that stands for no text.
const NO_TEXT: u16 = u16::MAX;

/// What metadata says without the piece hashes.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) id: PayloadId,
    pub(super) geometry: Geometry,
    pub(super) key: AccessKey,
    pub(super) name: Option<String>,
    pub(super) content_type: Option<String>,
    /// Where the piece hashes begin in the file.
    hashes_at_bytes: u64,
}

/// The whole metadata file of a payload.
pub(super) fn encode(manifest: &Manifest) -> Vec<u8> {
    let texts = [manifest.name(), manifest.content_type()];
    let text_bytes: usize = texts.iter().flatten().map(|text| text.len()).sum();
    let hash_bytes = manifest.piece_hashes().len() * HASH_BYTES;
    let mut head = Vec::with_capacity(FIXED_BYTES + text_bytes);
    head.extend_from_slice(manifest.id().as_bytes());
    head.extend_from_slice(&manifest.geometry().size_bytes().to_be_bytes());
    head.extend_from_slice(&manifest.geometry().piece_bytes().get().to_be_bytes());
    head.extend_from_slice(manifest.key().expose());
    for text in texts {
        let size = text.map_or(NO_TEXT, |text| u16::try_from(text.len()).unwrap_or(NO_TEXT));
        head.extend_from_slice(&size.to_be_bytes());
    }
    for text in texts.into_iter().flatten() {
        head.extend_from_slice(text.as_bytes());
    }
    // A manifest bounds both texts to 255 bytes.
    let text_size = u16::try_from(text_bytes).unwrap_or(NO_TEXT).to_be_bytes();
    let mut file = Vec::with_capacity(PREFIX_BYTES + head.len() + hash_bytes);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&checksum(text_size, &head).to_be_bytes());
    file.extend_from_slice(&text_size);
    file.extend_from_slice(&[0, 0]);
    file.extend_from_slice(&head);
    for hash in manifest.piece_hashes() {
        file.extend_from_slice(hash.as_bytes());
    }
    file
}

/// Reads the head of the metadata file at `path`, which must be of payload `id`.
pub(super) fn read_head(disk: &dyn Disk, path: &Path, id: PayloadId) -> Result<Head, StoreError> {
    let io = |source| StoreError::io("read", path, source);
    let file = disk.open(path, OpenMode::Read).map_err(io)?;
    let mut bytes = [0; HEAD_BYTES_MAX];
    let mut got_bytes = 0;
    while got_bytes < HEAD_BYTES_MAX {
        let (_, rest) = bytes.split_at_mut(got_bytes);
        match file.read_at(rest, got_bytes as u64).map_err(io)? {
            0 => break,
            count => got_bytes += count,
        }
    }
    let bytes = bytes.get(..got_bytes).unwrap_or(&bytes);
    decode_head(bytes)
        .filter(|head| head.id == id)
        .ok_or(StoreError::Damaged {
            id,
            reason: "its metadata is not whole",
        })
}

/// Reads the whole metadata file at `path`, which must be of payload `id`, and checks the hashes.
pub(super) fn read_manifest(
    disk: &dyn Disk,
    path: &Path,
    id: PayloadId,
) -> Result<Manifest, StoreError> {
    // req: STORE-5
    let head = read_head(disk, path, id)?;
    let io = |source| StoreError::io("read", path, source);
    let file = disk.open(path, OpenMode::Read).map_err(io)?;
    // At most 65,536 hashes: the geometry was checked.
    let mut bytes = vec![0; head.geometry.piece_count() as usize * HASH_BYTES];
    file.read_exact_at(&mut bytes, head.hashes_at_bytes)
        .map_err(io)?;
    let (chunks, _) = bytes.as_chunks::<HASH_BYTES>();
    let piece_hashes = chunks
        .iter()
        .map(|chunk| PieceHash::from_bytes(*chunk))
        .collect();
    let Head {
        id,
        geometry,
        key,
        name,
        content_type,
        ..
    } = head;
    let peers = Vec::new();
    let parts = ManifestParts {
        id,
        geometry,
        piece_hashes,
        peers,
        key,
        name,
        content_type,
        // What the sender wished is in the message alone, as its peers are.
        hints: Hints::default(),
    };
    Manifest::new(parts).map_err(|_| StoreError::Damaged {
        id,
        reason: "its hashes do not merge",
    })
}

fn checksum(text_size: [u8; 2], head: &[u8]) -> u32 {
    let prefix = crc32c::crc32c_append(crc32c::crc32c(MAGIC), &text_size);
    crc32c::crc32c_append(prefix, head)
}

/// `None` for anything that [`encode`] does not write.
fn decode_head(bytes: &[u8]) -> Option<Head> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let (text_size, rest) = rest.split_first_chunk::<2>()?;
    let (_reserved, rest) = rest.split_first_chunk::<2>()?;
    let text_bytes = usize::from(u16::from_be_bytes(*text_size));
    let head = rest.get(..FIXED_BYTES + text_bytes)?;
    if magic != MAGIC || checksum(*text_size, head) != u32::from_be_bytes(*crc) {
        return None;
    }
    let (id, rest) = head.split_first_chunk::<HASH_BYTES>()?;
    let (size_bytes, rest) = rest.split_first_chunk::<8>()?;
    let (piece_bytes, rest) = rest.split_first_chunk::<4>()?;
    let (key, rest) = rest.split_first_chunk::<HASH_BYTES>()?;
    let (name_size, rest) = rest.split_first_chunk::<2>()?;
    let (content_type_size, rest) = rest.split_first_chunk::<2>()?;
    let (name, rest) = split_text(u16::from_be_bytes(*name_size), rest)?;
    let (content_type, rest) = split_text(u16::from_be_bytes(*content_type_size), rest)?;
    let piece_bytes = PieceBytes::new(u64::from(u32::from_be_bytes(*piece_bytes))).ok()?;
    let geometry = Geometry::new(u64::from_be_bytes(*size_bytes), piece_bytes).ok()?;
    rest.is_empty().then(|| Head {
        id: PayloadId::from_bytes(*id),
        geometry,
        key: AccessKey::from_bytes(*key),
        name,
        content_type,
        hashes_at_bytes: (PREFIX_BYTES + head.len()) as u64,
    })
}

fn split_text(size: u16, bytes: &[u8]) -> Option<(Option<String>, &[u8])> {
    if size == NO_TEXT {
        return Some((None, bytes));
    }
    let (text, rest) = bytes.split_at_checked(usize::from(size))?;
    Some((Some(str::from_utf8(text).ok()?.to_owned()), rest))
}
