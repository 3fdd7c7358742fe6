//! A recorded run of a disk, and the crash points in it.

use super::SimDisk;
use super::durable::{CrashVariant, Durable};
use super::image::Change;

/// A recorded run: the disk as it began, and each change; each gives one crash point.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub(super) start: Durable,
    pub(super) changes: Vec<Change>,
}

impl History {
    /// How many changes were recorded; there is one crash point more than that.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Walks through all crash points in order.
    pub fn crash_points(&self) -> CrashPoints<'_> {
        CrashPoints {
            durable: self.start.clone(),
            changes: &self.changes,
            index: 0,
        }
    }
}

/// The crash points of a recorded run: after 0, 1, 2, ... changes.
#[derive(Clone, Debug)]
pub struct CrashPoints<'a> {
    durable: Durable,
    changes: &'a [Change],
    index: usize,
}

impl CrashPoints<'_> {
    /// How many changes have been made at this point.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The disk that a crash at this point leaves.
    pub fn crash(&self, variant: CrashVariant, seed: u64) -> SimDisk {
        SimDisk::from_image(self.durable.crash(variant, seed))
    }

    /// The disk that a killed process leaves at this point: all of its changes are seen by the next one,
    /// and those that were not synced may yet be lost when the power fails.
    pub fn kill(&self) -> SimDisk {
        SimDisk::from_parts(self.durable.live(), self.durable.clone())
    }

    /// Goes one change further; `false` at the end.
    pub fn advance(&mut self) -> bool {
        let Some(change) = self.changes.get(self.index) else {
            return false;
        };
        self.durable.apply(change);
        self.index += 1;
        true
    }
}
