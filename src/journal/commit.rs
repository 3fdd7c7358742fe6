//! Group commit: what came while the last sync ran goes with the next.
//!
//! Owns: the sync thread and the durable position. Spec: `spec/journal.md`, "Commit".

use super::types::Lsn;

/// A position up to which every record is durable; only the sync thread makes one.
///
/// What releases confirms takes this type, so that nothing else can be mistaken for it.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct DurableLsn(Lsn);

impl DurableLsn {
    /// The last durable record's number.
    pub fn lsn(self) -> Lsn {
        self.0
    }

    /// Whether the record `lsn` is durable.
    pub fn covers(self, lsn: Lsn) -> bool {
        lsn <= self.0
    }
}

/// What all handles of a journal share.
#[derive(Debug, Default)]
pub(super) struct Shared {}

impl Shared {
    pub(super) fn durable(&self) -> DurableLsn {
        DurableLsn(Lsn::ZERO)
    }
}
