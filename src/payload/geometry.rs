//! Sizes and positions: how a payload divides into pieces, and a piece into blocks.
//!
//! Owns: all arithmetic on payload sizes. A [`PieceIndex`] or [`BlockRange`] can be made only by the
//! [`Geometry`] that it is inside of, so the rest of the code need not check again.
//! Spec: `spec/manifest.md` PIECE-1 to PIECE-3, PIECE-7.

use std::ops::Range;

/// Least size of a piece, in bytes. A manifest with smaller ones is refused.
pub const PIECE_BYTES_MIN: u32 = 16 * 1024;
/// Greatest size of a piece, in bytes. A manifest with greater ones is refused.
pub const PIECE_BYTES_MAX: u32 = 16 * 1024 * 1024;
/// Most pieces of a payload; bounds a manifest's body to 2 MiB. A payload with more is refused.
pub const PIECE_COUNT_MAX: u32 = 65_536;
/// Pieces that the rule for choosing a piece size aims to stay at or below.
pub const PIECE_COUNT_AIM: u64 = 8_192;
/// Payloads that are small, in bytes: what each piece costs counts more for them than when the first one is whole.
const SMALL_PAYLOADS: Range<u64> = 1024 * 1024..4 * 1024 * 1024;
/// The size of their pieces, in bytes.
const SMALL_PAYLOAD_PIECE_BYTES: u32 = 64 * 1024;
/// Greatest payload, in bytes (1 TiB): as many pieces as may be, each as large as may be.
pub const PAYLOAD_BYTES_MAX: u64 = PIECE_COUNT_MAX as u64 * PIECE_BYTES_MAX as u64;
/// Greatest block: what one request on the wire asks for, in bytes.
pub const BLOCK_BYTES_MAX: u32 = 256 * 1024;

const _: () = assert!(PIECE_BYTES_MIN.is_power_of_two() && PIECE_BYTES_MAX.is_power_of_two());
const _: () = assert!(PIECE_COUNT_AIM <= PIECE_COUNT_MAX as u64);
const _: () = assert!(BLOCK_BYTES_MAX.is_power_of_two() && BLOCK_BYTES_MAX >= PIECE_BYTES_MIN);
// BLAKE3 hashes chunks of 1 KiB: a power of two of them from such an offset is one subtree.
const _: () = assert!(PIECE_BYTES_MIN as usize >= blake3::CHUNK_LEN);

/// The size of every piece of a payload but the last: a power of two from 16 KiB to 16 MiB.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PieceBytes(u32);

/// A piece number known to be inside its payload; made only by [`Geometry`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PieceIndex(u32);

/// A run of at most 256 KiB inside one piece: what one request on the wire asks for.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct BlockRange {
    piece: PieceIndex,
    offset_bytes: u32,
    len_bytes: u32,
}

/// How a payload of one size divides into pieces of one size.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Geometry {
    size_bytes: u64,
    piece_bytes: PieceBytes,
    piece_count: u32,
}

/// A size that no payload or piece may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// Not a power of two from 16 KiB to 16 MiB.
    #[error(
        "piece size of {got_bytes} bytes is not a power of two from {PIECE_BYTES_MIN} to {PIECE_BYTES_MAX}"
    )]
    PieceBytes {
        /// The size asked for.
        got_bytes: u64,
    },
    /// More than 65,536 pieces of the size asked for, or more than 1 TiB.
    #[error(
        "payload of {size_bytes} bytes has more than {PIECE_COUNT_MAX} pieces of {piece_bytes}"
    )]
    TooManyPieces {
        /// Size of the payload.
        size_bytes: u64,
        /// Size of its pieces.
        piece_bytes: u32,
    },
}

impl PieceBytes {
    /// Checks a piece size that came from outside.
    pub fn new(bytes: u64) -> Result<Self, GeometryError> {
        // req: PIECE-1
        match u32::try_from(bytes) {
            Ok(value)
                if value.is_power_of_two()
                    && (PIECE_BYTES_MIN..=PIECE_BYTES_MAX).contains(&value) =>
            {
                Ok(Self(value))
            }
            _ => Err(GeometryError::PieceBytes { got_bytes: bytes }),
        }
    }

