//! Deliberate faults, so that the crash tests can prove that they would see them.
//!
//! Owns: which fault is planted, in a thread (tests that drive a core by hand) or in the whole process
//! (`WARREN_SABOTAGE` of a build with the feature). Without the feature `sabotage`, which no release
//! has, every answer is a constant `false`.
//! Spec: RELIABILITY 7.1, "each suite must fail on a broken build".

#[cfg(feature = "sabotage")]
pub mod disk;

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
    /// A message that comes back to its queue is not marked as redelivered.
    RequeueLosesFlag,
    /// A piece is taken without comparing it with its hash.
    PieceUnchecked,
    /// A payload is told to be stored before its bytes are synced.
    PayloadUnsynced,
    /// The directory is not synced after a payload got its name.
    PayloadSkipDirSync,
    /// Files of a payload go before the acknowledgements that freed it are durable.
    PayloadRemovedEarly,
}

impl Sabotage {
    /// Every fault, by the name that `WARREN_SABOTAGE` takes.
    pub const ALL: [(&'static str, Self); 12] = [
        ("skip-sync", Self::SkipSync),
        ("confirm-before-sync", Self::ConfirmBeforeSync),
        ("skip-dir-sync", Self::SkipDirSync),
        ("ignore-checksums", Self::IgnoreChecksums),
        ("ignore-salt", Self::IgnoreSalt),
        ("truncate-at-first-bad", Self::TruncateAtFirstBad),
        ("retry-failed-sync", Self::RetryFailedSync),
        ("requeue-loses-flag", Self::RequeueLosesFlag),
        ("piece-unchecked", Self::PieceUnchecked),
        ("payload-unsynced", Self::PayloadUnsynced),
        ("payload-skip-dir-sync", Self::PayloadSkipDirSync),
        ("payload-removed-early", Self::PayloadRemovedEarly),
    ];
}

#[cfg(feature = "sabotage")]
mod planted {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::Sabotage;

    thread_local! {
        static PLANTED: Cell<Sabotage> = const { Cell::new(Sabotage::None) };
    }
    static EVERYWHERE: AtomicU8 = AtomicU8::new(Sabotage::None as u8);

    /// Plants a fault into the calling thread; the crash tests drive the cores on one thread.
    pub fn plant(fault: Sabotage) {
        PLANTED.set(fault);
    }

    /// Plants a fault into every thread of the process.
    pub fn plant_everywhere(fault: Sabotage) {
        EVERYWHERE.store(fault as u8, Ordering::Relaxed);
    }

    /// Plants the fault that `WARREN_SABOTAGE` names into every thread, and says so.
    ///
    /// # Panics
    /// If there is no such fault: a test that plants nothing proves nothing.
    #[allow(clippy::disallowed_methods)]
    pub fn plant_from_environment() {
        if let Ok(text) = std::env::var("WARREN_SABOTAGE") {
            let found = Sabotage::ALL.iter().find(|(name, _)| *name == text);
            let (_, fault) = found.unwrap_or_else(|| panic!("no such fault: {text}"));
            tracing::error!(?fault, "a fault is planted");
            plant_everywhere(*fault);
        }
    }

    pub(crate) fn is(fault: Sabotage) -> bool {
        PLANTED.get() == fault || EVERYWHERE.load(Ordering::Relaxed) == fault as u8
    }
}

#[cfg(feature = "sabotage")]
pub use planted::{plant, plant_everywhere, plant_from_environment};

#[cfg(feature = "sabotage")]
pub(crate) use planted::is;

/// Whether `fault` is planted in this thread.
#[cfg(not(feature = "sabotage"))]
#[inline]
pub(crate) const fn is(_fault: Sabotage) -> bool {
    false
}

#[inline]
pub(crate) fn ignores_checksums() -> bool {
    is(Sabotage::IgnoreChecksums)
}
