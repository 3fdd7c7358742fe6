//! Which pieces of a payload are held.
//!
//! Owns: one bit for each piece and its wire form. Bound: 65,536 bits, 8 KiB.
//! Spec: `spec/manifest.md` PIECE-8.

use crate::payload::geometry::{Geometry, PieceIndex};

const WORD_BITS: u32 = u64::BITS;

/// One bit for each piece of a payload: set when the piece is held and verified.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bitfield {
    words: Vec<u64>,
    piece_count: u32,
    held_count: u32,
}

/// Bytes that are not the wire form of a bitfield for the payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BitfieldError {
    /// A bitfield has exactly one bit for each piece, filled up to whole bytes.
    #[error("bitfield of {got_bytes} bytes where the payload needs {want_bytes}")]
    Length {
        /// Bytes that came.
        got_bytes: usize,
        /// Bytes for this payload.
        want_bytes: usize,
    },
    /// A bit after the last piece is set.
    #[error("bitfield has a bit set after its last piece")]
    SpareBit,
}

impl Bitfield {
    /// No piece of the payload held.
    pub fn empty(geometry: &Geometry) -> Self {
        let piece_count = geometry.piece_count();
        Self {
            words: vec![0; piece_count.div_ceil(WORD_BITS) as usize],
            piece_count,
            held_count: 0,
        }
    }

    /// No piece held, of the same payload.
    #[must_use]
    pub fn emptied(&self) -> Self {
        Self {
            words: vec![0; self.words.len()],
            piece_count: self.piece_count,
            held_count: 0,
        }
    }

    /// Every piece of the payload held.
    pub fn full(geometry: &Geometry) -> Self {
        let mut bitfield = Self::empty(geometry);
        for piece in geometry.pieces() {
            bitfield.set(piece);
        }
        bitfield
    }