    /// The piece size that Warren gives to a payload of this size. Spec: PIECE-3.
    ///
    /// The least power of two from 16 KiB that makes at most 8,192 pieces, but never over 16 MiB; 64 KiB for the small
    /// ones that are over in a moment.
    pub fn for_payload(size_bytes: u64) -> Self {
        // req: PIECE-3
        if SMALL_PAYLOADS.contains(&size_bytes) {
            return Self(SMALL_PAYLOAD_PIECE_BYTES);
        }
        let least = size_bytes
            .div_ceil(PIECE_COUNT_AIM)
            .min(u64::from(PIECE_BYTES_MAX));
        let least = u32::try_from(least)
            .unwrap_or(PIECE_BYTES_MAX)
            .max(PIECE_BYTES_MIN);
        Self(least.next_power_of_two())
    }

    /// The size in bytes.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl PieceIndex {
    /// The number, starting at 0.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number as an index into a slice with one entry for each piece.
    pub const fn as_usize(self) -> usize {
        // Fits: a piece index is below 65,536.
        self.0 as usize
    }
}

impl BlockRange {
    /// The piece that it lies in, or the first of its run.
    pub const fn piece(self) -> PieceIndex {
        self.piece
    }

    /// Where it begins in the piece, in bytes.
    pub const fn offset_bytes(self) -> u32 {
        self.offset_bytes
    }

    /// How long it is, in bytes: 1 to 256 KiB.
    pub const fn len_bytes(self) -> u32 {
        self.len_bytes
    }
}

impl Geometry {
    /// A payload of `size_bytes` cut into pieces of `piece_bytes`.
    ///
    /// Fails when that makes more than 65,536 pieces. Spec: PIECE-2.
    pub fn new(size_bytes: u64, piece_bytes: PieceBytes) -> Result<Self, GeometryError> {
        let count = size_bytes.div_ceil(u64::from(piece_bytes.get()));
        match u32::try_from(count) {
            Ok(piece_count) if piece_count <= PIECE_COUNT_MAX => Ok(Self {
                size_bytes,
                piece_bytes,
                piece_count,
            }),
            _ => Err(GeometryError::TooManyPieces {
                size_bytes,
                piece_bytes: piece_bytes.get(),
            }),
        }
    }

    /// A payload of `size_bytes` with the piece size that Warren chooses for it. Spec: PIECE-3.
    pub fn for_payload(size_bytes: u64) -> Result<Self, GeometryError> {
        Self::new(size_bytes, PieceBytes::for_payload(size_bytes))
    }

    /// Size of the payload, in bytes.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Size of every piece but the last.
    pub const fn piece_bytes(&self) -> PieceBytes {
        self.piece_bytes
    }

    /// How many pieces there are; 0 only for an empty payload.
    pub const fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// The piece with this number, if there is one.
    pub const fn piece_index(&self, index: u32) -> Option<PieceIndex> {
        if index < self.piece_count {
            Some(PieceIndex(index))
        } else {
            None
        }
    }

    /// The piece that holds the byte at `offset_bytes`, if the payload is that long.
    pub fn piece_at(&self, offset_bytes: u64) -> Option<PieceIndex> {
        let index = offset_bytes / u64::from(self.piece_bytes.get());
        self.piece_index(u32::try_from(index).ok()?)
            .filter(|_| offset_bytes < self.size_bytes)
    }

    /// All pieces, from the first to the last.
    pub fn pieces(&self) -> impl ExactSizeIterator<Item = PieceIndex> + use<> {
        (0..self.piece_count).map(PieceIndex)
    }

    /// Byte range of `piece` in the payload; all are `piece_bytes()` long, only the last may be shorter.
    ///
    /// An empty payload has no pieces, so none can be asked for. Spec: PIECE-2.
    pub fn piece_range(&self, piece: PieceIndex) -> Range<u64> {
        debug_assert!(
            piece.0 < self.piece_count,
            "a piece index belongs to its geometry"
        );
        // req: PIECE-2
        let start = u64::from(piece.0) * u64::from(self.piece_bytes.get());
        start..(start + u64::from(self.piece_bytes.get())).min(self.size_bytes)
    }

