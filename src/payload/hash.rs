//! Piece hashes as BLAKE3 subtree chaining values, and their merging to the payload id.
//!
//! Owns: the only use of `blake3::hazmat`. Every piece but the last has a power of two of BLAKE3's
//! 1 KiB chunks and begins at a multiple of its own size, so each is one subtree of the payload's
//! hash tree, and the tree above the pieces depends on their number alone:
//!
//! ```text
//!             id                 5 pieces: the left side of each node holds the greatest
//!           /    \               power of two of pieces that is less than all of its pieces
//!          .      \
//!        /   \     \
//!       .     .     \
//!      / \   / \     \
//!     0   1 2   3     4
//! ```
//! Bound: one hasher of 2 KiB; a piece is never held here.
//! Spec: `spec/manifest.md` PIECE-4 to PIECE-6.

use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::payload::geometry::{Geometry, PieceIndex};
use crate::payload::id::{PayloadId, PieceHash};

/// Hashes the bytes of one piece, which may come in any portions.
#[derive(Clone, Debug)]
pub struct PieceHasher {
    hasher: blake3::Hasher,
    left_bytes: u32,
    is_whole_payload: bool,
}

/// Hashes a payload from its first byte to its last: gives each piece's hash, then the id.
#[derive(Clone, Debug)]
pub struct PayloadHasher {
    geometry: Geometry,
    current: Option<PieceHasher>,
    piece_hashes: Vec<PieceHash>,
}

impl PieceHasher {
    /// A hasher for `piece` of a payload.
    pub fn new(geometry: &Geometry, piece: PieceIndex) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(geometry.piece_range(piece).start);
        Self {
            hasher,
            left_bytes: geometry.piece_len_bytes(piece),
            is_whole_payload: geometry.piece_count() == 1,
        }
    }

    /// Takes as many of `bytes` as the piece still lacks; answers how many.
    pub fn update(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.get(..self.left_bytes as usize).unwrap_or(bytes);
        self.hasher.update(taken);
        // `taken` is no longer than what is left, which is a `u32`.
        self.left_bytes = self.left_bytes.saturating_sub(taken.len() as u32);
        taken.len()
    }

    /// Bytes that the piece still lacks.
    pub const fn left_bytes(&self) -> u32 {
        self.left_bytes
    }

    /// The hash of the piece, once all of its bytes came; `None` before.
    pub fn finish(&self) -> Option<PieceHash> {
        if self.left_bytes > 0 {
            return None;
        }
        // req: PIECE-4
        let bytes = if self.is_whole_payload {
            *self.hasher.finalize().as_bytes()
        } else {
            self.hasher.finalize_non_root()
        };
        Some(PieceHash::from_bytes(bytes))
    }
}

impl PayloadHasher {
    /// A hasher for a payload of which nothing came yet.
    pub fn new(geometry: Geometry) -> Self {
        let current = geometry
            .piece_index(0)
            .map(|first| PieceHasher::new(&geometry, first));
        let piece_hashes = Vec::with_capacity(geometry.piece_count() as usize);
        Self {
            geometry,
            current,
            piece_hashes,
        }
    }

    /// Takes the next bytes; answers how many, which is fewer only where the payload ends.
    pub fn update(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(current) = &mut self.current {
            taken += current.update(bytes.get(taken..).unwrap_or(&[]));
            let Some(hash) = current.finish() else {
                break;
            };
            self.piece_hashes.push(hash);
            let next = u32::try_from(self.piece_hashes.len()).unwrap_or(u32::MAX);
            let next = self.geometry.piece_index(next);
            self.current = next.map(|piece| PieceHasher::new(&self.geometry, piece));
        }
        taken
    }

    /// Bytes that the payload still lacks.
    pub fn left_bytes(&self) -> u64 {
        let Some(current) = &self.current else {
            return 0;
        };
        let piece_bytes = u64::from(self.geometry.piece_bytes().get());
        let end = (self.piece_hashes.len() as u64 + 1) * piece_bytes;
        u64::from(current.left_bytes()) + self.geometry.size_bytes().saturating_sub(end)
    }

    /// The hashes of the pieces that are whole so far.
    pub fn piece_hashes(&self) -> &[PieceHash] {
        &self.piece_hashes
    }

    /// The id and the piece hashes, once all bytes came; `None` before.
    pub fn finish(self) -> Option<(PayloadId, Vec<PieceHash>)> {
        match self.current {
            None => Some((merge(&self.piece_hashes), self.piece_hashes)),
            Some(_) => None,
        }
    }
}

/// The hash of `piece`, if `blocks`, one after the other, are as long as it is.
pub fn piece_hash(
    geometry: &Geometry,
    piece: PieceIndex,
    blocks: &[impl AsRef<[u8]>],
) -> Option<PieceHash> {
    let mut hasher = PieceHasher::new(geometry, piece);
    for block in blocks {
        let block = block.as_ref();
        if hasher.update(block) != block.len() {
            return None;
        }
    }
    hasher.finish()
}

