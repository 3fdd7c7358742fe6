//! Deliberate faults, so that the crash tests can prove that they would see them.
//!
//! Without the feature `sabotage`, which no release has, every answer is a constant `false`.
//! Spec: RELIABILITY, "each suite must fail on a broken build".

/// A fault to plant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Sabotage {
    /// Nothing is wrong.
    None,
    /// Data is written but never synced.
    SkipSync,
    /// The durable position is published before the sync.
    ConfirmBeforeSync,
    /// The directory is not synced after a new segment got its name.
    SkipDirSync,
    /// Checksums are not looked at.
    IgnoreChecksums,
    /// Every segment has the same salt.
    IgnoreSalt,
    /// Damage is taken for a torn tail.
    TruncateAtFirstBad,
    /// A failed sync is tried again, and its success believed.
    RetryFailedSync,
}

#[cfg(feature = "sabotage")]
mod planted {
    use std::cell::Cell;

    use super::Sabotage;

    thread_local! {
        static PLANTED: Cell<Sabotage> = const { Cell::new(Sabotage::None) };
    }

    /// Plants a fault into the calling thread; the crash tests drive the journal on one thread.
    pub fn plant(fault: Sabotage) {
        PLANTED.set(fault);
    }

    pub(crate) fn is(fault: Sabotage) -> bool {
        PLANTED.get() == fault
    }
}

#[cfg(feature = "sabotage")]
pub use planted::plant;

#[cfg(feature = "sabotage")]
pub(crate) use planted::is;

/// Whether `fault` is planted in this thread.
#[cfg(not(feature = "sabotage"))]
#[inline]
pub(crate) fn is(_fault: Sabotage) -> bool {
    false
}

#[inline]
pub(crate) fn ignores_checksums() -> bool {
    is(Sabotage::IgnoreChecksums)
}