    /// Length of `piece` in bytes.
    pub fn piece_len_bytes(&self, piece: PieceIndex) -> u32 {
        let range = self.piece_range(piece);
        u32::try_from(range.end.saturating_sub(range.start)).unwrap_or(PIECE_BYTES_MAX)
    }

    /// A block that came from outside, if it is 1 to 256 KiB long and lies inside `piece`, or begins with it and is
    /// several whole pieces.
    pub fn block_range(
        &self,
        piece: PieceIndex,
        offset_bytes: u32,
        len_bytes: u32,
    ) -> Option<BlockRange> {
        // req: PIECE-7
        if !(1..=BLOCK_BYTES_MAX).contains(&len_bytes) || piece.0 >= self.piece_count {
            return None;
        }
        let block = BlockRange {
            piece,
            offset_bytes,
            len_bytes,
        };
        let is_inside = offset_bytes.checked_add(len_bytes)? <= self.piece_len_bytes(piece);
        let is_run = || {
            let is_there = self.block_bytes(block).end <= self.size_bytes;
            offset_bytes == 0 && is_there && self.ends_piece(block)
        };
        (is_inside || is_run()).then_some(block)
    }

    /// All pieces from `first` on.
    pub fn pieces_from(&self, first: PieceIndex) -> impl Iterator<Item = PieceIndex> + use<> {
        (first.0..self.piece_count).map(PieceIndex)
    }

    /// The block that is `count` whole pieces from `first` on; `None` if those are not there, or longer than 256 KiB.
    pub fn run_of(&self, first: PieceIndex, count: u32) -> Option<BlockRange> {
        let last = self.piece_index(first.0.checked_add(count.checked_sub(1)?)?)?;
        let len_bytes = self.piece_range(last).end - self.piece_range(first).start;
        self.block_range(first, 0, u32::try_from(len_bytes).ok()?)
    }

    /// How many pieces are at most one block together: 1 if a piece is as long or longer.
    pub const fn pieces_per_block(&self) -> u32 {
        let count = BLOCK_BYTES_MAX / self.piece_bytes.get();
        if count == 0 { 1 } else { count }
    }

    /// The pieces that `block` is, or is of: one, or the several of a run.
    pub fn pieces_of(
        &self,
        block: BlockRange,
    ) -> impl ExactSizeIterator<Item = PieceIndex> + use<> {
        let end = block.offset_bytes + block.len_bytes;
        let count = end.div_ceil(self.piece_bytes.get());
        (block.piece.0..block.piece.0 + count).map(PieceIndex)
    }

    /// `block` as parts of single pieces, in order.
    pub fn split(&self, block: BlockRange) -> impl Iterator<Item = BlockRange> + use<> {
        let geometry = *self;
        let is_run = self.pieces_of(block).len() > 1;
        self.pieces_of(block).map(move |piece| match is_run {
            true => BlockRange {
                piece,
                offset_bytes: 0,
                len_bytes: geometry.piece_len_bytes(piece),
            },
            false => block,
        })
    }

    /// Whether `block` ends where a piece does.
    pub fn ends_piece(&self, block: BlockRange) -> bool {
        let end = self.block_bytes(block).end;
        end.is_multiple_of(u64::from(self.piece_bytes.get())) || end == self.size_bytes
    }

    /// The blocks of `piece` in order: each 256 KiB long, only the last may be shorter.
    pub fn blocks(&self, piece: PieceIndex) -> impl ExactSizeIterator<Item = BlockRange> + use<> {
        let piece_len = self.piece_len_bytes(piece);
        (0..piece_len.div_ceil(BLOCK_BYTES_MAX)).map(move |number| {
            let offset_bytes = number * BLOCK_BYTES_MAX;
            let len_bytes = (piece_len - offset_bytes).min(BLOCK_BYTES_MAX);
            BlockRange {
                piece,
                offset_bytes,
                len_bytes,
            }
        })
    }