    /// Reads the wire form: bit 7 of the first byte is piece 0, bits after the last piece are zero.
    pub fn from_bytes(geometry: &Geometry, bytes: &[u8]) -> Result<Self, BitfieldError> {
        // req: PIECE-8
        let want_bytes = geometry.piece_count().div_ceil(8) as usize;
        if bytes.len() != want_bytes {
            return Err(BitfieldError::Length {
                got_bytes: bytes.len(),
                want_bytes,
            });
        }
        let mut words: Vec<u64> = Vec::with_capacity(bytes.len().div_ceil(8));
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            words.push(u64::from_be_bytes(word));
        }
        let piece_count = geometry.piece_count();
        let used_bits = piece_count % WORD_BITS;
        if used_bits > 0 && words.last().is_some_and(|word| word << used_bits != 0) {
            return Err(BitfieldError::SpareBit);
        }
        let held_count = words.iter().map(|word| word.count_ones()).sum();
        Ok(Self {
            words,
            piece_count,
            held_count,
        })
    }

    /// The wire form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self
            .words
            .iter()
            .flat_map(|word| word.to_be_bytes())
            .collect();
        bytes.truncate(self.piece_count.div_ceil(8) as usize);
        bytes
    }

    /// Whether `piece` is held.
    pub fn has(&self, piece: PieceIndex) -> bool {
        let (word_index, mask) = Self::place(piece);
        self.words
            .get(word_index)
            .is_some_and(|word| word & mask != 0)
    }

    /// Marks `piece` as held; answers whether it was not held before.
    pub fn set(&mut self, piece: PieceIndex) -> bool {
        debug_assert!(
            piece.get() < self.piece_count,
            "the piece belongs to this payload"
        );
        let (word_index, mask) = Self::place(piece);
        match self.words.get_mut(word_index) {
            Some(word) if *word & mask == 0 => {
                *word |= mask;
                self.held_count += 1;
                true
            }
            _ => false,
        }
    }

    /// Marks `piece` as not held; answers whether it was held before.
    pub fn clear(&mut self, piece: PieceIndex) -> bool {
        let (word_index, mask) = Self::place(piece);
        match self.words.get_mut(word_index) {
            Some(word) if *word & mask != 0 => {
                *word &= !mask;
                self.held_count -= 1;
                true
            }
            _ => false,
        }
    }

    /// How many pieces the payload has.
    pub const fn piece_count(&self) -> u32 {
        self.piece_count
    }

    /// How many pieces are held.
    pub const fn held_count(&self) -> u32 {
        self.held_count
    }

    /// Whether every piece is held; true for an empty payload.
    pub const fn is_full(&self) -> bool {
        self.held_count == self.piece_count
    }

    /// Whether no piece is held.
    pub const fn is_empty(&self) -> bool {
        self.held_count == 0
    }

    /// The pieces of `geometry` that are held, in order.
    pub fn held<'a>(&'a self, geometry: &Geometry) -> impl Iterator<Item = PieceIndex> + use<'a> {
        pieces(*geometry, self.words.iter().copied())
    }

    /// The pieces of `geometry` that both hold, in order. Costs a step for each 64 pieces and one for each answer.
    pub fn held_by_both<'a>(
        &'a self,
        other: &'a Self,
        geometry: &Geometry,
    ) -> impl Iterator<Item = PieceIndex> + use<'a> {
        let words = self.words.iter().zip(&other.words);
        pieces(*geometry, words.map(|(mine, theirs)| mine & theirs))
    }

    /// A piece of `geometry` that all three hold, of several one that `salt` decides. Costs a step for each 64 pieces at most.
    pub fn one_of_all(fields: [&Self; 3], geometry: &Geometry, salt: u64) -> Option<PieceIndex> {
        let [first, second, third] = fields.map(|field| field.words.as_slice());
        let count = first.len();
        // An odd step visits each of a power of two of places once.
        let places = count.next_power_of_two();
        let step = (salt as usize) | 1;
        let start = (salt >> 32) as usize;
        (0..places)
            .map(|turn| start.wrapping_add(turn.wrapping_mul(step)) & (places - 1))
            .find_map(|at| {
                let word = first.get(at)? & second.get(at)? & third.get(at)?;
                let turned = (salt.rotate_left(at as u32) >> 58) as u32;
                let rotated = word.rotate_left(turned);
                let place =
                    (rotated != 0).then(|| (rotated.leading_zeros() + turned) % WORD_BITS)?;
                geometry.piece_index(u32::try_from(at).ok()? * WORD_BITS + place)
            })
    }

    /// The pieces of `geometry` that are not held, in order.
    pub fn missing<'a>(
        &'a self,
        geometry: &Geometry,
    ) -> impl Iterator<Item = PieceIndex> + use<'a> {
        geometry.pieces().filter(|piece| !self.has(*piece))
    }

    /// Whether `self` holds a piece that `other` does not: whether a peer is worth asking.
    pub fn has_any_not_in(&self, other: &Self) -> bool {
        self.words
            .iter()
            .zip(&other.words)
            .any(|(mine, theirs)| mine & !theirs != 0)
    }

    fn place(piece: PieceIndex) -> (usize, u64) {
        let word_index = (piece.get() / WORD_BITS) as usize;
        (word_index, 1 << (WORD_BITS - 1 - piece.get() % WORD_BITS))
    }
}