/// The payload id that these piece hashes make, in the order of the pieces. Spec: PIECE-5.
pub fn merge(piece_hashes: &[PieceHash]) -> PayloadId {
    // req: MANIFEST-1, PIECE-5, PIECE-6
    let bytes = match piece_hashes {
        [] => *blake3::hash(&[]).as_bytes(),
        [only] => *only.as_bytes(),
        _ => {
            let (left, right) = piece_hashes.split_at(left_count(piece_hashes.len()));
            *merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
        }
    };
    PayloadId::from_bytes(bytes)
}

/// The chaining value above `hashes`, of which there is one at least; recurses at most 16 deep.
fn subtree(hashes: &[PieceHash]) -> [u8; 32] {
    debug_assert!(!hashes.is_empty(), "both sides of a node have pieces");
    if let [only] = hashes {
        return *only.as_bytes();
    }
    let (left, right) = hashes.split_at(left_count(hashes.len()));
    merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
}

/// Of `count` pieces under one node, how many its left side holds: the greatest power of two below
/// `count`, which is at least 2.
fn left_count(count: usize) -> usize {
    count.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload::geometry::PieceBytes;

    const PIECE: usize = 16 * 1024;

    fn bytes_of(len: usize) -> Vec<u8> {
        (0..len)
            .map(|index| (index % 251) as u8 ^ (index / 4096) as u8)
            .collect()
    }

    fn geometry(size_bytes: usize, piece_bytes: usize) -> Geometry {
        let piece_bytes = PieceBytes::new(piece_bytes as u64).expect("valid");
        Geometry::new(size_bytes as u64, piece_bytes).expect("valid")
    }

    /// Feeds `bytes` in portions of `portion` and compares with BLAKE3 over the whole.
    fn check(bytes: &[u8], piece_bytes: usize, portion: usize) {
        let geometry = geometry(bytes.len(), piece_bytes);
        let mut hasher = PayloadHasher::new(geometry);
        let mut done = 0_usize;
        for part in bytes.chunks(portion) {
            assert_eq!(hasher.left_bytes(), (bytes.len() - done) as u64);
            assert_eq!(hasher.update(part), part.len());
            done += part.len();
        }
        assert_eq!(hasher.left_bytes(), 0);
        assert_eq!(hasher.update(&[1]), 0, "nothing is taken past the end");
        let (id, piece_hashes) = hasher.finish().expect("all bytes came");
        assert_eq!(
            id.as_bytes(),
            blake3::hash(bytes).as_bytes(),
            "{} bytes",
            bytes.len()
        );
        assert_eq!(piece_hashes.len(), geometry.piece_count() as usize);
        for (piece, hash) in geometry.pieces().zip(&piece_hashes) {
            let range = geometry.piece_range(piece);
            let part = &bytes[range.start as usize..range.end as usize];
            assert_eq!(piece_hash(&geometry, piece, &[part]), Some(*hash));
        }
    }

    /// The id is what BLAKE3 gives for the whole, for sizes around every boundary of pieces and
    /// chunks: empty, one piece, one piece and a byte, counts that are no power of two.
    // req: PIECE-4, PIECE-5, PIECE-6
    #[test]
    fn id_equals_blake3_of_the_whole_around_boundaries() {
        let bytes = bytes_of(18 * PIECE);
        let mut sizes = vec![0, 1, 63, 64, 65, 1023, 1024, 1025];
        for piece_count in 1..=17 {
            let end = piece_count * PIECE;
            sizes.extend([
                end - 1025,
                end - 1024,
                end - 1,
                end,
                end + 1,
                end + 1024,
                end + 1025,
            ]);
        }
        for size in sizes {
            check(&bytes[..size], PIECE, 10_000);
        }
    }

    /// The piece size changes the piece hashes and not the id.
    // req: PIECE-5
    #[test]
    fn id_does_not_depend_on_the_piece_size() {
        let bytes = bytes_of(3 * 1024 * 1024 + 77);
        for shift in 14..=24 {
            check(&bytes, 1 << shift, 131_072);
        }
    }

    /// The hash of the only piece is the id itself.
    // req: PIECE-4
    #[test]
    fn hash_of_an_only_piece_is_the_id() {
        let bytes = bytes_of(PIECE);
        let geometry = geometry(PIECE, PIECE);
        let only = geometry.piece_index(0).expect("one piece");
        let hash = piece_hash(&geometry, only, &[&bytes]).expect("whole piece");
        assert_eq!(hash.as_bytes(), blake3::hash(&bytes).as_bytes());
        assert_eq!(
            piece_hash(&geometry, only, &[&bytes[1..]]),
            None,
            "a short piece has no hash"
        );
    }

    /// An unfinished payload gives no id.
    #[test]
    fn unfinished_payload_has_no_id() {
        let mut hasher = PayloadHasher::new(geometry(2 * PIECE, PIECE));
        hasher.update(&bytes_of(2 * PIECE - 1));
        assert_eq!(hasher.piece_hashes().len(), 1);
        assert!(hasher.finish().is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Any size in any portions hashes to what BLAKE3 gives.
        // req: PIECE-5
        #[test]
        fn any_size_in_any_portions(size in 0_usize..40 * PIECE, portion in 1_usize..3 * PIECE) {
            check(&bytes_of(size), PIECE, portion.max(size / 500));
        }
    }
}