    /// Byte range of `block` in the payload.
    pub fn block_bytes(&self, block: BlockRange) -> Range<u64> {
        let start = self.piece_range(block.piece).start + u64::from(block.offset_bytes);
        start..start + u64::from(block.len_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1024;
    const MIB: u64 = 1024 * KIB;
    const GIB: u64 = 1024 * MIB;

    /// Only powers of two from 16 KiB to 16 MiB are piece sizes.
    // req: PIECE-1
    #[test]
    fn piece_size_must_be_a_power_of_two_in_bounds() {
        for bytes in [16 * KIB, 32 * KIB, MIB, 16 * MIB] {
            assert_eq!(
                PieceBytes::new(bytes).map(|size| u64::from(size.get())),
                Ok(bytes)
            );
        }
        for bytes in [
            0,
            1,
            8 * KIB,
            24 * KIB,
            16 * KIB + 1,
            32 * MIB,
            u64::MAX,
            1 << 32,
        ] {
            assert_eq!(
                PieceBytes::new(bytes),
                Err(GeometryError::PieceBytes { got_bytes: bytes })
            );
        }
    }

    /// The table of `spec/manifest.md`.
    // req: PIECE-3
    #[test]
    fn chosen_piece_size_follows_the_table() {
        for (size_bytes, piece_bytes) in [
            (0, 16 * KIB),
            (MIB - 1, 16 * KIB),
            (MIB, 64 * KIB),
            (4 * MIB - 1, 64 * KIB),
            (4 * MIB, 16 * KIB),
            (100_000_000, 16 * KIB),
            (128 * MIB, 16 * KIB),
            (128 * MIB + 1, 32 * KIB),
            (1_000_000_000, 128 * KIB),
            (GIB, 128 * KIB),
            (4 * GIB, 512 * KIB),
            (10_000_000_000, 2 * MIB),
            (16 * GIB, 2 * MIB),
            (128 * GIB, 16 * MIB),
            (PAYLOAD_BYTES_MAX, 16 * MIB),
            (u64::MAX, 16 * MIB),
        ] {
            let chosen = PieceBytes::for_payload(size_bytes);
            assert_eq!(u64::from(chosen.get()), piece_bytes, "{size_bytes}");
        }
    }

    /// More than 65,536 pieces make no payload.
    // req: PIECE-2
    #[test]
    fn payload_with_too_many_pieces_is_refused() {
        let geometry = Geometry::for_payload(PAYLOAD_BYTES_MAX).expect("the greatest payload");
        assert_eq!(geometry.piece_count(), PIECE_COUNT_MAX);
        assert!(Geometry::for_payload(PAYLOAD_BYTES_MAX + 1).is_err());
        let smallest = PieceBytes::new(16 * KIB).expect("valid");
        assert!(Geometry::new(GIB, smallest).is_ok());
        assert!(Geometry::new(GIB + 1, smallest).is_err());
        assert!(Geometry::new(u64::MAX, smallest).is_err());
    }

    /// An empty payload has no pieces.
    // req: PIECE-2
    #[test]
    fn empty_payload_has_no_pieces() {
        let geometry = Geometry::for_payload(0).expect("valid");
        assert_eq!(geometry.piece_count(), 0);
        assert_eq!(geometry.piece_index(0), None);
        assert_eq!(geometry.piece_at(0), None);
    }

    /// A block beyond its piece, empty or too long is refused.
    // req: PIECE-7
    #[test]
    fn block_outside_its_piece_is_refused() {
        let piece_bytes = PieceBytes::new(MIB).expect("valid");
        let geometry = Geometry::new(MIB + 100, piece_bytes).expect("valid");
        let last = geometry.piece_index(1).expect("two pieces");
        assert!(geometry.block_range(last, 0, 100).is_some());
        assert!(geometry.block_range(last, 99, 1).is_some());
        for (offset_bytes, len_bytes) in [(0, 0), (0, 101), (100, 1), (u32::MAX, 2)] {
            assert_eq!(geometry.block_range(last, offset_bytes, len_bytes), None);
        }
        let first = geometry.piece_index(0).expect("two pieces");
        assert!(geometry.block_range(first, 0, BLOCK_BYTES_MAX).is_some());
        assert_eq!(geometry.block_range(first, 0, BLOCK_BYTES_MAX + 1), None);
    }

    /// Several pieces are a block only if they are whole and no longer than one together.
    // req: PIECE-7
    #[test]
    fn run_is_of_whole_pieces() {
        let piece_bytes = PieceBytes::new(64 * KIB).expect("valid");
        let geometry = Geometry::new(64 * KIB * 6 + 100, piece_bytes).expect("valid");
        let piece = |index| geometry.piece_index(index).expect("inside");
        let kib = 1024;
        for (first, offset, len, is_block) in [
            (0, 0, 128 * kib, true),
            (2, 0, 256 * kib, true),
            (4, 0, 128 * kib + 100, true),
            (0, 0, 128 * kib + 1, false),
            (0, 0, 96 * kib, false),
            (0, 64 * kib, 64 * kib, false),
            (0, 32 * kib, 96 * kib, false),
            (2, 0, 256 * kib + 100, false),
            (5, 0, 64 * kib + 101, false),
            (6, 0, 101, false),
        ] {
            let block = geometry.block_range(piece(first), offset, len);
            assert_eq!(block.is_some(), is_block, "{first} {offset} {len}");
        }
        assert_eq!(geometry.pieces_per_block(), 4);
        assert!(geometry.run_of(piece(2), 4).is_some());
        assert_eq!(geometry.run_of(piece(2), 5), None);
        assert_eq!(geometry.run_of(piece(5), 3), None);
        assert_eq!(geometry.run_of(piece(5), 0), None);
    }

    proptest! {
        /// Pieces, and the blocks of each piece, cover the payload once and in order.
        // req: PIECE-2, PIECE-7
        #[test]
        fn pieces_and_blocks_tile_the_payload(size_bytes in 0_u64..40 * MIB, shift in 14_u32..=24) {
            let piece_bytes = PieceBytes::new(1 << shift).expect("in bounds");
            let geometry = Geometry::new(size_bytes, piece_bytes).expect("few pieces");
            let mut position = 0;
            for piece in geometry.pieces() {
                prop_assert_eq!(geometry.piece_range(piece).start, position);
                prop_assert_eq!(geometry.piece_at(position), Some(piece));
                for block in geometry.blocks(piece) {
                    let range = geometry.block_bytes(block);
                    prop_assert_eq!(range.start, position);
                    let again =
                        geometry.block_range(piece, block.offset_bytes(), block.len_bytes());
                    prop_assert_eq!(again, Some(block));
                    position = range.end;
                }
                prop_assert_eq!(geometry.piece_range(piece).end, position);
            }
            prop_assert_eq!(position, size_bytes);
        }

        /// A run is split into its pieces, which are its bytes in order.
        // req: PIECE-7
        #[test]
        fn runs_are_their_pieces(
            size_bytes in 1_u64..4 * MIB,
            shift in 14_u32..=18,
            first in 0_u32..256,
            count in 1_u32..20,
        ) {
            let piece_bytes = PieceBytes::new(1 << shift).expect("in bounds");
            let geometry = Geometry::new(size_bytes, piece_bytes).expect("few pieces");
            let first = first % geometry.piece_count();
            let piece = geometry.piece_index(first).expect("inside");
            let run = geometry.run_of(piece, count);
            let is_there = first + count <= geometry.piece_count();
            let is_short = count <= geometry.pieces_per_block();
            prop_assert!(run.is_some() || !(is_there && is_short));
            let Some(run) = run else { return Ok(()) };
            prop_assert!(is_there);
            prop_assert!(geometry.ends_piece(run));
            let pieces: Vec<u32> = geometry.pieces_of(run).map(PieceIndex::get).collect();
            prop_assert_eq!(pieces, (first..first + count).collect::<Vec<u32>>());
            let mut position = geometry.block_bytes(run).start;
            for part in geometry.split(run) {
                prop_assert_eq!(geometry.block_bytes(part), geometry.piece_range(part.piece()));
                prop_assert_eq!(geometry.block_bytes(part).start, position);
                position = geometry.block_bytes(part).end;
            }
            prop_assert_eq!(position, geometry.block_bytes(run).end);
        }

        /// From 4 MiB to 128 GiB the rule gives 256 to 8,192 pieces.
        // req: PIECE-3
        #[test]
        fn chosen_piece_size_gives_256_to_8192_pieces(size_bytes in 4 * MIB..=128 * GIB) {
            let geometry = Geometry::for_payload(size_bytes).expect("in bounds");
            prop_assert!((256..=8_192).contains(&geometry.piece_count()));
        }
    }
}