/// The pieces whose bits are set in `words`, in order.
fn pieces(
    geometry: Geometry,
    words: impl Iterator<Item = u64>,
) -> impl Iterator<Item = PieceIndex> {
    let firsts = (0..).step_by(WORD_BITS as usize);
    firsts.zip(words).flat_map(move |(first, word)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            let place = rest.leading_zeros();
            // Of a word without a bit left there are as many leading zeros as bits.
            rest &= !(1_u64 << (WORD_BITS - 1)).checked_shr(place)?;
            geometry.piece_index(first + place)
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::payload::geometry::PieceBytes;

    fn geometry(piece_count: u32) -> Geometry {
        let piece_bytes = PieceBytes::new(16 * 1024).expect("valid");
        Geometry::new(u64::from(piece_count) * 16 * 1024, piece_bytes).expect("valid")
    }

    /// Piece 0 is the highest bit of the first byte.
    // req: PIECE-8
    #[test]
    fn first_piece_is_the_highest_bit() {
        let geometry = geometry(10);
        let mut bitfield = Bitfield::empty(&geometry);
        assert!(bitfield.set(geometry.piece_index(0).expect("inside")));
        assert!(bitfield.set(geometry.piece_index(9).expect("inside")));
        assert!(!bitfield.set(geometry.piece_index(9).expect("inside")));
        assert_eq!(bitfield.to_bytes(), [0b1000_0000, 0b0100_0000]);
        assert_eq!(bitfield.held_count(), 2);
        assert!(bitfield.clear(geometry.piece_index(9).expect("inside")));
        assert_eq!(bitfield.to_bytes(), [0b1000_0000, 0]);
    }

    /// A wrong length or a bit after the last piece is refused.
    // req: PIECE-8
    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let ten = geometry(10);
        let length = BitfieldError::Length {
            got_bytes: 1,
            want_bytes: 2,
        };
        assert_eq!(Bitfield::from_bytes(&ten, &[0]), Err(length));
        assert!(Bitfield::from_bytes(&ten, &[0, 0, 0]).is_err());
        assert_eq!(
            Bitfield::from_bytes(&ten, &[0, 0b0010_0000]),
            Err(BitfieldError::SpareBit)
        );
        assert!(Bitfield::from_bytes(&ten, &[0xff, 0b1100_0000]).is_ok_and(|all| all.is_full()));
        let none = geometry(0);
        assert!(Bitfield::from_bytes(&none, &[]).is_ok_and(|all| all.is_full() && all.is_empty()));
    }

    proptest! {
        /// The wire form goes both ways for every set of pieces.
        // req: PIECE-8
        #[test]
        fn wire_form_round_trips(held in proptest::collection::vec(any::<bool>(), 0..300), salt in any::<u64>()) {
            let geometry = geometry(held.len() as u32);
            let mut bitfield = Bitfield::empty(&geometry);
            for piece in geometry.pieces().filter(|piece| held[piece.as_usize()]) {
                bitfield.set(piece);
            }
            let again = Bitfield::from_bytes(&geometry, &bitfield.to_bytes());
            prop_assert_eq!(again.as_ref(), Ok(&bitfield));
            let count = held.iter().filter(|held| **held).count();
            prop_assert_eq!(bitfield.held_count() as usize, count);
            prop_assert_eq!(bitfield.held(&geometry).count(), count);
            let one_by_one = geometry.pieces().filter(|piece| bitfield.has(*piece));
            prop_assert!(bitfield.held(&geometry).eq(one_by_one));
            let mut even = Bitfield::empty(&geometry);
            for piece in geometry.pieces().step_by(2) {
                even.set(piece);
            }
            let both = bitfield.held(&geometry).filter(|piece| even.has(*piece));
            prop_assert!(bitfield.held_by_both(&even, &geometry).eq(both));
            let one = Bitfield::one_of_all([&bitfield, &even, &Bitfield::full(&geometry)], &geometry, salt);
            prop_assert_eq!(one.is_some(), bitfield.held_by_both(&even, &geometry).next().is_some());
            prop_assert!(one.is_none_or(|piece| bitfield.has(piece) && even.has(piece)));
            prop_assert_eq!(bitfield.missing(&geometry).count(), held.len() - count);
            prop_assert_eq!(Bitfield::full(&geometry).has_any_not_in(&bitfield), count < held.len());
        }
    }
    /// Every piece is the choice of some salt.
    #[test]
    fn a_salt_may_choose_any_piece() {
        let geometry = geometry(150);
        let all = Bitfield::full(&geometry);
        let mut chosen = Bitfield::empty(&geometry);
        for salt in (0..5_000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let piece = Bitfield::one_of_all([&all, &all, &all], &geometry, salt);
            chosen.set(piece.expect("there are pieces"));
        }
        assert!(chosen.is_full(), "{} of 150", chosen.held_count());
    }
}
