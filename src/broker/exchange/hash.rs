//! A hash that stays the same for ever: across restarts, versions and machines.
//!
//! Owns: FNV-1a over the octets, then a mixing of the bits. What is hashed is chosen by publishers who
//! gain nothing from a collision but an uneven spread of their own messages.

/// The hash of some octets.
pub(super) fn hash(octets: &[u8]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for octet in octets {
        hash ^= u64::from(*octet);
        hash = hash.wrapping_mul(0x0000_0100_0000_01b3);
    }
    mix(hash)
}

/// Spreads each bit over all others (the finalizer of SplitMix64).
pub(super) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A number below `count`, evenly; 0 if `count` is.
pub(super) fn below(hash: u64, count: usize) -> usize {
    let product = u128::from(hash) * (count as u128);
    usize::try_from(product >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written down once: another value would move messages to other queues at an update.
    #[test]
    fn hashes_never_change() {
        assert_eq!(hash(b""), 0xc381_7c01_6ba4_ff30);
        assert_eq!(hash(b"key"), 0xf536_3672_3d1b_f996);
    }

    #[test]
    fn numbers_stay_below_the_count() {
        assert_eq!(below(u64::MAX, 0), 0);
        assert_eq!(below(u64::MAX, 7), 6);
        assert_eq!(below(0, 7), 0);
    }
}
